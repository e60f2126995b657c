//! Requests in OpenAI's dialect.

use serde_json::{Value, json};

use crate::providers::call::{ChatMessage, ContentPart};
use crate::providers::external::protocol::Target;
use crate::providers::{ChatCall, CompletionCall, OnOverflow, Prompt, ProviderError};
use crate::wire::JsonObject;
use crate::wire::chat::Role;

/// The body of a chat request: `fields` are what the caller has sent and the server takes.
pub(in crate::providers::external) fn chat_body(call: &ChatCall, fields: JsonObject, target: Target<'_>) -> JsonObject {
    let mut body = JsonObject::new();
    body.insert("model".into(), target.model.into());
    body.insert("messages".into(), call.messages.iter().map(message).collect());
    body.extend(fields);
    if call.generation.choices > 1 {
        body.insert("n".into(), call.generation.choices.into());
    }
    body
}

/// Asks for a stream where the caller has; `usage`: whether the server can be asked to tell what was used.
pub(in crate::providers::external) fn stream(body: &mut JsonObject, streamed: bool, usage: bool) {
    if streamed {
        body.insert("stream".into(), true.into());
        if usage {
            body.insert("stream_options".into(), json!({"include_usage": true}));
        }
    }
}

/// A message.
pub(in crate::providers::external) fn message(message: &ChatMessage) -> Value {
    let mut written = json!({"role": message.role, "content": message.content});
    if message.role == Role::Developer {
        written["role"] = json!("system");
    }
    if !message.parts.is_empty() {
        written["content"] = message.parts.iter().map(part).collect();
    }
    if let Some(name) = &message.name {
        written["name"] = json!(name);
    }
    if let Some(id) = &message.answers {
        written["tool_call_id"] = json!(id);
    }
    if !message.calls.is_empty() {
        if message.content.trim().is_empty() {
            written["content"] = Value::Null;
        }
        let calls = message.calls.iter().map(|call| {
            let arguments = serde_json::to_string(&call.arguments).unwrap_or_default();
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        });
        written["tool_calls"] = calls.collect();
    }
    written
}

fn part(part: &ContentPart) -> Value {
    match part {
        ContentPart::Text(text) => json!({"type": "text", "text": text}),
        ContentPart::Image { url, detail: None } => json!({"type": "image_url", "image_url": {"url": url}}),
        ContentPart::Image { url, detail: Some(detail) } => {
            json!({"type": "image_url", "image_url": {"url": url, "detail": detail}})
        }
    }
}

/// The body of a completion request. What the server does not know of it is refused, and what is done here is left out.
pub(in crate::providers::external) fn completion_body(
    call: &CompletionCall,
    mut fields: JsonObject,
    target: Target<'_>,
) -> Result<JsonObject, ProviderError> {
    if call.templated {
        return Err(target.refuse("use_raw_prompt"));
    }
    if call.on_overflow == OnOverflow::DropBeginning {
        return Err(target.refuse("error_behavior"));
    }
    let prompts = call.prompts.iter().map(|prompt| match prompt {
        Prompt::Text(text) => Ok(text.as_str()),
        Prompt::Tokens(_) => {
            let text = format!("models of {} take texts and no token ids: their vocabulary is theirs", target.provider);
            Err(ProviderError::invalid("prompt", text))
        }
    });
    let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
    // The two names mean the same, and completions know the older one.
    if let Some(most) = fields.remove("max_completion_tokens") {
        fields.insert("max_tokens".into(), most);
    }
    let mut body = JsonObject::new();
    body.insert("model".into(), target.model.into());
    body.insert("prompt".into(), if let [prompt] = prompts.as_slice() { (*prompt).into() } else { prompts.into() });
    body.extend(fields);
    let generation = &call.generation;
    if generation.choices > 1 {
        body.insert("n".into(), generation.choices.into());
    }
    // Also where nobody asked for them, to find the best of several answers.
    if let Some(top) = generation.sampling.logprobs {
        body.insert("logprobs".into(), top.into());
    }
    if echoes(call) {
        if generation.given.contains_key("best_of") {
            return Err(target.refuse("best_of"));
        }
        body.insert("echo".into(), true.into());
    }
    Ok(body)
}

/// Whether the server is to repeat the prompt: only for its log probabilities, or where nothing else is wanted of it.
fn echoes(call: &CompletionCall) -> bool {
    call.echo && (call.generation.sampling.logprobs.is_some() || call.generation.max_tokens == 0)
}

/// The prompts that begin the answers, where they are put there by us.
pub(in crate::providers::external) fn echoed(call: &CompletionCall) -> Vec<&str> {
    let texts = call.prompts.iter().filter_map(|prompt| match prompt {
        Prompt::Text(text) => Some(text.as_str()),
        Prompt::Tokens(_) => None,
    });
    if call.echo && !echoes(call) { texts.collect() } else { Vec::new() }
}
