//! Bringing pending files here: the target pulls.
//!
//! * `fetch`: streams of whole files, each hashed on the way into `staging/`.
//!
//! What to do about each file is decided by [`nearbrick_core::heal`]; what has
//! arrived is put in its place, under the lock, by the volume.

mod fetch;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

use globset::{Glob, GlobSet, GlobSetBuilder};
use nearbrick_core::heal::{Decision, Reason};
use nearbrick_core::{BrickId, FileId, VersionVector};

use crate::volume::{Planned, Volume};
use fetch::Inlet;

/// What to heal.
#[derive(Clone, Debug, Default)]
pub struct HealRequest {
    /// Only from this brick.
    pub source: Option<BrickId>,
    /// Only these: globs on the path from the volume's root; empty: all.
    pub paths: Vec<String>,
}

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealProgress {
    /// Files that were pending when it began.
    pub files_total: u64,
    /// Of these healed.
    pub files_done: u64,
    /// Of these not.
    pub files_failed: u64,
    /// Their bytes.
    pub bytes_total: u64,
    /// Of these healed.
    pub bytes_done: u64,
    /// Why not: how many, and a line about one of them.
    pub failures: BTreeMap<Reason, (u64, String)>,
}

/// How it ended.
pub type HealOutcome = HealProgress;

/// One file to be fetched.
pub(crate) struct Wanted {
    pub file: FileId,
    pub version: VersionVector,
    /// Bricks still to be tried.
    pub from: Vec<BrickId>,
}

/// Files asked for in one stream, at most.
const IN_STREAM: usize = 1024;

fn globs(paths: &[String]) -> Result<Option<GlobSet>, String> {
    if paths.is_empty() {
        return Ok(None);
    }
    let mut set = GlobSetBuilder::new();
    for text in paths {
        set.add(Glob::new(text).map_err(|e| e.to_string())?);
    }
    set.build().map(Some).map_err(|e| e.to_string())
}

/// Keeps count, and says so.
pub(crate) struct Count<'a> {
    progress: HealProgress,
    say: &'a (dyn Fn(&HealProgress) + Sync + 'a),
    volume: &'a Volume,
}

impl Count<'_> {
    fn done(&mut self, bytes: u64) {
        self.progress.files_done += 1;
        self.progress.bytes_done += bytes;
        (self.say)(&self.progress);
    }

    fn failed(&mut self, file: FileId, reason: Reason) {
        self.progress.files_failed += 1;
        let entry = self.progress.failures.entry(reason).or_insert_with(|| (0, String::new()));
        entry.0 += 1;
        if entry.1.is_empty() {
            let path = self.volume.path_for_people(file);
            entry.1 =
                path.map_or_else(|_| format!("file {file}"), |p| String::from_utf8_lossy(&p).into_owned());
        }
        (self.say)(&self.progress);
    }
}

/// Heals what this brick lacks. Blocks; `progress` is called after each file, and
/// `cancel` is looked at between two.
pub fn run(
    volume: &Arc<Volume>,
    request: &HealRequest,
    progress: &(dyn Fn(&HealProgress) + Sync),
    cancel: &AtomicBool,
) -> HealOutcome {
    let _one = volume.healing.lock().unwrap_or_else(PoisonError::into_inner);
    let globs = match globs(&request.paths) {
        Ok(globs) => globs,
        Err(why) => {
            let failures = BTreeMap::from([(Reason::SourceChanged, (0, format!("paths: {why}")))]);
            return HealProgress { failures, ..HealProgress::default() };
        }
    };
    let mut count = Count { progress: HealProgress::default(), say: progress, volume };
    let mut plans = Vec::new();
    for file in volume.lacking() {
        if let Some(globs) = &globs {
            let matches = volume.path_for_people(file).is_ok_and(|p| globs.is_match(OsStr::from_bytes(&p)));
            if !matches {
                continue;
            }
        }
        match volume.planned(file) {
            Ok(plan) => plans.push(plan),
            Err(error) => tracing::warn!(%file, %error, "cannot be planned"),
        }
    }
    count.progress.files_total = plans.len() as u64;
    count.progress.bytes_total = plans.iter().map(|p| p.size).sum();
    (progress)(&count.progress);
    carry_out(volume, plans, request.source, &mut count, cancel);
    if let Some((reason, (n, path))) = count.progress.failures.iter().next() {
        volume.note_error(*reason, format!("{n} files could not be healed, among them {path}"));
    }
    count.progress
}

/// Brings the newest version of one file here, now.
///
/// # Errors
/// Why not.
pub(crate) fn bring(volume: &Volume, file: FileId) -> Result<(), Reason> {
    let plan = volume.planned(file).map_err(|_| Reason::Permission)?;
    let quiet = |_: &HealProgress| {};
    let mut count = Count { progress: HealProgress::default(), say: &quiet, volume };
    if let Decision::Wait(reason) = plan.decision {
        return Err(reason);
    }
    carry_out(volume, vec![plan], None, &mut count, &AtomicBool::new(false));
    match count.progress.failures.keys().next() {
        Some(reason) => Err(*reason),
        None => Ok(()),
    }
}

fn carry_out(
    volume: &Volume,
    plans: Vec<Planned>,
    only: Option<BrickId>,
    count: &mut Count<'_>,
    cancel: &AtomicBool,
) {
    let mut by_source: BTreeMap<BrickId, Vec<Wanted>> = BTreeMap::new();
    let queue = |wanted: Wanted, by_source: &mut BTreeMap<BrickId, Vec<Wanted>>| match wanted.from.first() {
        Some(first) => {
            by_source.entry(*first).or_default().push(wanted);
            None
        }
        None => Some(wanted.file),
    };
    for Planned { file, size, decision } in plans {
        match decision {
            Decision::Nothing => count.done(0),
            Decision::Acknowledge => match volume.acknowledge(file) {
                Ok(()) => count.done(size),
                Err(rustix::io::Errno::BUSY) => count.failed(file, Reason::Busy),
                Err(_) => count.failed(file, Reason::Permission),
            },
            Decision::Wait(reason) => count.failed(file, reason),
            Decision::Fetch { version, mut from, .. } => {
                if let Some(only) = only {
                    from.retain(|b| *b == only);
                }
                let wanted = Wanted { file, version, from };
                if let Some(file) = queue(wanted, &mut by_source) {
                    count.failed(file, Reason::Unreachable);
                }
            }
        }
    }
    let Some(remote) = volume.remote() else {
        by_source.into_values().flatten().for_each(|w| count.failed(w.file, Reason::Unreachable));
        return;
    };
    // Whoever fails passes its files to the next holder, until none is left.
    while let Some(&source) = by_source.keys().next() {
        let mut list = by_source.remove(&source).unwrap_or_default();
        while !list.is_empty() {
            if cancel.load(Ordering::Relaxed) {
                return;
            }
            let rest = list.split_off(list.len().min(IN_STREAM));
            let (again, stream) = Inlet::new(volume, count, cancel).pull(&*remote, source, list);
            for (mut wanted, reason) in again {
                wanted.from.retain(|b| *b != source);
                let file = wanted.file;
                if queue(wanted, &mut by_source).is_some() {
                    count.failed(file, reason);
                }
            }
            list = rest;
            if stream.is_err() {
                // The rest of them need not try to reach it too.
                for mut wanted in list.drain(..) {
                    wanted.from.retain(|b| *b != source);
                    if let Some(file) = queue(wanted, &mut by_source) {
                        count.failed(file, Reason::Unreachable);
                    }
                }
            }
        }
    }
}
