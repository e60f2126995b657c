//! Text completions: the request, the answer and the chunks of a streamed answer.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::grammar::GrammarFields;
use super::options::{Bookkeeping, FinishReason, OutputFields, SamplingFields};
use super::{FieldError, JsonObject, read};

/// A completion request as it was typed; `model` was taken before, to find the endpoint.
#[derive(Debug, Clone)]
pub struct CompletionRequest {
    /// What only completions have.
    pub completion: CompletionFields,
    /// How tokens are chosen.
    pub sampling: SamplingFields,
    /// What the answer must look like.
    pub grammar: GrammarFields,
    /// How the answer is delivered.
    pub output: OutputFields,
    /// What changes nothing.
    pub bookkeeping: Bookkeeping,
    /// All fields as they were sent, but for the prompts.
    pub given: JsonObject,
}

impl CompletionRequest {
    /// Reads a request; every field of `object` is read or refused.
    pub fn read(mut object: JsonObject) -> Result<Self, FieldError> {
        let request = Self {
            given: read::without(&object, "prompt"),
            completion: read::take(&mut object)?,
            sampling: read::take(&mut object)?,
            grammar: read::take(&mut object)?,
            output: read::take(&mut object)?,
            bookkeeping: read::take(&mut object)?,
        };
        read::refuse_rest(&object)?;
        Ok(request)
    }
}

/// The fields that only completion requests have.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompletionFields {
    /// What to continue.
    pub prompt: TextInput,
    /// Whether the answer begins with the prompt, default false.
    pub echo: Option<bool>,
    /// Number of alternatives a token, 0 to 20; absent: no log probabilities.
    pub logprobs: Option<u8>,
    /// Answers to generate, of which the `n` most likely are returned; default `n`.
    pub best_of: Option<u32>,
    /// Appended to every answer, default empty.
    pub suffix: Option<String>,
    /// Whether the prompt goes to the model as it is, default true; `false` puts it into the chat template.
    pub use_raw_prompt: Option<bool>,
    /// What to do with a prompt that is longer than the context, default `error`.
    pub error_behavior: Option<ErrorBehavior>,
}

/// What to do with a prompt that is longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ErrorBehavior {
    /// Refuse it.
    Error,
    /// Drop its beginning.
    Truncate,
}

/// One text or several, as text or as token ids.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(
    untagged,
    expecting = "expected a string, a list of strings, a list of token ids or a list of lists of token ids"
)]
pub enum TextInput {
    /// One text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// One text as token ids.
    Tokens(Vec<u32>),
    /// Several texts as token ids.
    TokenLists(Vec<Vec<u32>>),
}

/// One answer, or a piece of one: completions use the same object for both.
#[derive(Debug, Serialize, ToSchema)]
pub struct CompletionChoice {
    /// Answer j of prompt i has the index i * n + j.
    pub index: usize,
    /// The text.
    pub text: String,
    /// Why it ended; null in all pieces but the last.
    pub finish_reason: Option<FinishReason>,
    /// The same in the spelling that the Databricks client reads.
    #[serde(rename = "finishReason", skip_serializing_if = "Option::is_none")]
    pub finish_reason_camel: Option<FinishReason>,
    /// Log probabilities, if they were asked for.
    pub logprobs: Option<CompletionLogprobs>,
}

/// Log probabilities of the tokens of an answer, as parallel lists.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct CompletionLogprobs {
    /// Text of each token.
    pub tokens: Vec<String>,
    /// Log probability of each token; null for the first token of an echoed prompt.
    pub token_logprobs: Vec<Option<f32>>,
    /// Log probabilities of the most likely tokens by their text, best first. They are printed as `token_logprobs` are:
    /// evaluations take a token for the greedy choice when the two numbers are equal. Null for the first token of an echoed prompt.
    pub top_logprobs: Vec<Option<IndexMap<String, f32>>>,
    /// Where each token begins in the text of the answer, in characters.
    pub text_offset: Vec<usize>,
}
