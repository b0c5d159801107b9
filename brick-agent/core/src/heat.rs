//! How much each group of related files is used at a workstation: counts that decay.
//!
//! Source: G. Cormode, V. Shkapenyuk, D. Srivastava and B. Xu, "Forward Decay: A Practical Time Decay Model for Streaming Systems"
//! (ICDE 2009). A use that comes later weighs more, by a factor that doubles every half-life; what a count is worth now is its sum
//! divided by the weight of a use now. So nothing has to be touched while time passes.
//!
//! Invariants:
//! - at most [`MOST`] groups are remembered, about 100 bytes each: when one more comes, those go that are worth least;
//! - a count is never more than the uses that were noted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::FileId;

/// After this time a use counts half.
pub const HALF_LIFE_MS: u64 = 4 * 3_600_000;
/// Groups that are remembered.
pub const MOST: usize = 16_384;
/// When there are too many, so many go at once: finding those that are worth least costs a look at all.
const AT_ONCE: usize = MOST / 8;
/// A weight is at most 2 to this power; then all are written anew from a later zero.
const RENEW: f64 = 64.0;
/// What is worth less than this is as good as never used.
const NOTHING: f64 = 0.01;

/// What kind of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Opened for reading, and this brick is in the file's replica set.
    Local,
    /// The same, but the data is only a cached copy.
    Cached,
    /// The same, and not all data was here.
    Remote,
    /// Opened for writing, or made.
    Write,
}

/// Uses of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Uses {
    /// [`Access::Local`].
    pub local: f64,
    /// [`Access::Cached`].
    pub cached: f64,
    /// [`Access::Remote`].
    pub remote: f64,
    /// [`Access::Write`].
    pub writes: f64,
}

impl Uses {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.local + self.cached + self.remote + self.writes
    }

    fn of(&mut self, access: Access) -> &mut f64 {
        match access {
            Access::Local => &mut self.local,
            Access::Cached => &mut self.cached,
            Access::Remote => &mut self.remote,
            Access::Write => &mut self.writes,
        }
    }

    fn times(&self, factor: f64) -> Self {
        Uses {
            local: self.local * factor,
            cached: self.cached * factor,
            remote: self.remote * factor,
            writes: self.writes * factor,
        }
    }
}

/// What a count of `worth` is worth so many milliseconds later.
pub fn decayed(worth: f64, after_ms: u64) -> f64 {
    worth * (-(after_ms as f64) / HALF_LIFE_MS as f64).exp2()
}

/// Uses of all groups at one workstation. Time comes in as milliseconds of any clock that does not go back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Heat {
    /// The time at which a use weighs 1.
    zero_ms: u64,
    /// Sums of weights, by the directory that is the group.
    groups: BTreeMap<FileId, Uses>,
}

impl Heat {
    fn half_lives(&self, now_ms: u64) -> f64 {
        now_ms.saturating_sub(self.zero_ms) as f64 / HALF_LIFE_MS as f64
    }

    /// Notes `count` uses of a group.
    pub fn note(&mut self, group: FileId, access: Access, count: u32, now_ms: u64) {
        if self.groups.is_empty() {
            self.zero_ms = now_ms;
        }
        if self.half_lives(now_ms) > RENEW {
            self.renew(now_ms);
        }
        let weight = self.half_lives(now_ms).exp2() * f64::from(count);
        *self.groups.entry(group).or_default().of(access) += weight;
        if self.groups.len() > MOST {
            self.forget_coldest(group);
        }
    }

    /// What the uses of a group are worth now.
    pub fn of(&self, group: FileId, now_ms: u64) -> Uses {
        let uses = self.groups.get(&group).copied().unwrap_or_default();
        uses.times((-self.half_lives(now_ms)).exp2())
    }

    /// The groups that are worth most now, hottest first; of equal ones the first by its id.
    pub fn hottest(&self, most: usize, now_ms: u64) -> Vec<(FileId, Uses)> {
        let factor = (-self.half_lives(now_ms)).exp2();
        let worth = self.groups.iter().map(|(group, uses)| (*group, uses.times(factor)));
        let mut all: Vec<_> = worth.filter(|(_, uses)| uses.total() >= NOTHING).collect();
        all.sort_by(|(a, x), (b, y)| y.total().total_cmp(&x.total()).then(a.cmp(b)));
        all.truncate(most);
        all
    }

