//! Calls that make, move or remove names are carried out once, also when an agent dies after it did so
//! and before it answered. The kernel then gives the call out again, marked, and the next agent must neither fail
//! with "exists" nor do it twice.
//!
//! * The commit of such a call carries the kernel's number of the request. Each thread has one place for
//!   that in the index, since it has one call at a time; the places of earlier agents are kept for some time.
//! * What was done on the disk and not committed is found by the walk at the start ([`super::recover`]), which
//!   takes it over. The call that comes again then has its success, once.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nearbrick_core::{FileId, Op, Place};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::core::Core;
use super::types::{Caller, FsResult, NodeId, SetAttr, Stat};
use super::{Volume, index_failed};
use crate::index::{Index, IndexError, Shown};

const PREFIX: &str = "once-";
/// Agents whose calls are remembered.
const LIVES: u32 = 64;

/// A request of the kernel: a mount, and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestId {
    /// Random, new for each mount.
    pub mount: u64,
    /// The kernel's number.
    pub number: u64,
}

thread_local! {
    static NOW: Cell<Option<RequestId>> = const { Cell::new(None) };
    static PLACE: u32 = {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed)
    };
}

/// Runs a call on behalf of a request.
pub fn during<T>(request: RequestId, call: impl FnOnce() -> T) -> T {
    struct Over(Option<RequestId>);
    impl Drop for Over {
        fn drop(&mut self) {
            NOW.set(self.0);
        }
    }
    let _over = Over(NOW.replace(Some(request)));
    call()
}

/// What is known of calls that agents before this one carried out.
#[derive(Default)]
pub struct Once {
    life: u32,
    done: HashMap<RequestId, Option<FileId>>,
    found: Mutex<Found>,
}

/// What the walk found done and not said.
#[derive(Default)]
struct Found {
    made: HashMap<Place, FileId>,
    gone: HashSet<Place>,
}

impl Once {
    /// What the index has. `life`: how many agents had this mount before; none without one.
    pub(super) fn load(index: &Index, life: Option<u32>) -> Result<Once, IndexError> {
        let life = life.unwrap_or(0);
        let mut once = Once { life, ..Once::default() };
        let mut batch = index.batch();
        for (key, value) in index.metas(PREFIX)? {
            let of = key.get(PREFIX.len()..).and_then(|rest| u32::from_str_radix(rest.get(..8)?, 16).ok());
            match (of, postcard::from_bytes::<(RequestId, Option<FileId>)>(&value)) {
                (Some(of), Ok((request, made))) if of < life && life - of <= LIVES => {
                    once.done.insert(request, made);
                }
                _ => batch.remove_meta(&key),
            }
        }
        batch.commit()?;
        Ok(once)
    }

    /// What a commit on this thread carries.
    pub(super) fn mark(&self, made: Option<FileId>) -> Option<(String, Vec<u8>)> {
        let request = NOW.get()?;
        let key = format!("{PREFIX}{:08x}-{:08x}", self.life, PLACE.with(|place| *place));
        Some((key, postcard::to_stdvec(&(request, made)).ok()?))
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The walk found this made.
    pub(super) fn was_made(&self, place: Place, file: FileId) {
        self.found().made.insert(place, file);
    }

    /// The walk found this gone.
    pub(super) fn is_gone(&self, place: Place) {
        self.found().gone.insert(place);
    }
}

/// The object that an operation gives a name.
pub(super) fn named_by(op: &Op, file: FileId) -> Option<FileId> {
    matches!(op, Op::Create { .. } | Op::Link(_)).then_some(file)
}

impl Volume {
    /// What an agent before this one did on behalf of the request: the object that it made, if any.
    pub fn was_done(&self, request: RequestId) -> Option<Option<FileId>> {
        self.once.done.get(&request).copied()
    }

    /// What the walk found made under this name; only the first who asks hears of it.
    pub fn take_made(&self, parent: NodeId, name: &[u8]) -> Option<FileId> {
        let parent = self.file_of(&self.lock(), parent).ok()?;
        self.once.found().made.remove(&Place { parent, name: name.to_vec() })
    }

    /// Whether the walk found this name gone; only the first who asks hears of it.
    pub fn take_gone(&self, parent: NodeId, name: &[u8]) -> bool {
        let Ok(parent) = self.file_of(&self.lock(), parent) else { return false };
        self.once.found().gone.remove(&Place { parent, name: name.to_vec() })
    }

    /// A rename was done on the disk and not committed: what had the name before is removed, as the rename would have.
    pub(super) fn was_replaced(&self, core: &mut Core, before: Shown) -> FsResult<()> {
        let mut change = Change::new(self, core);
        let seen = change.object(before.file)?.seen();
        change.emit(before.file, Op::Unlink { link: before.link, seen })?;
        if let Some(local) =
            change.local(before.file)?.filter(|local| local.placed.is_empty() && !local.parked)
        {
            if local.dirty {
                change.emit(before.file, Op::Clean { brick: self.me })?;
            }
            if local.have.is_some() && change.object(before.file)?.exists(before.file) {
                change.emit(before.file, Op::Drop { brick: self.me })?;
            }
            change.forget_local(before.file)?;
        }
        change.commit().map(drop)
    }

    /// Attributes of an object that has a name, as at a lookup, which is counted.
    ///
    /// # Errors
    /// `NOENT`; what the disk says.
    pub fn looked_up(&self, file: FileId) -> FsResult<Stat> {
        let core = &mut *self.lock();
        let local = self.index.local(file).map_err(index_failed)?.ok_or(rustix::io::Errno::NOENT)?;
        let mut stat = self.stat_of(core, file, &local)?;
        stat.node = core.nodes.looked_up(file);
        Ok(stat)
    }

    /// The same for what was made and perhaps not yet given its owner and mode.
    ///
    /// # Errors
    /// As there.
    pub fn dressed(&self, file: FileId, caller: Caller, mode: u32) -> FsResult<Stat> {
        let stat = self.looked_up(file)?;
        // It belongs to root and to nobody else's eyes until it is finished.
        if stat.uid != 0 || stat.perm & 0o077 != 0 || matches!(stat.kind, nearbrick_core::Kind::Symlink(_)) {
            return Ok(stat);
        }
        let set = SetAttr {
            mode: Some(mode & 0o7777),
            uid: Some(caller.uid),
            gid: Some(caller.gid),
            ..SetAttr::default()
        };
        self.setattr(stat.node, None, &set)
    }
}
