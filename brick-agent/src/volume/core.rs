//! What the volume's lock guards, and the way to objects on the disk.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use nearbrick_core::ahead::Walks;
use nearbrick_core::brake::Removals;
use nearbrick_core::forget::{is_dead, is_torso};
use nearbrick_core::recover::End;
use nearbrick_core::{BrickId, FileId, Heard, Horizon, Incarnation, Object, Place, VersionVector, stamp};
use rustix::fs::FileType;
use rustix::io::Errno;

use crate::brick::access;
use crate::brick::disk::{self, Dir};
use crate::index::{Local, parked_name};
use crate::peer::wire::Heads;

use super::amiss::Amiss;
use super::brakes::Brake;
use super::compact::Known;
use super::nodes::Nodes;
use super::refused::RefusedEntry;
use super::replace::Replacing;
use super::resume::Held;
use super::served::Moment;
use super::sums::Sums;
use super::tally::Tally;
use super::told::Told;
use super::types::{FsResult, NodeId, Stat};
use super::unheard::Unheard;
use super::{Volume, index_failed};
use nearbrick_core::op::Kind;

/// Directories kept open, at most.
const MAX_DIRS: usize = 4096;

/// How far the index is that is made anew from `data/` and from what a peer knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rebuild {
    /// It is whole.
    #[default]
    No,
    /// What is in `data/` is shown and cannot be changed: nobody has said yet which of it is older.
    Waiting,
    /// It is judged now.
    Judging,
}

/// What the lock guards.
#[derive(Default)]
pub struct Core {
    /// Stamps of our own entries come from here.
    pub clock: stamp::Clock,
    /// The last sequence number of each origin, our own too.
    pub heads: Heads,
    /// The hybrid times of those entries.
    pub times: BTreeMap<Incarnation, u64>,
    /// Up to where entries are in no journal here any more.
    pub floor: Horizon,
    /// Hashes of all objects.
    pub sums: Sums,
    /// Deleted objects that are not forgotten yet.
    pub dead: HashSet<FileId>,
    /// Objects of which only parts are known, and of which something would be alive.
    pub torsos: HashSet<FileId>,
    /// Whether the index is being made anew.
    pub rebuild: Rebuild,
    /// The machine may have gone down when the index was lost.
    pub after_cut: bool,
    /// Copies that were found whole since.
    pub whole: HashSet<FileId>,
    /// Members that said the same of theirs: when, by the clock's `passed`, and whether their directories were adopted.
    pub rebuilding_too: BTreeMap<BrickId, (Duration, bool)>,
    /// Removals by these origins are held back.
    pub brakes: BTreeMap<Incarnation, Brake>,
    /// What the origins removed lately.
    pub removals: Removals,
    /// Where the journals of these origins cannot be followed any more, and why.
    pub refused: BTreeMap<Incarnation, RefusedEntry>,
    /// How far our own journal was when it was opened.
    pub began_at: (Incarnation, Heard),
    /// What other members are known to have heard.
    pub acks: BTreeMap<BrickId, Known>,
    /// What was done here and no other member has heard of.
    pub unheard: Unheard,
    /// Which members were heard since this agent began.
    pub told: Told,
    /// Since when one of them was, by the clock's `passed`.
    pub heard_since: Option<Duration>,
    /// Dirty files of which nothing proves which version they are.
    pub unproven: BTreeSet<FileId>,
    /// What the kernel knows.
    pub nodes: Nodes,
    /// Pending and totals.
    pub tally: Tally,
    /// Directories that are shown in another one: that one -> those.
    pub merged: BTreeMap<FileId, BTreeSet<FileId>>,
    /// Directories shown in the root because they would close a cycle.
    pub broken: BTreeSet<FileId>,
    /// What was open through an agent before this one, until it is opened again.
    pub held: Vec<Held>,
    /// Files whose newest versions here may not be durable yet.
    pub unsynced: BTreeSet<FileId>,
    /// Copies of what was read from peers, with their hashes, of which others are to hear when they are durable.
    pub copies: BTreeMap<FileId, (VersionVector, [u8; 32])>,
    /// Files of which others do not know what is here.
    pub unsaid: BTreeSet<FileId>,
    /// Since when files wait for another brick to say an older version again, by the clock's `passed`.
    pub fallen_since: BTreeMap<FileId, Duration>,
    /// Files of which no brick holds anything: what was known of all journals when that was seen.
    pub lost_since: BTreeMap<FileId, Heads>,
    /// Files of which programs were shown an older version as it is, while the newest was out of reach.
    pub shown_older: BTreeSet<FileId>,
    /// What was done on the disk and is not said yet.
    pub amiss: Amiss,
    /// Copies of files that are being written, for those who are fetching them.
    pub moments: BTreeMap<FileId, Moment>,
    /// What is to be done about replica sets.
    pub replacing: Replacing,
    /// Holders that gave bytes of a file's version which had not its hash: others are asked first.
    pub doubted: BTreeMap<FileId, (VersionVector, BTreeSet<BrickId>)>,
    /// How programs go through directories of which the files are elsewhere.
    pub walks: Walks,
    dirs: HashMap<FileId, Dir>,
}

