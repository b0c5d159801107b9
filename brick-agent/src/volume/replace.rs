//! Replica sets of files that exist follow the placement rules: `core/replace` says the next step of a file, and this takes it.
//!
//! A *pass* goes through all objects, some at a time, when the rules are other ones. From then on a file is looked at when it changes
//! (its set, its name, or, while it is not as it is wanted, anything), so that the rest costs nothing. When no file is
//! left over, the index says for which rules that was, and the next start needs no pass.
//!
//! Invariants: `meta` has [`PLACED`] only while nothing waits and nothing is to be looked at; without the operator's word (see
//! [`Volume::set_led`]) no set of a file that exists is changed, because the rules known here may be old.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nearbrick_core::replace::{Obstacle, Step, lacking, rank, same_set, step, with_stand_ins};
use nearbrick_core::{BrickId, FileId, Incarnation, Object, Op, Stamp};
use rustix::io::Errno;

use super::change::Change;
use super::core::{Core, Rebuild};
use super::count::Count;
use super::types::FsResult;
use super::{Configured, Volume, index_failed, read};
use crate::config::VolumeConfig;
use crate::index::{Local, encode};

/// For which rules everything is as they want.
pub(super) const PLACED: &str = "placed";
/// Files looked at before others may have the lock.
const AT_ONCE: usize = 64;
/// For each brick that is to take a step before this one does.
const FOR_EACH_BEFORE: Duration = Duration::from_secs(60);
/// Between two tries of what could not be done.
const TRY_AGAIN: Duration = Duration::from_secs(60);

/// Why a file is not as it is wanted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Unplaced {
    /// The set is to be another one first.
    Not(Obstacle),
    /// It is for another brick to do.
    AnothersTurn,
    /// The operator cannot be heard.
    NotLed,
    /// No rule says where files of its home are to be.
    NoRule,
}

impl Unplaced {
    /// What a person reads of files of which this holds.
    pub fn as_str(self) -> &'static str {
        match self {
            Unplaced::Not(Obstacle::Lacking) => "wait for copies",
            Unplaced::Not(Obstacle::BeingWritten) => "are being written",
            Unplaced::Not(Obstacle::InConflict) => "are in conflict",
            Unplaced::Not(Obstacle::NotHeard) => "wait for word from a brick",
            Unplaced::AnothersTurn => "are for another brick to see to",
            Unplaced::NotLed => "wait for the API server",
            Unplaced::NoRule => "have no home any more that a rule names",
        }
    }
}

/// A file that is not as it is wanted.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    why: Unplaced,
    /// By which rule, if there is one.
    rule: Option<usize>,
    bytes: u64,
    /// When its newest version was written: milliseconds since 1970.
    written_ms: u64,
    /// The stamp of its set, and how far that journal was known here when the set was first seen so. None while that
    /// is not far enough to have it.
    set: (Stamp, Option<u64>),
    /// When it is this brick's turn to take its next step, by the clock's `passed`.
    turn: Option<Duration>,
}

/// How far the pass is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Pass {
    /// None yet, or the rules are other ones.
    #[default]
    Due,
    /// All up to this object are looked at.
    Upto(Option<FileId>),
    /// All are.
    Done,
}

/// What is to be done about replica sets.
#[derive(Debug, Default)]
pub struct Replacing {
    /// For which rules.
    rules: Option<[u8; 32]>,
    /// Since when they are followed here: milliseconds since 1970.
    since_ms: Option<u64>,
    pass: Pass,
    /// A directory came to another place, so that other globs may match: when to begin once more, by the clock's `passed`.
    again: Option<Duration>,
    /// Whether the index says that everything is as these rules want.
    marked: bool,
    /// Files that are to be looked at.
    look: BTreeSet<FileId>,
    /// Files that are not as they are wanted.
    waiting: BTreeMap<FileId, Waiting>,
    /// Those of them that wait for word from a brick.
    unheard: BTreeSet<FileId>,
    /// When it is this brick's turn.
    turns: BTreeSet<(Duration, FileId)>,
}

impl Replacing {
    /// What the index says at the start. Says whether that is of these rules.
    pub(super) fn resume(&mut self, marked: &[u8], rules: &[u8; 32]) -> bool {
        if marked != rules.as_slice() {
            return false;
        }
        (self.rules, self.pass, self.marked) = (Some(*rules), Pass::Done, true);
        true
    }

    /// Whether the index says that everything is as the rules want.
    pub(super) fn is_marked(&self) -> bool {
        self.marked
    }

    /// It does no longer.
    pub(super) fn unmark(&mut self) {
        self.marked = false;
    }

