//! The vocabulary a GGUF file carries in its metadata (`tokenizer.ggml.*`).
//!
//! Owns which kinds are supported and how each cuts text into words. Does not read files.
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> and llama.cpp's `llama-vocab.cpp`.

use std::collections::HashSet;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::TextError;
use super::token_table::Token;
use crate::weights::GgufMetadata;

/// GPT-2's words. Source: <https://github.com/openai/gpt-2/blob/master/src/encoder.py>
const GPT2_WORDS: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Llama 3's words, those of tiktoken's `cl100k_base` but for the bounds on repetition.
const LLAMA3_WORDS: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// `tokenizer.ggml.token_type`.
mod token_type {
    pub const UNKNOWN: i32 = 2;
    pub const CONTROL: i32 = 3;
    pub const USER_DEFINED: i32 = 4;
}

/// The metadata of a GGUF file that describes its tokenizer, as found there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: the algorithm, such as `gpt2`.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is cut into words, such as `smollm`.
    pub pre: String,
    /// `tokenizer.ggml.tokens`, by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`, one for each token or none at all.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.merges`, best first, two tokens with a space between.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`; its absence means what the kind of vocabulary does by itself.
    pub add_bos: Option<bool>,
}

/// How one `tokenizer.ggml.pre` cuts text.
struct WordRule {
    pre_tokenizer: PreTokenizerWrapper,
    /// A word that is a token is that token, whatever the merges say.
    ignore_merges: bool,
    /// What a missing `add_bos_token` means.
    adds_bos: bool,
}

/// A vocabulary made into the library's tokenizer.
pub(super) struct BuiltVocabulary {
    pub pipeline: tokenizers::Tokenizer,
    pub tokens: Vec<(u32, Token)>,
    pub leading: Vec<u32>,
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
        let pre = metadata.optional(&key("pre"), GgufMetadata::string)?;
        Ok(Self {
            model: metadata.string(&key("model"))?.to_owned(),
            pre: pre.unwrap_or("default").to_owned(),
            tokens: metadata.strings(&key("tokens"))?.to_vec(),
            token_types: metadata.optional(&key("token_type"), GgufMetadata::i32s)?.unwrap_or_default(),
            merges: metadata.optional(&key("merges"), GgufMetadata::strings)?.unwrap_or_default().to_vec(),
            bos: id("bos_token_id")?,
            eos: id("eos_token_id")?,
            add_bos: metadata.optional(&key("add_bos_token"), GgufMetadata::bool)?,
        })
    }

    /// Makes a tokenizer of it.
    pub(super) fn build(self) -> Result<BuiltVocabulary, TextError> {
        match self.model.as_str() {
            "gpt2" => self.build_byte_pair(),
            _ => Err(TextError::UnsupportedVocabulary {
                field: "tokenizer.ggml.model",
                value: self.model,
                supported: "gpt2",
            }),
        }
    }

    fn build_byte_pair(self) -> Result<BuiltVocabulary, TextError> {
        let rule = word_rule(&self.pre)?;
        self.check()?;
        let leading = match (self.add_bos.unwrap_or(rule.adds_bos), self.bos) {
            (false, _) => Vec::new(),
            (true, Some(bos)) => vec![bos],
            (true, None) => return Err(broken("add_bos_token is true, but there is no bos_token_id")),
        };
        let model = BPE::builder()
            .vocab_and_merges(
                (0u32..).zip(&self.tokens).map(|(id, text)| (text.clone(), id)).collect::<Vocab>(),
                self.split_merges()?,
            )
            .ignore_merges(rule.ignore_merges)
            .build()
            .map_err(broken)?;
        let mut pipeline = tokenizers::Tokenizer::new(model);
        pipeline.with_pre_tokenizer(Some(rule.pre_tokenizer));
        pipeline.with_decoder(Some(ByteLevel::default()));
        let added = (0u32..).zip(&self.tokens).filter(|(id, text)| self.is_added(*id) && !text.is_empty());
        let added: Vec<AddedToken> =
            added.map(|(id, text)| AddedToken::from(text.as_str(), self.is_special(id)).normalized(false)).collect();
        pipeline.add_tokens(added).map_err(broken)?;
        let tokens = self.tokens.iter().zip(0u32..).map(|(text, id)| {
            (id, Token { text: text.clone(), added: self.is_added(id), special: self.is_special(id) })
        });
        Ok(BuiltVocabulary { tokens: tokens.collect(), pipeline, leading })
    }

    fn check(&self) -> Result<(), TextError> {
        let (tokens, types) = (self.tokens.len(), self.token_types.len());
        if tokens == 0 || u32::try_from(tokens).is_err() {
            return Err(broken(format!("tokens has {tokens} entries")));
        }
        if types != 0 && types != tokens {
            return Err(broken(format!("token_type has {types} entries, tokens has {tokens}")));
        }
        for (field, id) in [("bos_token_id", self.bos), ("eos_token_id", self.eos)] {
            if let Some(id) = id.filter(|id| *id as usize >= tokens) {
                return Err(broken(format!("{field} is {id}, tokens has {tokens} entries")));
            }
        }
        Ok(())
    }

    /// The merges as pairs of tokens, each known to make a token.
    fn split_merges(&self) -> Result<Vec<(String, String)>, TextError> {
        let known: HashSet<&str> = self.tokens.iter().map(String::as_str).collect();
        let pair = |(rank, merge): (usize, &String)| {
            // A token may itself begin with a space, never be empty.
            let space = merge.char_indices().skip(1).find(|(_, character)| *character == ' ');
            let (left, right) = space.map(|(at, _)| (&merge[..at], &merge[at + 1..])).unwrap_or_default();
            let whole = format!("{left}{right}");
            if [left, right, &whole].iter().all(|token| known.contains(token)) && !right.is_empty() {
                Ok((left.to_owned(), right.to_owned()))
            } else {
                Err(broken(format!("merge {rank} ({merge:?}) does not name two tokens that make a third")))
            }
        };
        self.merges.iter().enumerate().map(pair).collect()
    }

    fn token_type(&self, id: u32) -> Option<i32> {
        self.token_types.get(id as usize).copied()
    }

    fn is_special(&self, id: u32) -> bool {
        match self.token_type(id) {
            Some(kind) => kind == token_type::CONTROL || kind == token_type::UNKNOWN,
            None => [self.bos, self.eos].contains(&Some(id)),
        }
    }

    fn is_added(&self, id: u32) -> bool {
        self.is_special(id) || self.token_type(id) == Some(token_type::USER_DEFINED)
    }
}

