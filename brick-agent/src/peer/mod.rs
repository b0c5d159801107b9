//! The peer API: how brick agents talk, over TLS both ways.
//!
//! * [`wire`]: what is said, with its bounds.
//! * [`frame`]: the frames of a stream of files.
//! * [`tls`]: certificates, and which node the other side is.
//! * [`server`] accepts connections, [`routes`] answers requests, [`send`] streams files.
//! * [`client`]: the other side, with [`connection`]s kept per peer, and [`receive`] for streams.
//! * [`exchange`]: keeps this brick's journal abreast of its peers'.
//! * [`operator`]: what the operator asks for people, and nobody else may.
//! * [`compare`]: what is asked when the journal alone cannot tell any more.
//! * [`rubbish`]: counts what makes no sense, and logs it once per kind.
//!
//! The rest of the agent sees two narrow traits: [`Served`], which the volume
//! implements for the server, and [`Remote`], which the client implements for
//! the volume. A simulation can stand in for either.

pub mod client;
pub mod compare;
pub mod connection;
pub mod exchange;
pub mod frame;
pub mod operator;
pub mod receive;
pub mod routes;
pub mod rubbish;
pub mod send;
pub mod server;
pub mod tls;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, Entry, FileId, Object, VersionVector};
use nearbrick_crds::files;

use crate::heal::chunk;
use compare::{CompareReply, CompareRequest};
use wire::{Acks, Heads};

/// Bytes of one version of a file, ready to be sent.
#[derive(Debug)]
pub struct Source {
    /// Open for reading.
    pub file: crate::brick::disk::File,
    /// How many bytes to send.
    pub size: u64,
    /// The version that they are: the one asked for or one that includes it.
    pub version: VersionVector,
    /// What the bytes are read from.
    pub kind: SourceKind,
}

/// What the bytes of a version are read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The file, which is settled: [`Served::still`] says whether it stayed so.
    Settled,
    /// A copy of one moment that nobody writes.
    Copy,
    /// The file, while programs may be writing it: the bytes may be of several moments.
    Live,
}

impl Source {
    /// Whether the version will be these bytes the next time too.
    pub fn is_fixed(&self) -> bool {
        self.kind != SourceKind::Live
    }
}

/// Why a question of the operator is not answered: what kind of reason, and one clear line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub files::Refusal, pub String);

/// What the server needs of a volume. All calls may block on the disk.
pub trait Served: Send + Sync + 'static {
    /// The volume's UUID.
    fn volume(&self) -> uuid::Uuid;
    /// This brick.
    fn brick(&self) -> BrickId;
    /// Whether the workstation `node` carries a brick of this volume, and which.
    fn brick_of(&self, node: &str) -> Option<BrickId>;
    /// The last contiguous sequence number known of each origin's journal.
    fn heads(&self) -> Heads;
    /// Entries after `cursors`, each origin's in order, about `max_bytes` of them at most.
    fn entries_after(&self, cursors: &Heads, max_bytes: usize) -> std::io::Result<Vec<Entry>>;
    /// Whether entries that this asker lacks are no longer here: it is to compare.
    fn is_behind(&self, _cursors: &Heads) -> bool {
        false
    }
    /// Answers a question of a comparison.
    fn compared(&self, _request: &CompareRequest) -> std::io::Result<CompareReply> {
        Err(std::io::ErrorKind::Unsupported.into())
    }
    /// Takes note of what members have heard, and says what is known of that here.
    fn acks(&self, _told: &Acks) -> Acks {
        Acks::new()
    }
    /// A peer says that it has entries up to `heads`.
    fn hinted(&self, from: BrickId, heads: &Heads);
    /// A peer asks for what follows these, so it has all before them.
    fn asked(&self, _from: BrickId, _cursors: &Heads) {}
    /// A peer, which has entries up to `heads`, waits until this version of a file, or one that includes it, is
    /// durable here. Blocks; `SourceChanged` is worth another try.
    fn keep(
        &self,
        _from: BrickId,
        _heads: &Heads,
        _file: FileId,
        _version: &VersionVector,
    ) -> Result<(), Reason> {
        Err(Reason::Permission)
    }
    /// Opens a version that a peer wants to have.
    fn source(&self, file: FileId, version: &VersionVector) -> Result<Source, Reason>;
    /// Opens exactly this version.
    fn exactly(&self, file: FileId, version: &VersionVector) -> Result<Source, Reason> {
        let source = self.source(file, version)?;
        if source.version == *version { Ok(source) } else { Err(Reason::SourceChanged) }
    }
    /// Whether the bytes that [`Served::source`] gave are still that version's: asked after
    /// they were sent, before the peer is told that they are all (T22).
    fn still(&self, _file: FileId, _version: &VersionVector) -> bool {
        true
    }
    /// What is known of a file, after programs' changes to it here became a version: a peer is about to write it.
    fn newest(&self, _file: FileId) -> std::io::Result<Option<Object>> {
        Ok(None)
    }
    /// Answers what the operator asks for a person.
    ///
    /// # Errors
    /// One clear line.
    fn inquire(&self, _ask: files::Ask) -> Result<files::Answer, Refused> {
        Err(Refused(files::Refusal::Failed, "this volume answers no such question".to_owned()))
    }
    /// Lists of chunks made lately.
    fn chunks(&self) -> &chunk::Cache;
    /// A peer sent something that makes no sense; counted for the status.
    fn rejected(&self, from: Option<BrickId>, why: &str);
}

