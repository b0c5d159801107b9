//! Pending files and totals, kept as changes are made, so that listing and
//! counting them costs what is pending, never a crawl.

use std::collections::{BTreeMap, BTreeSet};

use nearbrick_core::pending::{Pending, pending};
use nearbrick_core::{BrickId, FileId, Object, fallen};

use crate::index::Local;

/// Why and where a file is pending.
#[derive(Clone, Debug)]
pub struct PendingFile {
    /// The bricks that lack its newest data.
    pub bricks: Vec<Pending>,
    /// Whether its newest data is here.
    pub here: bool,
}

/// All of them, and totals.
#[derive(Debug, Default)]
pub struct Tally {
    /// By file.
    pub pending: BTreeMap<FileId, PendingFile>,
    /// Files that programs here may be changing, by the time since when: milliseconds since 1970.
    pub dirty: BTreeMap<FileId, u64>,
    /// Regular files that exist.
    pub files: u64,
    /// Their bytes. Sizes are what members say: the sum of some of them may be no 64-bit number.
    pub bytes: u128,
    /// Those without all of their data here.
    pub stubs: u64,
    /// Those with versions of which neither includes the other.
    pub in_conflict: BTreeSet<FileId>,
    /// Those with bytes here that no replica set wants here: cached copies, and stubs that were read.
    pub cached: BTreeSet<FileId>,
    /// Those that programs at other bricks are changing.
    pub written_elsewhere: BTreeSet<FileId>,
    /// This brick.
    pub me: Option<BrickId>,
    /// Files of which a newer version than the one here was, and no brick holds it any more.
    pub fallen: BTreeSet<FileId>,
    /// Losers of conflicts that are kept under a name of their own, which no one has changed yet.
    pub kept: BTreeSet<FileId>,
}

#[derive(Default)]
struct Share {
    files: u64,
    bytes: u128,
    stubs: u64,
}

fn share(file: FileId, object: &Object, local: Option<&Local>) -> Share {
    if !object.kind.as_ref().is_some_and(|k| k.is_file()) || !object.exists(file) {
        return Share::default();
    }
    let whole = local.is_some_and(|l| l.dirty || l.have.is_some()) || object.contents.is_empty();
    Share { files: 1, bytes: object.size().into(), stubs: u64::from(!whole) }
}

fn set(files: &mut BTreeSet<FileId>, file: FileId, in_it: bool) {
    if in_it {
        files.insert(file);
    } else if !files.is_empty() {
        files.remove(&file);
    }
}

impl Tally {
    /// An object, or what is here of it, changed.
    pub fn change(
        &mut self,
        file: FileId,
        before: Option<(&Object, Option<&Local>)>,
        after: (&Object, Option<&Local>),
    ) {
        let old = before.map_or_else(Share::default, |(object, local)| share(file, object, local));
        let (object, local) = after;
        let new = share(file, object, local);
        self.files = (self.files + new.files).saturating_sub(old.files);
        self.bytes = (self.bytes + new.bytes).saturating_sub(old.bytes);
        self.stubs = (self.stubs + new.stubs).saturating_sub(old.stubs);
        let in_set = self.me.is_some_and(|me| object.replica_set().contains(&me));
        let has_bytes = local.is_some_and(|l| l.have.is_some() || !l.filled.is_empty());
        set(&mut self.cached, file, new.bytes > 0 && has_bytes && !in_set);
        set(&mut self.in_conflict, file, new.files > 0 && object.in_conflict());
        let elsewhere = object.writing().any(|brick| Some(brick) != self.me);
        set(&mut self.written_elsewhere, file, new.files > 0 && elsewhere);
        set(&mut self.kept, file, new.files > 0 && object.kept_loser_of().is_some());
        let have = local.filter(|l| !l.dirty).and_then(|l| l.have.as_ref());
        let step = self.me.zip(have).and_then(|(me, have)| fallen::step(object, me, have));
        set(&mut self.fallen, file, step.is_some());
        match local.filter(|l| l.dirty) {
            Some(local) => {
                self.dirty.insert(file, local.dirty_since);
            }
            None => {
                self.dirty.remove(&file);
            }
        }
        let bricks = pending(object);
        if bricks.is_empty() {
            self.pending.remove(&file);
            return;
        }
        // Also the loser of a conflict is newest data until it is kept elsewhere.
        let here = local.is_some_and(|l| {
            l.dirty || l.have.as_ref().is_some_and(|have| object.current().any(|c| have.includes(&c.version)))
        });
        self.pending.insert(file, PendingFile { bricks, here });
    }
}
