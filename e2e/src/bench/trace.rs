//! `cargo lab bench migration`: weeks of people in a lab, simulated in seconds, under the operator's own decisions (its `plan::migrate`) and
//! the agents' own counts (`core/heat`), and under two others to compare with: copies never move, and copies move at the first touch.
//!
//! The people are synthetic: most sit at their own workstation, some move to another for weeks, some alternate between two by the day, and
//! some go back and forth between three every few minutes. What they work on is a project out of their own, mostly the same as before;
//! now and then they look into somebody else's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use nearbrick_core::FileId;
use nearbrick_core::heat::{Access, Heat};
use nearbrick_crds::jiff::Timestamp;
use nearbrick_crds::{HotGroup, Migration, MigrationMode, MigrationPhase};
use nearbrick_operator::plan::migrate::{BrickView, Input, MoveView, Settings, plan};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::report::{Report, Sample};
use crate::progress;

/// Options of the simulation.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Workstations, each with a person of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [5, 20, 60, 200])]
    pub workstations: Vec<usize>,
    /// Weeks.
    #[arg(long, default_value_t = 4)]
    pub weeks: u32,
    /// How many different labs of each size.
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
    /// The first lab's seed.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

/// Between two looks of the operator.
const STEP_S: i64 = 300;
const STEPS_OF_HOUR: i64 = 3600 / STEP_S;
const STEPS_OF_DAY: i64 = 24 * STEPS_OF_HOUR;
/// Copies of each file.
const REPLICAS: usize = 2;
/// Bytes per second of a heal.
const RATE: u64 = 50 << 20;
/// After so many steps without use a cached copy is thought to have been emptied.
const CACHED_FOR: i64 = 2 * STEPS_OF_DAY;

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Strategy {
    Never,
    FirstTouch,
    Ours(Settings),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    Stays,
    Moves,
    Alternates,
    BackAndForth,
}

struct Person {
    habit: Habit,
    home: usize,
    others: [usize; 2],
    at: usize,
    projects: Vec<usize>,
    project: usize,
}

struct Project {
    bytes: u64,
    set: Vec<usize>,
    /// To where, what the set is then, and when.
    moving: Option<(usize, Vec<usize>, i64)>,
    /// When a cached copy was last used, by workstation.
    cached: BTreeMap<usize, i64>,
    /// When anybody at a workstation of the set last used it there.
    used: BTreeMap<usize, i64>,
    /// The workstations that have what was written last.
    fresh: BTreeSet<usize>,
}

/// What a lab went through.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    reads: [u64; 3],
    writes: [u64; 2],
    unreachable: u64,
    moved_bytes: u64,
    moves: u64,
    moves_of_back_and_forth: u64,
    extra: u64,
    /// Steps in which a project's newest version is on fewer workstations than it asks for.
    at_risk: u64,
    person_days: u64,
    project_steps: u64,
}

impl Outcome {
    fn share(part: u64, of: u64) -> f64 {
        100.0 * part as f64 / of.max(1) as f64
    }
}

struct LabModel {
    rng: SmallRng,
    names: Vec<String>,
    people: Vec<Person>,
    projects: Vec<Project>,
    heat: Vec<Heat>,
    /// Workstations that are never switched off.
    always_on: Vec<bool>,
}

fn group(project: usize) -> FileId {
    let mut id = [0; 16];
    id[8..].copy_from_slice(&(project as u64).to_be_bytes());
    FileId(id)
}

fn project_of(id: FileId) -> usize {
    let mut number = [0; 8];
    number.copy_from_slice(&id.0[8..]);
    usize::try_from(u64::from_be_bytes(number)).unwrap_or(0)
}

impl LabModel {
    fn new(workstations: usize, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut projects = Vec::new();
        let mut people = Vec::new();
        for home in 0..workstations {
            let habit = match rng.random_range(0..100) {
                0..60 => Habit::Stays,
                60..75 => Habit::Moves,
                75..90 => Habit::Alternates,
                _ => Habit::BackAndForth,
            };
            let others = [0; 2].map(|_| (home + rng.random_range(1..workstations)) % workstations);
            let own: Vec<usize> = (0..rng.random_range(4..9))
                .map(|_| {
                    let partner = (home + 1) % workstations;
                    // From 20 MiB to 5 GiB, most of them small.
                    let bytes = (20u64 << 20) << rng.random_range(0..9).min(rng.random_range(0..9));
                    let set = vec![home, partner];
                    projects.push(Project {
                        bytes,
                        fresh: set.iter().copied().collect(),
                        set,
                        moving: None,
                        cached: BTreeMap::new(),
                        used: BTreeMap::new(),
                    });
                    projects.len() - 1
                })
                .collect();
            people.push(Person { habit, home, others, at: home, project: own[0], projects: own });
        }
        let always_on = (0..workstations).map(|_| rng.random_range(0..100) < 30).collect();
        LabModel {
            rng,
            names: (0..workstations).map(|n| format!("v.ws{n:03}")).collect(),
            people,
            projects,
            heat: vec![Heat::default(); workstations],
            always_on,
        }
    }

