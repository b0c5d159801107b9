//! A stream of whole files from one brick into `staging/`. What has come is made
//! durable and put in its place in groups, with one round of syncs for each.

use std::collections::BTreeMap;

use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, FileId, VersionVector};

use super::chunk;
use super::work::{Job, Wanted};
use crate::brick::disk::{self, File};
use crate::peer::FetchSink;
use crate::peer::wire::FetchItem;
use crate::volume::{Arrived, Staged, reason_of};

/// Files put in their places together, at most.
const GROUP_FILES: usize = 512;
/// Bytes of them, about.
const GROUP_BYTES: u64 = 64 << 20;
/// Zeroes in blocks of this size become holes.
const BLOCK: usize = 4096;
/// Of larger files it is counted how far they are.
const LARGE: u64 = 1 << 20;

/// A file that is coming.
struct Coming {
    file: FileId,
    version: VersionVector,
    size: u64,
    staged: Staged,
    to: File,
    at: u64,
    hasher: blake3::Hasher,
    failed: Option<Reason>,
}

/// Whether what did not come from one holder may come from the next.
pub(super) fn another_may_do_better(reason: Reason) -> bool {
    matches!(reason, Reason::Unreachable | Reason::SourceChanged | Reason::Corrupt)
}

/// Takes in one stream.
pub(super) struct Inlet<'a, 'b> {
    job: &'a Job<'b>,
    from: BrickId,
    wanted: BTreeMap<FileId, Wanted>,
    again: Vec<(Wanted, Reason)>,
    coming: Option<Coming>,
    arrived: Vec<Arrived>,
    bytes: u64,
    /// Bytes of large files that are counted as moving.
    moving: BTreeMap<FileId, u64>,
}

impl<'a, 'b> Inlet<'a, 'b> {
    pub fn new(job: &'a Job<'b>, from: BrickId) -> Self {
        let (wanted, moving) = (BTreeMap::new(), BTreeMap::new());
        Inlet { job, from, wanted, again: Vec::new(), coming: None, arrived: Vec::new(), bytes: 0, moving }
    }

    /// Pulls these files from the brick. Gives back those that did not come, each with the reason, and how the stream ended.
    pub fn pull(mut self, list: Vec<Wanted>) -> (Vec<(Wanted, Reason)>, Result<(), Reason>) {
        let items: Vec<_> =
            list.iter().map(|w| FetchItem { file: w.file, version: w.version.clone() }).collect();
        self.wanted = list.into_iter().map(|w| (w.file, w)).collect();
        let result = self.job.remote.fetch(self.from, &items, &mut self);
        if let Some(coming) = self.coming.take() {
            self.give_up(coming, Reason::Unreachable);
        }
        self.install();
        if !self.job.is_cancelled() {
            let why = result.err().unwrap_or(Reason::Unreachable);
            self.again.extend(std::mem::take(&mut self.wanted).into_values().map(|wanted| (wanted, why)));
        }
        (self.again, result)
    }

    /// Bytes of a file, or of a hole of it, are here.
    fn came(&mut self, file: FileId, size: u64, bytes: u64) {
        if size > LARGE {
            *self.moving.entry(file).or_default() += bytes;
            self.job.count().came(bytes);
        }
    }

    fn settled(&mut self, file: FileId) {
        if let Some(bytes) = self.moving.remove(&file) {
            self.job.count().settled(bytes);
        }
    }

    fn give_up(&mut self, coming: Coming, reason: Reason) {
        self.settled(coming.file);
        self.job.volume.leave(coming.staged, coming.at, reason);
        self.lost(coming.file, reason);
    }

    fn lost(&mut self, file: FileId, reason: Reason) {
        if let Some(wanted) = self.wanted.remove(&file) {
            match another_may_do_better(reason) {
                true => self.again.push((wanted, reason)),
                false => self.job.count().failed(file, reason),
            }
        }
    }

    fn install(&mut self) {
        self.bytes = 0;
        for (file, size, result) in self.job.volume.install(std::mem::take(&mut self.arrived)) {
            self.settled(file);
            match result {
                Ok(()) => {
                    self.wanted.remove(&file);
                    self.job.count().done(size);
                }
                // Also what has not the hash that members know: then this holder's copy is damaged, and nobody has seen that yet.
                Err(reason) => self.lost(file, reason),
            }
        }
    }
}

