//! What the API server refuses by itself, each with its message.

use kube::api::{Api, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::support::Namespace;

fn api(ns: &Namespace, kind: &str) -> Api<DynamicObject> {
    let gvk = GroupVersionKind::gvk("nearbrick.io", "v1alpha1", kind);
    let plural = nearbrick_crds::schema::all()
        .unwrap()
        .into_iter()
        .find(|c| c.spec.names.kind == kind)
        .unwrap()
        .spec
        .names
        .plural;
    let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
    if kind == "Workstation" {
        Api::all_with(ns.client.clone(), &resource)
    } else {
        Api::namespaced_with(ns.client.clone(), &ns.name, &resource)
    }
}

fn object(kind: &str, name: &str, spec: Value) -> DynamicObject {
    serde_json::from_value(json!({
        "apiVersion": "nearbrick.io/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    }))
    .unwrap()
}

fn dry() -> PostParams {
    PostParams { dry_run: true, ..PostParams::default() }
}

/// Each spec of `kind` is refused, with this part in its message.
async fn refused(ns: &Namespace, kind: &str, name: &str, cases: &[(Value, &str)]) {
    for (spec, part) in cases {
        let line = match api(ns, kind).create(&dry(), &object(kind, name, spec.clone())).await {
            Ok(_) => panic!("{kind} {spec} was accepted; expected: {part}"),
            Err(kube::Error::Api(status)) => status.message,
            Err(error) => panic!("{error}"),
        };
        assert!(line.contains(part), "{kind} {spec}\n  said: {line}\n  not: {part}");
    }
}

async fn accepted(ns: &Namespace, kind: &str, name: &str, specs: &[Value]) {
    for spec in specs {
        let made = api(ns, kind).create(&dry(), &object(kind, name, spec.clone())).await;
        assert!(made.is_ok(), "{kind} {spec}: {}", made.unwrap_err());
    }
}

/// Makes the object; then each change of its spec is refused, with this part in its message.
async fn fixed(ns: &Namespace, kind: &str, name: &str, spec: Value, changes: &[(Value, &str)]) {
    let api = api(ns, kind);
    api.create(&PostParams::default(), &object(kind, name, spec)).await.unwrap();
    for (change, part) in changes {
        let patch = json!({ "spec": change });
        let line = match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => panic!("{kind}: the change {change} was accepted; expected: {part}"),
            Err(kube::Error::Api(status)) => status.message,
            Err(error) => panic!("{error}"),
        };
        assert!(line.contains(part), "{kind} {change}\n  said: {line}\n  not: {part}");
    }
}

#[tokio::test]
async fn volumes() {
    let ns = Namespace::new("rules-wsv").await;
    let two = json!({ "nodes": ["a", "b"] });
    let exactly_one =
        "set either members.nodes (names) or members.nodeSelector (labels), exactly one of them";
    let too_many = "replicas is more than the nodes that members.nodes lists: add nodes or lower replicas";
    let cases = [
        (json!({ "members": { "nodes": ["a", "b"], "nodeSelector": {} } }), exactly_one),
        (json!({ "members": {} }), exactly_one),
        (json!({ "members": two, "replicas": 3 }), too_many),
        // Two copies are the default.
        (json!({ "members": { "nodes": ["a"] } }), too_many),
        (json!({ "members": two, "replicas": 0 }), "should be greater than or equal to 1"),
        (json!({ "members": { "nodes": ["a", "a"] } }), "Duplicate value"),
        (
            json!({ "members": two, "replicaSets": [{ "nodes": ["a", "c"] }] }),
            "a replica set names a node that is not in members.nodes: add the node to members.nodes or take it out of replicaSets",
        ),
        (
            json!({ "members": two, "replicaSets": [{ "nodes": ["a"] }] }),
            "a replica set has fewer nodes than replicas: add nodes to it or lower replicas",
        ),
        (
            json!({ "members": { "nodeSelector": {} }, "replicaSets": [{ "nodes": ["a"] }] }),
            "a replica set has fewer nodes than replicas",
        ),
        (
            json!({ "members": two, "replicaSets": [{ "nodes": ["a", "a"] }] }),
            "a replica set names a node twice: name each node once",
        ),
        (
            json!({ "members": two, "minSyncCopies": 3 }),
            "minSyncCopies is more than replicas: lower it or raise replicas",
        ),
        (json!({ "members": two, "capacity": "much" }), "write a capacity such as 500Gi"),
        (json!({ "members": two, "staleReads": "Maybe" }), "Unsupported value: \"Maybe\""),
    ];
    refused(&ns, "WorkstationVolume", "home", &cases).await;
    let name = "a WorkstationVolume's name has no dot and at most 63 characters";
    refused(&ns, "WorkstationVolume", "ho.me", &[(json!({ "members": two }), name)]).await;
    refused(&ns, "WorkstationVolume", &"x".repeat(64), &[(json!({ "members": two }), name)]).await;
    accepted(
        &ns,
        "WorkstationVolume",
        "home",
        &[
            json!({ "members": two }),
            json!({ "members": { "nodes": ["a"] }, "replicas": 1 }),
            // How many nodes a selector finds, only the cluster knows.
            json!({ "members": { "nodeSelector": {} }, "replicas": 9 }),
            json!({ "members": two, "replicaSets": [{ "nodes": ["b", "a"], "paths": ["src/**"] }] }),
            json!({ "members": { "nodes": ["a", "b"], "nodeSelector": null } }),
        ],
    )
    .await;
}

#[tokio::test]
async fn two_replicas_are_the_default() {
    let ns = Namespace::new("rules-default").await;
    let spec = json!({ "members": { "nodes": ["a", "b"] } });
    let made = api(&ns, "WorkstationVolume")
        .create(&dry(), &object("WorkstationVolume", "home", spec))
        .await
        .unwrap();
    assert_eq!(made.data["spec"]["replicas"], 2);
    let made = api(&ns, "HealPolicy").create(&dry(), &object("HealPolicy", "p", json!({}))).await.unwrap();
    assert_eq!(made.data["spec"]["historyLimits"], json!({ "successful": 3, "failed": 3 }));
    assert_eq!(made.data["spec"]["paused"], false);
}

#[tokio::test]
async fn heal_policies() {
    let ns = Namespace::new("rules-whp").await;
    let interval = "write an interval of at least one second, such as 30s, 10m or 1h30m";
    let five = "a cron schedule has five fields (minute hour day-of-month month day-of-week)";
    let cron = |s: &str| json!({ "cron": { "schedule": s } });
    let cases = [
        (
            json!({ "interval": "10m", "cron": { "schedule": "0 18 * * *" } }),
            "set either interval or cron, not both: remove one of them",
        ),
        (json!({ "interval": "soon" }), interval),
        (json!({ "interval": "10" }), interval),
        (json!({ "interval": "0s" }), interval),
        (json!({ "interval": "-5m" }), interval),
        (cron("* * * *"), five),
        (cron("* * * * * *"), five),
        (cron("   "), five),
        (cron("@sometimes"), "unknown nickname: write @hourly, @daily"),
        (json!({ "verifySchedule": { "schedule": "* *" } }), five),
        (json!({ "maxPendingAge": "old" }), "write a duration such as 30s, 10m or 1h30m"),
        (json!({ "maxPendingBytes": "many" }), "write a number of bytes such as 10Gi"),
        (json!({ "bandwidth": "fast" }), "write bytes in a second, such as 50Mi"),
        (
            json!({ "windows": [{ "start": { "schedule": "0 1 * * *" }, "duration": "a while" }] }),
            "write a duration such as 30s, 10m or 1h30m",
        ),
        (json!({ "jitter": "some" }), "write a duration such as 30s, 10m or 1h30m"),
        (json!({ "interval": "1m", "jitter": "2m" }), "jitter is longer than the interval: lower it"),
        (json!({ "startingDeadline": "1s" }), "write a deadline of at least ten seconds"),
        (json!({ "whenSettled": "1ms" }), "write a pause of one second to one hour, such as 5s"),
        (json!({ "whenSettled": "2h" }), "write a pause of one second to one hour, such as 5s"),
        (json!({ "concurrency": 0 }), "should be greater than or equal to 1"),
        (json!({ "historyLimits": { "failed": 1000 } }), "should be less than or equal to 100"),
    ];
    refused(&ns, "HealPolicy", "p", &cases).await;
    accepted(
        &ns,
        "HealPolicy",
        "p",
        &[
            json!({}),
            json!({ "interval": "1h30m" }),
            cron("0  18 * * 1-5"),
            cron("@daily"),
            json!({ "interval": "10m", "jitter": "10m", "startingDeadline": "1m", "whenSettled": "5s" }),
        ],
    )
    .await;
}

#[tokio::test]
async fn heal_jobs() {
    let ns = Namespace::new("rules-whj").await;
    let spec = json!({ "volumeRef": { "name": "home" }, "targetBricks": ["home.a"] });
    let changes = [
        (
            json!({ "volumeRef": { "name": "other" } }),
            "volumeRef of a HealJob cannot be changed: make a new HealJob",
        ),
        (
            json!({ "targetBricks": ["home.b"] }),
            "targetBricks of a HealJob cannot be changed: make a new HealJob",
        ),
    ];
    fixed(&ns, "HealJob", "j", spec, &changes).await;
    refused(&ns, "HealJob", "k", &[(json!({}), "spec.volumeRef: Required value")]).await;
}

#[tokio::test]
async fn bricks() {
    let ns = Namespace::new("rules-wsb").await;
    let uuid = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0";
    let other = "1f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0";
    let spec = |extra: Value| {
        let mut spec =
            json!({ "volumeRef": { "name": "home" }, "volumeUuid": uuid, "node": "ws-a", "uuid": uuid });
        for (key, value) in extra.as_object().unwrap() {
            spec[key] = value.clone();
        }
        spec
    };
    let path = "path of a Brick is absolute and has no '..'";
    let cases = [
        (spec(json!({ "uuid": "x" })), "spec.uuid"),
        (spec(json!({ "path": "bricks/home" })), path),
        (spec(json!({ "path": "/bricks/../etc" })), path),
        (spec(json!({ "node": "ws-b" })), "a Brick is named VOLUME.NODE"),
    ];
    refused(&ns, "Brick", "home.ws-a", &cases).await;
    accepted(&ns, "Brick", "home.ws-a", &[spec(json!({ "path": "/bricks/..home" }))]).await;
    let changes = [
        (
            json!({ "uuid": other }),
            "uuid of a Brick cannot be changed: it is the identity of the data on disk",
        ),
        (json!({ "node": "ws-b" }), "node of a Brick cannot be changed"),
        (json!({ "volumeRef": { "name": "x" } }), "volumeRef of a Brick cannot be changed"),
        (json!({ "volumeUuid": other }), "volumeUuid of a Brick cannot be changed"),
    ];
    fixed(&ns, "Brick", "home.ws-a", spec(json!({})), &changes).await;
}

#[tokio::test]
async fn migrations_and_conflicts() {
    let ns = Namespace::new("rules-rest").await;
    let volume = json!({ "name": "home" });
    let same = json!({ "volumeRef": volume, "paths": ["p"], "to": "home.a", "from": "home.a" });
    refused(
        &ns,
        "ReplicaMigration",
        "m",
        &[
            (same, "from and to are the same brick: name two bricks"),
            (json!({ "volumeRef": volume, "paths": [], "to": "home.a" }), "spec.paths"),
        ],
    )
    .await;
    fixed(
        &ns,
        "ReplicaMigration",
        "m",
        json!({ "volumeRef": volume, "paths": ["p"], "to": "home.a" }),
        &[
            (json!({ "volumeRef": { "name": "x" } }), "volumeRef of a ReplicaMigration cannot be changed"),
            (json!({ "to": "home.b" }), "where to, cannot be changed: make a new one"),
            (json!({ "from": "home.b" }), "where to, cannot be changed: make a new one"),
            (json!({ "paths": ["q"] }), "where to, cannot be changed: make a new one"),
        ],
    )
    .await;
    let members = json!({ "nodes": ["a", "b"] });
    let of = |conflicts: &str| json!({ "members": members, "conflicts": conflicts });
    let rule = |policy: &str| json!({ "members": members, "conflictRules": [{ "paths": ["*.odt"], "policy": policy }] });
    let word = "is KeepBoth, Newest, Largest, Manual or Brick/NAME";
    let kept = json!({ "members": members, "versionRetention": "a week" });
    let replaced = json!({ "members": members, "replaceAfter": "3 days" });
    let migrates = |how: Value| json!({ "members": members, "migration": how });
    let no_paths = json!({ "members": members, "conflictRules": [{ "paths": [], "policy": "Newest" }] });
    let refuses = [
        (of("Mine"), word),
        (of("Brick/"), word),
        (rule("mine"), word),
        (no_paths, "conflictRules[0].paths"),
        (kept, "write a duration such as 168h"),
        (replaced, "write a duration such as 72h"),
        (migrates(json!({})), "mode"),
        (migrates(json!({ "mode": "Automatic", "dwell": "soon" })), "write a duration such as 30m"),
        (migrates(json!({ "mode": "Automatic", "coolDown": "1 day" })), "write a duration such as 1h"),
        (migrates(json!({ "mode": "Automatic", "bytesPerHour": "much" })), "write bytes such as 50Gi"),
        (migrates(json!({ "mode": "Automatic", "factor": 0 })), "factor"),
    ];
    refused(&ns, "WorkstationVolume", "v", &refuses).await;
    let takes = [
        of("Newest"),
        migrates(
            json!({ "mode": "Propose", "related": "Directory", "dwell": "10m", "bytesPerHour": "20Gi" }),
        ),
        of("Brick/a"),
        rule("Manual"),
        json!({ "members": members, "versionRetention": "24h" }),
        json!({ "members": members, "replaceAfter": "72h" }),
    ];
    accepted(&ns, "WorkstationVolume", "v", &takes).await;
    let word = "resolution is KeepBoth, Newest, Largest or Brick/NAME";
    let name = "home.0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    refused(
        &ns,
        "FileConflict",
        name,
        &[
            (json!({ "volumeRef": volume, "path": "f", "resolution": "Mine" }), word),
            (json!({ "volumeRef": volume, "path": "f", "resolution": "Brick/" }), word),
            (json!({ "volumeRef": volume, "path": "f", "resolution": "Manual" }), word),
            (
                json!({ "volumeRef": { "name": "other" }, "path": "f" }),
                "a FileConflict is named VOLUME.FILE-ID",
            ),
        ],
    )
    .await;
    let unnamed = [(json!({ "volumeRef": volume, "path": "f" }), "a FileConflict is named VOLUME.FILE-ID")];
    refused(&ns, "FileConflict", "c", &unnamed).await;
    let frozen = "volumeRef and path of a FileConflict cannot be changed: only resolution can";
    fixed(
        &ns,
        "FileConflict",
        name,
        json!({ "volumeRef": volume, "path": "f" }),
        &[(json!({ "path": "g" }), frozen)],
    )
    .await;
    let window = json!({ "expectedOffline": [{ "start": { "schedule": "x" }, "duration": "8h" }] });
    refused(&ns, "Workstation", "rules-ws", &[(window, "a cron schedule has five fields")]).await;
}
