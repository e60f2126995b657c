//! The tokens a sequence has seen, counted.
//!
//! Owns what penalties and the random stream's position are computed from. Must not know the logits.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Prompt and generated tokens of one sequence. Work over it is proportional to the distinct tokens, never to the vocabulary.
///
/// Cloning shares the prompt, so the choices of one request cost a prompt once.
#[derive(Clone, Debug, Default)]
pub struct TokenHistory {
    /// Distinct prompt tokens, ascending: penalties ask only whether a token was there.
    prompt: Arc<[u32]>,
    /// How often each token was generated. A tree and not a hash map: no randomness of the machine, same order everywhere.
    counts: BTreeMap<u32, u32>,
    generated: usize,
}

impl TokenHistory {
    /// A sequence before its first generated token.
    #[must_use]
    pub fn new(prompt: &[u32]) -> Self {
        let mut distinct = prompt.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        Self { prompt: distinct.into(), counts: BTreeMap::new(), generated: 0 }
    }

    /// Records one generated token.
    pub fn push(&mut self, token: u32) {
        *self.counts.entry(token).or_insert(0) += 1;
        self.generated += 1;
    }

    /// Number of tokens generated so far: the position of the next one in the random stream.
    #[must_use]
    pub fn generated(&self) -> usize {
        self.generated
    }

    /// Each generated token with how often it was generated, by ascending token.
    pub fn counts(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.counts.iter().map(|(&token, &count)| (token, count))
    }

    /// Each token of the prompt or the answer, once.
    pub fn seen(&self) -> impl Iterator<Item = u32> + '_ {
        let answered = self.counts.keys().filter(|token| self.prompt.binary_search(token).is_err());
        self.prompt.iter().chain(answered).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_and_generated_tokens_are_kept_apart() {
        let mut history = TokenHistory::new(&[5, 3, 5, 9]);
        assert_eq!(history.generated(), 0);
        assert_eq!(history.counts().count(), 0);
        for token in [3, 7, 7] {
            history.push(token);
        }
        assert_eq!(history.generated(), 3);
        assert_eq!(history.counts().collect::<Vec<_>>(), [(3, 1), (7, 2)]);
        assert_eq!(history.seen().collect::<Vec<_>>(), [3, 5, 9, 7]);
    }

    #[test]
    fn a_clone_goes_its_own_way() {
        let mut first = TokenHistory::new(&[1]);
        let second = first.clone();
        first.push(4);
        assert_eq!((first.generated(), second.generated()), (1, 0));
        assert_eq!(second.seen().collect::<Vec<_>>(), [1]);
    }
}
