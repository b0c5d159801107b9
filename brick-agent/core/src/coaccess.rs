//! Which directories are used in the same sessions of work.
//!
//! Time is cut into windows of [`WINDOW_MS`]; directories that are used in the same window are used together. What is counted decays, so
//! that work of the past is forgotten. Two directories belong together when the one that is used less is used mostly in windows
//! of the other (the overlap coefficient of M. K. Vijaymeena and K. Kavitha, "A Survey on Similarity Measures in Text Mining",
//! 2016). A chance meeting is no habit: they must have met a few times.
//!
//! Invariants:
//! - at most [`MOST_IN_WINDOW`] directories of a window, [`MOST_PAIRS`] pairs and [`MOST_DIRS`] directories are remembered, about two
//!   megabytes: of more, those that are worth least go;
//! - a group has at most [`MOST_TOGETHER`] directories, and each directory is in one group;
//! - the same uses at the same times give the same groups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::FileId;

/// Uses within so much time are one session.
pub const WINDOW_MS: u64 = 5 * 60_000;
/// After this time a meeting counts half.
pub const HALF_LIFE_MS: u64 = 3 * 24 * 3_600_000;
/// Directories of one window: those that are used most.
pub const MOST_IN_WINDOW: usize = 32;
/// Pairs that are remembered.
pub const MOST_PAIRS: usize = 16_384;
/// Directories that are remembered.
pub const MOST_DIRS: usize = 16_384;
/// Directories of one group.
pub const MOST_TOGETHER: usize = 16;
/// Windows in which two must have met.
const MEETINGS: f64 = 2.5;
/// The part of the windows of the one used less in which the other was used too.
const OVERLAP: f64 = 0.6;
/// What is worth less than this is as good as forgotten.
const NOTHING: f64 = 0.05;

/// What is known of it at one workstation. Time comes in as milliseconds of any clock that does not go back.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CoAccess {
    window_began_ms: u64,
    /// Uses in the window that is open.
    window: BTreeMap<FileId, u32>,
    /// In how many windows each was used.
    alone: BTreeMap<FileId, f64>,
    /// In how many both were; the smaller id first.
    pairs: BTreeMap<(FileId, FileId), f64>,
}

impl CoAccess {
    /// A program used a file of this directory.
    pub fn note(&mut self, dir: FileId, now_ms: u64) {
        if now_ms.saturating_sub(self.window_began_ms) >= WINDOW_MS {
            self.close(now_ms);
        }
        if self.window.len() < 4 * MOST_IN_WINDOW || self.window.contains_key(&dir) {
            *self.window.entry(dir).or_default() += 1;
        }
    }

    /// The window ends: what was used in it was used together.
    fn close(&mut self, now_ms: u64) {
        let passed = now_ms.saturating_sub(self.window_began_ms);
        let factor = (-(passed as f64) / HALF_LIFE_MS as f64).exp2();
        // A clock that jumped far ahead, or the first window of all.
        let factor = if self.window_began_ms == 0 { 1.0 } else { factor };
        self.window_began_ms = now_ms;
        let mut used: Vec<(FileId, u32)> = std::mem::take(&mut self.window).into_iter().collect();
        used.sort_by_key(|(dir, uses)| (std::cmp::Reverse(*uses), *dir));
        used.truncate(MOST_IN_WINDOW);
        let mut dirs: Vec<FileId> = used.into_iter().map(|(dir, _)| dir).collect();
        dirs.sort_unstable();
        for (n, dir) in dirs.iter().enumerate() {
            *self.alone.entry(*dir).or_default() += 1.0;
            for other in dirs.iter().skip(n + 1) {
                *self.pairs.entry((*dir, *other)).or_default() += 1.0;
            }
        }
        fade(&mut self.alone, factor, MOST_DIRS);
        fade(&mut self.pairs, factor, MOST_PAIRS);
    }

    /// How strongly two belong together; 0 if they do not.
    fn bond(&self, (a, b): (FileId, FileId), met: f64) -> f64 {
        let windows = |dir: &FileId| self.alone.get(dir).copied().unwrap_or(0.0);
        let least = windows(&a).min(windows(&b)).max(met);
        let overlap = if least > 0.0 { met / least } else { 0.0 };
        if met >= MEETINGS && overlap >= OVERLAP { overlap * met } else { 0.0 }
    }

