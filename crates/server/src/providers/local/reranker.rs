//! Scores of a local reranker: query and documents to pairs of tokens.

use hearth_engine::serve::RerankerHandle;
use hearth_engine::text::{SpecialTokens, TypedText};

use super::{blocking, context_length, engine_error, request_error, submit_error, text_error};
use crate::providers::{ProviderError, RerankCall, Scores, TooLong};

/// The scores of all documents. Dropping the future cancels what is not computed yet.
pub(super) async fn rerank(reranker: &RerankerHandle, call: RerankCall) -> Result<Scores, ProviderError> {
    let (preparing, field, deadline) = (reranker.clone(), call.field, call.deadline);
    let pairs = blocking(deadline, move || pairs(&preparing, &call)).await?;
    reranker.check(&pairs).map_err(|error| request_error(field, &error))?;
    let prompt_tokens = pairs.iter().map(|pair| pair.tokens.len()).sum();
    let computing = reranker.submit_until(pairs, deadline).map_err(|error| submit_error(&error))?;
    let logits = computing.await.map_err(|error| engine_error(&error))?;
    Ok(Scores { logits, prompt_tokens })
}

/// The query with each document. Only documents are shortened: half a query asks something else.
fn pairs(reranker: &RerankerHandle, call: &RerankCall) -> Result<Vec<TypedText>, ProviderError> {
    let (tokenizer, template, context) = (reranker.tokenizer(), reranker.template(), reranker.info().context_length);
    let encode = |text: &str, field: &str| {
        tokenizer.encode(text, SpecialTokens::Omit).map_err(|error| text_error(field, &error))
    };
    let query = encode(&call.query, "query")?;
    let taken = query.len() + template.special_tokens();
    let room = context.saturating_sub(taken);
    if room == 0 {
        let message = format!(
            "this model's maximum context length is {context} tokens, of which the query takes {taken}, so that no \
             document fits beside it"
        );
        return Err(context_length("query", message));
    }
    let pair = |(index, document): (usize, &String)| {
        let field = format!("{}[{index}]", call.field);
        let mut document = encode(document, &field)?;
        document.truncate(call.document_tokens.unwrap_or(usize::MAX));
        if document.len() > room {
            match call.too_long {
                TooLong::DropEnd => document.truncate(room),
                TooLong::DropBeginning => drop(document.drain(..document.len() - room)),
                TooLong::Refuse => {
                    let whole = taken + document.len();
                    let message = format!(
                        "`{field}`: this model's maximum context length is {context} tokens, but the query and this \
                         document have {whole}"
                    );
                    return Err(context_length(&field, message));
                }
            }
        }
        Ok(template.join(&query, &document))
    };
    call.documents.iter().enumerate().map(pair).collect()
}
