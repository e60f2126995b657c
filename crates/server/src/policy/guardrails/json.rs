//! JSON: its strings are texts of their own, and it stays JSON with masks in them.

use serde_json::{Map, Value};

use super::Side;
use super::detect::Label;
use super::masker::{Masker, Stop, plain};

/// Shows every text of a value to `each`: strings, names, and numbers as they are written. A number that is changed becomes a
/// string.
pub(super) fn each_text(value: &mut Value, each: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => each(text),
        Value::Number(number) => {
            let (written, mut text) = (number.to_string(), number.to_string());
            each(&mut text);
            if text != written {
                *value = Value::String(text);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_text(item, each)),
        Value::Object(fields) => each_text_of(fields, each),
        Value::Null | Value::Bool(_) => {}
    }
}

/// [`each_text`] of an object.
pub(super) fn each_text_of(fields: &mut Map<String, Value>, each: &mut dyn FnMut(&mut String)) {
    for (mut name, mut value) in std::mem::take(fields) {
        each(&mut name);
        each_text(&mut value, each);
        fields.insert(name, value);
    }
}

/// JSON that comes in pieces. What is no JSON goes through it all the same.
#[derive(Debug, Default)]
pub(super) struct JsonMasker {
    place: Place,
    /// The first half of a character that takes two escapes.
    half: Option<u16>,
    /// Of the string, or of what stands between two.
    masker: Masker,
}

#[derive(Debug, Default, PartialEq)]
enum Place {
    #[default]
    Between,
    String,
    /// In a string, behind a backslash: what stands there so far.
    Escape(String),
}

impl JsonMasker {
    /// As [`Masker::push`].
    pub(super) fn push(&mut self, side: &Side, more: &str, ended: bool) -> Result<String, Stop> {
        let (mut shown, mut piece) = (String::new(), String::new());
        for letter in more.chars() {
            match &mut self.place {
                Place::Between | Place::String if letter == '"' => {
                    self.give_up_half(&mut piece);
                    shown.push_str(&self.advance(side, &std::mem::take(&mut piece), true)?);
                    shown.push('"');
                    self.masker = Masker::default();
                    self.place = if self.place == Place::Between { Place::String } else { Place::Between };
                }
                Place::String if letter == '\\' => self.place = Place::Escape(String::new()),
                Place::Between | Place::String => {
                    self.give_up_half(&mut piece);
                    piece.push(letter);
                }
                Place::Escape(letters) => {
                    letters.push(letter);
                    if let Some(escape) = unescaped(letters) {
                        self.place = Place::String;
                        self.unescape(escape, &mut piece);
                    }
                }
            }
        }
        shown.push_str(&self.advance(side, &piece, ended)?);
        Ok(shown)
    }

    fn advance(&mut self, side: &Side, piece: &str, ended: bool) -> Result<String, Stop> {
        if self.place == Place::Between {
            return self.masker.push(side, piece, ended, quoted);
        }
        Ok(escaped(&self.masker.push(side, piece, ended, plain)?))
    }

    fn unescape(&mut self, escape: Escape, piece: &mut String) {
        let unit = match escape {
            Escape::Letters(letters) => {
                self.give_up_half(piece);
                return piece.push_str(&letters);
            }
            Escape::Unit(unit) => unit,
        };
        match (self.half.take(), unit) {
            (Some(half), 0xdc00..=0xdfff) => piece.push_str(&String::from_utf16_lossy(&[half, unit])),
            (half, unit) => {
                self.half = half;
                self.give_up_half(piece);
                match unit {
                    0xd800..=0xdbff => self.half = Some(unit),
                    unit => piece.push_str(&String::from_utf16_lossy(&[unit])),
                }
            }
        }
    }

    /// A half whose other half does not come.
    fn give_up_half(&mut self, piece: &mut String) {
        if self.half.take().is_some() {
            piece.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

/// Writes a mask in the place of a number.
fn quoted(label: Label, text: &mut String) {
    text.push('"');
    text.push_str(label.mask());
    text.push('"');
}

/// As it stands between quotes.
fn escaped(text: &str) -> String {
    let written = serde_json::to_string(text).unwrap_or_default();
    written.get(1..written.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// What an escape stands for.
enum Escape {
    Letters(String),
    /// Of UTF-16.
    Unit(u16),
}

/// What stands behind a backslash, once it is complete.
fn unescaped(letters: &str) -> Option<Escape> {
    let simple = match letters {
        "n" => "\n",
        "r" => "\r",
        "t" => "\t",
        "b" => "\u{8}",
        "f" => "\u{c}",
        other => other,
    };
    let Some(digits) = letters.strip_prefix('u') else { return Some(Escape::Letters(simple.to_owned())) };
    match u16::from_str_radix(digits, 16) {
        Ok(unit) if digits.len() == 4 => Some(Escape::Unit(unit)),
        Ok(_) => None,
        Err(_) if digits.is_empty() => None,
        Err(_) => Some(Escape::Letters(letters.to_owned())),
    }
}
