//! Connections against a server in this process whose models answer for ever or not at all: what ends a connection that
//! does nothing, that its answer ends with it, and what a server that is full or stopping still says; within TLS too.

mod house;
mod tls;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth::serve::ConnectionLimits;

use house::{BODY, LAST_LIVE, LIVE, LONG, PATIENCE, RESERVE, SHORT, Server, begins, chat, limits, next, rest};

#[test]
fn a_connection_that_says_nothing_or_half_a_head_is_closed() -> Result<()> {
    let server = Server::start(ConnectionLimits { idle_timeout: SHORT, ..limits() }, LONG)?;
    assert_eq!(rest(server.connect()?)?, "");
    assert_eq!(rest(server.send("POST /v1/chat/completions HTTP/1.1\r\nhost: hea")?)?, "");
    let mut kept = server.send(LIVE)?;
    begins(&next(&mut kept)?, 200)?;
    assert_eq!(rest(kept)?, "", "and one that was idle after a request");
    begins(&server.ask(LAST_LIVE)?, 200)
}

#[test]
fn a_body_that_stalls_is_refused() -> Result<()> {
    let server = Server::start(ConnectionLimits { body_timeout: SHORT, ..limits() }, LONG)?;
    let half = chat("/v1/chat/completions", "hello", false);
    let answer = rest(server.send(&half[..half.len() - 5])?)?;
    begins(&answer, 408)?;
    assert!(answer.contains("\"code\":\"request_timeout\"") && answer.contains("0.3 seconds"), "{answer}");
    let answer = rest(
        server.send("POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n")?,
    )?;
    begins(&answer, 408)
}

#[test]
fn a_body_that_comes_drop_by_drop_is_refused() -> Result<()> {
    let server = Server::start(ConnectionLimits { body_timeout: SHORT, ..limits() }, LONG)?;
    let mut client = server.send("POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100000\r\n\r\n")?;
    client.set_read_timeout(Some(SHORT / 10))?;
    let begun = Instant::now();
    let mut first = [0; 12];
    while client.write_all(b" ").is_ok() && client.peek(&mut first).is_err() {
        ensure!(begun.elapsed() < PATIENCE, "it goes on for ever");
    }
    client.set_read_timeout(Some(PATIENCE))?;
    let answer = rest(client)?;
    begins(&answer, 408)?;
    // A machine that is busy elsewhere for so long that nothing came has the other reason to end it.
    assert!(answer.contains("within 3 seconds") || begun.elapsed() < 10 * SHORT, "{answer}");
    Ok(())
}

#[test]
fn bodies_beyond_the_room_for_them_are_refused_and_short_ones_are_not() -> Result<()> {
    let server = Server::start(limits(), LONG)?;
    let head = "POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length";
    let part = |length: usize| format!("{head}: {BODY}\r\n\r\n{}", " ".repeat(length));
    // The room is for two whole bodies: four halves and some of what is always taken in, but no fifth.
    let mut held: Vec<TcpStream> = (0..5).map(|_| server.send(&part(BODY / 2))).collect::<Result<_>>()?;
    held.iter().try_for_each(|client| client.set_read_timeout(Some(SHORT / 10)))?;
    let begun = Instant::now();
    let refused = loop {
        if let Some(refused) = held.iter().position(|client| client.peek(&mut [0]).is_ok()) {
            break held.swap_remove(refused);
        }
        ensure!(begun.elapsed() < PATIENCE, "all find room");
    };
    refused.set_read_timeout(Some(PATIENCE))?;
    let answer = rest(refused)?;
    begins(&answer, 503)?;
    assert!(answer.contains("retry-after: 2\r\n") && answer.contains("as it has room for"), "{answer}");
    let short = server.send(&chat("/v1/chat/completions", "hello", true))?;
    server.wait_for_open(1)?;
    drop((short, held.pop(), held.pop()));
    server.wait_until("room again", |server| {
        server.ask(&part(BODY)).is_ok_and(|answer| answer.starts_with("HTTP/1.1 400 "))
    })
}

#[test]
fn a_client_that_never_reads_does_not_hold_its_answer() -> Result<()> {
    let server = Server::start(ConnectionLimits { write_timeout: SHORT, ..limits() }, LONG)?;
    let mut deaf = server.send(&chat("/v1/chat/completions", "talk", true))?;
    deaf.read_exact(&mut [0; 64])?;
    server.wait_for_open(0)?;
    // One that reads, however slowly, is left in peace.
    let mut slow = server.send(&chat("/v1/chat/completions", "talk", true))?;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..10 {
        slow.read_exact(&mut piece)?;
        std::thread::sleep(SHORT / 4);
    }
    drop(slow);
    server.wait_for_open(0)
}

