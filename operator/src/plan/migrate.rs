//! When copies of related files move towards the workstation where they are used, and how far each move is.
//!
//! A move adds one brick to the replica set of a group and, when that brick holds and has verified all, drops the one where the group
//! is used least. The agents carry it out file by file (`core/replace` in the brick-agent): at no moment are there fewer
//! protected copies than before. This only says which rules they follow.
//!
//! Invariants:
//! - all that is decided rests on the objects and the reports: an operator that starts anew goes on where the last one was;
//! - a group moves only where another brick's use is `factor` times that of the brick that gives up its copy, for the whole of
//!   `dwell`; then it stays for `cool_down`. So who goes back and forth moves nothing;
//! - a move whose brick is gone or to leave ends before anything is dropped.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use nearbrick_crds::paths::{directory_of, glob, glob_of};
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::quantity;
use nearbrick_crds::{HotGroup, Joining, Migration, MigrationMode, MigrationPhase, Move, ReplicaSet};

/// After this time a use counts half: as agents count them (`core/heat`).
pub const HALF_LIFE: Duration = Duration::from_secs(4 * 3600);
/// Groups that an agent reports at most.
const REPORTED: usize = 16;
/// Moves of one volume under way at a time.
const AT_ONCE: usize = 4;
/// Proposals that are open at a time.
const PROPOSED: usize = 16;
/// Ended moves that are kept, unless their cool-down still counts.
pub const KEPT: usize = 20;
/// Bytes that are left free at the brick that joins: one part of so many, at least.
const RESERVE: u64 = 20;

/// When moves are made.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Whether they are made, proposed, or neither.
    pub mode: MigrationMode,
    /// How many times as much a group must be used there.
    pub factor: f64,
    /// Uses that a move needs at least.
    pub min_uses: f64,
    /// For how long.
    pub dwell: Duration,
    /// For how long a group stays.
    pub cool_down: Duration,
    /// Bytes that begin to move within an hour.
    pub bytes_per_hour: u64,
}

impl Settings {
    /// As the volume says; what it does not say has a default.
    pub fn of(migration: Option<&Migration>) -> Self {
        let none = Migration::default();
        let m = migration.unwrap_or(&none);
        let time = |text: &Option<String>, default: u64| {
            let parsed = text.as_deref().and_then(|t| t.parse::<kube::core::Duration>().ok());
            parsed.map_or(Duration::from_secs(default), Duration::from)
        };
        Settings {
            mode: m.mode,
            factor: f64::from(m.factor.unwrap_or(3)),
            min_uses: f64::from(m.min_uses.unwrap_or(10)),
            dwell: time(&m.dwell, 1800),
            cool_down: time(&m.cool_down, 3600),
            bytes_per_hour: m.bytes_per_hour.as_deref().and_then(quantity::bytes).unwrap_or(50 << 30),
        }
    }
}

/// A brick of the volume.
#[derive(Clone, Debug)]
pub struct BrickView<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its node.
    pub node: &'a str,
    /// Whether its agent reports.
    pub online: bool,
    /// Whether it is to go on holding files, and may be chosen.
    pub stays: bool,
    /// Free bytes and all, of its file system.
    pub space: Option<(u64, u64)>,
    /// What is used there, hottest first; and how old that report is.
    pub hottest: &'a [HotGroup],
    /// See there.
    pub age: Duration,
    /// The rules by which it has looked at all files.
    pub looked_by: Option<&'a str>,
    /// What it has left to do.
    pub moves: &'a [Move],
}

impl BrickView<'_> {
    /// What the uses of a group are worth here now. Of a group that is not among those that are reported no more is
    /// known than that it is worth less than these.
    fn uses(&self, path: &str, below: bool) -> f64 {
        let found = self.hottest.iter().find(|g| g.path == path && g.below == below);
        let last = self.hottest.last().filter(|_| self.hottest.len() >= REPORTED);
        let worth = found.or(last).map_or(0.0, |g| g.uses() as f64);
        worth * (-self.age.as_secs_f64() / HALF_LIFE.as_secs_f64()).exp2()
    }
}

/// A move, as its object says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MoveView {
    /// Its name.
    pub name: String,
    /// Whether the operator made it, and nobody changed it since.
    pub automatic: bool,
    /// The files.
    pub paths: Vec<String>,
    /// The brick that joins.
    pub to: String,
    /// The brick that is to leave, if somebody said so.
    pub from: Option<String>,
    /// Nothing is to be done.
    pub dry_run: bool,
    /// How far it is.
    pub phase: Option<MigrationPhase>,
    /// When it was made.
    pub made: Timestamp,
    /// When files began to move.
    pub started: Option<Timestamp>,
    /// When it was done or refused.
    pub completed: Option<Timestamp>,
    /// The bricks that hold the files in the end.
    pub bricks: Vec<String>,
    /// The brick that was chosen to leave.
    pub leaves: Option<String>,
    /// Files and bytes of the group.
    pub group: Option<(u64, u64)>,
    /// Who uses it, as it was when that was decided.
    pub evidence: Option<String>,
}

