//! Trees of members, compared by hashes: what is asked, what is answered, and what comes of it.
//!
//! A member that no longer gets all entries from a peer's journal merges the peer's states
//! of what differs. Only when all of that is done does it count the peer's entries
//! as heard: a cut in the middle leaves states that know more than the heads say, which
//! harms nothing, and the next comparison finds them equal.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, PoisonError};

use nearbrick_core::forget::{self, Verdict};
use nearbrick_core::{BrickId, FileId, Horizon, Object, Op, stamp};

use super::change::Change;
use super::core::Rebuild;
use super::sums::{FAN, sum_of};
use super::types::FsResult;
use super::{Volume, index_failed};
use crate::peer::compare::{Compare, CompareReply, CompareRequest, MAX_LEAVES, MAX_LISTED, MAX_OBJECTS};
use crate::peer::wire::{self, Heads};

/// Objects taken over before programs may have the lock.
const AT_ONCE: usize = 64;

impl Volume {
    /// Whether entries that this asker lacks are in no journal here any more.
    pub(super) fn behind(&self, cursors: &Heads) -> bool {
        let core = self.lock();
        core.floor.iter().any(|(origin, floor)| cursors.get(&origin).copied().unwrap_or(0) < floor.seq)
    }

    /// Answers one question of a comparison.
    pub(super) fn answer_comparison(&self, request: &CompareRequest) -> io::Result<CompareReply> {
        if self.is_rebuilding() {
            return match request {
                CompareRequest::Top => Ok(CompareReply::Rebuilding { adopts: self.adopts }),
                _ => Err(io::Error::other("this brick's index is being made anew")),
            };
        }
        match request {
            CompareRequest::Top => {
                let core = self.lock();
                Ok(CompareReply::Top { horizon: core.horizon(), sums: core.sums.top() })
            }
            CompareRequest::Under(branches) => {
                let core = self.lock();
                let sums = branches.iter().flat_map(|branch| core.sums.under(*branch).iter().copied());
                Ok(CompareReply::Under(sums.collect()))
            }
            CompareRequest::Leaves { leaves, after } => {
                let mut objects = Vec::new();
                for leaf in leaves {
                    for object in self.index.objects_under(leaf) {
                        let (file, object) = object.map_err(io::Error::other)?;
                        if after.is_some_and(|a| file <= a) {
                            continue;
                        }
                        if objects.len() == MAX_LISTED {
                            return Ok(CompareReply::Leaves { objects, more: true });
                        }
                        objects.push((file, sum_of(file, &object)));
                    }
                }
                Ok(CompareReply::Leaves { objects, more: false })
            }
            CompareRequest::Objects(files) => {
                let (mut objects, mut bytes, mut answered) = (Vec::new(), 0, 0);
                for file in files {
                    if let Some(object) = self.index.object(*file).map_err(io::Error::other)? {
                        bytes += wire::encode(&object).len();
                        objects.push((*file, object));
                    }
                    answered += 1;
                    if bytes >= wire::ENTRIES_BYTES {
                        break;
                    }
                }
                Ok(CompareReply::Objects { objects, answered })
            }
        }
    }

    /// Begins a comparison with a peer that no longer has all entries that are lacking here.
    pub fn comparison(self: &Arc<Self>, from: BrickId) -> Comparison {
        Comparison::new(self.clone(), from)
    }

    /// What a peer has of objects of which only parts are known here.
    pub fn completion(self: &Arc<Self>, from: BrickId) -> Option<Comparison> {
        let torsos: VecDeque<_> = self.lock().torsos.iter().copied().take(MAX_OBJECTS).collect();
        if torsos.is_empty() {
            return None;
        }
        let mut this = Comparison::new(self.clone(), from);
        this.only_complete = true;
        this.stage = Stage::Objects(torsos.into());
        Some(this)
    }

    /// Merges one state that a peer has. Says whether anything came of it.
    fn take_state(&self, change: &mut Change<'_>, file: FileId, theirs: Object) -> FsResult<bool> {
        let taken = change.merge_state(file, theirs)?;
        if taken {
            change.todo(file, true);
        }
        Ok(taken)
    }

    /// Removes what was deleted and forgotten elsewhere, as a program here would.
    fn remove_forgotten(&self, change: &mut Change<'_>, file: FileId) -> FsResult<()> {
        let object = change.object(file)?;
        let seen = object.seen();
        for (link, _) in object.live_links() {
            change.emit(file, Op::Unlink { link, seen: seen.clone() })?;
        }
        change.todo(file, true);
        Ok(())
    }
}

enum Stage {
    Top,
    Under(Vec<u8>),
    Leaves,
    Objects(Vec<FileId>),
    Done,
}

