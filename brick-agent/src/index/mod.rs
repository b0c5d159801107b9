//! The embedded store beside the brick: journal, objects, and what is on disk where.
//!
//! Store: fjall, an LSM tree with a write-ahead journal. A commit without fsync
//! is an append to that journal which survives the death of the agent, and one
//! call makes everything before it durable; see `docs/ARCHITECTURE.md` for the rivals.
//!
//! Tables (keyspaces):
//!
//! | table | key | value |
//! |---|---|---|
//! | `objects` | file id | [`Object`], merged |
//! | `wants` | parent, name, NUL, link id | file id: live links by the place that they want |
//! | `shown` | parent, name | [`Shown`]: what is in `data/` under that name |
//! | `local` | file id | [`Local`]: what this brick holds of the object |
//! | `journal` | origin, sequence | [`Entry`], from the origin's floor on |
//! | `floors` | origin | [`Heard`]: entries up to there are in `objects` only |
//! | `todo` | file id | nothing: objects whose place in `data/` is still to be brought about |
//! | `meta` | text | single values |
//!
//! Invariant: `wants` follows from `objects`, and those from all operations up to the heads; `shown` and `local`
//! say what is in `data/`. Pending and totals follow from `objects` and are kept in memory.

mod reserve;
pub mod store;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use nearbrick_core::{Entry, FileId, Heard, Horizon, Incarnation, LinkId, Object, Place, VersionVector};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use self::store::{Bytes, FjallStores, Pairs, Set, Store, Stores, Table};

/// A failure of the store, or bytes in it that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The store's own.
    #[error("the brick's index: {0}")]
    Store(#[from] fjall::Error),
    /// The disk's.
    #[error("the brick's disk: {0}")]
    Disk(#[from] std::io::Error),
    /// A value that is not what its table holds.
    #[error("the brick's index has a damaged entry in {0}")]
    Damaged(&'static str),
}

impl IndexError {
    /// What the disk says, where that is something to be told; else `IO`.
    pub fn errno(&self) -> Errno {
        let mut at: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = at {
            if let Some(error) = error.downcast_ref::<std::io::Error>() {
                let told = |e: &Errno| matches!(*e, Errno::NOSPC | Errno::DQUOT | Errno::ROFS);
                return Errno::from_io_error(error).filter(told).unwrap_or(Errno::IO);
            }
            at = error.source();
        }
        Errno::IO
    }
}

/// The result of a call of the index.
pub type Result<T> = std::result::Result<T, IndexError>;

/// What is in `data/` under one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// The object.
    pub file: FileId,
    /// The link.
    pub link: LinkId,
    /// Its kind as a `d_type` value.
    pub kind: u8,
}

/// What a file looked like when it was last known not to be changing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Print {
    /// Inode number on the brick's file system.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Seconds and nanoseconds: no program can set it.
    pub ctime: (i64, u32),
}

impl Print {
    /// Whether nobody seems to have written to it since: names, owner, mode and attributes move only the inode's own time.
    pub fn has_bytes_of(&self, then: &Print) -> bool {
        Print { ctime: self.ctime, ..*then } == *self
    }
}

/// Attributes of a newer version than the bytes in `data/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overlay {
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
}

/// A change of the inode that was only ours: the time before it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
    /// The inode's ctime after it: seconds and nanoseconds.
    pub ctime: (i64, u32),
    /// The one that is shown as long as the inode has that, and of a stub in any case.
    pub shown: (i64, u32),
}

/// What this brick holds of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Local {
    /// Where its links are in `data/`.
    pub placed: BTreeMap<LinkId, Place>,
    /// The version of the complete bytes; none for a stub.
    pub have: Option<VersionVector>,
    /// For a stub: the version whose ranges are being filled in.
    pub filling: Option<VersionVector>,
    /// Filled ranges of a stub: start -> end, apart from each other.
    pub filled: BTreeMap<u64, u64>,
    /// Programs here are changing it, or may have.
    pub dirty: bool,
    /// When it became dirty: milliseconds since 1970.
    pub dirty_since: u64,
    /// What the bytes here are based on, while they are dirty.
    pub base: VersionVector,
    /// At the last settling. Of a stub: when the agent last touched it; none while it has it open.
    pub print: Option<Print>,
    /// At the last snapshot, while it is dirty.
    pub snapshot: Option<Print>,
    /// The snapshot is all that was written by then: as long as the file looks so, it is that version.
    pub quiet: bool,
    /// A newer version exists elsewhere; the bytes here are older.
    pub overlay: Option<Overlay>,
    /// It waits for its place in the folder `staging`, as [`parked_name`].
    pub parked: bool,
    /// A removed directory in which something is still to be seen: it wants this place.
    pub needed: Option<(LinkId, Place)>,
    /// A directory whose children are shown in this one.
    pub merged_into: Option<FileId>,
    /// A directory that would close a cycle: it is shown in the root.
    pub broken: bool,
    /// The latest stamp's time of an mtime that was set here.
    pub mtime_at: u64,
    /// The last change of the inode, if it was only ours.
    pub unseen: Option<Unseen>,
    /// The version from which the bytes on the disk descend for certain, since it was synced; empty for a
    /// file made here. None for a stub: what is there is nobody's.
    pub synced: Option<VersionVector>,
}

