//! Who uses what, where it is to be, and moves towards the person: `heat`, `why` and `migrate`.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use kube::ResourceExt;
use nearbrick_crds::condition::{self, find};
use nearbrick_crds::meta::brick_name;
use nearbrick_crds::pending::{human_bytes, human_files};
use nearbrick_crds::{Brick, MigrationPhase, PlacementRule, ReplicaMigration, WorkstationVolume, paths};
use serde_json::json;

use crate::cluster::{Cluster, Scope};
use crate::table::{Cell, Paint, Tone, table};
use crate::{Error, Output, print, structured};

/// Between two looks at a move.
const LOOK: Duration = Duration::from_millis(500);
/// The operator judges a move in this time, or does not run.
const JUDGED: Duration = Duration::from_secs(60);

/// What is used most on the workstations of a volume.
///
/// # Errors
/// A request; there is no such volume.
pub async fn heat(
    cluster: &Cluster,
    scope: &Scope,
    volume: &str,
    output: Output,
    paint: Paint,
) -> Result<ExitCode, Error> {
    let volume = the_volume(cluster, scope, volume).await?;
    let bricks = bricks_of(cluster, &volume).await?;
    match output {
        Output::Json | Output::Yaml => {
            let all: Vec<_> = bricks
                .iter()
                .map(|b| {
                    let hottest = b.status.as_ref().map(|s| s.hottest.as_slice()).unwrap_or_default();
                    json!({ "workstation": b.spec.node, "hottest": hottest })
                })
                .collect();
            print(&structured(&all, output)?);
        }
        Output::Table | Output::Wide => print(&heat_table(&bricks, output == Output::Wide, paint)),
    }
    Ok(ExitCode::SUCCESS)
}

fn heat_table(bricks: &[Brick], wide: bool, paint: Paint) -> String {
    let mut groups: Vec<_> = bricks
        .iter()
        .flat_map(|b| b.status.iter().flat_map(|s| &s.hottest).map(|group| (b.spec.node.as_str(), group)))
        .collect();
    groups.sort_by(|(one, a), (other, b)| {
        b.uses().cmp(&a.uses()).then_with(|| (one, &a.path).cmp(&(other, &b.path)))
    });
    let rows: Vec<Vec<Cell>> = groups
        .iter()
        .map(|(node, group)| {
            // What a person reads there and is not there is why a move would help.
            let tone = if group.remote > group.local { Tone::Notice } else { Tone::Plain };
            let mut row: Vec<Cell> = vec![
                (*node).into(),
                named(&group.path, group.below).into(),
                group.uses().to_string().into(),
                group.local.to_string().into(),
                group.cached.to_string().into(),
                Cell::new(group.remote.to_string(), tone),
                group.writes.to_string().into(),
                format!("{}, {}", human_files(group.files), human_bytes(group.bytes)).into(),
            ];
            if wide {
                row.push(human_files(group.away_files).into());
                row.push(group.bricks.join(", ").into());
                row.push(group.with.join(", ").into());
            }
            row
        })
        .collect();
    if rows.is_empty() {
        return "nothing has been used lately, or no agent has said so yet\n".to_owned();
    }
    let mut heading = vec!["WORKSTATION", "FILES OF", "USES", "LOCAL", "CACHED", "REMOTE", "WRITES", "SIZE"];
    if wide {
        heading.extend(["NOT-HELD-HERE", "HELD-BY", "USED-WITH"]);
    }
    table(&heading, &rows, paint)
}

fn named(path: &str, below: bool) -> String {
    let path = if path.is_empty() { "." } else { path };
    if below { path.to_owned() } else { format!("{path} (not below)") }
}

/// Why the files of a path are where they are, and what is still to come.
///
/// # Errors
/// A request; there is no such volume.
pub async fn why(cluster: &Cluster, scope: &Scope, volume: &str, path: &str) -> Result<ExitCode, Error> {
    let volume = the_volume(cluster, scope, volume).await?;
    let namespace = volume.namespace().unwrap_or_default();
    let moves = cluster.migrations(&namespace, &volume.name_any()).await?;
    let bricks = bricks_of(cluster, &volume).await?;
    print(&explain(&volume, &bricks, &moves, path.trim_matches('/')));
    Ok(ExitCode::SUCCESS)
}

fn matches(globs: &[String], path: &str) -> bool {
    // A directory is meant with what is in it.
    let inside = format!("{path}/x");
    globs.iter().filter_map(|glob| paths::glob(glob).ok()).any(|glob| {
        let matcher = glob.compile_matcher();
        matcher.is_match(path) || matcher.is_match(&inside)
    })
}

