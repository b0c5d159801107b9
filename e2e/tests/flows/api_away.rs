//! The API server or the operator is away: agents work on with each other, heal by the last policy, and reports resume.

use nearbrick_e2e::control_plane::Binaries;
use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result};

pub async fn local_work_goes_on_and_reports_resume(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    scene.write(&scene.a, "before", 1)?;
    scene.wait_settled().await?;
    lab.cluster().stop_apiserver()?;
    let work = work_without_api(&scene).await;
    start_apiserver(&scene).await?;
    work?;
    let expected = scene.read(&scene.a)?;
    let files = expected.len() as u64;
    for node in ["ws-a", "ws-c"] {
        scene
            .volume
            .wait_brick(node, "the files written meanwhile", LIMIT, |b| {
                b.status.as_ref().and_then(|s| s.files) == Some(files)
            })
            .await?;
    }
    scene.heal("after").await?;
    scene.on_brick(&scene.b)?.must_be(&expected, "the brick of ws-b")
}

pub async fn agents_heal_by_the_last_policy(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    scene.write(&scene.a, "before", 1)?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    lab.cluster().stop_apiserver()?;
    let work = copied_without_a_job(&scene, "without-api").await;
    start_apiserver(&scene).await?;
    work?;
    // And they go on by jobs.
    scene.write(&scene.a, "after", 1)?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await
}

pub async fn agents_heal_without_the_operator(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    lab.stop_operator()?;
    // It may have made some at once, when the volume was new.
    let before = scene.volume.jobs().await;
    let work = copied_without_a_job(&scene, "without-operator").await;
    let jobs = scene.volume.jobs().await;
    lab.start_operator()?;
    work?;
    let (before, mut jobs) = (before?, jobs?);
    jobs.retain(|job| before.iter().all(|was| was.metadata.uid != job.metadata.uid));
    match jobs.is_empty() {
        true => Ok(()),
        false => nearbrick_e2e::fail!("there are jobs that nobody can have made: {jobs:?}"),
    }
}

/// What is written on ws-a comes to the brick of ws-b, though nobody makes a job.
async fn copied_without_a_job(scene: &Scene, folder: &str) -> Result<()> {
    let written = scene.write(&scene.a, folder, 4)?;
    let below = format!("./{folder}/");
    eventually("copies on ws-b without a job", LIMIT * 2, || async {
        let there = scene.on_brick(&scene.b).map_err(|e| e.to_string())?.below(&below);
        there.must_be(&written, "the brick of ws-b").map_err(|e| e.to_string())
    })
    .await
}

async fn start_apiserver(scene: &Scene) -> Result<()> {
    let (lab, cluster) = (&scene.lab, scene.lab.cluster());
    cluster.start_apiserver(&Binaries::ensure()?, lab.record())?;
    cluster.wait_ready().await?;
    // kube-proxy, which had taken its address away from pods, comes back to it in its own time: up to a minute after.
    for workstation in [&scene.a, &scene.b, &scene.c] {
        let what = format!("the API server's Service leads to it on {}", workstation.seat.node);
        eventually(&what, LIMIT * 2, || async {
            workstation.sh("timeout 2 bash -c '</dev/tcp/10.96.0.1/443'").map_err(|e| e.to_string())
        })
        .await?;
    }
    lab.start_operator()
}

async fn work_without_api(scene: &Scene) -> Result<()> {
    scene.write(&scene.a, "meanwhile", 4)?;
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await?;
    let expected = scene.read(&scene.a)?;
    scene.read(&scene.c)?.must_be(&expected, "read on ws-c without the API server")
}
