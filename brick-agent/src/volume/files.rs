//! Open files: reading, writing, and their end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nearbrick_core::FileId;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::change::{Change, errno, print_of};
use super::core::Core;
use super::listing::Listing;
use super::stub::Stub;
use super::types::{FsResult, HandleId, NodeId, Opened};
use super::{Volume, index_failed};
use crate::brick::disk::{File, FileAccess, Reader};

const SHARDS: u64 = 16;

/// What is open.
pub enum Handle {
    /// A file.
    File(OpenFile),
    /// A directory.
    Dir {
        /// Its node.
        node: NodeId,
        /// What is being read.
        listing: Listing,
    },
    /// A file that was open through an agent before this one, and is not to be found.
    Lost,
}

/// An open file.
pub struct OpenFile {
    /// Its node.
    pub node: NodeId,
    /// Its object.
    pub file: FileId,
    /// The brick file: open for writing if this is.
    pub io: File,
    /// Whether it may be written through this.
    pub writes: bool,
    /// Where its bytes come from if they are elsewhere.
    pub stub: Option<Arc<Stub>>,
}

/// All handles. They are counted from 0: the two top bits stay free for the kernel's side.
pub struct Handles {
    next: AtomicU64,
    shards: Vec<Mutex<HashMap<HandleId, Arc<Handle>>>>,
}

impl Default for Handles {
    fn default() -> Self {
        Handles { next: AtomicU64::new(0), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl Handles {
    fn shard(&self, id: HandleId) -> MutexGuard<'_, HashMap<HandleId, Arc<Handle>>> {
        let at = usize::try_from(id % SHARDS).unwrap_or(0);
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps it.
    pub fn add(&self, handle: Handle) -> HandleId {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.put(id, handle);
        id
    }

    /// Numbers from here on: those before may be in use since before this agent.
    pub fn start_at(&self, first: HandleId) {
        self.next.fetch_max(first, Ordering::Relaxed);
    }

    /// Keeps something else under this number, or what was under it before this agent.
    pub fn put(&self, id: HandleId, handle: Handle) {
        self.shard(id).insert(id, Arc::new(handle));
    }

    /// What is open under this number.
    ///
    /// # Errors
    /// `BADF`.
    pub fn get(&self, id: HandleId) -> FsResult<Arc<Handle>> {
        self.shard(id).get(&id).cloned().ok_or(Errno::BADF)
    }

    /// Gives it up.
    pub fn remove(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.shard(id).remove(&id)
    }
}

/// BLAKE3 of all that is in a file.
pub(super) fn hash(file: &dyn FileAccess) -> FsResult<[u8; 32]> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(Reader::new(file, 0)).map_err(|e| errno(&e))?;
    Ok(*hasher.finalize().as_bytes())
}

/// Fills `buf` with up to `len` bytes, fewer only at the end of the file.
pub(super) fn read_at(file: &dyn FileAccess, offset: u64, len: usize, buf: &mut Vec<u8>) -> FsResult<()> {
    buf.resize(len, 0);
    let mut done = 0;
    while done < len {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(e) => {
                buf.clear();
                return Err(e);
            }
        }
    }
    buf.truncate(done);
    Ok(())
}

impl Volume {
    /// Counts and gives out an open file. Of a node that is open already the brick file is shared.
    pub(super) fn opened_local(&self, core: &mut Core, node: NodeId, data: File, rw: Option<File>) -> Opened {
        let writes = rw.is_some();
        let file = core.nodes.get(node).map_or(FileId::ROOT, |known| known.file);
        let shared = core.nodes.count_open(node, data, writes);
        if writes {
            self.settler.written(file);
        }
        let io = rw.unwrap_or_else(|| shared.0.clone());
        let handle = self.handles.add(Handle::File(OpenFile { node, file, io, writes, stub: None }));
        Opened { handle, local: Some(shared.0), backing: shared.1 }
    }

    /// The open file under a handle.
    pub(super) fn with_file<T>(
        &self,
        handle: HandleId,
        work: impl FnOnce(&OpenFile) -> FsResult<T>,
    ) -> FsResult<T> {
        match &*self.handles.get(handle)? {
            Handle::File(open) => work(open),
            Handle::Dir { .. } => Err(Errno::ISDIR),
            Handle::Lost => Err(Errno::STALE),
        }
    }

    /// Reads up to `len` bytes at `offset` into `buf`, fewer only at the end of the file.
    ///
    /// # Errors
    /// What the disk says; `IO` when bytes are elsewhere and out of reach.
    pub fn read(&self, handle: HandleId, offset: u64, len: usize, buf: &mut Vec<u8>) -> FsResult<()> {
        self.with_file(handle, |open| {
            if let Some(stub) = &open.stub {
                return self.read_stub(open.file, stub, offset, len, buf);
            }
            read_at(&*open.io, offset, len, buf)
        })
    }

