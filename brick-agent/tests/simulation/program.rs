//! What programs do at one workstation, and what the oracle learns from it.

use nearbrick_agent::peer::Served;
use nearbrick_agent::volume::Volume;
use nearbrick_agent::volume::types::SetAttr;
use nearbrick_core::FileId;
use nearbrick_core::op::Kind;
use nearbrick_core::scrub::hash_of;
use rustix::io::Errno;

use super::machine::{Machine, Slot};
use super::oracle::{Known, Oracle};
use super::steps::{Action, DIRS, How, Mass, PATHS};
use super::support::fs::{Fs, Name, path, read_all, write_all};

/// A program at a workstation.
pub struct Program<'a> {
    pub member: usize,
    pub machine: &'a mut Machine,
    pub volume: &'a Volume,
    pub oracle: &'a mut Oracle,
}

type Done = Result<String, Errno>;

/// Files that are made, removed or replaced at once: more than the least that a brake holds back.
const BULK: usize = 110;

fn path_of(n: usize) -> Vec<Name> {
    path(PATHS[n % PATHS.len()])
}

fn dir_of(n: usize) -> Vec<Name> {
    path(DIRS[n % DIRS.len()])
}

/// The file in which editors write first.
fn beside(at: &[Name]) -> Vec<Name> {
    let mut at = at.to_vec();
    if let Some(name) = at.last_mut() {
        name.extend_from_slice(b"~");
    }
    at
}

