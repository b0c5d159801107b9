//! Joins volumes in one process as the peer API would, without TLS and sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::Duration;

use nearbrick_agent::heal::chunk;
use nearbrick_agent::peer::wire::{self, ChunkList, FetchItem, KeepRequest, RangesRequest};
use nearbrick_agent::peer::{FetchSink, Remote, Served, Source, SourceKind};
use nearbrick_agent::volume::Volume;
use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, FileId, Object, VersionVector};

const CHUNK: usize = 64 << 10;

/// Who is there, and who cannot reach whom.
#[derive(Default)]
pub struct Net {
    members: Mutex<BTreeMap<BrickId, Weak<Volume>>>,
    cut: Mutex<BTreeSet<BrickId>>,
    /// Pairs that do not reach each other, the smaller one first.
    apart: Mutex<BTreeSet<(BrickId, BrickId)>>,
    /// Bytes of data that went from one member to another.
    pub bytes: AtomicU64,
    silence: Mutex<Silence>,
    broken: Condvar,
    /// Called with the number of each data chunk before it is handed over.
    pub on_chunk: Mutex<Option<Hook>>,
    /// Called with the brick from which a stream begins.
    pub on_stream: Mutex<Option<Arc<OnStream>>>,
    /// One byte of the data chunk with this number is to be wrong, once.
    pub damage: Mutex<Option<u64>>,
}

/// Peers that do not answer.
#[derive(Default)]
struct Silence {
    lasts: bool,
    waiting: usize,
}

