//! Threads for opens and reads that may wait for a peer, so that those which serve local
//! files never do. They come when needed and go when idle.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// The threads and what waits for them.
#[derive(Clone)]
pub struct Far {
    shared: Arc<Shared>,
}

struct Shared {
    name: &'static str,
    max_threads: usize,
    state: Mutex<State>,
    more: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job answers its request when it is dropped, also by a panic.
                let _ = catch_unwind(AssertUnwindSafe(job));
                state = self.state();
                continue;
            }
            state.idle += 1;
            let (woken, waited) = self.more.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            if waited.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

impl Far {
    /// No threads yet; at most so many at a time, each with this name.
    pub fn new(name: &'static str, max_threads: usize) -> Self {
        let (state, more) = Default::default();
        Far { shared: Arc::new(Shared { name, max_threads, state, more }) }
    }

    /// Has the job done by one of the threads.
    pub fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.state();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() || state.threads >= self.shared.max_threads {
            self.shared.more.notify_one();
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = self.shared.clone();
        let named = std::thread::Builder::new().name(shared.name.to_owned());
        let spawned = named.spawn(move || shared.work());
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread for a call that waits for a peer");
            let (alone, job) = {
                let mut state = self.shared.state();
                state.threads -= 1;
                let alone = state.threads == 0;
                (alone, if alone { state.jobs.pop_back() } else { None })
            };
            if let (true, Some(job)) = (alone, job) {
                job();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn jobs_run_side_by_side_and_survive_a_panic() {
        const MAX_THREADS: usize = 8;
        let far = Far::new("test-far", MAX_THREADS);
        let (first, first_done) = channel::<()>();
        let (second, second_done) = channel::<()>();
        // The first waits for the second: one thread alone would never end.
        far.run(move || {
            second_done.recv_timeout(LIMIT).unwrap();
            first.send(()).unwrap();
        });
        far.run(move || second.send(()).unwrap());
        first_done.recv_timeout(LIMIT).unwrap();
        let (after, done) = channel::<()>();
        for _ in 0..3 * MAX_THREADS {
            far.run(|| panic!("a fault in a job, on purpose"));
        }
        far.run(move || after.send(()).unwrap());
        done.recv_timeout(LIMIT).unwrap();
    }
}
