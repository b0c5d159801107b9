//! A lock file that one process at a time holds, and that is gone with its holder.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::{Context, Result};
use crate::progress;

/// How often the folder of a lock is made anew.
const TRIES: u32 = 100;

/// A held lock. The kernel gives it up when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock; `what` is said to the person who has to wait.
    ///
    /// # Errors
    /// The file cannot be made or locked.
    pub fn take(path: &Path, what: &str) -> Result<Self> {
        let mut tries = 0;
        loop {
            if let Some(dir) = path.parent() {
                std::fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
            }
            let file = match File::options().create(true).truncate(false).write(true).open(path) {
                // Another lab that ends has just removed the folder.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && tries < TRIES => {
                    tries += 1;
                    continue;
                }
                file => file.context(format!("cannot open the lock {}", path.display()))?,
            };
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    progress::note(format!("waiting: another process {what}"));
                    flock(&file, FlockOperation::LockExclusive)
                        .context(format!("cannot lock {}", path.display()))?;
                }
                Err(error) => crate::fail!("cannot lock {}: {error}", path.display()),
            }
            let held = file.metadata().context("cannot look at the lock")?;
            // The last holder may have removed the file while we waited for it.
            if std::fs::metadata(path).is_ok_and(|now| now.ino() == held.ino() && now.dev() == held.dev()) {
                return Ok(Self { file, path: path.to_path_buf() });
            }
        }
    }

    /// Removes the file too; those that wait notice it and make a new one.
    pub fn remove(self) {
        let _ = std::fs::remove_file(&self.path);
        drop(self.file);
    }
}
