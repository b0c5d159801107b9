//! The file system of one volume on one brick, as a plain library: no FUSE, no
//! API, no network of its own.
//!
//! * [`types`]: what its calls take and give.
//! * `core`: what the lock guards; `change`: changes that become true together.
//! * `nodes`: what the kernel knows and programs have open; `tally`: pending and totals.
//! * `names`, `making`, `moving`, `attributes`, `listing`, `files`, `opening`: the calls, by subject.
//! * `stub`: files whose bytes are elsewhere; `cached`: copies fetched ahead, and emptied; `settle`: when a file is settled.
//! * `absorb`: entries from peers; `place`: what they want, brought about in `data/`.
//! * `compare`: trees compared by hashes, where the journal no longer tells; `sums`: the hashes; `compact`: what
//!   all members have heard is given up.
//! * `sync_copies`: `fsync` that waits for other bricks; `unheard`: what no other member has heard of yet.
//! * `brakes`: removals that are held back until a person has looked.
//! * `resolve`: a person's word on a conflict is carried out; `conflict_list`: what is said of conflicts.
//! * `conflict`: losers of conflicts are kept; `versions`: where they and deleted files are for a while; `restore`: the way back.
//! * `staging`: what is on its way; `install`: what a heal brought takes its place; `served`: what peers ask for.
//! * `amiss`: what was done on the disk and could not be said in the index.
//! * `judge`: what became of bytes after an end without notice; `durable`: what of them is; `statements`: what this
//!   brick said of itself, made true.
//! * `surroundings`: time, randomness and disks, which a simulation brings itself.
//! * `newest`: a second writer bases itself on the newest version that can be reached.
//! * `scrub`: the whole brick looked through, from time to time.
//! * `resume`: what programs opened through an agent before this one; `once`: calls that it did not answer.
//! * `refused`: entries of peers that make no sense.
//! * `inquiry`: what a person asks of files through the API server.
//! * `usage`: how much groups of files are used here; `moves`: what moved here is read once more.
//! * `replace`: replica sets of files that exist follow the placement rules.
//! * `recover`: what is found at the start; `rebuild`: an index that was lost; `unmarked`: files that were no brick's before; `status`: counts for the reports.
//!
//! Invariants: every change of metadata is made under one lock, which is never
//! held while the network is waited for. A file is marked dirty before the reply
//! to the first call that lets a program change its bytes. Bytes are never
//! replaced by a version that does not include them.

mod absorb;
mod amiss;
mod attributes;
mod brakes;
mod cached;
mod came;
mod change;
mod compact;
mod compare;
mod conflict;
mod conflict_list;
mod core;
mod count;
mod dress;
mod durable;
mod files;
mod inquiry;
mod install;
mod judge;
mod listing;
mod making;
mod moves;
mod moving;
mod names;
mod newest;
mod nodes;
pub mod once;
mod opening;
mod parked;
mod place;
mod rebuild;
mod recover;
mod refused;
mod rejoin;
mod remains;
mod replace;
mod resolve;
mod restore;
mod resume;
mod revive;
mod scrub;
mod served;
mod settle;
mod staging;
mod statements;
mod status;
mod stub;
mod sums;
mod surroundings;
pub mod sync_copies;
mod tally;
mod told;
pub mod types;
mod unheard;
mod unmarked;
mod unproven;
mod usage;
mod versions;
mod walk;
mod xattrs;

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::SystemTime;

use globset::{GlobSet, GlobSetBuilder};
use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, FileId, Incarnation};
use rustix::io::Errno;
use tokio::sync::watch;

use crate::brick::{Brick, BrickError};
use crate::config::VolumeConfig;
use crate::heal::chunk;
use crate::index::{Index, IndexError};
use crate::peer::Remote;

use self::core::Core;
use self::files::Handles;
use self::once::Once;
use self::settle::Settler;
use types::Invalidate;

pub use absorb::AbsorbError;
pub use brakes::{Brake, HeldRemovals};
pub(crate) use change::errno as errno_of;
pub use compact::Compacted;
pub use compare::Comparison;
pub use conflict_list::{ListedConflict, ListedDecision, ListedVersion};
pub use count::Count;
pub(crate) use install::{Arrived, Older, Planned, reason_of};
pub use refused::RefusedEntry;
pub use replace::{Placing, Unplaced};
pub use resolve::Hindrance;
pub use restore::RestoreError;
pub use resume::{Held, Keeper, Resumed};
pub use scrub::{Fault, Pass, ScrubStatus};
pub(crate) use staging::Staged;
pub use status::VolumeStatus;
pub use surroundings::{Entropy, Later, MachineClock, MachineEntropy, VolumeOptions, WallClock};
pub use usage::HotGroup;
pub use versions::{KeptVersion, Why};

/// Why a volume cannot be opened: one clear line.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory is not this brick.
    #[error(transparent)]
    Brick(#[from] BrickError),
    /// Its index cannot be read.
    #[error("{0}; nothing in data/ was changed")]
    Index(#[from] IndexError),
    /// Its index is of another version of the agent.
    #[error(
        "{} was made by another version of the agent, which encodes it in another way: run that version, or move the folder away: then \
         the index is made anew, from data/ and from what another brick knows; nothing in data/ was changed",
        .0.display()
    )]
    IndexFormat(std::path::PathBuf),
    /// What the disk says.
    #[error("{what}: {error}")]
    Disk {
        /// What was tried.
        what: String,
        /// Why it failed.
        error: Errno,
    },
}

