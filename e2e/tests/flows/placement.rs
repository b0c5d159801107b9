//! Where copies are while members come and go, and while the volume changes what it asks for. An observer of the disks counts them all along.

use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use nearbrick_crds::condition::{EVICTED, PLACED, PROTECTED, READY, SAFE_TO_LEAVE, find};
use nearbrick_crds::meta::brick_name;
use nearbrick_crds::{
    Brick, PlacementRule, Workstation, WorkstationState, WorkstationStatus, WorkstationVolume,
};
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::{self, eventually, wait_for};
use nearbrick_e2e::observer::{Fewest, Observer};
use nearbrick_e2e::scene::{LIMIT, NODES, Scene};
use nearbrick_e2e::trees::Tree;
use nearbrick_e2e::{Lab, Result, fail};
use serde_json::json;

/// A volume on these nodes whose files have two copies, of which the operator chooses the second.
pub async fn automatic(lab: &Lab, nodes: &[&str]) -> Result<Scene> {
    let scene = Scene::without_volume(lab).await?;
    let namespace = &scene.volume.namespace;
    let manifest = format!(
        "apiVersion: nearbrick.io/v1alpha1\nkind: HealPolicy\n\
         metadata: {{name: policy, namespace: {namespace}}}\nspec: {{interval: 5s}}\n---\n\
         apiVersion: nearbrick.io/v1alpha1\nkind: WorkstationVolume\n\
         metadata: {{name: tree, namespace: {namespace}}}\nspec:\n  \
         members: {{nodes: [{}]}}\n  replicas: 2\n  healPolicyRef: {{name: policy}}\n",
        nodes.join(", ")
    );
    kube_api::apply(&scene.client, &manifest).await?;
    scene.volume.wait_ready(nodes, LIMIT).await?;
    Ok(scene)
}

/// Waits until all files are held by just the bricks that are to hold them, as the bricks of these nodes say too; the rules.
pub async fn all_placed(scene: &Scene, nodes: &[&str]) -> Result<Vec<PlacementRule>> {
    // The volume's word follows theirs: it may be of the moment before.
    scene.volume.wait_healed(nodes, LIMIT * 2).await?;
    let volume = scene.volume.wait_true(&[PLACED, PROTECTED], LIMIT * 3).await?;
    Ok(volume.status.unwrap_or_default().placement)
}

/// The bricks that are to hold what is made on a node.
fn set_of<'a>(rules: &'a [PlacementRule], node: &str) -> Result<&'a [String]> {
    let rule = rules.iter().find(|rule| rule.creator == node && rule.paths.is_empty());
    Ok(&rule.context(format!("no rule for what is made on {node}"))?.bricks)
}

fn say(fewest: Fewest) {
    println!("never fewer than {} copies in {} looks", fewest.copies, fewest.looks);
}

async fn patch_workstation(client: &Client, node: &str, spec: serde_json::Value) -> Result<()> {
    let api: Api<Workstation> = Api::all(client.clone());
    let patch = json!({ "spec": spec });
    let done = api.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await;
    done.map(drop).context(format!("cannot change the workstation {node}"))
}

async fn wait_workstation(
    client: &Client,
    node: &str,
    what: &str,
    ready: impl Fn(&WorkstationStatus) -> bool,
) -> Result<()> {
    let api: Api<Workstation> = Api::all(client.clone());
    let limit = LIMIT * 3;
    wait_for(&api, node, what, limit, |w: &Workstation| w.status.as_ref().is_some_and(&ready)).await.map(drop)
}

pub async fn a_workstation_that_joins_takes_its_share(lab: Lab) -> Result<()> {
    let scene = automatic(&lab, &["ws-a", "ws-b"]).await?;
    scene.write(&scene.a, "work/a", 4)?;
    scene.write(&scene.b, "work/b", 4)?;
    scene.wait_settled().await?;
    all_placed(&scene, &["ws-a", "ws-b"]).await?;
    let work = scene.read(&scene.a)?;
    let observer = Observer::begin(&scene, "work", work.clone())?;
    scene.volume.patch_spec(json!({ "members": { "nodes": NODES } })).await?;
    scene.volume.wait_ready(&NODES, LIMIT).await?;
    // People go on.
    scene.write(&scene.a, "more/a", 1)?;
    scene.write(&scene.c, "more/c", 1)?;
    let rules = all_placed(&scene, &NODES).await?;
    say(observer.end_with(2).await?);
    let on_c = brick_name("tree", "ws-c");
    let partners = rules.iter().filter(|rule| rule.creator != "ws-c" && rule.bricks.contains(&on_c)).count();
    if partners != 1 {
        fail!("{partners} of two others have chosen ws-c: {rules:?}");
    }
    // Those who are to hold the old files do.
    for (node, folder) in [("ws-a", "./work/a/"), ("ws-b", "./work/b/")] {
        for holder in [&scene.a, &scene.b, &scene.c] {
            if set_of(&rules, node)?.contains(&brick_name("tree", &holder.seat.node)) {
                let there = scene.on_brick(holder)?.below(folder);
                there.must_be(&work.below(folder), &format!("{folder} on {}", holder.seat.node))?;
            }
        }
    }
    Ok(())
}

