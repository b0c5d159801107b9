//! The story for which volumes migrate: a person works on three projects at one workstation, sits down at another one, and goes on with
//! one of them. Its files, and no others, become local there; one of the old copies goes; there are two all the time.

use std::time::{Duration, Instant};

use kube::{Api, ResourceExt};
use nearbrick_crds::{MigrationPhase, ReplicaMigration};

use crate::error::Result;
use crate::kube_api::{self, eventually};
use crate::observer::{Fewest, Observer};
use crate::paths;
use crate::scene::{LIMIT, NODES, Scene};
use crate::trees::Tree;

/// A move may take this long: reports come every ten seconds, and there are four steps.
const MOVE: Duration = Duration::from_secs(180);
/// The project that moves.
const PROJECT: &str = "engine";
/// Those that stay.
const OTHERS: [&str; 2] = ["website", "thesis"];

/// What was seen.
#[derive(Debug)]
pub struct Told {
    /// Reading half of the project for the first time, before it moved.
    pub before: Read,
    /// Reading the other half for the first time, after it had.
    pub after: Read,
    /// From the first read there until it was done.
    pub took: Duration,
    /// The object, at the end.
    pub object: ReplicaMigration,
    /// The fewest bricks that had any file of the project at any time.
    pub fewest: Fewest,
}

/// A first read of some files.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    /// Files.
    pub files: usize,
    /// What the workstation received meanwhile.
    pub received: u64,
    /// How long it took.
    pub time: Duration,
}

impl Read {
    /// In words.
    pub fn say(&self) -> String {
        let size = nearbrick_crds::pending::human_bytes(self.received);
        format!("{} files in {:.2} s, {size} received", self.files, self.time.as_secs_f64())
    }
}

/// Applies the volume of the story in the scene's namespace.
///
/// # Errors
/// It is not in use within a minute.
pub async fn apply(scene: &Scene) -> Result<()> {
    let file = paths::in_crate("manifests/projects.yaml");
    let text = std::fs::read_to_string(&file)
        .map_err(|e| crate::error::Error::new(format!("cannot read {}: {e}", file.display())))?;
    let text = text.replace("namespace: default", &format!("namespace: {}", scene.volume.namespace));
    kube_api::apply(&scene.client, &text).await?;
    scene.volume.wait_ready(&NODES, LIMIT).await
}

/// Plays it; `say` hears how far it is.
///
/// # Errors
/// Something is not as the story says.
pub async fn tell(scene: &Scene, say: impl Fn(&str)) -> Result<Told> {
    let make = |name: &str| {
        format!(
            "mkdir -p {name}/.git {name}/src/one {name}/src/two && cd {name} && echo ref > .git/HEAD && \
             for i in $(seq 20); do head -c $((i * 997)) /dev/urandom > src/one/$i; \
             head -c $((i * 1009)) /dev/urandom > src/two/$i; done && head -c 3000000 /dev/urandom > src/one/large && \
             head -c 3000000 /dev/urandom > src/two/large"
        )
    };
    for name in OTHERS.iter().chain([&PROJECT]) {
        scene.sh(&scene.a, &make(name))?;
    }
    scene.heal("story").await?;
    let all = scene.read(&scene.a)?;
    let project = all.below(&format!("./{PROJECT}/"));
    say(&format!("three projects are written on ws-a and healed: {} files each", project.len()));
    scene.wait_same_listing(&scene.c, &scene.a, LIMIT).await?;

    let begin = Instant::now();
    let before = read_first(scene, "src/one", &project)?;
    say(&format!("a person at ws-c reads half of {PROJECT}: {}", before.say()));
    let watched = Observer::begin(scene, PROJECT, project.clone())?;
    // Works on it: the same files again, and some changes.
    for n in 0..3 {
        scene.sh(&scene.c, &format!("cd {PROJECT} && cat src/one/* > /dev/null && echo {n} >> notes"))?;
    }
    let object = moved(scene, &say).await;
    let took = begin.elapsed();
    let fewest = watched.end_with(2).await;
    let (object, fewest) = (object?, fewest?);
    let after = read_first(scene, "src/two", &project)?;
    say(&format!("the same person reads the other half: {}", after.say()));
    check(scene, &project, &object).await?;
    Ok(Told { before, after, took, object, fewest })
}

