//! The numbers that only a model's thread can tell: of its steps, of waiting and of the time between tokens.
//!
//! Where they go is not known here: the program installs a recorder, or does not. The names are looked up once a model.

use std::time::Instant;

use metrics::{Histogram, describe_histogram, histogram};

const QUEUE_SECONDS: &str = "hearth_queue_seconds";
const INTER_TOKEN_SECONDS: &str = "hearth_inter_token_seconds";
const STEP_SECONDS: &str = "hearth_step_seconds";
const STEP_TOKENS: &str = "hearth_step_tokens";

/// Where one model's numbers go.
pub(super) struct Meters {
    queue: Histogram,
    inter_token: Histogram,
    step_seconds: Histogram,
    step_tokens: Histogram,
}

impl Meters {
    /// Those of the model that is called `label`.
    pub(super) fn new(label: &str) -> Self {
        describe_histogram!(QUEUE_SECONDS, "Seconds from a sequence's submission to its first step, by model");
        describe_histogram!(INTER_TOKEN_SECONDS, "Seconds between one token of a sequence and its next, by model");
        describe_histogram!(STEP_SECONDS, "Seconds of a step of the model, by model");
        describe_histogram!(STEP_TOKENS, "Tokens computed in a step, over all sequences, by model");
        let named = |name| histogram!(name, "model" => label.to_owned());
        Self {
            queue: named(QUEUE_SECONDS),
            inter_token: named(INTER_TOKEN_SECONDS),
            step_seconds: named(STEP_SECONDS),
            step_tokens: named(STEP_TOKENS),
        }
    }

    /// A step of so many tokens, which ends now.
    pub(super) fn step(&self, begun: Instant, tokens: usize) {
        self.step_seconds.record(begun.elapsed());
        self.step_tokens.record(tokens as f64);
    }

    /// The first step of what was submitted then begins now.
    pub(super) fn begins(&self, submitted: Instant) {
        self.queue.record(submitted.elapsed());
    }

    /// A sequence has a token; `last` is when it had the one before, and is now after the call.
    pub(super) fn token(&self, last: &mut Option<Instant>) {
        let now = Instant::now();
        if let Some(last) = last.replace(now) {
            self.inter_token.record(now.duration_since(last));
        }
    }
}
