//! Numbers of payment cards: the lengths and first digits that are given out (ISO/IEC 7812), and their check digit.

use super::number::{Gap, Number};

/// The end of the card's number that is the beginning of `number`; the longest.
pub(super) fn find(number: &Number<'_>) -> Option<usize> {
    let found = (1..=number.groups.len()).rev().find(|count| is_card(number, *count))?;
    Some(number.groups[found - 1].end)
}

fn is_card(number: &Number<'_>, count: usize) -> bool {
    let groups = &number.groups[..count];
    if number.plus || !(12..=19).contains(&number.length(count)) {
        return false;
    }
    let is_written_so = match number.only_gap(count) {
        Some(Gap::None) => count == 1,
        Some(Gap::Space | Gap::Dash) => groups.iter().all(|group| group.digits.len() >= 3),
        _ => false,
    };
    let ends = matches!(number.after(count), Ok(None | Some(Gap::Space | Gap::Slash)));
    if !is_written_so || !ends || !number.begins() || groups.iter().any(|group| group.enclosed) {
        return false;
    }
    let digits: String = number.digits(count).map(char::from).collect();
    is_given_out(&digits) && has_check_digit(&digits)
}

/// Whether a card may have so many digits, beginning like this.
fn is_given_out(digits: &str) -> bool {
    let beginning = |length| digits.get(..length).and_then(|digits| digits.parse().ok()).unwrap_or(0_u32);
    match (digits.len(), beginning(4)) {
        // Visa.
        (13 | 16 | 19, 4000..=4999) => true,
        // American Express.
        (15, 3400..=3499 | 3700..=3799) => true,
        // Diners Club.
        (14, 3000..=3059 | 3095 | 3600..=3699 | 3800..=3999) => true,
        // Mastercard and Mir.
        (16, 5100..=5599 | 2200..=2204 | 2221..=2720) => true,
        // Discover, JCB, UnionPay and RuPay.
        (16..=19, 6011 | 6440..=6599 | 3528..=3589 | 6200..=6299 | 8100..=8299) => true,
        (16, 6000..=6099 | 5080..=5089) => true,
        // Maestro.
        (12..=19, 5018 | 5020 | 5038 | 5893 | 6304 | 6390 | 6759 | 6761..=6763) => true,
        _ => false,
    }
}

/// Luhn's check (ISO/IEC 7812-1, annex B).
fn has_check_digit(digits: &str) -> bool {
    let sum: u32 =
        digits.bytes().rev().map(|digit| u32::from(digit - b'0')).enumerate().fold(0, |sum, (place, digit)| {
            let weighed = if place % 2 == 1 { digit * 2 } else { digit };
            sum + weighed / 10 + weighed % 10
        });
    sum.is_multiple_of(10)
}
