//! Opening and closing a volume, and what is found at the start.
//!
//! After a clean end the index says what is in `data/`. After any other end the
//! brick is walked: what changed on the disk after the last entry of the
//! journal is taken over, so that nothing that the disk kept is forgotten. After the
//! machine went down, entries that peers have seen may be lost here: the brick
//! gets a new incarnation, so that no sequence number is ever used twice.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use nearbrick_core::recover::End;
use nearbrick_core::{
    Attr, FileId, Heard, Incarnation, Kind, LinkId, Object, Op, Place, VersionVector, stamp,
};
use rustix::fs::FileType;
use rustix::io::Errno;
use tokio::sync::watch;

use super::change::Change;
use super::core::{At, Core, Rebuild};
use super::files::Handles;
use super::judge::Unnoted;
use super::making::d_type;
use super::once::Once;
use super::opening::{Standing, standing};
use super::replace::PLACED;
use super::scrub::Scrub;
use super::settle::{Settled, Settler};
use super::statements::is_unsaid;
use super::surroundings::random_u64;
use super::types::FsResult;
use super::unheard::Unheard;
use super::usage::Usage;
use super::versions::Why;
use super::{Configured, Later, OpenError, Volume, VolumeOptions, index_failed};
use crate::brick::access;
use crate::brick::lease::ignore_lease_signals;
use crate::brick::mark::Mark;
use crate::brick::{Brick, adopt};
use crate::config::{Adopt, VolumeConfig};
use crate::index::{Index, IndexError, Local, Shown, encode};

const STATE: &str = "state";
const CLEAN: &[u8] = b"clean";
/// The brick was an old copy of itself: as after a power loss, entries that peers have seen are not here.
const OUTRUN: &[u8] = b"outrun";
/// How far its own journal was when it was opened then.
const OUTRUN_AT: &str = "outrun-at";
const OWN_INDEX: &str = "index";
/// Bits of the handles that one agent gives out; those above say which agent.
const HANDLES_OF_ONE_AGENT: u32 = 40;
const SESSION: &str = "session";
/// How what is in the tables is encoded. Another number whenever an encoding changes.
const FORMAT: &str = "format";
const FORMAT_NOW: &[u8] = b"2";
/// Set while the index is made anew.
pub(super) const REBUILD: &str = "rebuild";

