//! JSON schemas before they are compiled: what is not honoured is refused, with the keyword and its place.
//!
//! Three things are rewritten, each so that a text of the new schema is one of the old. Words that say nothing about what
//! is valid are left out. `oneOf` becomes `anyOf` where the alternatives exclude each other. An object whose properties are
//! named and of which nothing is said about others has no others: a model would go on inventing them.

use serde_json::{Map, Value, json};

use super::GrammarError;
use super::exclusive::exclude_each_other;
use super::keywords::{FORMATS, Keyword, TYPES, forbids_nothing, keyword};

type Object = Map<String, Value>;

/// The schema as it is compiled: an object.
pub(super) fn prepare(schema: &Value, strict: bool) -> Result<Value, GrammarError> {
    let mut rewritten = match schema {
        Value::Bool(true) => json!({}),
        Value::Object(_) => {
            Reader { root: schema, strict, closes: !combines(schema) }.schema(schema, &mut Place::root())?
        }
        _ => return Err(Place::root().fault("a schema must be an object that allows something")),
    };
    // The library would take its options from the schema.
    if let Value::Object(object) = &mut rewritten {
        object.shift_remove("x-guidance");
    }
    Ok(rewritten)
}

/// Where in a schema something stands.
struct Place(Vec<String>);

impl Place {
    fn root() -> Self {
        Self(vec!["#".to_owned()])
    }

    /// Does something one step further.
    fn within<T>(
        &mut self,
        step: &str,
        work: impl FnOnce(&mut Self) -> Result<T, GrammarError>,
    ) -> Result<T, GrammarError> {
        self.0.push(step.replace('~', "~0").replace('/', "~1"));
        let done = work(self);
        self.0.pop();
        done
    }

    fn fault(&self, problem: impl Into<String>) -> GrammarError {
        GrammarError::Schema { place: self.0.join("/"), problem: problem.into() }
    }
}

struct Reader<'a> {
    root: &'a Value,
    strict: bool,
    /// Whether an object whose properties are named has no others where nothing is said about them.
    closes: bool,
}

impl Reader<'_> {
    fn schema(&self, schema: &Value, place: &mut Place) -> Result<Value, GrammarError> {
        let object = match schema {
            Value::Bool(_) => return Ok(schema.clone()),
            Value::Object(object) => object,
            other => return Err(place.fault(format!("a schema must be an object or a boolean, not {}", short(other)))),
        };
        let mut kept = Object::new();
        for (word, value) in object {
            if let Some((word, value)) = self.keyword(word, value, place)? {
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
        &self,
        word: &'w str,
        value: &Value,
        place: &mut Place,
    ) -> Result<Option<(&'w str, Value)>, GrammarError> {
        let Some(kind) = keyword(word) else { return self.unknown(word, value, place) };
        let wrong = |what: &str| Err(place.fault(format!("`{word}` must be {what}, not {}", short(value))));
        match kind {
            Keyword::Remark => return Ok(is_address(word).then(|| (word, value.clone()))),
            Keyword::Unsupported if forbids_nothing(word, value) => return Ok(None),
            Keyword::Unsupported => return Err(place.fault(format!("the keyword `{word}` is not supported"))),
            Keyword::Schema | Keyword::SchemaOrList | Keyword::Schemas | Keyword::Named => {
                return self.nested(kind, word, value, place).map(Some);
            }
            Keyword::Format => return self.format(word, value, place),
            Keyword::Bound if !(value.is_number() || value.is_boolean()) => return wrong("a number"),
            Keyword::Step if value.as_f64().is_none_or(|step| step <= 0.0) => return wrong("a number above 0"),
            Keyword::Count if value.as_u64().is_none() => return wrong("a whole number, at least 0"),
            Keyword::Text if !value.is_string() => return wrong("a string"),
            Keyword::Reference if !value.as_str().is_some_and(|target| target.starts_with('#')) => {
                return wrong("a reference within the schema, which begins with `#`");
            }
            Keyword::Types if !is_types(value) => return wrong(&format!("one or several of {}", TYPES.join(", "))),
            Keyword::Names if !is_list(value, Value::is_string) => return wrong("a list of strings"),
            Keyword::Values if value.as_array().is_none_or(Vec::is_empty) => return wrong("a list that is not empty"),
            _ => {}
        }
        Ok(Some((word, value.clone())))
    }

    /// A word that no schema knows says nothing about what is valid; schemas that are referred to may stand behind it.
    fn unknown<'w>(
        &self,
        word: &'w str,
        value: &Value,
        place: &Place,
    ) -> Result<Option<(&'w str, Value)>, GrammarError> {
        if self.strict {
            return Err(place.fault(format!("the keyword `{word}` is not known")));
        }
        Ok(value.is_object().then(|| (word, value.clone())))
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
        &self,
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

    /// A name can come twice in a text of the grammar, and then counts once: more than one free name cannot be counted.
    fn check_names(&self, object: &Object, place: &Place) -> Result<(), GrammarError> {
        let least = object.get("minProperties").and_then(Value::as_u64).unwrap_or(0) as usize;
        let required = object.get("required").and_then(Value::as_array).map_or(0, Vec::len);
        if least <= required + 1 {
            return Ok(());
        }
        let bound = format!("at most one more than the {required} properties that are `required`");
        Err(place.fault(format!("`minProperties` is supported up to {bound}, not {least}")))
    }
}

/// Whether a remark says where a schema can be found or by which draft it is read.
fn is_address(word: &str) -> bool {
    matches!(word, "$schema" | "$id" | "id" | "$anchor")
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
    let of_objects = [
        "properties",
        "patternProperties",
        "additionalProperties",
        "required",
        "minProperties",
        "maxProperties",
    ];
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
