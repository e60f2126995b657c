//! What every generated answer is wrapped in, whole or in pieces, whatever its choices hold.

use serde::Serialize;
use utoipa::ToSchema;

use super::options::Usage;

/// An answer, or a piece of a streamed one.
#[derive(Debug, Serialize, ToSchema)]
pub struct AnswerObject<'a, Choice> {
    /// Id of the answer, the same in every piece.
    pub id: &'a str,
    /// `chat.completion`, `chat.completion.chunk` or `text_completion`.
    pub object: &'static str,
    /// Seconds since 1970, the same in every piece.
    pub created: u64,
    /// Name of the endpoint.
    pub model: &'a str,
    /// The answers by index; none in the piece that only carries usage.
    pub choices: Vec<Choice>,
    /// Absent, null or the totals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}
