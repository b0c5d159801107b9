//! Directories in their places: whose parents come first, which merge, which close a cycle.

use std::collections::{BTreeMap, VecDeque};

use nearbrick_core::tree;
use nearbrick_core::{FileId, Kind, LinkId, Object, Place, Stamp};
use rustix::io::Errno;

use super::Belongs;
use crate::brick::access;
use crate::index::{Local, Shown};
use crate::volume::change::Change;
use crate::volume::core::Core;
use crate::volume::names::MAX_DEPTH;
use crate::volume::types::FsResult;
use crate::volume::{Volume, index_failed};

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

impl Volume {
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
    pub(super) fn ensure_dir(
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

    /// Puts a directory where it belongs, or removes it.
    pub(super) fn put_dir(
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
            if let Err(error) = change.commit() {
                self.names_not_said(core, was.iter().map(|old| old.parent).chain([place.parent]));
                return Err(error);
            }
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
        let inside = self.index.wanted_in(dir).map_err(index_failed)?;
        ahead.extend(&inside);
        ahead.push_back(dir);
        // What leaves the other one leaves names to who has another name there because of it.
        if let Some(before) = before {
            let mut places = Vec::new();
            for file in inside {
                let object = self.object_of(file)?;
                let here = object.live_links().filter(|(_, reg)| reg.value.parent == dir);
                places.extend(here.map(|(_, reg)| Place { parent: before, name: reg.value.name.clone() }));
            }
            self.with_claims(core, &places, ahead)?;
        }
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
}
