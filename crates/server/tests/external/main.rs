//! Models of other providers through the whole router: each provider's API is a stub on loopback that refuses what the
//! provider would refuse.

mod conversations;
mod failures;
mod fields;
mod house;
mod texts;
