//! A node that loses its power, with its pods.

use kube::Api;
use nearbrick_crds::{Workstation, WorkstationState};
use nearbrick_e2e::kube_api::wait_for;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result};

use super::pods::{sh, shell};

pub async fn a_node_whose_plug_was_pulled_comes_back(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    let written = scene.write(&scene.a, "work", 4)?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await?;
    shell(&scene, "reader", "ws-c").await?;
    scene.a.power_off(true)?;
    // The others have it all, people and pods.
    scene.read(&scene.c)?.must_be(&written, "read on ws-c")?;
    sh(&scene, "reader", "sha256sum work/medium")?;
    let more = scene.write(&scene.b, "meanwhile", 1)?;
    scene.wait_settled_at(&scene.b).await?;
    let api: Api<Workstation> = Api::all(scene.client.clone());
    let is = |state| move |w: &Workstation| w.status.as_ref().and_then(|s| s.state) == Some(state);
    wait_for(&api, "ws-a", "away", LIMIT * 3, is(WorkstationState::Away)).await?;
    // Switched on, kubelet starts what ran there, and the volume is mounted again.
    lab.start("ws-a")?;
    wait_for(&api, "ws-a", "online", LIMIT * 3, is(WorkstationState::Online)).await?;
    scene.wait_same_listing(&scene.a, &scene.b, LIMIT * 2).await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT * 2).await?;
    let there = scene.on_brick(&scene.a)?;
    there.below("./work/").must_be(&written, "what it had")?;
    there.below("./meanwhile/").must_be(&more, "what came meanwhile")
}
