//! The ledger of what programs have open, in memory that outlives the agent: the holder has it too.
//! Written before the kernel is told of an open, and before it is told that a release is done. So what it
//! says is open may have been refused or left by then, but what is open is always in it.
//!
//! One entry has a fixed place and is written by one call, which a killed process does not leave half done.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nearbrick_core::FileId;
use rustix::fs::MemfdFlags;

use crate::volume::types::NodeId;

const MAGIC: u32 = 0x6e62_6c31;
const SLOT: u64 = 64;
/// Open files, at most: more than the kernel lets a machine have by default for all of its programs.
const MAX_SLOTS: u64 = 16 << 20;
/// The slot of an open that could not be written.
const NOWHERE: u64 = u64::MAX;

/// One open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The handle, as the kernel has it.
    pub raw: u64,
    /// The node.
    pub node: NodeId,
    /// Its object.
    pub file: FileId,
    /// The request that opened it.
    pub request: u64,
    /// A directory.
    pub dir: bool,
    /// For writing.
    pub writes: bool,
    /// The brick file that the kernel reads and writes itself.
    pub backing: Option<u32>,
    /// Inode number of the brick file, if its bytes are here.
    pub inode: Option<u64>,
}

impl Entry {
    fn to_bytes(self) -> [u8; SLOT as usize] {
        let mut bytes = [0; SLOT as usize];
        let flags = u32::from(self.dir)
            | u32::from(self.writes) << 1
            | u32::from(self.backing.is_some()) << 2
            | u32::from(self.inode.is_some()) << 3;
        bytes[..4].copy_from_slice(&MAGIC.to_ne_bytes());
        bytes[4..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..16].copy_from_slice(&self.raw.to_ne_bytes());
        bytes[16..24].copy_from_slice(&self.node.to_ne_bytes());
        bytes[24..32].copy_from_slice(&self.request.to_ne_bytes());
        bytes[32..40].copy_from_slice(&self.inode.unwrap_or(0).to_ne_bytes());
        bytes[40..44].copy_from_slice(&self.backing.unwrap_or(0).to_ne_bytes());
        bytes[48..64].copy_from_slice(&self.file.0);
        bytes
    }

    fn from_bytes(bytes: &[u8; SLOT as usize]) -> Option<Entry> {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_ne_bytes(word)
        };
        let long = |at: usize| {
            let mut long = [0; 8];
            long.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(long)
        };
        if word(0) != MAGIC {
            return None;
        }
        let flags = word(4);
        let mut file = [0; 16];
        file.copy_from_slice(&bytes[48..64]);
        Some(Entry {
            raw: long(8),
            node: long(16),
            file: FileId(file),
            request: long(24),
            dir: flags & 1 != 0,
            writes: flags & 2 != 0,
            backing: (flags & 4 != 0).then(|| word(40)),
            inode: (flags & 8 != 0).then(|| long(32)),
        })
    }
}

/// The ledger of one mount.
pub struct Ledger {
    file: File,
    /// How many agents had it.
    life: u32,
    /// What the last agent left, by request.
    before: HashMap<u64, Entry>,
    slots: Mutex<Slots>,
}

#[derive(Default)]
struct Slots {
    of: HashMap<u64, u64>,
    free: Vec<u64>,
    end: u64,
}

