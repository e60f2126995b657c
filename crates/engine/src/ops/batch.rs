//! The packed tokens of one step: what a model is given instead of requests.

use std::ops::Range;

use super::tensors::StepTensors;
use crate::ids::Slot;

/// One sequence's rows in a batch and where its cache lies.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its rows of the packed tokens.
    pub rows: Range<usize>,
    /// The position in the sequence of the first of them.
    pub first_position: usize,
    /// The numbers of its blocks, from position 0 to the last of `rows`.
    pub blocks: Vec<u32>,
}

/// The tokens that one step computes, of all sequences, one after another. Not to be changed once a layer has seen it.
#[derive(Clone, Debug, Default)]
pub struct ForwardBatch {
    /// Token ids. `[tokens]`
    pub tokens: Vec<u32>,
    /// The position of each in its sequence. `[tokens]`
    pub positions: Vec<u32>,
    /// Where the keys and values of each go. `[tokens]`
    pub slots: Vec<Slot>,
    /// The sequences, in the order of their rows.
    pub spans: Vec<Span>,
    /// The rows whose logits are wanted, in ascending order.
    pub logit_rows: Vec<u32>,
    /// What layers have made of it on a device.
    pub(super) device: StepTensors,
}

/// Texts for an encoder, one after another without padding. Not to be changed once a layer has seen them.
#[derive(Clone, Debug, Default)]
pub struct PackedTexts {
    /// Token ids of all texts. `[tokens]`
    pub tokens: Vec<u32>,
    /// The type of each token: 1 in the second text of a pair, else 0. `[tokens]`
    pub types: Vec<u32>,
    /// Tokens of each text. `[texts]`
    pub lengths: Vec<usize>,
    /// What layers have made of them on a device.
    pub(super) device: StepTensors,
}

impl PackedTexts {
    /// Puts a text, or a pair in one, behind the others. The tokens from index `second` on are of type 1.
    pub fn push(&mut self, tokens: &[u32], second: usize) {
        self.tokens.extend_from_slice(tokens);
        self.types.extend((0..tokens.len()).map(|index| u32::from(index >= second)));
        self.lengths.push(tokens.len());
    }

    /// The position of each token in its text. `[tokens]`
    #[must_use]
    pub fn positions(&self) -> Vec<u32> {
        self.lengths.iter().flat_map(|length| 0..*length as u32).collect()
    }
}
