//! A person's word on a conflict is carried out: by one member that has, or can get, the bytes that were chosen, as an edit that
//! includes all versions; see [`nearbrick_core::resolution`].
//!
//! Whoever holds the chosen bytes, and is the first of those that can be reached, acts at once; the next one after a while, if
//! nothing has come of it by then. Nobody waits for a member that is away, unless it alone has what was chosen.
//!
//! Invariants: what gives way is in `versions/` before it does, here and (see `install`) on each brick on which it is replaced; the
//! version, the names that go and the decision become true together, so a word is carried out as a whole or not at all, and
//! once. Nothing is touched that programs here are writing.

mod chosen;
mod sides;

use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use nearbrick_core::conflict::Policy;
use nearbrick_core::resolution::{Choice, Decision, MAX_SIDES, Order, Side, choose, turn};
use nearbrick_core::scrub::hash_of;
use nearbrick_core::{BrickId, FileId, Object, Op, VersionVector};
use rustix::io::Errno;

use self::sides::Staged;
use super::Volume;
use super::change::Change;
use super::conflict::Beside;
use super::core::{Core, Rebuild};
use super::types::FsResult;
use crate::index::Local;

/// After news of the file.
const SOON: Duration = Duration::from_millis(20);
/// For each member that is to act before this one does.
const TURN: Duration = Duration::from_secs(5);
/// Between two tries.
const AGAIN: Duration = Duration::from_secs(5);
/// Why a person's word on a conflict is not carried out yet: one clear line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Hindrance {
    /// Nobody there wrote one.
    #[error("no version was written at {0}: choose one of those that the status lists")]
    NotWritten(String),
    /// A program here writes it.
    #[error("{0} is being written here: close it")]
    Writing(String),
    /// It has no name here yet.
    #[error("the file has not come to its place here yet")]
    NotPlaced,
    /// It is on bricks that cannot be reached.
    #[error("what is needed is on {0}, which cannot be reached: switch it on, or choose another version")]
    OutOfReach(String),
    /// Nobody has it any more.
    #[error(
        "the chosen version is kept on no brick any more: versionRetention is over, or versions/ was full"
    )]
    Gone,
    /// What was read is not it.
    #[error("the bytes of the chosen version are damaged: choose another version, or look at the disk")]
    Damaged,
    /// What gives way has no room.
    #[error("versions/ has no room for the version that gives way: make space on the brick's disk")]
    NoRoom,
    /// The index is being made anew.
    #[error("the brick's index is being made anew")]
    Rebuilding,
    /// What the disk says.
    #[error("the disk refuses: {0}")]
    Failed(Errno),
}

impl From<Errno> for Hindrance {
    fn from(error: Errno) -> Self {
        Hindrance::Failed(error)
    }
}

/// What a person wants of a file, and how far that is.
#[derive(Clone, Debug)]
pub struct Wanted {
    order: Order,
    /// Since when it is known here, by the clock's `passed`.
    since: Duration,
    hindrance: Option<Hindrance>,
}

/// By file.
pub type Orders = BTreeMap<FileId, Wanted>;

/// What came of looking at a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is carried out, or there is nothing to decide.
    Done,
    /// It is to be looked at again then.
    Later(Duration),
}

/// What is to be decided.
#[derive(Clone, PartialEq)]
struct Plan {
    object: Object,
    local: Local,
    sides: Vec<Side>,
    /// The side that is chosen; none: all stay.
    chosen: Option<usize>,
    /// The last word that was carried out, if it is between its sides.
    last: Option<Decision>,
}

/// The bricks that say that they hold exactly this version.
pub(super) fn exact_holders(object: &Object, version: &VersionVector) -> Vec<BrickId> {
    let holds = object.holders.iter().filter(|(_, reg)| reg.value.as_ref() == Some(version));
    holds.map(|(brick, _)| *brick).collect()
}

