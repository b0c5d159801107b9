//! Version vectors: brick incarnation -> counter.
//!
//! Source: D. S. Parker et al., "Detection of Mutual Inconsistency in
//! Distributed Systems" (1983). A vector includes another when each of its
//! counters is at least the other's; if neither includes the other, the two
//! versions were written without knowing of each other: a conflict.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::Incarnation;

/// The most counters in one vector: a brick has one for each life of its index.
pub const MAX_COUNTERS: usize = 4096;
/// The largest counter. One at the end of the numbers would leave no room for the next version.
pub const MAX_COUNTER: u64 = 1 << 48;

/// How one version stands to another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Relation {
    /// The same version.
    Equal,
    /// The left one includes the right one and more.
    After,
    /// The right one includes the left one and more.
    Before,
    /// Neither includes the other.
    Concurrent,
}

/// What a version of a file's content includes. Counters are never 0: two vectors that include each other are
/// equal. Bytes that say otherwise, from a peer or a disk, are not read as one.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Incarnation, u64>")]
pub struct VersionVector(BTreeMap<Incarnation, u64>);

/// Counters that are no version vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a version vector over its bounds")]
pub struct BadVersion;

impl TryFrom<BTreeMap<Incarnation, u64>> for VersionVector {
    type Error = BadVersion;

    fn try_from(counters: BTreeMap<Incarnation, u64>) -> Result<Self, BadVersion> {
        let all_fit =
            counters.len() <= MAX_COUNTERS && counters.values().all(|n| (1..=MAX_COUNTER).contains(n));
        all_fit.then_some(VersionVector(counters)).ok_or(BadVersion)
    }
}

impl VersionVector {
    /// The empty vector: before every version.
    pub fn new() -> Self {
        Self::default()
    }

    /// The counter of `who`; 0 when it never wrote.
    pub fn get(&self, who: Incarnation) -> u64 {
        self.0.get(&who).copied().unwrap_or(0)
    }

    /// Whether nothing has been written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many incarnations it names.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The next version by `who`, which includes this one.
    #[must_use]
    pub fn bumped(&self, who: Incarnation) -> Self {
        let mut next = self.clone();
        let counter = next.0.entry(who).or_insert(0);
        *counter = counter.saturating_add(1);
        next
    }

    /// Adds all that `other` includes: the least vector that includes both.
    pub fn merge(&mut self, other: &Self) {
        for (&who, &n) in &other.0 {
            let mine = self.0.entry(who).or_insert(0);
            *mine = (*mine).max(n);
        }
    }

    /// Whether this version has all that `other` has.
    pub fn includes(&self, other: &Self) -> bool {
        other.0.iter().all(|(&who, &n)| self.get(who) >= n)
    }

    /// How this version stands to `other`.
    pub fn relation(&self, other: &Self) -> Relation {
        match (self.includes(other), other.includes(self)) {
            (true, true) => Relation::Equal,
            (true, false) => Relation::After,
            (false, true) => Relation::Before,
            (false, false) => Relation::Concurrent,
        }
    }

    /// The sum of its counters: greater than that of every version which it includes.
    pub fn weight(&self) -> u128 {
        self.0.values().map(|&n| u128::from(n)).sum()
    }

    /// Its counters, by incarnation.
    pub fn iter(&self) -> impl Iterator<Item = (Incarnation, u64)> + '_ {
        self.0.iter().map(|(&who, &n)| (who, n))
    }
}

impl FromIterator<(Incarnation, u64)> for VersionVector {
    fn from_iter<I: IntoIterator<Item = (Incarnation, u64)>>(counters: I) -> Self {
        let mut vector = Self::new();
        for (who, n) in counters {
            if n > 0 {
                let mine = vector.0.entry(who).or_insert(0);
                *mine = (*mine).max(n);
            }
        }
        vector
    }
}

impl fmt::Debug for VersionVector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<")?;
        for (i, (who, n)) in self.iter().enumerate() {
            write!(f, "{}{who:?}:{n}", if i > 0 { " " } else { "" })?;
        }
        f.write_str(">")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn vectors() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec((0u64..4, 0u64..4), 0..5)
            .prop_map(|v| v.into_iter().map(|(w, n)| (Incarnation(w), n)).collect())
    }

    fn merged(a: &VersionVector, b: &VersionVector) -> VersionVector {
        let mut m = a.clone();
        m.merge(b);
        m
    }

    #[test]
    fn s01_counters_that_no_member_has_are_no_vector() {
        let read = |counters: &[(u64, u64)]| {
            let bytes = postcard::to_stdvec(&BTreeMap::from_iter(counters.iter().copied())).unwrap();
            postcard::from_bytes::<VersionVector>(&bytes).ok()
        };
        assert_eq!(read(&[(1, 1), (2, MAX_COUNTER)]).unwrap().len(), 2);
        // It would be equal to one without it and yet another; and nothing could come after it.
        assert_eq!(read(&[(1, 0)]), None);
        assert_eq!(read(&[(1, u64::MAX)]), None);
        let many: Vec<_> = (1..=MAX_COUNTERS as u64 + 1).map(|who| (who, 1)).collect();
        assert_eq!(read(&many), None);
    }

    proptest! {
        #[test]
        fn merge_is_a_join(a in vectors(), b in vectors(), c in vectors()) {
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a.clone());
            prop_assert!(merged(&a, &b).includes(&a) && merged(&a, &b).includes(&b));
        }

        #[test]
        fn a_bump_comes_after(a in vectors(), who in 0u64..5) {
            prop_assert_eq!(a.bumped(Incarnation(who)).relation(&a), Relation::After);
        }

        #[test]
        fn two_bumps_apart_are_concurrent(a in vectors()) {
            let (x, y) = (a.bumped(Incarnation(10)), a.bumped(Incarnation(11)));
            prop_assert_eq!(x.relation(&y), Relation::Concurrent);
        }

        #[test]
        fn relation_is_antisymmetric(a in vectors(), b in vectors()) {
            let flipped = match a.relation(&b) {
                Relation::After => Relation::Before,
                Relation::Before => Relation::After,
                same => same,
            };
            prop_assert_eq!(b.relation(&a), flipped);
        }
    }
}
