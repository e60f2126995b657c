//! Patches (RFC 7644, section 3.5.2): what the steps make of a resource.
//!
//! Works on the resource as JSON; whether what comes out is one is seen when it is read again.

use std::borrow::Cow;

use serde_json::Value;

use super::attribute::{Attribute, Path};
use super::filter::Filter;
use crate::store::PrincipalKind;
use crate::wire::scim::Operation;
use crate::wire::{FieldError, JsonObject};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Add,
    Remove,
    Replace,
}

/// What a step is done to.
struct Target {
    attribute: Attribute,
    /// Which of several values.
    which: Option<Filter<String>>,
    part: Option<&'static str>,
}

/// Does one step of a patch to a principal of that kind.
///
/// # Errors
/// A step, a path or a value that makes no sense.
pub(super) fn apply(kind: PrincipalKind, resource: &mut JsonObject, operation: Operation) -> Result<(), FieldError> {
    let step = match operation.op.to_ascii_lowercase().as_str() {
        "add" => Step::Add,
        "remove" => Step::Remove,
        "replace" => Step::Replace,
        _ => return Err(FieldError::value("Operations.op", "`add`, `remove` or `replace`", operation.op)),
    };
    let value = operation.value.filter(|value| !value.is_null());
    if let Some(path) = &operation.path {
        return Target::read(kind, path)?.change(step, value, resource);
    }
    match (step, value) {
        (Step::Add | Step::Replace, Some(Value::Object(attributes))) => {
            for (path, value) in attributes {
                let given = Some(value).filter(|value| !value.is_null());
                let step = if given.is_none() { Step::Remove } else { step };
                Target::read(kind, &path)?.change(step, given, resource)?;
            }
            Ok(())
        }
        (Step::Remove, _) => Err(FieldError::Missing { field: "Operations.path".into() }),
        (_, None) => Err(FieldError::Missing { field: "Operations.value".into() }),
        (_, Some(_)) => {
            Err(FieldError::conflict("Operations.value", "without a `path` it must be an object of attributes"))
        }
    }
}

impl Target {
    /// Reads `ATTRIBUTE[CONDITION].PART`.
    fn read(kind: PrincipalKind, text: &str) -> Result<Self, FieldError> {
        let field = "Operations.path";
        let (name, condition, part) = match text.split_once('[') {
            None => (text, None, None),
            Some((name, rest)) => {
                let broken = || FieldError::conflict(field, format!("`{text}`: a `]` is missing"));
                let (condition, part) = rest.rsplit_once(']').ok_or_else(broken)?;
                (name, Some(condition), part.strip_prefix('.'))
            }
        };
        let whole = part.map_or_else(|| name.to_owned(), |part| format!("{name}.{part}"));
        let unknown = || FieldError::conflict(field, format!("there is no attribute `{whole}` to change here"));
        let path = Path::read_of(kind, whole.trim()).ok_or_else(unknown)?;
        let which = condition.map(|condition| {
            let part = |part: &str| {
                let path = Path::read(&format!("{}.{part}", path.attribute.name()))?;
                path.part.map(str::to_owned)
            };
            Filter::read(field, condition, &part)
        });
        let which = which.transpose()?;
        if which.is_some() && !path.attribute.is_list() {
            return Err(FieldError::conflict(field, format!("`{}` has one value", path.attribute.name())));
        }
        Ok(Self { attribute: path.attribute, which, part: path.part })
    }

