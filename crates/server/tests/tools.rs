//! Functions and calls through the whole server: tiny models that were trained for nothing, with chat templates of models
//! that were trained to call.

use std::path::Path;

use anyhow::{Context, Result};
use hearth_tests::{ServerProcess, with_room};
use serde_json::{Value, json};
use tempfile::TempDir;

const CHAT: &str = "/v1/chat/completions";
const FORMATS: [&str; 5] = ["llama31", "mistral", "mistral-args", "hermes", "smollm2"];

/// A tiny model with another template, and with a context that has room for it.
fn model(template: &str) -> Result<TempDir> {
    let folder = with_room("llama-linear-f32")?;
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/fixtures/templates");
    std::fs::copy(templates.join(format!("{template}.jinja")), folder.path().join("chat_template.jinja"))?;
    Ok(folder)
}

/// A server of one tiny model for each format, and their folders.
fn server() -> Result<(ServerProcess, Vec<TempDir>)> {
    let folders = FORMATS.iter().map(|template| model(template)).collect::<Result<Vec<_>>>()?;
    let models: Vec<String> = FORMATS
        .iter()
        .zip(&folders)
        .map(|(template, folder)| format!("{template}={}", folder.path().display()))
        .collect();
    let arguments: Vec<&str> = models.iter().flat_map(|model| ["--model", model.as_str()]).collect();
    let arguments = [&["--kv-memory", "16"], arguments.as_slice()].concat();
    Ok((ServerProcess::start(Path::new(env!("CARGO_BIN_EXE_hearth")), &arguments)?, folders))
}

fn tools() -> Value {
    let unit = json!({"type": "string", "enum": ["celsius", "fahrenheit"]});
    let weather = json!({"type": "object", "properties": {"unit": unit}, "required": ["unit"]});
    json!([
        {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": weather}},
        {"type": "function", "function": {"name": "now", "description": "The time"}},
    ])
}

fn request(model: &str, more: Value) -> Value {
    let mut body = json!({
        "model": model, "tools": tools(), "max_tokens": 200, "seed": 7, "parallel_tool_calls": false,
        "messages": [{"role": "user", "content": "Is it warm?"}],
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        body[field] = value.clone();
    }
    body
}

fn ask(server: &ServerProcess, body: &Value) -> Result<Value> {
    let (status, answer) = server.ask(CHAT, body)?;
    assert_eq!(status, 200, "{body}: {answer}");
    Ok(answer)
}

/// The message that a streamed answer amounts to, and why it ended.
fn accumulated(server: &ServerProcess, mut body: Value) -> Result<(Value, Value)> {
    body["stream"] = json!(true);
    let (status, answer) = server.post(CHAT, &body.to_string())?;
    assert_eq!(status, 200, "{answer}");
    let (mut message, mut reason) = (json!({"content": null, "tool_calls": []}), Value::Null);
    for event in answer.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|event| *event != "[DONE]") {
        let chunk: Value = serde_json::from_str(event)?;
        let choice = &chunk["choices"][0];
        if let Some(text) = choice["delta"]["content"].as_str() {
            message["content"] = json!(message["content"].as_str().unwrap_or_default().to_owned() + text);
        }
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let calls = message["tool_calls"].as_array_mut().context("calls")?;
            let index = call["index"].as_u64().context("index")? as usize;
            if index == calls.len() {
                assert!(call["id"].is_string() && call["type"] == "function", "{call}");
                calls.push(json!({"name": call["function"]["name"], "arguments": ""}));
            } else {
                assert!(call.get("id").is_none() && call["function"].get("name").is_none(), "{call}");
            }
            let more = call["function"]["arguments"].as_str().context("arguments")?;
            calls[index]["arguments"] = json!(calls[index]["arguments"].as_str().unwrap_or_default().to_owned() + more);
        }
        reason = choice["finish_reason"].clone();
    }
    Ok((message, reason))
}

