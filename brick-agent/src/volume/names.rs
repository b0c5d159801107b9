//! Names: looking up, checking, and what becomes of who shares a place.

use std::collections::{BTreeSet, VecDeque};

use nearbrick_core::tree::{self, Claim, Verdict};
use nearbrick_core::{FileId, Object, Place, name};
use rustix::io::Errno;

use super::core::Core;
use super::types::{FsResult, NodeId, Stat};
use super::{Volume, index_failed};
use crate::index::{Local, Shown};

/// Directories in each other, at most: what a path of PATH_MAX bytes can name.
pub(super) const MAX_DEPTH: usize = 2048;

impl Volume {
    /// Checks a name that a program gave.
    pub(super) fn checked(parent: FileId, given: &[u8]) -> FsResult<()> {
        match name::check(given) {
            Ok(()) if parent == FileId::ROOT && given == name::RESERVED => Err(Errno::PERM),
            Ok(()) => Ok(()),
            Err(name::BadName::TooLong) => Err(Errno::NAMETOOLONG),
            Err(name::BadName::Dots) => Err(Errno::EXIST),
            Err(_) => Err(Errno::INVAL),
        }
    }

    /// What is shown under a name.
    pub(super) fn shown(&self, place: &Place) -> FsResult<Option<Shown>> {
        self.index.shown(place).map_err(index_failed)
    }

    pub(super) fn object_of(&self, file: FileId) -> FsResult<Object> {
        Ok(self.index.object(file).map_err(index_failed)?.unwrap_or_default())
    }

    pub(super) fn local_or_none(&self, file: FileId) -> FsResult<Local> {
        Ok(self.index.local(file).map_err(index_failed)?.unwrap_or_default())
    }

    /// Looks a name up; counts one lookup of the node.
    ///
    /// # Errors
    /// `NOENT`, `NAMETOOLONG`; what the disk says.
    pub fn lookup(&self, parent: NodeId, name: &[u8]) -> FsResult<Stat> {
        if name.len() > name::MAX_LEN {
            return Err(Errno::NAMETOOLONG);
        }
        let core = &mut *self.lock();
        let parent = self.file_of(core, parent)?;
        let shown = self.shown(&Place { parent, name: name.to_vec() })?.ok_or(Errno::NOENT)?;
        let local = self.local_of(shown.file)?;
        let mut stat = self.stat_of(core, shown.file, &local)?;
        stat.node = core.nodes.looked_up(shown.file);
        Ok(stat)
    }

