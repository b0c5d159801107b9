//! The API server is away: agents work on with each other, and reports resume.

use nearbrick_e2e::control_plane::Binaries;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result};

pub async fn local_work_goes_on_and_reports_resume(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    scene.write(&scene.a, "before", 1)?;
    scene.wait_settled().await?;
    let cluster = lab.cluster();
    cluster.stop_apiserver()?;
    let work = work_without_api(&scene).await;
    cluster.start_apiserver(&Binaries::ensure()?, lab.record())?;
    cluster.wait_ready().await?;
    work?;
    if cluster.operator().running().is_none() {
        // It gives up its lease when it cannot renew it; a Deployment would start it again.
        cluster.start_operator(&lab.record().programs.operator)?;
    }
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

async fn work_without_api(scene: &Scene) -> Result<()> {
    scene.write(&scene.a, "meanwhile", 4)?;
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await?;
    let expected = scene.read(&scene.a)?;
    scene.read(&scene.c)?.must_be(&expected, "read on ws-c without the API server")
}
