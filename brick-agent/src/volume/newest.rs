//! A second writer bases itself on the newest version that can be reached: whoever is about to change, empty or remove
//! a file that programs at another brick have open for writing asks that brick first what it is now.
//!
//! The brick that is asked settles the file, or makes a version of what it is at this moment, and answers with the
//! object. If nothing is written there afterwards, no further version comes of it: so moving from one
//! workstation to another makes no conflict, even with the file still open on the first.
//!
//! Only who is known to write is asked; one that cannot be reached is not waited for.

use std::sync::PoisonError;
use std::time::Duration;

use nearbrick_core::{BrickId, FileId, Object};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::Rebuild;
use super::settle::Settled;
use super::types::FsResult;
use crate::brick::access;
use crate::index::{Local, Print};

/// A change after so long has another time: longer than the tick of any kernel's file times.
const TICK_MS: u64 = 20;
/// Looks at a file that is written all the time, before it is taken as it is.
const LOOKS: u32 = 4;

impl Volume {
    /// The other bricks at which programs are changing a file.
    pub(super) fn writers_elsewhere(&self, object: &Object) -> Vec<BrickId> {
        object.writing().filter(|brick| *brick != self.me).collect()
    }

    /// Asks those who write the file what it is now, and takes that over. Call it without locks.
    pub(super) fn ask_writers(&self, file: FileId, writers: &[BrickId]) {
        self.ask_for(file, writers, |object| object);
    }

    /// The same for what a program is about to remove or replace under a name: were the file's names taken over too, the name might be
    /// another file's by then, of which the program does not know.
    pub(super) fn ask_writers_for_bytes(&self, file: FileId, writers: &[BrickId]) {
        self.ask_for(file, writers, Object::without_names);
    }

    fn ask_for(&self, file: FileId, writers: &[BrickId], part: impl Fn(Object) -> Object) {
        let Some(remote) = self.remote() else { return };
        for brick in writers {
            match remote.newest(*brick, file) {
                Ok(Some(object)) => {
                    if let Err(error) = self.take_newest(file, part(object)) {
                        tracing::warn!(%file, %error, "what a writer says of a file cannot be taken over");
                    }
                }
                Ok(None) => {}
                Err(reason) => {
                    tracing::debug!(%file, %brick, reason = reason.as_str(), "a writer cannot be asked");
                }
            }
        }
    }

    fn take_newest(&self, file: FileId, object: Object) -> FsResult<()> {
        let _one = self.absorbing.lock().unwrap_or_else(PoisonError::into_inner);
        let core = &mut *self.lock();
        if core.rebuild != Rebuild::No {
            return Ok(());
        }
        let mut change = Change::new(self, core);
        if !change.merge_state(file, object)? {
            return Ok(());
        }
        change.todo(file, true);
        let done = change.commit()?;
        self.seen_now(core, &done, vec![file])
    }

    /// What a file is now that programs here may be writing: for a peer that is about to write it.
    pub(super) fn newest_for_peer(&self, file: FileId) -> FsResult<Option<Object>> {
        if self.is_rebuilding() {
            // It does not know yet what its own files are.
            return Err(Errno::AGAIN);
        }
        for look in 1..=LOOKS {
            if self.brought_up(file, look == LOOKS)? {
                break;
            }
            // Until the times of what was written are past: not on a thread of the file system.
            self.clock.pause(Duration::from_millis(TICK_MS / 2));
        }
        self.index.object(file).map_err(super::index_failed)
    }

    /// Whether the newest version known is what the file is now. If it is `last`, it is taken as it is.
    fn brought_up(&self, file: FileId, last: bool) -> FsResult<bool> {
        let data = {
            let core = &mut *self.lock();
            let local = self.local_or_none(file)?;
            if !local.dirty || !local.on_disk() || core.rebuild != Rebuild::No {
                return Ok(true);
            }
            let written = core.nodes.of(file).is_some_and(|n| n.writers > 0);
            if !written
                && matches!(self.settle(core, file)?, Settled::Done | Settled::Waits | Settled::Former)
            {
                return Ok(true);
            }
            let at = self.at(core, file, &local)?;
            access::open(&at.dir, &at.name, OFlags::RDONLY, 0)?
        };
        // After this a write through a mapping has a time of its own too.
        data.sync_data()?;
        let core = &mut *self.lock();
        let local = self.local_or_none(file)?;
        if !local.dirty || !local.on_disk() {
            return Ok(true);
        }
        let at = self.at(core, file, &local)?;
        let print = print_of(&access::stat(&at.dir, &at.name)?);
        if is_as_known(&local, print) {
            return Ok(true);
        }
        let changed_ms =
            u64::try_from(print.ctime.0).unwrap_or(0) * 1000 + u64::from(print.ctime.1) / 1_000_000;
        let quiet = self.clock.now_ms().saturating_sub(changed_ms) >= TICK_MS;
        if !quiet && !last {
            return Ok(false);
        }
        if self.moment(core, file, &local, &local.base, false).is_ok() {
            let mut change = Change::new(self, core);
            let now = change.local_mut(file)?;
            now.quiet = quiet && now.snapshot == Some(print);
            change.commit()?;
        }
        Ok(true)
    }
}

/// Whether a dirty file is the version that it was based on, or that it was at its last snapshot. A file that was of no version
/// when a program here opened it, since nothing of what is written elsewhere had come, may still be of none.
pub(super) fn is_as_known(local: &Local, now: Print) -> bool {
    // A program that sets its times has the print given up before.
    let snapshot = local.snapshot.filter(|_| local.quiet);
    let unchanged = local.print.or(snapshot).is_some_and(|then| now.has_bytes_of(&then));
    match &local.have {
        Some(have) => unchanged && *have == local.base,
        None => unchanged && local.base.is_empty() && now.size == 0,
    }
}
