//! What the agent has the holder keep of a mount, and what it gets back of one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nearbrick_core::BrickId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::begin::Agreed;
use super::invalidate::{Pending, Queue};
use super::ledger::{Entry, Ledger};
use super::mount::device;
use super::open::Handle;
use crate::brick::disk::File;
use crate::brick::machine::file;
use crate::config::VolumeConfig;
use crate::holder::client::Client;
use crate::holder::server::is_over;
use crate::volume::types::NodeId;
use crate::volume::{Held, Keeper, Resumed};

/// Of what agents tell each other.
const FORMAT: u32 = 1;

/// What the next agent must know. Only ever extended at the end, with another [`FORMAT`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Word {
    format: u32,
    volume: Uuid,
    brick: BrickId,
    /// Random, new for each mount.
    pub(super) mount: u64,
    at: PathBuf,
    /// The number of the mounted device.
    device: (u32, u32),
    pub(super) agreed: Agreed,
}

/// One volume's mount, as the holder keeps it.
pub struct Keep {
    client: Arc<Client>,
    /// The holder's name for it.
    name: String,
    volume: Uuid,
    brick: BrickId,
    mount: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Option<Now>,
    orphans: BTreeMap<NodeId, File>,
}

/// What is kept.
struct Now {
    word: Vec<u8>,
    device: Arc<OwnedFd>,
    ledger: Arc<Ledger>,
    /// Through which connection to the holder.
    generation: u64,
}

/// A mount that an agent before this one served.
pub struct Taken {
    pub(super) device: Arc<OwnedFd>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) entries: Vec<Entry>,
    pub(super) word: Word,
    pub(super) queue: Queue,
    pub(super) pending: Pending,
    resumed: Resumed,
}

impl Taken {
    /// What the volume must know before it is opened.
    pub fn resumed(&self) -> Resumed {
        self.resumed.clone()
    }

    /// What must hear what changes while it is opened.
    pub fn kernel(&self) -> Arc<dyn crate::volume::types::Invalidate> {
        Arc::new(self.queue.clone())
    }
}

