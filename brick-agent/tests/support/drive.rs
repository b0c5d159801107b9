//! Does operations to a volume, as the kernel would ask for them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nearbrick_agent::volume::Volume;
use nearbrick_agent::volume::types::{HandleId, NodeId, SetAttr, SetTime};
use nearbrick_core::op::Kind;
use rustix::io::Errno;

use super::fs::{Fs, Path, me, write_all};
use super::ops::{Op, SLOTS};

/// What an operation gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gave {
    Nothing,
    Bytes(Vec<u8>),
    Names(Vec<Vec<u8>>),
}

pub type Outcome = Result<Gave, Errno>;

pub fn time(sec: i64) -> SystemTime {
    let d = Duration::from_secs(sec.unsigned_abs());
    if sec < 0 { UNIX_EPOCH - d } else { UNIX_EPOCH + d }
}

/// What a program holds open.
#[derive(Default)]
pub struct Slots([Option<(NodeId, HandleId)>; SLOTS]);

impl Slots {
    pub fn close_all(&mut self, volume: &Volume) {
        for (_, handle) in self.0.iter_mut().filter_map(Option::take) {
            let _ = volume.flush(handle);
            volume.release(handle);
        }
    }

    fn get(&self, slot: usize) -> Result<(NodeId, HandleId), Errno> {
        self.0[slot].ok_or(Errno::BADF)
    }
}

fn set(volume: &Volume, path: &Path, set: SetAttr) -> Outcome {
    let fs = Fs::new(volume);
    let stat = fs.stat(path)?;
    if set.mode.is_some() && matches!(stat.kind, Kind::Symlink(_)) {
        return Err(Errno::OPNOTSUPP);
    }
    volume.setattr(stat.node, None, &set)?;
    Ok(Gave::Nothing)
}

