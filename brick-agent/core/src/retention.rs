//! Which kept versions are given up, so that the others stay within their bounds.

use std::collections::BTreeMap;

use crate::id::FileId;

/// A version that is kept out of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Of which file.
    pub file: FileId,
    /// Since when: milliseconds since 1970.
    pub since_ms: u64,
    /// What it takes on the disk.
    pub bytes: u64,
}

/// What versions may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Age, in milliseconds.
    pub age_ms: u64,
    /// All together, on the disk.
    pub bytes: u64,
    /// Versions of one file.
    pub of_a_file: usize,
    /// Versions.
    pub versions: usize,
}

/// Those that go, by their place in `kept`: the oldest first. One that would not fit by itself goes alone.
pub fn superfluous(kept: &[Kept], now_ms: u64, bounds: Bounds) -> Vec<usize> {
    let mut youngest_first: Vec<usize> = (0..kept.len()).collect();
    youngest_first.sort_by_key(|n| (std::cmp::Reverse(kept[*n].since_ms), *n));
    let mut of_file: BTreeMap<FileId, usize> = BTreeMap::new();
    let (mut bytes, mut versions, mut full) = (0u64, 0usize, false);
    let mut stays = |n: usize| {
        let version = &kept[n];
        if now_ms.saturating_sub(version.since_ms) > bounds.age_ms || version.bytes > bounds.bytes {
            return false;
        }
        let of_this = of_file.entry(version.file).or_default();
        if *of_this >= bounds.of_a_file {
            return false;
        }
        full |= versions >= bounds.versions || bytes.saturating_add(version.bytes) > bounds.bytes;
        if !full {
            *of_this += 1;
            bytes += version.bytes;
            versions += 1;
        }
        !full
    };
    let mut gone: Vec<usize> = youngest_first.into_iter().filter(|n| !stays(*n)).collect();
    gone.sort_unstable();
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { age_ms: 100, bytes: 50, of_a_file: 2, versions: 4 };

    fn kept(file: u8, since_ms: u64, bytes: u64) -> Kept {
        Kept { file: FileId([file; 16]), since_ms, bytes }
    }

    #[test]
    fn the_oldest_go_first() {
        let gone = |list: &[Kept]| superfluous(list, 200, BOUNDS);
        assert_eq!(gone(&[kept(1, 99, 1), kept(2, 100, 1)]), [0], "too old");
        assert_eq!(gone(&[kept(1, 150, 1), kept(1, 140, 1), kept(1, 160, 1)]), [1], "too many of one file");
        assert_eq!(gone(&[kept(1, 150, 30), kept(2, 140, 20), kept(3, 130, 1)]), [2], "too many bytes");
        assert_eq!(
            gone(&[kept(1, 150, 30), kept(2, 140, 21), kept(3, 130, 1)]),
            [1, 2],
            "and all that is older"
        );
        assert_eq!(gone(&[kept(1, 150, 51), kept(2, 140, 20)]), [0], "one that is too large by itself");
        let many: Vec<_> = (0..6).map(|n| kept(n, 150 + u64::from(n), 1)).collect();
        assert_eq!(gone(&many), [0, 1]);
        assert_eq!(gone(&[kept(1, 900, 1)]), [], "the clock was ahead");
    }

    proptest! {
        #[test]
        fn what_stays_is_within_the_bounds(list in prop::collection::vec((0u8..4, 0u64..300, 0u64..40), 0..20)) {
            let list: Vec<_> = list.into_iter().map(|(file, since, bytes)| kept(file, since, bytes)).collect();
            let gone = superfluous(&list, 200, BOUNDS);
            let stays: Vec<_> =
                list.iter().enumerate().filter(|(n, _)| !gone.contains(n)).map(|(_, k)| *k).collect();
            prop_assert!(stays.len() <= BOUNDS.versions);
            prop_assert!(stays.iter().map(|k| k.bytes).sum::<u64>() <= BOUNDS.bytes);
            for k in &stays {
                prop_assert!(stays.iter().filter(|o| o.file == k.file).count() <= BOUNDS.of_a_file);
                prop_assert!(k.since_ms >= 100);
            }
            // And nothing more would go.
            prop_assert_eq!(superfluous(&stays, 200, BOUNDS), Vec::<usize>::new());
        }
    }
}
