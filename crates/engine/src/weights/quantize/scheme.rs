//! Which format each tensor of a checkpoint gets. Owns the rules, which are those of llama.cpp for the same names, so that a
//! file is the one its users know under that name; must not know how a tensor is converted.
//! Source: <https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp>.

use std::fmt;
use std::str::FromStr;

use hearth_kernels::Format;

/// A mixture of formats by its usual name. In the two of `_m`, tensors that matter more get more bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuantScheme {
    /// Q4_K, with Q6_K for some; about 4.8 bits a weight.
    Q4KM,
    /// Q5_K, with Q6_K for some; about 5.7 bits a weight.
    Q5KM,
    /// Q6_K; 6.6 bits a weight.
    Q6K,
    /// Q8_0; 8.5 bits a weight.
    Q8_0,
}

impl QuantScheme {
    /// Every scheme, the smallest first.
    pub const ALL: [Self; 4] = [Self::Q4KM, Self::Q5KM, Self::Q6K, Self::Q8_0];

    /// As it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4KM => "q4_k_m",
            Self::Q5KM => "q5_k_m",
            Self::Q6K => "q6_k",
            Self::Q8_0 => "q8_0",
        }
    }

    /// `general.file_type` of a GGUF file.
    #[must_use]
    pub const fn file_type(self) -> u32 {
        match self {
            Self::Q8_0 => 7,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
        }
    }

    /// The format of most tensors.
    fn base(self) -> Format {
        match self {
            Self::Q4KM => Format::Q4K,
            Self::Q5KM => Format::Q5K,
            Self::Q6K => Format::Q6K,
            Self::Q8_0 => Format::Q8_0,
        }
    }

    fn is_mixed(self) -> bool {
        matches!(self, Self::Q4KM | Self::Q5KM)
    }
}

impl fmt::Display for QuantScheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for QuantScheme {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scheme| scheme.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("{name:?} is no quantisation; there are {known}")
        })
    }
}

/// What the rules look at besides a tensor's name and shape.
#[derive(Debug, Clone, Copy)]
pub struct ModelOutline {
    /// `general.architecture` of a GGUF file of this model.
    pub architecture: &'static str,
    /// Blocks of the model.
    pub layers: usize,
    /// Experts of a block; zero where it has none.
    pub experts: usize,
    /// The configuration says that the embedding is the output matrix too, whether or not there is another.
    pub tied: bool,
}

/// A scheme for one model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mixture {
    pub scheme: QuantScheme,
    pub outline: ModelOutline,
    /// The embedding is the output matrix too.
    pub tied: bool,
    /// Several heads share keys and values.
    pub grouped: bool,
}

impl Mixture {
    /// The format of the tensor of this GGUF name, stored in `stored` so far. Vectors, norms and router gates are f32.
    pub(super) fn format(&self, name: &str, shape: &[usize], stored: Format) -> Format {
        let is_any = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        if shape.len() < 2 || is_any(&["_norm.weight", "ffn_gate_inp"]) {
            return Format::F32;
        }
        // BERT's small tables; and what no rule knows.
        if is_any(&["position_embd", "token_types"]) || !name.ends_with("weight") {
            return stored;
        }
        let cols = shape.last().copied().unwrap_or(1);
        fitting(self.wanted(name, cols), cols)
    }

    fn wanted(&self, name: &str, cols: usize) -> Format {
        let base = self.scheme.base();
        let has = |part: &str| name.contains(part);
        let eight_experts = self.outline.experts == 8;
        let more_bits = self.scheme.is_mixed() && layer_of(name).is_some_and(|layer| self.more_bits(layer));
        if name == "output.weight" || (self.tied && name == "token_embd.weight") {
            let whole = cols.is_multiple_of(base.block_len());
            return if whole && base != Format::Q8_0 { Format::Q6K } else { Format::Q8_0 };
        }
        if has("attn_v.weight") || has("attn_qkv.weight") {
            return match (eight_experts, more_bits, base) {
                (true, ..) => Format::Q8_0,
                (false, true, _) => Format::Q6K,
                // Of the 70B models, whose values are shared by eight heads.
                (false, false, Format::Q4K) if self.outline.layers == 80 && self.grouped => Format::Q5K,
                (false, false, base) => base,
            };
        }
        if has("attn_k.weight") && eight_experts {
            return Format::Q8_0;
        }
        if has("attn_output.weight") && eight_experts && self.scheme == QuantScheme::Q4KM {
            return Format::Q5K;
        }
        if has("ffn_down") && more_bits { Format::Q6K } else { base }
    }

    /// The first eighth of the layers, the last, and every third between.
    fn more_bits(&self, layer: usize) -> bool {
        let layers = self.outline.layers;
        let eighth = layers / 8;
        layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
    }
}

/// The number of the block in `blk.N.`.
fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split_once('.')?.0.parse().ok()
}