impl Keep {
    /// Of the mount of this volume. Nothing is kept yet.
    pub fn new(client: Arc<Client>, config: &VolumeConfig) -> Arc<Self> {
        Arc::new(Keep {
            client,
            name: format!("{}/{}", config.namespace, config.name),
            volume: config.volume_uuid,
            brick: config.brick,
            mount: AtomicU64::new(0),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Identifies the mount.
    pub(super) fn mount(&self) -> u64 {
        self.mount.load(Ordering::Relaxed)
    }

    /// Another mount begins.
    pub(super) fn new_mount(&self) {
        self.mount.store(rand::random(), Ordering::Relaxed);
    }

    /// What an agent before this one left of the mount at `at`, if it can be gone on with.
    ///
    /// # Errors
    /// The holder is out of reach, or another agent has the mount.
    pub fn take(&self, at: &Path) -> io::Result<Option<Taken>> {
        self.client.generation().map_err(io::Error::other)?;
        let Some(taken) = self.client.take(&self.name)? else { return Ok(None) };
        match self.understood(taken, at) {
            Ok(taken) => Ok(Some(taken)),
            Err(why) => {
                tracing::warn!(
                    mount = self.name,
                    "{why}: programs that have it open are cut off, and it is mounted anew"
                );
                self.client.end(&self.name)?;
                Ok(None)
            }
        }
    }

    fn understood(&self, taken: crate::holder::client::Taken, at: &Path) -> Result<Taken, String> {
        let word: Word = postcard::from_bytes(&taken.agreed)
            .map_err(|_| "the agent before this one left word that is not understood".to_owned())?;
        if word.format != FORMAT {
            return Err("the agent before this one was of another kind".to_owned());
        }
        if (word.volume, word.brick) != (self.volume, self.brick) {
            return Err("another brick was mounted there before".to_owned());
        }
        if is_over(&taken.device) {
            return Err("it was unmounted".to_owned());
        }
        if word.at != at || device(at) != Some(word.device) {
            return Err(format!("it is no longer what is mounted at {}", at.display()));
        }
        let (ledger, entries) = Ledger::resumed(taken.ledger).map_err(|e| format!("its ledger: {e}"))?;
        let orphans: BTreeMap<_, _> =
            taken.orphans.into_iter().map(|(node, fd)| (node, file(fs::File::from(fd)))).collect();
        let held = entries.iter().map(|entry| held(entry, &orphans)).collect();
        self.mount.store(word.mount, Ordering::Relaxed);
        let (queue, pending) = Queue::new();
        let resumed = Resumed { life: ledger.life(), held };
        let (device, ledger) = (Arc::new(taken.device), Arc::new(ledger));
        let generation = self.client.generation()?;
        let mut state = self.state();
        state.now =
            Some(Now { word: taken.agreed, device: device.clone(), ledger: ledger.clone(), generation });
        state.orphans = orphans;
        Ok(Taken { device, ledger, entries, word, queue, pending, resumed })
    }

    /// Has a mount kept that just began.
    ///
    /// # Errors
    /// The holder is out of reach.
    pub(super) fn begin(
        &self,
        at: &Path,
        agreed: Agreed,
        fuse: &Arc<OwnedFd>,
        ledger: &Arc<Ledger>,
    ) -> Result<(), String> {
        let word = Word {
            format: FORMAT,
            volume: self.volume,
            brick: self.brick,
            mount: self.mount(),
            at: at.to_owned(),
            device: device(at).ok_or("the mount is gone")?,
            agreed,
        };
        let word = postcard::to_stdvec(&word).map_err(|e| e.to_string())?;
        let now = Now { word, device: fuse.clone(), ledger: ledger.clone(), generation: 0 };
        let mut state = self.state();
        state.now = Some(now);
        state.orphans.clear();
        drop(state);
        self.again()
    }

    /// Has it kept by a new holder, if the one that had it is gone.
    ///
    /// # Errors
    /// The holder is out of reach.
    pub fn again(&self) -> Result<(), String> {
        let mut state = self.state();
        let State { now: Some(now), orphans } = &mut *state else { return Ok(()) };
        let generation = self.client.generation()?;
        if now.generation != generation {
            let orphans: Vec<_> =
                orphans.iter().filter_map(|(node, file)| Some((*node, file.descriptor()?))).collect();
            self.client
                .keep(&self.name, &now.word, &now.device, &*now.ledger, &orphans)
                .map_err(|e| format!("the holder does not keep the mount: {e}"))?;
            if now.generation != 0 {
                tracing::info!(mount = self.name, "the holder is another one now: it keeps the mount too");
            }
            now.generation = generation;
        }
        Ok(())
    }

    /// Whether the holder has it.
    pub(super) fn is_kept(&self) -> bool {
        let (state, generation) = (self.state(), self.client.generation());
        state.now.as_ref().is_some_and(|now| generation == Ok(now.generation))
    }

    /// It is served now.
    pub(super) fn serving(&self) {
        if let Err(error) = self.client.serving(&self.name) {
            tracing::warn!(mount = self.name, %error, "the holder is gone");
        }
    }

    /// The mount is over.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.orphans.clear();
        if state.now.take().is_some()
            && let Err(error) = self.client.end(&self.name)
        {
            tracing::debug!(mount = self.name, %error, "the holder is gone too");
        }
    }
}

fn held(entry: &Entry, orphans: &BTreeMap<NodeId, File>) -> Held {
    Held {
        handle: Handle::from_raw(entry.raw).id,
        node: entry.node,
        file: entry.file,
        dir: entry.dir,
        writes: entry.writes,
        inode: entry.inode,
        orphan: orphans.get(&entry.node).cloned(),
    }
}

impl Keeper for Keep {
    fn orphan(&self, node: NodeId, data: &File) {
        let mut state = self.state();
        if state.now.is_none() {
            return;
        }
        let Some(descriptor) = data.descriptor() else { return };
        if let Err(error) = self.client.orphan(&self.name, node, descriptor) {
            tracing::debug!(mount = self.name, %error, "a file without a name would not survive the agent");
        }
        state.orphans.insert(node, data.clone());
    }

    fn closed(&self, node: NodeId) {
        let mut state = self.state();
        if state.orphans.remove(&node).is_some() {
            // A holder that is gone has nothing to forget.
            let _ = self.client.forget(&self.name, node);
        }
    }
}
