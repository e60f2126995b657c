//! Spans of the program's requests, as they come to a collector.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::checkpoint;
use serde_json::json;

/// As long as a machine may take that is much slower than this one.
const PATIENCE: Duration = Duration::from_secs(120);

/// A request's head and body; the answer to it is empty and says yes.
fn taken(mut stream: TcpStream) -> Result<(String, Vec<u8>)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.extend(byte);
    }
    let head = String::from_utf8(head)?.to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context(head.clone())?;
    let mut body = vec![0; length.parse()?];
    stream.read_exact(&mut body)?;
    stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")?;
    Ok((head, body))
}

/// What protocol buffers write of a short text: its length, and its bytes.
fn has(body: &[u8], text: &str) -> bool {
    let mut sought = vec![text.len() as u8];
    sought.extend(text.bytes());
    body.windows(sought.len()).any(|window| window == sought)
}

/// An attribute with a number: key (field 1) and value (field 2, of it field 3).
fn has_number(body: &[u8], key: &str, number: u8) -> bool {
    let mut sought = vec![0x0a, key.len() as u8];
    sought.extend(key.bytes());
    sought.extend([0x12, 2, 0x18, number]);
    body.windows(sought.len()).any(|window| window == sought)
}

#[cfg(unix)]
#[test]
fn the_spans_of_a_request_come_to_the_collector_that_is_named() -> Result<()> {
    let collector = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}/", collector.local_addr()?);
    let (sender, batches) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in collector.incoming().map_while(Result::ok) {
            if sender.send(taken(stream)).is_err() {
                return;
            }
        }
    });

    let (mut command, state) = (Command::new(Path::new(env!("CARGO_BIN_EXE_hearth"))), tempfile::tempdir()?);
    let model = format!("talker={}", checkpoint("llama-linear-f32").path.display());
    command.args(["serve", "--port", "0", "--otlp-endpoint", &endpoint, "--model", &model]);
    command.arg("--state").arg(state.path());
    for variable in ["HEARTH_LOG", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(variable);
    }
    let mut child = command.stderr(Stdio::piped()).spawn()?;
    let answer = ask_and_stop(&mut child);
    if answer.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    let answer = answer?;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("data: [DONE]"), "{answer}");
    assert!(status.success());

    let (mut heads, mut all) = (String::new(), Vec::new());
    while let Ok(batch) = batches.recv_timeout(if all.is_empty() { PATIENCE } else { Duration::from_millis(100) }) {
        let (head, body) = batch?;
        heads += &head;
        all.extend(body);
    }
    assert!(heads.starts_with("post /v1/traces http/1.1"), "{heads}");
    assert!(heads.contains("content-type: application/x-protobuf"), "{heads}");
    for text in ["hearth", "request", "prepare the prompt", "queue", "prefill", "decode", "number-five", "talker"] {
        assert!(has(&all, text), "{text:?} is not in {:?}", String::from_utf8_lossy(&all));
    }
    assert!(has_number(&all, "completion_tokens", 7), "{:?}", String::from_utf8_lossy(&all));
    Ok(())
}

/// One streamed chat, and then the signal that ends the program.
#[cfg(unix)]
fn ask_and_stop(child: &mut std::process::Child) -> Result<String> {
    let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines().map_while(Result::ok);
    let address = lines.find_map(|line| line.strip_prefix("listening on http://").map(str::to_owned));
    let address = address.context("an address")?;
    // Whoever does not read what the program says holds it up.
    std::thread::spawn(move || lines.for_each(drop));
    let begun = Instant::now();
    loop {
        let mut ready = TcpStream::connect(&address)?;
        ready.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        ready.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 200 ") {
            break;
        }
        ensure!(begun.elapsed() < PATIENCE, "{answer}");
    }
    let body = json!({
        "model": "talker", "messages": [{"role": "user", "content": "rain"}], "max_tokens": 7, "ignore_eos": true,
        "stream": true,
    });
    let body = body.to_string();
    let mut stream = TcpStream::connect(&address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = "host: localhost\r\nconnection: close\r\nx-request-id: number-five\r\ncontent-length";
    write!(stream, "POST /v1/chat/completions HTTP/1.1\r\n{head}: {}\r\n\r\n{body}", body.len())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Command::new("kill").arg("-TERM").arg(child.id().to_string()).status()?;
    Ok(answer)
}
