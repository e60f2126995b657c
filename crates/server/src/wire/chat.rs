//! Chat completions: the request, the answer and the chunks of a streamed answer.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::grammar::GrammarFields;
use super::options::{Bookkeeping, FinishReason, OutputFields, SamplingFields};
use super::tools::{ToolCall, ToolCallDelta, ToolFields};
use super::{FieldError, JsonObject, later, read};

/// A chat request as it was typed; `model` was taken before, to find the endpoint.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    /// What only chat has.
    pub chat: ChatFields,
    /// How tokens are chosen.
    pub sampling: SamplingFields,
    /// What the answer must look like.
    pub grammar: GrammarFields,
    /// What the model may call.
    pub tools: ToolFields,
    /// How much is thought before the answer.
    pub reasoning: ReasoningFields,
    /// How the answer is delivered.
    pub output: OutputFields,
    /// What changes nothing.
    pub bookkeeping: Bookkeeping,
    /// All fields as they were sent, but for the messages.
    pub given: JsonObject,
}

impl ChatRequest {
    /// Reads a request; every field of `object` is read or refused.
    pub fn read(mut object: JsonObject) -> Result<Self, FieldError> {
        later::refuse(&mut object, later::CHAT)?;
        let request = Self {
            given: read::without(&object, "messages"),
            chat: read::take(&mut object)?,
            sampling: read::take(&mut object)?,
            grammar: read::take(&mut object)?,
            tools: read::take(&mut object)?,
            reasoning: read::take(&mut object)?,
            output: read::take(&mut object)?,
            bookkeeping: read::take(&mut object)?,
        };
        read::refuse_rest(&object)?;
        Ok(request)
    }
}

/// The fields that only chat requests have.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatFields {
    /// The conversation so far, oldest message first.
    pub messages: Vec<Message>,
    /// Whether the answer carries log probabilities, default false.
    pub logprobs: Option<bool>,
    /// Number of alternatives a token, 0 to 20; needs `logprobs`.
    pub top_logprobs: Option<u8>,
}

/// How much is thought before the answer: for models of other providers, which know what their values mean.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReasoningFields {
    /// `low`, `medium`, `high` and what else there is.
    pub reasoning_effort: Option<String>,
    /// Whether, and for how many tokens.
    #[schema(value_type = Option<Object>)]
    pub thinking: Option<JsonObject>,
}

/// One message of a conversation, as it was typed.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Option<Content>,
    /// A name of the speaker.
    pub name: Option<String>,
    /// Calls of an assistant's message.
    pub tool_calls: Option<Vec<ToolCall>>,
    /// The call that a tool's message answers.
    pub tool_call_id: Option<String>,
    /// The older form of `tool_calls`.
    pub function_call: Option<Value>,
    /// Part of every answer of some services, sent back by clients.
    pub refusal: Option<Value>,
    /// Part of every answer of some services, sent back by clients.
    pub annotations: Option<Value>,
    /// Part of every answer of some services, sent back by clients.
    pub audio: Option<Value>,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions.
    System,
    /// The newer name of `System`.
    Developer,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a call.
    Tool,
}

/// A text, or parts of one.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(untagged, expecting = "expected a string or a list of parts, each with a `type`")]
pub enum Content {
    /// The whole text.
    Text(String),
    /// Parts in order.
    Parts(Vec<Part>),
}

/// One part of a message.
#[derive(Debug, Clone, Deserialize, ToSchema)]
pub struct Part {
    /// `text`, or something that is refused by this name.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a text part.
    pub text: Option<String>,
    /// The image of an `image_url` part.
    pub image_url: Option<ImageUrl>,
    /// Whatever else was given.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub rest: JsonObject,
}

/// An image.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageUrl {
    /// Where it is, or itself in a `data:` URL.
    pub url: String,
    /// How closely to look at it.
    pub detail: Option<String>,
}

/// One answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChoice {
    /// Which one, from 0.
    pub index: usize,
    /// The text.
    pub message: AnswerMessage,
    /// Why it ended.
    pub finish_reason: FinishReason,
    /// The same in the spelling that the Databricks client reads.
    #[serde(rename = "finishReason", skip_serializing_if = "Option::is_none")]
    pub finish_reason_camel: Option<FinishReason>,
    /// Log probabilities, if they were asked for.
    pub logprobs: Option<ChatLogprobs>,
}

/// The message of an answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnswerMessage {
    /// Always the assistant.
    pub role: Role,
    /// The text; null where there are only calls.
    pub content: Option<String>,
    /// Functions to call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Always null: a local model's refusal is text like any other.
    pub refusal: Option<String>,
}

/// A piece of one answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatChunkChoice {
    /// Which answer.
    pub index: usize,
    /// What is new.
    pub delta: ChatDelta,
    /// Set in the last piece of the answer.
    pub finish_reason: Option<FinishReason>,
    /// The same in the spelling that the Databricks client reads.
    #[serde(rename = "finishReason", skip_serializing_if = "Option::is_none")]
    pub finish_reason_camel: Option<FinishReason>,
    /// Log probabilities of the new tokens.
    pub logprobs: Option<ChatLogprobs>,
}

/// What is new in an answer.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChatDelta {
    /// In the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// More text; absent where there is none, null in the first piece of an answer that may be calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Option<String>>,
    /// More of calls.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCallDelta>,
}

/// Log probabilities of the tokens of an answer.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ChatLogprobs {
    /// One a token.
    pub content: Vec<ChatTokenLogprob>,
    /// Always null: kept because clients expect the field.
    pub refusal: Option<String>,
}

/// One token and its alternatives.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatTokenLogprob {
    /// The token and its probability.
    #[serde(flatten)]
    pub chosen: ChatTopLogprob,
    /// The most likely tokens at this place, best first.
    pub top_logprobs: Vec<ChatTopLogprob>,
}

/// One token and its log probability.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChatTopLogprob {
    /// Text of the token.
    pub token: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// Its bytes: a token may hold part of a character.
    pub bytes: Vec<u8>,
}
