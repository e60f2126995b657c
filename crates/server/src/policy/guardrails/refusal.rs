//! What a caller is told whose request, or whose answer, is not let through.

use serde_json::{Map, Value, json};

use crate::providers::ProviderError;
use crate::wire::chat::Role;

/// On which side of the model guardrails stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Before it.
    Input,
    /// Behind it.
    Output,
}

/// Why something is not let through.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    /// Whether something about a person is in it.
    pub(super) personal: bool,
    /// What was asked of it, with the answers: whether that is a reason, and how much of one between 0 and 1.
    pub(super) categories: Vec<(&'static str, bool, f32)>,
    /// What was said, with masks; not of an answer.
    pub(super) said: Vec<(Role, String)>,
}

impl Refusal {
    /// For nothing but a word that may not be said.
    pub(super) fn keyword() -> Self {
        Self { categories: vec![("invalid_keywords", true, 1.0)], ..Self::default() }
    }

    /// The error, whose message is a document that clients of Databricks read.
    pub(super) fn error(&self, which: Which) -> ProviderError {
        let mut verdict = Map::new();
        verdict.insert("flagged".into(), self.categories.iter().any(|(_, is_reason, _)| *is_reason).into());
        let categories =
            self.categories.iter().map(|(name, is_reason, _)| ((*name).to_owned(), Value::from(*is_reason)));
        verdict.insert("categories".into(), Value::Object(categories.collect()));
        let scores = self.categories.iter().map(|(name, _, score)| ((*name).to_owned(), Value::from(*score)));
        verdict.insert("category_scores".into(), Value::Object(scores.collect()));
        verdict.insert("pii_detection".into(), self.personal.into());
        let (list, reason) = match which {
            Which::Input => {
                let said = self.said.iter().map(|(role, content)| json!({"role": role, "content": content}));
                verdict.insert("anonymized_input".into(), said.collect());
                ("input_guardrail", "input_guardrail_triggered")
            }
            Which::Output => ("output_guardrail", "output_guardrail_triggered"),
        };
        let document = json!({
            "usage": {"prompt_tokens": 0, "total_tokens": 0}, list: [verdict], "finishReason": reason
        });
        ProviderError::Guarded(document.to_string())
    }
}
