//! A server in this process whose models answer for ever or not at all, and what clients say to it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};
use hearth::connections::{Listener, Tls};
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
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Most bytes of a body; there is room for two such bodies.
pub(super) const BODY: usize = 1 << 20;

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

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) app: App,
    pub(super) open: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<()>,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    pub(super) fn start(limits: ConnectionLimits, drain: Duration) -> Result<Self> {
        Self::within(limits, drain, None)
    }

    /// The same within TLS, if there is any.
    pub(super) fn within(limits: ConnectionLimits, drain: Duration, tls: Option<Arc<Tls>>) -> Result<Self> {
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
        let served =
            runtime.spawn(serve(Listener::new(listener, tls), app.clone(), config.connections, drain, shutdown));
        Ok(Self { address, app, open, stop: Some(stop), served, runtime })
    }

    pub(super) fn connect(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    pub(super) fn send(&self, bytes: &str) -> Result<TcpStream> {
        let mut stream = self.connect()?;
        stream.write_all(bytes.as_bytes())?;
        Ok(stream)
    }

    /// All that comes until the server closes, for a request that says that it is the last.
    pub(super) fn ask(&self, request: &str) -> Result<String> {
        rest(self.send(request)?)
    }

    pub(super) fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if holds(self) {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("never: {what}; {} answers are open", self.open.load(Ordering::SeqCst))
    }

    pub(super) fn wait_for_open(&self, count: usize) -> Result<()> {
        self.wait_until(&format!("{count} open answers"), |server| server.open.load(Ordering::SeqCst) == count)
    }

    pub(super) fn stop(&mut self) -> Result<()> {
        let stop = self.stop.take().context("it is stopped once")?;
        stop.send(()).ok().context("the server has ended")?;
        self.wait_until("stopping", |server| server.app.life().is_stopping())
    }

    pub(super) fn wait_for_end(&mut self) -> Result<()> {
        let served = &mut self.served;
        Ok(self.runtime.block_on(async { tokio::time::timeout(PATIENCE, served).await })??)
    }
}

pub(super) const LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\n\r\n";
pub(super) const LAST_LIVE: &str = "GET /health/live HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
/// Places beyond the limit on connections.
pub(super) const RESERVE: usize = 64;
pub(super) const LONG: Duration = Duration::from_secs(600);
pub(super) const SHORT: Duration = Duration::from_millis(300);

pub(super) fn limits() -> ConnectionLimits {
    ConnectionLimits { most: 64, idle_timeout: LONG, body_timeout: LONG, write_timeout: LONG }
}

/// A chat that gets one word and then silence, or words for ever.
pub(super) fn chat(path: &str, says: &str, streamed: bool) -> String {
    let body = format!(
        "{{\"model\": \"endless\", \"stream\": {streamed}, \"messages\": [{{\"role\": \"user\", \"content\": \"{says}\"}}]}}"
    );
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

pub(super) fn rest(mut stream: impl Read) -> Result<String> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error.into()),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// The next answer of a connection that goes on: its head, and as much of the body as its length says.
pub(super) fn next(stream: &mut impl Read) -> Result<String> {
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

pub(super) fn begins(answer: &str, status: u16) -> Result<()> {
    ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "not {status}: {answer}");
    Ok(())
}
