//! The loser of a conflict is kept: its bytes become a file beside the winner, named after who
//! wrote them and when. Only then does the winner take its place here.
//!
//! Invariant: the version is declared lost in the same change in which the file with its
//! bytes comes to be. The file's id follows from the version, so that a repetition finds it.

use std::collections::BTreeMap;

use nearbrick_core::conflict::{kept_as, tag_of, to_keep};
use nearbrick_core::name::conflict_name;
use nearbrick_core::{Attr, Content, FileId, Kind, Object, Op, Place};
use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, errno, print_of};
use super::core::{At, Core};
use super::making::d_type;
use super::place::{set_owner_and_mode, set_xattrs};
use super::types::FsResult;
use crate::brick::access;
use crate::brick::disk::{self, File, FileAccess, Reader};
use crate::brick::mark::Mark;
use crate::index::{Local, Print, Shown};

/// Bytes compared at a time.
const BLOCK: usize = 1 << 20;
/// Names that are tried, when those before are taken.
const NAMES: u32 = 1000;

/// A loser that is here, and its bytes.
struct Loser {
    version: Content,
    winner: Content,
    hash_of_winner: Option<[u8; 32]>,
    holders_of_winner: Vec<nearbrick_core::BrickId>,
    data: File,
    print: Print,
}

impl Volume {
    /// If this brick holds the loser of a conflict, and it falls to this brick: keeps it.
    pub(super) fn keep_loser(&self, file: FileId) -> FsResult<()> {
        let Some(loser) = self.loser(&mut self.lock(), file)? else { return Ok(()) };
        if loser.version.size == loser.winner.size
            && let Some(hash) = self.same_as_winner(file, &loser)?
        {
            return self.settle_for_winner(file, &loser, hash);
        }
        let staged = format!("kept-{file}");
        let kept = self
            .stage(&staged)
            .and_then(|to| {
                copy(&*loser.data, &*to, loser.print.size)?;
                to.sync()?;
                Ok(to)
            })
            .and_then(|to| self.show_kept(file, &loser, &staged, &to));
        if kept.is_err() {
            self.unstage(&staged);
        }
        kept
    }

    fn loser(&self, core: &mut Core, file: FileId) -> FsResult<Option<Loser>> {
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        if local.dirty || local.placed.is_empty() || core.nodes.of(file).is_some_and(|n| n.writers > 0) {
            return Ok(None);
        }
        let (Some(version), Some(winner)) = (to_keep(&object, self.me), object.head()) else {
            return Ok(None);
        };
        if local.have.as_ref() != Some(&version.version) {
            return Ok(None);
        }
        if self.changed_behind(core, file, &local)? {
            return self.adopt_change(core, file, &local).map(|()| None);
        }
        let at = self.at(core, file, &local)?;
        let data = access::open(&at.dir, &at.name, OFlags::RDONLY, 0)?;
        let hash = object.hash.as_ref().filter(|(v, _)| *v == winner.version).map(|(_, hash)| *hash);
        Ok(Some(Loser {
            print: print_of(&data.stat()?),
            version: version.clone(),
            winner: winner.clone(),
            hash_of_winner: hash,
            holders_of_winner: object.holders_of(&winner.version).filter(|b| *b != self.me).collect(),
            data,
        }))
    }

    /// Whether two people wrote the same: then the hash of it. Where the winner cannot be reached, no.
    fn same_as_winner(&self, file: FileId, loser: &Loser) -> FsResult<Option<[u8; 32]>> {
        let mut hasher = blake3::Hasher::new();
        if let Some(known) = loser.hash_of_winner {
            hasher.update_reader(Reader::new(&*loser.data, 0)).map_err(|e| errno(&e))?;
            let hash = *hasher.finalize().as_bytes();
            return Ok((hash == known).then_some(hash));
        }
        let Some(remote) = self.remote() else { return Ok(None) };
        let mut block = Vec::new();
        let mut at = 0;
        while at < loser.print.size {
            let len = usize::try_from(loser.print.size - at).unwrap_or(BLOCK).min(BLOCK);
            let theirs = remote.read(file, &loser.winner.version, at, len, &loser.holders_of_winner);
            super::files::read_at(&*loser.data, at, len, &mut block)?;
            if block.len() != len {
                return Err(Errno::IO);
            }
            match theirs {
                Ok(theirs) if theirs == block => hasher.update(&block),
                _ => return Ok(None),
            };
            at += len as u64;
        }
        Ok(Some(*hasher.finalize().as_bytes()))
    }

