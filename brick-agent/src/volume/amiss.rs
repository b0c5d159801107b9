//! What was done on the disk and could not be said in the index: it is taken back, and what cannot be taken back is looked at
//! again until both say the same.

use nearbrick_core::recover::End;
use nearbrick_core::{FileId, Place};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};

use super::Volume;
use super::change::{Change, print_of};
use super::core::{At, Core};
use super::types::FsResult;
use super::walk::Found;
use crate::brick::access;
use crate::brick::disk::Dir;
use crate::index::Print;

/// In what the disk and the index are apart.
#[derive(Debug, Default)]
pub struct Amiss {
    /// Inodes that were changed, and changed back: how they look since.
    touched: BTreeMap<FileId, Print>,
    /// Objects that are not as the index has them.
    unlike: BTreeSet<FileId>,
    /// Directories in which names are not as the index has them.
    dirs: BTreeSet<FileId>,
    /// What was made for nothing, and could not be removed: new objects, and names of others.
    unmade: BTreeMap<Place, FileId>,
}

impl Amiss {
    /// Whether the disk and the index say the same, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.touched.is_empty() && self.unlike.is_empty() && self.dirs.is_empty() && self.unmade.is_empty()
    }

    /// Whether names in this directory may not be as the index has them.
    pub fn has_dir(&self, dir: FileId) -> bool {
        self.dirs.contains(&dir)
    }

    /// Whether a file that looks like this was only changed back.
    pub fn is_only_touched(&self, file: FileId, now: &Print) -> bool {
        self.touched.get(&file) == Some(now)
    }
}

/// Removes what is there, of whatever kind.
pub(super) fn remove(dir: &Dir, name: &[u8]) -> FsResult<()> {
    match access::unlink(dir, name) {
        Err(Errno::ISDIR | Errno::PERM) => access::rmdir(dir, name),
        done => done,
    }
}

impl Volume {
    /// An inode was changed on the disk, and that could not be said: `undone` tells whether it was changed back.
    pub(super) fn not_said(&self, core: &mut Core, file: FileId, at: &At, undone: FsResult<()>) {
        if undone.is_err() {
            core.amiss.unlike.insert(file);
        }
        if let Ok(raw) = access::stat(&at.dir, &at.name) {
            core.amiss.touched.insert(file, print_of(&raw));
        }
        self.settler.again();
    }

    /// Names were changed on the disk, and that could not be said.
    pub(super) fn names_not_said(&self, core: &mut Core, dirs: impl IntoIterator<Item = FileId>) {
        core.amiss.dirs.extend(dirs);
        self.settler.again();
    }

    /// Something was made, and that could not be said.
    pub(super) fn unmake(&self, core: &mut Core, place: &Place, file: FileId, at: &At) {
        if remove(&at.dir, &at.name).is_err_and(|error| error != Errno::NOENT) {
            core.amiss.unmade.insert(place.clone(), file);
            self.settler.again();
        }
    }

    /// Has the disk and the index say the same again.
    pub(super) fn make_good(&self) -> FsResult<()> {
        let core = &mut *self.lock();
        if core.amiss.is_empty() {
            return Ok(());
        }
        for (place, file) in core.amiss.unmade.clone() {
            self.unmake_again(core, &place, file)?;
            core.amiss.unmade.remove(&place);
        }
        let touched: Vec<_> = core.amiss.touched.keys().copied().collect();
        let mut change = Change::new(self, core);
        for file in &touched {
            match change.refresh_print(*file) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        change.commit()?;
        core.amiss.touched.clear();
        let unlike = std::mem::take(&mut core.amiss.unlike);
        self.bring_about(core, unlike.into_iter().collect());
        let dirs = core.amiss.dirs.clone();
        self.take_over_names(core, dirs, End::Killed)?;
        core.amiss.dirs.clear();
        Ok(())
    }

    /// Compares these directories with the index, and takes over what differs, while the volume is in use. Says how
    /// many names did.
    pub(super) fn take_over_names(
        &self,
        core: &mut Core,
        dirs: impl IntoIterator<Item = FileId>,
        end: End,
    ) -> FsResult<usize> {
        let mut found = Found::with(self.parked()?);
        for dir in dirs {
            match self.walk_dir(core, dir, &mut Vec::new(), &mut found) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error),
            }
        }
        if end == End::Running {
            found.only_names();
        }
        let (places, files) = found.names();
        let count = places.len();
        self.take_over(core, found, end)?;
        for place in places {
            self.invalidate_entry(core, &place);
        }
        for file in files {
            if !self.local_or_none(file)?.on_disk() {
                core.nodes.detach(file);
            }
        }
        Ok(count)
    }

    /// Unless it is something else by now, or the last name of an object.
    fn unmake_again(&self, core: &mut Core, place: &Place, file: FileId) -> FsResult<()> {
        if self.shown(place)?.is_some() {
            return Ok(());
        }
        let at = match self.at_place(core, place) {
            Err(Errno::NOENT) => return Ok(()),
            at => at?,
        };
        if self.object_of(file)?.kind.is_some() {
            match access::stat(&at.dir, &at.name) {
                Ok(raw) if raw.st_nlink > 1 => {}
                Ok(_) | Err(Errno::NOENT) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        match access::get_mark(&at.dir, &at.name) {
            Ok(Some(mark)) if mark.file == file => match remove(&at.dir, &at.name) {
                Err(Errno::NOENT) => Ok(()),
                done => done,
            },
            Ok(_) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
