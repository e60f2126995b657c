//! Values written the way Python writes them, which chat templates were made for.
//!
//! Owns `json.dumps` and `str`. Knows no template.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// How deep lists and mappings may nest.
const MAX_DEPTH: usize = 128;

/// `json.dumps(value, ensure_ascii=False, indent=indent, sort_keys=...)`.
pub(super) struct JsonLayout {
    /// Spaces a level; `None` is one line.
    pub indent: Option<usize>,
    pub sort_keys: bool,
    pub ensure_ascii: bool,
    /// Between items, and between a key and its value.
    pub separators: (String, String),
}

impl JsonLayout {
    /// Python's separators for this indentation.
    pub fn default_separators(indent: Option<usize>) -> (String, String) {
        (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned())
    }

    /// The value as JSON.
    pub fn write(&self, value: &Value) -> Result<String, Error> {
        let mut out = String::new();
        self.write_value(&mut out, value, 0)?;
        Ok(out)
    }

    fn write_value(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        check_depth(depth)?;
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => out.push_str(&number(value, ["NaN", "Infinity", "-Infinity"])),
            ValueKind::String => self.write_string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let mut items = Vec::new();
                for item in value.try_iter()? {
                    let mut text = String::new();
                    self.write_value(&mut text, &item, depth + 1)?;
                    items.push(text);
                }
                self.write_items(out, ('[', ']'), depth, &items);
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                let mut items = Vec::new();
                for key in keys {
                    let mut text = String::new();
                    self.write_key(&mut text, &key)?;
                    text.push_str(&self.separators.1);
                    self.write_value(&mut text, &value.get_item(&key)?, depth + 1)?;
                    items.push(text);
                }
                self.write_items(out, ('{', '}'), depth, &items);
            }
            kind => return Err(invalid(format!("a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn write_items(&self, out: &mut String, (open, close): (char, char), depth: usize, items: &[String]) {
        let line = |out: &mut String, depth: usize| {
            if let Some(indent) = self.indent {
                out.push('\n');
                out.extend(std::iter::repeat_n(' ', indent * depth));
            }
        };
        out.push(open);
        for (index, item) in items.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { &self.separators.0 });
            line(out, depth + 1);
            out.push_str(item);
        }
        if !items.is_empty() {
            line(out, depth);
        }
        out.push(close);
    }

    fn write_key(&self, out: &mut String, key: &Value) -> Result<(), Error> {
        match key.as_str() {
            Some(text) => self.write_string(out, text),
            None => {
                out.push('"');
                self.write_value(out, key, MAX_DEPTH)?;
                out.push('"');
            }
        }
        Ok(())
    }

    fn write_string(&self, out: &mut String, text: &str) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                control if control < ' ' => push_escape(out, control as u16),
                other if self.ensure_ascii && other >= '\u{7f}' => {
                    let mut units = [0; 2];
                    other.encode_utf16(&mut units).iter().for_each(|unit| push_escape(out, *unit));
                }
                other => out.push(other),
            }
        }
        out.push('"');
    }
}

fn push_escape(out: &mut String, unit: u16) {
    out.push_str(&format!("\\u{unit:04x}"));
}

/// `str(value)`, as `{{ value }}` prints it.
pub(super) fn display(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Ok(String::new()),
        ValueKind::String => Ok(value.as_str().unwrap_or_default().to_owned()),
        _ => {
            let mut out = String::new();
            write_repr(&mut out, value, 0)?;
            Ok(out)
        }
    }
}

fn write_repr(out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
    check_depth(depth)?;
    match value.kind() {
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => out.push_str(&number(value, ["nan", "inf", "-inf"])),
        ValueKind::String => write_string_repr(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() { ('(', ')') } else { ('[', ']') };
            out.push(open);
            for (index, item) in value.try_iter()?.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(out, &item, depth + 1)?;
            }
            out.push_str(if value.is_tuple() && value.len() == Some(1) { "," } else { "" });
            out.push(close);
        }
        ValueKind::Map => {
            out.push('{');
            for (index, key) in value.try_iter()?.enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(out, &key, depth + 1)?;
                out.push_str(": ");
                write_repr(out, &value.get_item(&key)?, depth + 1)?;
            }
            out.push('}');
        }
        _ => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn write_string_repr(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            same if same == quote => out.extend(['\\', same]),
            control if control < ' ' || control == '\u{7f}' => out.push_str(&format!("\\x{:02x}", control as u32)),
            other => out.push(other),
        }
    }
    out.push(quote);
}

/// A number as `repr` writes it; `specials` are the names of NaN and the infinities.
fn number(value: &Value, specials: [&str; 3]) -> String {
    if value.is_integer() {
        return value.to_string();
    }
    let Ok(float) = f64::try_from(value.clone()) else { return value.to_string() };
    if float.is_nan() {
        return specials[0].to_owned();
    }
    if float.is_infinite() {
        return specials[if float > 0.0 { 1 } else { 2 }].to_owned();
    }
    let size = float.abs();
    if size != 0.0 && !(1e-4..1e16).contains(&size) {
        let plain = format!("{float:e}");
        let (digits, exponent) = plain.split_once('e').unwrap_or((&plain, "0"));
        let (sign, exponent) = exponent.strip_prefix('-').map_or(("+", exponent), |rest| ("-", rest));
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{float:?}")
}

fn check_depth(depth: usize) -> Result<(), Error> {
    if depth > MAX_DEPTH {
        return Err(invalid(format!("a value nests deeper than {MAX_DEPTH} levels")));
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use minijinja::value::Serde;
    use serde_json::json;

    fn dumps(value: serde_json::Value, indent: Option<usize>) -> String {
        let separators = JsonLayout::default_separators(indent);
        JsonLayout { indent, sort_keys: false, ensure_ascii: false, separators }
            .write(&Value::from(Serde(value)))
            .unwrap()
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        let value = json!({"b": [1, -2.5, 1e16, 1e-5, 1.5e300, 0.0001, 100.0], "a": "<é\n\"'\u{1}>", "e": [], "m": {}, "n": null, "t": true});
        assert_eq!(
            dumps(value, None),
            r#"{"b": [1, -2.5, 1e+16, 1e-05, 1.5e+300, 0.0001, 100.0], "a": "<é\n\"'\u0001>", "e": [], "m": {}, "n": null, "t": true}"#
        );
        assert_eq!(
            dumps(json!({"a": [1, {"b": 2}], "c": []}), Some(2)),
            "{\n  \"a\": [\n    1,\n    {\n      \"b\": 2\n    }\n  ],\n  \"c\": []\n}"
        );
    }

    #[test]
    fn values_are_printed_as_python_prints_them() {
        let value = Value::from(Serde(json!({"a": [true, null, "it's", "a\"'b", 1.0], "b": "x\ny"})));
        assert_eq!(display(&value).unwrap(), r#"{'a': [True, None, "it's", 'a"\'b', 1.0], 'b': 'x\ny'}"#);
        assert_eq!(display(&Value::from("it's")).unwrap(), "it's");
        assert_eq!(display(&Value::UNDEFINED).unwrap(), "");
    }

    #[test]
    fn deep_values_are_refused() {
        let mut value = Value::from(1);
        for _ in 0..=MAX_DEPTH {
            value = Value::from(vec![value]);
        }
        assert!(display(&value).unwrap_err().to_string().contains("deeper than 128"));
    }
}
