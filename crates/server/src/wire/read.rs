//! From bytes to typed fields: parses a body, merges `extra_params`, hands each struct the fields it names and
//! refuses what is left over, so that no field is ever ignored in silence.

use std::cell::Cell;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use serde_json::{Map, Value};

use super::FieldError;
use super::json::UniqueFields;

/// The fields of a request that nobody has read yet. `null` is absent everywhere, so no value in here is null.
pub type JsonObject = Map<String, Value>;

/// Fields whose text is text even if it looks like a number or a boolean.
const TEXT_FIELDS: [&str; 11] = [
    "stop",
    "suffix",
    "instruction",
    "encoding_format",
    "error_behavior",
    "model",
    "prompt",
    "input",
    "query",
    "guided_regex",
    "guided_grammar",
];

/// Parses a request body: one JSON object, nulls dropped, `extra_params` merged into the rest.
pub fn parse_object(body: &[u8]) -> Result<JsonObject, FieldError> {
    let UniqueFields(value) = serde_json::from_slice(body).map_err(|error| {
        let text = error.to_string();
        let problem = text.split(" at line ").next().unwrap_or_default().to_owned();
        FieldError::Malformed { problem, line: error.line(), column: error.column() }
    })?;
    let mut object = match value {
        Value::Object(object) => object,
        Value::Null => return Err(FieldError::NotAnObject("null")),
        Value::Bool(_) => return Err(FieldError::NotAnObject("a boolean")),
        Value::Number(_) => return Err(FieldError::NotAnObject("a number")),
        Value::String(_) => return Err(FieldError::NotAnObject("a string")),
        Value::Array(_) => return Err(FieldError::NotAnObject("a list")),
    };
    object.retain(|_, value| !value.is_null());
    merge_extra_params(&mut object)?;
    Ok(object)
}

/// `extra_params` maps names to texts, as the Databricks client sends them: each text is read as the JSON it spells.
fn merge_extra_params(object: &mut JsonObject) -> Result<(), FieldError> {
    let Some(extra) = object.remove("extra_params") else { return Ok(()) };
    let Value::Object(extra) = extra else {
        let problem = format!("expected an object of names and values, got {extra}");
        return Err(FieldError::Type { field: "extra_params".into(), problem });
    };
    for (name, value) in extra {
        let value = match value {
            Value::String(text) => spelled_value(&name, text),
            other => other,
        };
        if value.is_null() {
            continue;
        }
        if object.get(&name).is_some_and(|given| *given != value) {
            let problem = format!("given twice with different values, also as `{name}`");
            return Err(FieldError::conflict(format!("extra_params.{name}"), problem));
        }
        object.insert(name, value);
    }
    Ok(())
}

fn spelled_value(name: &str, text: String) -> Value {
    match serde_json::from_str::<Value>(&text) {
        Ok(value) if !TEXT_FIELDS.contains(&name) || value.is_array() => value,
        _ => Value::String(text),
    }
}

/// All fields but one, as they are.
pub(super) fn without(object: &JsonObject, field: &str) -> JsonObject {
    object.iter().filter(|(name, _)| *name != field).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Takes the fields that `T` names out of `object` and reads them.
pub(super) fn take<T: DeserializeOwned>(object: &mut JsonObject) -> Result<T, FieldError> {
    let taken: JsonObject = field_names::<T>().iter().filter_map(|name| object.remove_entry(*name)).collect();
    serde_path_to_error::deserialize(Value::Object(taken)).map_err(|error| {
        let path = error.path().to_string();
        describe(path, &error.into_inner().to_string())
    })
}

/// Reads a body that is nothing but the fields of `T`.
///
/// # Errors
/// A field that is missing, of another type, or not known.
pub fn read_object<T: DeserializeOwned>(mut object: JsonObject) -> Result<T, FieldError> {
    let fields = take(&mut object)?;
    refuse_rest(&object)?;
    Ok(fields)
}

/// Takes one text field.
pub fn take_text(object: &mut JsonObject, field: &str) -> Result<Option<String>, FieldError> {
    match object.remove(field) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => {
            Err(FieldError::Type { field: field.into(), problem: format!("expected a string, got {other}") })
        }
    }
}

/// Refuses what no struct has taken.
pub(super) fn refuse_rest(object: &JsonObject) -> Result<(), FieldError> {
    match object.keys().next() {
        None => Ok(()),
        Some(field) => Err(FieldError::Unknown { field: field.clone() }),
    }
}

fn describe(path: String, problem: &str) -> FieldError {
    let quoted = problem.split('`').nth(1).unwrap_or_default();
    let within = |name: &str| if path == "." { name.to_owned() } else { format!("{path}.{name}") };
    if problem.starts_with("missing field") {
        return FieldError::Missing { field: within(quoted) };
    }
    if problem.starts_with("unknown field") {
        // The path of an unknown field already ends with its name.
        let field = if path.ends_with(quoted) { path } else { within(quoted) };
        return FieldError::Unknown { field };
    }
    match out_of_bounds(problem) {
        Some((bound, value)) => FieldError::Value { field: path, bound, value },
        None => FieldError::Type { field: path, problem: in_plain_words(problem) },
    }
}

