//! Volumes, workstations, and what is pending where and since when.

use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use nearbrick_crds::condition::{self, find};
use nearbrick_crds::pending::human_bytes;
use nearbrick_crds::{Brick, VolumeHealth, Workstation, WorkstationState, WorkstationVolume};
use serde::Serialize;

use crate::cluster::{Cluster, Scope};
use crate::table::{Cell, Paint, Tone, age, table};
use crate::{Error, Output, print, structured};

/// Between two looks of `--watch`.
const LOOK: Duration = Duration::from_secs(2);

/// All of it, as values.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The volumes.
    pub volumes: Vec<VolumeRow>,
    /// The workstations.
    pub workstations: Vec<WorkstationRow>,
    /// What some brick lacks.
    pub pending: Vec<PendingRow>,
}

/// A volume.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// One word for "are all copies there?".
    pub health: String,
    /// What it means, or is waited for.
    pub message: String,
    /// Copies that each file is to have.
    pub replicas: u32,
    /// Files in the tree.
    pub files: Option<u64>,
    /// Copies that are still to be made.
    pub pending_files: Option<u64>,
    /// Their bytes.
    pub pending_bytes: Option<u64>,
    /// Since when the oldest is waited for: seconds.
    pub oldest_seconds: Option<i64>,
    /// Open conflicts.
    pub conflicts: Option<u64>,
    /// Until the next heal by schedule: seconds.
    pub next_heal_seconds: Option<i64>,
}

/// A workstation.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkstationRow {
    /// Its name.
    pub name: String,
    /// Online, Away or Lost.
    pub state: String,
    /// Whether it may be switched off; none: nobody knows.
    pub may_leave: Option<bool>,
    /// Why, or why not.
    pub message: String,
}

/// What one brick lacks, and another has.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingRow {
    /// The namespace.
    pub namespace: String,
    /// The brick that has it.
    pub from: String,
    /// The brick that lacks it.
    pub to: String,
    /// Files.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
    /// Since when the oldest: seconds.
    pub oldest_seconds: Option<i64>,
}

/// Seconds from `at` until `now`.
fn since(at: Option<&nearbrick_crds::Time>, now: Timestamp) -> Option<i64> {
    at.map(|at| now.as_second() - at.0.as_second())
}

/// What a workstation says about whether it may leave.
pub fn may_leave(workstation: &Workstation) -> (Option<bool>, String) {
    let conditions = workstation.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    match find(conditions, condition::SAFE_TO_LEAVE) {
        Some(c) if c.status == "True" => (Some(true), c.message.clone()),
        Some(c) if c.status == "False" => (Some(false), c.message.clone()),
        Some(c) => (None, c.message.clone()),
        None => (None, "its brick-agent has said nothing yet".to_owned()),
    }
}

/// Why a volume is as it is: the first of its conditions that is not as one would want it.
fn message_of(volume: &WorkstationVolume) -> String {
    let conditions = volume.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
    let order = [
        condition::RELEASED,
        condition::READY,
        condition::PROTECTED,
        condition::SPACE_LEFT,
        condition::LOSS_BOUNDED,
        condition::CONFLICT_FREE,
        condition::PLACED,
    ];
    let bad = order.iter().filter_map(|t| find(conditions, t)).find(|c| c.status != "True");
    bad.map(|c| c.message.clone()).unwrap_or_default()
}

impl Report {
    /// From the objects, as of `now`.
    pub fn new(
        volumes: &[WorkstationVolume],
        bricks: &[Brick],
        workstations: &[Workstation],
        now: Timestamp,
    ) -> Self {
        let volume = |v: &WorkstationVolume| {
            let status = v.status.clone().unwrap_or_default();
            let pending = status.pending.as_ref();
            VolumeRow {
                namespace: v.namespace().unwrap_or_default(),
                name: v.name_any(),
                health: status.health.map_or_else(|| "Unknown".to_owned(), |h| format!("{h:?}")),
                message: message_of(v),
                replicas: v.spec.replicas,
                files: status.files,
                pending_files: pending.map(|p| p.files),
                pending_bytes: pending.map(|p| p.bytes),
                oldest_seconds: since(pending.and_then(|p| p.oldest_since.as_ref()), now),
                conflicts: status.conflicts,
                next_heal_seconds: since(status.next_heal_time.as_ref(), now).map(|s| -s),
            }
        };
        let workstation = |w: &Workstation| {
            let (may_leave, message) = may_leave(w);
            let state = w.status.as_ref().and_then(|s| s.state);
            WorkstationRow {
                name: w.name_any(),
                state: state.map_or_else(|| "Unknown".to_owned(), |s: WorkstationState| format!("{s:?}")),
                may_leave,
                message,
            }
        };
        let pending = |b: &Brick| {
            let (namespace, from) = (b.namespace().unwrap_or_default(), b.name_any());
            let list = b.status.clone().unwrap_or_default().pending_out;
            let row = move |out: nearbrick_crds::PendingOut| PendingRow {
                namespace: namespace.clone(),
                from: from.clone(),
                oldest_seconds: since(out.oldest_since.as_ref(), now),
                to: out.brick,
                files: out.files,
                bytes: out.bytes,
            };
            list.into_iter().map(row).collect::<Vec<_>>()
        };
        let mut report = Report {
            volumes: volumes.iter().map(volume).collect(),
            workstations: workstations.iter().map(workstation).collect(),
            pending: bricks.iter().flat_map(pending).filter(|p| p.files > 0).collect(),
        };
        report.pending.sort_by_key(|p| std::cmp::Reverse(p.oldest_seconds));
        report
    }