#[test]
fn a_required_call_is_valid_in_every_format_and_in_streams() -> Result<()> {
    let (server, _folders) = server()?;
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    for model in FORMATS {
        for (choice, seed) in [(json!("required"), 1), (json!("required"), 2), (named.clone(), 3)] {
            let body = request(model, json!({"tool_choice": choice, "seed": seed}));
            let answer = ask(&server, &body)?;
            let (message, reason) = (&answer["choices"][0]["message"], &answer["choices"][0]["finish_reason"]);
            assert_eq!((&message["content"], reason), (&Value::Null, &json!("tool_calls")), "{model}: {answer}");
            let [call] = message["tool_calls"].as_array().context("calls")?.as_slice() else { panic!("{answer}") };
            let (name, arguments) =
                (&call["function"]["name"], call["function"]["arguments"].as_str().context("text")?);
            let arguments: Value = serde_json::from_str(arguments)?;
            match name.as_str() {
                Some("get_weather") => {
                    assert!(
                        ["celsius", "fahrenheit"].iter().any(|unit| arguments == json!({"unit": unit})),
                        "{arguments}"
                    );
                }
                _ => assert_eq!((name, arguments, &choice), (&json!("now"), json!({}), &json!("required"))),
            }
            let (streamed, streamed_reason) = accumulated(&server, body)?;
            let expected = json!([{"name": name, "arguments": call["function"]["arguments"]}]);
            assert_eq!((&streamed["tool_calls"], &streamed["content"]), (&expected, &Value::Null), "{model}");
            assert_eq!(&streamed_reason, reason);
        }
    }
    Ok(())
}

#[test]
fn an_agent_takes_three_turns_in_every_format() -> Result<()> {
    let (server, _folders) = server()?;
    for model in FORMATS {
        let mut messages = vec![json!({"role": "user", "content": "Is it warm?"})];
        let mut before = 0;
        for turn in 0..3 {
            let body = request(model, json!({"messages": messages, "tool_choice": "required", "seed": turn}));
            let answer = ask(&server, &body)?;
            let read = answer["usage"]["prompt_tokens"].as_u64().context("usage")?;
            assert!(read > before, "{model}: turn {turn}: the results are in the prompt: {answer}");
            before = read;
            let message = answer["choices"][0]["message"].clone();
            let id = message["tool_calls"][0]["id"].clone();
            messages.extend([message, json!({"role": "tool", "tool_call_id": id, "content": "{\"degrees\": 21}"})]);
        }
        let last = ask(&server, &request(model, json!({"messages": messages, "tool_choice": "none"})))?;
        assert!(last["choices"][0]["message"]["content"].is_string(), "{last}");
        assert_eq!(last["choices"][0]["message"].get("tool_calls"), None);
    }
    Ok(())
}

#[test]
fn what_is_answered_freely_is_the_same_in_a_stream() -> Result<()> {
    let (server, _folders) = server()?;
    for (index, model) in FORMATS.into_iter().enumerate() {
        let body = request(model, json!({"max_tokens": 30, "seed": index, "parallel_tool_calls": true}));
        let answer = ask(&server, &body)?;
        let message = &answer["choices"][0]["message"];
        let (streamed, reason) = accumulated(&server, body)?;
        assert_eq!((&streamed["content"], &reason), (&message["content"], &answer["choices"][0]["finish_reason"]));
    }
    let cut = request("hermes", json!({"tool_choice": "required", "max_tokens": 12}));
    assert_eq!(ask(&server, &cut)?["choices"][0]["finish_reason"], "length");
    Ok(())
}

