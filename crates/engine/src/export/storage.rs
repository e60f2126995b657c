//! How a file's weights are stored: all alike, or by the rules of a quantisation.

use std::fmt;
use std::str::FromStr;

use hearth_kernels::Format;

use crate::weights::{ModelOutline, QuantScheme, TensorOutline};

/// The tensors that are f32 in every file, whatever the others are: llama.cpp has no product for them in other formats.
const ALWAYS_F32: [&str; 4] = ["_norm.weight", "ffn_gate_inp", "position_embd", "token_types"];

/// How weights are stored in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Matrices as floats of this format, vectors and small tables in f32.
    Plain(Format),
    /// Quantised.
    Quantized(QuantScheme),
}

impl Storage {
    /// Floats: the full ones, the halves, and those of bfloat.
    const PLAIN: [(&'static str, Format, u32); 3] =
        [("f32", Format::F32, 0), ("f16", Format::F16, 1), ("bf16", Format::BF16, 32)];

    /// `general.file_type` of a GGUF file.
    #[must_use]
    pub fn file_type(self) -> u32 {
        match self {
            Self::Quantized(scheme) => scheme.file_type(),
            Self::Plain(wanted) => {
                Self::PLAIN.iter().find(|(_, format, _)| *format == wanted).map_or(0, |(_, _, number)| *number)
            }
        }
    }

    /// The format of each tensor; `None` for one that is left out because another says the same. Names are those of GGUF files.
    pub(super) fn formats(self, tensors: &[TensorOutline<'_>], outline: ModelOutline) -> Vec<Option<Format>> {
        match self {
            Self::Quantized(scheme) => scheme.formats(tensors, outline).into_iter().map(|kept| Some(kept?.1)).collect(),
            Self::Plain(format) => {
                let tied = |tensor: &TensorOutline<'_>| outline.tied && tensor.name == "output.weight";
                let exact = |tensor: &TensorOutline<'_>| {
                    tensor.shape.len() < 2 || ALWAYS_F32.iter().any(|part| tensor.name.contains(part))
                };
                let stored = |tensor| if exact(tensor) { Format::F32 } else { format };
                tensors.iter().map(|tensor| (!tied(tensor)).then(|| stored(tensor))).collect()
            }
        }
    }
}

impl From<QuantScheme> for Storage {
    fn from(scheme: QuantScheme) -> Self {
        Self::Quantized(scheme)
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantized(scheme) => scheme.fmt(formatter),
            Self::Plain(format) => formatter.write_str(&format.name().to_lowercase()),
        }
    }
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some((_, format, _)) = Self::PLAIN.into_iter().find(|(plain, ..)| *plain == name) {
            return Ok(Self::Plain(format));
        }
        name.parse().map(Self::Quantized).map_err(|error: String| format!("{error}, f16, bf16, f32"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        for name in ["f32", "f16", "bf16", "q4_k_m", "q8_0"] {
            assert_eq!(name.parse::<Storage>().unwrap().to_string(), name);
        }
        let error = "q3_k".parse::<Storage>().unwrap_err();
        assert_eq!(error, "\"q3_k\" is no quantisation; there are q4_k_m, q5_k_m, q6_k, q8_0, f16, bf16, f32");
        assert_eq!(Storage::Plain(Format::BF16).file_type(), 32);
    }

    #[test]
    fn small_tables_and_routers_stay_exact() {
        let outline = ModelOutline { architecture: "llama", layers: 2, experts: 0, tied: true };
        let names = ["blk.0.ffn_gate_inp.weight", "blk.0.attn_q.weight", "position_embd.weight", "output.weight"];
        let tensors = names.map(|name| TensorOutline { name, shape: &[32, 32], format: Format::BF16 });
        let formats = Storage::Plain(Format::F16).formats(&tensors, outline);
        assert_eq!(formats, [Some(Format::F32), Some(Format::F16), Some(Format::F32), None]);
    }
}
