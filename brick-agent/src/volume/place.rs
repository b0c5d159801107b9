//! What the merged objects want, brought about in `data/`.
//!
//! Each object in turn is put where it belongs; others that stand in the way are
//! parked in `staging/` and put in their own places next. Everything can be done
//! twice: what an end in the middle left undone is found in the table `todo`.
//!
//! Bytes that programs here are changing are never removed: a deletion by a peer
//! waits until the file is settled, and by then the edit beats the delete.

use std::collections::{BTreeMap, HashMap, VecDeque};

use nearbrick_core::tree::{self, Verdict};
use nearbrick_core::{FileId, Kind, LinkId, Object, Place, Stamp, acl, name};
use rustix::fs::{OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::amiss;
use super::change::Change;
use super::core::{At, Core};
use super::making::d_type;
use super::names::MAX_DEPTH;
use super::opening::{Standing, standing};
use super::types::{FsResult, SetTime};
use super::versions::Why;
use super::{Volume, index_failed};
use crate::brick::access;
use crate::brick::disk::File;
use crate::brick::mark::Mark;
use crate::index::{Local, Overlay, Shown};

/// How often one object may come up in one go, before it is left for the next.
const MAX_VISITS: u32 = 16;

/// Where a directory wants to be: by its live link, or by its last one.
fn dir_link(object: &Object) -> Option<(LinkId, Place, Stamp, bool)> {
    let live = object.live_links().next().map(|(link, reg)| (link, reg.value.clone(), reg.stamp, true));
    live.or_else(|| {
        object
            .links
            .iter()
            .filter_map(|(link, l)| l.place.as_ref().map(|reg| (*link, reg.value.clone(), reg.stamp, false)))
            .max_by_key(|(link, _, stamp, _)| (*stamp, *link))
    })
}

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
                Ok(()) => moved = true,
                Err(error) => failed.push((file, error)),
            }
        }
        for (file, error) in failed {
            tracing::warn!(%file, %error, "cannot be put in its place yet");
            self.settler.again();
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

    fn put_in_place(&self, core: &mut Core, file: FileId, ahead: &mut VecDeque<FileId>) -> FsResult<()> {
        let object = self.object_of(file)?;
        self.is_still_parked(core, file)?;
        if Self::is_held(core, file, &object) {
            // It stays, and is tried again when a person has looked.
            let mut change = Change::new(self, core);
            change.todo(file, true);
            return change.commit().map(drop);
        }
        match &object.kind {
            None => {}
            Some(_) if file == FileId::ROOT => self.adjust(core, file, &object)?,
            Some(Kind::Dir) => self.put_dir(core, file, &object, ahead)?,
            Some(kind) => self.put_other(core, file, &object, kind, ahead)?,
        }
        let mut change = Change::new(self, core);
        change.todo(file, false);
        change.commit().map(drop)
    }

    /// What waited for its place may be nowhere, after the power was lost.
    fn is_still_parked(&self, core: &mut Core, file: FileId) -> FsResult<()> {
        let local = self.local_or_none(file)?;
        if !local.parked
            || access::stat(&self.brick.staging, crate::index::parked_name(file).as_bytes())
                != Err(Errno::NOENT)
        {
            return Ok(());
        }
        let mut change = Change::new(self, core);
        if local.placed.is_empty() && !local.broken && local.merged_into.is_none() {
            change.forget_local(file)?;
        } else {
            change.local_mut(file)?.parked = false;
        }
        self.right(&mut change, file)?;
        change.commit().map(drop)
    }

    /// The parent in which a directory is to be shown: its own, or the root if it closed a cycle.
    fn shown_parent(&self, dir: FileId) -> FsResult<Option<FileId>> {
        let failed = std::cell::Cell::new(None);
        let parent_of = |at: FileId| match self.object_of(at) {
            _ if at == FileId::ROOT => None,
            Ok(object) => dir_link(&object).map(|(_, place, stamp, _)| (place.parent, stamp)),
            Err(error) => {
                failed.set(Some(error));
                None
            }
        };
        let parent = tree::shown_parent(dir, &parent_of);
        failed.get().map_or(Ok(parent), Err)
    }

    /// The directory on the disk in which the children of `dir` are shown. It, and those
    /// above it, are put in their places first. None if it is not known yet.
    fn ensure_dir(
        &self,
        core: &mut Core,
        dir: FileId,
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<Option<FileId>> {
        let mut missing = Vec::new();
        let (mut at, mut merged) = (dir, 0);
        loop {
            if at == FileId::ROOT {
                break;
            }
            let local = self.local_or_none(at)?;
            if let Some(into) = local.merged_into {
                merged += 1;
                if merged > MAX_DEPTH {
                    return Ok(None);
                }
                at = into;
                continue;
            }
            if local.on_disk() {
                break;
            }
            if !self.object_of(at)?.kind.as_ref().is_some_and(Kind::is_dir) {
                return Ok(None);
            }
            if missing.contains(&at) || missing.len() > MAX_DEPTH {
                return Ok(None);
            }
            missing.push(at);
            match self.shown_parent(at)? {
                Some(parent) => at = parent,
                None => return Ok(None),
            }
        }
        for &above in missing.iter().rev() {
            self.put_in_place(core, above, ahead)?;
        }
        let to = self.merged_to(dir)?;
        let there = to == FileId::ROOT || self.local_or_none(to)?.on_disk();
        Ok(there.then_some(to))
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
            let taken = self.shown(&place)?.is_some_and(|s| s.link != link);
            if !taken && self.claims(core, &place)?.is_empty() {
                break;
            }
            place.name = name::conflict_name(&first, "again", n);
        }
        Ok(place)
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
        change.refresh_print(file)?;
        change.todo(file, true);
        change.commit()?;
        self.invalidate_entry(core, place);
        if file != by {
            ahead.push_back(file);
        }
        Ok(())
    }

    fn rename_to(&self, core: &mut Core, from: &At, to: &Place) -> FsResult<()> {
        let at = self.at_place(core, to)?;
        access::rename(&from.dir, &from.name, &at.dir, &at.name, RenameFlags::NOREPLACE)
    }

    // --- directories ---

    fn put_dir(
        &self,
        core: &mut Core,
        file: FileId,
        object: &Object,
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<()> {
        let Some((link, want, _, live)) = dir_link(object) else { return Ok(()) };
        let mut local = self.local_or_none(file)?;
        let needed = !live && (self.index.is_wanted(file) || self.index.has_children(file));
        let need = needed.then(|| (link, want.clone()));
        if local.needed != need {
            let mut change = Change::new(self, core);
            change.need(file, need)?;
            let done = change.commit()?;
            self.with_claims(core, &done.places, ahead)?;
        }
        let mut belongs = None;
        if live || needed {
            let Some(parent) = self.shown_parent(file)? else { return Ok(()) };
            self.set_broken(core, file, parent != want.parent, ahead)?;
            match self.belongs(core, link, parent, &want.name, ahead)? {
                // It stays where it is until its parent is known.
                Belongs::Unknown => return Ok(()),
                known => belongs = Some(known),
            }
        } else {
            self.set_broken(core, file, false, ahead)?;
        }
        let into = match &belongs {
            Some(Belongs::In(dir)) => Some(*dir),
            _ => None,
        };
        self.set_merged(core, file, into, ahead)?;
        local = self.local_or_none(file)?;
        let Some(Belongs::At(place)) = belongs else {
            return self.remove_dir(core, file, &local, ahead);
        };
        let was: Vec<_> = local.placed.values().cloned().collect();
        if was.as_slice() == [place.clone()] && !local.placed.contains_key(&link) {
            // It is there under another of its names, which is gone.
            let mut change = Change::new(self, core);
            change.show(&place, Some(Shown { file, link, kind: libc::DT_DIR }));
            change.local_mut(file)?.placed = BTreeMap::from([(link, place.clone())]);
            change.commit()?;
        }
        if was.as_slice() != [place.clone()] {
            if local.on_disk() && self.is_below(place.parent, file)? {
                // The other way round on the disk: those that it belongs in go out of it first.
                self.raise(file, place.parent, ahead)?;
                return Err(Errno::INVAL);
            }
            self.vacate(core, &place, file, ahead)?;
            let new = !local.on_disk();
            if new {
                self.make_at(core, file, object, &Kind::Dir, &place)?;
            } else {
                let from = self.at(core, file, &local)?;
                self.rename_to(core, &from, &place)?;
            }
            let mut change = Change::new(self, core);
            for old in &was {
                change.show(old, None);
            }
            change.show(&place, Some(Shown { file, link, kind: libc::DT_DIR }));
            let local = change.local_mut(file)?;
            local.placed = BTreeMap::from([(link, place.clone())]);
            local.parked = false;
            change.commit()?;
            if new {
                ahead.extend(self.index.wanted_in(file).map_err(index_failed)?);
            }
            for old in &was {
                self.invalidate_entry(core, old);
                self.left(old.parent, ahead)?;
            }
            self.invalidate_entry(core, &place);
            ahead.extend(core.broken.iter().filter(|b| **b != file).copied());
        }
        self.adjust(core, file, object)
    }

    /// The directories in which `dir` belongs are looked at again.
    fn raise(&self, dir: FileId, parent: FileId, ahead: &mut VecDeque<FileId>) -> FsResult<()> {
        let mut at = parent;
        for _ in 0..MAX_DEPTH {
            if at == FileId::ROOT || at == dir {
                break;
            }
            ahead.push_back(at);
            let Some((_, place, _, _)) = dir_link(&self.object_of(at)?) else { break };
            at = place.parent;
        }
        Ok(())
    }

    fn set_broken(
        &self,
        core: &mut Core,
        dir: FileId,
        broken: bool,
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<()> {
        if self.local_or_none(dir)?.broken == broken {
            return Ok(());
        }
        let mut change = Change::new(self, core);
        change.local_mut(dir)?.broken = broken;
        change.commit()?;
        if broken {
            core.broken.insert(dir);
        } else {
            core.broken.remove(&dir);
        }
        // Those of the cycle are looked at again.
        let mut at = dir;
        for _ in 0..MAX_DEPTH {
            let Some((_, place, _, _)) = dir_link(&self.object_of(at)?) else { break };
            if place.parent == FileId::ROOT || place.parent == dir {
                break;
            }
            at = place.parent;
            ahead.push_back(at);
        }
        Ok(())
    }

    fn set_merged(
        &self,
        core: &mut Core,
        dir: FileId,
        into: Option<FileId>,
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<()> {
        let before = self.local_or_none(dir)?.merged_into;
        if before == into {
            return Ok(());
        }
        // Where the other one has the name now: it was in this one, and is put in its place only after this.
        let mut to = into;
        for _ in 0..MAX_DEPTH {
            let Some(at) = to else { break };
            to = self.local_or_none(at)?.merged_into;
            if to == Some(dir) {
                self.set_merged(core, at, None, ahead)?;
                break;
            }
        }
        let mut change = Change::new(self, core);
        change.local_mut(dir)?.merged_into = into;
        change.commit()?;
        if let Some(before) = before
            && let Some(merged) = core.merged.get_mut(&before)
        {
            merged.remove(&dir);
        }
        if let Some(into) = into {
            core.merged.entry(into).or_default().insert(dir);
            ahead.push_back(into);
        }
        ahead.extend(self.index.wanted_in(dir).map_err(index_failed)?);
        ahead.push_back(dir);
        Ok(())
    }

    /// Removes a directory from the disk once nothing is in it.
    fn remove_dir(
        &self,
        core: &mut Core,
        file: FileId,
        local: &Local,
        ahead: &mut VecDeque<FileId>,
    ) -> FsResult<()> {
        if !local.on_disk() || self.index.has_children(file) {
            return Ok(());
        }
        let at = self.at(core, file, local)?;
        self.hold(core, file, &at);
        match access::rmdir(&at.dir, &at.name) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        let mut change = Change::new(self, core);
        local.placed.values().for_each(|place| change.show(place, None));
        let now = change.local_mut(file)?;
        now.placed.clear();
        now.parked = false;
        if now.merged_into.is_none() && !now.broken && now.needed.is_none() {
            change.forget_local(file)?;
        }
        change.commit()?;
        for place in local.placed.values() {
            self.invalidate_entry(core, place);
            self.left(place.parent, ahead)?;
        }
        core.nodes.detach(file);
        core.forget_dir(file);
        Ok(())
    }

    // --- all else ---

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
        let said = object.holders.contains_key(&self.me) || object.writers.contains_key(&self.me);
        if said && !local.on_disk() && object.exists(file) {
            // It was removed here, and someone brought its name back: the bytes went with it.
            let mut change = Change::new(self, core);
            self.right(&mut change, file)?;
            change.commit()?;
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
                let mut change = Change::new(self, core);
                change.show(place, Some(Shown { file, link: *link, kind: d_type(kind) }));
                let now = change.local_mut(file)?;
                if let Some((old_link, old)) = &was {
                    now.placed.remove(old_link);
                    change.show(old, None);
                }
                let now = change.local_mut(file)?;
                now.placed.insert(*link, place.clone());
                now.parked = false;
                change.refresh_print(file)?;
                change.commit()?;
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
                change.refresh_print(file)?;
                change.commit()?;
                self.invalidate_entry(core, &place);
                self.left(place.parent, ahead)?;
            }
        }
        self.adjust(core, file, object)
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
        let label = local
            .have
            .as_ref()
            .map(|have| self.label(object, have, self.path_to_keep(object, local), Why::Deleted));
        let mut change = Change::new(self, core);
        local.placed.values().for_each(|place| change.show(place, None));
        change.forget_local(file)?;
        change.commit()?;
        // All names but one, so that what is kept has no other.
        for place in local.placed.values().skip(usize::from(!local.parked)) {
            self.unlink_at(core, place)?;
        }
        let kept = match (&local.have, &label) {
            (Some(have), Some(label)) => {
                self.move_to_versions(&at, file, have, label).unwrap_or_else(|error| {
                    tracing::warn!(%file, %error, "a deleted file cannot be kept in versions/");
                    false
                })
            }
            _ => false,
        };
        if !kept {
            match access::unlink(&at.dir, &at.name) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        for place in local.placed.values() {
            self.invalidate_entry(core, place);
            self.left(place.parent, ahead)?;
        }
        core.nodes.detach(file);
        Ok(())
    }

    /// Whether someone changed the complete file here past the mount.
    pub(super) fn changed_behind(&self, core: &mut Core, file: FileId, local: &Local) -> FsResult<bool> {
        if local.dirty || local.have.is_none() {
            return Ok(false);
        }
        let at = self.at(core, file, local)?;
        let print = super::change::print_of(&access::stat(&at.dir, &at.name)?);
        Ok(local.print.is_some_and(|p| p != print) && !core.amiss.is_only_touched(file, &print))
    }

    /// A file that was changed past the mount is a program's edit like any other.
    pub(super) fn adopt_change(&self, core: &mut Core, file: FileId, local: &Local) -> FsResult<()> {
        tracing::warn!(%file, "was changed in the brick, past the mount: taken as an edit");
        let object = self.object_of(file)?;
        self.mark_dirty(core, file, &object, local, false)?;
        let mut change = Change::new(self, core);
        change.local_mut(file)?.print = None;
        change.commit()?;
        self.settler.soon(file);
        Ok(())
    }

    // --- on the disk ---

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
        let made = Self::make_on_disk(&staged.dir, &staged.name, kind)
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
        access::set_mark(&at.dir, &at.name, &Mark::new(file, None))?;
        if let Some(open) = open {
            open.truncate(object.size())?;
        }
        set_owner_and_mode(at, object, kind)?;
        set_xattrs(at, object)?;
        set_mtime(at, object)
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
        let open = Self::make_on_disk(&staged.dir, &staged.name, &Kind::File)?;
        self.dress(&staged, open.as_ref(), file, object, &Kind::File)?;
        self.rename_over(core, &staged, local)?;
        let mut change = Change::new(self, core);
        let now = change.local_mut(file)?;
        now.filling = None;
        now.filled.clear();
        now.synced = None;
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
            let (sec, nsec) = super::change::print_of(&before).mtime;
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
        // Before the print of an edit past the mount is lost.
        if kind.is_file() && self.changed_behind(core, file, &local)? {
            return self.adopt_change(core, file, &local);
        }
        set_owner_and_mode(&at, object, kind)?;
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
        if standing == Standing::Stub
            && local.filling.as_ref() != object.head().map(|h| &h.version)
            && change.core.nodes.of(file).is_none_or(|n| n.opens == 0)
        {
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

/// Owner and mode as the object says.
pub(super) fn set_owner_and_mode(at: &At, object: &Object, kind: &Kind) -> FsResult<()> {
    let Some(attr) = object.attr.as_ref().map(|reg| reg.value) else { return Ok(()) };
    let now = access::stat(&at.dir, &at.name)?;
    let mut mode = now.st_mode & 0o7777;
    if (now.st_uid, now.st_gid) != (attr.uid, attr.gid) {
        access::chown(&at.dir, &at.name, Some(attr.uid), Some(attr.gid))?;
        // The kernel may have taken bits away.
        mode = u32::MAX;
    }
    if mode != attr.mode && !matches!(kind, Kind::Symlink(_)) {
        access::chmod(&at.dir, &at.name, attr.mode)?;
    }
    Ok(())
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
    let Some(mtime) = object.mtime.as_ref().map(|reg| reg.value) else { return Ok(()) };
    let time = SetTime::At(access::time(mtime.0, mtime.1));
    access::utimens(&at.dir, &at.name, None, Some(time))
}