impl MoveView {
    fn phase(&self) -> MigrationPhase {
        self.phase.unwrap_or(MigrationPhase::Proposed)
    }
}

/// A move that the use of the files calls for, or that a person wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The directory, and whether all below it moves.
    pub group: (String, bool),
    /// The brick that joins.
    pub to: String,
    /// The brick that leaves.
    pub from: Option<String>,
    /// The bricks that hold the files in the end: the one that uses them most first.
    pub bricks: Vec<String>,
    /// Files and bytes.
    pub size: (u64, u64),
    /// Who uses it.
    pub evidence: String,
}

/// What is known of a volume.
pub struct Input<'a> {
    /// When moves are made.
    pub settings: Settings,
    /// Its bricks.
    pub bricks: Vec<BrickView<'a>>,
    /// Explicit groups of nodes.
    pub sets: &'a [ReplicaSet],
    /// The name of the rules that agents follow.
    pub rules: String,
    /// How far the move of this name is in these rules; none if it is not in them.
    pub in_rules: BTreeMap<&'a str, Option<Joining>>,
    /// Copies of each file.
    pub replicas: usize,
    /// The operator's clock.
    pub now: Timestamp,
}

/// What an object is to say.
#[derive(Clone, Debug, PartialEq)]
pub struct Said {
    /// What is known of it now.
    pub view: MoveView,
    /// What it waits for, or why.
    pub message: String,
    /// A word for that.
    pub reason: &'static str,
    /// Files and bytes that this step has left.
    pub left: Option<(u64, u64)>,
    /// When it changes by time alone.
    pub again: Option<Duration>,
}

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Todo {
    /// Moves to propose.
    pub make: Vec<Wanted>,
    /// Objects that go: nothing calls for them any more, or they are old.
    pub remove: Vec<String>,
    /// What the others say.
    pub say: Vec<(String, Said)>,
}

impl Input<'_> {
    fn brick(&self, name: &str) -> Option<&BrickView<'_>> {
        self.bricks.iter().find(|b| b.name == name)
    }

    /// The moves that the use of files calls for now, the most used first.
    pub fn wanted(&self) -> Vec<Wanted> {
        let mut all: Vec<(f64, Wanted)> = Vec::new();
        for to in self.bricks.iter().filter(|b| b.online && b.stays) {
            for group in to.hottest {
                let uses = to.uses(&group.path, group.below);
                let mostly_away = group.away_files > 0 && group.away_files.saturating_mul(2) >= group.files;
                if !mostly_away || uses < self.settings.min_uses || group.bricks.iter().any(|b| b == to.name)
                {
                    continue;
                }
                let Some(wanted) = self.to_brick(to, group, uses) else { continue };
                all.push((uses, wanted));
            }
        }
        all.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| (&x.group, &x.to).cmp(&(&y.group, &y.to))));
        // One brick joins at a time: the hottest.
        let mut seen: Vec<(String, bool)> = Vec::new();
        all.into_iter()
            .filter(|(_, wanted)| {
                let first = !seen.contains(&wanted.group);
                seen.push(wanted.group.clone());
                first
            })
            .map(|(_, wanted)| wanted)
            .collect()
    }

    fn to_brick(&self, to: &BrickView<'_>, group: &HotGroup, uses: f64) -> Option<Wanted> {
        let (from, bricks) = self.who_leaves(to.name, None, &group.bricks, (&group.path, group.below));
        let colder = |name: &String| self.brick(name).map_or(0.0, |b| b.uses(&group.path, group.below));
        let coldest = from.as_ref().map_or(0.0, colder);
        if uses < self.settings.factor * coldest {
            return None;
        }
        let mut evidence = format!("opened {} there", times(uses));
        if group.remote > 0 {
            evidence
                .push_str(&format!(", {} of these without the data", group.remote.min(uses.round() as u64)));
        }
        for name in &group.bricks {
            evidence.push_str(&format!(", {} at {name}", times(colder(name))));
        }
        Some(Wanted {
            group: (group.path.clone(), group.below),
            to: to.name.to_owned(),
            from,
            bricks,
            size: (group.away_files, group.away_bytes),
            evidence,
        })
    }

    /// Which of the present bricks leaves when `to` joins, and who is left, the one that uses the group most first.
    fn who_leaves(
        &self,
        to: &str,
        said: Option<&str>,
        present: &[String],
        (path, below): (&str, bool),
    ) -> (Option<String>, Vec<String>) {
        let node = |name: &str| self.brick(name).map_or("", |b| b.node);
        // A group of nodes that a person named for all paths says who holds what is at home at `to`.
        if let Some(set) =
            self.sets.iter().find(|s| s.paths.is_empty() && s.nodes.iter().any(|n| n == node(to)))
        {
            let of = |n: &String| self.bricks.iter().find(|b| b.node == n).map(|b| b.name.to_owned());
            let others = set.nodes.iter().filter(|n| *n != node(to)).filter_map(of);
            let bricks: Vec<String> = std::iter::once(to.to_owned()).chain(others).collect();
            return (present.iter().find(|b| !bricks.contains(b)).cloned(), bricks);
        }
        let uses = |name: &str| self.brick(name).map_or(0.0, |b| b.uses(path, below));
        let stays = |name: &str| self.brick(name).is_some_and(|b| b.stays);
        let free = |name: &str| self.brick(name).and_then(|b| b.space).map_or(0, |(free, _)| free);
        let mut left: Vec<String> = present.iter().filter(|b| *b != to).cloned().collect();
        // Who is to leave anyway first, then where it is used least, then where space is short, and the home last.
        let at = |name: &String| present.iter().position(|b| b == name);
        left.sort_by(|a, b| {
            let order = |x: &String| (stays(x), uses(x), free(x));
            let ((sa, ua, fa), (sb, ub, fb)) = (order(a), order(b));
            sa.cmp(&sb).then(ua.total_cmp(&ub)).then(fa.cmp(&fb)).then(at(b).cmp(&at(a)))
        });
        let from = match said {
            Some(said) => Some(said.to_owned()),
            None => left.first().filter(|_| left.len() >= self.replicas).cloned(),
        };
        left.retain(|b| Some(b) != from.as_ref());
        left.reverse();
        left.truncate(self.replicas.saturating_sub(1));
        let at = left.iter().position(|b| uses(b) < uses(to)).unwrap_or(left.len());
        left.insert(at, to.to_owned());
        (from, left)
    }
}

