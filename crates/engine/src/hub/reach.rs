//! Whether a host answers, within a bound that covers name resolution too.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use http::Uri;

/// Opens and closes a TCP connection to the host of `url`. `Err` says in words why there is none within `limit`.
///
/// Resolution runs in a thread of its own: the system's resolver takes no time limit, and a silent name server would
/// otherwise hold the caller for half a minute. The thread ends when the resolver gives up.
pub(super) fn reach(url: &str, limit: Duration) -> Result<(), String> {
    let (host, port) = host_and_port(url)?;
    let target = format!("{host}:{port}");
    let deadline = Instant::now() + limit;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // The receiver is gone when the limit has passed; then nobody wants the answer.
        let _ = sender.send(connect(&host, port, deadline));
    });
    match receiver.recv_timeout(limit) {
        Ok(answer) => answer.map_err(|reason| format!("{target}: {reason}")),
        Err(_) => Err(format!("{target}: no answer within {} s", limit.as_secs())),
    }
}

fn host_and_port(url: &str) -> Result<(String, u16), String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url} is not a URL: {error}"))?;
    let host = uri.host().ok_or_else(|| format!("{url} names no host"))?;
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("http") { 80 } else { 443 });
    // A URL writes an IPv6 address in brackets, the resolver wants it bare.
    Ok((host.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
}

fn connect(host: &str, port: u16, deadline: Instant) -> Result<(), String> {
    let mut last = "its name resolves to no address".to_owned();
    for address in (host, port).to_socket_addrs().map_err(|error| error.to_string())? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(_) => return Ok(()),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listening_port_is_reached_and_a_closed_one_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/path", listener.local_addr().unwrap());
        reach(&url, Duration::from_secs(3)).unwrap();
        drop(listener);
        let reason = reach(&url, Duration::from_secs(3)).unwrap_err();
        assert!(reason.contains("127.0.0.1"), "{reason}");
    }

    #[test]
    fn ports_follow_the_scheme() {
        assert_eq!(host_and_port("https://hub.example").unwrap(), ("hub.example".to_owned(), 443));
        assert_eq!(host_and_port("http://[::1]/x").unwrap(), ("::1".to_owned(), 80));
        assert!(host_and_port("not a url").is_err());
    }
}
