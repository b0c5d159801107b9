//! Opening and closing a volume.
//!
//! After a clean end the index says what is in `data/`. After any other end the
//! brick is walked ([`super::walk`]): what changed on the disk after the last entry of the
//! journal is taken over, so that nothing that the disk kept is forgotten. After the
//! machine went down, entries that peers have seen may be lost here: the brick
//! gets a new incarnation, so that no sequence number is ever used twice.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};

use super::change::Change;
use super::core::{Core, Rebuild};
use super::files::Handles;
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
use super::{Configured, Later, OpenError, Volume, VolumeOptions};
use crate::brick::lease::ignore_lease_signals;
use crate::brick::{Brick, adopt};
use crate::config::{Adopt, VolumeConfig};
use crate::index::{Index, IndexError, Local, encode};
use nearbrick_core::recover::End;
use nearbrick_core::{FileId, Heard, Incarnation, Object, Op, stamp};
use tokio::sync::watch;

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
        let after_cut = rebuild && (brick.may_have_lost_power(&boot) || !disk_stayed);
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
        let session = brick.begin_session(
            session.as_deref(),
            (!power_lost && !after_cut).then_some(&*boot),
            random(),
        )?;
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
        core.after_cut = after_cut;
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
            boot,
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
            reading: Default::default(),
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
            batch.meta(STATE, &volume.boot);
            batch.commit()?;
            // Should the power fail again soon, what was found of files that are not there any more is not found again.
            volume.index.persist()?;
            volume.brick.looked_through(&volume.boot)?;
        }
        volume.load_unproven(&mut volume.lock(), &dirty).map_err(failed("cannot be made ready"))?;
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
        if let Err(error) = self.make_good() {
            tracing::debug!(%error, "the disk and the index are still apart");
        }
        let core = &mut *self.lock();
        let dirty: Vec<_> = core.tally.dirty.keys().copied().collect();
        let mut all = true;
        for file in dirty {
            match self.settle(core, file) {
                Ok(Settled::Done) => {}
                Ok(Settled::Writable | Settled::Written | Settled::Waits | Settled::Former) => all = false,
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
            } else if core.amiss.is_empty() {
                batch.meta(STATE, CLEAN);
            } else {
                tracing::warn!("the disk is not as the index has it; it is looked through at the next start");
            }
            batch.commit()?;
            self.index.persist()?;
            if core.rebuild == Rebuild::No && core.amiss.is_empty() {
                self.brick.ended_well().map_err(|e| IndexError::Disk(std::io::Error::other(e)))?;
            }
            Ok(())
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
