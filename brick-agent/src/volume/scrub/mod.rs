//! A look through the whole brick, from time to time: whether names are as the index has them, and bytes as they were
//! written. What was changed past the mount is taken over, and what the disk damaged is brought again.
//!
//! * `state`: how far a pass is, and what it found; kept in the index, so that it goes on after a restart.
//! * `names`: what is in the directories.
//! * `file`: the bytes of one file, and what is done about them.
//!
//! Decided by [`nearbrick_core::scrub`]. Invariants: no byte is read while the lock is held; everything is
//! looked at again under the lock before anything is done; what programs have open for writing is left to them.

mod file;
mod names;
mod state;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use nearbrick_core::scrub::hash_of;
use nearbrick_core::{FileId, VersionVector};
use rustix::fs::OFlags;
use tokio::sync::watch;

pub(super) use self::file::Looked;
use self::file::Since;
use self::state::State;
use super::change::print_of;
use super::files;
use super::types::FsResult;
use super::{Volume, index_failed};
use crate::brick::access;
use crate::heal::limit::{Limiter, Throttle};
use crate::index::{Batch, Index, IndexError, encode};

pub use state::{Fault, Pass};

/// Where it is in the index.
const SCRUB: &str = "scrub";
/// Files between two notes of how far it is.
const FILES: usize = 64;
/// Bytes, too.
const BYTES: u64 = 64 << 20;
/// What a file costs beside its bytes, as bytes of the rate.
const OF_A_FILE: u64 = 4 << 10;

/// The scrub of a volume.
#[derive(Default)]
pub struct Scrub {
    state: Mutex<State>,
    /// One pass at a time.
    one: Mutex<()>,
    wanted: watch::Sender<u64>,
    /// What all looks at bytes share.
    rate: OnceLock<Arc<Limiter>>,
}

/// What is known of the copy of one file.
#[derive(Debug, Default)]
pub(super) struct ScrubOf {
    /// A fault was found that is not repaired yet.
    pub faulty: bool,
    /// The last pass that came to its end.
    pub last: Option<Pass>,
}

/// What is known of the last look through the brick, and of the present one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubStatus {
    /// The pass that is under way.
    pub running: Option<Pass>,
    /// The last one that came to its end.
    pub last: Option<Pass>,
    /// Copies that were damaged, and in whose place no whole one has come yet.
    pub set_aside: u64,
    /// Copies that are damaged, and of which no other brick is known to hold the version.
    pub only_copies: u64,
    /// Versions of which two bricks say different hashes.
    pub disagreements: u64,
}

impl ScrubStatus {
    /// Files of which not every copy is known to be right again.
    pub fn unrepaired(&self) -> u64 {
        self.set_aside + self.only_copies + self.disagreements
    }
}

impl Scrub {
    /// What was kept at the last end.
    pub(super) fn load(index: &Index) -> Result<Self, IndexError> {
        let state = match index.meta(SCRUB)? {
            None => State::default(),
            Some(bytes) => postcard::from_bytes(&bytes).map_err(|_| IndexError::Damaged("meta"))?,
        };
        Ok(Scrub { state: Mutex::new(state), ..Scrub::default() })
    }

