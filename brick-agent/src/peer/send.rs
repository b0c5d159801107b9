//! Streams files to a peer: read in a blocking thread, hashed on the way, at
//! most [`QUEUE`] chunks ahead of what the network takes. A peer that takes
//! nothing for [`STALL`] is given up.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use nearbrick_core::heal::Reason;
use nearbrick_core::{FileId, VersionVector};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::wire::{ChunkList, ChunksRequest, FetchItem, MAX_PIECES, Piece, RangesRequest, ReadRequest};
use super::{Served, Source, SourceKind, frame};
use crate::brick::disk::FileAccess;
use crate::heal::chunk;

/// Bytes gathered before they are handed on.
pub const CHUNK: usize = 256 << 10;
/// Chunks that wait for the network.
pub const QUEUE: usize = 8;
/// How long a peer may take nothing.
pub const STALL: Duration = Duration::from_secs(60);

/// Pieces of a list that are said at once: well within a frame.
const PIECES: usize = 8 << 10;
/// The longest time without a word while a list is made.
const SAY: Duration = Duration::from_secs(2);

/// The peer is gone, or stalls.
struct Gone;

/// Why no more of a file is sent.
enum Stop {
    Gone,
    Failed(Reason),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Stop::Gone
    }
}

/// What flows to the body of the reply. An error cuts the connection, so that the
/// peer does not take the end of the bytes for the end of the stream.
pub type Chunk = io::Result<Bytes>;

/// Writes frames into the channel behind a reply's body.
pub struct Outlet {
    channel: mpsc::Sender<Chunk>,
    runtime: Handle,
    buffer: BytesMut,
    sent: Arc<AtomicU64>,
}

impl Outlet {
    /// An outlet and the end from which the body takes. `sent` counts bytes.
    pub fn new(runtime: Handle, sent: Arc<AtomicU64>) -> (Self, mpsc::Receiver<Chunk>) {
        let (channel, body) = mpsc::channel(QUEUE);
        (Outlet { channel, runtime, buffer: BytesMut::with_capacity(2 * CHUNK), sent }, body)
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = self.buffer.split().freeze();
        self.buffer.reserve(CHUNK + CHUNK / 4);
        self.sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        let sending = tokio::time::timeout(STALL, self.channel.send(Ok(chunk)));
        match self.runtime.block_on(sending) {
            Ok(Ok(())) => Ok(()),
            _ => Err(Gone),
        }
    }