impl Volume {
    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over the words that the configuration has.
    pub(super) fn follow_orders(&self) {
        let (config, since) = (self.config(), self.clock.passed());
        let mut new = Vec::new();
        {
            let mut orders = self.orders();
            let mut old = std::mem::take(&mut *orders);
            for order in &config.upkeep.orders {
                let known = old.remove(&order.file).filter(|wanted| wanted.order == *order);
                if known.is_none() {
                    new.push(order.file);
                }
                let wanted = known.unwrap_or(Wanted { order: *order, since, hindrance: None });
                orders.insert(order.file, wanted);
            }
        }
        for file in new {
            // Losers that fall to this brick are kept at once, whoever says in the end that the word is carried out.
            self.settler.soon(file);
            self.settler.order(file, Duration::ZERO);
        }
    }

    /// There is news of an object: a word on its conflict is looked at.
    pub(super) fn look_at_order(&self, file: FileId, object: &Object) {
        let orders = self.orders();
        if orders.is_empty() {
            return;
        }
        let of = object.kept.as_ref().map(|reg| reg.value.0);
        for file in [Some(file), of].into_iter().flatten() {
            if orders.contains_key(&file) {
                self.settler.order(file, SOON);
            }
        }
    }

    /// Whether a person wants to keep all versions of the file, which is not done yet.
    pub(super) fn are_both_ordered(&self, file: FileId, object: &Object) -> bool {
        let orders = self.orders();
        let order = orders.get(&file).map(|wanted| wanted.order);
        order.is_some_and(|order| order.choice == Choice::KeepBoth && !object.is_decided(order.word))
    }

    /// Who is not waited for where a person has spoken: who cannot be reached. Elsewhere nobody is passed over.
    pub(super) fn away_for(&self, file: FileId) -> impl Fn(BrickId) -> bool + use<> {
        let remote = self.orders().contains_key(&file).then(|| self.remote()).flatten();
        let me = self.me;
        move |brick| brick != me && remote.as_ref().is_some_and(|remote| !remote.is_reached(brick))
    }

    /// Why the word on this file's conflict is not carried out yet, as far as this brick tried.
    pub(super) fn hindrance(&self, file: FileId) -> Option<Hindrance> {
        self.orders().get(&file)?.hindrance.clone()
    }

    /// Carries out a person's word, if there is one and it falls to this brick.
    pub(super) fn see_to_order(&self, file: FileId) {
        let Some(wanted) = self.orders().get(&file).cloned() else { return };
        let (hindrance, again) = match self.carry_out(&wanted) {
            Ok(Step::Done) => (None, None),
            Ok(Step::Later(wait)) => (wanted.hindrance.clone(), Some(wait)),
            Err(hindrance) => {
                if wanted.hindrance.as_ref() != Some(&hindrance) {
                    tracing::warn!(%file, "a conflict is not resolved yet: {hindrance}");
                }
                (Some(hindrance), Some(AGAIN))
            }
        };
        if hindrance != wanted.hindrance {
            if let Some(now) = self.orders().get_mut(&file).filter(|now| now.order == wanted.order) {
                now.hindrance = hindrance;
            }
            self.tick();
        }
        if let Some(wait) = again {
            self.settler.order(file, wait);
        }
    }

    fn carry_out(&self, wanted: &Wanted) -> Result<Step, Hindrance> {
        let order = &wanted.order;
        let look = || self.plan(&self.lock(), order);
        let Some(plan) = look()? else { return Ok(Step::Done) };
        if let Some(wait) = self.until_turn(wanted, &plan)? {
            return Ok(Step::Later(wait));
        }
        let writers = self.writers_elsewhere(&plan.object);
        let plan = if writers.is_empty() {
            plan
        } else {
            // What they have written so far is one of the versions.
            self.ask_writers(order.file, &writers);
            let Some(plan) = look()? else { return Ok(Step::Done) };
            plan
        };
        match plan.chosen {
            None => self.keep_all(order, &plan),
            Some(chosen) => self.take_chosen(order, &plan, chosen),
        }
    }

