//! The simulated workstations of the scale bench, and how they report.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::error::{Context, Result};
use crate::fleet::{ago, brick, report_brick, report_workstation};

/// Between two heartbeats of a workstation; and how many of them there are between two of a brick of which nothing is new. As the
/// agent has it (control/report).
const WORKSTATION: Duration = Duration::from_secs(10);
const BRICK_BEATS: u64 = 30;

struct State {
    /// How many files each brick lacks.
    lacks: BTreeMap<String, u64>,
    /// Workstations that are on.
    on: BTreeSet<usize>,
}

/// All of them.
pub struct Workstations {
    client: Client,
    namespace: String,
    names: Vec<String>,
    /// Members by volume, as numbers.
    members: BTreeMap<String, Vec<usize>>,
    state: Arc<Mutex<State>>,
    tasks: Mutex<JoinSet<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Workstations {
    /// So many, none of them on; each carries `carries` of the volumes, and neighbours share one.
    pub fn new(client: &Client, namespace: &str, count: usize, volumes: usize, carries: usize) -> Self {
        let each = (count * carries).div_ceil(volumes).clamp(2, count);
        let members = (0..volumes).map(|volume| {
            let first = volume * count / volumes;
            (format!("volume-{volume:03}"), (0..each).map(|step| (first + step) % count).collect())
        });
        Self {
            client: client.clone(),
            namespace: namespace.to_owned(),
            names: (0..count).map(|number| format!("ws-{number:04}")).collect(),
            members: members.collect(),
            state: Arc::new(Mutex::new(State { lacks: BTreeMap::new(), on: BTreeSet::new() })),
            tasks: Mutex::default(),
        }
    }

    /// Their names.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Volumes, with the names of their members.
    pub fn volumes(&self) -> impl Iterator<Item = (&str, Vec<&str>)> {
        self.members.iter().map(|(volume, members)| {
            (volume.as_str(), members.iter().map(|number| self.names[*number].as_str()).collect())
        })
    }

    /// How many bricks there are.
    pub fn bricks(&self) -> usize {
        self.members.values().map(Vec::len).sum()
    }

    fn bricks_of(&self, number: usize) -> Vec<String> {
        let here = self.members.iter().filter(|(_, members)| members.contains(&number));
        here.map(|(volume, _)| format!("{volume}.{}", self.names[number])).collect()
    }

    /// Switches some on, spread over the time between two heartbeats.
    pub fn start(&self, range: Range<usize>) {
        let count = range.len().max(1) as u32;
        for (step, number) in range.enumerate() {
            self.spawn(number, WORKSTATION * step as u32 / count);
        }
    }

    /// Switches some on within a second.
    pub fn start_at_once(&self, range: Range<usize>) {
        let count = range.len().max(1) as u32;
        for (step, number) in range.enumerate() {
            self.spawn(number, Duration::from_secs(1) * step as u32 / count);
        }
    }

    fn spawn(&self, number: usize, after: Duration) {
        let (client, namespace, node) =
            (self.client.clone(), self.namespace.clone(), self.names[number].clone());
        let (bricks, state) = (self.bricks_of(number), self.state.clone());
        lock(&state).on.insert(number);
        lock(&self.tasks).spawn(async move {
            tokio::time::sleep(after).await;
            let mut tick = tokio::time::interval(WORKSTATION);
            let mut said: BTreeMap<String, u64> = BTreeMap::new();
            for beat in 0_u64.. {
                tick.tick().await;
                for name in &bricks {
                    let lacks = lock(&state).lacks.get(name).copied().unwrap_or(0);
                    if beat % BRICK_BEATS == 0 || said.get(name) != Some(&lacks) {
                        // What is refused comes again with the next beat, as with an agent.
                        if report_brick(&client, &namespace, &node, name, &lacking(lacks)).await.is_ok() {
                            said.insert(name.clone(), lacks);
                        }
                    }
                }
                let _ = report_workstation(&client, &node, bricks.len()).await;
            }
        });
    }

    /// Each brick of these lacks so many files from its next report on.
    pub fn lack(&self, range: Range<usize>, files: u64) {
        for number in range {
            for name in self.bricks_of(number) {
                lock(&self.state).lacks.insert(name, files);
            }
        }
    }

    /// No brick lacks anything from its next report on.
    pub fn lack_nothing(&self) {
        lock(&self.state).lacks.clear();
    }

    /// What is pending in a volume once all have reported.
    pub fn pending(&self, volume: &str) -> u64 {
        let prefix = format!("{volume}.");
        lock(&self.state)
            .lacks
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(_, files)| files)
            .sum()
    }

    /// Has a member of a volume, another one for each `round`, lack so many files, and reports it; the volume, and what is pending in it now.
    pub async fn report_one(&self, round: usize, files: u64) -> Result<(String, u64)> {
        let on = lock(&self.state).on.clone();
        let candidates = self.members.iter().filter_map(|(volume, members)| {
            let member = members.iter().find(|number| on.contains(number))?;
            Some((volume, *member))
        });
        let candidates: Vec<_> = candidates.collect();
        let (volume, number) =
            *candidates.get(round % candidates.len().max(1)).context("no workstation is on")?;
        let node = &self.names[number];
        let name = format!("{volume}.{node}");
        lock(&self.state).lacks.insert(name.clone(), files);
        report_brick(&self.client, &self.namespace, node, &name, &lacking(files)).await.context(&name)?;
        Ok((volume.clone(), self.pending(volume)))
    }
}

fn lacking(files: u64) -> Value {
    match files {
        0 => brick(&json!({ "pendingIn": { "files": 0, "bytes": 0 } })),
        // Since then in each report, as an agent remembers.
        _ => brick(&json!({ "pendingIn": { "files": files, "bytes": files << 10, "oldestSince": ago(60) } })),
    }
}
