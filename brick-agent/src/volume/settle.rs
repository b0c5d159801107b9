//! When a file is settled: nothing holds it open for writing, and a read lease on
//! it is granted, which the kernel does only when no mapping can change it either.
//! Until then it stays dirty. A settled file in conflict is then seen to. The same thread makes durable what was settled,
//! tries again what could not be done, and looks at replica sets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use nearbrick_core::{FileId, Op};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::change::{Change, print_of};
use super::core::Core;
use super::newest::is_as_known;
use super::statements::is_unsaid;
use super::types::FsResult;
use super::{Volume, WallClock};
use crate::brick::access;
use crate::brick::disk::Lease;
use crate::brick::mark::{Mark, Origin};
use crate::index::{Local, Unseen};

/// After the last release: a program that opens it again at once costs no version.
const SOON: Duration = Duration::from_millis(10);
/// What comes due within so long is looked at in one go.
const TOGETHER: Duration = Duration::from_millis(5);
/// Between two looks at a file that is still mapped.
const AGAIN: Duration = Duration::from_millis(250);
/// Between two versions of a file that is written for long.
const SNAPSHOT: Duration = Duration::from_secs(30);
/// From a settling to when what was settled is durable at the latest.
const SYNC: Duration = Duration::from_secs(30);
/// From when a copy of what was read from a peer is whole to when it is durable, and said to others.
const COPIED: Duration = Duration::from_secs(2);
/// Between two tries of what could not be done.
const TRY_AGAIN: Duration = Duration::from_secs(60);
/// Files that are settled before others may have the lock.
const AT_ONCE: usize = 16;
/// Between two looks at what a power cut left of a copy, and of which others may still tell.
const REMAINS: Duration = Duration::from_secs(60);

/// Files that are to be looked at, and the thread that does it.
pub struct Settler {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What is to be done some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    /// A file is looked at: whether it is settled, and what follows.
    File(FileId),
    /// What was settled is made durable.
    Sync,
    /// What could not be done before is tried again.
    Again,
    /// A person's word on a conflict of this file is carried out.
    Order(FileId),
    /// Replica sets are looked at.
    Replace,
}

struct Shared {
    clock: Arc<dyn WallClock>,
    due: Mutex<BTreeMap<Due, Duration>>,
    more: Condvar,
    /// Until when the thread sleeps, by the clock's `passed`, in nanoseconds: who has something for it before that wakes it. 0 while it is
    /// awake. Changed with `due` locked.
    sleeps_until: AtomicU64,
    stop: AtomicBool,
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Takes out what is due.
fn take_ready(due: &mut BTreeMap<Due, Duration>, now: Duration) -> Vec<Due> {
    let ready: Vec<_> =
        due.iter().filter(|(_, at)| **at <= now).map(|(what, _)| *what).take(AT_ONCE).collect();
    for what in &ready {
        due.remove(what);
    }
    ready
}

impl Shared {
    fn due(&self) -> MutexGuard<'_, BTreeMap<Due, Duration>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is due now; waits until there is something. None when it is to end.
    fn next(&self) -> Option<Vec<Due>> {
        let mut due = self.due();
        loop {
            if self.stop.load(Ordering::Acquire) {
                return None;
            }
            let now = self.clock.passed();
            let ready = take_ready(&mut due, now);
            if !ready.is_empty() {
                return Some(ready);
            }
            due = match due.values().min() {
                None => {
                    self.sleeps_until.store(u64::MAX, Ordering::Relaxed);
                    self.more.wait(due).unwrap_or_else(PoisonError::into_inner)
                }
                Some(at) => {
                    // What comes due in the next moment is done with it: to wake up costs as much as to settle a small file.
                    let until = at.saturating_add(TOGETHER);
                    self.sleeps_until.store(nanos(until), Ordering::Relaxed);
                    let wait = until.saturating_sub(now);
                    self.more.wait_timeout(due, wait).unwrap_or_else(PoisonError::into_inner).0
                }
            };
            self.sleeps_until.store(0, Ordering::Relaxed);
        }
    }
}

impl Settler {
    /// Nothing is due yet.
    pub fn new(clock: Arc<dyn WallClock>) -> Self {
        let shared = Shared {
            clock,
            due: Mutex::default(),
            more: Condvar::new(),
            sleeps_until: AtomicU64::new(0),
            stop: AtomicBool::new(false),
        };
        Settler { shared: Arc::new(shared), thread: Mutex::default() }
    }

