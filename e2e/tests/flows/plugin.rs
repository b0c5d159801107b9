//! `kubectl nearbrick`, started by the real kubectl.

use std::process::Output;

use nearbrick_crds::condition::{PLACED, PROTECTED};
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::{Lab, Result, fail};
use serde_json::json;

/// Runs it in the scene's namespace.
pub fn plugin(scene: &Scene, arguments: &[&str]) -> Result<Output> {
    let mut kubectl = scene.lab.kubectl()?;
    kubectl.arg("nearbrick").args(arguments).args(["--namespace", &scene.volume.namespace]);
    kubectl.output().context("cannot start kubectl")
}

pub fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

pub async fn may_leave_is_answered_and_made_so(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "10m").await?;
    let written = scene.write(&scene.a, "work", 8)?;
    scene.wait_settled().await?;
    // What is written a moment before counts: the answer is no, with what is lacking.
    eventually("the answer is no", LIMIT, || async {
        let said = plugin(&scene, &["leave", "ws-a"]).map_err(|e| e.to_string())?;
        let line = text(&said);
        (!said.status.success() && line.starts_with("not yet: ")).then_some(()).ok_or(line)
    })
    .await?;
    let status = text(&plugin(&scene, &["status"])?);
    let has = |words: &[&str]| status.lines().any(|line| words.iter().all(|w| line.contains(w)));
    if !has(&["tree.ws-a", "tree.ws-b"]) || !has(&["ws-a", "Online", "not yet"]) || !has(&["tree", "Pending"])
    {
        fail!("the status is: {status}");
    }
    let left = plugin(&scene, &["leave", "ws-a", "--wait", "--timeout", "2m"])?;
    if !left.status.success() || !text(&left).contains("yes, ws-a may leave") {
        fail!("leave --wait: {}", text(&left));
    }
    // It was true: without ws-a everything is there.
    scene.a.power_off(false)?;
    scene.on_brick(&scene.b)?.must_be(&written, "the brick of ws-b")?;
    scene.read(&scene.c)?.must_be(&written, "read on ws-c")?;
    scene.lab.start("ws-a")?;
    let nobody = plugin(&scene, &["leave", "ws-z"])?;
    if nobody.status.success() || !text(&nobody).contains("there is no workstation ws-z") {
        fail!("an unknown workstation: {}", text(&nobody));
    }
    // Mounted again, and abreast.
    scene.wait_same_listing(&scene.a, &scene.b, LIMIT).await?;
    scene.sh(&scene.b, "echo more > more")?;
    scene.wait_settled().await?;
    let flushed = plugin(&scene, &["flush", "--wait", "--timeout", "2m"])?;
    if !flushed.status.success() || !text(&flushed).contains("all is copied") {
        fail!("flush --wait: {}", text(&flushed));
    }
    scene.on_brick(&scene.a)?.must_be(&scene.read(&scene.b)?, "the brick of ws-a")
}

/// The question is asked in the moment after the last write, again and again: a report from before it would say yes.
pub async fn an_answer_is_never_from_before_the_question(lab: Lab) -> Result<()> {
    const TIMES: usize = 10;
    let scene = Scene::new(&lab, "10m").await?;
    for n in 0..TIMES {
        scene.sh(&scene.a, &format!("head -c 100000 /dev/urandom > last-{n}"))?;
        let said = plugin(&scene, &["leave", "ws-a"])?;
        if said.status.success() || !text(&said).starts_with("not yet: ") {
            fail!("time {n}: a file that was just written is only there, and the answer is: {}", text(&said));
        }
        // Copied as soon as it says so, and it says so as soon as it is.
        let flushed = plugin(&scene, &["flush", "--wait", "--timeout", "1m"])?;
        if !flushed.status.success() {
            fail!("time {n}: {}", text(&flushed));
        }
        let written = scene.read(&scene.a)?;
        scene.on_brick(&scene.b)?.must_be(&written, &format!("the brick of ws-b after flush {n}"))?;
        let said = plugin(&scene, &["leave", "ws-a"])?;
        if !said.status.success() {
            fail!("time {n}: all is copied, and the answer is: {}", text(&said));
        }
    }
    Ok(())
}

