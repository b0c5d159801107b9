//! The chart is taken out of the cluster.

use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result, fail, nodes};

pub async fn leaves_all_data_where_it_was(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    let written = scene.write(&scene.a, "work", 4)?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    // Before: it says where the files will be.
    let notes = nodes::chart::notes(&lab)?;
    if !notes.contains("/bricks/NAMESPACE/VOLUME/data") {
        fail!("the notes do not say where files are: {notes}");
    }
    nodes::chart::uninstall(&lab)?;
    for workstation in [&scene.a, &scene.b] {
        scene.on_brick(workstation)?.must_be(&written, &workstation.seat.node)?;
    }
    // Definitions and objects stay: installed again, it goes on.
    let volumes = lab.kubectl_output(&["get", "wsv", "-n", &scene.volume.namespace, "-o", "name"])?;
    if !volumes.contains("tree") {
        fail!("the volume's object went with the chart: {volumes}");
    }
    nodes::chart::install(&lab, &[])?;
    eventually("it is mounted again", LIMIT * 2, || async {
        let there = scene.read(&scene.a).map_err(|e| e.to_string())?;
        there.must_be(&written, "ws-a").map_err(|e| e.to_string())
    })
    .await?;
    scene.sh(&scene.a, "echo on > on")?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT * 2).await
}
