//! What is in the directories of `data/`, compared with the index.

use std::sync::atomic::AtomicBool;

use nearbrick_core::FileId;
use nearbrick_core::recover::End;
use rustix::io::Errno;

use super::super::Volume;
use super::super::core::Rebuild;
use super::super::types::FsResult;
use super::super::walk::Found;

impl Volume {
    /// Takes over what was made, moved or removed past the mount. Says how many names were not as the index had them; none
    /// if it is to stop, or not possible now.
    pub(super) fn scrub_names(&self, cancel: &AtomicBool) -> FsResult<Option<u64>> {
        let (mut ahead, mut differ) = (vec![FileId::ROOT], Vec::new());
        while let Some(dir) = ahead.pop() {
            if self.scrub_stops(cancel) {
                return Ok(None);
            }
            let core = &mut *self.lock();
            if core.rebuild != Rebuild::No || !core.amiss.is_empty() {
                return Ok(None);
            }
            let mut found = Found::default();
            match self.walk_dir(core, dir, &mut ahead, &mut found) {
                Ok(()) => {}
                // It went meanwhile; or past the mount, as the directory above it shows.
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                Err(error) => return Err(error),
            }
            if found.differs() {
                differ.push(dir);
            }
        }
        if differ.is_empty() {
            return Ok(Some(0));
        }
        // All at once, so that what was moved from one to another is found again; and with a fresh look.
        let core = &mut *self.lock();
        if self.scrub_stops(cancel) || core.rebuild != Rebuild::No || !core.amiss.is_empty() {
            return Ok(None);
        }
        let names = self.take_over_names(core, differ, End::Running)?;
        tracing::warn!(brick = %self.me, names, "names were changed in the brick, past the mount: taken over");
        Ok(Some(names as u64))
    }
}
