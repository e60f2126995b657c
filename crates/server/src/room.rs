//! The room for bodies of requests while they are read: what all of them together may hold.
//!
//! Knows no request and no connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes of each body that need no room. Short requests are read even while long ones have taken all of it; the number of
/// connections bounds what that comes to.
const ALWAYS: usize = 64 << 10;

/// The room that all bodies share. A clone is the same room.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    left: Arc<AtomicUsize>,
}

/// The part of one body; free again when dropped.
#[derive(Debug)]
pub(crate) struct Part {
    left: Arc<AtomicUsize>,
    bytes: usize,
}

impl Room {
    /// Room for `bytes` bytes.
    pub(crate) fn new(bytes: usize) -> Self {
        Self { left: Arc::new(AtomicUsize::new(bytes)) }
    }

    /// The part of a body of which nothing has come yet.
    pub(crate) fn part(&self) -> Part {
        Part { left: Arc::clone(&self.left), bytes: 0 }
    }
}

impl Part {
    /// Takes as much as a body of `length` bytes needs that does not shrink. False where there is not so much.
    pub(crate) fn grow_to(&mut self, length: usize) -> bool {
        let more = length.saturating_sub(ALWAYS).saturating_sub(self.bytes);
        let taken = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(more)).is_ok();
        if taken {
            self.bytes += more;
        }
        taken
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.left.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_bodies_share_the_room_and_short_ones_need_none() {
        let room = Room::new(100);
        let (mut first, mut second) = (room.part(), room.part());
        assert!(first.grow_to(ALWAYS) && first.grow_to(ALWAYS + 40) && first.grow_to(ALWAYS + 90));
        assert!(!second.grow_to(ALWAYS + 11) && second.grow_to(ALWAYS + 10));
        assert!(room.part().grow_to(ALWAYS) && !room.part().grow_to(ALWAYS + 1));
        drop(first);
        assert!(second.grow_to(ALWAYS + 100) && !room.part().grow_to(ALWAYS + 1));
        drop(second);
        assert!(room.part().grow_to(ALWAYS + 100) && !room.part().grow_to(ALWAYS + 101));
    }
}
