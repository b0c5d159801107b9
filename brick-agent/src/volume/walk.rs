//! What a brick has in `data/`, compared with what its index says: names that came, went or moved are taken over, and the
//! bytes behind them judged. At a start after an end without notice, and of directories while the volume is in use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::change::{Change, print_of};
use super::core::{At, Core, Rebuild};
use super::judge::{Unnoted, is_hollow};
use super::making::d_type;

use super::remains::{Remains, found_remains, may_be_left};
use super::types::FsResult;
use super::versions::Why;
use super::{Volume, index_failed};
use crate::brick::access;
use crate::brick::disk::Dir;
use crate::brick::mark::{Mark, Origin};
use crate::index::{Shown, parked_name};
use nearbrick_core::recover::End;
use nearbrick_core::{Attr, FileId, Kind, LinkId, Object, Op, Place, VersionVector};
use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

impl Volume {
    /// Compares `data/` with the index, and takes over what differs.
    pub(super) fn walk(&self, core: &mut Core, end: End) -> FsResult<()> {
        self.clear_unknown_parked()?;
        let mut found = Found::with(self.parked()?);
        let mut ahead = self.parked_dirs(core, &found.parked)?;
        ahead.push(FileId::ROOT);
        while let Some(dir) = ahead.pop() {
            self.walk_dir(core, dir, &mut ahead, &mut found)?;
        }
        self.walk_what_came(core, &mut found)?;
        self.take_over(core, found, end)
    }

    pub(super) fn walk_dir(
        &self,
        core: &mut Core,
        dir: FileId,
        ahead: &mut Vec<FileId>,
        found: &mut Found,
    ) -> FsResult<()> {
        let fd = self.dir(core, dir)?;
        let mut shown: BTreeMap<_, _> = self.index.shown_in(dir).map_err(index_failed)?.into_iter().collect();
        for (name, kind) in fd.list()? {
            if Self::checked(dir, &name).is_err() {
                // Put there past the mount, and no name of a volume.
                continue;
            }
            let place = Place { parent: dir, name };
            let mark = access::get_mark(&fd, &place.name)?;
            match (shown.remove(&place.name), mark) {
                (Some(there), None)
                    if there.kind == libc::DT_LNK
                        && kind == FileType::Symlink
                        && self.leads_elsewhere(&fd, &place.name, there.file)? =>
                {
                    found.retargeted.push(there);
                    found.gone.push((place.clone(), there));
                    found.new.push((place, None));
                }
                (Some(there), mark) if mark.as_ref().is_none_or(|m| m.file == there.file) => {
                    if there.kind == libc::DT_DIR && kind == FileType::Directory {
                        ahead.push(there.file);
                        found.same.insert(there.file);
                    } else if class(there.kind) == class(on_disk(kind)) {
                        found.same.insert(there.file);
                    } else {
                        found.gone.push((place.clone(), there));
                        found.new.push((place, None));
                    }
                }
                (Some(there), mark) => {
                    found.gone.push((place.clone(), there));
                    found.new.push((place, mark));
                }
                (None, mark) => found.new.push((place, mark)),
            }
        }
        found.gone.extend(shown.into_iter().map(|(name, s)| (Place { parent: dir, name }, s)));
        Ok(())
    }

    /// Whether a symbolic link without a mark is not the one that the index has under its name, but another that was put there past the
    /// mount.
    fn leads_elsewhere(&self, dir: &Dir, name: &[u8], file: FileId) -> FsResult<bool> {
        let kind = self.object_of(file)?.kind;
        let Some(Kind::Symlink(target)) = kind else { return Ok(false) };
        Ok(access::readlink(dir, name)? != target)
    }

