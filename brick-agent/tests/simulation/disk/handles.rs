//! What an agent has of a simulated disk: directories and files that are open.

use std::any::Any;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard};

use nearbrick_agent::brick::disk::{Dir, DirAccess, File, FileAccess, Lease, Stat};
use rustix::fs::{FallocateFlags, FileType, OFlags, RenameFlags, StatVfs, Timestamps, XattrFlags};
use rustix::io::{Errno, Result};

use super::{Inner, SimDisk, Trouble, file_type};
use crate::files::{Data, Op, SECTOR, What};

#[derive(Debug)]
pub(super) struct SimDir {
    pub(super) disk: SimDisk,
    pub(super) life: u64,
    pub(super) ino: u64,
}

impl SimDir {
    fn change(&self) -> Result<MutexGuard<'_, Inner>> {
        self.disk.change(self.life)
    }

    fn read(&self) -> Result<MutexGuard<'_, Inner>> {
        self.disk.read(self.life)
    }

    fn beside(to: &dyn DirAccess) -> Result<u64> {
        (to as &dyn Any).downcast_ref::<SimDir>().map(|d| d.ino).ok_or(Errno::XDEV)
    }
}

impl DirAccess for SimDir {
    fn open(&self, name: &[u8], flags: OFlags, mode: u32) -> Result<File> {
        let clock = self.disk.clock();
        if flags.contains(OFlags::TMPFILE) {
            let mut inner = self.change()?;
            if !inner.shares {
                return Err(Errno::OPNOTSUPP);
            }
            let ino = inner.free_number();
            let inode = inner.inode(clock, libc::S_IFREG | mode, What::File(Data::default()));
            inner.now.0.insert(ino, inode);
            return Ok(self.disk.open_as(&mut inner, self.life, ino, flags));
        }
        let found = self.read()?.find(self.ino, name);
        let ino = match found {
            Ok(_) if flags.contains(OFlags::CREATE | OFlags::EXCL) => return Err(Errno::EXIST),
            Ok(ino) => ino,
            Err(Errno::NOENT) if flags.contains(OFlags::CREATE) => {
                let mut inner = self.change()?;
                inner.space()?;
                inner.make(
                    clock,
                    self.ino,
                    name,
                    libc::S_IFREG | mode & 0o7777,
                    What::File(Data::default()),
                )?
            }
            Err(error) => return Err(error),
        };
        let mut inner = if flags.contains(OFlags::TRUNC) { self.change()? } else { self.read()? };
        let writes = flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        match &inner.get(ino)?.what {
            What::Symlink(_) if !flags.contains(OFlags::PATH) => return Err(Errno::LOOP),
            What::Dir(_) if writes => return Err(Errno::ISDIR),
            _ => {}
        }
        if writes && inner.trouble == Trouble::ReadOnly {
            return Err(Errno::ROFS);
        }
        if flags.contains(OFlags::TRUNC) {
            inner.resize(clock, ino, 0);
        }
        Ok(self.disk.open_as(&mut inner, self.life, ino, flags))
    }

    fn open_dir(&self, name: &[u8]) -> Result<Dir> {
        let mut inner = self.read()?;
        let ino = inner.find(self.ino, name)?;
        inner.entries(ino)?;
        Ok(Arc::new(SimDir { disk: self.disk.clone(), life: self.life, ino }))
    }

    fn stat(&self, name: &[u8]) -> Result<Stat> {
        let mut inner = self.read()?;
        let ino = inner.find(self.ino, name)?;
        inner.stat(ino)
    }

    fn stat_self(&self) -> Result<Stat> {
        self.read()?.stat(self.ino)
    }

    fn chmod(&self, name: &[u8], mode: u32) -> Result<()> {
        let mut inner = self.change()?;
        let ino = inner.find(self.ino, name)?;
        inner.set_mode(self.disk.clock(), ino, mode)
    }

    fn chown(&self, name: &[u8], uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let mut inner = self.change()?;
        let ino = inner.find(self.ino, name)?;
        inner.set_owner(self.disk.clock(), ino, uid, gid)
    }

