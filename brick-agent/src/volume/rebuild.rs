//! An index that was lost, or came back from a backup, is made anew.
//!
//! First what is in `data/` is shown as it is, and cannot be changed: without an index nothing tells
//! whether it is the newest. Then all that a peer knows is merged, as in any comparison,
//! under a new incarnation; and then each file is judged by its mark (who it is, and which version):
//!
//! * The version is one that the peer knows, and the bytes look like it: they are held.
//! * The peer does not know it, or the bytes were changed after it: an edit that is newer than the
//!   mark's version. What the peer has beside that is a conflict, and both are kept.
//! * The peer does not know the file: it was made here, and is said again under the id that it has.
//! * The peer knows that it was deleted: it goes, unless it was edited after what the deleter had seen.
//!
//! Where the machine may have gone down too, as far as the brick's identity tells, bytes that were not synced may be lost: then a copy is read,
//! and compared with its mark's check, before a program gets it and before it is judged, and what was written here is a version
//! only by its hash.
//!
//! Should all members have lost theirs, the one with the smallest id judges as if it were alone, so by marks only, and the others
//! then as above. What was newer elsewhere is an edit then that did not know of what it says: both are kept.
//!
//! So nothing counts as deleted because the index was, nothing is new that has an id, and no version
//! comes back as older. Until all is judged nothing is said to peers; after a crash it begins again.

use std::collections::{BTreeMap, HashSet};
use std::sync::PoisonError;
use std::time::Duration;

use nearbrick_core::object::Link;
use nearbrick_core::recover::{End, judges_first};
use nearbrick_core::{
    BrickId, FileId, Horizon, Incarnation, Kind, LinkId, Object, Place, Reg, Stamp, VersionVector,
};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::{Core, Rebuild};
use super::index_failed;
use super::judge::{Unnoted, has_holes};
use super::making::d_type;
use super::recover::REBUILD;
use super::remains::found_remains;
use super::statements::is_unsaid;
use super::types::FsResult;
use crate::brick::access;
use crate::brick::mark::Mark;
use crate::config::Adopt;
use crate::index::Shown;

/// Names of what is not judged yet are of no one's journal.
pub(super) const NOBODY: Incarnation = Incarnation(0);
/// Before all that members say.
const UNJUDGED: Stamp = Stamp { time: 1, origin: NOBODY };
/// For so long what a member said of its index counts: longer than it takes to ask all.
const SAID_LATELY: Duration = Duration::from_secs(60);
/// Objects in one batch.
const AT_ONCE: usize = 256;

fn is_unjudged(object: &Object) -> bool {
    object.links.keys().any(|link| link.origin == NOBODY)
}

impl Volume {
    /// Fails while the index is made anew.
    pub(super) fn writable(&self) -> FsResult<()> {
        match self.lock().rebuild {
            Rebuild::No => Ok(()),
            Rebuild::Waiting | Rebuild::Judging => Err(Errno::ROFS),
        }
    }

    /// Whether that is because the directory was adopted.
    pub(super) fn is_adopting(&self, core: &Core) -> bool {
        self.adopts && core.rebuild != Rebuild::No
    }

    /// Whether the index is still being made anew.
    pub fn is_rebuilding(&self) -> bool {
        self.lock().rebuild != Rebuild::No
    }

    /// Shows what is in `data/`, as far as its marks tell who it is. With no other member to ask, it is judged at once.
    pub(super) fn show_unjudged(&self) -> FsResult<()> {
        let core = &mut *self.lock();
        core.rebuild = Rebuild::Waiting;
        let mut inodes: BTreeMap<FileId, u64> = BTreeMap::new();
        let mut ahead = vec![FileId::ROOT];
        let mut next = 1;
        while let Some(parent) = ahead.pop() {
            let dir = self.dir(core, parent)?;
            let names = dir.list()?;
            for chunk in names.chunks(AT_ONCE) {
                let mut found = Vec::new();
                for (name, _) in chunk {
                    let raw = access::stat(&dir, name)?;
                    let mark = access::get_mark(&dir, name)?;
                    let kind = match FileType::from_raw_mode(raw.st_mode) {
                        FileType::RegularFile => Kind::File,
                        FileType::Directory => Kind::Dir,
                        FileType::Symlink => Kind::Symlink(access::readlink(&dir, name)?),
                        _ => Kind::Special { format: raw.st_mode & libc::S_IFMT, rdev: raw.st_rdev },
                    };
                    // A copy that took the mark along is another file.
                    let of = mark.as_ref().map(|m| m.file).filter(|f| *f != FileId::ROOT);
                    let file = of
                        .filter(|f| *inodes.entry(*f).or_insert(raw.st_ino) == raw.st_ino)
                        .unwrap_or_else(|| self.new_id());
                    let have = match mark {
                        Some(mark) => mark.version.filter(|v| !v.is_empty()),
                        // Nobody's stub: it can be read.
                        None => Some(VersionVector::new()),
                    };
                    found.push((name.clone(), file, kind, have, print_of(&raw)));
                }
                let mut change = Change::new(self, core);
                for (name, file, kind, have, print) in found {
                    let (place, link) = (Place { parent, name }, LinkId { origin: NOBODY, seq: next });
                    next += 1;
                    let mut object = change.object(file)?;
                    object.kind = Some(kind.clone());
                    let here = Link { place: Some(Reg::new(place.clone(), UNJUDGED)), removed: None };
                    object.links.insert(link, here);
                    change.set_object(file, object)?;
                    change.show(&place, Some(Shown { file, link, kind: d_type(&kind) }));
                    let local = change.local_mut(file)?;
                    local.placed.insert(link, place);
                    if kind.is_file() {
                        (local.have, local.print) = (have, Some(print));
                    }
                    if kind.is_dir() {
                        ahead.push(file);
                    }
                }
                change.commit()?;
            }
        }
        if self.is_alone() {
            self.judge(core, &Horizon::new())?;
        }
        Ok(())
    }