    pub(super) fn take_over(&self, core: &mut Core, found: Found, end: End) -> FsResult<()> {
        let mut todo = Vec::new();
        let mut found = found;
        // What was being brought about when the agent died. After a power cut nothing says that the bytes are as old as that.
        let mut adjusted = BTreeSet::new();
        if end == End::Killed {
            adjusted.extend(self.index.todo().map_err(index_failed)?);
        }
        if end != End::Running {
            self.nowhere_parked(core, &mut found, &mut todo)?;
        }
        self.with_all_inside(&mut found)?;
        let gone = found.gone.iter().map(|(_, shown)| shown.file);
        let came = found.new.iter().filter_map(|(_, mark)| Some(mark.as_ref()?.file));
        let mut moved: BTreeSet<_> = gone.chain(came).chain(found.parked.iter().copied()).collect();
        // Names that are gone. What they named may be found under another name.
        let mut lost: BTreeMap<FileId, Vec<(LinkId, Place)>> = BTreeMap::new();
        let mut before = BTreeMap::new();
        for (place, shown) in found.gone {
            if end != End::Running {
                self.once.is_gone(place.clone());
            }
            before.insert(place.clone(), shown);
            let mut change = Change::new(self, core);
            change.show(&place, None);
            if let Some(local) = change.local(shown.file)?
                && local.placed.get(&shown.link) == Some(&place)
            {
                change.local_mut(shown.file)?.placed.remove(&shown.link);
                // Should the end come before all is taken over: it is not shown, and nothing else tells.
                change.todo(shown.file, true);
                lost.entry(shown.file).or_default().push((shown.link, place));
            }
            change.commit()?;
            core.forget_dir(shown.file);
        }
        for file in found.parked.iter().copied() {
            let known = self.local_or_none(file)?;
            // Or it has no other place, as a start before this one found, and was ended.
            if lost.remove(&file).is_some() || known.parked || known.placed.is_empty() {
                let mut change = Change::new(self, core);
                change.local_mut(file)?.parked = true;
                change.commit()?;
            }
            todo.push(file);
        }
        let walked = Walked { end, parked: &found.parked };
        let mut new = found.new;
        // As if a program had removed the one and made the other. After a power cut nothing says who did what: then both are kept.
        let mut replaced = if end == End::PowerLost { Vec::new() } else { found.retargeted };
        while let Some((place, mark)) = new.pop() {
            let was_lost = mark.as_ref().map(|mark| mark.file).filter(|file| lost.contains_key(file));
            // Whatever ended: the holes of a stub are nobody's bytes.
            if self.is_unknown_stub(core, &place, mark.as_ref())? {
                continue;
            }
            let dir = self.take_name(core, &place, mark, &walked, &mut lost, &mut todo)?;
            let shown = self.shown(&place)?;
            // The disk went ahead of the index, and what had the name before is nowhere any more. After a power cut it may as well
            // be the other way round: then it is found under the name that it had before.
            if let (Some(old), Some(now)) = (before.get(&place), shown)
                && was_lost == Some(now.file)
            {
                replaced.push(*old);
            }
            if let Some(shown) = shown
                && end != End::Running
            {
                self.once.was_made(place, shown.file);
            }
            if let Some(dir) = dir {
                // A directory that came: what the index does not know in it is new under its id. It may know the file though, and have
                // noted for good only that its name was gone: then the bytes are judged like those of any other that moved.
                let inside = self.new_inside(core, dir)?;
                moved.extend(inside.iter().filter_map(|(_, mark)| Some(mark.as_ref()?.file)));
                new.extend(inside);
            }
        }
        for old in replaced {
            let Some(links) = lost.get_mut(&old.file) else { continue };
            let before = links.len();
            links.retain(|(link, _)| *link != old.link);
            if links.len() == before {
                continue;
            }
            if links.is_empty() {
                lost.remove(&old.file);
            }
            self.was_replaced(core, old)?;
            todo.push(old.file);
        }
        for (file, links) in lost {
            self.miss(core, file, &links)?;
            todo.push(file);
        }
        if end != End::Running {
            for file in self.nowhere()? {
                let object = self.object_of(file)?;
                let links: Vec<_> =
                    object.live_links().map(|(link, reg)| (link, reg.value.clone())).collect();
                self.miss(core, file, &links)?;
                todo.push(file);
            }
            todo.extend(self.not_in_place()?);
        }
        // Once their names are known.
        for file in found.same.union(&moved) {
            let mut unnoted = Unnoted { moved: moved.contains(file), ..Unnoted::default() };
            // Names come and go by that.
            unnoted.moved |= end != End::Running && self.rejoin(core, *file)?;
            if adjusted.contains(file) {
                unnoted.adjusted = self.object_of(*file)?.mtime.map(|reg| reg.value);
            }
            self.judge_file(core, *file, unnoted, end, &mut todo)?;
            if self.is_unlike(core, *file)? {
                todo.push(*file);
            }
        }
        if end == End::PowerLost {
            self.right_all(core)?;
        }
        // Before anything is put in the place of what programs have open.
        self.resume(core);
        self.bring_about(core, todo);
        Ok(())
    }

