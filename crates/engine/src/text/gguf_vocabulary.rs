//! The vocabulary a GGUF file carries in its metadata (`tokenizer.ggml.*`).
//!
//! Owns what is read there, its checks, and which kinds are supported; each kind has a file. Does not read files.
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> and llama.cpp's `llama-vocab.cpp`.

mod byte_pair;
mod sentence_piece;
mod word_piece;

use tokenizers::AddedToken;

use super::TextError;
use super::pipeline::TokenizerParts;
use super::token_table::Token;
use crate::weights::GgufMetadata;

pub(super) use byte_pair::{LLAMA3_WORDS, word_splitter};
pub(super) use sentence_piece::{SentencePieces, SpacePrefix};

/// `tokenizer.ggml.token_type`, and `type` of a SentencePiece model's pieces.
pub(super) mod token_type {
    pub const NORMAL: i32 = 1;
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
    pub const BYTE: i32 = 6;
}

/// The metadata of a GGUF file that describes its tokenizer, as found there. The `Option`s are `None` where the file
/// does not say, and each kind of vocabulary has its own idea of what that means.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: the algorithm, such as `gpt2`.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is cut into words, such as `smollm`.
    pub pre: String,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`, one for each token or none at all.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.scores`, one for each token or none at all: the higher, the earlier a token is made.
    pub scores: Vec<f32>,
    /// `tokenizer.ggml.merges`, best first, two tokens with a space between.
    pub merges: Vec<String>,
    /// The tokens with a part to play.
    pub special: SpecialIds,
    /// `tokenizer.ggml.add_bos_token`.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_eos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`: whether a text begins with a space that is not written.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.ggml.normalizer.lowercase`.
    pub lowercase: Option<bool>,
    /// `tokenizer.ggml.normalizer.strip_accents`.
    pub strip_accents: Option<bool>,
}

/// `tokenizer.ggml.*_token_id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// Stands for what cannot be spelt.
    pub unknown: Option<u32>,
    /// Begins a text of an encoder.
    pub cls: Option<u32>,
    /// Ends a text of an encoder.
    pub separator: Option<u32>,
}

impl SpecialIds {
    /// The ids with the last parts of their keys.
    fn named(&self) -> [(&'static str, Option<u32>); 5] {
        [
            ("bos_token_id", self.bos),
            ("eos_token_id", self.eos),
            ("unknown_token_id", self.unknown),
            ("cls_token_id", self.cls),
            // Spelt like this since the first files.
            ("seperator_token_id", self.separator),
        ]
    }
}

impl GgufVocabulary {
    /// Takes the vocabulary out of a GGUF file's metadata. A missing `tokenizer.ggml.pre` is `default`, a missing
    /// list is empty.
    ///
    /// # Errors
    /// [`TextError::Metadata`] when the model's name or the tokens are missing, or a key is of the wrong type.
    pub fn from_metadata(metadata: &GgufMetadata) -> Result<Self, TextError> {
        let key = |name: &str| format!("tokenizer.ggml.{name}");
        let id = |name: &str| metadata.optional(&key(name), GgufMetadata::u32);
        let flag = |name: &str| metadata.optional(&key(name), GgufMetadata::bool);
        let pre = metadata.optional(&key("pre"), GgufMetadata::string)?;
        Ok(Self {
            model: metadata.string(&key("model"))?.to_owned(),
            pre: pre.unwrap_or("default").to_owned(),
            tokens: metadata.strings(&key("tokens"))?.to_vec(),
            token_types: metadata.optional(&key("token_type"), GgufMetadata::i32s)?.unwrap_or_default(),
            scores: metadata.optional(&key("scores"), GgufMetadata::f32s)?.unwrap_or_default(),
            merges: metadata.optional(&key("merges"), GgufMetadata::strings)?.unwrap_or_default().to_vec(),
            special: SpecialIds {
                bos: id("bos_token_id")?,
                eos: id("eos_token_id")?,
                unknown: id("unknown_token_id")?,
                cls: id("cls_token_id")?,
                separator: id("seperator_token_id")?,
            },
            add_bos: flag("add_bos_token")?,
            add_eos: flag("add_eos_token")?,
            add_space_prefix: flag("add_space_prefix")?,
            lowercase: flag("normalizer.lowercase")?,
            strip_accents: flag("normalizer.strip_accents")?,
        })
    }

    /// Makes a tokenizer of it.
    pub(super) fn build(self) -> Result<TokenizerParts, TextError> {
        self.check()?;
        match self.model.as_str() {
            "gpt2" => self.build_byte_pair(),
            "llama" => self.build_sentence_piece(),
            "bert" => self.build_word_piece(),
            _ => Err(TextError::UnsupportedVocabulary {
                field: "tokenizer.ggml.model",
                value: self.model,
                supported: "gpt2, llama, bert",
            }),
        }
    }

