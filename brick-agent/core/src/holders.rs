//! Which holder of a version is asked first: the one from which the bytes are likely to come soonest.

/// What was measured of a peer. All times are the caller's, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Record {
    /// Until the first byte, smoothed.
    latency_ms: Option<f64>,
    /// Bytes per millisecond after that, smoothed.
    rate: Option<f64>,
    /// Failures since the last success.
    failures: u32,
    /// When something was last measured.
    at_ms: u64,
}

/// After this time nothing measured counts any more: who was slow once gets another chance.
const FRESH_MS: u64 = 60_000;
/// Less than this says nothing about a rate.
const TELLING_BYTES: u64 = 64 << 10;
/// The weight of the newest measurement.
const NEWEST: f64 = 0.3;
/// Each failure makes a peer this much less likely to be the best.
const WORSE: f64 = 4.0;

fn smooth(known: Option<f64>, new: f64) -> Option<f64> {
    Some(known.map_or(new, |old| old * (1.0 - NEWEST) + new * NEWEST))
}

impl Record {
    /// `bytes` came: the first after `latency_ms`, all after `total_ms`.
    pub fn succeeded(&mut self, now_ms: u64, bytes: u64, latency_ms: f64, total_ms: f64) {
        self.forget_if_old(now_ms);
        self.failures = 0;
        self.latency_ms = smooth(self.latency_ms, latency_ms.max(0.0));
        if bytes >= TELLING_BYTES {
            self.rate = smooth(self.rate, bytes as f64 / (total_ms - latency_ms).max(0.01));
        }
        self.at_ms = now_ms;
    }

    /// It did not answer, or not with what was asked for.
    pub fn failed(&mut self, now_ms: u64) {
        self.forget_if_old(now_ms);
        self.failures = self.failures.saturating_add(1);
        self.at_ms = now_ms;
    }

    fn forget_if_old(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.at_ms) > FRESH_MS {
            *self = Record::default();
        }
    }

    /// How long `bytes` will take, about, in milliseconds. Of whom nothing is known the best is expected.
    pub fn expected_ms(&self, now_ms: u64, bytes: u64) -> f64 {
        let mut fresh = *self;
        fresh.forget_if_old(now_ms);
        let time = fresh.latency_ms.unwrap_or(0.0) + fresh.rate.map_or(0.0, |rate| bytes as f64 / rate);
        match fresh.failures {
            0 => time,
            n => time.max(10.0) * WORSE.powi(i32::try_from(n.min(8)).unwrap_or(8)),
        }
    }
}

/// Puts the best first; the caller's order stays among equals.
pub fn order<T>(holders: &mut [T], now_ms: u64, bytes: u64, record: impl Fn(&T) -> Record) {
    holders.sort_by(|a, b| {
        let (a, b) = (record(a).expected_ms(now_ms, bytes), record(b).expected_ms(now_ms, bytes));
        a.total_cmp(&b)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn measured(latency: f64, bytes_per_ms: u64) -> Record {
        let mut record = Record::default();
        record.succeeded(1000, bytes_per_ms * 1000, latency, latency + 1000.0);
        record
    }

    fn best(records: &[Record], now: u64, bytes: u64) -> Vec<usize> {
        let mut all: Vec<_> = (0..records.len()).collect();
        order(&mut all, now, bytes, |n| records[*n]);
        all
    }

    #[test]
    fn near_for_few_bytes_and_fast_for_many() {
        let (near, fast) = (measured(1.0, 1_000), measured(20.0, 100_000));
        assert_eq!(best(&[fast, near], 2000, 4096), [1, 0]);
        assert_eq!(best(&[near, fast], 2000, 100 << 20), [1, 0]);
    }

    #[test]
    fn who_failed_comes_later_and_who_is_not_known_first() {
        let mut failed = measured(1.0, 100_000);
        failed.failed(2000);
        let slow = measured(10.0, 50_000);
        assert_eq!(best(&[failed, slow, Record::default()], 2000, 4096), [2, 1, 0]);
        // One success makes up for it, and so does time.
        failed.succeeded(2100, 1 << 20, 1.0, 10.0);
        assert_eq!(best(&[slow, failed], 2200, 4096), [1, 0]);
        failed.failed(3000);
        assert_eq!(best(&[failed, slow], 3000 + 2 * FRESH_MS, 4096), [0, 1]);
    }

    proptest! {
        #[test]
        fn the_order_keeps_everyone_and_is_one(list in prop::collection::vec((0u32..3, 0f64..1e3, 1u64..1 << 30, 0f64..1e4), 0..8), bytes in any::<u32>()) {
            let records: Vec<_> = list.iter().map(|(failures, latency, bytes, more)| {
                let mut record = Record::default();
                record.succeeded(1, *bytes, *latency, latency + more);
                (0..*failures).for_each(|_| record.failed(2));
                record
            }).collect();
            let first = best(&records, 3, bytes.into());
            let mut sorted = first.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..records.len()).collect::<Vec<_>>());
            for pair in first.windows(2) {
                let at = |n: usize| records[n].expected_ms(3, bytes.into());
                prop_assert!(at(pair[0]) <= at(pair[1]));
            }
        }
    }
}
