//! The losers of conflicts are kept: as a file beside the winner, named after who wrote it and when, or in
//! `versions/`, as the volume's policy says. Only then does the winner take its place here.
//!
//! Invariant: a version is declared lost in the same change in which the file with its bytes comes to be, or after they
//! are in `versions/`, durably. The file's id follows from the version, so that a repetition finds it. What a disk damaged
//! is not kept as that version where another brick has it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nearbrick_core::conflict::{Fate, Policy, defers_to, kept_as, tag_of, to_keep};
use nearbrick_core::name::conflict_name;
use nearbrick_core::scrub::hash_of;
use nearbrick_core::{Attr, BrickId, Content, FileId, Kind, Object, Op, Place, VersionVector};
use rustix::fs::{OFlags, RenameFlags};
use rustix::io::Errno;

use super::change::{Change, print_of};
use super::core::{At, Core};
use super::dress::{set_owner_and_mode, set_xattrs};
use super::making::d_type;
use super::scrub::Looked;
use super::types::FsResult;
use super::versions::Why;
use super::{Volume, read};
use crate::brick::access;
use crate::brick::disk::{self, File, FileAccess, Stat};
use crate::brick::mark::Mark;
use crate::heal::limit::Throttle;
use crate::index::{Local, Print, Shown};
use crate::peer::Remote;

/// Bytes compared at a time.
const BLOCK: usize = 1 << 20;
/// Names that are tried, when those before are taken.
const NAMES: u32 = 1000;
/// Between two looks at a loser that may be damaged.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// A loser that is here, and its bytes.
struct Loser {
    version: Content,
    winner: Content,
    fate: Fate,
    /// The hash that members know of it.
    known: Option<[u8; 32]>,
    /// Versions of the same size: if the bytes are the same too, one of both is enough.
    alike: Vec<Alike>,
    data: File,
    print: Print,
}

/// A file that comes to be beside another one.
pub(super) struct Beside<'a> {
    /// Its id.
    pub file: FileId,
    /// Where it is.
    pub place: Place,
    /// What it is on the disk.
    pub raw: Stat,
    /// The version that its bytes are.
    pub content: &'a Content,
    /// The other one, whose attributes and replica set it has.
    pub object: &'a Object,
}

/// A version of the same size as a loser.
struct Alike {
    /// The file that has it.
    of: FileId,
    version: VersionVector,
    hash: Option<[u8; 32]>,
    /// Other bricks that hold it.
    holders: Vec<BrickId>,
    /// Its bytes, if they are here.
    here: Option<File>,
}

impl Loser {
    /// BLAKE3 of its bytes; read once.
    fn hash(&self, read: &mut Option<[u8; 32]>) -> FsResult<[u8; 32]> {
        if let Some(hash) = read {
            return Ok(*hash);
        }
        Ok(*read.insert(super::files::hash(&*self.data)?))
    }
}

impl Volume {
    /// What happens to versions of this file of which neither includes the other.
    pub(super) fn policy_of(&self, file: FileId, object: &Object, local: &Local) -> Policy {
        if self.are_both_ordered(file, object) {
            return Policy::KeepBoth;
        }
        let configured = read(&self.configured).clone();
        let rules = configured.config.conflicts.iter().zip(&configured.conflict_globs);
        let mut path = None;
        for (rule, globs) in rules {
            let Some(globs) = globs else { return rule.policy };
            let path = path.get_or_insert_with(|| self.path_to_keep(object, local));
            if globs.is_match(OsStr::from_bytes(path)) {
                return rule.policy;
            }
        }
        Policy::default()
    }

    /// The policy is another one: all files in conflict are looked at again.
    pub(super) fn look_at_conflicts(&self) {
        let files: Vec<_> = self.lock().tally.in_conflict.iter().copied().collect();
        files.into_iter().for_each(|file| self.settler.soon(file));
    }

