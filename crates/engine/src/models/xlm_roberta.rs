//! XLM-RoBERTa as a sentence encoder: BERT's blocks with positions counted from past the padding token's. (Conneau et
//! al. 2020) BGE-M3's dense vectors are its first token's, at length 1.

use serde_json::Value;

use super::bert::{Bert, BertConfig, Positions};
use super::config::Config;
use super::{Architecture, Model};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::ops::Backend;

pub(super) const ARCHITECTURE: Architecture = Architecture {
    name: "xlm-roberta",
    classes: &["XLMRobertaModel", "XLMRobertaForMaskedLM"],
    blueprint: |config| read(config)?.blueprint(),
    load: |checkpoint, backend| Ok(Model::Encoder(Box::new(load(checkpoint, backend)?))),
};

fn read(config: &Value) -> Result<BertConfig, Error> {
    let padding = Config(config).optional_size("pad_token_id")?.unwrap_or(1);
    BertConfig::read(config, Positions::AfterPadding(padding as u32))
}

fn load(checkpoint: &Checkpoint, backend: &Backend) -> Result<Bert, Error> {
    Bert::load(checkpoint, backend, &read(&checkpoint.config)?, "roberta")
}
