//! Volumes and bricks that are deleted: what goes with them, and what they wait for.

use std::time::Duration;

use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::{Client, ResourceExt};
use nearbrick_crds::condition::{EVICTED, PROTECTED, RELEASED, find};
use nearbrick_crds::{Brick, BrickState, Condition, WorkstationVolume};
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::{self, eventually, wait_for};
use nearbrick_e2e::observer::Observer;
use nearbrick_e2e::scene::{LIMIT, NODES, Scene, manifest};
use nearbrick_e2e::volumes::Volume;
use nearbrick_e2e::workstation::Workstation;
use nearbrick_e2e::{Lab, Result, fail};
use serde_json::json;

fn volumes(client: &Client, scene: &Scene) -> Api<WorkstationVolume> {
    Api::namespaced(client.clone(), &scene.volume.namespace)
}

fn bricks(client: &Client, scene: &Scene) -> Api<Brick> {
    Api::namespaced(client.clone(), &scene.volume.namespace)
}

/// A volume whose files go with it, and with its bricks.
async fn with_policy_delete(lab: &Lab) -> Result<Scene> {
    let scene = Scene::new(lab, "5s").await?;
    let patch = json!({ "spec": { "deletionPolicy": "Delete" } });
    let api = volumes(&scene.client, &scene);
    api.patch("tree", &PatchParams::default(), &Patch::Merge(patch)).await.context("deletionPolicy")?;
    scene.volume.wait("a finalizer", LIMIT, |v| !v.finalizers().is_empty()).await?;
    Ok(scene)
}

fn released(conditions: &[Condition]) -> Option<(&str, &str)> {
    find(conditions, RELEASED).map(|c| (c.reason.as_str(), c.message.as_str()))
}

/// What is where the brick was.
fn left_at(scene: &Scene, workstation: &Workstation) -> Result<String> {
    workstation.sh(&format!("ls -A {} 2>&1 || true", scene.volume.brick_dir()))
}