    fn change(&self, step: Step, value: Option<Value>, resource: &mut JsonObject) -> Result<(), FieldError> {
        let name = self.attribute.name();
        let missing = || FieldError::Missing { field: "Operations.value".into() };
        if step == Step::Remove && self.attribute == Attribute::Active {
            return Err(FieldError::conflict("Operations.path", "`active` is set to true or false, and not removed"));
        }
        if self.attribute.is_list() {
            let list = resource.entry(name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Ok(()) };
            return match step {
                Step::Remove => self.remove(value, list),
                Step::Add | Step::Replace => self.set(step, value.ok_or_else(missing)?, list),
            };
        }
        match (step, self.part) {
            (Step::Remove, None) => drop(resource.remove(name)),
            (Step::Remove, Some(part)) => {
                if let Some(Value::Object(parts)) = resource.get_mut(name) {
                    parts.remove(part);
                }
            }
            (_, Some(part)) => {
                let parts = resource.entry(name).or_insert_with(|| Value::Object(JsonObject::new()));
                if let Value::Object(parts) = parts {
                    parts.insert(part.to_owned(), value.ok_or_else(missing)?);
                }
            }
            (_, None) => match (value.ok_or_else(missing)?, resource.get_mut(name)) {
                (Value::Object(given), Some(Value::Object(parts))) if self.attribute.has_parts() => parts.extend(given),
                (value, _) => drop(resource.insert(name.to_owned(), value)),
            },
        }
        Ok(())
    }

    /// Takes values, or a part of them, away: those that are meant, or those that are given.
    fn remove(&self, given: Option<Value>, list: &mut Vec<Value>) -> Result<(), FieldError> {
        let given: Option<Vec<Value>> = given.map(several);
        if let Some(odd) = given.iter().flatten().find(|value| value.get("value").is_none()) {
            return Err(FieldError::value("Operations.value", "a list of objects with a `value`", odd));
        }
        let meant = |value: &Value| {
            let among = |given: &Vec<Value>| given.iter().any(|one| one.get("value") == value.get("value"));
            self.means(value) && given.as_ref().is_none_or(among)
        };
        match self.part {
            None => list.retain(|value| !meant(value)),
            Some(part) => {
                for object in list.iter_mut().filter(|value| meant(value)).filter_map(Value::as_object_mut) {
                    object.remove(part);
                }
            }
        }
        Ok(())
    }

    /// Sets the values, adds to them, or sets a part of those that are meant.
    fn set(&self, step: Step, given: Value, list: &mut Vec<Value>) -> Result<(), FieldError> {
        if self.which.is_none() && self.part.is_none() {
            if step == Step::Replace {
                list.clear();
            }
            for value in several(given) {
                list.retain(|one| one.get("value") != value.get("value"));
                list.push(value);
            }
            return Ok(());
        }
        let mut meant = list.iter_mut().filter(|value| self.means(value)).filter_map(Value::as_object_mut).peekable();
        if meant.peek().is_none() {
            let problem = format!("none of the `{}` is meant by it", self.attribute.name());
            return Err(FieldError::conflict("Operations.path", problem));
        }
        for object in meant {
            match (self.part, &given) {
                (Some(part), given) => drop(object.insert(part.to_owned(), given.clone())),
                (None, Value::Object(parts)) => object.extend(parts.clone()),
                (None, odd) => return Err(FieldError::value("Operations.value", "an object", odd)),
            }
        }
        Ok(())
    }

    fn means(&self, value: &Value) -> bool {
        let part = |part: &String| -> Vec<Cow<'_, str>> {
            match value.get(part) {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::String(text)) => vec![Cow::Borrowed(text.as_str())],
                Some(other) => vec![Cow::Owned(other.to_string())],
            }
        };
        self.which.as_ref().is_none_or(|which| which.holds(&part))
    }
}

