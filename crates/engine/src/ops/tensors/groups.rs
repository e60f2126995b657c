//! Which sequences attend together: groups whose padding and whose transient memory are bounded. No tensors.

use std::ops::Range;

use crate::ops::Span;

/// Most elements of a group's keys, and of its scores: 256 MiB of f32 each. A single row may exceed it, where one sequence is
/// longer than that.
pub(super) const GROUP_ELEMENTS: usize = 1 << 26;

/// The heads of a layer, and what bounds its groups.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupSizes {
    /// Query heads.
    pub(super) heads: usize,
    /// Elements of a token's keys.
    pub(super) key_width: usize,
    /// Most elements of a group's keys, and of its scores.
    pub(super) limit: usize,
}

impl GroupSizes {
    /// Whether so many sequences of so many rows and keys may be one group.
    fn fit(&self, sequences: usize, rows: usize, keys: usize) -> bool {
        let wider = self.key_width.max(self.heads * rows);
        sequences.saturating_mul(keys).saturating_mul(wider) <= self.limit
    }

    /// How many rows of one sequence with so many keys may be computed together.
    fn rows(&self, keys: usize) -> usize {
        (self.limit / (self.heads * keys).max(1)).max(1)
    }
}

/// Rows of a span that are computed together, and the blocks they see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) rows: Range<usize>,
    pub(super) first_position: usize,
    pub(super) blocks: &'a [u32],
}

impl Piece<'_> {
    /// The position of its last row.
    pub(super) fn last_position(&self) -> usize {
        self.first_position + self.rows.len() - 1
    }
}

/// Shares a batch's spans out: those of one row together, padded to the longest of their group; the others one by one, cut
/// where they are too large.
pub(super) fn group_spans<'a>(spans: &'a [Span], block_size: usize, sizes: &GroupSizes) -> Vec<Vec<Piece<'a>>> {
    let (single, longer): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|span| span.rows.len() == 1);
    let single = single.into_iter().map(|span| Piece {
        rows: span.rows.clone(),
        first_position: span.first_position,
        blocks: &span.blocks,
    });
    let keys = |piece: &Piece<'_>| piece.blocks.len() * block_size;
    let mut groups = group_by_length(single.collect(), keys, |count, longest| sizes.fit(count, 1, longest));
    groups.extend(longer.into_iter().flat_map(|span| cut(span, block_size, sizes)).map(|piece| vec![piece]));
    groups
}

/// A span in pieces of as many rows as may be computed together.
fn cut<'a>(span: &'a Span, block_size: usize, sizes: &GroupSizes) -> impl Iterator<Item = Piece<'a>> {
    let step = sizes.rows(span.blocks.len() * block_size);
    span.rows.clone().step_by(step).map(move |start| {
        let rows = start..(start + step).min(span.rows.end);
        let first_position = span.first_position + start - span.rows.start;
        let blocks = (first_position + rows.len()).div_ceil(block_size);
        Piece { rows, first_position, blocks: &span.blocks[..blocks.min(span.blocks.len())] }
    })
}

/// Texts that attend together, by their indices: of lengths within a factor of two, so that padding at most quadruples the
/// scores.
pub(super) fn group_texts(lengths: &[usize], sizes: &GroupSizes) -> Vec<Vec<usize>> {
    let mut groups = Vec::new();
    let mut classes = vec![Vec::new(); usize::BITS as usize + 1];
    for (text, length) in lengths.iter().enumerate().filter(|(_, length)| **length > 0) {
        classes[length.next_power_of_two().ilog2() as usize].push(text);
    }
    for class in classes {
        groups.extend(group_by_length(
            class,
            |text| lengths[*text],
            |count, longest| sizes.fit(count, longest, longest),
        ));
    }
    groups
}

/// As few groups as fit. Their order is kept where one is enough, otherwise the longest come first.
fn group_by_length<T>(
    mut items: Vec<T>,
    length: impl Fn(&T) -> usize,
    fits: impl Fn(usize, usize) -> bool,
) -> Vec<Vec<T>> {
    let longest = items.iter().map(&length).max().unwrap_or(0);
    if !fits(items.len(), longest) {
        items.sort_by_key(|item| std::cmp::Reverse(length(item)));
    }
    let mut groups: Vec<(usize, Vec<T>)> = Vec::new(); // with the length of each one's longest
    let whole = fits(items.len(), longest);
    for item in items {
        let own = length(&item);
        match groups.last_mut() {
            Some((_, group)) if whole => group.push(item),
            Some((longest, group)) if fits(group.len() + 1, *longest) => group.push(item),
            _ => groups.push((own, vec![item])),
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(rows: Range<usize>, first_position: usize) -> Span {
        let blocks = (first_position + rows.len()).div_ceil(4);
        Span { rows, first_position, blocks: (0..blocks as u32).collect() }
    }

    #[test]
    fn decodes_go_together_and_prompts_alone() {
        let spans = [span(0..1, 9), span(1..4, 0), span(4..5, 30)];
        let sizes = GroupSizes { heads: 2, key_width: 8, limit: 1 << 20 };
        let groups = group_spans(&spans, 4, &sizes);
        let first_rows: Vec<Vec<usize>> =
            groups.iter().map(|group| group.iter().map(|piece| piece.rows.start).collect()).collect();
        assert_eq!(first_rows, [vec![0, 4], vec![1]], "in the order of the batch");
        assert_eq!(groups[1][0].rows, 1..4);
    }

    #[test]
    fn no_group_is_larger_than_stated() {
        let spans: Vec<Span> = (0..20).map(|row| span(row..row + 1, row * 3)).chain([span(20..60, 13)]).collect();
        let sizes = GroupSizes { heads: 4, key_width: 8, limit: 1024 };
        let groups = group_spans(&spans, 4, &sizes);
        let mut seen = vec![0; 60];
        for group in &groups {
            let keys = group.iter().map(|piece| piece.blocks.len() * 4).max().unwrap();
            let rows = group[0].rows.len();
            assert!(group.len() * keys * 8.max(4 * rows) <= 1024 || (group.len(), rows) == (1, 1), "{group:?}");
            for piece in group {
                assert_eq!(piece.rows.len(), rows);
                assert_eq!(piece.blocks.len(), (piece.last_position() + 1).div_ceil(4));
                piece.rows.clone().for_each(|row| seen[row] += 1);
            }
        }
        assert!(seen.iter().all(|count| *count == 1), "every row once: {seen:?}");
        assert!(groups.len() > 5 && groups.len() < 40, "{}", groups.len());
        let last: Vec<usize> = groups
            .iter()
            .flatten()
            .filter(|piece| piece.rows.start >= 20)
            .map(|piece| piece.first_position + 20 - piece.rows.start)
            .collect();
        assert!(last.len() > 1 && last.iter().all(|position| *position == 13), "positions go on: {last:?}");
    }

    #[test]
    fn texts_of_like_length_go_together() {
        let sizes = GroupSizes { heads: 2, key_width: 8, limit: 1 << 20 };
        assert_eq!(group_texts(&[5, 100, 7, 1, 128, 8], &sizes), [vec![3], vec![0, 2, 5], vec![1, 4]]);
        let sizes = GroupSizes { limit: 2 * 8 * 8 * 2, ..sizes };
        assert_eq!(group_texts(&[5, 7, 8, 6], &sizes), [vec![2, 1], vec![3, 0]], "two fit, the longest first");
    }
}
