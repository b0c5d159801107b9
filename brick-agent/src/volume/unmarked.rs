//! Files without a mark, as in a directory that was adopted, or a brick that came back from a backup without extended
//! attributes: what other members have under the same path tells who they are.
//!
//! The same directory is one directory, the same bytes are one version and need not come from anywhere, and other bytes
//! are an edit that knew of no version: a conflict, where both are kept. What nobody has is new.
//!
//! Bytes are read before anything is judged, and without the lock: only of files of which they can prove something.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use nearbrick_core::recover::End;
use nearbrick_core::scrub::hash_of;
use nearbrick_core::{FileId, Kind, LinkId, Object, Op, Place, Stamp, VersionVector};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::change::{Change, print_of};
use super::core::Core;
use super::rebuild::NOBODY;
use super::types::FsResult;
use super::{Volume, index_failed};
use crate::brick::access;
use crate::brick::disk::Dir;
use crate::brick::mark::Mark;
use crate::index::Print;

/// BLAKE3 of files, by their inodes, with what they looked like; all of it is on the disk for good.
pub(super) type Proven = HashMap<u64, (Print, [u8; 32])>;

/// The hash that members know of the newest version, if that has so many bytes.
fn wanted_hash(object: &Object, size: u64) -> Option<[u8; 32]> {
    let head = object.head().filter(|head| head.size == size)?;
    hash_of(object, &head.version)
}

impl Volume {
    /// What members have under a path of which nothing is here: of several the one that keeps the name.
    fn known_at(
        &self,
        place: &Place,
        fits: impl Fn(&Object) -> bool,
    ) -> FsResult<Option<(LinkId, FileId, Object)>> {
        let mut first: Option<(Stamp, LinkId, FileId, Object)> = None;
        for (link, file) in self.index.wanted_at(place).map_err(index_failed)? {
            let object = self.object_of(file)?;
            let stamp = object.links.get(&link).and_then(|l| l.place.as_ref()).map(|reg| reg.stamp);
            let Some(stamp) = stamp.filter(|_| link.origin != NOBODY && fits(&object)) else { continue };
            if first.as_ref().is_none_or(|(s, l, ..)| (stamp, link) < (*s, *l)) {
                first = Some((stamp, link, file, object));
            }
        }
        Ok(first.map(|(_, link, file, object)| (link, file, object)))
    }

    /// Reads the files without a mark that may be what members have under their path. Blocks, without the lock.
    pub(super) fn prove_unmarked(&self) -> FsResult<()> {
        let mut proven = Proven::new();
        let mut ahead = vec![(self.brick.data.clone(), FileId::ROOT)];
        while let Some((dir, parent)) = ahead.pop() {
            for (name, kind) in dir.list()? {
                if self.closed.load(Ordering::Acquire) {
                    return Err(Errno::CANCELED);
                }
                let place = Place { parent, name };
                if kind == FileType::Directory {
                    let inside = match access::get_mark(&dir, &place.name)? {
                        Some(mark) if self.object_of(mark.file)?.kind.is_some() => Some(mark.file),
                        _ => self.known_at(&place, |o| o.kind == Some(Kind::Dir))?.map(|(_, file, _)| file),
                    };
                    if let Some(inside) = inside {
                        ahead.push((dir.open_dir(&place.name)?, inside));
                    }
                } else if kind == FileType::RegularFile
                    && access::get_mark(&dir, &place.name)?.is_none()
                    && let Some((print, hash)) = self.prove(&dir, &place)?
                {
                    proven.insert(print.ino, (print, hash));
                }
            }
        }
        if !proven.is_empty() {
            // So that it can be said that they are here for good.
            self.brick.sync_all()?;
        }
        *self.proven.lock().unwrap_or_else(PoisonError::into_inner) = proven;
        Ok(())
    }

    fn prove(&self, dir: &Dir, place: &Place) -> FsResult<Option<(Print, [u8; 32])>> {
        let print = print_of(&access::stat(dir, &place.name)?);
        let fits = |o: &Object| o.kind == Some(Kind::File);
        let Some((_, _, object)) = self.known_at(place, fits)? else { return Ok(None) };
        if wanted_hash(&object, print.size).is_none() {
            return Ok(None);
        }
        let data = access::open(dir, &place.name, OFlags::RDONLY | OFlags::NOATIME | OFlags::NONBLOCK, 0)?;
        let hash = super::files::hash(&*data)?;
        Ok((print_of(&data.stat()?) == print).then_some((print, hash)))
    }

    /// Takes a name without a mark as what members have under its path. None: nobody has anything of that kind there.
    pub(super) fn take_by_place(
        &self,
        core: &mut Core,
        place: &Place,
        kind: &Kind,
        todo: &mut Vec<FileId>,
    ) -> FsResult<Option<Option<FileId>>> {
        let known = self.known_at(place, |object| object.kind.as_ref() == Some(kind))?;
        let Some((link, file, object)) = known else { return Ok(None) };
        if self.local_or_none(file)?.on_disk() {
            return Ok(None);
        }
        let at = self.at_place(core, place)?;
        let print = print_of(&access::stat(&at.dir, &at.name)?);
        let proven = self.proven.lock().unwrap_or_else(PoisonError::into_inner).get(&print.ino).copied();
        let hash = proven.filter(|(then, _)| *then == print).map(|(_, hash)| hash);
        let version = object.head().map(|head| head.version.clone());
        let version = version.filter(|_| hash.is_some() && hash == wanted_hash(&object, print.size));
        let none = kind.is_file().then(|| version.clone().unwrap_or_default());
        access::set_mark(&at.dir, &at.name, &Mark::new(file, none))?;
        let mut change = Change::new(self, core);
        self.found_at(&mut change, file, link, place, kind)?;
        change.commit()?;
        // Members know nothing of these: they are not to be on this disk alone.
        self.say_unknown_xattrs(core, file, &at, &object)?;
        if kind.is_file() {
            match version.zip(hash) {
                Some((version, hash)) => {
                    let print = print_of(&access::stat(&at.dir, &at.name)?);
                    self.is_version(core, file, version.clone(), print, End::IndexLost)?;
                    let mut change = Change::new(self, core);
                    Self::synced_as(&mut change, file, &version)?;
                    change.emit(file, Op::Have { brick: self.me, version, hash })?;
                    change.commit()?;
                }
                None => self.is_edit(core, file, VersionVector::new(), End::IndexLost)?,
            }
        }
        todo.push(file);
        Ok(Some(kind.is_dir().then_some(file)))
    }
}
