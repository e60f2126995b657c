//! Telephone numbers: with a country's code, and in the national forms that are told from other numbers by how they are
//! grouped. Digits in one piece are none: they may be anything.

use super::number::{Gap, Group, Number};

/// The end of the telephone number that is the beginning of `number`; the longest.
pub(super) fn find(number: &Number<'_>) -> Option<usize> {
    if !number.begins() {
        return None;
    }
    let found = (1..=number.groups.len()).rev().find(|count| is_phone(number, *count))?;
    Some(number.groups[found - 1].end)
}

fn is_phone(number: &Number<'_>, count: usize) -> bool {
    let Ok(next) = number.after(count) else { return false };
    let groups = &number.groups[..count];
    if number.plus {
        return is_international(number, count, next);
    }
    // Of a row of numbers that one begins with a zero means nothing.
    if groups[0].digits.starts_with('0') && number.follows_digits() {
        return false;
    }
    if groups[0].digits.starts_with("00") {
        let is_code = groups[0].digits.as_bytes().get(2) != Some(&b'0');
        return count > 1 && next.is_none() && is_code && (11..=17).contains(&number.length(count));
    }
    // Of what goes on after a dash or a dot this is but a part.
    if matches!(next, Some(Gap::Dash | Gap::Dot | Gap::None)) {
        return false;
    }
    is_north_american(groups) || is_with_trunk_zero(groups, next.is_none()) || is_of_another_form(groups)
}

/// Up to 15 digits (ITU-T E.164); those of North America are 11.
fn is_international(number: &Number<'_>, count: usize, next: Option<Gap>) -> bool {
    let length = number.length(count);
    match number.digits(count).next() {
        Some(b'1') => length == 11 && !matches!(next, Some(Gap::None | Gap::Dash | Gap::Dot)),
        Some(b'2'..=b'9') => (8..=15).contains(&length),
        _ => false,
    }
}

/// `415-555-2671`, `(415) 555-2671`, `1 415 555 2671`.
fn is_north_american(groups: &[Group<'_>]) -> bool {
    let groups = match groups {
        [Group { digits: "1", enclosed: false, .. }, rest @ ..] => rest,
        all => all,
    };
    match groups {
        [area, exchange, line] => {
            let are_gaps = match (exchange.gap, line.gap) {
                (Gap::Slash | Gap::None | Gap::Space, Gap::Dash) => true,
                (first, Gap::Space | Gap::Dot | Gap::Dash) => first == line.gap || area.enclosed,
                _ => false,
            };
            are_gaps && is_area(area.digits) && is_exchange(exchange.digits) && line.digits.len() == 4
        }
        [area, rest] if area.enclosed => {
            is_area(area.digits) && rest.digits.len() == 7 && is_exchange(&rest.digits[..3])
        }
        _ => false,
    }
}

/// Of the areas that end in two zeros only those of services are given out.
fn is_area(digits: &str) -> bool {
    is_exchange(digits)
        && digits.as_bytes()[1] != b'9'
        && (!digits.ends_with("00") || matches!(digits, "500" | "700" | "800" | "900"))
}

fn is_exchange(digits: &str) -> bool {
    digits.len() == 3 && matches!(digits.as_bytes()[0], b'2'..=b'9') && !digits.ends_with("11")
}

/// `030 1234567`, `020 7946 0958`, `(0161) 496 0000`, `06 12 34 56 78`: the zero stands before an area's code. `is_alone`:
/// no digits follow.
fn is_with_trunk_zero(groups: &[Group<'_>], is_alone: bool) -> bool {
    let [area, rest @ ..] = groups else { return false };
    let count: usize = groups.iter().map(|group| group.digits.len()).sum();
    let is_area = area.digits.starts_with('0') && (2..=5).contains(&area.digits.len());
    // Anything may divide the area from the rest, which is divided in one way.
    let last = rest.last().map_or(Gap::None, |group| group.gap);
    let is_divided_alike = rest.iter().skip(1).all(|group| group.gap == last && last != Gap::Slash);
    if !is_area || rest.is_empty() || !is_divided_alike || !(9..=12).contains(&count) {
        return false;
    }
    let pairs = groups.iter().filter(|group| group.digits.len() == 2).count();
    if area.digits.len() == 2 && rest[0].digits.len() == 2 {
        // Pairs throughout are a French number, or a row of numbers, which is longer.
        return pairs == 5 && groups.len() == 5 && is_alone;
    }
    rest.iter().all(|group| group.digits.len() >= 2)
        && groups.len() <= 5
        && (rest.len() > 1 || rest[0].digits.len() >= 5)
}

/// Forms of other countries, by the lengths of their groups.
fn is_of_another_form(groups: &[Group<'_>]) -> bool {
    let are = |lengths: &[usize]| groups.iter().map(|group| group.digits.len()).eq(lengths.iter().copied());
    let dashed = |from: usize| groups[from..].iter().all(|group| group.gap == Gap::Dash);
    let first = groups[0].digits;
    // Russia: 8 (495) 123-45-67.
    let is_russian = first == "8" && are(&[1, 3, 3, 2, 2]) && dashed(3);
    // China: 138 0013 8000.
    let is_alike = |gap| gap != Gap::Slash && groups[1].gap == gap;
    let is_chinese = first.starts_with('1') && first >= "13" && are(&[3, 4, 4]) && is_alike(groups[2].gap);
    // Brazil: (11) 91234-5678.
    let is_brazilian = groups[0].enclosed && (are(&[2, 5, 4]) || are(&[2, 4, 4])) && dashed(2);
    is_russian || is_chinese || is_brazilian
}