    fn forget(&mut self, file: FileId) -> Option<Waiting> {
        self.unheard.remove(&file);
        let old = self.waiting.remove(&file)?;
        if let Some(turn) = old.turn {
            self.turns.remove(&(turn, file));
        }
        Some(old)
    }
}

/// The rules by brick: those of the node whose brick it is, or was.
#[derive(Debug, Default)]
pub(super) struct Homes {
    of: HashMap<BrickId, Vec<usize>>,
    /// Identifies the rules, and whose they are.
    pub(super) print: [u8; 32],
    /// Whether a path can make a difference.
    by_path: bool,
    /// Whether somebody stands in for a full brick: then who holds a file makes a difference.
    by_holders: bool,
}

impl Homes {
    pub(super) fn new(config: &VolumeConfig) -> Self {
        let mut by_node: HashMap<&str, Vec<usize>> = HashMap::new();
        // Rules for files of all nodes count for each, in the order of all rules.
        let of_all: Vec<usize> =
            (0..config.placement.len()).filter(|n| config.placement[*n].creator.is_empty()).collect();
        for (n, rule) in config.placement.iter().enumerate().filter(|(_, rule)| !rule.creator.is_empty()) {
            by_node.entry(&rule.creator).or_insert_with(|| of_all.clone()).push(n);
        }
        by_node.values_mut().for_each(|rules| rules.sort_unstable());
        let former = config.upkeep.former.iter().map(|f| (f.brick, f.node.as_str()));
        // Who is a member now counts more than who was.
        let all = former.chain(config.members.iter().map(|m| (m.brick, m.node.as_str())));
        let nodes: BTreeMap<BrickId, &str> = all.filter(|(_, node)| by_node.contains_key(node)).collect();
        let print = *blake3::hash(&encode(&(&config.placement, &nodes))).as_bytes();
        let of =
            nodes.iter().filter_map(|(brick, node)| Some((*brick, by_node.get(*node)?.clone()))).collect();
        let by_path = config.placement.iter().any(|rule| !rule.paths.is_empty());
        let by_holders = config.placement.iter().any(|rule| !rule.stand_ins.is_empty());
        Homes { of, print, by_path, by_holders }
    }
}

impl Configured {
    /// Whether a file that changed is to be looked at: `moved` says whether it has another place here. Costs next to nothing
    /// where nothing can have come of it.
    pub(super) fn concerns(
        &self,
        replacing: &Replacing,
        file: FileId,
        before: Option<&Object>,
        now: Option<&Object>,
        moved: bool,
    ) -> bool {
        if self.config.placement.is_empty() {
            return false;
        }
        if replacing.waiting.contains_key(&file) {
            return true;
        }
        let Some(now) = now.filter(|o| o.kind.as_ref().is_some_and(|kind| kind.is_file())) else {
            return false;
        };
        let Some(set) = &now.replicas else { return false };
        // What was deleted is not waited for: it is looked at when its name comes back.
        let lives = |object: &Object| object.live_links().next().is_some();
        let same = before
            .is_some_and(|before| before.replicas.as_ref() == Some(set) && (lives(before) || !lives(now)));
        if self.homes.by_holders {
            return true;
        }
        if same && !(moved && self.homes.by_path) {
            return false;
        }
        match self.rule_without_path(&set.value) {
            Some(Some(rule)) => self
                .config
                .placement
                .get(rule)
                .is_some_and(|rule| rule.joining.is_some() || !same_set(&rule.bricks, &set.value)),
            Some(None) => !set.value.is_empty(),
            None => true,
        }
    }

    /// Identifies the rules, if there are any.
    fn rules(&self) -> Option<[u8; 32]> {
        (!self.config.placement.is_empty()).then_some(self.homes.print)
    }

    /// The rule for files of this set, where the path makes no difference; `Some(None)` if there is no rule for its home.
    fn rule_without_path(&self, set: &[BrickId]) -> Option<Option<usize>> {
        let rules = set.first().and_then(|home| self.homes.of.get(home)).map(Vec::as_slice);
        match rules.unwrap_or_default() {
            [] => Some(None),
            [first, ..] if self.globs.get(*first).is_some_and(Option::is_none) => Some(Some(*first)),
            _ => None,
        }
    }
}

impl Volume {
    /// Whether this agent hears what the operator says. Without that, sets of files that exist stay as they are: the rules
    /// known here may be old, and members that follow other ones would undo each other's steps.
    pub fn set_led(&self, led: bool) {
        if self.led.swap(led, Ordering::AcqRel) != led && led {
            let core = &mut *self.lock();
            let replacing = &mut core.replacing;
            replacing.look.extend(replacing.waiting.keys().copied());
            self.settler.replace(Duration::ZERO);
        }
    }

