//! From messages as they were typed to a conversation: roles, order, text, calls and their results.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::providers::call::{ChatMessage, ContentPart, MadeCall};
use crate::wire::FieldError;
use crate::wire::chat::{Content, ImageUrl, Message, Part, Role};
use crate::wire::tools::ToolCall;

/// Checks a conversation. `developer` is another name of `system`, which stands at most once and first; a tool's message
/// answers a call that was made before.
pub(super) fn checked(messages: Vec<Message>) -> Result<Vec<ChatMessage>, FieldError> {
    if messages.is_empty() {
        return Err(FieldError::value("messages", "a list that is not empty", "[]"));
    }
    let mut made = HashSet::new();
    let checked = messages.into_iter().enumerate().map(|(index, message)| {
        let message = checked_message(index, message)?;
        if let Some(id) = message.answers.as_ref().filter(|id| !made.contains(*id)) {
            let bound = "the id of a call in a message before";
            return Err(FieldError::value(format!("messages[{index}].tool_call_id"), bound, format!("\"{id}\"")));
        }
        made.extend(message.calls.iter().map(|call| call.id.clone()));
        Ok(message)
    });
    checked.collect()
}

fn checked_message(index: usize, message: Message) -> Result<ChatMessage, FieldError> {
    let place = |field: &str| format!("messages[{index}].{field}");
    refuse_others(&message, place)?;
    let role = match message.role {
        Role::Developer => Role::System,
        role => role,
    };
    if role == Role::System && index > 0 {
        let problem = "a system message stands at most once, as the first message";
        return Err(FieldError::conflict(place("role"), problem));
    }
    let calls = calls(message.tool_calls.unwrap_or_default(), role, place)?;
    let answers = match (role, message.tool_call_id) {
        (Role::Tool, None) => return Err(FieldError::Missing { field: place("tool_call_id") }),
        (Role::Tool, id) => id,
        (_, Some(_)) => {
            return Err(FieldError::conflict(place("tool_call_id"), "only a message of role `tool` has one"));
        }
        (_, None) => None,
    };
    let parts = match message.content {
        None if calls.is_empty() => return Err(FieldError::Missing { field: place("content") }),
        None => Vec::new(),
        Some(Content::Text(text)) => vec![ContentPart::Text(text)],
        Some(Content::Parts(parts)) => checked_parts(parts, role, &place("content"))?,
    };
    let texts: Vec<&str> = parts.iter().filter_map(ContentPart::text).collect();
    let (content, is_text) = (texts.join("\n"), texts.len() == parts.len());
    let parts = if is_text { Vec::new() } else { parts };
    Ok(ChatMessage { role, content, parts, name: message.name, calls, answers })
}

/// The calls of a message.
fn calls(calls: Vec<ToolCall>, role: Role, place: impl Fn(&str) -> String) -> Result<Vec<MadeCall>, FieldError> {
    if role != Role::Assistant && !calls.is_empty() {
        return Err(FieldError::conflict(place("tool_calls"), "only a message of role `assistant` has calls"));
    }
    let checked = calls.into_iter().enumerate().map(|(index, call)| {
        let text = call.function.arguments;
        let field = || place(&format!("tool_calls[{index}].function.arguments"));
        let arguments = match text.trim() {
            // What some clients make of a call without arguments.
            "" => Map::new(),
            text => serde_json::from_str::<Map<String, Value>>(text).map_err(|error| FieldError::Type {
                field: field(),
                problem: format!("not the text of a JSON object: {error}"),
            })?,
        };
        Ok(MadeCall { id: call.id, name: call.function.name, arguments })
    });
    checked.collect()
}

/// Refuses what belongs to an older form of calls and to other media, unless it is empty.
fn refuse_others(message: &Message, place: impl Fn(&str) -> String) -> Result<(), FieldError> {
    let later = [
        ("function_call", &message.function_call),
        ("refusal", &message.refusal),
        ("annotations", &message.annotations),
        ("audio", &message.audio),
    ];
    for (field, value) in later {
        if value.as_ref().is_some_and(|value| !value.as_array().is_some_and(Vec::is_empty)) {
            return Err(FieldError::unsupported(place(field)));
        }
    }
    Ok(())
}

/// Texts, and images that a user shows.
fn checked_parts(parts: Vec<Part>, role: Role, place: &str) -> Result<Vec<ContentPart>, FieldError> {
    if parts.is_empty() {
        return Err(FieldError::value(place, "a list that is not empty", "[]"));
    }
    let parts = parts.into_iter().enumerate().map(|(index, part)| {
        let place = |field: &str| format!("{place}[{index}].{field}");
        let Part { kind, text, image_url, rest } = part;
        if let Some(field) = rest.keys().next().filter(|_| kind == "text" || kind == "image_url") {
            return Err(FieldError::Unknown { field: place(field) });
        }
        match (kind.as_str(), text, image_url) {
            ("text", Some(text), None) => Ok(ContentPart::Text(text)),
            ("text", None, None) => Err(FieldError::Missing { field: place("text") }),
            ("image_url", None, Some(image)) if role == Role::User => image_part(image, place),
            ("image_url", None, None) => Err(FieldError::Missing { field: place("image_url") }),
            ("text", _, Some(_)) => Err(FieldError::Unknown { field: place("image_url") }),
            ("image_url", Some(_), _) => Err(FieldError::Unknown { field: place("text") }),
            (kind, ..) => Err(FieldError::unsupported_value(place("type"), format!(" \"{kind}\""))),
        }
    });
    parts.collect()
}

