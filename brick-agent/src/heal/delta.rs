//! One large file by chunks: the holder says of which it consists, and only those come that are not
//! here. Chunks are taken from what is in `staging/` of an earlier try, from the older version in its place,
//! and from the ranges of a stub that were read already. Each is checked before it is used, and then the whole.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, FileId, VersionVector};

use super::chunk;
use super::fetch::{Inlet, another_may_do_better};
use super::work::{Job, Wanted};
use crate::brick::disk::{self, FileAccess};
use crate::peer::FetchSink;
use crate::peer::wire::{ChunkHash, ChunkList, MAX_RANGES, Piece, RangesRequest};
use crate::volume::{Arrived, Older, errno_of, reason_of};

/// As long as less than this is lacking, the older version is not looked through for
/// bytes that moved: that reads all of it.
const WORTH_LOOKING: u64 = 1 << 20;
/// Zeroes in blocks of this size become holes.
const BLOCK: usize = 4096;
/// Bytes read at a time.
const READ: usize = 1 << 20;

/// A chunk, and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    offset: u64,
    len: u32,
    hash: ChunkHash,
}

/// Fetches one file from `source`. As [`Inlet::pull`].
pub(super) fn pull(
    job: &Job<'_>,
    source: BrickId,
    files: Vec<Wanted>,
) -> (Vec<(Wanted, Reason)>, Result<(), Reason>) {
    let mut again = Vec::new();
    let mut result = Ok(());
    for wanted in files {
        let list = match job.remote.chunks(source, wanted.file, &wanted.version) {
            Ok(Some(list)) => list,
            Ok(None) => {
                // Then whole, as if nothing were here.
                let (rest, ended) = Inlet::new(job, source).pull(vec![wanted]);
                again.extend(rest);
                result = result.and(ended);
                continue;
            }
            Err(reason) => {
                let ended = if reason == Reason::Unreachable { Err(reason) } else { Ok(()) };
                result = result.and(ended);
                again.push((wanted, reason));
                continue;
            }
        };
        let (arrived, moving) = one(job, source, &wanted, &list);
        match arrived {
            Ok(arrived) => {
                let version = arrived.version.clone();
                for (file, size, result) in job.volume.install(vec![arrived]) {
                    job.count().settled(moving);
                    match result {
                        Ok(()) => {
                            job.volume.chunk_lists().put(file, list.clone());
                            job.count().done(size);
                        }
                        Err(reason) if another_may_do_better(reason) => again.push((wanted.clone(), reason)),
                        Err(reason) => job.count().failed(file, reason),
                    }
                }
                tracing::debug!(file = %wanted.file, ?version, "came by chunks");
            }
            Err(_) if job.is_cancelled() => job.count().settled(moving),
            Err(reason) if another_may_do_better(reason) => {
                job.count().settled(moving);
                again.push((wanted, reason));
            }
            Err(reason) => {
                job.count().settled(moving);
                job.count().failed(wanted.file, reason);
            }
        }
    }
    (again, result)
}

fn why(error: &io::Error) -> Reason {
    reason_of(errno_of(error))
}

/// One file, to its end in `staging/`. What came before a failure stays there. Says too how many bytes are counted
/// as moving.
fn one(
    job: &Job<'_>,
    source: BrickId,
    wanted: &Wanted,
    list: &Arc<ChunkList>,
) -> (Result<Arrived, Reason>, u64) {
    let (file, size) = (wanted.file, list.size);
    let (staged, to) = match job.volume.stage_transfer(file, &list.version, size) {
        Ok(staged) => staged,
        Err(error) => return (Err(reason_of(error)), 0),
    };
    let mut assembly = Assembly { job, file, list, to: &*to, here: 0, chunk: Vec::new() };
    let result = assembly.run(source);
    let here = assembly.here;
    let arrived = match result {
        Ok(()) => {
            Ok(Arrived { from: source, file, version: list.version.clone(), size, hash: list.hash, staged })
        }
        Err(reason) => {
            job.volume.leave(staged, here, reason);
            Err(reason)
        }
    };
    (arrived, here)
}