impl Local {
    /// Any of its places in `data/`.
    pub fn place(&self) -> Option<&Place> {
        self.placed.values().next()
    }

    /// Whether it is a file whose bytes, or some of them, are elsewhere.
    pub fn is_stub(&self) -> bool {
        self.have.is_none() && self.overlay.is_some() && !self.dirty
    }

    /// The version that its bytes are, or that they are based on.
    pub fn based_on(&self) -> Option<&VersionVector> {
        if self.dirty { Some(&self.base) } else { self.have.as_ref() }
    }

    /// Whether it is anywhere on the brick's disk.
    pub fn on_disk(&self) -> bool {
        self.parked || !self.placed.is_empty()
    }
}

/// The name in `staging` of an object that waits for its place.
pub fn parked_name(file: FileId) -> String {
    format!("park-{file}")
}

/// The open index.
#[derive(Clone)]
pub struct Index {
    store: Arc<dyn Store>,
}

/// Changes that become true together.
pub struct Batch {
    store: Arc<dyn Store>,
    changes: Vec<Set>,
}

fn decode<T: DeserializeOwned>(bytes: &[u8], table: &'static str) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|_| IndexError::Damaged(table))
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Serialising to memory cannot fail for the types of this module.
    postcard::to_stdvec(value).unwrap_or_default()
}

/// What is known of an object. The index of an earlier version has no decisions.
fn object(bytes: &[u8]) -> Result<Object> {
    let none = [0];
    decode(bytes, "objects").or_else(|error| decode(&[bytes, &none].concat(), "objects").map_err(|_| error))
}

fn place_key(place: &Place) -> Vec<u8> {
    let mut key = Vec::with_capacity(16 + place.name.len());
    key.extend_from_slice(&place.parent.0);
    key.extend_from_slice(&place.name);
    key
}

fn want_key(place: &Place, link: LinkId) -> Vec<u8> {
    let mut key = place_key(place);
    key.push(0);
    key.extend_from_slice(&link.to_bytes());
    key
}

fn journal_key(origin: Incarnation, seq: u64) -> [u8; 16] {
    LinkId { origin, seq }.to_bytes()
}

fn file_id(bytes: &[u8], table: &'static str) -> Result<FileId> {
    Ok(FileId(bytes.try_into().map_err(|_| IndexError::Damaged(table))?))
}

