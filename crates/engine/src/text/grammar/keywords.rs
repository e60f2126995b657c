//! The keywords of JSON schemas: which are honoured, what their values are, and which are only remarks.

use serde_json::Value;

/// What stands behind a keyword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyword {
    /// A schema.
    Schema,
    /// A schema, or in earlier drafts a list of schemas.
    SchemaOrList,
    /// A list of schemas.
    Schemas,
    /// Schemas by name.
    Named,
    /// A number, or in earlier drafts whether another number is itself excluded.
    Bound,
    /// A number above 0.
    Step,
    /// A whole number, at least 0.
    Count,
    /// A text.
    Text,
    /// A format's name.
    Format,
    /// Where another schema stands.
    Reference,
    /// The name of a type, or several.
    Types,
    /// Names of properties.
    Names,
    /// A list of any values.
    Values,
    /// Any value.
    Value,
    /// Says nothing about what is valid.
    Remark,
    /// The name under which a schema is known, to which references within it are relative.
    Address,
    /// Says something about what is valid that is not honoured.
    Unsupported,
}

/// What a keyword is; `None` for words that no schema knows.
pub(super) fn keyword(word: &str) -> Option<Keyword> {
    Some(match word {
        "additionalProperties" | "additionalItems" => Keyword::Schema,
        "items" => Keyword::SchemaOrList,
        "anyOf" | "oneOf" | "allOf" | "prefixItems" => Keyword::Schemas,
        "properties" | "patternProperties" | "$defs" | "definitions" => Keyword::Named,
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => Keyword::Bound,
        "multipleOf" => Keyword::Step,
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties" => Keyword::Count,
        "pattern" => Keyword::Text,
        "format" => Keyword::Format,
        "$ref" => Keyword::Reference,
        "type" => Keyword::Types,
        "required" => Keyword::Names,
        "enum" => Keyword::Values,
        "const" => Keyword::Value,
        "title" | "description" | "default" | "examples" | "$comment" | "$schema" | "$anchor" | "$vocabulary"
        | "deprecated" | "readOnly" | "writeOnly" | "contentMediaType" | "contentEncoding" | "contentSchema" => {
            Keyword::Remark
        }
        "$id" | "id" => Keyword::Address,
        "not"
        | "if"
        | "then"
        | "else"
        | "dependentSchemas"
        | "dependentRequired"
        | "dependencies"
        | "contains"
        | "minContains"
        | "maxContains"
        | "uniqueItems"
        | "propertyNames"
        | "unevaluatedItems"
        | "unevaluatedProperties"
        | "$dynamicRef"
        | "$dynamicAnchor"
        | "$recursiveRef"
        | "$recursiveAnchor" => Keyword::Unsupported,
        _ => return None,
    })
}

/// Whether a keyword that is not honoured forbids nothing with this value.
pub(super) fn forbids_nothing(word: &str, value: &Value) -> bool {
    match word {
        "uniqueItems" => value == &Value::Bool(false),
        "unevaluatedItems" | "unevaluatedProperties" | "propertyNames" => value == &Value::Bool(true),
        "not" => value == &Value::Bool(false),
        _ => false,
    }
}

/// Formats that are enforced.
pub(super) const FORMATS: [&str; 10] =
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"];

/// Names of types.
pub(super) const TYPES: [&str; 7] = ["null", "boolean", "integer", "number", "string", "array", "object"];
