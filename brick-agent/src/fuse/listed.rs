//! Which directories the kernel lists from what it read of them before.
//!
//! The kernel keeps a listing in the directory's pages, and makes it anew after each change of its own. Changes by peers
//! drop the pages (see [`super::invalidate`]), but not what a reader that is under way then puts there. So the next open
//! may use the pages only if no name came or went since the names were read, nor shortly before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::volume::types::NodeId;

/// Any reader that was answered before a change has noted the answer by then.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// The directories that were read or changed. Bounded by those that the kernel knows.
#[derive(Debug, Default)]
pub struct Listed {
    dirs: Mutex<HashMap<NodeId, State>>,
    begun: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// The names are as the kernel read them.
    AsRead,
    /// A name came or went then.
    Changed(Instant),
}

impl Listed {
    fn dirs(&self) -> MutexGuard<'_, HashMap<NodeId, State>> {
        self.dirs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The names of the directory are about to be read for the kernel.
    pub fn begins(&self, dir: NodeId, now: Instant) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let state = &mut *self.dirs();
        match state.get(&dir) {
            Some(State::Changed(at)) if now.saturating_duration_since(*at) < UNDER_WAY => {}
            _ => {
                state.insert(dir, State::AsRead);
            }
        }
    }

    /// How often the names of a directory were read for the kernel, from their beginning.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// A name came or went there.
    pub fn other_names(&self, dir: NodeId, now: Instant) {
        self.dirs().insert(dir, State::Changed(now));
    }

    /// The kernel forgets the directory.
    pub fn forget(&self, dir: NodeId) {
        self.dirs().remove(&dir);
    }

    /// Whether what the kernel may have read of the directory is as it is now.
    pub fn is_as_read(&self, dir: NodeId) -> bool {
        matches!(self.dirs().get(&dir), Some(State::AsRead))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_is_used_again_only_if_it_began_well_after_the_last_change() {
        let listed = Listed::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert!(!listed.is_as_read(5), "the kernel read nothing yet");
        listed.begins(5, at(0));
        assert!(listed.is_as_read(5) && !listed.is_as_read(6));
        listed.other_names(5, at(10));
        assert!(!listed.is_as_read(5));
        listed.begins(5, at(900));
        assert!(!listed.is_as_read(5), "another reader may be under way since before the change");
        listed.begins(5, at(1010));
        assert!(listed.is_as_read(5));
        listed.forget(5);
        assert!(!listed.is_as_read(5));
    }
}
