//! Guardrails: what may not be said to a model, and what it may not say.
//!
//! Owns what is looked for and what is done about it. On the way in every text of a call is searched, on the way out every text
//! of the answer, streamed and plain alike: what could still become part of something that is looked for is held back, however
//! the text is cut, and nothing else. Digits are those of ASCII, and texts inside of images are not read. Whether an answer is
//! safe, and what it is about, can be told of a whole answer alone: such an answer is held back to its end.

mod aides;
mod check;
mod cursor;
mod detect;
mod json;
mod judge;
mod keywords;
mod masker;
mod output;
mod refusal;
mod scan;
mod texts;
mod topics;

use std::sync::{Arc, Weak};
use std::time::Instant;

use serde_json::Value;

use self::aides::Aides;
pub(crate) use self::check::check;
pub use self::detect::Label;
use self::keywords::Keywords;
pub(crate) use self::output::Watch;
use self::refusal::Refusal;
pub use self::refusal::Which;
use self::scan::Scanner;
pub(crate) use self::texts::Texts;
use self::topics::Topics;
use crate::gate::Gate;
use crate::providers::ProviderError;
use crate::providers::call::ChatMessage;
use crate::wire::chat::Role;
use crate::wire::guardrails::{Behavior, GuardrailFields, SideFields};

/// Bytes of texts that are searched on the spot; more are searched where that stops nobody else.
const SEARCHED_AT_ONCE: usize = 64 << 10;

/// The guardrails of an endpoint.
#[derive(Debug)]
pub struct Guardrails {
    input: Side,
    output: Side,
}

/// One side of them.
#[derive(Debug)]
pub(super) struct Side {
    scanner: Scanner,
    /// Whether something about a person is refused, and not masked.
    blocks: bool,
    topics: Option<Topics>,
    safety: bool,
    aides: Aides,
}

impl Side {
    fn of(fields: Option<&SideFields>, aides: Aides) -> Self {
        let nothing = SideFields::default();
        let fields = fields.unwrap_or(&nothing);
        let behavior = fields.pii.map_or(Behavior::None, |pii| pii.behavior);
        let keywords = Keywords::new(fields.invalid_keywords.as_deref().unwrap_or_default());
        let topics = fields.valid_topics.clone().unwrap_or_default();
        Self {
            scanner: Scanner { personal: behavior != Behavior::None, keywords },
            blocks: behavior == Behavior::Block,
            topics: (!topics.is_empty()).then(|| Topics::new(topics)),
            safety: fields.safety == Some(true),
            aides,
        }
    }

    /// Whether other models are asked.
    fn is_judged(&self) -> bool {
        self.safety || self.topics.is_some()
    }

    fn is_idle(&self) -> bool {
        self.scanner.is_idle() && !self.is_judged()
    }

    /// What other models have against it: whether `texts` are about one of the topics, and whether what is said last is safe.
    async fn judged(
        &self,
        texts: Vec<&str>,
        said: Vec<ChatMessage>,
        deadline: Option<Instant>,
    ) -> Result<Option<Refusal>, ProviderError> {
        let mut categories = Vec::new();
        if let Some(topics) = &self.topics
            && !texts.is_empty()
        {
            let nearness = topics.nearness(&self.aides, &texts, deadline).await?;
            if nearness < self.aides.threshold() {
                categories.push(("off_topic", true, (1.0 - nearness).clamp(0.0, 1.0)));
            }
        }
        if self.safety && categories.is_empty() {
            categories = judge::judged(&self.aides, said, deadline).await?;
        }
        Ok((!categories.is_empty()).then(|| Refusal { categories, ..Refusal::default() }))
    }
}

impl Guardrails {
    /// Those of a checked configuration; `None` where nothing is guarded.
    pub(super) fn of(fields: &GuardrailFields, gate: &Weak<Gate>) -> Option<Arc<Self>> {
        let side = |fields| Side::of(fields, Aides(Weak::clone(gate)));
        let (input, output) = (side(fields.input.as_ref()), side(fields.output.as_ref()));
        (!input.is_idle() || !output.is_idle()).then(|| Arc::new(Self { input, output }))
    }