fn explain(volume: &WorkstationVolume, bricks: &[Brick], moves: &[ReplicaMigration], path: &str) -> String {
    let status = volume.status.clone().unwrap_or_default();
    let mut lines = vec![format!("{path}, in volume {}", volume.name_any())];
    let applies = |rule: &&PlacementRule| rule.paths.is_empty() || matches(&rule.paths, path);
    let mut creators: Vec<&str> = status.placement.iter().map(|r| r.creator.as_str()).collect();
    creators.sort_unstable();
    creators.dedup();
    for creator in creators {
        let rule = status.placement.iter().filter(|r| r.creator == creator).find(applies);
        let Some(rule) = rule else { continue };
        let whose = if creator.is_empty() {
            "files of all".to_owned()
        } else {
            format!("files that were made on {creator}")
        };
        let because = match (&rule.migration, rule.paths.is_empty()) {
            (Some(migration), _) => format!(", because of move {migration}"),
            (None, false) => format!(", by the entry of replicaSets for {}", rule.paths.join(", ")),
            (None, true) => String::new(),
        };
        lines.push(format!("  {whose} are to be held by {}{because}", rule.bricks.join(", ")));
    }
    for object in moves.iter().filter(|m| matches(&m.spec.paths, path)) {
        let status = object.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or(MigrationPhase::Proposed);
        let said = status.message.unwrap_or_else(|| "nobody has looked at it yet".to_owned());
        lines.push(format!("  move {} to {}: {}: {said}", object.name_any(), object.spec.to, phase.as_str()));
        if let Some(evidence) = status.evidence {
            lines.push(format!("    {evidence}"));
        }
    }
    for brick in bricks {
        let lacks = brick.status.as_ref().and_then(|s| s.pending_in.as_ref()).filter(|p| p.files > 0);
        if let Some(lacks) = lacks {
            let (files, size) = (human_files(lacks.files), human_bytes(lacks.bytes));
            lines.push(format!("  {} lacks {files} of the volume ({size})", brick.name_any()));
        }
    }
    for type_ in [condition::PROTECTED, condition::PLACED, condition::SPACE_LEFT] {
        if let Some(c) = find(&status.conditions, type_).filter(|c| c.status != "True") {
            lines.push(format!("  {type_}: {}", c.message));
        }
    }
    if let Some(at) = &status.next_heal_time {
        lines.push(format!("  the next heal is at {}", at.0));
    }
    lines.join("\n") + "\n"
}

/// A move that a person asks for.
#[derive(Clone, Debug)]
pub struct Move {
    /// The volume.
    pub volume: String,
    /// Files, directories, or globs.
    pub paths: Vec<String>,
    /// The workstation to which they move.
    pub to: String,
    /// The workstation that is to hold them no longer.
    pub from: Option<String>,
    /// Shows what would be done.
    pub dry_run: bool,
}

/// The globs of files, directories and globs.
fn globs(all: &[String]) -> Vec<String> {
    all.iter()
        .flat_map(|path| match paths::is_glob(path) {
            true => vec![path.clone()],
            false => {
                let path = path.trim_matches('/');
                let below = paths::glob_of(path, true);
                if path.is_empty() { vec![below] } else { vec![paths::escaped(path), below] }
            }
        })
        .collect()
}

