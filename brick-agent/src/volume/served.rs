//! What peers ask for.

use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, Entry, FileId, Object, Op, VersionVector};
use nearbrick_crds::files;
use rustix::fs::OFlags;
use std::sync::atomic::Ordering;

use super::Volume;
use super::change::{Change, print_of};
use super::core::{Core, Rebuild};
use super::install::reason_of;
use super::newest::is_as_known;
use super::types::FsResult;
use crate::brick::access;
use crate::brick::disk::{File, FileAccess};
use crate::heal::chunk;
use crate::index::{Local, Print};
use crate::peer::compare::{CompareReply, CompareRequest};
use crate::peer::wire::{self, Acks, Heads};
use crate::peer::{Refused, Served, Source, SourceKind};

/// Copies of files that are being written, at most. They take space only where the file changed since.
const MOMENTS: usize = 64;

/// A copy of a file as it was at one moment, under the version that it got.
#[derive(Debug)]
pub struct Moment {
    pub(super) version: VersionVector,
    file: File,
}

impl Volume {
    /// Makes a version of what a file that is still being written looks like now. Whatever
    /// becomes of it, another version follows when it is settled.
    pub(super) fn snapshot(
        &self,
        core: &mut Core,
        file: FileId,
        local: &Local,
        print: Print,
    ) -> FsResult<VersionVector> {
        if local.snapshot == Some(print)
            && let Some(have) = &local.have
        {
            return Ok(have.clone());
        }
        let before = self.object_of(file)?;
        let version = self.next_version(core, &before, &local.base);
        let mut change = Change::new(self, core);
        let content = Op::Content {
            brick: self.me,
            version: version.clone(),
            size: print.size,
            mtime_sec: print.mtime.0,
            mtime_nsec: print.mtime.1,
            still_dirty: true,
        };
        let entry = change.emit(file, content)?;
        let now = change.local_mut(file)?;
        now.base = version.clone();
        now.have = Some(version.clone());
        now.print = None;
        now.snapshot = Some(print);
        now.quiet = false;
        now.mtime_at = entry.time;
        let now = now.clone();
        // What others did to it while it was removed has not come to the disk either.
        let moves = !before.exists(file) || self.has_other_names(&change.object(file)?, &now)?;
        if moves {
            change.todo(file, true);
        }
        change.commit()?;
        if moves {
            // It is an edit that brings back a name which was removed: not now, as whoever asks goes on with where it is.
            self.settler.again();
        }
        self.is_unsynced(core, file);
        Ok(version)
    }

    fn open_source(&self, file: FileId, wanted: &VersionVector, exactly: bool) -> Result<Source, Reason> {
        let core = &mut *self.lock();
        if core.rebuild != Rebuild::No {
            return Err(Reason::Unreachable);
        }
        let local = self.local_or_none(file).map_err(reason_of)?;
        if !local.on_disk() || (!local.dirty && local.have.is_none()) {
            return Err(Reason::Unreachable);
        }
        if local.dirty {
            if self.waits_for_word(core, file, &local).map_err(reason_of)? {
                return Err(Reason::Unreachable);
            }
            return self.moment(core, file, &local, wanted, exactly);
        }
        let at = self.at(core, file, &local).map_err(reason_of)?;
        let open = access::open(&at.dir, &at.name, OFlags::RDONLY, 0).map_err(reason_of)?;
        let print = print_of(&open.stat().map_err(reason_of)?);
        if self.changed_behind(core, file, &local).map_err(reason_of)? {
            self.adopt_change(core, file, &local).map_err(reason_of)?;
            return Err(Reason::Busy);
        }
        let version = local.have.ok_or(Reason::Unreachable)?;
        let fits = if exactly { version == *wanted } else { version.includes(wanted) };
        if !fits {
            return Err(if exactly { Reason::SourceChanged } else { Reason::Unreachable });
        }
        Ok(Source { file: open, size: print.size, version, kind: SourceKind::Settled })
    }

    /// A version of a file that programs here may be writing. Where the file system can share blocks between files
    /// it is a copy of one moment, which stays as long as it is the last one; elsewhere it is the file
    /// itself, up to the size that it had.
    pub(super) fn moment(
        &self,
        core: &mut Core,
        file: FileId,
        local: &Local,
        wanted: &VersionVector,
        exactly: bool,
    ) -> Result<Source, Reason> {
        let at = self.at(core, file, local).map_err(reason_of)?;
        let live = access::open(&at.dir, &at.name, OFlags::RDONLY, 0).map_err(reason_of)?;
        let mut print = print_of(&live.stat().map_err(reason_of)?);
        if let (Some(have), Some(then)) = (&local.have, local.snapshot)
            && (print == then || exactly && have == wanted)
            && (exactly && have == wanted || !exactly && have.includes(wanted))
        {
            let (size, version) = (then.size, have.clone());
            let kept = core.moments.get(&file).filter(|m| m.version == *have);
            return Ok(match kept {
                Some(m) => Source { file: m.file.clone(), size, version, kind: SourceKind::Copy },
                None => Source { file: live, size, version, kind: SourceKind::Live },
            });
        }
        // It is open, and nobody has written to it.
        if let Some(have) = local.have.as_ref().filter(|_| is_as_known(local, print))
            && (exactly && have == wanted || !exactly && have.includes(wanted))
        {
            return Ok(Source {
                file: live,
                size: print.size,
                version: have.clone(),
                kind: SourceKind::Live,
            });
        }
        if exactly {
            return Err(Reason::SourceChanged);
        }
        let copy = self.copy_of(&live);
        if let Some(copy) = &copy {
            print.size = u64::try_from(copy.stat().map_err(reason_of)?.st_size).unwrap_or(0);
        }
        let version = self.snapshot(core, file, local, print).map_err(reason_of)?;
        if !version.includes(wanted) {
            return Err(Reason::Unreachable);
        }
        let size = print.size;
        Ok(match copy {
            Some(copy) => {
                if core.moments.len() >= MOMENTS {
                    core.moments.clear();
                }
                core.moments.insert(file, Moment { version: version.clone(), file: copy.clone() });
                Source { file: copy, size, version, kind: SourceKind::Copy }
            }
            None => Source { file: live, size, version, kind: SourceKind::Live },
        })
    }

