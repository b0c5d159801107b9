//! An observer of the bricks' disks: how many of them have each of some files whole, looked at over and over while other things happen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};
use crate::scene::Scene;
use crate::trees::{Place, Tree};

/// What was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fewest {
    /// The fewest bricks that had any of the files.
    pub copies: usize,
    /// How often all were looked at.
    pub looks: usize,
}

/// One that looks until it is ended.
pub struct Observer {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Result<Fewest>>,
}

impl Observer {
    /// Looks at these files of a folder, on the bricks of all three workstations.
    pub fn begin(scene: &Scene, folder: &str, files: Tree) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let at = format!("{}/data", scene.volume.brick_dir());
        // A file may be replaced, and a whole brick may end, while it is read.
        let script = format!(
            "cd {at} 2>/dev/null && find ./{folder} -type f -exec sha256sum {{}} + 2>/dev/null || true"
        );
        let bricks = [scene.a.clone(), scene.b.clone(), scene.c.clone()];
        let ended = stop.clone();
        let task = tokio::task::spawn_blocking(move || {
            let mut fewest = Fewest { copies: usize::MAX, looks: 0 };
            while !ended.load(Ordering::Relaxed) {
                let mut there = Vec::new();
                for brick in &bricks {
                    there.push(Tree::from_sums(&Place::At(brick).sh(&script)?));
                }
                for (path, hash) in files.entries() {
                    let copies = there.iter().filter(|tree| tree.get(path) == Some(hash)).count();
                    fewest.copies = fewest.copies.min(copies);
                }
                fewest.looks += 1;
            }
            Ok(fewest)
        });
        Self { stop, task }
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
                "of {} looks at the bricks, one saw {} copies of a file",
                fewest.looks,
                fewest.copies
            );
        }
        Ok(fewest)
    }
}
