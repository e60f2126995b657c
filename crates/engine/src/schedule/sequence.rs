//! One sequence as the scheduler sees it: its tokens, how many of them are in the cache, and where.

use crate::ids::SeqId;
use crate::kv::BlockTable;

/// The tokens of one request and the state of their computation.
///
/// `computed <= tokens.len()` always; the difference is what is left to advance. After preemption `computed` is 0 and
/// the tokens generated so far are computed again like a prompt.
#[derive(Debug)]
pub struct Sequence {
    /// Unique in the engine.
    pub id: SeqId,
    tokens: Vec<u32>,
    prompt_length: usize,
    computed: usize,
    pub(super) table: BlockTable,
}

impl Sequence {
    /// A new sequence with nothing computed. `prompt` must not be empty.
    #[must_use]
    pub fn new(id: SeqId, prompt: Vec<u32>) -> Self {
        debug_assert!(!prompt.is_empty(), "a checked request has a prompt");
        let prompt_length = prompt.len();
        Self { id, tokens: prompt, prompt_length, computed: 0, table: BlockTable::default() }
    }

    /// Prompt and generated tokens.
    #[must_use]
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens of the prompt.
    #[must_use]
    pub fn prompt_length(&self) -> usize {
        self.prompt_length
    }

    /// Tokens whose keys and values are in the cache.
    #[must_use]
    pub fn computed(&self) -> usize {
        self.computed
    }

    /// Tokens still to compute before the next one can be sampled.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Where its tokens lie in the cache.
    #[must_use]
    pub fn table(&self) -> &BlockTable {
        &self.table
    }

    pub(super) fn append(&mut self, token: u32) {
        self.tokens.push(token);
    }

    pub(super) fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.remaining());
        self.computed += count;
    }

    pub(super) fn forget(&mut self) {
        self.computed = 0;
    }
}
