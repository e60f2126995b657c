//! How many tokens a call may take: those of its prompts, and as many of its answers as it allows.
//!
//! Prompts are counted by the model's own tokenizer where that is loaded here. Of other models' tokenizers nothing is known; four
//! bytes are taken for a token then. Either way the call is settled by what the model says.

use crate::endpoints::Endpoint;
use crate::models::ModelState;
use crate::providers::call::{ChatMessage, ContentPart};
use crate::providers::{
    ChatCall, CompletionCall, ConversationEnd, Cut, EmbeddingCall, Prompt, Provider, RerankCall, TokenizeCall,
};
use crate::wire::chat::Role;
use crate::wire::options::Usage;

/// Bytes of a token, where nobody knows better.
const BYTES: usize = 4;
/// Tokens of what stands around a message, and around a text.
const AROUND: usize = 4;
/// Tokens of an image, where nobody knows better.
const IMAGE: usize = 512;
/// Longer texts are not cut into tokens to learn how long they are.
const COUNTED: usize = 1 << 20;

/// Something that is read.
pub(crate) struct Piece {
    /// Its tokens, where it came as such.
    known: Option<usize>,
    /// Tokens, by its size.
    estimated: usize,
    bytes: usize,
    /// How often it is read.
    times: usize,
    /// How many of its tokens are read at most.
    most: usize,
}

impl Piece {
    fn text(bytes: usize) -> Self {
        Self { known: None, estimated: bytes.div_ceil(BYTES) + AROUND, bytes, times: 1, most: usize::MAX }
    }

    fn prompt(prompt: &Prompt, before: usize) -> Self {
        match prompt {
            Prompt::Text(text) => Self::text(before + text.len()),
            Prompt::Tokens(tokens) => Self { known: Some(tokens.len()), ..Self::text(4 * tokens.len()) },
        }
    }
}

/// A call whose tokens can be told beforehand.
pub(crate) trait Demand {
    /// What is read, in order.
    fn pieces(&self) -> Vec<Piece>;

    /// The piece at that place, to be cut into tokens.
    fn text(&self, place: usize) -> Option<TokenizeCall>;

    /// Answers to each piece, and most tokens of one.
    fn answers(&self) -> (usize, usize);
}

fn conversation(messages: Vec<ChatMessage>, call: Option<&ChatCall>) -> TokenizeCall {
    let functions = call.and_then(|call| call.tools.as_ref()).map(|tools| tools.functions.clone());
    let end = ConversationEnd::AnswerBegins;
    TokenizeCall::Conversation { messages, functions: functions.unwrap_or_default(), end, special: true }
}

impl Demand for ChatCall {
    fn pieces(&self) -> Vec<Piece> {
        let of_message = |message: &ChatMessage| {
            let calls = message.calls.iter().map(|call| call.name.len() + json_length(&call.arguments));
            message.content.len() + calls.sum::<usize>()
        };
        let functions = self.tools.iter().flat_map(|tools| &tools.functions);
        let functions = functions.map(|one| one.name.len() + one.description.len() + one.parameters.to_string().len());
        let bytes = self.messages.iter().map(of_message).sum::<usize>() + functions.sum::<usize>();
        let parts = self.messages.iter().flat_map(|message| &message.parts);
        let images = parts.filter(|part| matches!(part, ContentPart::Image { .. })).count();
        let piece = Piece::text(bytes);
        vec![Piece { estimated: piece.estimated + AROUND * self.messages.len() + IMAGE * images, ..piece }]
    }

    fn text(&self, _place: usize) -> Option<TokenizeCall> {
        Some(conversation(self.messages.clone(), Some(self)))
    }

    fn answers(&self) -> (usize, usize) {
        (self.generation.choices, self.generation.max_tokens)
    }
}

fn json_length(value: &impl serde::Serialize) -> usize {
    serde_json::to_string(value).map_or(0, |text| text.len())
}

impl Demand for CompletionCall {
    fn pieces(&self) -> Vec<Piece> {
        self.prompts.iter().map(|prompt| Piece::prompt(prompt, 0)).collect()
    }

