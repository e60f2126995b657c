//! The search for the scale (and minimum) of a small group that lose least in it. It knows groups of numbers, not blocks.
//!
//! The groups of a block stand side by side: `x[i][group]` is number i of a group. Each group is computed on its own and in
//! order, as if alone, and all of them at once by vector instructions.

/// Groups below this size are all zero.
const ZERO: f32 = 1e-15;

/// `LEN` numbers of each of `GROUPS` groups.
pub(super) type Lanes<T, const GROUPS: usize, const LEN: usize> = [[T; GROUPS]; LEN];

/// What a search found: the value of level l in group g is `scales[g] * l - minima[g]`.
pub(super) struct Fit<const GROUPS: usize, const LEN: usize> {
    pub scales: [f32; GROUPS],
    /// Never negative: a minimum above zero is taken as zero. All zero in a search without minima.
    pub minima: [f32; GROUPS],
    pub levels: Lanes<i32, GROUPS, LEN>,
}

/// The numbers of a block, the groups side by side.
#[inline(always)]
pub(super) fn side_by_side<const GROUPS: usize, const LEN: usize>(values: &[f32; 256]) -> Lanes<f32, GROUPS, LEN> {
    const { assert!(GROUPS * LEN == 256) };
    let mut lanes = [[0.0; GROUPS]; LEN];
    for (group, values) in values.as_chunks::<LEN>().0.iter().enumerate() {
        for (lanes, &value) in lanes.iter_mut().zip(values) {
            lanes[group] = value;
        }
    }
    lanes
}

