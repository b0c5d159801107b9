//! Bricks and workstations that are deleted, and disks that are full, as far as the operator sees to them.

use kube::api::{Api, DeleteParams};
use nearbrick_crds::condition::find;
use nearbrick_crds::{Brick, PlacementRule, Workstation, WorkstationVolume, placement_name};
use serde_json::{Value, json};

use crate::support::agent::Agent;
use crate::support::eventually;
use crate::{rules, world};

fn condition(status: &str, type_: &str, reason: &str) -> Value {
    let now = nearbrick_crds::meta::now();
    json!({ "type": type_, "status": status, "reason": reason, "message": reason, "lastTransitionTime": now })
}

#[tokio::test]
async fn a_brick_and_its_workstation_that_are_deleted_stay_until_nothing_is_held_there() {
    let (ns, nodes) = world("removal", &["a", "b", "c"]).await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let leaver = &nodes.names[0];
    let brick = format!("home.{leaver}");
    let agent = Agent::start(&ns, "home", leaver).await;
    rules(&ns, "its own rule", |r| r.iter().any(|r| r.creator == *leaver && r.bricks[0] == brick)).await;
    agent.report(&brick, json!({ "incarnation": "1", "inSet": { "files": 3, "bytes": 3072 } })).await;
    let (bricks, workstations): (Api<Brick>, Api<Workstation>) = (ns.api(), Api::all(ns.client.clone()));
    ns.patch::<WorkstationVolume>("home", json!({ "spec": { "members": { "nodes": nodes.names[1..] } } }))
        .await;
    bricks.delete(&brick, &DeleteParams::default()).await.unwrap();
    workstations.delete(leaver, &DeleteParams::default()).await.unwrap();
    let rules = rules(&ns, "rules without it", |r| r.iter().all(|r| !r.bricks.contains(&brick))).await;
    let name = placement_name(&rules);
    let report = |in_set: u64, alone: u64| {
        json!({
            "incarnation": "1", "placement": name, "unplaced": { "files": in_set, "bytes": 0 },
            "inSet": { "files": in_set, "bytes": in_set * 1024 }, "onlyHere": { "files": alone, "bytes": alone },
        })
    };
    for (in_set, alone, reason) in [(3, 1, "Moving"), (0, 1, "OnlyHere")] {
        agent.report(&brick, report(in_set, alone)).await;
        ns.until(reason, &brick, |b: &Brick| {
            let conditions = &b.status.as_ref()?.conditions;
            find(conditions, "Released").filter(|c| c.reason == reason).map(|_| ())
        })
        .await;
        let ws = workstations.get(leaver).await.unwrap();
        assert!(ws.metadata.deletion_timestamp.is_some(), "it is deleted, and there");
    }
    agent.report(&brick, report(0, 0)).await;
    eventually("the brick is gone", || async { bricks.get_opt(&brick).await.ok()?.is_none().then_some(()) })
        .await;
    eventually("and the workstation", || async {
        workstations.get_opt(leaver).await.ok()?.is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn another_brick_stands_in_for_one_whose_disk_is_full() {
    let (ns, nodes) = world("full", &["a", "b", "c"]).await;
    let [a, b] = [&nodes.names[0], &nodes.names[1]];
    let sets = json!([{ "nodes": [a, b] }]);
    let spec = json!({ "members": { "nodes": nodes.names }, "replicaSets": sets });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let mut agents = vec![];
    for node in &nodes.names {
        agents.push(Agent::start(&ns, "home", node).await);
    }
    let brick = |n: usize| format!("home.{}", nodes.names[n]);
    let stand_ins = |rules: &[PlacementRule]| {
        let of_a = rules.iter().find(|r| r.creator == *a)?;
        Some(of_a.stand_ins.iter().map(|s| (s.full.clone(), s.brick.clone())).collect::<Vec<_>>())
    };
    rules(&ns, "nobody stands in", |r| stand_ins(r) == Some(vec![])).await;
    let ready = condition("True", "Ready", "Mounted");
    let full = json!({ "conditions": [ready, condition("False", "SpaceLeft", "DiskFull")] });
    agents[1].report(&brick(1), full.clone()).await;
    let pair = vec![(brick(1), brick(2))];
    rules(&ns, "c stands in for b", |r| stand_ins(r) == Some(pair.clone())).await;
    let says = |part: String| {
        move |v: &WorkstationVolume| {
            let found = v.status.as_ref()?.conditions.iter().find(|c| c.type_ == "SpaceLeft")?;
            found.message.contains(&part).then_some(())
        }
    };
    ns.until("the volume says so", "home", says(format!("new files go to {}", brick(2)))).await;
    agents[2].report(&brick(2), full).await;
    rules(&ns, "nobody can", |r| stand_ins(r) == Some(vec![])).await;
    ns.until("the volume says so", "home", says("no other member has room".to_owned())).await;
    for n in [1, 2] {
        let room = json!({ "conditions": [ready, condition("True", "SpaceLeft", "Enough")] });
        agents[n].report(&brick(n), room).await;
    }
    ns.until("there is room", "home", says("has room for more files".to_owned())).await;
}
