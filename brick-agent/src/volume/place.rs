//! What the merged objects want, brought about in `data/`.
//!
//! Each object in turn is put where it belongs; others that stand in the way are
//! parked in `staging/` and put in their own places next. Everything can be done
//! twice: what an end in the middle left undone is found in the table `todo`.
//!
//! Bytes that programs here are changing are never removed: a deletion by a peer
//! waits until the file is settled, and by then the edit beats the delete.

mod directories;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use nearbrick_core::recover::End;
use nearbrick_core::tree::Verdict;
use nearbrick_core::{FileId, Kind, LinkId, Object, Place, VersionVector, name};
use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::{At, Core};
use super::judge::is_hollow;
use super::making::d_type;
use super::types::FsResult;
use super::versions::{Label, Why};
use crate::brick::access;
use crate::index::{Local, Print, Shown};

/// How often one object may come up in one go, before it is left for the next.
const MAX_VISITS: u32 = 16;

/// Where one link belongs.
enum Belongs {
    /// Here.
    At(Place),
    /// The directory is shown in this other one.
    In(FileId),
    /// Its parent is not known yet.
    Unknown,
}

/// Whether it is the disk that refuses, rather than that something else has to move first.
fn may_be_the_disk(error: Errno) -> bool {
    !matches!(error, Errno::INVAL | Errno::EXIST | Errno::NOTEMPTY | Errno::NOENT)
}

impl Volume {
    /// Puts these objects, and what follows from that, in their places. What
    /// cannot be done now stays in the table `todo`.
    pub(super) fn bring_about(&self, core: &mut Core, files: Vec<FileId>) {
        let mut ahead = VecDeque::from(files);
        let mut visits: HashMap<FileId, u32> = HashMap::new();
        // What could not be done is tried again when others have moved: one may have stood in the other's way.
        let (mut failed, mut moved) = (Vec::new(), false);
        let mut done = BTreeSet::new();
        loop {
            let Some(file) = ahead.pop_front() else {
                if failed.is_empty() || !std::mem::take(&mut moved) {
                    break;
                }
                ahead.extend(failed.drain(..).map(|(file, _)| file));
                continue;
            };
            let visit = visits.entry(file).or_default();
            *visit += 1;
            if *visit > MAX_VISITS {
                tracing::warn!(%file, "does not come to rest in its place; it is tried again later");
                continue;
            }
            match self.put_in_place(core, file, &mut ahead) {
                Ok(is_done) => {
                    moved = true;
                    if is_done {
                        done.insert(file);
                    } else {
                        done.remove(&file);
                    }
                }
                Err(error) => failed.push((file, error)),
            }
        }
        // Together: should it not come to that, they are looked at once more, and found to be in their places.
        if !done.is_empty() {
            let mut change = Change::new(self, core);
            done.into_iter().for_each(|file| change.todo(file, false));
            let _ = change.commit();
        }
        for (file, error) in failed {
            tracing::warn!(%file, %error, "cannot be put in its place yet");
            self.settler.again();
            if matches!(error, Errno::EXIST | Errno::NOENT) {
                self.is_taken(core, file);
            }
            // What was said while it was tried says more.
            if may_be_the_disk(error) && !self.has_said_of(file) {
                let message = format!("file {file} cannot be put in its place yet: {error}");
                self.note_error(super::reason_of(error), message);
            }
            let mut change = Change::new(self, core);
            change.todo(file, true);
            let _ = change.commit();
        }
    }

    /// Something that the index does not know has the object's place, or it is not where the index says: what was done before and
    /// could not be said.
    fn is_taken(&self, core: &mut Core, file: FileId) {
        let Ok(object) = self.object_of(file) else { return };
        let parents = object.live_links().map(|(_, reg)| reg.value.parent);
        let dirs: Vec<_> = parents.filter_map(|parent| self.merged_to(parent).ok()).collect();
        self.names_not_said(core, dirs);
    }

    /// Whether it is done with; if not, it stays in the table `todo`.
    fn put_in_place(&self, core: &mut Core, file: FileId, ahead: &mut VecDeque<FileId>) -> FsResult<bool> {
        let object = self.object_of(file)?;
        self.is_still_parked(core, file)?;
        if Self::is_held(core, file, &object) {
            // It stays, and is tried again when a person has looked.
            let mut change = Change::new(self, core);
            change.todo(file, true);
            return change.commit().map(|_| false);
        }
        match &object.kind {
            None => {}
            Some(_) if file == FileId::ROOT => self.adjust(core, file, &object)?,
            Some(Kind::Dir) => self.put_dir(core, file, &object, ahead)?,
            Some(kind) => self.put_other(core, file, &object, kind, ahead)?,
        }
        Ok(true)
    }

