//! Room for the index on a full disk: a file of some size beside it that gives way piece by piece. So what frees space, and what
//! must be said of what programs did, can still be written when programs have taken all the rest.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FallocateFlags, FsWord, fallocate, fstatfs};

/// At most so many bytes.
const MOST: u64 = 64 << 20;
/// And this share of the disk: 1 of so many.
const SHARE: u64 = 64;
/// Bytes that are to be free before a commit.
const ROOM: u64 = 4 << 20;

const EXT4: FsWord = 0xEF53;
/// Blocks.
const KEPT_BY_EXT4: u64 = 4096;

/// The file.
#[derive(Debug)]
pub struct Reserve {
    file: File,
    /// Bytes that it has now.
    size: Mutex<u64>,
    /// Some of it was.
    given_up: AtomicBool,
}

/// Bytes of the disk, and those of them that may be written.
fn space(file: &File) -> io::Result<(u64, u64)> {
    let space = fstatfs(file)?;
    let block = u64::try_from(space.f_bsize).unwrap_or(0);
    // The agent may use what is set apart for root; what ext4 keeps for itself (`reserved_clusters`) counts as free and is not.
    let kept = if space.f_type == EXT4 { KEPT_BY_EXT4.min(space.f_blocks / 50) } else { 0 };
    Ok((space.f_blocks.saturating_mul(block), space.f_bfree.saturating_sub(kept).saturating_mul(block)))
}

impl Reserve {
    /// Opens the file, or makes it, as large as there is space for.
    ///
    /// # Errors
    /// What the disk says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        let size = file.metadata()?.blocks().saturating_mul(512);
        let reserve = Reserve { file, size: Mutex::new(size), given_up: AtomicBool::new(false) };
        let whole = reserve.refill();
        reserve.given_up.store(!whole, Ordering::Release);
        Ok(reserve)
    }

    /// Gives a piece of it up if there is no room for a commit.
    pub fn make_room(&self) {
        let Ok((_, free)) = space(&self.file) else { return };
        if free >= ROOM {
            return;
        }
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        let less = size.saturating_sub(ROOM);
        if *size > 0 && self.file.set_len(less).is_ok() {
            tracing::warn!(bytes_left = less, "the disk is full: the index takes of its reserve");
            *size = less;
            self.given_up.store(true, Ordering::Release);
        }
    }

    /// Makes it whole again if there is space. Whether it is whole.
    pub fn refill(&self) -> bool {
        let Ok((capacity, free)) = space(&self.file) else { return true };
        let full = MOST.min(capacity / SHARE);
        let mut size = self.size.lock().unwrap_or_else(PoisonError::into_inner);
        if *size < full
            && free >= full - *size + 2 * ROOM
            && fallocate(&self.file, FallocateFlags::empty(), 0, full).is_ok()
        {
            *size = full;
            self.given_up.store(false, Ordering::Release);
        }
        *size >= full
    }

    /// Whether the disk is full: some of it was given up, and there is no space to make it whole again.
    pub fn is_short(&self) -> bool {
        self.given_up.load(Ordering::Acquire) && !self.refill()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_size_that_it_says_and_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("reserve");
        let size = |reserve: &Reserve| *reserve.size.lock().unwrap();
        let first = size(&Reserve::open(&path).unwrap());
        let now = std::fs::metadata(&path).unwrap();
        assert!(now.len() == first && first <= MOST, "{first} {now:?}");
        assert!(size(&Reserve::open(&path).unwrap()) >= first);
    }
}
