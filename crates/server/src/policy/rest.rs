//! The rest of an entity that keeps failing: for a while nobody asks it, where another one can be asked.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So many failures in a row, and an entity rests.
const FAILURES: u32 = 5;
/// For how long; then one call tries whether it answers again.
const PAUSE: Duration = Duration::from_secs(30);

/// How an entity has been doing. Of this process alone: what one cannot reach, another may.
#[derive(Debug, Default)]
pub struct Rest(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In a row.
    failures: u32,
    until: Option<Instant>,
}

impl Rest {
    fn state(&self) -> MutexGuard<'_, State> {
        // No critical section leaves the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is not to be asked at `now`. When its pause is over this is told to one caller, who has to try; whoever comes
    /// later hears yes until that one has told the result, or another pause has gone by.
    pub(super) fn is_resting(&self, now: Instant) -> bool {
        let mut state = self.state();
        match state.until {
            None => false,
            Some(until) if now < until => true,
            Some(_) => {
                state.until = Some(now + PAUSE);
                false
            }
        }
    }

    /// It has answered.
    pub(super) fn answered(&self) {
        *self.state() = State::default();
    }

    /// It has failed, at `now`.
    pub(super) fn failed(&self, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures >= FAILURES {
            state.until = Some(now + PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_often_enough_rests_and_is_tried_by_one_at_a_time() {
        let (rest, begun) = (Rest::default(), Instant::now());
        for _ in 1..FAILURES {
            rest.failed(begun);
            assert!(!rest.is_resting(begun));
        }
        rest.failed(begun);
        assert!(rest.is_resting(begun) && rest.is_resting(begun + PAUSE - Duration::from_millis(1)));
        let later = begun + PAUSE;
        assert!(!rest.is_resting(later), "one may try");
        assert!(rest.is_resting(later), "and nobody else");
        rest.failed(later);
        assert!(rest.is_resting(later + PAUSE - Duration::from_millis(1)));
        assert!(!rest.is_resting(later + PAUSE));
        rest.answered();
        assert!(!rest.is_resting(later + PAUSE));
        rest.failed(later + PAUSE);
        assert!(!rest.is_resting(later + PAUSE), "the count begins anew");
    }

    #[test]
    fn who_answers_in_between_never_rests() {
        let (rest, now) = (Rest::default(), Instant::now());
        for call in 0..100 {
            if call % FAILURES == 0 {
                rest.answered()
            } else {
                rest.failed(now)
            }
            assert!(!rest.is_resting(now));
        }
    }
}
