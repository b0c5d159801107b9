//! Sums of pending files, kept as files come and go: what is asked for every second costs nothing that grows with them.

use std::collections::BTreeMap;

use nearbrick_core::BrickId;

use super::tally::PendingFile;

/// So many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Since when the oldest of them: milliseconds since 1970, at the beginning of its second.
    pub oldest_ms: Option<u64>,
    /// Since when the newest, at the end of its second.
    pub newest_ms: Option<u64>,
}

/// Files, with their bytes, and since when each is among them: to the second, so that the memory is bounded by time.
#[derive(Debug, Default)]
struct Sum {
    files: u64,
    bytes: u128,
    /// Files by the second since when.
    since: BTreeMap<u64, u64>,
}

impl Sum {
    fn add(&mut self, bytes: u64, since_ms: u64) {
        self.files += 1;
        self.bytes += u128::from(bytes);
        *self.since.entry(since_ms / 1000).or_default() += 1;
    }

    fn take(&mut self, bytes: u64, since_ms: u64) {
        self.files = self.files.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes.into());
        if let Some(files) = self.since.get_mut(&(since_ms / 1000)) {
            *files -= 1;
            if *files == 0 {
                self.since.remove(&(since_ms / 1000));
            }
        }
    }

    fn count(&self) -> Count {
        Count {
            files: self.files,
            bytes: u64::try_from(self.bytes).unwrap_or(u64::MAX),
            oldest_ms: self.since.first_key_value().map(|(second, _)| second * 1000),
            newest_ms: self.since.last_key_value().map(|(second, _)| second * 1000 + 999),
        }
    }
}

/// What is pending, summed up.
#[derive(Debug, Default)]
pub struct Sums {
    lacking: Sum,
    out: BTreeMap<BrickId, Sum>,
    once: Sum,
}

impl Sums {
    /// A file comes to be pending.
    pub fn add(&mut self, file: &PendingFile, me: Option<BrickId>) {
        self.each(file, me, Sum::add);
    }

    /// It is no longer pending as it was.
    pub fn take(&mut self, file: &PendingFile, me: Option<BrickId>) {
        self.each(file, me, Sum::take);
        self.out.retain(|_, sum| sum.files > 0);
    }

    fn each(&mut self, file: &PendingFile, me: Option<BrickId>, change: fn(&mut Sum, u64, u64)) {
        for lacks in &file.bricks {
            if Some(lacks.brick) == me {
                change(&mut self.lacking, lacks.bytes, lacks.since);
            } else if file.here {
                change(self.out.entry(lacks.brick).or_default(), lacks.bytes, lacks.since);
            }
        }
        let others = file.bricks.iter().filter(|lacks| file.here && Some(lacks.brick) != me);
        if let Some((since, bytes)) = others.map(|lacks| (lacks.since, lacks.bytes)).min() {
            change(&mut self.once, bytes, since);
        }
    }

    /// What this brick lacks.
    pub fn lacking(&self) -> Count {
        self.lacking.count()
    }

    /// What others lack of which the newest data is here.
    pub fn out(&self) -> BTreeMap<BrickId, Count> {
        self.out.iter().map(|(brick, sum)| (*brick, sum.count())).collect()
    }

    /// The same, each file once.
    pub fn once(&self) -> Count {
        self.once.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_core::pending::Pending;
    use proptest::prelude::*;

    const ME: BrickId = BrickId([1; 16]);

    fn file() -> impl Strategy<Value = PendingFile> {
        let lacks = (1u8..4, 0u64..5000, 0u64..9000).prop_map(|(brick, bytes, since)| (brick, bytes, since));
        (prop::collection::vec(lacks, 1..4), any::<bool>()).prop_map(|(mut lacks, here)| {
            lacks.sort_unstable();
            lacks.dedup_by_key(|l| l.0);
            let bricks = lacks
                .into_iter()
                .map(|(brick, bytes, since)| Pending { brick: BrickId([brick; 16]), bytes, since })
                .collect();
            PendingFile { bricks, here }
        })
    }

    proptest! {
        /// Whatever came and went, the sums are those of what is there.
        #[test]
        fn sums_are_of_what_is_pending(files in prop::collection::vec((file(), any::<bool>()), 0..30)) {
            let mut sums = Sums::default();
            for (file, _) in &files {
                sums.add(file, Some(ME));
            }
            for (file, _) in files.iter().filter(|(_, stays)| !stays) {
                sums.take(file, Some(ME));
            }
            let there: Vec<_> = files.iter().filter(|(_, stays)| *stays).map(|(f, _)| f).collect();
            let lacks = |of: BrickId| there.iter().filter(move |f| of == ME || f.here).flat_map(|f| &f.bricks).filter(move |l| l.brick == of);
            prop_assert_eq!(sums.lacking().bytes, lacks(ME).map(|l| l.bytes).sum::<u64>());
            let out = sums.out();
            for other in [2, 3].map(|n| BrickId([n; 16])) {
                let count = out.get(&other).cloned().unwrap_or_default();
                prop_assert_eq!(count.files, lacks(other).count() as u64);
                prop_assert_eq!(count.oldest_ms, lacks(other).map(|l| l.since / 1000 * 1000).min());
                prop_assert_eq!(count.newest_ms, lacks(other).map(|l| l.since / 1000 * 1000 + 999).max());
            }
            let once = there.iter().filter(|f| f.here && f.bricks.iter().any(|l| l.brick != ME)).count() as u64;
            prop_assert_eq!(sums.once().files, once);
        }
    }
}
