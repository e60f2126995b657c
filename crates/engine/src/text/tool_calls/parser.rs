//! An answer's text on its way to contents and calls, a character at a time.
//!
//! Owns what is held back until it is known for the one or the other. Every character of an answer is content, part of a
//! call, or written around a call as its format has it; what begins like a call and is none is content after all. Nothing
//! depends on the pieces in which the text comes.

use std::sync::Arc;

use super::Shape;
use super::object::Progress;
use super::python::{PythonCalls, PythonProgress};
use super::written::WrittenCall;

/// How calls are written in one format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Syntax {
    /// What announces a call. Its first character stands in it once, or it is all of the same character.
    pub(super) opener: &'static str,
    /// What follows the calls that an opener announces.
    pub(super) closer: Option<&'static str>,
    /// How one call is written.
    pub(super) shape: Shape,
    /// A word may stand behind the opener.
    pub(super) tagged: bool,
    /// A call needs no opener.
    pub(super) bare: bool,
    /// Calls may stand in a list.
    pub(super) lists: bool,
    /// What may stand between calls, besides white space.
    pub(super) separators: &'static str,
    /// Calls may be written as in Python.
    pub(super) pythonic: bool,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallEvent {
    /// Text for whoever asked.
    Content(String),
    /// A call begins.
    Begin {
        /// The function: one of those that can be called.
        name: String,
    },
    /// More of the arguments of the call that began last: JSON.
    Arguments(String),
    /// The arguments of the call that began last are complete.
    End,
}

/// Parses one answer.
#[derive(Clone, Debug)]
pub struct CallParser {
    syntax: Syntax,
    functions: Arc<[String]>,
    /// What an answer begins with that is calls, where any other is content and nothing else.
    heads: Vec<String>,
    /// Calls that may still come.
    left: usize,
    state: State,
    /// Text that may still become markup. It is content if it does not.
    held: String,
    /// Where in `held` an opener or closer begins; its length if none has begun.
    mark: usize,
    /// A call has come.
    called: bool,
    /// How what is being read was announced, until it is a call.
    announced: Announced,
    /// How the last call was announced, as far as that is not closed.
    open: Announced,
    events: Vec<CallEvent>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Announced {
    opener: bool,
    list: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// In front of what shows whether the answer is calls.
    Undecided,
    /// In an answer that is no calls.
    Plain,
    /// In a text.
    Text,
    /// In front of everything, or behind a call: white space is no text yet.
    Between,
    /// Behind what announces a call.
    Announced,
    /// In something that is a call or may be one.
    Call(Box<WrittenCall>),
    /// In calls that are written as in Python.
    Python(PythonCalls),
}

impl CallParser {
    pub(super) fn new(syntax: Syntax, functions: Arc<[String]>, most_calls: usize) -> Self {
        Self {
            syntax,
            functions,
            heads: Vec::new(),
            left: most_calls,
            state: State::Between,
            held: String::new(),
            mark: 0,
            called: false,
            announced: Announced::default(),
            open: Announced::default(),
            events: Vec::new(),
        }
    }

    /// The same for answers that are calls if they begin with one of these, and else content as a whole.
    #[must_use]
    pub fn deciding(self, heads: Vec<String>) -> Self {
        Self { heads, state: State::Undecided, ..self }
    }

    /// The next piece of the answer; what is certain by it.
    pub fn push(&mut self, piece: &str) -> Vec<CallEvent> {
        self.take_all(piece);
        std::mem::take(&mut self.events)
    }

    fn take_all(&mut self, text: &str) {
        for c in text.chars() {
            // What breaks something is looked at again, as text.
            while !self.take(c) {}
        }
    }

    /// The end of the answer.
    pub fn finish(&mut self) -> Vec<CallEvent> {
        let state = std::mem::replace(&mut self.state, State::Text);
        match state {
            State::Call(call) if call.is_begun() => {
                if call.is_whole() {
                    self.events.push(CallEvent::End);
                }
            }
            // White space and what belongs around calls, but for an opener that has only begun.
            State::Between if self.called => {
                let begun = self.held.split_off(self.mark);
                let closes = self.syntax.closer.is_some_and(|closer| self.open.opener && closer.starts_with(&begun));
                self.held = if closes { String::new() } else { begun };
                self.held_is_content();
            }
            _ => self.held_is_content(),
        }
        std::mem::take(&mut self.events)
    }

    /// Takes a character; false where it is to be looked at again.
    fn take(&mut self, c: char) -> bool {
        match &mut self.state {
            State::Undecided => self.decide(c),
            State::Plain => self.content(c),
            State::Text | State::Between => self.seek(c),
            State::Announced => self.behind_announcement(c),
            State::Call(call) => {
                let progress = call.push(c, &self.functions);
                self.call(c, progress)
            }
            State::Python(calls) => match calls.push(c, &self.functions) {
                PythonProgress::Undecided => self.hold(c),
                PythonProgress::Rejected => self.reject(),
                PythonProgress::Calls(calls) if calls.len() > self.left => self.reject(),
                PythonProgress::Calls(calls) => {
                    for call in calls {
                        self.begin(call.name, call.arguments);
                        self.end();
                    }
                    self.open.list = false;
                    true
                }
            },
        }
    }

    /// Whether the answer is calls shows in how it begins.
    fn decide(&mut self, c: char) -> bool {
        self.held.push(c);
        if self.heads.contains(&self.held) {
            self.state = State::Between;
            let head = std::mem::take(&mut self.held);
            self.take_all(&head);
        } else if !self.heads.iter().any(|head| head.starts_with(&self.held)) {
            self.held_is_content();
            self.state = State::Plain;
        }
        true
    }

