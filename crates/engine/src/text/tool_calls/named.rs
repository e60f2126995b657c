//! One call that is written as a name, a mark and a JSON object, read a character at a time: `name[ARGS]{...}`.
//!
//! Owns what may stand between the name and its arguments. Must not know what announces the call.

use super::json::JsonScanner;
use super::object::Progress;

/// Longest id of a call, which may stand in front of the arguments.
const LONGEST_ID: usize = 64;

/// A text that may be a call.
#[derive(Clone, Debug)]
pub(super) struct NamedCall {
    /// In front of an id.
    id: &'static str,
    /// In front of the arguments.
    arguments: &'static str,
    /// Everything in front of the arguments.
    text: String,
    /// In the arguments, once they have begun.
    scanner: Option<JsonScanner>,
}

impl NamedCall {
    /// Behind what announces a call; these marks stand in front of an id and of the arguments.
    pub(super) fn new(id: &'static str, arguments: &'static str) -> Self {
        Self { id, arguments, text: String::new(), scanner: None }
    }

    /// The next character. `functions` are the names that can be called.
    pub(super) fn push(&mut self, c: char, functions: &[String]) -> Progress {
        if let Some(scanner) = &mut self.scanner {
            return if scanner.push(c).is_some() { Progress::Argument } else { Progress::Broken };
        }
        if c == '{'
            && let Some(name) = self.name(functions)
        {
            let mut scanner = JsonScanner::default();
            scanner.push(c);
            self.scanner = Some(scanner);
            return Progress::Begins { name, arguments: c.to_string() };
        }
        self.text.push(c);
        if functions.iter().any(|name| self.goes_on(name)) { Progress::Undecided } else { Progress::Rejected }
    }

    /// The function, where nothing but its arguments is missing.
    fn name(&self, functions: &[String]) -> Option<String> {
        let head = self.text.strip_suffix(self.arguments)?;
        let head = head.split_once(self.id).map_or(head, |(name, _)| name);
        functions.iter().find(|name| *name == head).cloned()
    }

    /// Whether what has come can still become a call of this function.
    fn goes_on(&self, name: &str) -> bool {
        let begins = |text: &str, mark: &str| mark.starts_with(text);
        let Some(rest) = self.text.strip_prefix(name) else { return name.starts_with(&self.text) };
        match rest.strip_prefix(self.id) {
            None => begins(rest, self.arguments) || begins(rest, self.id),
            Some(rest) => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
                end <= LONGEST_ID && begins(&rest[end..], self.arguments) && (end > 0 || rest.is_empty())
            }
        }
    }

    /// Whether it is known for a call.
    pub(super) fn is_begun(&self) -> bool {
        self.scanner.is_some()
    }

    /// Whether the closing brace has come.
    pub(super) fn is_over(&self) -> bool {
        self.scanner.as_ref().is_some_and(|scanner| scanner.depth() == 0)
    }
}
