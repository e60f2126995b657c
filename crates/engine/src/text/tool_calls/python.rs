//! Calls that are written as in Python: `name(key="text", other=[1, None])`, `name.call(query="text")`.
//!
//! Owns how Python's literals become JSON. A call is known only when it is complete.

use serde_json::{Map, Number, Value};

/// Deepest nesting of lists and dictionaries that is read.
const DEEPEST: usize = 256;

/// A complete call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PythonCall {
    /// The function.
    pub(super) name: String,
    /// Its arguments, a JSON object.
    pub(super) arguments: String,
}

/// What one more character has made certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PythonProgress {
    /// Nothing yet.
    Undecided,
    /// These are no calls.
    Rejected,
    /// These are the calls.
    Calls(Vec<PythonCall>),
}

/// One call, or a list of calls, that is being read.
#[derive(Clone, Debug)]
pub(super) struct PythonCalls {
    in_list: bool,
    calls: Vec<PythonCall>,
    place: Place,
    /// The name, or what stands within the parentheses.
    text: String,
    name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Name,
    Arguments {
        depth: usize,
        quote: Option<char>,
        escaped: bool,
    },
    /// Behind a call of a list.
    After,
}

impl PythonCalls {
    /// Behind the bracket of a list, or where one call begins.
    pub(super) fn new(in_list: bool) -> Self {
        Self { in_list, calls: Vec::new(), place: Place::Name, text: String::new(), name: String::new() }
    }

    /// The next character. `functions` are the names that can be called.
    pub(super) fn push(&mut self, c: char, functions: &[String]) -> PythonProgress {
        match self.place {
            Place::Name => self.name(c, functions),
            Place::Arguments { .. } => self.arguments(c),
            Place::After if is_blank(c) => PythonProgress::Undecided,
            Place::After if c == ',' => {
                self.place = Place::Name;
                PythonProgress::Undecided
            }
            Place::After if c == ']' => PythonProgress::Calls(std::mem::take(&mut self.calls)),
            Place::After => PythonProgress::Rejected,
        }
    }

    fn name(&mut self, c: char, functions: &[String]) -> PythonProgress {
        if self.text.is_empty() && is_blank(c) {
            return PythonProgress::Undecided;
        }
        if c == '(' {
            let name = std::mem::take(&mut self.text);
            let name = name.strip_suffix(".call").unwrap_or(&name);
            if !functions.iter().any(|function| function == name) {
                return PythonProgress::Rejected;
            }
            self.name = name.to_owned();
            self.place = Place::Arguments { depth: 0, quote: None, escaped: false };
            return PythonProgress::Undecided;
        }
        self.text.push(c);
        let begins = |function: &String| {
            let rest = self.text.strip_prefix(function.as_str());
            function.starts_with(&self.text) || rest.is_some_and(|rest| ".call".starts_with(rest))
        };
        if functions.iter().any(begins) { PythonProgress::Undecided } else { PythonProgress::Rejected }
    }

    fn arguments(&mut self, c: char) -> PythonProgress {
        let Place::Arguments { depth, quote, escaped } = &mut self.place else { return PythonProgress::Rejected };
        match (*quote, c) {
            (Some(_), _) if *escaped => *escaped = false,
            (Some(_), '\\') => *escaped = true,
            (Some(open), c) if c == open => *quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => *quote = Some(c),
            (None, '(' | '[' | '{') => *depth += 1,
            (None, ')') if *depth == 0 => return self.call_ends(),
            (None, ')' | ']' | '}') if *depth == 0 => return PythonProgress::Rejected,
            (None, ')' | ']' | '}') => *depth -= 1,
            _ => {}
        }
        self.text.push(c);
        PythonProgress::Undecided
    }

    fn call_ends(&mut self) -> PythonProgress {
        let text = std::mem::take(&mut self.text);
        let Some(arguments) = Reader { rest: &text }.arguments() else { return PythonProgress::Rejected };
        let arguments = Value::Object(arguments).to_string();
        self.calls.push(PythonCall { name: std::mem::take(&mut self.name), arguments });
        self.place = Place::After;
        match self.in_list {
            true => PythonProgress::Undecided,
            false => PythonProgress::Calls(std::mem::take(&mut self.calls)),
        }
    }
}

