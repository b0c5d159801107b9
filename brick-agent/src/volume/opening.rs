//! Opening files: what must be true of the bytes before a program gets them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nearbrick_core::heal::Reason;
use nearbrick_core::heat::Access;
use nearbrick_core::{BrickId, FileId, Kind, Object, Op, Relation, VersionVector};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::{Core, Rebuild};
use super::files::{Handle, OpenFile};
use super::remains::own_it;
use super::stub::Completed;
use super::types::{FsResult, NodeId, Opened};
use crate::brick::access;
use crate::brick::disk::File;
use crate::config::StaleReads;
use crate::index::Local;

/// How what is here stands to the newest version known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Standing {
    /// It is the newest, or in conflict with it: a program gets what is here.
    Whole,
    /// Complete, but older.
    Stale,
    /// Not all of it is here.
    Stub,
}

/// How what is here of an object stands.
pub(super) fn standing(object: &Object, local: &Local) -> Standing {
    if local.dirty {
        return Standing::Whole;
    }
    match (&local.have, object.head()) {
        (Some(have), Some(_)) if object.standing_of(have) == Some(Relation::Before) => Standing::Stale,
        // Without any version it is as empty everywhere as it is here.
        (Some(_), _) | (None, None) => Standing::Whole,
        (None, Some(_)) => Standing::Stub,
    }
}

enum Step {
    Opened(Opened),
    /// Bring the newest bytes here first.
    Bring,
    /// Fill the stub first.
    Fill(Arc<super::stub::Stub>),
    /// Ask those first who are writing it.
    Ask(FileId, Vec<BrickId>),
    /// Two bricks say different hashes of what is here: compare it first.
    Compare(FileId),
    /// A power cut may have left half of a copy: read it first.
    Prove(FileId),
}

/// What was tried before the file is opened as it is.
#[derive(Clone, Copy, Default)]
struct Tried {
    /// To bring the newest version: it is out of reach.
    older: bool,
    /// To ask who is writing it.
    asked: bool,
    /// To compare what is here with the hash that is known.
    compared: bool,
}

/// Tries, when the newest version changes while it is fetched.
const TRIES: usize = 4;

/// Whether a program may change the file, and whether it empties it.
fn intent(flags: i32) -> (bool, bool) {
    let truncates = flags & libc::O_TRUNC != 0;
    (flags & libc::O_ACCMODE != libc::O_RDONLY || truncates, truncates)
}

impl Volume {
    /// As [`Volume::open_file`], but waits for no peer: none if one would have to be waited for.
    ///
    /// # Errors
    /// As there.
    pub fn open_here(&self, node: NodeId, flags: i32) -> FsResult<Option<Opened>> {
        let (writes, truncates) = intent(flags);
        Ok(match self.try_open(node, writes, truncates, Tried::default())? {
            Step::Opened(opened) => Some(self.spare_atime(opened, flags)?),
            Step::Bring | Step::Fill(_) | Step::Ask(..) | Step::Compare(_) | Step::Prove(_) => None,
        })
    }

    /// Whether an open for writing would have to wait for a peer.
    pub fn waits_for_peer(&self, node: NodeId) -> bool {
        let core = &*self.lock();
        let known = self.file_of(core, node).and_then(|f| Ok((self.object_of(f)?, self.local_of(f)?)));
        known.is_ok_and(|(object, local)| {
            standing(&object, &local) != Standing::Whole || !self.writers_elsewhere(&object).is_empty()
        })
    }

    /// Opens a file with `O_*` flags. The mark that it is dirty is in the journal when this returns.
    ///
    /// # Errors
    /// `NOENT`, `ISDIR`; `IO` when the newest bytes are out of reach and there are
    /// none here, or the volume does not allow older ones; `STALE` when the name is to be looked up again.
    pub fn open_file(&self, node: NodeId, flags: i32) -> FsResult<Opened> {
        let (writes, truncates) = intent(flags);
        if writes {
            self.writable()?;
        }
        let mut tried = Tried::default();
        for _ in 0..TRIES {
            match self.try_open(node, writes, truncates, tried)? {
                Step::Opened(opened) => return self.spare_atime(opened, flags),
                Step::Fill(stub) => {
                    let file = self.file_of(&self.lock(), node)?;
                    // Whoever was reading it may have got wrong bytes: who opens it now has not.
                    if self.fill_whole(file, &stub)? == Completed::Spoiled {
                        continue;
                    }
                }
                Step::Bring => {
                    let file = self.file_of(&self.lock(), node)?;
                    if let Err(reason) = crate::heal::bring(self, file) {
                        self.older_is_allowed(file, reason)?;
                        tried.older = true;
                    }
                }
                Step::Ask(file, writers) => {
                    self.ask_writers(file, &writers);
                    tried.asked = true;
                }
                Step::Compare(file) => {
                    if let Err(error) = self.compare_disputed(file) {
                        tracing::warn!(%file, %error, "cannot be compared now with the hash that another brick says");
                    }
                    if self.is_open_and_damaged(file)? {
                        tracing::warn!(%file, "is damaged, and a program here has it open for writing: it cannot be opened before that one closes it");
                        return Err(Errno::IO);
                    }
                    tried.compared = true;
                }
                Step::Prove(file) => self.prove_copy(file)?,
            }
        }
        match self.try_open(node, writes, truncates, Tried { older: true, asked: true, compared: true })? {
            Step::Opened(opened) => self.spare_atime(opened, flags),
            _ => Err(Errno::IO),
        }
    }

