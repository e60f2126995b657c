//! Social security numbers of the United States, of areas, groups and serials that are given out.

use super::number::{Gap, Number};

/// The end of the number, where `number` begins with one.
pub(super) fn find(number: &Number<'_>) -> Option<usize> {
    let [area, group, serial, ..] = number.groups[..] else { return None };
    let groups = [area, group, serial];
    let lengths = groups.map(|group| group.digits.len());
    if number.plus || lengths != [3, 2, 4] || groups.iter().any(|group| group.enclosed) || !number.begins() {
        return None;
    }
    let stands_alone = match (number.only_gap(3), number.after(3)) {
        (Some(Gap::Dash), Ok(None | Some(Gap::Space | Gap::Slash))) => true,
        // Rows of numbers have blanks between them too.
        (Some(Gap::Space), Ok(None)) => !number.follows_digits(),
        _ => false,
    };
    let is_given_out = !matches!(area.digits, "000" | "666")
        && !area.digits.starts_with('9')
        && group.digits != "00"
        && serial.digits != "0000";
    (stands_alone && is_given_out).then_some(serial.end)
}