    fn belongs(
        &self,
        core: &mut Core,
        link: LinkId,
        parent: FileId,
        wanted: &[u8],
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<Belongs> {
        let Some(parent) = self.ensure_dir(core, parent, ahead)? else { return Ok(Belongs::Unknown) };
        let place = Place { parent, name: wanted.to_vec() };
        Ok(match self.verdict(core, &place, link)? {
            None | Some(Verdict::Keeps) => Belongs::At(place),
            Some(Verdict::MergedInto(dir)) => Belongs::In(dir),
            Some(Verdict::Sibling(name)) => Belongs::At(self.sibling_place(core, parent, name, link)?),
        })
    }

    /// The conflict name, or the next one if that is someone's own.
    fn sibling_place(&self, core: &Core, parent: FileId, first: Vec<u8>, link: LinkId) -> FsResult<Place> {
        let mut place = Place { parent, name: first.clone() };
        for n in 1..100 {
            let taken = match self.shown(&place)? {
                Some(shown) if shown.link != link => !self.is_own_old_name(shown, link)?,
                _ => false,
            };
            if !taken && self.claims(core, &place)?.is_empty() {
                break;
            }
            place.name = name::conflict_name(&first, "again", n);
        }
        Ok(place)
    }

    /// Whether what is shown is the object of this link, under a name that it does not want any more.
    fn is_own_old_name(&self, shown: Shown, link: LinkId) -> FsResult<bool> {
        let object = self.object_of(shown.file)?;
        Ok(object.links.contains_key(&link) && !object.live_links().any(|(live, _)| live == shown.link))
    }

    /// Others that want these places too, whose verdict may have changed.
    pub(super) fn with_claims(
        &self,
        core: &Core,
        places: &[Place],
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<()> {
        for place in places {
            let parent = self.merged_to(place.parent)?;
            if self.local_or_none(place.parent)?.needed.is_some() {
                ahead.push_back(place.parent);
            }
            let place = Place { parent, name: place.name.clone() };
            ahead.extend(self.claims(core, &place)?.into_iter().map(|c| c.file));
        }
        Ok(())
    }

    /// After something left `parent`: it may have been kept only for that.
    fn left(&self, parent: FileId, ahead: &mut VecDeque<FileId>) -> FsResult<()> {
        let local = self.local_or_none(parent)?;
        if local.needed.is_some() || local.merged_into.is_some() {
            ahead.push_back(parent);
        }
        Ok(())
    }

    /// Makes a place free on the disk: who is there is parked, and put in its own place next.
    fn vacate(
        &self,
        core: &mut Core,
        place: &Place,
        by: FileId,
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<()> {
        let Some(there) = self.shown(place)? else { return Ok(()) };
        let file = there.file;
        let local = self.local_or_none(file)?;
        let at = self.at_place(core, place)?;
        let elsewhere = local.placed.len() > 1;
        if elsewhere {
            access::unlink(&at.dir, &at.name)?;
        } else {
            let parked = crate::index::parked_name(file).into_bytes();
            access::rename(&at.dir, &at.name, &self.brick.staging, &parked, RenameFlags::NOREPLACE)?;
        }
        let mut change = Change::new(self, core);
        change.show(place, None);
        let local = change.local_mut(file)?;
        local.placed.remove(&there.link);
        local.parked = !elsewhere;
        change.todo(file, true);
        let said = change.refresh_print(file).and_then(|()| change.commit());
        if let Err(error) = said {
            let parked = crate::index::parked_name(file).into_bytes();
            let staging = &self.brick.staging;
            let back = || access::rename(staging, &parked, &at.dir, &at.name, RenameFlags::NOREPLACE);
            if elsewhere || back().is_err() {
                self.names_not_said(core, [place.parent]);
            }
            return Err(error);
        }
        self.invalidate_entry(core, place);
        if file != by {
            ahead.push_back(file);
        }
        Ok(())
    }

    /// Puts what is at `from` on the disk under a free name.
    pub(super) fn rename_to(&self, core: &mut Core, from: &At, to: &Place) -> FsResult<()> {
        let at = self.at_place(core, to)?;
        access::rename(&from.dir, &from.name, &at.dir, &at.name, RenameFlags::NOREPLACE)
    }

    fn put_other(
        &self,
        core: &mut Core,
        file: FileId,
        object: &Object,
        kind: &Kind,
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<()> {
        let mut wanted = BTreeMap::new();
        let mut unknown = false;
        for (link, reg) in object.live_links() {
            match self.belongs(core, link, reg.value.parent, &reg.value.name, ahead)? {
                Belongs::At(place) => drop(wanted.insert(link, place)),
                Belongs::In(_) => {}
                Belongs::Unknown => unknown = true,
            }
        }
        let mut local = self.local_or_none(file)?;
        let righted;
        let mut object = object;
        let said = object.holders.contains_key(&self.me) || object.writers.contains_key(&self.me);
        if said && !local.on_disk() && object.exists(file) {
            // It was removed here, and someone brought its name back: the bytes went with it, unless they were kept.
            if !wanted.is_empty() && self.bring_back_kept(core, file, object)? {
                local = self.local_or_none(file)?;
            }
            let mut change = Change::new(self, core);
            self.right(&mut change, file)?;
            change.commit()?;
            // What nobody holds any more may have been the newest version.
            righted = self.object_of(file)?;
            object = &righted;
        }
        if wanted.is_empty() {
            if !unknown && !object.exists(file) {
                return self.remove_other(core, file, object, &local, ahead);
            }
            return Ok(());
        }
        for (link, place) in &wanted {
            if local.placed.get(link) != Some(place) {
                self.vacate(core, place, file, ahead)?;
                local = self.local_or_none(file)?;
                let was = self.put_name(core, file, object, kind, &local, *link, place, &wanted)?;
                let said = self.is_placed(core, file, kind, *link, place, was.as_ref());
                if said.is_err() {
                    let old = was.as_ref().map(|(_, old)| old.parent);
                    self.names_not_said(core, old.into_iter().chain([place.parent]));
                }
                said?;
                if let Some((_, old)) = &was {
                    self.invalidate_entry(core, old);
                    self.left(old.parent, ahead)?;
                }
                self.invalidate_entry(core, place);
                local = self.local_or_none(file)?;
            }
        }
        if !unknown {
            let extra: Vec<_> = local
                .placed
                .iter()
                .filter(|(l, _)| !wanted.contains_key(l))
                .map(|(l, p)| (*l, p.clone()))
                .collect();
            for (link, place) in extra {
                self.unlink_at(core, &place)?;
                let mut change = Change::new(self, core);
                change.show(&place, None);
                change.local_mut(file)?.placed.remove(&link);
                if let Err(error) = change.refresh_print(file).and_then(|()| change.commit()) {
                    self.names_not_said(core, [place.parent]);
                    return Err(error);
                }
                self.invalidate_entry(core, &place);
                self.left(place.parent, ahead)?;
            }
        }
        self.adjust(core, file, object)
    }

    /// Says that an object has its place on the disk, and that another of its names went for that.
    fn is_placed(
        &self,
        core: &mut Core,
        file: FileId,
        kind: &Kind,
        link: LinkId,
        place: &Place,
        was: Option<&(LinkId, Place)>,
    ) -> FsResult<()> {
        let mut change = Change::new(self, core);
        change.show(place, Some(Shown { file, link, kind: d_type(kind) }));
        if let Some((old_link, old)) = was {
            change.local_mut(file)?.placed.remove(old_link);
            change.show(old, None);
        }
        let local = change.local_mut(file)?;
        local.placed.insert(link, place.clone());
        local.parked = false;
        change.refresh_print(file)?;
        change.commit().map(drop)
    }

    fn unlink_at(&self, core: &mut Core, place: &Place) -> FsResult<()> {
        let at = self.at_place(core, place)?;
        match access::unlink(&at.dir, &at.name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the object a name on the disk; says which other name it took for that.
    #[allow(clippy::too_many_arguments)]
    fn put_name(
        &self,
        core: &mut Core,
        file: FileId,
        object: &Object,
        kind: &Kind,
        local: &Local,
        link: LinkId,
        place: &Place,
        wanted: &BTreeMap<LinkId, Place>,
    ) -> FsResult<Option<(LinkId, Place)>> {
        if !local.on_disk() {
            self.make_at(core, file, object, kind, place)?;
            return Ok(None);
        }
        // Its own old name, or one that is not wanted any more.
        let own = local.placed.get(&link).map(|p| (link, p.clone()));
        let spare =
            || local.placed.iter().find(|(l, _)| !wanted.contains_key(l)).map(|(l, p)| (*l, p.clone()));
        if local.parked {
            let from = self.at(core, file, local)?;
            self.rename_to(core, &from, place)?;
            return Ok(None);
        }
        if let Some((old_link, old)) = own.or_else(spare) {
            let from = self.at_place(core, &old)?;
            self.rename_to(core, &from, place)?;
            return Ok(Some((old_link, old)));
        }
        let (from, to) = (self.at(core, file, local)?, self.at_place(core, place)?);
        access::link(&from.dir, &from.name, &to.dir, &to.name)?;
        Ok(None)
    }

    fn remove_other(
        &self,
        core: &mut Core,
        file: FileId,
        object: &Object,
        local: &Local,
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<()> {
        if !local.on_disk() {
            return Ok(());
        }
        if local.dirty {
            // Its settling brings it up again.
            self.settler.soon(file);
            return Ok(());
        }
        if self.changed_behind(core, file, local)? {
            return self.adopt_change(core, file, local);
        }
        let at = self.at(core, file, local)?;
        self.hold(core, file, &at);
        self.keep_open(core, file);
        let label = local.have.as_ref().map(|have| {
            let mut label = self.label(object, have, self.path_to_keep(object, local), Why::Deleted);
            label.durable = local.synced.as_ref().is_some_and(|synced| synced.includes(have));
            label
        });
        let mut change = Change::new(self, core);
        local.placed.values().for_each(|place| change.show(place, None));
        change.forget_local(file)?;
        change.commit()?;
        let mut names = local.placed.clone();
        if let Err(error) = self.remove_names(core, file, local, &at, label.as_ref(), &mut names) {
            // The disk keeps it: so the index says again that it is there.
            let mut change = Change::new(self, core);
            let kind = object.kind.as_ref().map_or(libc::DT_UNKNOWN, d_type);
            names
                .iter()
                .for_each(|(link, place)| change.show(place, Some(Shown { file, link: *link, kind })));
            *change.local_mut(file)? = Local { placed: names, ..local.clone() };
            change.commit()?;
            return Err(error);
        }
        for place in local.placed.values() {
            self.invalidate_entry(core, place);
            self.left(place.parent, ahead)?;
        }
        core.nodes.detach(file);
        Ok(())
    }

    /// Takes an object off the disk: all names but one first, so that what is kept has no other. What is left of its
    /// names if that fails is in `names`.
    fn remove_names(
        &self,
        core: &mut Core,
        file: FileId,
        local: &Local,
        last: &At,
        label: Option<&Label>,
        names: &mut BTreeMap<LinkId, Place>,
    ) -> FsResult<()> {
        for (link, place) in local.placed.iter().skip(usize::from(!local.parked)) {
            self.unlink_at(core, place)?;
            names.remove(link);
        }
        if let (Some(have), Some(label)) = (&local.have, label) {
            match self.move_to_versions(last, file, have, label) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => tracing::warn!(%file, %error, "a deleted file cannot be kept in versions/"),
            }
        }
        match access::unlink(&last.dir, &last.name) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether someone changed the file here past the mount: a complete one, or a stub, in which bytes are then that nobody brought. How a
    /// stub looks is known only while nobody has it open.
    pub(super) fn changed_behind(&self, core: &mut Core, file: FileId, local: &Local) -> FsResult<bool> {
        let Some(then) = local.print.filter(|_| !local.dirty) else { return Ok(false) };
        if local.have.is_none() {
            return self.is_stub_written(core, file, local, &then);
        }
        let at = self.at(core, file, local)?;
        let print = print_of(&access::stat(&at.dir, &at.name)?);
        Ok(then != print && !core.amiss.is_only_touched(file, &print))
    }

    /// Whether there are bytes in a stub that the agent did not put there. One that is marked as a version is a whole copy of which the end
    /// came before it was said; and what is nothing but a hole is no one's work.
    fn is_stub_written(&self, core: &mut Core, file: FileId, local: &Local, then: &Print) -> FsResult<bool> {
        if !local.is_stub() {
            return Ok(false);
        }
        let at = self.at(core, file, local)?;
        let raw = match access::stat(&at.dir, &at.name) {
            // What became of the name a look through the brick finds.
            Err(Errno::NOENT) => return Ok(false),
            raw => raw?,
        };
        if FileType::from_raw_mode(raw.st_mode) != FileType::RegularFile
            || print_of(&raw).has_bytes_of(then)
            || is_hollow(&at)?
        {
            return Ok(false);
        }
        let mark = access::get_mark(&at.dir, &at.name)?;
        Ok(mark.and_then(|mark| mark.version).is_none_or(|version| version.is_empty()))
    }

    /// A file that was changed past the mount is a program's edit like any other.
    pub(super) fn adopt_change(&self, core: &mut Core, file: FileId, local: &Local) -> FsResult<()> {
        if local.have.is_none() {
            // Of which version what was there before is nobody can say.
            return self.is_edit(core, file, VersionVector::new(), End::Running);
        }
        tracing::warn!(%file, "was changed in the brick, past the mount: taken as an edit");
        let object = self.object_of(file)?;
        self.mark_dirty(core, file, &object, local, false)?;
        let mut change = Change::new(self, core);
        change.local_mut(file)?.print = None;
        change.commit()?;
        self.settler.soon(file);
        Ok(())
    }
}