    fn utimens(&self, name: &[u8], times: &Timestamps) -> Result<()> {
        let mut inner = self.change()?;
        let ino = inner.find(self.ino, name)?;
        inner.set_times(self.disk.clock(), ino, times)
    }

    fn get_xattr(&self, name: &[u8], attribute: &[u8]) -> Result<Vec<u8>> {
        let mut inner = self.read()?;
        let ino = inner.find(self.ino, name)?;
        inner.xattr(ino, attribute)
    }

    fn set_xattr(&self, name: &[u8], attribute: &[u8], value: &[u8], flags: XattrFlags) -> Result<()> {
        let mut inner = self.change()?;
        let ino = inner.find(self.ino, name)?;
        inner.set_xattr(self.disk.clock(), ino, attribute, Some(value), flags)
    }

    fn remove_xattr(&self, name: &[u8], attribute: &[u8]) -> Result<()> {
        let mut inner = self.change()?;
        let ino = inner.find(self.ino, name)?;
        inner.set_xattr(self.disk.clock(), ino, attribute, None, XattrFlags::empty())
    }

    fn list_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        let mut inner = self.read()?;
        let ino = inner.find(self.ino, name)?;
        inner.xattrs(ino)
    }

    fn mkdir(&self, name: &[u8], mode: u32) -> Result<()> {
        let mut inner = self.change()?;
        inner.space()?;
        let mode = libc::S_IFDIR | mode & 0o7777;
        inner.make(self.disk.clock(), self.ino, name, mode, What::Dir(BTreeMap::new())).map(drop)
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let mut inner = self.disk.change_that(self.life, true)?;
        let ino = inner.find(self.ino, name)?;
        if !inner.entries(ino)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        inner.unlink(self.disk.clock(), self.ino, name);
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let mut inner = self.disk.change_that(self.life, true)?;
        let ino = inner.find(self.ino, name)?;
        if inner.get(ino)?.entries().is_some() {
            return Err(Errno::ISDIR);
        }
        inner.unlink(self.disk.clock(), self.ino, name);
        Ok(())
    }

    fn rename(&self, name: &[u8], to: &dyn DirAccess, to_name: &[u8], flags: RenameFlags) -> Result<()> {
        let to = Self::beside(to)?;
        self.change()?.rename(self.disk.clock(), (self.ino, name), (to, to_name), flags)
    }

    fn link(&self, name: &[u8], to: &dyn DirAccess, to_name: &[u8]) -> Result<()> {
        let (to, clock) = (Self::beside(to)?, self.disk.clock());
        let mut inner = self.change()?;
        let ino = inner.find(self.ino, name)?;
        inner.check(to_name)?;
        inner.space()?;
        if inner.get(ino)?.entries().is_some() {
            return Err(Errno::PERM);
        }
        if inner.entries(to)?.contains_key(to_name) {
            return Err(Errno::EXIST);
        }
        inner.push(Op::Link { dir: to, name: to_name.to_vec(), ino });
        inner.touch(clock, ino, false);
        inner.touch(clock, to, true);
        Ok(())
    }

    fn symlink(&self, target: &[u8], name: &[u8]) -> Result<()> {
        let mut inner = self.change()?;
        inner.space()?;
        let what = What::Symlink(target.to_vec());
        inner.make(self.disk.clock(), self.ino, name, libc::S_IFLNK | 0o777, what).map(drop)
    }

    fn mknod(&self, name: &[u8], format: u32, _rdev: u64) -> Result<()> {
        let mut inner = self.change()?;
        inner.space()?;
        inner.make(self.disk.clock(), self.ino, name, format, What::Special).map(drop)
    }

    fn readlink(&self, name: &[u8]) -> Result<Vec<u8>> {
        let mut inner = self.read()?;
        let ino = inner.find(self.ino, name)?;
        match &inner.get(ino)?.what {
            What::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::INVAL),
        }
    }

    fn list(&self) -> Result<Vec<(Vec<u8>, FileType)>> {
        let inner = self.read()?;
        inner
            .entries(self.ino)?
            .iter()
            .map(|(name, ino)| Ok((name.clone(), file_type(inner.get(*ino)?.mode))))
            .collect()
    }

    fn sync(&self) -> Result<()> {
        self.change()?.make_durable(|_| false);
        Ok(())
    }

    fn sync_all(&self) -> Result<()> {
        self.change()?.make_durable(|_| true);
        // The index is on the same file system.
        self.disk.0.stores.write_back();
        Ok(())
    }

    fn stat_fs(&self) -> Result<StatVfs> {
        let inner = self.read()?;
        let free = if inner.trouble == Trouble::Full { 0 } else { 1 << 20 };
        Ok(StatVfs {
            f_bsize: 4096,
            f_frsize: 4096,
            f_blocks: 2 << 20,
            f_bfree: free,
            f_bavail: free,
            f_files: 1 << 20,
            f_ffree: 1 << 20,
            f_favail: 1 << 20,
            f_fsid: 0,
            f_flag: rustix::fs::StatVfsMountFlags::empty(),
            f_namemax: 255,
        })
    }
}

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) disk: SimDisk,
    pub(super) life: u64,
    pub(super) ino: u64,
    pub(super) writes: bool,
    pub(super) path_only: bool,
    pub(super) holds_lock: AtomicBool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if self.disk.0.life.number() != self.life {
            return;
        }
        let mut inner = self.disk.inner();
        if self.holds_lock.load(Ordering::Relaxed) {
            inner.locked.remove(&self.ino);
        }
        if let Some(opens) = inner.open.get_mut(&self.ino) {
            opens.all = opens.all.saturating_sub(1);
            opens.writing = opens.writing.saturating_sub(usize::from(self.writes));
            if opens.all == 0 {
                inner.open.remove(&self.ino);
                inner.tidy();
            }
        }
    }
}

