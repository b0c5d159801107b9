//! Replica sets of files that exist: what agents say of them, and workstations that are to be taken away.

use kube::api::{Api, Patch, PatchParams};
use nearbrick_crds::condition::find;
use nearbrick_crds::{Workstation, WorkstationState, WorkstationVolume, placement_name};
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::{ago, eventually};
use crate::{condition, rules, says, world};

#[tokio::test]
async fn a_change_of_replicas_is_followed_until_all_files_are_placed() {
    let (ns, nodes) = world("replicas", &["a", "b", "c"]).await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let mut agents = vec![];
    for node in &nodes.names {
        agents.push(Agent::start(&ns, "home", node).await);
    }
    let brick = |n: usize| format!("home.{}", nodes.names[n]);
    ns.until("nobody has looked", "home", |v| says(v, "Placed", "Unknown", "NotLookedYet")).await;
    let two = placement_name(&rules(&ns, "rules", |r| r.len() == 3).await);
    let none = json!({ "files": 0, "bytes": 0 });
    for (n, agent) in agents.iter().enumerate() {
        agent.report(&brick(n), json!({ "placement": two, "unplaced": none })).await;
    }
    ns.until("placed", "home", |v| says(v, "Placed", "True", "AllPlaced")).await;

    ns.patch::<WorkstationVolume>("home", json!({ "spec": { "replicas": 3 } })).await;
    let three = rules(&ns, "three bricks each", |r| r.iter().all(|r| r.bricks.len() == 3)).await;
    ns.until("not looked at by these", "home", |v| says(v, "Placed", "Unknown", "NotLookedYet")).await;
    let three = placement_name(&three);
    let some = json!({ "files": 4, "bytes": 2048 });
    let report = json!({ "placement": three, "unplaced": some, "unplacedBecause": "4 wait for copies" });
    agents[1].report(&brick(1), report).await;
    ns.until("on its way", "home", |v| says(v, "Placed", "False", "Placing")).await;
    let volume: WorkstationVolume = ns.api().get("home").await.unwrap();
    let line = &condition(&volume, "Placed").unwrap().message;
    assert!(line.contains("4 files (2.0 KiB)") && line.contains("4 wait for copies"), "{line}");
    for (n, agent) in agents.iter().enumerate() {
        agent.report(&brick(n), json!({ "placement": three, "unplaced": none })).await;
    }
    ns.until("placed", "home", |v| says(v, "Placed", "True", "AllPlaced")).await;
}

#[tokio::test]
async fn an_eviction_is_done_when_nothing_has_to_be_held_there() {
    let (ns, nodes) = world("evict", &["a", "b", "c"]).await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let leaver = &nodes.names[0];
    let brick = format!("home.{leaver}");
    let agent = Agent::start(&ns, "home", leaver).await;
    rules(&ns, "its own rule", |r| r.iter().any(|r| r.creator == *leaver && r.bricks[0] == brick)).await;
    let workstations: Api<Workstation> = Api::all(ns.client.clone());
    let patch = json!({ "spec": { "evictionRequested": true } });
    workstations.patch(leaver, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    let rules = rules(&ns, "rules without it", |r| r.iter().all(|r| !r.bricks.contains(&brick))).await;
    assert!(rules.iter().any(|r| r.creator == *leaver), "its files have rules: {rules:?}");
    let name = placement_name(&rules);
    let evicted = |status: &'static str, reason: &'static str, part: &'static str| {
        let api = workstations.clone();
        move || {
            let api = api.clone();
            async move {
                let found = api.get(leaver).await.ok()?.status?;
                let c = find(&found.conditions, "Evicted")?;
                (c.status == status && c.reason == reason && c.message.contains(part)).then_some(())
            }
        }
    };
    let report = |in_set: u64, alone: u64| {
        json!({
            "placement": name, "unplaced": { "files": in_set, "bytes": 0 },
            "inSet": { "files": in_set, "bytes": in_set * 1024 }, "onlyHere": { "files": alone, "bytes": alone },
        })
    };
    agent.report(&brick, report(3, 1)).await;
    eventually("some are left", evicted("False", "Moving", "3 files (3.0 KiB)")).await;
    agent.report(&brick, report(0, 1)).await;
    eventually("the last holder", evicted("False", "OnlyHere", "1 file")).await;
    agent.report(&brick, report(0, 0)).await;
    eventually("nothing is left", evicted("True", "NothingHeld", "nothing has to be held there")).await;
    // A person changes their mind.
    let patch = json!({ "spec": { "evictionRequested": false } });
    workstations.patch(leaver, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    eventually("nothing is said of it", || async {
        let found = workstations.get(leaver).await.ok()?.status?;
        find(&found.conditions, "Evicted").is_none().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_silent_workstation_is_replaced_after_the_volumes_time_and_not_while_it_is_expected_to_be_off() {
    let (ns, nodes) = world("grace", &["a", "b", "c"]).await;
    let spec = json!({ "members": { "nodes": nodes.names }, "replaceAfter": "5s" });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let [away, expected] = [&nodes.names[0], &nodes.names[1]];
    let workstations: Api<Workstation> = Api::all(ns.client.clone());
    let mut agents = vec![];
    for node in &nodes.names {
        agents.push(Agent::start(&ns, "home", node).await);
    }
    let always = json!([{ "start": { "schedule": "@hourly" }, "duration": "2h" }]);
    let patch = json!({ "spec": { "expectedOffline": always } });
    workstations.patch(expected, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    rules(&ns, "rules", |r| r.len() == 3).await;
    // What never reported has nothing that could be made elsewhere, and does not fall silent.
    for node in [away, expected] {
        eventually("Online", || async {
            let state = workstations.get(node).await.ok()?.status?.state;
            (state == Some(WorkstationState::Online)).then_some(())
        })
        .await;
    }
    agents.truncate(0);
    let _third = Agent::start(&ns, "home", &nodes.names[2]).await;
    let gone = format!("home.{away}");
    rules(&ns, "rules without it", |r| r.iter().all(|r| !r.bricks.contains(&gone))).await;
    let stays = format!("home.{expected}");
    let rules = rules(&ns, "rules", |r| r.iter().any(|r| r.creator == *expected)).await;
    assert!(rules.iter().any(|r| r.creator == *expected && r.bricks[0] == stays), "{rules:?} at {}", ago(0));
    eventually("it is said", || async {
        let found = workstations.get(expected).await.ok()?.status?;
        (find(&found.conditions, "Ready")?.reason == "ExpectedOffline").then_some(())
    })
    .await;
}
