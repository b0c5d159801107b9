//! Which cached copies are emptied when space is needed.

use crate::heal::Local;
use crate::id::{BrickId, FileId};
use crate::object::Object;

/// Space on the brick's disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// All.
    pub capacity: u64,
    /// Free for the brick.
    pub free: u64,
}

/// Copies are emptied when less than this part of the disk is free ...
const LOW_PERCENT: u64 = 5;
/// ... or less than this, on a large one ...
const LOW_MOST: u64 = 20 << 30;
/// ... until so many percent of that are free.
const ENOUGH_PERCENT: u64 = 150;

impl Space {
    /// With so many bytes free there is room for more files.
    pub fn enough(&self) -> u64 {
        (self.capacity / 100 * LOW_PERCENT).min(LOW_MOST)
    }

    /// Whether there is so little free that others are to take new files: half of what is kept free by emptying cached
    /// copies, so there is nothing left to empty. One that was full is so until that much is free again.
    pub fn is_full(&self, was_full: bool) -> bool {
        self.free < if was_full { self.enough() } else { self.enough() / 2 }
    }

    /// How many bytes are to be made free; 0 while there are enough.
    pub fn lacking(&self) -> u64 {
        let low = self.enough();
        if self.free >= low {
            return 0;
        }
        (low / 100 * ENOUGH_PERCENT).saturating_sub(self.free)
    }
}

/// Whether the copy at `me` is only cached and may be emptied: it is not in the replica set, nobody here
/// uses it, and a brick that is in the set, and so never empties its own, holds the same or more. So two bricks
/// that empty theirs at once, each trusting the other, never lose the last copy.
pub fn may_empty(object: &Object, me: BrickId, local: Local<'_>, open: bool) -> bool {
    let Some(have) = local.have.filter(|_| !local.dirty && !open) else { return false };
    let set = object.replica_set();
    !set.contains(&me)
        && !object.in_conflict()
        && object.holders_of(have).any(|b| b != me && set.contains(&b))
}

/// A copy that may be emptied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cached {
    /// The file.
    pub file: FileId,
    /// What emptying it makes free.
    pub bytes: u64,
    /// When it was last used: milliseconds since 1970.
    pub used_ms: u64,
}

/// Which of them to empty to make `need` bytes free: those first that were not used for longest, and no more than needed.
pub fn plan(mut cached: Vec<Cached>, need: u64) -> Vec<FileId> {
    cached.sort_by_key(|c| (c.used_ms, c.file));
    let mut freed = 0u64;
    let mut out = Vec::new();
    for c in cached.into_iter().filter(|c| c.bytes > 0) {
        if freed >= need {
            break;
        }
        freed = freed.saturating_add(c.bytes);
        out.push(c.file);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::tests::entries;
    use proptest::prelude::*;

    #[test]
    fn copies_are_emptied_below_the_low_water_mark_until_half_more_is_free() {
        let space = |capacity, free| Space { capacity, free }.lacking();
        assert_eq!(space(1000, 50), 0);
        assert_eq!(space(1000 << 20, 49 << 20), (1000 << 20) / 100 * 5 / 100 * 150 - (49 << 20));
        // A large disk need not keep a twentieth of it free.
        assert_eq!(space(10 << 40, 20 << 30), 0);
        assert_eq!(space(0, 0), 0);
    }

    #[test]
    fn a_disk_is_full_below_half_of_what_is_kept_free_until_all_of_that_is_free() {
        let full = |free: u64, was| Space { capacity: 1000 << 20, free: free << 20 }.is_full(was);
        assert_eq!([full(24, false), full(25, false), full(24, true)], [true, false, true]);
        assert_eq!([full(49, true), full(50, true)], [true, false]);
        assert!(!Space { capacity: 10 << 40, free: 10 << 30 }.is_full(false));
        assert!(!Space { capacity: 0, free: 0 }.is_full(true), "nothing is known of it");
    }

    #[test]
    fn the_longest_unused_go_first_and_no_more_than_needed() {
        let c = |n, bytes, used_ms| Cached { file: FileId([n; 16]), bytes, used_ms };
        let all = vec![c(1, 10, 300), c(2, 10, 100), c(3, 0, 50), c(4, 10, 200)];
        let ids = |need| plan(all.clone(), need).iter().map(|f| f.0[0]).collect::<Vec<_>>();
        assert_eq!(ids(0), []);
        assert_eq!(ids(1), [2]);
        assert_eq!(ids(11), [2, 4]);
        assert_eq!(ids(1000), [2, 4, 1]);
    }

    proptest! {
        #[test]
        fn the_last_copy_is_never_emptied_though_all_bricks_do_it_at_once(list in entries()) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let held = object.holders.clone();
            let mut left: Vec<_> = Vec::new();
            let mut emptied: Vec<_> = Vec::new();
            for (who, reg) in &held {
                let Some(have) = &reg.value else { continue };
                let local = Local { have: Some(have), dirty: false };
                if may_empty(&object, *who, local, false) {
                    prop_assert!(!object.replica_set().contains(who));
                    prop_assert!(!may_empty(&object, *who, local, true));
                    let dirty = Local { dirty: true, ..local };
                    prop_assert!(!may_empty(&object, *who, dirty, false));
                    emptied.push(have);
                } else {
                    left.push(have);
                }
            }
            for have in emptied {
                prop_assert!(left.iter().any(|v| v.includes(have)));
            }
        }
    }
}