    /// Looks for what announces a call, or for what belongs behind one.
    fn seek(&mut self, c: char) -> bool {
        let between = matches!(self.state, State::Between);
        let closer = self.syntax.closer.filter(|_| between && self.open.opener);
        let opener = Some(self.syntax.opener).filter(|_| self.left > 0);
        let begun = &self.held[self.mark..];
        let goes_on = |mark: &&str| mark.strip_prefix(begun).is_some_and(|rest| rest.starts_with(c));
        // Where both are the same, the open one is closed first.
        if let Some(mark) = closer.filter(&goes_on).or(opener.filter(&goes_on)) {
            let (complete, closes) = (mark.len() == begun.len() + c.len_utf8(), closer == Some(mark));
            self.held.push(c);
            match complete {
                true if closes => self.separated(|open| open.opener = false),
                true => self.announce(Announced { opener: true, list: false }),
                false => {}
            }
            return true;
        }
        if !begun.is_empty() {
            return self.reject();
        }
        let inside = between && self.open.list;
        match c {
            '{' if self.left > 0 && (self.syntax.bare || inside) => self.begin_call(),
            '[' if self.left > 0 && self.syntax.bare && self.syntax.lists && !inside => {
                self.announce(Announced { opener: false, list: true });
                self.hold(c)
            }
            ']' if inside => {
                self.separated(|open| open.list = false);
                true
            }
            c if between && (c.is_whitespace() || (self.called && self.syntax.separators.contains(c))) => {
                self.hold(c);
                self.mark = self.held.len();
                true
            }
            _ => {
                self.held_is_content();
                self.state = State::Text;
                self.content(c)
            }
        }
    }

    /// What stands between calls is no content.
    fn separated(&mut self, close: impl FnOnce(&mut Announced)) {
        self.held.clear();
        self.mark = 0;
        close(&mut self.open);
    }

    fn announce(&mut self, announced: Announced) {
        self.announced = announced;
        self.state = State::Announced;
    }

    /// Behind an opener or the bracket of a list.
    fn behind_announcement(&mut self, c: char) -> bool {
        let behind_opener = self.announced.opener && !self.announced.list;
        match (self.syntax.shape, c) {
            (Shape::Named { .. }, c) if !c.is_whitespace() => return self.begin_call(),
            (Shape::Object { .. }, '{') => return self.begin_call(),
            _ => {}
        }
        match c {
            '[' if behind_opener && self.syntax.lists => {
                self.announced.list = true;
                self.hold(c)
            }
            ' ' | '\t' | '\n' | '\r' => self.hold(c),
            c if behind_opener && self.syntax.tagged && c.is_ascii_lowercase() && self.is_word() => self.hold(c),
            _ if self.syntax.pythonic => {
                self.state = State::Python(PythonCalls::new(self.announced.list));
                false
            }
            _ => self.reject(),
        }
    }

    /// Whether no white space stands behind the opener yet.
    fn is_word(&self) -> bool {
        !self.held.ends_with(char::is_whitespace)
    }

    fn begin_call(&mut self) -> bool {
        self.state = State::Call(Box::new(WrittenCall::new(self.syntax)));
        false
    }

    fn call(&mut self, c: char, progress: Progress) -> bool {
        match progress {
            Progress::Undecided | Progress::Markup => self.hold(c),
            Progress::Rejected => self.reject(),
            Progress::Begins { name, arguments } => {
                let over = matches!(&self.state, State::Call(call) if call.is_over());
                self.begin(name, arguments);
                if over {
                    self.end();
                }
                true
            }
            Progress::Argument => {
                self.arguments(c);
                if matches!(&self.state, State::Call(call) if call.is_over()) {
                    self.end();
                }
                true
            }
            Progress::Ends => {
                self.end();
                true
            }
            Progress::Broken => {
                if matches!(&self.state, State::Call(call) if call.is_whole()) {
                    self.events.push(CallEvent::End);
                }
                self.reject()
            }
        }
    }

    fn hold(&mut self, c: char) -> bool {
        self.held.push(c);
        true
    }

    /// What is held is no markup; the character that showed it is looked at again.
    fn reject(&mut self) -> bool {
        self.held_is_content();
        self.announced = Announced::default();
        self.open = Announced::default();
        self.state = State::Text;
        false
    }

    fn begin(&mut self, name: String, arguments: String) {
        self.held.clear();
        self.mark = 0;
        self.called = true;
        self.left -= 1;
        self.open.opener |= self.announced.opener;
        self.open.list |= self.announced.list;
        self.announced = Announced::default();
        self.events.push(CallEvent::Begin { name });
        self.events.push(CallEvent::Arguments(arguments));
    }

    fn end(&mut self) {
        self.held.clear();
        self.events.push(CallEvent::End);
        self.state = State::Between;
    }

    fn arguments(&mut self, c: char) {
        match self.events.last_mut() {
            Some(CallEvent::Arguments(text)) => text.push(c),
            _ => self.events.push(CallEvent::Arguments(c.to_string())),
        }
    }

    fn content(&mut self, c: char) -> bool {
        match self.events.last_mut() {
            Some(CallEvent::Content(text)) => text.push(c),
            _ => self.events.push(CallEvent::Content(c.to_string())),
        }
        true
    }

    fn held_is_content(&mut self) {
        let held = std::mem::take(&mut self.held);
        self.mark = 0;
        match self.events.last_mut() {
            _ if held.is_empty() => {}
            Some(CallEvent::Content(text)) => text.push_str(&held),
            _ => self.events.push(CallEvent::Content(held)),
        }
    }
}
