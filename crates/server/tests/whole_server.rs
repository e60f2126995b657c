//! The real router over real models (tiny ones): both dialects, plain and streamed, what limits do, and that a caller
//! who goes away frees what the answer held.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hearth_tests::ServerProcess;
use serde_json::{Value, json};

fn server() -> Result<ServerProcess> {
    let models = [("talker", "llama-linear-f32"), ("vectors", "bert-mean")];
    ServerProcess::serving(Path::new(env!("CARGO_BIN_EXE_hearth")), &models)
}

/// The data of a streamed answer's events; the last is `[DONE]`.
fn events(server: &ServerProcess, path: &str, body: &Value) -> Result<Vec<Value>> {
    let (status, text) = server.post(path, &body.to_string())?;
    assert_eq!(status, 200, "{text}");
    let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    let (last, events) = data.split_last().context("a stream has events")?;
    assert_eq!(*last, "[DONE]");
    events.iter().map(|event| serde_json::from_str(event).with_context(|| (*event).to_owned())).collect()
}

fn joined(events: &[Value], piece: &str) -> String {
    events.iter().filter_map(|event| event.pointer(piece)?.as_str()).collect()
}

fn gauge(server: &ServerProcess, name: &str) -> Result<f64> {
    let (_, text) = server.get("/metrics")?;
    let line = text.lines().find(|line| line.starts_with(name) && line.contains("talker"));
    Ok(line.and_then(|line| line.rsplit(' ').next()).context(name.to_owned())?.parse()?)
}

fn wait_until_idle(server: &ServerProcess) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        if gauge(server, "hearth_requests_running{")? == 0.0 && gauge(server, "hearth_kv_blocks_used{")? == 0.0 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("still busy")
}

#[test]
fn a_stream_says_what_the_plain_answer_says() -> Result<()> {
    let server = server()?;
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "rain"}]);
    for seed in 0..5 {
        let ask = json!({"model": "talker", "messages": messages, "seed": seed, "max_tokens": 30, "ignore_eos": true});
        let mut streamed = ask.clone();
        streamed["stream"] = json!(true);
        for path in
            ["/v1/chat/completions", "/serving-endpoints/chat/completions", "/serving-endpoints/talker/invocations"]
        {
            let (status, plain) = server.ask(path, &ask)?;
            assert_eq!(status, 200, "{plain}");
            let events = events(&server, path, &streamed)?;
            assert_eq!(joined(&events, "/choices/0/delta/content"), plain["choices"][0]["message"]["content"]);
            let usage = &events.last().context("an end")?["usage"];
            for count in ["prompt_tokens", "completion_tokens", "total_tokens"] {
                assert_eq!(usage[count], plain["usage"][count]);
            }
        }
        let ask =
            json!({"model": "talker", "prompt": "hills", "seed": seed, "max_tokens": 30, "echo": true, "logprobs": 2});
        let mut streamed = ask.clone();
        streamed["stream"] = json!(true);
        let (_, plain) = server.ask("/v1/completions", &ask)?;
        let events = events(&server, "/v1/completions", &streamed)?;
        assert_eq!(joined(&events, "/choices/0/text"), plain["choices"][0]["text"]);
        let tokens =
            |answer: &Value| answer.pointer("/choices/0/logprobs/token_logprobs").and_then(Value::as_array).cloned();
        let of_stream: Vec<Value> = events.iter().filter_map(tokens).flatten().collect();
        assert_eq!(Some(of_stream), tokens(&plain), "log-probabilities, those of the prompt included");
    }
    wait_until_idle(&server)
}

/// A prompt that was there before is not computed again, however many choices are made of it; the answer and the
/// metrics say so.
#[test]
fn an_answer_says_how_much_of_its_prompt_was_cached() -> Result<()> {
    let server = server()?;
    let messages = json!([{"role": "system", "content": "Be brief. ".repeat(8)}, {"role": "user", "content": "rain"}]);
    let ask = json!({"model": "talker", "messages": messages, "n": 3, "seed": 1, "max_tokens": 30});
    let (_, cold) = server.ask("/v1/chat/completions", &ask)?;
    let (_, warm) = server.ask("/v1/chat/completions", &ask)?;
    assert_eq!(cold["choices"], warm["choices"]);
    let usage = |answer: &Value, name: &str| answer["usage"].pointer(name).and_then(Value::as_u64).context("a count");
    let prompt = usage(&cold, "/prompt_tokens")?;
    assert_eq!(usage(&cold, "/prompt_tokens_details/cached_tokens")?, 0);
    let cached = usage(&warm, "/prompt_tokens_details/cached_tokens")?;
    assert!(prompt > 32 && (prompt - 16..prompt).contains(&cached), "{cached} of {prompt}");
    wait_until_idle(&server)?;
    let (queried, hit) =
        (gauge(&server, "hearth_prefix_cache_queries_total{")?, gauge(&server, "hearth_prefix_cache_hits_total{")?);
    assert_eq!(queried, 6.0 * prompt as f64);
    assert!((3.0 * cached as f64..queried).contains(&hit), "{hit} of {queried}");
    assert!(gauge(&server, "hearth_kv_blocks_cached{")? > 1.0);
    assert_eq!(gauge(&server, "hearth_preemptions_total{")?, 0.0);
    Ok(())
}

/// An echo of nothing but the prompt is checked like any other request.
#[test]
fn a_prompt_that_is_only_echoed_is_checked() -> Result<()> {
    let server = server()?;
    let echo = |prompt: Value| json!({"model": "talker", "prompt": prompt, "echo": true, "max_tokens": 0});
    let (status, answer) = server.ask("/v1/completions", &echo(json!("rain")))?;
    assert_eq!((status, &answer["choices"][0]["text"]), (200, &json!("rain")));
    let (status, answer) = server.ask("/v1/completions", &echo(json!(vec![5; 600])))?;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    assert_eq!(answer["error"]["param"], "prompt");
    let (status, answer) = server.ask("/v1/completions", &echo(json!([99_999])))?;
    assert_eq!(status, 400, "{answer}");
    Ok(())
}

/// A text of megabytes is refused before it is cut into tokens, and the server goes on.
#[test]
fn a_text_that_cannot_fit_is_refused_at_once() -> Result<()> {
    let server = server()?;
    let ask = json!({"model": "talker", "messages": [{"role": "user", "content": "ab ".repeat(3_000_000)}]});
    let (status, answer) = server.ask("/v1/chat/completions", &ask)?;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("context_length_exceeded")), "{answer}");
    let texts: Vec<String> = (0..300).map(|number| format!("text {number}")).collect();
    let (status, answer) = server.ask("/v1/embeddings", &json!({"model": "vectors", "input": texts}))?;
    assert_eq!((status, answer["data"].as_array().map(Vec::len)), (200, Some(300)));
    Ok(())
}

#[test]
fn a_caller_who_goes_away_frees_the_cache() -> Result<()> {
    let server = server()?;
    for stream in [false, true] {
        let ask =
            json!({"model": "talker", "prompt": "x", "max_tokens": 500, "ignore_eos": true, "n": 8, "stream": stream});
        let ask = ask.to_string();
        let mut connection = TcpStream::connect(server.address())?;
        let head = format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", ask.len());
        connection.write_all((head + &ask).as_bytes())?;
        if stream {
            connection.read_exact(&mut [0; 64])?;
        }
        drop(connection);
        wait_until_idle(&server)?;
    }
    Ok(())
}
