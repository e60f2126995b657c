//! The names of tensors in GGUF files beside those of Hugging Face checkpoints.
//!
//! Owns one table an architecture; must not know shapes or formats. A name in no table is the same in both.
//! Source of the GGUF names: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, section tensor names.

/// The names of one architecture, in both directions.
#[derive(Debug)]
pub(super) struct NameTable {
    /// As in `general.architecture`.
    architecture: &'static str,
    /// (Hugging Face, GGUF), without the last part (`weight` or `bias`), which is the same in both. `{}` is the block.
    modules: &'static [(&'static str, &'static str)],
}

static TABLES: [NameTable; 2] = [
    NameTable {
        architecture: "llama",
        modules: &[
            ("model.embed_tokens", "token_embd"),
            ("model.layers.{}.input_layernorm", "blk.{}.attn_norm"),
            ("model.layers.{}.self_attn.q_proj", "blk.{}.attn_q"),
            ("model.layers.{}.self_attn.k_proj", "blk.{}.attn_k"),
            ("model.layers.{}.self_attn.v_proj", "blk.{}.attn_v"),
            ("model.layers.{}.self_attn.o_proj", "blk.{}.attn_output"),
            ("model.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm"),
            ("model.layers.{}.mlp.gate_proj", "blk.{}.ffn_gate"),
            ("model.layers.{}.mlp.up_proj", "blk.{}.ffn_up"),
            ("model.layers.{}.mlp.down_proj", "blk.{}.ffn_down"),
            ("model.norm", "output_norm"),
            ("lm_head", "output"),
        ],
    },
    NameTable {
        architecture: "bert",
        modules: &[
            ("embeddings.word_embeddings", "token_embd"),
            ("embeddings.position_embeddings", "position_embd"),
            ("embeddings.token_type_embeddings", "token_types"),
            ("embeddings.LayerNorm", "token_embd_norm"),
            ("encoder.layer.{}.attention.self.query", "blk.{}.attn_q"),
            ("encoder.layer.{}.attention.self.key", "blk.{}.attn_k"),
            ("encoder.layer.{}.attention.self.value", "blk.{}.attn_v"),
            ("encoder.layer.{}.attention.output.dense", "blk.{}.attn_output"),
            ("encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm"),
            ("encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up"),
            ("encoder.layer.{}.output.dense", "blk.{}.ffn_down"),
            ("encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm"),
        ],
    },
];

/// The architectures there are tables for, for messages.
pub(super) fn known_architectures() -> String {
    TABLES.each_ref().map(|table| format!("`{}`", table.architecture)).join(", ")
}

impl NameTable {
    /// The table of an architecture.
    pub(super) fn of(architecture: &str) -> Option<&'static Self> {
        TABLES.iter().find(|table| table.architecture == architecture)
    }

    /// `model.layers.3.mlp.up_proj.weight` to `blk.3.ffn_up.weight`.
    pub(super) fn to_gguf(&self, name: &str) -> Option<String> {
        self.modules.iter().find_map(|(hugging_face, gguf)| translate(name, hugging_face, gguf))
    }

    /// `blk.3.ffn_up.weight` to `model.layers.3.mlp.up_proj.weight`.
    pub(super) fn to_hugging_face(&self, name: &str) -> Option<String> {
        self.modules.iter().find_map(|(hugging_face, gguf)| translate(name, gguf, hugging_face))
    }
}

/// `name` written as `to`, where it is an instance of `from`.
fn translate(name: &str, from: &str, to: &str) -> Option<String> {
    let (module, parameter) = name.rsplit_once('.')?;
    if !matches!(parameter, "weight" | "bias") {
        return None;
    }
    let Some((before, after)) = from.split_once("{}") else {
        return (module == from).then(|| format!("{to}.{parameter}"));
    };
    let block = module.strip_prefix(before)?.strip_suffix(after)?;
    let is_number = !block.is_empty() && block.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| format!("{}.{parameter}", to.replace("{}", block)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_translates_both_ways() {
        for table in &TABLES {
            for (hugging_face, gguf) in table.modules {
                for parameter in ["weight", "bias"] {
                    let hugging_face = format!("{}.{parameter}", hugging_face.replace("{}", "17"));
                    let gguf = format!("{}.{parameter}", gguf.replace("{}", "17"));
                    assert_eq!(table.to_gguf(&hugging_face).as_deref(), Some(gguf.as_str()));
                    assert_eq!(table.to_hugging_face(&gguf).as_deref(), Some(hugging_face.as_str()));
                }
            }
        }
    }

    #[test]
    fn other_names_are_left_alone() {
        let llama = NameTable::of("llama").unwrap();
        for name in
            ["rope_freqs.weight", "model.layers.x.mlp.up_proj.weight", "model.layers..mlp.up_proj.weight", "", "."]
        {
            assert_eq!(llama.to_gguf(name), None, "{name}");
        }
        assert_eq!(llama.to_gguf("model.embed_tokens.scale"), None);
        assert!(NameTable::of("gpt2").is_none());
        assert_eq!(known_architectures(), "`llama`, `bert`");
    }
}
