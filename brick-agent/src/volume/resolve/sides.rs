//! The bytes of a version between which a person chose: from here, from `versions/`, or from a brick that has them.

use std::collections::BTreeSet;

use nearbrick_core::resolution::Side;
use nearbrick_core::{BrickId, FileId, VersionVector};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{Hindrance, Plan};
use crate::brick::access;
use crate::brick::disk::{self, File};
use crate::volume::Volume;
use crate::volume::conflict::copy;
use crate::volume::types::FsResult;

/// Bytes that are asked for at a time.
const BLOCK: u64 = 4 << 20;

/// The bytes of a side, on their way.
pub(super) struct Staged {
    pub(super) name: String,
    pub(super) data: File,
}

impl Volume {
    /// The bytes of a side, durably, in `staging/`.
    pub(super) fn staged_side(&self, file: FileId, side: &Side, plan: &Plan) -> Result<Staged, Hindrance> {
        let name =
            format!("resolve-{file}-{}", self.staged.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        let data = self.stage(&name)?;
        match self.fill_side(file, side, plan, &data) {
            Ok(()) => Ok(Staged { name, data }),
            Err(hindrance) => {
                self.unstage(&name);
                Err(hindrance)
            }
        }
    }

    fn fill_side(&self, file: FileId, side: &Side, plan: &Plan, data: &File) -> Result<(), Hindrance> {
        let (of, size) = (side.file(file), side.content.size);
        if size > 0 {
            match self.side_here(of, &side.content.version)? {
                Some(from) => copy(&*from, &**data, size)?,
                None => self.read_side(file, side, plan, data)?,
            }
        }
        if u64::try_from(data.stat()?.st_size) != Ok(size) {
            return Err(Hindrance::Damaged);
        }
        if let Some(known) = side.hash
            && crate::volume::files::hash(&**data)? != known
        {
            return Err(Hindrance::Damaged);
        }
        data.sync()?;
        Ok(())
    }

    /// The bytes of a version, if they are on this brick: in the tree or in `versions/`.
    fn side_here(&self, of: FileId, version: &VersionVector) -> FsResult<Option<File>> {
        {
            let core = &mut *self.lock();
            let local = self.local_or_none(of)?;
            let is_it = local.have.as_ref() == Some(version) && !local.dirty && local.on_disk();
            if is_it && !self.changed_behind(core, of, &local)? {
                let at = self.at(core, of, &local)?;
                return access::open(&at.dir, &at.name, OFlags::RDONLY, 0).map(Some);
            }
        }
        match self.open_kept(of, version) {
            Ok((kept, _)) => Ok(Some(kept)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Asks those who hold a side, and then all others, who may keep it, for its bytes.
    fn read_side(&self, file: FileId, side: &Side, plan: &Plan, data: &File) -> Result<(), Hindrance> {
        let config = self.config();
        let holders = self.holders_of_side(file, &plan.object, side)?;
        let others = config.members.iter().map(|member| member.brick);
        let mut from: Vec<BrickId> = Vec::new();
        for brick in holders.iter().copied().chain(others).filter(|brick| *brick != self.me) {
            if !from.contains(&brick) {
                from.push(brick);
            }
        }
        let Some(remote) = self.remote() else { return Err(self.not_to_be_had(&from, &holders, plan)) };
        let size = side.content.size;
        data.truncate(size)?;
        let mut at = 0;
        while at < size {
            let len = BLOCK.min(size - at);
            let want = usize::try_from(len).unwrap_or(0);
            let (_, bytes) = remote
                .read(side.file(file), &side.content.version, at, want, &from)
                .map_err(|_| self.not_to_be_had(&from, &holders, plan))?;
            if bytes.len() != want {
                return Err(Hindrance::Damaged);
            }
            // Holes stay holes.
            if bytes.iter().any(|byte| *byte != 0) {
                disk::write_all_at(&**data, &bytes, at)?;
            }
            at += len;
        }
        Ok(())
    }

    /// Why the bytes of a side cannot be had.
    fn not_to_be_had(&self, asked: &[BrickId], holders: &[BrickId], plan: &Plan) -> Hindrance {
        let remote = self.remote();
        let is_away = |brick: &&BrickId| remote.as_ref().is_none_or(|remote| !remote.is_reached(**brick));
        let names = |list: BTreeSet<BrickId>| {
            let names: Vec<_> = list.into_iter().map(|brick| self.node_of(brick)).collect();
            names.join(", ")
        };
        let away: BTreeSet<_> = asked.iter().filter(is_away).copied().collect();
        if away.is_empty() && plan.last.is_some() {
            return Hindrance::Gone;
        }
        let held: BTreeSet<_> = holders.iter().copied().filter(|brick| *brick != self.me).collect();
        Hindrance::OutOfReach(names(if held.is_empty() { away } else { held }))
    }
}