fn several(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        one => vec![one],
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(kind: PrincipalKind, resource: Value, operation: Value) -> Result<Value, FieldError> {
        let Value::Object(mut resource) = resource else { panic!("an object") };
        apply(kind, &mut resource, serde_json::from_value(operation).unwrap())?;
        Ok(Value::Object(resource))
    }

    fn group(operation: Value) -> Result<Value, FieldError> {
        patched(
            PrincipalKind::Group,
            json!({"displayName": "g", "members": [{"value": "1"}, {"value": "2"}]}),
            operation,
        )
    }

    fn user(operation: Value) -> Result<Value, FieldError> {
        let emails = json!([{"value": "a@x.org", "type": "work"}, {"value": "b@x.org", "type": "home"}]);
        let resource = json!({"active": true, "name": {"givenName": "A"}, "emails": emails});
        patched(PrincipalKind::User, resource, operation)
    }

    #[test]
    fn members_come_and_go_in_every_form_that_clients_use() {
        for (operation, members) in [
            (json!({"op": "add", "value": {"members": [{"value": "3"}]}}), json!(["1", "2", "3"])),
            (
                json!({"op": "Add", "path": "members", "value": [{"value": "3"}, {"value": "1"}]}),
                json!(["2", "3", "1"]),
            ),
            (json!({"op": "add", "path": "members", "value": {"value": "3"}}), json!(["1", "2", "3"])),
            (json!({"op": "remove", "path": "members[value eq \"1\"]"}), json!(["2"])),
            (json!({"op": "Remove", "path": "members", "value": [{"value": "2"}]}), json!(["1"])),
            (json!({"op": "remove", "path": "members"}), json!([])),
            (json!({"op": "remove", "path": "members[value eq \"7\"]"}), json!(["1", "2"])),
            (json!({"op": "replace", "path": "members", "value": [{"value": "9"}]}), json!(["9"])),
        ] {
            let patched = group(operation.clone()).unwrap();
            let ids: Vec<&Value> = patched["members"].as_array().unwrap().iter().map(|one| &one["value"]).collect();
            assert_eq!(json!(ids), members, "{operation}");
        }
    }

    #[test]
    fn single_values_and_parts_are_set_and_removed() {
        let renamed = group(json!({"op": "replace", "path": "displayName", "value": "h"})).unwrap();
        assert_eq!(renamed["displayName"], "h");
        for path in ["active", "urn:ietf:params:scim:schemas:core:2.0:User:active", "ACTIVE"] {
            assert_eq!(user(json!({"op": "replace", "path": path, "value": "false"})).unwrap()["active"], "false");
        }
        let named = user(json!({"op": "add", "value": {"name": {"familyName": "B"}, "displayName": "A B"}})).unwrap();
        assert_eq!(
            (&named["name"], &named["displayName"]),
            (&json!({"givenName": "A", "familyName": "B"}), &json!("A B"))
        );
        let named = user(json!({"op": "replace", "value": {"name.familyName": "C"}})).unwrap();
        assert_eq!(named["name"]["familyName"], "C");
        assert_eq!(user(json!({"op": "remove", "path": "name.givenName"})).unwrap()["name"], json!({}));
        let moved = json!({"op": "replace", "path": "emails[type eq \"home\"].value", "value": "c@x.org"});
        assert_eq!(user(moved).unwrap()["emails"][1], json!({"value": "c@x.org", "type": "home"}));
        let marked = json!({"op": "add", "path": "emails[type eq \"work\"]", "value": {"primary": true}});
        assert_eq!(user(marked).unwrap()["emails"][0]["primary"], true);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (operation, problem) in [
            (json!({"op": "move", "path": "active"}), "must be `add`, `remove` or `replace`, not move"),
            (json!({"op": "remove"}), "the field `Operations.path` is required"),
            (json!({"op": "add", "value": 1}), "must be an object of attributes"),
            (json!({"op": "add"}), "the field `Operations.value` is required"),
            (json!({"op": "replace", "path": "displayName"}), "the field `Operations.value` is required"),
            (json!({"op": "replace", "path": "shoeSize", "value": 1}), "no attribute `shoeSize`"),
            (json!({"op": "add", "path": "members", "value": []}), "no attribute `members`"),
            (json!({"op": "remove", "path": "active"}), "not removed"),
            (json!({"op": "remove", "path": "emails[type eq \"work\""}), "a `]` is missing"),
            (json!({"op": "remove", "path": "name[type eq \"work\"]"}), "`name` has one value"),
            (json!({"op": "remove", "path": "emails", "value": ["a@x.org"]}), "objects with a `value`"),
            (json!({"op": "replace", "path": "emails[type eq \"boat\"].value", "value": "x"}), "none of the `emails`"),
            (json!({"op": "replace", "path": "emails[size eq 4].value", "value": "x"}), "no attribute `size`"),
        ] {
            let error = user(operation.clone()).unwrap_err().to_string();
            assert!(error.contains(problem), "{operation}: {error}");
        }
    }
}