impl Volume {
    /// Opens the brick, or makes it if nothing is there and it was never in use.
    ///
    /// # Errors
    /// Each with one clear line; then nothing in `data/` was touched.
    pub fn open(config: VolumeConfig, options: VolumeOptions) -> Result<Arc<Volume>, OpenError> {
        ignore_lease_signals();
        let VolumeOptions { clock, entropy, disk, stores, boot, disk_stayed, later, kernel, keeper, resumed } =
            options;
        let random = || random_u64(&*entropy);
        if config.upkeep.adopt != Adopt::No {
            // A brick that has been in use is not made of whatever is there now.
            let fresh = !config.was_initialised;
            adopt::adopt(&*disk, &config.path, config.volume_uuid, config.brick, fresh, &random)?;
        }
        let mut brick = Brick::open(
            &*disk,
            &config.path,
            config.volume_uuid,
            config.brick,
            config.was_initialised,
            &random,
        )?;
        let at = brick.own(OWN_INDEX);
        let mut index = Index::on(stores.open(&at)?);
        let mut session = index.meta(SESSION)?;
        // Without the index that was here last nothing tells which files are newer than others': what
        // peers know is asked for, and what is in `data/` is judged by its marks.
        let rebuild = !brick.is_new
            && (brick.adopting || index.meta(REBUILD)?.is_some() || !brick.knows_session(session.as_deref()));
        let is_used = index.meta(STATE)?.is_some();
        match index.meta(FORMAT)? {
            Some(format) if format == FORMAT_NOW => {}
            // A new one has none yet.
            None if !is_used => {}
            _ if rebuild => {}
            _ => return Err(OpenError::IndexFormat(at)),
        }
        if rebuild {
            drop(index);
            stores.put_aside(&at)?;
            brick.renew_incarnation(random())?;
            index = Index::on(stores.open(&at)?);
            session = None;
            if brick.adopting {
                tracing::info!(
                    brick = %config.brick, incarnation = %brick.incarnation,
                    "{} was adopted: its files are taken into the volume", brick.path().display()
                );
            } else {
                tracing::warn!(
                brick = %config.brick, incarnation = %brick.incarnation,
                "the index of {} is lost, or not the one that was here last: it is made anew from data/ and from what \
                 another brick knows", brick.path().display()
                );
            }
        }
        let state = index.meta(STATE)?;
        let clean = state.as_deref().is_none_or(|s| s == CLEAN);
        let power_lost = !clean && (state.as_deref() != Some(&boot) || !disk_stayed);
        if power_lost {
            brick.renew_incarnation(random())?;
            tracing::warn!(
                brick = %config.brick, incarnation = %brick.incarnation,
                "the machine, or the disk, went down without notice: the brick goes on with a new incarnation"
            );
        }
        let session = brick.begin_session(session.as_deref(), random())?;
        let mut batch = index.batch();
        if !power_lost {
            batch.meta(STATE, &boot);
        }
        batch.meta(SESSION, session.as_bytes());
        batch.meta(FORMAT, FORMAT_NOW);
        if rebuild {
            batch.meta(REBUILD, b"1");
        }
        if index.object(FileId::ROOT)?.is_none() {
            batch.object(FileId::ROOT, &Object::root());
        }
        if let Some(bytes) = index.meta(OUTRUN_AT)? {
            // What it said while it took itself for the one that it once was is in the objects, and is not
            // counted as heard: peers have other entries with these numbers.
            let own: (Incarnation, Heard) =
                postcard::from_bytes(&bytes).map_err(|_| IndexError::Damaged("meta"))?;
            for entry in index.entries_after(own.0, own.1.seq) {
                batch.drop_entry(own.0, entry?.seq);
            }
            if index.floors()?.get(own.0).seq > own.1.seq || index.entry(own.0, own.1.seq)?.is_none() {
                batch.floor(own.0, own.1);
            }
            batch.remove_meta(OUTRUN_AT);
        }
        batch.commit()?;
        index.persist()?;
        brick.confirm_session(&session)?;

        let once = Once::load(&index, resumed.as_ref().map(|r| r.life))?;
        let handles = Handles::default();
        let mut core = Core::default();
        if let Some(resumed) = resumed {
            handles.start_at(u64::from(resumed.life) << HANDLES_OF_ONE_AGENT);
            core.nodes.resumed = true;
            core.held = resumed.held;
        }
        let horizon = index.horizon()?;
        core.floor = index.floors()?;
        core.heads = horizon.iter().map(|(origin, heard)| (origin, heard.seq)).collect();
        core.times = horizon.iter().map(|(origin, heard)| (origin, heard.time)).collect();
        core.acks = super::compact::load(&index)?;
        let lives = brick.former.iter().copied().chain([brick.incarnation]);
        core.unheard = Unheard::load(&index, lives, core.acks.values().map(|known| &known.ack.heads))?;
        core.brakes = super::brakes::load(&index)?;
        core.began_at = (brick.incarnation, horizon.get(brick.incarnation));
        let scrub = Scrub::load(&index)?;
        let usage = Usage::load(&index)?;
        let me = config.brick;
        core.tally.me = Some(me);
        let (dirty, latest) = load(&index, &mut core)?;
        let configured = Arc::new(Configured::new(config));
        if let Some(marked) = index.meta(PLACED)?
            && !core.replacing.resume(&marked, &configured.homes.print)
        {
            let mut batch = index.batch();
            batch.remove_meta(PLACED);
            batch.commit()?;
        }
        let latest = horizon.iter().map(|(_, heard)| heard.time).fold(latest, u64::max);
        core.clock = stamp::Clock::resumed(latest);
        let volume = Arc::new(Volume {
            me,
            incarnation: brick.incarnation,
            adopts: brick.adopting,
            brick,
            index,
            settler: Settler::new(clock.clone()),
            clock,
            entropy,
            configured: RwLock::new(configured),
            core: Mutex::new(core),
            handles,
            keeper,
            once,
            remote: RwLock::new(None),
            invalidate: RwLock::new(kernel),
            changed: watch::Sender::new(0),
            absorbing: Mutex::new(()),
            healing: Mutex::new(()),
            transfers: Default::default(),
            versions: Default::default(),
            scrub,
            usage,
            moves: Default::default(),
            proven: Mutex::default(),
            chunk_lists: Default::default(),
            ahead: watch::Sender::new(None),
            rejected: AtomicU64::new(0),
            stale_reads: AtomicU64::new(0),
            sync_failures: AtomicU64::new(0),
            last_error: Mutex::new(None),
            closed: AtomicBool::new(false),
            outrun: AtomicBool::new(false),
            again: AtomicBool::new(false),
            orders: Default::default(),
            led: AtomicBool::new(true),
            staged: AtomicU64::new(0),
        });
        let failed = |what: &str| {
            let what = format!("{} {what}", volume.brick.path().display());
            move |error| OpenError::Disk { what, error }
        };
        volume.tidy_staging(true).map_err(failed("cannot be made ready"))?;
        if rebuild {
            volume.show_unjudged().map_err(failed("cannot be read to make its index anew"))?;
        } else if !clean {
            let end = if power_lost { End::PowerLost } else { End::Killed };
            let walked = volume.walk(&mut volume.lock(), end);
            walked.map_err(failed("cannot be read after an end without notice"))?;
        }
        if power_lost {
            volume.announce(&mut volume.lock()).map_err(failed("cannot be made ready"))?;
            // Only now: a start that ends before leaves all of this to the next one.
            let mut batch = volume.index.batch();
            batch.meta(STATE, &boot);
            batch.commit()?;
        }
        volume.resume(&mut volume.lock());
        volume.show_newest_of_closed(&mut volume.lock());
        volume.retry_todo().map_err(failed("cannot be made ready"))?;
        if later == Later::Thread {
            volume.settler.start(&volume).map_err(|e| OpenError::Disk {
                what: "no thread to be had".to_owned(),
                error: super::change::errno(&e),
            })?;
        }
        dirty.into_iter().for_each(|file| volume.settler.soon(file));
        if !volume.lock().unsynced.is_empty() {
            volume.settler.unsynced();
        }
        volume.follow_annotations();
        volume.follow_say_again();
        volume.follow_orders();
        volume.follow_rules();
        Ok(volume)
    }

