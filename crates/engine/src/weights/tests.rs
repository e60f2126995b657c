//! Tests of the readers as a whole: files that are right, files with one thing wrong, files that are noise.

mod folders;
mod fuzz;
mod gguf;
mod pytorch;
mod writer;

use std::path::Path;

use super::{Fault, WeightsError};

/// The fault and the whole message of a reader that must refuse.
fn refusal<T>(result: Result<T, WeightsError>) -> (Fault, String) {
    let Err(error) = result else { panic!("a damaged file was accepted") };
    let message = error.to_string();
    (*error.fault, message)
}

fn write(folder: &Path, name: &str, bytes: &[u8]) {
    std::fs::write(folder.join(name), bytes).unwrap();
}
