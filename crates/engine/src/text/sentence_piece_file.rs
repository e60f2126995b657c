//! SentencePiece's model file, `tokenizer.model`.
//!
//! Owns the few fields of its protocol buffers that a byte-pair model without a normaliser needs; refuses what it does
//! not know to do. Source: `src/sentencepiece_model.proto` of <https://github.com/google/sentencepiece>, and
//! <https://protobuf.dev/programming-guides/encoding/>.

use super::TextError;
use super::gguf_vocabulary::token_type;

/// The content of the file, as far as it is used.
#[derive(Debug, PartialEq)]
pub struct SentencePieceFile {
    /// Text, score and type, by id.
    pub pieces: Vec<(String, f32, i32)>,
    /// Stands for what cannot be spelt.
    pub unknown: Option<u32>,
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends a text.
    pub eos: Option<u32>,
    /// A space is put in front of a text.
    pub adds_space: bool,
}

/// `TrainerSpec.model_type`.
const BYTE_PAIR: u64 = 2;

/// The value of a field.
enum Value<'a> {
    Integer(u64),
    Bytes(&'a [u8]),
    Fixed32([u8; 4]),
    Fixed64,
}

/// The fields of one message that are not read yet.
struct Fields<'a>(&'a [u8]);

impl SentencePieceFile {
    /// Reads the content of the file.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when it is cut short, or another kind of model.
    pub fn read(bytes: &[u8]) -> Result<Self, TextError> {
        let mut file = Self { pieces: Vec::new(), unknown: Some(0), bos: Some(1), eos: Some(2), adds_space: true };
        let (mut is_byte_pair, mut trims) = (false, true);
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(piece)) => file.pieces.push(read_piece(piece)?),
                (2, Value::Bytes(trainer)) => is_byte_pair = file.read_trainer(trainer)?,
                (3, Value::Bytes(normalizer)) => trims = file.read_normalizer(normalizer)?,
                _ => {}
            }
        }
        if !is_byte_pair {
            return Err(refuse("it is no byte-pair model; unigram models need their tokenizer.json"));
        }
        if trims {
            return Err(refuse(
                "it removes extra spaces, which is not supported; such a model needs its tokenizer.json",
            ));
        }
        if file.pieces.is_empty() {
            return Err(refuse("it has no pieces"));
        }
        Ok(file)
    }

    /// The pieces as `added_tokens_decoder` of `config`, the content of `tokenizer_config.json` or null, changes and goes on
    /// with them: tokens that are recognised in a text before it is cut.
    ///
    /// # Errors
    /// [`TextError::Tokenizer`] when such a token is broken, leaves a gap, or asks for what is not supported.
    pub fn with_added_tokens(mut self, config: &serde_json::Value) -> Result<Self, TextError> {
        let Some(added) = config.get("added_tokens_decoder").and_then(serde_json::Value::as_object) else {
            return Ok(self);
        };
        let number = |(id, token)| {
            let id: &String = id;
            Ok((id.parse::<usize>().map_err(|_| refuse_added(id, "is no token id"))?, token))
        };
        let mut added = added.iter().map(number).collect::<Result<Vec<(usize, &serde_json::Value)>, TextError>>()?;
        added.sort_unstable_by_key(|(id, _)| *id);
        for (id, token) in added {
            let text = token["content"].as_str().ok_or_else(|| refuse_added(id, "has no content"))?;
            for unsupported in ["lstrip", "rstrip", "single_word"] {
                if token[unsupported] == true {
                    let why = format!("has `{unsupported}`, which needs the model's tokenizer.json");
                    return Err(refuse_added(id, why));
                }
            }
            let kind = if token["special"] == true { token_type::CONTROL } else { token_type::USER_DEFINED };
            let pieces = self.pieces.len();
            match self.pieces.get_mut(id) {
                Some((piece, _, of_piece)) => {
                    text.clone_into(piece);
                    // The unknown token stays what it is.
                    *of_piece = if *of_piece == token_type::UNKNOWN { *of_piece } else { kind };
                }
                None if id == pieces => self.pieces.push((text.to_owned(), 0.0, kind)),
                None => return Err(refuse_added(id, format!("leaves a gap: there is no token {pieces}"))),
            }
        }
        Ok(self)
    }

    /// Whether the model is a byte-pair one.
    fn read_trainer(&mut self, message: &[u8]) -> Result<bool, TextError> {
        let mut is_byte_pair = false;
        for field in Fields(message) {
            match field? {
                (3, Value::Integer(kind)) => is_byte_pair = kind == BYTE_PAIR,
                (24, Value::Integer(1)) => return Err(refuse("treat_whitespace_as_suffix is not supported")),
                (40, Value::Integer(id)) => self.unknown = token_id(id),
                (41, Value::Integer(id)) => self.bos = token_id(id),
                (42, Value::Integer(id)) => self.eos = token_id(id),
                _ => {}
            }
        }
        Ok(is_byte_pair)
    }

    /// Whether the model removes spaces at the ends and next to each other.
    fn read_normalizer(&mut self, message: &[u8]) -> Result<bool, TextError> {
        let mut trims = true;
        for field in Fields(message) {
            match field? {
                (2, Value::Bytes(map)) if !map.is_empty() => {
                    return Err(refuse("it has a normaliser; such a model needs its tokenizer.json"));
                }
                (3, Value::Integer(adds)) => self.adds_space = adds != 0,
                (4, Value::Integer(removes)) => trims = removes != 0,
                (5, Value::Integer(0)) => return Err(refuse("escape_whitespaces = false is not supported")),
                _ => {}
            }
        }
        Ok(trims)
    }
}

