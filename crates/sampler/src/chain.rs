//! The order the sampling methods run in. This is the one place that knows it.
//!
//! One step, from the model's row of logits to a token:
//!
//! 1. log probabilities are taken from the row as the model gave it, because evaluations ask about the model and not about
//!    the sampling;
//! 2. the token mask of constrained decoding;
//! 3. `logit_bias`;
//! 4. `min_tokens`, after the bias, so that no bias brings an end of sequence back;
//! 5. `repetition_penalty`;
//! 6. `frequency_penalty` and `presence_penalty`;
//! 7. at `temperature` 0 the best token is taken here, of equals the one of lowest id, and nothing below runs;
//! 8. `temperature`;
//! 9. `top_k`;
//! 10. `top_p`, its mass counted among the tokens that `top_k` left;
//! 11. `min_p`;
//! 12. the draw, at the point of the random stream that belongs to (seed, choice, position).
//!
//! The chain owns steps 3 to 11; [`crate::sampler`] the others. A method that the parameters leave off is not in the chain. A
//! new method is one file in [`crate::processors`] and one line here.

use crate::candidates::Candidates;
use crate::history::TokenHistory;
use crate::params::SamplingParams;
use crate::processors::{
    FrequencyPresence, LogitBias, LogitsProcessor, MinP, MinTokens, Repetition, Temperature, TopK, TopP, Truncation,
};

/// The methods that one request's parameters turn on, in order.
#[derive(Debug)]
pub struct LogitsChain {
    processors: Vec<Box<dyn LogitsProcessor>>,
    truncations: Vec<Box<dyn Truncation>>,
}

impl LogitsChain {
    /// The chain of these parameters; `end_tokens` are the model's end-of-sequence tokens.
    #[must_use]
    pub fn new(params: &SamplingParams, end_tokens: &[u32]) -> Self {
        let processors = [
            processor(LogitBias::from_params(params)),
            processor(MinTokens::from_params(params, end_tokens)),
            processor(Repetition::from_params(params)),
            processor(FrequencyPresence::from_params(params)),
            processor(Temperature::from_params(params)),
        ];
        let truncations = [
            truncation(TopK::from_params(params)),
            truncation(TopP::from_params(params)),
            truncation(MinP::from_params(params)),
        ];
        Self {
            processors: processors.into_iter().flatten().collect(),
            truncations: truncations.into_iter().flatten().collect(),
        }
    }

    /// Runs the methods that change logits. `logits` is `[vocabulary]`.
    pub fn adjust(&self, logits: &mut [f32], history: &TokenHistory) {
        for processor in &self.processors {
            processor.process(logits, history);
        }
    }

    /// Runs the methods that cut the candidates of a draw.
    pub fn truncate(&self, candidates: &mut Candidates<'_>) {
        for truncation in &self.truncations {
            candidates.truncate(truncation.as_ref());
        }
    }
}

fn processor<P: LogitsProcessor + 'static>(method: Option<P>) -> Option<Box<dyn LogitsProcessor>> {
    method.map(|method| Box::new(method) as Box<dyn LogitsProcessor>)
}

fn truncation<T: Truncation + 'static>(method: Option<T>) -> Option<Box<dyn Truncation>> {
    method.map(|method| Box::new(method) as Box<dyn Truncation>)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::SamplingRequest;

    fn names(request: SamplingRequest) -> Vec<String> {
        let chain = LogitsChain::new(&request.check(100, 0).expect("within bounds"), &[2]);
        let name = |debug: String| debug.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned();
        let processors = chain.processors.iter().map(|method| name(format!("{method:?}")));
        processors.chain(chain.truncations.iter().map(|method| name(format!("{method:?}")))).collect()
    }

    #[test]
    fn the_methods_stand_in_the_documented_order() {
        let request = SamplingRequest {
            temperature: 0.5,
            top_p: 0.5,
            top_k: Some(5),
            min_p: 0.5,
            frequency_penalty: 0.5,
            repetition_penalty: 1.5,
            logit_bias: vec![(1, 1.0)],
            min_tokens: 5,
            ..Default::default()
        };
        let order =
            ["LogitBias", "MinTokens", "Repetition", "FrequencyPresence", "Temperature", "TopK", "TopP", "MinP"];
        assert_eq!(names(request), order);
    }

    #[test]
    fn the_defaults_run_nothing() {
        assert!(names(SamplingRequest::default()).is_empty());
    }

    #[test]
    fn a_bias_brings_no_end_of_sequence_back_before_its_time() {
        let request = SamplingRequest { logit_bias: vec![(2, 100.0)], min_tokens: 1, ..Default::default() };
        let chain = LogitsChain::new(&request.check(3, 0).expect("within bounds"), &[2]);
        let mut logits = [0.0, 0.0, 5.0];
        chain.adjust(&mut logits, &TokenHistory::new(&[]));
        assert_eq!(logits, [0.0, 0.0, f32::NEG_INFINITY]);
    }
}
