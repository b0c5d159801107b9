//! What waits in `staging/`, out of the way of others, until it is put in its own place: as the disk and the index have it after an
//! end without notice. What is in a directory that waits there is there with it.

use std::collections::{BTreeSet, HashSet};

use nearbrick_core::{FileId, Kind, Place};
use rustix::fs::{FileType, RenameFlags};
use rustix::io::Errno;

use super::change::Change;
use super::core::{At, Core};
use super::judge::is_hollow;
use super::types::FsResult;
use super::walk::Found;
use super::{Volume, index_failed};
use crate::brick::access;
use crate::brick::disk::Dir;
use crate::index::{Local, parked_name};

impl Volume {
    /// Objects that are parked, also those of which that was not said before the end came.
    pub(super) fn parked(&self) -> FsResult<BTreeSet<FileId>> {
        let file = |(name, _): (Vec<u8>, FileType)| {
            std::str::from_utf8(&name).ok()?.strip_prefix("park-")?.parse::<FileId>().ok()
        };
        Ok(self.brick.staging.list()?.into_iter().filter_map(file).collect())
    }

    /// What is parked, and is no object that the index knows: nobody asks for it there, and it would be in the way of that object for ever,
    /// should others tell of it again.
    pub(super) fn clear_unknown_parked(&self) -> FsResult<()> {
        for file in self.parked()? {
            if self.object_of(file)?.kind.is_none() && self.local_or_none(file)? == Local::default() {
                self.clear_unknown(file)?;
            }
        }
        Ok(())
    }

    /// The bytes of a file are kept in `versions/`. A directory in which there is something goes into the volume's root, as what is in it
    /// may be known.
    pub(super) fn clear_unknown(&self, file: FileId) -> FsResult<()> {
        let (staging, parked) = (&self.brick.staging, parked_name(file));
        let parked = parked.as_bytes();
        let kind = FileType::from_raw_mode(access::stat(staging, parked)?.st_mode);
        let to = |dir: &Dir, why: &str| {
            self.keep_as(&At { dir: staging.clone(), name: parked.to_vec() }, dir, why, file)
        };
        match kind {
            FileType::Directory => match access::rmdir(staging, parked) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => to(&self.brick.data, "recovered"),
                done => done,
            },
            FileType::RegularFile => {
                let at = At { dir: staging.clone(), name: parked.to_vec() };
                let mark = access::get_mark(staging, parked)?;
                if mark.is_some_and(|mark| mark.version.is_none()) && is_hollow(&at)? {
                    access::unlink(staging, parked)
                } else {
                    to(&self.brick.versions, "unjudged")
                }
            }
            _ => access::unlink(staging, parked),
        }
    }

    /// Puts what no object here knows out of the tree, so that nothing of it is lost.
    pub(super) fn keep_unjudged(&self, at: &At, file: FileId) -> FsResult<()> {
        self.keep_as(at, &self.brick.versions, "unjudged", file)
    }

    fn keep_as(&self, at: &At, dir: &Dir, why: &str, file: FileId) -> FsResult<()> {
        let mut when = self.clock.now_ms();
        loop {
            let name = format!("{why}-{file}-{when}");
            match access::rename(&at.dir, &at.name, dir, name.as_bytes(), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => when = when.saturating_add(1),
                done => {
                    tracing::warn!(%file, "is marked as what nobody here knows any more: kept as {name}");
                    return done;
                }
            }
        }
    }

    /// The directories among them, of all of which the index says that they are parked from now on: so what is in them is found.
    pub(super) fn parked_dirs(&self, core: &mut Core, parked: &BTreeSet<FileId>) -> FsResult<Vec<FileId>> {
        let mut dirs = Vec::new();
        for &file in parked {
            if !self.object_of(file)?.kind.as_ref().is_some_and(Kind::is_dir) {
                continue;
            }
            let mut change = Change::new(self, core);
            for place in change.local(file)?.map(|local| local.placed).unwrap_or_default().into_values() {
                if self.shown(&place)?.is_some_and(|shown| shown.file == file) {
                    change.show(&place, None);
                    self.once.is_gone(place);
                }
            }
            let local = change.local_mut(file)?;
            local.placed.clear();
            local.parked = true;
            change.todo(file, true);
            change.commit()?;
            dirs.push(file);
        }
        Ok(dirs)
    }

    /// Objects that wait for their places by the index, and are nowhere on the disk: what was in them is gone too.
    pub(super) fn nowhere_parked(
        &self,
        core: &mut Core,
        found: &mut Found,
        todo: &mut Vec<FileId>,
    ) -> FsResult<()> {
        let mut nowhere = Vec::new();
        for local in self.index.locals() {
            let (file, local) = local.map_err(index_failed)?;
            if local.parked && !found.parked.contains(&file) {
                nowhere.push(file);
            }
        }
        for file in nowhere {
            self.add_inside(found, file)?;
            // It may be under the name that it had before, and is judged there then.
            let mut change = Change::new(self, core);
            change.local_mut(file)?.parked = false;
            change.todo(file, true);
            change.commit()?;
            todo.push(file);
        }
        Ok(())
    }

    /// Of directories that are nowhere, all that was in them is gone too.
    pub(super) fn with_all_inside(&self, found: &mut Found) -> FsResult<()> {
        let came: HashSet<_> = found.new.iter().filter_map(|(_, mark)| Some(mark.as_ref()?.file)).collect();
        let mut at = 0;
        while let Some(shown) = found.gone.get(at).map(|(_, shown)| *shown) {
            at += 1;
            if shown.kind == libc::DT_DIR
                && !came.contains(&shown.file)
                && !found.parked.contains(&shown.file)
            {
                self.add_inside(found, shown.file)?;
            }
        }
        Ok(())
    }

    fn add_inside(&self, found: &mut Found, dir: FileId) -> FsResult<()> {
        let inside = self.index.shown_in(dir).map_err(index_failed)?;
        found.gone.extend(inside.into_iter().map(|(name, shown)| (Place { parent: dir, name }, shown)));
        Ok(())
    }

    /// What waited for its place may be nowhere, after the power was lost.
    pub(super) fn is_still_parked(&self, core: &mut Core, file: FileId) -> FsResult<()> {
        let local = self.local_or_none(file)?;
        // While the disk is ahead of the index it may be in its place.
        if !local.parked
            || !core.amiss.is_empty()
            || access::stat(&self.brick.staging, parked_name(file).as_bytes()) != Err(Errno::NOENT)
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
}
