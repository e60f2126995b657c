//! Constrained decoding: what an answer must look like, compiled for one model's vocabulary.
//!
//! Owns what may be asked for, the bounds on it, and one sequence's place in it; parsing and masks are the `llguidance`
//! crate's. Knows no request and no sampler beyond the set of tokens that may come next.

mod error;
mod exclusive;
mod keywords;
mod place;
mod schema;
mod source;
mod state;
#[cfg(test)]
mod tests;
mod vocabulary;

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::api::{GrammarWithLexer, ParserLimits, TopLevelGrammar};
use llguidance::{Matcher, ParserFactory};

pub use error::GrammarError;
pub use source::GrammarSource;
pub use state::GrammarState;

use self::place::{Either, FreeText, Place};
use super::Tokenizer;

/// Longest text of a grammar, in bytes.
pub const MAX_GRAMMAR_BYTES: usize = 128 << 10;
/// Compiled grammars that a model keeps for the next request.
const KEPT: usize = 64;
/// Stack of a thread that compiles: the library descends into what the text nests and names, and the text is bounded. The
/// system gives memory only for what is used.
const COMPILER_STACK: usize = 256 << 20;

/// What a grammar may cost. At the bounds of one step a mask takes some tens of milliseconds.
fn limits() -> ParserLimits {
    ParserLimits {
        // A state takes one or two kilobytes, and each sequence has its own.
        max_lexer_states: 50_000,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}

/// Where the text of an answer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerStart {
    /// Anew: a vocabulary that puts a space in front of every word loses the first one.
    Anew,
    /// Behind a text that it goes on from.
    Continued,
}

/// The grammars of one model. The vocabulary is prepared when the first one is asked for.
pub struct Grammars {
    tokenizer: Tokenizer,
    end_tokens: Vec<u32>,
    factory: OnceLock<Result<ParserFactory, GrammarError>>,
    /// The latest first.
    kept: Mutex<VecDeque<(String, Arc<Grammar>)>>,
}

impl Grammars {
    /// Grammars over this vocabulary; an answer may end with one of `end_tokens` where its grammar may end.
    #[must_use]
    pub fn new(tokenizer: Tokenizer, end_tokens: Vec<u32>) -> Self {
        Self { tokenizer, end_tokens, factory: OnceLock::new(), kept: Mutex::default() }
    }

    /// Compiles a grammar, or finds it compiled. Takes milliseconds, and seconds at most: not for an async thread.
    ///
    /// # Errors
    /// What is wrong with it, or which bound it exceeds.
    pub fn compile(&self, source: &GrammarSource, start: AnswerStart) -> Result<Arc<Grammar>, GrammarError> {
        let loses_space = start == AnswerStart::Anew && self.tokenizer.strips_first_space();
        let key = format!("{loses_space} {}", source.check_size()?);
        if let Some(found) = self.find(&key) {
            return Ok(found);
        }
        // A thread of its own: no stack of another bounds what a grammar may nest, and a panic stays in it.
        let compiled = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("grammar compiler".to_owned()).stack_size(COMPILER_STACK);
            let running = thread.spawn_scoped(scope, || self.compiled(source, loses_space));
            let running =
                running.map_err(|error| GrammarError::Refused(format!("no thread to compile it: {error}")))?;
            running.join().unwrap_or_else(|_| Err(GrammarError::Refused("the compiler failed on it".to_owned())))
        })?;
        let grammar = Arc::new(compiled);
        self.keep(key, &grammar);
        Ok(grammar)
    }

    fn compiled(&self, source: &GrammarSource, loses_space: bool) -> Result<Grammar, GrammarError> {
        let factory = self.factory.get_or_init(|| vocabulary::factory(&self.tokenizer, &self.end_tokens));
        let factory = factory.as_ref().map_err(Clone::clone)?;
        let vocabulary = || Arc::clone(factory.tok_env());
        let beginning = match source {
            // A space in front of any text is as good as none.
            GrammarSource::Free { trigger, .. } => {
                let matcher = held(factory, source, false)?;
                Place::Free(Box::new(FreeText::new(matcher, trigger.as_deref(), vocabulary())?))
            }
            GrammarSource::Either { first, heads, second } => {
                let both = (held(factory, first, loses_space)?, held(factory, second, loses_space)?);
                Place::Either(Box::new(Either::new(both, heads.as_slice().into(), loses_space, vocabulary())))
            }
            one => Place::Held(held(factory, one, loses_space)?),
        };
        Ok(Grammar { beginning: Mutex::new(beginning) })
    }

    fn find(&self, key: &str) -> Option<Arc<Grammar>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let index = kept.iter().position(|(known, _)| known == key)?;
        let entry = kept.remove(index)?;
        let found = Arc::clone(&entry.1);
        kept.push_front(entry);
        Some(found)
    }

    fn keep(&self, key: String, grammar: &Arc<Grammar>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front((key, Arc::clone(grammar)));
        kept.truncate(KEPT);
    }
}

impl fmt::Debug for Grammars {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Grammars").field("end_tokens", &self.end_tokens).finish_non_exhaustive()
    }
}

/// One compiled grammar. Sequences begin with copies of it, and share nothing afterwards.
pub struct Grammar {
    beginning: Mutex<Place>,
}

impl Grammar {
    /// The place of a new sequence: at the beginning.
    #[must_use]
    pub fn start(self: &Arc<Self>) -> GrammarState {
        GrammarState::new(Arc::clone(self))
    }

    fn copied(&self) -> Place {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner).copied()
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Grammar")
    }
}

/// The beginning of an answer of one grammar.
fn held(factory: &ParserFactory, source: &GrammarSource, loses_space: bool) -> Result<Box<Matcher>, GrammarError> {
    let inner = source.prepare()?;
    let mut matcher = matcher(factory, TopLevelGrammar::from_grammar(inner.clone()))?;
    if loses_space {
        // What is written after the space is what the grammar speaks of.
        let begins_with_space = allows_space(factory, &mut matcher)?;
        let space = if begins_with_space { "\" \"" } else { "\" \"?" };
        let outer = GrammarWithLexer::from_lark(format!("start: {space} @inner"));
        let inner = GrammarWithLexer { name: Some("inner".to_owned()), ..inner };
        matcher = self::matcher(factory, TopLevelGrammar { grammars: vec![outer, inner], max_tokens: None })?;
    }
    // The first mask shows that there is something to say, and that it is not too complex to begin.
    matcher.compute_mask().map_err(|error| GrammarError::refused(&error))?;
    Ok(Box::new(matcher))
}

fn matcher(factory: &ParserFactory, grammar: TopLevelGrammar) -> Result<Matcher, GrammarError> {
    let matcher = Matcher::new(factory.create_parser(grammar));
    match matcher.get_error() {
        Some(error) => Err(GrammarError::refused(&error)),
        None => Ok(matcher),
    }
}

/// Whether a text may begin with a space.
fn allows_space(factory: &ParserFactory, matcher: &mut Matcher) -> Result<bool, GrammarError> {
    let space = factory.tok_env().tok_trie().greedy_tokenize(b" ");
    if space.is_empty() {
        return Ok(false);
    }
    matcher.validate_tokens(&space).map(|valid| valid == space.len()).map_err(|error| GrammarError::refused(&error))
}