/// What the volume needs of its peers. Calls block, within a limit; never
/// call them with a lock held.
pub trait Remote: Send + Sync + 'static {
    /// Bytes `offset..offset+len` (less at the end of the file) of exactly this
    /// version, from the first of `from` that can give them, and which one that was.
    fn read(
        &self,
        file: FileId,
        version: &VersionVector,
        offset: u64,
        len: usize,
        from: &[BrickId],
    ) -> Result<(BrickId, Vec<u8>), Reason>;

    /// Streams whole files from one brick into `sink`, in the order of `items`.
    /// An error is of the stream: a file that had begun was failed to the sink,
    /// those after it were not mentioned. A single file's failure goes to the sink.
    fn fetch(&self, from: BrickId, items: &[wire::FetchItem], sink: &mut dyn FetchSink)
    -> Result<(), Reason>;

    /// The chunks of this version, or of one that includes it, as `from` has it. None
    /// where there is no list to be had: then the file is to be fetched whole.
    fn chunks(
        &self,
        from: BrickId,
        file: FileId,
        version: &VersionVector,
    ) -> Result<Option<Arc<wire::ChunkList>>, Reason>;

    /// Streams ranges of exactly one version into `sink`, one after the other, as if they were a whole
    /// file of their size. As with [`Remote::fetch`] a file that had begun was failed to the sink on an error.
    fn ranges(
        &self,
        from: BrickId,
        wanted: &wire::RangesRequest,
        sink: &mut dyn FetchSink,
    ) -> Result<(), Reason>;

    /// Asks a brick, at which programs are writing a file, what it is now. Fails at once if it was not to be reached
    /// lately.
    fn newest(&self, _from: BrickId, _file: FileId) -> Result<Option<Object>, Reason> {
        Err(Reason::Unreachable)
    }

    /// Asks these bricks to bring a version to their disks now, until `wanted` of them have it, or the limit is over.
    /// Says what came of each that answered, and `Unreachable` of each that did not.
    fn keep(
        &self,
        _bricks: &[BrickId],
        _wanted: usize,
        _request: &wire::KeepRequest,
        _limit: Duration,
    ) -> Vec<(BrickId, Result<(), Reason>)> {
        Vec::new()
    }

    /// Whether the brick was there when it was last asked, or was not asked yet. Asks nobody.
    fn is_reached(&self, _brick: BrickId) -> bool {
        true
    }

    /// Puts those first from which bytes are likely to come soonest. A hint: it may do nothing.
    fn order(&self, _from: &mut [BrickId]) {}

    /// Tells all reachable peers soon that there are new entries here.
    fn hint(&self);
}

/// Takes in the files of a [`Remote::fetch`]. For each item: `begin`, `data`
/// any number of times, and `end`; or `failed` in place of any of them.
pub trait FetchSink: Send {
    /// A file begins: the version that comes, its size.
    fn begin(&mut self, file: FileId, version: VersionVector, size: u64);
    /// Its next bytes.
    fn data(&mut self, file: FileId, bytes: &[u8]);
    /// Its next bytes are so many zeroes that take no space.
    fn hole(&mut self, file: FileId, len: u64);
    /// Its end, with the BLAKE3 of all that the source sent.
    fn end(&mut self, file: FileId, hash: [u8; 32]);
    /// It will not come (or not the rest of it).
    fn failed(&mut self, file: FileId, reason: Reason);
    /// Whether to stop now: asked between two files, and between two parts of one.
    fn cancelled(&self) -> bool {
        false
    }
}