/// One comparison with a peer.
pub struct Comparison {
    volume: Arc<Volume>,
    from: BrickId,
    stage: Stage,
    /// How far the peer had heard when it began, and how far we had.
    there: Horizon,
    here: Horizon,
    /// Leaves that differ and were not looked at yet, and those that are looked at.
    leaves: VecDeque<[u8; 2]>,
    group: Vec<[u8; 2]>,
    after: Option<FileId>,
    more: bool,
    /// Objects of the group that are to be asked for.
    wanted: VecDeque<FileId>,
    /// Objects that are to go here.
    gone: Vec<FileId>,
    /// It only completes what is known in parts.
    only_complete: bool,
}

impl Comparison {
    pub(super) fn new(volume: Arc<Volume>, from: BrickId) -> Self {
        Comparison {
            volume,
            from,
            stage: Stage::Top,
            there: Horizon::new(),
            here: Horizon::new(),
            leaves: VecDeque::new(),
            group: Vec::new(),
            after: None,
            more: false,
            wanted: VecDeque::new(),
            gone: Vec::new(),
            only_complete: false,
        }
    }

    /// Goes on to what is to be asked next.
    fn next(&mut self) -> FsResult<()> {
        if !self.wanted.is_empty() {
            let some = self.wanted.len().min(MAX_OBJECTS);
            self.stage = Stage::Objects(self.wanted.drain(..some).collect());
        } else if self.only_complete {
            self.stage = Stage::Done;
        } else if self.more {
            self.stage = Stage::Leaves;
        } else if !self.leaves.is_empty() {
            let some = self.leaves.len().min(MAX_LEAVES);
            self.group = self.leaves.drain(..some).collect();
            self.after = None;
            self.stage = Stage::Leaves;
        } else {
            self.end()?;
            self.volume.follow_standing_words();
            self.stage = Stage::Done;
        }
        Ok(())
    }

    fn listed(&mut self, theirs: Vec<(FileId, u128)>, more: bool) -> FsResult<()> {
        let upto = if more { theirs.last().map(|(file, _)| *file) } else { None };
        let mut theirs: BTreeMap<FileId, u128> = theirs.into_iter().collect();
        let volume = self.volume.clone();
        for leaf in self.group.clone() {
            for object in volume.index.objects_under(&leaf) {
                let (file, object) = object.map_err(index_failed)?;
                if self.after.is_some_and(|a| file <= a) || upto.is_some_and(|u| file > u) {
                    continue;
                }
                match theirs.remove(&file) {
                    Some(sum) if sum == sum_of(file, &object) => {}
                    Some(_) => self.wanted.push_back(file),
                    None => self.judge_gone(file, &object),
                }
            }
        }
        self.wanted.extend(theirs.into_keys());
        (self.after, self.more) = (upto, more);
        Ok(())
    }

    /// The peer does not have an object.
    fn judge_gone(&mut self, file: FileId, ours: &Object) {
        if forget::judge(file, Some(ours), None, &self.here, &self.there) == Verdict::Remove {
            self.gone.push(file);
        }
    }

    fn take(&mut self, asked: &[FileId], answered: usize, objects: Vec<(FileId, Object)>) -> FsResult<()> {
        let mut missing: Vec<_> = asked.get(..answered).unwrap_or_default().to_vec();
        missing.retain(|file| !objects.iter().any(|(f, _)| f == file));
        for file in asked.get(answered..).unwrap_or_default().iter().rev() {
            self.wanted.push_front(*file);
        }
        for chunk in objects.chunks(AT_ONCE) {
            let _one = self.volume.absorbing.lock().unwrap_or_else(PoisonError::into_inner);
            let core = &mut *self.volume.lock();
            let mut change = Change::new(&self.volume, core);
            let mut files = Vec::new();
            for (file, theirs) in chunk {
                let ours = change.object_or_none(*file)?;
                let verdict = match self.only_complete {
                    true => Verdict::Merge,
                    false => forget::judge(*file, ours.as_ref(), Some(theirs), &self.here, &self.there),
                };
                if verdict == Verdict::Remove {
                    self.gone.push(*file);
                }
                if verdict != Verdict::Leave && self.volume.take_state(&mut change, *file, theirs.clone())? {
                    if change.core.rebuild == Rebuild::No {
                        self.volume.right_former(&mut change, *file)?;
                    }
                    files.push(*file);
                }
            }
            let done = change.commit()?;
            if core.rebuild == Rebuild::No {
                self.volume.wake_unproven(core, &files);
                self.volume.seen_now(core, &done, files)?;
            }
        }
        if !self.only_complete {
            for file in missing {
                if let Some(ours) = self.volume.index.object(file).map_err(index_failed)? {
                    self.judge_gone(file, &ours);
                }
            }
        }
        Ok(())
    }