/// Bound and value where the type is right and the value is not: a whole number of the wrong size, or a word that is
/// not among those known.
fn out_of_bounds(problem: &str) -> Option<(String, String)> {
    let value = problem.split('`').nth(1)?.to_owned();
    if problem.starts_with("unknown variant") {
        let (_, bound) = problem.split_once("expected ")?;
        return Some((bound.to_owned(), format!("`{value}`")));
    }
    let integer = problem.starts_with("invalid value: integer") || problem.starts_with("invalid type: integer");
    let (_, expected) = problem.rsplit_once("expected ").filter(|_| integer)?;
    let most = match expected {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => u64::MAX,
        _ => return None,
    };
    Some((format!("a whole number between 0 and {most}"), value))
}

/// Rust's names of types mean nothing to a caller.
fn in_plain_words(problem: &str) -> String {
    let Some((found, expected)) = problem.rsplit_once("expected ") else { return problem.to_owned() };
    let expected = match expected {
        "f32" | "f64" => "a number",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number that is not negative",
        "i32" | "i64" => "a whole number",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    };
    format!("{found}expected {expected}")
}

/// The names of the fields of `T`, as its derived `Deserialize` knows them.
fn field_names<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let names = Cell::new(&[] as &'static [&'static str]);
    // The probe only listens to what the type asks for; it never yields a value.
    let _ = T::deserialize(FieldProbe(&names));
    names.get()
}

struct FieldProbe<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for FieldProbe<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("a probe holds no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.set(fields);
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        temperature: Option<f32>,
        #[serde(default)]
        items: Vec<Item>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        count: u32,
    }

    fn sample(body: &str) -> Result<Sample, FieldError> {
        let mut object = parse_object(body.as_bytes())?;
        let sample = take(&mut object)?;
        refuse_rest(&object)?;
        Ok(sample)
    }

    #[test]
    fn malformed_json_names_the_place() {
        let error = sample("{\n  \"temperature\": ,\n}").unwrap_err();
        assert_eq!(error, FieldError::Malformed { problem: "expected value".into(), line: 2, column: 18 }, "{error}");
    }

    #[test]
    fn null_is_absent_and_integers_are_numbers() {
        assert_eq!(sample(r#"{"temperature": null}"#).unwrap().temperature, None);
        let sample = sample(r#"{"temperature": 1, "items": [{"count": 2}]}"#).unwrap();
        assert_eq!((sample.temperature, sample.items[0].count), (Some(1.0), 2));
    }

    #[test]
    fn wrong_types_name_the_path_and_what_was_expected() {
        let error = sample(r#"{"temperature": "hot"}"#).unwrap_err();
        assert_eq!(error.to_string(), r#"`temperature`: invalid type: string "hot", expected a number"#);
        let error = sample(r#"{"items": [{"count": 1}, {"count": -1}]}"#).unwrap_err();
        assert_eq!(error.field(), Some("items[1].count"));
        let expected = "`items[1].count` must be a whole number between 0 and 4294967295, not -1";
        assert_eq!(error.to_string(), expected);
        let error = sample(r#"{"items": [{"count": 99999999999}]}"#).unwrap_err();
        assert!(error.to_string().ends_with("4294967295, not 99999999999"), "{error}");
        let error = sample(r#"{"items": [{"count": 1.5}]}"#).unwrap_err();
        assert!(error.to_string().ends_with("expected a whole number that is not negative"), "{error}");
    }

    #[test]
    fn unknown_and_missing_fields_are_named_at_any_depth() {
        assert_eq!(sample(r#"{"temprature": 1}"#).unwrap_err().to_string(), "unknown field `temprature`");
        let error = sample(r#"{"items": [{"count": 1, "colour": 2}]}"#).unwrap_err();
        assert_eq!(error, FieldError::Unknown { field: "items[0].colour".into() });
        let error = sample(r#"{"items": [{}]}"#).unwrap_err();
        assert_eq!(error, FieldError::Missing { field: "items[0].count".into() });
    }

    #[test]
    fn extra_params_are_read_as_what_they_spell() {
        assert_eq!(sample(r#"{"extra_params": {"temperature": "0.5"}}"#).unwrap().temperature, Some(0.5));
        let error = sample(r#"{"temperature": 1, "extra_params": {"temperature": "0.5"}}"#).unwrap_err();
        assert_eq!(error.field(), Some("extra_params.temperature"));
        let error = sample(r#"{"extra_params": {"colour": "red"}}"#).unwrap_err();
        assert_eq!(error, FieldError::Unknown { field: "colour".into() });
        let object = parse_object(br#"{"extra_params": {"stop": "1", "seed": "1"}}"#).unwrap();
        assert_eq!(object["stop"], Value::from("1"));
        assert_eq!(object["seed"], Value::from(1));
    }

    #[test]
    fn a_body_that_is_no_object_says_what_it_is() {
        assert_eq!(sample("[1]").unwrap_err(), FieldError::NotAnObject("a list"));
    }
}