struct Assembly<'a, 'b> {
    job: &'a Job<'b>,
    file: FileId,
    list: &'a ChunkList,
    to: &'a dyn FileAccess,
    /// Bytes that are in their place.
    here: u64,
    chunk: Vec<u8>,
}

impl Assembly<'_, '_> {
    /// So many bytes more are in their place.
    fn got(&mut self, bytes: u64) {
        self.here += bytes;
        self.job.count().came(bytes);
    }

    fn run(&mut self, source: BrickId) -> Result<(), Reason> {
        let older = self.job.volume.older_bytes(self.file).map_err(reason_of)?;
        let mut lacking = self.take_from_here(older.as_ref()).map_err(|e| why(&e))?;
        let len = |parts: &[Part]| parts.iter().map(|p| u64::from(p.len)).sum::<u64>();
        if let Some(older) = older.filter(|_| len(&lacking) > WORTH_LOOKING) {
            lacking = self.take_what_moved(&older, lacking).map_err(|e| why(&e))?;
        }
        self.stop_if_cancelled()?;
        // A chunk that is in the file more than once comes once.
        let mut places: BTreeMap<ChunkHash, Vec<Part>> = BTreeMap::new();
        for part in &lacking {
            places.entry(part.hash).or_default().push(*part);
        }
        let mut first: Vec<Part> = places.values().filter_map(|p| p.first().copied()).collect();
        first.sort_unstable_by_key(|p| p.offset);
        for parts in first.chunks(MAX_RANGES) {
            self.fetch(source, parts, &places)?;
        }
        self.check_whole()
    }

    fn stop_if_cancelled(&self) -> Result<(), Reason> {
        if self.job.is_cancelled() { Err(Reason::Unreachable) } else { Ok(()) }
    }

    /// Brings the staged file to its size and its holes, and puts into it the chunks that are here at their
    /// place. Gives those that are not.
    fn take_from_here(&mut self, older: Option<&Older>) -> io::Result<Vec<Part>> {
        let mut staged = self.to.stat()?.st_size > 0;
        if !staged
            && let Some(older) = older.filter(|o| o.ranges.is_none())
            && self.to.clone_from(&*older.file).is_ok()
        {
            // The older version, without copying: chunks that stayed are in their place.
            staged = true;
        }
        self.to.truncate(self.list.size)?;
        let (mut at, mut lacking) = (0, Vec::new());
        for piece in &self.list.pieces {
            if self.job.is_cancelled() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            match *piece {
                Piece::Hole { len } => {
                    if staged {
                        punch(self.to, at, len)?;
                    }
                    self.got(len);
                }
                Piece::Data { len, hash } => {
                    let part = Part { offset: at, len, hash };
                    if staged && self.is_at(self.to, at, part)? {
                        self.got(u64::from(len));
                    } else if let Some(older) = older.filter(|o| o.has(at, len))
                        && self.is_at(&*older.file, at, part)?
                    {
                        self.put(part)?;
                    } else {
                        lacking.push(part);
                    }
                }
            }
            at += piece.len();
        }
        Ok(lacking)
    }

    /// Whether the chunk is in `file` at this place; it is then in `self.chunk`.
    fn is_at(&mut self, file: &dyn FileAccess, offset: u64, part: Part) -> io::Result<bool> {
        self.chunk.resize(part.len as usize, 0);
        match chunk::read_exact(file, &mut self.chunk, offset) {
            Ok(()) => Ok(chunk::name_of(&self.chunk) == part.hash),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            // What the disk does not give comes from the holder.
            Err(error) => {
                tracing::warn!(file = %self.file, %error, "an older version cannot be read");
                Ok(false)
            }
        }
    }

