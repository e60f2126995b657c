//! Clients that mean no good against the real program: through all of it a second client gets its health check and its
//! completion, and afterwards nothing is left open.

#![cfg(target_os = "linux")]

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hearth_tests::{ServerProcess, further};
use serde_json::json;

/// As long as a machine may take that is much slower than this one.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many idle connections there are, where the limit on open files of the test allows it.
const IDLE: usize = 10_000;

fn server() -> Result<ServerProcess> {
    ServerProcess::serving(Path::new(env!("CARGO_BIN_EXE_hearth")), &[("talker", "llama-linear-f32")])
}

fn connect(server: &ServerProcess) -> Result<TcpStream> {
    let stream = TcpStream::connect(server.address())?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn send(server: &ServerProcess, bytes: &[u8]) -> Result<TcpStream> {
    let mut stream = connect(server)?;
    stream.write_all(bytes)?;
    Ok(stream)
}

/// What the server says until it closes; a connection that it breaks off says nothing more.
fn rest(mut stream: TcpStream) -> Result<String> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error).context("no end"),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// The second client: it is answered whatever the first one does.
fn others_are_served(server: &ServerProcess) -> Result<()> {
    let (status, text) = server.get("/health/live")?;
    ensure!(status == 200, "{text}");
    let ask = json!({"model": "talker", "prompt": "rain", "max_tokens": 4, "ignore_eos": true});
    let (status, answer) = server.ask("/v1/completions", &ask)?;
    ensure!(status == 200 && answer["usage"]["completion_tokens"] == 4, "{status}: {answer}");
    Ok(())
}

fn open_files(server: &ServerProcess) -> Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{}/fd", server.id()))?.count())
}

fn gauge(server: &ServerProcess, name: &str) -> Result<f64> {
    let (_, text) = server.get("/metrics")?;
    let line = text.lines().find(|line| line.starts_with(name)).context(name.to_owned())?;
    Ok(line.rsplit(' ').next().context("a number")?.parse()?)
}

fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if holds()? {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    bail!("never: {what}")
}

/// Runs `attack`, with the second client asking before its connections are closed, and looks that nothing is left.
fn survives(server: &ServerProcess, attack: impl FnOnce() -> Result<Vec<TcpStream>>) -> Result<()> {
    others_are_served(server)?;
    let quiet = || Ok(gauge(server, "hearth_connections")? == 1.0);
    wait_until("only the connection that asks", quiet)?;
    let before = open_files(server)?;
    let held = attack()?;
    others_are_served(server)?;
    drop(held);
    wait_until("only the connection that asks, afterwards", quiet)?;
    wait_until("as many open files as before", || Ok(open_files(server)? <= before))?;
    for name in ["hearth_requests_running{", "hearth_requests_waiting{"] {
        wait_until(name, || Ok(gauge(server, name)? == 0.0))?;
    }
    others_are_served(server)
}

#[test]
fn what_is_no_request_is_refused_or_closed() -> Result<()> {
    let server = server()?;
    let huge_header = format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(1 << 20));
    let many = format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(1000));
    let long_line = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "x".repeat(1 << 20));
    let cases: [(&str, &[u8], &[&str]); 7] = [
        ("garbage", b"\x00\xff\xfe garbage \r\n\r\n\r\n", &["HTTP/1.1 400 "]),
        ("a TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", &["HTTP/1.1 400 "]),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", &[]),
        ("a huge header", huge_header.as_bytes(), &["HTTP/1.1 431 "]),
        ("many headers", many.as_bytes(), &["HTTP/1.1 431 "]),
        ("a long line", long_line.as_bytes(), &["HTTP/1.1 414 ", "HTTP/1.1 431 "]),
        (
            "two lengths",
            b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
            &["HTTP/1.1 400 "],
        ),
    ];
    for (name, bytes, expected) in cases {
        survives(&server, || {
            let mut stream = connect(&server)?;
            // The server may have seen enough before all of it is out, and then the answer may be lost.
            let sent = stream.write_all(bytes);
            let answer = rest(stream)?;
            let fits = expected.iter().any(|status| answer.starts_with(status)) || answer.is_empty();
            ensure!(
                fits && (sent.is_err() || bytes.len() > 1 << 16 || answer.is_empty() == expected.is_empty()),
                "{answer}"
            );
            Ok(Vec::new())
        })
        .context(name)?;
    }
    survives(&server, || {
        let mut stream = send(&server, b"GET /health/live HTTP/1.1\r\n")?;
        // A head without end: at some point the server has enough of it.
        while stream.write_all(&b"x-more: of-the-same\r\n".repeat(1000)).is_ok() {}
        Ok(Vec::new())
    })
    .context("a head without end")
}

