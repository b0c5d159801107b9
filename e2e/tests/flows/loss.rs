//! A workstation loses its power, and returns.

use std::time::Duration;

use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result};

pub async fn the_others_read_every_file(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    let written = scene.write(&scene.a, "work", 16)?;
    scene.heal("one").await?;
    scene.a.power_off(false)?;
    scene.read(&scene.b)?.must_be(&written, "read on ws-b")?;
    scene.read(&scene.c)?.must_be(&written, "read on ws-c")?;
    scene.lab.start("ws-a")
}

pub async fn a_return_catches_up(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    scene.write(&scene.a, "work", 4)?;
    scene.heal("one").await?;
    scene.a.power_off(false)?;
    scene.write(&scene.b, "new", 4)?;
    scene.sh(&scene.b, "echo more >> work/medium && mv work/small work/tiny && rm work/large work/tiny/7")?;
    let expected = scene.read(&scene.b)?;
    scene.lab.start("ws-a")?;
    scene.wait_same_listing(&scene.a, &scene.b, LIMIT).await?;
    scene.read(&scene.a)?.must_be(&expected, "read on ws-a")?;
    scene.heal("two").await?;
    for workstation in [&scene.a, &scene.b] {
        scene.on_brick(workstation)?.must_be(&expected, &workstation.seat.node)?;
    }
    // And it takes part again: what it writes is seen elsewhere.
    scene.sh(&scene.a, "echo back > back")?;
    eventually("the new file on ws-c", Duration::from_secs(10), || async {
        match scene.sh(&scene.c, "cat back") {
            Ok(text) if text == "back\n" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}