impl Core {
    /// What was lost, while the index is made anew.
    pub fn lost(&self) -> End {
        if self.after_cut { End::BothLost } else { End::IndexLost }
    }

    /// How far each origin is known.
    pub fn horizon(&self) -> Horizon {
        let heard = |(origin, seq): (&Incarnation, &u64)| {
            (*origin, Heard { seq: *seq, time: self.times.get(origin).copied().unwrap_or(0) })
        };
        self.heads.iter().map(heard).collect()
    }

    /// An object changed, came to be known, or was forgotten.
    pub fn object_changed(&mut self, file: FileId, before: Option<&Object>, now: Option<&Object>) {
        self.sums.change(file, before, now);
        let (dead, torso) = now.map_or((false, false), |o| (is_dead(file, o), is_torso(o)));
        if dead {
            self.dead.insert(file)
        } else {
            self.dead.remove(&file)
        };
        if torso {
            self.torsos.insert(file);
        } else if now.is_none_or(|object| object.kind.is_some()) {
            // One more part is not the rest: something may be in it.
            self.torsos.remove(&file);
        }
    }

    /// The directory is no longer where it was, or gone.
    pub fn forget_dir(&mut self, dir: FileId) {
        self.dirs.remove(&dir);
    }
}

/// Where an object is on the disk.
pub struct At {
    /// In this directory.
    pub dir: Dir,
    /// Under this name.
    pub name: Vec<u8>,
}

impl Volume {
    /// A directory that is on the disk.
    ///
    /// # Errors
    /// `NOENT` if it is not; what the disk says.
    pub(super) fn dir(&self, core: &mut Core, dir: FileId) -> FsResult<Dir> {
        if dir == FileId::ROOT {
            return Ok(self.brick.data.clone());
        }
        if let Some(open) = core.dirs.get(&dir) {
            return Ok(open.clone());
        }
        let local = self.index.local(dir).map_err(index_failed)?.ok_or(Errno::NOENT)?;
        let at = self.at(core, dir, &local)?;
        let open = access::open_dir(&at.dir, &at.name)?;
        if core.dirs.len() >= MAX_DIRS {
            core.dirs.clear();
        }
        core.dirs.insert(dir, open.clone());
        Ok(open)
    }

    /// Where an object is on the disk; of several names any.
    ///
    /// # Errors
    /// `NOENT` if it is not; what the disk says.
    pub(super) fn at(&self, core: &mut Core, file: FileId, local: &Local) -> FsResult<At> {
        if local.parked {
            return Ok(At { dir: self.brick.staging.clone(), name: parked_name(file).into_bytes() });
        }
        let place = local.place().ok_or(Errno::NOENT)?;
        let at = self.at_place(core, place)?;
        if core.amiss.has_dir(place.parent)
            && access::get_mark(&at.dir, &at.name)?.is_some_and(|mark| mark.file != file)
        {
            // It was moved, and that could not be said yet: what has its name now is not to be taken for it.
            return Err(Errno::NOENT);
        }
        Ok(at)
    }

