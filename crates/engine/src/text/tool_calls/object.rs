//! One call that is written as a JSON object, read a character at a time: its name and its arguments.
//!
//! Owns which keys a call has. Must not know what stands around the object.

use std::ops::Range;

use super::json::{JsonScanner, Seen};

/// What one more character of an object has made certain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing yet.
    Undecided,
    /// It is no call, or no JSON.
    Rejected,
    /// It is a call of this function, and so much is known of its arguments.
    Begins {
        /// The function.
        name: String,
        /// JSON, whole or the beginning of it.
        arguments: String,
    },
    /// The character belongs to the arguments.
    Argument,
    /// The character belongs to what is written around the arguments.
    Markup,
    /// The object of a call that has begun is complete.
    Ends,
    /// The object of a call that has begun is broken by this character.
    Broken,
}

/// The key whose value is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Key {
    #[default]
    Other,
    Name,
    Arguments,
}

/// An object that may be a call.
#[derive(Clone, Debug, Default)]
pub(super) struct CallObject {
    /// The name comes first.
    name_first: bool,
    scanner: JsonScanner,
    /// Everything so far, until it is a call.
    text: String,
    /// Where the key or value of the outer object that is being read begins.
    begins: usize,
    key: Key,
    name: Option<String>,
    arguments: Arguments,
    is_call: bool,
}

/// What is known of the arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Arguments {
    #[default]
    Absent,
    /// Being read, from this place of the text on.
    Open(usize),
    /// Read.
    Whole(Range<usize>),
}

impl CallObject {
    /// An object whose name may have to come before its arguments.
    pub(super) fn new(name_first: bool) -> Self {
        Self { name_first, ..Self::default() }
    }

    /// The next character, the opening brace first. `functions` are the names that can be called.
    pub(super) fn push(&mut self, c: char, functions: &[String]) -> Progress {
        let before = self.scanner.depth();
        let Some(seen) = self.scanner.push(c) else {
            return if self.is_call { Progress::Broken } else { Progress::Rejected };
        };
        let depth = self.scanner.depth();
        if self.is_call {
            return self.goes_on(seen, depth);
        }
        let at = self.text.len();
        self.text.push(c);
        match seen {
            _ if depth == 0 => return self.ends_undecided(),
            Seen::KeyBegins if depth == 1 => self.begins = at,
            Seen::KeyEnds if depth == 1 && !self.take_key() => return Progress::Rejected,
            Seen::ValueBegins if before == 1 => return self.value_begins(at, c),
            Seen::ValueEnds if depth == 1 => return self.value_ends(functions),
            _ => {}
        }
        Progress::Undecided
    }

    /// Whether it is known for a call.
    pub(super) fn is_begun(&self) -> bool {
        self.is_call
    }

    /// Whether the arguments are whole.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self.arguments, Arguments::Whole(_))
    }

    fn goes_on(&mut self, seen: Seen, depth: usize) -> Progress {
        match self.arguments {
            Arguments::Open(at) => {
                if seen == Seen::ValueEnds && depth == 1 {
                    self.arguments = Arguments::Whole(at..at);
                }
                Progress::Argument
            }
            _ if depth == 0 => Progress::Ends,
            _ => Progress::Markup,
        }
    }

    /// Takes note of a key; false if a call has no such key. So a JSON answer is known for one by its first key.
    fn take_key(&mut self) -> bool {
        let key = self.text.get(self.begins + 1..self.text.len() - 1).unwrap_or_default();
        self.key = match key {
            "name" if self.name.is_none() => Key::Name,
            "arguments" | "parameters" if self.arguments == Arguments::Absent => {
                if self.name_first && self.name.is_none() {
                    return false;
                }
                Key::Arguments
            }
            "type" | "id" => Key::Other,
            _ => return false,
        };
        true
    }

    fn value_begins(&mut self, at: usize, c: char) -> Progress {
        self.begins = at;
        match (self.key, c) {
            (Key::Name | Key::Other, '"') => Progress::Undecided,
            (Key::Arguments, '{') => {
                self.arguments = Arguments::Open(at);
                self.decided().unwrap_or(Progress::Undecided)
            }
            _ => Progress::Rejected,
        }
    }

    fn value_ends(&mut self, functions: &[String]) -> Progress {
        match self.key {
            Key::Other => Progress::Undecided,
            Key::Arguments => {
                self.arguments = Arguments::Whole(self.begins..self.text.len());
                Progress::Undecided
            }
            Key::Name => {
                // Names need no escapes, so that none is read in which the grammar would not see one.
                let name = &self.text[self.begins + 1..self.text.len() - 1];
                match functions.iter().find(|function| *function == name) {
                    Some(name) => {
                        self.name = Some(name.clone());
                        self.decided().unwrap_or(Progress::Undecided)
                    }
                    None => Progress::Rejected,
                }
            }
        }
    }

    /// It is a call once its name is known and its arguments have begun.
    fn decided(&mut self) -> Option<Progress> {
        let range = match &self.arguments {
            Arguments::Absent => return None,
            Arguments::Open(at) => *at..self.text.len(),
            Arguments::Whole(range) => range.clone(),
        };
        let name = self.name.clone()?;
        self.is_call = true;
        Some(Progress::Begins { name, arguments: self.text[range].to_owned() })
    }

    /// A name without arguments calls a function that takes none.
    fn ends_undecided(&mut self) -> Progress {
        match self.name.clone() {
            Some(name) => {
                self.is_call = true;
                self.arguments = Arguments::Whole(0..0);
                Progress::Begins { name, arguments: "{}".to_owned() }
            }
            None => Progress::Rejected,
        }
    }

    /// Whether the closing brace has come.
    pub(super) fn is_over(&self) -> bool {
        self.scanner.depth() == 0
    }
}