    /// For people.
    pub fn text(&self, wide: bool, paint: Paint) -> String {
        let number = |n: Option<u64>| n.map_or_else(|| "?".to_owned(), |n| n.to_string());
        let old = |s: Option<i64>| s.map(age).unwrap_or_default();
        let volumes: Vec<Vec<Cell>> = self
            .volumes
            .iter()
            .map(|v| {
                let pending = match (v.pending_files, v.pending_bytes) {
                    (Some(0), _) => "0".to_owned(),
                    (Some(files), Some(bytes)) => format!("{files} ({})", human_bytes(bytes)),
                    _ => "?".to_owned(),
                };
                let conflicts = match v.conflicts {
                    Some(n) if n > 0 => Cell::new(n.to_string(), Tone::Notice),
                    n => number(n).into(),
                };
                let next = v.next_heal_seconds.map(|s| format!("in {}", age(s))).unwrap_or_default();
                let mut row: Vec<Cell> = vec![
                    v.namespace.clone().into(),
                    v.name.clone().into(),
                    Cell::new(v.health.clone(), tone_of(&v.health)),
                    v.replicas.to_string().into(),
                    number(v.files).into(),
                    pending.into(),
                    old(v.oldest_seconds).into(),
                    conflicts,
                    next.into(),
                ];
                if wide {
                    row.push(v.message.clone().into());
                }
                row
            })
            .collect();
        let mut heading = vec![
            "NAMESPACE",
            "VOLUME",
            "HEALTH",
            "COPIES",
            "FILES",
            "PENDING",
            "OLDEST",
            "CONFLICTS",
            "NEXT HEAL",
        ];
        if wide {
            heading.push("BECAUSE");
        }
        let mut text = table(&heading, &volumes, paint);
        let workstations: Vec<Vec<Cell>> = self
            .workstations
            .iter()
            .map(|w| {
                let state = match w.state.as_str() {
                    "Online" => Tone::Good,
                    "Lost" => Tone::Bad,
                    _ => Tone::Notice,
                };
                let (leave, tone) = match w.may_leave {
                    Some(true) => ("yes", Tone::Good),
                    Some(false) => ("not yet", Tone::Notice),
                    None => ("unknown", Tone::Bad),
                };
                // What is well needs no reason.
                let why = if w.may_leave == Some(true) && !wide { String::new() } else { w.message.clone() };
                vec![
                    w.name.clone().into(),
                    Cell::new(w.state.clone(), state),
                    Cell::new(leave, tone),
                    why.into(),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&table(&["WORKSTATION", "STATE", "MAY LEAVE", "BECAUSE"], &workstations, paint));
        if !self.pending.is_empty() {
            let pending: Vec<Vec<Cell>> = self
                .pending
                .iter()
                .map(|p| {
                    vec![
                        p.namespace.clone().into(),
                        p.from.clone().into(),
                        p.to.clone().into(),
                        p.files.to_string().into(),
                        human_bytes(p.bytes).into(),
                        old(p.oldest_seconds).into(),
                    ]
                })
                .collect();
            text.push('\n');
            let heading = ["NAMESPACE", "IS AT", "LACKS AT", "FILES", "SIZE", "SINCE"];
            text.push_str(&table(&heading, &pending, paint));
        }
        text
    }
}

fn tone_of(health: &str) -> Tone {
    let is = |h: VolumeHealth| health == format!("{h:?}");
    if is(VolumeHealth::Protected) {
        Tone::Good
    } else if is(VolumeHealth::Degraded) || is(VolumeHealth::Unknown) {
        Tone::Bad
    } else {
        Tone::Notice
    }
}

/// Reads and shows it.
///
/// # Errors
/// A request.
pub async fn show(
    cluster: &Cluster,
    scope: &Scope,
    output: Output,
    watch: bool,
    paint: Paint,
) -> Result<ExitCode, Error> {
    let mut last = String::new();
    loop {
        let (volumes, bricks, workstations) =
            futures::try_join!(cluster.volumes(scope), cluster.bricks(scope), cluster.workstations())?;
        let report = Report::new(&volumes, &bricks, &workstations, Timestamp::now());
        let text = match output {
            Output::Table | Output::Wide => report.text(output == Output::Wide, paint),
            Output::Json | Output::Yaml => structured(&report, output)?,
        };
        if text != last {
            if watch && paint.0 {
                // From the top of an empty screen.
                print("\u{1b}[H\u{1b}[2J");
            } else if !last.is_empty() {
                print("\n");
            }
            print(&text);
            last = text;
        }
        if !watch {
            if volumes.is_empty() {
                eprintln!("no volume {}", scope.say());
            }
            return Ok(ExitCode::SUCCESS);
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn objects() -> (Vec<WorkstationVolume>, Vec<Brick>, Vec<Workstation>) {
        let at = "2026-01-01T00:00:00Z";
        let condition = |t: &str, status: &str, message: &str| json!({ "type": t, "status": status, "reason": "R", "message": message, "lastTransitionTime": at });
        let volume = json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "WorkstationVolume",
            "metadata": { "name": "home", "namespace": "lab" },
            "spec": { "members": { "nodes": ["a", "b"] }, "replicas": 2 },
            "status": {
                "health": "Pending", "files": 12, "conflicts": 1,
                "pending": { "files": 3, "bytes": 3072, "oldestSince": at }, "nextHealTime": "2026-01-01T00:10:00Z",
                "conditions": [condition("Ready", "True", "fine"), condition("Protected", "False", "home.b lacks 3 files")],
            },
        });
        let brick = json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "Brick",
            "metadata": { "name": "home.a", "namespace": "lab" },
            "spec": {
                "volumeRef": { "name": "home" }, "node": "a", "uuid": "00000000-0000-0000-0000-000000000001",
                "volumeUuid": "00000000-0000-0000-0000-000000000002",
            },
            "status": { "pendingOut": [
                { "brick": "home.b", "files": 3, "bytes": 3072, "oldestSince": at },
                { "brick": "home.c", "files": 0, "bytes": 0 },
            ]},
        });
        let workstation = |name: &str, state: &str, safe: Option<(&str, &str)>| {
            let conditions: Vec<_> = safe.iter().map(|(s, m)| condition("SafeToLeave", s, m)).collect();
            json!({
                "apiVersion": "nearbrick.io/v1alpha1", "kind": "Workstation", "metadata": { "name": name },
                "spec": {}, "status": { "state": state, "conditions": conditions },
            })
        };
        let workstations = [
            workstation("a", "Online", Some(("False", "3 files written here"))),
            workstation("b", "Online", Some(("True", "all is elsewhere"))),
            workstation("c", "Away", Some(("Unknown", "no report since"))),
            workstation("d", "Online", None),
        ];
        (
            vec![serde_json::from_value(volume).unwrap()],
            vec![serde_json::from_value(brick).unwrap()],
            workstations.into_iter().map(|w| serde_json::from_value(w).unwrap()).collect(),
        )
    }

