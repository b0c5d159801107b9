//! The open conflicts, and a person's word on them.

use std::process::ExitCode;

use kube::ResourceExt;
use nearbrick_crds::pending::human_bytes;
use nearbrick_crds::{ConflictPhase, FileConflict, FileVersion, paths};

use crate::cluster::{Cluster, Scope};
use crate::table::{Cell, Paint, Tone, table};
use crate::{Error, Output, print, structured};

/// The API's word for what a person wrote.
///
/// # Errors
/// It is none.
pub fn resolution(keep: &str) -> Result<String, Error> {
    Ok(match keep.to_ascii_lowercase().as_str() {
        "both" | "keepboth" => "KeepBoth".to_owned(),
        "newest" => "Newest".to_owned(),
        "largest" => "Largest".to_owned(),
        "" => return Err(Error::Said("--keep is both, newest, largest, or a workstation".to_owned())),
        _ => format!("Brick/{}", keep.strip_prefix("Brick/").unwrap_or(keep)),
    })
}

/// Whether a conflict is meant: by its name, its path, or a glob of its path.
fn is_meant(conflict: &FileConflict, which: &str) -> bool {
    let path = &conflict.spec.path;
    conflict.name_any() == which
        || path == which
        || paths::glob(which).is_ok_and(|glob| glob.compile_matcher().is_match(path))
}

fn is_open(conflict: &FileConflict) -> bool {
    conflict.status.as_ref().and_then(|s| s.phase) != Some(ConflictPhase::Resolved)
}

fn summary(conflict: &FileConflict) -> String {
    conflict.status.as_ref().and_then(|s| s.summary.clone()).unwrap_or_default()
}

fn list(conflicts: &[FileConflict], wide: bool, paint: Paint) -> String {
    let row = |c: &FileConflict| {
        let phase = c.status.as_ref().and_then(|s| s.phase).map_or_else(String::new, |p| format!("{p:?}"));
        let tone = if is_open(c) { Tone::Notice } else { Tone::Good };
        let mut row: Vec<Cell> = vec![
            c.spec.volume_ref.name.clone().into(),
            c.spec.path.clone().into(),
            summary(c).into(),
            Cell::new(phase, tone),
            c.spec.resolution.clone().unwrap_or_default().into(),
        ];
        if wide {
            row.push(c.name_any().into());
        }
        row
    };
    let mut heading = vec!["VOLUME", "PATH", "VERSIONS", "PHASE", "RESOLUTION"];
    if wide {
        heading.push("NAME");
    }
    table(&heading, &conflicts.iter().map(row).collect::<Vec<_>>(), paint)
}

