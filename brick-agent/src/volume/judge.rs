//! What became of a file's bytes: what `core/recover` makes of them, done.

use nearbrick_core::op::is_exchanged;
use nearbrick_core::recover::{End, Found, Verdict, judge};
use nearbrick_core::scrub::Bytes;
use nearbrick_core::{FileId, Kind, Object, Op, VersionVector};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::{At, Core};
use super::files::hash;
use super::remains::{found_remains, may_be_left};
use super::statements::is_unsaid;
use super::types::FsResult;
use crate::brick::access;
use crate::brick::disk::Stat as RawStat;
use crate::brick::mark::{Mark, Origin};
use crate::index::{Local, Print};

/// Whether the disk has no bytes of a file.
pub(super) fn is_hollow(at: &At) -> FsResult<bool> {
    let open = access::open(&at.dir, &at.name, OFlags::RDONLY, 0)?;
    match open.seek_data(0) {
        Ok(_) => Ok(false),
        Err(Errno::NXIO) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether the disk lacks some bytes of a file.
pub(super) fn has_holes(at: &At) -> FsResult<bool> {
    let open = access::open(&at.dir, &at.name, OFlags::RDONLY, 0)?;
    let size = u64::try_from(open.stat()?.st_size).unwrap_or(0);
    Ok(size > 0 && open.seek_hole(0)? < size)
}

/// What the agent may have done to an inode and not noted when the end came: none of it touches a byte.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Unnoted {
    /// It was moved, or lost or got a name.
    pub(super) moved: bool,
    /// It got, or was to get, another owner, mode or attributes.
    pub(super) dressed: bool,
    /// It was being made what members say, and its modification time that one.
    pub(super) adjusted: Option<(i64, u32)>,
}

/// Whether the inode is as it was, but for what the agent did: that moves the ctime, and whoever writes moves the mtime too.
fn looks_same(now: &Print, then: Option<&Print>, unnoted: Unnoted) -> bool {
    let Unnoted { moved, dressed, adjusted } = unnoted;
    let Some(then) = then else { return false };
    let but_times = |mtime| Print { ctime: now.ctime, mtime, ..*then } == *now;
    then == now
        || (moved || dressed || adjusted.is_some()) && but_times(then.mtime)
        || adjusted.is_some_and(but_times)
}

fn marked_last(raw: &RawStat) -> bool {
    (raw.st_mtime, raw.st_mtime_nsec) < (raw.st_ctime, raw.st_ctime_nsec)
}

fn has_other_owner_or_mode(raw: &RawStat, object: &Object) -> bool {
    let Some(attr) = object.attr.as_ref().map(|reg| &reg.value) else { return false };
    let has_mode = !matches!(object.kind, Some(Kind::Symlink(_)));
    has_mode && raw.st_mode & 0o7777 != attr.mode || (raw.st_uid, raw.st_gid) != (attr.uid, attr.gid)
}

/// Whether an attribute that members know has another value, or none.
fn has_other_xattrs(at: &At, object: &Object) -> FsResult<bool> {
    for (name, wanted) in object.xattrs_wanted() {
        let now = match access::get_xattr(&at.dir, &at.name, name) {
            Ok(value) => Some(value),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => None,
            Err(error) => return Err(error),
        };
        if now.as_deref() != wanted.as_deref() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Attributes of which members know nothing.
fn unknown_xattrs(at: &At, object: &Object) -> FsResult<Vec<Vec<u8>>> {
    let (names, known) = (access::list_xattr(&at.dir, &at.name)?, object.xattrs_wanted());
    let names = names.split(|b| *b == 0);
    Ok(names.filter(|n| is_exchanged(n) && !known.contains_key(n)).map(<[u8]>::to_vec).collect())
}

/// Whether its owner, mode or attributes are others than the index says: what set them had not been noted.
fn is_dressed_otherwise(at: &At, raw: &RawStat, object: &Object) -> FsResult<bool> {
    Ok(has_other_owner_or_mode(raw, object)
        || has_other_xattrs(at, object)?
        || !unknown_xattrs(at, object)?.is_empty())
}

impl Volume {
    /// Finds out what the bytes of a file are, and takes that over. What is to be brought about then goes to `todo`.
    pub(super) fn judge_file(
        &self,
        core: &mut Core,
        file: FileId,
        unnoted: Unnoted,
        end: End,
        todo: &mut Vec<FileId>,
    ) -> FsResult<()> {
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        if !object.kind.as_ref().is_some_and(Kind::is_file) || !local.on_disk() {
            return Ok(());
        }
        let there = self.at(core, file, &local).and_then(|at| Ok((access::stat(&at.dir, &at.name)?, at)));
        let (raw, at) = match there {
            Err(Errno::NOENT) => {
                // It is found missing when it is put in its place.
                todo.push(file);
                return Ok(());
            }
            there => there?,
        };
        if FileType::from_raw_mode(raw.st_mode) != FileType::RegularFile {
            return Ok(());
        }
        let now = print_of(&raw);
        let mut unnoted = unnoted;
        if end == End::Killed && local.print.is_some_and(|then| then != now) {
            unnoted.dressed = is_dressed_otherwise(&at, &raw, &object)?;
            // It was being kept in `versions/`, as another was to take its place.
            unnoted.moved |= raw.st_nlink as usize > local.placed.len().max(1);
        }
        if end == End::PowerLost && local.dirty {
            // Its print is from before a program had it open: names and attributes that it got since are not in it.
            unnoted.moved = true;
        }
        let same = looks_same(&now, local.print.as_ref(), unnoted);
        let synced = local.have.is_some() && local.synced == local.have;
        let goes_on = matches!(end, End::Killed | End::Running);
        if local.print == Some(now) && !local.dirty && (goes_on || synced) {
            return Ok(());
        }
        let mark = access::get_mark(&at.dir, &at.name)?;
        let is_stub = mark.as_ref().is_some_and(|mark| mark.version.is_none());
        let left = mark.as_ref().filter(|mark| may_be_left(mark, end));
        let copied = left.and_then(Mark::copy_of).filter(|of| !of.is_empty()).cloned();
        // An earlier start found it, and another end took that from the index, or from the mark.
        let is_marked_so = mark.as_ref().is_some_and(|mark| mark.origin != Origin::Copied);
        let is_untouched = local.base.is_empty() && local.print.is_some_and(|then| now.has_bytes_of(&then));
        let is_found_again =
            copied.is_some() && local.have.is_none() && if local.dirty { is_untouched } else { is_marked_so };
        // The index has it as remains, and they gave way: what came in their place the agent brought, and no program had it synced, as the
        // index would know that. So it is judged as what is found where there was a stub.
        let is_copy = mark.as_ref().is_some_and(|mark| mark.origin == Origin::Copied) && copied.is_some();
        let is_other = local.print.is_some_and(|then| then.ino != now.ino);
        let is_other_stub = is_stub && is_other;
        let remains_gave_way = local.have.is_none()
            && local.base.is_empty()
            && local.print.is_some_and(|then| !now.has_bytes_of(&then))
            && (is_copy || is_other_stub);
        // The index has what a program was writing, based on an older version than the copy is, or the stub, that the agent made since.
        let is_known = |version| {
            local.base.includes(version) || local.have.as_ref().is_some_and(|h| h.includes(version))
        };
        let brought = mark.as_ref().and_then(|mark| match &mark.origin {
            Origin::Stub(version) => Some(version),
            Origin::Copied => mark.version.as_ref(),
            _ => None,
        });
        // Or nothing was durable when a program began to write, nothing since, and it did not write for long: then it may have come later too.
        let is_new = local.synced.is_none() && local.snapshot.is_none();
        let is_later_copy = brought.is_some_and(|of| !of.is_empty() && (!is_known(of) || is_new));
        // Nor does a program's file become another one: it was gone, and a copy was put in its place.
        let is_other_copy = is_copy && is_other;
        let gave_way =
            end == End::PowerLost && local.dirty && (remains_gave_way || is_later_copy || is_other_copy);
        let dirty = local.dirty && !gave_way;
        let whole_mark = mark.clone();
        let mark = mark.and_then(|mark| mark.version);
        let marked = mark.clone().filter(|version| !version.is_empty());
        let mut found = Found {
            have: local.have.as_ref().filter(|_| !gave_way),
            dirty,
            base: &local.base,
            synced: local.synced.as_ref(),
            // Of another stub than the index knows nothing says which bytes are here.
            filled: !local.filled.is_empty() || gave_way && is_stub,
            marked: marked.as_ref(),
            looks_same: same,
            marked_last: marked_last(&raw),
            size: now.size,
            hollow: !goes_on && is_hollow(&at)?,
            made_here: mark.is_some() && marked.is_none(),
            stub: is_stub,
            bytes: Bytes::NotRead,
        };
        if let Some(mark) = whole_mark.as_ref().filter(|_| is_found_again)
            && let Some(remains) = found_remains(&at, mark)
        {
            return self.is_remains(core, file, &at, remains);
        }
        let mut end = end;
        if end == End::BothLost
            && let Some(mark) = whole_mark.as_ref().filter(|mark| mark.check.is_some() && is_copy)
            && let Some(remains) = found_remains(&at, mark)
        {
            if remains.torn {
                return self.is_remains(core, file, &at, remains);
            }
            // All of it is there.
            end = End::IndexLost;
        }
        let mut verdict = judge(&object, self.me, end, &found);
        if verdict == Verdict::Hash {
            found.bytes = match end {
                // Programs do not wait for bytes to be read: what was moved and written to is an edit.
                End::Running => Bytes::Unreadable,
                _ => Bytes::Read(self.hash_of(core, file, &local)?),
            };
            verdict = judge(&object, self.me, end, &found);
        }
        if verdict == Verdict::Lacking && gave_way && is_stub && !found.hollow {
            // Ranges of it, or what a program wrote.
            verdict = Verdict::SetAside;
        }
        let version = match &verdict {
            Verdict::RefreshPrint => local.have.clone(),
            Verdict::Holds(version) => Some(version.clone()),
            _ => None,
        };
        let mut now = now;
        if version.is_some() && version != marked {
            // The mark is older than the bytes.
            access::set_mark(&at.dir, &at.name, &Mark::new(file, version))?;
            now = print_of(&access::stat(&at.dir, &at.name)?);
        }
        let is_edit = matches!(verdict, Verdict::Edit(_)) || verdict == Verdict::Keep && local.dirty;
        if end == End::PowerLost && is_edit && !is_stub && copied.is_none() {
            let was = whole_mark.clone().filter(|mark| mark.file == file);
            let version = was.as_ref().and_then(|mark| mark.version.clone()).unwrap_or_default();
            self.is_unproven(core, &at, Mark::new(file, Some(version)), was, &now)?;
            let mut change = Change::new(self, core);
            self.say_unproven(&mut change, file)?;
            change.commit()?;
        }
        match verdict {
            // What somebody wrote into a stub is found by how that looked before.
            Verdict::Hash | Verdict::Keep if local.is_stub() && end != End::PowerLost => Ok(()),
            Verdict::Hash | Verdict::Keep => self.is_as_known(core, file, &local, &now),
            Verdict::RefreshPrint => {
                let have = local.have.clone().unwrap_or_default();
                self.is_version(core, file, have, now, end)
            }
            Verdict::Holds(version) => {
                todo.push(file);
                self.is_version(core, file, version, now, end)
            }
            Verdict::Edit(base) => {
                let mark = whole_mark.filter(|_| copied.is_some() && !dirty && base.is_empty());
                match mark.and_then(|mark| found_remains(&at, &mark)) {
                    Some(remains) => self.is_remains(core, file, &at, remains),
                    None => self.is_edit(core, file, base, end),
                }
            }
            Verdict::SetAside | Verdict::Lacking => {
                todo.push(file);
                let why =
                    (verdict == Verdict::SetAside).then_some("is not as it was before the power was lost");
                self.give_up_bytes(core, file, &local, &object, why)
            }
        }
    }

    /// Whether an object that has its place has lost its mark, or has other owners, bits or attributes than the
    /// index says: of changes of one inode a power cut may leave some.
    pub(super) fn is_unlike(&self, core: &mut Core, file: FileId) -> FsResult<bool> {
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        if local.placed.is_empty() {
            return Ok(false);
        }
        let Some(kind) = &object.kind else { return Ok(false) };
        let there = self.at(core, file, &local).and_then(|at| Ok((access::get_mark(&at.dir, &at.name)?, at)));
        let (mark, at) = match there {
            Err(Errno::NOENT) => return Ok(false),
            there => there?,
        };
        if mark.is_none_or(|mark| mark.file != file) {
            let version = match local.dirty {
                true if kind.is_file() => Some(VersionVector::new()),
                _ => local.have.clone(),
            };
            access::set_mark(&at.dir, &at.name, &Mark::new(file, version))?;
            let mut change = Change::new(self, core);
            change.refresh_print(file)?;
            change.commit()?;
        }
        // Whatever else is to be set right: they are not forgotten.
        self.say_unknown_xattrs(core, file, &at, &object)?;
        let raw = access::stat(&at.dir, &at.name)?;
        if has_other_owner_or_mode(&raw, &object) {
            return Ok(true);
        }
        // What was to take the name of another that is gone, when the end came, still has its own.
        for (link, reg) in object.live_links() {
            let Some(there) = local.placed.get(&link) else { continue };
            if there.name != reg.value.name || there.parent != self.merged_to(reg.value.parent)? {
                return Ok(true);
            }
        }
        has_other_xattrs(&at, &self.object_of(file)?)
    }

    /// Attributes of which the index knows nothing: they were set just before the end.
    pub(super) fn say_unknown_xattrs(
        &self,
        core: &mut Core,
        file: FileId,
        at: &At,
        object: &Object,
    ) -> FsResult<()> {
        let unknown = unknown_xattrs(at, object)?;
        if unknown.is_empty() {
            return Ok(());
        }
        let mut change = Change::new(self, core);
        for name in unknown {
            let value = Some(access::get_xattr(&at.dir, &at.name, &name)?);
            change.emit(file, Op::SetXattr { name, value })?;
        }
        change.commit().map(drop)
    }

    /// Only its names changed, or nothing.
    fn is_as_known(&self, core: &mut Core, file: FileId, local: &Local, now: &Print) -> FsResult<()> {
        if local.dirty || local.print.is_none() || local.print.as_ref() == Some(now) {
            return Ok(());
        }
        let mut change = Change::new(self, core);
        change.refresh_print(file)?;
        change.commit().map(drop)
    }

    /// The bytes are this version.
    pub(super) fn is_version(
        &self,
        core: &mut Core,
        file: FileId,
        version: VersionVector,
        now: Print,
        end: End,
    ) -> FsResult<()> {
        let mut change = Change::new(self, core);
        let local = change.local_mut(file)?;
        let was_dirty = std::mem::take(&mut local.dirty);
        local.base = VersionVector::new();
        local.snapshot = None;
        local.print = Some(now);
        local.filling = None;
        local.filled.clear();
        local.synced = match end {
            // What is read from a disk that was off is on it.
            End::PowerLost => Some(version.clone()),
            End::Killed | End::Running => local.synced.take().filter(|synced| version.includes(synced)),
            End::IndexLost | End::BothLost => None,
        };
        local.have = Some(version);
        if was_dirty {
            change.emit(file, Op::Clean { brick: self.me })?;
        }
        let (object, local) = (change.object(file)?, change.local(file)?.unwrap_or_default());
        change.commit()?;
        self.is_unsynced(core, file);
        // Who had not come to say so would count as one that has nothing.
        if end.has_index() && is_unsaid(self.me, &object, &local) {
            core.unsaid.insert(file);
            self.settler.soon(file);
        }
        Ok(())
    }

    /// The bytes are an edit, based on this version.
    pub(super) fn is_edit(
        &self,
        core: &mut Core,
        file: FileId,
        base: VersionVector,
        end: End,
    ) -> FsResult<()> {
        match end {
            End::IndexLost | End::BothLost => {}
            End::Running => {
                tracing::warn!(%file, "was changed in the brick, past the mount: taken as an edit")
            }
            End::Killed | End::PowerLost => {
                tracing::warn!(%file, "is not as it was before the end: taken as an edit");
            }
        }
        let mut change = Change::new(self, core);
        let mut since = change.local(file)?.unwrap_or_default().dirty_since;
        if !change.local(file)?.is_some_and(|l| l.dirty) {
            since = change.emit(file, Op::Dirty { brick: self.me })?.stamp().millis();
        }
        let local = change.local_mut(file)?;
        (local.dirty, local.dirty_since) = (true, since);
        if local.have.as_ref() != Some(&base) {
            local.have = None;
        }
        // Whatever it is, it is no stub.
        local.synced.get_or_insert_default();
        local.base = base;
        local.print = None;
        local.snapshot = None;
        local.overlay = None;
        local.filling = None;
        local.filled.clear();
        change.commit()?;
        self.settler.soon(file);
        Ok(())
    }

    /// What is here is not what it is to be: a stub again, so that a whole one is brought. The bytes are kept, if
    /// `why` says what is wrong with them.
    pub(super) fn give_up_bytes(
        &self,
        core: &mut Core,
        file: FileId,
        local: &Local,
        object: &Object,
        why: Option<&str>,
    ) -> FsResult<()> {
        let mut change = Change::new(self, core);
        if object.holders.get(&self.me).is_some_and(|reg| reg.value.is_some()) {
            change.emit(file, Op::Drop { brick: self.me })?;
        }
        if object.writers.get(&self.me).is_some_and(|reg| reg.value) {
            change.emit(file, Op::Clean { brick: self.me })?;
        }
        let now = change.local_mut(file)?;
        now.have = None;
        now.dirty = false;
        now.base = VersionVector::new();
        now.snapshot = None;
        now.print = None;
        now.mtime_at = 0;
        // Should the end come before it is one, nothing else tells that it has not the size and time of what it is to be.
        change.todo(file, true);
        change.commit()?;
        // Only now, and for good: one more name changes the inode, and after an end in between it would pass for an edit.
        if let Some(why) = why {
            self.index.persist().map_err(super::index_failed)?;
            let at = self.at(core, file, local)?;
            let name = self.keep_damaged(&at, file)?;
            self.note_damaged(name.clone(), file);
            tracing::warn!(
                %file,
                "{why}: kept as {}, and brought again from another brick",
                self.brick.own("versions").join(&name).display()
            );
        }
        if local.parked {
            return self.remove_parked(core, file);
        }
        let (object, local) = (self.object_of(file)?, self.local_of(file)?);
        self.renew_stub(core, file, &object, &local)
    }

    /// Keeps what is damaged in `versions/`. Gives the name that it has there.
    pub(super) fn keep_damaged(&self, at: &At, file: FileId) -> FsResult<String> {
        let (versions, mut when) = (&self.brick.versions, self.clock.now_ms());
        loop {
            let name = format!("damaged-{file}-{when}");
            match access::link(&at.dir, &at.name, versions, name.as_bytes()) {
                Ok(()) => return Ok(name),
                // An end without notice may have undone that it was given up, and not that it is kept.
                Err(Errno::EXIST)
                    if access::stat(versions, name.as_bytes())?.st_ino
                        == access::stat(&at.dir, &at.name)?.st_ino =>
                {
                    return Ok(name);
                }
                Err(Errno::EXIST) => when = when.saturating_add(1),
                Err(error) => return Err(error),
            }
        }
    }

    /// What waited for its place is not wanted: it is made anew there.
    fn remove_parked(&self, core: &mut Core, file: FileId) -> FsResult<()> {
        let mut change = Change::new(self, core);
        change.local_mut(file)?.parked = false;
        change.commit()?;
        self.unstage(&crate::index::parked_name(file));
        Ok(())
    }

    /// BLAKE3 of a file's bytes here.
    pub(super) fn hash_of(&self, core: &mut Core, file: FileId, local: &Local) -> FsResult<[u8; 32]> {
        let at = self.at(core, file, local)?;
        let open = access::open(&at.dir, &at.name, OFlags::RDONLY, 0)?;
        hash(&*open)
    }
}
