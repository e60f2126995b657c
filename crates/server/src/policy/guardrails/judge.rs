//! Whether something is safe, as a judge model says: one that answers as Llama Guard does, with `safe`, or with `unsafe` and the
//! codes of the categories on the next line.

use std::time::Instant;

use futures::StreamExt;
use hearth_sampler::SamplingRequest;
use serde_json::json;

use super::aides::Aides;
use crate::providers::call::ChatMessage;
use crate::providers::{AnswerEvent, ChatCall, Generation, ProviderError};
use crate::wire::JsonObject;

/// The categories of Llama Guard 3 and 4, by their codes: S1 and so on.
const CATEGORIES: [&str; 14] = [
    "violent-crimes",
    "non-violent-crimes",
    "sex-related-crimes",
    "child-sexual-exploitation",
    "defamation",
    "specialized-advice",
    "privacy",
    "intellectual-property",
    "indiscriminate-weapons",
    "hate",
    "suicide-and-self-harm",
    "sexual-content",
    "elections",
    "code-interpreter-abuse",
];

/// A judge's category that has no code in [`CATEGORIES`], or none at all.
const UNKNOWN: &str = "other";

/// Longest verdict, in tokens: all codes fit into it.
const TOKENS: usize = 64;

/// Asks the judge about the last of `messages`, which are a user's and then perhaps an assistant's. Empty where it is safe;
/// otherwise all categories, and which of them it is unsafe by.
///
/// # Errors
/// Where no verdict comes.
pub(super) async fn judged(
    aides: &Aides,
    messages: Vec<ChatMessage>,
    deadline: Option<Instant>,
) -> Result<Vec<(&'static str, bool, f32)>, ProviderError> {
    let fields = json!({"temperature": 0, "max_tokens": TOKENS});
    let generation = Generation {
        sampling: SamplingRequest { temperature: 0.0, ..SamplingRequest::default() },
        max_tokens: TOKENS,
        choices: 1,
        deadline,
        grammar: None,
        given: match fields {
            serde_json::Value::Object(fields) => fields,
            _ => JsonObject::new(),
        },
    };
    let answer = aides.judge(ChatCall { messages, tools: None, generation }).await?;
    let (mut events, mut text) = (answer.events, String::new());
    while let Some(event) = events.next().await {
        match event.map_err(|error| Aides::failed("judge", &error))? {
            AnswerEvent::Delta { delta, .. } | AnswerEvent::Echo { delta, .. } => text.push_str(&delta.text),
            AnswerEvent::Finished { .. } => {}
        }
    }
    verdict(&text).ok_or_else(|| Aides::failed("judge", &"there is no verdict in its first line"))
}

/// What the text says; `None` where it says nothing.
fn verdict(text: &str) -> Option<Vec<(&'static str, bool, f32)>> {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let word = lines.next()?.to_ascii_lowercase();
    if word == "safe" {
        return Some(Vec::new());
    }
    if word.strip_prefix("un") != Some("safe") {
        return None;
    }
    let codes: Vec<&str> = lines.next().unwrap_or_default().split(',').map(str::trim).collect();
    let place = |code: &str| -> Option<usize> { code.strip_prefix(['S', 's'])?.parse::<usize>().ok()?.checked_sub(1) };
    let named: Vec<usize> =
        codes.iter().filter_map(|code| place(code)).filter(|place| *place < CATEGORIES.len()).collect();
    let category = |(index, name): (usize, &&'static str)| {
        let is_it = named.contains(&index);
        (*name, is_it, f32::from(u8::from(is_it)))
    };
    let mut categories: Vec<_> = CATEGORIES.iter().enumerate().map(category).collect();
    if named.is_empty() {
        categories.push((UNKNOWN, true, 1.0));
    }
    Some(categories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_read_to_the_letter() {
        assert_eq!(verdict("\n\nsafe"), Some(Vec::new()));
        assert_eq!(verdict("Safe\n"), Some(Vec::new()));
        let reasons = |text: &str| -> Vec<&str> {
            let categories = verdict(text).unwrap();
            categories.into_iter().filter(|(_, is_it, _)| *is_it).map(|(name, ..)| name).collect()
        };
        assert_eq!(reasons("unsafe\nS1"), ["violent-crimes"]);
        assert_eq!(reasons("\n unsafe\n S10,S2 \n"), ["non-violent-crimes", "hate"]);
        for text in ["unsafe", "unsafe\nS99", "unsafe\nO3", "unsafe\nS0"] {
            assert_eq!(reasons(text), ["other"], "{text}");
        }
        for text in ["", "\n", "I think this is safe", "safe, mostly", "unsafe: S1", "not safe"] {
            assert_eq!(verdict(text), None, "{text}");
        }
    }
}
