//! Paths and whole files over the calls of a volume, as the kernel makes them:
//! each name is looked up in turn, and every lookup is given back.

use nearbrick_agent::volume::Volume;
use nearbrick_agent::volume::types::{Caller, DirEntry, FsResult, HandleId, NodeId, Opened, SetAttr, Stat};
use nearbrick_core::op::Kind;
use rustix::io::Errno;

/// A name.
pub type Name = Vec<u8>;
/// Names from the root.
pub type Path = [Name];

pub const ROOT: NodeId = 1;

pub fn me() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: std::process::id(),
        umask: 0,
    }
}

/// The path of `a/b`.
pub fn path(text: &str) -> Vec<Name> {
    text.split('/').filter(|n| !n.is_empty()).map(|n| n.as_bytes().to_vec()).collect()
}

/// A volume with the lookups that are to be given back.
pub struct Fs<'a> {
    pub volume: &'a Volume,
    lookups: std::cell::RefCell<Vec<NodeId>>,
}

impl Drop for Fs<'_> {
    fn drop(&mut self) {
        for node in self.lookups.take() {
            self.volume.forget(node, 1);
        }
    }
}

impl<'a> Fs<'a> {
    pub fn new(volume: &'a Volume) -> Self {
        Fs { volume, lookups: Vec::new().into() }
    }

    /// A lookup that the volume counted.
    pub fn counted(&self, stat: &Stat) {
        self.lookups.borrow_mut().push(stat.node);
    }

    fn step(&self, dir: NodeId, name: &[u8]) -> FsResult<Stat> {
        let stat = self.volume.lookup(dir, name)?;
        self.counted(&stat);
        Ok(stat)
    }

    /// The node of a path.
    pub fn stat(&self, path: &Path) -> FsResult<Stat> {
        let mut at = self.volume.getattr(ROOT, None)?;
        for name in path {
            if !at.kind.is_dir() {
                return Err(Errno::NOTDIR);
            }
            at = self.step(at.node, name)?;
        }
        Ok(at)
    }

