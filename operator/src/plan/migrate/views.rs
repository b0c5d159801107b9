//! What is known of a volume's moves, and what is to be done about them: the values that the decision is made on.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Group;
use jiff::Timestamp;
use nearbrick_crds::quantity;
use nearbrick_crds::{HotGroup, Joining, Migration, MigrationMode, MigrationPhase, Move, ReplicaSet};

/// After this time a use counts half: as agents count them (`core/heat`).
pub const HALF_LIFE: Duration = Duration::from_secs(4 * 3600);
/// Groups that an agent reports at most.
const REPORTED: usize = 16;

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
    ///
    /// Where files are told apart by what is used together, another workstation may tell them apart otherwise: then all that shares a
    /// directory with the group counts.
    pub(super) fn uses(&self, group: &Group) -> f64 {
        let found: Vec<u64> =
            self.hottest.iter().filter(|g| Group::of(g).shares(group)).map(HotGroup::uses).collect();
        let last = self.hottest.last().filter(|_| self.hottest.len() >= REPORTED);
        let worth = match found.as_slice() {
            [] => last.map_or(0.0, |g| g.uses() as f64),
            found => found.iter().map(|uses| *uses as f64).sum(),
        };
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
    pub(super) fn phase(&self) -> MigrationPhase {
        self.phase.unwrap_or(MigrationPhase::Proposed)
    }
}

/// A move that the use of the files calls for, or that a person wants.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// What moves.
    pub group: Group,
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
    pub(super) fn brick(&self, name: &str) -> Option<&BrickView<'_>> {
        self.bricks.iter().find(|b| b.name == name)
    }
}
