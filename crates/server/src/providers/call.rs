//! What a provider is asked for: checked requests, without a trace of HTTP.

use std::time::Instant;

use hearth_engine::text::grammar::GrammarSource;
use hearth_engine::text::tool_calls::Function;
use hearth_sampler::SamplingRequest;
use serde_json::{Map, Value};

use crate::wire::JsonObject;
use crate::wire::chat::Role;

/// How an answer is generated.
#[derive(Debug, Clone)]
pub struct Generation {
    /// How tokens are chosen. Its bounds are the sampler's to check, since some depend on the model.
    pub sampling: SamplingRequest,
    /// Most tokens of one answer; 0 only where a prompt is echoed.
    pub max_tokens: usize,
    /// Answers to each prompt, at least 1.
    pub choices: usize,
    /// When the answer has to be complete.
    pub deadline: Option<Instant>,
    /// What each answer must look like.
    pub grammar: Option<AskedGrammar>,
    /// The fields of the request as they were sent, but for its texts: another provider's model gets these, and no default
    /// of ours.
    pub given: JsonObject,
}

impl Generation {
    /// Whether the caller reads the answer while it is made.
    pub fn is_streamed(&self) -> bool {
        self.given.get("stream") == Some(&Value::Bool(true))
    }
}

/// A grammar, and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct AskedGrammar {
    /// The field of the request.
    pub field: &'static str,
    /// The grammar; whether it can be compiled is the model's to say.
    pub source: GrammarSource,
}

/// A conversation to answer.
#[derive(Debug, Clone)]
pub struct ChatCall {
    /// Oldest first, at least one.
    pub messages: Vec<ChatMessage>,
    /// What the answer may call. One that calls need not look as the grammar of `generation` says; one that does not does.
    pub tools: Option<Tools>,
    /// How to answer.
    pub generation: Generation,
}

/// Functions that an answer may call.
#[derive(Debug, Clone, PartialEq)]
pub struct Tools {
    /// At least one, with different names.
    pub functions: Vec<Function>,
    /// Whether it calls one.
    pub choice: ToolUse,
    /// Whether it may call several, or one several times.
    pub parallel: bool,
}

/// Whether an answer calls a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolUse {
    /// The model decides.
    Auto,
    /// It is calls and nothing else.
    Required,
    /// It calls this one of the functions.
    Named(usize),
}

/// One message: text, and who said it.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatMessage {
    /// Who speaks: system, user, assistant or tool.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// What is said and shown, in order, of a message with images; `content` has its texts.
    pub parts: Vec<ContentPart>,
    /// A name of the speaker.
    pub name: Option<String>,
    /// Calls that the assistant has made.
    pub calls: Vec<MadeCall>,
    /// The call whose result a tool's message is.
    pub answers: Option<String>,
}

impl ChatMessage {
    /// A message that is only text.
    pub fn text(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into(), parts: Vec::new(), name: None, calls: Vec::new(), answers: None }
    }
}

/// A part of a message with images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContentPart {
    /// A text.
    Text(String),
    /// An image.
    Image {
        /// Where it is: on the web, or in a `data:` URL.
        url: String,
        /// How closely to look: `low`, `high` and what else there is.
        detail: Option<String>,
    },
}

impl ContentPart {
    /// The text that it is.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image { .. } => None,
        }
    }

    /// The same, to be changed.
    pub fn text_mut(&mut self) -> Option<&mut String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Image { .. } => None,
        }
    }
}

/// A call that was made before.
#[derive(Debug, Clone, PartialEq)]
pub struct MadeCall {
    /// What the result refers to.
    pub id: String,
    /// The function.
    pub name: String,
    /// Its arguments.
    pub arguments: Map<String, Value>,
}

/// Texts to continue.
#[derive(Debug, Clone)]
pub struct CompletionCall {
    /// At least one.
    pub prompts: Vec<Prompt>,
    /// Whether every answer begins with its prompt.
    pub echo: bool,
    /// Whether the prompts are a user's messages, to be put into the chat template.
    pub templated: bool,
    /// What to do with a prompt that is longer than the context.
    pub on_overflow: OnOverflow,
    /// How to answer.
    pub generation: Generation,
}

/// A text, or its tokens in the model's own vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// A text.
    Text(String),
    /// Token ids.
    Tokens(Vec<u32>),
}

/// What to do with a prompt that is longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOverflow {
    /// Refuse it.
    Refuse,
    /// Drop its beginning, so that the prompt's end and `max_tokens` fit.
    DropBeginning,
}

/// Texts to embed.
#[derive(Debug, Clone)]
pub struct EmbeddingCall {
    /// At least one.
    pub inputs: Vec<Prompt>,
    /// Put before each text.
    pub instruction: Option<String>,
    /// The size of vectors that the caller expects.
    pub dimensions: Option<usize>,
    /// When the answer has to be complete.
    pub deadline: Option<Instant>,
    /// How long a text may be; without, one that does not fit the context is refused.
    pub cut: Option<Cut>,
    /// What the vectors are for, as Cohere's models know it.
    pub input_type: Option<String>,
}

/// After how many tokens a text is cut, those that the model expects around it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// As many as the model's context has.
    Context,
    /// So many.
    Tokens(usize),
}

/// Documents to score against a query.
#[derive(Debug, Clone)]
pub struct RerankCall {
    /// Not empty.
    pub query: String,
    /// At least one.
    pub documents: Vec<String>,
    /// The field they came from.
    pub field: &'static str,
    /// Most tokens of a document: its end beyond them is dropped.
    pub document_tokens: Option<usize>,
    /// What to do with a document that does not fit into the context beside the query.
    pub too_long: TooLong,
    /// When the answer has to be complete.
    pub deadline: Option<Instant>,
}

/// What to do with a document that does not fit into the context beside the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLong {
    /// Refuse it.
    Refuse,
    /// Drop its beginning.
    DropBeginning,
    /// Drop its end.
    DropEnd,
}

/// Something to cut into tokens.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenizeCall {
    /// A text.
    Text {
        /// The text.
        text: String,
        /// Whether the tokens that the model expects around every text are put there.
        special: bool,
    },
    /// A conversation, by the model's chat template.
    Conversation {
        /// Oldest first, at least one.
        messages: Vec<ChatMessage>,
        /// Functions that the answer may call.
        functions: Vec<Function>,
        /// Where it ends.
        end: ConversationEnd,
        /// Whether the leading tokens that the model expects are put there where the template leaves them out.
        special: bool,
    },
}

/// Where the text of a conversation ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConversationEnd {
    /// Where the assistant's answer begins.
    AnswerBegins,
    /// With the text of the last message, so that it can go on.
    LastMessage,
    /// After the last message.
    Closed,
}
