//! How fetching tells what it is doing. Must not know how that is shown.

/// Receives the course of a fetch. Calls come from one thread, in order.
pub trait Progress {
    /// A step of `total` bytes begins, or an unknown number. Called again for the same step when it starts over;
    /// what was counted before is void then.
    fn start(&mut self, label: &str, total: Option<u64>);
    /// `bytes` more are done.
    fn advance(&mut self, bytes: u64);
    /// One line for the person waiting.
    fn message(&mut self, text: &str);
    /// The step begun last is over.
    fn finish(&mut self);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn start(&mut self, _label: &str, _total: Option<u64>) {}
    fn advance(&mut self, _bytes: u64) {}
    fn message(&mut self, _text: &str) {}
    fn finish(&mut self) {}
}
