//! E-mail addresses (RFC 5321 and 6531, but for quoted and rarely seen local parts, and for scripts without
//! blanks, where nobody could tell where one begins).

use crate::policy::guardrails::cursor::{Cursor, is_of_word};

/// Longest local part, label and domain, in characters (RFC 5321, 4.5.3.1; RFC 1035, 2.3.4).
const LOCAL: usize = 64;
const DOMAIN_LABEL: usize = 63;
const DOMAIN: usize = 253;

/// Endings of files' names that are no top-level domains: `icon@2x.png` is no address.
const FILES: [&str; 10] = ["png", "jpg", "jpeg", "gif", "svg", "webp", "css", "js", "html", "json"];

/// The end of the address that begins here.
pub(super) fn find(mut cursor: Cursor<'_>) -> Option<usize> {
    let begin = cursor.at();
    // One more than may be, to see that it is too long.
    let length =
        cursor.skip(LOCAL + 1, |letter| is_of_word(letter) || matches!(letter, '.' | '_' | '%' | '+' | '-' | '\''));
    if length > LOCAL || cursor.since(begin).ends_with('.') {
        return None;
    }
    cursor.next_if(|letter| letter == '@')?;
    domain(cursor)
}

/// The end of the longest domain name with a top-level domain that begins here.
fn domain(mut cursor: Cursor<'_>) -> Option<usize> {
    let (begin, mut end) = (cursor.at(), None);
    for place in 0.. {
        let label = cursor.at();
        let letters = cursor.skip(DOMAIN_LABEL, |letter| letter.is_alphabetic() && is_of_word(letter));
        if place > 0 && letters >= 2 && cursor.ends_word() && !is_file(cursor.since(label)) {
            end = Some(cursor.at());
        }
        cursor.skip(DOMAIN_LABEL - letters, |letter| is_of_word(letter) || letter == '-');
        let text = cursor.since(label);
        if place > 0 && text.len() > 4 && text.starts_with("xn--") && cursor.ends_word() {
            end = Some(cursor.at());
        }
        let is_label = !text.is_empty() && !text.starts_with('-') && !text.ends_with('-');
        if !is_label || cursor.at() - begin > DOMAIN || cursor.next_if(|letter| letter == '.').is_none() {
            break;
        }
    }
    end
}

fn is_file(ending: &str) -> bool {
    FILES.iter().any(|known| ending.eq_ignore_ascii_case(known))
}
