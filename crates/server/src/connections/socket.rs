//! One client's socket: reading and writing without blocking, and what hyper cannot see or say of it.
//!
//! Owns the time that a client may take to read, the end of a client who went away, and closing without losing the
//! answer. Knows no HTTP.

use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

/// How long a silent connection stays before the system asks whether its other end is still there, and how often it asks.
const ALIVE_AFTER: Duration = Duration::from_secs(60);
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// How long a client who is still sending what nobody wants is listened to, in all and from one byte to the next. As
/// other servers do it: closing at once would reset the connection, and the answer would be lost.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_IN_SILENCE: Duration = Duration::from_secs(5);

/// A client's socket, shared by whoever reads, writes and watches it.
#[derive(Clone)]
pub(super) struct Socket {
    stream: Arc<TcpStream>,
    unsent: Arc<AtomicBool>,
}

impl Socket {
    /// An accepted connection. Options that the system refuses are left as they were: they are no condition of serving.
    pub(super) fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        // A token is a small write, and the next one must not wait for its acknowledgement.
        let _ = stream.set_nodelay(true);
        let options = SockRef::from(&stream);
        let _ = options.set_tcp_keepalive(&TcpKeepalive::new().with_time(ALIVE_AFTER).with_interval(ALIVE_EVERY));
        // A machine that vanished acknowledges nothing; the buffer of the system may be far from full then.
        #[cfg(target_os = "linux")]
        let _ = options.set_tcp_user_timeout(Some(write_timeout));
        #[cfg(not(target_os = "linux"))]
        let _ = write_timeout;
        Self { stream: Arc::new(stream), unsent: Arc::default() }
    }

    /// The bytes that go in and out. Writing fails when the client has taken nothing for `write_timeout`.
    pub(super) fn bytes(&self, write_timeout: Duration) -> SocketBytes {
        SocketBytes { socket: self.clone(), write_timeout, stalled: None }
    }

    /// Whether something waits for the client to make place for it.
    pub(super) fn has_unsent(&self) -> bool {
        self.unsent.load(Ordering::Relaxed)
    }

    /// Done when the client has closed the connection or its half of it, even behind bytes that nobody has read yet.
    pub(super) async fn hung_up(self) {
        // Of all interests this one is satisfied by the end of the bytes and not by bytes.
        #[cfg(any(target_os = "linux", target_os = "android"))]
        while let Ok(ready) = self.stream.ready(tokio::io::Interest::PRIORITY).await {
            if ready.is_read_closed() {
                return;
            }
            // Bytes out of band are nothing that HTTP has; nobody will take them away.
            tokio::time::sleep(LOOK_EVERY).await;
        }
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        while let Some(Ok(false)) | None = futures::FutureExt::now_or_never(self.is_closed()) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    async fn is_closed(&self) -> io::Result<bool> {
        Ok(self.stream.ready(tokio::io::Interest::READABLE).await?.is_read_closed())
    }

    /// Says that nothing more will be sent, and waits until the client has read that and sends nothing more either.
    pub(super) async fn linger(&self) {
        let mut dropped = vec![0; 64 << 10];
        if SockRef::from(&*self.stream).shutdown(Shutdown::Write).is_err() {
            return;
        }
        let reading = async {
            while let Ok(Ok(())) = tokio::time::timeout(LINGER_IN_SILENCE, self.stream.readable()).await {
                match self.stream.try_read(&mut dropped) {
                    Ok(0) => return,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                }
            }
        };
        // Whoever has not come to an end by then is cut off.
        let _ = tokio::time::timeout(LINGER, reading).await;
    }
}

/// How often is looked where the system does not tell by itself.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// The bytes of a [`Socket`].
pub(super) struct SocketBytes {
    socket: Socket,
    write_timeout: Duration,
    /// Runs out when the client has taken nothing for too long; there while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl SocketBytes {
    /// Writes by `write` as soon as there is place.
    fn poll_write_by(
        &mut self,
        context: &mut Context<'_>,
        mut write: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.socket.stream.poll_write_ready(context) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.poll_stalled(context),
            }
            match write(&self.socket.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.stalled = None;
                    self.socket.unsent.store(false, Ordering::Relaxed);
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn poll_stalled(&mut self, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.socket.unsent.store(true, Ordering::Relaxed);
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)));
        ready!(stalled.as_mut().poll(context));
        let text = format!("the client has read nothing for {} seconds", timeout.as_secs_f64());
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, text)))
    }
}

impl AsyncRead for SocketBytes {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            ready!(self.socket.stream.poll_read_ready(context))?;
            match self.socket.stream.try_read(buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for SocketBytes {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_by(context, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_by(context, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The system keeps what was written.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&*self.socket.stream).shutdown(Shutdown::Write) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }
}
