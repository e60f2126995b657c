//! hearth-kernels
#![allow(missing_docs)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2K, Q3K, Q4K, Q5K, Q6K }
impl Format {
    pub fn block_len(self) -> usize { match self { Self::F32 | Self::F16 | Self::BF16 => 1, Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32, _ => 256 } }
    pub fn block_bytes(self) -> usize { match self { Self::F32 => 4, Self::F16 | Self::BF16 => 2, Self::Q4_0 => 18, Self::Q4_1 => 20, Self::Q5_0 => 22, Self::Q5_1 => 24, Self::Q8_0 => 34, Self::Q2K => 84, Self::Q3K => 110, Self::Q4K => 144, Self::Q5K => 176, Self::Q6K => 210 } }
}
pub fn expand(format: Format, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(format, Format::F32);
    for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) { *o = f32::from_le_bytes(*b) }
}