impl Index {
    /// Opens the index in `path` on the machine's disk, or makes one.
    ///
    /// # Errors
    /// The store's.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Index::on(FjallStores.open(path)?))
    }

    /// The index in this store.
    pub fn on(store: Arc<dyn Store>) -> Self {
        Index { store }
    }

    /// Starts a batch.
    pub fn batch(&self) -> Batch {
        Batch { store: self.store.clone(), changes: Vec::new() }
    }

    /// Makes every commit so far durable.
    ///
    /// # Errors
    /// The store's; then nothing may be acknowledged.
    pub fn persist(&self) -> Result<()> {
        self.store.persist()
    }

    /// Whether the store takes no more, until it is opened again, since a commit failed.
    pub fn is_stuck(&self) -> bool {
        self.store.is_stuck()
    }

    /// Whether the disk is so full that there is room only for what must be said, and for what frees space.
    pub fn is_short(&self) -> bool {
        self.store.is_short()
    }

    /// To be called now and then: what was given up while the disk was full is set apart again.
    pub fn refill_reserve(&self) {
        self.store.refill_reserve();
    }

    fn all(&self, table: Table) -> Pairs<'_> {
        self.store.range(table, (Bound::Unbounded, Bound::Unbounded))
    }

    /// The object.
    ///
    /// # Errors
    /// The store's.
    pub fn object(&self, file: FileId) -> Result<Option<Object>> {
        self.store.get(Table::Objects, &file.0)?.map(|v| object(&v)).transpose()
    }

    /// All objects.
    pub fn objects(&self) -> impl Iterator<Item = Result<(FileId, Object)>> + '_ {
        self.all(Table::Objects).map(|pair| {
            let (key, value) = pair?;
            Ok((file_id(&key, "objects")?, object(&value)?))
        })
    }

    /// The objects after this one, in the order of their ids.
    pub fn objects_after(
        &self,
        after: Option<FileId>,
    ) -> impl Iterator<Item = Result<(FileId, Object)>> + '_ {
        let from = match &after {
            Some(file) => Bound::Excluded(&file.0[..]),
            None => Bound::Unbounded,
        };
        self.store.range(Table::Objects, (from, Bound::Unbounded)).map(|pair| {
            let (key, value) = pair?;
            Ok((file_id(&key, "objects")?, decode(&value, "objects")?))
        })
    }

    /// What is here of the object.
    ///
    /// # Errors
    /// The store's.
    pub fn local(&self, file: FileId) -> Result<Option<Local>> {
        self.store.get(Table::Local, &file.0)?.map(|v| decode(&v, "local")).transpose()
    }

    /// What is here of all objects.
    pub fn locals(&self) -> impl Iterator<Item = Result<(FileId, Local)>> + '_ {
        self.all(Table::Local).map(|pair| {
            let (key, value) = pair?;
            Ok((file_id(&key, "local")?, decode(&value, "local")?))
        })
    }

    /// The objects of which something is here, after `file` in the order of their ids; at most so many.
    ///
    /// # Errors
    /// The store's.
    pub fn locals_after(&self, file: Option<FileId>, most: usize) -> Result<Vec<FileId>> {
        let from = file.as_ref().map_or(Bound::Unbounded, |file| Bound::Excluded(&file.0[..]));
        let pairs = self.store.range(Table::Local, (from, Bound::Unbounded));
        pairs.take(most).map(|pair| file_id(&pair?.0, "local")).collect()
    }

    /// What is in `data/` at this place.
    ///
    /// # Errors
    /// The store's.
    pub fn shown(&self, place: &Place) -> Result<Option<Shown>> {
        self.store.get(Table::Shown, &place_key(place))?.map(|v| decode(&v, "shown")).transpose()
    }

    /// What is in `data/` in this directory, by name.
    ///
    /// # Errors
    /// The store's.
    pub fn shown_in(&self, parent: FileId) -> Result<Vec<(Vec<u8>, Shown)>> {
        self.store
            .prefix(Table::Shown, &parent.0)
            .map(|pair| {
                let (key, value) = pair?;
                Ok((key.get(16..).unwrap_or_default().to_vec(), decode(&value, "shown")?))
            })
            .collect()
    }

    /// Whether anything is in `data/` in this directory.
    pub fn has_children(&self, parent: FileId) -> bool {
        self.store.prefix(Table::Shown, &parent.0).next().is_some()
    }

    /// The live links that want this place.
    ///
    /// # Errors
    /// The store's.
    pub fn wanted_at(&self, place: &Place) -> Result<Vec<(LinkId, FileId)>> {
        let mut prefix = place_key(place);
        prefix.push(0);
        self.store
            .prefix(Table::Wants, &prefix)
            .map(|pair| {
                let (key, value) = pair?;
                let link = key
                    .get(prefix.len()..)
                    .and_then(|b| b.try_into().ok())
                    .ok_or(IndexError::Damaged("wants"))?;
                Ok((LinkId::from_bytes(link), file_id(&value, "wants")?))
            })
            .collect()
    }

    /// The objects that want to be in this directory.
    ///
    /// # Errors
    /// The store's.
    pub fn wanted_in(&self, parent: FileId) -> Result<Vec<FileId>> {
        self.store.prefix(Table::Wants, &parent.0).map(|pair| file_id(&pair?.1, "wants")).collect()
    }

    /// Whether anything wants to be in this directory.
    pub fn is_wanted(&self, parent: FileId) -> bool {
        self.store.prefix(Table::Wants, &parent.0).next().is_some()
    }

    /// Entries of one origin after `seq`, in order.
    pub fn entries_after(&self, origin: Incarnation, seq: u64) -> impl Iterator<Item = Result<Entry>> + '_ {
        let first = journal_key(origin, seq.saturating_add(1));
        let last = journal_key(origin, u64::MAX);
        self.store
            .range(Table::Journal, (Bound::Included(&first), Bound::Included(&last)))
            .map(|pair| decode(&pair?.1, "journal"))
    }

    /// The same, the last first.
    pub fn entries_back(&self, origin: Incarnation, seq: u64) -> impl Iterator<Item = Result<Entry>> + '_ {
        let first = journal_key(origin, seq.saturating_add(1));
        let last = journal_key(origin, u64::MAX);
        self.store
            .range(Table::Journal, (Bound::Included(&first), Bound::Included(&last)))
            .rev()
            .map(|pair| decode(&pair?.1, "journal"))
    }

    /// One entry, if it is still there.
    ///
    /// # Errors
    /// The store's.
    pub fn entry(&self, origin: Incarnation, seq: u64) -> Result<Option<Entry>> {
        let value = self.store.get(Table::Journal, &journal_key(origin, seq))?;
        value.map(|v| decode(&v, "journal")).transpose()
    }

    /// The sequence numbers of an origin's entries up to `last`, in order.
    pub fn sequences_to(&self, origin: Incarnation, last: u64) -> impl Iterator<Item = Result<u64>> + '_ {
        let (first, last) = (journal_key(origin, 0), journal_key(origin, last));
        self.store.range(Table::Journal, (Bound::Included(&first), Bound::Included(&last))).map(|pair| {
            let key: [u8; 16] = pair?.0.as_ref().try_into().map_err(|_| IndexError::Damaged("journal"))?;
            Ok(LinkId::from_bytes(key).seq)
        })
    }

    /// Up to where the entries of each origin are no longer there.
    ///
    /// # Errors
    /// The store's.
    pub fn floors(&self) -> Result<Horizon> {
        self.store
            .prefix(Table::Floors, &[])
            .map(|pair| {
                let (key, value) = pair?;
                let key: [u8; 8] = key.as_ref().try_into().map_err(|_| IndexError::Damaged("floors"))?;
                Ok((Incarnation(u64::from_be_bytes(key)), decode(&value, "floors")?))
            })
            .collect()
    }

    /// How far each origin is known: its last entry, or its floor.
    ///
    /// # Errors
    /// The store's.
    pub fn horizon(&self) -> Result<Horizon> {
        let mut horizon = self.floors()?;
        let mut upper = vec![0xff; 17];
        // Jumps from origin to origin, from the last one down.
        while let Some(pair) =
            self.store.range(Table::Journal, (Bound::Unbounded, Bound::Excluded(&upper))).next_back()
        {
            let (key, value) = pair?;
            let entry: Entry = decode(&value, "journal")?;
            if key.as_ref() != journal_key(entry.origin, entry.seq) {
                return Err(IndexError::Damaged("journal"));
            }
            horizon.raise(entry.origin, Heard { seq: entry.seq, time: entry.time });
            upper = journal_key(entry.origin, 0).to_vec();
        }
        Ok(horizon)
    }

    /// The objects whose ids begin so, in their order.
    pub fn objects_under(&self, prefix: &[u8]) -> impl Iterator<Item = Result<(FileId, Object)>> + '_ {
        self.store.prefix(Table::Objects, prefix).map(|pair| {
            let (key, value) = pair?;
            Ok((file_id(&key, "objects")?, object(&value)?))
        })
    }

    /// Objects whose place is still to be brought about.
    ///
    /// # Errors
    /// The store's.
    pub fn todo(&self) -> Result<Vec<FileId>> {
        self.all(Table::Todo).map(|pair| file_id(&pair?.0, "todo")).collect()
    }

    /// The object with this inode number, if there is one here.
    ///
    /// # Errors
    /// The store's.
    pub fn numbered(&self, inode: u64) -> Result<Option<FileId>> {
        if inode == FileId::ROOT.inode() {
            return Ok(Some(FileId::ROOT));
        }
        for low in [inode << 1, inode << 1 | 1] {
            if let Some(pair) = self.store.prefix(Table::Local, &low.to_le_bytes()).next() {
                return file_id(&pair?.0, "local").map(Some);
            }
        }
        Ok(None)
    }

    /// All single values whose keys begin so.
    ///
    /// # Errors
    /// The store's.
    pub fn metas(&self, prefix: &str) -> Result<Vec<(String, Vec<u8>)>> {
        self.store
            .prefix(Table::Meta, prefix.as_bytes())
            .map(|pair| {
                let (key, value) = pair?;
                Ok((String::from_utf8_lossy(&key).into_owned(), value.to_vec()))
            })
            .collect()
    }

    /// A single value.
    ///
    /// # Errors
    /// The store's.
    pub fn meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.store.get(Table::Meta, key.as_bytes())?.map(|v| v.to_vec()))
    }
}

