//! A clock that is this machine's, and that a test puts forward.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nearbrick_agent::volume::{MachineClock, WallClock};

/// Returns once what comes next has a later time than all that came before. Members that are apart order what they did by the
/// millisecond, and within one at random.
pub fn next_millisecond() {
    let clock = MachineClock::default();
    let before = clock.now_ms();
    while clock.now_ms() <= before {
        std::thread::yield_now();
    }
}

#[derive(Debug, Default)]
pub struct AheadClock {
    real: MachineClock,
    ahead_ms: AtomicU64,
}

impl AheadClock {
    /// So much time has passed.
    pub fn pass(&self, time: Duration) {
        self.ahead_ms.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }

    fn ahead(&self) -> u64 {
        self.ahead_ms.load(Ordering::Relaxed)
    }
}

impl WallClock for AheadClock {
    fn now_ms(&self) -> u64 {
        self.real.now_ms() + self.ahead()
    }

    fn passed(&self) -> Duration {
        self.real.passed() + Duration::from_millis(self.ahead())
    }
}
