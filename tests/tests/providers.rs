//! The stubs of other providers' APIs, read by those providers' own Python clients: `tests/providers` under pytest. The
//! interpreter with the clients comes in `HEARTH_PYTHON`, as `scripts/test` sets it; without one the test is left out, and
//! counted.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use hearth_tests::{ProviderStubs, STUB_KEY, absent};

#[test]
fn the_providers_own_clients_read_the_stubs() -> Result<()> {
    let Some(python) = std::env::var_os("HEARTH_PYTHON") else {
        absent("the Python clients: `scripts/test` installs them");
        return Ok(());
    };
    let stubs = ProviderStubs::start()?;
    let status = Command::new(python)
        .args(["-m", "pytest", "-q", "tests/providers"])
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("HEARTH_STUBS_URL", stubs.url())
        .env("HEARTH_STUBS_KEY", STUB_KEY)
        .status()
        .context("the interpreter in HEARTH_PYTHON cannot be started")?;
    if !status.success() {
        bail!("the providers' clients do not read the stubs: {status}");
    }
    Ok(())
}
