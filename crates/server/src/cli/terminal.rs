//! What a person reads: answers on stdout, everything else on stderr.
#![expect(clippy::print_stderr, reason = "the one place that talks to a person on stderr")]

use std::fmt::Arguments;
use std::io::{self, Write};

/// One line for the person, on stderr.
pub(super) fn say(line: Arguments<'_>) {
    eprintln!("{line}");
}

/// Writes part of an answer to stdout and shows it at once.
///
/// # Errors
/// When stdout is closed.
pub(super) fn answer(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
