//! Log probabilities, as chat and as completions spell them.

use serde::Deserialize;
use serde_json::Map;

use crate::providers::{TokenLogprob, TopLogprob};

/// Of a piece of a chat answer.
#[derive(Debug, Deserialize)]
pub(super) struct ChatLogprobs {
    #[serde(default)]
    content: Option<Vec<ChatToken>>,
}

#[derive(Debug, Deserialize)]
struct ChatToken {
    #[serde(flatten)]
    chosen: Alternative,
    #[serde(default)]
    top_logprobs: Vec<Alternative>,
}

#[derive(Debug, Deserialize)]
struct Alternative {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
}

impl Alternative {
    fn bytes(&self) -> Vec<u8> {
        self.bytes.clone().unwrap_or_else(|| self.token.clone().into_bytes())
    }
}

impl ChatLogprobs {
    /// The tokens.
    pub(super) fn tokens(self) -> Vec<TokenLogprob> {
        let tokens = self.content.unwrap_or_default().into_iter().map(|token| TokenLogprob {
            bytes: token.chosen.bytes(),
            logprob: Some(token.chosen.logprob),
            text: token.chosen.token,
            top: token
                .top_logprobs
                .into_iter()
                .map(|top| TopLogprob { bytes: top.bytes(), logprob: top.logprob, text: top.token })
                .collect(),
        });
        tokens.collect()
    }
}

/// Of a piece of a completion: parallel lists.
#[derive(Debug, Deserialize)]
pub(super) struct CompletionLogprobs {
    #[serde(default)]
    tokens: Vec<String>,
    #[serde(default)]
    token_logprobs: Vec<Option<f32>>,
    #[serde(default)]
    top_logprobs: Option<Vec<Option<Map<String, serde_json::Value>>>>,
}

impl CompletionLogprobs {
    /// The tokens.
    pub(super) fn tokens(self) -> Vec<TokenLogprob> {
        let mut tops = self.top_logprobs.unwrap_or_default().into_iter();
        let mut logprobs = self.token_logprobs.into_iter();
        let tokens = self.tokens.into_iter().map(|text| {
            let top = tops.next().flatten().unwrap_or_default().into_iter();
            let mut top: Vec<TopLogprob> = top
                .filter_map(|(text, logprob)| {
                    let logprob = logprob.as_f64()? as f32;
                    Some(TopLogprob { bytes: text.clone().into_bytes(), text, logprob })
                })
                .collect();
            top.sort_by(|a, b| b.logprob.total_cmp(&a.logprob));
            TokenLogprob { bytes: text.clone().into_bytes(), text, logprob: logprobs.next().flatten(), top }
        });
        tokens.collect()
    }
}
