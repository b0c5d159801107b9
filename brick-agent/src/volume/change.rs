//! Changes to the index that become true together: entries of the journal, what
//! follows from them for the objects, and what is on the disk.

use std::collections::{BTreeMap, BTreeSet};

use nearbrick_core::{
    Entry, FileId, Heard, Incarnation, LinkId, Object, Op, Place, Stamp, VersionVector, scrub, stamp,
};
use rustix::io::Errno;

use crate::brick::access;
use crate::index::{Batch, Local, Print, Result, Shown, Unseen};

use super::core::{Core, Rebuild};
use super::types::FsResult;
use super::{Volume, index_failed, read};

struct Touched<T> {
    before: Option<T>,
    now: Option<T>,
    changed: bool,
}

/// Changes under way. Nothing is true before [`Change::commit`].
pub struct Change<'a> {
    volume: &'a Volume,
    pub core: &'a mut Core,
    batch: Batch,
    objects: BTreeMap<FileId, Touched<Object>>,
    locals: BTreeMap<FileId, Touched<Local>>,
    clock: stamp::Clock,
    heads: BTreeMap<Incarnation, Heard>,
    floors: BTreeMap<Incarnation, Heard>,
    own_entries: bool,
    /// The last own entry that peers would miss.
    to_tell: Option<u64>,
    /// Objects that are no longer to be found by their nodes.
    gone: Vec<FileId>,
    /// Directories that close no cycle any more.
    mended: Vec<FileId>,
    /// The object that was made or got a name.
    made: Option<FileId>,
    /// Places that something came to want or ceased to.
    places: Vec<Place>,
    /// Directories in which names come or go.
    renamed_in: BTreeSet<FileId>,
    /// Versions of which two bricks say different hashes.
    disagreed: Vec<(FileId, VersionVector)>,
    /// Versions whose hash another brick was the first to say.
    hashed: Vec<(FileId, VersionVector)>,
}

/// What a commit did.
#[derive(Debug, Default)]
pub struct Done {
    /// Places, as the objects say them, that something came to want or ceased to.
    pub places: Vec<Place>,
}

fn wants(object: Option<&Object>) -> BTreeMap<LinkId, Place> {
    object.map(|o| o.live_links().map(|(link, reg)| (link, reg.value.clone())).collect()).unwrap_or_default()
}

/// When a link came to want its place.
fn since(object: Option<&Object>, link: &LinkId) -> Option<Stamp> {
    Some(object?.links.get(link)?.place.as_ref()?.stamp)
}

impl<'a> Change<'a> {
    /// Starts.
    pub fn new(volume: &'a Volume, core: &'a mut Core) -> Self {
        Change {
            volume,
            batch: volume.index.batch(),
            objects: BTreeMap::new(),
            locals: BTreeMap::new(),
            clock: core.clock,
            heads: BTreeMap::new(),
            floors: BTreeMap::new(),
            core,
            own_entries: false,
            to_tell: None,
            gone: Vec::new(),
            mended: Vec::new(),
            made: None,
            places: Vec::new(),
            renamed_in: BTreeSet::new(),
            disagreed: Vec::new(),
            hashed: Vec::new(),
        }
    }

