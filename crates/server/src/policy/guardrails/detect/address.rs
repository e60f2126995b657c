//! IP addresses, and not what looks like them: versions, times, paths of code.

use std::net::Ipv6Addr;

use super::LOOK_BEHIND;
use crate::policy::guardrails::cursor::Cursor;

/// Words after which four numbers are a version.
const VERSIONS: [&str; 7] = ["version", "ver", "ver.", "v.", "release", "build", "firmware"];

/// The end of the IPv4 address that begins here.
pub(super) fn find_v4(mut cursor: Cursor<'_>) -> Option<usize> {
    let before = cursor.before();
    for place in 0..4 {
        if place > 0 {
            cursor.next_if(|letter| letter == '.')?;
        }
        let begin = cursor.at();
        cursor.skip(4, |letter| letter.is_ascii_digit());
        let number = cursor.since(begin);
        let is_octet = number.parse::<u8>().is_ok() && (number == "0" || !number.starts_with('0'));
        if !is_octet {
            return None;
        }
    }
    (ends_address(cursor.clone()) && !is_version(before)).then(|| cursor.at())
}

/// Whether no longer row of numbers and no name of a file goes on here.
fn ends_address(mut cursor: Cursor<'_>) -> bool {
    match cursor.next() {
        Some('.') => !cursor.peek().is_some_and(char::is_alphanumeric),
        Some('-') => !cursor.peek().is_some_and(char::is_alphabetic),
        Some(next) => !next.is_alphanumeric() && next != '_',
        None => true,
    }
}

/// Bytes before an address in which a word is looked for.
const WORD_BEFORE: usize = LOOK_BEHIND - 8;

/// Whether what goes before says that a version follows, or that this is the rest of a longer name.
fn is_version(before: &str) -> bool {
    let before = &before[before.ceil_char_boundary(before.len().saturating_sub(WORD_BEFORE))..];
    let mut letters = before.chars().rev();
    match (letters.next(), letters.next()) {
        (Some('.'), Some(other)) if other.is_alphanumeric() => return true,
        (Some('-' | '/' | '_'), Some(other)) if other.is_alphabetic() => return true,
        _ => {}
    }
    let word = before.trim_end_matches([' ', ':', '=', '"']);
    let word = word.rsplit(|letter: char| !letter.is_alphanumeric() && letter != '.').next().unwrap_or_default();
    word.len() < before.len() && VERSIONS.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Longest text of an IPv6 address.
const LONGEST: usize = 45;

/// The end of the IPv6 address that begins here.
pub(super) fn find_v6(mut cursor: Cursor<'_>) -> Option<usize> {
    if cursor.before().ends_with(':') {
        return None;
    }
    let begin = cursor.at();
    cursor.skip(LONGEST, |letter| letter.is_ascii_hexdigit() || matches!(letter, ':' | '.'));
    let text = cursor.since(begin);
    if text.len() == LONGEST || !cursor.ends_word() {
        return None;
    }
    // What ends a sentence is no part of it.
    let shorter = [text, text.strip_suffix(['.', ':']).unwrap_or(text)];
    let address = shorter.into_iter().find(|text| text.parse::<Ipv6Addr>().is_ok())?;
    let pieces: Vec<&str> = address.split(':').collect();
    let is_compressed = address.contains("::");
    // `a::b` is a path of code, and eight pairs are a hardware address.
    let is_path = is_compressed && !address.contains(|letter: char| letter.is_ascii_digit());
    let is_hardware = !is_compressed && pieces.iter().all(|piece| piece.len() == 2);
    (!is_path && !is_hardware).then(|| begin + address.len())
}
