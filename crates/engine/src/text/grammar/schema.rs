//! JSON schemas before they are compiled: what is not honoured is refused, with the keyword and its place.
//!
//! References lead to schemas of the same document. Three things are rewritten, each so that a text of the new schema is one
//! of the old. Words that say nothing about what is valid are left out. `oneOf` becomes `anyOf` where the alternatives
//! exclude each other. An object whose properties are named and of which nothing is said about others has no others: a
//! model would go on inventing them.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::GrammarError;
use super::exclusive::exclude_each_other;
use super::keywords::{FORMATS, Keyword, TYPES, forbids_nothing, keyword};

type Object = Map<String, Value>;

/// Most properties of an object that may be left out: the time to compile them grows with their square.
const MOST_OPTIONAL: usize = 1000;

/// The schema as it is compiled: an object.
pub(super) fn prepare(schema: &Value, strict: bool) -> Result<Value, GrammarError> {
    match schema {
        Value::Bool(true) => return Ok(json!({})),
        Value::Object(_) => {}
        _ => return Err(Place::default().fault("a schema must be an object that allows something")),
    }
    let closes = !combines(schema);
    let mut reader = Reader { root: schema, strict, closes, schemas: BTreeSet::new(), references: Vec::new() };
    let rewritten = reader.schema(schema, &mut Place::default())?;
    match reader.references.iter().find(|(_, target)| !reader.schemas.contains(target)) {
        Some((place, target)) => Err(GrammarError::Schema {
            place: place.clone(),
            problem: format!("`$ref` must lead to a schema, and there is none at `{}`", target.join("/")),
        }),
        None => Ok(rewritten),
    }
}

/// Where in a schema something stands: the words and names that lead there.
#[derive(Default)]
struct Place(Vec<String>);

impl Place {
    /// Does something one step further.
    fn within<T>(
        &mut self,
        step: &str,
        work: impl FnOnce(&mut Self) -> Result<T, GrammarError>,
    ) -> Result<T, GrammarError> {
        self.0.push(step.to_owned());
        let done = work(self);
        self.0.pop();
        done
    }

    fn pointer(&self) -> String {
        let steps = self.0.iter().map(|step| format!("/{}", step.replace('~', "~0").replace('/', "~1")));
        format!("#{}", steps.collect::<String>())
    }

    fn fault(&self, problem: impl Into<String>) -> GrammarError {
        GrammarError::Schema { place: self.pointer(), problem: problem.into() }
    }
}

struct Reader<'a> {
    root: &'a Value,
    strict: bool,
    /// Whether an object whose properties are named has no others where nothing is said about them.
    closes: bool,
    /// Where schemas stand.
    schemas: BTreeSet<Vec<String>>,
    /// Where references stand, and where they lead.
    references: Vec<(String, Vec<String>)>,
}

