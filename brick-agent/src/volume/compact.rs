//! What all members have heard is given up: entries of the journal, whose effect the
//! objects hold, and deleted objects.
//!
//! Members say what they have heard; that is passed on, so two that are never on together know it
//! too. The word of a member counts once all that it had written by then is here: what
//! it writes later, it writes knowing of what it had heard.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nearbrick_core::op::MAX_TIME;
use nearbrick_core::{BrickId, Heard, Incarnation, Object, Op, VersionVector, forget};
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::core::Core;
use super::types::FsResult;
use super::{Volume, index_failed};
use crate::index::{Index, IndexError, encode};
use crate::peer::wire::{Ack, Acks};

const ACKS: &str = "acks";
/// Entries or objects given up before programs may have the lock.
const AT_ONCE: usize = 512;

/// What a member is known to have heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// Its own word.
    pub ack: Ack,
    /// When that came, by this machine's clock: milliseconds since 1970.
    pub came: u64,
}

/// What was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Entries.
    pub entries: u64,
    /// Deleted objects.
    pub objects: u64,
}

/// What the members had heard when that was last kept.
pub(super) fn load(index: &Index) -> Result<BTreeMap<BrickId, Known>, IndexError> {
    let kept = index.meta(ACKS)?;
    Ok(kept.and_then(|bytes| postcard::from_bytes(&bytes).ok()).unwrap_or_default())
}

impl Volume {
    /// The version of bytes that were written on `base`.
    ///
    /// A brick goes on with the counter of an earlier life of its own, where nobody can have more of that
    /// life than what is here and nothing of it is beside `base`: so vectors do not grow with each
    /// life. A member that has heard of this life said later than that one's end what it has of it.
    pub(super) fn next_version(&self, core: &Core, object: &Object, base: &VersionVector) -> VersionVector {
        let seen = object.seen();
        // How often this brick has written it, also on another base: no two of its versions have one counter.
        let written = base.get(self.incarnation).max(seen.get(self.incarnation));
        if written > 0 {
            let mut upto = base.clone();
            upto.merge(&[(self.incarnation, written)].into_iter().collect());
            return upto.bumped(self.incarnation);
        }
        let config = self.config();
        let here = |origin: Incarnation| core.heads.get(&origin).copied().unwrap_or(0);
        let ended = |life: Incarnation| {
            config.members.iter().filter(|m| m.brick != self.me).all(|m| {
                core.acks.get(&m.brick).is_some_and(|known| {
                    let heard = |origin| known.ack.heads.get(origin).copied().unwrap_or(0);
                    heard(&self.incarnation) > 0 && heard(&life) <= here(life)
                })
            })
        };
        let goes_on = |life: &&Incarnation| {
            base.get(**life) > 0
                && base.get(**life) == seen.get(**life).max(base.get(**life))
                && ended(**life)
        };
        let writer = self.brick.former.iter().rev().find(goes_on).copied();
        base.bumped(writer.unwrap_or(self.incarnation))
    }

    /// The most counters in one version.
    ///
    /// # Errors
    /// The index cannot be read.
    pub fn longest_vector(&self) -> FsResult<usize> {
        let mut longest = 0;
        for object in self.index.objects() {
            let (_, object) = object.map_err(index_failed)?;
            longest = object.contents.iter().map(|c| c.version.len()).fold(longest, usize::max);
        }
        Ok(longest)
    }

    /// Others have heard more of this brick than it knows itself: it came back as it once was, from a
    /// backup. It is to be opened anew, under a new incarnation.
    pub(super) fn is_outrun(&self) {
        if self.outrun.swap(true, Ordering::AcqRel) {
            return;
        }
        tracing::error!(
            brick = %self.me, incarnation = %self.incarnation,
            "peers know of later changes by this brick: it is an old copy of itself; it goes on under a new incarnation"
        );
        self.tick();
    }

    /// Whether it is to be closed and opened anew.
    pub fn must_reopen(&self) -> bool {
        self.outrun.load(Ordering::Acquire) || self.again.load(Ordering::Acquire)
    }

    /// Takes note of what members have heard, and says what is known of that here.
    pub(super) fn exchange_acks(&self, told: &Acks) -> Acks {
        let config = self.config();
        let now = self.clock.now_ms();
        let core = &mut *self.lock();
        let outrun = told.get(&self.me).is_some_and(|ack| {
            // Of this life more is known than there was, or a later one.
            ack.heads.get(&self.incarnation) > core.heads.get(&self.incarnation)
                || ack.incarnation != self.incarnation
                    && !self.brick.former.contains(&ack.incarnation)
                    && ack.at > core.clock.last()
        });
        if let Some(ack) = told.get(&self.me) {
            // What this life says comes after what an earlier one said, though the clock was set back.
            core.clock.saw(ack.at.min(MAX_TIME));
        }
        if outrun {
            self.is_outrun();
        }
        for (brick, ack) in told {
            if *brick != self.me && core.unheard.heard(&ack.heads) {
                self.tick();
            }
            let is_new = core.acks.get(brick).is_none_or(|known| known.ack.at < ack.at);
            let written = ack.heads.get(&ack.incarnation).copied().unwrap_or(0);
            let is_here = core.heads.get(&ack.incarnation).copied().unwrap_or(0) >= written;
            if *brick != self.me && config.member(*brick).is_some() && is_new && is_here {
                core.acks.insert(*brick, Known { ack: ack.clone(), came: now });
                self.heard_more(core);
            }
        }
        let mut all: Acks = core.acks.iter().map(|(brick, known)| (*brick, known.ack.clone())).collect();
        let at = core.clock.tick(now);
        all.insert(
            self.me,
            Ack { at, incarnation: self.incarnation, heads: core.heads.clone(), sum: core.sums.all() },
        );
        all
    }

