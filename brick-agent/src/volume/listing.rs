//! Directories, read a page at a time from a list made when reading begins: what
//! is there all the time is listed exactly once, whatever comes and goes. The place of an entry follows
//! from its name alone, so reading goes on in the right place also through the next agent.

use std::sync::{Arc, Mutex, PoisonError};

use nearbrick_core::{FileId, Place};
use rustix::io::Errno;

use super::files::Handle;
use super::types::{DirEntry, EntryKind, FsResult, HandleId, NodeId};
use super::{Volume, index_failed};
use crate::index::Shown;

/// A directory that is being read.
#[derive(Default)]
pub struct Listing {
    entries: Mutex<Option<Arc<Names>>>,
}

/// What a directory held when its reading began, in the order of the entries' places.
type Names = Vec<(u64, Vec<u8>, Shown)>;

/// The place of a name in every listing: after the dots, and positive as a signed number.
fn place_of(name: &[u8]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(name).as_bytes()[..8]);
    (u64::from_le_bytes(first) >> 2).max(DOTS + 1)
}

const DOTS: u64 = 2;

fn in_order(names: Vec<(Vec<u8>, Shown)>) -> Names {
    let mut names: Names = names.into_iter().map(|(name, shown)| (place_of(&name), name, shown)).collect();
    names.sort_unstable_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    // Two names with one place of 2^62: the second takes the next.
    for n in 1..names.len() {
        names[n].0 = names[n].0.max(names[n - 1].0 + 1);
    }
    names
}

fn kind(d_type: u8) -> EntryKind {
    match d_type {
        libc::DT_DIR => EntryKind::Dir,
        libc::DT_LNK => EntryKind::Symlink,
        libc::DT_FIFO => EntryKind::Fifo,
        libc::DT_SOCK => EntryKind::Socket,
        libc::DT_CHR => EntryKind::Char,
        libc::DT_BLK => EntryKind::Block,
        _ => EntryKind::File,
    }
}

impl Volume {
    /// Opens a directory.
    ///
    /// # Errors
    /// `NOENT`.
    pub fn opendir(&self, node: NodeId) -> FsResult<HandleId> {
        let core = &mut *self.lock();
        self.known(core, node)?;
        if let Some(known) = core.nodes.get_mut(node) {
            known.opens += 1;
        }
        Ok(self.handles.add(Handle::Dir { node, listing: Listing::default() }))
    }

    /// At most `max` entries after `offset`; 0 begins again.
    ///
    /// # Errors
    /// `BADF`; what the index says.
    pub fn readdir(&self, handle: HandleId, offset: u64, max: usize) -> FsResult<Vec<DirEntry>> {
        let open = self.handles.get(handle)?;
        let Handle::Dir { node, listing } = &*open else { return Err(Errno::BADF) };
        let core = self.lock();
        // A directory that was removed while it was open is empty.
        let Ok(dir) = self.file_of(&core, *node) else { return Ok(Vec::new()) };
        let entries = {
            let mut kept = listing.entries.lock().unwrap_or_else(PoisonError::into_inner);
            match kept.as_ref() {
                Some(entries) if offset > 0 => entries.clone(),
                _ => kept.insert(Arc::new(in_order(self.index.shown_in(dir).map_err(index_failed)?))).clone(),
            }
        };
        let parent = match dir {
            FileId::ROOT => FileId::ROOT,
            dir => self.local_of(dir)?.place().map_or(FileId::ROOT, |p: &Place| p.parent),
        };
        let dots = [(&b"."[..], dir), (&b".."[..], parent)];
        let skip = usize::try_from(offset.min(DOTS)).unwrap_or(0);
        let dots = dots.iter().enumerate().skip(skip).map(|(at, (name, file))| DirEntry {
            offset: at as u64 + 1,
            name: name.to_vec(),
            inode: core.nodes.number(*file),
            kind: EntryKind::Dir,
        });
        let first = entries.partition_point(|(at, ..)| *at <= offset);
        let rest = entries[first..].iter().map(|(at, name, shown)| DirEntry {
            offset: *at,
            name: name.clone(),
            inode: core.nodes.number(shown.file),
            kind: kind(shown.kind),
        });
        Ok(dots.chain(rest).take(max).collect())
    }

    /// Closes a directory.
    pub fn releasedir(&self, handle: HandleId) {
        if let Some(open) = self.handles.remove(handle)
            && let Handle::Dir { node, .. } = &*open
        {
            let core = &mut *self.lock();
            if let Some(known) = core.nodes.get_mut(*node) {
                known.opens = known.opens.saturating_sub(1);
            }
            core.nodes.drop_if_unused(*node);
        }
    }

    /// Makes the directory and every entry of the journal so far durable.
    ///
    /// # Errors
    /// What the disk says.
    pub fn fsyncdir(&self, node: NodeId) -> FsResult<()> {
        let dir = {
            let core = &mut *self.lock();
            let file = self.file_of(core, node)?;
            self.dir(core, file)?
        };
        dir.sync()?;
        self.index.persist().map_err(index_failed)
    }
}