/// Deletes the volumes of other tests, of which the files stay: what is said of a workstation is said of all that it carries.
pub async fn alone(scene: &Scene) -> Result<()> {
    let own = &scene.volume.namespace;
    let all: Api<WorkstationVolume> = Api::all(scene.client.clone());
    for volume in all.list(&Default::default()).await.context("cannot list volumes")? {
        let namespace = volume.namespace().unwrap_or_default();
        if namespace != *own {
            let api: Api<WorkstationVolume> = Api::namespaced(scene.client.clone(), &namespace);
            api.delete(&volume.name_any(), &DeleteParams::default())
                .await
                .context("cannot delete a volume")?;
        }
    }
    let bricks: Api<Brick> = Api::all(scene.client.clone());
    eventually("the bricks of this test alone", LIMIT, || async {
        let all = bricks.list(&Default::default()).await.map_err(|e| e.to_string())?;
        let others = all.iter().filter(|b| b.namespace().as_ref() != Some(own)).count();
        if others > 0 { Err(format!("{others} of others are left")) } else { Ok(()) }
    })
    .await
}

pub async fn a_workstation_that_is_evicted_is_emptied_first(lab: Lab) -> Result<()> {
    let scene = automatic(&lab, &NODES).await?;
    alone(&scene).await?;
    let work = scene.write(&scene.c, "work", 4)?;
    scene.wait_settled_at(&scene.c).await?;
    all_placed(&scene, &NODES).await?;
    // Nothing can be copied at first: it has to stay.
    scene.volume.patch_policy(json!({ "paused": true })).await?;
    let observer = Observer::begin(&scene, "work", work)?;
    patch_workstation(&scene.client, "ws-c", json!({ "evictionRequested": true })).await?;
    let done = evicted(&scene).await;
    patch_workstation(&scene.client, "ws-c", json!({ "evictionRequested": false })).await?;
    let written = done?;
    say(observer.end_with(2).await?);
    // It was true: all is there without it, twice.
    scene.c.power_off(false)?;
    for workstation in [&scene.a, &scene.b] {
        scene.on_brick(workstation)?.must_be(&written, &format!("the brick of {}", workstation.seat.node))?;
    }
    scene.lab.start("ws-c")?;
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await
}

/// Waits until nothing has to be held by ws-c; all files.
async fn evicted(scene: &Scene) -> Result<Tree> {
    let says = |s: &WorkstationStatus, status: &str, reason: &str| {
        find(&s.conditions, EVICTED).is_some_and(|c| c.status == status && c.reason == reason)
    };
    wait_workstation(&scene.client, "ws-c", "still moving", |s| says(s, "False", "Moving")).await?;
    // A person goes on there all the same.
    scene.write(&scene.c, "late", 1)?;
    scene.wait_settled_at(&scene.c).await?;
    scene.volume.patch_policy(json!({ "paused": false })).await?;
    wait_workstation(&scene.client, "ws-c", "nothing is held there", |s| {
        says(s, "True", "NothingHeld")
            && find(&s.conditions, SAFE_TO_LEAVE).is_some_and(|c| c.status == "True")
    })
    .await?;
    scene.read(&scene.c)
}

pub async fn a_lost_workstation_is_replaced_and_may_return(lab: Lab) -> Result<()> {
    let scene = automatic(&lab, &NODES).await?;
    let work = scene.write(&scene.c, "work", 4)?;
    scene.wait_settled_at(&scene.c).await?;
    all_placed(&scene, &NODES).await?;
    scene.volume.patch_policy(json!({ "paused": true })).await?;
    // The last that is written there is nowhere else.
    scene.write(&scene.c, "alone", 1)?;
    scene.wait_settled_at(&scene.c).await?;
    scene.wait_same_listing(&scene.a, &scene.c, LIMIT).await?;
    scene.wait_same_listing(&scene.b, &scene.c, LIMIT).await?;
    let written = scene.read(&scene.c)?;
    let on_all = Observer::begin(&scene, "work", work.clone())?;
    scene.c.power_off(false)?;
    patch_workstation(&scene.client, "ws-c", json!({ "lost": true })).await?;
    let done = lost_and_back(&scene, work, written).await;
    // Whatever happened: the tests after this one want it back.
    patch_workstation(&scene.client, "ws-c", json!({ "lost": false })).await?;
    let written = done?;
    all_placed(&scene, &NODES).await?;
    say(on_all.end_with(2).await?);
    for workstation in [&scene.a, &scene.b, &scene.c] {
        scene.read(workstation)?.must_be(&written, &format!("read on {}", workstation.seat.node))?;
    }
    Ok(())
}

