//! Byte-pair encoding by the rank of the token that a merge makes, as SentencePiece and tiktoken do it.
//!
//! The `tokenizers` crate ranks pairs of tokens, from a list that these vocabularies do not have; with it, merges of the
//! same score would come in the list's order and not from left to right. Does not know where a vocabulary comes from.
//! Source: Kudo and Richardson 2018, and `src/bpe_model.cc` of <https://github.com/google/sentencepiece>.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};

use tokenizers::Token;

/// A token that merges may make.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    pub id: u32,
    /// The merge that makes the token of the highest score comes first.
    pub score: f32,
}

/// What becomes of a character that is no token.
#[derive(Clone, Debug)]
pub(super) enum Unknown {
    /// One token for each of its UTF-8 bytes, by byte.
    Bytes(Box<[u32; 256]>),
    /// One token for it and the unknown characters that follow.
    Token(u32),
}

/// A vocabulary whose merges are ranked by their result.
#[derive(Clone, Debug)]
pub(super) struct RankedMerges {
    pieces: HashMap<Box<str>, Piece>,
    unknown: Unknown,
    /// A text that is a token is that token, whatever merges would make of it.
    whole_first: bool,
    /// Bytes of the longest token.
    longest: usize,
}

/// A stretch of the text. One that was merged into its left neighbour has length 0.
#[derive(Clone, Copy)]
struct Symbol {
    start: usize,
    length: usize,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Two neighbours that together are a token.
struct Merge {
    score: f32,
    left: usize,
    right: usize,
    /// Of both together: when it no longer fits, one of them was merged with another.
    length: usize,
}

impl Ord for Merge {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.left.cmp(&self.left))
    }
}

impl PartialOrd for Merge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Merge {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Merge {}

impl RankedMerges {
    /// The tokens that a text can be made of, by their text.
    pub fn new(pieces: HashMap<Box<str>, Piece>, unknown: Unknown) -> Self {
        let longest = pieces.keys().map(|text| text.len()).max().unwrap_or(0);
        Self { pieces, unknown, whole_first: false, longest }
    }

    /// The same, but a text that is a token is that token.
    pub fn whole_first(self) -> Self {
        Self { whole_first: true, ..self }
    }

    /// Cuts a text into tokens.
    pub fn tokenize(&self, text: &str) -> Vec<Token> {
        if let Some(piece) = self.pieces.get(text).filter(|_| self.whole_first) {
            return vec![Token::new(piece.id, text.to_owned(), (0, text.len()))];
        }
        let mut symbols = characters(text);
        let mut queue: BinaryHeap<Merge> = (1..symbols.len())
            .filter_map(|right| self.merge(text, &symbols, right - 1, right))
            .collect::<Vec<_>>()
            .into();
        while let Some(Merge { left, right, length, .. }) = queue.pop() {
            let (one, other) = (symbols[left], symbols[right]);
            if one.length == 0 || other.length == 0 || one.length + other.length != length {
                continue;
            }
            symbols[left] = Symbol { length, next: other.next, ..one };
            symbols[right].length = 0;
            if let Some(next) = other.next {
                symbols[next].previous = Some(left);
            }
            let before = one.previous.and_then(|previous| self.merge(text, &symbols, previous, left));
            let after = other.next.and_then(|next| self.merge(text, &symbols, left, next));
            queue.extend(before.into_iter().chain(after));
        }
        self.tokens(text, &symbols)
    }

    fn merge(&self, text: &str, symbols: &[Symbol], left: usize, right: usize) -> Option<Merge> {
        let length = symbols[left].length + symbols[right].length;
        if length > self.longest {
            return None;
        }
        let start = symbols[left].start;
        let piece = self.pieces.get(&text[start..start + length])?;
        Some(Merge { score: piece.score, left, right, length })
    }

