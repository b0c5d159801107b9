//! What an agent refuses: it says why in one line, and touches nothing.

use nearbrick_crds::BrickState;
use nearbrick_e2e::kube_api;
use nearbrick_e2e::scene::{LIMIT, Scene, manifest};
use nearbrick_e2e::{Lab, Result, fail};

/// Waits until ws-a refuses its brick; what it says.
async fn refusal(scene: &Scene) -> Result<String> {
    let brick = scene
        .volume
        .wait_brick("ws-a", "Refused", LIMIT, |b| {
            b.status.as_ref().and_then(|s| s.state) == Some(BrickState::Refused)
        })
        .await?;
    let message = brick.status.and_then(|s| s.message).unwrap_or_default();
    if message.is_empty() || message.contains('\n') {
        fail!("a refusal should have one line, and has {message:?}");
    }
    Ok(message)
}

fn listing(scene: &Scene) -> Result<String> {
    let script = format!("cd {} && find . -printf '%P %y %m %s %T@ %i\\n' | sort", scene.volume.brick_dir());
    scene.a.sh(&script)
}

async fn make_volume(scene: &Scene) -> Result<()> {
    kube_api::apply(&scene.client, &manifest(&scene.volume.namespace, "10m")).await.map(|_| ())
}

/// The others are not held up by the one that refuses.
async fn others_work(scene: &Scene) -> Result<()> {
    scene.volume.wait_brick_ready("ws-b", LIMIT).await?;
    scene.volume.wait_brick_ready("ws-c", LIMIT).await?;
    Ok(())
}

pub async fn a_folder_that_is_no_brick(lab: Lab) -> Result<()> {
    let scene = Scene::without_volume(&lab).await?;
    let dir = scene.volume.brick_dir();
    scene.a.sh(&format!("mkdir -p {dir} && echo mine > {dir}/letter"))?;
    let before = listing(&scene)?;
    make_volume(&scene).await?;
    let message = refusal(&scene).await?;
    if listing(&scene)? != before {
        fail!("the agent refused ({message}), and changed the folder");
    }
    others_work(&scene).await
}

pub async fn a_brick_of_another_volume(lab: Lab) -> Result<()> {
    let other = Scene::new(&lab, "10m").await?;
    other.sh(&other.a, "echo other > file")?;
    let scene = Scene::without_volume(&lab).await?;
    let (from, to) = (other.volume.brick_dir(), scene.volume.brick_dir());
    scene.a.sh(&format!("mkdir -p $(dirname {to}) && cp -a {from} {to}"))?;
    let before = listing(&scene)?;
    make_volume(&scene).await?;
    let message = refusal(&scene).await?;
    if listing(&scene)? != before {
        fail!("the agent refused ({message}), and changed the other volume's brick");
    }
    others_work(&scene).await
}

pub async fn a_file_system_without_attributes(lab: Lab) -> Result<()> {
    let scene = Scene::without_volume(&lab).await?;
    let dir = scene.volume.brick_dir();
    scene.a.sh(&format!("mkdir -p {dir} && mount -t ramfs none {dir}"))?;
    make_volume(&scene).await?;
    let message = refusal(&scene).await;
    let left = scene.a.sh(&format!("ls -A {dir}"));
    // The agent may hold the folder open; it must not keep the mount from the next test.
    scene.a.sh(&format!("umount --lazy {dir}"))?;
    let (message, left) = (message?, left?);
    if !left.is_empty() {
        fail!("the agent refused ({message}), and left {left:?}");
    }
    others_work(&scene).await
}

/// One line, that has these words in it.
fn must_say(said: &str, words: &[&str]) -> Result<()> {
    let lines: Vec<&str> = said.lines().filter(|l| !l.starts_with("code ")).collect();
    let missing = words.iter().find(|word| !said.contains(**word));
    match (lines.len(), missing) {
        (1, None) => Ok(()),
        _ => fail!("one line with {words:?} should be said, and it was: {said:?}"),
    }
}

pub async fn no_fuse(lab: Lab) -> Result<()> {
    let scene = Scene::without_volume(&lab).await?;
    let wrap = "unshare --mount sh -c 'mount -t tmpfs none /dev && exec \"$@\"' sh";
    let said = scene.refused_agent(&scene.a, wrap, (":74", ":84"))?;
    must_say(&said, &["/dev/fuse"])
}

pub async fn no_root(lab: Lab) -> Result<()> {
    let scene = Scene::without_volume(&lab).await?;
    let wrap = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    let said = scene.refused_agent(&scene.a, wrap, (":74", ":84"))?;
    must_say(&said, &["root"])
}

pub async fn port_taken(lab: Lab) -> Result<()> {
    let scene = Scene::without_volume(&lab).await?;
    let said = scene.refused_agent(&scene.a, "", ("", ""))?;
    must_say(&said, &["7443"])
}
