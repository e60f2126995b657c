//! Embeddings of a local encoder.

use hearth_engine::serve::EncoderHandle;
use hearth_engine::text::{SpecialTokens, Tokenizer};

use super::{blocking, engine_error, request_error, submit_error, text_error};
use crate::providers::{Cut, EmbeddingCall, Embeddings, Prompt, ProviderError};

/// The vectors of all texts. Dropping the future cancels what is not computed yet.
pub(super) async fn embed(encoder: &EncoderHandle, call: EmbeddingCall) -> Result<Embeddings, ProviderError> {
    check_dimensions(encoder, call.dimensions)?;
    let most = most_tokens(encoder, call.cut)?;
    let (tokenizer, deadline) = (encoder.tokenizer().clone(), call.deadline);
    let texts = blocking(deadline, move || tokens_of_all(&tokenizer, call, most)).await?;
    encoder.check(&texts).map_err(|error| request_error("input", &error))?;
    let prompt_tokens = texts.iter().map(Vec::len).sum();
    let computing = encoder.submit_until(texts, deadline).map_err(|error| submit_error(&error))?;
    let vectors = computing.await.map_err(|error| engine_error(&error))?;
    Ok(Embeddings { vectors, prompt_tokens })
}

fn check_dimensions(encoder: &EncoderHandle, wanted: Option<usize>) -> Result<(), ProviderError> {
    match (wanted, encoder.info().dimensions) {
        (Some(wanted), Some(actual)) if wanted != actual => {
            let message = format!("`dimensions` must be {actual}, the size of this model's vectors, not {wanted}");
            Err(ProviderError::OutOfRange { message, field: "dimensions".into() })
        }
        _ => Ok(()),
    }
}

/// After how many tokens a text is cut.
fn most_tokens(encoder: &EncoderHandle, cut: Option<Cut>) -> Result<usize, ProviderError> {
    let (tokenizer, context) = (encoder.tokenizer(), encoder.info().context_length);
    let least = tokenizer.leading_tokens().len() + tokenizer.trailing_tokens().len() + 1;
    match cut {
        None => Ok(usize::MAX),
        Some(Cut::Context) => Ok(context),
        Some(Cut::Tokens(tokens)) if (least..=context).contains(&tokens) => Ok(tokens),
        Some(Cut::Tokens(tokens)) => {
            let message = format!(
                "`truncate_prompt_tokens` must be -1 or between {least}, a token and those that this model expects around it, \
                 and {context}, its maximum context length, not {tokens}"
            );
            Err(ProviderError::OutOfRange { message, field: "truncate_prompt_tokens".into() })
        }
    }
}

/// The tokens of each text, at most `most`.
fn tokens_of_all(tokenizer: &Tokenizer, call: EmbeddingCall, most: usize) -> Result<Vec<Vec<u32>>, ProviderError> {
    let instruction = call.instruction.unwrap_or_default();
    let tokens = |input| match input {
        Prompt::Tokens(tokens) => Ok(surrounded(tokenizer, tokens)),
        Prompt::Text(text) => tokenizer
            .encode(&(instruction.clone() + &text), SpecialTokens::Add)
            .map_err(|error| text_error("input", &error)),
    };
    let fitting = |input| tokens(input).map(|tokens| fit(tokenizer, tokens, most));
    call.inputs.into_iter().map(fitting).collect()
}

/// At most so many tokens: the end of the text goes, and what the model expects behind every text stays.
fn fit(tokenizer: &Tokenizer, mut tokens: Vec<u32>, most: usize) -> Vec<u32> {
    if tokens.len() > most {
        let trailing = tokenizer.trailing_tokens();
        tokens.truncate(most.saturating_sub(trailing.len()));
        tokens.extend_from_slice(trailing);
    }
    tokens
}

/// Token ids with the tokens that the model expects around every text, unless they are there already.
fn surrounded(tokenizer: &Tokenizer, tokens: Vec<u32>) -> Vec<u32> {
    let (leading, trailing) = (tokenizer.leading_tokens(), tokenizer.trailing_tokens());
    if tokens.starts_with(leading) && tokens.ends_with(trailing) {
        return tokens;
    }
    [leading, &tokens, trailing].concat()
}