fn times(uses: f64) -> String {
    match uses.round() as u64 {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

/// Whether one of these directories lies in the other.
fn overlap(a: &(String, bool), b: &(String, bool)) -> bool {
    let within = |inner: &str, outer: &(String, bool)| {
        inner == outer.0
            || outer.1
                && (outer.0.is_empty()
                    || inner.strip_prefix(&outer.0).is_some_and(|rest| rest.starts_with('/')))
    };
    within(&a.0, b) || within(&b.0, a)
}

fn group_of(view: &MoveView) -> Option<(String, bool)> {
    match view.paths.as_slice() {
        [one] => directory_of(one),
        _ => None,
    }
}

/// Decides about all moves of a volume. `present` says, for a move that a person wants, which bricks hold its files.
pub fn plan(input: &Input<'_>, moves: &[MoveView], present: impl Fn(&MoveView) -> Vec<String>) -> Todo {
    let wanted = if input.settings.mode == MigrationMode::Off { Vec::new() } else { input.wanted() };
    let mut todo = Todo::default();
    let mut under_way: Vec<&MoveView> = moves.iter().filter(|m| m.phase().is_under_way()).collect();
    let hour_ago = input.now - jiff::SignedDuration::from_hours(1);
    let begun = moves.iter().filter(|m| m.started.is_some_and(|at| at > hour_ago));
    let mut begun: u64 = begun.filter_map(|m| m.group).fold(0, |sum, (_, bytes)| sum.saturating_add(bytes));

    let mut ordered: Vec<&MoveView> = moves.iter().collect();
    ordered.sort_by(|a, b| (a.made, &a.name).cmp(&(b.made, &b.name)));
    for view in &ordered {
        let said = match view.phase() {
            MigrationPhase::Proposed => {
                let called =
                    wanted.iter().find(|w| w.to == view.to && view.paths == [glob_of(&w.group.0, w.group.1)]);
                if view.automatic && called.is_none() {
                    todo.remove.push(view.name.clone());
                    continue;
                }
                let said = propose(input, view, called, &under_way, begun, &present);
                if said.view.phase == Some(MigrationPhase::Adding) {
                    under_way.push(view);
                    begun = begun.saturating_add(said.view.group.map_or(0, |(_, bytes)| bytes));
                }
                said
            }
            MigrationPhase::Adding | MigrationPhase::Verifying | MigrationPhase::Dropping => {
                go_on(input, view)
            }
            MigrationPhase::Done | MigrationPhase::Refused => continue,
        };
        todo.say.push((view.name.clone(), said));
    }
    let cools = |m: &MoveView| {
        m.phase().is_ended() && m.completed.is_none_or(|at| age(at, input.now) < input.settings.cool_down)
    };
    let mut open =
        ordered.iter().filter(|m| m.phase() == MigrationPhase::Proposed).count() - todo.remove.len();
    for w in wanted {
        let taken = moves.iter().filter(|m| !todo.remove.contains(&m.name)).any(|m| {
            (!m.phase().is_ended() || cools(m)) && group_of(m).is_some_and(|g| overlap(&g, &w.group))
        });
        if !taken && open < PROPOSED && todo.make.iter().all(|other| !overlap(&other.group, &w.group)) {
            open += 1;
            todo.make.push(w);
        }
    }
    let mut ended: Vec<&&MoveView> = ordered.iter().filter(|m| m.phase().is_ended() && !cools(m)).collect();
    ended.sort_by_key(|m| std::cmp::Reverse(m.completed));
    todo.remove.extend(ended.into_iter().skip(KEPT).map(|m| m.name.clone()));
    todo
}

fn age(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(at)).unwrap_or_default()
}

fn said(view: MoveView, reason: &'static str, message: String) -> Said {
    Said { view, message, reason, left: None, again: None }
}

fn refused(view: &MoveView, reason: &'static str, message: String, now: Timestamp) -> Said {
    let view = MoveView { phase: Some(MigrationPhase::Refused), completed: Some(now), ..view.clone() };
    said(view, reason, message)
}

/// What becomes of a move of which nothing was done.
fn propose(
    input: &Input<'_>,
    view: &MoveView,
    called: Option<&Wanted>,
    under_way: &[&MoveView],
    begun: u64,
    present: &impl Fn(&MoveView) -> Vec<String>,
) -> Said {
    let now = input.now;
    let Some(to) = input.brick(&view.to) else {
        let line = format!("the volume has no brick {}: name one that `kubectl get wsb` shows", view.to);
        return refused(view, "NoSuchBrick", line, now);
    };
    if !to.stays {
        let line = format!("{} is to leave, or its agent does not use it: name another brick", view.to);
        return refused(view, "NotUsable", line, now);
    }
    if let Some((text, error)) = view.paths.iter().find_map(|p| Some((p, glob(p).err()?))) {
        return refused(view, "InvalidGlob", format!("the path {text:?} cannot be read: {error}"), now);
    }
    let group = group_of(view);
    let there = called.map_or_else(|| present(view), |_| Vec::new());
    if called.is_none() && there.is_empty() {
        let line = "it is not known which bricks hold these files: say in `from` which one gives up its copy";
        return refused(view, "UnknownHolders", line.to_owned(), now);
    }
    let (from, bricks) = match called {
        Some(w) => (w.from.clone(), w.bricks.clone()),
        None => {
            let key = group.clone().unwrap_or_default();
            input.who_leaves(&view.to, view.from.as_deref(), &there, (&key.0, key.1))
        }
    };
    let names_paths =
        |node: &str| input.sets.iter().any(|s| !s.paths.is_empty() && s.nodes.iter().any(|n| n == node));
    let leaves = from.as_deref().and_then(|f| input.brick(f)).map(|b| b.node);
    if names_paths(to.node) || leaves.is_some_and(names_paths) {
        let line =
            "an entry of the volume's replicaSets with paths says where such files are: change it instead";
        return refused(view, "ExplicitReplicaSet", line.to_owned(), now);
    }
    let set_of = |node: &str| input.sets.iter().any(|s| s.nodes.iter().any(|n| n == node));
    if leaves.is_some_and(set_of) && !set_of(to.node) {
        let line = "an entry of the volume's replicaSets says where such files are, and none names this node";
        return refused(view, "ExplicitReplicaSet", line.to_owned(), now);
    }
    let known =
        to.hottest.iter().find(|g| group.as_ref().is_some_and(|(p, b)| *p == g.path && *b == g.below));
    let size = called.map(|w| w.size).or(known.map(|g| (g.away_files, g.away_bytes)));
    let (files, bytes) = size.unwrap_or_default();
    if let (Some((free, all)), true) = (to.space, size.is_some())
        && free.saturating_sub(all / RESERVE) < bytes
    {
        let line = format!(
            "{} does not fit: {} free of {}",
            human_bytes(bytes),
            human_bytes(free),
            human_bytes(all)
        );
        return refused(view, "NoSpace", line, now);
    }
    let view = MoveView {
        phase: Some(MigrationPhase::Proposed),
        leaves: from.clone(),
        bricks,
        group: size.or(view.group),
        evidence: called.map(|w| w.evidence.clone()).or_else(|| view.evidence.clone()),
        ..view.clone()
    };
    let to_be_done = format!(
        "{}{} to {}{}",
        if size.is_some() {
            format!("{} ({}) ", human_files(files), human_bytes(bytes))
        } else {
            String::new()
        },
        "would be copied",
        view.to,
        from.as_ref().map_or(String::new(), |f| format!(", and then given up at {f}"))
    );
    if view.dry_run {
        return said(view, "DryRun", format!("{to_be_done}; set dryRun: false to have it done"));
    }
    let wait = |line: String, reason, again| Said { again, ..said(view.clone(), reason, line) };
    if !to.online {
        return wait(format!("waits: the agent of {} is silent", view.to), "Waiting", None);
    }
    if view.automatic {
        let left = input.settings.dwell.saturating_sub(age(view.made, now));
        if !left.is_zero() {
            let line = format!("{to_be_done}, if it is used there for {} s more", left.as_secs().max(1));
            return wait(line, "Dwelling", Some(left));
        }
        if begun > 0 && begun.saturating_add(bytes) > input.settings.bytes_per_hour {
            let line = format!(
                "waits: {} of {} began to move within the last hour",
                human_bytes(begun),
                human_bytes(input.settings.bytes_per_hour)
            );
            return wait(line, "OverBudget", Some(Duration::from_secs(60)));
        }
    }
    let overlaps = |m: &&&MoveView| match (group_of(m), &group) {
        (Some(a), Some(b)) => overlap(&a, b),
        // Globs of a person: nothing can be told of them.
        _ => true,
    };
    if let Some(other) = under_way.iter().find(overlaps) {
        return wait(
            format!("waits for {}, which moves some of the same files", other.name),
            "Waiting",
            None,
        );
    }
    if under_way.len() >= AT_ONCE {
        return wait(format!("waits: {} others are under way", under_way.len()), "Waiting", None);
    }
    let line = format!("{} is to receive the files", view.to);
    said(MoveView { phase: Some(MigrationPhase::Adding), started: Some(now), ..view.clone() }, "Adding", line)
}

/// What becomes of a move under way.
fn go_on(input: &Input<'_>, view: &MoveView) -> Said {
    let phase = view.phase();
    let Some(to) = input.brick(&view.to).filter(|b| b.stays) else {
        if phase == MigrationPhase::Dropping {
            // The rules see to that: they always name bricks that stay.
            return done(input, view);
        }
        let line = format!("{} is gone, or is to leave; the files stay where they were", view.to);
        return refused(view, "NotUsable", line, input.now);
    };
    let wanted = match phase {
        MigrationPhase::Adding => Some(Joining::Adding),
        MigrationPhase::Verifying => Some(Joining::Verifying),
        _ => None,
    };
    let of = |b: &BrickView<'_>| b.moves.iter().find(|m| m.migration == view.name).cloned();
    let counted: Vec<Move> = input.bricks.iter().filter(|b| b.online).filter_map(of).collect();
    let files = counted.iter().map(|m| m.files).max().unwrap_or(0);
    let bytes = counted.iter().map(|m| m.bytes).max().unwrap_or(0);
    let busy = counted.iter().map(|m| m.busy).max().unwrap_or(0);
    let with_left = |s: Said| Said { left: Some((files, bytes)), ..s };
    let late: Vec<&str> = input
        .bricks
        .iter()
        .filter(|b| b.online && b.stays && b.looked_by != Some(input.rules.as_str()))
        .map(|b| b.name)
        .collect();
    if input.in_rules.get(view.name.as_str()) != Some(&wanted) {
        return said(view.clone(), phase.as_str(), "the rules are being written".to_owned());
    }
    if !to.online {
        return with_left(said(
            view.clone(),
            "Waiting",
            format!("waits: the agent of {} is silent", view.to),
        ));
    }
    if !late.is_empty() {
        let line = format!("{} has not looked at all files by these rules yet", late.join(", "));
        return with_left(said(view.clone(), phase.as_str(), line));
    }
    if files > 0 {
        let line = format!("{} ({}) left", human_files(files), human_bytes(bytes));
        return with_left(said(view.clone(), phase.as_str(), line));
    }
    let next = |phase, line: String| {
        let view = MoveView { phase: Some(phase), ..view.clone() };
        Said { left: Some((0, 0)), ..said(view, phase.as_str(), line) }
    };
    match phase {
        MigrationPhase::Adding => {
            next(MigrationPhase::Verifying, format!("{} has the files, and reads them once more", view.to))
        }
        MigrationPhase::Verifying => match of(to).and_then(|m| m.verified) {
            None => {
                with_left(said(view.clone(), "Verifying", format!("{} reads what it has once more", view.to)))
            }
            Some(found) if found.damaged > 0 => {
                let line = format!(
                    "{} at {} were damaged, and are copied again",
                    human_files(found.damaged),
                    view.to
                );
                next(MigrationPhase::Adding, line)
            }
            Some(found) => {
                let line = format!(
                    "{} ({}) are right at {}",
                    human_files(found.files),
                    human_bytes(found.bytes),
                    view.to
                );
                let said = next(MigrationPhase::Dropping, line);
                let group = Some((found.files, found.bytes)).filter(|_| view.group.is_none());
                Said { view: MoveView { group: view.group.or(group), ..said.view }, ..said }
            }
        },
        _ => {
            let said = done(input, view);
            let follow = format!("; {} that are being written follow when that is over", human_files(busy));
            Said { message: said.message + if busy > 0 { &follow } else { "" }, ..said }
        }
    }
}

fn done(input: &Input<'_>, view: &MoveView) -> Said {
    let (files, bytes) = view.group.unwrap_or_default();
    let gave_up = view.leaves.as_ref().map_or(String::new(), |from| format!(", given up at {from}"));
    let line = format!(
        "{} ({}) are at {}{gave_up}",
        human_files(files),
        human_bytes(bytes),
        view.bricks.join(" and ")
    );
    let view = MoveView { phase: Some(MigrationPhase::Done), completed: Some(input.now), ..view.clone() };
    Said { left: Some((0, 0)), ..said(view, "Moved", line) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use MigrationPhase::{Adding, Done, Dropping, Proposed, Refused, Verifying};
    use proptest::prelude::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + s).unwrap()
    }

    fn hot(path: &str, uses: u64, bricks: &[&str], away: u64) -> HotGroup {
        HotGroup {
            path: path.into(),
            below: true,
            remote: uses,
            files: 10,
            bytes: 1000,
            away_files: away,
            away_bytes: away * 100,
            bricks: bricks.iter().map(|b| (*b).to_string()).collect(),
            ..HotGroup::default()
        }
    }

    fn brick<'a>(name: &'a str, hottest: &'a [HotGroup]) -> BrickView<'a> {
        BrickView {
            name,
            node: name,
            online: true,
            stays: true,
            space: Some((1 << 30, 10 << 30)),
            hottest,
            age: Duration::ZERO,
            looked_by: Some("rules"),
            moves: &[],
        }
    }

    fn input<'a>(bricks: &[BrickView<'a>], now: i64) -> Input<'a> {
        let dwell = Some("5m".to_string());
        let migration = Migration { mode: MigrationMode::Automatic, dwell, ..Migration::default() };
        Input {
            settings: Settings::of(Some(&migration)),
            bricks: bricks.to_vec(),
            sets: &[],
            rules: "rules".into(),
            in_rules: BTreeMap::new(),
            replicas: 2,
            now: at(now),
        }
    }

    /// The object that the operator makes of what is wanted.
    fn made(wanted: &Wanted, name: &str, when: i64) -> MoveView {
        MoveView {
            name: name.into(),
            automatic: true,
            paths: vec![glob_of(&wanted.group.0, wanted.group.1)],
            to: wanted.to.clone(),
            made: at(when),
            ..MoveView::default()
        }
    }

    fn nobody(_: &MoveView) -> Vec<String> {
        Vec::new()
    }

    fn only(todo: &Todo) -> &Said {
        assert_eq!((todo.say.len(), todo.make.len(), todo.remove.len()), (1, 0, 0), "{todo:?}");
        &todo.say[0].1
    }

    #[test]
    fn a_group_follows_the_person_who_uses_it_and_no_other_group_does() {
        let (on_a, on_c) = (
            [hot("p1", 30, &["a", "b"], 0), hot("p2", 40, &["a", "b"], 0)],
            [hot("p1", 100, &["a", "b"], 10), hot("p2", 5, &["a", "b"], 10)],
        );
        let bricks = [brick("a", &on_a), brick("b", &[]), brick("c", &on_c)];
        let wanted = input(&bricks, 0).wanted();
        assert_eq!(wanted.len(), 1);
        let w = &wanted[0];
        assert_eq!((w.group.0.as_str(), w.to.as_str(), w.from.as_deref()), ("p1", "c", Some("b")));
        assert_eq!(w.bricks, ["c", "a"], "used most first, and the coldest leaves");
        assert!(w.evidence.contains("100 times") && w.evidence.contains("30 times at a"), "{}", w.evidence);
        // Where the person was before it has become cold, that one leaves.
        let on_b = [hot("p1", 60, &["a", "b"], 0)];
        let bricks = [brick("a", &[]), brick("b", &on_b), brick("c", &on_c)];
        assert_eq!(input(&bricks, 0).wanted()[0].bricks, ["c", "b"]);
    }

    #[test]
    fn nothing_is_wanted_without_use_by_a_factor_or_of_what_is_there() {
        let there = [hot("p", 100, &["a", "c"], 0)];
        let few = [hot("p", 9, &["a", "b"], 10)];
        let enough = [hot("p", 100, &["a", "b"], 10)];
        let also = [hot("p", 40, &["a", "b"], 0)];
        for (a, b, c, moves) in [
            (&[][..], &[][..], &there[..], false),
            (&[], &[], &few, false),
            (&[], &[], &enough, true),
            (&also, &[], &enough, true),
            // Both holders use it, the colder of them a third as much at most.
            (&also, &also, &enough, false),
        ] {
            let bricks = [brick("a", a), brick("b", b), brick("c", c)];
            assert_eq!(!input(&bricks, 0).wanted().is_empty(), moves, "{a:?} {b:?} {c:?}");
        }
        // What was used half a day ago is worth an eighth; a brick that is away, or leaves, gets nothing.
        for change in [
            |b: &mut BrickView<'_>| b.age = 3 * HALF_LIFE + HALF_LIFE,
            |b: &mut BrickView<'_>| b.online = false,
            |b: &mut BrickView<'_>| b.stays = false,
        ] {
            let mut bricks = [brick("a", &[]), brick("b", &[]), brick("c", &enough)];
            change(&mut bricks[2]);
            assert_eq!(input(&bricks, 0).wanted(), []);
        }
    }

    #[test]
    fn a_move_is_proposed_dwells_and_goes_through_its_phases() {
        let on_c = [hot("p", 100, &["a", "b"], 10)];
        let mut bricks = [brick("a", &[]), brick("b", &[]), brick("c", &on_c)];
        let todo = plan(&input(&bricks, 0), &[], nobody);
        assert_eq!((todo.make.len(), todo.say.len()), (1, 0));
        let mut view = made(&todo.make[0], "m", 0);
        let said = only(&plan(&input(&bricks, 100), std::slice::from_ref(&view), nobody)).clone();
        assert_eq!(
            (said.view.phase, said.reason, said.again),
            (Some(Proposed), "Dwelling", Some(Duration::from_secs(200)))
        );
        let said = only(&plan(&input(&bricks, 300), std::slice::from_ref(&view), nobody)).clone();
        assert_eq!((said.view.phase, said.view.started), (Some(Adding), Some(at(300))));
        assert_eq!(
            (said.view.bricks.clone(), said.view.group),
            (vec!["c".to_string(), "a".into()], Some((10, 1000)))
        );
        view = said.view;

        // Until the rules have it, and all have looked by them, and nothing is left, it stays.
        let lacks = [Move { migration: "m".into(), files: 3, bytes: 30, ..Move::default() }];
        let step = |view: &MoveView, bricks: &[BrickView<'_>], joining: Option<Option<Joining>>| {
            let mut input = input(bricks, 400);
            input.in_rules.extend(joining.map(|j| ("m", j)));
            only(&plan(&input, std::slice::from_ref(view), nobody)).clone()
        };
        let adding = Some(Some(Joining::Adding));
        assert_eq!(step(&view, &bricks, None).view.phase, Some(Adding));
        bricks[0].looked_by = Some("older");
        assert!(step(&view, &bricks, adding).message.contains("a has not looked"));
        // One that is away holds nobody up: files of which it alone has the newest are left at the others.
        bricks[0].online = false;
        assert_eq!(step(&view, &bricks, adding).view.phase, Some(Verifying));
        bricks[0] = brick("a", &[]);
        bricks[1].moves = &lacks;
        let said = step(&view, &bricks, adding);
        assert_eq!((said.view.phase, said.left), (Some(Adding), Some((3, 30))));
        bricks[1].moves = &[];
        view = step(&view, &bricks, adding).view;
        assert_eq!(view.phase, Some(Verifying));

        let verifying = Some(Some(Joining::Verifying));
        assert_eq!(step(&view, &bricks, adding).view.phase, Some(Verifying), "the rules are those before");
        assert_eq!(step(&view, &bricks, verifying).view.phase, Some(Verifying), "nothing was read yet");
        let read = |damaged| {
            let verified = nearbrick_crds::Verified { files: 10, bytes: 1000, damaged, left: 0 };
            [Move { migration: "m".into(), verified: Some(verified), ..Move::default() }]
        };
        let (damaged, right) = (read(1), read(0));
        bricks[2].moves = &damaged;
        assert_eq!(step(&view, &bricks, verifying).view.phase, Some(Adding), "it is copied again");
        bricks[2].moves = &right;
        view = step(&view, &bricks, verifying).view;
        assert_eq!(view.phase, Some(Dropping));
        let busy = [Move { migration: "m".into(), busy: 2, ..Move::default() }];
        bricks[1].moves = &busy;
        let said = step(&view, &bricks, Some(None));
        assert_eq!((said.view.phase, said.view.completed), (Some(Done), Some(at(400))));
        assert!(
            said.message.contains("are at c and a, given up at b; 2 files that are being written"),
            "{}",
            said.message
        );
    }

    #[test]
    fn what_nothing_calls_for_any_more_is_withdrawn_and_a_group_that_moved_stays_for_a_while() {
        let on_c = [hot("p", 100, &["a", "b"], 10)];
        let bricks = [brick("a", &[]), brick("b", &[]), brick("c", &on_c)];
        let wanted = input(&bricks, 0).wanted().remove(0);
        let view = made(&wanted, "m", 0);
        let cold = [brick("a", &[]), brick("b", &[]), brick("c", &[])];
        assert_eq!(plan(&input(&cold, 10), std::slice::from_ref(&view), nobody).remove, ["m"]);
        // A person has taken it over.
        let theirs = MoveView { automatic: false, ..view.clone() };
        let todo = plan(&input(&cold, 10), &[theirs], |_| vec!["a".into(), "b".into()]);
        assert_eq!(only(&todo).view.phase, Some(Adding));
        for phase in [Done, Refused] {
            let ended = MoveView { phase: Some(phase), completed: Some(at(0)), ..view.clone() };
            for (now, again) in [(3599, false), (3601, true)] {
                let todo = plan(&input(&bricks, now), std::slice::from_ref(&ended), nobody);
                assert_eq!(!todo.make.is_empty(), again, "{phase:?} {now}");
            }
        }
        // Nor is a directory within it, or the one around it, proposed meanwhile.
        let inner =
            [hot("p/q", 100, &["a", "b"], 10), hot("pq", 50, &["a", "b"], 10), hot("", 40, &["a", "b"], 10)];
        let bricks = [brick("a", &[]), brick("b", &[]), brick("c", &inner)];
        let todo = plan(&input(&bricks, 10), &[MoveView { phase: Some(Adding), ..view }], nobody);
        assert_eq!(todo.make.iter().map(|w| w.group.0.as_str()).collect::<Vec<_>>(), ["pq"]);
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_the_reason_and_a_budget_is_waited_for() {
        let on_c = [hot("p", 100, &["a", "b"], 10)];
        let base = [brick("a", &[]), brick("b", &[]), brick("c", &on_c)];
        let view = made(&input(&base, 0).wanted()[0], "m", 0);
        let go = |bricks: &[BrickView<'_>], sets: &[ReplicaSet], view: &MoveView| {
            let of = |b: &BrickView<'_>| (b.online, b.stays, b.space);
            let mut list = base.to_vec();
            list.iter_mut().zip(bricks).for_each(|(to, from)| (to.online, to.stays, to.space) = of(from));
            let input = Input { sets, ..input(&list, 300) };
            plan(&input, std::slice::from_ref(view), |_| vec!["a".into(), "b".into()]).say.remove(0).1
        };
        let set = |nodes: &[&str], paths: &[&str]| ReplicaSet {
            nodes: nodes.iter().map(|n| (*n).to_string()).collect(),
            paths: paths.iter().map(|p| (*p).to_string()).collect(),
        };
        let mut full = base.to_vec();
        full[2].space = Some((600 << 20, 10 << 30));
        assert_eq!(go(&base, &[], &view).view.phase, Some(Adding));
        full[2].space = Some((100, 10 << 30));
        assert_eq!(go(&full, &[], &view).reason, "NoSpace");
        let person = MoveView { automatic: false, ..view.clone() };
        for (wrong, reason) in [
            (MoveView { to: "z".into(), ..person.clone() }, "NoSuchBrick"),
            (MoveView { paths: vec!["a[".into()], ..person.clone() }, "InvalidGlob"),
            (MoveView { dry_run: true, ..person.clone() }, "DryRun"),
        ] {
            let said = go(&base, &[], &wrong);
            assert_eq!(said.reason, reason, "{said:?}");
        }
        assert_eq!(go(&base, &[set(&["a", "b"], &[])], &view).reason, "ExplicitReplicaSet");
        assert_eq!(go(&base, &[set(&["a", "c"], &["x/**"])], &view).reason, "ExplicitReplicaSet");
        // Hub and spoke: the group of the node that joins says who holds it then.
        let spokes = [set(&["a", "b"], &[]), set(&["c", "b"], &[])];
        assert_eq!(go(&base, &spokes, &view).view.bricks, ["c", "b"]);
        let unknown =
            plan(&input(&base, 300), &[MoveView { to: "a".into(), ..person }], nobody).say.remove(0).1;
        assert_eq!(unknown.reason, "UnknownHolders");
        // Within an hour so many bytes and no more, but one move at least.
        let mut tight = input(&base, 300);
        tight.settings.bytes_per_hour = 1500;
        let earlier = MoveView {
            name: "e".into(),
            paths: vec!["other/**".into()],
            phase: Some(Done),
            started: Some(at(0)),
            completed: Some(at(1)),
            group: Some((1, 600)),
            ..MoveView::default()
        };
        let said = plan(&tight, &[earlier.clone(), view.clone()], nobody).say.remove(0).1;
        assert_eq!((said.reason, said.view.phase), ("OverBudget", Some(Proposed)));
        tight.now = at(3601);
        assert_eq!(plan(&tight, &[earlier, view], nobody).say.remove(0).1.view.phase, Some(Adding));
    }

    #[test]
    fn a_brick_that_leaves_ends_a_move_before_anything_is_dropped() {
        let on_c = [hot("p", 100, &["a", "b"], 10)];
        let mut bricks = [brick("a", &[]), brick("b", &[]), brick("c", &on_c)];
        let view = made(&input(&bricks, 0).wanted()[0], "m", 0);
        bricks[2].stays = false;
        for (phase, then) in [(Adding, Refused), (Verifying, Refused), (Dropping, Done)] {
            let view = MoveView { phase: Some(phase), ..view.clone() };
            assert_eq!(only(&plan(&input(&bricks, 400), &[view], nobody)).view.phase, Some(then));
        }
    }

    proptest! {
        #[test]
        fn who_holds_it_in_the_end_are_as_many_as_before_and_one_of_them_did(
            uses in prop::collection::vec(0u64..200, 5), set in prop::collection::btree_set(0usize..4, 1..4), replicas in 1usize..4,
            stays in prop::collection::vec(any::<bool>(), 4),
        ) {
            let names = ["a", "b", "c", "d", "to"];
            let present: Vec<&str> = set.iter().map(|n| names[*n]).collect();
            let lists: Vec<[HotGroup; 1]> =
                uses.iter().enumerate().map(|(n, u)| [hot("p", *u, &present, if n == 4 { 10 } else { 0 })]).collect();
            let mut bricks: Vec<BrickView<'_>> = names.iter().zip(&lists).map(|(n, l)| brick(n, l)).collect();
            bricks.iter_mut().zip(&stays).for_each(|(b, s)| b.stays = *s);
            let mut input = input(&bricks, 0);
            input.replicas = replicas;
            for w in input.wanted().iter().filter(|w| w.to == "to") {
                prop_assert!(w.bricks.contains(&"to".to_string()));
                prop_assert_eq!(w.bricks.len(), replicas.min(present.len() + 1));
                prop_assert!(w.bricks.iter().filter(|b| *b != "to").all(|b| present.contains(&b.as_str())));
                // Nobody who stays and uses it more than the one that leaves had to leave.
                prop_assert!(w.from.as_ref().is_none_or(|f| !w.bricks.contains(f) && present.contains(&f.as_str())));
                let least = w.from.as_ref().map_or(0.0, |f| input.brick(f).unwrap().uses("p", true));
                prop_assert!(uses[4] as f64 >= 3.0 * least && uses[4] >= 10);
            }
        }
    }
}
