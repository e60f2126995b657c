//! Within TLS: the handshake has its own end, and all that holds without TLS holds.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hearth::connections::{Tls, TlsFiles};
use hearth::serve::ConnectionLimits;
use hearth_tests::{ServerProcess, checkpoint};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use super::house::{LAST_LIVE, LIVE, LONG, PATIENCE, SHORT, Server, begins, chat, limits, next, rest};

/// An authority, and the files of a certificate that it has signed for `localhost`.
struct Authority {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let authority = Self { folder: tempfile::tempdir()?, issuer };
        authority.sign()?;
        Ok(authority)
    }

    /// Writes a new certificate over the last one.
    fn sign(&self) -> Result<()> {
        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &self.issuer)?;
        let TlsFiles { certificate: file, key: key_file } = self.files();
        fs::write(file, certificate.pem())?;
        Ok(fs::write(key_file, key.serialize_pem())?)
    }

    fn files(&self) -> TlsFiles {
        let file = |name: &str| self.folder.path().join(name);
        TlsFiles { certificate: file("certificate.pem"), key: file("key.pem") }
    }

    /// What a client knows that trusts this authority alone, and speaks these protocols.
    fn client(&self, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    fn serve(&self, limits: ConnectionLimits) -> Result<Server> {
        Server::within(limits, LONG, Some(Arc::new(Tls::load(self.files())?)))
    }

    /// A connection to `address` that has shaken hands.
    fn connect(&self, stream: TcpStream) -> Result<Client> {
        let connection =
            ClientConnection::new(self.client(&[b"h2", b"http/1.1"])?, ServerName::try_from("localhost")?)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = StreamOwned::new(connection, stream);
        client.conn.complete_io(&mut client.sock)?;
        Ok(client)
    }

    fn send(&self, server: &Server, bytes: &str) -> Result<Client> {
        let mut client = self.connect(server.connect()?)?;
        client.write_all(bytes.as_bytes())?;
        client.flush()?;
        Ok(client)
    }
}

type Client = StreamOwned<ClientConnection, TcpStream>;

/// What is read until the server closes, in whichever way it does.
fn all(mut client: Client) -> String {
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = client.read(&mut piece) {
        answer.extend_from_slice(&piece[..read]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn requests_are_answered_within_tls_and_not_without() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.serve(limits())?;
    let mut client = authority.send(&server, LIVE)?;
    begins(&next(&mut client)?, 200)?;
    assert_eq!(client.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    client.write_all(LAST_LIVE.as_bytes())?;
    let mut last = String::new();
    client.read_to_string(&mut last).context("the end is announced")?;
    begins(&last, 200)?;
    let plain = rest(server.send(LIVE)?)?;
    assert!(!plain.contains("HTTP/1.1") && !plain.contains("live"), "{plain}");
    let strange = ClientConnection::new(Authority::new()?.client(&[])?, ServerName::try_from("localhost")?)?;
    let mut strange = StreamOwned::new(strange, server.connect()?);
    assert!(strange.conn.complete_io(&mut strange.sock).is_err(), "another authority's client does not trust it");
    let modern = ClientConnection::new(authority.client(&[b"h2"])?, ServerName::try_from("localhost")?)?;
    let mut modern = StreamOwned::new(modern, server.connect()?);
    assert!(modern.conn.complete_io(&mut modern.sock).is_err(), "HTTP/2 alone is not spoken");
    Ok(())
}

#[test]
fn a_handshake_that_does_not_end_is_ended() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.serve(ConnectionLimits { idle_timeout: SHORT, ..limits() })?;
    assert_eq!(rest(server.connect()?)?, "");
    // The beginning of a record that says that it is long.
    let mut half = server.connect()?;
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])?;
    assert_eq!(rest(half)?, "");
    // Drop by drop it takes no longer.
    let mut slow = server.connect()?;
    let begun = Instant::now();
    slow.write_all(&[0x16, 0x03, 0x01, 0x40, 0x00])?;
    while slow.write_all(&[0x01]).is_ok() {
        ensure!(begun.elapsed() < PATIENCE, "it goes on for ever");
        std::thread::sleep(SHORT / 10);
    }
    let client = authority.connect(server.connect()?)?;
    assert_eq!(all(client), "", "and one that says nothing after it");
    assert_eq!(all(authority.send(&server, "POST /v1/chat/completions HTTP/1.1\r\nhost: hea")?), "");
    begins(&all(authority.send(&server, LAST_LIVE)?), 200)
}

#[test]
fn a_newcomer_takes_the_place_of_whoever_has_not_shaken_hands() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.serve(ConnectionLimits { most: 2, ..limits() })?;
    let silent: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect::<Result<_>>()?;
    begins(&all(authority.send(&server, LAST_LIVE)?), 200)?;
    drop(silent);
    Ok(())
}

