//! What each token id stands for: its text in the vocabulary and the bytes it adds to a decoded text.
//!
//! Owns the three ways vocabularies write bytes. Does not know how text is cut into tokens.

use std::collections::HashMap;

use super::TextError;

/// The highest token id: a hundred times the largest vocabulary there is, and a bound on the memory a file can ask for.
const HIGHEST_ID: u32 = 1 << 26;

/// How a vocabulary writes the bytes of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TokenSpelling {
    /// Every byte is one printable character (GPT-2's byte-level BPE).
    ByteLevel,
    /// `▁` is a space; with `byte_tokens`, `<0xNN>` is one byte (SentencePiece).
    Metaspace { byte_tokens: bool },
    /// A token is a word of its own unless it starts with `prefix` (WordPiece). `None`: always a word of its own.
    Words { prefix: Option<String> },
}

/// How token ids turn into text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Decoding {
    pub spelling: TokenSpelling,
    /// One space at the very start of a decoded text is dropped.
    pub strip_first_space: bool,
}

impl Decoding {
    pub const BYTE_LEVEL: Self = Self { spelling: TokenSpelling::ByteLevel, strip_first_space: false };

    /// Reads the `decoder` of a `tokenizer.json`; `None` is its absence, when tokens are joined with spaces.
    pub fn from_decoder(decoder: Option<&serde_json::Value>) -> Result<Self, TextError> {
        let Some(decoder) = decoder else {
            return Ok(Self { spelling: TokenSpelling::Words { prefix: None }, strip_first_space: true });
        };
        let mut steps = Vec::new();
        collect_steps(decoder, &mut steps);
        let find = |kind: &str| steps.iter().copied().find(|step| step["type"] == kind);
        if find("ByteLevel").is_some() {
            return Ok(Self::BYTE_LEVEL);
        }
        if let Some(word_piece) = find("WordPiece") {
            let prefix = word_piece["prefix"].as_str().map(str::to_owned);
            return Ok(Self { spelling: TokenSpelling::Words { prefix }, strip_first_space: true });
        }
        let metaspace = find("Metaspace");
        let replaces = steps.iter().any(|step| step["type"] == "Replace" && step["pattern"]["String"] == "▁");
        if metaspace.is_none() && !replaces {
            let kinds: Vec<&str> = steps.iter().filter_map(|step| step["type"].as_str()).collect();
            return Err(TextError::Tokenizer { message: format!("decoder {kinds:?} is not supported") });
        }
        let strips = find("Strip").is_some_and(|step| step["content"] == " " && step["start"] != 0);
        let prepends = metaspace.is_some_and(|step| step["prepend_scheme"] != "never");
        let spelling = TokenSpelling::Metaspace { byte_tokens: find("ByteFallback").is_some() };
        Ok(Self { spelling, strip_first_space: strips || prepends })
    }
}

fn collect_steps<'a>(decoder: &'a serde_json::Value, steps: &mut Vec<&'a serde_json::Value>) {
    match decoder["decoders"].as_array() {
        Some(inner) if decoder["type"] == "Sequence" => inner.iter().for_each(|step| collect_steps(step, steps)),
        _ => steps.push(decoder),
    }
}

/// One token of the vocabulary.
pub(super) struct Token {
    pub text: String,
    /// Added beside the model's own vocabulary: its text is spelt as it is.
    pub added: bool,
    /// Steers the model (begin, end, roles) and is no part of a decoded text.
    pub special: bool,
}

#[derive(Debug)]
struct Entry {
    text: Box<str>,
    bytes: Box<[u8]>,
    special: bool,
}

/// All tokens by id. Ids need not be contiguous.
#[derive(Debug)]
pub(super) struct TokenTable {
    entries: Vec<Option<Entry>>,
}

impl TokenTable {
    /// Spells out every token once.
    ///
    /// # Errors
    /// A token whose id is above [`HIGHEST_ID`], by name.
    pub fn new(tokens: impl IntoIterator<Item = (u32, Token)>, spelling: &TokenSpelling) -> Result<Self, TextError> {
        let byte_of = byte_alphabet();
        let mut entries = Vec::new();
        for (id, token) in tokens {
            if id > HIGHEST_ID {
                let message =
                    format!("token {:?} has the id {id}, the highest there may be is {HIGHEST_ID}", token.text);
                return Err(TextError::Tokenizer { message });
            }
            let index = id as usize;
            if index >= entries.len() {
                entries.resize_with(index + 1, || None);
            }
            let bytes = if token.added || token.special {
                token.text.clone().into_bytes()
            } else {
                spell(&token.text, spelling, &byte_of)
            };
            let entry = Entry { text: token.text.into(), bytes: bytes.into(), special: token.special };
            entries[index] = Some(entry);
        }
        Ok(Self { entries })
    }