    /// The versions between which there is something to decide: those of the file, and those of files beside it.
    pub(super) fn sides(&self, core: &Core, file: FileId, object: &Object) -> FsResult<Vec<Side>> {
        let own = object.current().map(|c| Side {
            content: c.clone(),
            beside: None,
            hash: hash_of(object, &c.version),
        });
        let mut sides: Vec<Side> = own.collect();
        for kept in core.tally.kept_of(file) {
            let there = self.object_of(kept)?;
            let Some(head) = there.head() else { continue };
            let mut content = head.clone();
            // Who keeps a loser need not be who wrote it.
            if let Some(lost) = object.contents.iter().find(|c| c.version == head.version) {
                content.writer = lost.writer;
                content.stamp = lost.stamp;
            }
            sides.push(Side { hash: hash_of(&there, &content.version), content, beside: Some(kept) });
        }
        sides.truncate(MAX_SIDES);
        Ok(sides)
    }

    /// What is to be decided. None: nothing, or it is decided.
    fn plan(&self, core: &Core, order: &Order) -> Result<Option<Plan>, Hindrance> {
        if core.rebuild != Rebuild::No {
            return Err(Hindrance::Rebuilding);
        }
        let file = order.file;
        let (object, local) = (self.object_of(file)?, self.local_or_none(file)?);
        let is_file = object.kind.as_ref().is_some_and(|kind| kind.is_file());
        if !is_file || !object.exists(file) || object.is_decided(order.word) {
            return Ok(None);
        }
        let fresh = self.sides(core, file, &object)?;
        let last = object.decision().filter(|last| last.word.made == order.word.made).cloned();
        let (sides, last) = match last {
            _ if fresh.len() > 1 => (fresh, None),
            Some(last) => (last.sides.clone(), Some(last)),
            None => return Ok(None),
        };
        let chosen = choose(&sides, order.choice);
        if let (Choice::Brick(brick), None) = (order.choice, chosen) {
            return Err(Hindrance::NotWritten(self.node_of(brick)));
        }
        Ok(Some(Plan { object, local, sides, chosen, last }))
    }

    fn node_of(&self, brick: BrickId) -> String {
        self.config().member(brick).map_or_else(|| brick.to_string(), |member| member.node.clone())
    }

    /// The bricks that are known to hold a side.
    fn holders_of_side(&self, file: FileId, object: &Object, side: &Side) -> FsResult<Vec<BrickId>> {
        let of = side.file(file);
        let version = &side.content.version;
        if of == file {
            Ok(exact_holders(object, version))
        } else {
            Ok(exact_holders(&self.object_of(of)?, version))
        }
    }

    /// For how long others are to act first.
    fn until_turn(&self, wanted: &Wanted, plan: &Plan) -> Result<Option<Duration>, Hindrance> {
        let file = wanted.order.file;
        let mut holders = Vec::new();
        for (n, side) in plan.sides.iter().enumerate() {
            if plan.chosen.is_none_or(|chosen| chosen == n) {
                holders.extend(self.holders_of_side(file, &plan.object, side)?);
            }
        }
        // Who carried out the last word has what gave way then.
        if plan.last.is_some() {
            holders.extend(plan.object.decided().map(|(brick, _)| brick));
        }
        let config = self.config();
        let members: Vec<_> = config.members.iter().map(|member| member.brick).collect();
        holders.retain(|brick| members.contains(brick));
        let remote = self.remote();
        let is_reached = |brick| remote.as_ref().is_some_and(|remote| remote.is_reached(brick));
        let before = turn(self.me, &holders, &members, is_reached);
        let at = wanted.since + TURN * u32::try_from(before).unwrap_or(u32::MAX);
        let wait = at.saturating_sub(self.clock.passed());
        // Who comes first may go away meanwhile.
        Ok((!wait.is_zero()).then(|| wait.min(AGAIN)))
    }

    // --- all stay ---

    fn keep_all(&self, order: &Order, plan: &Plan) -> Result<Step, Hindrance> {
        let file = order.file;
        if plan.object.in_conflict() {
            self.keep_loser(file)?;
            let object = self.object_of(file)?;
            if object.in_conflict() {
                self.are_losers_in_reach(&object)?;
                return Ok(Step::Later(AGAIN));
            }
            return Ok(Step::Later(SOON));
        }
        let mut back = Vec::new();
        if let Some(last) = &plan.last {
            for (n, side) in plan.sides.iter().enumerate() {
                let is_there = match side.beside {
                    Some(beside) => self.object_of(beside)?.exists(beside),
                    None => false,
                };
                if u32::try_from(n) != Ok(last.holds) && !is_there {
                    back.push((n, self.staged_side(file, side, plan)));
                }
            }
        }
        let failed = back.iter().find_map(|(_, staged)| staged.as_ref().err().cloned());
        let staged: Vec<(usize, Staged)> =
            back.into_iter().filter_map(|(n, staged)| Some((n, staged.ok()?))).collect();
        let done = match failed {
            Some(hindrance) => Err(hindrance),
            None => self.say_all_stay(order, plan, &staged),
        };
        if !matches!(done, Ok(Step::Done)) {
            staged.iter().for_each(|(_, staged)| self.unstage(&staged.name));
        }
        done
    }