impl Reader<'_> {
    fn schema(&mut self, schema: &Value, place: &mut Place) -> Result<Value, GrammarError> {
        self.schemas.insert(place.0.clone());
        let object = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(object) => object,
            other => return Err(place.fault(format!("a schema must be an object or a boolean, not {}", short(other)))),
        };
        let mut kept = Object::new();
        for (given, value) in object {
            if let Some((word, value)) = self.keyword(given, value, place)? {
                // A `oneOf` that could be an `anyOf` stays what it is beside another.
                let word = if object.contains_key(word) { given } else { word };
                kept.insert(word.to_owned(), value);
            }
        }
        self.check_names(&kept, place)?;
        if self.closes && names_all(&kept) {
            kept.insert("additionalProperties".to_owned(), Value::Bool(false));
        }
        Ok(Value::Object(kept))
    }

    /// What becomes of a keyword; `None`: nothing.
    fn keyword<'w>(
        &mut self,
        word: &'w str,
        value: &Value,
        place: &mut Place,
    ) -> Result<Option<(&'w str, Value)>, GrammarError> {
        let Some(kind) = keyword(word) else {
            // A word that no schema knows says nothing about what is valid.
            return if self.strict { Err(place.fault(format!("the keyword `{word}` is not known"))) } else { Ok(None) };
        };
        let wrong = |what: &str| Err(place.fault(format!("`{word}` must be {what}, not {}", short(value))));
        match kind {
            Keyword::Remark => return Ok((word == "$schema").then(|| (word, value.clone()))),
            Keyword::Address if place.0.is_empty() => return Ok(None),
            Keyword::Address => return Err(place.fault(format!("`{word}` is supported for the whole schema alone"))),
            Keyword::Unsupported if forbids_nothing(word, value) => return Ok(None),
            Keyword::Unsupported => return Err(place.fault(format!("the keyword `{word}` is not supported"))),
            Keyword::Schema | Keyword::SchemaOrList | Keyword::Schemas | Keyword::Named => {
                return self.nested(kind, word, value, place).map(Some);
            }
            Keyword::Format => return self.format(word, value, place),
            Keyword::Bound if !(value.is_number() || value.is_boolean()) => return wrong("a number"),
            Keyword::Step if value.as_f64().is_none_or(|step| step <= 0.0) => return wrong("a number above 0"),
            Keyword::Count => {
                let Some(count) = whole(value) else { return wrong("a whole number, at least 0") };
                return Ok(Some((word, Value::from(count))));
            }
            Keyword::Text if !value.is_string() => return wrong("a string"),
            Keyword::Reference => {
                let Some(target) = value.as_str().and_then(target) else {
                    return wrong("`#`, or `#/` and the way to a schema within this one");
                };
                let way = format!("#/{}", target.join("/"));
                self.references.push((place.pointer(), target));
                return Ok(Some((word, Value::String(way))));
            }
            Keyword::Types if !is_types(value) => return wrong(&format!("one or several of {}", TYPES.join(", "))),
            Keyword::Names if !is_list(value, Value::is_string) => return wrong("a list of strings"),
            Keyword::Values if value.as_array().is_none_or(Vec::is_empty) => return wrong("a list that is not empty"),
            _ => {}
        }
        Ok(Some((word, value.clone())))
    }

    fn format<'w>(
        &self,
        word: &'w str,
        value: &Value,
        place: &Place,
    ) -> Result<Option<(&'w str, Value)>, GrammarError> {
        let Some(name) = value.as_str() else {
            return Err(place.fault(format!("`{word}` must be a string, not {}", short(value))));
        };
        if FORMATS.contains(&name) {
            return Ok(Some((word, value.clone())));
        }
        if self.strict {
            let known = FORMATS.join(", ");
            return Err(place.fault(format!("the `format` {name:?} is not supported; supported are {known}")));
        }
        Ok(None)
    }

    fn nested<'w>(
        &mut self,
        kind: Keyword,
        word: &'w str,
        value: &Value,
        place: &mut Place,
    ) -> Result<(&'w str, Value), GrammarError> {
        let rewritten = place.within(word, |place| match (kind, value) {
            (Keyword::Schemas | Keyword::SchemaOrList, Value::Array(schemas)) => {
                if schemas.is_empty() && word != "prefixItems" && word != "items" {
                    return Err(place.fault(format!("`{word}` must be a list that is not empty")));
                }
                let each = |(index, schema): (usize, &Value)| {
                    place.within(&index.to_string(), |place| self.schema(schema, place))
                };
                schemas.iter().enumerate().map(each).collect::<Result<Vec<_>, _>>().map(Value::Array)
            }
            (Keyword::Schemas, other) => {
                Err(place.fault(format!("`{word}` must be a list of schemas, not {}", short(other))))
            }
            (Keyword::Named, Value::Object(schemas)) => {
                let each = |(name, schema): (&String, &Value)| {
                    let schema = place.within(name, |place| self.schema(schema, place))?;
                    Ok((name.clone(), schema))
                };
                schemas.iter().map(each).collect::<Result<Object, _>>().map(Value::Object)
            }
            (Keyword::Named, other) => {
                Err(place.fault(format!("`{word}` must be an object of schemas, not {}", short(other))))
            }
            _ => self.schema(value, place),
        })?;
        let exclusive = word == "oneOf" && value.as_array().is_some_and(|all| exclude_each_other(all, self.root));
        Ok((if exclusive { "anyOf" } else { word }, rewritten))
    }

    /// Bounds how many properties may be there or not. A name can come twice in a text of the grammar, and then counts
    /// once: more than one free name cannot be counted.
    fn check_names(&self, object: &Object, place: &Place) -> Result<(), GrammarError> {
        let least = object.get("minProperties").and_then(Value::as_u64).unwrap_or(0) as usize;
        let required = object.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        let named = object.get("properties").and_then(Value::as_object).map_or(0, Map::len);
        let optional = named.saturating_sub(required);
        if optional > MOST_OPTIONAL {
            let bound = format!("at most {MOST_OPTIONAL} properties that are not `required`, not {optional}");
            return Err(place.fault(format!("there may be {bound}")));
        }
        if least <= required + 1 {
            return Ok(());
        }
        let bound = format!("at most one more than the {required} properties that are `required`");
        Err(place.fault(format!("`minProperties` is supported up to {bound}, not {least}")))
    }
}

/// Where a reference leads. The library reads the names on the way as they are, so that none may contain a `/`.
fn target(reference: &str) -> Option<Vec<String>> {
    let way = percent_decoded(reference.strip_prefix('#')?)?;
    if way.is_empty() {
        return Some(Vec::new());
    }
    let names = way.strip_prefix('/')?.split('/').map(|name| name.replace("~1", "/").replace("~0", "~"));
    let names: Vec<String> = names.collect();
    (!names.iter().any(|name| name.contains('/'))).then_some(names)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        bytes.push(u8::from_str_radix(piece.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&piece.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// A count, which may be written as a number with nothing behind the point.
fn whole(value: &Value) -> Option<u64> {
    let exact = |number: f64| (0.0..9e15).contains(&number) && number.fract() == 0.0;
    value.as_u64().or_else(|| value.as_f64().filter(|number| exact(*number)).map(|number| number as u64))
}

fn is_list(value: &Value, each: impl Fn(&Value) -> bool) -> bool {
    value.as_array().is_some_and(|list| list.iter().all(each))
}

fn is_types(value: &Value) -> bool {
    let known = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
    known(value) || (is_list(value, known) && value != &json!([]))
}

/// The beginning of a value.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Whether what one schema says of an object's properties is joined anywhere with what another says of them.
fn combines(schema: &Value) -> bool {
    let of_objects =
        ["properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties"];
    match schema {
        Value::Array(list) => list.iter().any(combines),
        Value::Object(object) => {
            let applicators = ["$ref", "anyOf", "oneOf"].iter().filter(|word| object.contains_key(**word)).count();
            let own = of_objects.iter().any(|word| object.contains_key(*word));
            object.contains_key("allOf")
                || applicators > 1
                || (applicators == 1 && own)
                || object.values().any(combines)
        }
        _ => false,
    }
}

/// Whether properties are named, those that are required are among them, and nothing is said about others.
fn names_all(object: &Object) -> bool {
    let others = ["additionalProperties", "patternProperties", "minProperties", "maxProperties"];
    if others.iter().any(|word| object.contains_key(*word)) {
        return false;
    }
    let Some(Value::Object(properties)) = object.get("properties") else { return false };
    let required = object.get("required").and_then(Value::as_array);
    required.is_none_or(|names| names.iter().filter_map(Value::as_str).all(|name| properties.contains_key(name)))
}
