//! From messages as they were typed to a conversation: roles, order and text.

use crate::providers::call::ChatMessage;
use crate::wire::FieldError;
use crate::wire::chat::{Content, Message, Part, Role};

/// Checks a conversation. `developer` is another name of `system`, which stands at most once and first.
pub(super) fn checked(messages: Vec<Message>) -> Result<Vec<ChatMessage>, FieldError> {
    if messages.is_empty() {
        return Err(FieldError::value("messages", "a list that is not empty", "[]"));
    }
    messages.into_iter().enumerate().map(|(index, message)| checked_message(index, message)).collect()
}

fn checked_message(index: usize, message: Message) -> Result<ChatMessage, FieldError> {
    let place = |field: &str| format!("messages[{index}].{field}");
    refuse_calls(&message, place)?;
    let role = match message.role {
        Role::Developer => Role::System,
        role => role,
    };
    if role == Role::System && index > 0 {
        let problem = "a system message stands at most once, as the first message";
        return Err(FieldError::conflict(place("role"), problem));
    }
    let content = match message.content {
        None => return Err(FieldError::Missing { field: place("content") }),
        Some(Content::Text(text)) => text,
        Some(Content::Parts(parts)) => joined(parts, &place("content"))?,
    };
    Ok(ChatMessage { role, content, name: message.name })
}

/// Refuses what belongs to function calling and to other media, unless it is empty.
fn refuse_calls(message: &Message, place: impl Fn(&str) -> String) -> Result<(), FieldError> {
    if message.role == Role::Tool {
        return Err(FieldError::unsupported_value(place("role"), " \"tool\""));
    }
    let later = [
        ("tool_calls", &message.tool_calls),
        ("tool_call_id", &message.tool_call_id),
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

/// The texts of the parts, one a line.
fn joined(parts: Vec<Part>, place: &str) -> Result<String, FieldError> {
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let place = |field: &str| format!("{place}[{index}].{field}");
        if part.kind != "text" {
            return Err(FieldError::unsupported_value(place("type"), format!(" \"{}\"", part.kind)));
        }
        if let Some(field) = part.rest.keys().next() {
            return Err(FieldError::Unknown { field: place(field) });
        }
        texts.push(part.text.ok_or_else(|| FieldError::Missing { field: place("text") })?);
    }
    if texts.is_empty() {
        return Err(FieldError::value(place, "a list that is not empty", "[]"));
    }
    Ok(texts.join("\n"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::wire::chat::ChatRequest;
    use crate::wire::parse_object;

    fn conversation(messages: Value) -> Result<Vec<ChatMessage>, FieldError> {
        let body = json!({"messages": messages}).to_string();
        checked(ChatRequest::read(parse_object(body.as_bytes()).unwrap())?.chat.messages)
    }

    fn message(role: Role, content: &str) -> ChatMessage {
        ChatMessage { role, content: content.into(), name: None }
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
            (json!([{"role": "user", "content": [{"type": "image_url"}]}]), "messages[0].content[0].type"),
            (json!([{"role": "user", "content": [{"type": "text"}]}]), "messages[0].content[0].text"),
            (json!([user, {"role": "tool", "content": "x", "tool_call_id": "1"}]), "messages[1].role"),
            (json!([user, {"role": "assistant", "tool_calls": [{"id": "1"}]}]), "messages[1].tool_calls"),
        ] {
            let error = conversation(messages.clone()).unwrap_err();
            assert_eq!(error.field(), Some(field), "{messages}: {error}");
        }
    }
}