    /// If this brick holds the loser of a conflict, and it falls to this brick: keeps it.
    pub(super) fn keep_loser(&self, file: FileId) -> FsResult<()> {
        if self.remains_gave_way(&mut self.lock(), file)? {
            return Ok(());
        }
        let Some(mut loser) = self.loser(&mut self.lock(), file)? else { return Ok(()) };
        let mut own_hash = None;
        if let Some(known) = loser.known
            && loser.hash(&mut own_hash)? != known
            && !self.is_only_copy(file, &loser)?
        {
            return Ok(());
        }
        for alike in &loser.alike {
            if let Some(hash) = Self::same_bytes_as(self.remote().as_deref(), &loser, alike, &mut own_hash)? {
                return self.settle_for(file, &loser, alike, hash);
            }
        }
        let blocks = u64::try_from(loser.data.stat()?.st_blocks).unwrap_or(0).saturating_mul(512);
        if loser.fate == Fate::Aside && !self.fits_versions(blocks) {
            // Nothing is given up because it is large.
            loser.fate = Fate::Beside;
        }
        let staged = format!("kept-{file}");
        let kept = self
            .stage(&staged)
            .and_then(|to| {
                copy(&*loser.data, &*to, loser.print.size)?;
                to.sync()?;
                Ok(to)
            })
            .and_then(|to| match loser.fate {
                Fate::Beside => self.show_kept(file, &loser, &staged, &to),
                Fate::Aside => self.put_aside(file, &loser, &staged, &to),
            });
        if kept.is_err() {
            self.unstage(&staged);
        }
        kept
    }

    /// The bytes of a loser are not those that were written: whether they stay all the same, as nobody else is known to have
    /// that version. Otherwise this brick gives them up, and another one keeps the loser.
    fn is_only_copy(&self, file: FileId, loser: &Loser) -> FsResult<bool> {
        let looked = self.scrub_file(file, &Throttle::default(), &AtomicBool::new(false))?;
        let local = self.local_or_none(file)?;
        let is_here = !local.dirty && local.have.as_ref() == Some(&loser.version.version);
        if is_here && !matches!(looked, Looked::Damaged(_)) {
            // It could not be told now: a program elsewhere may be writing it.
            self.settler.later(file, LOOK_AGAIN);
        }
        Ok(is_here && matches!(looked, Looked::Damaged(_)))
    }

    fn loser(&self, core: &mut Core, file: FileId) -> FsResult<Option<Loser>> {
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        if local.dirty || local.placed.is_empty() || core.nodes.of(file).is_some_and(|n| n.writers > 0) {
            return Ok(None);
        }
        let policy = self.policy_of(file, &object, &local);
        let is_away = self.away_for(file);
        let Some(lost) = to_keep(&object, self.me, &policy, &is_away) else { return Ok(None) };
        if local.have.as_ref() != Some(&lost.loser.version) {
            return Ok(None);
        }
        if self.changed_behind(core, file, &local)? {
            return self.adopt_change(core, file, &local).map(|()| None);
        }
        let at = self.at(core, file, &local)?;
        let data = access::open(&at.dir, &at.name, OFlags::RDONLY, 0)?;
        let better = defers_to(&object, lost.loser, &policy);
        let mut alike = Vec::new();
        for version in better.iter().map(|c| &c.version) {
            alike.push(self.alike(core, file, &object, version)?);
        }
        // Losers that were kept before.
        for version in &object.losers {
            let kept = kept_as(file, version);
            let there = self.object_of(kept)?;
            let as_it_was = there.head().is_some_and(|h| h.version == *version && h.size == lost.loser.size);
            if as_it_was && there.exists(kept) {
                alike.push(self.alike(core, kept, &there, version)?);
            }
        }
        Ok(Some(Loser {
            print: print_of(&data.stat()?),
            version: lost.loser.clone(),
            winner: lost.winner.clone(),
            fate: lost.fate,
            known: hash_of(&object, &lost.loser.version),
            alike,
            data,
        }))
    }

    fn alike(
        &self,
        core: &mut Core,
        of: FileId,
        object: &Object,
        version: &VersionVector,
    ) -> FsResult<Alike> {
        let local = self.local_or_none(of)?;
        let here = if !local.dirty && local.on_disk() && local.have.as_ref() == Some(version) {
            let at = self.at(core, of, &local)?;
            Some(access::open(&at.dir, &at.name, OFlags::RDONLY, 0)?)
        } else {
            None
        };
        Ok(Alike {
            of,
            version: version.clone(),
            hash: hash_of(object, version),
            holders: object.holders_of(version).filter(|b| *b != self.me).collect(),
            here,
        })
    }

