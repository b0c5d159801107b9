//! A disk in memory, below a whole volume. It has two states: what programs see, and what is durable.
//!
//! Names, sizes and attributes come to the disk in the order in which they were changed (as by the journals of ext4
//! and XFS): after a power cut a prefix of them is there. Bytes that were written come on their own, sector by sector,
//! earlier or later than those. A new size comes with the time of that, as both are of one inode. `fsync` makes one file's bytes durable, and all names and attributes so far.

mod handles;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};

use nearbrick_agent::brick::disk::{Dir, Disk, File, Stat};
use nearbrick_agent::brick::mark::{Mark, XATTR};
use nearbrick_agent::volume::WallClock;
use nearbrick_core::FileId;
use rustix::fs::{FileType, OFlags, RenameFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::{Errno, Result};

use super::chance::Chance;
use super::clock::MachineTime;
use super::files::{Data, Inode, Op, ROOT, SECTOR, State, Time, What};
use super::life::Life;
use super::oracle::{Content, content_of};
use super::store::SimStores;
use handles::{SimDir, SimFile};

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trouble {
    #[default]
    None,
    /// Most of what needs space fails.
    Full,
    /// Some calls fail.
    Failing,
    /// Nothing can be changed.
    ReadOnly,
}

/// A machine's disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Shared>);

struct Shared {
    life: Arc<Life>,
    clock: Arc<MachineTime>,
    stores: SimStores,
    inner: Mutex<Inner>,
}

struct Inner {
    life: Arc<Life>,
    now: State,
    durable: State,
    /// From the durable state to the present one.
    log: Vec<Op>,
    open: BTreeMap<u64, Opens>,
    locked: BTreeSet<u64>,
    trouble: Trouble,
    chance: Chance,
    /// So that no two changes have one time.
    ticks: u32,
    /// Inodes that were made.
    made: u64,
    /// Files can share their blocks.
    shares: bool,
    escaped: Option<String>,
}

#[derive(Default)]
struct Opens {
    all: usize,
    writing: usize,
}

/// A file that is in `data/`.
pub struct Found {
    pub ino: u64,
    /// Which of all inodes that the disk ever made.
    pub made: u64,
    pub mark: Option<Mark>,
    pub bytes: Vec<u8>,
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

fn file_type(mode: u32) -> FileType {
    FileType::from_raw_mode(mode)
}

impl Inner {
    fn time(&mut self, clock: &MachineTime) -> Time {
        self.ticks = (self.ticks + 1) % 1_000_000;
        let ms = clock.now_ms();
        ((ms / 1000) as i64, (ms % 1000) as u32 * 1_000_000 + self.ticks)
    }

    fn get(&self, ino: u64) -> Result<&Inode> {
        self.now.get(ino).ok_or(Errno::STALE)
    }

    fn entries(&self, dir: u64) -> Result<&BTreeMap<Vec<u8>, u64>> {
        self.get(dir)?.entries().ok_or(Errno::NOTDIR)
    }

    fn data(&self, ino: u64) -> Result<&Data> {
        self.get(ino)?.data().ok_or(Errno::ISDIR)
    }

    /// The inode of a name; `.` is the directory itself.
    fn find(&mut self, dir: u64, name: &[u8]) -> Result<u64> {
        if name == b"." {
            return self.get(dir).map(|_| dir);
        }
        self.check(name)?;
        self.entries(dir)?.get(name).copied().ok_or(Errno::NOENT)
    }

    /// Only one component, and nothing that leads up.
    fn check(&mut self, name: &[u8]) -> Result<()> {
        if name.is_empty() || name == b".." || name == b"." || name.contains(&b'/') || name.contains(&0) {
            self.escaped = Some(name.escape_ascii().to_string());
            return Err(Errno::XDEV);
        }
        if name.len() > 255 { Err(Errno::NAMETOOLONG) } else { Ok(()) }
    }

    fn push(&mut self, op: Op) {
        self.life.say(|| format!("disk {op}"));
        self.now.apply(&op);
        self.log.push(op);
    }

    fn touch(&mut self, clock: &MachineTime, ino: u64, bytes: bool) {
        let now = self.time(clock);
        let Some(inode) = self.now.get(ino) else { return };
        let (atime, mtime) = (inode.atime, if bytes { now } else { inode.mtime });
        self.push(Op::Times { ino, atime, mtime, ctime: now });
    }

    /// What nobody has a name or a descriptor for is gone.
    fn tidy(&mut self) {
        let open = &self.open;
        let gone = self.now.drop_nameless(|ino| open.contains_key(&ino));
        if !gone.is_empty() {
            self.log.retain(|op| op.written().is_none_or(|ino| !gone.contains(&ino)));
        }
    }

    fn free_number(&self) -> u64 {
        (ROOT + 1..).find(|n| !self.now.0.contains_key(n)).expect("a free inode")
    }

    fn make(&mut self, clock: &MachineTime, dir: u64, name: &[u8], mode: u32, what: What) -> Result<u64> {
        self.check(name)?;
        if self.entries(dir)?.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let ino = self.free_number();
        let inode = Box::new(self.inode(clock, mode, what));
        self.push(Op::Make { dir, name: name.to_vec(), ino, inode });
        self.touch(clock, dir, true);
        Ok(ino)
    }

    fn inode(&mut self, clock: &MachineTime, mode: u32, what: What) -> Inode {
        let now = self.time(clock);
        self.made += 1;
        Inode {
            made: self.made,
            mode,
            uid: 0,
            gid: 0,
            rdev: 0,
            names: 0,
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
            what,
        }
    }

    fn unlink(&mut self, clock: &MachineTime, dir: u64, name: &[u8]) {
        let ino = self.now.find(dir, name);
        self.push(Op::Unlink { dir, name: name.to_vec() });
        self.touch(clock, dir, true);
        if let Some(ino) = ino {
            self.touch(clock, ino, false);
        }
        self.tidy();
    }

    /// All names and attributes so far, and the bytes of these files, become durable.
    fn make_durable(&mut self, bytes_of: impl Fn(u64) -> bool) {
        for op in std::mem::take(&mut self.log) {
            if op.written().is_none_or(&bytes_of) {
                self.durable.apply(&op);
            } else {
                self.log.push(op);
            }
        }
        self.durable.drop_nameless(|_| false);
    }

    fn resize(&mut self, clock: &MachineTime, ino: u64, size: usize) {
        // What was written beyond is nowhere any more.
        for op in &mut self.log {
            if let Op::Write { ino: of, at, bytes } = op
                && *of == ino
            {
                bytes.truncate(size.saturating_sub(*at));
            }
        }
        self.log.retain(|op| !matches!(op, Op::Write { bytes, .. } if bytes.is_empty()));
        self.push(Op::Resize { ino, size });
        self.touch(clock, ino, true);
    }

    /// Some of what needs space finds it, so that calls fail at each of their steps.
    fn space(&mut self) -> Result<()> {
        if self.trouble == Trouble::Full && !self.chance.one_in(4) { Err(Errno::NOSPC) } else { Ok(()) }
    }

    fn stat(&self, ino: u64) -> Result<Stat> {
        let inode = self.get(ino)?;
        let (size, sectors) = match &inode.what {
            What::File(data) => (data.bytes.len(), data.present.len()),
            What::Symlink(target) => (target.len(), 0),
            What::Dir(entries) => (entries.len() * 32, 1),
            What::Special => (0, 0),
        };
        let nlink = match &inode.what {
            What::Dir(_) => 2,
            _ => inode.names,
        };
        Ok(Stat {
            st_ino: ino,
            st_mode: inode.mode,
            st_nlink: nlink,
            st_uid: inode.uid,
            st_gid: inode.gid,
            st_rdev: inode.rdev,
            st_size: size as i64,
            st_blksize: 4096,
            st_blocks: (sectors * SECTOR / 512) as i64,
            st_atime: inode.atime.0,
            st_atime_nsec: inode.atime.1.into(),
            st_mtime: inode.mtime.0,
            st_mtime_nsec: inode.mtime.1.into(),
            st_ctime: inode.ctime.0,
            st_ctime_nsec: inode.ctime.1.into(),
        })
    }

    fn set_mode(&mut self, clock: &MachineTime, ino: u64, mode: u32) -> Result<()> {
        let inode = self.get(ino)?;
        let (mode, uid, gid) = (inode.mode & libc::S_IFMT | mode & 0o7777, inode.uid, inode.gid);
        self.push(Op::Mode { ino, mode, uid, gid });
        self.touch(clock, ino, false);
        Ok(())
    }

    fn set_owner(&mut self, clock: &MachineTime, ino: u64, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        let inode = self.get(ino)?;
        let (mode, uid, gid) = (inode.mode, uid.unwrap_or(inode.uid), gid.unwrap_or(inode.gid));
        self.push(Op::Mode { ino, mode, uid, gid });
        self.touch(clock, ino, false);
        Ok(())
    }

    fn set_times(&mut self, clock: &MachineTime, ino: u64, times: &Timestamps) -> Result<()> {
        let now = self.time(clock);
        let inode = self.get(ino)?;
        let set = |to: &Timespec, before: Time| match to.tv_nsec {
            rustix::fs::UTIME_OMIT => before,
            rustix::fs::UTIME_NOW => now,
            nsec => (to.tv_sec, nsec as u32),
        };
        let (atime, mtime) =
            (set(&times.last_access, inode.atime), set(&times.last_modification, inode.mtime));
        self.push(Op::Times { ino, atime, mtime, ctime: now });
        Ok(())
    }

    fn xattr(&self, ino: u64, name: &[u8]) -> Result<Vec<u8>> {
        self.get(ino)?.xattrs.get(name).cloned().ok_or(Errno::NODATA)
    }

    fn xattrs(&self, ino: u64) -> Result<Vec<u8>> {
        let names = self.get(ino)?.xattrs.keys().flat_map(|n| n.iter().copied().chain([0]));
        Ok(names.collect())
    }

    fn set_xattr(
        &mut self,
        clock: &MachineTime,
        ino: u64,
        name: &[u8],
        value: Option<&[u8]>,
        flags: XattrFlags,
    ) -> Result<()> {
        if name.starts_with(b"system.") {
            return Err(Errno::OPNOTSUPP);
        }
        let there = self.get(ino)?.xattrs.contains_key(name);
        match value {
            None if !there => return Err(Errno::NODATA),
            Some(_) if there && flags.contains(XattrFlags::CREATE) => return Err(Errno::EXIST),
            Some(_) if !there && flags.contains(XattrFlags::REPLACE) => return Err(Errno::NODATA),
            Some(_) => self.space()?,
            None => {}
        }
        self.push(Op::Xattr { ino, name: name.to_vec(), value: value.map(<[u8]>::to_vec) });
        self.touch(clock, ino, false);
        Ok(())
    }

    fn rename(
        &mut self,
        clock: &MachineTime,
        from: (u64, &[u8]),
        to: (u64, &[u8]),
        flags: RenameFlags,
    ) -> Result<()> {
        let ino = self.find(from.0, from.1)?;
        self.check(to.1)?;
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        let is_dir = |state: &State, ino: u64| state.get(ino).is_some_and(|i| i.entries().is_some());
        if is_dir(&self.now, ino) && self.now.is_below(to.0, ino) {
            return Err(Errno::INVAL);
        }
        match self.entries(to.0)?.get(to.1).copied() {
            Some(_) if flags.contains(RenameFlags::NOREPLACE) => return Err(Errno::EXIST),
            None if exchange => return Err(Errno::NOENT),
            Some(there) if there == ino => return Ok(()),
            Some(there) if exchange => {
                if is_dir(&self.now, there) && self.now.is_below(from.0, there) {
                    return Err(Errno::INVAL);
                }
            }
            Some(there) => match (is_dir(&self.now, ino), is_dir(&self.now, there)) {
                (true, false) => return Err(Errno::NOTDIR),
                (false, true) => return Err(Errno::ISDIR),
                (true, true) if !self.entries(there)?.is_empty() => return Err(Errno::NOTEMPTY),
                _ => {}
            },
            None => self.space()?,
        }
        self.push(Op::Rename {
            dir: from.0,
            name: from.1.to_vec(),
            to: to.0,
            to_name: to.1.to_vec(),
            exchange,
        });
        self.touch(clock, ino, false);
        self.touch(clock, from.0, true);
        self.touch(clock, to.0, true);
        self.tidy();
        Ok(())
    }
}

impl SimDisk {
    pub fn new(
        life: Arc<Life>,
        clock: Arc<MachineTime>,
        stores: SimStores,
        chance: Chance,
        shares: bool,
    ) -> Self {
        let inner = Inner {
            life: life.clone(),
            now: State::default(),
            durable: State::default(),
            log: Vec::new(),
            open: BTreeMap::new(),
            locked: BTreeSet::new(),
            trouble: Trouble::None,
            chance,
            ticks: 0,
            made: 0,
            shares,
            escaped: None,
        };
        SimDisk(Arc::new(Shared { life, clock, stores, inner: Mutex::new(inner) }))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.inner.lock().unwrap()
    }

    /// A call that changes nothing.
    fn read(&self, life: u64) -> Result<MutexGuard<'_, Inner>> {
        if !self.0.life.lasts(life) {
            return Err(Errno::IO);
        }
        let mut inner = self.inner();
        if inner.trouble == Trouble::Failing && inner.chance.one_in(16) {
            return Err(Errno::IO);
        }
        Ok(inner)
    }

    /// A call that changes something.
    fn change(&self, life: u64) -> Result<MutexGuard<'_, Inner>> {
        self.change_that(life, false)
    }

    /// The same; one that frees space does not lack any.
    fn change_that(&self, life: u64, frees: bool) -> Result<MutexGuard<'_, Inner>> {
        if !self.0.life.lasts(life) || !self.0.life.spend() {
            return Err(Errno::IO);
        }
        if let Some(errno) = self.0.life.refuses(frees) {
            return Err(errno);
        }
        let mut inner = self.inner();
        let trouble = inner.trouble;
        match trouble {
            Trouble::ReadOnly => Err(Errno::ROFS),
            Trouble::Failing if inner.chance.one_in(8) => Err(Errno::IO),
            _ => Ok(inner),
        }
    }

    fn clock(&self) -> &MachineTime {
        &self.0.clock
    }

    fn open_as(&self, inner: &mut Inner, life: u64, ino: u64, flags: OFlags) -> File {
        let opens = inner.open.entry(ino).or_default();
        let writes = !flags.contains(OFlags::PATH) && flags.intersects(OFlags::WRONLY | OFlags::RDWR);
        opens.all += 1;
        opens.writing += usize::from(writes);
        let path_only = flags.contains(OFlags::PATH);
        let holds_lock = AtomicBool::new(false);
        Arc::new(SimFile { disk: self.clone(), life, ino, writes, path_only, holds_lock })
    }

    /// The agent is gone, and what it had open with it.
    pub fn agent_ended(&self) {
        let mut inner = self.inner();
        inner.open.clear();
        inner.locked.clear();
        inner.tidy();
    }

    /// The machine loses its power: what was not durable is lost, or not, or in part. Says what is left.
    pub fn power_cut(&self, chance: &mut Chance) -> String {
        let mut inner = self.inner();
        let log = std::mem::take(&mut inner.log);
        let ordered = log.iter().filter(|op| op.written().is_none()).count();
        let keep = match chance.below(4) {
            0 => 0,
            1 => ordered,
            _ => chance.between(0, ordered),
        };
        let ordered_at = |n: usize| log.iter().filter(|op| op.written().is_none()).nth(n);
        let sized = keep.checked_sub(1).and_then(ordered_at);
        let splits = match (sized, ordered_at(keep)) {
            (Some(Op::Resize { ino, .. }), Some(Op::Times { ino: of, .. })) => ino == of,
            _ => false,
        };
        let keep = keep + usize::from(splits);
        // How much of each file's bytes came to the disk.
        let mut fates: BTreeMap<u64, usize> = BTreeMap::new();
        let mut nowhere: BTreeSet<u64> = BTreeSet::new();
        let (mut n, mut written) = (0, 0);
        for op in &log {
            let Some(ino) = op.written() else {
                if n < keep {
                    inner.durable.apply(op);
                } else {
                    nowhere.extend(op.moved());
                }
                n += 1;
                continue;
            };
            let fate = *fates.entry(ino).or_insert_with(|| chance.below(4));
            let Op::Write { at, bytes, .. } = op else { continue };
            if nowhere.contains(&ino) {
                continue;
            }
            match fate {
                0 => {}
                1 => inner.durable.apply(op),
                _ => {
                    let first = *at / SECTOR * SECTOR;
                    for start in (first..at + bytes.len()).step_by(SECTOR) {
                        if chance.one_in(2) {
                            let (from, to) = (start.max(*at), (start + SECTOR).min(at + bytes.len()));
                            let part = bytes[from - at..to - at].to_vec();
                            inner.durable.apply(&Op::Write { ino, at: from, bytes: part });
                        }
                    }
                }
            }
            written += usize::from(fate == 1);
        }
        inner.durable.drop_nameless(|_| false);
        inner.now = inner.durable.clone();
        inner.open.clear();
        inner.locked.clear();
        format!("{keep} of {ordered} changes and {written} of {} writes are left", log.len() - ordered)
    }

    /// Some time passes in which the kernel writes on its own.
    pub fn write_back(&self) {
        self.inner().make_durable(|_| true);
    }

    pub fn set_trouble(&self, trouble: Trouble) {
        self.inner().trouble = trouble;
    }

    pub fn trouble(&self) -> Trouble {
        self.inner().trouble
    }

    /// A name that leads elsewhere, if one was ever used.
    pub fn escaped(&self) -> Option<String> {
        self.inner().escaped.clone()
    }

    /// The files in a folder of the brick and below.
    pub fn files_below(&self, path: &[&[u8]]) -> Vec<Found> {
        let inner = self.inner();
        let start = path.iter().try_fold(ROOT, |dir, name| inner.now.find(dir, name));
        let mut ahead: Vec<u64> = start.into_iter().collect();
        let mut all = Vec::new();
        while let Some(at) = ahead.pop() {
            match inner.now.get(at).map(|i| (&i.what, i)) {
                Some((What::Dir(entries), _)) => ahead.extend(entries.values()),
                Some((What::File(data), inode)) => {
                    let mark = inode.xattrs.get(XATTR.as_bytes()).and_then(|b| Mark::from_bytes(b));
                    all.push(Found { ino: at, made: inode.made, mark, bytes: data.bytes.clone() });
                }
                _ => {}
            }
        }
        all.sort_by_key(|f| f.ino);
        all.dedup_by_key(|f| f.ino);
        all
    }

    /// What each file has, by which of all inodes it is.
    pub fn contents(&self) -> BTreeMap<u64, Content> {
        let inner = self.inner();
        let files =
            inner.now.0.values().filter_map(|inode| Some((inode.made, content_of(&inode.data()?.bytes))));
        files.collect()
    }

    /// The names in a folder of the brick.
    pub fn names_in(&self, path: &[&[u8]]) -> Vec<Vec<u8>> {
        let inner = self.inner();
        let dir = path.iter().try_fold(ROOT, |dir, name| inner.now.find(dir, name));
        let entries = dir.and_then(|dir| inner.now.get(dir)).and_then(Inode::entries);
        entries.map(|entries| entries.keys().cloned().collect()).unwrap_or_default()
    }

    /// A file of `data/` by its path.
    pub fn file_at(&self, path: &[Vec<u8>]) -> Option<Found> {
        let inner = self.inner();
        let data = inner.now.find(ROOT, b"data")?;
        let ino = path.iter().try_fold(data, |dir, name| inner.now.find(dir, name))?;
        let inode = inner.now.get(ino)?;
        let bytes = inode.data()?.bytes.clone();
        let mark = inode.xattrs.get(XATTR.as_bytes()).and_then(|b| Mark::from_bytes(b));
        Some(Found { ino, made: inode.made, mark, bytes })
    }

    /// A byte of a file rots.
    pub fn damage(&self, path: &[Vec<u8>]) {
        let Some(Found { ino, mut bytes, .. }) = self.file_at(path) else { return };
        let Some(byte) = bytes.first_mut() else { return };
        *byte ^= 0x80;
        let inner = &mut *self.inner();
        for state in [&mut inner.now, &mut inner.durable] {
            state.apply(&Op::Write { ino, at: 0, bytes: bytes[..1].to_vec() });
        }
    }

    /// Whether all bytes of the file are on the disk for good.
    pub fn is_durable(&self, ino: u64) -> bool {
        let inner = self.inner();
        let bytes = |state: &State| state.get(ino).and_then(Inode::data).cloned();
        bytes(&inner.now) == bytes(&inner.durable) && inner.log.iter().all(|op| op.written() != Some(ino))
    }

    /// Whether the file, with its attributes and as many names, is on the disk for good.
    pub fn is_all_durable(&self, ino: u64) -> bool {
        let inner = self.inner();
        inner.now.get(ino) == inner.durable.get(ino) && inner.log.iter().all(|op| op.written() != Some(ino))
    }

    /// A bit of a file turns, somewhere in what the disk has of it; its times stay. Gives the bytes as they are then.
    pub fn flip(&self, ino: u64, chance: &mut Chance) -> Option<Vec<u8>> {
        let inner = &mut *self.inner();
        let data = inner.now.get(ino)?.data()?;
        let present: Vec<_> =
            (0..data.bytes.len()).filter(|at| data.present.contains(&(at / SECTOR))).collect();
        if present.is_empty() {
            return None;
        }
        let at = *chance.pick(&present);
        let byte = data.bytes[at] ^ (1 << chance.below(8));
        for state in [&mut inner.now, &mut inner.durable] {
            state.apply(&Op::Write { ino, at, bytes: vec![byte] });
        }
        Some(inner.now.get(ino)?.data()?.bytes.clone())
    }

    /// The file of `data/` that is marked as this object, or that waits for its place.
    pub fn marked(&self, file: FileId) -> Option<Found> {
        let is_it = |f: &Found| f.mark.as_ref().is_some_and(|m| m.file == file);
        let parked = format!("park-{file}").into_bytes();
        let in_data = self.files_below(&[b"data"]).into_iter().find(is_it);
        in_data.or_else(|| self.files_below(&[b".nearbrick", b"staging", &parked]).pop())
    }
}

impl Disk for SimDisk {
    fn open(&self, _path: &Path) -> Result<Dir> {
        let life = self.0.life.number();
        let inner = self.read(life)?;
        inner.now.get(ROOT).ok_or(Errno::NOENT)?;
        Ok(Arc::new(SimDir { disk: self.clone(), life, ino: ROOT }))
    }

    fn make(&self, path: &Path) -> Result<Dir> {
        let mut inner = self.change(self.0.life.number())?;
        if inner.now.get(ROOT).is_none() {
            let made = inner.inode(self.clock(), libc::S_IFDIR | 0o700, What::Dir(BTreeMap::new()));
            for state in [0, 1] {
                let root = Inode { names: 1, ..made.clone() };
                if state == 0 {
                    inner.now.0.insert(ROOT, root)
                } else {
                    inner.durable.0.insert(ROOT, root)
                };
            }
        }
        drop(inner);
        self.open(path)
    }
}
