//! Connections: taking them in, and seeing to it that none of them can hurt the server.
//!
//! Owns how many there are, how long they may be idle, silent or deaf, and their end. Knows no route and no model: what
//! is answered comes from a router. A connection speaks HTTP/1.1, within TLS where there is a certificate; so it has one
//! request at a time, and the number of connections bounds the number of requests.

mod exchange;
mod places;
mod socket;
mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use crate::config::ConnectionLimits;
use exchange::Exchange;
pub(crate) use exchange::{BodyLate, Crowded};
use places::{Place, Places};
use socket::Socket;
pub use tls::{Tls, TlsError, TlsFiles};

/// Most headers of a request, and most bytes of its line and headers together. Beyond either it is refused with 431.
const HEADERS: usize = 100;
const HEAD_BYTES: usize = 64 << 10;

/// Open files besides connections: models, libraries, logs, and connections that come in while others go out.
const OTHER_FILES: u64 = 256;

/// How long accepting pauses when the system has no more files or memory for it.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a client may take at most to agree on how its connection is encrypted.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long connections get to pass on what is written when everything is over.
const LAST_BYTES: Duration = Duration::from_secs(5);

/// Newcomers that may wait to be accepted; beyond that the system lets them try again after a second. It may allow fewer.
const NEWCOMERS: u32 = 4096;

/// Listens on `address`.
///
/// # Errors
/// When the system says no, as where somebody else listens there.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Connections of a server that has just ended do not keep the next one from its address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(NEWCOMERS)
}

/// Where connections come in.
pub struct Listener {
    socket: TcpListener,
    tls: Option<Arc<Tls>>,
}

impl Listener {
    /// The same, for connections within TLS if there is any.
    pub fn new(socket: TcpListener, tls: Option<Arc<Tls>>) -> Self {
        Self { socket, tls }
    }
}

impl From<TcpListener> for Listener {
    fn from(socket: TcpListener) -> Self {
        Self::new(socket, None)
    }
}

/// Raises the process's limit on open files as far as it goes, and gives the number of connections, `wanted` or fewer,
/// that find place under it.
pub fn within_open_files(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // Some systems say that there is no limit and mean one all the same; then it stays as it was.
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let Some(files) = current else { return wanted };
    let room = usize::try_from(files.saturating_sub(OTHER_FILES).max(files / 2).max(1)).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!("at most {room} connections and not {wanted}, since the system allows {files} open files");
    }
    room.min(wanted)
}

/// Answers on `listener` by `router` until `over` is done. Then idle connections are closed, and those that still have
/// something to send get a moment for it.
pub(crate) async fn answer(
    listener: Listener,
    router: Router,
    limits: ConnectionLimits,
    over: impl Future<Output = ()>,
) {
    let Listener { socket: listener, tls } = listener;
    let places = Places::new(limits.most);
    let (closing, _) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let mut over = pin!(over);
    loop {
        let accepted = async {
            // In this order, so that nobody is sent away before there is somebody to take the place.
            let stream = accept(&listener, &places).await;
            (stream, places.enter().await)
        };
        let (stream, place) = tokio::select! {
            () = &mut over => break,
            accepted = accepted => accepted,
        };
        let (router, tls) = (router.clone(), tls.clone());
        let connection = Connection { router, tls, place: Arc::new(place), limits };
        tasks.spawn(connection.attend(stream, closing.subscribe()));
        while tasks.try_join_next().is_some() {}
    }
    drop(listener);
    closing.send_replace(true);
    let last = async { while tasks.join_next().await.is_some() {} };
    // Whoever does not even take that is cut off, as the tasks are dropped.
    let _ = tokio::time::timeout(LAST_BYTES, last).await;
}

/// The next connection. What goes wrong with one is no reason to stop, nor to try again without a breath.
async fn accept(listener: &TcpListener, places: &Places) -> TcpStream {
    let mut failed = false;
    loop {
        let error = match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) => error,
        };
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted) {
            continue;
        }
        if !std::mem::replace(&mut failed, true) {
            tracing::error!(%error, "connections cannot be accepted for the moment");
        }
        places.send_one_away();
        tokio::time::sleep(PAUSE).await;
    }
}

/// What one connection is served with.
struct Connection {
    router: Router,
    tls: Option<Arc<Tls>>,
    place: Arc<Place>,
    limits: ConnectionLimits,
}

impl Connection {
    /// Serves the client to the end of the connection.
    async fn attend(self, stream: TcpStream, closing: watch::Receiver<bool>) {
        let socket = Socket::new(stream, self.limits.write_timeout);
        let bytes = socket.bytes(self.limits.write_timeout);
        let Some(tls) = &self.tls else { return self.converse(&socket, bytes, closing).await };
        let patience = HANDSHAKE.min(self.limits.idle_timeout);
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(patience, tls.acceptor().accept(bytes)) => shaken,
            () = self.place.told_to_go() => return,
            () = closed(closing.clone()) => return,
        };
        match shaken {
            Ok(Ok(bytes)) => self.converse(&socket, bytes, closing).await,
            Ok(Err(error)) => tracing::debug!(%error, "a client and the server did not agree on TLS"),
            Err(_) => tracing::debug!("a client took too long to agree on TLS"),
        }
    }

    /// Answers what comes in these `bytes` of the socket.
    async fn converse<Bytes>(&self, socket: &Socket, bytes: Bytes, closing: watch::Receiver<bool>)
    where
        Bytes: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let unread = Arc::new(AtomicBool::new(false));
        let exchange = Exchange {
            router: self.router.clone(),
            socket: socket.clone(),
            place: Arc::clone(&self.place),
            unread: Arc::clone(&unread),
            body_timeout: self.limits.body_timeout,
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Whether a client who closed its half is gone is for the exchange to say, once nothing is ready for it.
            .half_close(true)
            .header_read_timeout(self.limits.idle_timeout)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(bytes), exchange);
        {
            let mut connection = pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = self.place.told_to_go() => return,
                () = closed(closing.clone()) => {
                    connection.as_mut().graceful_shutdown();
                    if !socket.has_unsent() && !self.place.is_busy() {
                        return;
                    }
                    connection.await
                }
            };
            if let Err(error) = served {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection broke off");
            }
        }
        if unread.load(Ordering::Relaxed) {
            tokio::select! {
                () = socket.linger() => {}
                () = self.place.told_to_go() => {}
                () = closed(closing) => {}
            }
        }
    }
}

/// Done when every connection is to close.
async fn closed(mut closing: watch::Receiver<bool>) {
    // The sender lives for as long as the connections.
    let _ = closing.wait_for(|closing| *closing).await;
}