    fn is_led(&self) -> bool {
        self.led.load(Ordering::Acquire)
    }

    /// The rules are other ones, or nothing was looked at yet.
    pub(super) fn follow_rules(&self) {
        let configured = read(&self.configured).clone();
        if self.lock().replacing.rules != configured.rules() {
            self.settler.replace(Duration::ZERO);
        }
    }

    /// A member said what it has heard: files may have waited for that.
    pub(super) fn heard_more(&self, core: &mut Core) {
        let replacing = &mut core.replacing;
        if !replacing.unheard.is_empty() {
            replacing.look.extend(replacing.unheard.iter().copied());
            self.settler.replace(Duration::ZERO);
        }
    }

    /// These files changed, and are to be looked at.
    pub(super) fn to_be_replaced(&self, core: &mut Core, files: Vec<FileId>) {
        if !files.is_empty() {
            core.replacing.look.extend(files);
            self.settler.replace(Duration::ZERO);
        }
    }

    /// A directory came to another place: all below it has another path.
    pub(super) fn dir_moved(&self, core: &mut Core) {
        if read(&self.configured).homes.by_path {
            let at = self.clock.passed().saturating_add(TRY_AGAIN);
            core.replacing.again.get_or_insert(at);
            self.settler.replace(TRY_AGAIN);
        }
    }

