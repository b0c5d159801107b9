//! The agent's side of the socket.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Answer, Ask, MAX_QUESTION, Progress, Version, socket};
use crate::control::convert::VolumeKey;
use crate::volume::{KeptVersion, Pass, Volume};

/// A question that is not there by then is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two lines about a look through a brick.
const PROGRESS: Duration = Duration::from_secs(1);

/// The volumes that are open.
pub trait OpenVolumes: Send + Sync + 'static {
    /// All of them, each with the place where it is mounted.
    fn open_volumes(&self) -> Vec<(VolumeKey, PathBuf, Arc<Volume>)>;
}

/// Takes the socket in `run_dir`; also from an agent before this one.
///
/// # Errors
/// What the disk says.
pub fn listen(run_dir: &Path) -> io::Result<UnixListener> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir)?;
    let at = socket(run_dir);
    match std::fs::remove_file(&at) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&at)?;
    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is stopped.
pub async fn serve(listener: UnixListener, volumes: Arc<dyn OpenVolumes>, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (volumes, stop) = (volumes.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = answer(stream, volumes) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a command cannot be taken");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, volumes: Arc<dyn OpenVolumes>) -> io::Result<()> {
    let (from, mut to) = stream.into_split();
    let mut line = String::new();
    let mut from = BufReader::new(from.take(MAX_QUESTION));
    tokio::time::timeout(PATIENCE, from.read_line(&mut line)).await.map_err(io::Error::other)??;
    let (answers, mut next) = mpsc::channel(64);
    tokio::task::spawn_blocking(move || {
        let last = match serde_json::from_str(&line) {
            Ok(ask) => act(&*volumes, ask, &answers),
            Err(error) => Err(format!("this agent does not know what is asked: {error}")),
        };
        // Whoever asked may be gone.
        let _ = answers.blocking_send(last.unwrap_or_else(Answer::Failed));
    });
    while let Some(answer) = next.recv().await {
        let mut line = serde_json::to_vec(&answer)?;
        line.push(b'\n');
        to.write_all(&line).await?;
    }
    to.shutdown().await
}

fn act(volumes: &dyn OpenVolumes, ask: Ask, answers: &mpsc::Sender<Answer>) -> Result<Answer, String> {
    let open = volumes.open_volumes();
    match ask {
        Ask::Versions { path } => {
            let asked = match &path {
                None => open.iter().map(|(_, at, volume)| (at, volume, None)).collect(),
                Some(path) => {
                    let (at, volume, inside) = mounted(&open, path)?;
                    vec![(at, volume, Some(inside).filter(|path| !path.is_empty()))]
                }
            };
            for (at, volume, inside) in asked {
                let kept = volume.kept_versions(inside.as_deref());
                for version in kept.map_err(|e| format!("what is kept cannot be read: {e}"))? {
                    if answers.blocking_send(Answer::Version(shown(volume, at, version))).is_err() {
                        return Ok(Answer::End);
                    }
                }
            }
            Ok(Answer::End)
        }
        Ask::Restore { id, to } => {
            let has = |(_, _, volume): &&(VolumeKey, PathBuf, Arc<Volume>)| volume.kept_version(&id).is_ok();
            let Some((_, at, volume)) = open.iter().find(has) else {
                return Err(format!(
                    "{id} is not kept at this workstation: `brick-agent versions list --all` shows what is"
                ));
            };
            let inside = match &to {
                None => None,
                Some(path) => {
                    let (other, _, inside) = mounted(&open, path)?;
                    if other != at {
                        return Err(format!(
                            "{id} is a version of {}: it can be restored there only",
                            at.display()
                        ));
                    }
                    Some(inside)
                }
            };
            let path = volume.restore(&id, inside.as_deref()).map_err(|error| error.to_string())?;
            Ok(Answer::Restored(below(at, &path)))
        }
        Ask::Scrub { volume } => scrub(&open, &volume, answers),
    }
}

/// Has a volume's brick looked through, and says how far that is until it is done.
fn scrub(
    open: &[(VolumeKey, PathBuf, Arc<Volume>)],
    name: &[u8],
    answers: &mpsc::Sender<Answer>,
) -> Result<Answer, String> {
    let by_key = open.iter().find(|(key, ..)| key.to_string().as_bytes() == name);
    let volume = match by_key {
        Some((_, _, volume)) => volume,
        None => mounted(open, name)?.1,
    };
    if volume.is_rebuilding() {
        return Err(
            "its index is being made anew, and all files are judged for that: ask again later".to_owned()
        );
    }
    let began = volume.want_scrub().map_err(|error| format!("it cannot begin: {error}"))?;
    loop {
        let status = volume.scrub_status();
        let last = status.last.as_ref().filter(|last| last.began_ms >= began);
        let pass = last.or(status.running.as_ref()).cloned().unwrap_or_default();
        let progress = shown_pass(&pass, last.is_some(), status.unrepaired());
        // Whoever asked may be gone: it goes on without them.
        if answers.blocking_send(Answer::Scrub(progress)).is_err() || last.is_some() {
            return Ok(Answer::End);
        }
        if volume.is_closed() {
            return Err("the volume was closed meanwhile: it goes on when it is open again".to_owned());
        }
        std::thread::sleep(PROGRESS);
    }
}

fn shown_pass(pass: &Pass, done: bool, unrepaired: u64) -> Progress {
    let Pass { files, bytes, names, edited, damaged, left, .. } = *pass;
    Progress { done, files, bytes, names, edited, damaged, left, unrepaired }
}

/// The volume in which an absolute path is, and the rest of the path.
fn mounted<'a>(
    open: &'a [(VolumeKey, PathBuf, Arc<Volume>)],
    path: &[u8],
) -> Result<(&'a PathBuf, &'a Arc<Volume>, Vec<u8>), String> {
    let path = Path::new(OsStr::from_bytes(path));
    open.iter()
        .find_map(|(_, at, volume)| {
            let inside = path.strip_prefix(at).ok()?;
            Some((at, volume, inside.as_os_str().as_bytes().to_vec()))
        })
        .ok_or_else(|| {
            let all: Vec<_> = open.iter().map(|(_, at, _)| at.display().to_string()).collect();
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            format!("{} is in no volume that is open at this workstation; these are: {all}", path.display())
        })
}

fn below(at: &Path, path: &[u8]) -> Vec<u8> {
    at.join(OsStr::from_bytes(path)).into_os_string().into_vec()
}

fn shown(volume: &Volume, at: &Path, kept: KeptVersion) -> Version {
    let writer = kept.writer.map(|brick| volume.node_of_brick(brick));
    Version {
        id: kept.id,
        file: kept.file,
        path: kept.path.map(|path| below(at, &path)),
        why: kept.why.as_str().to_owned(),
        since_ms: kept.since_ms,
        size: kept.size,
        mtime: kept.mtime.0,
        writer,
    }
}