    /// A place in `data/` on the disk.
    ///
    /// # Errors
    /// `NOENT` if its directory is not there; what the disk says.
    pub(super) fn at_place(&self, core: &mut Core, place: &Place) -> FsResult<At> {
        Ok(At { dir: self.dir(core, place.parent)?, name: place.name.clone() })
    }

    /// What is here of an object that must be here.
    pub(super) fn local_of(&self, file: FileId) -> FsResult<Local> {
        self.index.local(file).map_err(index_failed)?.ok_or(Errno::NOENT)
    }

    /// The attributes of an object with this `local`, as programs see them.
    pub(super) fn stat_of(&self, core: &mut Core, file: FileId, local: &Local) -> FsResult<Stat> {
        if file == FileId::ROOT {
            return Ok(stat_from(super::nodes::ROOT, &self.brick.data.stat_self()?));
        }
        let at = self.at(core, file, local)?;
        let raw = access::stat(&at.dir, &at.name)?;
        let mut stat = stat_from(core.nodes.number(file), &raw);
        // Bytes that come into a stub change its inode all the time, and nothing for programs.
        let ctime = super::change::print_of(&raw).ctime;
        if let Some(unseen) = local.unseen.filter(|u| local.is_stub() || u.ctime == ctime) {
            stat.ctime = access::time(unseen.shown.0, unseen.shown.1);
        }
        if let Some(overlay) = local.overlay {
            stat.size = overlay.size;
            stat.mtime = access::time(overlay.mtime.0, overlay.mtime.1);
        }
        Ok(stat)
    }

    /// The object behind a node that has a name.
    pub(super) fn file_of(&self, core: &Core, node: NodeId) -> FsResult<FileId> {
        match core.nodes.get(node) {
            Some(known) if !known.orphan => Ok(known.file),
            Some(_) => Err(Errno::NOENT),
            // The kernel may know it from an agent before this one.
            None => self.index.numbered(node).map_err(index_failed)?.ok_or(Errno::NOENT),
        }
    }

    /// The same, and there is a node for it from now on.
    pub(super) fn known(&self, core: &mut Core, node: NodeId) -> FsResult<FileId> {
        let file = self.file_of(core, node)?;
        core.nodes.hold(node, file, false);
        Ok(file)
    }
}

/// Attributes from the kernel's. The target of a symlink is left empty.
pub fn stat_from(node: NodeId, raw: &disk::Stat) -> Stat {
    let kind = match FileType::from_raw_mode(raw.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Dir,
        FileType::Symlink => Kind::Symlink(Vec::new()),
        _ => Kind::Special { format: raw.st_mode & libc::S_IFMT, rdev: raw.st_rdev },
    };
    let nsec = |n: u64| u32::try_from(n).unwrap_or(0);
    Stat {
        node,
        kind,
        size: u64::try_from(raw.st_size).unwrap_or(0),
        blocks: u64::try_from(raw.st_blocks).unwrap_or(0),
        atime: access::time(raw.st_atime, nsec(raw.st_atime_nsec)),
        mtime: access::time(raw.st_mtime, nsec(raw.st_mtime_nsec)),
        ctime: access::time(raw.st_ctime, nsec(raw.st_ctime_nsec)),
        perm: raw.st_mode & 0o7777,
        nlink: u32::try_from(raw.st_nlink).unwrap_or(u32::MAX),
        uid: raw.st_uid,
        gid: raw.st_gid,
        rdev: raw.st_rdev,
        blksize: u32::try_from(raw.st_blksize).unwrap_or(4096),
    }
}
