//! Reading a text of which there may come more.

use std::cell::Cell;

/// Reads a text from one place on, and knows whether it would have to see more of the text than there is. What has been found
/// without that stays found, whatever comes.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    /// Whether nothing comes after `text`.
    ended: bool,
    short: &'a Cell<bool>,
}

impl Clone for Cursor<'_> {
    fn clone(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a> Cursor<'a> {
    /// At the byte `at` of a text. `short` is set when more than `text` would have to be seen.
    pub(super) fn new(text: &'a str, at: usize, ended: bool, short: &'a Cell<bool>) -> Self {
        Self { text, at, ended, short }
    }

    /// Where it is, in bytes.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The next character, which stays the next one; `None` at the end.
    pub(super) fn peek(&self) -> Option<char> {
        let next = self.text[self.at..].chars().next();
        if next.is_none() && !self.ended {
            self.short.set(true);
        }
        next
    }

    /// The next character.
    pub(super) fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// The next character, if it is as `wanted` says.
    pub(super) fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        self.peek().filter(|next| wanted(*next))?;
        self.next()
    }

    /// Goes over at most `most` characters that are as `wanted` says, and tells how many they were.
    pub(super) fn skip(&mut self, most: usize, wanted: impl Fn(char) -> bool) -> usize {
        (0..most).take_while(|_| self.next_if(&wanted).is_some()).count()
    }

    /// What lies between the byte `from` and here.
    pub(super) fn since(&self, from: usize) -> &'a str {
        &self.text[from..self.at]
    }

    /// What lies before here.
    pub(super) fn before(&self) -> &'a str {
        &self.text[..self.at]
    }

    /// Whether a word may begin here: behind the end of another one, and not with the letter of an escape such as `\n`. A mask
    /// in its place would leave the backslash to what follows.
    pub(super) fn is_at_boundary(&self) -> bool {
        let escaped = self.before().ends_with('\\') && is_escape(self.text[self.at..].chars().next());
        !escaped && is_boundary(self.before())
    }

    /// Whether no word goes on here.
    pub(super) fn ends_word(&self) -> bool {
        !self.peek().is_some_and(is_of_word)
    }
}

/// Whether no word goes on behind that text: it ends with none, or with the letter of an escape such as `\n`.
pub(super) fn is_boundary(before: &str) -> bool {
    let mut letters = before.chars().rev();
    match (letters.next(), letters.next()) {
        (letter, Some('\\')) if is_escape(letter) => true,
        (Some(letter), _) => !is_of_word(letter),
        (None, _) => true,
    }
}

fn is_escape(letter: Option<char>) -> bool {
    matches!(letter, Some('n' | 'r' | 't'))
}

/// Whether a character belongs to a word that blanks or signs set apart from others.
pub(super) fn is_of_word(letter: char) -> bool {
    letter.is_alphanumeric() && (letter.is_ascii() || !is_unspaced(letter))
}

/// Whether a letter belongs to a script that puts no blanks between words: Thai to Myanmar, Khmer, kana and Han.
fn is_unspaced(letter: char) -> bool {
    matches!(letter, '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}
