//! The threads kernels run on. It knows nothing of what they compute, and no result depends on how many there are.

#![expect(unsafe_code, reason = "jobs are handed disjoint parts of a slice")]

use std::cell::Cell;

use crate::error::{KernelError, Result, check_positive};
use crate::isa::Isa;
use crate::pool::Pool;

/// A fixed set of threads and the instructions they use. Every kernel is handed one, and its caller is one of the threads.
#[derive(Debug)]
pub struct Threads {
    pool: Option<Pool>,
    count: usize,
    isa: Isa,
}

impl Threads {
    /// `count` threads with the best instructions of this machine. One thread means the caller's own.
    ///
    /// # Errors
    /// When `count` is zero or the operating system gives no threads.
    pub fn new(count: usize) -> Result<Self> {
        Self::with_isa(count, Isa::best())
    }

    /// As [`Threads::new`], with the instructions chosen.
    ///
    /// # Errors
    /// As [`Threads::new`].
    pub fn with_isa(count: usize, isa: Isa) -> Result<Self> {
        check_positive("threads", count)?;
        let failed = |error: std::io::Error| KernelError::Pool { threads: count, reason: error.to_string() };
        let pool = if count == 1 { None } else { Some(Pool::new(count - 1).map_err(failed)?) };
        Ok(Self { pool, count, isa })
    }

    /// How many threads there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The instructions they use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Runs `job(0)..job(jobs - 1)`, each once, in no particular order.
    pub(crate) fn for_each(&self, jobs: usize, job: impl Fn(usize) + Send + Sync) {
        match &self.pool {
            Some(pool) if jobs > 1 => pool.run(jobs, &job),
            _ => (0..jobs).for_each(job),
        }
    }

    /// Runs `job` on each chunk of `out` with its index; the last may be shorter.
    pub(crate) fn for_each_chunk<T: Send>(
        &self,
        out: &mut [T],
        chunk: usize,
        job: impl Fn(usize, &mut [T]) + Send + Sync,
    ) {
        let (start, length) = (Start(out.as_mut_ptr()), out.len());
        self.for_each(length.div_ceil(chunk), |index| {
            let first = index * chunk;
            // SAFETY: the chunk lies within `out`, which is borrowed mutably until all jobs have ended, and each job has its own.
            let part = unsafe { std::slice::from_raw_parts_mut(start.at(first), chunk.min(length - first)) };
            job(index, part);
        });
    }
}

/// Where a slice begins whose parts are handed to several threads.
struct Start<T>(*mut T);

// SAFETY: only an address; whoever makes a slice of it says why nobody else has the same one.
unsafe impl<T: Send> Send for Start<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Start<T> {}

impl<T> Start<T> {
    fn at(&self, index: usize) -> *mut T {
        self.0.wrapping_add(index)
    }
}

thread_local! {
    static SCRATCH: Cell<Vec<f32>> = const { Cell::new(Vec::new()) };
}

/// Lends a buffer of `length` floats with unspecified contents. It is kept by the thread for the next call.
pub(crate) fn with_scratch<R>(length: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    // Taken out and put back, not borrowed: a nested call gets a buffer of its own instead of a panic.
    let mut buffer = SCRATCH.take();
    if buffer.len() < length {
        buffer.resize(length, 0.0);
    }
    let result = work(&mut buffer[..length]);
    SCRATCH.set(buffer);
    result
}
