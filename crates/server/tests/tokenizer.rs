//! The tokenizers of real models (tiny ones) through the real router: as the reference cuts, as the chat endpoint counts.

use std::path::Path;

use anyhow::{Context, Result};
use hearth_tests::{ServerProcess, golden};
use serde::Deserialize;
use serde_json::{Value, json};

fn server(models: &[(&str, &str)]) -> Result<ServerProcess> {
    ServerProcess::serving(Path::new(env!("CARGO_BIN_EXE_hearth")), models)
}

fn tokenize(server: &ServerProcess, body: &Value) -> Result<Value> {
    let (status, answer) = server.ask("/tokenize", body)?;
    assert_eq!(status, 200, "{body}: {answer}");
    Ok(answer)
}

/// What lm-eval asks of a server, in its own words: without a model's name.
#[test]
fn the_only_model_answers_as_evaluation_harnesses_expect() -> Result<()> {
    let server = server(&[("talker", "llama-linear-f32")])?;
    let (status, info) = server.get("/tokenizer_info")?;
    let info: Value = serde_json::from_str(&info)?;
    assert_eq!(
        (status, &info["eos_token"], &info["model_max_length"]),
        (200, &json!("<|im_end|>"), &json!(512)),
        "{info}"
    );
    assert!(info["chat_template"].as_str().is_some_and(|template| template.contains("<|im_start|>")), "{info}");
    assert!(info.get("bos_token").is_some() && info.get("pad_token").is_some() && info["tokenizer_class"].is_string());

    let end = tokenize(&server, &json!({"prompt": "<|im_end|>", "add_special_tokens": false}))?;
    assert_eq!((&end["tokens"], &end["count"], &end["max_model_len"]), (&json!([2]), &json!(1), &json!(512)), "{end}");
    for text in ["What is the capital of France?", " héllo — 漢字\n", "", "<|im_start|>user\nx<|im_end|>"] {
        let found = tokenize(&server, &json!({"prompt": text, "add_special_tokens": false}))?;
        assert_eq!(found["count"], found["tokens"].as_array().context("tokens")?.len());
        let (status, back) = server.ask("/detokenize", &json!({"tokens": found["tokens"]}))?;
        assert_eq!((status, &back), (200, &json!({"prompt": text})));
    }
    let spelled = tokenize(&server, &json!({"prompt": "a b", "return_token_strs": true}))?;
    let spellings = spelled["token_strs"].as_array().context("token_strs")?.iter().filter_map(Value::as_str);
    assert_eq!(spellings.collect::<String>(), "aĠb", "{spelled}");
    assert_eq!(tokenize(&server, &json!({"prompt": "a b"}))?["token_strs"], Value::Null);
    Ok(())
}

#[test]
fn a_conversation_is_cut_as_the_chat_endpoint_cuts_it() -> Result<()> {
    let server = server(&[("talker", "llama-linear-f32")])?;
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "rain"}]);
    let ask = json!({"model": "talker", "messages": messages, "max_tokens": 1});
    let (status, answer) = server.ask("/v1/chat/completions", &ask)?;
    assert_eq!(status, 200, "{answer}");
    let found = tokenize(&server, &json!({"messages": messages}))?;
    assert_eq!(found["count"], answer["usage"]["prompt_tokens"]);

    let text = |more: Value| -> Result<String> {
        let mut body = json!({"messages": messages});
        body.as_object_mut().context("object")?.extend(more.as_object().context("object")?.clone());
        let (_, back) = server.ask("/detokenize", &json!({"tokens": tokenize(&server, &body)?["tokens"]}))?;
        Ok(back["prompt"].as_str().context("prompt")?.to_owned())
    };
    let system = "<|im_start|>system\nBe brief.<|im_end|>\n";
    let whole = format!("{system}<|im_start|>user\nrain<|im_end|>\n<|im_start|>assistant\n");
    assert!(text(json!({}))?.ends_with(&whole), "{}", text(json!({}))?);
    assert_eq!(text(json!({"add_special_tokens": false}))?, whole, "no more than what the template wrote");
    assert!(text(json!({"add_generation_prompt": false}))?.ends_with("rain<|im_end|>\n"));
    assert!(text(json!({"continue_final_message": true}))?.ends_with("<|im_start|>user\nrain"));
    Ok(())
}

#[derive(Deserialize)]
struct Golden {
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    text: String,
    tokens: Vec<u32>,
}

#[test]
fn encoders_and_rerankers_have_tokenizers_too() -> Result<()> {
    let server = server(&[("vectors", "bert-cls"), ("ranks", "xlm-roberta-reranker")])?;
    for Input { text, tokens } in golden::<Golden>("bert-cls")?.inputs {
        let found = tokenize(&server, &json!({"model": "vectors", "prompt": text}))?;
        assert_eq!(found["tokens"], json!(tokens), "{text:?}");
    }
    let found = tokenize(&server, &json!({"model": "ranks", "prompt": "fox"}))?;
    assert_eq!(found["tokens"], json!([0, 57, 2]));
    let (_, info) = server.get("/v1/tokenizer_info?model=vectors")?;
    let info: Value = serde_json::from_str(&info)?;
    assert_eq!((&info["cls_token"], &info["eos_token"]), (&json!("[CLS]"), &Value::Null), "{info}");
    assert_eq!((&info["tokenizer_class"], &info["chat_template"]), (&json!("BertTokenizer"), &Value::Null));

    let chat = json!({"model": "vectors", "messages": [{"role": "user", "content": "x"}]});
    let (status, answer) = server.ask("/tokenize", &chat)?;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("messages")), "{answer}");
    Ok(())
}

#[test]
fn tokens_that_no_vocabulary_has_are_named() -> Result<()> {
    // The model's matrix has 320 rows, the tokenizer 300 tokens: what lies between has no text.
    let server = server(&[("talker", "llama-untied-bf16")])?;
    for (tokens, index, value) in [(json!([5, 6, 300]), 2, "300"), (json!([5, 4_000_000_000_u32]), 1, "4000000000")] {
        let (status, answer) = server.ask("/detokenize", &json!({"tokens": tokens}))?;
        let (error, field) = (&answer["error"], format!("tokens[{index}]"));
        assert_eq!(
            (status, &error["param"], &error["code"]),
            (400, &json!(field), &json!("invalid_value")),
            "{answer}"
        );
        let message = error["message"].as_str().context("message")?;
        assert!(message.contains("below 300") && message.contains(value), "{message}");
    }
    let (status, answer) = server.ask("/detokenize", &json!({"tokens": [5, -1]}))?;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("tokens[1]")), "{answer}");
    let (status, answer) = server.ask("/detokenize", &json!({}))?;
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("tokens")), "{answer}");
    Ok(())
}