async fn lost_and_back(scene: &Scene, work: Tree, written: Tree) -> Result<Tree> {
    scene.volume.patch_policy(json!({ "paused": false })).await?;
    without_c(scene, &work).await?;
    // From now on without counting the machine that is lost, until it counts again.
    let others = Observer::begin_at(&[&scene.a, &scene.b], scene, "work", work)?;
    // What only it held is not there, is not made up, and is not forgotten.
    if let Ok(text) = scene.sh(&scene.a, "cat alone/medium") {
        fail!("a file that only the lost workstation has was read: {} bytes", text.len());
    }
    let lacking = scene.volume.get().await?.status.unwrap_or_default();
    if find(&lacking.conditions, PROTECTED).is_none_or(|c| c.status == "True") {
        fail!(
            "it says Protected, though what was written last is on the lost workstation alone: {lacking:?}"
        );
    }
    scene
        .volume
        .wait_job("a heal that says why it failed", LIMIT, |j| {
            let failures = j.status.as_ref().and_then(|s| s.failures.as_deref());
            failures.is_some_and(|f| f.contains("Unreachable"))
        })
        .await?;
    scene.lab.start("ws-c")?;
    // It brings what it had, though nobody has taken the word back.
    eventually("what was written last is elsewhere", LIMIT * 2, || async {
        let there = scene.on_brick(&scene.a).map_err(|e| e.to_string())?;
        there.must_be(&written, "the brick of ws-a").map_err(|e| e.to_string())
    })
    .await?;
    say(others.end_with(2).await?);
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await?;
    Ok(written)
}

pub async fn one_that_is_away_is_replaced_after_the_grace_and_not_while_it_is_expected_to_be_off(
    lab: Lab,
) -> Result<()> {
    let scene = automatic(&lab, &NODES).await?;
    let work = scene.write(&scene.c, "work", 4)?;
    scene.wait_settled_at(&scene.c).await?;
    all_placed(&scene, &NODES).await?;
    scene.volume.patch_spec(json!({ "replaceAfter": "1s" })).await?;
    let always = json!([{ "start": { "schedule": "@hourly" }, "duration": "2h" }]);
    patch_workstation(&scene.client, "ws-c", json!({ "expectedOffline": always })).await?;
    let on_all = Observer::begin(&scene, "work", work.clone())?;
    scene.c.power_off(false)?;
    let done = away_and_back(&scene, &work).await;
    patch_workstation(&scene.client, "ws-c", json!({ "expectedOffline": null })).await?;
    done?;
    all_placed(&scene, &NODES).await?;
    say(on_all.end_with(2).await?);
    Ok(())
}

async fn away_and_back(scene: &Scene, work: &Tree) -> Result<()> {
    wait_workstation(&scene.client, "ws-c", "expected to be off", |s| {
        s.state == Some(WorkstationState::Away)
            && find(&s.conditions, READY).is_some_and(|c| c.reason == "ExpectedOffline")
    })
    .await?;
    // The operator has decided on a volume since: it decides again whenever the spec changes.
    scene.volume.patch_spec(json!({ "replaceAfter": "2s" })).await?;
    let decided = scene
        .volume
        .wait("the spec is looked at", LIMIT, |v| {
            v.status.as_ref().and_then(|s| s.observed_generation) == v.metadata.generation
        })
        .await?;
    let rules = decided.status.unwrap_or_default().placement;
    if set_of(&rules, "ws-c")?.first() != Some(&brick_name("tree", "ws-c")) {
        fail!("it was replaced while it is expected to be off: {rules:?}");
    }
    patch_workstation(&scene.client, "ws-c", json!({ "expectedOffline": null })).await?;
    without_c(scene, work).await?;
    let others = Observer::begin_at(&[&scene.a, &scene.b], scene, "work", work.clone())?;
    scene.write(&scene.a, "more", 1)?;
    let written = scene.read(&scene.a)?;
    scene.lab.start("ws-c")?;
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await?;
    scene.read(&scene.c)?.must_be(&written, "read on ws-c")?;
    say(others.end_with(2).await?);
    Ok(())
}

/// Waits until the two others are to hold, and hold, what it held.
async fn without_c(scene: &Scene, work: &Tree) -> Result<()> {
    let gone = brick_name("tree", "ws-c");
    scene
        .volume
        .wait("placement without it", LIMIT, |v| {
            let rules = v.status.as_ref().map(|s| s.placement.as_slice()).unwrap_or_default();
            !rules.is_empty() && rules.iter().all(|rule| !rule.bricks.contains(&gone))
        })
        .await?;
    eventually("two others hold what it held", LIMIT * 2, || async {
        for workstation in [&scene.a, &scene.b] {
            let there = scene.on_brick(workstation).map_err(|e| e.to_string())?.below("./work/");
            there.must_be(&work.below("./work/"), &workstation.seat.node).map_err(|e| e.to_string())?;
        }
        Ok(())
    })
    .await
}

