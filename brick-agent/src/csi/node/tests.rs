//! What pods see, with mounts of tmpfs in the place of volumes. They need root.

use std::sync::Mutex;

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tokio::sync::watch;
use tonic::Code;

use super::super::types::{AccessMode, Mode, MountVolume, VolumeCapability};
use super::*;
use crate::control::facts::VolumeFacts;

/// What an agent knows, as the test says.
#[derive(Default)]
struct Known {
    volumes: Mutex<Vec<(VolumeKey, Phase)>>,
    changed: watch::Sender<u64>,
}

impl Facts for Known {
    fn facts(&self) -> Vec<VolumeFacts> {
        let facts = |(key, phase): &(VolumeKey, Phase)| VolumeFacts {
            key: key.clone(),
            config: None,
            phase: phase.clone(),
            status: None,
        };
        self.volumes.lock().unwrap().iter().map(facts).collect()
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

impl Known {
    fn say(&self, phase: Phase) {
        *self.volumes.lock().unwrap() = vec![(id::parse("lab/home").unwrap(), phase)];
        self.changed.send_modify(|n| *n += 1);
    }
}

/// An API server that knows of no volume.
fn api_without_volumes() -> kube::Client {
    let service = tower::service_fn(|_: hyper::Request<kube::client::Body>| async {
        let body = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","message":"none","code":404}"#;
        let answer =
            hyper::Response::builder().status(404).body(kube::client::Body::from(body.as_bytes().to_vec()));
        Ok::<_, tower::BoxError>(answer.unwrap())
    });
    kube::Client::new(service, "default")
}

struct World {
    dir: tempfile::TempDir,
    known: Arc<Known>,
    service: NodeService,
}

impl World {
    /// None without root.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("left out: mounting needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let known = Arc::new(Known::default());
        let service =
            NodeService::new("ws-a", &dir.path().join("volumes"), known.clone(), api_without_volumes());
        std::fs::create_dir_all(dir.path().join("volumes/lab/home")).unwrap();
        let world = World { dir, known, service };
        world.mount();
        Some(world)
    }

    fn volume(&self) -> PathBuf {
        self.dir.path().join("volumes/lab/home")
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    /// A file system in the place of the volume, with a file.
    fn mount(&self) {
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        mount("tmpfs", self.volume(), "tmpfs", flags, None::<&std::ffi::CStr>).unwrap();
        std::fs::write(self.volume().join("file"), "text").unwrap();
        self.known.say(Phase::Ready);
    }

    async fn publish(&self, readonly: bool) -> Result<Nothing, Status> {
        let capability = VolumeCapability {
            block: None,
            mount: Some(MountVolume::default()),
            access_mode: Some(AccessMode { mode: Mode::MultiNodeMultiWriter.into() }),
        };
        let asked = NodePublishVolumeRequest {
            volume_id: "lab/home".to_owned(),
            target_path: self.target().display().to_string(),
            volume_capability: Some(capability),
            readonly,
        };
        self.service.publish(asked).await
    }

    async fn unpublish(&self) -> Result<Nothing, Status> {
        let target_path = self.target().display().to_string();
        let asked = NodeUnpublishVolumeRequest { volume_id: "lab/home".to_owned(), target_path };
        self.service.unpublish(asked).await
    }

    async fn stats(&self) -> Result<NodeGetVolumeStatsResponse, Status> {
        let volume_path = self.target().display().to_string();
        self.service.stats(NodeGetVolumeStatsRequest { volume_id: "lab/home".to_owned(), volume_path }).await
    }

    /// How often something is mounted at the target.
    fn mounts(&self) -> usize {
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let target = self.target().display().to_string();
        table.lines().filter(|line| line.split(' ').nth(4) == Some(target.as_str())).count()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for at in [self.target(), self.volume()] {
            while unmount(&at, UnmountFlags::DETACH).is_ok() {}
        }
    }
}

#[tokio::test]
async fn a_pod_sees_the_volume_and_what_it_writes_is_in_it() {
    let Some(world) = World::new() else { return };
    for _ in 0..2 {
        world.publish(false).await.unwrap();
        assert_eq!(world.mounts(), 1);
    }
    assert_eq!(std::fs::read_to_string(world.target().join("file")).unwrap(), "text");
    std::fs::write(world.target().join("of-a-pod"), "b").unwrap();
    let stats = world.stats().await.unwrap();
    assert!(
        stats.usage.iter().all(|u| u.total >= u.used && u.total > 0) && stats.usage.len() == 2,
        "{stats:?}"
    );
    assert!(!stats.volume_condition.unwrap().abnormal);
    assert_eq!(world.publish(true).await.unwrap_err().code(), Code::AlreadyExists);
    for _ in 0..2 {
        world.unpublish().await.unwrap();
        assert!(!world.target().exists());
    }
    assert_eq!(std::fs::read_to_string(world.volume().join("of-a-pod")).unwrap(), "b", "files stay");
    assert_eq!(world.stats().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_pod_that_only_reads_cannot_write_and_people_can() {
    let Some(world) = World::new() else { return };
    for _ in 0..2 {
        world.publish(true).await.unwrap();
        assert_eq!(world.mounts(), 1);
    }
    let error = std::fs::write(world.target().join("file"), "new").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    std::fs::write(world.volume().join("file"), "new").unwrap();
    assert_eq!(std::fs::read_to_string(world.target().join("file")).unwrap(), "new");
    assert_eq!(world.publish(false).await.unwrap_err().code(), Code::AlreadyExists);
    world.unpublish().await.unwrap();
}

#[tokio::test]
async fn a_volume_that_was_mounted_anew_is_said_and_shown_again() {
    let Some(world) = World::new() else { return };
    world.publish(false).await.unwrap();
    unmount(world.volume(), UnmountFlags::DETACH).unwrap();
    world.known.say(Phase::Starting("opening".to_owned()));
    let condition = world.stats().await.unwrap().volume_condition.unwrap();
    assert!(condition.abnormal && condition.message == "opening", "{condition:?}");
    world.mount();
    let condition = world.stats().await.unwrap().volume_condition.unwrap();
    assert!(condition.abnormal && condition.message.contains("mounted anew"), "{condition:?}");
    std::fs::write(world.volume().join("new"), "n").unwrap();
    world.publish(false).await.unwrap();
    assert_eq!(world.mounts(), 1);
    assert!(world.target().join("new").exists());
    assert!(!world.stats().await.unwrap().volume_condition.unwrap().abnormal);
    world.unpublish().await.unwrap();
}

#[tokio::test]
async fn a_volume_that_comes_is_waited_for() {
    let Some(world) = World::new() else { return };
    world.known.say(Phase::Starting("opening".to_owned()));
    let publish = world.publish(false);
    let comes = async {
        tokio::task::yield_now().await;
        assert_eq!(world.mounts(), 0);
        world.known.say(Phase::Ready);
    };
    let (published, ()) = tokio::join!(publish, comes);
    published.unwrap();
    world.unpublish().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_come_is_given_up_with_the_reason() {
    let Some(world) = World::new() else { return };
    world.known.say(Phase::Refused("the brick is another one".to_owned()));
    let error = world.publish(false).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(
        error.message().contains("not mounted on node ws-a") && error.message().contains("another one"),
        "{error}"
    );
    world.known.say(Phase::Emptying("half".to_owned()));
    assert_eq!(world.publish(false).await.unwrap_err().code(), Code::FailedPrecondition);
    world.known.volumes.lock().unwrap().clear();
    assert_eq!(world.publish(false).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(world.mounts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_mount_that_is_dead_holds_up_nobody_else() {
    let Some(world) = World::new() else { return };
    let (end, ended) = std::sync::mpsc::channel::<()>();
    let ended = Arc::new(Mutex::new(ended));
    for _ in 0..QUESTIONS {
        let ended = ended.clone();
        let never = world.service.ask_kernel("wait", move || ended.lock().unwrap().recv());
        assert_eq!(never.await.unwrap_err().code(), Code::DeadlineExceeded);
    }
    assert_eq!(world.service.ask_kernel("wait", || ()).await.unwrap_err().code(), Code::Unavailable);
    drop(end);
    tokio::time::resume();
    while world.service.questions.available_permits() < QUESTIONS {
        tokio::task::yield_now().await;
    }
    world.service.ask_kernel("wait", || ()).await.unwrap();
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let Some(world) = World::new() else { return };
    let ask = |volume_id: &str, target_path: &str| {
        let (volume_id, target_path) = (volume_id.to_owned(), target_path.to_owned());
        world.service.unpublish(NodeUnpublishVolumeRequest { volume_id, target_path })
    };
    for (id, target) in [("", "/t"), ("lab/home", ""), ("lab/home", "t")] {
        assert_eq!(ask(id, target).await.unwrap_err().code(), Code::InvalidArgument, "{id:?} {target:?}");
    }
    let mut block = NodePublishVolumeRequest {
        volume_id: "lab/../home".to_owned(),
        target_path: world.target().display().to_string(),
        volume_capability: None,
        readonly: false,
    };
    assert_eq!(world.service.publish(block.clone()).await.unwrap_err().code(), Code::InvalidArgument);
    block.volume_capability =
        Some(VolumeCapability { block: Some(Nothing {}), mount: None, access_mode: None });
    let error = world.service.publish(block.clone()).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("volumeMode"), "{error}");
    let access_mode = Some(AccessMode { mode: Mode::SingleNodeWriter.into() });
    block.volume_capability =
        Some(VolumeCapability { block: None, mount: Some(MountVolume::default()), access_mode });
    assert_eq!(world.service.publish(block).await.unwrap_err().code(), Code::NotFound);
    assert!(!world.target().exists());
}
