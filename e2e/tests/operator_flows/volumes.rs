//! Bricks, workstations, placement, and what is wrong with a spec.

use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use nearbrick_crds::{Brick, VolumeHealth, VolumePhase, Workstation, WorkstationVolume};
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::eventually;
use crate::{condition, event, says, world};

#[tokio::test]
async fn members_get_workstations_bricks_and_placement() {
    let (ns, nodes) = world("members", &["a", "b", "c"]).await;
    let [a, b, c] = [&nodes.names[0], &nodes.names[1], &nodes.names[2]];
    let spec = json!({
        "members": { "nodes": nodes.names },
        "replicaSets": [{ "nodes": [b, c], "paths": ["shared/**"] }],
    });
    let volume: WorkstationVolume = ns.create(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let placement = ns
        .until("placement", "home", |v: &WorkstationVolume| {
            v.status.as_ref().map(|s| s.placement.clone()).filter(|p| !p.is_empty())
        })
        .await;
    let brick = |node: &str| format!("home.{node}");
    let shown: Vec<_> =
        placement.iter().map(|r| (r.creator.clone(), r.paths.join(" "), r.bricks.clone())).collect();
    assert_eq!(
        shown,
        [
            (a.clone(), String::new(), vec![brick(a), brick(b)]),
            (b.clone(), "shared/**".into(), vec![brick(b), brick(c)]),
            (b.clone(), String::new(), vec![brick(b), brick(a)]),
            (c.clone(), "shared/**".into(), vec![brick(c), brick(b)]),
            (c.clone(), String::new(), vec![brick(c), brick(a)]),
        ]
    );
    let workstations: Api<Workstation> = Api::all(ns.client.clone());
    let mut uuids = vec![];
    for node in &nodes.names {
        eventually("the Workstation", || async { workstations.get(node).await.ok() }).await;
        let name = brick(node);
        let api = ns.api::<Brick>();
        let found = eventually("the Brick", || async { api.get(&name).await.ok() }).await;
        assert_eq!(found.spec.node, *node);
        assert_eq!(Some(&found.spec.volume_uuid), volume.metadata.uid.as_ref());
        assert_eq!(found.labels()["nearbrick.io/volume"], "home");
        let owner = &found.owner_references()[0];
        assert_eq!(
            (owner.kind.as_str(), Some(&owner.uid)),
            ("WorkstationVolume", volume.metadata.uid.as_ref())
        );
        assert_eq!(found.finalizers(), [nearbrick_crds::meta::FINALIZER_COPIES]);
        uuids.push(found.spec.uuid);
    }
    uuids.sort();
    uuids.dedup();
    assert_eq!(uuids.len(), 3, "each brick has an identity of its own");

    // A brick that somebody deletes comes back: as another brick.
    ns.api::<Brick>().delete(&brick(a), &DeleteParams::default()).await.unwrap();
    let is_new = |b: &Brick| (!uuids.contains(&b.spec.uuid)).then_some(());
    ns.until("a new brick", &brick(a), is_new).await;
}

#[tokio::test]
async fn an_unknown_node_is_named_until_it_comes() {
    let (ns, mut nodes) = world("unknown", &["a", "b"]).await;
    let missing = format!("{}-x", ns.name);
    let mut members = nodes.names.clone();
    members.push(missing.clone());
    let spec = json!({ "members": { "nodes": members } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    ns.until("UnknownNode", "home", |v| says(v, "Ready", "False", "UnknownNode")).await;
    let volume: WorkstationVolume = ns.api().get("home").await.unwrap();
    assert_eq!(
        condition(&volume, "Ready").unwrap().message,
        format!(
            "members.nodes names {missing}, which this cluster does not have: correct the name or add the node"
        )
    );
    assert_eq!(volume.status.unwrap().phase, Some(VolumePhase::Invalid));
    eventually("the Event", || event(&ns, "home", "UnknownNode", &missing)).await;
    // The others have their bricks.
    let api = ns.api::<Brick>();
    let first = format!("home.{}", nodes.names[0]);
    eventually("a brick", || async { api.get(&first).await.ok() }).await;
    assert!(api.get_opt(&format!("home.{missing}")).await.unwrap().is_none());

    nodes.add(&missing, json!({})).await;
    eventually("its brick", || async { api.get(&format!("home.{missing}")).await.ok() }).await;
    ns.until("no more problem", "home", |v| says(v, "Ready", "Unknown", "NeverReported")).await;
}

#[tokio::test]
async fn a_selector_that_finds_too_few_nodes_is_said() {
    let (ns, mut nodes) = world("selector", &[]).await;
    let label = |node: &str| (format!("{}-{node}", ns.name), json!({ "lab": ns.name }));
    let (name, labels) = label("a");
    nodes.add(&name, labels).await;
    let spec = json!({ "members": { "nodeSelector": { "matchLabels": { "lab": ns.name } } } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    ns.until("TooFewMembers", "home", |v| says(v, "Ready", "False", "TooFewMembers")).await;
    let volume: WorkstationVolume = ns.api().get("home").await.unwrap();
    assert_eq!(
        condition(&volume, "Ready").unwrap().message,
        "members.nodeSelector selects 1 node but replicas is 2: label more nodes or lower replicas"
    );
    let (name, labels) = label("b");
    nodes.add(&name, labels).await;
    ns.until("enough", "home", |v| says(v, "Ready", "Unknown", "NeverReported")).await;
}

#[tokio::test]
async fn what_is_not_acted_on_is_said() {
    let (ns, nodes) = world("unacted", &["a", "b"]).await;
    let spec = json!({ "members": { "nodes": nodes.names }, "capacity": "10Gi", "ignore": ["*.o"] });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    ns.until("SpecActedOn", "home", |v| says(v, "SpecActedOn", "False", "FieldsNotActedOnYet")).await;
    let volume: WorkstationVolume = ns.api().get("home").await.unwrap();
    let line = &condition(&volume, "SpecActedOn").unwrap().message;
    assert!(line.contains("ignore") && line.contains("capacity") && !line.contains("replicas"), "{line}");
    eventually("the Event", || event(&ns, "home", "FieldsNotActedOnYet", "capacity")).await;
    ns.patch::<WorkstationVolume>("home", json!({ "spec": { "capacity": null, "ignore": null } })).await;
    ns.until("SpecActedOn", "home", |v| says(v, "SpecActedOn", "True", "AllFieldsActedOn")).await;
}

#[tokio::test]
async fn the_status_sums_up_what_agents_report_and_is_not_written_again() {
    let (ns, nodes) = world("sums", &["a", "b"]).await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let a = Agent::start(&ns, "home", &nodes.names[0]).await;
    let b = Agent::start(&ns, "home", &nodes.names[1]).await;
    let brick = |i: usize| format!("home.{}", nodes.names[i]);
    ns.until("Protected", "home", |v: &WorkstationVolume| {
        (v.status.as_ref()?.health == Some(VolumeHealth::Protected)).then_some(())
    })
    .await;
    ns.until("Ready", "home", |v| says(v, "Ready", "True", "AllBricksReady")).await;

    // A says that B lacks 5 files, B knows of 3 of them; and A lacks one.
    a.report(
        &brick(0),
        json!({
            "pendingIn": { "files": 1, "bytes": 1024, "oldestSince": "2026-02-01T00:00:00Z" },
            "pendingOut": [{ "brick": brick(1), "files": 5, "bytes": 5120, "oldestSince": "2026-01-02T00:00:00Z" }],
            "files": 42, "bytes": 4200, "conflicts": 2,
        }),
    )
    .await;
    b.report(
        &brick(1),
        json!({ "pendingIn": { "files": 3, "bytes": 3072, "oldestSince": "2026-01-01T00:00:00Z" } }),
    )
    .await;
    let status = ns
        .until("the sum", "home", |v: &WorkstationVolume| {
            let status = v.status.clone()?;
            let pending = status.pending.as_ref()?;
            // A's word alone gives the same number: B's is there when its older file is.
            let oldest = serde_json::to_value(&pending.oldest_since).ok()?;
            let all = pending.files == 6 && status.conflicts == Some(2) && oldest == "2026-01-01T00:00:00Z";
            all.then_some(status)
        })
        .await;
    let pending = status.pending.unwrap();
    assert_eq!((pending.bytes, pending.size.as_deref()), (6144, Some("6.0 KiB")));
    assert_eq!((status.files, status.bytes), (Some(42), Some(4200)));
    let volume: WorkstationVolume = ns.api().get("home").await.unwrap();
    says(&volume, "ConflictFree", "False", "ConflictsOpen").unwrap();
    says(&volume, "Verified", "Unknown", "NeverVerified").unwrap();

    a.report(&brick(0), json!({ "pendingIn": { "files": 0, "bytes": 0 } })).await;
    b.report(&brick(1), json!({ "pendingIn": { "files": 0, "bytes": 0 } })).await;
    ns.until("Protected again", "home", |v| says(v, "Protected", "True", "NothingPending")).await;
    // Heartbeats go on: the bricks change, the volume does not.
    let before: WorkstationVolume = ns.api().get("home").await.unwrap();
    let heartbeat = |b: &Brick| b.status.as_ref().and_then(|s| s.heartbeat.clone());
    for _ in 0..2 {
        let seen = heartbeat(&ns.api().get(&brick(0)).await.unwrap());
        ns.until("a heartbeat", &brick(0), |b: &Brick| (heartbeat(b) > seen).then_some(())).await;
    }
    let after: WorkstationVolume = ns.api().get("home").await.unwrap();
    assert_eq!(before.metadata.resource_version, after.metadata.resource_version);
}

#[tokio::test]
async fn what_somebody_changes_by_hand_under_way_is_put_right_or_followed() {
    let (ns, nodes) = world("by-hand", &["a", "b", "c"]).await;
    let spec = json!({ "members": { "nodes": nodes.names[..2] } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let rules = |v: &WorkstationVolume| v.status.as_ref().map(|s| s.placement.clone()).unwrap_or_default();
    let right = ns.until("placement", "home", |v| Some(rules(v)).filter(|rules| rules.len() == 2)).await;
    // A status is the operator's to say, whoever writes into it.
    let wrong = json!([{ "creator": nodes.names[0], "bricks": ["home.nowhere"] }]);
    let lie = json!({ "status": { "placement": wrong, "phase": "Invalid", "files": 999 } });
    let api = ns.api::<WorkstationVolume>();
    let lied = api.patch_status("home", &PatchParams::default(), &Patch::Merge(&lie)).await.unwrap();
    assert_ne!(rules(&lied), right, "it was written");
    ns.until("placement as it was", "home", |v| (rules(v) == right).then_some(())).await;
    // What holds an object back is not taken off by hand.
    let brick = format!("home.{}", nodes.names[0]);
    ns.patch::<Brick>(&brick, json!({ "metadata": { "finalizers": [] } })).await;
    let held = |b: &Brick| (b.finalizers() == [nearbrick_crds::meta::FINALIZER_COPIES]).then_some(());
    ns.until("held back again", &brick, held).await;
    // A spec is a person's word: a member that comes under way has its place.
    ns.patch::<WorkstationVolume>("home", json!({ "spec": { "members": { "nodes": nodes.names } } })).await;
    ns.until("placement for the third", "home", |v| (rules(v).len() == 3).then_some(())).await;
}