/// The nearest integer, to even from the middle, of a number within ±2^22: adding 1.5 · 2^23 leaves it in the low bits.
#[inline(always)]
pub(super) fn nearest(value: f32) -> i32 {
    ((value + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// As `clamp`, without its check of the bounds in every step of a loop.
#[inline(always)]
pub(super) fn within(level: i32, least: i32, most: i32) -> i32 {
    level.max(least).min(most)
}

/// How [`scale_and_minimum`] searches: levels from 0 to `top`; after the plain range, ranges of `top + first`,
/// `top + first + 0.1` and so on, `steps + 1` of them.
pub(super) struct Search {
    pub top: i32,
    pub first: f32,
    pub steps: u8,
    /// The loss is the distance, otherwise its square.
    pub absolute: bool,
}

impl Search {
    #[inline(always)]
    fn loss(&self, difference: f32) -> f32 {
        if self.absolute { difference.abs() } else { difference * difference }
    }

    /// The levels of all numbers for one over the scale.
    #[inline(always)]
    fn levels<const GROUPS: usize, const LEN: usize>(
        &self,
        x: &Lanes<f32, GROUPS, LEN>,
        minima: &[f32; GROUPS],
        inverse: &[f32; GROUPS],
    ) -> Lanes<i32, GROUPS, LEN> {
        let mut levels = [[0; GROUPS]; LEN];
        for (levels, x) in levels.iter_mut().zip(x) {
            for g in 0..GROUPS {
                levels[g] = within(nearest(inverse[g] * (x[g] - minima[g])), 0, self.top);
            }
        }
        levels
    }
}

/// Numbers and how much each one's loss counts.
pub(super) struct Weighted<'a, const GROUPS: usize, const LEN: usize> {
    pub x: &'a Lanes<f32, GROUPS, LEN>,
    pub weights: &'a Lanes<f32, GROUPS, LEN>,
}

impl<const GROUPS: usize, const LEN: usize> Weighted<'_, GROUPS, LEN> {
    #[inline(always)]
    fn loss(&self, levels: &Lanes<i32, GROUPS, LEN>, line: &Line<GROUPS>, search: &Search) -> [f32; GROUPS] {
        let mut total = [0.0; GROUPS];
        for ((levels, x), w) in levels.iter().zip(self.x).zip(self.weights) {
            for g in 0..GROUPS {
                total[g] += w[g] * search.loss(line.scales[g] * levels[g] as f32 + line.minima[g] - x[g]);
            }
        }
        total
    }

    /// Smallest and largest number, the sum of the weights and of the weighted numbers.
    #[inline(always)]
    fn extent(&self) -> Extent<GROUPS> {
        let (x, w) = (&self.x[0], &self.weights[0]);
        let mut extent = Extent { minima: *x, maxima: *x, weights: *w, sums: [0.0; GROUPS] };
        for g in 0..GROUPS {
            extent.sums[g] = w[g] * x[g];
        }
        for (x, w) in self.x.iter().zip(self.weights).skip(1) {
            for g in 0..GROUPS {
                extent.minima[g] = if x[g] < extent.minima[g] { x[g] } else { extent.minima[g] };
                extent.maxima[g] = if x[g] > extent.maxima[g] { x[g] } else { extent.maxima[g] };
                extent.weights[g] += w[g];
                extent.sums[g] += w[g] * x[g];
            }
        }
        for minimum in &mut extent.minima {
            *minimum = if *minimum > 0.0 { 0.0 } else { *minimum };
        }
        extent
    }

    /// The line through given levels with the least weighted squares, its minimum at most zero; and whether there is one.
    #[inline(always)]
    fn regression(&self, levels: &Lanes<i32, GROUPS, LEN>, extent: &Extent<GROUPS>) -> (Line<GROUPS>, [bool; GROUPS]) {
        let (mut l1, mut l2, mut lx) = ([0.0f32; GROUPS], [0.0f32; GROUPS], [0.0f32; GROUPS]);
        for ((levels, x), w) in levels.iter().zip(self.x).zip(self.weights) {
            for g in 0..GROUPS {
                let l = levels[g] as f32;
                l1[g] += w[g] * l;
                l2[g] += w[g] * l * l;
                lx[g] += w[g] * l * x[g];
            }
        }
        let mut line = Line { scales: [0.0; GROUPS], minima: [0.0; GROUPS] };
        let mut exists = [false; GROUPS];
        for g in 0..GROUPS {
            let (weight, sum) = (extent.weights[g], extent.sums[g]);
            let determinant = weight * l2[g] - l1[g] * l1[g];
            let scale = (weight * lx[g] - sum * l1[g]) / determinant;
            let minimum = (l2[g] * sum - l1[g] * lx[g]) / determinant;
            let raised = minimum > 0.0;
            line.scales[g] = if raised { lx[g] / l2[g] } else { scale };
            line.minima[g] = if raised { 0.0 } else { minimum };
            exists[g] = determinant > 0.0;
        }
        (line, exists)
    }
}

struct Extent<const GROUPS: usize> {
    minima: [f32; GROUPS],
    maxima: [f32; GROUPS],
    weights: [f32; GROUPS],
    sums: [f32; GROUPS],
}

/// Level l stands for `scales * l + minima`.
struct Line<const GROUPS: usize> {
    scales: [f32; GROUPS],
    minima: [f32; GROUPS],
}

/// Scale and minimum of each group: the plain range first, then for each range of the search, from the best minimum so far to
/// the maximum, the levels it gives and the line that fits those best; whichever loses least, the first of equals.
#[inline(always)]
pub(super) fn scale_and_minimum<const GROUPS: usize, const LEN: usize>(
    numbers: &Weighted<'_, GROUPS, LEN>,
    search: &Search,
) -> Fit<GROUPS, LEN> {
    let extent = numbers.extent();
    let range = |top: f32, minima: &[f32; GROUPS]| {
        let mut inverse = [0.0; GROUPS];
        for g in 0..GROUPS {
            inverse[g] = top / (extent.maxima[g] - minima[g]);
        }
        inverse
    };
    let inverse = range(search.top as f32, &extent.minima);
    let mut best = Line { scales: inverse.map(|inverse| 1.0 / inverse), minima: extent.minima };
    let mut best_levels = search.levels(numbers.x, &extent.minima, &inverse);
    let mut least = numbers.loss(&best_levels, &best, search);
    for step in 0..=search.steps {
        let inverse = range(search.first + 0.1 * f32::from(step) + search.top as f32, &best.minima);
        let levels = search.levels(numbers.x, &best.minima, &inverse);
        let (line, exists) = numbers.regression(&levels, &extent);
        let loss = numbers.loss(&levels, &line, search);
        let mut better = [false; GROUPS];
        for g in 0..GROUPS {
            better[g] = exists[g] & (loss[g] < least[g]);
            least[g] = if better[g] { loss[g] } else { least[g] };
            best.scales[g] = if better[g] { line.scales[g] } else { best.scales[g] };
            best.minima[g] = if better[g] { line.minima[g] } else { best.minima[g] };
        }
        keep(&mut best_levels, &levels, &better);
    }
    let mut fit = Fit { scales: best.scales, minima: best.minima.map(|minimum| -minimum), levels: best_levels };
    for g in 0..GROUPS {
        // All numbers alike: the minimum is all there is (and zero when they are above it).
        if extent.maxima[g] == extent.minima[g] {
            fit.clear(g, -extent.minima[g]);
        }
    }
    fit
}

/// The scale of each group for levels from `-middle` to `middle - 1`, of which `middle + l` is given, by the least squares
/// weighted with the squares of the numbers: first the scale that takes the number furthest from zero to the lowest level,
/// then nine below and nine above it.
#[inline(always)]
pub(super) fn symmetric_scale<const GROUPS: usize, const LEN: usize>(
    x: &Lanes<f32, GROUPS, LEN>,
    middle: i32,
) -> Fit<GROUPS, LEN> {
    let mut furthest = [0.0f32; GROUPS];
    for x in x {
        for g in 0..GROUPS {
            furthest[g] = if x[g].abs() > furthest[g].abs() { x[g] } else { furthest[g] };
        }
    }
    let attempt = |top: f32| {
        let (mut levels, mut lx, mut l2) = ([[0; GROUPS]; LEN], [0.0f32; GROUPS], [0.0f32; GROUPS]);
        for (levels, x) in levels.iter_mut().zip(x) {
            for g in 0..GROUPS {
                let level = within(nearest(top / furthest[g] * x[g]), -middle, middle - 1);
                let (l, w) = (level as f32, x[g] * x[g]);
                levels[g] = level + middle;
                lx[g] += w * x[g] * l;
                l2[g] += w * l * l;
            }
        }
        (levels, lx, l2)
    };
    let (levels, lx, l2) = attempt(-(middle as f32));
    let mut fit = Fit { scales: [0.0; GROUPS], minima: [0.0; GROUPS], levels };
    let mut best = [0.0; GROUPS];
    for g in 0..GROUPS {
        fit.scales[g] = if l2[g] == 0.0 { 0.0 } else { lx[g] / l2[g] };
        best[g] = fit.scales[g] * lx[g];
    }
    for step in (-9i8..=9).filter(|&step| step != 0) {
        let (levels, lx, l2) = attempt(-(middle as f32 + 0.1 * f32::from(step)));
        let mut better = [false; GROUPS];
        for g in 0..GROUPS {
            better[g] = (l2[g] > 0.0) & (lx[g] * lx[g] > best[g] * l2[g]);
            let scale = lx[g] / l2[g];
            fit.scales[g] = if better[g] { scale } else { fit.scales[g] };
            best[g] = if better[g] { scale * lx[g] } else { best[g] };
        }
        keep(&mut fit.levels, &levels, &better);
    }
    for (g, furthest) in furthest.iter().enumerate() {
        if furthest.abs() < ZERO {
            fit.clear(g, 0.0);
        }
    }
    fit
}

/// The same for one group of 16 by another way, that of the 3-bit format: the first scale of [`symmetric_scale`], then up to
/// five rounds in which each number may move to the level that suits the scale of the others.
#[inline(always)]
pub(super) fn symmetric_scale_by_exchange(x: &[f32; 16], middle: i32) -> (f32, [i32; 16]) {
    let furthest = x.iter().fold(0.0f32, |furthest, &x| if x.abs() > furthest.abs() { x } else { furthest });
    if furthest.abs() < ZERO {
        return (0.0, [0; 16]);
    }
    let inverse = -(middle as f32) / furthest;
    let mut levels = x.map(|x| nearest(inverse * x).clamp(-middle, middle - 1));
    let (mut lx, mut l2) = (0.0f32, 0.0f32);
    for (x, &level) in x.iter().zip(&levels) {
        let (l, w) = (level as f32, x * x);
        lx += w * x * l;
        l2 += w * l * l;
    }
    for _ in 0..5 {
        let mut moved = false;
        for (x, level) in x.iter().zip(&mut levels) {
            let (l, w) = (*level as f32, x * x);
            let (mut others_lx, mut others_l2) = (lx - w * x * l, l2 - w * l * l);
            if others_lx <= 0.0 {
                continue;
            }
            let wanted = nearest(x * others_l2 / others_lx).clamp(-middle, middle - 1);
            if wanted == *level {
                continue;
            }
            others_lx += w * x * wanted as f32;
            others_l2 += w * wanted as f32 * wanted as f32;
            if others_l2 > 0.0 && others_lx * others_lx * l2 > lx * lx * others_l2 {
                (*level, lx, l2, moved) = (wanted, others_lx, others_l2, true);
            }
        }
        if !moved {
            break;
        }
    }
    (if l2 > 0.0 { lx / l2 } else { 0.0 }, levels.map(|level| level + middle))
}

impl<const GROUPS: usize, const LEN: usize> Fit<GROUPS, LEN> {
    /// Makes a group one of nothing but its minimum.
    #[inline(always)]
    fn clear(&mut self, group: usize, minimum: f32) {
        (self.scales[group], self.minima[group]) = (0.0, minimum);
        self.levels.iter_mut().for_each(|levels| levels[group] = 0);
    }
}

/// Takes over the levels of the groups that `better` names.
#[inline(always)]
fn keep<const GROUPS: usize, const LEN: usize>(
    kept: &mut Lanes<i32, GROUPS, LEN>,
    levels: &Lanes<i32, GROUPS, LEN>,
    better: &[bool; GROUPS],
) {
    if !better.contains(&true) {
        return;
    }
    for (kept, levels) in kept.iter_mut().zip(levels) {
        for g in 0..GROUPS {
            kept[g] = if better[g] { levels[g] } else { kept[g] };
        }
    }
}
