//! A stream of whole files from one brick into `staging/`. What has come is made
//! durable and put in its place in groups, with one round of syncs for each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, FileId, VersionVector};

use super::{Count, Wanted};
use crate::brick::disk::{self, File};
use crate::peer::wire::FetchItem;
use crate::peer::{FetchSink, Remote};
use crate::volume::{Arrived, Volume};

/// Files put in their places together, at most.
const GROUP_FILES: usize = 512;
/// Bytes of them, about.
const GROUP_BYTES: u64 = 64 << 20;
/// Zeroes in blocks of this size become holes.
const BLOCK: usize = 4096;

/// A file that is coming.
struct Coming {
    file: FileId,
    version: VersionVector,
    size: u64,
    staged: String,
    to: File,
    at: u64,
    hasher: blake3::Hasher,
    failed: Option<Reason>,
}

/// Takes in one stream.
pub(super) struct Inlet<'a, 'b> {
    volume: &'a Volume,
    count: &'a mut Count<'b>,
    cancel: &'a AtomicBool,
    wanted: BTreeMap<FileId, Wanted>,
    again: Vec<(Wanted, Reason)>,
    coming: Option<Coming>,
    arrived: Vec<Arrived>,
    bytes: u64,
}

impl<'a, 'b> Inlet<'a, 'b> {
    pub fn new(volume: &'a Volume, count: &'a mut Count<'b>, cancel: &'a AtomicBool) -> Self {
        Inlet {
            volume,
            count,
            cancel,
            wanted: BTreeMap::new(),
            again: Vec::new(),
            coming: None,
            arrived: Vec::new(),
            bytes: 0,
        }
    }

    /// Pulls these files. Gives back those that did not come, each with the reason, and how the stream ended.
    pub fn pull(
        mut self,
        remote: &dyn Remote,
        from: BrickId,
        list: Vec<Wanted>,
    ) -> (Vec<(Wanted, Reason)>, Result<(), Reason>) {
        let items: Vec<_> =
            list.iter().map(|w| FetchItem { file: w.file, version: w.version.clone() }).collect();
        self.wanted = list.into_iter().map(|w| (w.file, w)).collect();
        let result = remote.fetch(from, &items, &mut self);
        if let Some(coming) = self.coming.take() {
            self.give_up(coming, Reason::Unreachable);
        }
        self.install();
        if !self.cancel.load(Ordering::Relaxed) {
            let why = result.err().unwrap_or(Reason::Unreachable);
            self.again.extend(std::mem::take(&mut self.wanted).into_values().map(|wanted| (wanted, why)));
        }
        (self.again, result)
    }

    fn give_up(&mut self, coming: Coming, reason: Reason) {
        self.volume.unstage(&coming.staged);
        self.lost(coming.file, reason);
    }

    fn lost(&mut self, file: FileId, reason: Reason) {
        if let Some(wanted) = self.wanted.remove(&file) {
            match reason {
                // Another holder may do better.
                Reason::Unreachable | Reason::SourceChanged | Reason::Corrupt => {
                    self.again.push((wanted, reason))
                }
                _ => self.count.failed(file, reason),
            }
        }
    }

    fn install(&mut self) {
        self.bytes = 0;
        for (file, size, result) in self.volume.install(std::mem::take(&mut self.arrived)) {
            match result {
                Ok(()) => {
                    self.wanted.remove(&file);
                    self.count.done(size);
                }
                Err(reason) => {
                    self.wanted.remove(&file);
                    self.count.failed(file, reason);
                }
            }
        }
    }
}

impl Coming {
    /// Writes what is not zero; the rest stays a hole.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        self.hasher.update(bytes);
        let start = self.at;
        self.at += bytes.len() as u64;
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
            crate::volume::reason_of(error)
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
        // A job and an open may bring the same file side by side: each stages its own.
        let staged = format!("heal-{file}-{}", self.volume.count_staged());
        match self.volume.stage(&staged) {
            Ok(to) => {
                let hasher = blake3::Hasher::new();
                self.coming = Some(Coming { file, version, size, staged, to, at: 0, hasher, failed: None });
            }
            Err(error) => {
                tracing::warn!(%file, %error, "what a heal brings cannot be written");
                self.lost(file, crate::volume::reason_of(error));
            }
        }
    }

    fn data(&mut self, file: FileId, bytes: &[u8]) {
        let Some(coming) = self.coming.as_mut().filter(|c| c.file == file && c.failed.is_none()) else {
            return;
        };
        if let Err(reason) = coming.put(bytes) {
            coming.failed = Some(reason);
        }
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
            return self.give_up(coming, crate::volume::reason_of(error));
        }
        let Coming { file, version, size, staged, .. } = coming;
        self.bytes += size;
        self.arrived.push(Arrived { file, version, size, hash, staged });
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
        self.cancel.load(Ordering::Relaxed)
    }
}
