//! Threads that wait for work by polling.
//!
//! Decoding a token takes about a hundred parallel regions of a few microseconds. Rayon passes each
//! region through queues, and its idle threads yield their time slice. The members of a team poll
//! one word instead. No crate offers this inside rayon's pool, which belongs to the caller. The
//! threads of the pool become the members, so no other threads are started.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Number of polls before a member yields its time slice.
const LOOKS: usize = 1 << 12;

type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// A team of threads: a leader, which starts parallel regions, and members, which help when they
/// are free. The leader never waits for a member to arrive: it runs all tasks that no member has
/// taken.
#[derive(Default)]
pub(super) struct Team {
    /// Number of the current region (high half), and number of its tasks that are not taken (low
    /// half). Both share one word, so that a thread can take a task only from the region that it
    /// has read.
    open: AtomicU64,
    /// Number of tasks of the region that have ended.
    ended: AtomicUsize,
    failed: AtomicBool,
    over: AtomicBool,
    /// The work of the region. Only a thread that has taken one of the region's tasks reads this
    /// field, and it is written only when all tasks have ended.
    work: UnsafeCell<Option<Work<'static>>>,
}

// SAFETY: `open` and `ended` guard `work`, as the comment on the field describes.
unsafe impl Sync for Team {}

thread_local! {
    /// The team that this thread leads; `None` if it leads none or a region is running.
    static LED: Cell<Option<*const Team>> = const { Cell::new(None) };
}

/// Runs a region with the team that this thread leads. Returns `false` if it leads none.
pub(super) fn share(n: usize, work: &(dyn Fn(usize) + Sync)) -> bool {
    let Some(team) = LED.take() else { return false };
    let _led = Restore(Some(team));
    // SAFETY: `lead` keeps the team while it is in `LED`.
    unsafe { &*team }.region(n, work);
    true
}

/// A guard that restores a value of [`LED`] when dropped, also on unwinding.
struct Restore(Option<*const Team>);

impl Drop for Restore {
    fn drop(&mut self) {
        LED.set(self.0);
    }
}

impl Team {
    /// Runs `f` as the leader. Up to `helpers` threads of the pool may join.
    pub(super) fn lead<R: Send>(&self, helpers: usize, f: impl FnOnce() -> R + Send) -> R {
        rayon::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| self.help());
            }
            // Declared first, so dropped last: members leave when `f` has returned or panicked.
            let _end = End(self);
            let _led = Restore(LED.replace(Some(self)));
            f()
        })
    }

    fn help(&self) {
        let mut looks = 0;
        while !self.over.load(Ordering::Acquire) {
            if self.work_once() {
                looks = 0;
            } else if looks < LOOKS {
                looks += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    fn region(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        let n = u32::try_from(n).unwrap_or_else(|_| panic!("{n} tasks in one region"));
        // SAFETY: only the lifetime changes. No thread accesses `work` after the guard below has
        // waited for all tasks, which it always does.
        let work: Work<'static> = unsafe { std::mem::transmute::<Work<'_>, _>(work) };
        // SAFETY: all tasks of the last region have ended, and no region is open.
        unsafe { *self.work.get() = Some(work) };
        self.ended.store(0, Ordering::Relaxed);
        let number = (self.open.load(Ordering::Relaxed) >> 32) as u32;
        self.open.store(u64::from(number.wrapping_add(1)) << 32 | u64::from(n), Ordering::Release);
        {
            let _wait = Wait(self, n as usize);
            while self.work_once() {}
        }
        assert!(!self.failed.load(Ordering::Relaxed), "a task panicked");
    }

    /// Takes and runs one task. Returns `false` if there is none.
    fn work_once(&self) -> bool {
        let mut open = self.open.load(Ordering::Acquire);
        let left = loop {
            let left = open as u32;
            if left == 0 {
                return false;
            }
            match self.open.compare_exchange_weak(
                open,
                open - 1,
                Ordering::Acquire,
                Ordering::Acquire,
            ) {
                Ok(_) => break left,
                Err(now) => open = now,
            }
        };
        let _ended = Ended(self);
        // SAFETY: a taken task keeps the region open.
        if let Some(work) = unsafe { *self.work.get() } {
            // Count from the last task to the first, because the word counts down.
            work(left as usize - 1);
        }
        true
    }
}

/// A guard that counts a task as ended when dropped, and records a panic.
struct Ended<'a>(&'a Team);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// A guard that ends a region when dropped: it discards the tasks that no thread took (only after a
/// panic) and waits for the others.
struct Wait<'a>(&'a Team, usize);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let Wait(team, n) = *self;
        let left = team.open.fetch_and(!u64::from(u32::MAX), Ordering::Acquire) as u32;
        let mut looks = 0;
        while team.ended.load(Ordering::Acquire) + (left as usize) < n {
            looks += 1;
            if looks < LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

/// A guard that releases the members when dropped.
struct End<'a>(&'a Team);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(threads: usize) -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
    }

    #[test]
    fn every_task_of_every_region_runs_once() {
        for threads in [2, 3] {
            pool(threads).install(|| {
                Team::default().lead(threads - 1, || {
                    for n in (1..400).chain([1, 1, 5000]) {
                        let counts: Vec<AtomicUsize> = (0..n).map(|_| 0.into()).collect();
                        assert!(share(n, &|i| {
                            counts[i].fetch_add(1, Ordering::Relaxed);
                        }));
                        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
                    }
                });
                assert!(!share(3, &|_| panic!("nobody leads")));
            });
        }
    }

    #[test]
    fn a_panic_reaches_only_the_leader() {
        let pool = pool(2);
        for bad in [0, 63] {
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                pool.install(|| {
                    Team::default().lead(1, || {
                        share(64, &|i| {
                            std::thread::yield_now();
                            assert!(i != bad, "as intended");
                        })
                    })
                })
            }));
            assert!(result.is_err());
        }
        pool.install(|| Team::default().lead(1, || assert!(share(2, &|_| ()))));
    }

    #[test]
    fn nested_regions_and_teams_of_busy_pools_end() {
        use rayon::prelude::*;
        let sum = AtomicUsize::new(0);
        // There are more leaders than threads, so some team never has a member.
        pool(2).install(|| {
            (0..8).into_par_iter().for_each(|_| {
                crate::pool::enter_for(1, || {
                    crate::pool::for_each(10, |i| {
                        crate::pool::for_each(3, |j| {
                            sum.fetch_add(i * 3 + j, Ordering::Relaxed);
                        });
                    });
                });
            });
        });
        assert_eq!(sum.into_inner(), 8 * (0..30).sum::<usize>());
    }
}
