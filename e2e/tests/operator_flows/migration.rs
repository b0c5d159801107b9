//! Copies that follow the person, as far as the operator decides: proposals, rules for agents, phases, and what a person may do.

use kube::api::{Api, DeleteParams, ListParams};
use nearbrick_crds::{
    HealJob, JobReason, Joining, MigrationPhase, PlacementRule, ReplicaMigration, WorkstationVolume,
    placement_name,
};
use serde_json::{Value, json};

use crate::support::agent::{Agent, Nodes};
use crate::support::{Namespace, eventually};
use crate::{event, rules, world};

/// A volume on three nodes whose agents report.
async fn lab(name: &str, migration: Value) -> (Namespace, Nodes, Vec<Agent>) {
    let (ns, nodes) = world(name, &["a", "b", "c"]).await;
    let spec = json!({ "members": { "nodes": nodes.names }, "migration": migration });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let mut agents = vec![];
    for node in &nodes.names {
        agents.push(Agent::start(&ns, "home", node).await);
    }
    (ns, nodes, agents)
}

/// The only move there is, once `check` holds.
async fn the_move(ns: &Namespace, what: &str, check: impl Fn(&ReplicaMigration) -> bool) -> ReplicaMigration {
    let api: Api<ReplicaMigration> = ns.api();
    eventually(what, || async {
        let list = api.list(&ListParams::default()).await.ok()?.items;
        assert!(list.len() < 2, "{list:?}");
        list.into_iter().next().filter(|m| check(m))
    })
    .await
}

fn is(phase: MigrationPhase) -> impl Fn(&ReplicaMigration) -> bool {
    move |m| m.status.as_ref().and_then(|s| s.phase) == Some(phase)
}

/// What an agent says of a group that is used there.
fn hot(bricks: [&String; 2], uses: u64) -> Value {
    let bricks = bricks.map(|node| format!("home.{node}"));
    json!([{
        "path": "engine", "below": true, "local": 0, "cached": 0, "remote": uses, "writes": 0,
        "files": 10, "bytes": 4096, "awayFiles": 10, "awayBytes": 4096, "bricks": bricks,
    }])
}

#[tokio::test]
async fn a_group_that_is_used_elsewhere_moves_there_in_steps() {
    let (ns, nodes, agents) = lab("moves", json!({ "mode": "Automatic", "dwell": "1s" })).await;
    let [a, b, c] = [0, 1, 2].map(|n| &nodes.names[n]);
    let brick = |n: usize| format!("home.{}", nodes.names[n]);
    let before = rules(&ns, "rules", |r| r.len() == 3).await;
    let none = json!({ "files": 0, "bytes": 0 });
    let report = |n: usize, rules: &[PlacementRule], more: Value| {
        let mut status = json!({ "placement": placement_name(rules), "unplaced": none });
        more.as_object().unwrap().iter().for_each(|(k, v)| status[k] = v.clone());
        let (agent, brick) = (&agents[n], brick(n));
        async move { agent.report(&brick, status).await }
    };
    let here = hot([a, b], 40);
    report(2, &before, json!({ "hottest": here })).await;
    let adding = the_move(&ns, "it begins", is(MigrationPhase::Adding)).await;
    let name = adding.metadata.name.clone().unwrap();
    let status = adding.status.unwrap();
    assert_eq!((adding.spec.paths, adding.spec.to), (vec!["engine/**".to_string()], brick(2)));
    assert_eq!((status.from, status.bricks), (Some(brick(1)), vec![brick(2), brick(0)]));
    assert!(status.evidence.unwrap().contains("opened 40 times there"));
    eventually("the Event", || event(&ns, &name, "MigrationStarted", "engine/**")).await;
    let has = |r: &[PlacementRule], joining| {
        r.first().is_some_and(|r| {
            r.creator.is_empty() && r.migration.as_ref() == Some(&name) && r.joining == joining
        })
    };
    let now = rules(&ns, "rules to add", |r| has(r, Some(Joining::Adding))).await;
    // The brick lacks the files: they are brought at once, and for that reason.
    let lacks = json!({ "files": 10, "bytes": 4096, "oldestSince": crate::support::ago(1) });
    let left = json!([{ "migration": name, "files": 10, "bytes": 4096, "busy": 0 }]);
    report(2, &now, json!({ "hottest": here, "pendingIn": lacks, "moves": left })).await;
    let jobs: Api<HealJob> = ns.api();
    eventually("a heal for it", || async {
        let list = jobs.list(&ListParams::default()).await.ok()?.items;
        let of = |j: &HealJob| j.spec.reason == JobReason::Migration && j.spec.target_bricks == [brick(2)];
        list.iter().any(of).then_some(())
    })
    .await;
    let m = the_move(&ns, "what is left is shown", |m| {
        m.status.as_ref().and_then(|s| s.left.as_ref()).is_some_and(|p| p.files == 10)
    })
    .await;
    assert_eq!(m.status.unwrap().phase, Some(MigrationPhase::Adding));
    for n in 0..3 {
        report(n, &now, if n == 2 { json!({ "hottest": here }) } else { json!({}) }).await;
    }
    let now = rules(&ns, "rules to verify", |r| has(r, Some(Joining::Verifying))).await;
    for n in 0..3 {
        report(n, &now, json!({})).await;
    }
    the_move(&ns, "it waits for evidence", |m| {
        is(MigrationPhase::Verifying)(m)
            && m.status.as_ref().unwrap().message.as_ref().unwrap().contains("reads")
    })
    .await;
    let read = json!({ "files": 10, "bytes": 4096, "damaged": 0, "left": 0 });
    let verified = json!([{ "migration": name, "files": 0, "bytes": 0, "busy": 0, "verified": read }]);
    report(2, &now, json!({ "moves": verified })).await;
    let now = rules(&ns, "rules to drop", |r| has(r, None)).await;
    assert_eq!(now[0].bricks, [brick(2), brick(0)]);
    for n in 0..3 {
        report(n, &now, json!({})).await;
    }
    let done = the_move(&ns, "it is done", is(MigrationPhase::Done)).await;
    let moved =
        nearbrick_crds::condition::find(&done.status.as_ref().unwrap().conditions, "Moved").unwrap().clone();
    assert_eq!((moved.status.as_str(), moved.reason.as_str()), ("True", "Moved"));
    // The rule stays when the object goes, and gets another brick when one of its own leaves.
    ns.api::<ReplicaMigration>().delete(&name, &DeleteParams::default()).await.unwrap();
    let workstations: Api<nearbrick_crds::Workstation> = Api::all(ns.client.clone());
    let evict = json!({ "spec": { "evictionRequested": true } });
    workstations
        .patch(c, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&evict))
        .await
        .unwrap();
    let after = rules(&ns, "rules without it", |r| {
        r.first().is_some_and(|r| r.creator.is_empty() && !r.bricks.contains(&brick(2)))
    })
    .await;
    assert_eq!((after[0].paths.as_slice(), after[0].bricks.len()), (&["engine/**".to_string()][..], 2));
}

