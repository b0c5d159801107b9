//! An observer of the bricks' disks: how many of them have each of some files whole, looked at over and over while other things happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::scene::Scene;
use crate::trees::{Place, Tree};
use crate::workstation::{BRICKS, Workstation};

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fewest {
    /// The fewest bricks that had any of the files.
    pub copies: usize,
    /// One of those files, which bricks had it, and in which look that was.
    pub file: String,
    /// How often all were looked at.
    pub looks: usize,
}

/// One that looks until it is ended. The disk of a workstation that is off is as it was when it was last looked at.
pub struct Observer {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<Fewest>>,
}

impl Observer {
    /// Looks at these files of a folder, on the bricks of all three workstations; once before it returns.
    ///
    /// # Errors
    /// It cannot look.
    pub fn begin(scene: &Scene, folder: &str, files: Tree) -> Result<Self> {
        Self::begin_at(&[&scene.a, &scene.b, &scene.c], scene, folder, files)
    }

    /// The same on the bricks of these workstations alone.
    ///
    /// # Errors
    /// It cannot look.
    pub fn begin_at(bricks: &[&Workstation], scene: &Scene, folder: &str, files: Tree) -> Result<Self> {
        let stop: Arc<AtomicBool> = Arc::default();
        let at = format!("{}/data", scene.volume.brick_dir());
        // A file may be replaced, and a whole brick may end, while it is read.
        let script = format!(
            "mountpoint -q {BRICKS} && cd {at} 2>/dev/null && find ./{folder} -type f -exec sha256sum {{}} + 2>/dev/null || true"
        );
        let mut bricks: Vec<(Workstation, Option<Tree>)> =
            bricks.iter().map(|&brick| (brick.clone(), None)).collect();
        for (brick, seen) in &mut bricks {
            look(brick, &script, seen)?;
        }
        let ended = stop.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut fewest = Fewest { copies: usize::MAX, file: String::new(), looks: 0 };
            loop {
                for (path, hash) in files.entries() {
                    let has = |seen: &Option<Tree>| seen.as_ref().is_some_and(|t| t.get(path) == Some(hash));
                    let holders: Vec<&str> = bricks
                        .iter()
                        .filter(|(_, seen)| has(seen))
                        .map(|(b, _)| b.seat.node.as_str())
                        .collect();
                    if holders.len() < fewest.copies {
                        let file = format!("{path}, on {holders:?}, in look {}", fewest.looks);
                        fewest = Fewest { copies: holders.len(), file, ..fewest };
                    }
                }
                fewest.looks += 1;
                if ended.load(Ordering::Relaxed) {
                    return Ok(fewest);
                }
                for (brick, seen) in &mut bricks {
                    look(brick, &script, seen)?;
                }
            }
        });
        Ok(Self { stop, task })
    }

    /// What it saw.
    ///
    /// # Errors
    /// It could not look.
    pub async fn end(self) -> Result<Fewest> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.unwrap_or_else(|e| Err(Error::new(format!("the observer: {e}"))))
    }

    /// The same; fewer copies than these at any time are an error.
    ///
    /// # Errors
    /// There were fewer, or it could not look.
    pub async fn end_with(self, least: usize) -> Result<Fewest> {
        let fewest = self.end().await?;
        if fewest.copies < least || fewest.looks == 0 {
            crate::fail!(
                "of {} looks at the bricks, one saw {} copies of a file: {}",
                fewest.looks,
                fewest.copies,
                fewest.file
            );
        }
        Ok(fewest)
    }
}

/// Whether it is on, with its disk mounted.
fn is_in_use(brick: &Workstation) -> bool {
    brick.is_on() && brick.sh(&format!("mountpoint -q {BRICKS}")).is_ok()
}

/// What is on a brick's disk; as it was, where it is off, or goes off meanwhile.
fn look(brick: &Workstation, script: &str, seen: &mut Option<Tree>) -> Result<()> {
    if !is_in_use(brick) {
        return Ok(());
    }
    let text = Place::At(brick).sh(script);
    match text {
        // Taken only if the disk was there all the while: a part of it would look like files that are gone.
        Ok(text) if is_in_use(brick) => *seen = Some(Tree::from_sums(&text)),
        Err(error) if is_in_use(brick) => return Err(error),
        Ok(_) | Err(_) => (),
    }
    Ok(())
}