    /// Whether each version that is to become a file beside the other is here, or somebody who can be reached has it.
    fn are_losers_in_reach(&self, object: &Object) -> Result<(), Hindrance> {
        let Some(remote) = self.remote() else { return Ok(()) };
        let winner = Policy::KeepBoth.winner(object).map(|winner| winner.version.clone());
        for loser in object.current().filter(|c| Some(&c.version) != winner.as_ref()) {
            let holders = exact_holders(object, &loser.version);
            if !holders.iter().any(|brick| *brick == self.me || remote.is_reached(*brick)) {
                let away: Vec<_> = holders.iter().map(|brick| self.node_of(*brick)).collect();
                return Err(Hindrance::OutOfReach(away.join(", ")));
            }
        }
        Ok(())
    }

    fn say_all_stay(
        &self,
        order: &Order,
        plan: &Plan,
        staged: &[(usize, Staged)],
    ) -> Result<Step, Hindrance> {
        let file = order.file;
        let core = &mut *self.lock();
        if self.plan(core, order)?.as_ref() != Some(plan) {
            return Ok(Step::Later(SOON));
        }
        if !staged.is_empty() && plan.local.placed.is_empty() {
            return Err(Hindrance::NotPlaced);
        }
        let own = plan.sides.iter().position(|side| side.beside.is_none()).unwrap_or(0);
        let (outcome, holds) = match &plan.last {
            Some(last) => (last.outcome.clone(), last.holds),
            None => (plan.sides[own].content.version.clone(), u32::try_from(own).unwrap_or(0)),
        };
        let mut sides = plan.sides.clone();
        let mut made = Vec::new();
        let said = (|| {
            for (n, staged) in staged {
                let (content, id) = (&plan.sides[*n].content, self.new_id());
                let mtime = content.mtime;
                let place = self.put_beside(
                    core,
                    id,
                    content,
                    mtime,
                    &plan.object,
                    &plan.local,
                    &staged.name,
                    &staged.data,
                )?;
                made.push((id, place, *n));
                sides[*n].beside = Some(id);
            }
            let mut change = Change::new(self, core);
            for ((id, place, n), (_, staged)) in made.iter().zip(staged) {
                let new = Beside {
                    file: *id,
                    place: place.clone(),
                    raw: staged.data.stat()?,
                    content: &plan.sides[*n].content,
                    object: &plan.object,
                };
                self.say_beside(&mut change, &new, None)?;
                // Its name says where it came from, as those of the others do.
                change.emit(*id, Op::Kept { of: *id, name: place.name.clone() })?;
            }
            for beside in plan.sides.iter().filter(|_| plan.last.is_none()).filter_map(|side| side.beside) {
                if let Some(kept) = change.object(beside)?.kept {
                    change.emit(beside, Op::Kept { of: beside, name: kept.value.1 })?;
                }
            }
            let decision = Decision { word: order.word, choice: order.choice, sides, outcome, holds };
            change.emit(file, Op::Decide { brick: self.me, decision })?;
            change.commit()
        })();
        match said {
            Ok(done) => {
                made.iter().for_each(|(_, place, _)| self.invalidate_entry(core, place));
                self.follow(core, done)?;
                tracing::info!(%file, "a conflict is resolved: all versions stay");
                Ok(Step::Done)
            }
            Err(error) => {
                for (id, place, _) in made {
                    if let Ok(at) = self.at_place(core, &place) {
                        self.unmake(core, &place, id, &at);
                    }
                }
                Err(error.into())
            }
        }
    }
}