/// The configuration, with its globs compiled.
struct Configured {
    config: Arc<VolumeConfig>,
    /// Of the placement rules. None: all paths.
    globs: Vec<Option<GlobSet>>,
    /// The same rules by the bricks of their nodes.
    homes: replace::Homes,
    /// Of the rules for conflicts. None: all paths.
    conflict_globs: Vec<Option<GlobSet>>,
}

impl Configured {
    fn new(config: VolumeConfig) -> Self {
        let globs = config.placement.iter().map(|rule| compiled(&rule.paths, "placement")).collect();
        let conflict_globs = config.conflicts.iter().map(|rule| compiled(&rule.paths, "conflicts")).collect();
        let homes = replace::Homes::new(&config);
        Configured { config: Arc::new(config), globs, homes, conflict_globs }
    }
}

/// None: all paths.
fn compiled(paths: &[String], what: &str) -> Option<GlobSet> {
    if paths.is_empty() {
        return None;
    }
    let mut set = GlobSetBuilder::new();
    for text in paths {
        match nearbrick_crds::paths::glob(text) {
            Ok(glob) => {
                set.add(glob);
            }
            Err(error) => tracing::warn!(%error, "a glob of the {what} matches nothing"),
        }
    }
    Some(set.build().unwrap_or_else(|_| GlobSet::empty()))
}

/// One volume on one brick.
pub struct Volume {
    me: BrickId,
    /// The machine's boot in which it was opened.
    boot: Vec<u8>,
    incarnation: Incarnation,
    brick: Brick,
    index: Index,
    clock: Arc<dyn WallClock>,
    entropy: Arc<dyn Entropy>,
    configured: RwLock<Arc<Configured>>,
    core: Mutex<Core>,
    handles: Handles,
    keeper: Option<Arc<dyn Keeper>>,
    once: Once,
    settler: Settler,
    remote: RwLock<Option<Arc<dyn Remote>>>,
    invalidate: RwLock<Option<Arc<dyn Invalidate>>>,
    changed: watch::Sender<u64>,
    /// One absorption at a time.
    absorbing: Mutex<()>,
    /// One heal of a batch at a time.
    pub(crate) healing: Mutex<()>,
    /// Files whose parts in `staging/` are being written.
    transfers: staging::Claims,
    versions: versions::Versions,
    scrub: scrub::Scrub,
    reading: inquiry::Reading,
    usage: usage::Usage,
    moves: moves::Moves,
    /// The index is made anew because the directory was adopted.
    adopts: bool,
    /// Files without a mark whose bytes were read.
    proven: Mutex<unmarked::Proven>,
    chunk_lists: chunk::Cache,
    /// The file after which small ones are to be fetched.
    ahead: watch::Sender<Option<nearbrick_core::Place>>,
    rejected: AtomicU64,
    stale_reads: AtomicU64,
    /// Calls of fsync that did not find enough bricks.
    sync_failures: AtomicU64,
    last_error: Mutex<Option<(Reason, String, SystemTime)>>,
    closed: AtomicBool,
    /// Others know more of this brick than it does itself.
    outrun: AtomicBool,
    /// It is to say all that it has again.
    again: AtomicBool,
    /// Persons' words on conflicts.
    orders: Mutex<resolve::Orders>,
    /// The operator can be heard.
    led: AtomicBool,
    /// Counts what was staged since the start.
    staged: AtomicU64,
}

impl std::fmt::Debug for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Volume({})", self.brick.path().display())
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

/// A failure of the index, as programs see it.
fn index_failed(error: IndexError) -> Errno {
    let errno = error.errno();
    tracing::error!(%error, "a request was answered with {errno}");
    errno
}

impl Volume {
    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.closed.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Gives it its peers.
    pub fn set_remote(&self, remote: Arc<dyn Remote>) {
        *write(&self.remote) = Some(remote);
    }

    /// Gives it the kernel that must forget what peers change.
    pub fn set_invalidate(&self, invalidate: Arc<dyn Invalidate>) {
        *write(&self.invalidate) = Some(invalidate);
    }

    /// Takes over a new configuration.
    pub fn set_config(&self, config: VolumeConfig) {
        let before = std::mem::replace(&mut *write(&self.configured), Arc::new(Configured::new(config)));
        if before.config.conflicts != self.config().conflicts {
            self.look_at_conflicts();
        }
        self.judge_alone();
        self.follow_annotations();
        self.follow_say_again();
        self.follow_orders();
        self.follow_rules();
    }

    /// The configuration.
    pub fn config(&self) -> Arc<VolumeConfig> {
        read(&self.configured).config.clone()
    }

    /// Ticks on each change that is worth a report; several in a row may be one tick.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn remote(&self) -> Option<Arc<dyn Remote>> {
        read(&self.remote).clone()
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new identity.
    fn new_id(&self) -> FileId {
        let mut id = [0; 16];
        self.entropy.fill(&mut id);
        FileId(id)
    }

    fn tick(&self) {
        self.changed.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Keeps what went wrong for the status.
    pub(crate) fn note_error(&self, reason: Reason, message: String) {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((reason, message, surroundings::wall_time(&*self.clock)));
        drop(last);
        self.tick();
    }

    /// Whether what went wrong last was with this file.
    pub(crate) fn has_said_of(&self, file: FileId) -> bool {
        let last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().is_some_and(|(_, message, _)| message.contains(&file.to_string()))
    }
}
