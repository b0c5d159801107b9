//! Directories that the walk finds under other names than the index has for them, or that the index has nowhere: after an end
//! without notice the disk may be ahead of the index, or behind it. What is in them belongs to their ids, and is compared
//! like all the rest: some of it may be gone, and what is there may not be what it was.

use std::collections::{BTreeMap, BTreeSet};

use nearbrick_core::{FileId, Kind, Place};
use rustix::fs::FileType;

use super::core::Core;
use super::types::FsResult;
use super::walk::{Found, class, on_disk};
use super::{Volume, index_failed};
use crate::brick::access;
use crate::brick::disk::Dir;
use crate::brick::mark::Mark;

impl Volume {
    /// Compares what is in the directories that came with what the index has in them. What the index does not know there is
    /// left: it is found when the directory has its place.
    pub(super) fn walk_what_came(&self, core: &mut Core, found: &mut Found) -> FsResult<()> {
        let mut ahead: Vec<(FileId, Dir)> = Vec::new();
        let mut seen = BTreeSet::new();
        let new: Vec<_> =
            found.new.iter().filter_map(|(place, mark)| Some((place.clone(), mark.clone()?))).collect();
        for (place, mark) in new {
            // A copy of a directory that is where it was is no directory that came.
            if !found.same.contains(&mark.file) && self.is_dir_of(&mark)? {
                let parent = self.dir(core, place.parent)?;
                if let Ok(dir) = access::open_dir(&parent, &place.name) {
                    ahead.push((mark.file, dir));
                }
            }
        }
        while let Some((id, dir)) = ahead.pop() {
            if !seen.insert(id) || id == FileId::ROOT {
                continue;
            }
            let shown = self.index.shown_in(id).map_err(index_failed)?;
            if shown.is_empty() {
                continue;
            }
            let there: BTreeMap<Vec<u8>, FileType> = dir.list()?.into_iter().collect();
            for (name, shown) in shown {
                let kind = there.get(&name).copied();
                let mark = kind.map(|_| access::get_mark(&dir, &name)).transpose()?.flatten();
                let is_same = kind.is_some_and(|kind| class(shown.kind) == class(on_disk(kind)))
                    && mark.is_none_or(|mark| mark.file == shown.file);
                if !is_same {
                    found.gone.push((Place { parent: id, name }, shown));
                    continue;
                }
                if shown.kind == libc::DT_DIR {
                    ahead.push((shown.file, access::open_dir(&dir, &name)?));
                }
                found.same.insert(shown.file);
            }
        }
        Ok(())
    }

    fn is_dir_of(&self, mark: &Mark) -> FsResult<bool> {
        Ok(self.object_of(mark.file)?.kind.as_ref().is_some_and(Kind::is_dir))
    }

    /// The names in a directory that has its place now, and in all that came with it, that the index does not know.
    pub(super) fn new_inside(&self, core: &mut Core, dir: FileId) -> FsResult<Vec<(Place, Option<Mark>)>> {
        let (mut new, mut ahead) = (Vec::new(), vec![dir]);
        while let Some(dir) = ahead.pop() {
            for (name, kind) in self.dir(core, dir)?.list()? {
                let inside = Place { parent: dir, name };
                match self.shown(&inside)? {
                    None => {
                        let at = self.at_place(core, &inside)?;
                        let mark = access::get_mark(&at.dir, &at.name)?;
                        new.push((inside, mark));
                    }
                    Some(shown) if shown.kind == libc::DT_DIR && kind == FileType::Directory => {
                        ahead.push(shown.file)
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(new)
    }
}