#[test]
fn bodies_that_are_too_long_are_refused_and_the_answer_can_be_read() -> Result<()> {
    let server = server()?;
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n";
    let piece = vec![b' '; 1 << 20];
    let refused = |answer: &str| {
        ensure!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("payload_too_large"), "{answer}");
        Ok(())
    };
    survives(&server, || {
        let mut stream = send(&server, format!("{head}content-length: {}\r\n\r\n", 100 << 20).as_bytes())?;
        for _ in 0..100 {
            stream.write_all(&piece)?;
        }
        refused(&rest(stream)?)?;
        Ok(Vec::new())
    })
    .context("100 MB")?;
    survives(&server, || {
        let mut stream = send(&server, format!("{head}transfer-encoding: chunked\r\n\r\n").as_bytes())?;
        for _ in 0..64 {
            stream.write_all(b"100000\r\n")?;
            stream.write_all(&piece)?;
            stream.write_all(b"\r\n")?;
        }
        stream.shutdown(Shutdown::Write)?;
        refused(&rest(stream)?)?;
        Ok(Vec::new())
    })
    .context("chunks without end")?;
    survives(&server, || {
        let expect = format!("{head}expect: 100-continue\r\ncontent-length: {}\r\n\r\n", 100 << 20);
        refused(&rest(send(&server, expect.as_bytes())?)?)?;
        Ok(Vec::new())
    })
    .context("one that asks before it sends")
}

#[test]
fn a_client_that_asks_before_it_sends_is_told_to() -> Result<()> {
    let server = server()?;
    let body = json!({"model": "talker", "prompt": "rain", "max_tokens": 4}).to_string();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length";
    let mut stream = send(&server, format!("{head}: {}\r\n\r\n", body.len()).as_bytes())?;
    let mut told = [0; 25];
    stream.read_exact(&mut told)?;
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes())?;
    let answer = rest(stream)?;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    Ok(())
}

#[test]
fn clients_that_do_nothing_hurt_nobody() -> Result<()> {
    let server = server()?;
    let half_body =
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{\"model\": \"talker\", ";
    let ask = json!({"model": "talker", "prompt": "x", "max_tokens": 400, "ignore_eos": true, "n": 8, "stream": true});
    let ask = ask.to_string();
    let never_reads =
        format!("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{ask}", ask.len());
    for (name, bytes) in [
        ("half a head", &b"POST /v1/comple"[..]),
        ("half a body", half_body),
        ("streams that nobody reads", never_reads.as_bytes()),
    ] {
        survives(&server, || (0..6).map(|_| send(&server, bytes)).collect()).context(name)?;
    }
    survives(&server, || {
        let half = |_| {
            let stream = send(&server, half_body)?;
            stream.shutdown(Shutdown::Write)?;
            Ok(stream)
        };
        (0..100).map(half).collect()
    })
    .context("half-open")?;
    survives(&server, || {
        for number in 0..1000 {
            let stream = connect(&server)?;
            if number % 100 == 0 {
                others_are_served(&server)?;
            }
            drop(stream);
        }
        Ok(Vec::new())
    })
    .context("a thousand that come and go")
}

/// More than the default limit: whoever is idle longest makes place for those who come.
#[test]
fn ten_thousand_idle_connections_hurt_nobody() -> Result<()> {
    let server = server()?;
    let mut held = Vec::new();
    survives(&server, || {
        for number in 0..IDLE {
            match connect(&server) {
                Ok(stream) => held.push(stream),
                // The limit on open files is this program's own.
                Err(error) if number > 500 => {
                    held.truncate(number - 100);
                    further(&format!("{} idle connections and not {IDLE}: {error}", held.len()));
                    break;
                }
                Err(error) => return Err(error),
            }
            if number % 1000 == 0 {
                others_are_served(&server)?;
            }
        }
        let open = gauge(&server, "hearth_connections")?;
        ensure!(open > 400.0 && open <= 4096.0 + 64.0, "{open} connections");
        Ok(held)
    })
}
