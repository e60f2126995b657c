//! What is looked for in a text, and where it stands.

use std::borrow::Cow;
use std::cell::Cell;

use super::cursor::{Cursor, is_boundary, is_of_word};
use super::detect::{self, Label};
use super::keywords::Keywords;

/// What is looked for.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Whether what tells something about a person is.
    pub(super) personal: bool,
    pub(super) keywords: Keywords,
}

/// Something that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A word that may not be said.
    Keyword,
    /// Something about a person, from byte to byte.
    Personal { begin: usize, end: usize, label: Label },
}

/// How far a search has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There is nothing before this byte; what follows depends on what comes, or is nothing.
    Clear(usize),
    /// There is nothing before this.
    Found(Found),
}

/// What is at one place.
enum Look {
    Nothing,
    Undecided,
    Found(Found),
}

impl Scanner {
    /// Whether nothing is looked for.
    pub(super) fn is_idle(&self) -> bool {
        !self.personal && self.keywords.is_empty()
    }

    /// The first thing at or after the byte `from`. `ended`: nothing comes after `text`.
    pub(super) fn next(&self, text: &str, from: usize, ended: bool) -> Step {
        if self.is_idle() {
            return Step::Clear(text.len());
        }
        for (at, letter) in self.places(text, from) {
            match self.look(text, at, letter, ended) {
                Look::Nothing => {}
                Look::Undecided => return Step::Clear(at),
                Look::Found(Found::Personal { begin, end, label }) => {
                    return self.whole(text, (begin, end, label), ended);
                }
                Look::Found(keyword) => return Step::Found(keyword),
            }
        }
        Step::Clear(text.len())
    }

    /// What was found with all that overlaps with it, under the label of the longest of them.
    fn whole(&self, text: &str, (begin, mut end, mut label): (usize, usize, Label), ended: bool) -> Step {
        let mut longest = end - begin;
        for (at, letter) in self.places(text, begin).skip(1) {
            if at >= end {
                break;
            }
            match self.look(text, at, letter, ended) {
                Look::Nothing => {}
                Look::Undecided => return Step::Clear(begin),
                Look::Found(Found::Keyword) => return Step::Found(Found::Keyword),
                Look::Found(Found::Personal { end: other, label: of_other, .. }) => {
                    end = end.max(other);
                    if other - at > longest {
                        (longest, label) = (other - at, of_other);
                    }
                }
            }
        }
        Step::Found(Found::Personal { begin, end, label })
    }

    /// The places where something may begin.
    fn places<'a>(&self, text: &'a str, from: usize) -> impl Iterator<Item = (usize, char)> + use<'a> {
        let everywhere = !self.keywords.is_empty();
        let mut in_word = !is_boundary(&text[..from]);
        let mut escaped = text[..from].ends_with('\\');
        text[from..].char_indices().filter_map(move |(at, letter)| {
            let is_word = is_of_word(letter);
            // The letter of an escape such as `\n` is no word's.
            let is_escape = escaped && matches!(letter, 'n' | 'r' | 't');
            let begins = !in_word && (is_word || matches!(letter, '+' | '(' | ':'));
            (in_word, escaped) = (is_word && !is_escape, letter == '\\');
            (begins || everywhere).then_some((from + at, letter))
        })
    }

    fn look(&self, text: &str, at: usize, letter: char, ended: bool) -> Look {
        let short = Cell::new(false);
        let cursor = Cursor::new(text, at, ended, &short);
        let keyword = !self.keywords.is_empty() && self.keywords.find(cursor.clone()).is_some();
        let may_begin = is_of_word(letter) || matches!(letter, '+' | '(' | ':');
        let personal = if self.personal && may_begin && cursor.is_at_boundary() { detect::find(&cursor) } else { None };
        match personal {
            _ if short.get() => Look::Undecided,
            _ if keyword => Look::Found(Found::Keyword),
            Some((end, label)) => Look::Found(Found::Personal { begin: at, end, label }),
            None => Look::Nothing,
        }
    }

    /// A whole text with masks, the labels of what is under them, and whether a keyword is in it.
    pub(super) fn scan<'a>(&self, text: &'a str) -> Scanned<'a> {
        let mut scanned = Scanned { text: Cow::Borrowed(text), labels: Vec::new(), keyword: false };
        let (mut masked, mut from) = (String::new(), 0);
        loop {
            match self.next(text, from, true) {
                Step::Clear(_) => break,
                Step::Found(Found::Keyword) => {
                    // What else there is matters no more than that it is masked.
                    let masks = Self { personal: self.personal, keywords: Keywords::default() };
                    return Scanned { keyword: true, ..masks.scan(text) };
                }
                Step::Found(Found::Personal { begin, end, label }) => {
                    masked.push_str(&text[from..begin]);
                    masked.push_str(label.mask());
                    scanned.labels.push(label);
                    from = end;
                }
            }
        }
        if from > 0 {
            masked.push_str(&text[from..]);
            scanned.text = Cow::Owned(masked);
        }
        scanned
    }
}

/// A text that was searched.
pub(super) struct Scanned<'a> {
    /// With masks.
    pub(super) text: Cow<'a, str>,
    /// Of what is under the masks.
    pub(super) labels: Vec<Label>,
    /// Whether a keyword is in it.
    pub(super) keyword: bool,
}

impl Scanned<'_> {
    /// The text, if it is another one now.
    pub(super) fn masked(self) -> Option<String> {
        match self.text {
            Cow::Owned(masked) => Some(masked),
            Cow::Borrowed(_) => None,
        }
    }
}
