//! Requests of Cohere's API.

use serde_json::{Value, json};

use crate::providers::external::dialect::{Texts, message, texts};
use crate::providers::external::given::{bounded, stops, taken};
use crate::providers::external::protocol::Target;
use crate::providers::external::tools::{GivenChoice, GivenFormat, choice, format, functions};
use crate::providers::{ChatCall, Cut, EmbeddingCall, ProviderError};
use crate::wire::JsonObject;

/// What is taken of a chat request, by OpenAI's names.
const TAKEN: &[&str] = &[
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "frequency_penalty",
    "presence_penalty",
    "seed",
    "stop",
    "tools",
    "tool_choice",
    "response_format",
    "thinking",
];

/// Most texts of one request for vectors.
const MOST_TEXTS: usize = 96;

/// The body of a chat request.
pub(super) fn chat_body(call: &ChatCall, target: Target<'_>) -> Result<JsonObject, ProviderError> {
    let given = taken(&call.generation.given, TAKEN, target)?;
    let mut body = JsonObject::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    put("model", Some(target.model.into()));
    put("messages", Some(call.messages.iter().map(|message| planned(self::message(message))).collect()));
    put("max_tokens", given.get("max_tokens").or_else(|| given.get("max_completion_tokens")).cloned());
    put("temperature", bounded(&given, "temperature", 1.0, target)?);
    put("p", given.get("top_p").cloned());
    put("k", given.get("top_k").cloned());
    put("frequency_penalty", bounded(&given, "frequency_penalty", 1.0, target)?);
    put("presence_penalty", bounded(&given, "presence_penalty", 1.0, target)?);
    put("seed", given.get("seed").cloned());
    let stops = stops(&given);
    put("stop_sequences", (!stops.is_empty()).then(|| stops.into()));
    let (tools, choice, strict) = tools(&given);
    put("tools", tools);
    put("tool_choice", choice);
    put("strict_tools", strict.then(|| true.into()));
    put(
        "response_format",
        match format(&given) {
            GivenFormat::Any => None,
            GivenFormat::JsonObject => Some(json!({"type": "json_object"})),
            GivenFormat::JsonSchema(schema) => Some(json!({"type": "json_object", "json_schema": schema})),
        },
    );
    put("thinking", given.get("thinking").cloned());
    put("stream", call.generation.is_streamed().then(|| true.into()));
    Ok(body)
}

/// A message as Cohere has it: it knows no names of speakers, and what is said beside calls is the plan of them.
fn planned(mut message: Value) -> Value {
    let Some(fields) = message.as_object_mut() else { return message };
    fields.remove("name");
    if fields.contains_key("tool_calls")
        && let Some(said) = fields.remove("content")
        && said.is_string()
    {
        fields.insert("tool_plan".into(), said);
    }
    message
}

/// The functions, whether they are called, and whether their schemas are kept to. A function by its name is the only one
/// there is.
fn tools(given: &JsonObject) -> (Option<Value>, Option<Value>, bool) {
    let mut functions = functions(given);
    let choice = match choice(given) {
        GivenChoice::Auto => None,
        GivenChoice::None => Some("NONE"),
        GivenChoice::Required => Some("REQUIRED"),
        GivenChoice::Named(name) => {
            functions.retain(|function| function.name == name);
            Some("REQUIRED")
        }
    };
    if functions.is_empty() {
        return (None, None, false);
    }
    let strict = functions.iter().any(|function| function.strict);
    let tools: Vec<Value> = functions
        .into_iter()
        .map(|function| {
            let mut written = json!({"name": function.name, "parameters": function.parameters});
            if let Some(description) = function.description {
                written["description"] = description.into();
            }
            json!({"type": "function", "function": written})
        })
        .collect();
    (Some(tools.into()), choice.map(Value::from), strict)
}

/// The bodies of the requests for vectors, each for as many texts as one may have.
pub(super) fn embed_bodies(call: &EmbeddingCall, target: Target<'_>) -> Result<Vec<JsonObject>, ProviderError> {
    // A text that is too long is refused unless it is to be cut; left alone, the API cuts it.
    let truncate = match call.cut {
        None => "NONE",
        Some(Cut::Context) => "END",
        Some(Cut::Tokens(_)) => return Err(target.refuse("truncate_prompt_tokens")),
    };
    // An instruction says what a text is searched by; these models know that by a word.
    let searched = call.instruction.as_ref().map_or("search_document", |_| "search_query");
    let input_type = call.input_type.as_deref().unwrap_or(searched);
    let texts = texts(call, Texts::Bare, target)?;
    let bodies = texts.chunks(MOST_TEXTS).map(|texts| {
        let mut body = JsonObject::new();
        body.insert("model".into(), target.model.into());
        body.insert("input_type".into(), input_type.into());
        body.insert("texts".into(), texts.into());
        body.insert("embedding_types".into(), json!(["float"]));
        body.insert("truncate".into(), truncate.into());
        body.extend(call.dimensions.map(|dimensions| ("output_dimension".to_owned(), dimensions.into())));
        body
    });
    Ok(bodies.collect())
}
