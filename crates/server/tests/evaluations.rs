//! The unmodified evaluation harness against the running program: `tests/evaluations` under pytest. The interpreter with
//! the harness comes in `HEARTH_EVALUATION_PYTHON`, as `scripts/test` sets it; without one the test is left out, and counted.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use hearth_tests::{ServerProcess, absent};
use serde_json::{Map, Value};

/// One of each family of decoders. The harness asks for the tokenizer without naming a model, so each has its own server.
const CHECKPOINTS: [&str; 3] = ["llama-tied-f32", "mixtral-f32", "dbrx-f32"];

#[test]
fn the_evaluation_harness_reads_the_log_likelihoods_of_pytorch() -> Result<()> {
    let Some(python) = std::env::var_os("HEARTH_EVALUATION_PYTHON") else {
        absent("the evaluation harness: `scripts/test` installs it");
        return Ok(());
    };
    let start = |name: &&str| ServerProcess::serving(Path::new(env!("CARGO_BIN_EXE_hearth")), &[(name, name)]);
    let servers = CHECKPOINTS.iter().map(start).collect::<Result<Vec<_>>>()?;
    let urls: Map<String, Value> =
        CHECKPOINTS.iter().zip(&servers).map(|(name, server)| ((*name).to_owned(), server.url().into())).collect();
    let cache = tempfile::tempdir()?; // the harness's copy of the data must not outlive a change of it
    let status = Command::new(python)
        .args(["-m", "pytest", "tests/evaluations"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_HOME", cache.path())
        .env("HEARTH_URLS", Value::from(urls).to_string())
        .status()
        .context("the interpreter in HEARTH_EVALUATION_PYTHON cannot be started")?;
    ensure!(status.success(), "the harness's suite failed: {status}");
    Ok(())
}