    fn text(&self, place: usize) -> Option<TokenizeCall> {
        match self.prompts.get(place)? {
            Prompt::Text(text) if self.templated => {
                Some(conversation(vec![ChatMessage::text(Role::User, text.clone())], None))
            }
            Prompt::Text(text) => Some(TokenizeCall::Text { text: text.clone(), special: true }),
            Prompt::Tokens(_) => None,
        }
    }

    fn answers(&self) -> (usize, usize) {
        (self.generation.choices, self.generation.max_tokens)
    }
}

impl Demand for EmbeddingCall {
    fn pieces(&self) -> Vec<Piece> {
        let before = self.instruction.as_ref().map_or(0, String::len);
        let most = match self.cut {
            Some(Cut::Tokens(tokens)) => tokens,
            Some(Cut::Context) | None => usize::MAX,
        };
        self.inputs.iter().map(|input| Piece { most, ..Piece::prompt(input, before) }).collect()
    }

    fn text(&self, place: usize) -> Option<TokenizeCall> {
        match self.inputs.get(place)? {
            Prompt::Text(text) => {
                let text = self.instruction.clone().unwrap_or_default() + text;
                Some(TokenizeCall::Text { text, special: true })
            }
            Prompt::Tokens(_) => None,
        }
    }

    fn answers(&self) -> (usize, usize) {
        (0, 0)
    }
}

impl Demand for RerankCall {
    fn pieces(&self) -> Vec<Piece> {
        // The query is read with each document.
        let query = Piece { times: self.documents.len(), ..Piece::text(self.query.len()) };
        let most = self.document_tokens.unwrap_or(usize::MAX);
        let documents = self.documents.iter().map(|document| Piece { most, ..Piece::text(document.len()) });
        std::iter::once(query).chain(documents).collect()
    }

    fn text(&self, place: usize) -> Option<TokenizeCall> {
        let text = match place.checked_sub(1) {
            None => &self.query,
            Some(document) => self.documents.get(document)?,
        };
        Some(TokenizeCall::Text { text: text.clone(), special: true })
    }

    fn answers(&self) -> (usize, usize) {
        (0, 0)
    }
}

/// The most that a call of an endpoint may take.
pub(super) async fn most(endpoint: &Endpoint, call: &impl Demand) -> Usage {
    let tokenizer = loaded(endpoint);
    let (answers, max_tokens) = call.answers();
    let (mut read, mut written) = (0_usize, 0_usize);
    for (place, piece) in call.pieces().into_iter().enumerate() {
        let (tokens, context) = match (piece.known, tokenizer) {
            (Some(known), _) => (known, None),
            (None, Some(tokenizer)) if piece.bytes <= COUNTED => match counted(tokenizer, call.text(place)).await {
                Some((tokens, context)) => (tokens, Some(context)),
                None => (piece.estimated, None),
            },
            (None, _) => (piece.estimated, None),
        };
        // What is longer than the context is cut or refused, and so is the answer that does not fit behind it.
        let context = context.unwrap_or(usize::MAX);
        let tokens = tokens.min(piece.most).min(context);
        let answer = max_tokens.min(context.saturating_sub(tokens));
        read = read.saturating_add(tokens.saturating_mul(piece.times));
        written = written.saturating_add(answer.saturating_mul(answers));
    }
    Usage {
        total_tokens: read.saturating_add(written),
        prompt_tokens: read,
        completion_tokens: written,
        ..Usage::default()
    }
}

/// A model of the endpoint that can count now, without being loaded for it.
fn loaded(endpoint: &Endpoint) -> Option<&dyn Provider> {
    let is_loaded = |provider: &dyn Provider| match provider.hosted() {
        Some(hosted) => hosted.status().state == ModelState::Ready,
        None => false,
    };
    endpoint.entities().iter().map(|entity| entity.provider().as_ref()).find(|provider| is_loaded(*provider))
}

/// Tokens of a text, and of the model's context. What cannot be cut is not worth an error here: the model itself has a better one.
async fn counted(tokenizer: &dyn Provider, text: Option<TokenizeCall>) -> Option<(usize, usize)> {
    let found = tokenizer.tokenize(text?).await.ok()?;
    Some((found.tokens.len(), found.context_length))
}
