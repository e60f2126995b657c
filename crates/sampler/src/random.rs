//! The random stream: a counter-based generator, so that a draw is a function and not a state.
//!
//! Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011): a keyed bijection
//! of a 128-bit counter. The key is the seed, the counter is (position, choice). Must not know what a draw is used for.

const ROUNDS: u32 = 10;
const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// Key increments: the golden ratio and the square root of 3 less 1, in 32 bits.
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The uniform number in [0, 1), a multiple of 2^-53, that belongs to this seed, choice and position.
#[must_use]
pub fn uniform(seed: u64, choice: u32, position: u64) -> f64 {
    let key = [low(seed), high(seed)];
    let block = philox([low(position), high(position), choice, 0], key);
    let bits = (u64::from(block[1]) << 32 | u64::from(block[0])) >> 11;
    // Both factors are exact, so the product is.
    bits as f64 * (1.0 / (1_u64 << 53) as f64)
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [high(second) ^ counter[1] ^ key[0], low(second), high(first) ^ counter[3] ^ key[1], low(first)];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// The lower half; the cut is the purpose.
fn low(word: u64) -> u32 {
    word as u32
}

fn high(word: u64) -> u32 {
    (word >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors published with the paper's reference implementation.
    #[test]
    fn agrees_with_the_published_vectors() {
        let cases = [
            ([0; 4], [0; 2], [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]),
            (
                [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344],
                [0xA409_3822, 0x299F_31D0],
                [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn each_of_seed_choice_and_position_gives_another_number() {
        let base = uniform(1, 0, 0);
        for other in
            [uniform(2, 0, 0), uniform(1 << 32 | 1, 0, 0), uniform(1, 1, 0), uniform(1, 0, 1), uniform(1, 0, 1 << 32)]
        {
            assert_ne!(base, other);
        }
        assert_eq!(base, uniform(1, 0, 0));
    }

    #[test]
    fn numbers_fill_the_unit_interval_evenly() {
        let mut buckets = [0_u32; 16];
        for position in 0..16_000 {
            let value = uniform(42, 3, position);
            assert!((0.0..1.0).contains(&value));
            buckets[(value * 16.0) as usize] += 1;
        }
        let statistic: f64 = buckets.iter().map(|&n| (f64::from(n) - 1000.0).powi(2) / 1000.0).sum();
        // The 0.9999 quantile of chi-squared with 15 degrees of freedom.
        assert!(statistic < 44.3, "{statistic}");
    }
}
