//! The unmodified Python clients against the running program: `tests/clients` under pytest. The interpreter with the
//! clients comes in `HEARTH_PYTHON`, as `scripts/test` sets it; without one the test is left out, and counted.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use hearth_tests::{ProviderStubs, STUB_KEY, ServerProcess, absent, checkpoint, real_model, with_room};

/// The administrator's.
const TOKEN: &str = "hearth-clients-test-token";

#[test]
fn unmodified_clients_get_what_they_expect() -> Result<()> {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        absent("the Python clients: `scripts/test` installs them");
        return Ok(());
    };
    let place = |real: &str, tiny: &str| {
        let model = real_model(real).unwrap_or_else(|| checkpoint(tiny));
        format!("{real}={}", model.path.display())
    };
    let (chat, embedding) = ("smollm2-135m-instruct", "all-minilm-l6-v2");
    let reranker = format!("tiny-reranker={}", checkpoint("bert-reranker").path.display());
    let roomy = with_room("llama-linear-f32")?;
    let random = format!("talker={}", roomy.path().display());
    let models = [place(chat, "llama-linear-f32"), random, place(embedding, "bert-mean"), reranker];
    let arguments: Vec<&str> = models.iter().flat_map(|model| ["--model", model]).collect();
    // Loaded by the endpoints that the tests make.
    let hosted = with_room("llama-linear-f32")?;
    let (state, hearth) = (tempfile::tempdir()?, Path::new(env!("CARGO_BIN_EXE_hearth")));
    let stubs = ProviderStubs::start()?;
    let anthropic = stubs.base("anthropic");
    let external = ["--anthropic-base", &anthropic, "--external-retries", "0"];
    let arguments = [arguments, external.to_vec()].concat();
    let server = ServerProcess::with_state(hearth, state.path(), &arguments, &[("HEARTH_TOKEN", TOKEN)])?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/clients"])
        .current_dir(root)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HEARTH_URL", server.url())
        .env("HEARTH_TOKEN", TOKEN)
        .env("HEARTH_HOSTED_ENTITY", hosted.path())
        .env("HEARTH_CHAT_MODEL", chat)
        .env("HEARTH_RANDOM_MODEL", "talker")
        .env("HEARTH_EMBEDDING_MODEL", embedding)
        .env("HEARTH_RERANK_MODEL", "tiny-reranker")
        .env("HEARTH_STUBS_URL", stubs.url())
        .env("HEARTH_STUBS_KEY", STUB_KEY)
        .status()
        .context("the interpreter in HEARTH_PYTHON cannot be started")?;
    if !status.success() {
        bail!("the clients' suite failed: {status}");
    }
    Ok(())
}
