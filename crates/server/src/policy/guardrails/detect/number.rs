//! A number as people write it: digits in groups, with one separator between two.

use crate::policy::guardrails::cursor::Cursor;

/// Most digits that are read: more than any number that is looked for has.
const DIGITS: usize = 20;
/// Most groups that are read: one more than any number that is looked for has.
const GROUPS: usize = 9;

/// What stands before a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing, or no more than a parenthesis.
    None,
    Space,
    Dash,
    Dot,
    Slash,
}

/// Digits without anything between them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group<'a> {
    pub(super) gap: Gap,
    pub(super) digits: &'a str,
    /// Whether it stands in parentheses.
    pub(super) enclosed: bool,
    /// Where it ends, in bytes, with its parenthesis.
    pub(super) end: usize,
}

/// Groups of digits, and what stands around them.
pub(super) struct Number<'a> {
    /// Whether it begins with a plus.
    pub(super) plus: bool,
    pub(super) groups: Vec<Group<'a>>,
    /// Two characters before it, the nearest first.
    before: (Option<char>, Option<char>),
    /// Whether a letter or a digit follows at once.
    runs_on: bool,
}

impl<'a> Number<'a> {
    /// The number that begins here; without a group where there is none.
    pub(super) fn read(mut cursor: Cursor<'a>) -> Self {
        let mut letters = cursor.before().chars().rev();
        let before = (letters.next(), letters.next());
        let plus = cursor.next_if(|letter| letter == '+').is_some();
        let (mut groups, mut count) = (Vec::new(), 0);
        let mut plus_within = false;
        while count < DIGITS && groups.len() < GROUPS {
            let mut ahead = cursor.clone();
            let Some(group) = group(&mut ahead, groups.is_empty(), &mut plus_within) else { break };
            count += group.digits.len();
            groups.push(group);
            cursor = ahead;
        }
        let runs_on = !cursor.ends_word() && !is_extension(cursor);
        Self { plus: plus || plus_within, groups, before, runs_on }
    }

    /// The digits of the first `count` groups.
    pub(super) fn digits(&self, count: usize) -> impl Iterator<Item = u8> + use<'a, '_> {
        self.groups[..count].iter().flat_map(|group| group.digits.bytes())
    }

    /// How many digits the first `count` groups have.
    pub(super) fn length(&self, count: usize) -> usize {
        self.groups[..count].iter().map(|group| group.digits.len()).sum()
    }

    /// Whether nothing before the number belongs to it: no digits or words that a dash or a dot ties to it.
    pub(super) fn begins(&self) -> bool {
        match self.before {
            (Some('-' | '\u{2011}' | '.'), Some(other)) => !other.is_alphanumeric(),
            _ => true,
        }
    }

    /// Whether digits and a blank go before.
    pub(super) fn follows_digits(&self) -> bool {
        matches!(self.before, (Some(' '), Some(other)) if other.is_ascii_digit())
    }

    /// What ties the group after the first `count` to them; `None` where there is no further one and the number ends.
    ///
    /// # Errors
    /// Where a letter or a digit follows at once.
    pub(super) fn after(&self, count: usize) -> Result<Option<Gap>, ()> {
        match self.groups.get(count) {
            Some(group) => Ok(Some(group.gap)),
            None if self.runs_on => Err(()),
            None => Ok(None),
        }
    }

    /// The gap between the first `count` groups, where it is one and the same.
    pub(super) fn only_gap(&self, count: usize) -> Option<Gap> {
        let mut gaps = self.groups[1..count].iter().map(|group| group.gap);
        let first = gaps.next().unwrap_or(Gap::None);
        gaps.all(|gap| gap == first).then_some(first)
    }
}

/// Whether an extension follows: `x` and digits.
fn is_extension(mut cursor: Cursor<'_>) -> bool {
    cursor.next_if(|letter| matches!(letter, 'x' | 'X')).is_some()
        && cursor.peek().is_some_and(|next| next.is_ascii_digit())
}

/// The group that follows, with the gap before it.
fn group<'a>(cursor: &mut Cursor<'a>, is_first: bool, plus: &mut bool) -> Option<Group<'a>> {
    let gap = if is_first { None } else { cursor.peek().and_then(gap) };
    if gap.is_some() {
        cursor.next();
    }
    let enclosed = cursor.next_if(|letter| letter == '(').is_some();
    if enclosed && is_first {
        *plus = cursor.next_if(|letter| letter == '+').is_some();
    }
    let begin = cursor.at();
    let count = cursor.skip(DIGITS, |letter| letter.is_ascii_digit());
    let digits = cursor.since(begin);
    if count == 0 || (enclosed && cursor.next_if(|letter| letter == ')').is_none()) {
        return None;
    }
    Some(Group { gap: gap.unwrap_or(Gap::None), digits, enclosed, end: cursor.at() })
}

fn gap(letter: char) -> Option<Gap> {
    match letter {
        ' ' | '\u{a0}' | '\u{202f}' | '\u{2009}' => Some(Gap::Space),
        '-' | '\u{2010}' | '\u{2011}' => Some(Gap::Dash),
        '.' => Some(Gap::Dot),
        '/' => Some(Gap::Slash),
        _ => None,
    }
}