impl Batch {
    fn set(&mut self, table: Table, key: impl Into<Bytes>, value: Option<impl Into<Bytes>>) {
        self.changes.push(Set { table, key: key.into(), value: value.map(Into::into) });
    }

    /// Sets an object.
    pub fn object(&mut self, file: FileId, object: &Object) {
        self.set(Table::Objects, file.0, Some(encode(object)));
    }

    /// Forgets an object.
    pub fn forget(&mut self, file: FileId) {
        self.set(Table::Objects, file.0, None::<Bytes>);
    }

    /// Sets or removes what is here of an object.
    pub fn local(&mut self, file: FileId, local: Option<&Local>) {
        self.set(Table::Local, file.0, local.map(encode));
    }

    /// A link comes to want a place, or ceases to.
    pub fn want(&mut self, place: &Place, link: LinkId, file: Option<FileId>) {
        self.set(Table::Wants, want_key(place, link), file.map(|f| f.0));
    }

    /// Something comes to be in `data/`, or ceases to.
    pub fn show(&mut self, place: &Place, shown: Option<Shown>) {
        self.set(Table::Shown, place_key(place), shown.as_ref().map(encode));
    }

    /// Adds an entry to its origin's journal.
    pub fn entry(&mut self, entry: &Entry) {
        self.set(Table::Journal, journal_key(entry.origin, entry.seq), Some(encode(entry)));
    }