    /// The directory in which the path's last name is, and that name.
    pub fn parent<'p>(&self, path: &'p Path) -> FsResult<(NodeId, &'p [u8])> {
        let (name, dirs) = path.split_last().ok_or(Errno::BUSY)?;
        let dir = self.stat(dirs)?;
        if !dir.kind.is_dir() {
            return Err(Errno::NOTDIR);
        }
        Ok((dir.node, name))
    }

    /// Opens as open(2) does with O_CREAT if that is in the flags.
    pub fn open(&self, path: &Path, flags: i32, mode: u32) -> FsResult<(Stat, Opened)> {
        let (dir, name) = self.parent(path)?;
        match self.step(dir, name) {
            Ok(_) if flags & libc::O_CREAT != 0 && flags & libc::O_EXCL != 0 => Err(Errno::EXIST),
            Ok(stat) => match &stat.kind {
                Kind::Dir => Err(Errno::ISDIR),
                Kind::Symlink(_) => Err(Errno::LOOP),
                Kind::Special { .. } => Err(Errno::NXIO),
                Kind::File => {
                    let flags = flags & !(libc::O_CREAT | libc::O_EXCL);
                    match self.volume.open_file(stat.node, flags) {
                        // The kernel looks the name up once more then.
                        Err(Errno::STALE) => {
                            let stat = self.step(dir, name)?;
                            let opened = self.volume.open_file(stat.node, flags)?;
                            Ok((stat, opened))
                        }
                        opened => opened.map(|opened| (stat, opened)),
                    }
                }
            },
            Err(Errno::NOENT) if flags & libc::O_CREAT != 0 => {
                let (stat, opened) = self.volume.create(me(), dir, name, mode, flags)?;
                self.counted(&stat);
                Ok((stat, opened))
            }
            Err(error) => Err(error),
        }
    }

    /// Makes a directory.
    pub fn mkdir(&self, path: &Path) -> FsResult<()> {
        let (dir, name) = self.parent(path)?;
        self.counted(&self.volume.mkdir(me(), dir, name, 0o755)?);
        Ok(())
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, path: &Path, target: &[u8]) -> FsResult<()> {
        let (dir, name) = self.parent(path)?;
        self.counted(&self.volume.symlink(me(), dir, name, target)?);
        Ok(())
    }

    /// Removes a name of what is no directory.
    pub fn unlink(&self, path: &Path) -> FsResult<()> {
        let (dir, name) = self.parent(path)?;
        self.volume.unlink(dir, name)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, path: &Path) -> FsResult<()> {
        let (dir, name) = self.parent(path)?;
        self.volume.rmdir(dir, name)
    }

    /// Renames, over what is there.
    pub fn rename(&self, from: &Path, to: &Path) -> FsResult<()> {
        let ((dir, name), (to_dir, to_name)) = (self.parent(from)?, self.parent(to)?);
        self.volume.rename(dir, name, to_dir, to_name, 0)
    }

    /// Sets permission bits.
    pub fn chmod(&self, path: &Path, mode: u32) -> FsResult<()> {
        let node = self.stat(path)?.node;
        self.volume.setattr(node, None, &SetAttr { mode: Some(mode), ..SetAttr::default() }).map(drop)
    }

    /// Writes a whole file, made anew or truncated.
    pub fn write_file(&self, path: &Path, bytes: &[u8]) -> FsResult<()> {
        let (_, opened) = self.open(path, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC, 0o644)?;
        let written = write_all(self.volume, opened.handle, 0, bytes);
        let flushed = self.volume.flush(opened.handle);
        self.volume.release(opened.handle);
        written.and(flushed)
    }

    /// All bytes of a file.
    pub fn read_file(&self, path: &Path) -> FsResult<Vec<u8>> {
        match read_node(self.volume, self.stat(path)?.node) {
            // The kernel looks the name up once more then.
            Err(Errno::STALE) => read_node(self.volume, self.stat(path)?.node),
            bytes => bytes,
        }
    }

    /// The entries of a directory, read `max` at a time, without `.` and `..`.
    pub fn list(&self, dir: NodeId, max: usize) -> FsResult<Vec<DirEntry>> {
        let handle = self.volume.opendir(dir)?;
        let all = read_dir(self.volume, handle, max);
        self.volume.releasedir(handle);
        let mut all = all?;
        assert_eq!(all.iter().filter(|e| e.name == b"." || e.name == b"..").count(), 2, "dots");
        all.retain(|e| e.name != b"." && e.name != b"..");
        Ok(all)
    }
}

fn read_dir(volume: &Volume, handle: HandleId, max: usize) -> FsResult<Vec<DirEntry>> {
    let mut all = Vec::new();
    let mut offset = 0;
    loop {
        let page = volume.readdir(handle, offset, max)?;
        let Some(last) = page.last() else { return Ok(all) };
        assert!(page.len() <= max);
        offset = last.offset;
        all.extend(page);
    }
}

pub fn write_all(volume: &Volume, handle: HandleId, mut offset: u64, mut bytes: &[u8]) -> FsResult<()> {
    while !bytes.is_empty() {
        let n = volume.write(handle, offset, bytes)?;
        assert!(n > 0 && n <= bytes.len());
        offset += n as u64;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// All bytes of an open file.
pub fn read_all(volume: &Volume, handle: HandleId) -> FsResult<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        volume.read(handle, all.len() as u64, 1 << 20, &mut buffer)?;
        if buffer.is_empty() {
            return Ok(all);
        }
        all.append(&mut buffer);
    }
}

/// All bytes of a file.
pub fn read_node(volume: &Volume, node: NodeId) -> FsResult<Vec<u8>> {
    let opened = volume.open_file(node, libc::O_RDONLY)?;
    let all = read_all(volume, opened.handle);
    volume.release(opened.handle);
    all
}
