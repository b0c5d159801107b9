//! Files and directories that programs opened through an agent before this one: their handles are good
//! again, and who writes is counted, before anything else may touch the files.

use nearbrick_core::FileId;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::core::Core;
use super::files::{Handle, OpenFile};
use super::listing::Listing;
use super::opening::{Standing, standing};
use super::types::{FsResult, HandleId, NodeId, Opened};
use super::{Volume, index_failed};
use crate::brick::access;
use crate::brick::disk::File;

/// Keeps brick files that programs have open and that lose their last name, in case the agent dies.
pub trait Keeper: Send + Sync + 'static {
    /// A file of this node is about to lose its name.
    fn orphan(&self, node: NodeId, data: &File);
    /// It is closed.
    fn closed(&self, node: NodeId);
}

/// Something that was open.
#[derive(Clone, Debug)]
pub struct Held {
    /// Its handle.
    pub handle: HandleId,
    /// Its node.
    pub node: NodeId,
    /// Its object.
    pub file: FileId,
    /// A directory.
    pub dir: bool,
    /// For writing.
    pub writes: bool,
    /// Inode number of the brick file, if the bytes were here.
    pub inode: Option<u64>,
    /// The brick file, if it was kept because its name went.
    pub orphan: Option<File>,
}

/// What an agent takes over from the one before it.
#[derive(Clone, Debug, Default)]
pub struct Resumed {
    /// How many agents had the mount before.
    pub life: u32,
    /// What was open.
    pub held: Vec<Held>,
}

impl Volume {
    /// Opens again what was held. What cannot be found is lost: its handle answers `STALE`, and no other's suffers.
    pub(super) fn resume(&self, core: &mut Core) {
        for held in std::mem::take(&mut core.held) {
            let resumed = if held.dir { self.resume_dir(core, &held) } else { self.resume_file(core, &held) };
            let handle = resumed.unwrap_or_else(|error| {
                tracing::error!(
                    file = %held.file, %error,
                    "a file that a program has open is not to be found: its calls fail with ESTALE"
                );
                Handle::Lost
            });
            self.handles.put(held.handle, handle);
        }
    }

    fn resume_dir(&self, core: &mut Core, held: &Held) -> FsResult<Handle> {
        let lives = held.file == FileId::ROOT
            || self.index.local(held.file).map_err(index_failed)?.is_some_and(|l| l.on_disk());
        core.nodes.hold(held.node, held.file, !lives);
        if let Some(known) = core.nodes.get_mut(held.node) {
            known.opens += 1;
        }
        Ok(Handle::Dir { node: held.node, listing: Listing::default() })
    }

    fn resume_file(&self, core: &mut Core, held: &Held) -> FsResult<Handle> {
        let (node, file) = (held.node, held.file);
        let Some(data) = self.still_there(core, held)? else {
            let data = held.orphan.clone().ok_or(Errno::STALE)?;
            if held.inode != Some(data.stat()?.st_ino) {
                return Err(Errno::STALE);
            }
            let rw = if held.writes { Some(access::reopen(&data, OFlags::RDWR)?) } else { None };
            core.nodes.hold(node, file, true);
            return Ok(Handle::File(self.resumed_open(core, held, data, rw, true)));
        };
        core.nodes.hold(node, file, false);
        let (object, local) = (self.object_of(file)?, self.local_of(file)?);
        if held.inode.is_none() && standing(&object, &local) == Standing::Stub {
            let stub = self.stub_of(core, node, file, &object, &local)?;
            if let Some(known) = core.nodes.get_mut(node) {
                known.opens += 1;
                known.stub = Some(stub.clone());
            }
            let io = stub.file().clone();
            return Ok(Handle::File(OpenFile { node, file, io, writes: false, stub: Some(stub) }));
        }
        let mut rw = None;
        if held.writes {
            let at = self.at(core, file, &local)?;
            rw = Some(access::open(&at.dir, &at.name, OFlags::RDWR, 0)?);
            self.mark_dirty(core, file, &object, &local, false)?;
        }
        Ok(Handle::File(self.resumed_open(core, held, data, rw, false)))
    }

    /// The brick file under the object's name, if it is the one that was open.
    fn still_there(&self, core: &mut Core, held: &Held) -> FsResult<Option<File>> {
        let Some(local) = self.index.local(held.file).map_err(index_failed)?.filter(|l| l.on_disk()) else {
            return Ok(None);
        };
        let at = self.at(core, held.file, &local)?;
        let data = match access::open(&at.dir, &at.name, OFlags::RDONLY, 0) {
            Err(Errno::NOENT) => return Ok(None),
            other => other?,
        };
        let inode = data.stat()?.st_ino;
        Ok((held.inode.is_none() || held.inode == Some(inode)).then_some(data))
    }

    fn resumed_open(
        &self,
        core: &mut Core,
        held: &Held,
        data: File,
        rw: Option<File>,
        orphan: bool,
    ) -> OpenFile {
        let (node, file, writes) = (held.node, held.file, rw.is_some());
        let (data, _) = core.nodes.count_open(node, data, writes);
        if let Some(known) = core.nodes.get_mut(node) {
            known.kept |= orphan;
        }
        if writes {
            self.settler.written(file);
        }
        OpenFile { node, file, io: rw.unwrap_or(data), writes, stub: None }
    }

    /// What is open under a handle, as its open said it.
    ///
    /// # Errors
    /// `BADF` if nothing is; `STALE` if it was lost.
    pub fn opened(&self, handle: HandleId) -> FsResult<Opened> {
        let open = self.handles.get(handle)?;
        let Handle::File(open) = &*open else { return Err(Errno::STALE) };
        let core = self.lock();
        let known = core.nodes.get(open.node).ok_or(Errno::STALE)?;
        let local = if open.stub.is_some() { None } else { known.data.clone() };
        Ok(Opened { handle, local, backing: known.backing })
    }

    /// The object behind a node, also one without a name.
    pub fn object_behind(&self, node: NodeId) -> Option<FileId> {
        let core = self.lock();
        core.nodes.get(node).map(|known| known.file).or_else(|| self.file_of(&core, node).ok())
    }

    /// A file is about to lose the name under which it would be found again: if programs have it
    /// open, it is kept for the next agent.
    pub(super) fn keep_open(&self, core: &mut Core, file: FileId) {
        let Some(keeper) = &self.keeper else { return };
        let Some(node) = core.nodes.id_of(file) else { return };
        let Some(known) = core.nodes.get_mut(node) else { return };
        if let Some(data) = known.data.as_ref().filter(|_| known.opens > 0) {
            keeper.orphan(node, data);
            known.kept = true;
        }
    }
}