fn read_piece(message: &[u8]) -> Result<(String, f32, i32), TextError> {
    let (mut text, mut score, mut kind) = (String::new(), 0.0, token_type::NORMAL);
    for field in Fields(message) {
        match field? {
            (1, Value::Bytes(bytes)) => {
                text = String::from_utf8(bytes.to_vec()).map_err(|_| refuse("a piece is not UTF-8"))?;
            }
            (2, Value::Fixed32(bytes)) => score = f32::from_le_bytes(bytes),
            (3, Value::Integer(value)) => {
                kind = i32::try_from(value).map_err(|_| refuse("a piece has no known type"))?
            }
            _ => {}
        }
    }
    Ok((text, score, kind))
}

/// An id; a negative one says that there is none, and is written as a huge number.
fn token_id(value: u64) -> Option<u32> {
    u32::try_from(value).ok()
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or_else(|| refuse("it is cut short, or no SentencePiece model"));
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Integer(self.varint()?),
            1 => {
                self.take(8)?;
                Value::Fixed64
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(self.take(4)?.try_into().ok()?),
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// Seven bits a byte, the lowest first; at most ten bytes.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

fn refuse(message: &str) -> TextError {
    TextError::Tokenizer { message: format!("tokenizer.model: {message}") }
}

fn refuse_added(id: impl std::fmt::Display, why: impl std::fmt::Display) -> TextError {
    TextError::Tokenizer { message: format!("tokenizer_config.json: added_tokens_decoder: token {id} {why}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PIECE: &[u8] = b"\x0a\x0b\x0a\x02hi\x15\x00\x00\x80\xbf\x18\x01";
    const BYTE_PAIR_WITHOUT_BOS: &[u8] = b"\x12\x0e\x18\x02\xc8\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    const AS_IT_IS: &[u8] = b"\x1a\x04\x18\x00\x20\x00";

    #[test]
    fn the_fields_are_read() {
        let file = SentencePieceFile::read(&[PIECE, BYTE_PAIR_WITHOUT_BOS, AS_IT_IS].concat()).unwrap();
        let pieces = vec![("hi".to_owned(), -1.0, 1)];
        assert_eq!(file, SentencePieceFile { pieces, unknown: Some(0), bos: None, eos: Some(2), adds_space: false });
    }

    fn file() -> SentencePieceFile {
        let pieces = vec![("<unk>".to_owned(), 0.0, token_type::UNKNOWN), ("hi".to_owned(), -1.0, token_type::NORMAL)];
        SentencePieceFile { pieces, unknown: Some(0), bos: None, eos: None, adds_space: false }
    }

    #[test]
    fn added_tokens_take_the_place_of_pieces_and_go_on_behind_them() {
        assert_eq!(file().with_added_tokens(&json!(null)).unwrap(), file());
        let added = json!({"added_tokens_decoder": {
            "3": {"content": "[/INST]", "special": false, "normalized": true},
            "2": {"content": "[INST]", "special": true, "lstrip": false},
            "1": {"content": "ho", "special": true},
            "0": {"content": "<unk>", "special": true},
        }});
        let pieces = file().with_added_tokens(&added).unwrap().pieces;
        let kinds: Vec<(&str, i32)> = pieces.iter().map(|(text, _, kind)| (text.as_str(), *kind)).collect();
        let (control, defined) = (token_type::CONTROL, token_type::USER_DEFINED);
        assert_eq!(kinds, [("<unk>", token_type::UNKNOWN), ("ho", control), ("[INST]", control), ("[/INST]", defined)]);
    }

    #[test]
    fn an_added_token_that_cannot_be_honoured_is_named() {
        for (id, token, expected) in [
            ("3", json!({"content": "a"}), "token 3 leaves a gap: there is no token 2"),
            ("2", json!({"content": "a", "lstrip": true}), "token 2 has `lstrip`"),
            ("2", json!({}), "token 2 has no content"),
            ("x", json!({"content": "a"}), "token x is no token id"),
        ] {
            let error =
                file().with_added_tokens(&json!({"added_tokens_decoder": {id: token}})).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should say {expected}");
        }
    }

    #[test]
    fn what_is_not_supported_or_broken_is_named() {
        for (parts, expected) in [
            (vec![PIECE, AS_IT_IS], "no byte-pair model"),
            (vec![PIECE, BYTE_PAIR_WITHOUT_BOS], "extra spaces"),
            (vec![PIECE, BYTE_PAIR_WITHOUT_BOS, b"\x1a\x03\x12\x01x"], "normaliser"),
            (vec![BYTE_PAIR_WITHOUT_BOS, AS_IT_IS], "no pieces"),
            (vec![&PIECE[..9]], "cut short"),
            (vec![b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"], "cut short"),
        ] {
            let error = SentencePieceFile::read(&parts.concat()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should say {expected}");
        }
    }
}
