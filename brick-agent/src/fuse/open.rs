//! How each node is open now: in passthrough, where the kernel reads and writes
//! the brick file itself, or served, where it asks us.
//!
//! The kernel's rules: while a node has passthrough opens, all of them name one
//! backing file, and none may go through the page cache; while it has opens that go
//! through the page cache, none may be passthrough. An open that does not fit
//! a node in passthrough is served past the page cache (direct I/O),
//! which goes with both.
//!
//! What is decided here is told to the kernel under the same lock, so that no
//! release can overtake it, and a backing file is dropped when its last open
//! is released, before the volume hears of that release.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::brick::disk::File;
use crate::volume::types::{HandleId, NodeId, Opened};

const SHARDS: u64 = 64;

/// What the kernel is told about one open. `B` is a backing file registered with the kernel.
#[derive(Debug, PartialEq)]
pub enum Way<'a, B> {
    /// Through the page cache and us.
    Served,
    /// Through us, past the page cache.
    Direct,
    /// By the kernel on the backing file.
    Passthrough(&'a B),
}

/// How an open file is used; it travels in the kernel's file handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handle {
    /// The volume's handle.
    pub id: HandleId,
    /// Its bytes may have to come from a peer.
    pub far: bool,
    /// It is not counted in the table: [`Way::Direct`].
    pub direct: bool,
}

impl Handle {
    /// As the kernel keeps it. The volume counts its handles from 0, so the two top bits are free.
    pub fn to_raw(self) -> u64 {
        self.id << 2 | u64::from(self.far) << 1 | u64::from(self.direct)
    }

    /// The inverse of [`Handle::to_raw`].
    pub fn from_raw(raw: u64) -> Handle {
        Handle { id: raw >> 2, far: raw & 2 != 0, direct: raw & 1 != 0 }
    }
}

/// The table of all nodes that are open.
pub struct OpenNodes<B> {
    shards: Vec<Mutex<HashMap<NodeId, OpenNode<B>>>>,
}

struct OpenNode<B> {
    mode: Mode<B>,
    opens: u64,
    writers: u64,
}

enum Mode<B> {
    Served,
    Passthrough { id: B, backing: u64 },
}