    /// Settles what can be settled, makes everything durable, and marks the end as clean.
    /// Handles that are still open are of no use afterwards.
    pub fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.settler.stop();
        let core = &mut *self.lock();
        let dirty: Vec<_> = core.tally.dirty.keys().copied().collect();
        let mut all = true;
        for file in dirty {
            match self.settle(core, file) {
                Ok(Settled::Done) => {}
                Ok(Settled::Writable | Settled::Written) => all = false,
                Err(error) => {
                    tracing::warn!(%file, %error, "cannot be settled at the end; it stays dirty");
                    all = false;
                }
            }
        }
        tracing::debug!(settled = all, "closing");
        let ended = self.sync_at_end(core).map_err(|e| IndexError::Disk(e.into())).and_then(|()| {
            let mut batch = self.index.batch();
            if self.must_reopen() {
                batch.meta(STATE, OUTRUN);
                batch.meta(OUTRUN_AT, &encode(&core.began_at));
            } else {
                batch.meta(STATE, CLEAN);
            }
            batch.commit()?;
            self.index.persist()
        });
        if let Err(error) = ended {
            tracing::warn!(%error, "the end is not clean; the brick is looked through at the next start");
        }
    }

    /// The first entry of a new life: members that have heard of it say later than the last one's end what
    /// they have of that.
    pub(super) fn announce(&self, core: &mut Core) -> FsResult<()> {
        let mut change = Change::new(self, core);
        change.emit(FileId::ROOT, Op::Clean { brick: self.me })?;
        change.commit().map(drop)
    }

    /// Compares `data/` with the index, and takes over what differs.
    pub(super) fn walk(&self, core: &mut Core, end: End) -> FsResult<()> {
        let mut found = Found::with(self.parked()?);
        let mut ahead = self.parked_dirs(core, &found.parked)?;
        ahead.push(FileId::ROOT);
        while let Some(dir) = ahead.pop() {
            self.walk_dir(core, dir, &mut ahead, &mut found)?;
        }
        self.walk_what_came(core, &mut found)?;
        self.take_over(core, found, end)
    }

    pub(super) fn walk_dir(
        &self,
        core: &mut Core,
        dir: FileId,
        ahead: &mut Vec<FileId>,
        found: &mut Found,
    ) -> FsResult<()> {
        let fd = self.dir(core, dir)?;
        let mut shown: BTreeMap<_, _> = self.index.shown_in(dir).map_err(index_failed)?.into_iter().collect();
        for (name, kind) in fd.list()? {
            if Self::checked(dir, &name).is_err() {
                // Put there past the mount, and no name of a volume.
                continue;
            }
            let place = Place { parent: dir, name };
            let mark = access::get_mark(&fd, &place.name)?;
            match (shown.remove(&place.name), mark) {
                (Some(there), mark) if mark.as_ref().is_none_or(|m| m.file == there.file) => {
                    if there.kind == libc::DT_DIR && kind == FileType::Directory {
                        ahead.push(there.file);
                        found.same.insert(there.file);
                    } else if class(there.kind) == class(on_disk(kind)) {
                        found.same.insert(there.file);
                    } else {
                        found.gone.push((place.clone(), there));
                        found.new.push((place, None));
                    }
                }
                (Some(there), mark) => {
                    found.gone.push((place.clone(), there));
                    found.new.push((place, mark));
                }
                (None, mark) => found.new.push((place, mark)),
            }
        }
        found.gone.extend(shown.into_iter().map(|(name, s)| (Place { parent: dir, name }, s)));
        Ok(())
    }

    pub(super) fn take_over(&self, core: &mut Core, found: Found, end: End) -> FsResult<()> {
        let mut todo = Vec::new();
        let mut found = found;
        // What was being brought about when the agent died. After a power cut nothing says that the bytes are as old as that.
        let mut adjusted = BTreeSet::new();
        if end == End::Killed {
            adjusted.extend(self.index.todo().map_err(index_failed)?);
        }
        if end != End::Running {
            self.nowhere_parked(core, &mut found, &mut todo)?;
        }
        self.with_all_inside(&mut found)?;
        let gone = found.gone.iter().map(|(_, shown)| shown.file);
        let came = found.new.iter().filter_map(|(_, mark)| Some(mark.as_ref()?.file));
        let moved: BTreeSet<_> = gone.chain(came).chain(found.parked.iter().copied()).collect();
        // Names that are gone. What they named may be found under another name.
        let mut lost: BTreeMap<FileId, Vec<(LinkId, Place)>> = BTreeMap::new();
        let mut before = BTreeMap::new();
        for (place, shown) in found.gone {
            if end != End::Running {
                self.once.is_gone(place.clone());
            }
            before.insert(place.clone(), shown);
            let mut change = Change::new(self, core);
            change.show(&place, None);
            if let Some(local) = change.local(shown.file)?
                && local.placed.get(&shown.link) == Some(&place)
            {
                change.local_mut(shown.file)?.placed.remove(&shown.link);
                // Should the end come before all is taken over: it is not shown, and nothing else tells.
                change.todo(shown.file, true);
                lost.entry(shown.file).or_default().push((shown.link, place));
            }
            change.commit()?;
            core.forget_dir(shown.file);
        }
        for file in found.parked.iter().copied() {
            let known = self.local_or_none(file)?;
            if lost.remove(&file).is_some() || known.parked {
                let mut change = Change::new(self, core);
                change.local_mut(file)?.parked = true;
                change.commit()?;
            }
            todo.push(file);
        }
        let walked = Walked { end, parked: &found.parked };
        let mut new = found.new;
        let mut replaced = Vec::new();
        while let Some((place, mark)) = new.pop() {
            let moved = mark.as_ref().map(|mark| mark.file).filter(|file| lost.contains_key(file));
            // Whatever ended: the holes of a stub are nobody's bytes.
            if self.is_unknown_stub(core, &place, mark.as_ref(), end)? {
                continue;
            }
            let dir = self.take_name(core, &place, mark, &walked, &mut lost, &mut todo)?;
            let shown = self.shown(&place)?;
            // The disk went ahead of the index, and what had the name before is nowhere any more. After a power cut it may as well
            // be the other way round: then it is found under the name that it had before.
            if let (Some(old), Some(now)) = (before.get(&place), shown)
                && moved == Some(now.file)
            {
                replaced.push(*old);
            }
            if let Some(shown) = shown
                && end != End::Running
            {
                self.once.was_made(place, shown.file);
            }
            if let Some(dir) = dir {
                // A directory that came: what the index does not know in it is new under its id.
                new.extend(self.new_inside(core, dir)?);
            }
        }
        for old in replaced {
            let Some(links) = lost.get_mut(&old.file) else { continue };
            let before = links.len();
            links.retain(|(link, _)| *link != old.link);
            if links.len() == before {
                continue;
            }
            if links.is_empty() {
                lost.remove(&old.file);
            }
            self.was_replaced(core, old)?;
            todo.push(old.file);
        }
        for (file, links) in lost {
            self.miss(core, file, &links)?;
            todo.push(file);
        }
        if end != End::Running {
            for file in self.nowhere()? {
                let object = self.object_of(file)?;
                let links: Vec<_> =
                    object.live_links().map(|(link, reg)| (link, reg.value.clone())).collect();
                self.miss(core, file, &links)?;
                todo.push(file);
            }
        }
        // Once their names are known.
        for file in found.same.union(&moved) {
            let mut unnoted = Unnoted { moved: moved.contains(file), ..Unnoted::default() };
            if adjusted.contains(file) {
                unnoted.adjusted = self.object_of(*file)?.mtime.map(|reg| reg.value);
            }
            self.judge_file(core, *file, unnoted, end, &mut todo)?;
            if self.is_unlike(core, *file)? {
                todo.push(*file);
            }
        }
        if end == End::PowerLost {
            self.right_all(core)?;
        }
        // Before anything is put in the place of what programs have open.
        self.resume(core);
        self.bring_about(core, todo);
        Ok(())
    }

    /// Files that were here by the index, and have no name on the disk: a start before this one came so far, and ended before it
    /// was said that they are missing.
    fn nowhere(&self) -> FsResult<Vec<FileId>> {
        let mut all = Vec::new();
        for local in self.index.locals() {
            let (file, local) = local.map_err(index_failed)?;
            if (local.dirty || local.have.is_some()) && !local.on_disk() {
                all.push(file);
            }
        }
        Ok(all)
    }

    /// Takes over a name that the index does not know. Gives the directory that it names, if it is one.
    fn take_name(
        &self,
        core: &mut Core,
        place: &Place,
        mark: Option<Mark>,
        walked: &Walked<'_>,
        lost: &mut BTreeMap<FileId, Vec<(LinkId, Place)>>,
        todo: &mut Vec<FileId>,
    ) -> FsResult<Option<FileId>> {
        let at = self.at_place(core, place)?;
        let raw = access::stat(&at.dir, &at.name)?;
        let kind = match FileType::from_raw_mode(raw.st_mode) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink(access::readlink(&at.dir, &at.name)?),
            _ => Kind::Special { format: raw.st_mode & libc::S_IFMT, rdev: raw.st_rdev },
        };
        let mark = match mark {
            // Another name of the same inode may have been taken meanwhile, and given it a mark.
            None if raw.st_nlink > 1 && !kind.is_dir() => access::get_mark(&at.dir, &at.name)?,
            mark => mark,
        };
        if core.rebuild == Rebuild::Judging {
            if let Some(taken) = self.take_marked(core, place, mark.as_ref(), &kind, &raw, todo)? {
                return Ok(taken);
            }
            let is_nobodys = match &mark {
                None => true,
                Some(mark) => self.object_of(mark.file)?.kind.is_none(),
            };
            if is_nobodys && let Some(taken) = self.take_by_place(core, place, &kind, todo)? {
                return Ok(taken);
            }
        }
        if let Some(mark) = &mark {
            let object = self.object_of(mark.file)?;
            let local = self.local_or_none(mark.file)?;
            let known =
                object.kind.is_some() && object.kind.as_ref().map(Kind::is_dir) == Some(kind.is_dir());
            if known {
                let file = mark.file;
                // It was renamed just before the end, or put there for a peer's change.
                if let Some((link, _)) = lost.get_mut(&file).and_then(Vec::pop) {
                    if lost.get(&file).is_some_and(Vec::is_empty) {
                        lost.remove(&file);
                    }
                    let wanted = object.live_links().any(|(l, reg)| l == link && reg.value == *place);
                    let mut change = Change::new(self, core);
                    if !wanted && object.exists(file) {
                        change.emit(file, Op::Move { link, place: place.clone() })?;
                    }
                    self.found_at(&mut change, file, link, place, &kind)?;
                    change.commit()?;
                    todo.push(file);
                    return Ok(kind.is_dir().then_some(file));
                }
                let wanted =
                    object.live_links().find(|(l, reg)| reg.value == *place && !local.placed.contains_key(l));
                if let Some((link, _)) = wanted {
                    let mut change = Change::new(self, core);
                    self.found_at(&mut change, file, link, place, &kind)?;
                    change.commit()?;
                    todo.push(file);
                    return Ok(kind.is_dir().then_some(file));
                }
                if local.placed.is_empty() && !walked.parked.contains(&file) {
                    // It had just been made for others, or waited for its place, and has got one that is its own or beside it.
                    let mut change = Change::new(self, core);
                    change.local_mut(file)?.parked = false;
                    let link =
                        object.live_links().map(|(link, _)| link).find(|l| !local.placed.contains_key(l));
                    if let Some(link) = link {
                        self.found_at(&mut change, file, link, place, &kind)?;
                    }
                    change.commit()?;
                    if link.is_some() {
                        todo.push(file);
                        return Ok(kind.is_dir().then_some(file));
                    }
                }
                if !object.exists(file) && !kind.is_dir() {
                    // Its removal was in the journal; only the disk lagged behind.
                    self.remove_late(core, &at, place, mark, &object, walked.end)?;
                    return Ok(None);
                }
                let other = self.at(core, file, &local).and_then(|at| access::stat(&at.dir, &at.name));
                let same_inode = match other {
                    Ok(other) => other.st_ino == raw.st_ino,
                    Err(Errno::NOENT) => false,
                    Err(error) => return Err(error),
                };
                if same_inode && !kind.is_dir() {
                    let mut change = Change::new(self, core);
                    self.revive_names(&mut change, file)?;
                    let link = change.emit(file, Op::Link(place.clone()))?.made_link().ok_or(Errno::IO)?;
                    self.found_at(&mut change, file, link, place, &kind)?;
                    let done = change.commit()?;
                    let mut claims = VecDeque::new();
                    self.with_claims(core, &done.places, &mut claims)?;
                    todo.extend(claims);
                    return Ok(None);
                }
            }
        }
        // New: made just before the end, or put there past the mount.
        let judging = core.rebuild == Rebuild::Judging;
        let marked = mark.as_ref().and_then(|m| m.version.clone()).filter(|v| !v.is_empty());
        let fresh = match mark {
            Some(mark) if self.object_of(mark.file)?.kind.is_none() && mark.file != FileId::ROOT => mark.file,
            _ => self.new_id(),
        };
        let none = kind.is_file().then(VersionVector::new);
        access::set_mark(&at.dir, &at.name, &Mark::new(fresh, none))?;
        let attr = Attr {
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            mtime_sec: raw.st_mtime,
            mtime_nsec: u32::try_from(raw.st_mtime_nsec).unwrap_or(0),
        };
        let replicas = if kind.is_file() { self.placed_at(place.parent, &place.name)? } else { Vec::new() };
        let mut change = Change::new(self, core);
        let op = Op::Create { brick: self.me, kind: kind.clone(), attr, place: place.clone(), replicas };
        let entry = change.emit(fresh, op)?;
        let link = entry.made_link().ok_or(Errno::IO)?;
        self.say_xattrs(&mut change, fresh, &at)?;
        self.found_at(&mut change, fresh, link, place, &kind)?;
        if kind.is_file() {
            let local = change.local_mut(fresh)?;
            local.dirty = true;
            local.dirty_since = entry.stamp().millis();
            local.synced = Some(VersionVector::new());
            if judging {
                // Peers may have heard of that version: what comes is newer.
                local.base = marked.unwrap_or_default();
            }
            self.settler.soon(fresh);
        }
        change.commit()?;
        Ok(kind.is_dir().then_some(fresh))
    }

    /// Takes a name off the disk that the end left there: what it names is kept for a while, as it would have been then.
    fn remove_late(
        &self,
        core: &mut Core,
        at: &At,
        place: &Place,
        mark: &Mark,
        object: &Object,
        end: End,
    ) -> FsResult<()> {
        let raw = access::stat(&at.dir, &at.name)?;
        let is_file = FileType::from_raw_mode(raw.st_mode) == FileType::RegularFile;
        let version = mark.version.as_ref().filter(|v| is_file && raw.st_nlink == 1 && !v.is_empty());
        if let Some(version) = version {
            let mut path = self.path_of(place.parent).unwrap_or_default();
            path.extend_from_slice(&place.name);
            let label = self.label(object, version, path, Why::Deleted);
            match self.move_to_versions(at, mark.file, version, &label) {
                Ok(true) => {
                    if end == End::PowerLost {
                        self.came_before(mark.file, version);
                    }
                    return Ok(());
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(file = %mark.file, %error, "a deleted file cannot be kept in versions/")
                }
            }
        }
        access::unlink(&at.dir, &at.name)?;
        core.forget_dir(place.parent);
        Ok(())
    }

    /// A stub of a file of which the index did not keep that it heard of it: others will tell it again.
    fn is_unknown_stub(
        &self,
        core: &mut Core,
        place: &Place,
        mark: Option<&Mark>,
        end: End,
    ) -> FsResult<bool> {
        let Some(mark) = mark.filter(|mark| mark.version.is_none()) else { return Ok(false) };
        if self.object_of(mark.file)?.kind.is_some() || core.rebuild != Rebuild::No {
            return Ok(false);
        }
        let at = self.at_place(core, place)?;
        let raw = access::stat(&at.dir, &at.name)?;
        if FileType::from_raw_mode(raw.st_mode) != FileType::RegularFile {
            return Ok(false);
        }
        // Without a cut it may be a copy that took the mark along, in which somebody wrote since.
        if end == End::PowerLost || raw.st_blocks == 0 {
            access::unlink(&at.dir, &at.name)?;
        } else {
            self.keep_aside(core, place, mark.file)?;
        }
        Ok(true)
    }

    pub(super) fn found_at(
        &self,
        change: &mut Change<'_>,
        file: FileId,
        link: LinkId,
        place: &Place,
        kind: &Kind,
    ) -> FsResult<()> {
        change.local_mut(file)?.placed.insert(link, place.clone());
        change.show(place, Some(Shown { file, link, kind: d_type(kind) }));
        Ok(())
    }

    /// A name that the index knows is not on the disk, and what it named is nowhere.
    fn miss(&self, core: &mut Core, file: FileId, links: &[(LinkId, Place)]) -> FsResult<()> {
        let object = self.object_of(file)?;
        let local = self.local_or_none(file)?;
        let mut change = Change::new(self, core);
        if local.on_disk() {
            // Another name is there: this one was being removed.
            for (link, _) in links {
                change.emit(file, Op::Unlink { link: *link, seen: object.seen() })?;
            }
        } else if object.kind.as_ref().is_some_and(Kind::is_file) {
            let elsewhere = nearbrick_core::pending::sources(&object).into_iter().any(|b| b != self.me);
            if local.dirty {
                change.emit(file, Op::Clean { brick: self.me })?;
            }
            if local.have.is_some() {
                change.emit(file, Op::Drop { brick: self.me })?;
            }
            if !elsewhere && (local.have.is_some() || local.dirty) {
                let message =
                    format!("file {file} is gone from the brick's disk, and no other brick holds it");
                tracing::error!("{message}");
                self.note_error(nearbrick_core::heal::Reason::Corrupt, message);
                for (link, _) in links {
                    change.emit(file, Op::Unlink { link: *link, seen: VersionVector::new() })?;
                }
            }
            change.forget_local(file)?;
        } else if !local.broken && local.merged_into.is_none() {
            change.forget_local(file)?;
        }
        change.commit().map(drop)
    }
}

