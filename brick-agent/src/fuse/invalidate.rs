//! Tells the kernel what it must forget, from a thread of its own: a
//! notification waits for locks in the kernel that a request in flight may hold, so
//! it must never be sent from a thread which serves requests.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

use fuser::{INodeNo, Notifier};

use super::listed::Listed;
use crate::volume::types::{Invalidate, NodeId};

/// What is to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Forget {
    Entry(NodeId, Vec<u8>),
    Attributes(NodeId),
    All(NodeId),
    /// Nothing more: the mount is gone.
    End,
}

/// The queue of what the kernel must forget.
#[derive(Clone)]
pub struct Queue {
    sender: Sender<Forget>,
    listed: Arc<Listed>,
}

/// The other end of a [`Queue`], before the mount exists.
pub struct Pending(Receiver<Forget>);

impl Queue {
    /// A queue, and its other end.
    pub fn new() -> (Queue, Pending) {
        let (sender, receiver) = channel();
        (Queue { sender, listed: Arc::default() }, Pending(receiver))
    }

    /// The listings that the kernel may go on using.
    pub fn listed(&self) -> &Listed {
        &self.listed
    }

    /// Attributes only.
    pub fn attributes(&self, node: NodeId) {
        self.put(Forget::Attributes(node));
    }

    /// The mount is gone; what is still queued is dropped.
    pub fn end(&self) {
        self.put(Forget::End);
    }

    fn put(&self, what: Forget) {
        // It fails when the mount is gone: the kernel has forgotten all then.
        let _ = self.sender.send(what);
    }
}

impl Invalidate for Queue {
    fn entry(&self, parent: NodeId, name: &[u8]) {
        self.put(Forget::Entry(parent, name.to_vec()));
        // For a name that the kernel did not know, the above does not reach the directory. Its pages are its listing.
        self.put(Forget::All(parent));
    }

    fn inode(&self, node: NodeId, data: bool) {
        self.put(if data { Forget::All(node) } else { Forget::Attributes(node) });
    }

    fn names(&self, dir: NodeId) {
        self.listed.other_names(dir, Instant::now());
    }
}

impl Pending {
    /// Sends what is and will be queued, until all [`Queue`]s or the mount are gone.
    ///
    /// # Errors
    /// No thread to be had.
    pub fn start(self, notifier: Notifier) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("fuse-invalidate".to_owned()).spawn(move || {
            while let Ok(first) = self.0.recv() {
                // What came in a burst is said once, and after all of it came.
                let burst: Vec<_> = std::iter::once(first).chain(self.0.try_iter().take(4096)).collect();
                let mut said = HashSet::with_capacity(burst.len());
                for forget in &burst {
                    if said.insert(forget) && !send(&notifier, forget) {
                        return;
                    }
                }
            }
        })
    }
}

/// False when the mount is gone.
fn send(notifier: &Notifier, forget: &Forget) -> bool {
    let sent = match forget {
        Forget::Entry(parent, name) => notifier.inval_entry(INodeNo(*parent), OsStr::from_bytes(name)),
        // A negative offset leaves the pages alone.
        Forget::Attributes(node) => notifier.inval_inode(INodeNo(*node), -1, 0),
        Forget::End => return false,
        Forget::All(node) => notifier.inval_inode(INodeNo(*node), 0, 0),
    };
    match sent.map_err(|e| e.raw_os_error()) {
        Ok(()) | Err(Some(libc::ENOENT)) => true,
        Err(Some(libc::ENOTCONN | libc::ENODEV | libc::ECONNABORTED)) => false,
        Err(errno) => {
            tracing::warn!(?forget, errno, "the kernel did not take an invalidation");
            true
        }
    }
}
