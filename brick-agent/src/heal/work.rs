//! The files of one heal, and who fetches which from whom: several streams side by side, from several
//! holders. Whoever fails passes its files to the next holder, until none is left.
//!
//! Invariant: a holder that is slow holds up the files that only it has, and no others: as long as there
//! are files of other holders, one stream at least is left to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, FileId, VersionVector};

use super::fetch::Inlet;
use super::limit::Throttle;
use super::{Count, delta};
use crate::peer::Remote;
use crate::volume::Volume;

/// Files asked for in one stream, at most.
const IN_STREAM: usize = 1024;
/// Files that are worth a stream of their own.
const SHARE: usize = 64;
/// Bytes asked for in one stream, about, at most: the rest may be had from another holder meanwhile.
const STREAM_BYTES: u64 = 256 << 20;
/// Between two looks whether the heal was cancelled.
const LOOK: Duration = Duration::from_millis(100);

/// One file to be fetched.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The file.
    pub file: FileId,
    /// Its newest version.
    pub version: VersionVector,
    /// Bytes of it.
    pub size: u64,
    /// Bricks still to be tried, best first.
    pub from: Vec<BrickId>,
    /// Some of its bytes may be here: it is fetched by chunks.
    pub by_chunks: bool,
}

/// What the streams of one heal share.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    pub volume: &'a Volume,
    pub remote: &'a dyn Remote,
    pub cancel: &'a AtomicBool,
    pub throttle: &'a Throttle,
    pub count: &'a Mutex<Count<'a>>,
}

impl<'a> Job<'a> {
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Relaxed)
    }

    pub fn count(&self) -> MutexGuard<'a, Count<'a>> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Queue {
    /// In the order in which they are to come.
    files: Vec<Wanted>,
    /// Streams from each holder.
    running: BTreeMap<BrickId, usize>,
}

/// From whom the next stream comes, of those from whom something is wanted: from one that has
/// none, and rather from one that is the best for some file. None if whoever is left has as many as it may.
fn choose(files: &[Wanted], running: &BTreeMap<BrickId, usize>, streams: usize) -> Option<BrickId> {
    let mut best: BTreeMap<BrickId, (usize, bool, usize)> = BTreeMap::new();
    for (n, wanted) in files.iter().enumerate() {
        for (rank, source) in wanted.from.iter().enumerate() {
            let now = running.get(source).copied().unwrap_or(0);
            let score = (now, rank > 0, n);
            best.entry(*source).and_modify(|s| *s = (*s).min(score)).or_insert(score);
        }
    }
    let holders: BTreeSet<_> = best.keys().chain(running.keys()).collect();
    let most = if holders.len() > 1 { streams.saturating_sub(1).max(1) } else { streams };
    best.into_iter().filter(|(_, (now, ..))| *now < most).min_by_key(|(_, score)| *score).map(|(b, _)| b)
}

/// Takes what is to come in one stream from `source`: one file by chunks, or many whole ones.
fn take(files: &mut Vec<Wanted>, source: BrickId, streams: usize) -> Vec<Wanted> {
    let of_it = |w: &Wanted| w.from.contains(&source);
    let Some(first) = files.iter().find(|w| of_it(w)) else { return Vec::new() };
    if first.by_chunks {
        let file = first.file;
        return files.extract_if(.., |w| w.file == file).collect();
    }
    let all = files.iter().filter(|w| of_it(w) && !w.by_chunks).count();
    let most = all.div_ceil(streams.max(1)).clamp(SHARE, IN_STREAM);
    let (mut n, mut bytes) = (0, 0u64);
    files
        .extract_if(.., |w| {
            let fits = of_it(w) && !w.by_chunks && n < most && bytes < STREAM_BYTES;
            if fits {
                n += 1;
                bytes = bytes.saturating_add(w.size);
            }
            fits
        })
        .collect()
}

/// The streams of one heal.
struct Work<'a> {
    job: Job<'a>,
    streams: usize,
    queue: Mutex<Queue>,
    more: Condvar,
}

/// Fetches all of them, in `streams` at a time. Returns when each has come or failed, or when the heal is cancelled.
pub(super) fn fetch_all(job: Job<'_>, files: Vec<Wanted>, streams: usize) {
    let queue = Mutex::new(Queue { files, running: BTreeMap::new() });
    let work = Work { job, streams, queue, more: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 1..streams {
            let made = std::thread::Builder::new().name("heal".to_owned()).spawn_scoped(scope, || work.run());
            if let Err(error) = made {
                tracing::warn!(%error, "a heal runs in fewer streams than it may");
            }
        }
        // One alone needs no thread but this.
        work.run();
    });
}

