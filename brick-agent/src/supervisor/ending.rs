//! The end of a brick whose files are to be deleted.
//!
//! A brick of a volume that goes on ends only when this agent itself sees that nothing has to be held here, no program writes here, and
//! nothing is here alone; what the operator knew when it said so may be seconds old.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::task::VolumeTask;
use crate::brick::empty::{EmptyError, empty, has_begun};
use crate::brick::machine::MachineDisk;
use crate::config::End;
use crate::control::facts::Phase;
use crate::volume::Volume;

/// Between two tries.
const AGAIN: Duration = Duration::from_secs(10);
/// Between two words about how far it is.
const PROGRESS: Duration = Duration::from_secs(2);

/// Whether nothing would be missed.
fn nothing_held(volume: &Volume) -> bool {
    let status = volume.status();
    let counts = [&status.in_set, &status.only_here, &status.pending];
    status.dirty_files == 0 && !status.rebuilding && counts.iter().all(|count| count.files == 0)
}

impl VolumeTask {
    /// The end of this brick, if its files may be deleted while it is closed: of one whose volume goes on, only if that had begun.
    pub(super) fn may_end(&self) -> Option<Arc<End>> {
        let end = self.end.borrow().clone()?;
        let begun = || has_begun(&MachineDisk, &end.path, end.volume_uuid, end.brick) || !end.path.exists();
        (!end.volume_lives || self.agreed.load(Ordering::Acquire) || begun()).then_some(end)
    }

    /// Whether an open volume is to be closed for that.
    pub(super) fn is_to_end(&self, volume: &Volume) -> bool {
        let Some(end) = self.end.borrow().clone() else { return false };
        let agreed = !end.volume_lives || nothing_held(volume);
        if agreed {
            tracing::info!(volume = %self.shared.key, "its files are to be deleted, and nothing of them is missed");
            self.agreed.store(true, Ordering::Release);
        }
        agreed
    }

    /// The mount is gone, so that no program can begin anything more: what one did until then may be missed after all. Then the volume is
    /// mounted anew.
    pub(super) fn look_once_more(&self, volume: &Volume) {
        let lives = self.end.borrow().as_ref().is_some_and(|end| end.volume_lives);
        if lives && self.agreed.load(Ordering::Acquire) && !nothing_held(volume) {
            tracing::info!(volume = %self.shared.key, "something was written here at the last moment: its files stay until others have it");
            self.agreed.store(false, Ordering::Release);
        }
    }

    /// Deletes the files, and waits until the object is gone.
    pub(super) async fn empty(&self, end: Arc<End>) {
        let (stop, gone) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (work, stopping, count) = (end.clone(), stop.clone(), gone.clone());
        let mut work = tokio::task::spawn_blocking(move || {
            let progress = || {
                count.fetch_add(1, Ordering::Relaxed);
            };
            empty(&MachineDisk, &work.path, work.volume_uuid, work.brick, &progress, &stopping)
        });
        let done = loop {
            let line = format!("its files are being deleted: {} so far", gone.load(Ordering::Relaxed));
            self.show(Phase::Emptying(line));
            tokio::select! {
                done = &mut work => break done.unwrap_or(Err(EmptyError::Stopped)),
                () = self.stop.cancelled() => stop.store(true, Ordering::Relaxed),
                () = tokio::time::sleep(PROGRESS) => {}
            }
            if stop.load(Ordering::Relaxed) {
                let _ = work.await;
                return;
            }
        };
        let wait = match done {
            Ok(()) => {
                // Where only the brick was, nothing is left; where something else is, that stays.
                let _ = std::fs::remove_dir(&end.path);
                self.show(Phase::Emptied);
                None
            }
            Err(error) => {
                self.show(Phase::Degraded { message: error.to_string(), mounted: false });
                Some(AGAIN)
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(wait.unwrap_or(Duration::from_secs(600))) => {}
        }
    }
}
