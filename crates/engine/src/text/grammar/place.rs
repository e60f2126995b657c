//! A place in a grammar: what may come next, and how a token goes on from there.
//!
//! Owns what is not one grammar's alone: text that is free until something begins in it, and answers that are one of two
//! things. In free text nothing is computed: while no call has begun, the mask is always the same one.

use std::sync::{Arc, Mutex, PoisonError};

use hearth_sampler::TokenSet;
use llguidance::Matcher;
use llguidance::derivre::{Regex, StateID};
use llguidance::toktrie::{SimpleVob, TokEnv, TokTrie};

use super::GrammarError;

/// A place in an answer.
pub(super) enum Place {
    /// In a grammar, to the end.
    Held(Box<Matcher>),
    /// In a text in which something may begin.
    Free(Box<FreeText>),
    /// Where an answer may still become one of two things.
    Either(Box<Either>),
}

impl Place {
    /// The tokens that may come next.
    pub(super) fn mask(&mut self) -> Result<Arc<TokenSet>, GrammarError> {
        match self {
            Self::Held(matcher) => Ok(Arc::new(token_set(&computed(matcher)?))),
            Self::Free(text) => text.mask(),
            Self::Either(either) => Ok(Arc::new(token_set(&either.mask()?))),
        }
    }

    /// The same, where it need not be computed.
    pub(super) fn known_mask(&self) -> Option<Arc<TokenSet>> {
        match self {
            Self::Free(text) if text.taken == 0 => Some(Arc::clone(&text.free)),
            _ => None,
        }
    }

    /// Goes on by a token that the mask allows; `None` where nothing can follow it.
    pub(super) fn commit(self, token: u32) -> Result<Option<Self>, GrammarError> {
        let place = match self {
            Self::Held(mut matcher) => {
                matcher.consume_token(token).map_err(|error| GrammarError::failed(&error))?;
                Self::Held(matcher)
            }
            Self::Free(text) => text.commit(token)?,
            Self::Either(either) => either.commit(token)?,
        };
        let ended = matches!(&place, Self::Held(matcher) if matcher.is_stopped());
        Ok((!ended).then_some(place))
    }

    /// A copy that shares nothing that changes what is said.
    pub(super) fn copied(&self) -> Self {
        match self {
            Self::Held(matcher) => Self::Held(Box::new(matcher.deep_clone())),
            Self::Free(text) => Self::Free(Box::new(text.copied())),
            Self::Either(either) => Self::Either(Box::new(either.copied())),
        }
    }
}

fn computed(matcher: &mut Matcher) -> Result<SimpleVob, GrammarError> {
    matcher.compute_mask().map_err(|error| GrammarError::failed(&error))
}

fn token_set(mask: &SimpleVob) -> TokenSet {
    TokenSet::from_words(mask.as_slice().to_vec())
}

/// Text in which a trigger or a special token begins something. As long as nothing of either is there, every text is as good
/// as none, and the matcher stays where it is; it takes what may be the beginning of a trigger, and gives it back.
pub(super) struct FreeText {
    /// In front of everything, but for the tokens that were taken.
    matcher: Box<Matcher>,
    taken: usize,
    /// Shared, since it grows as it is used; what it says does not change. `None` where only tokens begin something.
    trigger: Option<Arc<Mutex<Regex>>>,
    /// Where the trigger is, and where it is when no text of it is there.
    at: StateID,
    rest: StateID,
    /// What may come where nothing has begun.
    free: Arc<TokenSet>,
    vocabulary: TokEnv,
}

/// What a piece of text does to a trigger.
enum Seen {
    Nothing,
    Beginning,
    Whole,
}

impl FreeText {
    /// A text that is held to the matcher's grammar, and is free in front of the first match of `trigger`.
    pub(super) fn new(
        mut matcher: Box<Matcher>,
        trigger: Option<&str>,
        vocabulary: TokEnv,
    ) -> Result<Self, GrammarError> {
        let free = Arc::new(token_set(&computed(&mut matcher)?));
        let trigger = trigger.map(Regex::new).transpose().map_err(|error| GrammarError::refused(&error))?;
        let (at, trigger) = match trigger {
            Some(mut regex) => (regex.initial_state(), Some(Arc::new(Mutex::new(regex)))),
            None => (StateID::DEAD, None),
        };
        Ok(Self { matcher, taken: 0, trigger, at, rest: at, free, vocabulary })
    }

    fn mask(&mut self) -> Result<Arc<TokenSet>, GrammarError> {
        match self.taken {
            0 => Ok(Arc::clone(&self.free)),
            _ => Ok(Arc::new(token_set(&computed(&mut self.matcher)?))),
        }
    }

    /// Goes on. From where something has begun, the grammar alone says what may come.
    fn commit(mut self: Box<Self>, token: u32) -> Result<Place, GrammarError> {
        let vocabulary = Arc::clone(&self.vocabulary);
        let bytes = vocabulary.tok_trie().token(token);
        let seen = match bytes.first() {
            Some(&TokTrie::SPECIAL_TOKEN_MARKER) | None => Seen::Whole,
            _ => self.look(bytes),
        };
        if self.taken == 0 && matches!(seen, Seen::Nothing) {
            return Ok(Place::Free(self));
        }
        self.matcher.consume_token(token).map_err(|error| GrammarError::failed(&error))?;
        self.taken += 1;
        match seen {
            Seen::Beginning => {}
            Seen::Nothing => {
                self.matcher.rollback(self.taken).map_err(|error| GrammarError::failed(&error))?;
                self.taken = 0;
            }
            Seen::Whole => return Ok(Place::Held(self.matcher)),
        }
        Ok(Place::Free(self))
    }