#[tokio::test]
async fn a_proposal_waits_for_a_persons_word_and_is_withdrawn_when_nothing_calls_for_it() {
    let (ns, nodes, agents) = lab("proposes", json!({ "mode": "Propose" })).await;
    let [a, b, _] = [0, 1, 2].map(|n| &nodes.names[n]);
    let brick = format!("home.{}", nodes.names[2]);
    rules(&ns, "rules", |r| r.len() == 3).await;
    agents[2].report(&brick, json!({ "hottest": hot([a, b], 40) })).await;
    let proposed = the_move(&ns, "it is proposed", |m| {
        let message = m.status.as_ref().and_then(|s| s.message.clone()).unwrap_or_default();
        m.spec.dry_run
            && message.contains("10 files (4.0 KiB) would be copied")
            && message.contains("dryRun: false")
    })
    .await;
    assert!(is(MigrationPhase::Proposed)(&proposed));
    agents[2].report(&brick, json!({ "hottest": [] })).await;
    let api: Api<ReplicaMigration> = ns.api();
    eventually("it is withdrawn", || async {
        api.list(&ListParams::default()).await.ok()?.items.is_empty().then_some(())
    })
    .await;
    agents[2].report(&brick, json!({ "hottest": hot([a, b], 40) })).await;
    let again = the_move(&ns, "it is proposed again", |m| m.spec.dry_run).await;
    let name = again.metadata.name.unwrap();
    ns.patch::<ReplicaMigration>(&name, json!({ "spec": { "dryRun": false } })).await;
    the_move(&ns, "it begins at once", is(MigrationPhase::Adding)).await;
    rules(&ns, "rules", |r| r.first().is_some_and(|r| r.migration.as_ref() == Some(&name))).await;
    // Deleted on the way, it is taken back.
    api.delete(&name, &DeleteParams::default()).await.unwrap();
    rules(&ns, "rules as before", |r| r.iter().all(|r| r.migration.is_none())).await;
}

#[tokio::test]
async fn a_person_may_move_what_they_want_and_is_told_why_not() {
    let (ns, nodes, _agents) = lab("asked", json!({ "mode": "Off" })).await;
    let brick = |n: usize| format!("home.{}", nodes.names[n]);
    rules(&ns, "rules", |r| r.len() == 3).await;
    let make = |name: &str, spec: Value| {
        let mut all = json!({ "volumeRef": { "name": "home" }, "paths": ["engine/**"] });
        spec.as_object().unwrap().iter().for_each(|(k, v)| all[k] = v.clone());
        let (ns, object) = (&ns, json!({ "metadata": { "name": name }, "spec": all }));
        async move { ns.create::<ReplicaMigration>(object).await }
    };
    let says = |name: &'static str, phase: MigrationPhase, part: &'static str| {
        let ns = &ns;
        async move {
            ns.until(part, name, |m: &ReplicaMigration| {
                let status = m.status.as_ref()?;
                (status.phase == Some(phase) && status.message.as_ref()?.contains(part)).then_some(())
            })
            .await;
        }
    };
    make("nowhere", json!({ "to": "home.nobody" })).await;
    says("nowhere", MigrationPhase::Refused, "the volume has no brick home.nobody").await;
    make("unknown", json!({ "to": brick(2) })).await;
    says("unknown", MigrationPhase::Refused, "say in `from` which one gives up its copy").await;
    make("dry", json!({ "to": brick(2), "from": brick(0), "dryRun": true })).await;
    says("dry", MigrationPhase::Proposed, "given up at").await;
    make("asked", json!({ "to": brick(2), "from": brick(0) })).await;
    says("asked", MigrationPhase::Adding, "").await;
    rules(&ns, "rules", |r| {
        r.first().is_some_and(|r| r.migration.as_deref() == Some("asked") && r.bricks.contains(&brick(2)))
    })
    .await;
    make("second", json!({ "to": brick(1), "from": brick(0) })).await;
    says("second", MigrationPhase::Proposed, "waits for asked, which moves some of the same files").await;
}
