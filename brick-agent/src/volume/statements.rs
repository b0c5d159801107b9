//! What this brick has said of itself, made true: which version it holds, and whether it is writing. A former life of the brick may have said
//! what a power cut undid, and others may have heard of that when its own index did not keep it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nearbrick_core::fallen::{Step, step};
use nearbrick_core::{BrickId, FileId, Incarnation, LinkId, Object, Op, Relation, VersionVector};

use super::Volume;
use super::change::Change;
use super::core::Core;
use super::scrub::Looked;
use super::types::FsResult;
use crate::heal::limit::Throttle;
use crate::index::Local;

/// For each brick that is to say an older version again before this one does.
const FOR_EACH_BEFORE: Duration = Duration::from_secs(60);

/// Whether what members believe of this brick is other than what is here.
fn is_wrong(me: BrickId, object: &Object, local: &Local) -> bool {
    let said = object.holders.get(&me).and_then(|reg| reg.value.as_ref());
    let writes = object.writers.get(&me).is_some_and(|reg| reg.value);
    said.is_some_and(|said| !holds(local, said)) || writes && !local.dirty
}

/// Whether a version is here of which others do not know that it is: that was taken back while it was not sure, or they know of an
/// older one only, or of one that it was in conflict with, as the end came before this one was said.
pub(super) fn is_unsaid(me: BrickId, object: &Object, local: &Local) -> bool {
    let said = object.holders.get(&me).and_then(|reg| reg.value.as_ref());
    let is_more = |have: &VersionVector| match said {
        Some(said) => matches!(have.relation(said), Relation::After | Relation::Concurrent),
        None => !have.is_empty(),
    };
    !local.dirty && local.on_disk() && local.have.as_ref().is_some_and(is_more)
}

fn holds(local: &Local, said: &VersionVector) -> bool {
    let held = local.have.as_ref().filter(|_| !local.dirty);
    held.is_some_and(|held| matches!(held.relation(said), Relation::Equal | Relation::After))
}

impl Volume {
    /// Makes true what a former life said, or this one of a file that it knew before.
    pub(super) fn right_former(&self, change: &mut Change<'_>, file: FileId) -> FsResult<()> {
        let object = change.object(file)?;
        let is_former = |origin: &Incarnation| self.brick.former.contains(origin);
        if change.core.unproven.contains(&file) {
            self.say_unproven(change, file)?;
        }
        let held = object.holders.get(&self.me).map(|reg| reg.stamp.origin);
        let writes = object.writers.get(&self.me).map(|reg| reg.stamp.origin);
        // This life said it, deleted the file, and gave up what it knew of it; another, who has brought it back, still knows.
        let local = change.local(file)?.unwrap_or_default();
        let writing = object.writers.get(&self.me).filter(|reg| reg.value).map(|reg| reg.stamp.origin);
        let is_outlived = object.exists(file)
            && (held == Some(self.incarnation) && local.is_stub()
                || writing == Some(self.incarnation) && !local.dirty);
        match is_outlived || held.into_iter().chain(writes).any(|origin| is_former(&origin)) {
            true => self.right(change, file),
            false => Ok(()),
        }
    }

    /// What members believe of this brick, made true.
    pub(super) fn right(&self, change: &mut Change<'_>, file: FileId) -> FsResult<()> {
        let object = change.object(file)?;
        let local = change.local(file)?.unwrap_or_default();
        if is_wrong(self.me, &object, &local) {
            let said = object.holders.get(&self.me).and_then(|reg| reg.value.as_ref());
            if said.is_some_and(|said| !holds(&local, said)) {
                change.emit(file, Op::Drop { brick: self.me })?;
                if local.have.is_some() && !local.dirty {
                    change.core.unsaid.insert(file);
                    self.settler.soon(file);
                }
            }
            if !local.dirty && object.writers.get(&self.me).is_some_and(|reg| reg.value) {
                change.emit(file, Op::Clean { brick: self.me })?;
            }
        }
        Ok(())
    }

