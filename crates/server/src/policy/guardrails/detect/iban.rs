//! International bank account numbers (ISO 13616): a country's length, and check digits by ISO 7064.

use crate::policy::guardrails::cursor::Cursor;

/// Length of the numbers of each country in the registry, by its code.
const LENGTHS: &[(&[u8; 2], usize)] = &[
    (b"AD", 24),
    (b"AE", 23),
    (b"AL", 28),
    (b"AT", 20),
    (b"AZ", 28),
    (b"BA", 20),
    (b"BE", 16),
    (b"BG", 22),
    (b"BH", 22),
    (b"BI", 27),
    (b"BR", 29),
    (b"BY", 28),
    (b"CH", 21),
    (b"CR", 22),
    (b"CY", 28),
    (b"CZ", 24),
    (b"DE", 22),
    (b"DJ", 27),
    (b"DK", 18),
    (b"DO", 28),
    (b"EE", 20),
    (b"EG", 29),
    (b"ES", 24),
    (b"FI", 18),
    (b"FK", 18),
    (b"FO", 18),
    (b"FR", 27),
    (b"GB", 22),
    (b"GE", 22),
    (b"GI", 23),
    (b"GL", 18),
    (b"GR", 27),
    (b"GT", 28),
    (b"HN", 28),
    (b"HR", 21),
    (b"HU", 28),
    (b"IE", 22),
    (b"IL", 23),
    (b"IQ", 23),
    (b"IS", 26),
    (b"IT", 27),
    (b"JO", 30),
    (b"KW", 30),
    (b"KZ", 20),
    (b"LB", 28),
    (b"LC", 32),
    (b"LI", 21),
    (b"LT", 20),
    (b"LU", 20),
    (b"LV", 21),
    (b"LY", 25),
    (b"MC", 27),
    (b"MD", 24),
    (b"ME", 22),
    (b"MK", 19),
    (b"MN", 20),
    (b"MR", 27),
    (b"MT", 31),
    (b"MU", 30),
    (b"NI", 28),
    (b"NL", 18),
    (b"NO", 15),
    (b"OM", 23),
    (b"PK", 24),
    (b"PL", 28),
    (b"PS", 29),
    (b"PT", 25),
    (b"QA", 29),
    (b"RO", 24),
    (b"RS", 22),
    (b"RU", 33),
    (b"SA", 24),
    (b"SC", 31),
    (b"SD", 18),
    (b"SE", 24),
    (b"SI", 19),
    (b"SK", 24),
    (b"SM", 27),
    (b"SO", 23),
    (b"ST", 25),
    (b"SV", 28),
    (b"TL", 23),
    (b"TN", 24),
    (b"TR", 26),
    (b"UA", 29),
    (b"VA", 22),
    (b"VG", 24),
    (b"XK", 20),
    (b"YE", 30),
];

/// The end of the number that begins here: in one piece, or in groups of four.
pub(super) fn find(mut cursor: Cursor<'_>) -> Option<usize> {
    let mut country = [0; 2];
    for letter in &mut country {
        *letter = cursor.next_if(|letter| letter.is_ascii_alphabetic())?.to_ascii_uppercase() as u8;
    }
    let (_, length) = LENGTHS.iter().find(|(code, _)| **code == country)?;
    let mut rest = u32::from(country[0] - b'A' + 10) * 100 + u32::from(country[1] - b'A' + 10);
    let mut check = 0;
    for _ in 0..2 {
        check = check * 10 + cursor.next_if(|letter| letter.is_ascii_digit())?.to_digit(10)?;
    }
    // The country and the check digits count at the end.
    let head = rest * 100 + check;
    rest = 0;
    let mut grouped = None;
    for place in 4..*length {
        if place % 4 == 0 && *grouped.get_or_insert_with(|| is_gap(cursor.peek())) {
            cursor.next_if(|letter| is_gap(Some(letter)))?;
        }
        let letter = cursor.next_if(|letter| letter.is_ascii_alphanumeric())?;
        let value = letter.to_digit(36)?;
        rest = (if value < 10 { rest * 10 } else { rest * 100 } + value) % 97;
    }
    let valid = (rest * 1_000_000 + head) % 97 == 1 && cursor.ends_word();
    valid.then(|| cursor.at())
}

fn is_gap(letter: Option<char>) -> bool {
    matches!(letter, Some(' ' | '-' | '\u{a0}' | '\u{202f}' | '\u{2011}'))
}