    fn is_alone(&self) -> bool {
        let config = self.config();
        self.adopts && config.upkeep.adopt == Adopt::First
            || config.members.iter().all(|m| m.brick == self.me)
    }

    /// The other members are gone, or this one is the first: nobody is to be asked.
    pub(super) fn judge_alone(&self) {
        let core = &mut *self.lock();
        if core.rebuild == Rebuild::Waiting
            && self.is_alone()
            && let Err(error) = self.judge(core, &Horizon::new())
        {
            tracing::error!(%error, "the files cannot be judged; it is tried again at the next start");
        }
    }

    /// A peer's index is being made anew too. If all members say so, nobody is to be waited for: one judges by its own files, and
    /// the others then by what it says. Says whether it was this one.
    pub(super) fn judge_first(&self, peer: BrickId, adopts: bool) -> FsResult<bool> {
        let _one = self.absorbing.lock().unwrap_or_else(PoisonError::into_inner);
        let core = &mut *self.lock();
        let now = self.clock.passed();
        core.rebuilding_too.insert(peer, (now, adopts));
        let config = self.config();
        let others = config.members.iter().map(|m| m.brick).filter(|b| *b != self.me).map(|brick| {
            let said =
                core.rebuilding_too.get(&brick).filter(|(at, _)| now.saturating_sub(*at) <= SAID_LATELY);
            (brick, said.map(|(_, adopts)| *adopts))
        });
        if core.rebuild != Rebuild::Waiting || !judges_first(self.me, self.adopts, others) {
            return Ok(false);
        }
        tracing::warn!(brick = %self.me, "all members have lost their indexes: the files are judged by this brick's marks alone");
        self.judge(core, &Horizon::new())?;
        Ok(true)
    }

    /// All that a peer knows is merged: what is in `data/` is judged by it.
    pub(super) fn judge(&self, core: &mut Core, there: &Horizon) -> FsResult<()> {
        core.rebuild = Rebuild::Judging;
        let judged = self.judge_all(core, there);
        if judged.is_err() {
            // What was done so far is not said to anyone. It begins again at the next open.
            core.rebuild = Rebuild::Waiting;
        }
        judged
    }

