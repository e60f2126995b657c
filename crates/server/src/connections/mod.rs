//! Connections: taking them in, and seeing to it that none of them can hurt the server.
//!
//! Owns how many there are, how long they may be idle, silent or deaf, and their end. Knows no route and no model: what
//! is answered comes from a router. A connection speaks HTTP/1.1, which is what callers speak without TLS; so it has one
//! request at a time, and the number of connections bounds the number of requests.

mod exchange;
mod places;
mod socket;

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
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use crate::config::ConnectionLimits;
use exchange::Exchange;
pub(crate) use exchange::{BodyLate, Crowded};
use places::{Place, Places};
use socket::Socket;

/// Most headers of a request, and most bytes of its line and headers together. Beyond either it is refused with 431.
const HEADERS: usize = 100;
const HEAD_BYTES: usize = 64 << 10;

/// Open files besides connections: models, libraries, logs, and connections that come in while others go out.
const OTHER_FILES: u64 = 256;

/// How long accepting pauses when the system has no more files or memory for it.
const PAUSE: Duration = Duration::from_millis(100);

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
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    over: impl Future<Output = ()>,
) {
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
        let connection = Connection { router: router.clone(), place: Arc::new(place), limits };
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
    place: Arc<Place>,
    limits: ConnectionLimits,
}

impl Connection {
    /// Serves the client to the end of the connection.
    async fn attend(self, stream: TcpStream, closing: watch::Receiver<bool>) {
        let Self { router, place, limits } = self;
        let socket = Socket::new(stream, limits.write_timeout);
        let unread = Arc::new(AtomicBool::new(false));
        let exchange = Exchange {
            router,
            socket: socket.clone(),
            place: Arc::clone(&place),
            unread: Arc::clone(&unread),
            body_timeout: limits.body_timeout,
        };
        let bytes = TokioIo::new(socket.bytes(limits.write_timeout));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            // Whether a client who closed its half is gone is for the exchange to say, once nothing is ready for it.
            .half_close(true)
            .header_read_timeout(limits.idle_timeout)
            .max_headers(HEADERS)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(bytes, exchange);
        {
            let mut connection = pin!(connection);
            let served = tokio::select! {
                served = connection.as_mut() => served,
                () = place.told_to_go() => return,
                () = closed(closing.clone()) => {
                    connection.as_mut().graceful_shutdown();
                    if !socket.has_unsent() && !place.is_busy() {
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
                () = place.told_to_go() => {}
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
