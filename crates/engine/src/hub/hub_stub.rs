//! A hub on a local port for tests: one repository, `some-org/tiny`, with the files a test gives it.
//!
//! Answers the two requests the client makes, byte ranges included, and can break a connection in the middle.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use super::Silent;
use super::checksum::copy_hashed;

/// SHA-256 of `content` as a card writes it.
pub(super) fn sha256_of(content: &[u8]) -> String {
    copy_hashed(&mut &*content, &mut std::io::sink(), &mut Silent).unwrap().sha256
}

#[derive(Default)]
struct Repository {
    files: HashMap<String, Vec<u8>>,
    checksums: HashMap<String, String>,
    cuts: HashMap<String, usize>,
    requests: Vec<String>,
}

/// The running stub. Without files it refuses everyone, as a gated repository does.
pub(super) struct HubStub {
    pub url: String,
    repository: Arc<Mutex<Repository>>,
}

impl HubStub {
    pub(super) fn start(files: &[(&str, &[u8])]) -> Self {
        let files: HashMap<_, _> = files.iter().map(|(name, content)| ((*name).to_owned(), content.to_vec())).collect();
        let checksums = files.iter().map(|(name, content)| (name.clone(), sha256_of(content))).collect();
        let repository = Arc::new(Mutex::new(Repository { files, checksums, ..Repository::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::clone(&repository);
        // Ends with the test process; a client that goes away in the middle is its own affair.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = answer(stream, &shared);
            }
        });
        Self { url, repository }
    }

    /// The first transfer of `file` breaks after `bytes`.
    pub(super) fn cut_first(&self, file: &str, bytes: usize) {
        self.repository.lock().unwrap().cuts.insert(file.to_owned(), bytes);
    }

    /// Announces this checksum for `file`, whatever its content.
    pub(super) fn promise(&self, file: &str, sha256: &str) {
        self.repository.lock().unwrap().checksums.insert(file.to_owned(), sha256.to_owned());
    }

    /// Path and range of every request so far.
    pub(super) fn requests(&self) -> Vec<String> {
        self.repository.lock().unwrap().requests.clone()
    }
}

fn answer(mut stream: TcpStream, repository: &Mutex<Repository>) -> std::io::Result<()> {
    let (path, range) = request(&stream)?;
    if path.is_empty() {
        // Only the look whether anybody is there.
        return Ok(());
    }
    let mut repository = repository.lock().unwrap();
    repository.requests.push(format!("{path} {range}"));
    if repository.files.is_empty() {
        return write!(stream, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if path.starts_with("/api/") {
        let names: Vec<String> = repository.files.keys().map(|name| format!("{{\"rfilename\":\"{name}\"}}")).collect();
        let body = format!("{{\"sha\":\"c0ffee\",\"siblings\":[{}]}}", names.join(","));
        let length = body.len();
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
    }
    let name = path.trim_start_matches("/some-org/tiny/resolve/main/").to_owned();
    let content = repository.files[&name].clone();
    let (first, last) = range.trim_start_matches("bytes=").split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let end = last.parse::<usize>().map_or(content.len(), |last| last + 1);
    let etag = &repository.checksums[&name];
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {first}-{}/{}\r\nETag: \"{etag}\"\r\n\
         X-Repo-Commit: c0ffee\r\nConnection: close\r\n\r\n",
        end - first,
        end - 1,
        content.len(),
    )?;
    let is_metadata = last == "0";
    let cut = if is_metadata { None } else { repository.cuts.remove(&name) };
    stream.write_all(&content[first..cut.unwrap_or(end)])
}

fn request(stream: &TcpStream) -> std::io::Result<(String, String)> {
    let mut lines = BufReader::new(stream).lines();
    let start = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let path = start.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut range = String::new();
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: ") {
            range = value.to_owned();
        }
    }
    Ok((path, range))
}