    fn check(&self) -> Result<(), TextError> {
        let tokens = self.tokens.len();
        if tokens == 0 || u32::try_from(tokens).is_err() {
            return Err(broken(format!("tokens has {tokens} entries")));
        }
        for (field, length) in [("token_type", self.token_types.len()), ("scores", self.scores.len())] {
            if length != 0 && length != tokens {
                return Err(broken(format!("{field} has {length} entries, tokens has {tokens}")));
            }
        }
        for (field, id) in self.special.named() {
            if let Some(id) = id.filter(|id| *id as usize >= tokens) {
                return Err(broken(format!("{field} is {id}, tokens has {tokens} entries")));
            }
        }
        Ok(())
    }

    /// What stands in front of and behind a text.
    fn surroundings(&self, adds_bos: bool) -> Result<(Vec<u32>, Vec<u32>), TextError> {
        let one = |field: &str, add: bool, id: Option<u32>| match (add, id) {
            (false, _) => Ok(Vec::new()),
            (true, Some(id)) => Ok(vec![id]),
            (true, None) => Err(broken(format!("add_{field}_token is true, but there is no {field}_token_id"))),
        };
        let leading = one("bos", self.add_bos.unwrap_or(adds_bos), self.special.bos)?;
        Ok((leading, one("eos", self.add_eos.unwrap_or(false), self.special.eos)?))
    }

    fn token_type(&self, id: u32) -> Option<i32> {
        self.token_types.get(id as usize).copied()
    }

    fn is_special(&self, id: u32) -> bool {
        match self.token_type(id) {
            Some(kind) => kind == token_type::CONTROL || kind == token_type::UNKNOWN,
            None => self.special.named().iter().any(|(_, special)| *special == Some(id)),
        }
    }

    fn is_added(&self, id: u32) -> bool {
        self.is_special(id) || self.token_type(id) == Some(token_type::USER_DEFINED)
    }

