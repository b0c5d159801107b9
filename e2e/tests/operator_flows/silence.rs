//! Agents that fall silent and come back.

use kube::api::{Api, Patch, PatchParams};
use nearbrick_crds::condition::find;
use nearbrick_crds::{Brick, VolumeHealth, Workstation, WorkstationState, WorkstationVolume};
use serde_json::json;

use crate::support::agent::Agent;
use crate::support::eventually;
use crate::{says, world};

#[tokio::test]
async fn a_silent_agent_is_unknown_and_never_the_last_good_value() {
    let (ns, nodes) = world("silent", &["a", "b"]).await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let a = Agent::start(&ns, "home", &nodes.names[0]).await;
    let _b = Agent::start(&ns, "home", &nodes.names[1]).await;
    ns.until("Ready", "home", |v| says(v, "Ready", "True", "AllBricksReady")).await;

    let workstations: Api<Workstation> = Api::all(ns.client.clone());
    let state = |wanted: WorkstationState, status: &'static str| {
        let (api, name) = (workstations.clone(), nodes.names[0].clone());
        move || {
            let (api, name) = (api.clone(), name.clone());
            async move {
                let ws = api.get(&name).await.ok()?.status?;
                let conditions = ["Ready", "SafeToLeave"].map(|t| find(&ws.conditions, t).cloned());
                let all = conditions.iter().all(|c| c.as_ref().is_some_and(|c| c.status == status));
                (ws.state == Some(wanted) && all).then_some(())
            }
        }
    };
    eventually("Online", state(WorkstationState::Online, "True")).await;
    drop(a);
    let share = || async { workstations.get(&nodes.names[0]).await.unwrap().status.unwrap().online_share };
    let before = share().await.unwrap();
    eventually("Away", state(WorkstationState::Away, "Unknown")).await;
    let after = share().await.unwrap();
    assert!(
        after.as_of > before.as_of && after.per_mille >= before.per_mille,
        "written as it goes: {after:?}"
    );
    for type_ in ["Ready", "Protected", "ConflictFree"] {
        ns.until("Unknown", "home", |v| says(v, type_, "Unknown", "AgentSilent")).await;
    }
    let brick = format!("home.{}", nodes.names[0]);
    let ready = |b: &Brick| find(&b.status.as_ref()?.conditions, "Ready").map(|c| c.status.clone());
    ns.until("the brick's Ready is Unknown", &brick, |b| ready(b).filter(|s| s == "Unknown")).await;
    let volume: WorkstationVolume = ns.api().get("home").await.unwrap();
    assert_eq!(volume.status.unwrap().health, Some(VolumeHealth::Unknown));

    let _a = Agent::start(&ns, "home", &nodes.names[0]).await;
    eventually("Online again", state(WorkstationState::Online, "True")).await;
    ns.until("the brick's Ready is True", &brick, |b| ready(b).filter(|s| s == "True")).await;
    ns.until("Ready again", "home", |v| says(v, "Ready", "True", "AllBricksReady")).await;
    ns.until("Protected again", "home", |v| says(v, "Protected", "True", "NothingPending")).await;
}

#[tokio::test]
async fn a_lost_workstation_is_a_persons_word() {
    let (ns, nodes) = world("lost", &["a", "b", "c"]).await;
    let spec = json!({ "members": { "nodes": nodes.names } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let lost = &nodes.names[1];
    let workstations: Api<Workstation> = Api::all(ns.client.clone());
    eventually("the Workstation", || async { workstations.get(lost).await.ok() }).await;
    let patch = json!({ "spec": { "lost": true } });
    workstations.patch(lost, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    eventually("Lost", || async {
        let status = workstations.get(lost).await.ok()?.status?;
        let acted = find(&status.conditions, "SpecActedOn")?.clone();
        (status.state == Some(WorkstationState::Lost) && acted.status == "True").then_some(())
    })
    .await;
    // Files are placed elsewhere, also those that were made there.
    let gone = format!("home.{lost}");
    ns.until("placement without it", "home", |v: &WorkstationVolume| {
        let rules = &v.status.as_ref()?.placement;
        let of_lost = rules.iter().any(|r| r.creator == *lost);
        (of_lost && rules.iter().all(|r| !r.bricks.contains(&gone) && r.bricks.len() == 2)).then_some(())
    })
    .await;
}
