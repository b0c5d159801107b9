//! How an object looks on the disk: made as what it is, with owner, mode, times and attributes as members say.

use nearbrick_core::recover::End;
use nearbrick_core::{Attr, FileId, Kind, Object, Place, acl};
use rustix::fs::{OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::Volume;
use super::amiss;
use super::change::{Change, print_of};
use super::core::{At, Core};
use super::judge::{Unnoted, is_hollow};
use super::opening::{Standing, standing};
use super::types::{FsResult, SetTime};
use crate::brick::access;
use crate::brick::disk::{File, FileAccess, Stat};
use crate::brick::mark::Mark;
use crate::index::{Local, Overlay};

impl Volume {
    /// Makes a new object on the disk: a stub, if it is a file.
    pub(super) fn make_at(
        &self,
        core: &mut Core,
        file: FileId,
        object: &Object,
        kind: &Kind,
        place: &Place,
    ) -> FsResult<()> {
        let staged = self.staging_for(file);
        let made = Self::make_on_disk(&staged.dir, &staged.name, kind, mode_of(object))
            .and_then(|open| self.dress(&staged, open.as_ref(), file, object, kind))
            .and_then(|()| self.rename_to(core, &staged, place));
        if made.is_err() {
            let _ = amiss::remove(&staged.dir, &staged.name);
        }
        made
    }

    /// A free name in `staging/`, where an object is made before it is put in its place: half of it is never seen.
    pub(super) fn staging_for(&self, file: FileId) -> At {
        let staged = At { dir: self.brick.staging.clone(), name: format!("made-{file}").into_bytes() };
        let _ = amiss::remove(&staged.dir, &staged.name);
        staged
    }

    fn dress(
        &self,
        at: &At,
        open: Option<&File>,
        file: FileId,
        object: &Object,
        kind: &Kind,
    ) -> FsResult<()> {
        let mark = Mark::stub(file, object.head().map(|head| &head.version).filter(|_| kind.is_file()));
        let Some(open) = open else {
            access::set_mark(&at.dir, &at.name, &mark)?;
            set_owner_and_mode(at, object, kind)?;
            set_xattrs(at, object)?;
            return set_mtime(at, object);
        };
        access::set_file_mark(&**open, &mark)?;
        open.truncate(object.size())?;
        if let Some(attr) = object.attr.as_ref().map(|reg| reg.value) {
            own(&**open, &attr)?;
        }
        set_xattrs(at, object)?;
        match mtime_of(object) {
            Some(mtime) => open.utimens(&access::timestamps(None, Some(mtime))),
            None => Ok(()),
        }
    }

    /// A stub gets a new file for another version. Who has the older one open keeps it.
    pub(super) fn renew_stub(
        &self,
        core: &mut Core,
        file: FileId,
        object: &Object,
        local: &Local,
    ) -> FsResult<()> {
        let Some(place) = local.place().cloned() else { return Err(Errno::NOENT) };
        let staged = At { dir: self.brick.staging.clone(), name: format!("stub-{file}").into_bytes() };
        let _ = access::unlink(&staged.dir, &staged.name);
        let open = Self::make_on_disk(&staged.dir, &staged.name, &Kind::File, mode_of(object))?;
        self.dress(&staged, open.as_ref(), file, object, &Kind::File)?;
        self.rename_over(core, &staged, local)?;
        let mut change = Change::new(self, core);
        let now = change.local_mut(file)?;
        now.filling = None;
        now.filled.clear();
        now.synced = None;
        now.print = None;
        change.commit()?;
        core.nodes.detach(file);
        self.invalidate_entry(core, &place);
        Ok(())
    }

    /// Puts a staged file in the place of all names of an object. Other bytes are no change of the directory:
    /// its time stays.
    pub(super) fn rename_over(&self, core: &mut Core, staged: &At, local: &Local) -> FsResult<()> {
        let mut places = local.placed.values();
        let last = places.next_back().ok_or(Errno::NOENT)?;
        let over = |name: &[u8], at: &At| -> FsResult<()> {
            let before = at.dir.stat_self()?;
            access::rename(&staged.dir, name, &at.dir, &at.name, RenameFlags::empty())?;
            let (sec, nsec) = print_of(&before).mtime;
            access::utimens(&at.dir, b".", None, Some(SetTime::At(access::time(sec, nsec))))
        };
        for place in places {
            let again = [&staged.name[..], b"-link"].concat();
            let at = self.at_place(core, place)?;
            let _ = access::unlink(&staged.dir, &again);
            access::link(&staged.dir, &staged.name, &staged.dir, &again)?;
            over(&again, &at)?;
        }
        let at = self.at_place(core, last)?;
        over(&staged.name, &at)
    }

    /// Brings owner, mode, times, xattrs, and what is shown of a newer version, up to the object.
    pub(super) fn adjust(&self, core: &mut Core, file: FileId, object: &Object) -> FsResult<()> {
        let Some(kind) = object.kind.as_ref() else { return Ok(()) };
        let local = self.local_or_none(file)?;
        let at = if file == FileId::ROOT {
            At { dir: self.dir(core, file)?, name: b".".to_vec() }
        } else if local.on_disk() {
            self.at(core, file, &local)?
        } else {
            return Ok(());
        };
        // Before the print of an edit past the mount is lost, or what was written into a stub.
        if kind.is_file() && self.changed_behind(core, file, &local)? {
            return self.adopt_change(core, file, &local);
        }
        let before = set_owner_and_mode(&at, object, kind)?;
        let all_kept = set_xattrs(&at, object)?;
        let mut change = Change::new(self, core);
        let standing = if kind.is_file() { standing(object, &local) } else { Standing::Whole };
        let overlay = match (standing, object.mtime.as_ref()) {
            (Standing::Whole, _) => None,
            (_, mtime) => Some(Overlay { size: object.size(), mtime: mtime.map_or((0, 0), |m| m.value) }),
        };
        if kind.is_file() && local.overlay != overlay {
            change.local_mut(file)?.overlay = overlay;
        }
        let is_other = local.filling.as_ref() != object.head().map(|h| &h.version);
        // Somebody emptied it past the mount: what was filled in is not there any more.
        let is_emptied = local.print.is_some_and(|then| !print_of(&before).has_bytes_of(&then));
        if standing == Standing::Stub
            && (is_other && !is_empty_stub(&before, object, &local) || is_emptied)
            && change.core.nodes.of(file).is_none_or(|n| n.opens == 0)
        {
            if self.is_whole_after_all(change.core, file, &at)? {
                return self.adjust(core, file, &self.object_of(file)?);
            }
            // Of an older version nothing is kept; the size is the newest one's.
            let open = access::open(&at.dir, &at.name, OFlags::WRONLY, 0)?;
            open.truncate(0)?;
            open.truncate(object.size())?;
            let now = change.local_mut(file)?;
            now.filling = None;
            now.filled.clear();
        }
        if let Some(mtime) = &object.mtime
            && standing == Standing::Whole
            && !local.dirty
            && mtime.stamp.time > local.mtime_at
        {
            set_mtime(&at, object)?;
            if file != FileId::ROOT || local.mtime_at != mtime.stamp.time {
                change.local_mut(file)?.mtime_at = mtime.stamp.time;
            }
        }
        if file != FileId::ROOT {
            change.refresh_print(file)?;
        }
        change.commit()?;
        self.invalidate_node(core, file, false);
        if !all_kept {
            self.note_error(
                nearbrick_core::heal::Reason::NoSpace,
                format!(
                    "an extended attribute of file {file} is not kept here: the brick's disk does not take it"
                ),
            );
            return Err(Errno::NOSPC);
        }
        Ok(())
    }
}

impl Volume {
    /// Whether what is a stub by the index is marked as a whole version that no other brick is known to hold: then something was done that could
    /// not be said. It is that version from now on, or is kept in `versions/`; never are its bytes thrown away because nobody knows of them.
    pub(super) fn is_whole_after_all(&self, core: &mut Core, file: FileId, at: &At) -> FsResult<bool> {
        let mark = access::get_mark(&at.dir, &at.name)?.filter(|mark| mark.file == file);
        let Some(version) = mark.and_then(|mark| mark.version).filter(|version| !version.is_empty()) else {
            return Ok(false);
        };
        let is_elsewhere = self.object_of(file)?.holders_of(&version).any(|brick| brick != self.me);
        if is_elsewhere || is_hollow(at)? {
            return Ok(false);
        }
        let unnoted = Unnoted { moved: true, ..Unnoted::default() };
        self.judge_file(core, file, unnoted, End::Killed, &mut Vec::new())?;
        let (object, local) = (self.object_of(file)?, self.local_of(file)?);
        if local.have.is_none() && !local.dirty {
            self.give_up_bytes(
                core,
                file,
                &local,
                &object,
                Some("is a copy that the index does not know of"),
            )?;
        }
        Ok(true)
    }
}

fn mode_of(object: &Object) -> u32 {
    object.attr.as_ref().map_or(0o600, |reg| reg.value.mode)
}

/// Whether a stub has nothing of any version, and the size of the newest.
fn is_empty_stub(raw: &Stat, object: &Object, local: &Local) -> bool {
    let size = u64::try_from(raw.st_size).ok();
    raw.st_blocks == 0 && size == Some(object.size()) && local.filling.is_none() && local.filled.is_empty()
}

/// Gives a file that was just made its owner and mode.
pub(super) fn own(open: &dyn FileAccess, attr: &Attr) -> FsResult<()> {
    let now = open.stat()?;
    let mut mode = now.st_mode & 0o7777;
    if (now.st_uid, now.st_gid) != (attr.uid, attr.gid) {
        open.chown(Some(attr.uid), Some(attr.gid))?;
        if mode & 0o6000 != 0 {
            // The kernel may have taken bits away.
            mode = u32::MAX;
        }
    }
    if mode == attr.mode { Ok(()) } else { open.chmod(attr.mode) }
}

/// Owner and mode as the object says; how it looked before.
pub(super) fn set_owner_and_mode(at: &At, object: &Object, kind: &Kind) -> FsResult<Stat> {
    let now = access::stat(&at.dir, &at.name)?;
    let Some(attr) = object.attr.as_ref().map(|reg| reg.value) else { return Ok(now) };
    let mut mode = now.st_mode & 0o7777;
    if (now.st_uid, now.st_gid) != (attr.uid, attr.gid) {
        access::chown(&at.dir, &at.name, Some(attr.uid), Some(attr.gid))?;
        // The kernel may have taken bits away.
        mode = u32::MAX;
    }
    if mode != attr.mode && !matches!(kind, Kind::Symlink(_)) {
        access::chmod(&at.dir, &at.name, attr.mode)?;
    }
    Ok(now)
}

/// Extended attributes as the object says. After the mode, with which an ACL agrees. False if the
/// disk does not keep one of them, for example because it is larger than this kind of file system takes: that
/// holds back nothing else of the file. An ACL does, as without it the mode would give more.
pub(super) fn set_xattrs(at: &At, object: &Object) -> FsResult<bool> {
    let mut all = true;
    for (name, wanted) in object.xattrs_wanted() {
        let now = match access::get_xattr(&at.dir, &at.name, name) {
            Ok(value) => Some(value),
            Err(Errno::NODATA) => None,
            // A disk without ACLs has none; one that is wanted fails below.
            Err(Errno::OPNOTSUPP) if acl::is_acl(name) => None,
            Err(error) => return Err(error),
        };
        if now.as_deref() == wanted.as_deref() {
            continue;
        }
        let done = match wanted {
            Some(value) => access::set_xattr(&at.dir, &at.name, name, &value, XattrFlags::empty()),
            None => access::remove_xattr(&at.dir, &at.name, name),
        };
        match done {
            Ok(()) => {}
            Err(Errno::NOSPC | Errno::DQUOT | Errno::RANGE | Errno::TOOBIG | Errno::OPNOTSUPP)
                if !acl::is_acl(name) =>
            {
                all = false;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// The modification time as the object says.
pub(super) fn set_mtime(at: &At, object: &Object) -> FsResult<()> {
    match mtime_of(object) {
        Some(mtime) => access::utimens(&at.dir, &at.name, None, Some(mtime)),
        None => Ok(()),
    }
}

fn mtime_of(object: &Object) -> Option<SetTime> {
    object.mtime.as_ref().map(|reg| SetTime::At(access::time(reg.value.0, reg.value.1)))
}
