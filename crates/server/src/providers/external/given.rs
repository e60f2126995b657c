//! The fields that a caller has sent, against those that a provider takes.

use serde_json::{Value, json};

use super::protocol::Target;
use crate::providers::ProviderError;
use crate::wire::JsonObject;

/// Fields that say how an answer is delivered or cut out of what is generated: they are read elsewhere.
const DELIVERY: &[&str] =
    &["stream", "stream_options", "n", "echo", "best_of", "suffix", "use_raw_prompt", "error_behavior"];

/// Fields that describe the call. A provider gets those that it takes and never hears of the others.
const BOOKKEEPING: &[&str] = &[
    "user",
    "metadata",
    "store",
    "service_tier",
    "client_request_id",
    "usage_context",
    "databricks_options",
    "custom_inputs",
    "prompt_cache_key",
    "prompt_cache_retention",
    "safety_identifier",
];

/// The fields of `given` that are in `taken`, which are OpenAI's names.
///
/// # Errors
/// The first field that the provider does not take, unless its value asks for nothing.
pub(super) fn taken(given: &JsonObject, taken: &[&str], target: Target<'_>) -> Result<JsonObject, ProviderError> {
    let mut fields = JsonObject::new();
    for (name, value) in given {
        if taken.contains(&name.as_str()) {
            fields.insert(name.clone(), value.clone());
        } else if !DELIVERY.contains(&name.as_str())
            && !BOOKKEEPING.contains(&name.as_str())
            && !asks_for_nothing(name, value)
        {
            return Err(target.refuse(name));
        }
    }
    Ok(fields)
}

/// All fields but those of `not` and what is read elsewhere: for servers that may know more of them than this one.
pub(super) fn all(given: &JsonObject, bookkeeping: &[&str]) -> JsonObject {
    let passes =
        |name: &str| !DELIVERY.contains(&name) && (!BOOKKEEPING.contains(&name) || bookkeeping.contains(&name));
    given.iter().filter(|(name, _)| passes(name)).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Whether an answer without the field is what is asked for.
fn asks_for_nothing(name: &str, value: &Value) -> bool {
    match name {
        "frequency_penalty" | "presence_penalty" | "min_p" | "min_tokens" | "top_logprobs" => is_number(value, 0.0),
        "repetition_penalty" | "top_p" => is_number(value, 1.0),
        "ignore_eos" | "logprobs" => *value == json!(false),
        "parallel_tool_calls" => *value == json!(true),
        "logit_bias" => *value == json!({}),
        "stop" | "tools" => *value == json!([]),
        "tool_choice" | "reasoning_effort" => *value == json!("none"),
        "response_format" => value["type"] == "text",
        "thinking" => value["type"] == "disabled",
        _ => false,
    }
}

fn is_number(value: &Value, number: f64) -> bool {
    value.as_f64() == Some(number)
}

/// The texts that end the answer. A text of blanks alone ends nothing that is worth an answer, and some APIs refuse it.
pub(super) fn stops(given: &JsonObject) -> Vec<&str> {
    let stops = match given.get("stop") {
        Some(Value::Array(stops)) => stops.iter().filter_map(Value::as_str).collect(),
        Some(Value::String(stop)) => vec![stop.as_str()],
        _ => Vec::new(),
    };
    stops.into_iter().filter(|stop| !stop.trim().is_empty()).collect()
}

/// A number that the provider wants within a bound that is narrower than OpenAI's.
///
/// # Errors
/// Where it is outside.
pub(super) fn bounded(
    given: &JsonObject,
    name: &str,
    most: f64,
    target: Target<'_>,
) -> Result<Option<Value>, ProviderError> {
    match given.get(name) {
        Some(value) if value.as_f64().is_some_and(|number| number < 0.0 || number > most) => {
            let message =
                format!("`{name}` must be between 0 and {most} for models of {}, not {value}", target.provider);
            Err(ProviderError::OutOfRange { message, field: name.to_owned() })
        }
        other => Ok(other.cloned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::providers::external::ExternalSettings;

    fn object(value: Value) -> JsonObject {
        value.as_object().unwrap().clone()
    }

    fn target(settings: &ExternalSettings) -> Target<'_> {
        Target { provider: "acme", model: "m", settings }
    }

    #[test]
    fn what_is_not_taken_is_refused_by_name_unless_it_asks_for_nothing() {
        let settings = ExternalSettings::default();
        let nothing = json!({
            "frequency_penalty": 0, "min_p": 0.0, "repetition_penalty": 1, "ignore_eos": false, "logprobs": false,
            "parallel_tool_calls": true, "logit_bias": {}, "tools": [], "tool_choice": "none", "stop": [],
            "response_format": {"type": "text"}, "thinking": {"type": "disabled"}, "top_p": 1.0, "n": 3, "stream": true,
            "usage_context": {"a": "b"}, "user": "u"
        });
        let kept = json!({"temperature": 0.5, "user": "u"});
        let mut given = object(nothing);
        given.extend(object(kept.clone()));
        assert_eq!(taken(&given, &["temperature", "user"], target(&settings)).unwrap(), object(kept));
        for field in [json!({"top_k": 1}), json!({"seed": 0}), json!({"frequency_penalty": 0.1}), json!({"tools": [1]})]
        {
            let error = taken(&object(field.clone()), &["temperature"], target(&settings)).unwrap_err();
            let name = field.as_object().unwrap().keys().next().unwrap();
            assert_eq!(error.to_string(), format!("`{name}` is not supported by models of acme"));
        }
        let all = all(&object(json!({"top_k": 1, "n": 2, "user": "u", "usage_context": {}})), &["user"]);
        assert_eq!(all, object(json!({"top_k": 1, "user": "u"})));
    }

    #[test]
    fn stops_are_texts_and_bounds_are_named() {
        assert_eq!(stops(&object(json!({"stop": ["a", " ", "", "b\n"]}))), ["a", "b\n"]);
        assert_eq!(stops(&object(json!({"stop": "x"}))), ["x"]);
        assert!(stops(&object(json!({}))).is_empty());
        let settings = ExternalSettings::default();
        let given = object(json!({"temperature": 1.5, "top_p": 1}));
        let error = bounded(&given, "temperature", 1.0, target(&settings)).unwrap_err();
        assert_eq!(error.to_string(), "`temperature` must be between 0 and 1 for models of acme, not 1.5");
        assert_eq!(bounded(&given, "top_p", 1.0, target(&settings)).unwrap(), Some(json!(1)));
    }
}