    /// An object was made once more: its first maker is heard of, or a former life of this brick, and this one had taken it for
    /// new since its index had not kept that it knew it. Of the two names the one with the smaller id stays.
    pub(super) fn made_again(&self, change: &mut Change<'_>, file: FileId, link: LinkId) -> FsResult<()> {
        let is_ours = |l: &LinkId| l.origin == self.incarnation || self.brick.former.contains(&l.origin);
        let object = change.object(file)?;
        let live: Vec<_> = object.live_links().map(|(l, _)| l).collect();
        for other in live.iter().copied().filter(|l| *l != link && live.contains(&link)) {
            let entry = self.index.entry(other.origin, other.seq).map_err(super::index_failed)?;
            let goes = other.max(link);
            if entry.is_some_and(|e| e.file == file && matches!(e.op, Op::Create { .. })) && is_ours(&goes) {
                change.emit(file, Op::Unlink { link: goes, seen: VersionVector::new() })?;
                change.todo(file, true);
            }
        }
        Ok(())
    }

    /// Makes true what a former life said of any object.
    pub(super) fn right_all(&self, core: &mut Core) -> FsResult<()> {
        const AT_ONCE: usize = 256;
        let mut wrong = Vec::new();
        for object in self.index.objects() {
            let (file, object) = object.map_err(super::index_failed)?;
            if object.holders.contains_key(&self.me) || object.writers.contains_key(&self.me) {
                let local = self.local_or_none(file)?;
                if is_wrong(self.me, &object, &local) {
                    wrong.push(file);
                }
            }
        }
        for chunk in wrong.chunks(AT_ONCE) {
            let mut change = Change::new(self, core);
            for file in chunk {
                self.right(&mut change, *file)?;
            }
            change.commit()?;
        }
        Ok(())
    }

    /// No brick holds a newer version any more: the one that is here becomes the newest again. Says whether it is to be said now.
    pub(super) fn see_to_fallen(&self, core: &mut Core, file: FileId) -> FsResult<bool> {
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        let Some(have) = local.have.as_ref().filter(|_| !local.dirty) else { return Ok(false) };
        let rank = match step(&object, self.me, have) {
            None => return Ok(false),
            Some(Step::SayHave) => {
                core.unsaid.insert(file);
                // It is fallen before and after that is said: nothing else tells that it is to be looked at again.
                self.settler.later(file, FOR_EACH_BEFORE);
                return Ok(false);
            }
            Some(Step::SayAgain { rank }) => rank,
        };
        let now = self.clock.passed();
        let wait = FOR_EACH_BEFORE.saturating_mul(u32::try_from(rank).unwrap_or(u32::MAX));
        let due = core.fallen_since.entry(file).or_insert(now).saturating_add(wait);
        if now < due {
            self.settler.later(file, due - now);
            return Ok(false);
        }
        Ok(true)
    }

    /// Says an older version again, as a new one. So its bytes are looked at first: what the disk has damaged would be nobody's
    /// damage any more.
    pub(super) fn say_again(&self, file: FileId) -> FsResult<()> {
        let looked = self.scrub_file(file, &Throttle::default(), &AtomicBool::new(false))?;
        if matches!(looked, Looked::Damaged(_)) {
            // Another may have it whole, and not have said so yet. If none does: damage is no version all the same.
            self.settler.later(file, FOR_EACH_BEFORE);
            return Ok(());
        }
        let core = &mut *self.lock();
        if !self.see_to_fallen(core, file)? {
            return Ok(());
        }
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        core.fallen_since.remove(&file);
        let message = format!(
            "the newest version of file {file} is lost, no brick holds it any more: the older one that is here is the newest again"
        );
        tracing::warn!("{message}");
        self.note_error(nearbrick_core::heal::Reason::Unreachable, message);
        self.mark_dirty(core, file, &object, &local, false)?;
        let mut change = Change::new(self, core);
        change.local_mut(file)?.print = None;
        change.commit()?;
        self.settler.soon(file);
        Ok(())
    }
}
