//! A `hearth serve` process of its own, for tests of the whole program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::checkpoint;

/// A server on a loopback port that the system chose. It is killed when dropped.
pub struct ServerProcess {
    child: Child,
    address: SocketAddr,
    /// Whether connections are within TLS.
    encrypted: bool,
    /// The lines that it has written to stderr.
    log: Arc<Mutex<Vec<String>>>,
    /// The folder of its store, where it has one of its own.
    state: Option<TempDir>,
}

impl ServerProcess {
    /// Starts `hearth serve` with those arguments and a new store, and waits until every model answers.
    ///
    /// # Errors
    /// When it ends before, or is not ready within five minutes.
    pub fn start(hearth: &Path, arguments: &[&str]) -> Result<Self> {
        let state = tempfile::tempdir()?;
        let mut server = Self::with_state(hearth, state.path(), arguments, &[])?;
        server.state = Some(state);
        Ok(server)
    }

    /// Starts `hearth serve` with the store in that folder, and with those variables of the environment.
    ///
    /// # Errors
    /// As [`ServerProcess::start`].
    pub fn with_state(hearth: &Path, state: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Result<Self> {
        let mut command = Command::new(hearth);
        command.args(["serve", "--host", "127.0.0.1", "--port", "0", "--state"]).arg(state).args(arguments);
        command
            .env_remove("HEARTH_TOKEN")
            .env_remove("HEARTH_DATABASE")
            .env_remove("HEARTH_SECRETS_KEY")
            .envs(variables.iter().copied());
        let mut child = command.stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("stderr")?).lines();
        let mut said = Vec::new();
        let (scheme, address) = loop {
            let Some(line) = lines.next() else { bail!("the server ended: {}", said.join("\n")) };
            said.push(line?);
            let listening = said.last().and_then(|line| line.strip_prefix("listening on "));
            if let Some((scheme, address)) = listening.and_then(|url| url.split_once("://")) {
                break (scheme.to_owned(), address.parse()?);
            }
        };
        let log = Arc::new(Mutex::new(said));
        let later = Arc::clone(&log);
        // What it says later goes to the test's output too; a full pipe would stop it.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                println!("server: {line}");
                later.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        let server = Self { child, address, encrypted: scheme == "https", log, state: None };
        server.wait_until_ready()
    }

    /// Serves tiny checkpoints of `tests/goldens`, each as (endpoint, checkpoint).
    ///
    /// # Errors
    /// As [`ServerProcess::start`].
    pub fn serving(hearth: &Path, models: &[(&str, &str)]) -> Result<Self> {
        let model = |(name, tiny): &(&str, &str)| format!("{name}={}", checkpoint(tiny).path.display());
        let models: Vec<String> = models.iter().map(model).collect();
        let arguments: Vec<&str> = models.iter().flat_map(|model| ["--model", model]).collect();
        Self::start(hearth, &arguments)
    }

    fn wait_until_ready(mut self) -> Result<Self> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(300) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended: {status}");
            }
            let is_ready = match self.encrypted {
                true => self.log().lines().any(|line| line == "ready"),
                false => self.get("/health/ready").is_ok_and(|(status, _)| status == 200),
            };
            if is_ready {
                return Ok(self);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        bail!("the server was not ready within five minutes")
    }

    /// `http://ADDRESS`, or `https://ADDRESS`
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.encrypted { "https" } else { "http" }, self.address)
    }

    /// What it has written to stderr until now.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Waits until it has written that to stderr.
    ///
    /// # Errors
    /// When it has not within a minute.
    pub fn wait_for_log(&self, text: &str) -> Result<()> {
        let begun = Instant::now();
        while !self.log().contains(text) {
            ensure!(begun.elapsed() < Duration::from_secs(60), "the server never says {text:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The id of the process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the end of the process.
    ///
    /// # Errors
    /// When it has not ended within that time.
    pub fn wait(&mut self, at_most: Duration) -> Result<ExitStatus> {
        let begun = Instant::now();
        while begun.elapsed() < at_most {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the process has not ended within {at_most:?}")
    }

    /// Status and body of a GET.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn get(&self, path: &str) -> Result<(u16, String)> {
        self.request(&format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"))
    }

    /// Status and body of a POST of JSON.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn post(&self, path: &str, body: &str) -> Result<(u16, String)> {
        let head = "host: 127.0.0.1\r\nconnection: close\r\ncontent-type: application/json";
        self.request(&format!("POST {path} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    }

    /// Status and body of a request with a token; an empty one, and an empty body, are left out.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn call(&self, token: &str, method: &str, path: &str, body: &str) -> Result<(u16, String)> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n");
        if !token.is_empty() {
            text += &format!("authorization: Bearer {token}\r\n");
        }
        if !body.is_empty() {
            text += &format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len());
        }
        self.request(&format!("{text}\r\n{body}"))
    }

    /// Status and content of the answer to a POST, where that is JSON too.
    ///
    /// # Errors
    /// When the server does not answer, or not in JSON.
    pub fn ask(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        let (status, text) = self.post(path, &body.to_string())?;
        Ok((status, serde_json::from_str(&text).with_context(|| text.clone())?))
    }

    fn request(&self, text: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(120)))?;
        stream.write_all(text.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer has a head")?;
        let status = head.split(' ').nth(1).context("an answer has a status")?.parse()?;
        Ok((status, body.to_owned()))
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
