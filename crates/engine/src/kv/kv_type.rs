//! In which numbers the cache keeps keys and values. No tensors.

use std::fmt;
use std::str::FromStr;

use hearth_kernels::Format;

/// How a number of the cache is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvType {
    /// As it was computed; exact.
    #[default]
    F32,
    /// IEEE half precision, 11 significant bits; half the memory. Numbers beyond 65504 are cut to it.
    F16,
    /// The upper half of an f32, 8 significant bits; half the memory, and the range of f32.
    Bf16,
    /// 8 bits and a scale for each 32 numbers of a head; 8.5 bits a number.
    Q8_0,
}

impl KvType {
    /// Every type, the most exact first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0];

    /// As it is written on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// The blocks that a head is kept in.
    #[must_use]
    pub const fn format(self) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::F16 => Format::F16,
            Self::Bf16 => Format::BF16,
            Self::Q8_0 => Format::Q8_0,
        }
    }
}

impl fmt::Display for KvType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for KvType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|one| one.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("{name:?} is no type of the key-value cache; there are {known}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::KvType;

    #[test]
    fn names_go_both_ways() {
        assert!(KvType::ALL.into_iter().all(|one| one.to_string().parse() == Ok(one)));
        let message = "fp16".parse::<KvType>().unwrap_err();
        assert_eq!(message, "\"fp16\" is no type of the key-value cache; there are f32, f16, bf16, q8_0");
    }
}
