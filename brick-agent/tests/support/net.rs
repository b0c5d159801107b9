//! Joins volumes in one process as the peer API would, without TLS and sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};

use nearbrick_agent::brick::disk::Reader;
use nearbrick_agent::peer::wire::FetchItem;
use nearbrick_agent::peer::{FetchSink, Remote, Served};
use nearbrick_agent::volume::Volume;
use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, FileId, VersionVector};

const CHUNK: usize = 64 << 10;

/// Who is there, and who cannot reach whom.
#[derive(Default)]
pub struct Net {
    members: Mutex<BTreeMap<BrickId, Weak<Volume>>>,
    cut: Mutex<BTreeSet<BrickId>>,
    /// Bytes of data that went from one member to another.
    pub bytes: AtomicU64,
    silence: Mutex<Silence>,
    broken: Condvar,
    /// Called with the number of each data chunk before it is handed over.
    pub on_chunk: Mutex<Option<Hook>>,
}

/// Peers that do not answer.
#[derive(Default)]
struct Silence {
    lasts: bool,
    waiting: usize,
}

/// Takes a number.
pub type Hook = Box<dyn FnMut(u64) + Send>;

impl Net {
    pub fn join(self: &Arc<Self>, brick: BrickId, volume: &Arc<Volume>) {
        self.members.lock().unwrap().insert(brick, Arc::downgrade(volume));
        volume.set_remote(Arc::new(Link { me: brick, net: self.clone() }));
    }

    pub fn leave(&self, brick: BrickId) {
        self.members.lock().unwrap().remove(&brick);
    }

    /// Cuts the member off from the others, or joins it again.
    pub fn set_cut(&self, brick: BrickId, cut: bool) {
        let mut all = self.cut.lock().unwrap();
        if cut {
            all.insert(brick)
        } else {
            all.remove(&brick)
        };
    }

    pub fn reach(&self, from: BrickId, to: BrickId) -> Option<Arc<Volume>> {
        let cut = self.cut.lock().unwrap();
        if cut.contains(&from) || cut.contains(&to) {
            return None;
        }
        drop(cut);
        self.members.lock().unwrap().get(&to)?.upgrade()
    }

    /// From now on nobody answers, or everybody does again.
    pub fn set_silent(&self, silent: bool) {
        self.silence.lock().unwrap().lasts = silent;
        self.broken.notify_all();
    }

    /// How many calls wait for an answer.
    pub fn waiting(&self) -> usize {
        self.silence.lock().unwrap().waiting
    }

    fn wait_for_answer(&self) {
        let mut silence = self.silence.lock().unwrap();
        silence.waiting += 1;
        let mut silence = self.broken.wait_while(silence, |s| s.lasts).unwrap();
        silence.waiting -= 1;
    }

    fn chunk(&self, n: u64, len: usize) {
        self.bytes.fetch_add(len as u64, Ordering::Relaxed);
        // Not locked while it runs: what it does may fetch too.
        let hook = self.on_chunk.lock().unwrap().take();
        if let Some(mut hook) = hook {
            hook(n);
            self.on_chunk.lock().unwrap().get_or_insert(hook);
        }
    }
}

struct Link {
    me: BrickId,
    net: Arc<Net>,
}

impl Remote for Link {
    fn read(
        &self,
        file: FileId,
        version: &VersionVector,
        offset: u64,
        len: usize,
        from: &[BrickId],
    ) -> Result<Vec<u8>, Reason> {
        self.net.wait_for_answer();
        let mut why = Reason::Unreachable;
        for brick in from {
            let Some(peer) = self.net.reach(self.me, *brick) else { continue };
            let source = match peer.source(file, version) {
                Ok(source) if source.version == *version => source,
                Ok(_) => {
                    why = Reason::SourceChanged;
                    continue;
                }
                Err(reason) => {
                    why = reason;
                    continue;
                }
            };
            let want = source.size.saturating_sub(offset).min(len as u64);
            let mut bytes = Vec::new();
            let read = Reader::new(&*source.file, offset).take(want).read_to_end(&mut bytes);
            if read.is_ok() && bytes.len() as u64 == want {
                self.net.chunk(0, bytes.len());
                return Ok(bytes);
            }
            why = Reason::SourceChanged;
        }
        Err(why)
    }

    fn fetch(&self, from: BrickId, items: &[FetchItem], sink: &mut dyn FetchSink) -> Result<(), Reason> {
        self.net.wait_for_answer();
        for item in items {
            if sink.cancelled() {
                return Ok(());
            }
            let peer = self.net.reach(self.me, from).ok_or(Reason::Unreachable)?;
            let source = match peer.source(item.file, &item.version) {
                Ok(source) => source,
                Err(reason) => {
                    sink.failed(item.file, reason);
                    continue;
                }
            };
            sink.begin(item.file, source.version.clone(), source.size);
            let mut hash = blake3::Hasher::new();
            let mut bytes = Reader::new(&*source.file, 0);
            let mut left = source.size;
            let mut buffer = vec![0; CHUNK];
            let mut n = 0;
            while left > 0 {
                let want = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
                let got = bytes.read(&mut buffer[..want]).map_err(|_| Reason::Unreachable)?;
                if got == 0 {
                    break;
                }
                self.net.chunk(n, got);
                if self.net.reach(self.me, from).is_none() {
                    sink.failed(item.file, Reason::Unreachable);
                    return Err(Reason::Unreachable);
                }
                hash.update(&buffer[..got]);
                sink.data(item.file, &buffer[..got]);
                left -= got as u64;
                n += 1;
            }
            if left > 0 {
                sink.failed(item.file, Reason::SourceChanged);
            } else {
                sink.end(item.file, *hash.finalize().as_bytes());
            }
        }
        Ok(())
    }

    fn hint(&self) {}
}
