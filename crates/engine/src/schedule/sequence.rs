//! One sequence as the scheduler sees it: its tokens, how many of them are in the cache, and where.

use crate::ids::SeqId;
use crate::kv::BlockTable;

/// The tokens of one request and the state of their computation.
///
/// `computed <= tokens.len()` always; the difference is what is left to advance. After preemption `computed` is 0 and
/// the tokens generated so far are found in the cache or computed again, like a prompt.
#[derive(Debug)]
pub struct Sequence {
    /// Unique in the engine.
    pub id: SeqId,
    tokens: Vec<u32>,
    prompt_length: usize,
    computed: usize,
    /// Whether it may begin from what others have computed.
    pub(super) reuses: bool,
    /// Tokens that it did not have to compute when it was first admitted; `None` before.
    reused: Option<usize>,
    pub(super) table: BlockTable,
}

impl Sequence {
    /// A new sequence with nothing computed. `prompt` must not be empty.
    #[must_use]
    pub fn new(id: SeqId, prompt: Vec<u32>) -> Self {
        debug_assert!(!prompt.is_empty(), "a checked request has a prompt");
        let prompt_length = prompt.len();
        let table = BlockTable::default();
        Self { id, tokens: prompt, prompt_length, computed: 0, reuses: true, reused: None, table }
    }

    /// The same, with every token to be computed for it: for who wants the logits of them all.
    #[must_use]
    pub fn computing_all(self) -> Self {
        Self { reuses: false, ..self }
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

    /// Tokens of the prompt that were found in the cache and not computed for it; 0 before it is first admitted.
    #[must_use]
    pub fn reused(&self) -> usize {
        self.reused.unwrap_or(0)
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

    /// Notes that its first `count` tokens lie in its blocks already. True when it is admitted for the first time.
    pub(super) fn begin(&mut self, count: usize) -> bool {
        debug_assert!(count < self.tokens.len(), "the last token is computed, for its logits");
        self.computed = count;
        let first = self.reused.is_none();
        self.reused.get_or_insert(count);
        first
    }

    pub(super) fn forget(&mut self) {
        self.computed = 0;
    }
}