    /// Of each directory that belongs with others all of its group, itself among them. Others are groups of their own.
    pub fn groups(&self) -> BTreeMap<FileId, Vec<FileId>> {
        let mut bonds: Vec<(f64, (FileId, FileId))> =
            self.pairs.iter().map(|(pair, met)| (self.bond(*pair, *met), *pair)).collect();
        bonds.retain(|(bond, _)| *bond > 0.0);
        bonds.sort_by(|(a, x), (b, y)| b.total_cmp(a).then(x.cmp(y)));
        let mut of: BTreeMap<FileId, usize> = BTreeMap::new();
        let mut groups: Vec<Vec<FileId>> = Vec::new();
        for (_, (a, b)) in bonds {
            let mut place = |dir: FileId| {
                *of.entry(dir).or_insert_with(|| {
                    groups.push(vec![dir]);
                    groups.len() - 1
                })
            };
            let (x, y) = (place(a), place(b));
            let size = |n: usize| groups.get(n).map_or(0, Vec::len);
            if x == y || size(x) + size(y) > MOST_TOGETHER {
                continue;
            }
            let moved = groups.get_mut(y).map(std::mem::take).unwrap_or_default();
            of.extend(moved.iter().map(|dir| (*dir, x)));
            if let Some(group) = groups.get_mut(x) {
                group.extend(moved);
                group.sort_unstable();
            }
        }
        let whole = |n: &usize| groups.get(*n).filter(|group| group.len() > 1).cloned();
        of.iter().filter_map(|(dir, n)| Some((*dir, whole(n)?))).collect()
    }
}

/// Multiplies, and keeps those that are worth most.
fn fade<K: Ord + Copy>(map: &mut BTreeMap<K, f64>, factor: f64, most: usize) {
    map.retain(|_, worth| {
        *worth *= factor;
        *worth >= NOTHING
    });
    if map.len() > most {
        let mut all: Vec<(K, f64)> = map.iter().map(|(key, worth)| (*key, *worth)).collect();
        all.sort_by(|(a, x), (b, y)| x.total_cmp(y).then(a.cmp(b)));
        // Some more than needed, so that it is not done for each that comes.
        for (key, _) in all.into_iter().take(map.len() - most + most / 16) {
            map.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dir(n: u32) -> FileId {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&n.to_be_bytes());
        FileId(id)
    }

    const START: u64 = 1_800_000_000_000;

    /// Sessions, one in each window; a last use of another directory ends the last window.
    fn after(sessions: &[&[u32]]) -> CoAccess {
        let mut known = CoAccess::default();
        for (n, session) in sessions.iter().enumerate() {
            session.iter().for_each(|d| known.note(dir(*d), START + n as u64 * WINDOW_MS));
        }
        known.note(dir(99), START + sessions.len() as u64 * WINDOW_MS);
        known
    }

    fn together(known: &CoAccess, a: u32, b: u32) -> bool {
        known.groups().get(&dir(a)).is_some_and(|group| group.contains(&dir(b)))
    }

    #[test]
    fn what_is_used_in_the_same_sessions_belongs_together_and_a_chance_meeting_does_not() {
        // Two works in turn: 1, 2, 3 and 4, 5; 6 (a mail folder, say) is used in both.
        let known = after(&[
            &[1, 2, 3, 6],
            &[4, 5],
            &[1, 2, 3],
            &[4, 5, 6],
            &[1, 2, 3],
            &[4, 5],
            &[2, 1],
            &[4, 5, 3],
        ]);
        assert!(together(&known, 1, 2) && together(&known, 2, 3) && together(&known, 4, 5));
        assert!(!together(&known, 1, 4) && !together(&known, 3, 5) && !together(&known, 6, 1));
        assert_eq!(known.groups()[&dir(1)], [dir(1), dir(2), dir(3)]);
        assert!(!known.groups().contains_key(&dir(6)), "alone");
        // Once or twice is no habit.
        assert!(after(&[&[1, 2], &[1, 2]]).groups().is_empty());
    }

    #[test]
    fn what_was_a_habit_once_is_forgotten() {
        let mut known = after(&[&[1, 2], &[1, 2], &[1, 2], &[1, 2]]);
        assert!(together(&known, 1, 2));
        let later = START + 10 * HALF_LIFE_MS;
        known.note(dir(7), later);
        known.note(dir(7), later + WINDOW_MS);
        assert!(known.groups().is_empty());
        // A clock that goes back does no harm.
        known.note(dir(1), 0);
        known.note(dir(1), later + 3 * WINDOW_MS);
    }

    #[test]
    fn memory_is_bounded_also_where_everything_is_used_at_once() {
        let mut known = CoAccess::default();
        for n in 0..3000u32 {
            for d in 0..200 {
                known.note(dir(n / 2 * 100 + d), START + u64::from(n) * WINDOW_MS);
            }
            assert!(known.window.len() <= 4 * MOST_IN_WINDOW);
        }
        assert!(known.alone.len() <= MOST_DIRS && known.pairs.len() <= MOST_PAIRS, "{}", known.pairs.len());
    }

    proptest! {
        #[test]
        fn groups_are_bounded_apart_and_the_same_for_the_same_uses(
            uses in prop::collection::vec((0u32..40, 0u64..60), 0..400),
        ) {
            let run = || {
                let mut uses = uses.clone();
                uses.sort_by_key(|(_, at)| *at);
                let mut known = CoAccess::default();
                uses.iter().for_each(|(d, at)| known.note(dir(*d), START + at * WINDOW_MS));
                known
            };
            let groups = run().groups();
            prop_assert_eq!(&run().groups(), &groups);
            for (d, group) in &groups {
                prop_assert!(group.contains(d) && (2..=MOST_TOGETHER).contains(&group.len()));
                for other in group {
                    prop_assert_eq!(groups.get(other), Some(group));
                }
            }
        }
    }
}