impl Coming {
    /// Writes what is not zero; the rest stays a hole.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        self.hasher.update(bytes);
        let start = self.at;
        self.at = start.saturating_add(bytes.len() as u64);
        if self.at > self.size {
            return Err(Reason::Corrupt);
        }
        let (mut from, mut at) = (0, 0);
        while at < bytes.len() {
            // Blocks of the file, not of the chunk.
            let into = usize::try_from((start + at as u64) % BLOCK as u64).unwrap_or(0);
            let end = (at + BLOCK - into).min(bytes.len());
            if end - at == BLOCK && bytes[at..end].iter().all(|b| *b == 0) {
                self.write(&bytes[from..at], start + from as u64)?;
                from = end;
            }
            at = end;
        }
        self.write(&bytes[from..], start + from as u64)
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), Reason> {
        if bytes.is_empty() {
            return Ok(());
        }
        disk::write_all_at(&*self.to, bytes, at).map_err(|error| {
            tracing::warn!(file = %self.file, %error, "what a heal brings cannot be written");
            reason_of(error)
        })
    }
}

impl FetchSink for Inlet<'_, '_> {
    fn begin(&mut self, file: FileId, version: VersionVector, size: u64) {
        if let Some(before) = self.coming.take() {
            self.give_up(before, Reason::Corrupt);
        }
        if self.wanted.get(&file).is_none_or(|w| !version.includes(&w.version)) {
            // Not asked for: nothing is staged, and what comes is passed over.
            return;
        }
        match self.job.volume.stage_transfer(file, &version, size) {
            Ok((staged, to)) => {
                let hasher = blake3::Hasher::new();
                // What was there of an earlier try is of no use where there is no list of chunks.
                let failed = to.truncate(0).err().map(reason_of);
                self.coming = Some(Coming { file, version, size, staged, to, at: 0, hasher, failed });
            }
            Err(error) => {
                tracing::warn!(%file, %error, "what a heal brings cannot be written");
                self.lost(file, reason_of(error));
            }
        }
    }

    fn data(&mut self, file: FileId, bytes: &[u8]) {
        self.job.throttle.took(bytes.len() as u64, self.job.cancel);
        let Some(coming) = self.coming.as_mut().filter(|c| c.file == file && c.failed.is_none()) else {
            return;
        };
        if let Err(reason) = coming.put(bytes) {
            coming.failed = Some(reason);
        }
        let size = coming.size;
        self.came(file, size, bytes.len() as u64);
    }

    fn hole(&mut self, file: FileId, len: u64) {
        let job = self.job;
        let Some(coming) = self.coming.as_mut().filter(|c| c.file == file && c.failed.is_none()) else {
            return;
        };
        coming.at = coming.at.saturating_add(len);
        if coming.at > coming.size {
            coming.failed = Some(Reason::Corrupt);
        } else if !chunk::hash_zeroes(&mut coming.hasher, len, || !job.is_cancelled()) {
            coming.failed = Some(Reason::Unreachable);
        }
        let size = coming.size;
        self.came(file, size, len);
    }

    fn end(&mut self, file: FileId, hash: [u8; 32]) {
        let Some(coming) = self.coming.take() else { return };
        if coming.file != file {
            return self.give_up(coming, Reason::Corrupt);
        }
        if let Some(reason) = coming.failed {
            return self.give_up(coming, reason);
        }
        if coming.at != coming.size || *coming.hasher.finalize().as_bytes() != hash {
            return self.give_up(coming, Reason::Corrupt);
        }
        if let Err(error) = coming.to.truncate(coming.size) {
            return self.give_up(coming, reason_of(error));
        }
        let Coming { file, version, size, staged, .. } = coming;
        self.bytes += size;
        self.arrived.push(Arrived { from: self.from, file, version, size, hash, staged });
        if self.arrived.len() >= GROUP_FILES || self.bytes >= GROUP_BYTES {
            self.install();
        }
    }

    fn failed(&mut self, file: FileId, reason: Reason) {
        match self.coming.take() {
            Some(coming) if coming.file == file => self.give_up(coming, reason),
            other => {
                self.coming = other;
                self.lost(file, reason);
            }
        }
    }

    fn cancelled(&self) -> bool {
        self.job.is_cancelled()
    }
}