    /// Where everybody sits in this step; none: not there.
    fn seats(&mut self, step: i64) -> Vec<Option<usize>> {
        let (day, of_day) = (step / STEPS_OF_DAY, step % STEPS_OF_DAY);
        let hour = of_day / STEPS_OF_HOUR;
        let is_work = day % 7 < 5 && (9..18).contains(&hour);
        let all = self.names.len();
        let rng = &mut self.rng;
        let seat = |person: &mut Person| {
            if !is_work {
                return None;
            }
            person.at = match person.habit {
                Habit::Stays => person.home,
                Habit::Moves if of_day == 9 * STEPS_OF_HOUR && rng.random_range(0..10) == 0 => {
                    rng.random_range(0..all)
                }
                Habit::Moves => person.at,
                Habit::Alternates if day % 2 == 0 => person.home,
                Habit::Alternates => person.others[0],
                Habit::BackAndForth => {
                    [person.home, person.others[0], person.others[1]][rng.random_range(0..3)]
                }
            };
            (rng.random_range(0..100) < 85).then_some(person.at)
        };
        self.people.iter_mut().map(seat).collect()
    }

    /// The uses of one step.
    fn work(&mut self, step: i64, strategy: Strategy, out: &mut Outcome) {
        let seats = self.seats(step);
        let now_ms = u64::try_from(step * STEP_S * 1000).unwrap_or(0);
        for (n, seat) in seats.iter().enumerate() {
            let Some(at) = *seat else { continue };
            let person = &mut self.people[n];
            if self.rng.random_range(0..100) < 8 {
                let which = self
                    .rng
                    .random_range(0..person.projects.len())
                    .min(self.rng.random_range(0..person.projects.len()));
                person.project = person.projects[which];
            }
            let habit = person.habit;
            let looks = self.rng.random_range(0..100) < 6;
            let (id, reads, writes) = if looks {
                (self.rng.random_range(0..self.projects.len()), self.rng.random_range(1..12u32), 0)
            } else {
                (person.project, self.rng.random_range(5..40u32), self.rng.random_range(0..10u32))
            };
            let project = &mut self.projects[id];
            let is_held = project.set.contains(&at);
            let is_cached = project.cached.get(&at).is_some_and(|last| step - last < CACHED_FOR);
            let access = match (is_held, is_cached) {
                (true, _) => Access::Local,
                (false, true) => Access::Cached,
                (false, false) => Access::Remote,
            };
            // Who sits down switches it on, and who leaves switches it off.
            let on = |ws: &usize| self.always_on[*ws] || seats.contains(&Some(*ws));
            if access == Access::Remote && !project.set.iter().any(on) {
                out.unreachable += u64::from(reads);
                continue;
            }
            let kind = match access {
                Access::Local => 0,
                Access::Cached => 1,
                _ => 2,
            };
            out.reads[kind] += u64::from(reads);
            out.writes[usize::from(!is_held)] += u64::from(writes);
            if writes > 0 {
                project.fresh = BTreeSet::from([at]);
            }
            let heat = &mut self.heat[at];
            heat.note(group(id), access, reads, now_ms);
            if writes > 0 {
                heat.note(group(id), Access::Write, writes, now_ms);
            }
            if is_held {
                project.used.insert(at, step);
            } else {
                project.cached.insert(at, step);
                if strategy == Strategy::FirstTouch && project.moving.is_none() {
                    let last = |ws: &usize| project.used.get(ws).copied().unwrap_or(-1);
                    let mut left = project.set.clone();
                    left.sort_by_key(|ws| std::cmp::Reverse(last(ws)));
                    left.truncate(REPLICAS - 1);
                    left.insert(0, at);
                    begin(project, at, left, step, out);
                    out.moves_of_back_and_forth += u64::from(habit == Habit::BackAndForth);
                }
            }
        }
        self.heal(&seats, out);
        if step % STEPS_OF_DAY == 10 * STEPS_OF_HOUR && step / STEPS_OF_DAY % 7 < 5 {
            out.person_days += self.people.len() as u64;
        }
    }

    /// What was written is copied to those of its set that are on, from anyone who has it and is on.
    fn heal(&mut self, seats: &[Option<usize>], out: &mut Outcome) {
        let on = |ws: &usize| self.always_on[*ws] || seats.contains(&Some(*ws));
        for project in &mut self.projects {
            out.at_risk += u64::from(project.fresh.len() < REPLICAS);
            if project.fresh.iter().any(on) {
                project.fresh.extend(project.set.iter().filter(|ws| on(ws)));
            }
        }
    }