    fn report() -> Report {
        let (volumes, bricks, workstations) = objects();
        Report::new(&volumes, &bricks, &workstations, "2026-01-01T00:05:00Z".parse().unwrap())
    }

    #[test]
    fn what_is_pending_where_since_when_and_who_may_leave() {
        let text = report().text(false, Paint(false));
        let wanted = "\
NAMESPACE   VOLUME   HEALTH    COPIES   FILES   PENDING       OLDEST   CONFLICTS   NEXT HEAL
lab         home     Pending   2        12      3 (3.0 KiB)   5m       1           in 5m

WORKSTATION   STATE    MAY LEAVE   BECAUSE
a             Online   not yet     3 files written here
b             Online   yes
c             Away     unknown     no report since
d             Online   unknown     its brick-agent has said nothing yet

NAMESPACE   IS AT    LACKS AT   FILES   SIZE      SINCE
lab         home.a   home.b     3       3.0 KiB   5m
";
        assert_eq!(text, wanted);
        assert!(report().text(true, Paint(false)).contains("home.b lacks 3 files"));
    }

    #[test]
    fn programs_get_the_same_as_values() {
        let json = structured(&report(), Output::Json).unwrap();
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["workstations"][0]["mayLeave"], false);
        assert_eq!(value["workstations"][2]["mayLeave"], serde_json::Value::Null);
        assert_eq!(value["pending"][0]["oldestSeconds"], 300);
        assert!(structured(&report(), Output::Yaml).unwrap().contains("health: Pending"));
    }
}