    /// For reading what somebody asks for: no faster than passes do.
    pub(super) fn throttle(&self) -> Throttle {
        Throttle::new(None, self.rate.get().cloned())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Volume {
    /// Asks for a pass, unless one is under way. Gives the time at which it began, in milliseconds since 1970: the
    /// last pass is not older once it is done.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn want_scrub(&self) -> FsResult<u64> {
        let began = self.begin_scrub()?;
        self.scrub.wanted.send_modify(|n| *n = n.wrapping_add(1));
        Ok(began)
    }

    fn begin_scrub(&self) -> FsResult<u64> {
        let began = {
            let now = self.clock.now_ms();
            let state = &mut *self.scrub.state();
            // A clock that went back must not make it look done.
            let after_last = state.last.as_ref().map_or(0, |last| last.began_ms + 1);
            state.pass.get_or_insert_with(|| Pass::new(now.max(after_last))).began_ms
        };
        self.keep_scrub()?;
        Ok(began)
    }

    /// All that is read to look at bytes takes no more than this together.
    pub fn set_scrub_rate(&self, rate: Arc<Limiter>) {
        // The first stays: there is one for all volumes.
        let _ = self.scrub.rate.set(rate);
    }

    pub(super) fn scrub_of(&self, file: FileId) -> ScrubOf {
        let state = self.scrub.state();
        ScrubOf { faulty: state.open.contains_key(&file), last: state.last.clone() }
    }

    /// Ticks when somebody asks for a pass: then call [`Volume::scrub`].
    pub fn scrub_wanted(&self) -> watch::Receiver<u64> {
        self.scrub.wanted.subscribe()
    }

    /// How far it is, and what was found.
    pub fn scrub_status(&self) -> ScrubStatus {
        let state = self.scrub.state();
        let count = |fault: Fault| state.open.values().filter(|open| open.fault == fault).count() as u64;
        ScrubStatus {
            running: state.pass.clone(),
            last: state.last.clone(),
            set_aside: count(Fault::SetAside),
            only_copies: count(Fault::OnlyCopy),
            disagreements: count(Fault::Disagreed),
        }
    }

    /// Makes a pass, or goes on with the one that is under way. Blocks. Says whether it came to its end; it does not if it is
    /// cancelled, if the volume is closed, and while the index is made anew.
    ///
    /// # Errors
    /// What the index or the disk says of the brick as a whole; the next call goes on from there.
    pub fn scrub(&self, throttle: &Throttle, cancel: &AtomicBool) -> FsResult<bool> {
        let _one = match self.scrub.one.try_lock() {
            Ok(one) => one,
            Err(TryLockError::Poisoned(one)) => one.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        if self.is_rebuilding() {
            return Ok(false);
        }
        self.begin_scrub()?;
        let named = self.scrub.state().pass.as_ref().is_some_and(|pass| pass.named);
        if !named {
            let Some(names) = self.scrub_names(cancel)? else { return Ok(false) };
            self.in_pass(|pass| (pass.named, pass.names) = (true, pass.names + names));
            self.keep_scrub()?;
        }
        let mut unkept = 0;
        loop {
            let at = self.scrub.state().pass.as_ref().and_then(|pass| pass.at);
            let files = self.index.locals_after(at, FILES).map_err(index_failed)?;
            if files.is_empty() {
                break;
            }
            for file in files {
                if self.scrub_stops(cancel) {
                    self.keep_scrub()?;
                    return Ok(false);
                }
                throttle.took(OF_A_FILE, cancel);
                let looked = match self.scrub_file(file, throttle, cancel) {
                    Ok(Looked::Stopped) => {
                        self.keep_scrub()?;
                        return Ok(false);
                    }
                    Ok(looked) => looked,
                    Err(error) => {
                        tracing::warn!(%file, %error, "cannot be looked at now");
                        Looked::Left
                    }
                };
                self.in_pass(|pass| pass.count(file, looked));
                unkept += looked.bytes();
                if unkept >= BYTES {
                    unkept = 0;
                    self.keep_scrub()?;
                }
            }
            self.keep_scrub()?;
        }
        let now = self.clock.now_ms();
        let done = {
            let state = &mut *self.scrub.state();
            let done = state.pass.take().map(|pass| Pass { ended_ms: Some(now), at: None, ..pass });
            state.last.clone_from(&done);
            done.unwrap_or_default()
        };
        self.keep_scrub()?;
        tracing::info!(
            brick = %self.me, files = done.files, bytes = done.bytes, names = done.names, edited = done.edited,
            damaged = done.damaged, left = done.left, "looked through the whole brick"
        );
        self.tick();
        Ok(true)
    }

    /// Looks again at the faults that were found: those that are over are forgotten. Blocks.
    pub fn review_scrub(&self, throttle: &Throttle, cancel: &AtomicBool) {
        let open: Vec<_> = self.scrub.state().open.iter().map(|(file, open)| (*file, open.clone())).collect();
        if open.is_empty() || self.is_rebuilding() {
            return;
        }
        for (file, open) in open {
            if self.scrub_stops(cancel) {
                return;
            }
            match self.is_over(file, &open) {
                Ok(Since::ToBeRead) => {
                    if let Err(error) = self.scrub_file(file, throttle, cancel) {
                        tracing::debug!(%file, %error, "cannot be looked at again now");
                    }
                }
                Ok(Since::Over) => self.fault_is_over(file),
                Ok(Since::Same) => {}
                Err(error) => tracing::debug!(%file, %error, "cannot be looked at again now"),
            }
        }
        if let Err(error) = self.keep_scrub() {
            tracing::debug!(%error, "what was found is not kept yet");
        }
    }

    /// Of versions that are here two bricks say different hashes, or another was the first to say one. It is kept in the batch with which that
    /// is known: who opens the file after that is not to get damage, also after an end without notice.
    pub(super) fn to_be_compared(
        &self,
        disagreed: Vec<(FileId, VersionVector)>,
        hashed: Vec<(FileId, VersionVector)>,
        batch: &mut Batch,
    ) {
        if disagreed.is_empty() && hashed.is_empty() {
            return;
        }
        let state = &mut *self.scrub.state();
        for (file, version) in hashed {
            state.found(file, version, Fault::NotCompared);
        }
        for (file, version) in disagreed {
            tracing::warn!(%file, "two bricks say different hashes of one version: one of the copies is damaged");
            state.found(file, version, Fault::Disagreed);
        }
        batch.meta(SCRUB, &encode(state));
    }

    /// Whether what is here is to be compared with a hash that was heard since it came.
    pub(super) fn is_disputed(&self, file: FileId) -> bool {
        let state = self.scrub.state();
        let fault = state.open.get(&file).map(|open| open.fault);
        matches!(fault, Some(Fault::Disagreed | Fault::NotCompared))
    }

    /// Compares what is here with the hash that is known, now: damage is set aside where another brick has the version.
    pub(super) fn compare_disputed(&self, file: FileId) -> FsResult<()> {
        self.scrub_file(file, &Throttle::default(), &AtomicBool::new(false))?;
        self.keep_scrub()
    }

    /// Whether a file has other bytes than the version that it is has by its hash, and a program has it open for writing, and has not written yet: it
    /// is not mended under that one's hands.
    pub(super) fn is_open_and_damaged(&self, file: FileId) -> FsResult<bool> {
        let (at, then, hash) = {
            let core = &mut *self.lock();
            let (object, local) = (self.object_of(file)?, self.local_of(file)?);
            let known = local.have.as_ref().and_then(|version| hash_of(&object, version));
            let (true, Some(then), Some(hash)) = (local.dirty, local.print, known) else { return Ok(false) };
            (self.at(core, file, &local)?, then, hash)
        };
        let open = access::open(&at.dir, &at.name, OFlags::RDONLY | OFlags::NOATIME, 0)?;
        let is_untouched = || Ok(print_of(&open.stat()?).has_bytes_of(&then));
        Ok(is_untouched()? && files::hash(&*open)? != hash && is_untouched()?)
    }

    fn scrub_stops(&self, cancel: &AtomicBool) -> bool {
        cancel.load(Ordering::Relaxed) || self.closed.load(Ordering::Acquire)
    }

    fn in_pass(&self, change: impl FnOnce(&mut Pass)) {
        if let Some(pass) = &mut self.scrub.state().pass {
            change(pass);
        }
    }

    fn keep_scrub(&self) -> FsResult<()> {
        let bytes = encode(&*self.scrub.state());
        let mut batch = self.index.batch();
        batch.meta(SCRUB, &bytes);
        batch.commit().map_err(index_failed)
    }
}
