//! From the fields that say what an answer must look like to one grammar, or none.

use hearth_engine::text::grammar::GrammarSource;
use serde_json::Value;

use crate::providers::AskedGrammar;
use crate::wire::FieldError;
use crate::wire::grammar::{FormatKind, GrammarFields, JsonSchemaFormat, ResponseFormat, StructuredOutputs};
use crate::wire::options::SamplingFields;

/// The grammar that is asked for.
pub(super) fn checked(fields: GrammarFields, sampling: &SamplingFields) -> Result<Option<AskedGrammar>, FieldError> {
    let asked = [
        fields.response_format.map(response_format).transpose()?.flatten(),
        fields.structured_outputs.map(structured_outputs).transpose()?,
        fields.guided_json.map(|schema| json("guided_json", schema)).transpose()?,
        fields.guided_regex.map(|regex| asked("guided_regex", GrammarSource::Regex(regex))),
        fields.guided_choice.map(|choice| asked("guided_choice", GrammarSource::Choice(choice))),
        fields.guided_grammar.map(|grammar| asked("guided_grammar", GrammarSource::Lark(grammar))),
    ];
    let Some(only) = one_of(asked.into_iter().flatten())? else { return Ok(None) };
    let ends = |field: &str| {
        let problem = format!("not with `{}`: an answer with a grammar ends where its grammar ends", only.field);
        Err(FieldError::conflict(field, problem))
    };
    if sampling.ignore_eos == Some(true) {
        return ends("ignore_eos");
    }
    if sampling.min_tokens.is_some_and(|least| least > 0) {
        return ends("min_tokens");
    }
    Ok(Some(only))
}

fn asked(field: &'static str, source: GrammarSource) -> AskedGrammar {
    AskedGrammar { field, source }
}

/// The only one of several, or none.
fn one_of(all: impl Iterator<Item = AskedGrammar>) -> Result<Option<AskedGrammar>, FieldError> {
    let mut all = all;
    let first = all.next();
    match (&first, all.next()) {
        (Some(first), Some(second)) => {
            let problem = format!("not with `{}`: an answer has one grammar", first.field);
            Err(FieldError::conflict(second.field, problem))
        }
        _ => Ok(first),
    }
}

fn response_format(format: ResponseFormat) -> Result<Option<AskedGrammar>, FieldError> {
    match (format.kind, format.json_schema) {
        (FormatKind::Text, None) => Ok(None),
        (FormatKind::JsonObject, None) => Ok(Some(asked("response_format", GrammarSource::JsonObject))),
        (FormatKind::JsonSchema, Some(JsonSchemaFormat { schema, strict, .. })) => {
            let field = "response_format.json_schema.schema";
            let schema = schema.ok_or_else(|| FieldError::Missing { field: field.to_owned() })?;
            let strict = strict == Some(true);
            Ok(Some(asked(field, GrammarSource::JsonSchema { schema, strict })))
        }
        (FormatKind::JsonSchema, None) => Err(FieldError::Missing { field: "response_format.json_schema".to_owned() }),
        (_, Some(_)) => {
            Err(FieldError::conflict("response_format.json_schema", "only allowed with `type`: \"json_schema\""))
        }
    }
}

fn structured_outputs(outputs: StructuredOutputs) -> Result<AskedGrammar, FieldError> {
    let object =
        (outputs.json_object == Some(true)).then(|| asked("structured_outputs.json_object", GrammarSource::JsonObject));
    let all = [
        outputs.json.map(|schema| json("structured_outputs.json", schema)).transpose()?,
        object,
        outputs.regex.map(|regex| asked("structured_outputs.regex", GrammarSource::Regex(regex))),
        outputs.choice.map(|choice| asked("structured_outputs.choice", GrammarSource::Choice(choice))),
        outputs.grammar.map(|grammar| asked("structured_outputs.grammar", GrammarSource::Lark(grammar))),
    ];
    let only = one_of(all.into_iter().flatten())?;
    let kinds = "an object with one of `json`, `json_object`, `regex`, `choice` and `grammar`";
    only.ok_or_else(|| FieldError::value("structured_outputs", kinds, "an object with none of them"))
}

