//! Answers held to a form, through the whole server: plain and streamed, in both dialects, and beside requests that mean
//! harm.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use hearth_tests::ServerProcess;
use serde_json::{Value, json};

fn server() -> Result<ServerProcess> {
    ServerProcess::serving(Path::new(env!("CARGO_BIN_EXE_hearth")), &[("talker", "llama-linear-f32")])
}

const PATHS: [&str; 3] =
    ["/v1/chat/completions", "/serving-endpoints/chat/completions", "/serving-endpoints/talker/invocations"];

fn body(more: Value) -> Value {
    let mut body = json!({"model": "talker", "messages": [{"role": "user", "content": "rain"}], "max_tokens": 60});
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}

/// A schema whose answers are short, whatever the model.
fn weather() -> Value {
    json!({"type": "object", "properties": {"sky": {"enum": ["blue", "grey"]}, "rain": {"type": "boolean"}},
        "required": ["sky", "rain"]})
}

fn of_schema(schema: Value) -> Value {
    json!({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": true}}})
}

#[test]
fn a_streamed_answer_of_a_schema_is_the_plain_one() -> Result<()> {
    let server = server()?;
    for path in PATHS {
        for seed in 0..4 {
            let mut ask = body(of_schema(weather()));
            ask["seed"] = json!(seed);
            let (status, plain) = server.ask(path, &ask)?;
            assert_eq!(status, 200, "{plain}");
            assert_eq!(plain["choices"][0]["finish_reason"], "stop");
            let content = plain["choices"][0]["message"]["content"].as_str().context("an answer")?;
            let value: Value = serde_json::from_str(content)?;
            assert!(["blue", "grey"].contains(&value["sky"].as_str().context("a sky")?) && value["rain"].is_boolean());
            ask["stream"] = json!(true);
            let (_, events) = server.post(path, &ask.to_string())?;
            let events = events.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
            let events: Vec<Value> = events.map(serde_json::from_str).collect::<serde_json::Result<_>>()?;
            let pieces = events.iter().filter_map(|event| event.pointer("/choices/0/delta/content")?.as_str());
            assert_eq!(pieces.collect::<String>(), content);
            assert_eq!(events.last().context("an end")?["usage"], plain["usage"]);
        }
    }
    Ok(())
}

#[test]
fn each_choice_is_held_by_itself_and_counted_right() -> Result<()> {
    let server = server()?;
    let ask = body(json!({"guided_regex": "[a-z]{6}", "n": 4, "logprobs": true}));
    let (status, answer) = server.ask("/v1/chat/completions", &ask)?;
    assert_eq!(status, 200, "{answer}");
    let choices = answer["choices"].as_array().context("choices")?;
    let tokens = choices.iter().filter_map(|choice| choice["logprobs"]["content"].as_array()).map(Vec::len);
    assert_eq!(answer["usage"]["completion_tokens"], tokens.sum::<usize>());
    for choice in choices {
        let content = choice["message"]["content"].as_str().context("an answer")?;
        assert!(content.len() == 6 && content.bytes().all(|byte| byte.is_ascii_lowercase()), "{content}");
        assert_eq!(choice["finish_reason"], "stop");
    }
    let (_, cut) = server.ask("/v1/chat/completions", &body(json!({"guided_regex": "a{50}", "max_tokens": 3})))?;
    assert_eq!(cut["choices"][0]["finish_reason"], "length");
    Ok(())
}

#[test]
fn a_grammar_that_means_harm_fails_its_own_request_alone() -> Result<()> {
    let server = server()?;
    let optional: serde_json::Map<String, Value> = (0..900).map(|n| (format!("p{n}"), json!({}))).collect();
    let harm = [
        json!({"guided_regex": r"(\w{1,5000}\s){1,5000}\p{Greek}*"}),
        json!({"guided_regex": "((((a{1,99}){1,99}){1,99}){1,99}){1,99}"}),
        json!({"guided_grammar": format!("start: {}\"a\"{}", "(".repeat(9000), ")".repeat(9000))}),
        json!({"guided_json": {"type": "object", "properties": optional}}),
        json!({"guided_json": {"type": "array", "items": {"$ref": "#"}, "minItems": 1_000_000}}),
        json!({"guided_json": {"$ref": "#"}}),
    ];
    thread::scope(|scope| {
        let harmful = harm.map(|fields| scope.spawn(|| server.ask("/v1/chat/completions", &body(fields))));
        let good: Vec<_> =
            (0..8).map(|_| scope.spawn(|| server.ask("/v1/chat/completions", &body(of_schema(weather()))))).collect();
        for answer in good {
            let (status, answer) = answer.join().expect("no panic")?;
            assert_eq!((status, &answer["choices"][0]["finish_reason"]), (200, &json!("stop")), "{answer}");
        }
        for answer in harmful {
            let (status, answer) = answer.join().expect("no panic")?;
            // Either it is refused, or it is answered as far as the answer goes.
            assert!(status == 400 || status == 200, "{status}: {answer}");
        }
        Ok::<(), anyhow::Error>(())
    })?;
    let (status, answer) = server.ask("/v1/chat/completions", &body(of_schema(weather())))?;
    assert_eq!(status, 200, "{answer}");
    Ok(())
}
