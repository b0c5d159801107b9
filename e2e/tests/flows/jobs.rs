//! Heal jobs that a person makes.

use kube::Api;
use kube::api::PostParams;
use nearbrick_crds::{HealJob, JobPhase, JobReason};
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::wait_for;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::volumes::has_ended;
use nearbrick_e2e::{Lab, Result, fail};
use serde_json::{Value, json};

/// Makes a job; `spec` says what is not usual.
async fn make(scene: &Scene, name: &str, mut spec: Value) -> Result<Api<HealJob>> {
    spec["volumeRef"] = json!({ "name": "tree" });
    let job: HealJob = serde_json::from_value(json!({
        "apiVersion": "nearbrick.io/v1alpha1", "kind": "HealJob",
        "metadata": { "name": name, "namespace": scene.volume.namespace }, "spec": spec,
    }))
    .context("odd job")?;
    let api: Api<HealJob> = Api::namespaced(scene.client.clone(), &scene.volume.namespace);
    api.create(&PostParams::default(), &job).await.context(format!("cannot make {name}"))?;
    Ok(api)
}

/// Makes a job, and waits until it has ended.
async fn run(scene: &Scene, name: &str, spec: Value) -> Result<HealJob> {
    let api = make(scene, name, spec).await?;
    let job = wait_for(&api, name, "it has ended", LIMIT, has_ended).await?;
    if job.spec.reason != JobReason::Manual {
        fail!("{name} is a job by hand, and its reason is {:?}", job.spec.reason);
    }
    Ok(job)
}

fn must_be(job: &HealJob, phase: JobPhase, done: u64, failed: u64) -> Result<()> {
    let status = job.status.clone().unwrap_or_default();
    let files = status.files.unwrap_or_default();
    if status.phase != Some(phase) || (files.done, files.failed) != (done, failed) {
        fail!("{phase:?} with {done} files and {failed} that failed is wanted, not {status:?}");
    }
    Ok(())
}

pub async fn by_hand_for_some_paths_and_for_one_pair(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    // All three hold everything: two others lack what one writes.
    let all = json!([{ "nodes": ["ws-a", "ws-b", "ws-c"] }]);
    scene.volume.patch_spec(json!({ "replicaSets": all, "replicas": 3 })).await?;
    scene.volume.wait_true(&["Placed", "Protected"], LIMIT).await?;
    let of_a = scene.write(&scene.a, "of-a", 1)?;
    let of_b = scene.write(&scene.b, "of-b", 1)?;
    scene.wait_settled_at(&scene.a).await?;
    scene.wait_settled_at(&scene.b).await?;
    for (one, as_other) in [(&scene.b, &scene.a), (&scene.a, &scene.b), (&scene.c, &scene.a)] {
        scene.wait_same_listing(one, as_other, LIMIT).await?;
    }
    let on = |workstation| scene.on_brick(workstation);
    // Some paths, for all who lack them. The job says which order and how many streams; it all acts on a real heal.
    let paths = json!(["of-a/small/1*", "of-b/medium"]);
    let how = json!({ "paths": paths, "order": "SmallestFirst", "concurrency": 2, "retry": { "limit": 2 } });
    let job = run(&scene, "paths", how).await?;
    let (some_a, some_b) = (of_a.below("./of-a/small/1"), of_b.below("./of-b/medium"));
    // ws-c lacks both kinds, the others one of them.
    let wanted = 2 * (some_a.len() + some_b.len()) as u64;
    must_be(&job, JobPhase::Completed, wanted, 0)?;
    let there = on(&scene.c)?;
    there.below("./of-a/small/1").must_be(&some_a, "what was asked for, on ws-c")?;
    there.below("./of-b/medium").must_be(&some_b, "what was asked for, on ws-c")?;
    let large = on(&scene.c)?.below("./of-a/large");
    if large.must_be(&of_a.below("./of-a/large"), "large").is_ok() {
        fail!("a path that was not asked for came too");
    }

    // One pair: to ws-c, from ws-b alone. What only ws-a has is not brought.
    let pair = json!({ "sourceBrick": "tree.ws-b", "targetBricks": ["tree.ws-c"], "retry": { "limit": 1 } });
    let job = run(&scene, "pair", pair).await?;
    let status = job.status.clone().unwrap_or_default();
    if status.targets != ["tree.ws-c"] {
        fail!("the job's targets are {:?}", status.targets);
    }
    on(&scene.c)?.below("./of-b/").must_be(&of_b, "all of ws-b, on ws-c")?;
    if on(&scene.c)?.below("./of-a/large").must_be(&of_a.below("./of-a/large"), "large").is_ok() {
        fail!("ws-c was brought what ws-b has not");
    }
    if on(&scene.a)?.below("./of-b/large").must_be(&of_b.below("./of-b/large"), "large").is_ok() {
        fail!("ws-a is no target, and got something");
    }
    // It says what it could not bring from there.
    if !status.failures.as_deref().is_some_and(|f| f.contains("Unreachable")) {
        fail!("the job says nothing of what ws-b does not have: {status:?}");
    }

    // A job for a brick that is none says so, and ends.
    let job = run(&scene, "nowhere", json!({ "targetBricks": ["tree.ws-z"] })).await?;
    let said = job.status.unwrap_or_default().message.unwrap_or_default();
    if !said.contains("tree.ws-z") {
        fail!("a job for a brick that is none says: {said}");
    }
    // The rest comes with one for all.
    let job = run(&scene, "all", json!({})).await?;
    must_be(
        &job,
        JobPhase::Completed,
        job.status.clone().unwrap_or_default().files.unwrap_or_default().total,
        0,
    )?;
    let written = scene.read(&scene.a)?;
    for workstation in [&scene.a, &scene.b, &scene.c] {
        on(workstation)?.must_be(&written, &workstation.seat.node)?;
    }
    scene.volume.wait_healed(&["ws-a", "ws-b", "ws-c"], LIMIT).await
}

pub async fn one_whose_source_is_away_tries_again_until_it_is_there(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    let written = scene.write(&scene.a, "work", 1)?;
    scene.wait_settled().await?;
    // ws-b knows what it lacks.
    scene.wait_same_listing(&scene.b, &scene.a, LIMIT).await?;
    lab.set_link("ws-a", false)?;
    let pair = json!({ "sourceBrick": "tree.ws-a", "targetBricks": ["tree.ws-b"] });
    let mut more = pair.clone();
    more["retry"] = json!({ "limit": 20 });
    let mut once = pair;
    once["retry"] = json!({ "limit": 1 });
    let result = async {
        // One that tries once ends, and says why.
        let job = run(&scene, "once", once).await?;
        let status = job.status.clone().unwrap_or_default();
        if !status.failures.as_deref().is_some_and(|f| f.contains("Unreachable")) {
            fail!("a job that could reach nobody says {status:?}");
        }
        // One that tries again says that it failed so far, and goes on.
        let api = make(&scene, "more", more).await?;
        wait_for(&api, "more", "it failed once, and goes on", LIMIT, |j: &HealJob| {
            let transfers = j.status.as_ref().map(|s| s.transfers.as_slice()).unwrap_or_default();
            !has_ended(j) && transfers.iter().flat_map(|t| &t.failures).any(|f| f.next_try.is_some())
        })
        .await?;
        Ok(api)
    }
    .await;
    lab.set_link("ws-a", true)?;
    let api = result?;
    let job = wait_for(&api, "more", "it has ended", LIMIT * 2, has_ended).await?;
    must_be(&job, JobPhase::Completed, written.len() as u64, 0)?;
    scene.on_brick(&scene.b)?.must_be(&written, "the brick of ws-b")
}
