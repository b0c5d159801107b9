//! What a power cut left of a copy of which the index did not know any more.
//!
//! The index forgot that it ever heard of the file, and the disk what the copy was made of. By its mark it is a copy, so no program here
//! wrote it; nothing proves that it is whole. Others are asked first. If another brick is known to hold the version, the remains
//! give way to a whole copy, and are kept in `versions/`. Until somebody who knows the version was heard, or all other members were, nobody
//! can open them, but to empty them, and no peer gets them: no reader sees half a file, and time alone makes nothing whole. If no other
//! is known to hold that version then, they are a file like any other, and nothing of it is ever
//! given up for less; unless the mark tells that not all of the copy is there, and another brick has some version of the file. A program that writes to it makes it its own.

use nearbrick_core::recover::{End, remains_give_way, remains_wait, torn_remains_give_way};
use nearbrick_core::{FileId, VersionVector};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Volume;
use super::change::{Change, print_of};
use super::core::{At, Core, Rebuild};
use super::files::hash;
use super::types::FsResult;
use crate::brick::access;
use crate::brick::mark::{Mark, Origin};
use crate::index::{Local, Print};

/// What is left of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Remains {
    /// Of this version.
    pub of: VersionVector,
    /// It is known that not all of it is there.
    pub torn: bool,
}

impl Remains {
    /// The same as it is marked.
    pub fn origin(self) -> Origin {
        if self.torn { Origin::Torn(self.of) } else { Origin::Remains(self.of) }
    }
}

fn remains(mark: Option<Mark>, file: FileId) -> Option<(Option<VersionVector>, Remains)> {
    let Mark { version, origin, .. } = mark.filter(|mark| mark.file == file)?;
    match origin {
        Origin::Remains(of) => Some((version, Remains { of, torn: false })),
        Origin::Torn(of) => Some((version, Remains { of, torn: true })),
        _ => None,
    }
}

/// Whether the index may have a file as remains.
fn may_be_remains(local: &Local) -> bool {
    // What programs make and write has no print yet.
    local.dirty && local.print.is_some() && local.have.is_none() && local.base.is_empty()
}

/// Whether what is marked so may be what is left of a copy after this end. What was found to be that is so whatever was lost since.
pub(super) fn may_be_left(mark: &Mark, end: End) -> bool {
    end.lost_power() || !end.has_index() && matches!(mark.origin, Origin::Remains(_) | Origin::Torn(_))
}

/// What is left of a copy after a power cut, of which the index does not know, by its mark.
pub(super) fn found_remains(at: &At, mark: &Mark) -> Option<Remains> {
    let of = mark.copy_of().filter(|of| !of.is_empty())?.clone();
    let torn = match mark.origin {
        Origin::Torn(_) => true,
        Origin::Copied if mark.check.is_some() => {
            let bytes = access::open(&at.dir, &at.name, OFlags::RDONLY | OFlags::NOATIME, 0);
            // What the disk does not give now is told by nothing.
            bytes.and_then(|open| hash(&*open)).is_ok_and(|hash| mark.is_of_others(&hash))
        }
        _ => false,
    };
    Some(Remains { of, torn })
}

/// A program has emptied a file: if it was remains, it is that no more, even to who has nothing but the mark.
pub(super) fn own_it(at: &At, file: FileId, before: &Local) -> FsResult<()> {
    if !may_be_remains(before) || remains(access::get_mark(&at.dir, &at.name)?, file).is_none() {
        return Ok(());
    }
    access::set_mark(&at.dir, &at.name, &Mark::new(file, Some(VersionVector::new())))
}

impl Volume {
    /// The version of which a dirty file is what is left of a copy, if nobody has written to it since it was found.
    pub(super) fn remains_of(
        &self,
        at: &At,
        file: FileId,
        local: &Local,
        now: &Print,
    ) -> FsResult<Option<Remains>> {
        let is_untouched = local.have.is_none()
            && local.base.is_empty()
            && local.print.is_some_and(|then| now.has_bytes_of(&then));
        if !is_untouched {
            return Ok(None);
        }
        Ok(remains(access::get_mark(&at.dir, &at.name)?, file).map(|(_, remains)| remains))
    }

    /// The version of which a file is what is left of a copy, if it is of no version of its own yet.
    pub(super) fn waiting_remains(
        &self,
        core: &mut Core,
        file: FileId,
        local: &Local,
    ) -> FsResult<Option<Remains>> {
        if !may_be_remains(local) {
            return Ok(None);
        }
        let at = self.at(core, file, local)?;
        let now = print_of(&access::stat(&at.dir, &at.name)?);
        self.remains_of(&at, file, local, &now)
    }