    /// Whether nobody has written to a file since it was opened for writing.
    fn is_untouched(&self, core: &mut Core, file: FileId, local: &Local) -> bool {
        let now = self.at(core, file, local).and_then(|at| access::stat(&at.dir, &at.name));
        now.is_ok_and(|raw| is_as_known(local, print_of(&raw)))
    }

    /// A version that is in `versions/`: a person may want it back at another brick.
    fn kept_source(&self, file: FileId, version: &VersionVector) -> Option<Source> {
        let (file, size) = self.open_kept(file, version).ok()?;
        Some(Source { file, size, version: version.clone(), kind: SourceKind::Copy })
    }

    /// A copy that shares its blocks with the file; none where the file system cannot.
    fn copy_of(&self, live: &File) -> Option<File> {
        let copy = access::open(&self.brick.staging, b".", OFlags::TMPFILE | OFlags::RDWR, 0o600).ok()?;
        FileAccess::clone_from(&*copy, &**live).ok()?;
        Some(copy)
    }
}

impl Served for Volume {
    fn volume(&self) -> uuid::Uuid {
        self.config().volume_uuid
    }

    fn brick(&self) -> BrickId {
        self.me
    }

    fn brick_of(&self, node: &str) -> Option<BrickId> {
        self.config().members.iter().find(|m| m.node == node).map(|m| m.brick)
    }

    fn heads(&self) -> Heads {
        self.lock().heads.clone()
    }

    fn entries_after(&self, cursors: &Heads, max_bytes: usize) -> std::io::Result<Vec<Entry>> {
        let heads = self.heads();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let floor = self.lock().floor.clone();
        for (origin, last) in heads {
            let known = cursors.get(&origin).copied().unwrap_or(0);
            if known >= last || known < floor.get(origin).seq {
                continue;
            }
            for entry in self.index.entries_after(origin, known) {
                let entry = entry.map_err(std::io::Error::other)?;
                if entry.seq > last {
                    break;
                }
                bytes += wire::encode(&entry).len();
                entries.push(entry);
                if bytes >= max_bytes {
                    return Ok(entries);
                }
            }
        }
        Ok(entries)
    }

    fn is_behind(&self, cursors: &Heads) -> bool {
        self.behind(cursors)
    }

    fn compared(&self, request: &CompareRequest) -> std::io::Result<CompareReply> {
        self.answer_comparison(request)
    }

    fn acks(&self, told: &Acks) -> Acks {
        self.exchange_acks(told)
    }

    fn asked(&self, _from: BrickId, cursors: &Heads) {
        if self.lock().unheard.heard(cursors) {
            self.tick();
        }
    }

    fn hinted(&self, from: BrickId, heads: &Heads) {
        let own = heads.get(&self.incarnation).copied().unwrap_or(0);
        self.asked(from, heads);
        let outrun = {
            let core = &mut *self.lock();
            core.told.says(from, heads);
            self.wake_unproven(core, []);
            core.heads.get(&self.incarnation).copied().unwrap_or(0) < own
        };
        if outrun {
            self.is_outrun();
        }
    }

    fn keep(
        &self,
        _from: BrickId,
        _heads: &Heads,
        file: FileId,
        version: &VersionVector,
    ) -> Result<(), Reason> {
        self.keep_now(file, version)
    }

    fn source(&self, file: FileId, version: &VersionVector) -> Result<Source, Reason> {
        self.open_source(file, version, false)
    }

    fn exactly(&self, file: FileId, version: &VersionVector) -> Result<Source, Reason> {
        self.open_source(file, version, true).or_else(|why| self.kept_source(file, version).ok_or(why))
    }

    fn still(&self, file: FileId, version: &VersionVector) -> bool {
        let core = &mut *self.lock();
        let Ok(local) = self.local_or_none(file) else { return false };
        local.have.as_ref() == Some(version)
            && (!local.dirty || local.snapshot.is_some() || self.is_untouched(core, file, &local))
    }

    fn newest(&self, file: FileId) -> std::io::Result<Option<Object>> {
        self.newest_for_peer(file).map_err(std::io::Error::from)
    }

    fn inquire(&self, ask: files::Ask) -> Result<files::Answer, Refused> {
        Volume::inquire(self, ask)
    }

    fn chunks(&self) -> &chunk::Cache {
        &self.chunk_lists
    }

    fn rejected(&self, from: Option<BrickId>, why: &str) {
        tracing::debug!(?from, why, "refused");
        self.rejected.fetch_add(1, Ordering::Relaxed);
        self.tick();
    }
}
