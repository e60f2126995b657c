//! Words and phrases that may not be said.

use super::cursor::{Cursor, is_boundary, is_of_word};

/// Keywords, told from the rest of a text as whole words, however they are cased.
#[derive(Debug, Default)]
pub(super) struct Keywords {
    /// In lower case and in order.
    folded: Vec<Vec<char>>,
}

impl Keywords {
    pub(super) fn new(keywords: &[String]) -> Self {
        let fold = |keyword: &String| -> Vec<char> {
            let words: Vec<&str> = keyword.split_whitespace().collect();
            words.join(" ").chars().flat_map(folded).collect()
        };
        let mut folded: Vec<Vec<char>> = keywords.iter().map(fold).filter(|keyword| !keyword.is_empty()).collect();
        folded.sort_unstable();
        folded.dedup();
        Self { folded }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.folded.is_empty()
    }

    /// The end of a keyword that begins here. A blank in one stands for any blanks.
    pub(super) fn find(&self, mut cursor: Cursor<'_>) -> Option<usize> {
        let first = cursor.peek()?;
        if !is_boundary(cursor.before()) && goes_on_with(first) {
            return None;
        }
        // Those that begin with what was read stand side by side.
        let (mut left, mut length) = (&self.folded[..], 0);
        while let Some(letter) = cursor.next() {
            if letter.is_whitespace() {
                while cursor.next_if(char::is_whitespace).is_some() {}
            }
            let blank = letter.is_whitespace().then_some(' ');
            for letter in blank.into_iter().chain(folded(letter).filter(|_| blank.is_none())) {
                let begin = left.partition_point(|keyword| keyword.get(length).is_none_or(|at| *at < letter));
                let end = left.partition_point(|keyword| keyword.get(length).is_none_or(|at| *at <= letter));
                (left, length) = (&left[begin..end], length + 1);
            }
            let whole = left.first()?;
            if whole.len() == length && !(is_of_word(letter) && cursor.peek().is_some_and(goes_on_with)) {
                return Some(cursor.at());
            }
        }
        None
    }
}

/// A character whatever its case is, also at the end of a Greek word.
fn folded(letter: char) -> impl Iterator<Item = char> {
    letter.to_lowercase().map(|letter| if letter == 'ς' { 'σ' } else { letter })
}

/// Whether a word goes on with that character, which may be an accent.
fn goes_on_with(next: char) -> bool {
    is_of_word(next) || ('\u{300}'..='\u{36f}').contains(&next)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn has(keywords: &[&str], text: &str) -> bool {
        let keywords = Keywords::new(&keywords.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>());
        let short = Cell::new(false);
        text.char_indices().any(|(at, _)| keywords.find(Cursor::new(text, at, true, &short)).is_some())
    }

    #[test]
    fn whole_words_are_found_however_they_are_cased() {
        let keywords = ["Titan", "project  falcon", "ÄRGER", "c++", "#secret", "机密", "Σίσυφος"];
        for text in [
            "titan",
            "the TITAN.",
            "Titan's",
            "a_titan_b",
            "Project\n  Falcon!",
            "kein ärger",
            "in C++ and",
            "x #SECRET x",
            "这是机密文件",
            "ΣΊΣΥΦΟΣ",
            "titan titanic",
            "\\ntitan",
        ] {
            assert!(has(&keywords, text), "{text}");
        }
        for text in [
            "titanic",
            "xtitan",
            "titan7",
            "projectfalcon",
            "ärgerlich",
            "c+",
            "c",
            "secret",
            "机 密",
            "titan\u{301}",
            "",
        ] {
            assert!(!has(&keywords, text), "{text}");
        }
        assert!(Keywords::new(&[" ".to_owned()]).is_empty());
    }

    #[test]
    fn of_keywords_that_begin_alike_each_is_found() {
        let keywords = ["red", "red team", "red teams", "redder"];
        for text in ["red", "a red-herring", "red team", "red teaming", "redder"] {
            assert!(has(&keywords, text), "{text}");
        }
        assert!(!has(&["red team"], "red teaming"));
    }
}