    fn load_object(&mut self, file: FileId) -> Result<&mut Touched<Object>> {
        use std::collections::btree_map::Entry as Slot;
        Ok(match self.objects.entry(file) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                let before = self.volume.index.object(file)?;
                slot.insert(Touched { now: before.clone(), before, changed: false })
            }
        })
    }

    fn load_local(&mut self, file: FileId) -> Result<&mut Touched<Local>> {
        use std::collections::btree_map::Entry as Slot;
        Ok(match self.locals.entry(file) {
            Slot::Occupied(slot) => slot.into_mut(),
            Slot::Vacant(slot) => {
                let before = self.volume.index.local(file)?;
                slot.insert(Touched { now: before.clone(), before, changed: false })
            }
        })
    }

    /// The object as it will be.
    pub fn object(&mut self, file: FileId) -> FsResult<Object> {
        Ok(self.load_object(file).map_err(index_failed)?.now.clone().unwrap_or_default())
    }

    /// The object as it will be, if anything is known of it.
    pub fn object_or_none(&mut self, file: FileId) -> FsResult<Option<Object>> {
        Ok(self.load_object(file).map_err(index_failed)?.now.clone())
    }

    /// What is here of it, as it will be.
    pub fn local(&mut self, file: FileId) -> FsResult<Option<Local>> {
        Ok(self.load_local(file).map_err(index_failed)?.now.clone())
    }

    /// What is here of it, to be changed; nothing so far if it is not known.
    pub fn local_mut(&mut self, file: FileId) -> FsResult<&mut Local> {
        let touched = self.load_local(file).map_err(index_failed)?;
        touched.changed = true;
        Ok(touched.now.get_or_insert_with(Local::default))
    }

    /// Nothing of it is here any more.
    pub fn forget_local(&mut self, file: FileId) -> FsResult<()> {
        let touched = self.load_local(file).map_err(index_failed)?;
        touched.changed = true;
        touched.now = None;
        Ok(())
    }

    /// An entry of our own journal.
    pub fn emit(&mut self, file: FileId, op: Op) -> FsResult<Entry> {
        if self.core.rebuild == Rebuild::Waiting {
            return Err(Errno::ROFS);
        }
        let origin = self.volume.incarnation;
        let time = self.clock.tick(self.volume.clock.now_ms());
        let seq = self.head_of(origin) + 1;
        let entry = Entry { origin, seq, time, file, op };
        self.own_entries = true;
        self.to_tell = super::unheard::to_tell(&entry.op, seq).or(self.to_tell);
        self.made = self.made.or_else(|| super::once::named_by(&entry.op, file));
        self.apply(&entry)?;
        Ok(entry)
    }

    fn head_of(&self, origin: Incarnation) -> u64 {
        let new = self.heads.get(&origin).map(|heard| heard.seq);
        new.or_else(|| self.core.heads.get(&origin).copied()).unwrap_or(0)
    }

    /// An entry of another's journal. Says whether it was new and followed what is known.
    pub fn take(&mut self, entry: &Entry) -> FsResult<bool> {
        if entry.origin == self.volume.incarnation || entry.seq != self.head_of(entry.origin) + 1 {
            return Ok(false);
        }
        self.clock.saw(entry.time);
        self.apply(entry)?;
        Ok(true)
    }

    fn apply(&mut self, entry: &Entry) -> FsResult<()> {
        let me = self.volume.me;
        let touched = self.load_object(entry.file).map_err(index_failed)?;
        let now = touched.now.get_or_insert_with(Object::default);
        let disagreed = scrub::disagreement(now, &entry.op).cloned();
        let hashed = scrub::first_hash(now, me, &entry.op).cloned();
        now.apply(entry);
        touched.changed = true;
        self.disagreed.extend(disagreed.map(|version| (entry.file, version)));
        self.hashed.extend(hashed.map(|version| (entry.file, version)));
        self.heads.insert(entry.origin, Heard { seq: entry.seq, time: entry.time });
        self.batch.entry(entry);
        Ok(())
    }

    /// What a peer has of an object is merged. Says whether that changed anything.
    pub fn merge_state(&mut self, file: FileId, theirs: Object) -> FsResult<bool> {
        let latest = theirs.stamps().map(|stamp| stamp.time).max().unwrap_or(0);
        let touched = self.load_object(file).map_err(index_failed)?;
        let mut merged = touched.now.clone().unwrap_or_default();
        let disagreed = scrub::disagreement_of(&merged, &theirs).cloned();
        let hashed: Vec<_> = scrub::first_hashes(&merged, &theirs).cloned().collect();
        merged.merge(theirs);
        let new = touched.now.as_ref() != Some(&merged);
        if new {
            touched.now = Some(merged);
            touched.changed = true;
            self.clock.saw(latest);
        }
        self.disagreed.extend(disagreed.map(|version| (file, version)));
        self.hashed.extend(hashed.into_iter().map(|version| (file, version)));
        Ok(new)
    }

    /// Whether another version of the object comes to be the newest.
    pub fn moves_head(&mut self, file: FileId) -> FsResult<bool> {
        let touched = self.load_object(file).map_err(index_failed)?;
        let head = |object: &Option<Object>| object.as_ref()?.head().map(|c| c.version.clone());
        Ok(touched.changed && head(&touched.before) != head(&touched.now))
    }

    /// Sets what is known of an object.
    pub fn set_object(&mut self, file: FileId, object: Object) -> FsResult<()> {
        let touched = self.load_object(file).map_err(index_failed)?;
        touched.now = Some(object);
        touched.changed = true;
        Ok(())
    }

    /// All entries of an origin up to there are merged into the objects, though they are not here. What others say
    /// of our own journal changes nothing in it.
    pub fn jump(&mut self, origin: Incarnation, heard: Heard) {
        if origin != self.volume.incarnation && heard.seq > self.head_of(origin) {
            self.clock.saw(heard.time);
            self.heads.insert(origin, heard);
            self.floor(origin, heard);
        }
    }

    /// Entries of an origin up to there are not, or no longer, kept.
    pub fn floor(&mut self, origin: Incarnation, heard: Heard) {
        self.batch.floor(origin, heard);
        self.floors.insert(origin, heard);
    }

    /// An entry is not kept any more.
    pub fn drop_entry(&mut self, origin: Incarnation, seq: u64) {
        self.batch.drop_entry(origin, seq);
    }

    /// Nothing is known of a deleted object any more.
    pub fn forget(&mut self, file: FileId) -> FsResult<()> {
        let touched = self.load_object(file).map_err(index_failed)?;
        touched.now = None;
        touched.changed = true;
        self.forget_local(file)
    }

    /// Removes a single value of the index.
    pub fn drop_meta(&mut self, key: &str) {
        self.batch.remove_meta(key);
    }

    /// Sets a single value of the index.
    pub fn meta(&mut self, key: &str, value: &[u8]) {
        self.batch.meta(key, value);
    }

    /// The object has no name any more: who has it open keeps it.
    pub fn detach(&mut self, file: FileId) {
        self.gone.push(file);
    }

    /// The directory closes no cycle any more.
    pub fn mend(&mut self, dir: FileId) {
        self.mended.push(dir);
    }

    /// Something comes to be in `data/`, or ceases to.
    pub fn show(&mut self, place: &Place, shown: Option<Shown>) {
        self.renamed_in.insert(place.parent);
        self.batch.show(place, shown);
    }

    /// A removed directory comes to want a place because something is still in it, or ceases to.
    pub fn need(&mut self, dir: FileId, needed: Option<(LinkId, Place)>) -> FsResult<()> {
        let local = self.local_mut(dir)?;
        let before = std::mem::replace(&mut local.needed, needed.clone());
        if before == needed {
            return Ok(());
        }
        if let Some((link, place)) = before {
            let live = wants(self.load_object(dir).map_err(index_failed)?.now.as_ref());
            if live.get(&link) != Some(&place) {
                self.batch.want(&place, link, None);
                self.places.push(place);
            }
        }
        if let Some((link, place)) = needed {
            self.batch.want(&place, link, Some(dir));
            self.places.push(place);
        }
        Ok(())
    }

    /// An object's place is to be brought about, or has been.
    pub fn todo(&mut self, file: FileId, open: bool) {
        self.batch.todo(file, open);
    }

    /// Notes how a settled file looks now, after its inode was changed by us.
    pub fn refresh_print(&mut self, file: FileId) -> FsResult<()> {
        let Some(local) = self.local(file)? else { return Ok(()) };
        let stub = local.is_stub();
        if local.print.is_none() && !stub || local.dirty || !local.on_disk() {
            return Ok(());
        }
        let at = self.volume.at(self.core, file, &local)?;
        let print = print_of(&access::stat(&at.dir, &at.name)?);
        if stub {
            // While it is open bytes come into it.
            let rests = self.core.nodes.of(file).is_none_or(|node| node.opens == 0 && node.stub.is_none());
            let local = self.local_mut(file)?;
            local.unseen = Some(Unseen { ctime: print.ctime, shown: print.ctime });
            local.print = Some(print).filter(|_| rests);
        } else if local.print != Some(print) {
            let local = self.local_mut(file)?;
            local.print = Some(print);
            local.unseen = None;
        }
        Ok(())
    }

    /// Whether there are entries of our own in it.
    pub fn says_anything(&self) -> bool {
        self.own_entries
    }

    /// Whether replica sets are to be looked at: of which files, and whether of all, since a directory has another place.
    fn concerned(&self, files: &[FileId]) -> (Vec<FileId>, bool) {
        let configured = read(&self.volume.configured);
        let (mut concerned, mut dir_moved) = (Vec::new(), false);
        for file in files {
            let (Some(object), Some(local)) = (self.objects.get(file), self.locals.get(file)) else {
                continue;
            };
            let place = |local: &Option<Local>| local.as_ref().and_then(Local::place).cloned();
            let moved = local.changed && place(&local.before) != place(&local.now);
            let (before, now) = (object.before.as_ref(), object.now.as_ref());
            if configured.concerns(&self.core.replacing, *file, before, now, moved) {
                concerned.push(*file);
            }
            let is_dir = now.and_then(|o| o.kind.as_ref()).is_some_and(|kind| kind.is_dir());
            dir_moved |= is_dir && moved && local.before.as_ref().and_then(Local::place).is_some();
        }
        (concerned, dir_moved)
    }

    /// Makes the changes true: all of them, or none.
    ///
    /// # Errors
    /// `IO` when the index cannot be written.
    pub fn commit(mut self) -> FsResult<Done> {
        for (file, touched) in &self.objects {
            if !touched.changed {
                continue;
            }
            match &touched.now {
                Some(now) => self.batch.object(*file, now),
                None => self.batch.forget(*file),
            }
            let (old, new) = (wants(touched.before.as_ref()), wants(touched.now.as_ref()));
            for (link, place) in &old {
                if new.get(link) != Some(place) {
                    self.batch.want(place, *link, None);
                    self.places.push(place.clone());
                }
            }
            for (link, place) in &new {
                if old.get(link) != Some(place) {
                    self.batch.want(place, *link, Some(*file));
                    self.places.push(place.clone());
                } else if since(touched.before.as_ref(), link) != since(touched.now.as_ref(), link) {
                    // It came there later, and may lose the name to another.
                    self.places.push(place.clone());
                }
            }
        }
        for (file, touched) in &self.locals {
            if touched.changed && touched.now != touched.before {
                self.batch.local(*file, touched.now.as_ref());
            }
        }
        // The tally needs both sides of each.
        let mut pairs = Vec::new();
        let files: Vec<_> = self.objects.keys().chain(self.locals.keys()).copied().collect();
        for file in files {
            let changed = self.objects.get(&file).is_some_and(|t| t.changed)
                || self.locals.get(&file).is_some_and(|t| t.changed);
            if changed {
                self.load_object(file).map_err(index_failed)?;
                self.load_local(file).map_err(index_failed)?;
                pairs.push(file);
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        let (concerned, dir_moved) = self.concerned(&pairs);
        let unmarked = (!concerned.is_empty() || dir_moved) && self.core.replacing.is_marked();
        if unmarked {
            self.batch.remove_meta(super::replace::PLACED);
        }
        if let Some((key, value)) = self.own_entries.then(|| self.volume.once.mark(self.made)).flatten() {
            self.batch.meta(&key, &value);
        }
        let has = |file: &FileId, version: &VersionVector| {
            let local = self.locals.get(file).and_then(|local| local.now.as_ref());
            local.is_some_and(|local| local.have.as_ref() == Some(version))
        };
        let me = self.volume.me;
        let is_said = |file: &FileId, version: &VersionVector| {
            let object = self.objects.get(file).and_then(|object| object.now.as_ref());
            object.is_some_and(|object| object.holders_of(version).any(|brick| brick == me))
        };
        // Whoever has it can look whether it is the right one. What was said was compared then, or was written here.
        let disagreed = self.disagreed.iter().filter(|(file, version)| has(file, version));
        let hashed =
            self.hashed.iter().filter(|(file, version)| has(file, version) && !is_said(file, version));
        let (disagreed, hashed) = (disagreed.cloned().collect(), hashed.cloned().collect());
        self.volume.to_be_compared(disagreed, hashed, &mut self.batch);
        let Change {
            volume,
            core,
            batch,
            objects,
            locals,
            clock,
            heads,
            floors,
            own_entries,
            to_tell,
            places,
            renamed_in,
            gone,
            mended,
            ..
        } = self;
        batch.commit().map_err(|error| {
            let message = error.to_string();
            let errno = index_failed(error);
            volume.note_error(super::reason_of(errno), message);
            errno
        })?;
        core.clock = clock;
        volume.tell_of_names(core, &renamed_in);
        gone.into_iter().for_each(|file| core.nodes.detach(file));
        core.broken.retain(|dir| !mended.contains(dir));
        for (origin, heard) in heads {
            core.heads.insert(origin, heard.seq);
            core.times.insert(origin, heard.time);
        }
        to_tell.into_iter().for_each(|seq| core.unheard.did(volume.incarnation, seq));
        floors.into_iter().for_each(|(origin, heard)| core.floor.raise(origin, heard));
        for file in pairs {
            let (Some(object), Some(local)) = (objects.get(&file), locals.get(&file)) else { continue };
            if object.changed {
                core.object_changed(file, object.before.as_ref(), object.now.as_ref());
            }
            let before = object.before.as_ref().map(|o| (o, local.before.as_ref()));
            if let Some(now) = &object.now {
                let was_fallen = core.tally.fallen.contains(&file);
                core.tally.change(file, before, (now, local.now.as_ref()));
                if !was_fallen && core.tally.fallen.contains(&file) {
                    volume.settler.soon(file);
                }
                if object.changed {
                    volume.look_at_order(file, now);
                }
                if object.changed
                    && let Some(of) = now.kept_loser_of(file)
                    && let Ok(winner) = volume.index.object(of)
                {
                    core.tally.is_there(of, winner.is_some_and(|o| o.exists(of)));
                }
            } else {
                core.tally.is_there(file, false);
            }
        }
        if unmarked {
            core.replacing.unmark();
        }
        volume.to_be_replaced(core, concerned);
        if dir_moved {
            volume.dir_moved(core);
        }
        if own_entries && let Some(remote) = volume.remote() {
            remote.hint();
        }
        volume.tick();
        Ok(Done { places })
    }
}

/// What a file looks like.
pub fn print_of(stat: &crate::brick::disk::Stat) -> Print {
    let nsec = |n: u64| u32::try_from(n).unwrap_or(0);
    Print {
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: (stat.st_mtime, nsec(stat.st_mtime_nsec)),
        ctime: (stat.st_ctime, nsec(stat.st_ctime_nsec)),
    }
}

/// The kernel's error, when it is one.
pub fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