pub async fn a_volume_with_policy_delete_takes_its_files_with_it(lab: Lab) -> Result<()> {
    let scene = with_policy_delete(&lab).await?;
    let written = scene.write(&scene.a, "work", 4)?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    // Another volume, on the same disks, loses nothing by it.
    let other = beside(&scene).await?;
    let observer = Observer::begin(&other, "kept", other.read(&other.a)?)?;
    // What is beside it is nobody's to delete.
    scene.c.sh(&format!(
        "echo mine > {}/../beside && echo mine > {}/mine",
        scene.volume.brick_dir(),
        scene.volume.brick_dir()
    ))?;
    scene.c.power_off(false)?;
    let api = volumes(&scene.client, &scene);
    api.delete("tree", &DeleteParams::default()).await.context("cannot delete the volume")?;
    // One that is switched off still has its files: the object stays, and says so.
    wait_for(&api, "tree", "waits for ws-c alone", LIMIT * 2, |v: &WorkstationVolume| {
        let conditions = v.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        released(conditions).is_some_and(|(_, line)| line.starts_with("waits for tree.ws-c"))
    })
    .await?;
    for workstation in [&scene.a, &scene.b] {
        let left = left_at(&scene, workstation)?;
        if !left.contains("No such file") {
            fail!("{} still has: {left}", workstation.seat.node);
        }
    }
    let on_c = scene.lab.start("ws-c");
    on_c?;
    eventually("the volume is gone", LIMIT * 2, || async {
        match api.get_opt("tree").await {
            Ok(None) => Ok(()),
            Ok(Some(v)) => Err(format!("{:?}", v.status.map(|s| s.conditions))),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    if left_at(&scene, &scene.c)? != "mine\n" {
        fail!("ws-c has {}", left_at(&scene, &scene.c)?);
    }
    let beside = scene.c.sh(&format!("cat {}/../beside", scene.volume.brick_dir()))?;
    if beside != "mine\n" || written.is_empty() {
        fail!("what was beside the brick is {beside}");
    }
    let fewest = observer.end_with(2).await?;
    println!("the volume beside it: never fewer than {} copies in {} looks", fewest.copies, fewest.looks);
    Ok(())
}

/// A volume of the same namespace, with files that have two copies.
async fn beside(scene: &Scene) -> Result<Scene> {
    let manifest = manifest(&scene.volume.namespace, "5s").replace("{name: tree", "{name: other");
    kube_api::apply(&scene.client, &manifest).await?;
    let other = Scene {
        lab: scene.lab.clone(),
        client: scene.client.clone(),
        volume: Volume::new(&scene.client, &scene.volume.namespace, "other"),
        a: scene.a.clone(),
        b: scene.b.clone(),
        c: scene.c.clone(),
    };
    other.volume.wait_ready(&NODES, LIMIT).await?;
    other.write(&other.a, "kept", 1)?;
    other.wait_settled().await?;
    other.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    Ok(other)
}

pub async fn a_brick_that_is_deleted_stays_until_others_hold_its_files(lab: Lab) -> Result<()> {
    let scene = with_policy_delete(&lab).await?;
    // Heals wait for a person at first.
    scene.volume.patch_policy(json!({ "paused": true })).await?;
    let work = scene.write(&scene.a, "work", 4)?;
    scene.wait_settled().await?;
    scene.heal("one").await?;
    scene.write(&scene.b, "alone", 4)?;
    let written = scene.read(&scene.b)?;
    scene.wait_settled().await?;
    let observer = Observer::begin(&scene, "work", work)?;
    let api = bricks(&scene.client, &scene);
    let old = scene.volume.brick("ws-b").await?;
    api.delete("tree.ws-b", &DeleteParams::default()).await.context("cannot delete the brick")?;
    let stays = |b: &Brick| {
        let conditions = b.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
        released(conditions).is_some_and(|(reason, _)| reason == "Moving")
    };
    wait_for(&api, "tree.ws-b", "it still holds files", LIMIT, stays).await?;
    scene.on_brick(&scene.b)?.must_be(&written, "the brick of ws-b")?;
    if scene.read(&scene.b)?.len() != written.len() {
        fail!("ws-b is not in use any more");
    }
    // Now its files are copied to others; it ends, its files with it, and a new brick begins, as ws-b still is a member.
    scene.volume.patch_policy(json!({ "paused": false })).await?;
    let new = wait_for(&api, "tree.ws-b", "another brick", LIMIT * 3, |b: &Brick| {
        b.uid() != old.uid() && b.status.as_ref().and_then(|s| s.state) == Some(BrickState::Ready)
    })
    .await?;
    if new.spec.uuid == old.spec.uuid {
        fail!("the new brick has the identity of the old one");
    }
    scene
        .volume
        .wait("all protected", LIMIT * 2, |v| {
            let conditions = v.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            find(conditions, PROTECTED).is_some_and(|c| c.status == "True")
        })
        .await?;
    eventually("all files on all workstations", Duration::from_secs(30), || async {
        for workstation in [&scene.a, &scene.b, &scene.c] {
            let there = scene.read(workstation).map_err(|e| e.to_string())?;
            there.must_be(&written, &workstation.seat.node).map_err(|e| e.to_string())?;
        }
        Ok(())
    })
    .await?;
    let fewest = observer.end_with(2).await?;
    println!("never fewer than {} copies in {} looks", fewest.copies, fewest.looks);
    scene.volume.wait_ready(&NODES, LIMIT).await
}

pub async fn a_volume_with_policy_retain_leaves_all_files_where_they_are(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    let written = scene.write(&scene.a, "work", 4)?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    let observer = Observer::begin(&scene, "work", written.clone())?;
    let api = volumes(&scene.client, &scene);
    api.delete("tree", &DeleteParams::default()).await.context("cannot delete the volume")?;
    eventually("the volume and its bricks are gone", LIMIT, || async {
        let bricks =
            bricks(&scene.client, &scene).list(&Default::default()).await.map_err(|e| e.to_string())?;
        match (api.get_opt("tree").await, bricks.items.len()) {
            (Ok(None), 0) => Ok(()),
            (volume, n) => Err(format!("{n} bricks, and {volume:?}")),
        }
    })
    .await?;
    eventually("no agent has it mounted", LIMIT, || async {
        for workstation in [&scene.a, &scene.b, &scene.c] {
            let mounted =
                workstation.sh(&format!("mountpoint -q {} && echo yes || true", scene.volume.mount()));
            if mounted.map_err(|e| e.to_string())? == "yes\n" {
                return Err(format!("{} has", workstation.seat.node));
            }
        }
        Ok(())
    })
    .await?;
    let fewest = observer.end_with(2).await?;
    println!("never fewer than {} copies in {} looks", fewest.copies, fewest.looks);
    for workstation in [&scene.a, &scene.b] {
        scene.on_brick(workstation)?.must_be(&written, &workstation.seat.node)?;
    }
    Ok(())
}

pub async fn a_workstation_that_is_deleted_stays_until_others_hold_its_files(lab: Lab) -> Result<()> {
    let scene = super::placement::automatic(&lab, &NODES).await?;
    super::placement::alone(&scene).await?;
    let work = scene.write(&scene.c, "work", 4)?;
    scene.wait_settled_at(&scene.c).await?;
    super::placement::all_placed(&scene, &NODES).await?;
    // Nothing can be copied at first: it has to stay.
    scene.volume.patch_policy(json!({ "paused": true })).await?;
    let observer = Observer::begin(&scene, "work", work.clone())?;
    let api: Api<nearbrick_crds::Workstation> = Api::all(scene.client.clone());
    let old = api.get("ws-c").await.context("ws-c")?;
    api.delete("ws-c", &DeleteParams::default()).await.context("cannot delete the workstation")?;
    let evicted = |reason: &'static str| {
        move |w: &nearbrick_crds::Workstation| {
            let conditions = w.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            find(conditions, EVICTED).is_some_and(|c| c.reason == reason)
        }
    };
    wait_for(&api, "ws-c", "it still holds files", LIMIT, evicted("Moving")).await?;
    scene.volume.patch_policy(json!({ "paused": false })).await?;
    wait_for(&api, "ws-c", "nothing is held there", LIMIT * 3, evicted("NothingHeld")).await?;
    // It goes with its last brick.
    scene.volume.patch_spec(json!({ "members": { "nodes": ["ws-a", "ws-b"] } })).await?;
    bricks(&scene.client, &scene).delete("tree.ws-c", &DeleteParams::default()).await.context("its brick")?;
    eventually("the workstation is gone", LIMIT * 2, || async {
        match api.get_opt("ws-c").await {
            // Its agent runs, and says that it is there.
            Ok(Some(now)) if now.uid() != old.uid() => Ok(()),
            Ok(None) => Ok(()),
            Ok(Some(now)) => Err(format!("{:?}", now.status.map(|s| s.conditions))),
            Err(error) => Err(error.to_string()),
        }
    })
    .await?;
    let fewest = observer.end_with(2).await?;
    println!("never fewer than {} copies in {} looks", fewest.copies, fewest.looks);
    for workstation in [&scene.a, &scene.b] {
        scene.on_brick(workstation)?.must_be(&work, &workstation.seat.node)?;
    }
    // One that is a member again has one again.
    scene.volume.patch_spec(json!({ "members": { "nodes": NODES } })).await?;
    wait_for(&api, "ws-c", "it is there again", LIMIT, |w: &nearbrick_crds::Workstation| {
        w.uid() != old.uid() && w.status.is_some()
    })
    .await
    .map(drop)
}
