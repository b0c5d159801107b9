//! Keeps this brick's journal abreast of its peers'. For each peer one task
//! pulls what is lacking here, on a hint and every few seconds, and one task
//! pushes hints after local changes. A slow peer delays only its own tasks.
//!
//! A peer that no longer has the entries that are lacking here is compared with instead. From
//! time to time members also tell each other what they have heard, so that they know what all have.
//!
//! The exchange stands before its volume at the server: it is [`Served`] by
//! passing everything on, and takes note of hints on the way.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, Entry, FileId, Incarnation, Object, VersionVector};
use nearbrick_crds::files;
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::client::Client;
use super::compare::{Compare, CompareReply, CompareRequest};
use super::rubbish::Rubbish;
use super::wire::{Acks, Heads};
use super::{Refused, Served, Source};
use crate::heal::chunk;
use crate::volume::sync_copies::SYNC_LIMIT;

/// How long news are waited for before it is tried again to bring a version here that an `fsync` elsewhere waits for.
const KEEP_AGAIN: Duration = Duration::from_millis(500);
/// A peer that answered within this time is expected to do so again.
const LATELY: Duration = Duration::from_secs(60);
/// Before it is asked once more, and once more.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// A volume whose journal is kept abreast.
pub trait Journal: Served {
    /// Takes over entries from a peer that follow what is known; says how many
    /// were new. May block on the disk.
    fn absorb(&self, from: BrickId, entries: Vec<Entry>) -> io::Result<usize>;

    /// Begins a comparison with a peer that no longer has all entries that are lacking here.
    /// None: not now.
    fn comparison(self: Arc<Self>, _from: BrickId) -> Option<Box<dyn Compare>> {
        None
    }

    /// Whether entries are of no use before a comparison: the index is being made anew.
    fn must_compare(&self) -> bool {
        false
    }

    /// Begins to ask a peer, which has just sent entries, for what they are part of and is not known here.
    fn completion(self: Arc<Self>, _from: BrickId) -> Option<Box<dyn Compare>> {
        None
    }

    /// An entry of an origin's journal, the next one, makes no sense here.
    fn refused(&self, _origin: Incarnation, _seq: u64, _why: String) {}

    /// Gives up what all members have. May block on the disk.
    fn compact(&self) {}
}

/// How often, and how much.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two polls of a peer that gives no hints; jittered by a fifth.
    pub poll: Duration,
    /// How long hints are gathered.
    pub debounce: Duration,
    /// Replies taken in one round.
    pub rounds: usize,
    /// Between two exchanges of acknowledgements with a peer, and two compactions.
    pub acks: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            poll: Duration::from_secs(5),
            debounce: Duration::from_millis(20),
            rounds: 256,
            acks: Duration::from_secs(30),
        }
    }
}

/// The exchange of one volume.
pub struct Exchange {
    journal: Arc<dyn Journal>,
    client: Arc<Client>,
    pace: Pace,
    rubbish: Rubbish,
    peers: Mutex<HashMap<BrickId, PeerTasks>>,
    /// Ticks when entries were taken over.
    absorbed: watch::Sender<u64>,
}

struct PeerTasks {
    wake: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
}

impl Drop for PeerTasks {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Exchange {
    /// Between this volume and its peers. Nothing happens before [`Exchange::members_changed`].
    pub fn new(journal: Arc<dyn Journal>, client: Arc<Client>, pace: Pace) -> Arc<Self> {
        let (rubbish, peers, absorbed) = (Rubbish::default(), Mutex::default(), watch::Sender::new(0));
        Arc::new(Exchange { journal, client, pace, rubbish, peers, absorbed })
    }