    /// The same loser, after the lock was given up for a while.
    fn still(&self, core: &mut Core, file: FileId, loser: &Loser) -> FsResult<Option<(Object, Local)>> {
        let again = self.loser(core, file)?;
        let same = again.is_some_and(|a| {
            a.version == loser.version && a.winner == loser.winner && a.print == loser.print
        });
        Ok(if same { Some((self.object_of(file)?, self.local_of(file)?)) } else { None })
    }

    /// The bytes here are the winner's already.
    fn settle_for_winner(&self, file: FileId, loser: &Loser, hash: [u8; 32]) -> FsResult<()> {
        loser.data.sync()?;
        let core = &mut *self.lock();
        if self.still(core, file, loser)?.is_none() {
            self.settler.soon(file);
            return Ok(());
        }
        let version = loser.winner.version.clone();
        access::set_file_mark(&*loser.data, &Mark::new(file, Some(version.clone())))?;
        let mut change = Change::new(self, core);
        change.emit(file, Op::Resolve { loser: loser.version.version.clone(), kept: None })?;
        change.emit(file, Op::Have { brick: self.me, version: version.clone(), hash })?;
        let local = change.local_mut(file)?;
        local.have = Some(version);
        local.print = Some(print_of(&loser.data.stat()?));
        change.commit()?;
        self.bring_about(core, vec![file]);
        tracing::info!(%file, "two versions that did not know of each other are the same");
        Ok(())
    }

    fn show_kept(&self, file: FileId, loser: &Loser, staged: &str, data: &File) -> FsResult<()> {
        let core = &mut *self.lock();
        let Some((object, local)) = self.still(core, file, loser)? else {
            self.unstage(staged);
            self.settler.soon(file);
            return Ok(());
        };
        let kept = kept_as(file, &loser.version);
        let there = self.object_of(kept)?;
        let name = if there.kind.is_some() {
            // It came to be before, and only the word of it was lost.
            self.unstage(staged);
            None
        } else {
            Some(self.put_beside(core, kept, loser, &object, &local, staged, data)?)
        };
        let mut change = Change::new(self, core);
        let mut shown = None;
        if let Some(place) = name {
            let raw = data.stat()?;
            let attr = Attr {
                mode: raw.st_mode & 0o7777,
                uid: raw.st_uid,
                gid: raw.st_gid,
                mtime_sec: loser.print.mtime.0,
                mtime_nsec: loser.print.mtime.1,
            };
            self.revive(&mut change, place.parent)?;
            let replicas = object.replica_set().to_vec();
            let op = Op::Create { brick: self.me, kind: Kind::File, attr, place: place.clone(), replicas };
            let link = change.emit(kept, op)?.made_link().ok_or(Errno::IO)?;
            for (name, value) in &object.xattrs {
                if let Some(value) = value.value.clone() {
                    change.emit(kept, Op::SetXattr { name: name.clone(), value: Some(value) })?;
                }
            }
            change.emit(kept, Op::Kept { of: file, name: place.name.clone() })?;
            let content = Op::Content {
                brick: self.me,
                version: loser.version.version.clone(),
                size: loser.print.size,
                mtime_sec: loser.print.mtime.0,
                mtime_nsec: loser.print.mtime.1,
                still_dirty: false,
            };
            let entry = change.emit(kept, content)?;
            *change.local_mut(kept)? = Local {
                placed: BTreeMap::from([(link, place.clone())]),
                have: Some(loser.version.version.clone()),
                print: Some(print_of(&raw)),
                mtime_at: entry.time,
                ..Local::default()
            };
            change.show(&place, Some(Shown { file: kept, link, kind: d_type(&Kind::File) }));
            shown = Some(place);
        }
        change.emit(file, Op::Resolve { loser: loser.version.version.clone(), kept: Some(kept) })?;
        let done = change.commit()?;
        if let Some(place) = shown {
            self.invalidate_entry(core, &place);
            self.follow(core, done)?;
            tracing::info!(%file, %kept, "a version that lost a conflict is kept under its own name");
        }
        self.bring_about(core, vec![file]);
        Ok(())
    }