    /// Gives up what all members have heard. Members of which nothing was heard for as long as `away`
    /// are not waited for: they are compared with when they are back.
    ///
    /// # Errors
    /// The index cannot be read or written; what was given up before stays so.
    pub fn compact(&self, away: Duration) -> FsResult<Compacted> {
        let config = self.config();
        let mut done = Compacted::default();
        let targets = {
            let core = &mut *self.lock();
            let now = self.clock.now_ms();
            core.acks.retain(|brick, _| config.member(*brick).is_some());
            for member in config.members.iter().filter(|m| m.brick != self.me) {
                // One that never said anything is waited for from now on.
                core.acks.entry(member.brick).or_insert_with(|| Known {
                    ack: Ack { at: 0, incarnation: Incarnation(0), heads: Default::default(), sum: 0 },
                    came: now,
                });
            }
            let kept = encode(&core.acks);
            let stable = self.stable(core, now, away);
            let mut change = Change::new(self, core);
            change.meta(ACKS, &kept);
            change.commit()?;
            stable
        };
        self.try_again();
        for (origin, last) in targets {
            done.entries += self.compact_origin(origin, last)?;
        }
        self.give_up_lost()?;
        done.objects = self.forget_dead(|brick| config.member(brick).is_some())?;
        if done != Compacted::default() {
            tracing::debug!(
                entries = done.entries,
                objects = done.objects,
                "all members have these: given up"
            );
        }
        Ok(done)
    }

    /// The names of files of which no brick holds anything any more. They go when all members, also those that were away,
    /// have heard all that is known here, and so would have said if they had a copy.
    fn give_up_lost(&self) -> FsResult<()> {
        let config = self.config();
        let core = &mut *self.lock();
        let (lost, heads) = (core.tally.lost.clone(), core.heads.clone());
        core.lost_since.retain(|file, _| lost.contains(file));
        let mut gone = Vec::new();
        for file in lost.into_iter().take(AT_ONCE) {
            let since = core.lost_since.entry(file).or_insert_with(|| heads.clone());
            let heard = |known: &Known| {
                since.iter().all(|(origin, seq)| known.ack.heads.get(origin).is_some_and(|h| h >= seq))
            };
            let mut others = config.members.iter().filter(|m| m.brick != self.me);
            if others.all(|m| core.acks.get(&m.brick).is_some_and(heard)) {
                gone.push(file);
            }
        }
        for file in gone {
            let local = self.local_or_none(file)?;
            if local.dirty || local.have.is_some() {
                continue;
            }
            let mut change = Change::new(self, core);
            let object = change.object(file)?;
            for (link, _) in object.live_links() {
                change.emit(file, Op::Unlink { link, seen: object.seen() })?;
            }
            let done = change.commit()?;
            let message =
                format!("file {file} is lost: no brick holds any version of it, and its name is removed");
            tracing::error!("{message}");
            self.note_error(nearbrick_core::heal::Reason::Corrupt, message);
            self.seen_now(core, &done, vec![file])?;
        }
        Ok(())
    }

    /// Up to where all members that are waited for have heard each origin.
    fn stable(&self, core: &Core, now: u64, away: Duration) -> Vec<(Incarnation, u64)> {
        let away = u64::try_from(away.as_millis()).unwrap_or(u64::MAX);
        let waited: Vec<_> = core.acks.values().filter(|k| now.saturating_sub(k.came) < away).collect();
        let all = |origin: &Incarnation, head: u64| {
            let heard = waited.iter().map(|k| k.ack.heads.get(origin).copied().unwrap_or(0));
            heard.fold(head, u64::min)
        };
        core.heads
            .iter()
            .map(|(origin, head)| (*origin, all(origin, *head)))
            .filter(|(origin, last)| *last > core.floor.get(*origin).seq)
            .collect()
    }

    fn compact_origin(&self, origin: Incarnation, last: u64) -> FsResult<u64> {
        let mut gone = 0;
        loop {
            let core = &mut *self.lock();
            let sequences: Vec<u64> = self
                .index
                .sequences_to(origin, last)
                .take(AT_ONCE)
                .collect::<Result<_, _>>()
                .map_err(index_failed)?;
            let Some(upto) = sequences.last().copied() else { return Ok(gone) };
            let Some(entry) = self.index.entry(origin, upto).map_err(index_failed)? else { return Ok(gone) };
            let known = core.floor.get(origin);
            let mut change = Change::new(self, core);
            sequences.iter().for_each(|seq| change.drop_entry(origin, *seq));
            // Entries that a comparison jumped over may still lie there.
            if upto > known.seq {
                change.floor(origin, Heard { seq: upto, time: entry.time });
            }
            change.commit()?;
            gone += sequences.len() as u64;
        }
    }

    /// Forgets deleted objects of which all members have heard everything.
    fn forget_dead(&self, is_member: impl Fn(BrickId) -> bool) -> FsResult<u64> {
        let dead: Vec<_> = self.lock().dead.iter().copied().collect();
        let mut gone = 0;
        for chunk in dead.chunks(AT_ONCE) {
            let core = &mut *self.lock();
            let floor = core.floor.clone();
            let mut change = Change::new(self, core);
            for file in chunk {
                let object = change.object(*file)?;
                let here = change.local(*file)?;
                let idle = here.is_none_or(|l| {
                    !l.on_disk() && !l.dirty && !l.broken && l.needed.is_none() && l.merged_into.is_none()
                });
                if idle
                    && !self.index.is_wanted(*file)
                    && !self.index.has_children(*file)
                    && forget::is_forgettable(*file, &object, &floor, &is_member)
                {
                    change.forget(*file)?;
                    gone += 1;
                }
            }
            change.commit()?;
        }
        Ok(gone)
    }
}