    /// Looks at some files, and has itself called again if there are more.
    pub(super) fn replace_some(&self) {
        let configured = read(&self.configured).clone();
        let core = &mut *self.lock();
        if core.rebuild != Rebuild::No {
            self.settler.replace(TRY_AGAIN);
            return;
        }
        let files = match self.next_files(core, &configured) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "replica sets cannot be looked at yet");
                self.settler.replace(TRY_AGAIN);
                return;
            }
        };
        if let Err(error) = self.replace_these(core, &configured, &files) {
            tracing::warn!(%error, "replica sets cannot be changed yet");
            core.replacing.look.extend(files);
            self.settler.replace(TRY_AGAIN);
            return;
        }
        let (replacing, now) = (&core.replacing, self.clock.passed());
        let to_be_marked = configured.rules().is_some()
            && !replacing.marked
            && replacing.waiting.is_empty()
            && replacing.again.is_none();
        if !replacing.look.is_empty() || replacing.pass != Pass::Done || to_be_marked {
            self.settler.replace(Duration::ZERO);
        } else if let Some(at) =
            replacing.turns.first().map(|(turn, _)| *turn).into_iter().chain(replacing.again).min()
        {
            self.settler.replace(at.saturating_sub(now));
        }
    }

    /// The next files to be looked at: those that changed, then those of the pass.
    fn next_files(&self, core: &mut Core, configured: &Configured) -> FsResult<Vec<FileId>> {
        let now = self.clock.passed();
        if core.replacing.rules != configured.rules() {
            // Should the rules before these come back, files may be as others wanted by then.
            let mut change = Change::new(self, core);
            change.drop_meta(PLACED);
            change.commit()?;
            core.replacing = Replacing {
                rules: configured.rules(),
                since_ms: Some(self.clock.now_ms()),
                ..Replacing::default()
            };
        }
        if configured.rules().is_none() {
            core.replacing.pass = Pass::Done;
            return Ok(Vec::new());
        }
        let replacing = &mut core.replacing;
        while let Some((turn, file)) = replacing.turns.first().copied().filter(|(turn, _)| *turn <= now) {
            replacing.turns.remove(&(turn, file));
            replacing.look.insert(file);
        }
        let mut files = Vec::new();
        while files.len() < AT_ONCE
            && let Some(file) = replacing.look.pop_first()
        {
            files.push(file);
        }
        if replacing.pass == Pass::Done && replacing.again.is_some_and(|at| at <= now) {
            (replacing.pass, replacing.again) = (Pass::Due, None);
        }
        let after = match replacing.pass {
            Pass::Due => None,
            Pass::Upto(after) => after,
            Pass::Done => return Ok(files),
        };
        let mut last = after;
        let mut seen = 0;
        for object in self.index.objects_after(after).take(AT_ONCE) {
            let (file, object) = object.map_err(index_failed)?;
            (last, seen) = (Some(file), seen + 1);
            if object.kind.as_ref().is_some_and(|kind| kind.is_file()) {
                files.push(file);
            }
        }
        replacing.pass = if seen < AT_ONCE { Pass::Done } else { Pass::Upto(last) };
        Ok(files)
    }

    fn replace_these(&self, core: &mut Core, configured: &Configured, files: &[FileId]) -> FsResult<()> {
        let mut change = Change::new(self, core);
        for file in files {
            self.replace_one(&mut change, configured, *file)?;
        }
        let replacing = &change.core.replacing;
        let all = configured.rules().is_some()
            && replacing.pass == Pass::Done
            && replacing.again.is_none()
            && replacing.look.is_empty()
            && replacing.waiting.is_empty();
        let mark = all && !replacing.marked && !change.says_anything();
        if mark {
            change.meta(PLACED, &configured.homes.print);
        } else if !change.says_anything() {
            self.tick();
            return Ok(());
        }
        change.commit()?;
        core.replacing.marked |= mark;
        Ok(())
    }

    /// Takes the next step of a file, or notes what it waits for.
    fn replace_one(&self, change: &mut Change<'_>, configured: &Configured, file: FileId) -> FsResult<()> {
        let known = change.core.replacing.forget(file);
        let Some(object) = change.object_or_none(file)? else { return Ok(()) };
        let Some(set) = object.replicas.as_ref().filter(|_| object.live_links().next().is_some()) else {
            return Ok(());
        };
        let set_at = self.set_known(change.core, set.stamp, known.map(|k| k.set));
        let mut waiting = Waiting {
            why: Unplaced::NoRule,
            rule: None,
            bytes: object.size(),
            written_ms: object.head().map_or(0, |head| head.stamp.millis()),
            set: (set.stamp, set_at),
            turn: None,
        };
        let local = change.local(file)?;
        let rule = match self.wanted_for(configured, &object, local.as_ref())? {
            Wanted::By(rule) => rule,
            Wanted::Later => return Ok(()),
            Wanted::NoRule => {
                if object.kind.as_ref().is_some_and(|kind| kind.is_file()) && !set.value.is_empty() {
                    change.core.replacing.waiting.insert(file, waiting);
                }
                return Ok(());
            }
        };
        waiting.rule = Some(rule);
        let Some(rule) = configured.config.placement.get(rule) else { return Ok(()) };
        let mut wanted = with_stand_ins(&object, &rule.bricks, &rule.stand_ins);
        if rule.joining.is_some() {
            wanted.splice(0..0, set.value.iter().copied());
        }
        let (origin, acks) = (set.stamp.origin, &change.core.acks);
        let has_heard = |brick: BrickId| {
            let said = |seq: u64| acks.get(&brick).is_some_and(|k| k.ack.heads.get(&origin) >= Some(&seq));
            brick == self.me || set_at.is_some_and(said)
        };
        let new = match step(&object, &wanted, has_heard) {
            Step::Done if rule.joining.is_some() => {
                // They are in the set: what is left is that they get it.
                if let Some(obstacle) = lacking(&object, &rule.bricks) {
                    waiting.why = Unplaced::Not(obstacle);
                    change.core.replacing.waiting.insert(file, waiting);
                }
                return Ok(());
            }
            Step::Done => return Ok(()),
            // It is said once more as it is: that can be heard of.
            Step::Wait(Obstacle::NotHeard) if set_at.is_none() && is_untold(change.core, origin) => {
                set.value.clone()
            }
            Step::Wait(obstacle) => {
                waiting.why = Unplaced::Not(obstacle);
                if obstacle == Obstacle::NotHeard {
                    change.core.replacing.unheard.insert(file);
                }
                change.core.replacing.waiting.insert(file, waiting);
                return Ok(());
            }
            Step::Add(set) | Step::Drop(set) => set,
        };
        let now = self.clock.passed();
        let due = rank(&object, &wanted, self.me).map(|before| {
            let wait = FOR_EACH_BEFORE.saturating_mul(u32::try_from(before).unwrap_or(u32::MAX));
            // A turn that was set for this set of the file stays.
            known.filter(|k| k.set.0 == set.stamp).and_then(|k| k.turn).unwrap_or(now.saturating_add(wait))
        });
        match due {
            _ if !self.is_led() => waiting.why = Unplaced::NotLed,
            Some(due) if due <= now => {
                change.emit(file, Op::Replicas(new))?;
                return Ok(());
            }
            Some(due) => {
                (waiting.why, waiting.turn) = (Unplaced::AnothersTurn, Some(due));
                change.core.replacing.turns.insert((due, file));
            }
            None => waiting.why = Unplaced::AnothersTurn,
        }
        change.core.replacing.waiting.insert(file, waiting);
        Ok(())
    }

    /// How far the journal that set a file's replica set was known when that was first seen: who has heard of so much has heard
    /// of the set. A state that came by a comparison may show more than was heard; then it is not known yet.
    fn set_known(&self, core: &Core, stamp: Stamp, before: Option<(Stamp, Option<u64>)>) -> Option<u64> {
        let known = before.filter(|(old, _)| *old == stamp).and_then(|(_, seq)| seq);
        let covers = core.times.get(&stamp.origin).is_some_and(|time| *time >= stamp.time);
        known.or_else(|| core.heads.get(&stamp.origin).copied().filter(|_| covers))
    }

    /// Which of the rules of a file's home goes for it.
    pub(super) fn wanted_for(
        &self,
        configured: &Configured,
        object: &Object,
        local: Option<&Local>,
    ) -> FsResult<Wanted> {
        let set = object.replica_set();
        if let Some(rule) = configured.rule_without_path(set) {
            return Ok(rule.map_or(Wanted::NoRule, Wanted::By));
        }
        // It is looked at again when it has its place.
        let Some(place) = local.and_then(Local::place) else { return Ok(Wanted::Later) };
        let mut path = match self.path_of(place.parent) {
            Err(Errno::NOENT) => return Ok(Wanted::Later),
            path => path?,
        };
        path.extend_from_slice(&place.name);
        let of_home = set.first().and_then(|home| configured.homes.of.get(home));
        for n in of_home.into_iter().flatten() {
            let globs = configured.globs.get(*n).and_then(Option::as_ref);
            if globs.is_none_or(|globs| globs.is_match(OsStr::from_bytes(&path))) {
                return Ok(Wanted::By(*n));
            }
        }
        Ok(Wanted::NoRule)
    }
}