    /// Writes all of `data` at `offset`, or as much as the disk takes.
    ///
    /// # Errors
    /// What the disk says, when it takes nothing.
    pub fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> FsResult<usize> {
        self.with_file(handle, |open| {
            if !open.writes {
                return Err(Errno::BADF);
            }
            let mut done = 0;
            while done < data.len() {
                match open.io.write_at(&data[done..], offset + done as u64) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(Errno::INTR) => {}
                    Err(_) if done > 0 => break,
                    Err(e) => return Err(e),
                }
            }
            Ok(done)
        })
    }

    /// One descriptor of the file was closed. Nothing is held back here.
    ///
    /// # Errors
    /// `BADF`.
    pub fn flush(&self, handle: HandleId) -> FsResult<()> {
        self.handles.get(handle).map(drop)
    }

    /// Returns when the file and every entry of the journal so far are durable here, and, where the volume asks for
    /// that, the file on other bricks too.
    ///
    /// # Errors
    /// What the disk says; `IO` when other bricks do not have it in time.
    pub fn fsync(&self, handle: HandleId, datasync: bool) -> FsResult<()> {
        self.with_file(handle, |open| {
            let version = self.version_for_others(open.file)?;
            self.is_no_stub(open.file)?;
            self.is_proven(open.file)?;
            let before = self.to_be_synced([open.file])?;
            if datasync {
                open.io.sync_data()?
            } else {
                open.io.sync()?
            }
            for (file, version) in before {
                self.was_synced(file, &version)?;
            }
            self.index.persist().map_err(index_failed)?;
            self.sync_copies(open.file, version)
        })
    }

    /// Allocates, punches or zeroes, as `fallocate` does.
    ///
    /// # Errors
    /// What the disk says.
    pub fn fallocate(&self, handle: HandleId, offset: u64, len: u64, mode: i32) -> FsResult<()> {
        self.with_file(handle, |open| {
            if !open.writes {
                return Err(Errno::BADF);
            }
            let mode = FallocateFlags::from_bits_retain(mode.unsigned_abs());
            open.io.allocate(mode, offset, len)
        })
    }

    /// Where the next data or hole is; other positions are the kernel's own business.
    ///
    /// # Errors
    /// `NXIO` beyond the end; what the disk says.
    pub fn lseek(&self, handle: HandleId, offset: i64, whence: i32) -> FsResult<u64> {
        self.with_file(handle, |open| {
            let at = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
            if let Some(stub) = open.stub.as_ref().filter(|s| !s.is_whole()) {
                // Nothing is known of holes elsewhere: all is data.
                return match whence {
                    _ if at >= stub.size() => Err(Errno::NXIO),
                    libc::SEEK_HOLE => Ok(stub.size()),
                    libc::SEEK_DATA => Ok(at),
                    _ => Err(Errno::INVAL),
                };
            }
            match whence {
                libc::SEEK_HOLE => open.io.seek_hole(at),
                libc::SEEK_DATA => open.io.seek_data(at),
                _ => Err(Errno::INVAL),
            }
        })
    }

    /// The last descriptor of this open is gone.
    pub fn release(&self, handle: HandleId) {
        let Some(open) = self.handles.remove(handle) else { return };
        let Handle::File(open) = &*open else { return };
        let core = &mut *self.lock();
        let Some(known) = core.nodes.get_mut(open.node) else { return };
        known.opens = known.opens.saturating_sub(1);
        known.writers = known.writers.saturating_sub(u32::from(open.writes));
        let (orphan, last_writer) = (known.orphan, open.writes && known.writers == 0);
        if known.opens == 0 {
            let data = known.data.take();
            if let (true, Some(keeper)) = (std::mem::take(&mut known.kept), &self.keeper) {
                keeper.closed(open.node);
            }
            if orphan {
                // Who knows it without having it open goes on seeing it.
                known.held = data.or(known.held.take());
            }
            if let Some(stub) = known.stub.take().filter(|_| !orphan)
                && let Err(error) = self.keep_ranges(core, open.file, &stub)
            {
                tracing::debug!(%error, "what was read of a stub will be read again");
            }
            if !orphan && let Err(error) = self.show_newest(core, open.file) {
                tracing::debug!(%error, "the size and time of the newest version are not shown yet: it is tried again");
                // Should that fail too, it is noted, and done when the disk is well.
                self.bring_about(core, vec![open.file]);
            }
        }
        core.nodes.drop_if_unused(open.node);
        if last_writer && !orphan {
            self.settler.soon(open.file);
        }
    }

    /// Keeps which ranges of a stub are here, and how it looks since. Should somebody still be filling it, how it looks says nothing.
    fn keep_ranges(&self, core: &mut Core, file: FileId, stub: &Arc<Stub>) -> FsResult<()> {
        let mut change = Change::new(self, core);
        let Some(local) = change.local(file)? else { return Ok(()) };
        if local.dirty || local.have.is_some() || stub.is_whole() {
            return Ok(());
        }
        // Of those who share it one is the caller, and one the handle that it gives up.
        let rests = Arc::strong_count(stub) <= 2;
        let print = print_of(&stub.file().stat()?);
        let local = change.local_mut(file)?;
        local.filling = Some(stub.version().clone());
        local.filled = stub.ranges();
        local.print = Some(print).filter(|_| rests);
        change.commit().map(drop)
    }
}
