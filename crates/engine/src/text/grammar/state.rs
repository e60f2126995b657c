//! One sequence's place in its grammar.
//!
//! The next mask is computed on another thread as soon as a token is known, while the model computes its next step.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, LazyLock};

use hearth_sampler::TokenSet;

use super::place::Place;
use super::{Grammar, GrammarError};

/// Threads that compute masks, for all models.
static THREADS: LazyLock<Option<rayon::ThreadPool>> = LazyLock::new(|| {
    let count = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let threads = rayon::ThreadPoolBuilder::new().num_threads(count).thread_name(|index| format!("grammar {index}"));
    threads.stack_size(16 << 20).build().ok()
});

/// A place in a grammar, and the mask there.
type Step = Result<(Place, Arc<TokenSet>), GrammarError>;

/// Which token may come next in one sequence.
pub struct GrammarState {
    next: Next,
}

enum Next {
    /// Being computed.
    Awaited(Receiver<Step>),
    /// Known.
    Known(Place, Arc<TokenSet>),
    /// There is none: the grammar has ended or failed.
    None(GrammarError),
}

impl GrammarState {
    pub(super) fn new(grammar: Arc<Grammar>) -> Self {
        Self { next: Next::Awaited(compute(move || grammar.copied())) }
    }

    /// The tokens that may come next: those with which the text can still become one of the grammar's, and the end tokens
    /// where it is one.
    ///
    /// # Errors
    /// When the grammar has become too complex, has ended, or leads where no token of the vocabulary goes on.
    pub fn mask(&mut self) -> Result<&TokenSet, GrammarError> {
        if let Next::Awaited(step) = &self.next {
            let step = step.recv().unwrap_or_else(|_| Err(GrammarError::failed(&"its thread is gone")));
            self.next = match step {
                Ok((place, mask)) => Next::Known(place, mask),
                Err(error) => Next::None(error),
            };
        }
        match &self.next {
            Next::Known(_, mask) => Ok(mask),
            Next::None(error) => Err(error.clone()),
            Next::Awaited(_) => Err(GrammarError::failed(&"its mask is not known")),
        }
    }

    /// Goes on by a token that the mask allows, and says whether the text has thereby come to its end: nothing can follow.
    ///
    /// # Errors
    /// As [`GrammarState::mask`], and for a token that the mask does not allow.
    pub fn commit(&mut self, token: u32) -> Result<bool, GrammarError> {
        self.mask()?;
        let ended = || Next::None(GrammarError::failed(&"it has ended"));
        let Next::Known(place, _) = std::mem::replace(&mut self.next, ended()) else { return Ok(true) };
        let place = match place.commit(token) {
            Ok(Some(place)) => place,
            Ok(None) => return Ok(true),
            Err(error) => {
                self.next = Next::None(error.clone());
                return Err(error);
            }
        };
        self.next = match place.known_mask() {
            Some(mask) => Next::Known(place, mask),
            None => Next::Awaited(compute(move || place)),
        };
        Ok(false)
    }
}

impl std::fmt::Debug for GrammarState {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("GrammarState")
    }
}

/// Computes the mask of a place on another thread.
fn compute(place: impl FnOnce() -> Place + Send + 'static) -> Receiver<Step> {
    let (sender, receiver) = channel();
    let work = move || {
        let step = catch_unwind(AssertUnwindSafe(|| {
            let mut place = place();
            let mask = place.mask()?;
            Ok((place, mask))
        }));
        // Nobody waits where the sequence is gone.
        let _ = sender.send(step.unwrap_or_else(|_| Err(GrammarError::failed(&"a panic in it"))));
    };
    match &*THREADS {
        Some(threads) => threads.spawn(work),
        None => work(),
    }
    receiver
}