fn word_rule(pre: &str) -> Result<WordRule, TextError> {
    let bytes = || PreTokenizerWrapper::from(ByteLevel::new(false, true, false));
    let (steps, is_llama3) = match pre {
        "smollm" => (vec![Digits::new(true).into(), pattern(GPT2_WORDS)?], false),
        "gpt-2" | "gpt2" => (vec![pattern(GPT2_WORDS)?], false),
        "llama-bpe" | "llama3" | "llama-v3" => (vec![pattern(LLAMA3_WORDS)?], true),
        // What llama.cpp does for files that do not say: not exactly any known model's rule.
        "default" => {
            let steps = [r"[\p{P}\$\+<=>\^~\|]+", GPT2_WORDS, r"\p{N}+", "[0-9][0-9][0-9]"];
            (steps.into_iter().map(pattern).collect::<Result<_, _>>()?, false)
        }
        _ => {
            return Err(TextError::UnsupportedVocabulary {
                field: "tokenizer.ggml.pre",
                value: pre.to_owned(),
                supported: "smollm, llama-bpe, gpt-2, default",
            });
        }
    };
    let steps = steps.into_iter().chain([bytes()]).collect();
    Ok(WordRule { pre_tokenizer: Sequence::new(steps).into(), ignore_merges: is_llama3, adds_bos: is_llama3 })
}

fn pattern(regex: &str) -> Result<PreTokenizerWrapper, TextError> {
    let pattern = SplitPattern::Regex(regex.to_owned());
    Split::new(pattern, SplitDelimiterBehavior::Isolated, false).map(Into::into).map_err(TextError::tokenizer)
}

fn broken(message: impl std::fmt::Display) -> TextError {
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
            bos: Some(0),
            eos: Some(1),
            add_bos: None,
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
            ("\"bert\" is not supported", |v| v.model = "bert".to_owned()),
            ("\"tekken\" is not supported", |v| v.pre = "tekken".to_owned()),
            ("token_type has 1 entries", |v| v.token_types.truncate(1)),
            ("tokens has 0 entries", |v| v.tokens.clear()),
            ("eos_token_id is 9999", |v| v.eos = Some(9999)),
            ("no bos_token_id", |v| (v.add_bos, v.bos) = (Some(true), None)),
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
        for pre in ["smollm", "llama-bpe", "gpt-2", "default"] {
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
