use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn object<K: DeserializeOwned>(kind: &str, namespace: &str, name: &str, parts: Value) -> Arc<K> {
    let mut object = json!({
        "apiVersion": "nearbrick.io/v1alpha1", "kind": kind,
        "metadata": { "name": name, "namespace": namespace, "creationTimestamp": "2026-01-01T00:00:00Z" },
    });
    for (part, value) in parts.as_object().unwrap() {
        object[part] = value.clone();
    }
    Arc::new(serde_json::from_value(object).unwrap())
}

fn said(type_: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({ "type": type_, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z" })
}

fn brick(namespace: &str, node: &str, status: Value) -> Arc<Brick> {
    let spec = json!({ "volumeRef": { "name": "home" }, "volumeUuid": "v", "node": node, "uuid": "u" });
    object("Brick", namespace, &format!("home.{node}"), json!({ "spec": spec, "status": status }))
}

fn hot(path: &str, local: u64) -> Value {
    json!({ "path": path, "below": true, "local": local, "cached": 0, "remote": 0, "writes": 0,
            "files": 1, "bytes": 1, "awayFiles": 0, "awayBytes": 0, "bricks": ["home.ws-a"] })
}

fn conflict(namespace: &str, name: &str, phase: &str) -> Arc<FileConflict> {
    object(
        "FileConflict",
        namespace,
        name,
        json!({
            "spec": { "volumeRef": { "name": "home" }, "path": "secret/plan.txt" },
            "status": { "phase": phase, "summary": "ws-a 24 B, ws-b 10 B",
                "versions": [{ "writer": "ws-a", "size": 24, "path": "secret/plan.txt" },
                             { "writer": "ws-b", "size": 10 }],
                "conditions": [said("Resolved", "False", "NotDecided", "secret/plan.txt: choose")] },
        }),
    )
}

/// Every text that can hold a path holds the word `secret`.
fn lab() -> Objects {
    let volume = object(
        "WorkstationVolume",
        "lab",
        "home",
        json!({
            "spec": { "members": { "nodes": ["ws-a", "ws-b"] }, "replicas": 2 },
            "status": { "phase": "Ready", "health": "Conflicted", "files": 10, "bytes": 1000, "conflicts": 1,
                "pending": { "files": 2, "bytes": 300, "oldestSince": "2026-01-01T00:00:00Z" },
                "placement": [{ "creator": "", "paths": ["secret/**"], "bricks": ["home.ws-a"] }],
                "conditions": [said("Ready", "True", "AllBricksReady", "secret"),
                               said("ConflictFree", "False", "ConflictsOpen", "secret")] },
        }),
    );
    let workstation = |name: &str, state: &str| {
        object::<Workstation>(
            "Workstation",
            "",
            name,
            json!({ "spec": {}, "status": { "state": state, "lastSeen": "2026-01-01T00:00:00Z",
                "conditions": [said("SafeToLeave", "False", "Pending", "secret")] } }),
        )
    };
    let node = |name: &str, zone: &str| {
        object("Node", "", name, json!({ "metadata": { "name": name, "labels": { ZONE: zone } } }))
    };
    let status = |groups: Value| {
        json!({ "state": "Ready", "message": "secret", "pending": { "files": 1, "bytes": 7 },
            "hottest": groups, "lastError": { "reason": "Corrupt", "message": "secret" },
            "unplacedBecause": "secret",
            "moves": [{ "migration": "m", "files": 1, "bytes": 1, "busy": 0 }],
            "conditions": [said("Ready", "True", "Mounted", "secret"),
                           said("RemovalsFollowed", "False", "TooMany", "secret")] })
    };
    let job = |name: &str, phase: &str| {
        object(
            "HealJob",
            "lab",
            name,
            json!({ "spec": { "volumeRef": { "name": "home" }, "reason": "Trigger", "paths": ["secret/job/*"] },
                "status": { "phase": phase, "targets": ["home.ws-b"], "message": "secret",
                    "files": { "done": 1, "total": 2, "failed": 1 }, "failures": "1 Busy",
                    "transfers": [{ "target": "home.ws-b",
                        "failures": [{ "reason": "Busy", "count": 1, "message": "secret/x is open" }] }] } }),
        )
    };
    let moving = |name: &str, phase: &str| {
        object(
            "ReplicaMigration",
            "lab",
            name,
            json!({ "spec": { "volumeRef": { "name": "home" }, "paths": ["secret/**"], "to": "home.ws-b" },
                "status": { "phase": phase, "message": "secret", "evidence": "secret", "from": "home.ws-a",
                    "group": { "files": 9, "bytes": 90 }, "left": { "files": 4, "bytes": 40 } } }),
        )
    };
    Objects {
        volumes: vec![volume],
        bricks: vec![
            brick("lab", "ws-a", status(json!([hot("secret/one", 5), hot("secret/two", 1)]))),
            brick("lab", "ws-b", status(json!([hot("secret/two", 9)]))),
        ],
        workstations: vec![workstation("ws-b", "Online"), workstation("ws-a", "Away")],
        conflicts: vec![conflict("lab", "home.0f", "Open"), conflict("lab", "home.1f", "Resolved")],
        jobs: vec![job("heal-1", "Running"), job("heal-0", "Completed")],
        moves: vec![moving("m-0", "Proposed"), moving("m-1", "Adding"), moving("m-2", "Done")],
        nodes: vec![node("ws-a", "east"), node("ws-b", "west")],
    }
}

fn view(rights: &Rights) -> (View, String) {
    let view = View::of(&lab(), rights, |_, _| Series::default());
    let text = serde_json::to_string(&view).unwrap();
    (view, text)
}

#[test]
fn without_rights_no_path_is_shown_and_all_counts_are() {
    let (view, text) = view(&Rights::default());
    assert!(!text.contains("secret"), "{text}");
    assert!(view.leading && !view.names && view.conflicts.is_empty());
    let [volume] = &view.volumes[..] else { panic!("{text}") };
    assert_eq!((volume.conflicts, volume.pending.files, volume.pending.bytes), (1, 2, 300));
    assert_eq!(volume.trouble.len(), 1);
    assert_eq!(volume.trouble[0].reason, "ConflictsOpen");
    let [heat] = &view.heat[..] else { panic!("{text}") };
    assert_eq!((heat.groups, heat.top.len()), (2, 0));
    assert_eq!(heat.nodes[0], Uses { node: "ws-b".into(), uses: 9 });
    assert_eq!(heat.nodes[1], Uses { node: "ws-a".into(), uses: 6 });
}

#[test]
fn with_rights_conflicts_and_groups_have_their_names() {
    let all = Rights { conflicts: Scope::All, bricks: Scope::All, moves: Scope::All };
    let (view, text) = view(&all);
    let [conflict] = &view.conflicts[..] else { panic!("{text}") };
    assert_eq!((conflict.name.as_str(), conflict.path.as_str()), ("home.0f", "secret/plan.txt"));
    assert_eq!(conflict.versions.len(), 2);
    let [one, two] = &view.heat[0].top[..] else { panic!("{text}") };
    assert_eq!((one.path.as_str(), one.uses, one.nodes.len()), ("secret/two", 10, 2));
    assert_eq!((two.path.as_str(), two.uses), ("secret/one", 5));
    assert_eq!(view.zones[0].workstations[0].bricks[0].message.as_deref(), Some("secret"));
    // Who heals reads the globs of a job elsewhere: nobody sees them here.
    assert!(!text.contains("secret/job") && !text.contains("is open"), "{text}");
}

#[test]
fn rights_are_by_namespace_and_by_kind() {
    let only = |names: &str| Scope::Some([names.to_owned()].into());
    let none = Rights::default;
    for (rights, conflicts, groups, paths) in [
        (Rights { conflicts: only("lab"), ..none() }, 1, 0, 0),
        (Rights { bricks: only("lab"), ..none() }, 0, 2, 0),
        (Rights { moves: only("lab"), ..none() }, 0, 0, 1),
        (Rights { conflicts: only("other"), bricks: only("other"), moves: only("other") }, 0, 0, 0),
    ] {
        let (view, text) = view(&rights);
        let shown = (view.conflicts.len(), view.heat[0].top.len(), view.moves[0].paths.len());
        assert_eq!(shown, (conflicts, groups, paths), "{text}");
    }
}

#[test]
fn workstations_are_by_zone_with_their_bricks_and_only_heals_in_flight_are_shown() {
    let (view, text) = view(&Rights::default());
    let [east, west] = &view.zones[..] else { panic!("{text}") };
    assert_eq!((east.name.as_str(), west.name.as_str()), ("east", "west"));
    let a = &east.workstations[0];
    assert_eq!((a.name.as_str(), a.state), ("ws-a", Some(WorkstationState::Away)));
    assert_eq!((a.safe_to_leave.as_deref(), a.safe_because.as_deref()), (Some("False"), Some("Pending")));
    assert!(a.last_seen.is_some() && west.workstations[0].last_seen.is_none());
    assert_eq!((a.bricks[0].volume.as_str(), a.bricks[0].uses), ("home", 6));
    assert!(a.bricks[0].removals_held);
    let [heal] = &view.heals[..] else { panic!("{text}") };
    assert_eq!((heal.name.as_str(), heal.reason, heal.files.done), ("heal-1", "Trigger", 1));
    assert_eq!(heal.failures.as_deref(), Some("1 Busy"));
    let [moving, proposed] = &view.moves[..] else { panic!("{text}") };
    assert_eq!((moving.name.as_str(), moving.phase), ("m-1", MigrationPhase::Adding));
    assert_eq!((moving.from.as_deref(), moving.to.as_str()), (Some("home.ws-a"), "home.ws-b"));
    assert_eq!((moving.group.files, moving.left.files), (9, 4));
    assert_eq!(proposed.name, "m-0");
}
