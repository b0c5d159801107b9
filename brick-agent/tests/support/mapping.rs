//! A shared mapping that a test writes through.
#![allow(unsafe_code)] // mmap has no safe form: the file behind it can change at any time, which is the point here.

use std::fs::File;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// `MAP_SHARED`, readable and writable; unmapped on drop.
pub struct SharedMapping {
    at: *mut std::ffi::c_void,
    len: usize,
}

impl SharedMapping {
    /// The first `len` bytes of the file.
    pub fn new(file: &File, len: usize) -> rustix::io::Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let at = unsafe { mmap(std::ptr::null_mut(), len, prot, MapFlags::SHARED, file, 0) }?;
        Ok(SharedMapping { at, len })
    }

    /// Writes through the mapping.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len);
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: within the mapping, which lives as long as `self`; volatile, as others may look at it.
            unsafe { self.at.cast::<u8>().add(offset + i).write_volatile(*byte) };
        }
    }

    /// Reads through the mapping.
    pub fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= self.len);
        // SAFETY: as in `write`.
        (0..len).map(|i| unsafe { self.at.cast::<u8>().add(offset + i).read_volatile() }).collect()
    }

    /// msync(MS_SYNC).
    pub fn sync(&self) {
        // SAFETY: exactly the mapping.
        unsafe { msync(self.at, self.len, MsyncFlags::SYNC) }.unwrap();
    }
}

impl Drop for SharedMapping {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping; nobody has a reference into it.
        let _ = unsafe { munmap(self.at, self.len) };
    }
}
