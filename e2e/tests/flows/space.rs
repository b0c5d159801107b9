//! A disk that fills, and has room again.

use std::time::Duration;

use nearbrick_crds::WorkstationVolume;
use nearbrick_crds::condition::{CONVERGED, PLACED, PROTECTED, SPACE_LEFT, find};
use nearbrick_e2e::observer::Observer;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::workstation::BRICKS;
use nearbrick_e2e::{Lab, Result, kube_api};

fn is(volume: &WorkstationVolume, type_: &str, status: &str) -> bool {
    let conditions = volume.status.iter().flat_map(|s| &s.conditions);
    conditions.clone().any(|c| c.type_ == type_ && c.status == status)
}

pub async fn a_full_disk_has_another_take_what_is_new(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    let old = scene.write(&scene.a, "old", 4)?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    scene.on_brick(&scene.b)?.must_be(&old, "the brick of ws-b")?;

    let filler = format!("{BRICKS}/filler");
    // All but 100 MiB of a disk of 6 GiB.
    let fill = format!("fallocate -l $(($(stat -f -c '%a*%S' {BRICKS}) - (100 << 20))) {filler}");
    scene.b.sh(&fill)?;
    let observer = Observer::begin(&scene, "old", old)?;
    let result = while_full(&scene).await;
    scene.b.sh(&format!("rm -f {filler}"))?;
    result?;

    // There is room again: all comes to where it is to be.
    let whole = scene.read(&scene.a)?;
    scene
        .volume
        .wait("room, and all in its place", LIMIT * 3, |v| {
            is(v, SPACE_LEFT, "True") && is(v, PLACED, "True") && is(v, PROTECTED, "True")
        })
        .await?;
    let fewest = observer.end_with(2).await?;
    println!("never fewer than {} copies in {} looks", fewest.copies, fewest.looks);
    scene.on_brick(&scene.b)?.must_be(&whole, "the brick of ws-b")?;
    // All know the same in the end, and say so.
    scene.volume.wait("converged", LIMIT, |v| is(v, CONVERGED, "True")).await.map(drop)
}

async fn while_full(scene: &Scene) -> Result<()> {
    scene
        .volume
        .wait_brick("ws-b", "a full disk", LIMIT, |b| {
            let conditions = b.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            find(conditions, SPACE_LEFT).is_some_and(|c| c.reason == "DiskFull")
        })
        .await?;
    scene
        .volume
        .wait("who stands in", LIMIT, |v| {
            let conditions = v.status.as_ref().map(|s| s.conditions.as_slice()).unwrap_or_default();
            find(conditions, SPACE_LEFT).is_some_and(|c| {
                c.reason == "DisksFull" && c.message.contains("tree.ws-b (new files go to tree.ws-c)")
            })
        })
        .await?;
    let before = scene.on_brick(&scene.b)?;
    // The agents hear of it a moment after the volume says so.
    kube_api::eventually("new files go to ws-c", LIMIT, || async {
        scene
            .sh(&scene.a, "mkdir -p new && head -c 300000 /dev/urandom > new/$(date +%s%N)")
            .map_err(|e| e.to_string())?;
        let there = scene.volume.brick("ws-c").await.map_err(|e| e.to_string())?.status.unwrap_or_default();
        match there.in_set.map_or(0, |p| p.files) {
            0 => Err("ws-c is to hold nothing yet".to_owned()),
            _ => Ok(()),
        }
    })
    .await?;
    let new = scene.write(&scene.a, "new/more", 8)?;
    scene
        .volume
        .wait("all protected", LIMIT * 2, |v| is(v, PROTECTED, "True") && is(v, PLACED, "True"))
        .await?;
    kube_api::eventually("ws-c holds what is new", Duration::from_secs(30), || async {
        let there = scene.on_brick(&scene.c).map_err(|e| e.to_string())?;
        there.below("./new/more/").must_be(&new, "the brick of ws-c").map_err(|e| e.to_string())
    })
    .await?;
    // What was there stays there.
    scene.on_brick(&scene.b)?.below("./old/").must_be(&before.below("./old/"), "the brick of ws-b")
}