    fn entry(&self, id: u32) -> Option<&Entry> {
        self.entries.get(id as usize)?.as_ref()
    }

    pub fn bytes(&self, id: u32) -> Option<&[u8]> {
        self.entry(id).map(|entry| &*entry.bytes)
    }

    pub fn text(&self, id: u32) -> Option<&str> {
        self.entry(id).map(|entry| &*entry.text)
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.entry(id).is_some_and(|entry| entry.special)
    }

    /// One more than the highest id.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
}

fn spell(text: &str, spelling: &TokenSpelling, byte_of: &HashMap<char, u8>) -> Vec<u8> {
    match spelling {
        TokenSpelling::ByteLevel => {
            let bytes: Option<Vec<u8>> = text.chars().map(|c| byte_of.get(&c).copied()).collect();
            bytes.unwrap_or_else(|| text.as_bytes().to_vec())
        }
        TokenSpelling::Metaspace { byte_tokens } => match byte_token(text) {
            Some(byte) if *byte_tokens => vec![byte],
            _ => text.replace('▁', " ").into_bytes(),
        },
        TokenSpelling::Words { prefix } => match prefix.as_deref().and_then(|prefix| text.strip_prefix(prefix)) {
            Some(rest) => rest.as_bytes().to_vec(),
            None => format!(" {text}").into_bytes(),
        },
    }
}

/// The byte of `<0xNN>`.
pub(super) fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        u8::from_str_radix(digits, 16).ok()
    } else {
        None
    }
}

/// GPT-2's printable alphabet of bytes: printable Latin-1 stands for itself, the other bytes count on from U+0100.
pub(super) fn byte_alphabet() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let stand_ins = ('\u{100}'..).zip((0..=u8::MAX).filter(|byte| !printable(*byte)));
    (0..=u8::MAX).filter(|byte| printable(*byte)).map(|byte| (char::from(byte), byte)).chain(stand_ins).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_byte_alphabet_holds_every_byte_once() {
        let alphabet = byte_alphabet();
        let mut bytes: Vec<u8> = alphabet.values().copied().collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=u8::MAX).collect::<Vec<u8>>());
        assert_eq!((alphabet[&'Ġ'], alphabet[&'Ċ'], alphabet[&'ł']), (b' ', b'\n', 0xA0));
        assert_eq!(alphabet[&'Ń'], 0xAD);
    }

    #[test]
    fn every_spelling_gives_its_bytes() {
        let alphabet = byte_alphabet();
        let words = TokenSpelling::Words { prefix: Some("##".to_owned()) };
        let pieces = TokenSpelling::Metaspace { byte_tokens: true };
        for (text, spelling, expected) in [
            ("Ġcaf", &TokenSpelling::ByteLevel, &b" caf"[..]),
            ("Ã", &TokenSpelling::ByteLevel, &[0xC3]),
            ("▁the", &pieces, b" the"),
            ("<0xE2>", &pieces, &[0xE2]),
            ("<0xE2>", &TokenSpelling::Metaspace { byte_tokens: false }, b"<0xE2>"),
            ("<0x+2>", &pieces, b"<0x+2>"),
            ("##ing", &words, b"ing"),
            ("go", &words, b" go"),
        ] {
            assert_eq!(spell(text, spelling, &alphabet), expected, "{text}");
        }
    }

    #[test]
    fn an_absurd_id_is_refused_by_name() {
        let token = || Token { text: "far".to_owned(), added: false, special: false };
        let error = TokenTable::new([(u32::MAX, token())], &TokenSpelling::ByteLevel).unwrap_err().to_string();
        assert!(error.contains("\"far\" has the id 4294967295") && error.contains("67108864"), "{error}");
        assert_eq!(TokenTable::new([(9, token())], &TokenSpelling::ByteLevel).unwrap().len(), 10);
    }

    #[test]
    fn the_decoder_decides_the_spelling() {
        let llama = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let decoding = Decoding::from_decoder(Some(&llama)).unwrap();
        assert_eq!(decoding.spelling, TokenSpelling::Metaspace { byte_tokens: true });
        assert!(decoding.strip_first_space);
        let unknown = Decoding::from_decoder(Some(&json!({"type": "CTC"}))).unwrap_err().to_string();
        assert!(unknown.contains("CTC"), "{unknown}");
    }
}