impl SimFile {
    fn read(&self) -> Result<MutexGuard<'_, Inner>> {
        if self.path_only { Err(Errno::BADF) } else { self.disk.read(self.life) }
    }

    fn write(&self) -> Result<MutexGuard<'_, Inner>> {
        if self.writes { self.disk.change(self.life) } else { Err(Errno::BADF) }
    }
}

impl FileAccess for SimFile {
    fn stat(&self) -> Result<Stat> {
        self.disk.read(self.life)?.stat(self.ino)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> Result<usize> {
        let inner = self.read()?;
        let bytes = &inner.data(self.ino)?.bytes;
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let n = buf.len().min(bytes.len() - at);
        buf[..n].copy_from_slice(&bytes[at..at + n]);
        Ok(n)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<usize> {
        let mut inner = self.write()?;
        inner.space()?;
        inner.data(self.ino)?;
        // Now and then not all is taken at once.
        let n = if bytes.len() > 1 && inner.chance.one_in(16) {
            inner.chance.between(1, bytes.len() - 1)
        } else {
            bytes.len()
        };
        inner.push(Op::Write { ino: self.ino, at: offset as usize, bytes: bytes[..n].to_vec() });
        inner.touch(self.disk.clock(), self.ino, true);
        Ok(n)
    }

    fn truncate(&self, size: u64) -> Result<()> {
        let mut inner = self.write()?;
        inner.data(self.ino)?;
        inner.resize(self.disk.clock(), self.ino, size as usize);
        Ok(())
    }

    fn allocate(&self, mode: FallocateFlags, offset: u64, len: u64) -> Result<()> {
        let mut inner = self.write()?;
        let (ino, at, len) = (self.ino, offset as usize, len as usize);
        if mode.contains(FallocateFlags::PUNCH_HOLE) {
            let punched = Op::Punch { ino, at, len };
            // Bytes that were on their way there come first.
            for op in std::mem::take(&mut inner.log) {
                if op.written() == Some(ino) {
                    inner.durable.apply(&op);
                } else {
                    inner.log.push(op);
                }
            }
            inner.push(punched);
        } else if mode.is_empty() || mode == FallocateFlags::KEEP_SIZE {
            inner.space()?;
            let size = inner.data(ino)?.bytes.len();
            if mode.is_empty() && at + len > size {
                inner.push(Op::Resize { ino, size: at + len });
            }
        } else {
            return Err(Errno::OPNOTSUPP);
        }
        inner.touch(self.disk.clock(), ino, true);
        Ok(())
    }

    fn seek_data(&self, at: u64) -> Result<u64> {
        let inner = self.read()?;
        let data = inner.data(self.ino)?;
        let at = at as usize;
        if at >= data.bytes.len() {
            return Err(Errno::NXIO);
        }
        let next = data.present.range(at / SECTOR..).next().ok_or(Errno::NXIO)?;
        Ok((next * SECTOR).max(at) as u64)
    }

    fn seek_hole(&self, at: u64) -> Result<u64> {
        let inner = self.read()?;
        let data = inner.data(self.ino)?;
        let at = at as usize;
        if at >= data.bytes.len() {
            return Err(Errno::NXIO);
        }
        let mut sector = at / SECTOR;
        while data.present.contains(&sector) {
            sector += 1;
        }
        Ok((sector * SECTOR).max(at).min(data.bytes.len()) as u64)
    }

    fn sync(&self) -> Result<()> {
        let ino = self.ino;
        self.disk.change(self.life)?.make_durable(|of| of == ino);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn chmod(&self, mode: u32) -> Result<()> {
        self.disk.change(self.life)?.set_mode(self.disk.clock(), self.ino, mode)
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.disk.change(self.life)?.set_owner(self.disk.clock(), self.ino, uid, gid)
    }

    fn utimens(&self, times: &Timestamps) -> Result<()> {
        self.disk.change(self.life)?.set_times(self.disk.clock(), self.ino, times)
    }

    fn set_xattr(&self, attribute: &[u8], value: &[u8]) -> Result<()> {
        self.change_xattr(attribute, Some(value), XattrFlags::empty())
    }

    fn get_xattr(&self, attribute: &[u8]) -> Result<Vec<u8>> {
        self.disk.read(self.life)?.xattr(self.ino, attribute)
    }

    fn list_xattr(&self) -> Result<Vec<u8>> {
        self.disk.read(self.life)?.xattrs(self.ino)
    }

    fn change_xattr(&self, attribute: &[u8], value: Option<&[u8]>, flags: XattrFlags) -> Result<()> {
        self.disk.change(self.life)?.set_xattr(self.disk.clock(), self.ino, attribute, value, flags)
    }

    fn clone_from(&self, from: &dyn FileAccess) -> Result<()> {
        let from = (from as &dyn Any).downcast_ref::<SimFile>().ok_or(Errno::XDEV)?.ino;
        let mut inner = self.write()?;
        if !inner.shares {
            return Err(Errno::OPNOTSUPP);
        }
        let data = inner.data(from)?.clone();
        let ino = self.ino;
        inner.resize(self.disk.clock(), ino, 0);
        inner.resize(self.disk.clock(), ino, data.bytes.len());
        for sector in data.present {
            let (at, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(data.bytes.len()));
            inner.push(Op::Write { ino, at, bytes: data.bytes[at..end].to_vec() });
        }
        Ok(())
    }

    fn reopen(&self, flags: OFlags) -> Result<File> {
        let mut inner = self.disk.read(self.life)?;
        inner.get(self.ino)?;
        if flags.intersects(OFlags::WRONLY | OFlags::RDWR) && inner.trouble == Trouble::ReadOnly {
            return Err(Errno::ROFS);
        }
        Ok(self.disk.open_as(&mut inner, self.life, self.ino, flags))
    }

    fn read_lease(self: Arc<Self>) -> Result<Lease> {
        let inner = self.read()?;
        let writing = inner.open.get(&self.ino).is_some_and(|o| o.writing > 0);
        Ok(if writing { Lease::Writable } else { Lease::Granted(Box::new(())) })
    }

    fn lock(&self) -> Result<()> {
        let mut inner = self.disk.read(self.life)?;
        if !inner.locked.insert(self.ino) {
            return Err(Errno::WOULDBLOCK);
        }
        self.holds_lock.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}
