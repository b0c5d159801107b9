//! What the kernel knows, and what programs have open.

use std::collections::HashMap;
use std::sync::Arc;

use nearbrick_core::FileId;

use super::stub::Stub;
use super::types::NodeId;
use crate::brick::disk::File;

/// One object that the kernel knows or that is open.
pub struct Node {
    /// Which object it is.
    pub file: FileId,
    /// How often the kernel looked it up and has not forgotten it.
    pub lookups: u64,
    /// Open handles.
    pub opens: u32,
    /// Those for writing.
    pub writers: u32,
    /// The brick file behind all opens, open for reading.
    pub data: Option<File>,
    /// What lost its last name while the kernel knew it, with `O_PATH`.
    pub held: Option<File>,
    /// It was a stub then: the bytes of `held` are nobody's.
    pub hollow: bool,
    /// Counts brick files that were behind a node.
    pub backing: u64,
    /// Its bytes are elsewhere, and it is open.
    pub stub: Option<Arc<Stub>>,
    /// It has no name any more, or another file has taken its place in `data/`:
    /// the object is no longer to be found by `file`.
    pub orphan: bool,
    /// Its brick file is kept for the next agent.
    pub kept: bool,
}

/// All of them.
pub struct Nodes {
    by_id: HashMap<NodeId, Node>,
    by_file: HashMap<FileId, NodeId>,
    backings: u64,
    /// The kernel may know objects that are not here: an agent before this one had the mount.
    pub resumed: bool,
}

/// The root's.
pub const ROOT: NodeId = 1;

impl Default for Nodes {
    fn default() -> Self {
        let mut nodes = Nodes { by_id: HashMap::new(), by_file: HashMap::new(), backings: 0, resumed: false };
        nodes.by_id.insert(ROOT, Node::new(FileId::ROOT));
        nodes.by_file.insert(FileId::ROOT, ROOT);
        nodes
    }
}

impl Node {
    fn new(file: FileId) -> Self {
        Node {
            file,
            lookups: 0,
            opens: 0,
            writers: 0,
            data: None,
            held: None,
            hollow: false,
            backing: 0,
            stub: None,
            orphan: false,
            kept: false,
        }
    }
}

impl Nodes {
    /// The node.
    pub fn get(&self, id: NodeId) -> Option<&Node> {
        self.by_id.get(&id)
    }

    /// The node, to be changed.
    pub fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        self.by_id.get_mut(&id)
    }

    /// The id of the object's node, if it has one.
    pub fn id_of(&self, file: FileId) -> Option<NodeId> {
        self.by_file.get(&file).copied()
    }

    /// What the kernel calls the object, if it may know it.
    pub fn known_as(&self, file: FileId) -> Option<NodeId> {
        self.id_of(file).or_else(|| self.resumed.then(|| file.inode()))
    }

    /// The object's node, if it has one.
    pub fn of(&self, file: FileId) -> Option<&Node> {
        self.by_id.get(&self.id_of(file)?)
    }

    /// The number that the object has, or would get.
    pub fn number(&self, file: FileId) -> NodeId {
        if let Some(id) = self.id_of(file) {
            return id;
        }
        let mut id = file.inode();
        while self.by_id.contains_key(&id) {
            // Another object of 2^63, or this one before its file was replaced.
            id = (id.wrapping_add(1) & (u64::MAX >> 1)).max(2);
        }
        id
    }

    /// The object's node, made if it has none; counts one lookup.
    pub fn looked_up(&mut self, file: FileId) -> NodeId {
        let id = self.number(file);
        self.by_file.insert(file, id);
        self.by_id.entry(id).or_insert_with(|| Node::new(file)).lookups += 1;
        id
    }

    /// A node that the kernel knows from before.
    pub fn hold(&mut self, id: NodeId, file: FileId, orphan: bool) {
        if !orphan {
            self.by_file.entry(file).or_insert(id);
        }
        self.by_id.entry(id).or_insert_with(|| Node::new(file)).orphan |= orphan;
    }

    /// Counts an open of a brick file; of a node that is open already, the file is shared. Gives it, and its number.
    pub fn count_open(&mut self, id: NodeId, data: File, writes: bool) -> (File, u64) {
        let backing = self.next_backing();
        let Some(known) = self.by_id.get_mut(&id) else { return (data, backing) };
        known.opens += 1;
        known.writers += u32::from(writes);
        if known.data.is_none() {
            known.backing = backing;
        }
        (known.data.get_or_insert(data).clone(), known.backing)
    }

    /// The kernel forgets.
    pub fn forget(&mut self, id: NodeId, lookups: u64) {
        if let Some(node) = self.by_id.get_mut(&id) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        self.drop_if_unused(id);
    }

    /// Drops a node that nobody knows and nobody has open.
    pub fn drop_if_unused(&mut self, id: NodeId) {
        let Some(node) = self.by_id.get(&id) else { return };
        if id != ROOT && node.lookups == 0 && node.opens == 0 {
            if self.by_file.get(&node.file) == Some(&id) {
                self.by_file.remove(&node.file);
            }
            self.by_id.remove(&id);
        }
    }

    /// The object gets a new node at its next lookup; who has it open keeps what is open.
    pub fn detach(&mut self, file: FileId) {
        if let Some(id) = self.by_file.remove(&file)
            && let Some(node) = self.by_id.get_mut(&id)
        {
            node.orphan = true;
            self.drop_if_unused(id);
        }
    }

    /// A number for a brick file that comes to be behind a node.
    fn next_backing(&mut self) -> u64 {
        self.backings += 1;
        self.backings
    }
}
