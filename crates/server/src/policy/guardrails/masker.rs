//! A text that comes in pieces, and goes on with masks.

use super::Side;
use super::detect::{LOOK_BEHIND, Label};
use super::scan::{Found, Step};

/// Why a text does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A word that may not be said.
    Keyword,
    /// Something about a person.
    Personal(Label),
}

/// Holds back what could still become part of something that is looked for, and no more.
#[derive(Debug, Default)]
pub(super) struct Masker {
    /// What is held back, behind as much as detectors look back at.
    text: String,
    /// Where what is held back begins.
    shown: usize,
}

impl Masker {
    /// What can be shown now that `more` has come. `ended`: nothing comes any more. `mask` writes a mask.
    ///
    /// # Errors
    /// Where the text must not go on.
    pub(super) fn push(
        &mut self,
        side: &Side,
        more: &str,
        ended: bool,
        mask: impl Fn(Label, &mut String),
    ) -> Result<String, Stop> {
        self.text.push_str(more);
        let mut shown = String::new();
        loop {
            match side.scanner.next(&self.text, self.shown, ended) {
                Step::Clear(end) => {
                    shown.push_str(&self.text[self.shown..end]);
                    self.shown = end;
                    break;
                }
                Step::Found(Found::Keyword) => return Err(Stop::Keyword),
                Step::Found(Found::Personal { label, .. }) if side.blocks => return Err(Stop::Personal(label)),
                Step::Found(Found::Personal { begin, end, label }) => {
                    shown.push_str(&self.text[self.shown..begin]);
                    mask(label, &mut shown);
                    self.shown = end;
                }
            }
        }
        let kept = self.text.floor_char_boundary(self.shown.saturating_sub(LOOK_BEHIND));
        self.text.drain(..kept);
        self.shown -= kept;
        Ok(shown)
    }
}

/// Writes the mask as it is.
pub(super) fn plain(label: Label, text: &mut String) {
    text.push_str(label.mask());
}
