//! Stubs of other providers' APIs, for tests that are not written in Rust: prints `listening on http://ADDRESS` and the key
//! that they want, and ends when its standard input does. With `--forget` they keep no request, for benchmarks.

use std::io::Read;

use hearth_tests::{ProviderStubs, STUB_KEY};

fn main() -> anyhow::Result<()> {
    let forgets = std::env::args().any(|argument| argument == "--forget");
    let stubs = if forgets { ProviderStubs::forgetful()? } else { ProviderStubs::start()? };
    println!("listening on {}\nkey {STUB_KEY}", stubs.url());
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