    fn flush_if_full(&mut self) -> Result<(), Gone> {
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn failed(&mut self, file: FileId, reason: Reason) -> Result<(), Gone> {
        frame::put_failed(&mut self.buffer, file, reason);
        self.flush_if_full()
    }

    /// Sends the bytes of `from` between `at` and `end`.
    fn data(
        &mut self,
        file: FileId,
        from: &dyn FileAccess,
        mut at: u64,
        end: u64,
        hash: &mut blake3::Hasher,
    ) -> Result<(), Stop> {
        while at < end {
            let want = CHUNK.min(usize::try_from(end - at).unwrap_or(CHUNK));
            let got = frame::put_data_with(&mut self.buffer, want, |space| {
                let got = read_full(from, space, at)?;
                hash.update(&space[..got]);
                Ok::<_, io::Error>(got)
            });
            match got {
                // Truncated since it was opened.
                Ok(0) => return Err(Stop::Failed(Reason::SourceChanged)),
                Ok(got) => at += got as u64,
                Err(error) => return Err(unreadable(file, &error)),
            }
            self.flush_if_full()?;
        }
        Ok(())
    }

    /// Sends the first `size` bytes of `from` with their holes.
    fn whole(
        &mut self,
        file: FileId,
        from: &dyn FileAccess,
        size: u64,
        hash: &mut blake3::Hasher,
    ) -> Result<(), Stop> {
        let mut at = 0;
        while at < size {
            let (start, end) = chunk::next_data(from, at, size).map_err(|e| unreadable(file, &e))?;
            if start > at {
                frame::put_hole(&mut self.buffer, start - at);
                self.flush_if_full()?;
                chunk::hash_zeroes(hash, start - at, || true);
            }
            // What became a hole just now is read as zeroes.
            let end = if end > start { end } else { size };
            self.data(file, from, start, end, hash)?;
            at = end;
        }
        Ok(())
    }

    /// Sends what `body` sends, and the end if `still` says that nothing changed on the way.
    /// What the disk refuses is said to the peer.
    fn file(
        &mut self,
        file: FileId,
        body: impl FnOnce(&mut Self, &mut blake3::Hasher) -> Result<(), Stop>,
        still: impl FnOnce() -> bool,
    ) -> Result<(), Gone> {
        let mut hash = blake3::Hasher::new();
        match body(self, &mut hash) {
            Ok(()) if still() => {
                frame::put_end(&mut self.buffer, hash.finalize().as_bytes());
                self.flush_if_full()
            }
            Ok(()) => self.failed(file, Reason::SourceChanged),
            Err(Stop::Failed(reason)) => self.failed(file, reason),
            Err(Stop::Gone) => Err(Gone),
        }
    }

    fn item(&mut self, volume: &dyn Served, item: &FetchItem) -> Result<(), Gone> {
        match volume.source(item.file, &item.version) {
            Ok(source) => {
                frame::put_begin(&mut self.buffer, item.file, &source.version, source.size);
                self.file(
                    item.file,
                    |out, hash| out.whole(item.file, &*source.file, source.size, hash),
                    || still(volume, item.file, &source),
                )
            }
            Err(reason) => self.failed(item.file, reason),
        }
    }

    /// Sends these ranges of exactly this version, one after the other.
    fn parts(
        &mut self,
        volume: &dyn Served,
        file: FileId,
        version: &VersionVector,
        ranges: &[(u64, u64)],
    ) -> Result<(), Gone> {
        let source = match volume.exactly(file, version) {
            Ok(source) => source,
            Err(reason) => return self.failed(file, reason),
        };
        let cut = |(offset, len): (u64, u64)| (offset, offset.saturating_add(len).min(source.size));
        let ranges: Vec<_> = ranges.iter().map(|r| cut(*r)).filter(|(from, to)| from < to).collect();
        let total = ranges.iter().map(|(from, to)| to - from).sum();
        frame::put_begin(&mut self.buffer, file, &source.version, total);
        self.file(
            file,
            |out, hash| {
                ranges.iter().try_for_each(|(from, to)| out.data(file, &*source.file, *from, *to, hash))
            },
            || still(volume, file, &source),
        )
    }

    /// Sends the list of a version's chunks: parts of it as they are found, so that the peer does not wait in vain.
    fn list(&mut self, volume: &dyn Served, wanted: &ChunksRequest) -> Result<(), Gone> {
        let source = match volume.source(wanted.file, &wanted.version) {
            Ok(source) => source,
            Err(reason) => return self.failed(wanted.file, reason),
        };
        let (file, version) = (wanted.file, &source.version);
        frame::put_begin(&mut self.buffer, file, version, source.size);
        if let Some(list) = volume.chunks().get(file, version).filter(|l| l.size == source.size) {
            for pieces in list.pieces.chunks(PIECES) {
                frame::put_pieces(&mut self.buffer, list.average, pieces);
                self.flush_if_full()?;
            }
            frame::put_end(&mut self.buffer, &list.hash);
            return self.flush_if_full();
        }
        let average = chunk::average_for(source.size);
        let (mut all, mut said, mut at) = (Vec::new(), 0, Instant::now());
        let (mut gone, mut hash) = (false, blake3::Hasher::new());
        let done = chunk::pieces(&*source.file, source.size, average, Some(&mut hash), |piece: Piece| {
            all.push(piece);
            if all.len() - said >= PIECES || at.elapsed() >= SAY {
                frame::put_pieces(&mut self.buffer, average, &all[said..]);
                (said, at) = (all.len(), Instant::now());
                gone = self.flush().is_err();
            }
            !gone && all.len() <= MAX_PIECES
        });
        match done {
            _ if gone => return Err(Gone),
            Ok(true) => {}
            // Too many: it is to be streamed whole.
            Ok(false) => return self.failed(file, Reason::NoSpace),
            Err(error) => match unreadable(file, &error) {
                Stop::Failed(reason) => return self.failed(file, reason),
                Stop::Gone => return Err(Gone),
            },
        }
        if !still(volume, file, &source) {
            return self.failed(file, Reason::SourceChanged);
        }
        if said < all.len() {
            frame::put_pieces(&mut self.buffer, average, &all[said..]);
        }
        let hash = *hash.finalize().as_bytes();
        frame::put_end(&mut self.buffer, &hash);
        if source.is_fixed() {
            let version = source.version.clone();
            let list = ChunkList { version, size: source.size, average, pieces: all, hash };
            volume.chunks().put(file, Arc::new(list));
        }
        self.flush_if_full()
    }

    /// Streams whole files. Blocks; ends when all are sent or the peer is gone.
    pub fn fetch(mut self, volume: &dyn Served, items: &[FetchItem]) {
        let done = items.iter().try_for_each(|item| self.item(volume, item)).and_then(|()| self.flush());
        self.close(done);
    }

    /// Streams a range of one file. Blocks.
    pub fn read(mut self, volume: &dyn Served, wanted: &ReadRequest) {
        let range = (wanted.offset, u64::from(wanted.len));
        let done = self.parts(volume, wanted.file, &wanted.version, &[range]).and_then(|()| self.flush());
        self.close(done);
    }

    /// Streams ranges of one file. Blocks.
    pub fn ranges(mut self, volume: &dyn Served, wanted: &RangesRequest) {
        let done =
            self.parts(volume, wanted.file, &wanted.version, &wanted.ranges).and_then(|()| self.flush());
        self.close(done);
    }

    /// Streams the list of a file's chunks. Blocks.
    pub fn chunks(mut self, volume: &dyn Served, wanted: &ChunksRequest) {
        let done = self.list(volume, wanted).and_then(|()| self.flush());
        self.close(done);
    }

    fn close(self, done: Result<(), Gone>) {
        if done.is_err() {
            // No room means that the peer stalls; the connection's own limit cuts it then.
            let _ = self.channel.try_send(Err(io::Error::from(io::ErrorKind::TimedOut)));
        }
    }
}

/// Whether the bytes that were sent are those of the version.
fn still(volume: &dyn Served, file: FileId, source: &Source) -> bool {
    source.kind == SourceKind::Copy || volume.still(file, &source.version)
}

/// Reads at `offset` until the space is full, or the file ends.
fn read_full(from: &dyn FileAccess, space: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut got = 0;
    while got < space.len() {
        match from.read_at(&mut space[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(got)
}

fn unreadable(file: FileId, error: &io::Error) -> Stop {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Stop::Failed(Reason::SourceChanged);
    }
    tracing::warn!(%file, %error, "a file that a peer asked for cannot be read");
    Stop::Failed(reason_of(error))
}

fn reason_of(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Reason::Permission,
        // The holder's disk does not give the bytes: this holder is of no use now.
        _ => Reason::Unreachable,
    }
}
