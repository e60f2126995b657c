//! Models of other providers through the whole router: each provider's API is a stub on loopback that refuses what the
//! provider would refuse.

#![expect(clippy::unwrap_used, clippy::panic, reason = "what fails here fails a test")]

mod conversations;
mod failures;
mod fields;
mod house;
mod texts;