    fn tasks(&self) -> MutexGuard<'_, HashMap<BrickId, PeerTasks>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the tasks of new peers and ends those of peers that are gone.
    /// Call it after [`Client::set_members`], in the runtime.
    pub fn members_changed(self: &Arc<Self>) {
        let now: HashSet<BrickId> = self.client.peers().into_iter().collect();
        let mut tasks = self.tasks();
        tasks.retain(|brick, _| now.contains(brick));
        for brick in now {
            tasks.entry(brick).or_insert_with(|| {
                let wake = Arc::new(Notify::new());
                let pull = tokio::spawn(self.clone().pull_task(brick, wake.clone()));
                let push = tokio::spawn(self.clone().push_task(brick, self.client.hints()));
                PeerTasks { wake, tasks: [pull, push] }
            });
        }
        // An address may have changed.
        tasks.values().for_each(|t| t.wake.notify_one());
    }

    /// Asks all peers now, and returns when all that they had is here, when they do not answer, or after `limit`: what is decided
    /// next is decided by what members know, and not by what had come by chance. Says which peers were not heard though they answered a
    /// moment ago: a connection that a cut network left is worth another try, a machine that is off is not.
    pub async fn catch_up(&self, limit: Duration) -> Vec<BrickId> {
        let end = tokio::time::Instant::now() + limit;
        let all = self.client.peers().into_iter().map(|from| async move {
            let was_there = self.client.answered_within(from, LATELY);
            let is_heard = tokio::time::timeout_at(end, self.hear(from, was_there)).await;
            let is_heard = is_heard.unwrap_or_else(|_| {
                tracing::debug!(volume = %self.journal.volume(), brick = %from, "has more to say, or does not answer in time");
                false
            });
            (!is_heard && was_there).then_some(from)
        });
        futures::future::join_all(all).await.into_iter().flatten().collect()
    }

    /// Says whether all that a peer had is here. Tried `again` if it does not answer.
    async fn hear(&self, from: BrickId, again: bool) -> bool {
        let waits = if again { &AGAIN[..] } else { &[] };
        let mut waits = waits.iter();
        loop {
            match self.pull(from).await {
                Pulled::More => continue,
                Pulled::All => return true,
                Pulled::Nothing => {}
            }
            match waits.next() {
                Some(wait) => tokio::time::sleep(*wait).await,
                None => return false,
            }
        }
    }

    /// The node that a peer is on.
    pub fn node_of(&self, brick: BrickId) -> Option<String> {
        self.client.node_of(brick)
    }

    /// Ends all tasks.
    pub fn stop(&self) {
        self.tasks().clear();
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Journal) -> T + Send + 'static,
    ) -> Option<T> {
        let journal = self.journal.clone();
        tokio::task::spawn_blocking(move || work(&*journal)).await.ok()
    }

    async fn pull_task(self: Arc<Self>, from: BrickId, wake: Arc<Notify>) {
        let mut told: Option<Instant> = None;
        loop {
            if self.pull(from).await == Pulled::More {
                continue;
            }
            if told.is_none_or(|at| at.elapsed() >= self.pace.acks) && self.tell(from).await {
                told = Some(Instant::now());
            }
            let wait = self.client.wait_for(from).unwrap_or_else(|| jittered(self.pace.poll));
            // A hint ends the wait, also that for a peer which did not answer.
            let _ = tokio::time::timeout(wait, wake.notified()).await;
        }
    }

    /// One bounded round.
    async fn pull(&self, from: BrickId) -> Pulled {
        for _ in 0..self.pace.rounds {
            if self.journal.must_compare() && !self.drive(from, self.journal.clone().comparison(from)).await {
                return Pulled::Nothing;
            }
            let Some(cursors) = self.blocking(|journal| journal.heads()).await else {
                return Pulled::Nothing;
            };
            let Ok(reply) = self.client.journal(from, cursors).await else { return Pulled::Nothing };
            let heads = reply.heads;
            self.blocking(move |journal| journal.hinted(from, &heads)).await;
            if reply.behind {
                if self.drive(from, self.journal.clone().comparison(from)).await {
                    continue;
                }
                return Pulled::Nothing;
            }
            if reply.entries.is_empty() {
                self.drive(from, self.journal.clone().completion(from)).await;
                return Pulled::All;
            }
            let (good, bad) = sane(reply.entries);
            for (origin, seq, why) in bad {
                self.rubbish.note(&*self.journal, Some(from), &why);
                self.blocking(move |journal| journal.refused(origin, seq, why)).await;
            }
            match self.blocking(move |journal| journal.absorb(from, good)).await {
                Some(Ok(0)) | None => return Pulled::Nothing,
                Some(Ok(_)) => self.absorbed.send_modify(|n| *n = n.wrapping_add(1)),
                Some(Err(error)) => {
                    tracing::warn!(volume = %self.journal.volume(), %error, "entries from a peer cannot be kept");
                    return Pulled::Nothing;
                }
            }
        }
        Pulled::More
    }

