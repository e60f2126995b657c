//! The seam for constrained decoding: which tokens may come next.
//!
//! Owns the shape of the question and a plain set that answers it. Must not know any grammar.

/// Says which tokens may come next in one sequence.
pub trait TokenMask {
    /// Whether the token may come next. A token the mask has never heard of may not.
    fn allows(&self, token: u32) -> bool;

    /// Sets the logit of every token that may not come next to minus infinity.
    fn apply(&self, logits: &mut [f32]) {
        for (token, logit) in (0_u32..).zip(logits) {
            if !self.allows(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// A set of tokens as bits: token `t` is bit `t % 32` of word `t / 32`, the layout grammar engines hand over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSet {
    words: Vec<u32>,
}

impl TokenSet {
    /// No token of a vocabulary of this size.
    #[must_use]
    pub fn none(vocab_size: usize) -> Self {
        Self { words: vec![0; vocab_size.div_ceil(32)] }
    }

    /// A set handed over as words; tokens past the last word are not in it.
    #[must_use]
    pub fn from_words(words: Vec<u32>) -> Self {
        Self { words }
    }

    /// Adds a token. One past the vocabulary has no bit and stays outside.
    pub fn allow(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word |= 1 << (token % 32);
        }
    }

    /// Takes a token out.
    pub fn forbid(&mut self, token: u32) {
        if let Some(word) = self.words.get_mut(token as usize / 32) {
            *word &= !(1 << (token % 32));
        }
    }
}

impl TokenMask for TokenSet {
    fn allows(&self, token: u32) -> bool {
        self.words.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
    }

    fn apply(&self, logits: &mut [f32]) {
        // Past the last word nothing is allowed.
        let words = self.words.iter().copied().chain(std::iter::repeat(0));
        for (word, logits) in words.zip(logits.chunks_mut(32)) {
            match word {
                u32::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                _ => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        if word >> bit & 1 == 0 {
                            *logit = f32::NEG_INFINITY;
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Answers by `allows` alone, so the trait's own `apply` is what runs.
    struct ByToken<'a>(&'a TokenSet);

    impl TokenMask for ByToken<'_> {
        fn allows(&self, token: u32) -> bool {
            self.0.allows(token)
        }
    }

    proptest! {
        #[test]
        fn a_set_bans_exactly_the_tokens_outside_it(
            allowed in prop::collection::btree_set(0_u32..150, 0..150),
            forbidden in prop::collection::btree_set(0_u32..150, 0..20),
            vocab_size in 0_usize..150,
            row in 0_usize..200,
        ) {
            let mut set = TokenSet::none(vocab_size);
            allowed.iter().for_each(|&token| set.allow(token));
            forbidden.iter().for_each(|&token| set.forbid(token));
            let (mut by_words, mut by_token) = (vec![1.0; row], vec![1.0; row]);
            set.apply(&mut by_words);
            ByToken(&set).apply(&mut by_token);
            prop_assert_eq!(&by_words, &by_token);
            for (token, &logit) in (0_u32..).zip(&by_words) {
                let inside = allowed.contains(&token) && !forbidden.contains(&token)
                    && (token as usize) < vocab_size.div_ceil(32) * 32;
                prop_assert_eq!(logit, if inside { 1.0 } else { f32::NEG_INFINITY });
            }
        }
    }

    #[test]
    fn full_words_change_nothing() {
        let set = TokenSet::from_words(vec![u32::MAX, 1]);
        let mut logits = vec![2.0; 40];
        set.apply(&mut logits);
        assert_eq!(logits.iter().filter(|&&logit| logit == 2.0).count(), 33);
    }
}
