//! Workstations and an operator whose clocks are hours apart.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use nearbrick_crds::WorkstationState;
use nearbrick_crds::condition::PROTECTED;
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::wait_for;
use nearbrick_e2e::packages::{self, TESTS};
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result, fail};

/// A program that runs `program` with its clock set apart; timers go as they do.
fn apart(lab: &Lab, name: &str, hours: &str, program: &Path) -> Result<PathBuf> {
    let script = lab.identity().dir.join(name);
    let text = format!(
        "#!/bin/sh\nexport FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1\n\
         exec faketime -f {hours}h {} \"$@\"\n",
        program.display()
    );
    std::fs::write(&script, text).context(format!("cannot write {}", script.display()))?;
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&script, mode).context(format!("cannot make {} a program", script.display()))?;
    Ok(script)
}

pub async fn that_are_apart_neither_stop_heals_nor_decide_what_is_newer(lab: Lab) -> Result<()> {
    packages::ensure(TESTS)?;
    let programs = lab.record().programs.clone();
    let scene = Scene::new(&lab, "5s").await?;
    let set = |ahead: bool| -> Result<()> {
        let program = |name: &str, hours: &str, program: &Path| match ahead {
            true => apart(&lab, name, hours, program),
            false => Ok(program.to_owned()),
        };
        lab.cluster().stop_operator()?;
        lab.cluster().start_operator(&program("operator-behind", "-1", &programs.operator)?)?;
        for (workstation, name, hours) in
            [(&scene.b, "agent-ahead", "+12"), (&scene.c, "agent-behind", "-12")]
        {
            workstation.power_on()?;
            workstation.stop_agent()?;
            workstation.start_agent(&program(name, hours, &programs.agent)?, &[])?;
        }
        Ok(())
    };
    set(true)?;
    let done = while_apart(&scene).await;
    set(false)?;
    done?;
    // And back: nobody takes what is there for older or newer than it is.
    let before = scene.read(&scene.a)?;
    scene.wait_same_listing(&scene.b, &scene.a, LIMIT).await?;
    scene.sh(&scene.c, "echo back > turn")?;
    scene.wait_settled_at(&scene.c).await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    let after = scene.read(&scene.b)?;
    if after.len() != before.len() || scene.sh(&scene.a, "cat turn")? != "back\n" {
        fail!("after the clocks were set right, ws-b has {} files of {}", after.len(), before.len());
    }
    Ok(())
}

async fn while_apart(scene: &Scene) -> Result<()> {
    // They are in fact apart.
    let ahead = scene.b.sh("faketime -f +12h date +%s")?;
    let now = scene.a.sh("date +%s")?;
    let seconds = |text: &str| text.trim().parse::<i64>().unwrap_or_default();
    if seconds(&ahead) - seconds(&now) < 11 * 3600 {
        fail!("faketime changes no clock here");
    }
    let api: kube::Api<nearbrick_crds::Workstation> = kube::Api::all(scene.client.clone());
    for (node, hours) in [("ws-b", 12), ("ws-c", -12)] {
        wait_for(&api, node, "online, by a clock that is wrong", LIMIT, |w: &nearbrick_crds::Workstation| {
            let status = w.status.clone().unwrap_or_default();
            let seen = status.last_seen.map_or(0, |t| t.0.as_second() - seconds(&now));
            status.state == Some(WorkstationState::Online) && (seen - hours * 3600).abs() < 3600
        })
        .await?;
    }
    // Edits that follow each other, at the workstation whose clock is ahead, at the one behind, and at the one between: each is based on the
    // one before, and none is a conflict. The last is what all have.
    let turn = |n: usize| [&scene.b, &scene.c, &scene.a][n % 3];
    for n in 0..6 {
        let workstation = turn(n);
        scene.sh(workstation, &format!("echo {n} > turn && mkdir -p of-{n} && echo {n} > of-{n}/file"))?;
        scene.wait_settled_at(workstation).await?;
        scene.wait_same_listing(turn(n + 1), workstation, LIMIT).await?;
        let there = scene.sh(turn(n + 1), "cat turn")?;
        if there.trim() != n.to_string() {
            fail!("{} wrote {n}, and {} reads {there}", workstation.seat.node, turn(n + 1).seat.node);
        }
    }
    // Heals by schedule, soon, and not one after the other without an end.
    let files = scene.write(&scene.b, "work", 4)?;
    scene.wait_settled_at(&scene.b).await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT).await?;
    scene.volume.wait_true(&[PROTECTED], LIMIT).await?;
    scene.on_brick(&scene.a)?.below("./work/").must_be(&files.below("./work/"), "the brick of ws-a")?;
    let conflicts = scene.sh(&scene.a, "find . -name '*conflict*'")?;
    if !conflicts.is_empty() {
        fail!("edits that followed each other became conflicts: {conflicts}");
    }
    let jobs = scene.volume.jobs().await?;
    println!("{} heal jobs", jobs.len());
    // The question that counts: no right after a write, yes when it is copied.
    for workstation in [&scene.b, &scene.a] {
        let node = workstation.seat.node.as_str();
        scene.volume.patch_policy(serde_json::json!({ "paused": true })).await?;
        scene.sh(workstation, "head -c 100000 /dev/urandom > last")?;
        let said = super::plugin::plugin(scene, &["leave", node])?;
        if said.status.success() {
            fail!("{node}: a file that was just written is only there, and the answer is yes");
        }
        scene.volume.patch_policy(serde_json::json!({ "paused": false })).await?;
        let said = super::plugin::plugin(scene, &["leave", node, "--wait", "--timeout", "1m"])?;
        if !said.status.success() {
            fail!("{node} never may leave: {}", super::plugin::text(&said));
        }
        let other = if node == "ws-a" { &scene.b } else { &scene.a };
        scene.on_brick(other)?.must_be(&scene.read(workstation)?, &other.seat.node)?;
    }
    // One whose clock is ahead is seen to be away all the same.
    scene.b.power_off(false)?;
    wait_for(&api, "ws-b", "away", LIMIT * 3, |w: &nearbrick_crds::Workstation| {
        w.status.as_ref().and_then(|s| s.state) == Some(WorkstationState::Away)
    })
    .await
    .map(drop)
}
