//! The threads kernels run on. It knows nothing of what they compute, and no result depends on how many there are.

use std::cell::Cell;

use rayon::iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _};
use rayon::slice::ParallelSliceMut as _;

use crate::error::{KernelError, Result, check_positive};
use crate::isa::Isa;

/// A fixed set of threads and the instructions they use. Every kernel is handed one.
#[derive(Debug)]
pub struct Threads {
    pool: Option<rayon::ThreadPool>,
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
        let pool = if count == 1 { None } else { Some(start_pool(count)?) };
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

    /// Runs `work` on one of the threads. A caller of many small kernels saves a hand-over for each of them by making all
    /// its calls in here; kernels may be called with or without.
    pub fn install<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Runs `job(0)..job(jobs - 1)`, each once, in no particular order.
    pub(crate) fn for_each(&self, jobs: usize, job: impl Fn(usize) + Send + Sync) {
        match &self.pool {
            Some(pool) if jobs > 1 => pool.install(|| (0..jobs).into_par_iter().with_max_len(1).for_each(job)),
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
        match &self.pool {
            Some(pool) if out.len() > chunk => {
                pool.install(|| out.par_chunks_mut(chunk).enumerate().for_each(|(index, out)| job(index, out)));
            }
            _ => out.chunks_mut(chunk).enumerate().for_each(|(index, out)| job(index, out)),
        }
    }
}

fn start_pool(count: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(count)
        .thread_name(|index| format!("kernels-{index}"))
        .build()
        .map_err(|error| KernelError::Pool { threads: count, reason: error.to_string() })
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