    /// Files that were here by the index, and have no name on the disk: a start before this one came so far, and ended before it
    /// was said that they are missing.
    fn nowhere(&self) -> FsResult<Vec<FileId>> {
        let mut all = Vec::new();
        for local in self.index.locals() {
            let (file, local) = local.map_err(index_failed)?;
            if (local.dirty || local.have.is_some()) && !local.on_disk() {
                all.push(file);
            }
        }
        Ok(all)
    }

    /// Files that are not where they are to be. A place that changes moves others, which are looked at next; `todo` does not have those, so
    /// that an end in between leaves nothing else that tells.
    fn not_in_place(&self) -> FsResult<Vec<FileId>> {
        let mut all = Vec::new();
        for object in self.index.objects() {
            let (file, object) = object.map_err(index_failed)?;
            if file != FileId::ROOT
                && object.kind.is_some()
                && self.has_other_names(&object, &self.local_or_none(file)?)?
            {
                all.push(file);
            }
        }
        Ok(all)
    }

    /// Takes over a name that the index does not know. Gives the directory that it names, if it is one.
    fn take_name(
        &self,
        core: &mut Core,
        place: &Place,
        mark: Option<Mark>,
        walked: &Walked<'_>,
        lost: &mut BTreeMap<FileId, Vec<(LinkId, Place)>>,
        todo: &mut Vec<FileId>,
    ) -> FsResult<Option<FileId>> {
        let at = self.at_place(core, place)?;
        let raw = access::stat(&at.dir, &at.name)?;
        let kind = match FileType::from_raw_mode(raw.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink(access::readlink(&at.dir, &at.name)?),
            _ => Kind::Special { format: raw.st_mode & libc::S_IFMT, rdev: raw.st_rdev },
        };
        let mark = match mark {
            // Another name of the same inode may have been taken meanwhile, and given it a mark.
            None if raw.st_nlink > 1 && !kind.is_dir() => access::get_mark(&at.dir, &at.name)?,
            mark => mark,
        };
        if core.rebuild == Rebuild::Judging {
            if let Some(taken) = self.take_marked(core, place, mark.as_ref(), &kind, todo)? {
                return Ok(taken);
            }
            let is_nobodys = match &mark {
                None => true,
                Some(mark) => self.object_of(mark.file)?.kind.is_none(),
            };
            if is_nobodys && let Some(taken) = self.take_by_place(core, place, &kind, todo)? {
                return Ok(taken);
            }
        }
        if let Some(mark) = &mark {
            let object = self.object_of(mark.file)?;
            let local = self.local_or_none(mark.file)?;
            let known =
                object.kind.is_some() && object.kind.as_ref().map(Kind::is_dir) == Some(kind.is_dir());
            if known {
                let file = mark.file;
                // It was renamed just before the end, or put there for a peer's change.
                if let Some((link, _)) = lost.get_mut(&file).and_then(Vec::pop) {
                    if lost.get(&file).is_some_and(Vec::is_empty) {
                        lost.remove(&file);
                    }
                    let wanted = object.live_links().any(|(l, reg)| l == link && reg.value == *place);
                    let mut change = Change::new(self, core);
                    if !wanted && object.exists(file) {
                        change.emit(file, Op::Move { link, place: place.clone() })?;
                    }
                    self.found_at(&mut change, file, link, place, &kind)?;
                    change.commit()?;
                    todo.push(file);
                    return Ok(kind.is_dir().then_some(file));
                }
                let wanted =
                    object.live_links().find(|(l, reg)| reg.value == *place && !local.placed.contains_key(l));
                if let Some((link, _)) = wanted {
                    let mut change = Change::new(self, core);
                    self.found_at(&mut change, file, link, place, &kind)?;
                    change.commit()?;
                    todo.push(file);
                    return Ok(kind.is_dir().then_some(file));
                }
                if local.placed.is_empty() && !walked.parked.contains(&file) {
                    // It had just been made for others, or waited for its place, and has got one that is its own or beside it.
                    let mut change = Change::new(self, core);
                    change.local_mut(file)?.parked = false;
                    let link =
                        object.live_links().map(|(link, _)| link).find(|l| !local.placed.contains_key(l));
                    if let Some(link) = link {
                        self.found_at(&mut change, file, link, place, &kind)?;
                    }
                    change.commit()?;
                    if link.is_some() {
                        todo.push(file);
                        return Ok(kind.is_dir().then_some(file));
                    }
                }
                if !object.exists(file) && kind.is_file() && local.dirty && !walked.parked.contains(&file) {
                    // Others removed it while programs here were changing it: it waits, out of the way, for what comes of that.
                    self.park_late(core, file, &at, place)?;
                    todo.push(file);
                    return Ok(None);
                }
                if !object.exists(file) && !kind.is_dir() {
                    // Its removal was in the journal; only the disk lagged behind.
                    self.remove_late(core, &at, place, mark, &object, walked.end)?;
                    return Ok(None);
                }
                let other = self.at(core, file, &local).and_then(|at| access::stat(&at.dir, &at.name));
                let same_inode = match other {
                    Ok(other) => other.st_ino == raw.st_ino,
                    Err(Errno::NOENT) => false,
                    Err(error) => return Err(error),
                };
                if same_inode && !kind.is_dir() {
                    let mut change = Change::new(self, core);
                    self.revive_names(&mut change, file)?;
                    let link = change.emit(file, Op::Link(place.clone()))?.made_link().ok_or(Errno::IO)?;
                    self.found_at(&mut change, file, link, place, &kind)?;
                    let done = change.commit()?;
                    let mut claims = VecDeque::new();
                    self.with_claims(core, &done.places, &mut claims)?;
                    todo.extend(claims);
                    return Ok(None);
                }
            }
        }
        let judging = core.rebuild == Rebuild::Judging;
        let is_stub = mark.as_ref().is_some_and(|mark| mark.version.is_none());
        if walked.end == End::PowerLost && !judging && kind.is_file() && is_stub {
            // It was to have all names of a file that is found under another one: the cut let it have some of them, and the index forgot
            // those. The holes of a stub are nobody's bytes.
            if raw.st_nlink > 1 || is_hollow(&at)? {
                access::unlink(&at.dir, &at.name)?;
            } else {
                self.keep_unjudged(&at, mark.map_or(FileId::ROOT, |mark| mark.file))?;
            }
            core.forget_dir(place.parent);
            return Ok(None);
        }
        // New: made just before the end, or put there past the mount.
        let marked = mark.as_ref().and_then(|m| m.version.clone()).filter(|v| !v.is_empty());
        let fresh = match &mark {
            Some(mark) if self.object_of(mark.file)?.kind.is_none() && mark.file != FileId::ROOT => mark.file,
            _ => self.new_id(),
        };
        let none = kind.is_file().then(VersionVector::new);
        // A copy of which a power cut took all that the index had heard: it may be torn, and others will tell of it.
        let found_mark = mark.clone().filter(|mark| mark.file == fresh);
        let end = if judging { core.lost() } else { walked.end };
        let copied = mark.filter(|mark| may_be_left(mark, end) && kind.is_file() && mark.file == fresh);
        let copied = copied.and_then(|mark| found_remains(&at, &mark));
        let origin = copied.map_or(Origin::Here, Remains::origin);
        let remains = origin != Origin::Here;
        if walked.end == End::PowerLost && kind.is_file() && !judging && !remains {
            // Its maker may have told others of a version that the index did not keep.
            self.is_unproven(core, &at, Mark::new(fresh, none), found_mark, &print_of(&raw))?;
        } else {
            access::set_mark(&at.dir, &at.name, &Mark { origin, ..Mark::new(fresh, none) })?;
        }
        let print = if remains { Some(print_of(&access::stat(&at.dir, &at.name)?)) } else { None };
        let attr = Attr {
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            mtime_sec: raw.st_mtime,
            mtime_nsec: u32::try_from(raw.st_mtime_nsec).unwrap_or(0),
        };
        let replicas = if kind.is_file() { self.placed_at(place.parent, &place.name)? } else { Vec::new() };
        let mut change = Change::new(self, core);
        let op = Op::Create { brick: self.me, kind: kind.clone(), attr, place: place.clone(), replicas };
        let entry = change.emit(fresh, op)?;
        let link = entry.made_link().ok_or(Errno::IO)?;
        self.say_xattrs(&mut change, fresh, &at)?;
        self.found_at(&mut change, fresh, link, place, &kind)?;
        if kind.is_file() {
            let local = change.local_mut(fresh)?;
            local.dirty = true;
            local.dirty_since = entry.stamp().millis();
            local.synced = Some(VersionVector::new());
            if judging && !remains {
                // Peers may have heard of that version: what comes is newer.
                local.base = marked.unwrap_or_default();
            }
            // By how it looks now it will be seen whether somebody writes to it.
            local.print = print;
            if remains && !judging { self.settler.remains(fresh) } else { self.settler.soon(fresh) }
        }
        change.commit()?;
        Ok(kind.is_dir().then_some(fresh))
    }

