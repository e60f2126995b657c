//! Two texts as one: how a tokenizer puts a pair together for models that read both at once.
//!
//! Owns what stands around the two and which tokens count as the second's. Does not know what a pair is for.

/// A text for an encoder, or two texts in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedText {
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Tokens from this index on have type 1, those before it type 0. The number of tokens where all have type 0.
    pub second: usize,
}

impl TypedText {
    /// One text.
    #[must_use]
    pub fn single(tokens: Vec<u32>) -> Self {
        Self { second: tokens.len(), tokens }
    }
}

/// What a tokenizer puts around two texts: `[CLS] first [SEP] second [SEP]`, or `<s> first </s></s> second </s>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairTemplate {
    leading: Vec<u32>,
    between: Vec<u32>,
    trailing: Vec<u32>,
    /// Tokens of `between` after which tokens have type 1; `None` where all have type 0.
    types_change_after: Option<usize>,
}

impl PairTemplate {
    /// The template of a `tokenizer.json`, by what it makes of two texts. `None` where that is not the first text and
    /// then the second with fixed tokens around them, of type 0 and then of type 1.
    pub(super) fn of(tokenizer: &tokenizers::Tokenizer) -> Option<Self> {
        let encoding = tokenizer.encode(("a", "a"), true).ok()?;
        let (ids, types) = (encoding.get_ids(), encoding.get_type_ids());
        let texts = encoding.get_sequence_ids();
        let place = |text: usize| {
            let start = texts.iter().position(|of| *of == Some(text))?;
            let length = texts.iter().filter(|of| **of == Some(text)).count();
            let whole = texts[start..].iter().take(length).all(|of| *of == Some(text));
            whole.then_some((start, start + length))
        };
        let (first, second) = (place(0)?, place(1)?);
        let changes = types.iter().position(|kind| *kind == 1);
        let in_order = first.1 <= second.0 && types[changes.unwrap_or(types.len())..].iter().all(|kind| *kind == 1);
        let known = types.iter().all(|kind| *kind <= 1);
        let between_texts = changes.is_none_or(|index| (first.1..=second.0).contains(&index));
        (in_order && known && between_texts).then(|| Self {
            leading: ids[..first.0].to_vec(),
            between: ids[first.1..second.0].to_vec(),
            trailing: ids[second.1..].to_vec(),
            types_change_after: changes.map(|index| index - first.1),
        })
    }

    /// Tokens of a pair beside those of the two texts.
    #[must_use]
    pub fn special_tokens(&self) -> usize {
        self.leading.len() + self.between.len() + self.trailing.len()
    }

    /// Two texts, encoded without special tokens, as one.
    #[must_use]
    pub fn join(&self, first: &[u32], second: &[u32]) -> TypedText {
        let tokens = [&self.leading, first, &self.between, second, &self.trailing].concat();
        let second = self.types_change_after.map(|after| self.leading.len() + first.len() + after);
        TypedText { second: second.unwrap_or(tokens.len()), tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::Tokenizer;

    /// Words `a`, `b` and `c` are 3, 4 and 5; `[` and `]` are 1 and 2.
    fn tokenizer(pair: &str) -> Tokenizer {
        let special =
            |name: &str, id: u32| format!(r#""{name}": {{"id": "{name}", "ids": [{id}], "tokens": ["{name}"]}}"#);
        let pieces = pair.split(' ').map(|piece| {
            let (name, kind) = piece.split_once(':').unwrap();
            let (tag, id) = if name == "A" || name == "B" { ("Sequence", name) } else { ("SpecialToken", name) };
            format!(r#"{{"{tag}": {{"id": "{id}", "type_id": {kind}}}}}"#)
        });
        let pair = pieces.collect::<Vec<_>>().join(",");
        let json = format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
            "pre_tokenizer": {{"type": "Whitespace"}}, "decoder": {{"type": "WordPiece", "prefix": "x", "cleanup": false}},
            "model": {{"type": "WordLevel", "unk_token": "?", "vocab": {{"?": 0, "[": 1, "]": 2, "a": 3, "b": 4, "c": 5}}}},
            "post_processor": {{"type": "TemplateProcessing",
            "single": [{{"Sequence": {{"id": "A", "type_id": 0}}}}], "pair": [{pair}],
            "special_tokens": {{{}, {}}}}}}}"#,
            special("[", 1),
            special("]", 2),
        );
        Tokenizer::from_bytes(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_pair_is_put_together_as_the_tokenizer_says() {
        for (template, tokens, second, special) in [
            ("[:0 A:0 ]:0 B:1 ]:1", vec![1, 3, 2, 4, 5, 2], 3, 3),
            ("[:0 A:0 ]:0 ]:0 B:0 ]:0", vec![1, 3, 2, 2, 4, 5, 2], 7, 4),
            ("A:0 ]:1 B:1", vec![3, 2, 4, 5], 1, 1),
            ("A:0 B:1", vec![3, 4, 5], 1, 0),
        ] {
            let tokenizer = tokenizer(template);
            let pair = tokenizer.pair_template().unwrap();
            assert_eq!(pair.join(&[3], &[4, 5]), TypedText { tokens, second }, "{template}");
            assert_eq!(pair.special_tokens(), special, "{template}");
        }
    }

    #[test]
    fn another_order_or_other_types_are_no_template() {
        for template in ["[:0 B:0 ]:0 A:0", "[:0 A:0 ]:0 B:2 ]:2", "[:0 A:1 ]:1 B:0 ]:0", "[:1 A:0 B:1"] {
            assert_eq!(tokenizer(template).pair_template(), None, "{template}");
        }
    }
}
