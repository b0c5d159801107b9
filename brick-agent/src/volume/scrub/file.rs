//! The bytes of one file: read without the lock, judged and acted on with it.

use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;

use nearbrick_core::heal::Reason;
use nearbrick_core::recover::End;
use nearbrick_core::scrub::{Bytes, Found, Verdict, hash_of, judge};
use nearbrick_core::{FileId, Kind, Object, Op, VersionVector};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::super::change::{Change, print_of};
use super::super::core::{At, Core, Rebuild};
use super::super::types::FsResult;
use super::super::{Volume, index_failed};
use super::state::{Fault, Open};
use crate::brick::access;
use crate::brick::disk::{File, FileAccess, Lease};
use crate::brick::mark::Mark;
use crate::heal::limit::Throttle;
use crate::index::{Local, Print};

/// Bytes that are read at a time.
const BLOCK: usize = 1 << 20;
/// Looks at a file that changes meanwhile.
const LOOKS: usize = 3;

/// What came of a look at one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Looked {
    /// So many bytes are what they should be.
    Right(u64),
    /// It was changed past the mount.
    Edited,
    /// It was damaged; so many bytes were read.
    Damaged(u64),
    /// It could not be looked at, or there is nothing with which it could be compared.
    Left,
    /// Nothing whole of it is here.
    Nothing,
    /// It was to stop.
    Stopped,
}

impl Looked {
    /// Bytes that were read.
    pub fn bytes(self) -> u64 {
        match self {
            Looked::Right(bytes) | Looked::Damaged(bytes) => bytes,
            _ => 0,
        }
    }
}

/// What has become of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// It is over.
    Over,
    /// Its bytes may tell more now.
    ToBeRead,
    /// It is as it was.
    Same,
}

/// A file that can be looked at.
struct Seen {
    object: Object,
    local: Local,
    print: Print,
    /// As of the last settling.
    then: Print,
    data: File,
    /// It is a stub by the index, and by its mark this version: the end came before that was said.
    unsaid: Option<VersionVector>,
}

impl Seen {
    fn found(&self, bytes: Bytes) -> Option<Found<'_>> {
        let (now, then) = (&self.print, &self.then);
        let untouched = (now.ino, now.mtime, now.ctime) == (then.ino, then.mtime, then.ctime);
        Some(Found { have: self.local.have.as_ref()?, untouched, same_size: now.size == then.size, bytes })
    }
}

/// What is seen of a file, or why it is not looked at.
type Sight = Result<Box<Seen>, Looked>;

fn is_unreadable(error: Errno) -> bool {
    matches!(error, Errno::IO | Errno::BADMSG | Errno::UCLEAN)
}

impl Volume {
    /// Looks at one file, and does what is to be done about it.
    pub(in crate::volume) fn scrub_file(
        &self,
        file: FileId,
        throttle: &Throttle,
        cancel: &AtomicBool,
    ) -> FsResult<Looked> {
        for _ in 0..LOOKS {
            let sight = self.see(&mut self.lock(), file)?;
            let seen = match sight {
                Ok(seen) => seen,
                Err(looked) => return Ok(looked),
            };
            if let Some(version) = &seen.unsaid {
                let Some(bytes) = self.read_whole(&seen, throttle, cancel)? else {
                    return Ok(Looked::Stopped);
                };
                return self.take_unsaid(file, &seen, version, bytes);
            }
            let judged = |bytes| {
                seen.found(bytes).map_or(Verdict::Unproven, |found| judge(&seen.object, self.me, &found))
            };
            let mut bytes = Bytes::NotRead;
            if judged(bytes) == Verdict::Read {
                // What a memory or a cable got wrong once is right the second time.
                for _ in 0..2 {
                    let Some(read) = self.read_whole(&seen, throttle, cancel)? else {
                        return Ok(Looked::Stopped);
                    };
                    bytes = read;
                    if matches!(judged(bytes), Verdict::Right | Verdict::Touched | Verdict::SayHash) {
                        break;
                    }
                }
            }
            if judged(bytes) == Verdict::SayHash {
                seen.data.sync()?;
            }
            if let Some(looked) = self.act(file, &seen, bytes)? {
                return Ok(looked);
            }
        }
        Ok(Looked::Left)
    }

