//! The sampling methods, one idea a file.
//!
//! There are two kinds. A [`LogitsProcessor`] changes logits, a whole row at a time. A [`Truncation`] then cuts the tail off
//! the candidates. Each method makes itself from the parameters, or does not when the parameters leave it off. None knows the
//! others; [`crate::chain`] owns their order.

mod frequency_presence;
mod logit_bias;
mod min_p;
mod min_tokens;
mod repetition;
mod temperature;
mod top_k;
mod top_p;

use std::fmt::Debug;

pub use frequency_presence::FrequencyPresence;
pub use logit_bias::LogitBias;
pub use min_p::MinP;
pub use min_tokens::MinTokens;
pub use repetition::Repetition;
pub use temperature::Temperature;
pub use top_k::TopK;
pub use top_p::TopP;

use crate::candidates::{Candidate, Candidates};
use crate::history::TokenHistory;

/// Changes the logits of one step. Minus infinity is a ban and stays one; no finite logit becomes NaN or plus infinity. Tokens
/// past the end of the row are passed over.
pub trait LogitsProcessor: Debug + Send + Sync {
    /// Applies the method. `logits` is `[vocabulary]`.
    fn process(&self, logits: &mut [f32], history: &TokenHistory);
}

/// Cuts the tail off the candidates of one draw.
pub trait Truncation: Debug + Send + Sync {
    /// The last candidate to keep in [`Candidate::order`], or `None` to keep all. The best candidate always stays. `buffer` is
    /// working space of any content.
    fn last_kept(&self, candidates: &Candidates<'_>, buffer: &mut Vec<Candidate>) -> Option<Candidate>;
}

#[cfg(test)]
pub(crate) mod testing {
    //! What the methods' tests share.

    use proptest::prelude::*;

    use super::*;
    use crate::candidates::DrawBuffers;
    use crate::params::{SamplingParams, SamplingRequest};

    pub(crate) fn params(change: impl FnOnce(&mut SamplingRequest)) -> SamplingParams {
        let mut request = SamplingRequest::default();
        change(&mut request);
        request.check(1 << 20, 0).expect("parameters within their bounds")
    }

    /// Rows with bans and many ties.
    pub(crate) fn logits() -> impl Strategy<Value = Vec<f32>> {
        let logit = prop_oneof![
            4 => -30.0_f32..30.0,
            3 => (-3_i8..3).prop_map(f32::from),
            1 => Just(f32::NEG_INFINITY),
            1 => Just(-0.0_f32),
        ];
        prop::collection::vec(logit, 1..200)
    }

    pub(crate) fn history() -> impl Strategy<Value = (Vec<u32>, Vec<u32>)> {
        let tokens = || prop::collection::vec(0_u32..220, 0..40);
        (tokens(), tokens())
    }

    pub(crate) fn history_of(prompt: &[u32], answer: &[u32]) -> TokenHistory {
        let mut history = TokenHistory::new(prompt);
        answer.iter().for_each(|&token| history.push(token));
        history
    }

    /// The tokens left after the truncations, ascending; none when everything is banned.
    pub(crate) fn kept(logits: &[f32], truncations: &[&dyn Truncation]) -> Vec<u32> {
        let mut buffers = DrawBuffers::default();
        let mut tokens = Vec::new();
        if let Some(mut candidates) = Candidates::new(logits, &mut buffers) {
            truncations.iter().for_each(|&truncation| candidates.truncate(truncation));
            candidates.visit_above(f32::NEG_INFINITY, |candidate| {
                tokens.push(candidate.token);
                f32::NEG_INFINITY
            });
        }
        tokens
    }

    /// Token and exact weight of everything not banned, best first.
    pub(crate) fn ranked(logits: &[f32]) -> Vec<(u32, f64)> {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let mut ranked: Vec<(u32, f64)> = (0..)
            .zip(logits)
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(token, &logit)| (token, f64::from(logit - max).exp()))
            .collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        ranked
    }

    /// The tokens that are not banned, by falling logit, then rising id.
    pub(crate) fn ranked_by_logit(logits: &[f32]) -> Vec<u32> {
        let mut tokens: Vec<u32> = (0..).take(logits.len()).collect();
        tokens.retain(|&token| logits[token as usize] > f32::NEG_INFINITY);
        // Stable: equal logits stay in the order of their ids.
        tokens.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).expect("no NaN"));
        tokens
    }

    pub(crate) fn ascending(tokens: impl IntoIterator<Item = u32>) -> Vec<u32> {
        let mut tokens: Vec<u32> = tokens.into_iter().collect();
        tokens.sort_unstable();
        tokens
    }
}
