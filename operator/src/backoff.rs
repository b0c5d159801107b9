//! How long an object rests after its reconciliation failed: longer with each failure in a row, a
//! little different for each object, and forgotten at the first success.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

/// Rest after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// Longest rest.
const LONGEST: Duration = Duration::from_secs(300);

/// Failures in a row, by object.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// Notes a failure; returns how long to rest. `chance` is from 0 to 1.
    pub fn failed(&self, key: &str, chance: f64) -> Duration {
        let mut failures = lock(&self.failures);
        let count = failures.entry(key.to_string()).or_default();
        *count = count.saturating_add(1);
        rest(*count, chance)
    }

    /// Notes a success.
    pub fn succeeded(&self, key: &str) {
        lock(&self.failures).remove(key);
    }
}

/// The rest after `failures` failures in a row: doubled each time, and up to a quarter longer by chance.
fn rest(failures: u32, chance: f64) -> Duration {
    let doubled = FIRST.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1))).min(LONGEST);
    doubled.mul_f64(1.0 + chance.clamp(0.0, 1.0) / 4.0)
}

/// The lock's content, also after a panic elsewhere: what is in there is never half changed.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longer_each_time_up_to_a_limit_and_forgotten_at_success() {
        let b = Backoff::default();
        let rests: Vec<u64> = (0..12).map(|_| b.failed("x", 0.0).as_secs()).collect();
        assert_eq!(rests[..5], [1, 2, 4, 8, 16]);
        assert_eq!(rests[11], 300);
        assert_eq!(b.failed("y", 0.0).as_secs(), 1);
        b.succeeded("x");
        assert_eq!(b.failed("x", 0.0).as_secs(), 1);
        assert_eq!(rest(1, 1.0), Duration::from_millis(1250));
        assert_eq!(rest(u32::MAX, 0.0), LONGEST);
    }
}