fn image_part(image: ImageUrl, place: impl Fn(&str) -> String) -> Result<ContentPart, FieldError> {
    let ImageUrl { url, detail } = image;
    if !["http://", "https://", "data:image/"].iter().any(|scheme| url.starts_with(scheme)) {
        let bound = "a URL that begins with https://, http:// or data:image/";
        let beginning: String = url.chars().take(20).collect();
        return Err(FieldError::value(place("image_url.url"), bound, format!("\"{beginning}\"")));
    }
    Ok(ContentPart::Image { url, detail })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::chat::ChatRequest;
    use crate::wire::parse_object;

    fn conversation(messages: Value) -> Result<Vec<ChatMessage>, FieldError> {
        let body = json!({"messages": messages}).to_string();
        checked(ChatRequest::read(parse_object(body.as_bytes()).unwrap())?.chat.messages)
    }

    fn message(role: Role, content: &str) -> ChatMessage {
        ChatMessage::text(role, content)
    }

    #[test]
    fn texts_parts_and_the_newer_role_are_understood() {
        let messages = json!([
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": "c", "refusal": null, "tool_calls": [], "annotations": []},
            {"role": "user", "content": "d", "name": "ann"},
        ]);
        let expected = [
            message(Role::System, "be brief"),
            message(Role::User, "a\nb"),
            message(Role::Assistant, "c"),
            ChatMessage { name: Some("ann".into()), ..message(Role::User, "d") },
        ];
        assert_eq!(conversation(messages).unwrap(), expected);
    }

    fn image(url: &str) -> Value {
        json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}})
    }

    #[test]
    fn images_stand_between_texts() {
        let text = |text: &str| json!({"type": "text", "text": text});
        let parts = json!([text("a"), image("data:image/png;base64,AA=="), text("b")]);
        let conversation = conversation(json!([{"role": "user", "content": parts}])).unwrap();
        let image = ContentPart::Image { url: "data:image/png;base64,AA==".into(), detail: Some("low".into()) };
        let parts = vec![ContentPart::Text("a".into()), image, ContentPart::Text("b".into())];
        assert_eq!(conversation, [ChatMessage { parts, ..message(Role::User, "a\nb") }]);
    }

    fn call(id: &str, arguments: &str) -> Value {
        json!({"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}})
    }

    #[test]
    fn calls_and_their_results_are_understood() {
        let messages = json!([
            {"role": "user", "content": "x"},
            {"role": "assistant", "content": null, "tool_calls": [call("1", "{\"a\": [1]}"), call("2", "")]},
            {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "two"}]},
            {"role": "tool", "tool_call_id": "1", "content": "one"},
        ]);
        let conversation = conversation(messages).unwrap();
        let arguments: Vec<Value> =
            conversation[1].calls.iter().map(|call| Value::Object(call.arguments.clone())).collect();
        assert_eq!((conversation[1].content.as_str(), arguments), ("", vec![json!({"a": [1]}), json!({})]));
        assert_eq!((conversation[2].answers.as_deref(), conversation[2].content.as_str()), (Some("2"), "two"));
    }

    #[test]
    fn what_is_refused_is_named_with_its_place() {
        let user = json!({"role": "user", "content": "x"});
        for (messages, field) in [
            (json!([]), "messages"),
            (json!([user, {"role": "system", "content": "x"}]), "messages[1].role"),
            (json!([{"role": "wizard", "content": "x"}]), "messages[0].role"),
            (json!([{"role": "user"}]), "messages[0].content"),
            (json!([{"role": "user", "content": null}]), "messages[0].content"),
            (json!([{"role": "user", "content": 5}]), "messages[0].content"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": "user", "content": "x", "colour": 1}]), "messages[0].colour"),
            (json!([{"role": "user", "content": []}]), "messages[0].content"),
            (json!([{"role": "user", "content": [{"type": "input_audio"}]}]), "messages[0].content[0].type"),
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content[0].image_url"),
            (json!([{"role": "user", "content": [image("ftp://x")]}]), "messages[0].content[0].image_url.url"),
            (json!([{"role": "system", "content": [image("https://x")]}]), "messages[0].content[0].type"),
            (json!([{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]), "messages[0].content[0].x"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
            (json!([user, {"role": "tool", "content": "x", "tool_call_id": "1"}]), "messages[1].tool_call_id"),
            (json!([user, {"role": "tool", "content": "x"}]), "messages[1].tool_call_id"),
            (json!([{"role": "user", "content": "x", "tool_call_id": "1"}]), "messages[0].tool_call_id"),
            (json!([{"role": "user", "content": "x", "tool_calls": [call("1", "{}")]}]), "messages[0].tool_calls"),
            (json!([user, {"role": "assistant", "tool_calls": [{"id": "1"}]}]), "messages[1].tool_calls[0].function"),
            (
                json!([user, {"role": "assistant", "tool_calls": [call("1", "[1]")]}]),
                "messages[1].tool_calls[0].function.arguments",
            ),
            (json!([user, {"role": "assistant", "content": null, "tool_calls": []}]), "messages[1].content"),
            (json!([user, {"role": "assistant", "content": "x", "function_call": {}}]), "messages[1].function_call"),
        ] {
            let error = conversation(messages.clone()).unwrap_err();
            assert_eq!(error.field(), Some(field), "{messages}: {error}");
        }
    }
}
