//! Connections against a server in this process whose models answer for ever or not at all: what ends a connection that
//! does nothing, that its answer ends with it, and what a server that is full or stopping still says.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use hearth::endpoints::{Endpoint, Task};
use hearth::gate::Access;
use hearth::models::Models;
use hearth::providers::{
    Answer, AnswerEvent, ChatCall, CompletionCall, Delta, EmbeddingCall, Embeddings, Provider, ProviderError,
    RerankCall, Scores,
};
use hearth::serve::{App, ConnectionLimits, ServeSettings, serve};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// As long as a machine may take that is much slower than this one.
const PATIENCE: Duration = Duration::from_secs(60);

/// Most bytes of a body; there is room for two such bodies.
const BODY: usize = 1 << 20;

/// A model that says one word and then nothing more, or never stops, as the conversation says.
struct Endless {
    /// Answers that nobody has dropped.
    open: Arc<AtomicUsize>,
}

struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Provider for Endless {
    fn task(&self) -> Option<Task> {
        Some(Task::Chat)
    }

    fn model_name(&self) -> &str {
        "endless"
    }

    fn chat(&self, call: ChatCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(Arc::clone(&self.open));
        let talks = call.messages[0].content == "talk";
        async move {
            let words = stream::repeat("word ".repeat(1000)).take(if talks { usize::MAX } else { 1 });
            let words = words.chain(stream::pending()).map(move |text| {
                let _open = &open;
                Ok(AnswerEvent::Delta { index: 0, delta: Delta { text, tokens: Vec::new(), calls: Vec::new() } })
            });
            Ok(Answer { choices: 1, events: words.boxed() })
        }
        .boxed()
    }

    fn complete(&self, _: CompletionCall) -> BoxFuture<'_, Result<Answer, ProviderError>> {
        async { Err(ProviderError::WrongTask("it only chats".into())) }.boxed()
    }

    fn embed(&self, _: EmbeddingCall) -> BoxFuture<'_, Result<Embeddings, ProviderError>> {
        async { Err(ProviderError::WrongTask("it only chats".into())) }.boxed()
    }

    fn rerank(&self, _: RerankCall) -> BoxFuture<'_, Result<Scores, ProviderError>> {
        async { Err(ProviderError::WrongTask("it only chats".into())) }.boxed()
    }
}

struct Server {
    address: SocketAddr,
    app: App,
    open: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    fn start(limits: ConnectionLimits, drain: Duration) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let bodies = ServeSettings { body_limit: BODY, bodies_limit: 2 * BODY, ..ServeSettings::default() };
        let state = Some("nowhere".into());
        let config = ServeSettings { connections: limits, state, ..bodies }.check()?;
        let app = App::new(Access::local(), config.limits, Models::new(0, false, None));
        let open = Arc::new(AtomicUsize::new(0));
        app.endpoints().insert(Endpoint::new("endless", Arc::new(Endless { open: Arc::clone(&open) }), 0)?)?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            // Whoever forgets to stop it stops it by the end of the test.
            let _ = stopped.await;
        };
        let served = runtime.spawn(serve(listener, app.clone(), config.connections, drain, shutdown));
        Ok(Self { address, app, open, stop: Some(stop), served, runtime })
    }

    fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    fn send(&self, bytes: &str) -> Result<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(bytes.as_bytes())?;
        Ok(stream)
    }

    /// All that comes until the server closes, for a request that says that it is the last.
    fn ask(&self, request: &str) -> Result<String> {
        rest(self.send(request)?)
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if holds(self) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("never: {what}; {} answers are open", self.open.load(Ordering::SeqCst))
    }

    fn wait_for_open(&self, count: usize) -> Result<()> {
        self.wait_until(&format!("{count} open answers"), |server| server.open.load(Ordering::SeqCst) == count)
    }

    fn stop(&mut self) -> Result<()> {
        let stop = self.stop.take().context("it is stopped once")?;
        stop.send(()).ok().context("the server has ended")?;
        self.wait_until("stopping", |server| server.app.life().is_stopping())
    }

    fn wait_for_end(&mut self) -> Result<()> {
        let served = &mut self.served;
        Ok(self.runtime.block_on(async { tokio::time::timeout(PATIENCE, served).await })??)
    }
}

const LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
const LAST_LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
/// Places beyond the limit on connections.
const RESERVE: usize = 64;
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(300);

fn limits() -> ConnectionLimits {
    ConnectionLimits { most: 64, idle_timeout: LONG, body_timeout: LONG, write_timeout: LONG }
}

/// A chat that gets one word and then silence, or words for ever.
fn chat(path: &str, says: &str, streamed: bool) -> String {
    let body = format!(
        "{{\"model\": \"endless\", \"stream\": {streamed}, \"messages\": [{{\"role\": \"user\", \"content\": \"{says}\"}}]}}"
    );
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn rest(mut stream: TcpStream) -> Result<String> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// The next answer of a connection that goes on: its head, and as much of the body as its length says.
fn next(stream: &mut TcpStream) -> Result<String> {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        answer.extend(byte);
    }
    let head = String::from_utf8(answer)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).context(head.clone())?;
    let mut body = vec![0; length.parse()?];
    stream.read_exact(&mut body)?;
    Ok(head + &String::from_utf8(body)?)
}

fn begins(answer: &str, status: u16) -> Result<()> {
    ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {answer}");
    Ok(())
}

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
    let answer =
        rest(server.send("POST /v1/rerank HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n")?)?;
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
