//! The life of a server: it takes requests, then lets those that have begun come to their end, then cuts off the rest.
//!
//! Knows no connection and no request but for how many have begun.

use tokio::sync::watch;

/// Whether requests are taken, and how many have begun and not ended. A request that waits in a model's queue has begun.
#[derive(Debug)]
pub struct Life {
    now: watch::Sender<Now>,
    cut: watch::Sender<bool>,
}

#[derive(Debug)]
struct Now {
    stopping: bool,
    running: usize,
}

impl Default for Life {
    fn default() -> Self {
        let now = watch::Sender::new(Now { stopping: false, running: 0 });
        Self { now, cut: watch::Sender::new(false) }
    }
}

/// A request that has begun; ended when dropped.
#[derive(Debug)]
pub(crate) struct Running(watch::Sender<Now>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.send_modify(|now| now.running -= 1);
    }
}

impl Life {
    /// Begins a request, unless the server is stopping.
    pub(crate) fn begin(&self) -> Option<Running> {
        let begun = self.now.send_if_modified(|now| {
            now.running += usize::from(!now.stopping);
            !now.stopping
        });
        begun.then(|| Running(self.now.clone()))
    }

    /// Takes no more requests.
    pub fn stop(&self) {
        self.now.send_modify(|now| now.stopping = true);
    }

    /// Whether no more requests are taken.
    pub fn is_stopping(&self) -> bool {
        self.now.borrow().stopping
    }

    /// Requests that have begun and not ended.
    pub fn running(&self) -> usize {
        self.now.borrow().running
    }

    /// Done when no request is left.
    pub(crate) async fn finished(&self) {
        // The sender is here, so it is not gone.
        let _ = self.now.subscribe().wait_for(|now| now.running == 0).await;
    }

    /// Cuts off the requests that are left.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Done when the requests that are left are cut off.
    pub(crate) fn is_cut(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut cut = self.cut.subscribe();
        async move {
            if cut.wait_for(|cut| *cut).await.is_err() {
                // The server is gone, and with it whoever could cut.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn what_has_begun_is_waited_for_and_nothing_begins_after_the_stop() {
        let life = Life::default();
        let (first, second) = (life.begin().unwrap(), life.begin().unwrap());
        life.stop();
        assert!(life.begin().is_none() && life.is_stopping());
        drop(first);
        assert!(life.finished().now_or_never().is_none());
        assert_eq!(life.running(), 1);
        drop(second);
        assert!(life.finished().now_or_never().is_some());
    }

    #[test]
    fn those_who_wait_learn_of_the_cut() {
        let life = Life::default();
        let mut cut = Box::pin(life.is_cut());
        assert!(cut.as_mut().now_or_never().is_none());
        life.cut();
        assert!(cut.now_or_never().is_some() && life.is_cut().now_or_never().is_some());
    }
}