    fn tokens(&self, text: &str, symbols: &[Symbol]) -> Vec<Token> {
        let mut tokens: Vec<Token> = Vec::new();
        let mut was_unknown = false;
        for symbol in symbols.iter().filter(|symbol| symbol.length > 0) {
            let (start, end) = (symbol.start, symbol.start + symbol.length);
            let part = &text[start..end];
            let piece = self.pieces.get(part);
            match (piece, &self.unknown, tokens.last_mut()) {
                (Some(piece), _, _) => tokens.push(Token::new(piece.id, part.to_owned(), (start, end))),
                (None, Unknown::Bytes(ids), _) => {
                    let byte = |byte: u8| Token::new(ids[usize::from(byte)], part.to_owned(), (start, end));
                    tokens.extend(part.bytes().map(byte));
                }
                (None, Unknown::Token(_), Some(last)) if was_unknown => last.offsets.1 = end,
                (None, Unknown::Token(id), _) => tokens.push(Token::new(*id, part.to_owned(), (start, end))),
            }
            was_unknown = piece.is_none();
        }
        tokens
    }
}

fn characters(text: &str) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = text
        .char_indices()
        .enumerate()
        .map(|(index, (start, character))| Symbol {
            start,
            length: character.len_utf8(),
            previous: index.checked_sub(1),
            next: Some(index + 1),
        })
        .collect();
    if let Some(last) = symbols.last_mut() {
        last.next = None;
    }
    symbols
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merges(texts: &[(&str, f32)], unknown: Unknown) -> RankedMerges {
        let pieces = (0..).zip(texts).map(|(id, (text, score))| (Box::from(*text), Piece { id, score: *score }));
        RankedMerges::new(pieces.collect(), unknown)
    }

    fn texts(tokens: &[Token]) -> Vec<&str> {
        tokens.iter().map(|token| token.value.as_str()).collect()
    }

    #[test]
    fn the_leftmost_of_equal_merges_comes_first() {
        let merges = merges(&[("a", -9.0), ("b", -9.0), ("c", -9.0), ("bc", -1.0), ("ab", -1.0)], Unknown::Token(9));
        assert_eq!(texts(&merges.tokenize("abcbc")), ["ab", "c", "bc"]);
        assert_eq!(texts(&merges.tokenize("bcabc")), ["bc", "ab", "c"]);
    }

    #[test]
    fn the_highest_score_comes_first() {
        let texts_and_scores = [("a", -9.0), ("b", -9.0), ("c", -9.0), ("ab", -2.0), ("bc", -1.0), ("abc", -3.0)];
        let ranked = merges(&texts_and_scores, Unknown::Token(9));
        assert_eq!(texts(&ranked.tokenize("abcab")), ["abc", "ab"]);
        let without = merges(&texts_and_scores[..5], Unknown::Token(9));
        assert_eq!(texts(&without.tokenize("abcab")), ["a", "bc", "ab"]);
    }

    #[test]
    fn what_is_no_token_is_bytes_or_one_unknown() {
        let unknown = merges(&[("a", 0.0)], Unknown::Token(9)).tokenize("éüaé");
        let found: Vec<(u32, (usize, usize))> = unknown.iter().map(|token| (token.id, token.offsets)).collect();
        assert_eq!(found, [(9, (0, 4)), (0, (4, 5)), (9, (5, 7))]);
        let bytes = Unknown::Bytes(Box::new(std::array::from_fn(|byte| 1000 + byte as u32)));
        let ids: Vec<u32> = merges(&[("a", 0.0)], bytes).tokenize("éa").iter().map(|token| token.id).collect();
        assert_eq!(ids, [1195, 1169, 0]);
    }

    #[test]
    fn a_whole_token_may_come_before_its_merges() {
        let texts_and_scores = [("a", 0.0), ("b", 0.0), ("c", 0.0), ("abc", -1.0)];
        let ranked = merges(&texts_and_scores, Unknown::Token(9));
        assert_eq!(texts(&ranked.tokenize("abc")), ["a", "b", "c"]);
        assert_eq!(texts(&ranked.whole_first().tokenize("abc")), ["abc"]);
    }
}