/// Reads a part of the project at ws-c.
fn read_first(scene: &Scene, part: &str, project: &Tree) -> Result<Read> {
    let counters = || scene.lab.counters("ws-c");
    let before = counters()?;
    let begin = Instant::now();
    let text = scene.sh(&scene.c, &format!("sha256sum $(find ./{PROJECT}/{part} -type f)"))?;
    let time = begin.elapsed();
    let received = counters()?.received - before.received;
    let read = Tree::from_sums(&text);
    read.must_be(&project.only(&read), "what is read at ws-c")?;
    Ok(Read { files: read.len(), received, time })
}

/// Waits for the end of the move.
async fn moved(scene: &Scene, say: &impl Fn(&str)) -> Result<ReplicaMigration> {
    let api: Api<ReplicaMigration> = Api::namespaced(scene.client.clone(), &scene.volume.namespace);
    let said = std::cell::RefCell::new(None);
    eventually("the move is done", MOVE, || async {
        let list = api.list(&Default::default()).await.map_err(|e| e.to_string())?;
        let of = |m: &&ReplicaMigration| m.spec.volume_ref.name == scene.volume.name;
        let Some(object) = list.iter().find(of) else { return Err("nothing is proposed".to_owned()) };
        let status = object.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or(MigrationPhase::Proposed);
        let line = format!("{}: {}", phase.as_str(), status.message.unwrap_or_default());
        if said.borrow().as_ref() != Some(&line) {
            say(&format!("{} {line}", object.name_any()));
            *said.borrow_mut() = Some(line.clone());
        }
        if phase.is_ended() { Ok(object.clone()) } else { Err(line) }
    })
    .await
}

/// The project is where the object says, and nothing else moved.
async fn check(scene: &Scene, project: &Tree, object: &ReplicaMigration) -> Result<()> {
    let status = object.status.clone().unwrap_or_default();
    let brick = |node: &str| format!("{}.{node}", scene.volume.name);
    let as_wanted = status.phase == Some(MigrationPhase::Done)
        && object.spec.paths == [format!("{PROJECT}/**")]
        && object.spec.to == brick("ws-c")
        && status.bricks.len() == 2
        && status.bricks.contains(&brick("ws-c"))
        && status.from.as_ref().is_some_and(|from| !status.bricks.contains(from));
    if !as_wanted {
        crate::fail!("not the move of the story: {:?} {status:?}", object.spec);
    }
    let on_c = scene.on_brick(&scene.c)?;
    let mut rest = project.clone();
    rest = rest.only(&on_c);
    if rest.len() != project.len() {
        crate::fail!("{} of {} files of {PROJECT} are right on the brick of ws-c", rest.len(), project.len());
    }
    project
        .must_be(&on_c.below(&format!("./{PROJECT}/")).only(project), "the project on the brick of ws-c")?;
    // What it must hold is the project and what was made there; and the brick that gave it up must not.
    let files = project.len() as u64 + 1;
    let left = status.from.unwrap_or_default();
    let node = left.rsplit('.').next().unwrap_or_default().to_owned();
    let all = 3 * project.len() as u64;
    for (node, wanted) in [("ws-c", files), (node.as_str(), all - project.len() as u64)] {
        let what = format!("in its sets: {wanted} files");
        scene
            .volume
            .wait_brick(node, &what, LIMIT, |b| {
                b.status.as_ref().and_then(|s| s.in_set.as_ref()).is_some_and(|p| p.files == wanted)
            })
            .await?;
    }
    Ok(())
}
