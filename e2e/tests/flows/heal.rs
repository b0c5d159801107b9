//! Heals: by schedule, by trigger, and none where there is nothing to do.

use kube::ResourceExt;
use nearbrick_crds::condition::{PLACED, PROTECTED};
use nearbrick_crds::{JobPhase, JobReason, Transfer, TransferPhase};
use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::volumes::has_ended;
use nearbrick_e2e::{Lab, Result, fail};

pub async fn by_schedule(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    let written = scene.write(&scene.a, "work", 16)?;
    scene.wait_settled().await?;
    let job = scene
        .volume
        .wait_job("a job by schedule that ended", LIMIT, |j| {
            j.spec.reason == JobReason::Scheduled && has_ended(j)
        })
        .await?;
    let status = job.status.unwrap_or_default();
    if status.phase != Some(JobPhase::Completed) {
        fail!("the job ended as {:?}: {:?}", status.phase, status.message);
    }
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    scene.on_brick(&scene.a)?.must_be(&written, "the brick of ws-a")?;
    scene.on_brick(&scene.b)?.must_be(&written, "the brick of ws-b")
}

pub async fn by_trigger(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    let written = scene.write(&scene.a, "work", 16)?;
    let files = written.len() as u64;
    // The oldest pending file, the bytes and the brick that lacks them are shown.
    let brick = scene
        .volume
        .wait_brick("ws-a", "everything pending", LIMIT, |b| {
            let pending = b.status.as_ref().and_then(|s| s.pending.as_ref());
            pending.is_some_and(|p| p.files == files && p.oldest_since.is_some())
        })
        .await?;
    let out = brick.status.unwrap_or_default().pending_out;
    if out.len() != 1 || out[0].brick != "tree.ws-b" || out[0].files != files {
        fail!("ws-a says what is pending where: {out:?}");
    }
    if !scene.volume.jobs().await?.is_empty() {
        fail!("there is a job before anybody asked");
    }
    scene.heal("now").await?;
    let jobs = scene.volume.jobs().await?;
    if !jobs.iter().any(|j| j.spec.reason == JobReason::Trigger) {
        fail!("no job by trigger: {jobs:?}");
    }
    scene.on_brick(&scene.a)?.must_be(&written, "the brick of ws-a")?;
    scene.on_brick(&scene.b)?.must_be(&written, "the brick of ws-b")
}

pub async fn a_deleted_job_ends_at_once_and_leaves_what_came(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    scene.sh(&scene.a, "head -c 200M /dev/urandom > large")?;
    let written = scene.read(&scene.a)?;
    scene.wait_settled().await?;
    let policy = |bandwidth: serde_json::Value| {
        scene.volume.patch_policy(serde_json::json!({ "bandwidth": bandwidth }))
    };
    // That takes three minutes.
    policy(serde_json::json!("1Mi")).await?;
    scene.volume.trigger("slow").await?;
    let slow = scene
        .volume
        .wait_job("a job that says how far it is within a file", LIMIT, |j| {
            let status = j.status.clone().unwrap_or_default();
            let moving = status.bytes.is_some_and(|b| b.done > 0 && b.done < b.total);
            moving && status.files.is_some_and(|f| f.done == 0) && status.eta_seconds.is_some_and(|s| s > 30)
        })
        .await?;
    scene.volume.delete_job(&slow).await?;
    policy(serde_json::Value::Null).await?;
    scene.volume.trigger("fast").await?;
    // Were the slow one not over, this one would wait for it.
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    scene.on_brick(&scene.b)?.must_be(&written, "the brick of ws-b")
}

pub async fn without_anything_pending_makes_no_job(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    scene.heal("first").await?;
    let jobs = scene.volume.jobs().await?;
    match jobs.is_empty() {
        true => Ok(()),
        false => fail!("nothing was pending, and there are {} jobs", jobs.len()),
    }
}

pub async fn all_pairs_heal_side_by_side_and_kubectl_shows_how_far_they_are(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    // A third pair beside the two ways between ws-a and ws-b.
    let all = serde_json::json!([{ "nodes": ["ws-a", "ws-b", "ws-c"] }]);
    scene.volume.patch_spec(serde_json::json!({ "replicaSets": all, "replicas": 3 })).await?;
    scene.volume.wait_true(&[PLACED, PROTECTED], LIMIT).await?;
    scene.volume.patch_policy(serde_json::json!({ "bandwidth": "1Mi" })).await?;
    for workstation in [&scene.a, &scene.b] {
        let node = &workstation.seat.node;
        scene.sh(workstation, &format!("head -c 100M /dev/urandom > of-{node}"))?;
        scene.wait_settled_at(workstation).await?;
    }
    scene.volume.trigger("slow").await?;
    let job = scene
        .volume
        .wait_job("transfers to all three, all on their way", LIMIT, |j| {
            let transfers = j.status.as_ref().map(|s| s.transfers.as_slice()).unwrap_or_default();
            let moving = |t: &&Transfer| {
                let known = t.bytes_per_second.is_some() && t.eta_seconds.is_some();
                t.phase == Some(TransferPhase::Running) && t.bytes_done > 0 && known
            };
            transfers.iter().filter(moving).count() == 3
        })
        .await?;
    // The sum follows what the targets say.
    let line = eventually("kubectl shows how far it is, and how fast", LIMIT, || async {
        let get = ["get", "whj", "-n", &scene.volume.namespace];
        let shown = scene.lab.kubectl_output(&get).map_err(|e| e.to_string())?;
        let line = shown.lines().find(|line| line.starts_with(&job.name_any())).unwrap_or_default();
        let says = line.contains("Running") && line.contains("iB/s");
        says.then(|| line.to_owned()).ok_or(shown)
    })
    .await?;
    println!("{line}");
    scene.volume.delete_job(&job).await?;
    scene.volume.patch_policy(serde_json::json!({ "bandwidth": null })).await?;
    scene.volume.trigger("fast").await?;
    scene.volume.wait_healed(&["ws-a", "ws-b", "ws-c"], LIMIT).await?;
    let written = scene.read(&scene.a)?;
    for workstation in [&scene.a, &scene.b, &scene.c] {
        scene.on_brick(workstation)?.must_be(&written, &workstation.seat.node)?;
    }
    Ok(())
}