pub async fn what_is_used_where_it_is_to_be_and_a_move_by_hand(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    // The operator chooses: only such files may move.
    scene.volume.patch_spec(json!({ "replicaSets": [] })).await?;
    let placed =
        scene.volume.wait_true(&[PLACED, PROTECTED], LIMIT).await?.status.unwrap_or_default().placement;
    let rule = placed.into_iter().find(|rule| rule.creator == "ws-a").context("a rule for ws-a")?;
    let (partner, other) = match rule.bricks.contains(&"tree.ws-b".to_owned()) {
        true => ("ws-b", &scene.c),
        false => ("ws-c", &scene.b),
    };
    let target = other.seat.node.as_str();
    let work = scene.write(&scene.a, "work", 2)?;
    scene.wait_settled().await?;
    scene.volume.wait_healed(&["ws-a", "ws-b", "ws-c"], LIMIT).await?;
    let say = |arguments: &[&str]| -> Result<String> {
        let said = plugin(&scene, arguments)?;
        match said.status.success() {
            true => Ok(text(&said)),
            false => fail!("{arguments:?}: {}", text(&said)),
        }
    };
    eventually("what was written is what is used", LIMIT, || async {
        let heat = say(&["heat", "tree"]).map_err(|e| e.to_string())?;
        let used = heat.lines().any(|line| line.starts_with("ws-a ") && line.contains("work"));
        used.then_some(()).ok_or(heat)
    })
    .await?;
    let shown = say(&["migrate", "tree", "work", "--to", target, "--from", partner, "--dry-run"])?;
    if !shown.contains("held by") || !shown.contains(&format!("tree.{target}")) {
        fail!("the trial says: {shown}");
    }
    let before = say(&["why", "tree", "work/medium"])?;
    let held = format!("files that were made on ws-a are to be held by tree.ws-a, tree.{partner}");
    if !before.contains(&held) {
        fail!("before the move: {before}");
    }
    say(&["migrate", "tree", "work", "--to", target, "--from", partner])?;
    eventually("it has moved", LIMIT * 2, || async {
        let why = say(&["why", "tree", "work/medium"]).map_err(|e| e.to_string())?;
        (why.contains("because of move") && why.contains("Done")).then_some(()).ok_or(why)
    })
    .await?;
    scene.on_brick(other)?.must_be(&work, "the brick to which it moved")?;
    let refused = plugin(&scene, &["migrate", "tree", "work", "--to", "ws-z"])?;
    if refused.status.success() || !text(&refused).contains("ws-z") {
        fail!("a move to nowhere: {}", text(&refused));
    }
    let nothing = plugin(&scene, &["heat", "forest"])?;
    if nothing.status.success() || !text(&nothing).contains("there is no volume forest") {
        fail!("a volume that is not there: {}", text(&nothing));
    }
    Ok(())
}

pub async fn conflicts_are_shown_and_resolved(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    scene.sh(&scene.a, "echo plan > plan.txt")?;
    scene.heal("one").await?;
    lab.set_link("ws-a", false)?;
    let work = scene
        .sh(&scene.a, "echo plan of a > plan.txt")
        .and_then(|_| scene.sh(&scene.b, "echo plan of b > plan.txt"));
    lab.set_link("ws-a", true)?;
    work?;
    let listed = eventually("the conflict is listed", LIMIT, || async {
        let said = text(&plugin(&scene, &["conflicts"]).map_err(|e| e.to_string())?);
        (said.contains("plan.txt") && said.contains("Open")).then_some(said.clone()).ok_or(said)
    })
    .await?;
    let shown = text(&plugin(&scene, &["conflicts", "plan.txt"])?);
    if !shown.contains("ws-a") || !shown.contains("ws-b") {
        fail!("the conflict is shown as: {listed}{shown}");
    }
    let refused = plugin(&scene, &["resolve", "other.txt", "--keep", "newest"])?;
    if refused.status.success() || !text(&refused).contains("nothing was changed") {
        fail!("another path: {}", text(&refused));
    }
    let resolved = plugin(&scene, &["resolve", "plan.*", "--keep", "ws-b"])?;
    if !resolved.status.success() {
        fail!("resolve: {}", text(&resolved));
    }
    eventually("the chosen version", LIMIT, || async {
        let there = scene.sh(&scene.c, "ls && cat plan.txt").map_err(|e| e.to_string())?;
        (there == "plan.txt\nplan of b\n").then_some(()).ok_or(there)
    })
    .await?;
    // Somebody thinks again.
    let undone = plugin(&scene, &["undo", "plan.txt"])?;
    if !undone.status.success() {
        fail!("undo: {}", text(&undone));
    }
    eventually("both versions again", LIMIT, || async {
        let there = scene.sh(&scene.c, "cat plan* | sort").map_err(|e| e.to_string())?;
        (there == "plan of a\nplan of b\n").then_some(()).ok_or(there)
    })
    .await?;
    let nothing = plugin(&scene, &["undo", "plan.txt"])?;
    match !nothing.status.success() && text(&nothing).contains("nobody has chosen") {
        true => Ok(()),
        false => fail!("undone twice: {}", text(&nothing)),
    }
}
