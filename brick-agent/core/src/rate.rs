//! A bound on bytes per second: a token bucket, as the theoretical time of arrival
//! (ITU-T I.371, GCRA). The time is the caller's.

/// A bucket. In any span of time no more passes than the rate allows for it, plus one burst and what was
/// asked for at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    rate: u64,
    burst_us: u64,
    /// When the bucket will be as full as at the start, in microseconds.
    full_at: u64,
}

/// What may pass at once after a pause, in microseconds of the rate.
const BURST_US: u64 = 100_000;

impl Bucket {
    /// So many bytes in a second; at least one.
    pub fn new(rate: u64) -> Self {
        Bucket { rate: rate.max(1), burst_us: BURST_US, full_at: 0 }
    }

    /// Bytes in a second.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// Another rate from now on. What was taken stays taken.
    pub fn set_rate(&mut self, rate: u64) {
        self.rate = rate.max(1);
    }

    /// Takes so many bytes at the time `now`; says how long to wait, both in microseconds.
    pub fn take(&mut self, now: u64, bytes: u64) -> u64 {
        let cost = u128::from(bytes) * 1_000_000 / u128::from(self.rate);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        self.full_at = self.full_at.max(now).saturating_add(cost);
        (self.full_at - now).saturating_sub(self.burst_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_burst_passes_at_once_and_the_rest_at_the_rate() {
        let mut bucket = Bucket::new(1_000_000);
        assert_eq!(bucket.take(0, 100_000), 0);
        assert_eq!(bucket.take(0, 500_000), 500_000);
        assert_eq!(bucket.take(500_000, 1_000_000), 1_000_000);
        // A long pause saves up one burst, not more.
        assert_eq!(bucket.take(60_000_000, 200_000), 100_000);
        bucket.set_rate(100_000);
        assert_eq!(bucket.take(60_100_000, 100_000), 1_000_000);
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate(rate in 1u64..1 << 40, steps in prop::collection::vec((0u64..1_000_000, 1u64..1 << 24), 1..100)) {
            let mut bucket = Bucket::new(rate);
            let (mut now, mut sent) = (0u64, 0u128);
            for (pause, bytes) in &steps {
                now += pause;
                now += bucket.take(now, *bytes);
                sent += u128::from(*bytes);
                let allowed = u128::from(rate) * u128::from(now + BURST_US) / 1_000_000;
                // Each step may be rounded down by less than a microsecond.
                let slack = (steps.len() as u128) * (u128::from(rate) / 1_000_000 + 1);
                prop_assert!(sent <= allowed + slack, "{} of {}", sent, allowed);
            }
        }

        #[test]
        fn who_is_slower_than_the_rate_never_waits(rate in 1_000u64..1 << 30, steps in prop::collection::vec(1u64..1 << 20, 1..50)) {
            let mut bucket = Bucket::new(rate);
            let mut now = 0;
            for bytes in steps {
                prop_assert_eq!(bucket.take(now, bytes.min(rate / 10)), 0);
                now += (bytes.min(rate / 10)) * 1_000_000 / rate + 1;
            }
        }
    }
}
