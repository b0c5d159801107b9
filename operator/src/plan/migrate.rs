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
mod tests;
