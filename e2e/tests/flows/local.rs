//! Writing on one workstation, and what the others see of it.

use std::time::Duration;

use nearbrick_e2e::scene::Scene;
use nearbrick_e2e::trees::{Place, Tree};
use nearbrick_e2e::{Lab, Result, fail};

const MIB: u64 = 1 << 20;

pub async fn writes_stay_local_while_the_others_idle(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    let before = [lab.counters("ws-b")?, lab.counters("ws-c")?];
    let written = scene.write(&scene.a, "work", 64)?;
    let after = [lab.counters("ws-b")?, lab.counters("ws-c")?];
    for (before, after) in before.iter().zip(after) {
        let received = after.received - before.received;
        if received > 4 * MIB {
            fail!("another workstation received {received} bytes while ws-a wrote");
        }
    }
    scene.on_brick(&scene.a)?.must_be(&written, "the brick of ws-a")?;
    // What the others have are names: their files take no room on the disk.
    scene.wait_same_listing(&scene.b, &scene.a, Duration::from_secs(5)).await?;
    let blocks = format!("find {}/data -type f -printf '%b\\n'", scene.volume.brick_dir());
    let total: u64 = scene.b.sh(&blocks)?.lines().filter_map(|l| l.parse::<u64>().ok()).sum();
    if total * 512 > MIB {
        fail!("ws-b holds {} bytes of a tree that nobody read there", total * 512);
    }
    Ok(())
}

pub async fn names_travel_at_once_and_contents_on_read(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    let written = scene.write(&scene.a, "work", 8)?;
    scene.wait_same_listing(&scene.c, &scene.a, Duration::from_secs(5)).await?;
    scene.read(&scene.c)?.must_be(&written, "read on ws-c")?;
    // Once read, it is here: the network is not needed again.
    lab.set_link("ws-c", false)?;
    let again = scene.read(&scene.c);
    lab.set_link("ws-c", true)?;
    again?.must_be(&written, "read again on ws-c while it is cut off")?;
    // A change is seen where the old contents were kept.
    scene.sh(&scene.a, "echo changed > work/medium")?;
    let changed = Tree::hashes(Place::At(&scene.a), &scene.volume.mount())?;
    nearbrick_e2e::kube_api::eventually("the change on ws-c", Duration::from_secs(10), || async {
        let there = scene.read(&scene.c).map_err(|e| e.to_string())?;
        there.must_be(&changed, "read on ws-c").map_err(|e| e.to_string())
    })
    .await
}