impl Ledger {
    /// An empty one.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn new() -> io::Result<Self> {
        let file = File::from(rustix::fs::memfd_create("nearbrick-ledger", MemfdFlags::CLOEXEC)?);
        let slots = Mutex::new(Slots { end: 1, ..Slots::default() });
        let ledger = Ledger { file, life: 0, before: HashMap::new(), slots };
        ledger.write_life()?;
        Ok(ledger)
    }

    /// One that an agent before us wrote, with what was open then.
    ///
    /// # Errors
    /// What the kernel says; `InvalidData` if it is none.
    pub fn resumed(file: OwnedFd) -> io::Result<(Self, Vec<Entry>)> {
        let file = File::from(file);
        let mut head = [0; SLOT as usize];
        file.read_exact_at(&mut head, 0)?;
        let (magic, life) = (&head[..4], &head[4..8]);
        if magic != MAGIC.to_ne_bytes() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "no ledger of open files, or of another version",
            ));
        }
        let mut count = [0; 4];
        count.copy_from_slice(life);
        let mut slots = Slots { end: file.metadata()?.len() / SLOT, ..Slots::default() };
        if slots.end > MAX_SLOTS {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a ledger of more than {MAX_SLOTS} open files"),
            ));
        }
        let mut entries = Vec::new();
        for slot in 1..slots.end {
            let mut bytes = [0; SLOT as usize];
            file.read_exact_at(&mut bytes, slot * SLOT)?;
            match Entry::from_bytes(&bytes) {
                Some(entry) => {
                    slots.of.insert(entry.raw, slot);
                    entries.push(entry);
                }
                None => slots.free.push(slot),
            }
        }
        let life = u32::from_ne_bytes(count).wrapping_add(1);
        let before = entries.iter().map(|entry: &Entry| (entry.request, *entry)).collect();
        let ledger = Ledger { file, life, before, slots: Mutex::new(slots) };
        ledger.write_life()?;
        Ok((ledger, entries))
    }

    fn write_life(&self) -> io::Result<()> {
        let mut head = [0; SLOT as usize];
        head[..4].copy_from_slice(&MAGIC.to_ne_bytes());
        head[4..8].copy_from_slice(&self.life.to_ne_bytes());
        self.file.write_all_at(&head, 0)
    }

    /// How many agents had it before this one.
    pub fn life(&self) -> u32 {
        self.life
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was opened on behalf of a request by an agent before this one, if it is still open.
    pub fn opened_for(&self, request: u64) -> Option<Entry> {
        self.before.get(&request).copied().filter(|entry| self.has(entry.raw))
    }

    /// Whether it is open.
    pub fn has(&self, raw: u64) -> bool {
        self.slots().of.contains_key(&raw)
    }

    /// Something is about to be open.
    pub fn opened(&self, entry: Entry) {
        let slots = &mut *self.slots();
        let slot = slots.free.pop().unwrap_or_else(|| {
            slots.end += 1;
            slots.end - 1
        });
        if let Err(error) = self.file.write_all_at(&entry.to_bytes(), slot * SLOT) {
            tracing::error!(%error, "an open file would not survive the agent");
            slots.free.push(slot);
            slots.of.insert(entry.raw, NOWHERE);
            return;
        }
        slots.of.insert(entry.raw, slot);
    }

    /// It is closed.
    pub fn closed(&self, raw: u64) {
        let slots = &mut *self.slots();
        let Some(slot) = slots.of.remove(&raw).filter(|slot| *slot != NOWHERE) else { return };
        match self.file.write_all_at(&[0; 4], slot * SLOT) {
            Ok(()) => slots.free.push(slot),
            Err(error) => tracing::error!(%error, "a closed file would be open for the next agent"),
        }
    }
}

impl AsFd for Ledger {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(raw: u64) -> Entry {
        Entry {
            raw,
            node: raw.wrapping_mul(7),
            file: FileId([raw as u8; 16]),
            request: raw << 3,
            dir: raw.is_multiple_of(2),
            writes: raw.is_multiple_of(3),
            backing: (!raw.is_multiple_of(5)).then_some(raw as u32),
            inode: (!raw.is_multiple_of(7)).then_some(raw ^ 0xffff),
        }
    }

    proptest! {
        /// Whatever was opened and closed, the next agent finds what was open, and goes on.
        #[test]
        fn the_next_agent_finds_what_is_open(
            steps in proptest::collection::vec((0u64..40, any::<bool>()), 0..200),
            restarts in proptest::collection::btree_set(0usize..200, 0..4),
        ) {
            let mut ledger = Ledger::new().unwrap();
            let mut open = std::collections::BTreeMap::new();
            let mut life = 0;
            for (n, (raw, opens)) in steps.into_iter().enumerate() {
                if restarts.contains(&n) {
                    let fd = ledger.as_fd().try_clone_to_owned().unwrap();
                    let (next, mut found) = Ledger::resumed(fd).unwrap();
                    found.sort_by_key(|e| e.raw);
                    prop_assert_eq!(found, open.values().copied().collect::<Vec<_>>());
                    life += 1;
                    prop_assert_eq!(next.life(), life);
                    ledger = next;
                }
                if opens && !open.contains_key(&raw) {
                    ledger.opened(entry(raw));
                    open.insert(raw, entry(raw));
                } else if !opens {
                    ledger.closed(raw);
                    open.remove(&raw);
                }
            }
            let (_, mut found) = Ledger::resumed(ledger.as_fd().try_clone_to_owned().unwrap()).unwrap();
            found.sort_by_key(|e| e.raw);
            prop_assert_eq!(found, open.into_values().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_no_ledger_is_refused() {
        let other = rustix::fs::memfd_create("other", MemfdFlags::CLOEXEC).unwrap();
        assert!(Ledger::resumed(other.try_clone().unwrap()).is_err());
        File::from(other.try_clone().unwrap()).write_all_at(&[7; 128], 0).unwrap();
        assert!(Ledger::resumed(other).is_err());
    }
}
