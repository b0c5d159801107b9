//! Bounds on the bandwidth of heals: of one volume by its request, of the agent by its own option.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nearbrick_core::rate::Bucket;

/// The longest sleep before it is looked whether the heal was cancelled.
const SLICE: Duration = Duration::from_millis(50);
/// The least that a stream gets: a peer that is taken from more slowly than this gives the stream up.
pub const LEAST_OF_A_STREAM: u64 = 16 << 10;

/// Where the time comes from, and how to let it pass.
pub trait Timer: Send + Sync + 'static {
    /// Since any fixed moment.
    fn now(&self) -> Duration;
    /// Returns after that time.
    fn sleep(&self, time: Duration);
}

/// The machine's.
#[derive(Debug)]
pub struct MachineTimer(Instant);

impl Default for MachineTimer {
    fn default() -> Self {
        MachineTimer(Instant::now())
    }
}

impl Timer for MachineTimer {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Returns after that time, or when it is cancelled.
pub fn wait(timer: &dyn Timer, mut time: Duration, cancel: &AtomicBool) {
    while !time.is_zero() && !cancel.load(Ordering::Relaxed) {
        let now = time.min(SLICE);
        timer.sleep(now);
        time -= now;
    }
}

/// A bound that several streams share.
pub struct Limiter {
    bucket: Mutex<Bucket>,
    timer: Arc<dyn Timer>,
}

impl std::fmt::Debug for Limiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Limiter({:?})", self.bucket)
    }
}

impl Limiter {
    /// So many bytes in a second, but never less than one stream needs to stay open.
    pub fn new(rate: u64, timer: Arc<dyn Timer>) -> Arc<Self> {
        let bucket = Bucket::new(rate.max(LEAST_OF_A_STREAM));
        Arc::new(Limiter { bucket: Mutex::new(bucket), timer })
    }

    /// Bytes in a second.
    pub fn rate(&self) -> u64 {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner).rate()
    }

    fn take(&self, bytes: u64) -> Duration {
        let now = u64::try_from(self.timer.now().as_micros()).unwrap_or(u64::MAX);
        let wait = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(now, bytes);
        Duration::from_micros(wait)
    }
}

/// The bounds that one heal keeps.
#[derive(Debug, Default)]
pub struct Throttle {
    own: Option<Arc<Limiter>>,
    /// A bound that it shares with heals of other volumes.
    shared: Option<Arc<Limiter>>,
    /// Of its streams one at a time waits for that: so volumes share it by turns, however many streams each has.
    turn: Mutex<()>,
}

impl Throttle {
    /// Both of these.
    pub fn new(own: Option<Arc<Limiter>>, shared: Option<Arc<Limiter>>) -> Self {
        Throttle { own, shared, turn: Mutex::default() }
    }

    /// The lowest rate.
    pub fn rate(&self) -> Option<u64> {
        self.own.iter().chain(&self.shared).map(|l| l.rate()).min()
    }

    /// So many bytes have come: returns when the next may, or when the heal is cancelled.
    pub fn took(&self, bytes: u64, cancel: &AtomicBool) {
        if let Some(own) = &self.own {
            wait(&*own.timer, own.take(bytes), cancel);
        }
        if let Some(shared) = &self.shared {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            wait(&*shared.timer, shared.take(bytes), cancel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time passes when somebody sleeps.
    #[derive(Default)]
    struct Slept(Mutex<Duration>);

    impl Timer for Slept {
        fn now(&self) -> Duration {
            *self.0.lock().unwrap()
        }
        fn sleep(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    #[test]
    fn the_lower_of_two_bounds_holds() {
        let timer = Arc::new(Slept::default());
        let limit = |rate| Limiter::new(rate, timer.clone());
        let throttle = Throttle::new(Some(limit(1 << 20)), Some(limit(10 << 20)));
        assert_eq!(throttle.rate(), Some(1 << 20));
        (0..100).for_each(|_| throttle.took(1 << 18, &AtomicBool::new(false)));
        let seconds = timer.now().as_secs_f64();
        assert!((24.5..=25.0).contains(&seconds), "{seconds}");
    }

    #[test]
    fn volumes_share_a_bound_by_turns_however_many_streams_each_has() {
        use std::sync::atomic::AtomicU64;
        const PART: u64 = 64 << 10;
        let shared = Limiter::new(32 << 20, Arc::new(MachineTimer::default()));
        let [many, one] = [(); 2].map(|()| Throttle::new(None, Some(shared.clone())));
        let (stop, of_many) = (AtomicBool::new(false), AtomicU64::new(0));
        let mut of_one = 0;
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        many.took(PART, &stop);
                        of_many.fetch_add(PART, Ordering::Relaxed);
                    }
                });
            }
            // Only from when both are at work.
            while of_many.load(Ordering::Relaxed) < 4 << 20 {
                std::thread::yield_now();
            }
            let before = of_many.load(Ordering::Relaxed);
            while of_one < 8 << 20 {
                one.took(PART, &stop);
                of_one += PART;
            }
            of_many.fetch_sub(before, Ordering::Relaxed);
            stop.store(true, Ordering::Relaxed);
        });
        let of_many = of_many.load(Ordering::Relaxed);
        assert!(of_many < 2 * of_one, "{of_many} of eight streams, {of_one} of one");
    }

    #[test]
    fn who_cancels_need_not_wait() {
        let timer = Arc::new(Slept::default());
        let throttle = Throttle::new(Some(Limiter::new(1, timer.clone())), None);
        throttle.took(1 << 40, &AtomicBool::new(true));
        assert_eq!(timer.now(), Duration::ZERO);
    }
}
