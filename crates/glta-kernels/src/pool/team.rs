//! Threads that wait for work by looking, not by sleeping.
//!
//! A decoded token is some hundred parallel regions of a few microseconds.
//! Rayon hands each over through queues, and idle threads give up their time
//! slice; a team's members look at one word. No crate offers that inside rayon's pool, which the
//! caller chose: its threads become the members, and no others are started.

use std::cell::{Cell, UnsafeCell};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Looks at the word before a member gives up its time slice.
const LOOKS: usize = 1 << 12;

type Work<'a> = &'a (dyn Fn(usize) + Sync);

/// A leader, who starts regions, and members, who take part where they are
/// free. A member that never comes holds up nobody: the leader does all that
/// others have not taken.
#[derive(Default)]
pub(super) struct Team {
    /// Number of the region (high half), and how many of its tasks nobody has
    /// taken (low half). One word, so that a task is taken only of the region
    /// that was looked at.
    open: AtomicU64,
    /// Tasks of the region that have ended.
    ended: AtomicUsize,
    failed: AtomicBool,
    over: AtomicBool,
    /// The region's work: read only by who has taken one of its tasks, written
    /// only when all tasks have ended.
    work: UnsafeCell<Option<Work<'static>>>,
}

// SAFETY: `work` is guarded by `open` and `ended`, as said there.
unsafe impl Sync for Team {}

thread_local! {
    /// The team that this thread leads, unless a region is running.
    static LED: Cell<Option<*const Team>> = const { Cell::new(None) };
}

/// Runs a region with the team that this thread leads; `false` if it leads none.
pub(super) fn share(n: usize, work: &(dyn Fn(usize) + Sync)) -> bool {
    let Some(team) = LED.take() else { return false };
    let _led = Restore(Some(team));
    // SAFETY: `lead` keeps the team while it is in `LED`.
    unsafe { &*team }.region(n, work);
    true
}

/// Puts a value back into [`LED`], also when unwinding.
struct Restore(Option<*const Team>);

impl Drop for Restore {
    fn drop(&mut self) {
        LED.set(self.0);
    }
}

impl Team {
    /// Runs `f` as the leader; `helpers` threads of the pool may join.
    pub(super) fn lead<R: Send>(&self, helpers: usize, f: impl FnOnce() -> R + Send) -> R {
        rayon::scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(|_| self.help());
            }
            // Declared first, dropped last: members leave when `f` is through
            // or has panicked.
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
        // SAFETY: only the lifetime changes. Nobody touches `work` after the
        // guard below has seen all tasks end, which it does in any case.
        let work: Work<'static> = unsafe { std::mem::transmute::<Work<'_>, _>(work) };
        // SAFETY: the last region's tasks have all ended, none is open.
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

    /// Takes a task and does it; `false` if there is none.
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
            // From the last to the first: the word counts down.
            work(left as usize - 1);
        }
        true
    }
}

/// Counts a task as ended, and notes where it panicked.
struct Ended<'a>(&'a Team);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.failed.store(true, Ordering::Relaxed);
        }
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// Ends a region: tasks that nobody took are dropped (after a panic only), those
/// that were taken are waited for.
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

/// Sends the members home.
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
    fn a_panic_reaches_the_leader_and_stops_nothing_else() {
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
    fn regions_inside_tasks_and_teams_of_busy_pools_end() {
        use rayon::prelude::*;
        let sum = AtomicUsize::new(0);
        // More leaders than threads: no team has a member all the time.
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
