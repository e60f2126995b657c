//! The reference: what the vector versions compute, written down plainly.

use super::{LANES, Rows, Target};

/// # Safety
/// As [`super::dot_products`].
pub(super) unsafe fn dot_products(weights: &Rows<'_>, inputs: &Rows<'_>, out: Target) {
    for i in 0..inputs.count {
        for j in 0..weights.count {
            // SAFETY: the caller promises that `out` has this row and column.
            unsafe { *out.row(i).add(j) = dot(weights.slice(j), inputs.slice(i)) };
        }
    }
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    for (left, right) in left.chunks(LANES).zip(right.chunks(LANES)) {
        for (l, lane) in lanes.iter_mut().enumerate() {
            let (left, right) = (left.get(l).copied().unwrap_or(0.0), right.get(l).copied().unwrap_or(0.0));
            *lane = left.mul_add(right, *lane);
        }
    }
    for apart in [8, 4, 2, 1] {
        for l in 0..apart {
            lanes[l] += lanes[l + apart];
        }
    }
    lanes[0]
}

/// # Safety
/// As [`super::weighted_sums`].
pub(super) unsafe fn weighted_sums(factors: &Rows<'_>, values: &Rows<'_>, out: Target) {
    for i in 0..factors.count {
        for (p, &factor) in factors.slice(i).iter().enumerate() {
            for (d, &value) in values.slice(p).iter().enumerate() {
                // SAFETY: the caller promises that `out` has this row and column.
                let sum = unsafe { &mut *out.row(i).add(d) };
                *sum = factor.mul_add(value, *sum);
            }
        }
    }
}
