//! JSON that comes a character at a time: where its keys and values begin and end, and where it breaks.
//!
//! Owns the grammar of RFC 8259. Keeps no text and knows no meaning of any key.

/// Deepest nesting that is read, far more than any reader of JSON takes; a text that nests deeper is taken for broken.
const DEEPEST: usize = 10_000;

/// What a character was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Something inside or between values.
    Inside,
    /// The quotation mark in front of a key.
    KeyBegins,
    /// The quotation mark behind a key.
    KeyEnds,
    /// The first character of a value.
    ValueBegins,
    /// The last character of a string, list or object. The end of other values shows in what follows them.
    ValueEnds,
}

/// A place in a JSON value.
#[derive(Clone, Debug, Default)]
pub(super) struct JsonScanner {
    /// The lists (`false`) and objects (`true`) that are open.
    open: Vec<bool>,
    place: Place,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Value,
    FirstItem,
    FirstKey,
    Key,
    Colon,
    AfterValue,
    Text {
        is_key: bool,
    },
    Escape {
        is_key: bool,
    },
    Code {
        is_key: bool,
        digits: u8,
    },
    Number(Number),
    /// What is still missing of `true`, `false` or `null`.
    Word(&'static str),
}

/// What of a number came last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl JsonScanner {
    /// How many lists and objects are open.
    pub(super) fn depth(&self) -> usize {
        self.open.len()
    }

    /// The next character; `None` where no JSON goes on with it.
    pub(super) fn push(&mut self, c: char) -> Option<Seen> {
        if let Place::Number(number) = self.place {
            match number.next(c) {
                Some(next) => self.place = Place::Number(next),
                None if number.may_end() => {
                    self.place = Place::AfterValue;
                    return self.push(c);
                }
                None => return None,
            }
            return Some(Seen::Inside);
        }
        match self.place {
            Place::Text { is_key } => self.text(is_key, c),
            Place::Escape { is_key } => {
                let digits = c == 'u';
                self.place = if digits { Place::Code { is_key, digits: 4 } } else { Place::Text { is_key } };
                "\"\\/bfnrtu".contains(c).then_some(Seen::Inside)
            }
            Place::Code { is_key, digits } => {
                self.place =
                    if digits == 1 { Place::Text { is_key } } else { Place::Code { is_key, digits: digits - 1 } };
                c.is_ascii_hexdigit().then_some(Seen::Inside)
            }
            Place::Word(rest) => {
                let rest = rest.strip_prefix(c)?;
                self.place = if rest.is_empty() { Place::AfterValue } else { Place::Word(rest) };
                Some(Seen::Inside)
            }
            _ if matches!(c, ' ' | '\t' | '\n' | '\r') => Some(Seen::Inside),
            Place::Colon => self.mark(c == ':', Place::Value),
            Place::AfterValue => self.after_value(c),
            Place::FirstKey if c == '}' => self.close(true),
            Place::FirstItem if c == ']' => self.close(false),
            Place::FirstKey | Place::Key => {
                self.place = Place::Text { is_key: true };
                (c == '"').then_some(Seen::KeyBegins)
            }
            _ => self.value(c),
        }
    }

    fn text(&mut self, is_key: bool, c: char) -> Option<Seen> {
        match c {
            '"' => {
                self.place = if is_key { Place::Colon } else { Place::AfterValue };
                Some(if is_key { Seen::KeyEnds } else { Seen::ValueEnds })
            }
            '\\' => self.mark(true, Place::Escape { is_key }),
            c => (c >= ' ').then_some(Seen::Inside),
        }
    }

    fn value(&mut self, c: char) -> Option<Seen> {
        self.place = match c {
            '{' | '[' if self.open.len() < DEEPEST => {
                self.open.push(c == '{');
                if c == '{' { Place::FirstKey } else { Place::FirstItem }
            }
            '"' => Place::Text { is_key: false },
            '-' => Place::Number(Number::Minus),
            '0' => Place::Number(Number::Zero),
            '1'..='9' => Place::Number(Number::Digits),
            't' => Place::Word("rue"),
            'f' => Place::Word("alse"),
            'n' => Place::Word("ull"),
            _ => return None,
        };
        Some(Seen::ValueBegins)
    }

    fn after_value(&mut self, c: char) -> Option<Seen> {
        match (c, self.open.last()?) {
            (',', true) => self.mark(true, Place::Key),
            (',', false) => self.mark(true, Place::Value),
            ('}', true) => self.close(true),
            (']', false) => self.close(false),
            _ => None,
        }
    }

    fn close(&mut self, object: bool) -> Option<Seen> {
        self.place = Place::AfterValue;
        (self.open.pop() == Some(object)).then_some(Seen::ValueEnds)
    }

    fn mark(&mut self, expected: bool, next: Place) -> Option<Seen> {
        self.place = next;
        expected.then_some(Seen::Inside)
    }
}

impl Number {
    fn next(self, c: char) -> Option<Self> {
        Some(match (self, c) {
            (Self::Minus, '0') => Self::Zero,
            (Self::Minus, '1'..='9') | (Self::Digits, '0'..='9') => Self::Digits,
            (Self::Zero | Self::Digits, '.') => Self::Point,
            (Self::Point | Self::Fraction, '0'..='9') => Self::Fraction,
            (Self::Zero | Self::Digits | Self::Fraction, 'e' | 'E') => Self::Exponent,
            (Self::Exponent, '+' | '-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, '0'..='9') => Self::ExponentDigits,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Digits | Self::Fraction | Self::ExponentDigits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Whether the text is one list or object and nothing else.
    fn is_whole(text: &str) -> bool {
        let mut scanner = JsonScanner::default();
        let mut over = false;
        for c in text.chars() {
            let Some(seen) = scanner.push(c).filter(|_| !over) else { return false };
            over = scanner.depth() == 0 && seen == Seen::ValueEnds;
        }
        over
    }

    #[test]
    fn what_is_json_and_what_is_not() {
        for text in [
            r#"{"a": [1, -0.5e+3, 10E2, true, false, null, "x\"\\é\u00e9"], "b": {"c": {}, "d": []}}"#,
            "[\n1\t,\r2 ]",
            "{}",
        ] {
            assert!(is_whole(text), "{text}");
        }
        for text in [
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a: 1}",
            "[01]",
            "[1.]",
            "[.5]",
            "[+1]",
            "[1e]",
            "[tru]",
            "[\"\\x\"]",
            "[\"\\u12g4\"]",
            "[\"\n\"]",
            "{]",
            "[}",
            "[--1]",
            "{'a': 1}",
            "[1 2]",
        ] {
            assert!(!is_whole(text), "{text}");
        }
    }

    proptest! {
        /// Near-JSON, judged by a reader that is known to be right.
        #[test]
        fn what_it_accepts_is_what_a_json_reader_accepts(text in r#"[\[{]([\[\]{}:, ]|"a"|"\\n"|-?[0-9]{1,2}|1\.5|2e1|true|null){0,12}"#) {
            prop_assert_eq!(is_whole(&text), serde_json::from_str::<serde_json::Value>(&text).is_ok(), "{}", text);
        }
    }
}
