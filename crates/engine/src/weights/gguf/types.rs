//! The tensor types of ggml by their codes in GGUF files. Owns their names, so that a refusal can say them.
//!
//! Source: `enum ggml_type` in <https://github.com/ggml-org/ggml/blob/master/include/ggml.h>, and the types that enum
//! once had.

use hearth_kernels::Format;

use crate::weights::error::Fault;

/// What can be done with a tensor of some type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TensorType {
    /// The kernels compute with it.
    Format(Format),
    /// Plain elements of `bits` bits no model computes with.
    Plain { name: &'static str, bits: usize },
}

/// Names by code.
const NAMES: [&str; 43] = [
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "Q4_2",
    "Q4_3",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1", // 0
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S", // 10
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "I8",
    "I16",
    "I32",
    "I64",
    "F64",
    "IQ1_M", // 20
    "BF16",
    "Q4_0_4_4",
    "Q4_0_4_8",
    "Q4_0_8_8",
    "TQ1_0",
    "TQ2_0", // 30
    "IQ4_NL_4_4",
    "IQ4_NL_4_8",
    "IQ4_NL_8_8",
    "MXFP4",
    "NVFP4",
    "Q1_0",
    "Q2_0", // 36
];

/// The code of a format the kernels know.
#[expect(clippy::expect_used, reason = "formats are called by the names of this list, which a test checks")]
pub(super) fn code_of(format: Format) -> u32 {
    let place = NAMES.iter().position(|name| *name == format.name());
    place.expect("every format is in the list") as u32
}

impl TensorType {
    /// # Errors
    /// [`Fault::UnsupportedType`], by name where the code has one.
    pub(super) fn from_code(code: u32) -> Result<Self, Fault> {
        let name = NAMES.get(code as usize).copied().unwrap_or("unknown");
        Ok(Self::Format(match name {
            "F32" => Format::F32,
            "F16" => Format::F16,
            "BF16" => Format::BF16,
            "Q4_0" => Format::Q4_0,
            "Q4_1" => Format::Q4_1,
            "Q5_0" => Format::Q5_0,
            "Q5_1" => Format::Q5_1,
            "Q8_0" => Format::Q8_0,
            "Q2_K" => Format::Q2K,
            "Q3_K" => Format::Q3K,
            "Q4_K" => Format::Q4K,
            "Q5_K" => Format::Q5K,
            "Q6_K" => Format::Q6K,
            "I8" => return Ok(Self::Plain { name, bits: 8 }),
            "I16" => return Ok(Self::Plain { name, bits: 16 }),
            "I32" => return Ok(Self::Plain { name, bits: 32 }),
            "I64" | "F64" => return Ok(Self::Plain { name, bits: 64 }),
            _ => return Err(Fault::UnsupportedType { name, code }),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_code() {
        for format in Format::ALL {
            assert_eq!(TensorType::from_code(code_of(format)).unwrap(), TensorType::Format(format));
        }
    }
}