/// Whether nobody has more of a journal than is known here, and whose it was began a new one: what it said beside was lost, and is only
/// to be seen in objects.
fn is_untold(core: &Core, origin: Incarnation) -> bool {
    let ours = core.heads.get(&origin);
    core.acks.values().all(|known| known.ack.incarnation != origin && known.ack.heads.get(&origin) <= ours)
}

/// What the rules say of a file.
pub(super) enum Wanted {
    /// This one is the one to follow.
    By(usize),
    /// It has no place here yet, by which that could be told.
    Later,
    /// Nothing.
    NoRule,
}

/// How far files are from being as the rules want.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placing {
    /// The rules, by their name in the API, by which all files were looked at.
    pub looked_by: Option<String>,
    /// Files that are not as these want, by what they wait for.
    pub unplaced: BTreeMap<Unplaced, Count>,
    /// The same of each move under way: those that rest, and how many others there are: those that are being written, or were
    /// since this step of the move began. These are for the next heals; a move would never end otherwise where people work.
    pub moves: BTreeMap<String, (Count, u64)>,
}

impl Placing {
    /// All of them.
    pub fn total(&self) -> Count {
        let mut sum = Count::default();
        for count in self.unplaced.values() {
            sum.files += count.files;
            sum.bytes = sum.bytes.saturating_add(count.bytes);
        }
        sum
    }
}

impl Configured {
    /// How far it is, for the reports.
    pub(super) fn placing(&self, replacing: &Replacing) -> Placing {
        let current =
            replacing.rules.is_some() && replacing.rules == self.rules() && replacing.pass == Pass::Done;
        let mut unplaced: BTreeMap<Unplaced, Count> = BTreeMap::new();
        let names = self.config.placement.iter().filter_map(|rule| rule.migration.clone());
        let mut moves: BTreeMap<String, (Count, u64)> =
            names.filter(|_| current).map(|name| (name, Default::default())).collect();
        for waiting in replacing.waiting.values().filter(|_| current) {
            let count = unplaced.entry(waiting.why).or_default();
            count.files += 1;
            count.bytes = count.bytes.saturating_add(waiting.bytes);
            let rule = waiting.rule.and_then(|n| self.config.placement.get(n));
            let Some(of) = rule.and_then(|rule| moves.get_mut(rule.migration.as_deref()?)) else { continue };
            let is_new = replacing.since_ms.is_some_and(|since| waiting.written_ms > since);
            if is_new || matches!(waiting.why, Unplaced::Not(Obstacle::BeingWritten | Obstacle::InConflict)) {
                of.1 += 1;
            } else {
                of.0.files += 1;
                of.0.bytes = of.0.bytes.saturating_add(waiting.bytes);
            }
        }
        let looked_by = self.config.upkeep.rules.clone().filter(|_| current);
        Placing { looked_by, unplaced, moves }
    }
}