    /// What is on its way arrives.
    fn arrive(&mut self, step: i64, out: &mut Outcome) {
        for project in &mut self.projects {
            out.project_steps += 1;
            let Some((_, set, when)) = &project.moving else { continue };
            out.extra += 1;
            if *when <= step {
                project.set.clone_from(set);
                // Added before another gives up what it has.
                project.fresh.extend(set);
                project.fresh.retain(|ws| set.contains(ws));
                project.moving = None;
            }
        }
    }

    fn hottest(&self, now_ms: u64) -> Vec<Vec<HotGroup>> {
        let of = |(ws, heat): (usize, &Heat)| {
            let group = |(id, uses): (FileId, nearbrick_core::heat::Uses)| {
                let n = project_of(id);
                let project = &self.projects[n];
                let away = !project.set.contains(&ws);
                HotGroup {
                    path: n.to_string(),
                    below: true,
                    with: vec![],
                    local: uses.local.round() as u64,
                    cached: uses.cached.round() as u64,
                    remote: uses.remote.round() as u64,
                    writes: uses.writes.round() as u64,
                    files: 100,
                    bytes: project.bytes,
                    away_files: if away { 100 } else { 0 },
                    away_bytes: if away { project.bytes } else { 0 },
                    bricks: project.set.iter().map(|ws| self.names[*ws].clone()).collect(),
                }
            };
            heat.hottest(16, now_ms).into_iter().map(group).collect()
        };
        self.heat.iter().enumerate().map(of).collect()
    }

    /// The operator's look.
    fn decide(&mut self, step: i64, settings: Settings, moves: &mut Vec<MoveView>, out: &mut Outcome) {
        let now = Timestamp::from_second(1_800_000_000 + step * STEP_S).unwrap_or(Timestamp::UNIX_EPOCH);
        let hottest = self.hottest(u64::try_from(step * STEP_S * 1000).unwrap_or(0));
        let todo = {
            let bricks = self.names.iter().zip(&hottest).map(|(name, hottest)| BrickView {
                name,
                node: name,
                online: true,
                stays: true,
                space: None,
                hottest,
                age: Duration::ZERO,
                looked_by: None,
                moves: &[],
            });
            let input = Input {
                settings,
                bricks: bricks.collect(),
                sets: &[],
                rules: String::new(),
                in_rules: BTreeMap::new(),
                replicas: REPLICAS,
                now,
            };
            plan(&input, moves, |_| Vec::new())
        };
        moves.retain(|m| !todo.remove.contains(&m.name));
        for (name, said) in todo.say {
            let Some(view) = moves.iter_mut().find(|m| m.name == name) else { continue };
            let starts =
                view.phase != Some(MigrationPhase::Adding) && said.view.phase == Some(MigrationPhase::Adding);
            // Those under way end when their bytes have come, below.
            if view.phase == Some(MigrationPhase::Adding) {
                continue;
            }
            *view = said.view;
            if starts {
                let number = |brick: &String| self.names.iter().position(|n| n == brick);
                let set: Vec<usize> = view.bricks.iter().filter_map(number).collect();
                let project = view.paths[0].trim_end_matches("/**").parse().unwrap_or(0);
                let to = number(&view.to).unwrap_or(0);
                begin(&mut self.projects[project], to, set, step, out);
                let people = self.people.iter().filter(|p| p.habit == Habit::BackAndForth);
                let by = people.filter(|p| p.projects.contains(&project)).count();
                out.moves_of_back_and_forth += u64::from(by > 0);
            }
        }
        for view in moves.iter_mut().filter(|m| m.phase == Some(MigrationPhase::Adding)) {
            let project: usize = view.paths[0].trim_end_matches("/**").parse().unwrap_or(0);
            if self.projects[project].moving.is_none() {
                (view.phase, view.completed) = (Some(MigrationPhase::Done), Some(now));
            }
        }
        for wanted in todo.make {
            moves.push(MoveView {
                name: format!("{}-{step}-{}", wanted.group.path(), wanted.to),
                automatic: true,
                paths: wanted.group.globs(),
                to: wanted.to,
                made: now,
                ..MoveView::default()
            });
        }
    }
}

fn begin(project: &mut Project, to: usize, set: Vec<usize>, step: i64, out: &mut Outcome) {
    let steps = i64::try_from(project.bytes / RATE).unwrap_or(i64::MAX) / STEP_S + 1;
    project.moving = Some((to, set, step + steps));
    // What is cached there already does not come once more: this is the most that it can be.
    out.moved_bytes += project.bytes;
    out.moves += 1;
}

