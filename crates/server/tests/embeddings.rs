//! The real router over a real embedding model (a tiny one): what is cut, what is refused, and thousands of texts at once.

use std::path::Path;
use std::thread;

use anyhow::{Context, Result, ensure};
use hearth_tests::ServerProcess;
use serde_json::{Value, json};

fn server() -> Result<ServerProcess> {
    ServerProcess::serving(Path::new(env!("CARGO_BIN_EXE_hearth")), &[("vectors", "bert-mean")])
}

/// The vectors of `input`, which may be one text or many.
fn vectors(server: &ServerProcess, input: Value, more: Value) -> Result<Vec<Value>> {
    let mut body = json!({"model": "vectors", "input": input});
    body.as_object_mut().context("object")?.extend(more.as_object().context("object")?.clone());
    let (status, answer) = server.ask("/v1/embeddings", &body)?;
    ensure!(status == 200, "{answer}");
    let data = answer["data"].as_array().context("data")?;
    for (index, item) in data.iter().enumerate() {
        ensure!(item["index"] == index, "{item}");
    }
    Ok(data.iter().map(|item| item["embedding"].clone()).collect())
}

/// The context is 64 tokens: 62 of the text and one on each side, which stay.
#[test]
fn a_text_is_cut_before_its_last_special_token() -> Result<()> {
    let server = server()?;
    let (long, fitting, short) = ("fox ".repeat(70), "fox ".repeat(62), "fox ".repeat(7));
    let whole = vectors(&server, json!([fitting, short]), json!({}))?;
    assert_ne!(whole[0], whole[1]);
    for cut in [json!({"truncate": true}), json!({"truncate_prompt_tokens": -1}), json!({"truncate_prompt_tokens": 64})]
    {
        assert_eq!(vectors(&server, json!([long, short]), cut.clone())?, whole, "{cut}");
    }
    assert_eq!(vectors(&server, json!(long), json!({"truncate_prompt_tokens": 9}))?, whole[1..]);
    let instructed = vectors(&server, json!("fox ".repeat(65)), json!({"truncate": true, "instruction": "fox fox "}))?;
    assert_eq!(instructed, whole[..1]);

    let tokens = server.ask("/tokenize", &json!({"model": "vectors", "prompt": fitting}))?.1;
    let tokens: Vec<Value> = tokens["tokens"].as_array().context("tokens")?.clone();
    let fox = tokens[tokens.len() / 2].clone();
    assert_eq!(vectors(&server, json!(vec![fox; 90]), json!({"truncate": true}))?, whole[..1]);
    Ok(())
}

#[test]
fn a_text_that_may_not_be_cut_is_refused_with_its_index() -> Result<()> {
    let server = server()?;
    let ask = |more: Value| -> Result<(u16, Value)> {
        let mut body = json!({"model": "vectors", "input": ["fox", "fox ".repeat(70)]});
        body.as_object_mut().context("object")?.extend(more.as_object().context("object")?.clone());
        server.ask("/v1/embeddings", &body)
    };
    for more in [json!({}), json!({"truncate": false})] {
        let (status, answer) = ask(more)?;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
        let message = answer["error"]["message"].as_str().context("message")?;
        assert!(message.starts_with("input 1: ") && message.contains("64 tokens"), "{message}");
    }
    for tokens in [2, 65, 0, -2] {
        let (status, answer) = ask(json!({"truncate_prompt_tokens": tokens}))?;
        assert_eq!((status, &answer["error"]["param"]), (400, &json!("truncate_prompt_tokens")), "{answer}");
    }
    Ok(())
}

/// As many texts as one request may have, beside other callers: each gets its own vectors, in order.
#[test]
fn thousands_of_texts_keep_their_order_among_other_callers() -> Result<()> {
    let server = server()?;
    let words = ["rain", "hills", "river", "fox", "dog", "night", "stone"];
    let text = |number: usize| format!("{} {} {}", words[number % 7], words[number / 7 % 7], words[number / 49 % 7]);
    let alone: Vec<Value> = (0..343)
        .map(|number| Ok(vectors(&server, json!(text(number)), json!({}))?.remove(0)))
        .collect::<Result<_>>()?;
    thread::scope(|scope| {
        let caller = |first: usize, count: usize| {
            let (server, alone, text) = (&server, &alone, &text);
            scope.spawn(move || -> Result<()> {
                let texts: Vec<String> = (first..first + count).map(|number| text(number % 343)).collect();
                for (index, found) in vectors(server, json!(texts), json!({}))?.iter().enumerate() {
                    ensure!(*found == alone[(first + index) % 343], "text {index} of {count}");
                }
                Ok(())
            })
        };
        let callers = [caller(0, 2048), caller(5, 1), caller(100, 37), caller(200, 2048), caller(300, 3)];
        callers.into_iter().try_for_each(|caller| caller.join().expect("a caller does not panic"))
    })?;
    let (status, answer) = server.ask("/v1/embeddings", &json!({"model": "vectors", "input": vec!["fox"; 2049]}))?;
    assert_eq!((status, &answer["error"]["message"]), (400, &json!("`input` must be at most 2048 texts, not 2049")));
    Ok(())
}