/// What is left to read of a text.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Everything between the parentheses of a call, all of it by name, or in a dictionary that is unpacked.
    fn arguments(mut self) -> Option<Map<String, Value>> {
        if let Some(unpacked) = self.skip_space().strip_prefix("**") {
            self.rest = unpacked;
            let Some(Value::Object(arguments)) = self.value(0) else { return None };
            return self.skip_space().is_empty().then_some(arguments);
        }
        let mut arguments = Map::new();
        while !self.skip_space().is_empty() {
            let name = self.word();
            if name.is_empty() || !self.take('=') {
                return None;
            }
            let value = self.value(0)?;
            if arguments.insert(name, value).is_some() || !(self.take(',') || self.rest.is_empty()) {
                return None;
            }
        }
        Some(arguments)
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let first = self.skip_space().chars().next().filter(|_| depth < DEEPEST)?;
        match first {
            '"' | '\'' => self.text(first).map(Value::String),
            '[' => self.items(']', |reader| reader.value(depth + 1)).map(Value::Array),
            '(' => self.items(')', |reader| reader.value(depth + 1)).map(Value::Array),
            '{' => {
                let pair = |reader: &mut Self| {
                    let Value::String(key) = reader.value(depth + 1)? else { return None };
                    reader.take(':').then(|| reader.value(depth + 1)).flatten().map(|value| (key, value))
                };
                self.items('}', pair).map(|pairs| Value::Object(pairs.into_iter().collect()))
            }
            '-' | '0'..='9' | '.' => self.number(),
            _ => match self.word().as_str() {
                "True" | "true" => Some(Value::Bool(true)),
                "False" | "false" => Some(Value::Bool(false)),
                "None" | "null" => Some(Value::Null),
                _ => None,
            },
        }
    }

    /// What stands between an opening bracket and its closing one, with a comma behind each but the last at least.
    fn items<T>(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.rest = &self.rest[1..];
        let mut items = Vec::new();
        while !self.take(close) {
            items.push(item(self)?);
            if !self.take(',') && !self.skip_space().starts_with(close) {
                return None;
            }
        }
        Some(items)
    }

    fn text(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut letters = self.rest[1..].chars();
        loop {
            match letters.next()? {
                c if c == quote => {
                    self.rest = letters.as_str();
                    return Some(text);
                }
                '\\' => match letters.next()? {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'b' => text.push('\u{8}'),
                    'f' => text.push('\u{c}'),
                    '\n' => {}
                    c @ ('x' | 'u' | 'U') => {
                        let (letter, rest) = escaped(c, letters.as_str())?;
                        text.push(letter);
                        letters = rest.chars();
                    }
                    c @ ('\\' | '\'' | '"' | '/') => text.push(c),
                    c => text.extend(['\\', c]),
                },
                c => text.push(c),
            }
        }
    }

    fn number(&mut self) -> Option<Value> {
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        let word = word.replace('_', "");
        let whole = word.parse::<i64>().map(Value::from).or_else(|_| word.parse::<u64>().map(Value::from));
        if let Ok(whole) = whole {
            return Some(whole);
        }
        let number = word.parse::<f64>().ok().filter(|_| !word.ends_with(|c: char| c.is_ascii_alphabetic()))?;
        Number::from_f64(number).map(Value::Number)
    }

    fn word(&mut self) -> String {
        let rest = self.skip_space();
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        let word = rest[..end].to_owned();
        self.rest = &self.rest[end..];
        word
    }

    fn take(&mut self, c: char) -> bool {
        let rest = self.skip_space().strip_prefix(c);
        match rest {
            Some(rest) => {
                self.rest = rest;
                self.skip_space();
                true
            }
            None => false,
        }
    }

    fn skip_space(&mut self) -> &'a str {
        self.rest = self.rest.trim_start();
        self.rest
    }
}

/// The character of a code behind `\x`, `\u` or `\U`, and what follows it. As JSON has them, two halves of one character
/// may stand one behind the other.
fn escaped(mark: char, text: &str) -> Option<(char, &str)> {
    let digits = [('x', 2), ('u', 4), ('U', 8)].iter().find(|(known, _)| *known == mark)?.1;
    let code = |text: &str| u32::from_str_radix(text.get(..digits)?, 16).ok();
    let (first, rest) = (code(text)?, text.get(digits..)?);
    if let Some(letter) = char::from_u32(first) {
        return Some((letter, rest));
    }
    let second = rest.strip_prefix("\\u").and_then(code)?;
    let pair = [u16::try_from(first).ok()?, u16::try_from(second).ok()?];
    let letter = char::decode_utf16(pair).next()?.ok()?;
    Some((letter, &rest[2 + digits..]))
}

/// White space as JSON has it.
fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn arguments(text: &str) -> Option<Value> {
        Reader { rest: text }.arguments().map(Value::Object)
    }

    #[test]
    fn literals_become_json() {
        for (text, expected) in [
            ("", json!({})),
            ("a=1, b = -2.5 ,c=1e3,", json!({"a": 1, "b": -2.5, "c": 1000.0})),
            ("a=True, b=False, c=None, d=1_000", json!({"a": true, "b": false, "c": null, "d": 1000})),
            (r#"a="x, (y)", b='it''s"#, Value::Null),
            (r#"a="x, (y)", b='it\'s "é"\n\x41\u00e9'"#, json!({"a": "x, (y)", "b": "it's \"é\"\nAé"})),
            (
                "a=[1, 'b', [2,],], b=(1, 2), c={'d': {}, \"e\": [None]}",
                json!({
                    "a": [1, "b", [2]], "b": [1, 2], "c": {"d": {}, "e": [null]}
                }),
            ),
            (r#"a="\u00e4\ud83d\ude00\/\b", b=18446744073709551615"#, json!({"a": "ä😀/\u{8}", "b": u64::MAX})),
            (r#" **{"a": [true, null]} "#, json!({"a": [true, null]})),
        ] {
            assert_eq!(arguments(text).unwrap_or(Value::Null), expected, "{text}");
        }
        for text in [
            "1",
            "a",
            "**",
            "**1",
            "**{} a=1",
            r#"a="\ud83d""#,
            "a=",
            "a=b",
            "a=1 b=2",
            "a=1, a=2",
            "a=[1",
            "a={1: 2}",
            "a='x",
            "a=inf",
            "a=\"\\u00\"",
            "a=[,]",
        ] {
            assert_eq!(arguments(text), None, "{text}");
        }
    }

    #[test]
    fn nesting_is_bounded() {
        let text = format!("a={}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(arguments(&text), None);
    }
}
