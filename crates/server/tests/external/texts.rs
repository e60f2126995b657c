//! Completions and vectors of other providers.

use serde_json::{Value, json};

use crate::house::House;

#[tokio::test]
async fn texts_go_on_in_order_whole_and_streamed() {
    for provider in ["openai", "databricks", "custom"] {
        let house = House::new();
        house.serve(provider, "completions", "stub");
        let body =
            json!({"model": provider, "prompt": ["ab", "cd"], "n": 2, "max_completion_tokens": 5, "suffix": "?"});
        let answered = house.post("/v1/completions", &body).await;
        assert_eq!(answered.status, 200, "{}", answered.body);
        let texts = |answer: &Value| -> Vec<String> {
            let choices = answer["choices"].as_array().unwrap();
            choices.iter().map(|choice| choice["text"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(texts(&answered.json()), ["0!?", "1!?", "0!?", "1!?"], "{provider}");
        assert_eq!(answered.json()["usage"]["completion_tokens"], 8);
        let got = house.stubs.bodies().pop().unwrap();
        assert_eq!((&got["prompt"], &got["n"], &got["max_tokens"]), (&json!(["ab", "cd"]), &json!(2), &json!(5)));
        let mut body = body;
        (body["stream"], body["echo"]) = (json!(true), json!(true));
        let (events, done) = house.post("/v1/completions", &body).await.events();
        let mut texts = vec![String::new(); 4];
        for choice in events.iter().map(|event| &event["choices"][0]) {
            texts[choice["index"].as_u64().unwrap() as usize] += choice["text"].as_str().unwrap();
        }
        assert_eq!((texts, done), (["ab0!?", "ab1!?", "cd0!?", "cd1!?"].map(str::to_owned).to_vec(), true));
        assert!(house.stubs.bodies().pop().unwrap().get("echo").is_none(), "the prompt is put there by us");
    }
}

#[tokio::test]
async fn log_probabilities_come_with_the_prompt_where_both_are_wanted_and_find_the_best_answer() {
    let house = House::new();
    house.serve("openai", "completions", "stub");
    let body = json!({"model": "openai", "prompt": "ab", "echo": true, "logprobs": 2});
    let answer = house.post("/v1/completions", &body).await.json();
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["text"], &choice["logprobs"]["tokens"]),
        (&json!("ab0!"), &json!(["a", "b", "0", "!"])),
        "{answer}"
    );
    assert_eq!(choice["logprobs"]["token_logprobs"][0], Value::Null, "the first token of a prompt has none");
    assert_eq!(house.stubs.bodies().pop().unwrap()["echo"], true);
    // The stub's first answer is the likeliest: its numbers fall with the index.
    let body = json!({"model": "openai", "prompt": "ab", "best_of": 3});
    let answer = house.post("/v1/completions", &body).await.json();
    assert_eq!((answer["choices"].as_array().unwrap().len(), &answer["choices"][0]["text"]), (1, &json!("0!")));
    assert_eq!(answer["choices"][0]["logprobs"], Value::Null, "they were not asked for");
    let got = house.stubs.bodies().pop().unwrap();
    assert_eq!((&got["n"], &got["logprobs"]), (&json!(3), &json!(0)));
}

#[tokio::test]
async fn vectors_come_in_the_order_of_the_texts() {
    for provider in ["openai", "databricks", "custom", "cohere"] {
        let house = House::new();
        house.serve(provider, "embeddings", "stub");
        let texts: Vec<String> = (1..=100).map(|length| "x".repeat(length)).collect();
        let body = json!({"model": provider, "input": texts, "dimensions": 3});
        let answered = house.post("/v1/embeddings", &body).await;
        assert_eq!(answered.status, 200, "{}", answered.body);
        let answer = answered.json();
        let lengths =
            answer["data"].as_array().unwrap().iter().map(|item| item["embedding"][0].as_f64().unwrap() as usize);
        assert_eq!(lengths.collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>(), "{provider}");
        assert_eq!(answer["usage"]["prompt_tokens"], 100, "{provider}");
        let field = if provider == "cohere" { "output_dimension" } else { "dimensions" };
        assert_eq!(house.stubs.bodies().pop().unwrap()[field], 3);
    }
}

#[tokio::test]
async fn an_instruction_is_put_before_texts_or_said_in_the_providers_own_words() {
    let house = House::new();
    for provider in ["openai", "databricks", "cohere", "custom"] {
        house.serve(provider, "embeddings", "stub");
    }
    let got = async |provider: &str, more: Value| {
        let mut body = json!({"model": provider, "input": "text", "instruction": "find: "});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answered = house.post("/v1/embeddings", &body).await;
        assert_eq!(answered.status, 200, "{}", answered.body);
        house.stubs.bodies().pop().unwrap()
    };
    assert_eq!(got("openai", json!({})).await["input"], json!(["find: text"]));
    let databricks = got("databricks", json!({})).await;
    assert_eq!((&databricks["input"], &databricks["instruction"]), (&json!(["text"]), &json!("find: ")));
    let cohere = got("cohere", json!({})).await;
    assert_eq!(
        (&cohere["texts"], &cohere["input_type"], &cohere["truncate"]),
        (&json!(["text"]), &json!("search_query"), &json!("NONE"))
    );
    let cohere = got("cohere", json!({"input_type": "classification", "truncate": true})).await;
    assert_eq!((&cohere["input_type"], &cohere["truncate"]), (&json!("classification"), &json!("END")));
    assert_eq!(got("cohere", json!({"instruction": null})).await["input_type"], "search_document");
    assert_eq!(got("custom", json!({"truncate_prompt_tokens": -1})).await["truncate_prompt_tokens"], -1);
}

#[tokio::test]
async fn what_no_provider_takes_is_refused_before_anybody_is_asked() {
    let house = House::new();
    house.serve("openai", "embeddings", "stub");
    house.serve("custom", "completions", "stub");
    house.serve("databricks", "chat", "stub");
    for (path, body, field, said) in [
        (
            "/v1/embeddings",
            json!({"model": "openai", "input": [1, 2]}),
            json!("input"),
            "check_embedding_ctx_length=False",
        ),
        ("/v1/embeddings", json!({"model": "openai", "input": "a", "truncate": true}), json!("truncate"), "openai"),
        ("/v1/embeddings", json!({"model": "openai", "input": "a", "input_type": "x"}), json!("input_type"), "openai"),
        ("/v1/completions", json!({"model": "custom", "prompt": [1, 2]}), json!("prompt"), "no token ids"),
        (
            "/v1/completions",
            json!({"model": "custom", "prompt": "a", "use_raw_prompt": false}),
            json!("use_raw_prompt"),
            "custom",
        ),
        (
            "/v1/completions",
            json!({"model": "custom", "prompt": "a", "error_behavior": "truncate"}),
            json!("error_behavior"),
            "custom",
        ),
        ("/v1/completions", json!({"model": "databricks", "prompt": "a"}), Value::Null, "configured for chat"),
    ] {
        let answered = house.post(path, &body).await;
        let error = answered.json()["error"].clone();
        assert_eq!((answered.status, &error["param"]), (400, &field), "{body}: {error}");
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
    assert!(house.stubs.requests().is_empty());
}