    /// The kernel forgets so many lookups.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        self.lock().nodes.forget(node, lookups);
    }

    /// The directory in which the children of `dir` are shown: itself, or the one that it was merged into.
    pub(super) fn merged_to(&self, dir: FileId) -> FsResult<FileId> {
        let mut at = dir;
        for _ in 0..MAX_DEPTH {
            match self.local_or_none(at)?.merged_into {
                Some(into) => at = into,
                None => return Ok(at),
            }
        }
        Ok(at)
    }

    /// All that wants a place, however it came to.
    pub(super) fn claims(&self, core: &Core, place: &Place) -> FsResult<Vec<Claim>> {
        let mut parents = VecDeque::from([place.parent]);
        let mut seen = Vec::new();
        let mut claims = Vec::new();
        while let Some(parent) = parents.pop_front() {
            if seen.contains(&parent) {
                continue;
            }
            seen.push(parent);
            if let Some(merged) = core.merged.get(&parent) {
                parents.extend(merged.iter().copied());
            }
            let at = Place { parent, name: place.name.clone() };
            for (link, file) in self.index.wanted_at(&at).map_err(index_failed)? {
                if core.broken.contains(&file) && parent != FileId::ROOT {
                    continue;
                }
                self.claim(file, link, &mut claims)?;
            }
        }
        if place.parent == FileId::ROOT {
            for &dir in &core.broken {
                let object = self.object_of(dir)?;
                let link = object.live_links().find(|(_, reg)| reg.value.name == place.name);
                if let Some((link, _)) = link
                    && !claims.iter().any(|c| c.link == link)
                {
                    self.claim(dir, link, &mut claims)?;
                }
            }
        }
        Ok(claims)
    }

    fn claim(&self, file: FileId, link: nearbrick_core::LinkId, claims: &mut Vec<Claim>) -> FsResult<()> {
        let object = self.object_of(file)?;
        let placed = object.links.get(&link).and_then(|l| l.place.as_ref());
        if let (Some(reg), Some(kind)) = (placed, &object.kind) {
            claims.push(Claim { link, file, is_dir: kind.is_dir(), stamp: reg.stamp });
        }
        Ok(())
    }

    /// What becomes of `link` among all that want `place`.
    pub(super) fn verdict(
        &self,
        core: &Core,
        place: &Place,
        link: nearbrick_core::LinkId,
    ) -> FsResult<Option<Verdict>> {
        let claims = self.claims(core, place)?;
        let verdicts = tree::resolve(&place.name, &claims);
        Ok(claims.iter().zip(verdicts).find(|(c, _)| c.link == link).map(|(_, v)| v))
    }

    /// Whether it is shown under other names than it wants, or under fewer or more. One that shares a name, and is shown beside it, is too.
    pub(super) fn has_other_names(&self, object: &Object, local: &Local) -> FsResult<bool> {
        let mut wanted = 0;
        for (link, reg) in object.live_links() {
            let Some(there) = local.placed.get(&link) else { return Ok(true) };
            if there.name != reg.value.name || there.parent != self.merged_to(reg.value.parent)? {
                return Ok(true);
            }
            wanted += 1;
        }
        Ok(local.placed.len() != wanted)
    }

    /// The path of a directory from the volume's root, with a slash at its end; for globs.
    pub(super) fn path_of(&self, dir: FileId) -> FsResult<Vec<u8>> {
        let mut names = Vec::new();
        let mut at = dir;
        while at != FileId::ROOT && names.len() < MAX_DEPTH {
            let local = self.local_of(at)?;
            let Some(place) = local.place() else { break };
            names.push(place.name.clone());
            at = place.parent;
        }
        let mut path = Vec::new();
        for name in names.iter().rev() {
            path.extend_from_slice(name);
            path.push(b'/');
        }
        Ok(path)
    }

    /// Tells the kernel to forget a name, and what a node looked like.
    pub(super) fn invalidate_entry(&self, core: &Core, place: &Place) {
        if let Some(parent) = core.nodes.known_as(place.parent)
            && let Some(kernel) = super::read(&self.invalidate).as_ref()
        {
            kernel.entry(parent, &place.name);
        }
    }

    /// Tells the kernel's side that names came to be in these directories, or ceased to.
    pub(super) fn tell_of_names(&self, core: &Core, dirs: &BTreeSet<FileId>) {
        if let Some(kernel) = super::read(&self.invalidate).as_ref() {
            dirs.iter().filter_map(|dir| core.nodes.known_as(*dir)).for_each(|dir| kernel.names(dir));
        }
    }

    /// Tells the kernel to forget what a node looked like, and its bytes if `data`.
    pub(super) fn invalidate_node(&self, core: &Core, file: FileId, data: bool) {
        if let Some(node) = core.nodes.known_as(file)
            && let Some(kernel) = super::read(&self.invalidate).as_ref()
        {
            kernel.inode(node, data);
        }
    }

    /// Whether `dir` is `of` or below it.
    pub(super) fn is_below(&self, dir: FileId, of: FileId) -> FsResult<bool> {
        let mut at = dir;
        for _ in 0..MAX_DEPTH {
            if at == of {
                return Ok(true);
            }
            if at == FileId::ROOT {
                return Ok(false);
            }
            match self.local_of(at)?.place() {
                Some(place) => at = place.parent,
                None => return Ok(false),
            }
        }
        Ok(true)
    }
}
