//! Pending files and totals, kept as changes are made, so that listing and
//! counting them costs what is pending, never a crawl.

use std::collections::HashMap;

use nearbrick_core::pending::{Pending, pending};
use nearbrick_core::{BrickId, FileId, Object};

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
    pub pending: HashMap<FileId, PendingFile>,
    /// Files that programs here may be changing, by the time since when: milliseconds since 1970.
    pub dirty: HashMap<FileId, u64>,
    /// Regular files that exist.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those without all of their data here.
    pub stubs: u64,
    /// Those in conflict.
    pub conflicts: u64,
}

#[derive(Default)]
struct Share {
    files: u64,
    bytes: u64,
    stubs: u64,
    conflicts: u64,
}

fn share(file: FileId, object: &Object, local: Option<&Local>) -> Share {
    if !object.kind.as_ref().is_some_and(|k| k.is_file()) || !object.exists(file) {
        return Share::default();
    }
    let whole = local.is_some_and(|l| l.dirty || l.have.is_some()) || object.contents.is_empty();
    Share {
        files: 1,
        bytes: object.size(),
        stubs: u64::from(!whole),
        conflicts: u64::from(object.in_conflict()),
    }
}

impl Tally {
    /// An object, or what is here of it, changed.
    pub fn change(
        &mut self,
        me: BrickId,
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
        self.conflicts = (self.conflicts + new.conflicts).saturating_sub(old.conflicts);
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
        let here = local.is_some_and(|l| {
            l.dirty
                || match (object.head(), &l.have) {
                    (Some(head), Some(have)) => have.includes(&head.version),
                    _ => false,
                }
        });
        debug_assert!(
            bricks.iter().all(|p| p.brick != me || !here || object.in_conflict() || local.is_some())
        );
        self.pending.insert(file, PendingFile { bricks, here });
    }
}
