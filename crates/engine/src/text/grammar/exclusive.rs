//! Whether the alternatives of `oneOf` exclude each other, so that a value of one is never one of another.

use serde_json::{Map, Value};

/// Longest chain of references that is followed.
const MOST_STEPS: usize = 16;

/// Whether no value is one of two of these schemas, as far as their types and the values of required properties tell.
pub(super) fn exclude_each_other(schemas: &[Value], root: &Value) -> bool {
    let resolved: Option<Vec<_>> = schemas.iter().map(|schema| resolve(schema, root)).collect();
    let Some(resolved) = resolved else { return false };
    let pairs = resolved.iter().enumerate().flat_map(|(index, a)| resolved[index + 1..].iter().map(move |b| (a, b)));
    pairs.into_iter().all(|(a, b)| have_no_common_type(a, b) || differ_in_a_property(a, b, root))
}

/// The schema that a chain of references ends at. What stands beside a reference is not looked at: it only forbids more.
fn resolve<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a Map<String, Value>> {
    let mut object = schema.as_object()?;
    for _ in 0..MOST_STEPS {
        let Some(target) = object.get("$ref") else { return Some(object) };
        object = root.pointer(target.as_str()?.strip_prefix('#')?)?.as_object()?;
    }
    None
}

fn have_no_common_type(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let (Some(a), Some(b)) = (types(a), types(b)) else { return false };
    let same = |a: &str, b: &str| a == b || (a == "integer" && b == "number") || (a == "number" && b == "integer");
    !a.iter().any(|a| b.iter().any(|b| same(a, b)))
}

fn types(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    match schema.get("type")? {
        Value::String(name) => Some(vec![name]),
        Value::Array(names) => names.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Whether both are objects, and a property that each requires has other values in one than in the other.
fn differ_in_a_property(a: &Map<String, Value>, b: &Map<String, Value>, root: &Value) -> bool {
    let objects = [a, b].iter().all(|schema| types(schema).is_some_and(|types| types == ["object"]));
    let required = |schema: &Map<String, Value>, name: &str| {
        schema.get("required").and_then(Value::as_array).is_some_and(|names| names.iter().any(|known| known == name))
    };
    let Some(Value::Object(properties)) = a.get("properties") else { return false };
    objects
        && properties.iter().filter(|(name, _)| required(a, name) && required(b, name)).any(|(name, of_a)| {
            let of_b = b.get("properties").and_then(|properties| properties.get(name));
            match (values(of_a, root), of_b.and_then(|schema| values(schema, root))) {
                (Some(a), Some(b)) => !a.iter().any(|value| b.contains(value)),
                _ => false,
            }
        })
}

/// The values that `const` or `enum` lists; strings only, since a number has several spellings.
fn values<'a>(schema: &'a Value, root: &'a Value) -> Option<Vec<&'a str>> {
    let schema = resolve(schema, root)?;
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => value.as_str().map(|value| vec![value]),
        (None, Some(Value::Array(values))) => values.iter().map(Value::as_str).collect(),
        _ => None,
    }
}
