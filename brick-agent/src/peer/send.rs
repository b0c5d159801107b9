//! Streams files to a peer: read in a blocking thread, hashed on the way, at
//! most [`QUEUE`] chunks ahead of what the network takes. A peer that takes
//! nothing for [`STALL`] is given up.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearbrick_core::FileId;
use nearbrick_core::heal::Reason;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::brick::disk::{FileAccess, Reader};

use super::wire::{FetchItem, ReadRequest};
use super::{Served, frame};

/// Bytes gathered before they are handed on.
pub const CHUNK: usize = 256 << 10;
/// Chunks that wait for the network.
pub const QUEUE: usize = 8;
/// How long a peer may take nothing.
pub const STALL: Duration = Duration::from_secs(60);

/// The peer is gone, or stalls.
struct Gone;

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

    /// Sends `size` bytes of `from` after `at`, and their end if `still` says that they did not
    /// change on the way. What the disk refuses is said to the peer.
    fn bytes(
        &mut self,
        file: FileId,
        from: &dyn FileAccess,
        at: u64,
        size: u64,
        still: impl FnOnce() -> bool,
    ) -> Result<(), Gone> {
        let mut from = Reader::new(from, at);
        let mut hash = blake3::Hasher::new();
        let mut left = size;
        while left > 0 {
            let want = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            let got = frame::put_data_with(&mut self.buffer, want, |space| {
                let got = read_full(&mut from, space)?;
                hash.update(&space[..got]);
                Ok::<_, io::Error>(got)
            });
            match got {
                // Truncated since it was opened.
                Ok(0) => return self.failed(file, Reason::SourceChanged),
                Ok(got) => left -= got as u64,
                Err(error) => {
                    tracing::warn!(%file, %error, "a file that a peer asked for cannot be read");
                    return self.failed(file, reason_of(&error));
                }
            }
            self.flush_if_full()?;
        }
        if !still() {
            return self.failed(file, Reason::SourceChanged);
        }
        frame::put_end(&mut self.buffer, hash.finalize().as_bytes());
        self.flush_if_full()
    }

    fn item(&mut self, volume: &dyn Served, item: &FetchItem) -> Result<(), Gone> {
        match volume.source(item.file, &item.version) {
            Ok(source) => {
                frame::put_begin(&mut self.buffer, item.file, &source.version, source.size);
                self.bytes(item.file, &*source.file, 0, source.size, || {
                    volume.still(item.file, &source.version)
                })
            }
            Err(reason) => self.failed(item.file, reason),
        }
    }

    fn range(&mut self, volume: &dyn Served, wanted: &ReadRequest) -> Result<(), Gone> {
        let source = match volume.source(wanted.file, &wanted.version) {
            Ok(source) if source.version == wanted.version => source,
            Ok(_) => return self.failed(wanted.file, Reason::SourceChanged),
            Err(reason) => return self.failed(wanted.file, reason),
        };
        let len = source.size.saturating_sub(wanted.offset).min(u64::from(wanted.len));
        frame::put_begin(&mut self.buffer, wanted.file, &source.version, len);
        self.bytes(wanted.file, &*source.file, wanted.offset, len, || {
            volume.still(wanted.file, &source.version)
        })
    }

    /// Streams whole files. Blocks; ends when all are sent or the peer is gone.
    pub fn fetch(mut self, volume: &dyn Served, items: &[FetchItem]) {
        let done = items.iter().try_for_each(|item| self.item(volume, item)).and_then(|()| self.flush());
        self.close(done);
    }

    /// Streams a range of one file. Blocks.
    pub fn read(mut self, volume: &dyn Served, wanted: &ReadRequest) {
        let done = self.range(volume, wanted).and_then(|()| self.flush());
        self.close(done);
    }

    fn close(self, done: Result<(), Gone>) {
        if done.is_err() {
            // No room means that the peer stalls; the connection's own limit cuts it then.
            let _ = self.channel.try_send(Err(io::Error::from(io::ErrorKind::TimedOut)));
        }
    }
}

fn read_full(from: &mut Reader<'_>, space: &mut [u8]) -> io::Result<usize> {
    let mut got = 0;
    while got < space.len() {
        match from.read(&mut space[got..]) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

fn reason_of(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::PermissionDenied => Reason::Permission,
        // The holder's disk does not give the bytes: this holder is of no use now.
        _ => Reason::Unreachable,
    }
}