    /// How many groups are remembered.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// Whether nothing was used.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn renew(&mut self, now_ms: u64) {
        let factor = (-self.half_lives(now_ms)).exp2();
        self.zero_ms = now_ms;
        self.groups.retain(|_, uses| {
            *uses = uses.times(factor);
            uses.total() >= NOTHING
        });
    }

    fn forget_coldest(&mut self, but: FileId) {
        let mut all: Vec<(FileId, f64)> = self.groups.iter().map(|(g, uses)| (*g, uses.total())).collect();
        all.sort_by(|(a, x), (b, y)| x.total_cmp(y).then(a.cmp(b)));
        for (group, _) in all.into_iter().filter(|(group, _)| *group != but).take(AT_ONCE) {
            self.groups.remove(&group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(n: u32) -> FileId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        FileId(id)
    }

    #[test]
    fn a_use_counts_half_after_a_half_life_whatever_the_zero() {
        for start in [0, 1_800_000_000_000] {
            let mut heat = Heat::default();
            heat.note(group(1), Access::Local, 8, start);
            heat.note(group(1), Access::Write, 2, start + HALF_LIFE_MS);
            let now = heat.of(group(1), start + HALF_LIFE_MS);
            assert!((now.local - 4.0).abs() < 1e-9 && (now.writes - 2.0).abs() < 1e-9, "{now:?}");
            let later = heat.of(group(1), start + 3 * HALF_LIFE_MS).total();
            assert!((later - 1.5).abs() < 1e-9 && (decayed(6.0, 2 * HALF_LIFE_MS) - 1.5).abs() < 1e-9);
        }
    }

    #[test]
    fn after_a_long_time_sums_are_written_anew_and_what_is_cold_is_forgotten() {
        let mut heat = Heat::default();
        heat.note(group(1), Access::Local, 1000, 0);
        let month = 180 * HALF_LIFE_MS;
        heat.note(group(2), Access::Remote, 3, month);
        assert_eq!(heat.len(), 1);
        assert_eq!(heat.hottest(9, month), [(group(2), Uses { remote: 3.0, ..Uses::default() })]);
        // A clock that goes back makes no use heavier than it was.
        heat.note(group(3), Access::Local, 1, 0);
        assert!(heat.of(group(3), 0).total() <= 1.0);
    }

    #[test]
    fn memory_is_bounded_and_the_hottest_stay() {
        let mut heat = Heat::default();
        for n in 0..3 * MOST as u32 {
            let count = if n % 100 == 0 { 50 } else { 1 };
            heat.note(group(n), Access::Local, count, u64::from(n));
            assert!(heat.len() <= MOST);
        }
        let now = 3 * MOST as u64;
        assert!((0..3 * MOST as u32).step_by(100).all(|n| heat.of(group(n), now).total() > 49.0));
        assert!(heat.hottest(10, now).iter().all(|(_, uses)| uses.total() > 49.0));
    }

    proptest! {
        #[test]
        fn worth_is_the_sum_of_decayed_uses(
            list in prop::collection::vec((0u32..4, 0u64..40, 1u32..9), 1..40), later in 0u64..20,
        ) {
            let mut list = list;
            list.sort_by_key(|(_, at, _)| *at);
            let mut heat = Heat::default();
            for (g, at, count) in &list {
                heat.note(group(*g), Access::Cached, *count, at * HALF_LIFE_MS / 3);
            }
            let now = (40 + later) * HALF_LIFE_MS / 3;
            for g in 0..4 {
                let of = list.iter().filter(|(x, ..)| *x == g);
                let wanted: f64 =
                    of.map(|(_, at, count)| decayed(f64::from(*count), now - at * HALF_LIFE_MS / 3)).sum();
                let found = heat.of(group(g), now).total();
                prop_assert!((found - wanted).abs() <= 1e-9 * wanted.max(1.0), "{found} {wanted}");
            }
        }
    }
}
