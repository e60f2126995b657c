//! A Postgres server of its own, for tests of what several programs share.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Where Debian keeps its versions of Postgres.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A server with an empty database, reached through a socket in a folder of its own. It ends when dropped.
pub struct Postgres {
    child: Child,
    folder: TempDir,
}

impl Postgres {
    /// Starts a server; `None`, and counted, where Postgres is not installed.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> Result<Option<Self>> {
        let Some(programs) = programs() else {
            crate::absent("Postgres: the package `postgresql`");
            return Ok(None);
        };
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let owner = owner()?;
        if let Some((user, group)) = owner {
            chown(folder.path(), Some(user), Some(group))?;
        }
        let command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir(folder.path()).stdout(Stdio::null());
            // Postgres does not run as the superuser.
            if let Some((user, group)) = owner {
                command.uid(user).gid(group);
            }
            command
        };
        let made = command("initdb")
            .args(["--username=hearth", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync", "--pgdata"])
            .arg(&data)
            .output()?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        // What is tested is what becomes of our processes; the machine does not lose power.
        let mut child = command("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(folder.path())
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "lc_messages=C"])
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().context("stderr")?;
        let postgres = Self { child, folder };
        let mut lines = BufReader::new(stderr).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line.contains("ready to accept connections"));
        ensure!(ready, "Postgres ended before it was ready");
        // A full pipe would stop it.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| println!("postgres: {line}")));
        Ok(Some(postgres))
    }

    /// The URL of its database.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://hearth@localhost/postgres?host={}", self.folder.path().display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // The signal to end at once, without waiting for those who are connected.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::INT);
        }
        let _ = self.child.wait();
    }
}

/// The folder of the newest version's programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir(VERSIONS).into_iter().flatten().filter_map(Result::ok);
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = versions.map(|entry| entry.path()).filter(|path| path.join("bin/initdb").is_file());
    installed.max_by_key(|path| version(path)).map(|path| path.join("bin"))
}

/// The user and the group that the server runs as where this process is the superuser's.
fn owner() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let users = std::fs::read_to_string("/etc/passwd")?;
    let ids = |name: &str| {
        let fields: Vec<&str> =
            users.lines().map(|line| line.split(':').collect()).find(|line: &Vec<&str>| line[0] == name)?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).context("no user to run Postgres as").map(Some)
}
