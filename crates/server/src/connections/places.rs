//! How many connections there may be, and who has to go when there are too many: whoever has been idle longest.
//!
//! Knows no socket and no HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::metrics;

/// Places beyond the limit, for health checks while every connection has a request: other requests are refused there.
const RESERVE: usize = 64;

/// The places of all connections.
pub(super) struct Places {
    limit: usize,
    state: Mutex<State>,
    /// Somebody left.
    left: Notify,
}

#[derive(Default)]
struct State {
    open: usize,
    busy: usize,
    /// Told to go, and not gone yet.
    leaving: usize,
    /// Who has no request, by when that began.
    idle: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

impl Places {
    /// Places for `limit` connections.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default(), left: Notify::new() })
    }

    /// A place for one more connection. Sends away who has been idle longest, if need be, and waits for its place.
    pub(super) async fn enter(self: &Arc<Self>) -> Place {
        loop {
            if let Some(place) = self.try_enter() {
                return place;
            }
            self.left.notified().await;
        }
    }

    /// Sends away who has been idle longest; false where all have a request.
    pub(super) fn send_one_away(&self) -> bool {
        Self::send_away(&mut self.lock())
    }

    fn try_enter(self: &Arc<Self>) -> Option<Place> {
        let mut state = self.lock();
        let open = state.open;
        let crowded = open >= self.limit;
        // With nobody left to send away the reserve is used, and when that is full, newcomers wait.
        if crowded && (Self::send_away(&mut state) || state.leaving > 0 || open >= self.limit.saturating_add(RESERVE)) {
            return None;
        }
        state.open += 1;
        metrics::connections(state.open);
        let go = Arc::new(Notify::new());
        let standing = Standing::Idle(state.wait(&go));
        Some(Place { places: Arc::clone(self), go, standing: Mutex::new(standing) })
    }

    fn send_away(state: &mut State) -> bool {
        let Some((_, longest)) = state.idle.pop_first() else { return false };
        state.leaving += 1;
        longest.notify_one();
        true
    }

    // No critical section in here leaves the state half changed, so a poisoned lock still guards a sound value.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wait(&mut self, go: &Arc<Notify>) -> u64 {
        self.next += 1;
        self.idle.insert(self.next, Arc::clone(go));
        self.next
    }
}

/// What a connection is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It has no request, since that moment.
    Idle(u64),
    /// It has one.
    Busy,
    /// It was told to go.
    Leaving,
}

/// The place of one connection; free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    go: Arc<Notify>,
    standing: Mutex<Standing>,
}

/// Whether a request can be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It can.
    Welcome,
    /// As many as allowed are being answered, or the connection was told to go: only health checks are answered.
    Crowded,
}

impl Place {
    /// Notes that a request has come. [`Place::end`] ends it.
    pub(super) fn begin(&self) -> Begin {
        let mut state = self.places.lock();
        let mut standing = self.standing();
        let Standing::Idle(since) = *standing else { return Begin::Crowded };
        if state.idle.remove(&since).is_none() {
            *standing = Standing::Leaving;
            return Begin::Crowded;
        }
        *standing = Standing::Busy;
        state.busy += 1;
        if state.busy > self.places.limit { Begin::Crowded } else { Begin::Welcome }
    }

    /// Notes that the answer is out.
    pub(super) fn end(&self) {
        let mut state = self.places.lock();
        let mut standing = self.standing();
        if *standing == Standing::Busy {
            state.busy -= 1;
            *standing = Standing::Idle(state.wait(&self.go));
        }
    }

    /// Whether it has a request.
    pub(super) fn is_busy(&self) -> bool {
        *self.standing() == Standing::Busy
    }

    /// Done when the connection has to go.
    pub(super) async fn told_to_go(&self) {
        self.go.notified().await;
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        match *self.standing() {
            Standing::Idle(since) if state.idle.remove(&since).is_some() => {}
            Standing::Idle(_) | Standing::Leaving => state.leaving -= 1,
            Standing::Busy => state.busy -= 1,
        }
        state.open -= 1;
        metrics::connections(state.open);
        drop(state);
        self.places.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn whoever_has_been_idle_longest_has_to_go() {
        let places = Places::new(2);
        let (first, second) = (places.try_enter().unwrap(), places.try_enter().unwrap());
        assert_eq!(first.begin(), Begin::Welcome);
        first.end();
        assert!(places.try_enter().is_none(), "the place is not free yet");
        assert!(second.told_to_go().now_or_never().is_some(), "the second is idle for longer now");
        assert!(first.told_to_go().now_or_never().is_none());
        assert_eq!(second.begin(), Begin::Crowded, "too late");
        drop(second);
        assert!(places.try_enter().is_some());
    }

    #[test]
    fn nobody_with_a_request_is_sent_away_and_health_checks_have_places_of_their_own() {
        let places = Places::new(2);
        let busy = [places.try_enter().unwrap(), places.try_enter().unwrap()];
        assert!(busy.iter().all(|place| place.begin() == Begin::Welcome && place.is_busy()));
        let reserve: Vec<Place> = (0..RESERVE).map(|_| places.try_enter().unwrap()).collect();
        assert!(reserve.iter().all(|place| place.begin() == Begin::Crowded));
        assert!(places.try_enter().is_none());
        assert!(busy.iter().all(|place| place.told_to_go().now_or_never().is_none()));
        drop(busy);
        reserve[0].end();
        assert_eq!(reserve[0].begin(), Begin::Crowded, "the others of the reserve count too");
    }

    proptest! {
        /// Whatever happens, the numbers are those of the connections that are there.
        #[test]
        fn the_numbers_are_right(limit in 1_usize..5, acts in prop::collection::vec((0_u8..5, any::<prop::sample::Index>()), 0..200)) {
            let places = Places::new(limit);
            let mut there: Vec<Place> = Vec::new();
            for (act, which) in acts {
                match act {
                    0 | 1 => there.extend(places.try_enter()),
                    2 if !there.is_empty() => { let place = &there[which.index(there.len())]; if !place.is_busy() { place.begin(); } }
                    3 if !there.is_empty() => there[which.index(there.len())].end(),
                    4 if !there.is_empty() => { there.swap_remove(which.index(there.len())); }
                    _ => {}
                }
                let state = places.lock();
                prop_assert_eq!(state.open, there.len());
                prop_assert_eq!(state.busy, there.iter().filter(|place| place.is_busy()).count());
                prop_assert_eq!(state.open, state.busy + state.leaving + state.idle.len());
                prop_assert!(state.open <= limit + RESERVE);
            }
            drop(there);
            let state = places.lock();
            prop_assert_eq!((state.open, state.busy, state.leaving, state.idle.len()), (0, 0, 0, 0));
        }
    }
}
