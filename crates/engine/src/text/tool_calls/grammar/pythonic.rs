//! The arguments of calls as in Python: by name in the schema's order, each value as JSON or as Python writes it.
//!
//! JSON's numbers, strings, lists and objects are Python's, so that each property is held to all of its schema. Python's own
//! spellings (`True`, `None`, `'text'`) are allowed for an argument as a whole, and not within lists and objects. Where a
//! schema says more of the arguments than which they are, or more than there is room for, they are written as one JSON object:
//! `name(**{...})`.

use serde_json::{Map, Value, json};

use super::super::super::grammar::GrammarSource;
use super::super::Function;
use super::free::takes_nothing;
use super::{Rules, SPACE, quoted};

/// An argument.
struct Argument {
    name: String,
    required: bool,
    /// Its schema as it stands behind `%json`.
    schema: Value,
    /// How Python may write it besides.
    python: Vec<String>,
}

impl Argument {
    /// About how many bytes of a grammar it takes.
    fn length(&self) -> usize {
        self.schema.to_string().len() + self.python.iter().map(String::len).sum::<usize>() + 8 * self.name.len() + 400
    }
}

impl Rules<'_> {
    /// The rule of what stands between the parentheses.
    pub(super) fn python_arguments(&mut self, index: usize, function: &Function) {
        let name = format!("python_{index}");
        let told = |arguments: &Vec<Argument>| arguments.iter().map(Argument::length).sum::<usize>() <= self.room;
        let Some(arguments) = arguments(function).filter(told) else {
            let nothing = if takes_nothing(function) { "?" } else { "" };
            return self.rule(&name, &format!("(/{SPACE}\\*\\*{SPACE}/ args_{index}){nothing}"));
        };
        // `some_N`: from argument N on, behind another one; `none_N`: as the first.
        for (at, argument) in arguments.iter().enumerate() {
            let next = at + 1;
            self.rule(&format!("json_{index}_{at}"), &format!("%json {}", argument.schema));
            let value = [format!("json_{index}_{at}")].into_iter().chain(argument.python.iter().cloned());
            self.rule(&format!("value_{index}_{at}"), &value.collect::<Vec<_>>().join(" | "));
            let key = format!("{}{SPACE}={SPACE}/ value_{index}_{at}", argument.name);
            let (first, more) = (format!("/{SPACE}{key}"), format!("/{SPACE},{SPACE}{key}"));
            let (some, none) = (format!("some_{index}_{next}"), format!("none_{index}_{next}"));
            let rules = match argument.required {
                true => (format!("{more} {some}"), format!("{first} {some}")),
                false => (format!("({more})? {some}"), format!("{first} {some} | {none}")),
            };
            self.rule(&format!("some_{index}_{at}"), &rules.0);
            self.rule(&format!("none_{index}_{at}"), &rules.1);
        }
        let end = arguments.len();
        self.rule(&format!("some_{index}_{end}"), "\"\"");
        self.rule(&format!("none_{index}_{end}"), "\"\"");
        self.rule(&name, &format!("none_{index}_0"));
    }
}

/// The arguments of a function; `None` where its schema does not only say which they are.
fn arguments(function: &Function) -> Option<Vec<Argument>> {
    let schema = function.parameters.as_object()?;
    let more =
        ["$ref", "allOf", "anyOf", "oneOf", "enum", "const", "patternProperties", "minProperties", "maxProperties"];
    if more.iter().any(|word| schema.contains_key(*word)) {
        return None;
    }
    let properties = schema.get("properties")?.as_object()?;
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    let is_word = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !required.iter().all(|name| is_word(name) && properties.contains_key(*name)) {
        return None;
    }
    let named = properties.iter().filter(|(name, _)| is_word(name)).map(|(name, property)| {
        let schema = GrammarSource::embedded(&with_definitions(property, schema), function.strict).ok()?;
        let required = required.contains(&name.as_str());
        Some(Argument { name: name.clone(), required, schema, python: python(property) })
    });
    named.collect()
}

/// A property's schema with the definitions that it may refer to.
fn with_definitions(property: &Value, whole: &Map<String, Value>) -> Value {
    let Value::Object(property) = property else { return property.clone() };
    let mut property = property.clone();
    if json!(property).to_string().contains("$ref") {
        for word in ["$defs", "definitions"] {
            if let (Some(definitions), false) = (whole.get(word), property.contains_key(word)) {
                property.insert(word.to_owned(), definitions.clone());
            }
        }
    }
    Value::Object(property)
}

/// How Python writes values of a schema that JSON writes otherwise, as far as is seen at once.
fn python(schema: &Value) -> Vec<String> {
    let remarks = ["title", "description", "default", "examples", "$comment", "deprecated"];
    let Value::Object(schema) = schema else { return Vec::new() };
    let said: Vec<_> = schema.iter().filter(|(word, _)| !remarks.contains(&word.as_str())).collect();
    match said.as_slice() {
        [(word, Value::Array(options))] if *word == "anyOf" => options.iter().flat_map(python).collect(),
        [(word, value)] if *word == "const" => literal(value).into_iter().collect(),
        [(word, Value::Array(values))] if *word == "enum" => values.iter().filter_map(literal).collect(),
        // The type of listed values, as most write it, when all are of it.
        [(list, Value::Array(values)), (word, kind)] | [(word, kind), (list, Value::Array(values))]
            if *list == "enum" && *word == "type" && *kind == "string" && values.iter().all(Value::is_string) =>
        {
            values.iter().filter_map(literal).collect()
        }
        [(word, kind)] if *word == "type" => match kind {
            Value::String(kind) => of_type(kind),
            Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).flat_map(of_type).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn of_type(kind: &str) -> Vec<String> {
    match kind {
        "boolean" => vec![quoted("True"), quoted("False")],
        "null" => vec![quoted("None")],
        "string" => vec![r"/'[^'\\\x00-\x1f]*'/".to_owned()],
        _ => Vec::new(),
    }
}

/// One value as Python writes it; `None` where JSON writes it alike, or it would need escapes.
fn literal(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(quoted("None")),
        Value::Bool(true) => Some(quoted("True")),
        Value::Bool(false) => Some(quoted("False")),
        Value::String(text) if !text.contains(|c: char| c == '\'' || c == '\\' || c.is_control()) => {
            Some(quoted(&format!("'{text}'")))
        }
        _ => None,
    }
}