pub async fn a_node_whose_disk_died_is_replaced_by_a_new_one(lab: Lab) -> Result<()> {
    let scene = automatic(&lab, &NODES).await?;
    let work = scene.write(&scene.c, "work", 4)?;
    scene.wait_settled_at(&scene.c).await?;
    all_placed(&scene, &NODES).await?;
    let old = scene.volume.brick("ws-c").await?;
    scene.c.power_off(false)?;
    let image = scene.c.image();
    std::fs::remove_file(&image).context(format!("cannot remove {}", image.display()))?;
    // The new machine has the name of the old one, and an empty disk. Nobody takes that for a person who deleted everything.
    scene.lab.start("ws-c")?;
    let refused = |b: &Brick| {
        let status = b.status.clone().unwrap_or_default();
        status.message.is_some_and(|m| m.contains("empty"))
    };
    scene.volume.wait_brick("ws-c", "an empty disk is refused", LIMIT, refused).await?;
    let done = replaced(&scene, &old, work).await;
    patch_workstation(&scene.client, "ws-c", json!({ "lost": false })).await?;
    done
}

async fn replaced(scene: &Scene, old: &Brick, work: Tree) -> Result<()> {
    patch_workstation(&scene.client, "ws-c", json!({ "lost": true })).await?;
    wait_workstation(&scene.client, "ws-c", "Lost", |s| s.state == Some(WorkstationState::Lost)).await?;
    without_c(scene, &work).await?;
    // The one copy that was left has become two, and two they stay.
    let observer = Observer::begin(scene, "work", work.clone())?;
    let api: Api<Brick> = Api::namespaced(scene.client.clone(), &scene.volume.namespace);
    let name = old.name_any();
    api.delete(&name, &DeleteParams::default()).await.context("cannot delete the brick")?;
    eventually("the old brick is gone", LIMIT, || async {
        match api.get_opt(&name).await {
            Ok(Some(brick)) if brick.uid() == old.uid() => Err(format!("{:?}", brick.status)),
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    patch_workstation(&scene.client, "ws-c", json!({ "lost": false })).await?;
    let new = scene.volume.wait_brick_ready("ws-c", LIMIT).await?;
    if new.spec.uuid == old.spec.uuid {
        fail!("the new brick has the identity of the old one");
    }
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await?;
    let rules = all_placed(scene, &NODES).await?;
    if set_of(&rules, "ws-c")?.first() != Some(&name) {
        fail!("what is made on ws-c does not stay there: {rules:?}");
    }
    scene.on_brick(&scene.c)?.below("./work/").must_be(&work.below("./work/"), "the new brick")?;
    say(observer.end_with(2).await?);
    Ok(())
}

pub async fn copies_follow_replicas_and_sets_up_and_down(lab: Lab) -> Result<()> {
    let scene = automatic(&lab, &NODES).await?;
    let work = scene.write(&scene.b, "work", 4)?;
    scene.wait_settled_at(&scene.b).await?;
    all_placed(&scene, &NODES).await?;
    let observer = Observer::begin(&scene, "work", work)?;
    for (n, (spec, copies)) in [
        (json!({ "replicas": 3 }), 3),
        (json!({ "replicas": 2 }), 2),
        (json!({ "replicaSets": [{ "nodes": ["ws-b", "ws-c"] }] }), 2),
        (json!({ "replicaSets": [{ "nodes": ["ws-a", "ws-b"] }] }), 2),
    ]
    .into_iter()
    .enumerate()
    {
        scene.volume.patch_spec(spec).await?;
        // People go on.
        scene.write(&scene.b, &format!("more/{n}"), 1)?;
        scene.wait_settled_at(&scene.b).await?;
        let rules = all_placed(&scene, &NODES).await?;
        let set = set_of(&rules, "ws-b")?;
        if set.len() != copies {
            fail!("{copies} copies are wanted, and the rule is {set:?}");
        }
        let written = scene.read(&scene.b)?;
        let mut held = 0;
        for workstation in [&scene.a, &scene.b, &scene.c] {
            let node = &workstation.seat.node;
            let status = scene.volume.brick(node).await?.status.unwrap_or_default();
            held += status.in_set.map_or(0, |p| p.files);
            if set.contains(&brick_name("tree", node)) {
                scene.on_brick(workstation)?.must_be(&written, &format!("the brick of {node}"))?;
            }
        }
        println!("step {n}: {} files, {held} copies to be held, {set:?}", written.len());
    }
    say(observer.end_with(2).await?);
    Ok(())
}