    /// What is here of a file. What programs are changing, here or elsewhere, is left to them.
    fn see(&self, core: &mut Core, file: FileId) -> FsResult<Sight> {
        let Some(local) = self.index.local(file).map_err(index_failed)? else {
            return Ok(Err(Looked::Nothing));
        };
        let object = self.object_of(file)?;
        if !object.kind.as_ref().is_some_and(Kind::is_file) || local.placed.is_empty() && !local.parked {
            return Ok(Err(Looked::Nothing));
        }
        let written = core.nodes.of(file).is_some_and(|n| n.writers > 0) || object.writing().next().is_some();
        if local.dirty || written || local.parked || core.rebuild != Rebuild::No {
            return Ok(Err(Looked::Left));
        }
        let at = self.at(core, file, &local)?;
        if local.have.is_none() {
            return self.see_stub(core, file, object, local, &at);
        }
        let Some(then) = local.print else { return Ok(Err(Looked::Left)) };
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK;
        let data = match access::open(&at.dir, &at.name, flags, 0) {
            Ok(data) => data,
            // What became of the name the next pass tells.
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(Err(Looked::Left)),
            Err(error) => return Err(error),
        };
        let raw = data.stat()?;
        let print = print_of(&raw);
        if FileType::from_raw_mode(raw.st_mode) != FileType::RegularFile
            || core.amiss.is_only_touched(file, &print)
        {
            return Ok(Err(Looked::Left));
        }
        Ok(Ok(Box::new(Seen { object, local, print, then, data, unsaid: None })))
    }

    /// A stub has its mark from before it had its name: one without was put in its place past the mount. One in which there are bytes that
    /// nobody brought was written to in place. One that is marked as a version came whole just before an end without notice.
    fn see_stub(
        &self,
        core: &mut Core,
        file: FileId,
        object: Object,
        local: Local,
        at: &At,
    ) -> FsResult<Sight> {
        let raw = match access::stat(&at.dir, &at.name) {
            Err(Errno::NOENT) => return Ok(Err(Looked::Left)),
            raw => raw?,
        };
        let is_file = FileType::from_raw_mode(raw.st_mode) == FileType::RegularFile;
        let is_open = core.nodes.of(file).is_some_and(|n| n.opens > 0);
        if !is_file || is_open {
            return Ok(Err(Looked::Nothing));
        }
        let Some(mark) = access::get_mark(&at.dir, &at.name)? else {
            self.is_edit(core, file, VersionVector::new(), End::Running)?;
            return Ok(Err(Looked::Edited));
        };
        if self.changed_behind(core, file, &local)? {
            self.adopt_change(core, file, &local)?;
            return Ok(Err(Looked::Edited));
        }
        let unsaid = mark.version.filter(|version| hash_of(&object, version).is_some());
        if unsaid.is_none() {
            if local.print.is_some_and(|then| then != print_of(&raw)) {
                // Only its owner, mode or attributes are others; or it was emptied, and is a stub as before.
                self.bring_about(core, vec![file]);
            }
            return Ok(Err(Looked::Nothing));
        }
        let print = print_of(&raw);
        let data = access::open(&at.dir, &at.name, OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK, 0)?;
        Ok(Ok(Box::new(Seen { object, local, print, then: print, data, unsaid })))
    }

    /// A copy of which nobody knows is one from now on, if its bytes are the version's.
    fn take_unsaid(
        &self,
        file: FileId,
        seen: &Seen,
        version: &VersionVector,
        bytes: Bytes,
    ) -> FsResult<Looked> {
        if hash_of(&seen.object, version).map(Bytes::Read) != Some(bytes) {
            return Ok(Looked::Nothing);
        }
        let core = &mut *self.lock();
        match self.see(core, file)? {
            Ok(now) if now.unsaid.as_ref() == Some(version) && now.print == seen.print => {}
            Ok(_) => return Ok(Looked::Left),
            Err(looked) => return Ok(looked),
        }
        self.is_version(core, file, version.clone(), seen.print, End::Killed)?;
        core.unsaid.insert(file);
        self.settler.soon(file);
        self.bring_about(core, vec![file]);
        Ok(Looked::Right(seen.print.size))
    }

