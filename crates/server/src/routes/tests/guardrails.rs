//! Guardrails, from their configuration to what a caller sees.

use serde_json::{Value, json};

use super::Answered;
use super::stored::{ADMIN, Stored};
use crate::gate::{Access, Aides};

const GATEWAY: &str = "/api/2.0/serving-endpoints/guarded/ai-gateway";
const CHAT: &str = "/serving-endpoints/chat/completions";

/// A server with an endpoint `guarded` of that model, whose guardrails are these.
async fn guarded(model: &str, guardrails: Value) -> Stored {
    let aides = Aides { judge: Some("judge".into()), topics: Some("topics".into()), ..Aides::default() };
    let stored = Stored::with(Access { aides, ..Access::token(ADMIN) }).await;
    for (name, model) in [("guarded", model), ("judge", "judge"), ("topics", "topics")] {
        stored.endpoint(name, model).await;
    }
    let put = stored.call("PUT", GATEWAY, json!({"guardrails": guardrails})).await;
    assert_eq!((put.status.as_u16(), &put.json()["guardrails"]), (200, &guardrails), "{}", put.body);
    stored
}

async fn say(stored: &Stored, text: &str, more: Value) -> Answered {
    let mut body = json!({"model": "guarded", "messages": [{"role": "user", "content": text}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    stored.call("POST", CHAT, body).await
}

fn content(answer: &Answered) -> String {
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

fn streamed(answer: &Answered) -> String {
    let events = answer.events();
    events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
}

/// The document that tells why a request was refused.
fn document(answer: &Answered) -> Value {
    assert_eq!((answer.status.as_u16(), &answer.json()["error_code"]), (400, &json!("BAD_REQUEST")), "{}", answer.body);
    serde_json::from_str(answer.json()["message"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn a_mask_stands_in_every_text_that_the_model_reads() {
    let stored = guarded("mirror", json!({"input": {"pii": {"behavior": "MASK"}}})).await;
    let mail = "ann@example.org";
    let tool = json!({"type": "function", "function": {
        "name": "send", "description": mail, "parameters": {"type": "object", "properties": {"to": {"enum": [mail]}}}
    }});
    let call = json!({"id": "1", "type": "function", "function": {"name": "send", "arguments": format!("{{\"to\":\"{mail}\"}}")}});
    let body = json!({
        "model": "guarded", "tools": [tool], "user": mail, "stop": [mail], "messages": [
            {"role": "system", "content": mail}, {"role": "user", "name": mail, "content": [{"type": "text", "text": mail}]},
            {"role": "user", "content": [
                {"type": "text", "text": mail}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
            ]},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": mail}
        ]
    });
    let seen = content(&stored.call("POST", CHAT, body).await);
    // What is generated stops where the caller said, which no provider reads.
    let seen = seen.replace(&format!("stop: [\"{mail}\"]"), "");
    assert!(!seen.contains(mail), "{seen}");
    assert_eq!(seen.matches("<EMAIL_ADDRESS>").count(), 13, "{seen}");

    let completion = json!({"model": "guarded", "prompt": ["a", mail], "use_raw_prompt": true});
    let answer = stored.call("POST", "/serving-endpoints/completions", completion).await;
    let seen = answer.json()["choices"][0]["text"].as_str().unwrap().to_owned();
    assert!(!seen.contains(mail) && seen.contains("<EMAIL_ADDRESS>"), "{seen}");
    let tokens = json!({"model": "guarded", "prompt": [1, 2], "use_raw_prompt": true});
    let answer = stored.call("POST", "/serving-endpoints/completions", tokens).await;
    assert!(answer.status == 400 && answer.body.contains("`prompt`"), "{}", answer.body);
}

#[tokio::test]
async fn texts_to_embed_and_to_rank_are_read_too() {
    let stored =
        guarded("topics", json!({"input": {"pii": {"behavior": "MASK"}, "invalid_keywords": ["falcon"]}})).await;
    let embed = async |fields: Value| {
        let mut body = json!({"model": "guarded"});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        stored.call("POST", "/serving-endpoints/embeddings", body).await
    };
    for fields in [json!({"input": ["a", "ann@example.org"]}), json!({"input": "a", "instruction": "ann@example.org"})]
    {
        assert_eq!(embed(fields).await.json()["data"][0]["embedding"][2], 1.0);
    }
    assert_eq!(document(&embed(json!({"input": ["a", "Falcon"]})).await)["finishReason"], "input_guardrail_triggered");
    let answer = embed(json!({"input": [1, 2]})).await;
    assert!(answer.status == 400 && answer.body.contains("`input`"), "{}", answer.body);
    let stored =
        guarded("ranks", json!({"input": {"pii": {"behavior": "MASK"}, "invalid_keywords": ["falcon"]}})).await;
    for (query, text, is_refused) in
        [("ann@example.org", "a", false), ("a", "ann@example.org", false), ("falcon", "a", true), ("a", "falcon", true)]
    {
        let body = json!({"model": "guarded", "query": query, "documents": ["b", text]});
        let answer = stored.call("POST", "/v1/rerank", body).await;
        if is_refused {
            assert!(answer.status == 400 && answer.body.contains("input_guardrail"), "{}", answer.body);
        } else {
            // The model saw a mask.
            assert_eq!(answer.json()["results"][0]["relevance_score"], 0.5, "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn a_refused_request_is_told_in_the_clients_words() {
    let guardrails = json!({"input": {"pii": {"behavior": "BLOCK"}, "invalid_keywords": ["Falcon"]}});
    let stored = guarded("parrot", guardrails).await;
    assert_eq!(content(&say(&stored, "falconry", json!({})).await), "falconry");
    let answer = say(&stored, "I am ann@example.org", json!({})).await;
    let expected = json!({
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
        "input_guardrail": [{
            "flagged": false, "categories": {}, "category_scores": {}, "pii_detection": true,
            "anonymized_input": [{"role": "user", "content": "I am <EMAIL_ADDRESS>"}]
        }],
        "finishReason": "input_guardrail_triggered"
    });
    assert_eq!(document(&answer), expected);
    // Longer than messages of errors are otherwise, and than what is searched at once.
    let long = format!("{} FALCON", "a ".repeat(40_000));
    for more in [json!({}), json!({"stream": true})] {
        let verdict = document(&say(&stored, &long, more).await)["input_guardrail"][0].clone();
        assert_eq!((&verdict["flagged"], &verdict["categories"]["invalid_keywords"]), (&json!(true), &json!(true)));
        assert_eq!(verdict["anonymized_input"][0]["content"], long);
    }
    // In OpenAI's dialect the document is the message too.
    let body = json!({"model": "guarded", "messages": [{"role": "user", "content": "falcon"}]});
    let error = stored.call("POST", "/v1/chat/completions", body).await.json()["error"].clone();
    assert_eq!(error["code"], "content_filter");
    assert!(serde_json::from_str::<Value>(error["message"].as_str().unwrap()).unwrap()["input_guardrail"].is_array());
}

#[tokio::test]
async fn an_answer_is_masked_plain_and_streamed_alike() {
    let stored = guarded("parrot", json!({"output": {"pii": {"behavior": "MASK"}}})).await;
    let text = "Card 4111 1111 1111 1111, mail ann@example.org or 10.0.0.1";
    let masked = "Card <CREDIT_CARD>, mail <EMAIL_ADDRESS> or <IP_ADDRESS>";
    let plain = say(&stored, text, json!({"n": 2})).await;
    assert_eq!(content(&plain), masked);
    assert_eq!(plain.json()["usage"], json!({"prompt_tokens": 11, "completion_tokens": 10, "total_tokens": 21}));
    let stream = say(&stored, text, json!({"stream": true})).await;
    assert_eq!(streamed(&stream), masked);
    assert!(!stream.body.contains("4111") && !stream.body.contains("ann@"));
    let tools = json!([{"type": "function", "function": {"name": "send"}}]);
    let called = say(&stored, "ann@example.org", json!({"tools": tools})).await.json();
    let arguments = called["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    assert_eq!(arguments, r#"{"to":"<EMAIL_ADDRESS>"}"#);
    let events = say(&stored, "ann@example.org", json!({"tools": tools, "stream": true})).await.events();
    let arguments = events.iter().map(|event| &event["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"]);
    assert_eq!(arguments.filter_map(Value::as_str).collect::<String>(), r#"{"to":"<EMAIL_ADDRESS>"}"#);
    let refused = say(&stored, "x", json!({"logprobs": true})).await;
    assert!(refused.status == 400 && refused.body.contains("`logprobs`"), "{}", refused.body);
}

#[tokio::test]
async fn a_refused_answer_is_an_error_and_in_a_stream_its_last_event() {
    let stored = guarded("parrot", json!({"output": {"invalid_keywords": ["falcon"]}})).await;
    let plain = say(&stored, "The secret project Falcon flies", json!({})).await;
    assert_eq!(document(&plain)["output_guardrail"][0]["categories"], json!({"invalid_keywords": true}));
    let stream = say(&stored, "The secret project Falcon flies", json!({"stream": true})).await;
    assert_eq!(stream.status, 200);
    let documents: Vec<&str> = stream.body.split("\n\n").filter_map(|event| event.strip_prefix("data: ")).collect();
    let (last, before) = documents.split_last().unwrap();
    let error: Value = serde_json::from_str(last).unwrap();
    let told: Value = serde_json::from_str(error["error"]["message"].as_str().unwrap()).unwrap();
    assert_eq!(told["finishReason"], "output_guardrail_triggered");
    let text: String = before
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap())
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, "The secret project ");
}

#[tokio::test]
async fn a_judge_says_what_is_safe_and_without_its_word_nothing_passes() {
    let stored = guarded("parrot", json!({"input": {"safety": true}, "output": {"safety": true}})).await;
    assert_eq!(content(&say(&stored, "bread", json!({})).await), "bread");
    assert_eq!(streamed(&say(&stored, "bread and butter", json!({"stream": true})).await), "bread and butter");
    let verdict = document(&say(&stored, "a bomb", json!({})).await)["input_guardrail"][0].clone();
    assert_eq!((&verdict["flagged"], &verdict["pii_detection"]), (&json!(true), &json!(false)));
    assert_eq!(verdict["categories"]["indiscriminate-weapons"], true);
    assert_eq!((&verdict["categories"]["hate"], &verdict["category_scores"]["hate"]), (&json!(false), &json!(0.0)));
    let unsure = say(&stored, "a riddle", json!({})).await;
    assert_eq!((unsure.status.as_u16(), unsure.header("retry-after")), (503, Some("2")), "{}", unsure.body);

    // Of an answer no word comes before the judge's.
    let put = stored.call("PUT", GATEWAY, json!({"guardrails": {"output": {"safety": true}}})).await;
    assert_eq!(put.status, 200);
    for more in [json!({}), json!({"stream": true})] {
        let refused = say(&stored, "here is a bomb", more).await;
        assert_eq!(document(&refused)["finishReason"], "output_guardrail_triggered");
    }
    let gone = stored.call("DELETE", "/api/2.0/serving-endpoints/judge", Value::Null).await;
    assert_eq!(gone.status, 200);
    assert_eq!(say(&stored, "bread", json!({})).await.status, 503);
}

#[tokio::test]
async fn only_topics_that_are_named_are_answered() {
    let stored = guarded("parrot", json!({"input": {"valid_topics": ["billing"]}})).await;
    for _ in 0..2 {
        assert_eq!(content(&say(&stored, "my bill", json!({})).await), "my bill");
        let verdict = document(&say(&stored, "the weather", json!({})).await)["input_guardrail"][0].clone();
        assert_eq!((&verdict["flagged"], &verdict["categories"]), (&json!(true), &json!({"off_topic": true})));
    }
}

#[tokio::test]
async fn what_cannot_be_kept_to_is_refused_where_it_is_set() {
    let stored = Stored::new().await;
    stored.endpoint("guarded", "parrot").await;
    for (guardrails, words) in [
        (
            json!({"input": {"safety": true}}),
            "`ai_gateway.guardrails.input.safety`: the server has no model that judges",
        ),
        (json!({"output": {"valid_topics": ["a"]}}), "`--topic-endpoint ENDPOINT`"),
        (
            json!({"input": {"invalid_keywords": ["a", " "]}}),
            "`ai_gateway.guardrails.input.invalid_keywords[1]` must be 1 to 200",
        ),
        (json!({"input": {"invalid_keywords": vec!["a"; 1001]}}), "a list of at most 1000 texts, not 1001"),
        (json!({"input": {"invalid_keywords": ["x".repeat(201)]}}), "not 201 characters"),
        (json!({"output": {"pii": {"behavior": "HIDE"}}}), "guardrails.output.pii.behavior"),
        (json!({"output": {"pii": {}}}), "behavior"),
        (json!({"both": {}}), "guardrails.both"),
    ] {
        let put = stored.call("PUT", GATEWAY, json!({"guardrails": guardrails})).await;
        assert_eq!(put.status, 400, "{guardrails}: {}", put.body);
        assert!(put.json()["message"].as_str().unwrap().contains(words), "{}", put.body);
    }
    let nothing = json!({"input": {"safety": false, "pii": {"behavior": "NONE"}, "valid_topics": []}});
    assert_eq!(stored.call("PUT", GATEWAY, json!({"guardrails": nothing})).await.status, 200);
}