    /// What had made way for another when the end came, and is found where it was.
    fn park_late(&self, core: &mut Core, file: FileId, at: &At, place: &Place) -> FsResult<()> {
        let parked = parked_name(file).into_bytes();
        access::rename(&at.dir, &at.name, &self.brick.staging, &parked, RenameFlags::NOREPLACE)?;
        core.forget_dir(place.parent);
        let mut change = Change::new(self, core);
        let local = change.local_mut(file)?;
        local.placed.retain(|_, there| there != place);
        local.parked = true;
        change.todo(file, true);
        change.commit().map(drop)
    }

    /// Takes a name off the disk that the end left there: what it names is kept for a while, as it would have been then.
    fn remove_late(
        &self,
        core: &mut Core,
        at: &At,
        place: &Place,
        mark: &Mark,
        object: &Object,
        end: End,
    ) -> FsResult<()> {
        let raw = access::stat(&at.dir, &at.name)?;
        let is_file = FileType::from_raw_mode(raw.st_mode) == FileType::RegularFile;
        let version = mark.version.as_ref().filter(|v| is_file && raw.st_nlink == 1 && !v.is_empty());
        if let Some(version) = version {
            let mut path = self.path_of(place.parent).unwrap_or_default();
            path.extend_from_slice(&place.name);
            let label = self.label(object, version, path, Why::Deleted);
            match self.move_to_versions(at, mark.file, version, &label) {
                Ok(true) => {
                    if end == End::PowerLost {
                        self.came_before(mark.file, version);
                    }
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(file = %mark.file, %error, "a deleted file cannot be kept in versions/")
                }
            }
        }
        access::unlink(&at.dir, &at.name)?;
        core.forget_dir(place.parent);
        Ok(())
    }