    /// BLAKE3 of all bytes of a file, from the disk; none if it is to stop.
    fn read_whole(&self, seen: &Seen, throttle: &Throttle, cancel: &AtomicBool) -> FsResult<Option<Bytes>> {
        let (data, size) = (&*seen.data, seen.print.size);
        // What is in memory already says nothing of the disk.
        let _ = data.uncache(0, size);
        let (mut hasher, mut block, zeros) = (blake3::Hasher::new(), Vec::new(), vec![0; BLOCK]);
        let mut at = 0;
        while at < size {
            if self.scrub_stops(cancel) {
                return Ok(None);
            }
            let left = usize::try_from(size - at).unwrap_or(BLOCK).min(BLOCK);
            let hole = hole_at(data, at, size);
            let len = match hole {
                Some(hole) => usize::try_from(hole).unwrap_or(BLOCK).min(left),
                None => {
                    match super::super::files::read_at(data, at, left, &mut block) {
                        Ok(()) => {}
                        Err(error) if is_unreadable(error) => return Ok(Some(Bytes::Unreadable)),
                        Err(error) => return Err(error),
                    }
                    // Nobody else wants them in memory for that.
                    let _ = data.uncache(at, block.len() as u64);
                    throttle.took(block.len() as u64, cancel);
                    block.len()
                }
            };
            if len == 0 {
                break;
            }
            hasher.update(if hole.is_some() { &zeros[..len] } else { &block });
            at += len as u64;
        }
        Ok(Some(Bytes::Read(*hasher.finalize().as_bytes())))
    }

    /// Does what is to be done, after a fresh look. None if the file has changed since.
    fn act(&self, file: FileId, seen: &Seen, bytes: Bytes) -> FsResult<Option<Looked>> {
        let core = &mut *self.lock();
        if self.closed.load(std::sync::atomic::Ordering::Acquire) {
            return Ok(Some(Looked::Stopped));
        }
        let now = match self.see(core, file)? {
            Ok(now) => now,
            Err(looked) => return Ok(Some(looked)),
        };
        if now.local.have != seen.local.have || now.print != seen.print || now.then != seen.then {
            return Ok(None);
        }
        let (Some(found), Some(have)) = (now.found(bytes), now.local.have.clone()) else {
            return Ok(Some(Looked::Left));
        };
        let size = now.print.size;
        Ok(match judge(&now.object, self.me, &found) {
            Verdict::Read => None,
            Verdict::Unproven => Some(Looked::Left),
            Verdict::Right => {
                self.renew_mark(core, file, &now)?;
                self.fault_is_over(file);
                Some(Looked::Right(size))
            }
            Verdict::SayHash => {
                if let Bytes::Read(hash) = bytes {
                    let mut change = Change::new(self, core);
                    Self::synced_as(&mut change, file, &have)?;
                    change.emit(file, Op::Have { brick: self.me, version: have, hash })?;
                    let moves_head = change.moves_head(file)?;
                    change.commit()?;
                    // Nobody was known to have it.
                    if moves_head {
                        self.bring_about(core, vec![file]);
                    }
                    if moves_head || core.tally.in_conflict.contains(&file) {
                        self.settler.soon(file);
                    }
                }
                self.renew_mark(core, file, &now)?;
                Some(Looked::Right(size))
            }
            Verdict::Touched => {
                self.renew_mark(core, file, &now)?;
                let mut change = Change::new(self, core);
                change.refresh_print(file)?;
                change.local_mut(file)?.mtime_at = 0;
                change.commit()?;
                // Owner, mode, time and attributes are what the volume says.
                self.bring_about(core, vec![file]);
                self.fault_is_over(file);
                Some(Looked::Right(size))
            }
            Verdict::Edit => {
                self.adopt_change(core, file, &now.local)?;
                self.fault_is_over(file);
                Some(Looked::Edited)
            }
            damaged @ (Verdict::SetAside | Verdict::OnlyCopy) => {
                // Through a mapping somebody may be writing it past the mount, and the times follow later.
                let lease = now.data.clone().read_lease()?;
                if matches!(lease, Lease::Writable) {
                    return Ok(Some(Looked::Left));
                }
                self.is_damaged(core, file, &now, damaged == Verdict::SetAside)?;
                Some(Looked::Damaged(size))
            }
        })
    }