    /// A request's body with the masks of the input, for whoever keeps it; what is refused is masked too.
    pub(crate) async fn redacted(&self, mut body: Value) -> Value {
        let masks = self.input.masks();
        if masks.is_idle() {
            return body;
        }
        let mut bytes = 0;
        json::each_text(&mut body, &mut |text| bytes += text.len());
        let redact = move |mut body: Value| {
            json::each_text(&mut body, &mut |text| replace(text, masks.scan(text).masked()));
            body
        };
        if bytes <= SEARCHED_AT_ONCE {
            return redact(body);
        }
        // Nothing is better than what should have been masked.
        tokio::task::spawn_blocking(move || redact(body)).await.unwrap_or_default()
    }

    /// The call as the model may read it, and what is to be done with its answer.
    ///
    /// # Errors
    /// The refusal of a call that may not be made, or 503 where that cannot be told.
    pub(crate) async fn admit<C>(self: &Arc<Self>, call: C) -> Result<(C, Option<Watch>), ProviderError>
    where
        C: Texts + Send + 'static,
    {
        let mut call = call;
        if !self.input.is_idle() {
            if let Some(field) = call.tokens() {
                let text = format!("`{field}`: the endpoint's guardrails read no token ids: send texts");
                return Err(ProviderError::invalid(field, text));
            }
            call = self.searched(call).await?;
        }
        if self.input.is_judged() {
            let said = vec![ChatMessage::text(Role::User, transcript(&call))];
            if let Some(refusal) = self.input.judged(call.asked(), said, call.deadline()).await? {
                return Err(Refusal { said: anonymous(call), ..refusal }.error(Which::Input));
            }
        }
        let watch = Watch::of(self, &call)?;
        Ok((call, watch))
    }

    /// The call with masks.
    async fn searched<C: Texts + Send + 'static>(self: &Arc<Self>, mut call: C) -> Result<C, ProviderError> {
        if self.input.scanner.is_idle() {
            return Ok(call);
        }
        let mut bytes = 0;
        call.each(&mut |text| bytes += text.len());
        call.each_other(&mut |text| bytes += text.len());
        if bytes <= SEARCHED_AT_ONCE {
            return self.input.search(call);
        }
        let guardrails = Arc::clone(self);
        let searched = tokio::task::spawn_blocking(move || guardrails.input.search(call)).await;
        searched.unwrap_or_else(|error| Err(Aides::failed("search", &error)))
    }
}

impl Side {
    /// What is masked on this side, for texts in which nothing is refused.
    fn masks(&self) -> Scanner {
        Scanner { personal: self.scanner.personal, keywords: Keywords::default() }
    }

    fn search<C: Texts>(&self, mut call: C) -> Result<C, ProviderError> {
        let (mut personal, mut keyword) = (false, false);
        call.each(&mut |text| {
            let scanned = self.scanner.scan(text);
            personal |= !scanned.labels.is_empty();
            keyword |= scanned.keyword;
            replace(text, scanned.masked());
        });
        // A word of a schema, or who is said to ask, is no reason to refuse anything.
        let masks = self.masks();
        call.each_other(&mut |text| replace(text, masks.scan(text).masked()));
        let refusal = match (keyword, personal && self.blocks) {
            (true, _) => Refusal::keyword(),
            (false, true) => Refusal::default(),
            (false, false) => return Ok(call),
        };
        Err(Refusal { personal, said: anonymous(call), ..refusal }.error(Which::Input))
    }
}

/// Puts the text with masks, if there are any, in the place of the one without.
fn replace(text: &mut String, masked: Option<String>) {
    if let Some(masked) = masked {
        *text = masked;
    }
}

/// What is said in a call, with every mask there is.
fn anonymous(mut call: impl Texts) -> Vec<(Role, String)> {
    let scanner = Scanner { personal: true, keywords: Keywords::default() };
    call.each(&mut |text| replace(text, scanner.scan(text).masked()));
    call.said()
}

/// All that is said in a call as one text, for the judge.
fn transcript(call: &impl Texts) -> String {
    let texts: Vec<String> = call.said().into_iter().map(|(_, text)| text).filter(|text| !text.is_empty()).collect();
    texts.join("\n\n")
}

#[cfg(test)]
mod tests;