impl Work<'_> {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some((source, files)) = self.next() {
            let finished = Finished { work: self, source };
            let tried = files.len();
            let (again, result) = if files.iter().any(|w| w.by_chunks) {
                delta::pull(&self.job, source, files)
            } else {
                Inlet::new(&self.job, source).pull(files)
            };
            let mut queue = self.queue();
            if result.is_err() && again.len() == tried {
                // Nothing came: others need not try to reach it too.
                for wanted in &mut queue.files {
                    wanted.from.retain(|b| *b != source);
                }
                let lost: Vec<_> = queue.files.extract_if(.., |w| w.from.is_empty()).collect();
                lost.into_iter().for_each(|w| self.job.count().failed(w.file, Reason::Unreachable));
            }
            for (mut wanted, reason) in again {
                wanted.from.retain(|b| *b != source);
                if wanted.from.is_empty() {
                    self.job.count().failed(wanted.file, reason);
                } else {
                    wanted.by_chunks = self.job.volume.has_some_of(wanted.file, wanted.size);
                    queue.files.push(wanted);
                }
            }
            drop(queue);
            drop(finished);
        }
    }

    fn next(&self) -> Option<(BrickId, Vec<Wanted>)> {
        let mut queue = self.queue();
        loop {
            if self.job.is_cancelled() {
                return None;
            }
            let Queue { files, running } = &mut *queue;
            if let Some(source) = choose(files, running, self.streams) {
                let files = take(files, source, self.streams);
                *running.entry(source).or_insert(0) += 1;
                return Some((source, files));
            }
            if queue.running.is_empty() {
                return None;
            }
            // What another stream passes on may be ours.
            queue = self.more.wait_timeout(queue, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Counts a stream out, also after a panic in it.
struct Finished<'a, 'b> {
    work: &'a Work<'b>,
    source: BrickId,
}

impl Drop for Finished<'_, '_> {
    fn drop(&mut self) {
        let mut queue = self.work.queue();
        if let Some(n) = queue.running.get_mut(&self.source) {
            *n -= 1;
            if *n == 0 {
                queue.running.remove(&self.source);
            }
        }
        drop(queue);
        self.work.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn brick(n: u8) -> BrickId {
        BrickId([n; 16])
    }

    fn wanted(n: u8, size: u64, from: &[u8]) -> Wanted {
        Wanted {
            file: FileId([n; 16]),
            version: VersionVector::new(),
            size,
            from: from.iter().map(|b| brick(*b)).collect(),
            by_chunks: false,
        }
    }

    #[test]
    fn a_second_stream_comes_from_the_second_holder() {
        let files = vec![wanted(1, 5, &[1, 2]), wanted(2, 5, &[1, 2])];
        let running = |n: &[(u8, usize)]| n.iter().map(|(b, n)| (brick(*b), *n)).collect();
        assert_eq!(choose(&files, &running(&[]), 4), Some(brick(1)));
        assert_eq!(choose(&files, &running(&[(1, 1)]), 4), Some(brick(2)));
        assert_eq!(choose(&files, &running(&[(1, 1), (2, 1)]), 4), Some(brick(1)));
    }

    #[test]
    fn p02_one_stream_is_left_to_the_others() {
        // Only the slow holder has something in the queue: others may pass something on yet.
        let files = vec![wanted(1, 5, &[1])];
        let running = BTreeMap::from([(brick(1), 3), (brick(2), 1)]);
        assert_eq!(choose(&files, &running, 4), None);
        assert_eq!(choose(&files, &BTreeMap::from([(brick(1), 3)]), 4), Some(brick(1)));
        assert_eq!(choose(&files, &BTreeMap::from([(brick(2), 1)]), 1), Some(brick(1)));
    }

    #[test]
    fn one_file_by_chunks_or_many_whole_ones() {
        let mut files: Vec<_> = (0..200).map(|n| wanted(n, 1000, &[1])).collect();
        files[150].by_chunks = true;
        assert_eq!(take(&mut files, brick(1), 1).len(), 199);
        assert_eq!(take(&mut files, brick(1), 1).len(), 1);
        let mut files: Vec<_> = (0..200).map(|n| wanted(n, 1000, &[1 + n % 2])).collect();
        files[0].by_chunks = true;
        assert_eq!(take(&mut files, brick(1), 1).len(), 1);
        assert_eq!(take(&mut files, brick(2), 1).len(), 100);
        let mut files: Vec<_> = (0..10).map(|n| wanted(n, STREAM_BYTES, &[1])).collect();
        assert_eq!(take(&mut files, brick(1), 4).len(), 1);
    }

    proptest! {
        #[test]
        fn every_file_is_taken_once(list in prop::collection::vec((prop::collection::vec(1u8..4, 1..3), any::<bool>()), 0..100), streams in 1usize..5) {
            let mut files: Vec<_> = list.iter().enumerate().map(|(n, (from, by_chunks))| {
                Wanted { by_chunks: *by_chunks, ..wanted(n as u8, 10, from) }
            }).collect();
            let mut seen = BTreeSet::new();
            while let Some(source) = choose(&files, &BTreeMap::new(), streams) {
                let batch = take(&mut files, source, streams);
                prop_assert!(!batch.is_empty());
                for w in batch {
                    prop_assert!(w.from.contains(&source));
                    prop_assert!(seen.insert(w.file));
                }
            }
            prop_assert_eq!(seen.len(), list.len());
        }
    }
}
