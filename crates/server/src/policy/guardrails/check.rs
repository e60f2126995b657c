//! What a configuration of guardrails must be like, in words that name the field, the bound and the value.

use crate::gate::Aides;
use crate::wire::FieldError;
use crate::wire::guardrails::{GuardrailFields, SideFields};

/// Most keywords, and most topics, of a side.
const KEYWORDS: usize = 1000;
const TOPICS: usize = 100;
/// Longest keyword or topic, in characters.
const LENGTH: usize = 200;

/// Checks what was typed at `place`.
///
/// # Errors
/// The field to blame; also where it takes a model that the server's settings do not name.
pub(crate) fn check(fields: &GuardrailFields, aides: &Aides, place: &str) -> Result<(), FieldError> {
    let sides = [("input", &fields.input), ("output", &fields.output)];
    sides.into_iter().filter_map(|(name, side)| Some((name, side.as_ref()?))).try_for_each(|(name, side)| {
        let place = format!("{place}.{name}");
        texts(side.invalid_keywords.as_deref(), KEYWORDS, &format!("{place}.invalid_keywords"))?;
        texts(side.valid_topics.as_deref(), TOPICS, &format!("{place}.valid_topics"))?;
        needs_aides(side, aides, &place)
    })
}

fn texts(texts: Option<&[String]>, most: usize, field: &str) -> Result<(), FieldError> {
    let texts = texts.unwrap_or_default();
    if texts.len() > most {
        return Err(FieldError::value(field, format!("a list of at most {most} texts"), texts.len()));
    }
    for (index, text) in texts.iter().enumerate() {
        let length = text.chars().count();
        if text.trim().is_empty() || length > LENGTH || text.chars().any(|letter| letter.is_control()) {
            let bound = format!("1 to {LENGTH} characters, not all of them blank and none a control");
            return Err(FieldError::value(format!("{field}[{index}]"), bound, format!("{length} characters")));
        }
    }
    Ok(())
}

fn needs_aides(side: &SideFields, aides: &Aides, place: &str) -> Result<(), FieldError> {
    let missing = |field: &str, setting: &str, what: &str| {
        let problem = format!(
            "the server has no {what}: start it with `--{setting} ENDPOINT`, or set `{}` in its \
            configuration file",
            setting.replace('-', "_")
        );
        Err(FieldError::conflict(format!("{place}.{field}"), problem))
    };
    if side.safety == Some(true) && aides.judge.is_none() {
        return missing("safety", "judge-endpoint", "model that judges what is safe");
    }
    if side.valid_topics.as_ref().is_some_and(|topics| !topics.is_empty()) && aides.topics.is_none() {
        return missing("valid_topics", "topic-endpoint", "embedding model that compares topics");
    }
    Ok(())
}