    /// The tokens as the table wants them, and those that are recognised in a text before it is cut.
    fn tokens(&self) -> (Vec<(u32, Token)>, Vec<AddedToken>) {
        let token = |(id, text): (u32, &String)| {
            (id, Token { text: text.clone(), added: self.is_added(id), special: self.is_special(id) })
        };
        let tokens: Vec<(u32, Token)> = (0u32..).zip(&self.tokens).map(token).collect();
        let added = added_tokens(&tokens);
        (tokens, added)
    }
}

/// The tokens that are recognised in a text before it is cut.
pub(super) fn added_tokens(tokens: &[(u32, Token)]) -> Vec<AddedToken> {
    let added = tokens.iter().map(|(_, token)| token).filter(|token| token.added && !token.text.is_empty());
    added.map(|token| AddedToken::from(token.text.as_str(), token.special).normalized(false)).collect()
}

pub(super) fn broken(message: impl std::fmt::Display) -> TextError {
    TextError::Vocabulary { message: message.to_string() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::text::token_table::byte_alphabet;
    use crate::text::{SpecialTokens, Tokenizer};

    /// `<s>`, `</s>`, then every byte, then what a few merges make.
    pub fn byte_vocabulary(pre: &str) -> GgufVocabulary {
        let mut bytes: Vec<(u8, char)> = byte_alphabet().into_iter().map(|(text, byte)| (byte, text)).collect();
        bytes.sort_unstable();
        let merges = ["h e", "l l", "he ll", "hell o", "Ġ hello", "Ġ Ġ", "ĠĠ ĠĠ", "ĠĠĠĠ ĠĠĠĠ"];
        let mut tokens = vec!["<s>".to_owned(), "</s>".to_owned()];
        tokens.extend(bytes.into_iter().map(|(_, text)| text.to_string()));
        tokens.extend(merges.iter().map(|merge| merge.replace(' ', "")));
        tokens.push("[tool]".to_owned());
        let mut token_types = vec![1; tokens.len()];
        (token_types[0], token_types[1]) = (token_type::CONTROL, token_type::CONTROL);
        *token_types.last_mut().unwrap() = token_type::USER_DEFINED;
        GgufVocabulary {
            model: "gpt2".to_owned(),
            pre: pre.to_owned(),
            tokens,
            token_types,
            merges: merges.iter().map(|merge| (*merge).to_owned()).collect(),
            special: SpecialIds { bos: Some(0), eos: Some(1), ..SpecialIds::default() },
            ..GgufVocabulary::default()
        }
    }

    fn tokenizer(pre: &str) -> Tokenizer {
        Tokenizer::from_vocabulary(byte_vocabulary(pre)).unwrap()
    }

    fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode(text, SpecialTokens::Omit).unwrap();
        ids.iter().map(|id| tokenizer.token_text(*id).unwrap().to_owned()).collect()
    }

    #[test]
    fn merges_apply_and_special_tokens_are_recognised() {
        let tokenizer = tokenizer("smollm");
        assert_eq!(pieces(&tokenizer, "hello hello</s>[tool]"), ["hello", "Ġhello", "</s>", "[tool]"]);
        let plain = tokenizer.encode_plain("</s>[tool]", SpecialTokens::Omit).unwrap();
        let plain: Vec<&str> = plain.iter().map(|id| tokenizer.token_text(*id).unwrap()).collect();
        assert_eq!(plain, ["<", "/", "s", ">", "[tool]"]);
        assert!(tokenizer.is_special(1) && !tokenizer.is_special(tokenizer.id_of("[tool]").unwrap()));
    }

    #[test]
    fn bos_is_added_when_the_file_or_the_kind_says_so() {
        for (pre, add_bos, expected) in
            [("smollm", None, 0), ("smollm", Some(true), 1), ("llama-bpe", None, 1), ("llama-bpe", Some(false), 0)]
        {
            let vocabulary = GgufVocabulary { add_bos, ..byte_vocabulary(pre) };
            let tokenizer = Tokenizer::from_vocabulary(vocabulary).unwrap();
            let ids = tokenizer.encode("a", SpecialTokens::Add).unwrap();
            assert_eq!(ids.iter().filter(|id| **id == 0).count(), expected, "{pre} {add_bos:?}");
            assert_eq!(tokenizer.leading_tokens().len(), expected);
        }
    }

    #[test]
    fn broken_vocabularies_name_the_fault() {
        type Spoil = fn(&mut GgufVocabulary);
        let faults: [(&str, Spoil); 8] = [
            ("\"t5\" is not supported", |v| v.model = "t5".to_owned()),
            ("\"tekken\" is not supported", |v| v.pre = "tekken".to_owned()),
            ("token_type has 1 entries", |v| v.token_types.truncate(1)),
            ("tokens has 0 entries", |v| v.tokens.clear()),
            ("eos_token_id is 9999", |v| v.special.eos = Some(9999)),
            ("no bos_token_id", |v| (v.add_bos, v.special.bos) = (Some(true), None)),
            ("merge 8 (\"he\")", |v| v.merges.push("he".to_owned())),
            // The library would copy past its buffer here.
            ("merge 8 (\"[tool] [tool]\")", |v| v.merges.push("[tool] [tool]".to_owned())),
        ];
        for (expected, spoil) in faults {
            let mut vocabulary = byte_vocabulary("smollm");
            spoil(&mut vocabulary);
            let error = Tokenizer::from_vocabulary(vocabulary).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should say {expected}");
        }
    }

    /// Encodes one character over and over, and decodes it again.
    fn there_and_back(pre: &str, character: &str, bytes: usize) {
        let tokenizer = tokenizer(pre);
        let text = character.repeat(bytes / character.len());
        let start = std::time::Instant::now();
        let ids = tokenizer.encode(&text, SpecialTokens::Omit).unwrap();
        let decoded: Vec<u8> = ids.iter().flat_map(|id| tokenizer.token_bytes(*id).unwrap().to_vec()).collect();
        assert!(decoded == text.as_bytes(), "{pre} {character:?} does not come back");
        // Quadratic work on a megabyte would take an hour.
        assert!(start.elapsed().as_secs() < 60, "{pre} {character:?} took {:?}", start.elapsed());
    }

    #[test]
    fn a_megabyte_of_one_character_is_no_trouble() {
        there_and_back("smollm", "a", 1_000_000);
        there_and_back("smollm", " ", 1_000_000);
        there_and_back("llama-bpe", " ", 1_000_000);
    }

    #[test]
    fn every_kind_encodes_long_runs() {
        for pre in ["smollm", "llama-bpe", "gpt-2", "dbrx", "default"] {
            ["a", " ", "\n", "é", "1", "!"].into_iter().for_each(|character| there_and_back(pre, character, 30_000));
        }
    }

    #[test]
    fn a_text_over_the_bound_is_refused() {
        let text = "a".repeat(crate::text::MAX_TEXT_BYTES + 1);
        let error = tokenizer("smollm").encode(&text, SpecialTokens::Omit).unwrap_err();
        assert!(error.to_string().contains("16777217 bytes"), "{error}");
    }
}