/// An answer that may call or have a form is the one or the other, in a stream too.
#[test]
fn an_answer_that_calls_nothing_has_the_form() -> Result<()> {
    let (server, _folders) = server()?;
    let schema =
        json!({"type": "object", "properties": {"name": {"enum": ["get_weather", "none"]}}, "required": ["name"]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    for model in FORMATS {
        for seed in 0..3 {
            let body = request(model, json!({"response_format": format, "seed": seed}));
            let answer = ask(&server, &body)?;
            let choice = &answer["choices"][0];
            if choice["message"].get("tool_calls").is_none() {
                let content = choice["message"]["content"].as_str().context("content")?;
                let value: Value = serde_json::from_str(content)?;
                assert!(
                    value["name"].is_string() && value.as_object().map(|o| o.len()) == Some(1),
                    "{model}: {content}"
                );
                assert_eq!(choice["finish_reason"], "stop");
            }
            let (streamed, reason) = accumulated(&server, body.clone())?;
            assert_eq!((&streamed["content"], &reason), (&choice["message"]["content"], &choice["finish_reason"]));
            let mut none = body.clone();
            none["tool_choice"] = json!("none");
            let answer = ask(&server, &none)?;
            let content = answer["choices"][0]["message"]["content"].as_str().context("content")?;
            assert!(serde_json::from_str::<Value>(content)?["name"].is_string(), "{model}: {content}");
            let mut required = body;
            required["tool_choice"] = json!("required");
            let answer = ask(&server, &required)?;
            assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{model}: {answer}");
        }
        // Where the form's only text is unwanted the model calls, and the arguments are of the schema.
        let (_, unwanted) =
            server.ask("/tokenize", &json!({"model": model, "prompt": "q", "add_special_tokens": false}))?;
        let bias = json!({unwanted["tokens"][0].to_string(): -100});
        let body = request(model, json!({"structured_outputs": {"regex": "q"}, "logit_bias": bias}));
        let answer = ask(&server, &body)?;
        let choice = &answer["choices"][0];
        assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &Value::Null));
        let call = &choice["message"]["tool_calls"][0]["function"];
        let arguments: Value = serde_json::from_str(call["arguments"].as_str().context("arguments")?)?;
        assert!(
            call["name"] == "now" || ["celsius", "fahrenheit"].contains(&arguments["unit"].as_str().context("unit")?)
        );
        let (streamed, _) = accumulated(&server, body)?;
        assert_eq!(streamed["tool_calls"], json!([{"name": call["name"], "arguments": call["arguments"]}]), "{model}");
    }
    for choice in ["auto", "required"] {
        let broken = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"not": {}}}});
        let body = request("hermes", json!({"response_format": broken, "tool_choice": choice}));
        let (status, answer) = server.ask(CHAT, &body)?;
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!("response_format.json_schema.schema")),
            "{answer}"
        );
    }
    Ok(())
}

#[test]
fn both_dialects_spell_calls_alike_and_refuse_by_name() -> Result<()> {
    let (server, _folders) = server()?;
    let mut body = request("hermes", json!({"tool_choice": "required"}));
    body.as_object_mut().unwrap().remove("model");
    let (status, answer) = server.ask("/serving-endpoints/hermes/invocations", &body)?;
    assert_eq!((status, &answer["choices"][0]["finishReason"]), (200, &json!("tool_calls")), "{answer}");
    let mut refused = request("hermes", json!({}));
    refused["tools"][1]["function"]["parameters"] = json!({"type": "object", "properties": {"a": {"not": {}}}});
    let (status, answer) = server.ask(CHAT, &refused)?;
    let (field, message) = (&answer["error"]["param"], answer["error"]["message"].as_str().unwrap_or_default());
    assert_eq!((status, field), (400, &json!("tools[1].function.parameters")), "{answer}");
    assert!(message.contains("`not`") && message.contains("properties/a"), "{message}");
    let counted =
        server.ask("/tokenize", &json!({"model": "hermes", "messages": body["messages"], "tools": tools()}))?.1;
    let (_, answer) = server.ask(CHAT, &request("hermes", json!({"max_tokens": 1})))?;
    assert_eq!(counted["count"], answer["usage"]["prompt_tokens"], "{counted}");
    Ok(())
}