impl<B> Default for OpenNodes<B> {
    fn default() -> Self {
        OpenNodes { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }
}

impl<B> OpenNodes<B> {
    fn shard(&self, node: NodeId) -> MutexGuard<'_, HashMap<NodeId, OpenNode<B>>> {
        let shard = &self.shards[(node % SHARDS) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides how this open goes, counts it, and has `tell` say so to the kernel.
    /// `register` is given the brick file when the node is to go into
    /// passthrough; it is served where that fails.
    ///
    /// # Errors
    /// Gives the reply back when another file stands behind the node than the
    /// kernel is working on: nothing was counted or told.
    pub fn enter<R>(
        &self,
        node: NodeId,
        opened: &Opened,
        writer: bool,
        reply: R,
        register: Option<impl FnOnce(&R, &File) -> io::Result<B>>,
        tell: impl FnOnce(R, Handle, Way<'_, B>),
    ) -> Result<(), R> {
        let mut handle = Handle { id: opened.handle, far: opened.local.is_none(), direct: false };
        let mut shard = self.shard(node);
        let open = match shard.entry(node) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(free) => {
                let mode = match (&opened.local, register) {
                    (Some(file), Some(register)) => match register(&reply, file) {
                        Ok(id) => Mode::Passthrough { id, backing: opened.backing },
                        Err(error) => {
                            tracing::debug!(node, %error, "no passthrough for a file");
                            Mode::Served
                        }
                    },
                    _ => Mode::Served,
                };
                free.insert(OpenNode { mode, opens: 0, writers: 0 })
            }
        };
        match &open.mode {
            Mode::Passthrough { backing, .. } if opened.local.is_some() && *backing != opened.backing => {
                return Err(reply);
            }
            Mode::Passthrough { .. } if opened.local.is_none() => {
                handle.direct = true;
                tell(reply, handle, Way::Direct);
                return Ok(());
            }
            _ => {}
        }
        open.opens += 1;
        open.writers += u64::from(writer);
        tell(
            reply,
            handle,
            match &open.mode {
                Mode::Served => Way::Served,
                Mode::Passthrough { id, .. } => Way::Passthrough(id),
            },
        );
        Ok(())
    }

    /// An open from before this agent, counted as it was: in passthrough if the backing file is given.
    pub fn resume(&self, node: NodeId, writer: bool, passthrough: Option<(impl FnOnce() -> B, u64)>) {
        let mut shard = self.shard(node);
        let open = shard.entry(node).or_insert_with(|| {
            let mode = match passthrough {
                Some((id, backing)) => Mode::Passthrough { id: id(), backing },
                None => Mode::Served,
            };
            OpenNode { mode, opens: 0, writers: 0 }
        });
        open.opens += 1;
        open.writers += u64::from(writer);
    }

    /// Has `tell` say once more how an open goes that is counted already.
    pub fn again<R>(&self, node: NodeId, handle: Handle, reply: R, tell: impl FnOnce(R, Handle, Way<'_, B>)) {
        let shard = self.shard(node);
        let way = match shard.get(&node).map(|open| &open.mode) {
            _ if handle.direct => Way::Direct,
            Some(Mode::Passthrough { id, .. }) => Way::Passthrough(id),
            Some(Mode::Served) | None => Way::Served,
        };
        tell(reply, handle, way);
    }

    /// One open ends. Whatever was registered for the node is dropped when this returns, if it was the last.
    pub fn leave(&self, node: NodeId, handle: Handle, writer: bool) {
        if handle.direct {
            return;
        }
        let last = {
            let mut shard = self.shard(node);
            let Entry::Occupied(mut open) = shard.entry(node) else { return };
            open.get_mut().opens -= 1;
            open.get_mut().writers -= u64::from(writer);
            (open.get().opens == 0).then(|| open.remove())
        };
        drop(last);
    }

    /// Whether programs may be changing the node without our seeing it.
    pub fn written_unseen(&self, node: NodeId) -> bool {
        self.shard(node)
            .get(&node)
            .is_some_and(|open| open.writers > 0 && matches!(open.mode, Mode::Passthrough { .. }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    fn null() -> File {
        crate::brick::machine::file(std::fs::File::open("/dev/null").unwrap())
    }

    /// A backing file that is counted while it lives.
    #[derive(Debug)]
    struct Backing(Arc<AtomicU32>);

    impl Drop for Backing {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    struct World {
        nodes: OpenNodes<Backing>,
        live: Arc<AtomicU32>,
    }

    impl World {
        fn new() -> Self {
            World { nodes: OpenNodes::default(), live: Arc::default() }
        }

        fn open(&self, node: NodeId, id: HandleId, backing: Option<u64>) -> Result<(Handle, &str), ()> {
            let local = backing.map(|_| null());
            let opened = Opened { handle: id, local, backing: backing.unwrap_or(0) };
            let register = |_: &(), _: &File| {
                self.live.fetch_add(1, Ordering::SeqCst);
                Ok(Backing(self.live.clone()))
            };
            let mut said = None;
            self.nodes.enter(node, &opened, true, (), Some(register), |(), handle, way| {
                let way = match way {
                    Way::Served => "served",
                    Way::Direct => "direct",
                    Way::Passthrough(_) => "passthrough",
                };
                said = Some((handle, way));
            })?;
            Ok(said.unwrap())
        }

        fn live(&self) -> u32 {
            self.live.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn handles_travel() {
        for (id, far, direct) in [(0, false, true), (77, true, false), (u64::MAX >> 2, true, true)] {
            let handle = Handle { id, far, direct };
            assert_eq!(Handle::from_raw(handle.to_raw()), handle);
        }
    }

    #[test]
    fn one_backing_file_for_all_opens_and_none_after_the_last() {
        let w = World::new();
        let (a, way) = w.open(5, 1, Some(9)).unwrap();
        assert_eq!(way, "passthrough");
        let (b, way) = w.open(5, 2, Some(9)).unwrap();
        assert_eq!(way, "passthrough");
        assert_eq!(w.live(), 1);
        assert!(w.nodes.written_unseen(5));
        w.nodes.leave(5, a, true);
        assert_eq!(w.live(), 1);
        w.nodes.leave(5, b, true);
        assert_eq!(w.live(), 0);
        assert!(!w.nodes.written_unseen(5));
    }

    #[test]
    fn a_served_node_stays_served_until_its_last_release() {
        let w = World::new();
        let (a, way) = w.open(5, 1, None).unwrap();
        assert!(a.far);
        assert_eq!(way, "served");
        let (b, way) = w.open(5, 2, Some(9)).unwrap();
        assert!(!b.far);
        assert_eq!(way, "served");
        w.nodes.leave(5, a, true);
        assert_eq!(w.open(5, 3, Some(9)).unwrap().1, "served");
        w.nodes.leave(5, b, true);
        w.nodes.leave(5, Handle { id: 3, far: false, direct: false }, true);
        assert_eq!(w.open(5, 4, Some(9)).unwrap().1, "passthrough");
        assert_eq!(w.live(), 1);
    }

    #[test]
    fn what_does_not_fit_into_passthrough_goes_past_the_cache_or_is_refused() {
        let w = World::new();
        let (a, _) = w.open(5, 1, Some(9)).unwrap();
        let (b, way) = w.open(5, 2, None).unwrap();
        assert_eq!((way, b.direct, b.far), ("direct", true, true));
        assert_eq!(w.open(5, 3, Some(10)), Err(()));
        w.nodes.leave(5, b, true);
        assert_eq!(w.live(), 1);
        w.nodes.leave(5, a, true);
        assert_eq!(w.live(), 0);
        assert_eq!(w.open(5, 4, Some(10)).unwrap().1, "passthrough");
    }

    #[test]
    fn a_file_that_the_kernel_does_not_take_is_served() {
        let nodes = OpenNodes::<()>::default();
        let opened = Opened { handle: 1, local: Some(null()), backing: 3 };
        let refuse = |_: &(), _: &File| Err(io::Error::from_raw_os_error(libc::ELOOP));
        nodes.enter(5, &opened, false, (), Some(refuse), |(), _, way| assert_eq!(way, Way::Served)).unwrap();
    }
}
