//! Where the links of the replicated tree are to be seen.
//!
//! The merged registers say where each link wants to be; several may want one
//! place, and moves made apart may close a cycle. These functions decide, from
//! the registers alone, so that all members show one tree:
//!
//! * Directories that want one name are merged: the earliest is shown, and the
//!   children of all are shown in it.
//! * Of files that want one name the earliest keeps it, unless a directory
//!   wants it too; the others are shown as conflict siblings beside it.
//! * In a cycle of directories the latest move is the one that is not honoured:
//!   that directory is shown in the root. (Compare M. Kleppmann et al., "A
//!   highly-available move operation for replicated trees", 2022, where that
//!   move is undone; a directory that a person can find is kept either way.)
//! * A removed directory is shown as long as something live is in it.

use crate::id::{FileId, LinkId};
use crate::name::conflict_name;
use crate::stamp::Stamp;

/// A live link that wants a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claim {
    /// The link.
    pub link: LinkId,
    /// Its object.
    pub file: FileId,
    /// Whether the object is a directory.
    pub is_dir: bool,
    /// When it came to want this place.
    pub stamp: Stamp,
}

/// What becomes of a claim.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Shown under the name.
    Keeps,
    /// Shown under this other name beside it.
    Sibling(Vec<u8>),
    /// A directory whose children are shown in this one.
    MergedInto(FileId),
}

/// Decides who is shown under `name`, for all the live links that want it.
/// The answer does not depend on the order of `claims`, and is in their order.
pub fn resolve(name: &[u8], claims: &[Claim]) -> Vec<Verdict> {
    let earliest = |dirs: bool| claims.iter().filter(|c| c.is_dir == dirs).min_by_key(|c| (c.stamp, c.link));
    let dir = earliest(true);
    let file = if dir.is_some() { None } else { earliest(false) };
    claims
        .iter()
        .map(|claim| match (claim.is_dir, dir, file) {
            // Also by a second link of the same directory, as after a power cut.
            (true, Some(winner), _) if winner.file == claim.file => Verdict::Keeps,
            (true, Some(winner), _) => Verdict::MergedInto(winner.file),
            (false, None, Some(winner)) if winner.link == claim.link => Verdict::Keeps,
            _ => Verdict::Sibling(conflict_name(name, &tag(&maker(claim), claim.stamp), 0)),
        })
        .collect()
}

/// Who made the link: `1f2e3d4c-7`.
fn maker(claim: &Claim) -> String {
    format!("{:08x}-{}", claim.link.origin.0 >> 32, claim.link.seq)
}

/// Who and when, as a person can read it: `ws-a, 2026-11-23 12.05.09`.
pub(crate) fn tag(who: &str, stamp: Stamp) -> String {
    let seconds = stamp.millis() / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let (h, m, s) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{who}, {year}-{month:02}-{day:02} {h:02}.{m:02}.{s:02}")
}

/// Year, month and day of a count of days since 1970-01-01.
/// Source: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// Where a directory hangs: its parent, and when it came there.
pub type ParentOf<'a> = dyn Fn(FileId) -> Option<(FileId, Stamp)> + 'a;

