//! A workstation whose network is cut works on, and what it did heals after the join.

use std::time::Duration;

use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result, fail};

pub async fn work_while_cut_off_heals_after_the_join(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    scene.write(&scene.a, "before", 1)?;
    scene.heal("one").await?;
    lab.set_link("ws-a", false)?;
    let work = work_alone(&scene);
    lab.set_link("ws-a", true)?;
    work?;
    // Who is to heal must have heard of it before it is told to.
    for workstation in [&scene.b, &scene.c] {
        scene.wait_same_listing(workstation, &scene.a, LIMIT).await?;
    }
    let expected = scene.read(&scene.a)?;
    scene.read(&scene.c)?.must_be(&expected, "read on ws-c after the join")?;
    scene.heal("two").await?;
    for workstation in [&scene.a, &scene.b] {
        scene.on_brick(workstation)?.must_be(&expected, &workstation.seat.node)?;
    }
    Ok(())
}

fn work_alone(scene: &Scene) -> Result<()> {
    // Local work does not wait for anybody: a limit far below any timeout of the network.
    let begin = std::time::Instant::now();
    let written = scene.write(&scene.a, "alone", 32)?;
    scene.sh(&scene.a, "mv before/medium moved && echo x >> before/nothing && rm before/small/1")?;
    if begin.elapsed() > Duration::from_secs(20) {
        fail!("writing while cut off took {:?}", begin.elapsed());
    }
    scene.on_brick(&scene.a)?.only(&written).must_be(&written, "the brick of ws-a while it is cut off")?;
    let elsewhere = scene.read(&scene.c)?.below("./alone/");
    if !elsewhere.is_empty() {
        fail!("ws-c sees what was written behind the cut");
    }
    Ok(())
}