    /// A stub of a file of which the index did not keep that it heard of it: others will tell it again.
    fn is_unknown_stub(&self, core: &mut Core, place: &Place, mark: Option<&Mark>) -> FsResult<bool> {
        let Some(mark) = mark.filter(|mark| mark.version.is_none()) else { return Ok(false) };
        if self.object_of(mark.file)?.kind.is_some() || core.rebuild != Rebuild::No {
            return Ok(false);
        }
        let at = self.at_place(core, place)?;
        let raw = access::stat(&at.dir, &at.name)?;
        if FileType::from_raw_mode(raw.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        // Bytes in it may be more than ranges that were read: a copy that took the mark along, in which somebody wrote since, or a whole
        // file of which the disk spoiled the mark.
        if is_hollow(&at)? { access::unlink(&at.dir, &at.name) } else { self.keep_unjudged(&at, mark.file) }?;
        Ok(true)
    }

    pub(super) fn found_at(
        &self,
        change: &mut Change<'_>,
        file: FileId,
        link: LinkId,
        place: &Place,
        kind: &Kind,
    ) -> FsResult<()> {
        change.local_mut(file)?.placed.insert(link, place.clone());
        change.show(place, Some(Shown { file, link, kind: d_type(kind) }));
        Ok(())
    }

    /// A name that the index knows is not on the disk, and what it named is nowhere.
    fn miss(&self, core: &mut Core, file: FileId, links: &[(LinkId, Place)]) -> FsResult<()> {
        let object = self.object_of(file)?;
        let local = self.local_or_none(file)?;
        let mut change = Change::new(self, core);
        if local.on_disk() {
            // Another name is there: this one was being removed.
            for (link, _) in links {
                change.emit(file, Op::Unlink { link: *link, seen: object.seen() })?;
            }
        } else if object.kind.as_ref().is_some_and(Kind::is_file) {
            let elsewhere = nearbrick_core::pending::sources(&object).into_iter().any(|b| b != self.me);
            if local.dirty {
                change.emit(file, Op::Clean { brick: self.me })?;
            }
            if local.have.is_some() {
                change.emit(file, Op::Drop { brick: self.me })?;
            }
            if !elsewhere && (local.have.is_some() || local.dirty) {
                let message =
                    format!("file {file} is gone from the brick's disk, and no other brick holds it");
                tracing::error!("{message}");
                self.note_error(nearbrick_core::heal::Reason::Corrupt, message);
                for (link, _) in links {
                    change.emit(file, Op::Unlink { link: *link, seen: VersionVector::new() })?;
                }
            }
            change.forget_local(file)?;
        } else if !local.broken && local.merged_into.is_none() {
            change.forget_local(file)?;
        }
        change.commit().map(drop)
    }
}

/// The `d_type` value of what a disk lists.
pub(super) fn on_disk(kind: FileType) -> u8 {
    match kind {
        FileType::Directory => libc::DT_DIR,
        FileType::RegularFile => libc::DT_REG,
        FileType::Symlink => libc::DT_LNK,
        _ => libc::DT_UNKNOWN,
    }
}

/// Devices and the like are of one class.
pub(super) fn class(kind: u8) -> u8 {
    match kind {
        libc::DT_DIR | libc::DT_REG | libc::DT_LNK => kind,
        _ => libc::DT_UNKNOWN,
    }
}

/// What a walk began with.
struct Walked<'a> {
    /// What ended.
    end: End,
    /// What waits in `staging/` for its place.
    parked: &'a BTreeSet<FileId>,
}