/// The format itself where rows are whole blocks of it, otherwise the nearest with smaller blocks.
fn fitting(wanted: Format, cols: usize) -> Format {
    if cols.is_multiple_of(wanted.block_len()) {
        return wanted;
    }
    let smaller = match wanted {
        Format::Q4K => Format::Q5_0,
        Format::Q5K => Format::Q5_1,
        _ => Format::Q8_0,
    };
    if cols.is_multiple_of(smaller.block_len()) { smaller } else { Format::F16 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mixture(scheme: QuantScheme, layers: usize, experts: usize) -> Mixture {
        let outline = ModelOutline { architecture: "llama", layers, experts, tied: false };
        Mixture { scheme, outline, tied: false, grouped: true }
    }

    /// Of Llama 3.2 3B (28 layers, tied), as llama.cpp prints them.
    #[test]
    fn some_layers_get_more_bits() {
        let llama = Mixture { tied: true, ..mixture(QuantScheme::Q4KM, 28, 0) };
        let format = |name: &str| llama.format(name, &[1024, 3072], Format::BF16);
        let more: Vec<usize> =
            (0..28).filter(|layer| format(&format!("blk.{layer}.ffn_down.weight")) == Format::Q6K).collect();
        assert_eq!(more, [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27]);
        for layer in 0..28 {
            let name = |part: &str| format!("blk.{layer}.{part}.weight");
            let expected = if more.contains(&layer) { Format::Q6K } else { Format::Q4K };
            assert_eq!(format(&name("attn_v")), expected, "{layer}");
            for part in ["attn_q", "attn_k", "attn_output", "ffn_gate", "ffn_up"] {
                assert_eq!(format(&name(part)), Format::Q4K, "{part}");
            }
            assert_eq!(llama.format(&name("attn_norm"), &[3072], Format::BF16), Format::F32);
        }
        assert_eq!(format("token_embd.weight"), Format::Q6K);
        assert_eq!(mixture(QuantScheme::Q4KM, 28, 0).format("token_embd.weight", &[9, 256], Format::F16), Format::Q4K);
        assert_eq!(mixture(QuantScheme::Q5KM, 28, 0).format("output.weight", &[9, 256], Format::F16), Format::Q6K);
        assert_eq!(mixture(QuantScheme::Q8_0, 28, 0).format("output.weight", &[9, 256], Format::F16), Format::Q8_0);
    }

    #[test]
    fn large_models_and_experts_have_rules_of_their_own() {
        let shape = [1024, 8192];
        let large = mixture(QuantScheme::Q4KM, 80, 0);
        assert_eq!(large.format("blk.10.attn_v.weight", &shape, Format::BF16), Format::Q5K);
        assert_eq!(large.format("blk.79.attn_v.weight", &shape, Format::BF16), Format::Q6K);
        let mixtral = mixture(QuantScheme::Q4KM, 32, 8);
        for (name, expected) in [
            ("blk.9.attn_v.weight", Format::Q8_0),
            ("blk.9.attn_k.weight", Format::Q8_0),
            ("blk.9.attn_q.weight", Format::Q4K),
            ("blk.9.attn_output.weight", Format::Q5K),
            ("blk.9.ffn_gate_inp.weight", Format::F32),
            ("blk.9.ffn_down_exps.weight", Format::Q6K),
            ("blk.8.ffn_down.3.weight", Format::Q4K),
            ("blk.9.ffn_up_exps.weight", Format::Q4K),
        ] {
            assert_eq!(mixtral.format(name, &shape, Format::BF16), expected, "{name}");
        }
    }

    #[test]
    fn rows_that_are_no_whole_blocks_fall_back() {
        let format = |scheme, name: &str, cols| mixture(scheme, 8, 0).format(name, &[64, cols], Format::F32);
        assert_eq!(format(QuantScheme::Q4KM, "blk.1.attn_q.weight", 96), Format::Q5_0);
        assert_eq!(format(QuantScheme::Q5KM, "blk.1.attn_q.weight", 96), Format::Q5_1);
        assert_eq!(format(QuantScheme::Q6K, "blk.1.attn_q.weight", 96), Format::Q8_0);
        assert_eq!(format(QuantScheme::Q4KM, "output.weight", 96), Format::Q8_0);
        assert_eq!(format(QuantScheme::Q8_0, "blk.1.attn_q.weight", 100), Format::F16);
        assert_eq!(format(QuantScheme::Q8_0, "position_embd.weight", 256), Format::F32);
    }

    #[test]
    fn names_are_read() {
        for scheme in QuantScheme::ALL {
            assert_eq!(scheme.name().parse(), Ok(scheme));
        }
        let error = "q3_k".parse::<QuantScheme>().unwrap_err();
        assert_eq!(error, "\"q3_k\" is no quantisation; there are q4_k_m, q5_k_m, q6_k, q8_0");
    }
}