/// The `d_type` value of what a disk lists.
pub(super) fn on_disk(kind: FileType) -> u8 {
    match kind {
        FileType::Directory => libc::DT_DIR,
        FileType::RegularFile => libc::DT_REG,
        FileType::Symlink => libc::DT_LNK,
        _ => libc::DT_UNKNOWN,
    }
}

/// Devices and the like are of one class.
pub(super) fn class(kind: u8) -> u8 {
    match kind {
        libc::DT_DIR | libc::DT_REG | libc::DT_LNK => kind,
        _ => libc::DT_UNKNOWN,
    }
}

/// What a walk began with.
struct Walked<'a> {
    /// What ended.
    end: End,
    /// What waits in `staging/` for its place.
    parked: &'a BTreeSet<FileId>,
}

/// How `data/`, or some directories of it, and the index are apart.
#[derive(Default)]
pub(super) struct Found {
    pub(super) same: BTreeSet<FileId>,
    pub(super) gone: Vec<(Place, Shown)>,
    pub(super) new: Vec<(Place, Option<Mark>)>,
    pub(super) parked: BTreeSet<FileId>,
}

impl Found {
    /// Nothing yet but what is parked.
    pub(super) fn with(parked: BTreeSet<FileId>) -> Self {
        Found { parked, ..Found::default() }
    }