/// How `data/`, or some directories of it, and the index are apart.
#[derive(Default)]
pub(super) struct Found {
    pub(super) same: BTreeSet<FileId>,
    pub(super) gone: Vec<(Place, Shown)>,
    pub(super) new: Vec<(Place, Option<Mark>)>,
    pub(super) parked: BTreeSet<FileId>,
    /// Symbolic links in whose place there are now others; they are in `gone` and `new` too.
    pub(super) retargeted: Vec<Shown>,
}

impl Found {
    /// Nothing yet but what is parked.
    pub(super) fn with(parked: BTreeSet<FileId>) -> Self {
        Found { parked, ..Found::default() }
    }

    /// Whether any name is not as it was.
    pub(super) fn differs(&self) -> bool {
        !self.gone.is_empty() || !self.new.is_empty()
    }

    /// Only the names are looked at, and not what they name.
    pub(super) fn only_names(&mut self) {
        self.same.clear();
    }

    /// The names that are not as they were, and whose they were.
    pub(super) fn names(&self) -> (Vec<Place>, Vec<FileId>) {
        let new = self.new.iter().map(|(place, _)| place.clone());
        let gone = self.gone.iter().map(|(place, shown)| (place.clone(), shown.file));
        let (mut places, files): (Vec<_>, Vec<_>) = gone.unzip();
        places.extend(new);
        (places, files)
    }
}