    /// Asks and answers until a comparison is done. Says whether it came to its end.
    async fn drive(&self, from: BrickId, comparison: Option<Box<dyn Compare>>) -> bool {
        let Some(mut comparison) = comparison else { return false };
        while let Some(request) = comparison.request() {
            let Ok(reply) = self.client.compare(from, &request).await else { return false };
            let taken = tokio::task::spawn_blocking(move || {
                let taken = comparison.answer(reply);
                (comparison, taken)
            });
            match taken.await {
                Ok((next, Ok(()))) => comparison = next,
                // Its index is being made anew, as ours is.
                Ok((_, Err(error))) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Ok((_, Err(error))) => {
                    tracing::warn!(volume = %self.journal.volume(), %error, "the comparison with a peer stops here");
                    return false;
                }
                Err(_) => return false,
            }
        }
        true
    }

    /// Tells what members have heard, hears the same, and gives up what all have.
    async fn tell(&self, to: BrickId) -> bool {
        let Some(told) = self.blocking(|journal| journal.acks(&Acks::new())).await else { return false };
        let Ok(heard) = self.client.acks(to, &told).await else { return false };
        // Who has heard the same has the same objects, but for what one has forgotten already.
        if let (Some(ours), Some(theirs)) = (told.get(&self.journal.brick()), heard.get(&to))
            && ours.heads == theirs.heads
            && ours.sum != theirs.sum
        {
            self.drive(to, self.journal.clone().comparison(to)).await;
        }
        self.blocking(move |journal| {
            journal.acks(&heard);
            journal.compact();
        })
        .await
        .is_some()
    }

    async fn push_task(self: Arc<Self>, to: BrickId, mut hints: watch::Receiver<u64>) {
        while hints.changed().await.is_ok() {
            tokio::time::sleep(self.pace.debounce).await;
            hints.borrow_and_update();
            if self.client.wait_for(to).is_some() {
                // It asks by itself when it is back.
                continue;
            }
            let Some(heads) = self.blocking(|journal| journal.heads()).await else { return };
            if let Err(error) = self.client.send_hint(to, heads).await {
                tracing::debug!(brick = %to, %error, "a hint did not arrive");
            }
        }
    }
}

#[derive(PartialEq)]
enum Pulled {
    /// All that there is.
    All,
    /// It does not answer, or what it says cannot be taken now.
    Nothing,
    /// The round was full.
    More,
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.8..1.2))
}

/// Splits off entries that make no sense, and with each those that follow it in
/// its origin's journal, which can no longer be taken. Says of each where it is, and the kind.
fn sane(entries: Vec<Entry>) -> (Vec<Entry>, Vec<(Incarnation, u64, String)>) {
    let mut broken: HashSet<Incarnation> = HashSet::new();
    let mut bad = Vec::new();
    let good = entries
        .into_iter()
        .filter(|entry| {
            if broken.contains(&entry.origin) {
                return false;
            }
            match entry.check() {
                Ok(()) => true,
                Err(why) => {
                    broken.insert(entry.origin);
                    bad.push((entry.origin, entry.seq, why.to_string()));
                    false
                }
            }
        })
        .collect();
    (good, bad)
}

impl Served for Exchange {
    fn volume(&self) -> uuid::Uuid {
        self.journal.volume()
    }