    /// Whether any name is not as it was.
    pub(super) fn differs(&self) -> bool {
        !self.gone.is_empty() || !self.new.is_empty()
    }

    /// Only the names are looked at, and not what they name.
    pub(super) fn only_names(&mut self) {
        self.same.clear();
    }

    /// The names that are not as they were, and whose they were.
    pub(super) fn names(&self) -> (Vec<Place>, Vec<FileId>) {
        let new = self.new.iter().map(|(place, _)| place.clone());
        let gone = self.gone.iter().map(|(place, shown)| (place.clone(), shown.file));
        let (mut places, files): (Vec<_>, Vec<_>) = gone.unzip();
        places.extend(new);
        (places, files)
    }
}

/// Fills the tables that are kept in memory; gives the files that are to be settled, and the latest
/// time in any object.
fn load(index: &Index, core: &mut Core) -> Result<(Vec<FileId>, u64), IndexError> {
    let (mut latest, mut parents) = (0, HashSet::new());
    let mut locals = index.locals().peekable();
    let (mut dirty, mut look_again) = (Vec::new(), Vec::new());
    let me = core.tally.me;
    let mut look = |core: &mut Core, file: FileId, local: &Local| {
        if let Some(into) = local.merged_into {
            core.merged.entry(into).or_default().insert(file);
        }
        if local.broken {
            core.broken.insert(file);
        }
        if local.dirty {
            dirty.push(file);
        }
    };
    for object in index.objects() {
        let (file, object) = object?;
        let mut here = None;
        // Both tables are in the order of the ids.
        while let Some(next) = locals.next_if(|l| l.as_ref().map_or(true, |(id, _)| *id <= file)) {
            let (id, local) = next?;
            look(core, id, &local);
            if id == file {
                here = Some(local);
            }
        }
        core.tally.change(file, None, (&object, here.as_ref()));
        if let Some(local) = &here
            && local.based_on().is_some()
            && local.based_on() != local.synced.as_ref()
        {
            core.unsynced.insert(file);
        }
        if here
            .as_ref()
            .is_some_and(|l| l.on_disk() && l.overlay.is_none() && standing(&object, l) == Standing::Stale)
        {
            core.shown_older.insert(file);
        }
        core.object_changed(file, None, Some(&object));
        latest = object.stamps().map(|stamp| stamp.time).fold(latest, u64::max);
        parents.extend(object.live_links().map(|(_, place)| place.value.parent));
        let unsaid = here.as_ref().is_some_and(|local| me.is_some_and(|me| is_unsaid(me, &object, local)));
        if unsaid {
            core.unsaid.insert(file);
        }
        let is_open = core.tally.in_conflict.contains(&file) || core.tally.fallen.contains(&file) || unsaid;
        if is_open && !here.is_some_and(|l| l.dirty) {
            look_again.push(file);
        }
    }
    for rest in locals {
        let (id, local) = rest?;
        look(core, id, &local);
    }
    dirty.append(&mut look_again);
    for of in core.tally.kept.iter().map(|(of, _)| *of).collect::<BTreeSet<_>>() {
        let there = index.object(of)?.is_some_and(|o| o.exists(of));
        core.tally.is_there(of, there);
    }
    for parent in parents {
        if parent != FileId::ROOT && index.object(parent)?.is_none_or(|o| o.kind.is_none()) {
            core.torsos.insert(parent);
        }
    }
    Ok((dirty, latest))
}