/// Takes the brick from which a stream begins.
pub type OnStream = dyn Fn(BrickId) + Send + Sync;

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

    /// Cuts two members off from each other.
    pub fn part(&self, a: BrickId, b: BrickId) {
        self.apart.lock().unwrap().insert((a.min(b), a.max(b)));
    }

    /// All pairs reach each other again.
    pub fn join_pairs(&self) {
        self.apart.lock().unwrap().clear();
    }

    pub fn reach(&self, from: BrickId, to: BrickId) -> Option<Arc<Volume>> {
        let cut = self.cut.lock().unwrap();
        if cut.contains(&from) || cut.contains(&to) {
            return None;
        }
        drop(cut);
        if self.apart.lock().unwrap().contains(&(from.min(to), from.max(to))) {
            return None;
        }
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

impl Link {
    fn begins(&self, from: BrickId) {
        let hook = self.net.on_stream.lock().unwrap().clone();
        if let Some(hook) = hook {
            hook(from);
        }
    }

    /// Sends these parts of a file, and its end.
    #[allow(clippy::too_many_arguments)]
    fn send(
        &self,
        from: BrickId,
        file: FileId,
        source: &Source,
        parts: &[(u64, u64)],
        holes: bool,
        n: &mut u64,
        sink: &mut dyn FetchSink,
    ) -> Result<(), Reason> {
        let mut hash = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        for (start, end) in parts {
            let mut at = *start;
            while at < *end {
                let (data, until) = if holes {
                    chunk::next_data(&*source.file, at, *end).map_err(|_| Reason::Unreachable)?
                } else {
                    (at, *end)
                };
                if data > at {
                    chunk::hash_zeroes(&mut hash, data - at, || true);
                    sink.hole(file, data - at);
                    at = data;
                }
                while at < until {
                    let want = CHUNK.min(usize::try_from(until - at).unwrap_or(CHUNK));
                    let got =
                        source.file.read_at(&mut buffer[..want], at).map_err(|_| Reason::Unreachable)?;
                    if got == 0 {
                        sink.failed(file, Reason::SourceChanged);
                        return Ok(());
                    }
                    self.net.chunk(*n, got);
                    if self.net.reach(self.me, from).is_none() {
                        sink.failed(file, Reason::Unreachable);
                        return Err(Reason::Unreachable);
                    }
                    hash.update(&buffer[..got]);
                    let mut damage = self.net.damage.lock().unwrap();
                    if *damage == Some(*n) {
                        buffer[got / 2] ^= 1;
                        *damage = None;
                    }
                    drop(damage);
                    sink.data(file, &buffer[..got]);
                    at += got as u64;
                    *n += 1;
                    if at < *end && sink.cancelled() {
                        return Ok(());
                    }
                }
            }
        }
        let still = source.kind == SourceKind::Copy
            || self.net.reach(self.me, from).is_some_and(|peer| peer.still(file, &source.version));
        if still {
            sink.end(file, *hash.finalize().as_bytes());
        } else {
            sink.failed(file, Reason::SourceChanged);
        }
        Ok(())
    }
}

impl Remote for Link {
    fn read(
        &self,
        file: FileId,
        version: &VersionVector,
        offset: u64,
        len: usize,
        from: &[BrickId],
    ) -> Result<(BrickId, Vec<u8>), Reason> {
        self.net.wait_for_answer();
        let mut why = Reason::Unreachable;
        for brick in from {
            let Some(peer) = self.net.reach(self.me, *brick) else { continue };
            let source = match peer.exactly(file, version) {
                Ok(source) => source,
                Err(reason) => {
                    why = reason;
                    continue;
                }
            };
            let want = source.size.saturating_sub(offset).min(len as u64);
            let mut bytes = vec![0; usize::try_from(want).unwrap()];
            if chunk::read_exact(&*source.file, &mut bytes, offset).is_ok() {
                self.net.chunk(0, bytes.len());
                return Ok((*brick, bytes));
            }
            why = Reason::SourceChanged;
        }
        Err(why)
    }

    fn fetch(&self, from: BrickId, items: &[FetchItem], sink: &mut dyn FetchSink) -> Result<(), Reason> {
        self.net.wait_for_answer();
        self.begins(from);
        let mut n = 0;
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
            let whole = (0, source.size);
            self.send(from, item.file, &source, &[whole], true, &mut n, sink)?;
        }
        Ok(())
    }

    fn chunks(
        &self,
        from: BrickId,
        file: FileId,
        version: &VersionVector,
    ) -> Result<Option<Arc<ChunkList>>, Reason> {
        self.net.wait_for_answer();
        self.begins(from);
        let peer = self.net.reach(self.me, from).ok_or(Reason::Unreachable)?;
        let source = peer.source(file, version)?;
        let average = chunk::average_for(source.size);
        let (mut pieces, mut hasher) = (Vec::new(), blake3::Hasher::new());
        chunk::pieces(&*source.file, source.size, average, Some(&mut hasher), |piece| {
            pieces.push(piece);
            true
        })
        .map_err(|_| Reason::SourceChanged)?;
        if source.kind != SourceKind::Copy && !peer.still(file, &source.version) {
            return Err(Reason::SourceChanged);
        }
        self.net.bytes.fetch_add(wire::encode(&pieces).len() as u64, Ordering::Relaxed);
        let hash = *hasher.finalize().as_bytes();
        Ok(Some(Arc::new(ChunkList { version: source.version, size: source.size, average, pieces, hash })))
    }

    fn ranges(&self, from: BrickId, wanted: &RangesRequest, sink: &mut dyn FetchSink) -> Result<(), Reason> {
        let total = wanted.total().expect("in order");
        let peer = self.net.reach(self.me, from).ok_or(Reason::Unreachable)?;
        match peer.exactly(wanted.file, &wanted.version) {
            Ok(source) => {
                sink.begin(wanted.file, source.version.clone(), total);
                let ranges: Vec<_> = wanted.ranges.iter().map(|(at, len)| (*at, at + len)).collect();
                self.send(from, wanted.file, &source, &ranges, false, &mut 0, sink)
            }
            Err(reason) => {
                sink.failed(wanted.file, reason);
                Ok(())
            }
        }
    }

    fn newest(&self, from: BrickId, file: FileId) -> Result<Option<Object>, Reason> {
        self.net.wait_for_answer();
        let peer = self.net.reach(self.me, from).ok_or(Reason::Unreachable)?;
        let newest = peer.newest(file).map_err(|_| Reason::Unreachable)?;
        newest.iter().for_each(|object| object.check(file).unwrap());
        Ok(newest)
    }

    fn keep(
        &self,
        bricks: &[BrickId],
        wanted: usize,
        request: &KeepRequest,
        _limit: Duration,
    ) -> Vec<(BrickId, Result<(), Reason>)> {
        let me = self.net.members.lock().unwrap().get(&self.me).and_then(Weak::upgrade);
        // Its agent has just ended.
        let Some(me) = me else { return Vec::new() };
        let ask = |brick: &BrickId| {
            let Some(peer) = self.net.reach(self.me, *brick) else { return Err(Reason::Unreachable) };
            let news = me.entries_after(&peer.heads(), usize::MAX).map_err(|_| Reason::Unreachable)?;
            peer.absorb(self.me, news).map_err(|_| Reason::Unreachable)?;
            peer.keep(self.me, &request.heads, request.file, &request.version)
        };
        let mut done: Vec<(BrickId, Result<(), Reason>)> = Vec::new();
        for brick in bricks {
            if done.iter().filter(|(_, kept)| kept.is_ok()).count() < wanted {
                done.push((*brick, ask(brick)));
            }
        }
        done
    }

    fn is_reached(&self, brick: BrickId) -> bool {
        self.net.reach(self.me, brick).is_some()
    }

    fn hint(&self) {}
}