    /// Reads through this handle move no time of access, if the program wants it so.
    fn spare_atime(&self, opened: Opened, flags: i32) -> FsResult<Opened> {
        if flags & libc::O_NOATIME != 0
            && let Handle::File(open) = &*self.handles.get(opened.handle)?
            && open.stub.is_none()
        {
            let way = if open.writes { OFlags::RDWR } else { OFlags::RDONLY };
            let io = access::reopen(&open.io, way | OFlags::NOATIME)?;
            let OpenFile { node, file, writes, .. } = *open;
            self.handles.put(opened.handle, Handle::File(OpenFile { node, file, io, writes, stub: None }));
        }
        Ok(opened)
    }

    /// What the volume says about reading older bytes when the newest are out of reach.
    fn older_is_allowed(&self, file: FileId, reason: Reason) -> FsResult<()> {
        if reason == Reason::Busy {
            return Ok(());
        }
        let config = self.config();
        let object = self.object_of(file)?;
        let holders: Vec<_> = nearbrick_core::pending::sources(&object)
            .into_iter()
            .map(|b| config.member(b).map_or_else(|| b.to_string(), |m| m.node.clone()))
            .collect();
        match config.stale_reads {
            StaleReads::Fail => {
                tracing::warn!(%file, reason = reason.as_str(), "the newest version is on {}: an older one is here, and the volume does not allow to read it", holders.join(", "));
                return Err(Errno::IO);
            }
            StaleReads::Warn => {
                tracing::warn!(%file, reason = reason.as_str(), "the newest version is on {}: an older one is read", holders.join(", "));
            }
            StaleReads::Allow => {}
        }
        self.stale_reads.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether a dirty file, which no program here has open for writing, is being written elsewhere, or was.
    fn is_closed_and_older(&self, core: &Core, file: FileId, object: &Object, local: &Local) -> bool {
        let is_here = |version: &VersionVector| {
            local.base.includes(version) || local.have.as_ref().is_some_and(|have| have.includes(version))
        };
        core.nodes.of(file).is_none_or(|n| n.writers == 0)
            && (!self.writers_elsewhere(object).is_empty()
                || object.contents.iter().any(|content| !is_here(&content.version)))
    }

    fn try_open(&self, node: NodeId, writes: bool, truncates: bool, tried: Tried) -> FsResult<Step> {
        let core = &mut *self.lock();
        if core.nodes.get(node).is_none() {
            self.known(core, node).map_err(|_| Errno::STALE)?;
        }
        let known = core.nodes.get(node).ok_or(Errno::STALE)?;
        if known.orphan {
            return self.open_orphan(core, node, writes, truncates).map(Step::Opened);
        }
        let file = known.file;
        if file == FileId::ROOT {
            return Err(Errno::ISDIR);
        }
        let (local, object) = (self.local_of(file)?, self.object_of(file)?);
        match object.kind {
            Some(Kind::File) => {}
            Some(Kind::Dir) => return Err(Errno::ISDIR),
            Some(Kind::Symlink(_)) => return Err(Errno::LOOP),
            Some(Kind::Special { .. }) => return Err(Errno::NXIO),
            None => return Err(Errno::NOENT),
        }
        if core.rebuild != Rebuild::No {
            // Nothing says yet what is newest; without a version nothing says that all bytes are here.
            local.have.as_ref().ok_or(Errno::IO)?;
            if core.after_cut && !core.whole.contains(&file) {
                return Ok(Step::Prove(file));
            }
            return self.open_whole(core, node, file, &object, &local, false, false).map(Step::Opened);
        }
        let (mut local, mut object) = (local, object);
        if writes && local.dirty && self.is_closed_and_older(core, file, &object, &local) {
            // Closed a moment ago, and changed elsewhere before or since: what comes now is not based on what it was then.
            self.settle(core, file)?;
            (local, object) = (self.local_of(file)?, self.object_of(file)?);
        }
        // What is dirty here has its base already; but who empties it bases that on all that there is.
        if writes && !tried.asked && (!local.dirty || truncates) {
            let writers = self.writers_elsewhere(&object);
            if !writers.is_empty() {
                return Ok(Step::Ask(file, writers));
            }
        }
        match standing(&object, &local) {
            _ if truncates => {}
            // It may be torn, and others are to be heard first: no reader sees half a file.
            Standing::Whole => {
                if let Some(remains) = self.waiting_remains(core, file, &local)? {
                    if self.gives_way(file, &remains)? {
                        self.give_way(core, file)?;
                        return Err(Errno::STALE);
                    }
                    if self.others_may_tell(core, file, &remains)? {
                        tracing::info!(%file, "cannot be opened yet: a power cut left of a copy what may be torn, and not all other bricks were heard");
                        return Err(Errno::IO);
                    }
                }
                // Damage must neither be read nor be what somebody's edit is based on.
                if !tried.compared && self.is_disputed(file) {
                    return Ok(Step::Compare(file));
                }
            }
            Standing::Stale if tried.older => self.show_older(core, file)?,
            Standing::Stale => return Ok(Step::Bring),
            Standing::Stub => {
                let stub = self.stub_of(core, node, file, &object, &local)?;
                if writes {
                    // Whoever empties the file meanwhile must find it: what is still to come is then thrown away.
                    if let Some(known) = core.nodes.get_mut(node) {
                        known.stub = Some(stub.clone());
                    }
                    return Ok(Step::Fill(stub));
                }
                self.opened_without_data(core, file, stub.size());
                self.note_open(&local, Access::Remote);
                return Ok(Step::Opened(self.opened_stub(core, node, file, stub)));
            }
        }
        let opened = self.open_whole(core, node, file, &object, &local, writes, truncates)?;
        let access = match (writes, object.replica_set().contains(&self.me)) {
            (true, _) => Access::Write,
            (false, true) => Access::Local,
            (false, false) => Access::Cached,
        };
        self.note_open(&local, access);
        Ok(Step::Opened(opened))
    }

    fn note_open(&self, local: &Local, access: Access) {
        if let Some(place) = local.place() {
            self.note_use(place.parent, access);
        }
    }

    /// The newest version is out of reach: what is here is shown as it is.
    fn show_older(&self, core: &mut Core, file: FileId) -> FsResult<()> {
        let mut change = Change::new(self, core);
        if change.local_mut(file)?.overlay.take().is_some() {
            change.commit()?;
            core.shown_older.insert(file);
            self.invalidate_node(core, file, false);
        }
        Ok(())
    }

    /// Nobody has the older bytes open any more: its size and time are those of the newest version again.
    pub(super) fn show_newest(&self, core: &mut Core, file: FileId) -> FsResult<()> {
        if !core.shown_older.remove(&file) {
            return Ok(());
        }
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        if local.on_disk() && standing(&object, &local) == Standing::Stale {
            self.adjust(core, file, &object)?;
        }
        Ok(())
    }

    /// What the agent before this one showed as an older version, and nobody has open any more: nothing else tells that it is to be shown
    /// as the newest again.
    pub(super) fn show_newest_of_closed(&self, core: &mut Core) {
        let is_closed = |file: &FileId| core.nodes.of(*file).is_none_or(|n| n.opens == 0);
        let files: Vec<_> = core.shown_older.iter().copied().filter(is_closed).collect();
        for file in files {
            if let Err(error) = self.show_newest(core, file) {
                tracing::debug!(%error, "the size and time of the newest version are not shown yet: it is tried again");
                self.bring_about(core, vec![file]);
            }
        }
    }

    fn opened_stub(
        &self,
        core: &mut Core,
        node: NodeId,
        file: FileId,
        stub: Arc<super::stub::Stub>,
    ) -> Opened {
        if let Some(known) = core.nodes.get_mut(node) {
            known.opens += 1;
            known.stub = Some(stub.clone());
        }
        let open = OpenFile { node, file, io: stub.file().clone(), writes: false, stub: Some(stub) };
        Opened { handle: self.handles.add(Handle::File(open)), local: None, backing: 0 }
    }

    /// Opens what has no name any more, for who still holds on to it.
    fn open_orphan(&self, core: &mut Core, node: NodeId, writes: bool, truncates: bool) -> FsResult<Opened> {
        let known = core.nodes.get(node).ok_or(Errno::STALE)?;
        // Its name stands for another file now, or for none.
        let data = match (&known.data, &known.held) {
            (Some(data), _) => data.clone(),
            (None, Some(_)) if known.hollow => return Err(Errno::STALE),
            (None, Some(held)) => access::reopen(held, OFlags::RDONLY)?,
            (None, None) => return Err(Errno::STALE),
        };
        if core.nodes.id_of(known.file).is_some()
            || self.index.local(known.file).map_err(super::index_failed)?.is_some()
        {
            return Err(Errno::STALE);
        }
        let rw = if writes { Some(access::reopen(&data, OFlags::RDWR)?) } else { None };
        if let Some(rw) = rw.as_ref().filter(|_| truncates) {
            rw.truncate(0)?;
        }
        Ok(self.opened_local(core, node, data, rw))
    }

    #[allow(clippy::too_many_arguments)]
    fn open_whole(
        &self,
        core: &mut Core,
        node: NodeId,
        file: FileId,
        object: &Object,
        local: &Local,
        writes: bool,
        truncates: bool,
    ) -> FsResult<Opened> {
        let at = self.at(core, file, local)?;
        let open = |flags| access::open(&at.dir, &at.name, flags, 0);
        let data: File = match core.nodes.get(node).and_then(|n| n.data.clone()) {
            Some(data) => data,
            None => open(OFlags::RDONLY)?,
        };
        let mut rw = None;
        if writes {
            // First, so that a failure marks nothing. It changes no byte.
            rw = Some(open(OFlags::RDWR)?);
            self.mark_dirty(core, file, object, local, truncates)?;
        }
        if let (Some(rw), true) = (&rw, truncates) {
            let emptied = match core.nodes.get(node).and_then(|n| n.stub.clone()) {
                Some(stub) => stub.is_emptied(|| rw.truncate(0)),
                None => rw.truncate(0),
            };
            if let Err(error) = emptied {
                self.is_as_before(core, file, local)?;
                return Err(error);
            }
            own_it(&at, file, local)?;
        }
        Ok(self.opened_local(core, node, data, rw))
    }

    /// A file that a program was to empty could not be emptied: it is as before. Its bytes, or the holes of a stub, would pass for what
    /// the program wrote otherwise, based on the newest version known, and replace that everywhere.
    fn is_as_before(&self, core: &mut Core, file: FileId, before: &Local) -> FsResult<()> {
        let mut change = Change::new(self, core);
        if !before.dirty {
            change.emit(file, Op::Clean { brick: self.me })?;
        }
        *change.local_mut(file)? = before.clone();
        change.commit()?;
        if before.dirty {
            self.settler.soon(file);
        }
        Ok(())
    }

    /// Says in the journal that a program here begins to change the file.
    pub(super) fn mark_dirty(
        &self,
        core: &mut Core,
        file: FileId,
        object: &Object,
        local: &Local,
        truncates: bool,
    ) -> FsResult<()> {
        // Of a conflict only the version that the program was shown: the other one is still to be kept.
        let seen = object.head().map_or_else(Default::default, |head| head.version.clone());
        // Without a copy of its own the bytes of the last snapshot go now: nobody must be given others as that version.
        let spoils = truncates
            && local.snapshot.is_some()
            && core.moments.get(&file).is_none_or(|m| Some(&m.version) != local.have.as_ref());
        if local.dirty && (!truncates || local.base.includes(&seen)) && !spoils {
            return Ok(());
        }
        // What it looks like while it is of no version: who opens it and writes nothing makes none.
        let untouched = if !local.dirty && local.have.is_none() && object.contents.is_empty() {
            let at = self.at(core, file, local)?;
            Some(print_of(&access::stat(&at.dir, &at.name)?))
        } else {
            None
        };
        let mut change = Change::new(self, core);
        let mut since = local.dirty_since;
        if !local.dirty {
            since = change.emit(file, Op::Dirty { brick: self.me })?.stamp().millis();
        }
        let now = change.local_mut(file)?;
        if !now.dirty {
            now.base = now.have.clone().unwrap_or_default();
            // How a stub looks says nothing of what becomes of it.
            if now.have.is_none() {
                now.print = untouched;
            }
        }
        if truncates {
            // Of the bytes nothing stays: what comes is based on the newest version known.
            now.base.merge(&seen);
            if spoils {
                now.snapshot = None;
            }
            if now.have.is_none() {
                now.filling = None;
                now.filled.clear();
            }
        }
        now.dirty = true;
        now.dirty_since = since;
        now.overlay = None;
        change.commit().map(drop)
    }
}