    /// Whether a file is what a power cut left of a copy, or of what was written here, and others are still waited for.
    pub(super) fn waits_for_word(&self, core: &mut Core, file: FileId, local: &Local) -> FsResult<bool> {
        if let Some(remains) = self.waiting_remains(core, file, local)? {
            return Ok(self.gives_way(file, &remains)? || self.others_may_tell(core, file, &remains)?);
        }
        if !core.unproven.contains(&file) || core.nodes.of(file).is_some_and(|n| n.writers > 0) {
            return Ok(false);
        }
        let at = self.at(core, file, local)?;
        let now = print_of(&access::stat(&at.dir, &at.name)?);
        let Some(found) = self.found_as(core, &at, file, local, &now)? else { return Ok(false) };
        Ok(self.former_of(file, local, &found)?.is_some() || self.others_may_hold(core))
    }

    /// Whether a member that was not heard yet may be the one that holds the version; or, where not all of it is here, somebody is writing
    /// the file.
    pub(super) fn others_may_tell(&self, core: &mut Core, file: FileId, remains: &Remains) -> FsResult<bool> {
        let config = self.config();
        let Core { told, heads, .. } = core;
        let mut others = config.members.iter().filter(|m| m.brick != self.me);
        let all_heard = others.all(|m| told.is_heard(m.brick, heads));
        let object = self.object_of(file)?;
        // What somebody makes of it elsewhere is more than half of a copy.
        let is_written = object.writing().any(|brick| brick != self.me);
        Ok(remains_wait(&object, &remains.of, all_heard) || remains.torn && is_written)
    }

    /// The bytes of a file are what is left of a copy of this version.
    pub(super) fn is_remains(
        &self,
        core: &mut Core,
        file: FileId,
        at: &At,
        remains: Remains,
    ) -> FsResult<()> {
        tracing::warn!(%file, "is what a power cut left of a copy: it is not read before others were heard");
        let mark = Mark { origin: remains.origin(), ..Mark::new(file, Some(VersionVector::new())) };
        access::set_mark(&at.dir, &at.name, &mark)?;
        let print = print_of(&access::stat(&at.dir, &at.name)?);
        let since = self.clock.now_ms();
        let mut change = Change::new(self, core);
        let local = change.local_mut(file)?;
        // Nobody is told that it is being written: no program has.
        (local.dirty, local.dirty_since) = (true, since);
        (local.have, local.base, local.synced) = (None, VersionVector::new(), Some(VersionVector::new()));
        // By how it looks now it will be seen whether somebody writes to it.
        local.print = Some(print);
        (local.snapshot, local.overlay, local.filling) = (None, None, None);
        local.filled.clear();
        change.commit()?;
        // Where the index was lost another has just been heard.
        if core.rebuild == Rebuild::No {
            self.settler.remains(file)
        } else {
            self.settler.soon(file)
        }
        Ok(())
    }

    /// Whether another brick is known to hold that version, or what came in its place; or, if not all is there, anything, or
    /// it is known at all.
    pub(super) fn gives_way(&self, file: FileId, remains: &Remains) -> FsResult<bool> {
        self.gives_way_as(file, remains, None)
    }

    fn gives_way_as(&self, file: FileId, remains: &Remains, ours: Option<&VersionVector>) -> FsResult<bool> {
        let object = self.object_of(file)?;
        Ok(remains_give_way(&object, self.me, &remains.of)
            || remains.torn && torn_remains_give_way(&object, self.me, &remains.of, ours))
    }

    /// What is here is kept in `versions/`, and a whole copy comes with the next heal.
    pub(super) fn give_way(&self, core: &mut Core, file: FileId) -> FsResult<()> {
        let (object, local) = (self.object_of(file)?, self.local_of(file)?);
        self.keep_open(core, file);
        let why = "is what a power cut left of a copy";
        self.give_up_bytes(core, file, &local, &object, Some(why))?;
        self.bring_about(core, vec![file]);
        Ok(())
    }

    /// The same for remains that became a version before others were heard: they are no side of a conflict. Says whether it was
    /// that.
    pub(super) fn remains_gave_way(&self, core: &mut Core, file: FileId) -> FsResult<bool> {
        let local = self.local_or_none(file)?;
        let is_open = core.nodes.of(file).is_some_and(|n| n.writers > 0);
        if local.dirty || local.have.is_none() || local.placed.is_empty() || is_open {
            return Ok(false);
        }
        let at = self.at(core, file, &local)?;
        let mark = match access::get_mark(&at.dir, &at.name) {
            Err(Errno::NOENT) => return Ok(false),
            mark => mark?,
        };
        let Some((version, remains)) = remains(mark, file) else { return Ok(false) };
        if version != local.have
            || !self.gives_way_as(file, &remains, local.have.as_ref())?
            || self.changed_behind(core, file, &local)?
        {
            return Ok(false);
        }
        self.give_way(core, file).map(|()| true)
    }
}