#[test]
fn bodies_heads_and_sizes_have_the_same_limits() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.serve(ConnectionLimits { body_timeout: SHORT, ..limits() })?;
    let path = "/api/2.0/secrets/put";
    for half in ["/v1/chat/completions", "/serving-endpoints/endless/invocations"] {
        let half = chat(half, "hello", false);
        let answer = all(authority.send(&server, &half[..half.len() - 5])?);
        begins(&answer, 408)?;
    }
    let stalled = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{{");
    let answer = all(authority.send(&server, &stalled)?);
    begins(&answer, 408)?;
    assert!(answer.contains("\"error_code\":\"DEADLINE_EXCEEDED\""), "{answer}");
    let long = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 1 << 30);
    let answer = all(authority.send(&server, &long)?);
    begins(&answer, 413)?;
    assert!(answer.contains("\"error_code\""), "{answer}");
    // How long a head may be depends on how much of it comes at a time; how many headers it may have does not.
    let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(101));
    begins(&all(authority.send(&server, &head)?), 431)?;
    Ok(())
}

#[test]
fn an_answer_ends_with_its_client_and_a_deaf_one_does_not_hold_it() -> Result<()> {
    let authority = Authority::new()?;
    let server = authority.serve(ConnectionLimits { write_timeout: SHORT, ..limits() })?;
    let path = "/v1/chat/completions";
    let mut deaf = authority.send(&server, &chat(path, "talk", true))?;
    deaf.read_exact(&mut [0; 64])?;
    server.wait_for_open(0)?;
    let mut slow = authority.send(&server, &chat(path, "talk", true))?;
    let mut piece = vec![0; 1 << 20];
    for _ in 0..5 {
        slow.read_exact(&mut piece)?;
        std::thread::sleep(SHORT / 4);
    }
    drop(slow);
    server.wait_for_open(0)?;
    for streamed in [true, false] {
        let client = authority.send(&server, &chat(path, "hello", streamed))?;
        server.wait_for_open(1)?;
        drop(client);
        server.wait_for_open(0)?;
    }
    Ok(())
}

#[test]
fn a_server_that_stops_says_so_within_tls() -> Result<()> {
    let authority = Authority::new()?;
    let tls = Some(Arc::new(Tls::load(authority.files())?));
    let mut server = Server::within(limits(), Duration::from_secs(1), tls)?;
    let (silent, mut idle) = (server.connect()?, authority.send(&server, LIVE)?);
    begins(&next(&mut idle)?, 200)?;
    let stream = authority.send(&server, &chat("/v1/chat/completions", "hello", true))?;
    server.wait_for_open(1)?;
    server.stop()?;
    let answer = all(stream);
    assert!(answer.contains("\ndata: {\"error\":{\"message\":\"the server was stopped"), "{answer}");
    server.wait_for_end()?;
    assert_eq!((all(idle), rest(silent)?), (String::new(), String::new()));
    Ok(())
}

/// The program itself, and a certificate that is renewed while it runs.
#[test]
fn the_program_reads_its_certificate_again_at_a_signal() -> Result<()> {
    let (authority, state) = (Authority::new()?, tempfile::tempdir()?);
    let text = |path: PathBuf| path.display().to_string();
    let TlsFiles { certificate, key } = authority.files();
    let model = format!("talker={}", checkpoint("llama-linear-f32").path.display());
    let (certificate, key) = (text(certificate), text(key));
    let arguments = ["--model", &model, "--tls-certificate", &certificate, "--tls-key", &key];
    let hearth = Path::new(env!("CARGO_BIN_EXE_hearth"));
    let server = ServerProcess::with_state(hearth, state.path(), &arguments, &[])?;
    assert!(server.url().starts_with("https://"));
    let presented = || -> Result<Vec<u8>> {
        let client = authority.connect(TcpStream::connect(server.address())?)?;
        Ok(client.conn.peer_certificates().context("a certificate")?[0].to_vec())
    };
    let mut client = authority.connect(TcpStream::connect(server.address())?)?;
    client.write_all(b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let answer = all(client);
    begins(&answer, 200)?;
    assert!(answer.contains("\"talker\""), "{answer}");

    let first = presented()?;
    let hang_up = || Command::new("kill").arg("-HUP").arg(server.id().to_string()).status();
    fs::write(&certificate, "no certificate")?;
    hang_up()?;
    server.wait_for_log("the one that was read before stays")?;
    assert_eq!(presented()?, first);
    authority.sign()?;
    hang_up()?;
    server.wait_for_log("the certificate was read again")?;
    assert_ne!(presented()?, first);
    Ok(())
}