fn simulate(workstations: usize, seed: u64, weeks: u32, strategy: Strategy) -> Outcome {
    let mut model = LabModel::new(workstations, seed);
    let mut out = Outcome::default();
    let mut moves = Vec::new();
    for step in 0..i64::from(weeks) * 7 * STEPS_OF_DAY {
        model.arrive(step, &mut out);
        model.work(step, strategy, &mut out);
        if let Strategy::Ours(settings) = strategy {
            model.decide(step, settings, &mut moves, &mut out);
        }
    }
    out
}

fn ours(change: impl FnOnce(&mut Migration)) -> Strategy {
    let mut migration = Migration { mode: MigrationMode::Automatic, ..Migration::default() };
    change(&mut migration);
    Strategy::Ours(Settings::of(Some(&migration)))
}

/// Runs it, for each size of a lab.
pub fn run(options: &Options) -> Vec<Report> {
    let strategies: Vec<(&'static str, Strategy)> = vec![
        ("never", Strategy::Never),
        ("first touch", Strategy::FirstTouch),
        ("ours", ours(|_| {})),
        ("ours, factor 2", ours(|m| m.factor = Some(2))),
        ("ours, factor 10", ours(|m| m.factor = Some(10))),
        ("ours, dwell 0", ours(|m| m.dwell = Some("0s".to_owned()))),
        ("ours, dwell 10m", ours(|m| m.dwell = Some("10m".to_owned()))),
        ("ours, dwell 2h", ours(|m| m.dwell = Some("2h".to_owned()))),
        ("ours, 8h cool-down", ours(|m| m.cool_down = Some("8h".to_owned()))),
    ];
    let of_size = |count: &usize| {
        let mut report = Report {
            title: format!("Migration: {count} workstations, {} weeks", options.weeks),
            targets: strategies.iter().map(|(name, _)| *name).collect(),
            notes: vec![
                format!("{} synthetic labs, seeds from {}", options.rounds, options.seed),
                "local: opens at a brick of the file's set; cached: of copies that were fetched there before"
                    .to_owned(),
            ],
            ..Report::default()
        };
        for round in 0..options.rounds {
            for (name, strategy) in &strategies {
                let out = simulate(*count, options.seed + u64::from(round), options.weeks, *strategy);
                let reads: u64 = out.reads.iter().sum::<u64>() + out.unreachable;
                let per_day = |n: f64| n / out.person_days.max(1) as f64;
                let figures: [(&'static str, &'static str, f64); 10] = [
                    ("local reads", "%", Outcome::share(out.reads[0], reads)),
                    ("reads of cached copies", "%", Outcome::share(out.reads[1], reads)),
                    ("remote reads", "%", Outcome::share(out.reads[2], reads)),
                    ("unreachable reads", "%", Outcome::share(out.unreachable, reads)),
                    (
                        "writes at a brick of the set",
                        "%",
                        Outcome::share(out.writes[0], out.writes.iter().sum()),
                    ),
                    (
                        "moved for a person and day",
                        "MiB",
                        per_day(out.moved_bytes as f64 / f64::from(1 << 20)),
                    ),
                    ("moves of those who go back and forth", "per lab and day", {
                        out.moves_of_back_and_forth as f64 / f64::from(5 * options.weeks)
                    }),
                    ("moves", "per person and week", 5.0 * per_day(out.moves as f64)),
                    ("projects on the move", "% of time", Outcome::share(out.extra, out.project_steps)),
                    (
                        "newest version on one workstation only",
                        "% of time",
                        Outcome::share(out.at_risk, out.project_steps),
                    ),
                ];
                report.samples.extend(figures.into_iter().map(|(workload, unit, rate)| Sample {
                    workload,
                    unit,
                    target: name,
                    rate,
                }));
            }
            progress::note(format!("{count} workstations: {} of {} labs", round + 1, options.rounds));
        }
        report
    };
    options.workstations.iter().map(of_size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_follow_people_and_those_who_go_back_and_forth_move_little_for_it() {
        let of = |strategy: Strategy| [1, 2, 3].map(|seed| simulate(20, seed, 1, strategy));
        let sum = |all: &[Outcome; 3], part: fn(&Outcome) -> u64| all.iter().map(part).sum::<u64>();
        let (never, mine, touch) = (of(Strategy::Never), of(ours(|_| {})), of(Strategy::FirstTouch));
        assert_eq!(sum(&never, |o| o.moves + o.moved_bytes), 0);
        assert!(sum(&mine, |o| o.moves) * 4 < sum(&touch, |o| o.moves), "{mine:?} {touch:?}");
        assert!(sum(&mine, |o| o.moves_of_back_and_forth) * 4 < sum(&touch, |o| o.moves_of_back_and_forth));
        assert!(sum(&mine, |o| o.reads[0]) > sum(&never, |o| o.reads[0]), "{mine:?} {never:?}");
        assert_eq!(format!("{mine:?}"), format!("{:?}", of(ours(|_| {}))), "a seed is a trace");
    }
}