    /// All that differs is merged: what is gone there goes here, and what was heard there is heard.
    fn end(&mut self) -> FsResult<()> {
        let volume = self.volume.clone();
        if volume.is_rebuilding() {
            volume.prove_unmarked()?;
        }
        let _one = volume.absorbing.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = self.still_to_go()?;
        self.look_ahead(&gone)?;
        for chunk in gone.chunks(AT_ONCE) {
            let core = &mut *self.volume.lock();
            let mut change = Change::new(&self.volume, core);
            for file in chunk {
                // It may have been edited here in the meantime.
                let still = forget::judge(*file, Some(&change.object(*file)?), None, &self.here, &self.there);
                if still == Verdict::Remove && !change.local(*file)?.is_some_and(|l| l.dirty) {
                    self.volume.remove_forgotten(&mut change, *file)?;
                }
            }
            let done = change.commit()?;
            self.volume.seen_now(core, &done, chunk.to_vec())?;
        }
        let core = &mut *self.volume.lock();
        if core.rebuild == Rebuild::Waiting {
            return self.volume.judge(core, &self.there);
        }
        let mut change = Change::new(&self.volume, core);
        for (origin, heard) in self.there.iter() {
            change.jump(origin, heard);
        }
        change.commit()?;
        volume.wake_unproven(core, []);
        tracing::info!(from = %self.from, removed = gone.len(), "brought abreast by a comparison of trees");
        Ok(())
    }

    /// What is to go here and was not edited in the meantime, nor has gone by another comparison: that would count twice.
    fn still_to_go(&mut self) -> FsResult<Vec<FileId>> {
        let mut still = Vec::new();
        for file in std::mem::take(&mut self.gone) {
            let object = self.volume.object_of(file)?;
            if forget::judge(file, Some(&object), None, &self.here, &self.there) == Verdict::Remove {
                still.push(file);
            }
        }
        Ok(still)
    }

    /// Holds back what goes if it is too much: it will be said in our own journal.
    fn look_ahead(&self, gone: &[FileId]) -> FsResult<()> {
        let core = &mut *self.volume.lock();
        let mut files = 0;
        for file in gone {
            files += u64::from(self.volume.object_of(*file)?.kind.as_ref().is_some_and(|k| k.is_file()));
        }
        let origin = self.volume.incarnation;
        let last = core.heads.get(&origin).copied().unwrap_or(0) + gone.len() as u64;
        self.volume.note_removals(core, origin, files, last)
    }

    fn latest(&self) -> u64 {
        stamp::latest_taken(self.volume.clock.now_ms())
    }

    fn answered(&mut self, reply: CompareReply) -> FsResult<()> {
        match (std::mem::replace(&mut self.stage, Stage::Done), reply) {
            (Stage::Top, CompareReply::Top { horizon, sums }) => {
                if horizon.iter().any(|(_, heard)| heard.time > self.latest()) {
                    return Err(rustix::io::Errno::PROTO);
                }
                let mut core = self.volume.lock();
                core.rebuilding_too.remove(&self.from);
                (self.here, self.there) = (core.horizon(), horizon);
                let ours = core.sums.top();
                drop(core);
                let differ: Vec<u8> = (0..=u8::MAX)
                    .filter(|b| ours.get(usize::from(*b)) != sums.get(usize::from(*b)))
                    .collect();
                if !differ.is_empty() {
                    self.stage = Stage::Under(differ);
                    return Ok(());
                }
            }
            (Stage::Top, CompareReply::Rebuilding { adopts }) => {
                return match self.volume.judge_first(self.from, adopts)? {
                    true => Ok(()),
                    false => Err(rustix::io::Errno::AGAIN),
                };
            }
            (Stage::Under(branches), CompareReply::Under(sums)) => {
                let core = self.volume.lock();
                for (branch, theirs) in branches.iter().zip(sums.chunks(FAN)) {
                    let pairs = (0..=u8::MAX).zip(core.sums.under(*branch).iter().zip(theirs));
                    self.leaves.extend(pairs.filter(|(_, (a, b))| a != b).map(|(leaf, _)| [*branch, leaf]));
                }
            }
            (Stage::Leaves, CompareReply::Leaves { objects, more }) => self.listed(objects, more)?,
            (Stage::Objects(asked), CompareReply::Objects { objects, answered }) => {
                let latest = self.latest();
                if objects.iter().any(|(_, object)| object.stamps().any(|stamp| stamp.time > latest)) {
                    return Err(rustix::io::Errno::PROTO);
                }
                self.take(&asked, usize::try_from(answered).unwrap_or(usize::MAX), objects)?;
            }
            _ => return Err(rustix::io::Errno::PROTO),
        }
        self.next()
    }
}

impl Compare for Comparison {
    fn request(&self) -> Option<CompareRequest> {
        Some(match &self.stage {
            Stage::Top => CompareRequest::Top,
            Stage::Under(branches) => CompareRequest::Under(branches.clone()),
            Stage::Leaves => CompareRequest::Leaves { leaves: self.group.clone(), after: self.after },
            Stage::Objects(files) => CompareRequest::Objects(files.clone()),
            Stage::Done => return None,
        })
    }

    fn answer(&mut self, reply: CompareReply) -> io::Result<()> {
        self.answered(reply).map_err(Into::into)
    }
}