/// Asks for a move, and says what the operator makes of it.
///
/// # Errors
/// A request; there is no such volume; nobody judges it.
pub async fn migrate(cluster: &Cluster, scope: &Scope, wanted: &Move) -> Result<ExitCode, Error> {
    let volume = the_volume(cluster, scope, &wanted.volume).await?;
    let (namespace, name) = (volume.namespace().unwrap_or_default(), volume.name_any());
    let brick = |node: &String| brick_name(&name, node);
    let spec = json!({
        "volumeRef": { "name": name }, "paths": globs(&wanted.paths), "to": brick(&wanted.to),
        "from": wanted.from.as_ref().map(brick), "dryRun": wanted.dry_run,
    });
    let made = cluster.migrate(&namespace, &format!("{name}-by-hand-"), &spec).await?;
    let begin = Instant::now();
    loop {
        let object = cluster.migration(&namespace, &made).await?;
        let status = object.status.clone().unwrap_or_default();
        if let Some((message, phase)) = status.message.zip(status.phase) {
            println!("{made}: {}: {message}", phase.as_str());
            if let Some(evidence) = status.evidence {
                println!("  {evidence}");
            }
            if !status.bricks.is_empty() {
                println!("  held by {} in the end", status.bricks.join(", "));
            }
            if !wanted.dry_run && !phase.is_ended() {
                println!("  kubectl get wrm {made} -n {namespace} -w shows how far it is");
            }
            let refused = phase == MigrationPhase::Refused;
            return Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        if begin.elapsed() >= JUDGED {
            let limit = JUDGED.as_secs();
            return Err(Error::Said(format!(
                "nobody has judged {made} within {limit} s: is the operator running?"
            )));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The one volume of this name.
async fn the_volume(cluster: &Cluster, scope: &Scope, name: &str) -> Result<WorkstationVolume, Error> {
    let mut found: Vec<_> =
        cluster.volumes(scope).await?.into_iter().filter(|v| v.name_any() == name).collect();
    match (found.pop(), found.is_empty()) {
        (Some(volume), true) => Ok(volume),
        (Some(_), false) => {
            Err(Error::Said(format!("there are several volumes {name}: say which by -n NAMESPACE")))
        }
        (None, _) => {
            Err(Error::Said(format!("there is no volume {name} {}: see kubectl get wsv -A", scope.say())))
        }
    }
}

async fn bricks_of(cluster: &Cluster, volume: &WorkstationVolume) -> Result<Vec<Brick>, Error> {
    let name = volume.name_any();
    let all = cluster.bricks(&Scope(volume.namespace())).await?;
    Ok(all.into_iter().filter(|b| b.spec.volume_ref.name == name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brick(node: &str, hottest: serde_json::Value) -> Brick {
        serde_json::from_value(json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "Brick", "metadata": { "name": format!("home.{node}") },
            "spec": {
                "volumeRef": { "name": "home" }, "volumeUuid": "u", "node": node, "uuid": "u",
            },
            "status": { "hottest": hottest, "pendingIn": { "files": 2, "bytes": 2048 } },
        }))
        .unwrap()
    }

    #[test]
    fn what_is_used_most_comes_first_with_who_uses_it() {
        let a = brick(
            "a",
            json!([{ "path": "website", "below": true, "local": 3, "writes": 1, "files": 9, "bytes": 1024 }]),
        );
        let b = brick("b", json!([{ "path": "", "below": false, "remote": 7, "files": 1, "bytes": 1 }]));
        let text = heat_table(&[a, b], false, Paint(false));
        let rows: Vec<Vec<&str>> =
            text.lines().map(|l| l.split("   ").map(str::trim).filter(|c| !c.is_empty()).collect()).collect();
        assert_eq!(rows[1], ["b", ". (not below)", "7", "0", "0", "7", "0", "1 file, 1 B"]);
        assert_eq!(rows[2], ["a", "website", "4", "3", "0", "0", "1", "9 files, 1.0 KiB"]);
        assert!(heat_table(&[], true, Paint(false)).starts_with("nothing has been used"));
    }

    #[test]
    fn a_path_is_itself_and_all_below_it_and_a_glob_is_a_glob() {
        let of = |path: &str| globs(&[path.to_owned()]);
        assert_eq!(of("/thesis/"), ["thesis", "thesis/**"]);
        assert_eq!(of("src/*.rs"), ["src/*.rs"]);
        assert_eq!(of("/"), ["**"]);
    }

    #[test]
    fn a_path_is_explained_by_rules_moves_and_what_is_lacking() {
        let volume: WorkstationVolume = serde_json::from_value(json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "WorkstationVolume", "metadata": { "name": "home" },
            "spec": { "members": { "nodes": ["a"] } },
            "status": {
                "placement": [
                    { "creator": "a", "paths": ["thesis/**"], "bricks": ["home.b", "home.c"], "migration": "m1" },
                    { "creator": "a", "bricks": ["home.a", "home.b"] },
                    { "creator": "b", "bricks": ["home.b", "home.a"] },
                ],
                "conditions": [{
                    "type": "Protected", "status": "False", "reason": "Pending", "message": "home.b lacks 2 files",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        }))
        .unwrap();
        let moved: ReplicaMigration = serde_json::from_value(json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "ReplicaMigration", "metadata": { "name": "m1" },
            "spec": { "volumeRef": { "name": "home" }, "paths": ["thesis/**"], "to": "home.c" },
            "status": { "phase": "Done", "message": "moved", "evidence": "c used it 40 times, a 2" },
        }))
        .unwrap();
        let bricks = [brick("b", json!([]))];
        let text = explain(&volume, &bricks, std::slice::from_ref(&moved), "thesis");
        for line in [
            "files that were made on a are to be held by home.b, home.c, because of move m1",
            "files that were made on b are to be held by home.b, home.a",
            "move m1 to home.c: Done: moved",
            "c used it 40 times",
            "home.b lacks 2 files of the volume (2.0 KiB)",
            "Protected: home.b lacks 2 files",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
        let other = explain(&volume, &bricks, &[moved], "website/index.html");
        assert!(
            other.contains("made on a are to be held by home.a, home.b") && !other.contains("move m1"),
            "{other}"
        );
    }
}