fn one(conflict: &FileConflict, paint: Paint) -> String {
    let status = conflict.status.clone().unwrap_or_default();
    let message = status.conditions.first().map(|c| c.message.clone()).unwrap_or_default();
    let row = |v: &FileVersion| -> Vec<Cell> {
        let time = v.mtime.as_ref().map(|t| t.0.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
        let hash = v.hash.as_deref().map(|h| h.chars().take(12).collect::<String>());
        let chosen = if v.chosen == Some(true) { Cell::new("chosen", Tone::Good) } else { "".into() };
        vec![
            v.writer.clone().unwrap_or_default().into(),
            v.size.map(human_bytes).unwrap_or_default().into(),
            time.unwrap_or_default().into(),
            v.path.clone().unwrap_or_default().into(),
            hash.unwrap_or_default().into(),
            chosen,
        ]
    };
    let rows: Vec<_> = status.versions.iter().map(row).collect();
    format!(
        "{} in {}/{}\n{message}\n\n{}",
        conflict.spec.path,
        conflict.namespace().unwrap_or_default(),
        conflict.spec.volume_ref.name,
        table(&["WRITER", "SIZE", "WRITTEN", "IS AT", "HASH", ""], &rows, paint)
    )
}

/// Lists them, or shows one.
///
/// # Errors
/// A request; there is no such conflict.
pub async fn show(
    cluster: &Cluster,
    scope: &Scope,
    which: Option<&str>,
    output: Output,
    paint: Paint,
) -> Result<ExitCode, Error> {
    let all = cluster.conflicts(scope).await?;
    let meant: Vec<FileConflict> = match which {
        None => all,
        Some(which) => all.into_iter().filter(|c| is_meant(c, which)).collect(),
    };
    if let (Some(which), true) = (which, meant.is_empty()) {
        return Err(Error::Said(format!("there is no conflict {which} {}", scope.say())));
    }
    let text = match (output, which, meant.as_slice()) {
        (Output::Json | Output::Yaml, ..) => structured(&meant, output)?,
        (_, Some(_), [conflict]) => one(conflict, paint),
        _ => list(&meant, output == Output::Wide, paint),
    };
    if meant.is_empty() {
        eprintln!("no conflict {}", scope.say());
    } else {
        print(&text);
    }
    Ok(ExitCode::SUCCESS)
}

/// Chooses in all that are meant.
///
/// # Errors
/// A request; nothing is meant.
pub async fn resolve(
    cluster: &Cluster,
    scope: &Scope,
    which: &[String],
    all: bool,
    keep: &str,
) -> Result<ExitCode, Error> {
    let resolution = resolution(keep)?;
    if which.is_empty() && !all {
        return Err(Error::Said("name conflicts, paths or globs; or --all".to_owned()));
    }
    decide(cluster, scope, which, &resolution, |c| {
        if all { is_open(c) } else { which.iter().any(|w| is_meant(c, w)) }
    })
    .await
}

/// Takes choices back: all versions that are kept are side by side again.
///
/// # Errors
/// A request; nothing is meant, or nobody has chosen there.
pub async fn undo(cluster: &Cluster, scope: &Scope, which: &[String]) -> Result<ExitCode, Error> {
    let both = resolution("both")?;
    let chosen = |c: &FileConflict| c.spec.resolution.as_ref().is_some_and(|r| *r != both);
    let meant = |c: &FileConflict| chosen(c) && which.iter().any(|w| is_meant(c, w));
    let known = cluster.conflicts(scope).await?;
    if let Some(open) = which
        .iter()
        .find(|w| known.iter().any(|c| is_meant(c, w)) && !known.iter().any(|c| chosen(c) && is_meant(c, w)))
    {
        return Err(Error::Said(format!("nobody has chosen a version of {open}: nothing was changed")));
    }
    decide(cluster, scope, which, &both, meant).await
}

/// Says the same of all that are meant.
async fn decide(
    cluster: &Cluster,
    scope: &Scope,
    which: &[String],
    resolution: &str,
    is_wanted: impl Fn(&FileConflict) -> bool,
) -> Result<ExitCode, Error> {
    let known = cluster.conflicts(scope).await?;
    if let Some(nothing) = which.iter().find(|w| !known.iter().any(|c| is_meant(c, w))) {
        return Err(Error::Said(format!(
            "there is no conflict {nothing} {}: nothing was changed",
            scope.say()
        )));
    }
    let meant = known.iter().filter(|c| is_wanted(c));
    let mut count = 0;
    for conflict in meant {
        let namespace = conflict.namespace().unwrap_or_default();
        cluster.resolve(&namespace, &conflict.name_any(), resolution).await?;
        println!("{}/{}: {resolution}", conflict.spec.volume_ref.name, conflict.spec.path);
        count += 1;
    }
    eprintln!("{count} decided; kubectl nearbrick conflicts shows what came of it");
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn conflict() -> FileConflict {
        serde_json::from_value(json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "FileConflict",
            "metadata": { "name": "home.0f", "namespace": "lab" },
            "spec": { "volumeRef": { "name": "home" }, "path": "docs/plan.txt" },
            "status": {
                "phase": "Open", "summary": "ws-a 24 B, ws-b 10 B",
                "versions": [
                    { "writer": "ws-a", "size": 24, "mtime": "2026-01-01T00:00:00Z", "path": "docs/plan.txt", "hash": "0123456789abcdef" },
                    { "writer": "ws-b", "size": 10, "path": "docs/plan (conflict).txt" },
                ],
            },
        }))
        .unwrap()
    }

    #[test]
    fn what_a_person_writes_is_a_resolution() {
        for (keep, wanted) in [
            ("both", "KeepBoth"),
            ("Newest", "Newest"),
            ("largest", "Largest"),
            ("ws-a", "Brick/ws-a"),
            ("Brick/home.ws-a", "Brick/home.ws-a"),
        ] {
            assert_eq!(resolution(keep).unwrap(), wanted);
        }
        assert!(resolution("").is_err());
    }

    #[test]
    fn conflicts_are_meant_by_name_path_or_glob_and_shown() {
        let c = conflict();
        assert!(["home.0f", "docs/plan.txt", "docs/*", "**/*.txt"].iter().all(|w| is_meant(&c, w)));
        assert!(!["plan.txt", "*.txt", "home.1"].iter().any(|w| is_meant(&c, w)));
        let text = list(std::slice::from_ref(&c), false, Paint(false));
        assert!(text.contains("home     docs/plan.txt   ws-a 24 B, ws-b 10 B   Open"), "{text}");
        let text = one(&c, Paint(false));
        assert!(text.contains("ws-a     24 B   2026-01-01 00:00:00 UTC   docs/plan.txt"), "{text}");
        assert!(text.contains("0123456789ab\n"), "{text}");
    }
}