    /// Whether two people wrote the same: then the hash of it. Where the other's bytes cannot be reached, no.
    fn same_bytes_as(
        remote: Option<&dyn Remote>,
        loser: &Loser,
        alike: &Alike,
        own_hash: &mut Option<[u8; 32]>,
    ) -> FsResult<Option<[u8; 32]>> {
        if let Some(known) = alike.hash {
            let own = loser.hash(own_hash)?;
            return Ok((own == known).then_some(own));
        }
        let mut hasher = blake3::Hasher::new();
        let (mut block, mut theirs) = (Vec::new(), Vec::new());
        let mut at = 0;
        while at < loser.print.size {
            let len = usize::try_from(loser.print.size - at).unwrap_or(BLOCK).min(BLOCK);
            match (&alike.here, remote) {
                (Some(here), _) => super::files::read_at(&**here, at, len, &mut theirs)?,
                (None, Some(remote)) => {
                    match remote.read(alike.of, &alike.version, at, len, &alike.holders) {
                        Ok((_, bytes)) => theirs = bytes,
                        Err(_) => return Ok(None),
                    }
                }
                (None, None) => return Ok(None),
            }
            super::files::read_at(&*loser.data, at, len, &mut block)?;
            if block.len() != len {
                return Err(Errno::IO);
            }
            if theirs != block {
                return Ok(None);
            }
            hasher.update(&block);
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

    /// The bytes here are another version's too: there is no conflict with the winner, or that other loser is kept.
    fn settle_for(&self, file: FileId, loser: &Loser, alike: &Alike, hash: [u8; 32]) -> FsResult<()> {
        loser.data.sync()?;
        let core = &mut *self.lock();
        if self.still(core, file, loser)?.is_none() {
            self.settler.soon(file);
            return Ok(());
        }
        let version = alike.version.clone();
        let kept = (alike.of != file).then_some(alike.of);
        let won = kept.is_none() && version == loser.winner.version;
        if won {
            access::set_file_mark(&*loser.data, &Mark::new(file, Some(version.clone())))?;
        }
        let mut change = Change::new(self, core);
        change.emit(file, Op::Resolve { loser: loser.version.version.clone(), kept })?;
        if won {
            change.emit(file, Op::Have { brick: self.me, version: version.clone(), hash })?;
            let local = change.local_mut(file)?;
            local.have = Some(version);
            local.print = Some(print_of(&loser.data.stat()?));
        }
        change.commit()?;
        self.bring_about(core, vec![file]);
        tracing::info!(%file, "two versions that did not know of each other are the same");
        Ok(())
    }

    /// The loser goes to `versions/`, and is out of the tree.
    fn put_aside(&self, file: FileId, loser: &Loser, staged: &str, data: &File) -> FsResult<()> {
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        let version = &loser.version.version;
        self.dress_kept(file, version, loser.print.mtime, &object, staged, data)?;
        let path = {
            let _core = self.lock();
            self.path_to_keep(&object, &local)
        };
        let label = self.label(&object, version, path, Why::Lost);
        self.staged_to_versions(staged, file, version, &label)?;
        let core = &mut *self.lock();
        if self.still(core, file, loser)?.is_none() {
            self.unlink_from_versions(file, version);
            self.settler.soon(file);
            return Ok(());
        }
        let mut change = Change::new(self, core);
        change.emit(file, Op::Resolve { loser: version.clone(), kept: None })?;
        change.commit()?;
        self.bring_about(core, vec![file]);
        tracing::info!(%file, "a version that lost a conflict is kept in versions/");
        Ok(())
    }

    /// What staged bytes of a version need beside them, as a file that is `as_file`; owner, mode and attributes are those of
    /// `object`.
    pub(super) fn dress_kept(
        &self,
        as_file: FileId,
        version: &VersionVector,
        mtime: (i64, u32),
        object: &Object,
        staged: &str,
        data: &File,
    ) -> FsResult<At> {
        let staged = At { dir: self.brick.staging.clone(), name: staged.as_bytes().to_vec() };
        set_owner_and_mode(&staged, object, &Kind::File)?;
        set_xattrs(&staged, object)?;
        access::set_file_mark(&**data, &Mark::new(as_file, Some(version.clone())))?;
        let mtime = super::types::SetTime::At(access::time(mtime.0, mtime.1));
        access::utimens(&staged.dir, &staged.name, None, Some(mtime))?;
        Ok(staged)
    }

    /// A file came to be beside another one, with its bytes; it is `of` that one's conflict, unless it is to be a file of its own.
    pub(super) fn say_beside(
        &self,
        change: &mut Change<'_>,
        new: &Beside<'_>,
        of: Option<FileId>,
    ) -> FsResult<()> {
        let Beside { file, place, raw, content, object } = new;
        let (file, print) = (*file, print_of(raw));
        let attr = Attr {
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            mtime_sec: print.mtime.0,
            mtime_nsec: print.mtime.1,
        };
        self.revive(change, place.parent)?;
        let replicas = object.replica_set().to_vec();
        let op = Op::Create { brick: self.me, kind: Kind::File, attr, place: place.clone(), replicas };
        let link = change.emit(file, op)?.made_link().ok_or(Errno::IO)?;
        for (name, value) in &object.xattrs {
            if let Some(value) = value.value.clone() {
                change.emit(file, Op::SetXattr { name: name.clone(), value: Some(value) })?;
            }
        }
        if let Some(of) = of {
            change.emit(file, Op::Kept { of, name: place.name.clone() })?;
        }
        let said = Op::Content {
            brick: self.me,
            version: content.version.clone(),
            size: print.size,
            mtime_sec: print.mtime.0,
            mtime_nsec: print.mtime.1,
            still_dirty: false,
        };
        let entry = change.emit(file, said)?;
        *change.local_mut(file)? = Local {
            placed: BTreeMap::from([(link, place.clone())]),
            have: Some(content.version.clone()),
            print: Some(print),
            mtime_at: entry.time,
            ..Local::default()
        };
        change.show(place, Some(Shown { file, link, kind: d_type(&Kind::File) }));
        Ok(())
    }

    fn show_kept(&self, file: FileId, loser: &Loser, staged: &str, data: &File) -> FsResult<()> {
        let core = &mut *self.lock();
        let Some((object, local)) = self.still(core, file, loser)? else {
            self.unstage(staged);
            self.settler.soon(file);
            return Ok(());
        };
        let kept = kept_as(file, &loser.version.version);
        let there = self.object_of(kept)?;
        let name = if there.kind.is_some() {
            // It came to be before, and only the word of it was lost.
            self.unstage(staged);
            None
        } else {
            let mtime = loser.print.mtime;
            Some(self.put_beside(core, kept, &loser.version, mtime, &object, &local, staged, data)?)
        };
        let mut change = Change::new(self, core);
        let mut shown = None;
        if let Some(place) = name {
            let new = Beside {
                file: kept,
                place: place.clone(),
                raw: data.stat()?,
                content: &loser.version,
                object: &object,
            };
            self.say_beside(&mut change, &new, Some(file))?;
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

    /// Gives the staged bytes of a version a free name beside the winner.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn put_beside(
        &self,
        core: &mut Core,
        kept: FileId,
        content: &Content,
        mtime: (i64, u32),
        object: &Object,
        local: &Local,
        staged: &str,
        data: &File,
    ) -> FsResult<Place> {
        let staged = self.dress_kept(kept, &content.version, mtime, object, staged, data)?;
        let winner = local.place().ok_or(Errno::NOENT)?;
        let config = self.config();
        let writer = content.writer;
        let node = config.member(writer).map_or_else(|| writer.to_string(), |m| m.node.clone());
        let tag = tag_of(&node, content);
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
pub(super) fn copy(from: &dyn FileAccess, to: &dyn FileAccess, size: u64) -> FsResult<()> {
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
