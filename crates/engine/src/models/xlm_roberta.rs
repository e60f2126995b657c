//! XLM-RoBERTa as a sentence encoder: BERT's blocks with positions counted from past the padding token's. (Conneau et
//! al. 2020) BGE-M3's dense vectors are its first token's, at length 1.

use super::bert::{BertConfig, Positions, SentenceEncoder};
use super::config::Config;
use super::{Architecture, Model};
use crate::checkpoint::Checkpoint;
use crate::error::Error;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "xlm-roberta",
    classes: &["XLMRobertaModel", "XLMRobertaForMaskedLM"],
    load: |checkpoint, backend| {
        let config = config(checkpoint)?;
        Ok(Model::Encoder(Box::new(SentenceEncoder::load(checkpoint, backend, &config, "roberta")?)))
    },
};

/// BERT's configuration, with positions from past the padding token's.
///
/// # Errors
/// As [`BertConfig::read`].
pub(super) fn config(checkpoint: &Checkpoint) -> Result<BertConfig, Error> {
    let padding = Config(&checkpoint.config).optional_size("pad_token_id")?.unwrap_or(1);
    BertConfig::read(checkpoint, Positions::AfterPadding(padding as u32))
}