    /// Removes an entry.
    pub fn drop_entry(&mut self, origin: Incarnation, seq: u64) {
        self.set(Table::Journal, journal_key(origin, seq), None::<Bytes>);
    }

    /// Entries of the origin up to there are not, or no longer, in its journal.
    pub fn floor(&mut self, origin: Incarnation, heard: Heard) {
        self.set(Table::Floors, origin.0.to_be_bytes(), Some(encode(&heard)));
    }

    /// An object's place is to be brought about, or has been.
    pub fn todo(&mut self, file: FileId, open: bool) {
        self.set(Table::Todo, file.0, open.then_some([]));
    }

    /// Sets a single value.
    pub fn meta(&mut self, key: &str, value: &[u8]) {
        self.set(Table::Meta, key, Some(value));
    }

    /// Removes a single value.
    pub fn remove_meta(&mut self, key: &str) {
        self.set(Table::Meta, key, None::<Bytes>);
    }

    /// Makes the changes true: all of them, or after a crash none.
    ///
    /// # Errors
    /// The store's.
    pub fn commit(self) -> Result<()> {
        self.store.commit(self.changes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_core::{BrickId, Op};

    #[test]
    fn heads_and_entries_of_each_origin() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        let mut batch = index.batch();
        for (origin, last) in [(0u64, 3u64), (7, 1), (u64::MAX, 300)] {
            for seq in 1..=last {
                let op = Op::Drop { brick: BrickId([0; 16]) };
                batch.entry(&Entry { origin: Incarnation(origin), seq, time: seq, file: FileId::ROOT, op });
            }
        }
        batch.commit().unwrap();
        let heard = |seq| Heard { seq, time: seq };
        let heads =
            [(Incarnation(0), heard(3)), (Incarnation(7), heard(1)), (Incarnation(u64::MAX), heard(300))];
        assert_eq!(index.horizon().unwrap(), heads.into_iter().collect());
        let after: Vec<_> = index.entries_after(Incarnation(0), 1).map(|e| e.unwrap().seq).collect();
        assert_eq!(after, [2, 3]);
        // Without its entries an origin is known by its floor.
        let mut batch = index.batch();
        for seq in index.sequences_to(Incarnation(0), 3) {
            batch.drop_entry(Incarnation(0), seq.unwrap());
        }
        batch.floor(Incarnation(0), heard(3));
        batch.commit().unwrap();
        assert_eq!(index.entries_after(Incarnation(0), 0).count(), 0);
        assert_eq!(index.horizon().unwrap(), heads.into_iter().collect());
    }

    #[test]
    fn wants_of_one_name_do_not_mix_with_longer_names() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(dir.path()).unwrap();
        let at = |name: &[u8]| Place { parent: FileId::ROOT, name: name.to_vec() };
        let link = |seq| LinkId { origin: Incarnation(1), seq };
        let mut batch = index.batch();
        batch.want(&at(b"a"), link(1), Some(FileId([1; 16])));
        batch.want(&at(b"ab"), link(2), Some(FileId([2; 16])));
        batch.commit().unwrap();
        assert_eq!(index.wanted_at(&at(b"a")).unwrap(), [(link(1), FileId([1; 16]))]);
        assert_eq!(index.wanted_in(FileId::ROOT).unwrap().len(), 2);
    }
}