    /// The mark of a file whose bytes are right says so too.
    fn renew_mark(&self, core: &mut Core, file: FileId, now: &Seen) -> FsResult<()> {
        let at = self.at(core, file, &now.local)?;
        let is_right = |mark: Mark| mark.file == file && mark.version == now.local.have;
        if access::get_mark(&at.dir, &at.name)?.is_some_and(is_right) {
            return Ok(());
        }
        access::set_mark(&at.dir, &at.name, &Mark::new(file, now.local.have.clone()))?;
        let mut change = Change::new(self, core);
        change.refresh_print(file)?;
        change.commit().map(drop)
    }

    /// The disk has damaged a file.
    fn is_damaged(&self, core: &mut Core, file: FileId, now: &Seen, elsewhere: bool) -> FsResult<()> {
        let path = self.path_to_keep(&now.object, &now.local);
        let path = std::path::Path::new(std::ffi::OsStr::from_bytes(&path)).display().to_string();
        let version = now.local.have.clone().unwrap_or_default();
        let message = if elsewhere {
            self.keep_open(core, file);
            let why =
                "the disk has damaged it: its bytes are others than were written, and nobody wrote to it";
            self.give_up_bytes(core, file, &now.local, &now.object, Some(why))?;
            self.bring_about(core, vec![file]);
            self.scrub.state().found(file, version, Fault::SetAside);
            format!(
                "{path}: the disk has damaged this copy; it is kept in versions/, and a whole one comes from another \
                 brick with the next heal: look after the disk"
            )
        } else {
            let open = Open { version, fault: Fault::OnlyCopy };
            if self.scrub.state().open.get(&file) == Some(&open) {
                return Ok(());
            }
            self.scrub.state().found(file, open.version, Fault::OnlyCopy);
            format!(
                "{path}: the disk has damaged this copy, and no other brick is known to hold it: it stays as it is. \
                 Restore it from a backup, or write it anew, and look after the disk"
            )
        };
        tracing::error!(%file, "{message}");
        self.note_error(Reason::Corrupt, message);
        Ok(())
    }

    /// What has become of a fault since it was found.
    pub(super) fn is_over(&self, file: FileId, open: &Open) -> FsResult<Since> {
        let _core = self.lock();
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        let is_here = !local.dirty && local.have.as_ref() == Some(&open.version);
        let over = match open.fault {
            // Where no replica set wants a copy, none need come.
            Fault::SetAside => {
                local.have.is_some() || local.dirty || !object.replica_set().contains(&self.me)
            }
            Fault::OnlyCopy => !is_here,
            Fault::Disagreed | Fault::NotCompared => !is_here || hash_of(&object, &open.version).is_none(),
        };
        if over || !object.exists(file) {
            return Ok(Since::Over);
        }
        let others = object.holders_of(&open.version).any(|brick| brick != self.me);
        Ok(match open.fault {
            Fault::OnlyCopy if others => Since::ToBeRead,
            // Who of the two is right.
            Fault::Disagreed | Fault::NotCompared => Since::ToBeRead,
            Fault::OnlyCopy | Fault::SetAside => Since::Same,
        })
    }

    pub(super) fn fault_is_over(&self, file: FileId) {
        if self.scrub.state().open.remove(&file).is_some() {
            self.tick();
        }
    }
}

/// How many bytes from there on are a hole; none if there is data, or the disk does not tell.
fn hole_at(data: &dyn FileAccess, at: u64, size: u64) -> Option<u64> {
    let next = match data.seek_data(at) {
        Ok(next) => next.min(size),
        Err(Errno::NXIO) => size,
        Err(_) => return None,
    };
    next.checked_sub(at).filter(|hole| *hole > 0)
}
