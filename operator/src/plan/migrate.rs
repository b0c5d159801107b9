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

mod group;
mod steps;
mod views;

use std::time::Duration;

use jiff::Timestamp;
use nearbrick_crds::paths::glob;
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{HotGroup, MigrationMode, MigrationPhase};

pub use self::group::Group;
pub use self::views::{BrickView, HALF_LIFE, Input, MoveView, Said, Settings, Todo, Wanted};

/// Moves of one volume under way at a time.
const AT_ONCE: usize = 4;
/// Proposals that are open at a time.
const PROPOSED: usize = 16;
/// Ended moves that are kept, unless their cool-down still counts.
pub const KEPT: usize = 20;
/// Bytes that are left free at the brick that joins: one part of so many, at least.
const RESERVE: u64 = 20;

impl Input<'_> {
    /// The moves that the use of files calls for now, the most used first.
    pub fn wanted(&self) -> Vec<Wanted> {
        let mut all: Vec<(f64, Wanted)> = Vec::new();
        for to in self.bricks.iter().filter(|b| b.online && b.stays) {
            for group in to.hottest {
                let uses = to.uses(&Group::of(group));
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
        let mut seen: Vec<Group> = Vec::new();
        all.into_iter()
            .filter(|(_, wanted)| {
                let first = !seen.iter().any(|group| group.shares(&wanted.group));
                seen.push(wanted.group.clone());
                first
            })
            .map(|(_, wanted)| wanted)
            .collect()
    }

    fn to_brick(&self, to: &BrickView<'_>, group: &HotGroup, uses: f64) -> Option<Wanted> {
        let all = Group::of(group);
        let (from, bricks) = self.who_leaves(to.name, None, &group.bricks, Some(&all));
        let colder = |name: &String| self.brick(name).map_or(0.0, |b| b.uses(&all));
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
            group: all,
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
        group: Option<&Group>,
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
        let uses = |name: &str| self.brick(name).zip(group).map_or(0.0, |(brick, group)| brick.uses(group));
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
                // What is used together may be told apart a little otherwise by now: it is the same work.
                let group = Group::of_globs(&view.paths);
                let called = wanted
                    .iter()
                    .find(|w| w.to == view.to && group.as_ref().is_some_and(|g| g.shares(&w.group)));
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
                steps::go_on(input, view)
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
            (!m.phase().is_ended() || cools(m))
                && Group::of_globs(&m.paths).is_some_and(|g| g.overlaps(&w.group))
        });
        if !taken && open < PROPOSED && todo.make.iter().all(|other| !other.group.overlaps(&w.group)) {
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
    let group = Group::of_globs(&view.paths);
    let there = called.map_or_else(|| present(view), |_| Vec::new());
    if called.is_none() && there.is_empty() {
        let line = "it is not known which bricks hold these files: say in `from` which one gives up its copy";
        return refused(view, "UnknownHolders", line.to_owned(), now);
    }
    let (from, bricks) = match called {
        Some(w) => (w.from.clone(), w.bricks.clone()),
        None => input.who_leaves(&view.to, view.from.as_deref(), &there, group.as_ref()),
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
    let known = to.hottest.iter().find(|hot| group.as_ref().is_some_and(|g| *g == Group::of(hot)));
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
    let overlaps = |m: &&&MoveView| match (Group::of_globs(&m.paths), &group) {
        (Some(a), Some(b)) => a.overlaps(b),
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

#[cfg(test)]
mod tests;