/// A schema, which may be the text of one.
fn json(field: &'static str, schema: Value) -> Result<AskedGrammar, FieldError> {
    let schema = match schema {
        Value::String(text) => serde_json::from_str(&text)
            .map_err(|error| FieldError::Type { field: field.to_owned(), problem: format!("no JSON: {error}") })?,
        other => other,
    };
    Ok(asked(field, GrammarSource::JsonSchema { schema, strict: false }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::chat::ChatRequest;
    use crate::wire::completions::CompletionRequest;
    use crate::wire::parse_object;

    fn chat(more: Value) -> Result<Option<AskedGrammar>, FieldError> {
        let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let request = ChatRequest::read(parse_object(body.to_string().as_bytes()).unwrap())?;
        checked(request.grammar, &request.sampling)
    }

    fn asked_for(more: Value) -> (&'static str, GrammarSource) {
        let asked = chat(more).unwrap().unwrap();
        (asked.field, asked.source)
    }

    fn schema(schema: Value, strict: bool) -> GrammarSource {
        GrammarSource::JsonSchema { schema, strict }
    }

    #[test]
    fn each_spelling_asks_for_its_grammar() {
        let object = json!({"type": "object"});
        let format = |strict: Value| {
            json!({"response_format": {"type": "json_schema",
                "json_schema": {"name": "n", "description": "d", "schema": {"type": "object"}, "strict": strict}}})
        };
        let place = "response_format.json_schema.schema";
        assert_eq!(asked_for(format(json!(true))), (place, schema(object.clone(), true)));
        assert_eq!(asked_for(format(Value::Null)), (place, schema(object.clone(), false)));
        let any = json!({"response_format": {"type": "json_object"}});
        assert_eq!(asked_for(any), ("response_format", GrammarSource::JsonObject));
        for (older, newer, value, source) in [
            ("guided_json", "json", json!({"type": "object"}), schema(object.clone(), false)),
            ("guided_json", "json", json!("{\"type\": \"object\"}"), schema(object, false)),
            ("guided_regex", "regex", json!("a+"), GrammarSource::Regex("a+".into())),
            ("guided_choice", "choice", json!(["a", "b"]), GrammarSource::Choice(vec!["a".into(), "b".into()])),
            ("guided_grammar", "grammar", json!("start: \"a\""), GrammarSource::Lark("start: \"a\"".into())),
        ] {
            assert_eq!(asked_for(json!({older: value})), (older, source.clone()));
            let (field, found) = asked_for(json!({"structured_outputs": {newer: value}}));
            assert_eq!((field, found), (&*format!("structured_outputs.{newer}"), source));
        }
        let object = json!({"structured_outputs": {"json_object": true, "regex": null}});
        assert_eq!(asked_for(object), ("structured_outputs.json_object", GrammarSource::JsonObject));
        assert_eq!(chat(json!({"response_format": {"type": "text"}})).unwrap().map(|asked| asked.field), None);
        let body = json!({"prompt": "x", "guided_regex": "a"});
        let request = CompletionRequest::read(parse_object(body.to_string().as_bytes()).unwrap()).unwrap();
        assert_eq!(checked(request.grammar, &request.sampling).unwrap().unwrap().field, "guided_regex");
        let extra = json!({"extra_params": {"guided_regex": "12"}});
        assert_eq!(asked_for(extra), ("guided_regex", GrammarSource::Regex("12".into())));
    }

    #[test]
    fn what_contradicts_or_is_not_known_is_refused_by_name() {
        let schema = json!({"name": "n", "schema": {}});
        for (more, field, problem) in [
            (json!({"guided_regex": "a", "guided_choice": ["a"]}), "guided_choice", "not with `guided_regex`"),
            (
                json!({"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}),
                "structured_outputs.regex",
                "not with `response_format`",
            ),
            (
                json!({"structured_outputs": {"regex": "a", "grammar": "b"}}),
                "structured_outputs.grammar",
                "one grammar",
            ),
            (json!({"structured_outputs": {}}), "structured_outputs", "one of `json`"),
            (json!({"structured_outputs": {"json_object": false}}), "structured_outputs", "one of `json`"),
            (json!({"structured_outputs": {"tag": 1}}), "structured_outputs.tag", "unknown field"),
            (json!({"response_format": {"type": "xml"}}), "response_format.type", "json_object"),
            (json!({"response_format": {"type": "json_schema"}}), "response_format.json_schema", "required"),
            (
                json!({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}),
                "response_format.json_schema.schema",
                "required",
            ),
            (
                json!({"response_format": {"type": "text", "json_schema": schema}}),
                "response_format.json_schema",
                "only allowed with",
            ),
            (json!({"guided_json": "{"}), "guided_json", "no JSON"),
            (json!({"guided_regex": "a", "ignore_eos": true}), "ignore_eos", "ends where its grammar ends"),
            (json!({"guided_regex": "a", "min_tokens": 2}), "min_tokens", "ends where its grammar ends"),
        ] {
            let error = chat(more.clone()).unwrap_err();
            assert_eq!(error.field(), Some(field), "{more}: {error}");
            assert!(error.to_string().contains(problem), "{more}: {error}");
        }
    }
}
