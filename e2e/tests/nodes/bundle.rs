//! What `kubectl nearbrick support-bundle` packs.

use nearbrick_e2e::command::run;
use nearbrick_e2e::error::Context;
use nearbrick_e2e::scene::Scene;
use nearbrick_e2e::{Lab, Result, fail};

pub async fn has_objects_events_and_logs_and_no_more_than_the_person_may_read(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    scene.sh(&scene.a, "echo mine > private-name")?;
    let dir = lab.identity().dir.join("bundle");
    std::fs::create_dir_all(&dir).context("a folder")?;
    let pack = |name: &str, more: &[&str]| -> Result<String> {
        let file = dir.join(name).display().to_string();
        lab.kubectl_output(&[&["nearbrick", "support-bundle", "--file", &file], more].concat())?;
        run("tar", ["--extract", "--gzip", "--to-stdout", "--file", &file])
    };
    let list = |name: &str| run("tar", ["--list", "--gzip", "--file", &dir.join(name).display().to_string()]);

    let all = pack("all.tar.gz", &[])?;
    let names = list("all.tar.gz")?;
    for part in
        ["workstationvolumes.yaml", "bricks.yaml", "nodes.yaml", "events.yaml", "pods.yaml", "version.json"]
    {
        if !names.contains(part) {
            fail!("{part} is not in it: {names}");
        }
    }
    let logs = names.lines().filter(|name| name.contains("/logs/nearbrick-agent-")).count();
    if logs < 3 || !all.contains("the brick agent starts") || !all.contains(&scene.volume.namespace) {
        fail!("{logs} logs of agents: {names}");
    }
    if all.contains("PRIVATE KEY") {
        fail!("there is a key in it");
    }
    pack("less.tar.gz", &["--without-paths"])?;
    let names = list("less.tar.gz")?;
    if names.contains("/logs/") || !names.contains("bricks.yaml") {
        fail!("without paths there is: {names}");
    }
    // Somebody who may read nothing gets one line, and no file.
    let as_nobody = ["--as", "nobody"];
    let denied = pack("none.tar.gz", &as_nobody);
    match denied {
        Err(_) if !dir.join("none.tar.gz").exists() => Ok(()),
        other => fail!("somebody without rights: {other:?}"),
    }
}
