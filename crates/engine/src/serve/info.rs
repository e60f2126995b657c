//! What is known of a loaded model.

/// The facts about a loaded model that requests are checked against and listings show.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInfo {
    /// As it was asked for: the catalogue's name, or the file's.
    pub name: String,
    /// The architecture's name.
    pub architecture: String,
    /// Most tokens of a prompt and its continuation, or of a text.
    pub context_length: usize,
    /// Tokens of the vocabulary.
    pub vocab_size: usize,
    /// Elements of an embedding; `None` for a model that does not embed.
    pub dimensions: Option<usize>,
    /// Size of the weights as stored.
    pub weight_bytes: u64,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
}