/// The directory in which `dir` is shown: its own parent, or the root if `dir`
/// closed a cycle. None when it has no parent yet.
///
/// `parent_of` gives each directory's wanted parent, none for the root and for
/// what is not known. Cost: the depth of the tree.
pub fn shown_parent(dir: FileId, parent_of: &ParentOf<'_>) -> Option<FileId> {
    let (parent, stamp) = parent_of(dir)?;
    let mut latest = (stamp, dir);
    let mut at = parent;
    let mut seen = std::collections::BTreeSet::from([dir]);
    while seen.insert(at) {
        match parent_of(at) {
            None => return Some(parent),
            Some((up, stamp)) => {
                latest = latest.max((stamp, at));
                at = up;
            }
        }
    }
    if at != dir {
        // Below a cycle, not in it.
        return Some(parent);
    }
    Some(if latest.1 == dir { FileId::ROOT } else { parent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn claim(origin: u64, seq: u64, is_dir: bool, time: u64) -> Claim {
        let origin = Incarnation(origin);
        let mut file = [0; 16];
        file[..8].copy_from_slice(&origin.0.to_be_bytes());
        file[8..].copy_from_slice(&seq.to_be_bytes());
        Claim { link: LinkId { origin, seq }, file: FileId(file), is_dir, stamp: Stamp { time, origin } }
    }

    #[test]
    fn t08_the_earlier_file_keeps_the_name_and_the_other_is_beside_it() {
        let (a, b) = (
            claim(1 << 40, 5, false, 1_700_000_000_000 << 16),
            claim(2 << 40, 9, false, 1_800_000_000_000 << 16),
        );
        let name = Verdict::Sibling(b"a (conflict, 00000200-9, 2027-01-15 08.00.00).txt".to_vec());
        assert_eq!(resolve(b"a.txt", &[a, b]), [Verdict::Keeps, name.clone()]);
        assert_eq!(resolve(b"a.txt", &[b, a]), [name, Verdict::Keeps]);
    }

    #[test]
    fn directories_merge_and_keep_their_name_before_files() {
        let (d, e, f) = (claim(1, 1, true, 7), claim(2, 1, true, 6), claim(3, 1, false, 1));
        let verdicts = resolve(b"d", &[d, e, f]);
        assert_eq!(verdicts[..2], [Verdict::MergedInto(e.file), Verdict::Keeps]);
        assert!(matches!(verdicts[2], Verdict::Sibling(_)));
    }

    #[test]
    fn a_directory_that_wants_its_name_twice_is_not_in_itself() {
        let d = claim(1, 1, true, 7);
        let again = Claim { file: d.file, ..claim(2, 1, true, 9) };
        assert_eq!(resolve(b"d", &[d, again]), [Verdict::Keeps, Verdict::Keeps]);
    }

    #[test]
    fn t21_two_directories_moved_into_each_other_stay_reachable() {
        let (a, b) = (FileId([1; 16]), FileId([2; 16]));
        let s = |time| Stamp { time, origin: Incarnation(1) };
        let parents: BTreeMap<_, _> = [(a, (b, s(1))), (b, (a, s(2)))].into();
        let of = |d: FileId| parents.get(&d).copied();
        assert_eq!(shown_parent(b, &of), Some(FileId::ROOT));
        assert_eq!(shown_parent(a, &of), Some(b));
    }

    proptest! {
        #[test]
        fn every_directory_reaches_the_root(moves in prop::collection::vec((1u8..8, 0u8..8), 1..12)) {
            let mut parents: BTreeMap<FileId, (FileId, Stamp)> =
                (1..8).map(|n| (FileId([n; 16]), (FileId::ROOT, Stamp::ZERO))).collect();
            for (i, (who, to)) in moves.iter().enumerate() {
                let stamp = Stamp { time: i as u64 + 1, origin: Incarnation(1) };
                parents.insert(FileId([*who; 16]), (FileId([*to; 16]), stamp));
            }
            let of = |d: FileId| parents.get(&d).copied();
            for n in 1..8 {
                let mut at = FileId([n; 16]);
                for _ in 0..9 {
                    at = shown_parent(at, &of).unwrap_or(FileId::ROOT);
                }
                prop_assert_eq!(at, FileId::ROOT);
            }
        }

        #[test]
        fn one_keeps_the_name_and_no_two_names_are_equal(
            list in prop::collection::btree_map((0u64..3, 1u64..4), (any::<bool>(), 0u64..4), 1..6)
        ) {
            let claims: Vec<_> = list.iter().map(|(&(o, s), &(d, t))| claim(o << 40, s, d, t)).collect();
            let verdicts = resolve(b"x", &claims);
            prop_assert_eq!(verdicts.iter().filter(|v| **v == Verdict::Keeps).count(), 1);
            let mut names: Vec<_> = verdicts.iter().filter(|v| matches!(v, Verdict::Sibling(_))).collect();
            let count = names.len();
            names.dedup();
            prop_assert_eq!(names.len(), count);
        }
    }
}
