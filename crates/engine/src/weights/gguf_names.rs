//! The names of tensors in GGUF files beside those of Hugging Face checkpoints.
//!
//! Owns one table an architecture; must not know shapes or formats. A name in no table is the same in both.
//! Source of the GGUF names: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, section tensor names.

/// The names of one architecture, in both directions.
#[derive(Debug)]
pub(super) struct NameTable {
    /// As in `general.architecture`.
    architecture: &'static str,
    /// (Hugging Face, GGUF), without the last part (`weight` or `bias`), which is the same in both. The first `{}` is the block, the second
    /// the expert.
    modules: &'static [(&'static str, &'static str)],
}

static TABLES: [NameTable; 3] = [
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
            // Mixtral, which is of the same architecture there: older files have a tensor an expert, present ones all in one.
            ("model.layers.{}.block_sparse_moe.gate", "blk.{}.ffn_gate_inp"),
            ("model.layers.{}.block_sparse_moe.experts.{}.w1", "blk.{}.ffn_gate.{}"),
            ("model.layers.{}.block_sparse_moe.experts.{}.w2", "blk.{}.ffn_down.{}"),
            ("model.layers.{}.block_sparse_moe.experts.{}.w3", "blk.{}.ffn_up.{}"),
            ("model.layers.{}.block_sparse_moe.experts.w1", "blk.{}.ffn_gate_exps"),
            ("model.layers.{}.block_sparse_moe.experts.w2", "blk.{}.ffn_down_exps"),
            ("model.layers.{}.block_sparse_moe.experts.w3", "blk.{}.ffn_up_exps"),
            ("model.norm", "output_norm"),
            ("lm_head", "output"),
        ],
    },
    NameTable {
        architecture: "dbrx",
        modules: &[
            ("transformer.wte", "token_embd"),
            ("transformer.blocks.{}.norm_attn_norm.norm_1", "blk.{}.attn_norm"),
            ("transformer.blocks.{}.norm_attn_norm.attn.Wqkv", "blk.{}.attn_qkv"),
            ("transformer.blocks.{}.norm_attn_norm.attn.out_proj", "blk.{}.attn_output"),
            ("transformer.blocks.{}.norm_attn_norm.norm_2", "blk.{}.attn_output_norm"),
            ("transformer.blocks.{}.ffn.router.layer", "blk.{}.ffn_gate_inp"),
            // These end in `.weight` in GGUF files alone, and are `[experts, outputs, inputs]` there.
            ("transformer.blocks.{}.ffn.experts.mlp.w1", "blk.{}.ffn_gate_exps"),
            ("transformer.blocks.{}.ffn.experts.mlp.v1", "blk.{}.ffn_up_exps"),
            ("transformer.blocks.{}.ffn.experts.mlp.w2", "blk.{}.ffn_down_exps"),
            ("transformer.norm_f", "output_norm"),
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
    let mut texts = from.split("{}");
    let mut rest = module.strip_prefix(texts.next()?)?;
    let mut translated = to.to_owned();
    for text in texts {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(digits).filter(|(number, _)| !number.is_empty())?;
        rest = after.strip_prefix(text)?;
        translated = translated.replacen("{}", number, 1);
    }
    rest.is_empty().then(|| format!("{translated}.{parameter}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_translates_both_ways() {
        for table in &TABLES {
            for (hugging_face, gguf) in table.modules {
                for parameter in ["weight", "bias"] {
                    let numbered = |name: &str| name.replacen("{}", "17", 1).replacen("{}", "5", 1);
                    let hugging_face = format!("{}.{parameter}", numbered(hugging_face));
                    let gguf = format!("{}.{parameter}", numbered(gguf));
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
        assert_eq!(known_architectures(), "`llama`, `dbrx`, `bert`");
    }
}
