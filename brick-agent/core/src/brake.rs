//! Brakes: when one member's journal removes so much that a person is asked before others follow.
//!
//! Counted for each origin: files that its entries remove and whose names no other file takes (a program
//! that replaces many files loses none), within a window of time. Small volumes never trip.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::id::{BadId, Incarnation};

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Up to so many files nothing is asked.
    pub floor: u64,
    /// More than this share of the volume's files, in percent.
    pub share: u64,
    /// Within this time, in milliseconds.
    pub window: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { floor: 100, share: 30, window: 600_000 }
    }
}

/// What one origin did within the present window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Done {
    since: u64,
    removed: u64,
    /// Files of the volume, at the most.
    of: u64,
}

/// What the origins did lately.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removals(BTreeMap<Incarnation, Done>);

impl Removals {
    /// The origin removed so many files, of a volume of `of`. Says whether that is too much.
    pub fn note(&mut self, origin: Incarnation, removed: u64, of: u64, now: u64, limits: Limits) -> bool {
        let done = self.0.entry(origin).or_insert(Done { since: now, ..Done::default() });
        // A clock that jumps begins a new window.
        if now.checked_sub(done.since).is_none_or(|passed| passed > limits.window) {
            *done = Done { since: now, ..Done::default() };
        }
        done.removed += removed;
        done.of = done.of.max(of);
        done.removed > limits.floor
            && u128::from(done.removed) * 100 > u128::from(done.of) * u128::from(limits.share)
    }

    /// A person has looked at what the origin did.
    pub fn forget(&mut self, origin: Incarnation) {
        self.0.remove(&origin);
    }
}

/// Names removals that are held back: those by one origin, up to one of its entries. What that
/// origin removes later is not named by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeldId {
    /// Whose journal.
    pub origin: Incarnation,
    /// The last of its entries that removed something.
    pub seq: u64,
}

impl HeldId {
    /// Whether a person's word about `self` is about `held` too.
    pub fn covers(&self, held: &HeldId) -> bool {
        self.origin == held.origin && self.seq >= held.seq
    }
}

impl fmt::Display for HeldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.origin, self.seq)
    }
}

impl FromStr for HeldId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId::new(text, "removals that are held, as ORIGIN-NUMBER");
        let (origin, seq) = text.split_once('-').ok_or_else(bad)?;
        Ok(HeldId { origin: origin.parse().map_err(|_| bad())?, seq: seq.parse().map_err(|_| bad())? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Incarnation = Incarnation(1);
    const B: Incarnation = Incarnation(2);

    #[test]
    fn only_much_of_a_volume_that_is_not_small_trips_it() {
        let limits = Limits { floor: 100, share: 30, window: 1000 };
        let note = |steps: &[(Incarnation, u64, u64, u64)]| {
            let mut removals = Removals::default();
            steps.iter().map(|&(o, gone, of, at)| removals.note(o, gone, of, at, limits)).collect::<Vec<_>>()
        };
        assert_eq!(note(&[(A, 100, 100, 0)]), [false], "a small volume, all of it");
        assert_eq!(note(&[(A, 101, 101, 0)]), [true]);
        assert_eq!(note(&[(A, 300, 1000, 0), (A, 1, 700, 5)]), [false, true], "bit by bit");
        assert_eq!(
            note(&[(A, 300, 1000, 0), (A, 300, 700, 1001)]),
            [false, true],
            "slowly, and then at once"
        );
        assert_eq!(note(&[(A, 200, 1000, 0), (A, 200, 800, 1001)]), [false, false], "slowly");
        assert_eq!(note(&[(A, 200, 1000, 0), (B, 200, 800, 1)]), [false, false], "each for itself");
        assert_eq!(note(&[(A, 300, 1000, 9), (A, 10, 700, 0)]), [false, false], "a clock that jumps back");
    }

    #[test]
    fn a_word_covers_what_it_names_and_nothing_later() {
        let held = HeldId { origin: A, seq: 500 };
        assert_eq!(held.to_string().parse::<HeldId>().unwrap(), held);
        assert!(held.covers(&held) && held.covers(&HeldId { seq: 499, ..held }));
        assert!(!held.covers(&HeldId { seq: 501, ..held }) && !held.covers(&HeldId { origin: B, ..held }));
        for text in ["", "-", "1", "1-", "1-x", "x-1"] {
            assert!(text.parse::<HeldId>().is_err(), "{text}");
        }
    }
}
