//! Names that go, and names that move.

use std::collections::VecDeque;
use std::sync::MutexGuard;

use nearbrick_core::{FileId, Kind, LinkId, Op, Place, VersionVector};
use rustix::fs::RenameFlags;
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, Done};
use super::core::{At, Core};
use super::types::{FsResult, NodeId};
use crate::brick::access;
use crate::index::{Local, Shown};

impl Volume {
    /// The place that a program names.
    fn named(&self, core: &Core, parent: NodeId, name: &[u8]) -> FsResult<Place> {
        if name.len() > nearbrick_core::name::MAX_LEN {
            return Err(Errno::NAMETOOLONG);
        }
        Ok(Place { parent: self.file_of(core, parent)?, name: name.to_vec() })
    }

    /// Takes the lock. If what is under this name, and is about to go, is being written at other bricks, these are asked
    /// first what it is now: what goes is then what they have, and not an older version beside which theirs would stay.
    fn lock_after_asking(&self, parent: NodeId, name: &[u8]) -> FsResult<MutexGuard<'_, Core>> {
        let core = self.lock();
        if core.tally.written_elsewhere.is_empty() {
            return Ok(core);
        }
        let Some(shown) = self.shown(&self.named(&core, parent, name)?)? else { return Ok(core) };
        if !core.tally.written_elsewhere.contains(&shown.file) {
            return Ok(core);
        }
        let writers = self.writers_elsewhere(&self.object_of(shown.file)?);
        if writers.is_empty() {
            return Ok(core);
        }
        drop(core);
        self.ask_writers_for_bytes(shown.file, &writers);
        Ok(self.lock())
    }

    /// Removes a name of what is no directory.
    ///
    /// # Errors
    /// `NOENT`, `ISDIR`; what the disk says.
    pub fn unlink(&self, parent: NodeId, name: &[u8]) -> FsResult<()> {
        self.writable()?;
        let core = &mut *self.lock_after_asking(parent, name)?;
        let place = self.named(core, parent, name)?;
        let shown = self.shown(&place)?.ok_or(Errno::NOENT)?;
        if shown.kind == libc::DT_DIR {
            return Err(Errno::ISDIR);
        }
        let at = self.at_place(core, &place)?;
        let last = self.local_of(shown.file)?.placed.len() <= 1;
        self.keep_open(core, shown.file);
        if last {
            self.hold(core, shown.file, &at);
        } else {
            access::unlink(&at.dir, &at.name)?;
        }
        let before = self.local_of(shown.file)?;
        let said = (|| {
            let mut change = Change::new(self, core);
            self.forget_name(&mut change, &place, shown)?;
            change.commit()
        })();
        let done = match said {
            Ok(done) => done,
            Err(error) => {
                if !last {
                    self.put_back_name(core, shown.file, &before, &place, &at);
                }
                return Err(error);
            }
        };
        if last {
            // Said first, so that after a crash in between it is not taken for a new file.
            match access::unlink(&at.dir, &at.name) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    self.unsay_removal(core, shown, &before, &place)?;
                    return Err(error);
                }
            }
        }
        self.follow(core, done)
    }

    /// One of several names was removed on the disk, and that could not be said.
    fn put_back_name(&self, core: &mut Core, file: FileId, local: &Local, place: &Place, at: &At) {
        let other = local.placed.values().find(|p| *p != place).ok_or(Errno::NOENT);
        let undone = other.and_then(|p| self.at_place(core, p)).and_then(|other| {
            access::link(&other.dir, &other.name, &at.dir, &at.name)?;
            self.not_said(core, file, at, Ok(()));
            Ok(())
        });
        if undone.is_err() {
            self.names_not_said(core, [place.parent]);
        }
    }

    /// The disk does not let a name go that was said to be removed: it is there again.
    fn unsay_removal(&self, core: &mut Core, shown: Shown, before: &Local, place: &Place) -> FsResult<()> {
        let mut change = Change::new(self, core);
        let link = change.emit(shown.file, Op::Link(place.clone()))?.made_link().ok_or(Errno::IO)?;
        if before.dirty {
            change.emit(shown.file, Op::Dirty { brick: self.me })?;
        }
        let mut local = before.clone();
        local.placed = [(link, place.clone())].into();
        *change.local_mut(shown.file)? = local;
        change.show(place, Some(Shown { link, ..shown }));
        match change.commit() {
            // Said later than before: another that claims the name may have it now.
            Ok(done) => self.follow(core, done),
            Err(error) => {
                self.names_not_said(core, [place.parent]);
                Err(error)
            }
        }
    }

    /// A name goes, as a program wants it. The disk is the caller's.
    pub(super) fn forget_name(&self, change: &mut Change<'_>, place: &Place, shown: Shown) -> FsResult<()> {
        let file = shown.file;
        let seen = change.object(file)?.seen();
        change.show(place, None);
        change.emit(file, Op::Unlink { link: shown.link, seen })?;
        let local = change.local_mut(file)?;
        local.placed.remove(&shown.link);
        if local.placed.is_empty() {
            let (dirty, have) = (local.dirty, local.have.is_some());
            if dirty {
                change.emit(file, Op::Clean { brick: self.me })?;
            }
            if have && change.object(file)?.exists(file) {
                // It has a name that cannot be shown here yet; the bytes go with this one.
                change.emit(file, Op::Drop { brick: self.me })?;
            }
            change.forget_local(file)?;
            change.detach(file);
        } else {
            change.refresh_print(file)?;
        }
        Ok(())
    }

    /// Directories that are shown in this one, however they came to.
    fn merged_in(core: &Core, dir: FileId) -> Vec<FileId> {
        let mut all = Vec::new();
        let mut ahead = VecDeque::from([dir]);
        while let Some(at) = ahead.pop_front() {
            for &merged in core.merged.get(&at).into_iter().flatten() {
                if !all.contains(&merged) {
                    all.push(merged);
                    ahead.push_back(merged);
                }
            }
        }
        all
    }

    /// The live or needed link of a directory.
    fn link_of_dir(&self, dir: FileId) -> FsResult<Option<LinkId>> {
        Ok(self.object_of(dir)?.live_links().next().map(|(link, _)| link))
    }

    /// Gives the directories that were shown in it: they are to be looked at again.
    fn forget_dir_name(&self, change: &mut Change<'_>, place: &Place, shown: Shown) -> FsResult<Vec<FileId>> {
        let dir = shown.file;
        let all_merged = Self::merged_in(change.core, dir);
        for &merged in &all_merged {
            if let Some(link) = self.link_of_dir(merged)? {
                change.emit(merged, Op::Unlink { link, seen: VersionVector::new() })?;
            }
            // It is shown in one that is gone: what comes into it later needs another.
            change.todo(merged, true);
        }
        change.need(dir, None)?;
        change.show(place, None);
        change.emit(dir, Op::Unlink { link: shown.link, seen: VersionVector::new() })?;
        change.local_mut(dir)?.placed.clear();
        change.detach(dir);
        change.core.forget_dir(dir);
        let local = change.local_mut(dir)?;
        if local.merged_into.is_none() && !local.broken {
            change.forget_local(dir)?;
        }
        Ok(all_merged)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// `NOENT`, `NOTDIR`, `NOTEMPTY`; what the disk says.
    pub fn rmdir(&self, parent: NodeId, name: &[u8]) -> FsResult<()> {
        self.writable()?;
        let core = &mut *self.lock();
        let place = self.named(core, parent, name)?;
        let shown = self.shown(&place)?.ok_or(Errno::NOENT)?;
        if shown.kind != libc::DT_DIR {
            return Err(Errno::NOTDIR);
        }
        if self.index.has_children(shown.file) {
            return Err(Errno::NOTEMPTY);
        }
        let at = self.at_place(core, &place)?;
        self.hold(core, shown.file, &at);
        access::rmdir(&at.dir, &at.name)?;
        let said = (|| {
            let mut change = Change::new(self, core);
            let merged = self.forget_dir_name(&mut change, &place, shown)?;
            Ok((change.commit()?, merged))
        })();
        match said {
            Ok((done, merged)) => self.follow_with(core, done, merged),
            Err(error) => {
                self.make_dir_again(core, shown.file, &place);
                Err(error)
            }
        }
    }

    /// A directory was removed on the disk, and that could not be said.
    fn make_dir_again(&self, core: &mut Core, dir: FileId, place: &Place) {
        core.forget_dir(dir);
        let made = self.object_of(dir).and_then(|object| self.make_at(core, dir, &object, &Kind::Dir, place));
        if made.is_err() {
            self.names_not_said(core, [place.parent]);
        }
    }

    /// Renames, by the rules of `renameat2` with `flags`.
    ///
    /// # Errors
    /// `NOENT`, `EXIST`, `NOTEMPTY`, `ISDIR`, `NOTDIR`, `INVAL`; what the disk says.
    pub fn rename(
        &self,
        parent: NodeId,
        name: &[u8],
        to_parent: NodeId,
        to_name: &[u8],
        flags: u32,
    ) -> FsResult<()> {
        self.writable()?;
        let flags = RenameFlags::from_bits_retain(flags);
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if !(RenameFlags::EXCHANGE | RenameFlags::NOREPLACE).contains(flags)
            || flags == RenameFlags::EXCHANGE | RenameFlags::NOREPLACE
        {
            return Err(Errno::INVAL);
        }
        let core = &mut *if exchange { self.lock() } else { self.lock_after_asking(to_parent, to_name)? };
        let from = self.named(core, parent, name)?;
        let to = self.named(core, to_parent, to_name)?;
        Self::checked(to.parent, &to.name)?;
        let old = self.shown(&from)?.ok_or(Errno::NOENT)?;
        let new = self.shown(&to)?;
        match new {
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
            None if exchange => return Err(Errno::NOENT),
            Some(new) if new.file == old.file => return Ok(()),
            _ => {}
        }
        let is_dir = |s: &Shown| s.kind == libc::DT_DIR;
        if is_dir(&old) && self.is_below(to.parent, old.file)?
            || exchange
                && new.as_ref().is_some_and(is_dir)
                && self.is_below(from.parent, new.map_or(FileId::ROOT, |n| n.file))?
        {
            return Err(Errno::INVAL);
        }
        if let (Some(new), false) = (&new, exchange) {
            match (is_dir(&old), is_dir(new)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if self.index.has_children(new.file) => return Err(Errno::NOTEMPTY),
                _ => {}
            }
        }
        if let Some(new) = &new {
            self.keep_open(core, new.file);
        }
        let (a, b) = (self.at_place(core, &from)?, self.at_place(core, &to)?);
        if let (Some(new), false) = (&new, exchange) {
            self.hold(core, new.file, &b);
        }
        // What the index does not show may still be on the disk, put there past us: never over it.
        let on_disk = if new.is_none() { RenameFlags::NOREPLACE } else { flags };
        access::rename(&a.dir, &a.name, &b.dir, &b.name, on_disk)?;
        let moved = (|| {
            let mut merged = Vec::new();
            let mut change = Change::new(self, core);
            self.revive(&mut change, to.parent)?;
            if exchange {
                self.revive(&mut change, from.parent)?;
            }
            match new {
                Some(new) if exchange => self.moved(&mut change, new, &from)?,
                Some(new) if is_dir(&new) => merged = self.forget_dir_name(&mut change, &to, new)?,
                Some(new) => self.forget_name(&mut change, &to, new)?,
                None => {}
            }
            if !exchange {
                change.show(&from, None);
            }
            self.moved(&mut change, old, &to)?;
            change.refresh_print(old.file)?;
            if let Some(new) = new.filter(|_| exchange) {
                change.refresh_print(new.file)?;
            }
            Ok((change.commit()?, merged))
        })();
        match moved {
            Ok((done, merged)) => self.follow_with(core, done, merged),
            Err(error) => {
                // Nothing was said: the disk goes back, as far as it can.
                let back = if exchange { RenameFlags::EXCHANGE } else { RenameFlags::NOREPLACE };
                let undone = match new {
                    Some(new) if !exchange && !is_dir(&new) => Err(Errno::NOENT),
                    _ => access::rename(&b.dir, &b.name, &a.dir, &a.name, back),
                };
                if undone.is_err() {
                    self.names_not_said(core, [from.parent, to.parent]);
                    return Err(error);
                }
                self.not_said(core, old.file, &a, Ok(()));
                match new {
                    Some(new) if exchange => self.not_said(core, new.file, &b, Ok(())),
                    Some(new) => self.make_dir_again(core, new.file, &to),
                    None => {}
                }
                Err(error)
            }
        }
    }

    /// One object moved on the disk, as a program wanted it.
    fn moved(&self, change: &mut Change<'_>, shown: Shown, to: &Place) -> FsResult<()> {
        let file = shown.file;
        if shown.kind == libc::DT_DIR {
            change.need(file, None)?;
        }
        change.emit(file, Op::Move { link: shown.link, place: to.clone() })?;
        change.local_mut(file)?.placed.insert(shown.link, to.clone());
        change.show(to, Some(shown));
        if shown.kind == libc::DT_DIR {
            if change.core.broken.contains(&file) {
                change.local_mut(file)?.broken = false;
                change.mend(file);
            }
            // What is shown as one directory moves as one.
            for merged in Self::merged_in(change.core, file) {
                if let Some(link) = self.link_of_dir(merged)? {
                    change.emit(merged, Op::Move { link, place: to.clone() })?;
                }
            }
        }
        Ok(())
    }

    /// What a change of ours means for others that want the same places, and for removed
    /// directories that were kept because something was in them.
    pub(super) fn follow(&self, core: &mut Core, done: Done) -> FsResult<()> {
        self.follow_with(core, done, Vec::new())
    }

    /// The same, and for these.
    fn follow_with(&self, core: &mut Core, done: Done, mut ahead: Vec<FileId>) -> FsResult<()> {
        for place in done.places {
            let parent = self.merged_to(place.parent)?;
            if self.local_or_none(place.parent)?.needed.is_some() {
                ahead.push(place.parent);
            }
            let place = Place { parent, name: place.name };
            let claims = self.claims(core, &place)?;
            match claims.as_slice() {
                [] => {}
                [one] if self.shown(&place)?.is_some_and(|s| s.link == one.link) => {}
                all => ahead.extend(all.iter().map(|c| c.file)),
            }
        }
        if !ahead.is_empty() {
            self.bring_about(core, ahead);
        }
        Ok(())
    }
}
