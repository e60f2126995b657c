//! SIGTERM while many callers are answered: every answer that has begun is complete, whoever comes later is told to go
//! elsewhere, and the program ends with success.

#![cfg(unix)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth_tests::{ServerProcess, checkpoint};
use serde_json::json;

const CALLERS: usize = 32;
const PATIENCE: Duration = Duration::from_secs(300);

fn server(arguments: &[&str]) -> Result<ServerProcess> {
    let model = format!("talker={}", checkpoint("llama-linear-f32").path.display());
    let arguments = [&["--model", &model][..], arguments].concat();
    ServerProcess::start(Path::new(env!("CARGO_BIN_EXE_hearth")), &arguments)
}

fn terminate(server: &ServerProcess) -> Result<()> {
    Command::new("kill").arg("-TERM").arg(server.id().to_string()).status()?;
    Ok(())
}

/// Sends a completion; answers come until the server closes.
fn call(address: SocketAddr, streamed: bool, max_tokens: usize) -> Result<TcpStream> {
    let body = json!({
        "model": "talker", "prompt": "rain", "max_tokens": max_tokens, "ignore_eos": true, "n": 8, "stream": streamed,
    });
    let body = body.to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length";
    write!(stream, "{head}: {}\r\n\r\n{body}", body.len())?;
    Ok(stream)
}

fn rest(mut stream: TcpStream) -> Result<String> {
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn sequences(server: &ServerProcess) -> Result<f64> {
    let (_, text) = server.get("/metrics")?;
    let lines = text
        .lines()
        .filter(|line| line.starts_with("hearth_requests_running{") || line.starts_with("hearth_requests_waiting{"));
    lines.map(|line| Ok(line.rsplit(' ').next().context("a number")?.parse::<f64>()?)).sum()
}

#[test]
fn every_answer_that_has_begun_is_complete() -> Result<()> {
    let mut server = server(&["--drain-timeout", "300"])?;
    let address = server.address();
    let calls: Vec<TcpStream> =
        (0..CALLERS).map(|caller| call(address, caller % 2 == 0, 200)).collect::<Result<_>>()?;
    let begun = Instant::now();
    // All have begun once as many sequences as one caller has are the most that can be missing.
    while sequences(&server)? < (CALLERS * 8) as f64 * 0.75 {
        ensure!(begun.elapsed() < PATIENCE, "the requests never began");
    }
    terminate(&server)?;
    let readers: Vec<_> = calls.into_iter().map(|stream| std::thread::spawn(move || rest(stream))).collect();
    let mut refused = 0;
    let status = loop {
        if let Ok(status) = server.wait(Duration::from_millis(1)) {
            break status;
        }
        ensure!(begun.elapsed() < PATIENCE, "the program does not end");
        match call(address, false, 1).and_then(rest) {
            Ok(answer) if answer.is_empty() => {}
            Ok(answer) => {
                ensure!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: "), "{answer}");
                refused += 1;
            }
            Err(error) => {
                let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
                use ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset};
                ensure!(matches!(kind, Some(BrokenPipe | ConnectionRefused | ConnectionReset)), "{error:?}");
            }
        }
    };
    ensure!(status.success() && refused > 0, "{status}, {refused} refused");
    let mut complete = 0;
    for (caller, reader) in readers.into_iter().enumerate() {
        let answer = reader.join().expect("reading does not panic")?;
        if answer.starts_with("HTTP/1.1 503 ") {
            continue;
        }
        let tokens = "\"completion_tokens\":1600";
        ensure!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(tokens), "{caller}: {answer}");
        ensure!(caller % 2 == 1 || answer.contains("data: [DONE]"), "{caller}: {answer}");
        complete += 1;
    }
    ensure!(complete >= CALLERS / 2, "{complete} complete answers");
    Ok(())
}

#[test]
fn what_does_not_end_in_time_is_cut_and_a_second_signal_ends_at_once() -> Result<()> {
    let mut cut = server(&["--drain-timeout", "0"])?;
    let calls: Vec<TcpStream> = (0..8).map(|_| call(cut.address(), true, 400)).collect::<Result<_>>()?;
    let mut calls = calls.into_iter();
    let mut first = calls.next().context("a call")?;
    first.read_exact(&mut [0; 64])?;
    terminate(&cut)?;
    ensure!(cut.wait(PATIENCE)?.success());
    let answer = rest(first)?;
    ensure!(answer.contains("[DONE]") || answer.contains("data: {\"error\":"), "{answer}");

    let mut killed = server(&["--drain-timeout", "300"])?;
    let mut silent = TcpStream::connect(killed.address())?;
    silent.write_all(b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{")?;
    let begun = Instant::now();
    while killed.get("/metrics")?.1.lines().all(|line| line != "hearth_connections 2") {
        ensure!(begun.elapsed() < PATIENCE, "the silent connection never came");
    }
    std::thread::sleep(Duration::from_millis(200));
    terminate(&killed)?;
    while killed.get("/health/ready").is_ok_and(|(status, _)| status == 200) {
        ensure!(begun.elapsed() < PATIENCE, "it never stops");
    }
    terminate(&killed)?;
    ensure!(killed.wait(PATIENCE)?.code() == Some(130));
    Ok(())
}
