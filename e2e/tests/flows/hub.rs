//! Hub and spoke: one brick has a copy of everything.

use nearbrick_crds::condition::{PLACED, PROTECTED};
use nearbrick_e2e::observer::Observer;
use nearbrick_e2e::scene::{LIMIT, NODES, Scene};
use nearbrick_e2e::{Lab, Result};
use serde_json::{Value, json};

/// Each workstation with this one; drafts of ws-b with ws-a, whoever is the hub.
fn around(hub: &str) -> Value {
    let mut sets = vec![json!({ "nodes": ["ws-b", "ws-a"], "paths": ["work/drafts/**"] })];
    sets.extend(NODES.iter().filter(|n| **n != hub).map(|n| json!({ "nodes": [n, hub] })));
    json!({ "replicas": 2, "replicaSets": sets })
}

pub async fn a_hub_holds_all_and_may_become_another_one(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    scene.volume.patch_spec(around("ws-c")).await?;
    scene.volume.wait_true(&[PLACED, PROTECTED], LIMIT * 2).await?;
    scene.write(&scene.a, "work/a", 2)?;
    scene.write(&scene.b, "work/b", 2)?;
    scene.write(&scene.b, "work/drafts/b", 1)?;
    for workstation in [&scene.a, &scene.b] {
        scene.wait_settled_at(workstation).await?;
    }
    scene.volume.wait_healed(&NODES, LIMIT * 2).await?;
    let work = scene.read(&scene.a)?;
    let there = scene.on_brick(&scene.c)?;
    for folder in ["./work/a/", "./work/b/"] {
        there.below(folder).must_be(&work.below(folder), "the hub has all")?;
    }
    scene
        .on_brick(&scene.a)?
        .below("./work/drafts/")
        .must_be(&work.below("./work/drafts/"), "but for what other globs say")?;

    let observer = Observer::begin(&scene, "work", work)?;
    scene.volume.patch_spec(around("ws-a")).await?;
    // People go on.
    scene.write(&scene.b, "work/more", 1)?;
    scene.write(&scene.c, "work/c", 1)?;
    for workstation in [&scene.b, &scene.c] {
        scene.wait_settled_at(workstation).await?;
    }
    scene.volume.wait_healed(&NODES, LIMIT * 2).await?;
    scene.volume.wait_true(&[PLACED, PROTECTED], LIMIT * 2).await?;
    let fewest = observer.end_with(2).await?;
    println!("never fewer than {} copies in {} looks", fewest.copies, fewest.looks);
    let all = scene.read(&scene.b)?;
    scene.on_brick(&scene.a)?.must_be(&all, "the new hub has all")
}