    fn judge_all(&self, core: &mut Core, there: &Horizon) -> FsResult<()> {
        self.forget_unjudged(core)?;
        let mut change = Change::new(self, core);
        for (origin, heard) in there.iter() {
            change.jump(origin, heard);
        }
        change.commit()?;
        self.take_parked(core)?;
        self.walk(core, End::Killed)?;
        let mut all = Vec::new();
        for object in self.index.objects() {
            all.push(object.map_err(index_failed)?.0);
        }
        for chunk in all.chunks(AT_ONCE) {
            let mut change = Change::new(self, core);
            for file in chunk {
                self.right(&mut change, *file)?;
            }
            change.commit()?;
        }
        self.announce(core)?;
        // What is here and nobody knows of, such as a copy that was not said yet.
        for file in &all {
            if is_unsaid(self.me, &self.object_of(*file)?, &self.local_or_none(*file)?) {
                core.unsaid.insert(*file);
                self.settler.soon(*file);
            }
        }
        self.look_at_removals(core, &all)?;
        self.bring_about(core, all);
        let mut change = Change::new(self, core);
        change.drop_meta(REBUILD);
        change.commit()?;
        self.index.persist().map_err(index_failed)?;
        core.rebuild = Rebuild::No;
        if std::mem::take(&mut core.after_cut)
            && let Err(error) = self.brick.looked_through(&self.boot)
        {
            tracing::warn!(%error, "that all files are judged cannot be noted: should this index be lost too, all copies are read again");
        }
        core.whole = HashSet::new();
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).clear();
        if self.adopts
            && let Err(error) = self.brick.adopted()
        {
            tracing::warn!(%error, "that the directory was adopted cannot be noted: it is judged again at the next start");
        }
        tracing::info!(brick = %self.me, "the index is made anew; all files are judged");
        Ok(())
    }

    /// What is to go from the disk, counted by who removed it: it may be too much.
    fn look_at_removals(&self, core: &mut Core, all: &[FileId]) -> FsResult<()> {
        let mut by: BTreeMap<Incarnation, u64> = BTreeMap::new();
        for file in all {
            let (object, local) = (self.object_of(*file)?, self.local_or_none(*file)?);
            let last = object.links.values().filter_map(|l| l.removed.as_ref()).map(|reg| reg.stamp).max();
            if let Some(last) = last
                && object.kind.as_ref().is_some_and(Kind::is_file)
                && !object.exists(*file)
                && local.on_disk()
                && !local.dirty
            {
                *by.entry(last.origin).or_default() += 1;
            }
        }
        for (origin, removed) in by {
            let last = core.heads.get(&origin).copied().unwrap_or(0);
            self.note_removals(core, origin, removed, last)?;
        }
        Ok(())
    }

    /// Only the disk says again what is there.
    fn forget_unjudged(&self, core: &mut Core) -> FsResult<()> {
        let mut unjudged = Vec::new();
        for object in self.index.objects() {
            let (file, object) = object.map_err(index_failed)?;
            if is_unjudged(&object) {
                unjudged.push(file);
            }
        }
        for chunk in unjudged.chunks(AT_ONCE) {
            let mut change = Change::new(self, core);
            for file in chunk {
                let mut object = change.object(*file)?;
                object.links.retain(|link, _| link.origin != NOBODY);
                let places: Vec<_> =
                    change.local(*file)?.map(|l| l.placed.into_values().collect()).unwrap_or_default();
                places.iter().for_each(|place| change.show(place, None));
                change.forget_local(*file)?;
                let said = Object { kind: None, ..object.clone() } != Object::default();
                if said { change.set_object(*file, object)? } else { change.forget(*file)? }
            }
            change.commit()?;
            for file in chunk {
                core.forget_dir(*file);
                core.nodes.detach(*file);
            }
        }
        Ok(())
    }

    /// What a program is to read while nothing is judged yet, after what may have been a power cut: a copy that is not whole is not given to
    /// it. Reads all of it.
    pub(super) fn prove_copy(&self, file: FileId) -> FsResult<()> {
        let at = {
            let core = &mut *self.lock();
            let local = self.local_of(file)?;
            self.at(core, file, &local)?
        };
        let mark = access::get_mark(&at.dir, &at.name)?;
        if mark.and_then(|mark| found_remains(&at, &mark)).is_some_and(|remains| remains.torn) {
            tracing::warn!(%file, "is what a power cut left of a copy: it cannot be opened before others were heard");
            return Err(Errno::IO);
        }
        self.lock().whole.insert(file);
        Ok(())
    }

    /// Objects that were on the way from one place to another when the index was lost.
    fn take_parked(&self, core: &mut Core) -> FsResult<()> {
        for file in self.parked()? {
            if self.object_of(file)?.kind.is_none() {
                self.clear_unknown(file)?;
                continue;
            }
            let mut change = Change::new(self, core);
            change.local_mut(file)?.parked = true;
            change.commit()?;
            self.judge_file(core, file, Unnoted::default(), core.lost(), &mut Vec::new())?;
        }
        Ok(())
    }

    /// Judges a name whose mark says who it is. None: it is taken as new, or as one more name.
    pub(super) fn take_marked(
        &self,
        core: &mut Core,
        place: &Place,
        mark: Option<&Mark>,
        kind: &Kind,
        todo: &mut Vec<FileId>,
    ) -> FsResult<Option<Option<FileId>>> {
        let Some(mark) = mark.filter(|m| m.file != FileId::ROOT) else { return Ok(None) };
        let (file, object) = (mark.file, self.object_of(mark.file)?);
        let Some(known) = &object.kind else {
            if kind.is_file() && mark.version.is_none() {
                let at = self.at_place(core, place)?;
                if has_holes(&at)? {
                    // Of a file that nobody knows any more, and of which not all bytes were here.
                    self.keep_unjudged(&at, file)?;
                    return Ok(Some(None));
                }
            }
            return Ok(None);
        };
        if known.is_dir() != kind.is_dir() || known.is_file() != kind.is_file() {
            return Ok(None);
        }
        let local = self.local_or_none(file)?;
        if local.on_disk() {
            // One more name of the same inode, or a copy that took the mark along.
            return Ok(None);
        }
        let placed = |l: &Link| l.place.as_ref().map(|reg| &reg.value) == Some(place);
        let link = object
            .links
            .iter()
            .filter(|(_, l)| l.place.is_some())
            .max_by_key(|(id, l)| (object.is_live(l) && placed(l), object.is_live(l), placed(l), **id));
        let Some((link, _)) = link else { return Ok(None) };
        let mut change = Change::new(self, core);
        self.found_at(&mut change, file, *link, place, kind)?;
        change.commit()?;
        self.judge_file(core, file, Unnoted::default(), core.lost(), todo)?;
        todo.push(file);
        Ok(Some(kind.is_dir().then_some(file)))
    }
}