impl Program<'_> {
    /// Does it. Gives what there is to say, or the error; an error of the oracle is a failure of the run.
    pub fn act(&mut self, action: &Action) -> Result<Done, String> {
        Ok(match action {
            Action::Open { path, slot, how } => self.open(&path_of(*path), *slot, *how),
            Action::Write { slot, at, len } => self.write(*slot, *at, *len),
            Action::Sync { slot } => self.sync(*slot),
            Action::Close { slot } => self.close(*slot),
            Action::Put { path, len, sync } => self.put(&path_of(*path), *len, *sync),
            Action::Save { path, len, sync } => self.save(&path_of(*path), *len, *sync),
            Action::Read { path } => return self.read(&path_of(*path)),
            Action::ReadAll => return self.read_everything(),
            Action::Unlink { path } => self.unlink(&path_of(*path)),
            Action::Rename { from, to } => self.rename(&path_of(*from), &path_of(*to)),
            Action::Exchange { a, b } => self.exchange(&path_of(*a), &path_of(*b)),
            Action::Link { from, to } => self.link(&path_of(*from), &path_of(*to)),
            Action::Symlink { path } => self.fs().symlink(&path_of(*path), b"target").map(|()| String::new()),
            Action::Truncate { path, size } => self.truncate(&path_of(*path), *size),
            Action::Chmod { path, mode } => self.fs().chmod(&path_of(*path), *mode).map(|()| String::new()),
            Action::Xattr { path, value } => self.xattr(&path_of(*path), *value),
            Action::Mkdir { dir } => self.fs().mkdir(&dir_of(*dir)).map(|()| String::new()),
            Action::Rmdir { dir } => self.fs().rmdir(&dir_of(*dir)).map(|()| String::new()),
            Action::RenameDir { from, to } => self.rename_dir(&dir_of(*from), &dir_of(*to)),
        })
    }

    fn fs(&self) -> Fs<'_> {
        Fs::new(self.volume)
    }

    /// Of the index, and not of the agent: that may have died in the call that is looked at.
    fn known(&self, file: FileId) -> Known {
        let object = self.machine.index().object(file).ok().flatten().unwrap_or_default();
        Known { heads: self.volume.heads(), versions: object.seen() }
    }

    /// What is at this path is about to be emptied or removed; which file that is.
    fn gives_up(&mut self, at: &[Name]) -> Result<Option<FileId>, Errno> {
        let Some(found) = self.machine.disk.file_at(at) else { return Ok(None) };
        if !self.oracle.may_go(self.member, &found.bytes) {
            return Err(Errno::CANCELED);
        }
        let file = found.mark.map(|mark| mark.file);
        self.oracle.release(file, &found.bytes);
        if let Some(file) = file {
            self.gave_up(file);
        }
        Ok(file)
    }

    /// It is emptied or removed. The newest version was perhaps asked for first, and heard of only by that. So it is also where the call
    /// fails, as an agent that dies in it may have carried it out.
    fn gave_up(&mut self, file: FileId) {
        let known = self.known(file);
        self.oracle.release_known(file, &known);
    }

    /// The file's bytes are about to be changed by a program.
    fn begins(&mut self, file: FileId) {
        if let Some(found) = self.machine.disk.marked(file) {
            self.oracle.release(Some(file), &found.bytes);
            self.oracle.writes(self.member, found.made);
        }
    }

    /// They were, as far as it went.
    fn ends(&mut self, file: FileId) {
        if let Some(found) = self.machine.disk.marked(file) {
            self.oracle.writes(self.member, found.made);
            // Who dies of it knows nothing any more.
            let known = (!self.machine.life.is_over()).then(|| self.known(file));
            self.oracle.wrote(self.member, file, &found.bytes, known);
            if !self.machine.life.is_over() {
                self.oracle.saw(&found.bytes);
                let local = self.machine.index().local(file).ok().flatten().unwrap_or_default();
                if let Some(then) = local.snapshot.filter(|_| local.dirty) {
                    self.oracle.tore(&found.bytes, then.size);
                }
            }
        }
    }

    fn opened(&mut self, at: &[Name], how: How) -> Result<Slot, Errno> {
        let flags = match how {
            How::Read => libc::O_RDONLY,
            How::Write => libc::O_RDWR,
            How::Truncate => libc::O_RDWR | libc::O_CREAT | libc::O_TRUNC,
            How::Create => libc::O_RDWR | libc::O_CREAT,
            How::Exclusive => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        };
        let mut was = None;
        if how == How::Truncate {
            was = self.gives_up(at)?;
            if let Some(found) = self.machine.disk.file_at(at) {
                self.oracle.writes(self.member, found.made);
            }
        }
        let opened = {
            let fs = self.fs();
            fs.open(at, flags, 0o644).map(|(stat, opened)| (stat.node, opened.handle))
        };
        if how == How::Truncate
            && opened.is_err()
            && let Some(file) = was
        {
            self.gave_up(file);
        }
        let (node, handle) = opened?;
        let file = self.volume.object_behind(node).unwrap_or(FileId::ROOT);
        if how == How::Truncate {
            self.gave_up(file);
        }
        Ok(Slot { handle, file, writes: how != How::Read })
    }

    fn open(&mut self, at: &[Name], slot: usize, how: How) -> Done {
        let opened = self.opened(at, how)?;
        let said = format!("{}", opened.file);
        if let Some(old) = self.machine.slots[slot].replace(opened) {
            self.volume.release(old.handle);
        }
        Ok(said)
    }

    fn slot(&self, slot: usize) -> Result<Slot, Errno> {
        self.machine.slots[slot].ok_or(Errno::BADF)
    }

    fn write_to(&mut self, slot: &Slot, at: u64, len: usize) -> Result<(), Errno> {
        if !slot.writes {
            return Err(Errno::BADF);
        }
        let bytes = self.oracle.bytes(len);
        self.begins(slot.file);
        let done = write_all(self.volume, slot.handle, at, &bytes);
        self.ends(slot.file);
        done
    }

    fn write(&mut self, slot: usize, at: u64, len: usize) -> Done {
        let slot = self.slot(slot)?;
        self.write_to(&slot, at, len)?;
        Ok(format!("{}", slot.file))
    }

    fn sync_of(&mut self, slot: &Slot, name: &str) -> Result<(), Errno> {
        let before = self.known(slot.file);
        self.volume.fsync(slot.handle, false)?;
        // What has no name any more is no one's.
        if let Some(found) = self.machine.disk.marked(slot.file)
            && slot.writes
        {
            let mut bytes = Vec::new();
            self.volume.read(slot.handle, 0, found.bytes.len() + 1, &mut bytes)?;
            if bytes == found.bytes && !self.oracle.is_flipped(self.member, &bytes) {
                self.oracle.is_synced(self.member, found.made);
                let what = format!("{name}, file {}, {}", slot.file, shown(&bytes));
                self.oracle.promise(self.member, slot.file, &bytes, before, what);
            }
        }
        Ok(())
    }

    fn sync(&mut self, slot: usize) -> Done {
        let slot = self.slot(slot)?;
        self.sync_of(&slot, "an open file")?;
        Ok(format!("{}", slot.file))
    }

    fn close(&mut self, slot: usize) -> Done {
        let open = self.machine.slots[slot].take().ok_or(Errno::BADF)?;
        let flushed = self.volume.flush(open.handle);
        self.volume.release(open.handle);
        flushed.map(|()| format!("{}", open.file))
    }

    fn put(&mut self, at: &[Name], len: usize, sync: bool) -> Done {
        let open = self.opened(at, How::Truncate)?;
        let mut done = self.write_to(&open, 0, len);
        if sync && done.is_ok() {
            done = self.sync_of(&open, &super::support::tree::shown(at));
        }
        self.volume.release(open.handle);
        done.map(|()| format!("{}", open.file))
    }

    fn save(&mut self, at: &[Name], len: usize, sync: bool) -> Done {
        let aside = beside(at);
        let made = self.put(&aside, len, sync)?;
        self.rename(&aside, at)?;
        Ok(made)
    }

    /// Whether a hash that this member knows says that the file has other bytes: of the version that is here, or, where none is, of the
    /// newest, which who reads a stub gets.
    fn knows_better(&self, file: FileId, bytes: &[u8]) -> bool {
        let index = self.machine.index();
        let object = index.object(file).ok().flatten().unwrap_or_default();
        let local = index.local(file).ok().flatten().unwrap_or_default();
        let newest = object.head().filter(|_| !local.dirty).map(|head| head.version.clone());
        let known = local.have.or(newest).and_then(|version| hash_of(&object, &version));
        known.is_some_and(|hash| hash != *blake3::hash(bytes).as_bytes())
    }

    fn read(&mut self, at: &[Name]) -> Result<Done, String> {
        let open = match self.opened(at, How::Read) {
            Ok(open) => open,
            Err(error) => return Ok(Err(error)),
        };
        let bytes = read_all(self.volume, open.handle);
        self.volume.release(open.handle);
        match bytes {
            Ok(bytes)
                if !self.oracle.is_whole(&bytes)
                    && !self.oracle.is_of_several_moments(&bytes)
                    && !self.oracle.is_flipped(self.member, &bytes)
                    && (!self.oracle.is_flipped_anywhere(&bytes) || self.knows_better(open.file, &bytes)) =>
            {
                let name = super::support::tree::shown(at);
                if self.oracle.shows_torn(&bytes, &name) {
                    return Ok(Ok(shown(&bytes)));
                }
                Err(format!("a reader of {name} got what no program left there: {}", shown(&bytes)))
            }
            Ok(bytes) => Ok(Ok(shown(&bytes))),
            Err(error) => Ok(Err(error)),
        }
    }

    /// What is in a directory, and whether that is one too.
    fn listed(&self, dir: &[Name]) -> Vec<(Vec<Name>, bool)> {
        let fs = self.fs();
        let names = fs.stat(dir).and_then(|stat| fs.list(stat.node, 50)).unwrap_or_default();
        let full = names.into_iter().map(|entry| [dir, &[entry.name]].concat());
        let is_dir = |at: &Vec<Name>| fs.stat(at).is_ok_and(|stat| stat.kind.is_dir());
        full.map(|at| (at.clone(), is_dir(&at))).collect()
    }

    /// Reads every file that is shown.
    fn read_everything(&mut self) -> Result<Done, String> {
        let (mut ahead, mut files) = (vec![Vec::new()], 0);
        while let Some(dir) = ahead.pop() {
            for (at, is_dir) in self.listed(&dir) {
                if is_dir {
                    ahead.push(at);
                } else {
                    files += usize::from(self.read(&at)?.is_ok());
                }
            }
        }
        Ok(Ok(format!("{files} files")))
    }

    fn unlink(&mut self, at: &[Name]) -> Done {
        let file = self.gives_up(at)?;
        let done = self.fs().unlink(at);
        file.into_iter().for_each(|file| self.gave_up(file));
        done.map(|()| String::new())
    }

    fn rename(&mut self, from: &[Name], to: &[Name]) -> Done {
        let (old, new) = {
            let fs = self.fs();
            (fs.stat(from)?, fs.stat(to))
        };
        if old.kind.is_dir() || new.as_ref().is_ok_and(|s| s.kind.is_dir()) {
            return Err(Errno::ISDIR);
        }
        if new.is_ok_and(|new| new.node == old.node) {
            return Ok("the same".to_owned());
        }
        let file = self.gives_up(to)?;
        let done = self.fs().rename(from, to);
        file.into_iter().for_each(|file| self.gave_up(file));
        done.map(|()| String::new())
    }

    fn exchange(&mut self, a: &[Name], b: &[Name]) -> Done {
        let fs = self.fs();
        let (one, other) = (fs.stat(a)?, fs.stat(b)?);
        if one.node == other.node || one.kind.is_dir() || other.kind.is_dir() {
            return Err(Errno::INVAL);
        }
        let ((dir, name), (to_dir, to_name)) = (fs.parent(a)?, fs.parent(b)?);
        self.volume.rename(dir, name, to_dir, to_name, libc::RENAME_EXCHANGE)?;
        Ok(String::new())
    }

    fn link(&mut self, from: &[Name], to: &[Name]) -> Done {
        let fs = self.fs();
        let stat = fs.stat(from)?;
        if stat.kind.is_dir() {
            return Err(Errno::PERM);
        }
        let (dir, name) = fs.parent(to)?;
        fs.counted(&self.volume.link(stat.node, dir, name)?);
        Ok(String::new())
    }

    fn truncate(&mut self, at: &[Name], size: u64) -> Done {
        let stat = self.fs().stat(at)?;
        if stat.kind != Kind::File {
            return Err(Errno::INVAL);
        }
        if size == 0 {
            self.gives_up(at)?;
        }
        // A newer version may be brought here first: it is that one which is cut off then. Or another file comes to have the name.
        let mut opened = None;
        if size > 0 && self.volume.waits_for_peer(stat.node) {
            opened = Some(self.volume.open_file(stat.node, libc::O_RDWR)?.handle);
        }
        // By what is open, if by anything: by its name it might be brought only now.
        let node = if opened.is_some() { stat.node } else { self.fs().stat(at)?.node };
        let file = self.volume.object_behind(node).ok_or(Errno::STALE)?;
        self.begins(file);
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let done = self.volume.setattr(node, opened, &set);
        opened.into_iter().for_each(|handle| self.volume.release(handle));
        if size == 0 {
            self.gave_up(file);
        }
        self.ends(file);
        done.map(|_| format!("{file}"))
    }

    /// Does something to many files; to how many.
    pub fn mass(&mut self, mass: Mass) -> usize {
        let path_of = |n: usize| [b"bulk".to_vec(), format!("{n:03}").into_bytes()];
        let _ = self.fs().mkdir(&[b"bulk".to_vec()]);
        let mut done = 0;
        for n in 0..BULK {
            let at = path_of(n);
            done += usize::from(match mass {
                Mass::Make => self.put(&at, 20, false).is_ok(),
                Mass::Remove => self.unlink(&at).is_ok(),
                Mass::Replace => self.fs().stat(&at).is_ok() && self.save(&at, 30, false).is_ok(),
            });
        }
        done
    }

    fn xattr(&mut self, at: &[Name], value: Option<u8>) -> Done {
        let stat = self.fs().stat(at)?;
        if !matches!(stat.kind, Kind::File | Kind::Dir) {
            return Err(Errno::PERM);
        }
        match value {
            Some(value) => self.volume.setxattr(stat.node, b"user.note", &[value], 0)?,
            None => self.volume.removexattr(stat.node, b"user.note")?,
        }
        Ok(String::new())
    }

    fn rename_dir(&mut self, from: &[Name], to: &[Name]) -> Done {
        let fs = self.fs();
        if from == to || to.starts_with(from) || from.starts_with(to) {
            return Err(Errno::INVAL);
        }
        if !fs.stat(from)?.kind.is_dir() || fs.stat(to).is_ok_and(|s| !s.kind.is_dir()) {
            return Err(Errno::NOTDIR);
        }
        fs.rename(from, to)?;
        Ok(String::new())
    }
}

/// Bytes, for people.
pub fn shown(bytes: &[u8]) -> String {
    let first: Vec<u8> = bytes.iter().copied().take(24).collect();
    format!("{} bytes {}", bytes.len(), first.escape_ascii())
}