    /// Writes `self.chunk` to its place.
    fn put(&mut self, part: Part) -> io::Result<()> {
        write_with_holes(self.to, &self.chunk, part.offset)?;
        self.got(u64::from(part.len));
        Ok(())
    }

    /// Looks through the older version for chunks that are elsewhere in it. Gives those that are not.
    fn take_what_moved(&mut self, older: &Older, lacking: Vec<Part>) -> io::Result<Vec<Part>> {
        let mut places: BTreeMap<ChunkHash, u64> = BTreeMap::new();
        let known = older.version.as_ref().and_then(|v| self.job.volume.chunk_lists().get(self.file, v));
        let known = known.filter(|l| l.average == self.list.average && l.size == older.size);
        let mut at = 0;
        let mut note = |piece: &Piece| {
            if let Piece::Data { hash, .. } = piece {
                places.entry(*hash).or_insert(at);
            }
            at += piece.len();
        };
        match known {
            Some(list) => list.pieces.iter().for_each(&mut note),
            None => {
                let job = self.job;
                let looked = chunk::pieces(&*older.file, older.size, self.list.average, None, |piece| {
                    note(&piece);
                    !job.is_cancelled()
                });
                if let Err(error) = looked {
                    tracing::warn!(file = %self.file, %error, "an older version cannot be read");
                }
            }
        }
        let mut still = Vec::new();
        for part in lacking {
            match places.get(&part.hash) {
                Some(&at) if self.is_at(&*older.file, at, part)? => self.put(part)?,
                _ => still.push(part),
            }
        }
        Ok(still)
    }

    /// Fetches these chunks, and puts each in all of its places.
    fn fetch(
        &mut self,
        source: BrickId,
        parts: &[Part],
        places: &BTreeMap<ChunkHash, Vec<Part>>,
    ) -> Result<(), Reason> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for part in parts {
            let len = u64::from(part.len);
            match ranges.last_mut() {
                Some((start, before)) if *start + *before == part.offset => *before += len,
                _ => ranges.push((part.offset, len)),
            }
        }
        let wanted = RangesRequest { file: self.file, version: self.list.version.clone(), ranges };
        let mut inlet = Chunks {
            assembly: self,
            parts: parts.iter(),
            places,
            filled: Vec::new(),
            failed: None,
            came: false,
        };
        let result = inlet.assembly.job.remote.ranges(source, &wanted, &mut inlet);
        if let Some(reason) = inlet.failed {
            return Err(reason);
        }
        result?;
        if !inlet.came {
            return Err(Reason::Unreachable);
        }
        self.stop_if_cancelled()
    }

    /// The hash of the whole decides.
    fn check_whole(&mut self) -> Result<(), Reason> {
        let mut hasher = blake3::Hasher::new();
        let size = self.list.size;
        let job = self.job;
        let mut at = 0;
        while at < size {
            self.stop_if_cancelled()?;
            let (start, end) = chunk::next_data(self.to, at, size).map_err(|e| why(&e))?;
            if !chunk::hash_zeroes(&mut hasher, start - at, || !job.is_cancelled()) {
                return Err(Reason::Unreachable);
            }
            at = start;
            while at < end {
                self.stop_if_cancelled()?;
                let len = READ.min(usize::try_from(end - at).unwrap_or(READ));
                self.chunk.resize(len, 0);
                chunk::read_exact(self.to, &mut self.chunk, at).map_err(|e| why(&e))?;
                hasher.update(&self.chunk);
                at += len as u64;
            }
        }
        if *hasher.finalize().as_bytes() == self.list.hash {
            return Ok(());
        }
        tracing::warn!(file = %self.file, "came with chunks that are right and a whole that is not");
        Err(Reason::Corrupt)
    }
}