    fn brick(&self) -> BrickId {
        self.journal.brick()
    }

    fn brick_of(&self, node: &str) -> Option<BrickId> {
        self.journal.brick_of(node)
    }

    fn heads(&self) -> Heads {
        self.journal.heads()
    }

    fn entries_after(&self, cursors: &Heads, max_bytes: usize) -> io::Result<Vec<Entry>> {
        self.journal.entries_after(cursors, max_bytes)
    }

    fn is_behind(&self, cursors: &Heads) -> bool {
        self.journal.is_behind(cursors)
    }

    fn compared(&self, request: &CompareRequest) -> io::Result<CompareReply> {
        self.journal.compared(request)
    }

    fn acks(&self, told: &Acks) -> Acks {
        self.journal.acks(told)
    }

    fn hinted(&self, from: BrickId, heads: &Heads) {
        self.client.alive(from);
        let known = self.journal.heads();
        let news = heads.iter().any(|(origin, seq)| known.get(origin).is_none_or(|have| have < seq));
        if news && let Some(tasks) = self.tasks().get(&from) {
            tasks.wake.notify_one();
        }
        self.journal.hinted(from, heads);
    }

    fn keep(
        &self,
        from: BrickId,
        heads: &Heads,
        file: FileId,
        version: &VersionVector,
    ) -> Result<(), Reason> {
        let mut absorbed = self.absorbed.subscribe();
        let until = Instant::now() + SYNC_LIMIT;
        loop {
            // What it is about may not have been heard of here.
            self.hinted(from, heads);
            let kept = self.journal.keep(from, heads, file, version);
            let left = until.saturating_duration_since(Instant::now());
            if kept != Err(Reason::SourceChanged) || left.is_zero() {
                return kept;
            }
            let news = async { drop(tokio::time::timeout(left.min(KEEP_AGAIN), absorbed.changed()).await) };
            Handle::current().block_on(news);
        }
    }

    fn asked(&self, from: BrickId, cursors: &Heads) {
        self.journal.asked(from, cursors);
    }

    fn source(&self, file: FileId, version: &VersionVector) -> Result<Source, Reason> {
        self.journal.source(file, version)
    }

    fn exactly(&self, file: FileId, version: &VersionVector) -> Result<Source, Reason> {
        self.journal.exactly(file, version)
    }

    fn still(&self, file: FileId, version: &VersionVector) -> bool {
        self.journal.still(file, version)
    }

    fn newest(&self, file: FileId) -> io::Result<Option<Object>> {
        self.journal.newest(file)
    }

    fn inquire(&self, ask: files::Ask) -> Result<files::Answer, Refused> {
        self.journal.inquire(ask)
    }

    fn chunks(&self) -> &chunk::Cache {
        self.journal.chunks()
    }

    fn rejected(&self, from: Option<BrickId>, why: &str) {
        self.journal.rejected(from, why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_core::op::{Op, Place};

    fn entry(origin: u64, seq: u64, name: &[u8]) -> Entry {
        let place = Place { parent: FileId::ROOT, name: name.to_vec() };
        Entry { origin: Incarnation(origin), seq, time: 1, file: FileId([1; 16]), op: Op::Link(place) }
    }

    #[test]
    fn rubbish_takes_what_follows_it_in_its_journal_and_nothing_else() {
        let entries = vec![
            entry(1, 1, b"a"),
            entry(2, 1, b"b"),
            entry(1, 2, b".."),
            entry(1, 3, b"c"),
            entry(2, 2, b"d"),
        ];
        let (good, bad) = sane(entries);
        let kept: Vec<_> = good.iter().map(|e| (e.origin.0, e.seq)).collect();
        assert_eq!(kept, [(1, 1), (2, 1), (2, 2)]);
        let bad: Vec<_> = bad.iter().map(|(origin, seq, _)| (origin.0, *seq)).collect();
        assert_eq!(bad, [(1, 2)]);
    }
}
