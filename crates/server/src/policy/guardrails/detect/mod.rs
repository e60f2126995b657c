//! What tells something about a person: where in a text it stands. Each detector reads from one place on and says how far
//! what it looks for reaches; none looks further back than [`LOOK_BEHIND`].

mod address;
mod card;
mod email;
mod iban;
mod number;
mod phone;
mod ssn;

use super::cursor::{Cursor, is_of_word};

/// Bytes before a place that a detector may look at.
pub(super) const LOOK_BEHIND: usize = 32;

/// A kind of what is found. The first of two is the more specific one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Label {
    /// An e-mail address.
    Email,
    /// A bank account's number, with its check digits.
    Iban,
    /// A payment card's number, with its check digit.
    Card,
    /// A social security number of the United States.
    Ssn,
    /// An IP address.
    Ip,
    /// A telephone number.
    Phone,
}

impl Label {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Email, Self::Iban, Self::Card, Self::Ssn, Self::Ip, Self::Phone];

    /// What stands in its place, by the names that Presidio uses.
    pub fn mask(self) -> &'static str {
        match self {
            Self::Email => "<EMAIL_ADDRESS>",
            Self::Iban => "<IBAN_CODE>",
            Self::Card => "<CREDIT_CARD>",
            Self::Ssn => "<US_SSN>",
            Self::Ip => "<IP_ADDRESS>",
            Self::Phone => "<PHONE_NUMBER>",
        }
    }
}

/// What begins at the cursor, and where it ends; the longest, and of equally long ones the most specific.
pub(super) fn find(cursor: &Cursor<'_>) -> Option<(usize, Label)> {
    let first = cursor.peek()?;
    let mut best: Option<(usize, Label)> = None;
    let mut note = |end: Option<usize>, label: Label| {
        if let Some(end) = end.filter(|end| best.is_none_or(|(longest, _)| *end > longest)) {
            best = Some((end, label));
        }
    };
    if is_of_word(first) {
        note(email::find(cursor.clone()), Label::Email);
    }
    if first.is_ascii_alphabetic() {
        note(iban::find(cursor.clone()), Label::Iban);
    }
    if first.is_ascii_digit() || matches!(first, '+' | '(') {
        let number = number::Number::read(cursor.clone());
        note(card::find(&number), Label::Card);
        note(ssn::find(&number), Label::Ssn);
        note(address::find_v4(cursor.clone()), Label::Ip);
        note(phone::find(&number), Label::Phone);
    }
    if first.is_ascii_hexdigit() || first == ':' {
        note(address::find_v6(cursor.clone()), Label::Ip);
    }
    best
}

#[cfg(test)]
mod tests;
