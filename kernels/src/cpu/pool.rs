//! A persistent thread pool for phases of a few microseconds.
//!
//! The caller is thread 0. A phase starts with one store that the workers spin on and ends when each has counted down,
//! so a phase costs two cache-line transfers while the workers are awake. Workers that see no phase for a while park,
//! and the next phase wakes them.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle, Thread};

/// Spins before a worker parks: some 50 to 100 µs, which covers sampling and sending a token.
const SPINS: u32 = 4000;

/// Keeps a value in a cache line of its own.
#[repr(align(128))]
pub(super) struct Line<T>(pub(super) T);

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// The number of the current phase; a change is the signal to run `job`.
    phase: Line<AtomicUsize>,
    /// Workers that have not finished the current phase.
    running: Line<AtomicUsize>,
    job: UnsafeCell<Option<Job>>,
    parked: Vec<Line<AtomicBool>>,
    stop: AtomicBool,
    panicked: AtomicBool,
}

// SAFETY: `job` is written only by the caller of `run` while no worker runs (`running` is zero), and read only by
// workers between the release of `phase` and their decrement of `running`. All else is atomic.
unsafe impl Sync for Shared {}
// SAFETY: the job pointer is only dereferenced while `run` keeps its referent alive.
unsafe impl Send for Shared {}

/// A team of threads that run the same closure at the same time.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
    // One phase at a time, whoever calls.
    turn: Mutex<()>,
}

impl Pool {
    /// A pool of `threads` threads, of which the caller of [`Pool::run`] is one.
    ///
    /// With `pin`, worker `i` is bound to processor `i` of those the process may use; the caller is left free, as it
    /// belongs to somebody else.
    pub fn new(threads: usize, pin: bool) -> Pool {
        let extra = threads.max(1) - 1;
        let shared = Arc::new(Shared {
            phase: Line(AtomicUsize::new(0)),
            running: Line(AtomicUsize::new(0)),
            job: UnsafeCell::new(None),
            parked: (0..extra).map(|_| Line(AtomicBool::new(false))).collect(),
            stop: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        });
        let workers: Vec<_> = (0..extra)
            .map(|i| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("kernel-{}", i + 1))
                    .spawn(move || {
                        if pin {
                            pin_to(i + 1);
                        }
                        work(&shared, i);
                    })
                    .expect("the system starts as many threads as it has processors")
            })
            .collect();
        let handles = workers.iter().map(|w| w.thread().clone()).collect();
        Pool { shared, workers, handles, turn: Mutex::new(()) }
    }

    /// The number of threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `job(i)` on every thread `i` of the pool and returns when all are done. Allocates nothing.
    ///
    /// A job must not call `run` of the same pool.
    ///
    /// # Panics
    /// Where a job panics, after every thread has finished.
    pub fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        if self.workers.is_empty() {
            job(0);
            return;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = &*self.shared;
        // SAFETY: no worker runs, as the previous phase was waited for, so nobody reads `job`. The lifetime is erased,
        // but this function does not return before every worker has let go of it.
        unsafe {
            let erased = std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(job);
            *shared.job.get() = Some(erased);
        }
        shared.running.0.store(self.workers.len(), Ordering::Relaxed);
        shared.phase.0.fetch_add(1, Ordering::SeqCst);
        for (parked, handle) in shared.parked.iter().zip(&self.handles) {
            // The worker sets its flag and then looks at `phase` again; this looks after changing `phase`. In the one
            // order of sequentially consistent operations at least one of the two sees the other.
            if parked.0.load(Ordering::SeqCst) {
                handle.unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0u32;
        while shared.running.0.load(Ordering::Acquire) != 0 {
            std::hint::spin_loop();
            spins += 1;
            // A worker that lost its processor needs this one.
            if spins.is_multiple_of(SPINS) {
                thread::yield_now();
            }
        }
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        assert!(!shared.panicked.swap(false, Ordering::Relaxed), "a kernel panicked on a worker thread");
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.phase.0.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker's panic was reported by `run`, and there is nothing to do about it here.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

fn work(shared: &Shared, me: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        loop {
            let phase = shared.phase.0.load(Ordering::Acquire);
            if phase != seen {
                seen = phase;
                break;
            }
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
                continue;
            }
            shared.parked[me].0.store(true, Ordering::SeqCst);
            while shared.phase.0.load(Ordering::SeqCst) == seen {
                thread::park();
            }
            shared.parked[me].0.store(false, Ordering::Relaxed);
        }
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: `phase` changed, so `run` has published a job and waits for this worker before it drops it.
        let job = unsafe { &*(*shared.job.get()).expect("a phase has a job") };
        if catch_unwind(AssertUnwindSafe(|| job(me + 1))).is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.running.0.fetch_sub(1, Ordering::Release);
    }
}

/// Binds the calling thread to the `index`-th processor that the process may use. Best effort.
pub(super) fn pin_to(index: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the sets are plain bit masks on this stack, zeroed before use, and their size is passed along.
    unsafe {
        let size = std::mem::size_of::<libc::cpu_set_t>();
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size, &mut allowed) != 0 {
            return;
        }
        let mut cpus = (0..libc::CPU_SETSIZE as usize).filter(|&cpu| libc::CPU_ISSET(cpu, &allowed));
        if let Some(cpu) = cpus.nth(index) {
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(cpu, &mut one);
            libc::sched_setaffinity(0, size, &one);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = index;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_every_phase_once() {
        for threads in [1, 2, 3, 7] {
            let pool = Pool::new(threads, false);
            let counts: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
            for _ in 0..1000 {
                pool.run(&|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
            }
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1000), "{threads} threads");
        }
    }

    #[test]
    fn parked_workers_wake_for_the_next_phase() {
        let pool = Pool::new(3, true);
        let count = AtomicUsize::new(0);
        for _ in 0..5 {
            while !pool.shared.parked.iter().all(|p| p.0.load(Ordering::SeqCst)) {
                thread::yield_now();
            }
            pool.run(&|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.load(Ordering::Relaxed), 15);
    }

    #[test]
    fn a_panic_on_any_thread_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(2, false);
        for culprit in 0..2 {
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(&|i| assert_ne!(i, culprit))));
            assert!(caught.is_err());
        }
        let count = AtomicUsize::new(0);
        pool.run(&|_| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(count.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn phases_of_two_callers_take_turns() {
        let pool = Pool::new(2, false);
        let total = AtomicUsize::new(0);
        thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| {
                    for _ in 0..500 {
                        pool.run(&|_| {
                            total.fetch_add(1, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 2000);
    }
}
