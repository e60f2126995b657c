//! Embeddings in OpenAI's dialect.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{UsageDocument, refuse_error};
use crate::providers::external::protocol::{Fault, Target, document};
use crate::providers::{EmbeddingCall, Embeddings, Prompt, ProviderError};

/// Whose business an instruction is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::providers::external) enum Texts {
    /// It is put before each text here.
    Instructed,
    /// The API knows it.
    Bare,
}

/// The texts to embed.
pub(in crate::providers::external) fn texts(
    call: &EmbeddingCall,
    form: Texts,
    target: Target<'_>,
) -> Result<Vec<String>, ProviderError> {
    let instruction = call.instruction.as_deref().filter(|_| form == Texts::Instructed).unwrap_or_default();
    let texts = call.inputs.iter().map(|input| match input {
        Prompt::Text(text) => Ok(format!("{instruction}{text}")),
        Prompt::Tokens(_) => {
            let text = format!(
                "models of {} take texts and no token ids; LangChain's OpenAIEmbeddings sends texts with \
                 check_embedding_ctx_length=False",
                target.provider
            );
            Err(ProviderError::invalid("input", text))
        }
    });
    texts.collect()
}

#[derive(Deserialize)]
struct ListDocument {
    data: Option<Vec<ItemDocument>>,
    #[serde(default)]
    usage: UsageDocument,
}

#[derive(Deserialize)]
struct ItemDocument {
    index: Option<usize>,
    embedding: Vector,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    /// Base64 of little-endian 32-bit floats.
    Base64(String),
}

impl Vector {
    fn numbers(self) -> Result<Vec<f32>, Fault> {
        let text = match self {
            Self::Numbers(numbers) => return Ok(numbers),
            Self::Base64(text) => text,
        };
        let bytes = STANDARD.decode(text).ok().filter(|bytes| bytes.len() % 4 == 0);
        let bytes = bytes.ok_or_else(|| Fault::Malformed("a vector that is no base64 of numbers".to_owned()))?;
        let (numbers, _) = bytes.as_chunks::<4>();
        Ok(numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }
}

/// Reads vectors.
pub(in crate::providers::external) fn embeddings(body: &[u8]) -> Result<Embeddings, Fault> {
    let ListDocument { data, usage } = document(body)?;
    let Some(mut data) = data else {
        refuse_error(body)?;
        return Err(Fault::Malformed("JSON without `data`".to_owned()));
    };
    // Those without a number stay as they stand.
    data.sort_by_key(|item| item.index);
    let vectors = data.into_iter().map(|item| item.embedding.numbers()).collect::<Result<_, _>>()?;
    Ok(Embeddings { vectors, prompt_tokens: usage.prompt_tokens })
}