#[test]
fn an_answer_ends_with_its_client_even_behind_bytes_that_nobody_has_read() -> Result<()> {
    let server = Server::start(limits(), LONG)?;
    for streamed in [true, false] {
        for behind in ["", LIVE, "GET /half-a-"] {
            for half in [true, false] {
                let request = chat("/v1/chat/completions", "hello", streamed) + behind;
                let mut client = server.send(&request)?;
                server.wait_for_open(1)?;
                if streamed {
                    client.read_exact(&mut [0; 64])?;
                }
                if half {
                    client.shutdown(std::net::Shutdown::Write)?;
                } else {
                    drop(client);
                }
                server.wait_for_open(0).with_context(|| format!("{streamed} {behind:?} {half}"))?;
            }
        }
    }
    server.wait_until("no request", |server| server.app.life().running() == 0)
}

#[test]
fn what_is_ready_is_sent_to_a_client_that_closed_its_half() -> Result<()> {
    let server = Server::start(limits(), LONG)?;
    let client = server.send(LIVE)?;
    client.shutdown(std::net::Shutdown::Write)?;
    begins(&rest(client)?, 200)
}

#[test]
fn requests_in_one_write_are_answered_in_order() -> Result<()> {
    let server = Server::start(limits(), LONG)?;
    let nowhere = "GET /nowhere HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut client = server.send(&[nowhere, LIVE, nowhere, LIVE].concat())?;
    for status in [404, 200, 404, 200] {
        begins(&next(&mut client)?, status)?;
    }
    Ok(())
}

#[test]
fn a_newcomer_takes_the_place_of_whoever_is_idle_longest() -> Result<()> {
    let server = Server::start(ConnectionLimits { most: 4, ..limits() }, LONG)?;
    let mut idle = Vec::new();
    for _ in 0..4 + RESERVE {
        let mut client = server.send(LIVE)?;
        begins(&next(&mut client)?, 200)?;
        idle.push(client);
    }
    begins(&server.ask(LAST_LIVE)?, 200)?;
    assert_eq!(rest(idle.remove(0))?, "");
    for client in &mut idle {
        client.write_all(LIVE.as_bytes())?;
        begins(&next(client)?, 200)?;
    }
    Ok(())
}

#[test]
fn a_full_server_answers_health_checks_and_refuses_the_rest() -> Result<()> {
    let server = Server::start(ConnectionLimits { most: 4, ..limits() }, LONG)?;
    let path = "/v1/chat/completions";
    let busy: Vec<TcpStream> = (0..4).map(|_| server.send(&chat(path, "hello", true))).collect::<Result<_>>()?;
    server.wait_for_open(4)?;
    let silent: Vec<TcpStream> = (0..200).map(|_| server.connect()).collect::<Result<_>>()?;
    for _ in 0..3 {
        begins(&server.ask(LAST_LIVE)?, 200)?;
        let answer = server.ask(&chat(path, "hello", true))?;
        begins(&answer, 503)?;
        assert!(answer.contains("retry-after: 2\r\n") && answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.contains("\"code\":\"service_unavailable\""), "{answer}");
    }
    drop((busy, silent));
    server.wait_for_open(0)?;
    let again = server.send(&chat(path, "hello", true))?;
    server.wait_for_open(1)?;
    drop(again);
    Ok(())
}

#[test]
fn a_server_that_stops_refuses_what_is_new_and_cuts_what_does_not_end() -> Result<()> {
    let path = "/v1/chat/completions";
    let mut server = Server::start(limits(), Duration::from_secs(2))?;
    let mut kept = [server.send(LIVE)?, server.send(LIVE)?];
    for client in &mut kept {
        begins(&next(client)?, 200)?;
    }
    let stream = server.send(&chat(path, "hello", true))?;
    let plain = server.send(&chat(path, "hello", false))?;
    server.wait_for_open(2)?;
    server.stop()?;
    let [mut open_ai, mut databricks] = kept;
    open_ai.write_all(chat(path, "hello", false).as_bytes())?;
    let answer = rest(open_ai)?;
    begins(&answer, 503)?;
    assert!(answer.contains("retry-after: 2\r\n") && answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.contains("\"code\":\"service_unavailable\""), "{answer}");
    databricks.write_all(chat("/serving-endpoints/endless/invocations", "hello", false).as_bytes())?;
    let answer = rest(databricks)?;
    begins(&answer, 503)?;
    assert!(answer.contains("\"error_code\":\"TEMPORARILY_UNAVAILABLE\""), "{answer}");
    begins(&server.ask(LAST_LIVE)?, 200)?;
    begins(&server.ask(&LAST_LIVE.replace("live", "ready"))?, 503)?;
    assert_eq!(server.open.load(Ordering::SeqCst), 2, "those that have begun go on");
    let stream = rest(stream)?;
    begins(&stream, 200)?;
    assert!(stream.contains("\ndata: {\"error\":{\"message\":\"the server was stopped"), "{stream}");
    begins(&rest(plain)?, 503)?;
    server.wait_for_end()?;
    assert!(TcpStream::connect(server.address).is_err());
    Ok(())
}
