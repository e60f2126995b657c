//! Signs of life of a model's thread: when its step began, and whether the thread has ended.
//!
//! Knows no request and no model. Anyone may look; the watcher, a thread of its own, writes into the log what would
//! otherwise show in nothing but silence.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::error::Error;

/// Whether a model answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Alive,
    /// Its step takes longer than a step may. What waits goes on waiting; nothing new is taken until the step has ended.
    Stalled {
        /// When the step began.
        since: Instant,
    },
    /// Its thread has ended.
    Stopped,
}

/// What a model's thread shows of itself.
#[derive(Debug)]
pub(super) struct Pulse {
    origin: Instant,
    step_timeout: Option<Duration>,
    /// Microseconds from `origin` to the beginning of the step that runs, and 1; 0 between steps.
    step: AtomicU64,
    /// Whether a step has ended. The first one reads the weights from the disk, and takes what it takes.
    warm: AtomicBool,
    stopped: AtomicBool,
}

/// A step that runs, until it is dropped.
pub(super) struct Beat<'a>(&'a Pulse);

/// What a model's thread holds for as long as it lives.
pub(super) struct Life {
    pulse: Arc<Pulse>,
    /// The watcher ends when this is gone.
    _watched: Option<Sender<()>>,
}

impl Pulse {
    /// A thread whose steps, after the first, may take `step_timeout` each; any time without one.
    pub(super) fn new(step_timeout: Option<Duration>) -> Self {
        Self {
            origin: Instant::now(),
            step_timeout,
            step: AtomicU64::new(0),
            warm: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
        }
    }

    /// Marks the beginning of a step.
    pub(super) fn beat(&self) -> Beat<'_> {
        let since = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX - 1);
        self.step.store(since + 1, Ordering::Release);
        Beat(self)
    }

    /// How the thread is now.
    pub(super) fn health(&self) -> Health {
        if self.stopped.load(Ordering::Acquire) {
            return Health::Stopped;
        }
        let (Some(timeout), step) = (self.step_timeout, self.step.load(Ordering::Acquire)) else {
            return Health::Alive;
        };
        let since = self.origin + Duration::from_micros(step.saturating_sub(1));
        match step > 0 && self.warm.load(Ordering::Relaxed) && since.elapsed() > timeout {
            true => Health::Stalled { since },
            false => Health::Alive,
        }
    }

    /// The life of the thread of model `name`, to be moved into it, with a watcher where there is something to watch for.
    ///
    /// # Errors
    /// When the system has no thread for the watcher.
    pub(super) fn life(self: &Arc<Self>, name: &str) -> Result<Life, Error> {
        let watched = self.step_timeout.map(|timeout| {
            let (watched, life) = channel();
            let (pulse, name) = (Arc::clone(self), name.to_owned());
            let thread = std::thread::Builder::new().name(format!("watch {name}"));
            thread.spawn(move || pulse.watch(&name, timeout, &life)).map(|_| watched)
        });
        Ok(Life { pulse: Arc::clone(self), _watched: watched.transpose().map_err(Error::Thread)? })
    }

    /// Says when a step does not end, and when it has ended after all.
    fn watch(&self, model: &str, timeout: Duration, life: &Receiver<()>) {
        let period = (timeout / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
        let mut stalled = None;
        while let Err(RecvTimeoutError::Timeout) = life.recv_timeout(period) {
            match (self.health(), stalled) {
                (Health::Stalled { since }, None) => {
                    let seconds = since.elapsed().as_secs_f64();
                    tracing::error!(model, seconds, "a step does not end: the model takes no requests until it has");
                    stalled = Some(since);
                }
                (Health::Alive, Some(since)) => {
                    let seconds = since.elapsed().as_secs_f64();
                    tracing::info!(model, seconds, "the step has ended: the model takes requests again");
                    stalled = None;
                }
                _ => {}
            }
        }
    }
}

impl Drop for Beat<'_> {
    fn drop(&mut self) {
        self.0.step.store(0, Ordering::Release);
        self.0.warm.store(true, Ordering::Relaxed);
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.pulse.stopped.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_does_not_end_is_a_stall_but_not_the_first() {
        let pulse = Arc::new(Pulse::new(Some(Duration::from_micros(1))));
        let life = pulse.life("test").unwrap();
        let wait = || std::thread::sleep(Duration::from_millis(2));
        let first = pulse.beat();
        wait();
        assert_eq!(pulse.health(), Health::Alive, "the first step takes what it takes");
        drop(first);
        wait();
        assert_eq!(pulse.health(), Health::Alive, "between steps there is nothing to wait for");
        let second = pulse.beat();
        wait();
        assert!(matches!(pulse.health(), Health::Stalled { .. }));
        drop(second);
        assert_eq!(pulse.health(), Health::Alive);
        drop(life);
        assert_eq!(pulse.health(), Health::Stopped);
    }

    #[test]
    fn without_a_timeout_nothing_is_a_stall() {
        let pulse = Pulse::new(None);
        drop(pulse.beat());
        let _second = pulse.beat();
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(pulse.health(), Health::Alive);
    }
}