    /// The file is to be looked at soon.
    pub fn soon(&self, file: FileId) {
        self.within(Due::File(file), SOON);
    }

    /// The file is to be looked at again later.
    pub fn later(&self, file: FileId, wait: Duration) {
        self.within(Due::File(file), wait);
    }

    /// The file is what a power cut left of a copy: others are to be heard first.
    pub fn remains(&self, file: FileId) {
        self.within(Due::File(file), REMAINS);
    }

    /// Something was settled: it is made durable before long.
    pub fn unsynced(&self) {
        self.within(Due::Sync, SYNC);
    }

    /// A copy of what was read from a peer is whole: it is made durable soon, as others wait to hear of it.
    pub fn copied(&self) {
        self.within(Due::Sync, COPIED);
    }

    /// Something could not be done: it is tried again before long.
    pub fn again(&self) {
        self.within(Due::Again, TRY_AGAIN);
    }

    /// A person's word on a conflict of this file is to be looked at.
    pub fn order(&self, file: FileId, wait: Duration) {
        self.within(Due::Order(file), wait);
    }

    /// Replica sets are to be looked at after so long.
    pub fn replace(&self, wait: Duration) {
        self.within(Due::Replace, wait);
    }

    /// A program begins to write the file: it is looked at from time to time.
    pub fn written(&self, file: FileId) {
        self.within(Due::File(file), SNAPSHOT);
    }

