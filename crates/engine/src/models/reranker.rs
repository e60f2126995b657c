//! Rerankers: a BERT or XLM-RoBERTa that reads a query and a document as one text and says in one number how well the
//! document answers. (Nogueira and Cho 2019) The number is a logit; what scale it is shown on is the caller's.

use candle_core::Tensor;
use serde_json::Value;

use super::bert::{Bert, BertConfig, Positions, first_tokens};
use super::{Architecture, EncoderModel, EncoderShape, Model, xlm_roberta};
use crate::checkpoint::Checkpoint;
use crate::error::Error;
use crate::layers::{LayerSource, Linear};
use crate::ops::{Backend, PackedTexts};

/// The pooler's dense layer belongs to the encoder, `classifier` is the output.
pub(super) const BERT: Architecture = Architecture {
    name: "bert",
    classes: &["BertForSequenceClassification"],
    load: |checkpoint, backend| {
        let config = BertConfig::read(checkpoint, Positions::FromZero)?;
        let layers = HeadNames { inner: "bert", dense: "bert.pooler.dense", output: "classifier" };
        Ok(Model::Reranker(Box::new(Reranker::load(checkpoint, backend, &config, &layers)?)))
    },
};

/// Both layers are the classifier's.
pub(super) const XLM_ROBERTA: Architecture = Architecture {
    name: "xlm-roberta",
    classes: &["XLMRobertaForSequenceClassification"],
    load: |checkpoint, backend| {
        let config = xlm_roberta::config(checkpoint)?;
        let layers = HeadNames { inner: "roberta", dense: "classifier.dense", output: "classifier.out_proj" };
        Ok(Model::Reranker(Box::new(Reranker::load(checkpoint, backend, &config, &layers)?)))
    },
};

/// Where a checkpoint keeps its blocks and the two layers above them.
struct HeadNames {
    inner: &'static str,
    dense: &'static str,
    output: &'static str,
}

/// A BERT whose answer is one score: the first token's vector through a dense layer, tanh, and one output.
struct Reranker {
    bert: Bert,
    dense: Linear,
    output: Linear,
}

impl Reranker {
    fn load(checkpoint: &Checkpoint, backend: &Backend, config: &BertConfig, names: &HeadNames) -> Result<Self, Error> {
        one_label(&checkpoint.config)?;
        let root = LayerSource::new(&checkpoint.weights, backend);
        let width = config.width();
        Ok(Self {
            bert: Bert::load(checkpoint, backend, config, names.inner)?,
            dense: Linear::load(&root.at(names.dense), width, width, true)?,
            output: Linear::load(&root.at(names.output), width, 1, true)?,
        })
    }
}

impl EncoderModel for Reranker {
    fn shape(&self) -> EncoderShape {
        EncoderShape { dimensions: 1, ..self.bert.shape() }
    }

    fn forward(&self, texts: &PackedTexts) -> Result<Tensor, Error> {
        let x = self.bert.forward(texts)?; // [tokens, width]
        let dense = self.dense.forward(&first_tokens(&x, texts)?)?.tanh()?; // [texts, width]
        self.output.forward(&dense) // [texts, 1]
    }
}

/// Refuses a classifier: of several labels none is the score.
fn one_label(config: &Value) -> Result<(), Error> {
    let named = config.get("id2label").and_then(Value::as_object).map(|labels| labels.len() as u64);
    let (field, labels) = match (named, config.get("num_labels").and_then(Value::as_u64)) {
        (Some(labels), _) => ("id2label", labels),
        // The reference implementation's default is two.
        (None, labels) => ("num_labels", labels.unwrap_or(2)),
    };
    match labels {
        1 => Ok(()),
        _ => Err(Error::config(field, format!("a reranker has 1 label, and this model has {labels}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_model_with_one_label_has_a_score() {
        for one in [json!({"id2label": {"0": "LABEL_0"}}), json!({"num_labels": 1})] {
            assert!(one_label(&one).is_ok(), "{one}");
        }
        let three = json!({"id2label": {"0": "a", "1": "b", "2": "c"}, "num_labels": 1});
        let error = one_label(&three).unwrap_err().to_string();
        assert_eq!(error, "model configuration, id2label: a reranker has 1 label, and this model has 3");
        assert!(one_label(&json!({})).unwrap_err().to_string().contains("num_labels: a reranker has 1 label"));
    }
}
