//! Counts for the reports.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, Incarnation};
use nearbrick_crds::Verified;

use super::brakes::HeldRemovals;
use super::conflict_list::ListedConflict;
use super::core::Rebuild;
use super::count::Count;
use super::refused::RefusedEntry;
use super::replace::Placing;
use super::scrub::ScrubStatus;
use super::usage::HotGroup;
use super::{Volume, read};

/// What a brick reports.
#[derive(Clone, Debug)]
pub struct VolumeStatus {
    /// The life of its index.
    pub incarnation: Incarnation,
    /// Regular files of the volume.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Follows from all that is known of names, versions and attributes: the same on two bricks that know the same.
    pub tree_sum: u128,
    /// Those without all of their data here.
    pub stubs: u64,
    /// Those that programs here may be changing.
    pub dirty_files: u64,
    /// Since when the oldest of these: milliseconds since 1970.
    pub oldest_dirty_ms: Option<u64>,
    /// What this brick lacks.
    pub pending_in: Count,
    /// What others lack of which the newest data is here.
    pub pending_out: BTreeMap<BrickId, Count>,
    /// The same, each file once.
    pub pending: Count,
    /// Files of which a newest version is here and on no other brick.
    pub only_here: Count,
    /// Files that must be here.
    pub in_set: Count,
    /// How far files are from being as the placement rules want.
    pub placing: Placing,
    /// Names, deletions or attributes of which no other member has heard yet; none, where there is no other.
    pub unheard: bool,
    /// Bytes of the brick's file system.
    pub capacity_bytes: u64,
    /// Free ones.
    pub free_bytes: u64,
    /// Files in conflict.
    pub conflicts: u64,
    /// Some of them, and those on which a person's word was carried out lately.
    pub listed_conflicts: Vec<ListedConflict>,
    /// Messages of peers that made no sense.
    pub rejected: u64,
    /// Opens of older bytes because the newest were out of reach.
    pub stale_reads: u64,
    /// Calls of fsync that failed because too few bricks had the bytes in time.
    pub sync_failures: u64,
    /// Removals that wait for a person.
    pub held: Vec<HeldRemovals>,
    /// Entries of peers at which their journals cannot be followed any more.
    pub refused: Vec<RefusedEntry>,
    /// The index is being made anew: nothing can be changed.
    pub rebuilding: bool,
    /// The same, because the directory was adopted.
    pub adopting: bool,
    /// What looks through the whole brick found.
    pub scrub: ScrubStatus,
    /// What is used most here.
    pub hottest: Vec<HotGroup>,
    /// What was read once more of moves.
    pub verified_moves: BTreeMap<String, Verified>,
    /// What last went wrong.
    pub last_error: Option<(Reason, String, SystemTime)>,
}

impl Volume {
    /// The counts now. Costs nothing that grows with the files.
    pub fn status(&self) -> VolumeStatus {
        let space = self.statfs().ok();
        let last_error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let has_others = self.config().members.len() > 1;
        let core = self.lock();
        let tally = &core.tally;
        VolumeStatus {
            incarnation: self.incarnation,
            files: tally.files,
            bytes: u64::try_from(tally.bytes).unwrap_or(u64::MAX),
            tree_sum: core.sums.all(),
            stubs: tally.stubs,
            dirty_files: tally.dirty.len() as u64,
            oldest_dirty_ms: tally.dirty.values().min().copied(),
            pending_in: tally.sums.lacking(),
            pending_out: tally.sums.out(),
            pending: tally.sums.once(),
            only_here: Count {
                files: tally.only_here,
                bytes: u64::try_from(tally.only_here_bytes).unwrap_or(u64::MAX),
                ..Count::default()
            },
            in_set: Count {
                files: tally.in_set,
                bytes: u64::try_from(tally.in_set_bytes).unwrap_or(u64::MAX),
                ..Count::default()
            },
            placing: read(&self.configured).placing(&core.replacing),
            unheard: has_others && core.unheard.is_some(),
            capacity_bytes: space.as_ref().map_or(0, |s| s.f_blocks * s.f_frsize),
            free_bytes: space.as_ref().map_or(0, |s| s.f_bavail * s.f_frsize),
            conflicts: tally.open_conflicts().len() as u64,
            listed_conflicts: self.listed_conflicts(&core),
            rejected: self.rejected.load(Ordering::Relaxed),
            stale_reads: self.stale_reads.load(Ordering::Relaxed),
            sync_failures: self.sync_failures.load(Ordering::Relaxed),
            held: Self::held(&core),
            refused: Self::refused_entries(&core),
            rebuilding: core.rebuild != Rebuild::No,
            adopting: self.is_adopting(&core),
            scrub: self.scrub_status(),
            hottest: self.hottest(),
            verified_moves: self.moves.verified(),
            last_error,
        }
    }
}