    fn within(&self, what: Due, wait: Duration) {
        let now = self.shared.clock.passed();
        let at = now + wait;
        let mut due = self.shared.due();
        let set = due.entry(what).or_insert(at);
        *set = at.min(*set);
        let until = self.shared.sleeps_until.load(Ordering::Relaxed);
        // Or it should be awake by now: only a clock that was moved makes that so.
        if nanos(at) < until || until != 0 && until < nanos(now) {
            self.shared.more.notify_one();
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(&self, volume: &Arc<Volume>) -> std::io::Result<()> {
        let (shared, volume) = (self.shared.clone(), Arc::downgrade(volume));
        let thread =
            std::thread::Builder::new().name("settle".to_owned()).spawn(move || work(&shared, &volume))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Ends the thread, and waits for it unless it is the one that calls.
    pub fn stop(&self) {
        self.shared.stop.store(true, Ordering::Release);
        {
            let _due = self.shared.due();
            self.shared.more.notify_all();
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

fn work(shared: &Shared, volume: &Weak<Volume>) {
    while let Some(ready) = shared.next() {
        let Some(volume) = volume.upgrade() else { return };
        volume.see_to(ready);
    }
}

impl Volume {
    /// Does what is due by now; says whether there was anything. For volumes without a thread of their own.
    pub fn work(&self) -> bool {
        let shared = &self.settler.shared;
        let ready = take_ready(&mut shared.due(), shared.clock.passed());
        let any = !ready.is_empty();
        if any {
            self.see_to(ready);
        }
        any
    }

    /// When the next work is due, by the clock's [`WallClock::passed`].
    pub fn next_work(&self) -> Option<Duration> {
        self.settler.shared.due().values().min().copied()
    }

    fn see_to(&self, ready: Vec<Due>) {
        let mut files = Vec::new();
        for what in ready {
            match what {
                Due::File(file) => files.push(file),
                Due::Sync => self.make_synced(),
                Due::Again => self.try_again(),
                Due::Order(file) => self.see_to_order(file),
                Due::Replace => self.replace_some(),
            }
        }
        self.look_at(files);
    }

    fn look_at(&self, files: Vec<FileId>) {
        let (mut again, mut in_conflict, mut unsaid) = (Vec::new(), Vec::new(), Vec::new());
        let (mut fallen, mut former) = (Vec::new(), Vec::new());
        {
            let core = &mut *self.lock();
            for file in files {
                match self.settle(core, file) {
                    Ok(Settled::Done) => {
                        // Also in a conflict: when that ends nothing else tells that what is here is of no version that counts.
                        if core.tally.fallen.contains(&file) {
                            match self.see_to_fallen(core, file) {
                                Ok(true) => fallen.push(file),
                                Ok(false) => {}
                                Err(error) => {
                                    tracing::warn!(%file, %error, "an older version cannot be said again yet");
                                    again.push((file, SNAPSHOT));
                                }
                            }
                        }
                        if core.tally.in_conflict.contains(&file) {
                            in_conflict.push(file);
                        }
                    }
                    Ok(Settled::Writable) => again.push((file, AGAIN)),
                    Ok(Settled::Written) => again.push((file, SNAPSHOT)),
                    Ok(Settled::Waits) => again.push((file, REMAINS)),
                    Ok(Settled::Former) => former.push(file),
                    Err(error) => {
                        tracing::warn!(%file, %error, "a written file cannot be settled yet; it stays dirty");
                        again.push((file, AGAIN));
                    }
                }
                if core.unsaid.remove(&file) {
                    unsaid.push(file);
                }
            }
        }
        for file in fallen {
            if let Err(error) = self.say_again(file) {
                tracing::warn!(%file, %error, "an older version cannot be said again yet");
                again.push((file, SNAPSHOT));
            }
        }
        for file in former {
            if let Err(error) = self.former_comes_back(file) {
                tracing::warn!(%file, %error, "what a power cut left cannot be given up yet");
                again.push((file, SNAPSHOT));
            }
        }
        for file in unsaid {
            // Should it be written meanwhile, that says what it is.
            if let Err(error) = self.acknowledge(file) {
                tracing::debug!(%file, %error, "what is held of a file is not said yet");
            }
        }
        for file in in_conflict {
            if let Err(error) = self.keep_loser(file) {
                tracing::warn!(%file, %error, "a version in conflict cannot be kept under its own name yet");
                self.note_error(super::reason_of(error), format!("file {file} stays in conflict: {error}"));
                again.push((file, SNAPSHOT));
            }
        }
        let shared = &self.settler.shared;
        let mut due = shared.due();
        for (file, wait) in again {
            due.entry(Due::File(file)).or_insert_with(|| shared.clock.passed() + wait);
        }
    }
}

/// What came of looking at a file.
pub(super) enum Settled {
    /// It is settled, or someone else will have it looked at.
    Done,
    /// A mapping can still change it.
    Writable,
    /// A program has it open for writing.
    Written,
    /// It is what a power cut left of a file, and others are to be heard first.
    Waits,
    /// It is that, and a version that a former life of this brick had made is to take its place.
    Former,
}

impl Volume {
    /// Settles a dirty file if no one can change it any more.
    pub(super) fn settle(&self, core: &mut Core, file: FileId) -> FsResult<Settled> {
        let Some(local) = self.index.local(file).map_err(super::index_failed)? else {
            return Ok(Settled::Done);
        };
        if !local.dirty {
            return Ok(Settled::Done);
        }
        if core.nodes.of(file).is_some_and(|n| n.writers > 0) {
            self.long_written(core, file, &local)?;
            return Ok(Settled::Written);
        }
        let at = self.at(core, file, &local)?;
        let open = match access::open(&at.dir, &at.name, OFlags::RDONLY | OFlags::NONBLOCK, 0) {
            Ok(open) => open,
            Err(Errno::NOENT) => {
                // Where it is now will be found: it was moved on a disk on which that could not be noted, or past the mount.
                self.settler.later(file, SNAPSHOT);
                return Ok(Settled::Done);
            }
            Err(error) => return Err(error),
        };
        // Held until the new version is in the journal.
        let _lease = match open.clone().read_lease()? {
            Lease::Granted(lease) => Some(lease),
            Lease::Writable => {
                self.long_written(core, file, &local)?;
                return Ok(Settled::Writable);
            }
            // Then only what was opened through us is known.
            Lease::Unsupported => None,
        };
        let mut print = print_of(&open.stat()?);
        let remains = self.remains_of(&at, file, &local, &print)?;
        if let Some(remains) = &remains {
            if self.gives_way(file, remains)? {
                return self.give_way(core, file).map(|()| Settled::Done);
            }
            if self.others_may_tell(core, file, remains)? {
                return Ok(Settled::Waits);
            }
        }
        if let Some(found) = self.found_as(core, &at, file, &local, &print)? {
            if self.former_of(file, &local, &found)?.is_some() {
                return Ok(Settled::Former);
            }
            if self.others_may_hold(core) {
                return Ok(Settled::Waits);
            }
            core.unproven.remove(&file);
        }
        let was_removed = !self.object_of(file)?.exists(file);
        let mut change = Change::new(self, core);
        let same = is_as_known(&local, print);
        if same && (local.print == Some(print) || local.have.is_none()) {
            change.emit(file, Op::Clean { brick: self.me })?;
            if local.have.is_none() {
                change.local_mut(file)?.print = None;
            }
        } else {
            let version = match local.have.as_ref().filter(|_| same) {
                // Its last snapshot was all of it.
                Some(have) => have.clone(),
                None => self.next_version(change.core, &self.object_of(file)?, &local.base),
            };
            let before = print.ctime;
            let origin = match remains {
                Some(remains) => remains.origin(),
                // A version that was made of it while it was written has no mark yet.
                None if same => access::get_mark(&at.dir, &at.name)?
                    .filter(|mark| mark.file == file && mark.version.as_ref() == Some(&version))
                    .map_or(Origin::Here, |mark| mark.origin),
                None => Origin::Here,
            };
            let mark = Mark { origin, ..Mark::new(file, Some(version.clone())) };
            access::set_file_mark(&*open, &mark)?;
            print = print_of(&open.stat()?);
            // To programs nothing has happened: archivers and git would take the file for changed.
            let shown = local.unseen.filter(|u| u.ctime == before).map_or(before, |u| u.shown);
            let unseen = Some(Unseen { ctime: print.ctime, shown });
            let said = if same {
                Op::Clean { brick: self.me }
            } else {
                Op::Content {
                    brick: self.me,
                    version: version.clone(),
                    size: print.size,
                    mtime_sec: print.mtime.0,
                    mtime_nsec: print.mtime.1,
                    still_dirty: false,
                }
            };
            let entry = change.emit(file, said)?;
            let local = change.local_mut(file)?;
            local.have = Some(version);
            local.print = Some(print);
            local.unseen = unseen;
            if !same {
                local.mtime_at = entry.time;
            }
        }
        let local = change.local_mut(file)?;
        local.dirty = false;
        local.snapshot = None;
        local.quiet = false;
        local.base = Default::default();
        local.overlay = None;
        local.filling = None;
        local.filled.clear();
        let local = local.clone();
        let object = change.object(file)?;
        let unsaid = is_unsaid(self.me, &object, &local);
        // Removed by a peer while it was written here, so that it made way for another; or an edit brings back what was removed, under a
        // name that is not the one that it has here, as where the index was lost and the disk alone told of its name. What others did to it while
        // it was removed has not come to the disk.
        let moves =
            was_removed || !object.exists(file) || local.parked || self.has_other_names(&object, &local)?;
        if moves {
            // Should the end come before it has them: nothing else tells.
            change.todo(file, true);
        }
        let done = change.commit()?;
        if unsaid {
            core.unsaid.insert(file);
        }
        self.is_unsynced(core, file);
        core.moments.remove(&file);
        // What the kernel knew while a program wrote past us may be old.
        self.invalidate_node(core, file, false);
        // Or written by a peer too.
        if moves || !local_is_newest(self, file)? {
            let mut files = VecDeque::from([file]);
            self.with_claims(core, &done.places, &mut files)?;
            self.bring_about(core, files.into());
        }
        Ok(Settled::Done)
    }
}

impl Volume {
    /// What is written for long gets a version from time to time, so that others have some of it.
    fn long_written(&self, core: &mut Core, file: FileId, local: &Local) -> FsResult<()> {
        let now = self.clock.now_ms();
        let limit = u64::try_from(SNAPSHOT.as_millis()).unwrap_or(u64::MAX);
        let last = self.object_of(file)?.head().map_or(0, |h| h.stamp.millis()).max(local.dirty_since);
        if now.saturating_sub(last) < limit {
            return Ok(());
        }
        let at = self.at(core, file, local)?;
        let print = print_of(&access::stat(&at.dir, &at.name)?);
        if is_as_known(local, print) {
            // It is open, and nobody has written to it.
            return Ok(());
        }
        self.snapshot(core, file, local, print).map(drop)
    }
}

fn local_is_newest(volume: &Volume, file: FileId) -> FsResult<bool> {
    let (object, local) = (volume.object_of(file)?, volume.local_or_none(file)?);
    Ok(super::opening::standing(&object, &local) == super::opening::Standing::Whole)
}
