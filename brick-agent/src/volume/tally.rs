//! Pending files and totals, kept as changes are made, so that listing and
//! counting them costs what is pending, never a crawl.

use std::collections::{BTreeMap, BTreeSet};

use nearbrick_core::pending::{Pending, pending};
use nearbrick_core::{BrickId, FileId, Object, fallen};

use super::count::Sums;
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
    /// The same, summed up.
    pub sums: Sums,
    /// Files that programs here may be changing, by the time since when: milliseconds since 1970.
    pub dirty: BTreeMap<FileId, u64>,
    /// Regular files that exist.
    pub files: u64,
    /// Their bytes. Sizes are what members say: the sum of some of them may be no 64-bit number.
    pub bytes: u128,
    /// Those without all of their data here.
    pub stubs: u64,
    /// Those of which a newest version is here and on no other brick, whatever their replica set is.
    pub only_here: u64,
    /// Their bytes.
    pub only_here_bytes: u128,
    /// Those that must be here: this brick is in their replica set.
    pub in_set: u64,
    /// Their bytes.
    pub in_set_bytes: u128,
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
    /// Files of which no brick holds anything any more.
    pub lost: BTreeSet<FileId>,
    /// Losers of conflicts that are kept under a name of their own, which no one has changed yet: of which file, and which.
    pub kept: BTreeSet<(FileId, FileId)>,
    /// Of these files those that are no more: there is nothing left to decide.
    pub ended: BTreeSet<FileId>,
    /// Those on which a person's word was carried out: when, in milliseconds since 1970.
    pub decided: BTreeMap<FileId, u64>,
}

#[derive(Default)]
struct Share {
    files: u64,
    bytes: u128,
    stubs: u64,
    only_here: u64,
    in_set: u64,
}

/// Whether bytes of a version that counts are here and nowhere else: also those of a version in conflict, until
/// they are kept as a file of their own. What programs are writing is counted as dirty.
fn is_only_here(object: &Object, local: &Local, me: BrickId) -> bool {
    let Some(have) = local.have.as_ref().filter(|_| !local.dirty) else { return false };
    let ours = object.current().filter(|c| c.size > 0 && have.includes(&c.version));
    ours.into_iter().any(|c| object.holders_of(&c.version).all(|brick| brick == me))
}

fn share(file: FileId, object: &Object, local: Option<&Local>, me: Option<BrickId>) -> Share {
    if !object.kind.as_ref().is_some_and(|k| k.is_file()) || !object.exists(file) {
        return Share::default();
    }
    let whole = local.is_some_and(|l| l.dirty || l.have.is_some()) || object.contents.is_empty();
    let only = me.zip(local).is_some_and(|(me, local)| is_only_here(object, local, me));
    let in_set = me.is_some_and(|me| object.replica_set().contains(&me));
    let (stubs, only_here, in_set) = (u64::from(!whole), u64::from(only), u64::from(in_set));
    Share { files: 1, bytes: object.size().into(), stubs, only_here, in_set }
}

fn set(files: &mut BTreeSet<FileId>, file: FileId, in_it: bool) {
    if in_it {
        files.insert(file);
    } else if !files.is_empty() {
        files.remove(&file);
    }
}

impl Tally {
    /// The losers of conflicts of this file that are files beside it.
    pub fn kept_of(&self, file: FileId) -> impl Iterator<Item = FileId> + '_ {
        let all = (file, FileId([0; 16]))..=(file, FileId([255; 16]));
        self.kept.range(all).map(|(_, kept)| *kept)
    }

    /// The files of which a conflict is open.
    pub fn open_conflicts(&self) -> BTreeSet<FileId> {
        let kept = self.kept.iter().map(|(of, _)| *of).filter(|of| !self.ended.contains(of));
        self.in_conflict.iter().copied().chain(kept).collect()
    }

    /// Whether the file, which has losers beside it, is there at all.
    pub fn is_there(&mut self, file: FileId, there: bool) {
        let has_kept = self.kept_of(file).next().is_some();
        set(&mut self.ended, file, has_kept && !there);
    }

    /// An object, or what is here of it, changed.
    pub fn change(
        &mut self,
        file: FileId,
        before: Option<(&Object, Option<&Local>)>,
        after: (&Object, Option<&Local>),
    ) {
        let me = self.me;
        let old = before.map_or_else(Share::default, |(object, local)| share(file, object, local, me));
        let (object, local) = after;
        let new = share(file, object, local, me);
        self.files = (self.files + new.files).saturating_sub(old.files);
        self.bytes = (self.bytes + new.bytes).saturating_sub(old.bytes);
        self.stubs = (self.stubs + new.stubs).saturating_sub(old.stubs);
        self.only_here = (self.only_here + new.only_here).saturating_sub(old.only_here);
        let only = |share: &Share| u128::from(share.only_here) * share.bytes;
        self.only_here_bytes = (self.only_here_bytes + only(&new)).saturating_sub(only(&old));
        self.in_set = (self.in_set + new.in_set).saturating_sub(old.in_set);
        let held = |share: &Share| u128::from(share.in_set) * share.bytes;
        self.in_set_bytes = (self.in_set_bytes + held(&new)).saturating_sub(held(&old));
        let in_set = self.me.is_some_and(|me| object.replica_set().contains(&me));
        let has_bytes = local.is_some_and(|l| l.have.is_some() || !l.filled.is_empty());
        set(&mut self.cached, file, new.bytes > 0 && has_bytes && !in_set);
        set(&mut self.in_conflict, file, new.files > 0 && object.in_conflict());
        let elsewhere = object.writing().any(|brick| Some(brick) != self.me);
        set(&mut self.written_elsewhere, file, new.files > 0 && elsewhere);
        if let Some(of) = before.and_then(|(object, _)| object.kept_loser_of(file)) {
            self.kept.remove(&(of, file));
        }
        if let Some(of) = object.kept_loser_of(file).filter(|_| new.files > 0) {
            self.kept.insert((of, file));
        }
        self.is_there(file, new.files > 0);
        match object.decided_at().filter(|_| new.files > 0) {
            Some(at) => {
                self.decided.insert(file, at);
            }
            None => {
                self.decided.remove(&file);
            }
        }
        let have = local.filter(|l| !l.dirty).and_then(|l| l.have.as_ref());
        let step = self.me.zip(have).and_then(|(me, have)| fallen::step(object, me, have));
        set(&mut self.fallen, file, step.is_some());
        set(&mut self.lost, file, new.files > 0 && fallen::is_lost(object));
        match local.filter(|l| l.dirty) {
            Some(local) => {
                self.dirty.insert(file, local.dirty_since);
            }
            None => {
                self.dirty.remove(&file);
            }
        }
        if let Some(before) = self.pending.remove(&file) {
            self.sums.take(&before, self.me);
        }
        let bricks = pending(object);
        if bricks.is_empty() {
            return;
        }
        // Also the loser of a conflict is newest data until it is kept elsewhere.
        let here = local.is_some_and(|l| {
            l.dirty || l.have.as_ref().is_some_and(|have| object.current().any(|c| have.includes(&c.version)))
        });
        let now = PendingFile { bricks, here };
        self.sums.add(&now, self.me);
        self.pending.insert(file, now);
    }
}