/// Does one operation. [`Op::Reopen`] is the caller's.
pub fn apply(volume: &Volume, slots: &mut Slots, op: &Op) -> Outcome {
    let fs = Fs::new(volume);
    match op {
        Op::Open { path, slot, mode, truncate, exclusive, create } => {
            let mut flags = libc::O_RDWR;
            for (on, flag) in
                [(*truncate, libc::O_TRUNC), (*exclusive, libc::O_EXCL), (*create, libc::O_CREAT)]
            {
                if on {
                    flags |= flag;
                }
            }
            let (stat, opened) = fs.open(path, flags, *mode)?;
            if let Some((_, old)) = slots.0[*slot].replace((stat.node, opened.handle)) {
                volume.release(old);
            }
        }
        Op::Write { slot, at, len, byte } => {
            let (_, handle) = slots.get(*slot)?;
            write_all(volume, handle, *at, &vec![*byte; *len])?;
        }
        Op::Read { slot, at, len } => {
            let (_, handle) = slots.get(*slot)?;
            let mut bytes = Vec::new();
            volume.read(handle, *at, *len, &mut bytes)?;
            return Ok(Gave::Bytes(bytes));
        }
        Op::Sync { slot } => volume.fsync(slots.get(*slot)?.1, false)?,
        Op::TruncateOpen { slot, size } => {
            let (node, handle) = slots.get(*slot)?;
            let set = SetAttr { size: Some(*size), ..SetAttr::default() };
            volume.setattr(node, Some(handle), &set)?;
        }
        Op::Allocate { slot, at, len, mode } => {
            volume.fallocate(slots.get(*slot)?.1, *at, *len, *mode)?;
        }
        Op::Close { slot } => {
            let (_, handle) = slots.0[*slot].take().ok_or(Errno::BADF)?;
            let flushed = volume.flush(handle);
            volume.release(handle);
            flushed?;
        }
        Op::WriteFile { path, len, byte } => fs.write_file(path, &vec![*byte; *len])?,
        Op::ReadFile { path } => {
            let (_, opened) = fs.open(path, libc::O_RDONLY, 0)?;
            let bytes = super::fs::read_all(volume, opened.handle);
            volume.release(opened.handle);
            return Ok(Gave::Bytes(bytes?));
        }
        Op::Truncate { path, size } => {
            let stat = fs.stat(path)?;
            match stat.kind {
                Kind::File => {}
                Kind::Dir => return Err(Errno::ISDIR),
                _ => return Err(Errno::INVAL),
            }
            volume.setattr(stat.node, None, &SetAttr { size: Some(*size), ..SetAttr::default() })?;
        }
        Op::Mkdir { path, mode } => {
            let (dir, name) = fs.parent(path)?;
            fs.counted(&volume.mkdir(me(), dir, name, *mode)?);
        }
        Op::Rmdir { path } => {
            let (dir, name) = fs.parent(path)?;
            volume.rmdir(dir, name)?;
        }
        Op::Unlink { path } => {
            let (dir, name) = fs.parent(path)?;
            volume.unlink(dir, name)?;
        }
        Op::Rename { from, to, flags } => rename(&fs, from, to, *flags)?,
        Op::Link { from, to } => {
            let stat = fs.stat(from)?;
            let (dir, name) = fs.parent(to)?;
            if stat.kind.is_dir() {
                return Err(Errno::PERM);
            }
            fs.counted(&volume.link(stat.node, dir, name)?);
        }
        Op::Symlink { path, target } => {
            let (dir, name) = fs.parent(path)?;
            fs.counted(&volume.symlink(me(), dir, name, target)?);
        }
        Op::Fifo { path, mode } => {
            let (dir, name) = fs.parent(path)?;
            fs.counted(&volume.mknod(me(), dir, name, libc::S_IFIFO | mode, 0)?);
        }
        Op::Chmod { path, mode } => {
            return set(volume, path, SetAttr { mode: Some(*mode), ..SetAttr::default() });
        }
        Op::Chown { path, uid, gid } => {
            // The shell does what chown does to setuid and setgid: see the tests of the mount.
            let mode = match fs.stat(path)? {
                stat if !matches!(stat.kind, Kind::Dir | Kind::Symlink(_)) => Some(stat.perm & 0o1777),
                _ => None,
            };
            return set(
                volume,
                path,
                SetAttr { uid: Some(*uid), gid: Some(*gid), mode, ..SetAttr::default() },
            );
        }
        Op::Touch { path, mtime } => {
            let at = Some(SetTime::At(time(*mtime)));
            return set(volume, path, SetAttr { atime: at, mtime: at, ..SetAttr::default() });
        }
        Op::SetXattr { path, name, value, flags } => {
            let stat = fs.stat(path)?;
            if !matches!(stat.kind, Kind::File | Kind::Dir) {
                return Err(Errno::PERM);
            }
            volume.setxattr(stat.node, name, value, *flags)?;
        }
        Op::RemoveXattr { path, name } => {
            let stat = fs.stat(path)?;
            if !matches!(stat.kind, Kind::File | Kind::Dir) {
                return Err(Errno::PERM);
            }
            volume.removexattr(stat.node, name)?;
        }
        Op::List { path, page } => {
            let stat = fs.stat(path)?;
            if !stat.kind.is_dir() {
                return Err(Errno::NOTDIR);
            }
            let mut names: Vec<_> = fs.list(stat.node, *page)?.into_iter().map(|e| e.name).collect();
            names.sort();
            return Ok(Gave::Names(names));
        }
        Op::Reopen => unreachable!("the run does it"),
    }
    Ok(Gave::Nothing)
}

/// With the checks that the kernel makes before it asks.
fn rename(fs: &Fs<'_>, from: &Path, to: &Path, flags: u32) -> Result<(), Errno> {
    let (dir, name) = fs.parent(from)?;
    let (to_dir, to_name) = fs.parent(to)?;
    let old = fs.stat(from)?;
    let new = match fs.stat(to) {
        Ok(_) if flags & libc::RENAME_NOREPLACE != 0 => return Err(Errno::EXIST),
        Ok(new) => Some(new),
        Err(Errno::NOENT) if flags & libc::RENAME_EXCHANGE == 0 => None,
        Err(error) => return Err(error),
    };
    if to.len() > from.len() && to.starts_with(from) {
        return Err(Errno::INVAL);
    }
    if from.len() > to.len() && from.starts_with(to) {
        return Err(if flags & libc::RENAME_EXCHANGE != 0 { Errno::INVAL } else { Errno::NOTEMPTY });
    }
    if let Some(new) = new {
        if new.node == old.node {
            return Ok(());
        }
        if flags & libc::RENAME_EXCHANGE == 0 {
            match (old.kind.is_dir(), new.kind.is_dir()) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                _ => {}
            }
        }
    }
    fs.volume.rename(dir, name, to_dir, to_name, flags)
}
