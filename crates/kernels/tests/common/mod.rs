//! Numbers to test with, and the comparisons all kernel tests share.

#![allow(dead_code, reason = "each test file uses a part of it")]

use hearth_kernels::{Format, Isa, Threads};

/// A small generator of numbers that are the same on every run (splitmix64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly within -1..1.
    pub fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.bits() as u8).collect()
    }

    /// Random blocks whose scales are small and finite.
    pub fn blocks(&mut self, format: Format, numbers: usize) -> Vec<u8> {
        let mut bytes = self.bytes(format.row_bytes(numbers).unwrap());
        for block in bytes.chunks_exact_mut(format.block_bytes()) {
            for &at in half_offsets(format) {
                let scale = half::f16::from_f32(self.float() / 16.0);
                block[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
            match format {
                Format::F32 => block.copy_from_slice(&self.float().to_le_bytes()),
                Format::BF16 => block.copy_from_slice(&half::bf16::from_f32(self.float()).to_le_bytes()),
                _ => {}
            }
        }
        bytes
    }
}

/// Where the half-precision numbers of a block stand.
fn half_offsets(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::BF16 => &[],
        Format::F16 | Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
    }
}

/// One thread of plain code: what the others are compared with.
pub fn reference() -> Threads {
    Threads::with_isa(1, Isa::SCALAR).unwrap()
}

/// Every instruction set of this machine, with one and with three threads.
pub fn all_threads() -> Vec<Threads> {
    Isa::available().into_iter().flat_map(|isa| [1, 3].map(|count| Threads::with_isa(count, isa).unwrap())).collect()
}

/// Equal to the bit.
#[track_caller]
pub fn assert_same(actual: &[f32], expected: &[f32], what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (a, e)) in actual.iter().zip(expected).enumerate() {
        assert!(a.to_bits() == e.to_bits(), "{what}: element {i} is {a:?}, not {e:?}");
    }
}

/// Equal within `tolerance` times the larger of 1 and the expected size.
#[track_caller]
pub fn assert_close(actual: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}");
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let error = (f64::from(a) - e).abs();
        assert!(error <= tolerance * e.abs().max(1.0), "{what}: element {i} is {a}, not {e}");
    }
}