    /// Gives the staged bytes a free name beside the winner.
    #[allow(clippy::too_many_arguments)]
    fn put_beside(
        &self,
        core: &mut Core,
        kept: FileId,
        loser: &Loser,
        object: &Object,
        local: &Local,
        staged: &str,
        data: &File,
    ) -> FsResult<Place> {
        let staged = At { dir: self.brick.staging.clone(), name: staged.as_bytes().to_vec() };
        set_owner_and_mode(&staged, object, &Kind::File)?;
        set_xattrs(&staged, object)?;
        access::set_file_mark(&**data, &Mark::new(kept, Some(loser.version.version.clone())))?;
        let (sec, nsec) = loser.print.mtime;
        let mtime = super::types::SetTime::At(access::time(sec, nsec));
        access::utimens(&staged.dir, &staged.name, None, Some(mtime))?;
        let winner = local.place().ok_or(Errno::NOENT)?;
        let config = self.config();
        let writer = loser.version.writer;
        let node = config.member(writer).map_or_else(|| writer.to_string(), |m| m.node.clone());
        let tag = tag_of(&node, &loser.version);
        for n in 0..NAMES {
            let place = Place { parent: winner.parent, name: conflict_name(&winner.name, &tag, n) };
            if self.shown(&place)?.is_some() {
                continue;
            }
            let at = self.at_place(core, &place)?;
            // Never over a file, also not over one that came past the mount.
            match access::rename(&staged.dir, &staged.name, &at.dir, &at.name, RenameFlags::NOREPLACE) {
                Ok(()) => return Ok(place),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::EXIST)
    }
}

/// Copies a file of `size` bytes with its holes; where the file system can, without copying.
fn copy(from: &dyn FileAccess, to: &dyn FileAccess, size: u64) -> FsResult<()> {
    if to.clone_from(from).is_ok() {
        return Ok(());
    }
    to.truncate(size)?;
    let mut block = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match from.seek_data(at) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error),
        };
        let end = from.seek_hole(start)?.min(size);
        at = start;
        while at < end {
            let len = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
            super::files::read_at(from, at, len, &mut block)?;
            if block.is_empty() {
                break;
            }
            disk::write_all_at(to, &block, at)?;
            at += block.len() as u64;
        }
        at = end.max(start + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn t17_a_copy_keeps_holes() {
        let dir = tempfile::tempdir().unwrap();
        let from = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join("a"))
            .unwrap();
        from.set_len(16 << 20).unwrap();
        from.write_all_at(b"middle", 5 << 20).unwrap();
        let to = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.path().join("b"))
            .unwrap();
        let on_disk = |file: &std::fs::File| crate::brick::machine::file(file.try_clone().unwrap());
        let (a, b) = (on_disk(&from), on_disk(&to));
        copy(&*a, &*b, 16 << 20).unwrap();
        let whole = |file: &dyn FileAccess| {
            let mut bytes = Vec::new();
            super::super::files::read_at(file, 0, 16 << 20, &mut bytes).unwrap();
            bytes
        };
        let (a, b) = (whole(&*a), whole(&*b));
        assert!(a == b);
        let (from, to) = (from.metadata().unwrap(), to.metadata().unwrap());
        assert_eq!(to.len(), from.len());
        assert!(to.blocks() <= from.blocks() + 256, "{} blocks of {}", to.blocks(), from.blocks());
    }
}