    fn look(&mut self, bytes: &[u8]) -> Seen {
        let Some(trigger) = &self.trigger else { return Seen::Nothing };
        let mut regex = trigger.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in bytes {
            self.at = regex.transition(self.at, *byte);
            if regex.is_accepting(self.at) {
                return Seen::Whole;
            }
        }
        if self.at == self.rest { Seen::Nothing } else { Seen::Beginning }
    }

    fn copied(&self) -> Self {
        Self {
            matcher: Box::new(self.matcher.deep_clone()),
            taken: self.taken,
            trigger: self.trigger.clone(),
            at: self.at,
            rest: self.rest,
            free: Arc::clone(&self.free),
            vocabulary: Arc::clone(&self.vocabulary),
        }
    }
}

/// An answer that is one of two things: whatever begins with a head is the first, all else the second.
pub(super) struct Either {
    /// Gone when the answer cannot become it.
    first: Option<Box<Matcher>>,
    second: Option<Box<Matcher>>,
    heads: Arc<[String]>,
    /// The answer so far.
    said: Vec<u8>,
    /// A space in front of the answer is lost.
    loses_space: bool,
    vocabulary: TokEnv,
}

impl Either {
    pub(super) fn new(
        (first, second): (Box<Matcher>, Box<Matcher>),
        heads: Arc<[String]>,
        loses_space: bool,
        vocabulary: TokEnv,
    ) -> Self {
        Self { first: Some(first), second: Some(second), heads, said: Vec::new(), loses_space, vocabulary }
    }

    fn mask(&mut self) -> Result<SimpleVob, GrammarError> {
        let first = self.first.as_mut().map(|matcher| computed(matcher)).transpose()?;
        // Where the second is complete, the answer may end.
        let second = self.second.as_mut().map(|matcher| matcher.compute_mask_or_eos());
        let second = second.transpose().map_err(|error| GrammarError::failed(&error))?;
        let (Some(mut mask), Some(mut second)) = (first, second) else {
            return Err(GrammarError::failed(&"nothing can follow"));
        };
        // A token by which a text becomes the first must go on as the first does.
        second.sub(&mask);
        for token in second.to_list() {
            if self.is_decided_by(token) {
                second.disallow_token(token);
            }
        }
        mask.or(&second);
        Ok(mask)
    }

    /// Goes on, as one of the two where the answer cannot become the other.
    fn commit(mut self: Box<Self>, token: u32) -> Result<Place, GrammarError> {
        let decided = self.is_decided_by(token);
        self.said.extend(written(self.vocabulary.tok_trie(), token));
        let takes = |matcher: &mut Option<Box<Matcher>>| {
            // A complete one that nothing follows takes nothing.
            let taken = match matcher.as_mut().filter(|matcher| !matcher.is_stopped()) {
                Some(matcher) => matcher.try_consume_tokens(&[token]),
                None => Ok(0),
            };
            match taken {
                Ok(0) => *matcher = None,
                Ok(_) => {}
                Err(error) => return Err(GrammarError::failed(&error)),
            }
            Ok(())
        };
        takes(&mut self.first)?;
        takes(&mut self.second)?;
        if decided {
            self.second = None;
        }
        match (self.first.take(), self.second.take()) {
            (Some(first), Some(second)) => {
                (self.first, self.second) = (Some(first), Some(second));
                Ok(Place::Either(self))
            }
            (Some(one), None) | (None, Some(one)) => Ok(Place::Held(one)),
            (None, None) => Err(GrammarError::failed(&"a token that it does not allow")),
        }
    }

    /// Whether the answer begins with a head when this token is added.
    fn is_decided_by(&self, token: u32) -> bool {
        let blank = usize::from(self.loses_space && self.said.first() == Some(&b' '));
        let said = &self.said[blank..];
        let more = written(self.vocabulary.tok_trie(), token);
        // The space that is lost may be this token's.
        let more =
            if self.loses_space && self.said.is_empty() { more.strip_prefix(b" ").unwrap_or(more) } else { more };
        self.heads.iter().any(|head| head.as_bytes().strip_prefix(said).is_some_and(|rest| more.starts_with(rest)))
    }

    fn copied(&self) -> Self {
        let copy = |matcher: &Option<Box<Matcher>>| matcher.as_ref().map(|matcher| Box::new(matcher.deep_clone()));
        Self {
            first: copy(&self.first),
            second: copy(&self.second),
            heads: Arc::clone(&self.heads),
            said: self.said.clone(),
            loses_space: self.loses_space,
            vocabulary: Arc::clone(&self.vocabulary),
        }
    }
}

/// The text of a token, a special one's too.
fn written(trie: &TokTrie, token: u32) -> &[u8] {
    let bytes = trie.token(token);
    bytes.strip_prefix(&[TokTrie::SPECIAL_TOKEN_MARKER]).unwrap_or(bytes)
}
