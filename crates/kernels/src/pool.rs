//! Threads that wait for regions of jobs. It knows nothing of what a job computes.
//!
//! A step of a model is hundreds of regions of some microseconds, so a region must cost less than one of them: the thread that opens
//! it takes jobs itself, the others take theirs from a counter when they see that it is open, and whoever comes late finds none left
//! and holds nobody up. Between two regions the threads look for the next one for a short time and then sleep.

#![expect(unsafe_code, reason = "threads are lent a closure that lives as long as its region")]

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// How often a thread looks for a region before it lets others run: some ten microseconds.
const SPINS: usize = 1500;
/// How often it lets others run before it sleeps.
const YIELDS: usize = 30;

/// A set of threads.
#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

/// The jobs of a region: a closure that takes the number of a job, and how many there are.
#[derive(Clone, Copy)]
struct Region {
    job: *const (dyn Fn(usize) + Sync),
    jobs: usize,
}

struct Shared {
    /// Odd while a region is open.
    epoch: AtomicUsize,
    /// Written while no region is open and nobody is inside.
    region: UnsafeCell<Option<Region>>,
    /// The next job that nobody has taken.
    next: AtomicUsize,
    /// Threads that may be using `region`.
    inside: AtomicUsize,
    /// Threads that sleep, or are about to.
    asleep: AtomicUsize,
    /// Whether some thread has a region open: another one computes by itself.
    taken: AtomicBool,
    stop: AtomicBool,
    /// What the first job that panicked said.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `region` is written by the one thread that has taken the pool, before it opens the region and after nobody is inside any
// more, and read by those who have entered an open region; the closure it points to can be called from any thread.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared(epoch {})", self.epoch.load(SeqCst))
    }
}

impl Pool {
    /// So many threads besides the one that opens regions.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub(crate) fn new(count: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            epoch: AtomicUsize::new(0),
            region: UnsafeCell::new(None),
            next: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            asleep: AtomicUsize::new(0),
            taken: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let mut pool = Self { shared, workers: Vec::with_capacity(count) };
        for index in 0..count {
            let shared = Arc::clone(&pool.shared);
            let worker = thread::Builder::new().name(format!("kernels-{index}")).spawn(move || shared.work())?;
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Runs `job(0)..job(jobs - 1)`, each once, and returns when all have ended. A thread that finds the pool in use, or is in a job
    /// of it, runs them all itself.
    pub(crate) fn run(&self, jobs: usize, job: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        if shared.taken.swap(true, SeqCst) {
            return (0..jobs).for_each(job);
        }
        // SAFETY: the lifetime is taken away for the time of the region: its end is waited for below, on every way out.
        let job: &'static (dyn Fn(usize) + Sync) = unsafe { std::mem::transmute(job) };
        // SAFETY: this thread has taken the pool, no region is open, and nobody is inside.
        unsafe { *shared.region.get() = Some(Region { job, jobs }) };
        shared.next.store(0, SeqCst);
        shared.epoch.fetch_add(1, SeqCst);
        let open = OpenRegion(shared);
        if shared.asleep.load(SeqCst) > 0 {
            self.workers.iter().for_each(|worker| worker.thread().unpark());
        }
        shared.take_jobs(Region { job, jobs });
        drop(open);
        let panic = shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        shared.taken.store(false, SeqCst);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

/// Closes the region when dropped, and waits for those inside.
struct OpenRegion<'a>(&'a Shared);

impl Drop for OpenRegion<'_> {
    fn drop(&mut self) {
        self.0.epoch.fetch_add(1, SeqCst);
        let mut looks = 0;
        while self.0.inside.load(SeqCst) > 0 {
            looks += 1;
            if looks < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Shared {
    /// Takes jobs until there are none left. A panic ends no thread; it is kept for whoever opened the region.
    fn take_jobs(&self, Region { job, jobs }: Region) {
        loop {
            let index = self.next.fetch_add(1, SeqCst);
            if index >= jobs {
                return;
            }
            // SAFETY: the closure lives until the region is closed and nobody is inside.
            let job = unsafe { &*job };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| job(index))) {
                let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                first.get_or_insert(panic);
            }
        }
    }

    /// What a thread of the pool does until the pool ends.
    fn work(&self) {
        let mut seen = 0;
        while let Some(epoch) = self.next_region(seen) {
            seen = epoch;
            // Either the region is still open after this thread has said that it is inside, and then its end waits for this thread; or
            // it is not, and nothing of it is used.
            self.inside.fetch_add(1, SeqCst);
            if self.epoch.load(SeqCst) == epoch {
                // SAFETY: the region is open, as told above, and is not written while somebody is inside.
                if let Some(region) = unsafe { *self.region.get() } {
                    self.take_jobs(region);
                }
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    /// Waits for an open region other than the one of epoch `seen`; `None` when the pool ends.
    fn next_region(&self, seen: usize) -> Option<usize> {
        let mut looks = 0;
        loop {
            let epoch = self.epoch.load(SeqCst);
            if self.stop.load(SeqCst) {
                return None;
            }
            if epoch % 2 == 1 && epoch != seen {
                return Some(epoch);
            }
            looks += 1;
            if looks < SPINS {
                std::hint::spin_loop();
            } else if looks < SPINS + YIELDS {
                thread::yield_now();
            } else {
                self.sleep(seen);
                looks = 0;
            }
        }
    }

    /// Sleeps unless there is something to do. Whoever opens a region looks for sleepers after that, so one of the two sees the other.
    fn sleep(&self, seen: usize) {
        self.asleep.fetch_add(1, SeqCst);
        let epoch = self.epoch.load(SeqCst);
        if (epoch.is_multiple_of(2) || epoch == seen) && !self.stop.load(SeqCst) {
            thread::park();
        }
        self.asleep.fetch_sub(1, SeqCst);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches what its jobs panic with, so there is nothing to hear.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(jobs: usize) -> Vec<AtomicUsize> {
        (0..jobs).map(|_| AtomicUsize::new(0)).collect()
    }

    fn assert_once(counts: &[AtomicUsize]) {
        assert!(counts.iter().all(|count| count.load(SeqCst) == 1), "{counts:?}");
    }

    /// Regions of all sizes one after the other, with pauses in which the threads fall asleep.
    #[test]
    fn every_job_runs_once() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads).unwrap();
            for round in 0..20_000 {
                let counts = counts(round % 23);
                pool.run(counts.len(), &|job| {
                    counts[job].fetch_add(1, SeqCst);
                });
                assert_once(&counts);
                if round % 2000 == 0 {
                    thread::sleep(std::time::Duration::from_millis(3));
                }
            }
        }
    }

    #[test]
    fn callers_at_the_same_time_and_regions_in_regions_run_all_their_jobs() {
        let pool = Pool::new(2).unwrap();
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..2000 {
                        let counts = counts(12);
                        pool.run(3, &|outer| {
                            pool.run(4, &|inner| {
                                counts[4 * outer + inner].fetch_add(1, SeqCst);
                            });
                        });
                        assert_once(&counts);
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_reaches_the_caller_after_all_jobs_have_ended_and_the_pool_goes_on() {
        let pool = Pool::new(3).unwrap();
        for spoiled in 0..40 {
            let counts = counts(40);
            let run = || {
                pool.run(40, &|job| {
                    counts[job].fetch_add(1, SeqCst);
                    assert!(job != spoiled, "job {job}");
                });
            };
            let said = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
            assert_eq!(said.downcast_ref::<String>().unwrap(), &format!("job {spoiled}"));
            assert_once(&counts);
        }
    }
}
