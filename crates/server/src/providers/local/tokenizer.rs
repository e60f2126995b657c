//! A local model's tokenizer, for callers who count and cut for themselves.

use std::sync::Arc;

use hearth_engine::serve::LoadedModel;
use hearth_engine::text::{Conversation, Detokenizer, DetokenizerOptions, ModelText, SpecialTokens};
use serde_json::Value;

use super::{blocking, template_message, text_error};
use crate::providers::{ConversationEnd, ProviderError, TokenizeCall, TokenizedText, TokenizerFacts, VocabularyToken};

/// The tokens of a text or a conversation, however long.
pub(super) async fn tokenize(model: &LoadedModel, call: TokenizeCall) -> Result<TokenizedText, ProviderError> {
    let (text, context_length) = (Arc::clone(model.text()), model.info().context_length);
    let work = move || {
        let ids = match call {
            TokenizeCall::Text { text: prompt, special } => text
                .tokenizer
                .encode(&prompt, if special { SpecialTokens::Add } else { SpecialTokens::Omit })
                .map_err(|error| text_error("prompt", &error))?,
            TokenizeCall::Conversation { messages, tools, end, special } => {
                let messages: Vec<Value> = messages.iter().map(template_message).collect();
                let conversation = Conversation {
                    messages: &messages,
                    tools: (!tools.is_empty()).then_some(tools.as_slice()),
                    add_generation_prompt: end == ConversationEnd::AnswerBegins,
                    continue_final_message: end == ConversationEnd::LastMessage,
                    extra: None,
                };
                let around = if special { SpecialTokens::Add } else { SpecialTokens::Omit };
                text.conversation_tokens(&conversation, around).map_err(|error| text_error("messages", &error))?
            }
        };
        let tokens = ids.into_iter().map(|id| {
            let spelling = text.tokenizer.token_text(id).unwrap_or_default().to_owned();
            VocabularyToken { id, spelling }
        });
        Ok(TokenizedText { tokens: tokens.collect(), context_length })
    };
    blocking(None, work).await
}

/// The text of tokens, special ones included.
pub(super) async fn detokenize(model: &LoadedModel, tokens: Vec<u32>) -> Result<String, ProviderError> {
    let text = Arc::clone(model.text());
    blocking(None, move || {
        check_known(&text, &tokens)?;
        let options = DetokenizerOptions { keep_special: true, continues_text: false };
        let mut detokenizer = Detokenizer::new(&text.tokenizer, options);
        let mut decoded: String = tokens.iter().map(|token| detokenizer.push(*token)).collect();
        decoded.push_str(&detokenizer.finish());
        Ok(decoded)
    })
    .await
}

fn check_known(text: &ModelText, tokens: &[u32]) -> Result<(), ProviderError> {
    let size = text.tokenizer.vocab_size();
    match tokens.iter().position(|token| text.tokenizer.token_text(*token).is_none()) {
        None => Ok(()),
        Some(index) => {
            let (field, token) = (format!("tokens[{index}]"), tokens[index]);
            let message =
                format!("`{field}` must be a token of the vocabulary, whose ids are below {size}, not {token}");
            Err(ProviderError::OutOfRange { message, field })
        }
    }
}

/// What there is to know of the tokenizer.
pub(super) fn facts(model: &LoadedModel) -> TokenizerFacts {
    let text = model.text();
    TokenizerFacts {
        class: text.tokenizer_class.clone(),
        special: text.special.named().map(|(name, token)| (name, token.map(str::to_owned))).to_vec(),
        template: text.template.as_ref().map(|template| template.source().to_owned()),
        context_length: model.info().context_length,
        vocab_size: model.info().vocab_size,
    }
}