/// Makes a hole; a file system that cannot gets zeroes.
fn punch(file: &dyn FileAccess, at: u64, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    use rustix::io::Errno;
    match file.allocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len) {
        Err(Errno::OPNOTSUPP) => {
            let zeroes = vec![0; BLOCK];
            let (mut at, end) = (at, at + len);
            while at < end {
                let n = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
                disk::write_all_at(file, &zeroes[..n], at)?;
                at += n as u64;
            }
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Writes at `offset`; blocks of zeroes become holes, also where something else was before.
fn write_with_holes(file: &dyn FileAccess, bytes: &[u8], offset: u64) -> io::Result<()> {
    // Of what was looked at: where what is to be written begins, or the zeroes.
    let (mut from, mut zero, mut at) = (0, false, 0);
    let put = |zero: bool, from: usize, to: usize| match zero {
        _ if from == to => Ok(()),
        true => punch(file, offset + from as u64, (to - from) as u64),
        false => Ok(disk::write_all_at(file, &bytes[from..to], offset + from as u64)?),
    };
    while at < bytes.len() {
        // Blocks of the file, not of the chunk.
        let into = usize::try_from((offset + at as u64) % BLOCK as u64).unwrap_or(0);
        let end = (at + BLOCK - into).min(bytes.len());
        let is_zero = end - at == BLOCK && bytes[at..end].iter().all(|b| *b == 0);
        if is_zero != zero {
            put(zero, from, at)?;
            (from, zero) = (at, is_zero);
        }
        at = end;
    }
    put(zero, from, bytes.len())
}

/// Takes in the chunks of one request.
struct Chunks<'a, 'b, 'c> {
    assembly: &'a mut Assembly<'b, 'c>,
    /// Those that are still to come.
    parts: std::slice::Iter<'a, Part>,
    places: &'a BTreeMap<ChunkHash, Vec<Part>>,
    /// Of the one that comes.
    filled: Vec<u8>,
    failed: Option<Reason>,
    came: bool,
}

impl Chunks<'_, '_, '_> {
    fn whole(&mut self) {
        let Some(part) = self.parts.next() else { return };
        let bytes = std::mem::take(&mut self.filled);
        if chunk::name_of(&bytes) != part.hash {
            // Others of this stream may be right; the source may just be writing the file.
            self.failed.get_or_insert(self.assembly.job.volume.wrong_chunk(self.assembly.file));
        } else {
            for place in self.places.get(&part.hash).into_iter().flatten() {
                if let Err(error) = write_with_holes(self.assembly.to, &bytes, place.offset) {
                    let file = self.assembly.file;
                    tracing::warn!(%file, %error, "what a heal brings cannot be written");
                    self.failed = Some(why(&error));
                    return;
                }
                self.assembly.got(u64::from(place.len));
            }
        }
        self.filled = bytes;
        self.filled.clear();
    }
}

impl FetchSink for Chunks<'_, '_, '_> {
    fn begin(&mut self, _file: FileId, _version: VersionVector, _size: u64) {}

    fn data(&mut self, _file: FileId, mut bytes: &[u8]) {
        self.assembly.job.throttle.took(bytes.len() as u64, self.assembly.job.cancel);
        while let Some(part) = self.parts.as_slice().first() {
            let lacks = part.len as usize - self.filled.len();
            let (now, later) = bytes.split_at(lacks.min(bytes.len()));
            self.filled.extend_from_slice(now);
            bytes = later;
            if self.filled.len() < part.len as usize {
                return;
            }
            self.whole();
        }
    }

    fn hole(&mut self, _file: FileId, _len: u64) {
        self.failed.get_or_insert(Reason::Corrupt);
    }

    fn end(&mut self, _file: FileId, _hash: [u8; 32]) {
        // Each chunk was checked.
        self.came = self.parts.as_slice().is_empty();
    }

    fn failed(&mut self, _file: FileId, reason: Reason) {
        self.failed.get_or_insert(reason);
    }

    fn cancelled(&self) -> bool {
        let disk_refuses = matches!(self.failed, Some(Reason::NoSpace | Reason::Permission));
        disk_refuses || self.assembly.job.is_cancelled()
    }
}
