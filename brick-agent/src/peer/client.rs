//! Asks peers. [`Client`] is async inside; as [`super::Remote`] it blocks, for the
//! threads of the file system and of heals, never for those of the runtime.
//!
//! A peer that cannot be reached is left alone for a while that doubles, so
//! that it holds nobody up; any sign of life from it ends that at once.

mod data;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use nearbrick_core::BrickId;
use nearbrick_core::holders::{self, Record};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::watch;
use uuid::Uuid;

use super::compare::{CompareReply, CompareRequest};
use super::connection::{CallError, Connection, collect, refusal};
use super::tls::Tls;
use super::wire::{self, Acks, Heads, Hint, JournalReply, JournalRequest};
use crate::config::Member;

/// Connections kept for the next request, per peer.
const MAX_IDLE: usize = 4;
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const LAST_BACKOFF: Duration = Duration::from_secs(5);

/// How long the client waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, and again for TLS.
    pub connect: Duration,
    /// For the answer to a short request, and for each part of it.
    pub answer: Duration,
    /// For the first and each further part of a stream of files.
    pub stream: Duration,
    /// For a whole ranged read, from all peers that are tried.
    pub read: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(2),
            answer: Duration::from_secs(5),
            stream: Duration::from_secs(30),
            read: Duration::from_secs(20),
        }
    }
}

/// Called with the brick and the kind when an answer makes no sense.
pub type OnRubbish = Box<dyn Fn(BrickId, &str) + Send + Sync>;

/// The client of one volume.
pub struct Client {
    volume: Uuid,
    me: BrickId,
    tls: Arc<Tls>,
    runtime: Handle,
    patience: Patience,
    on_rubbish: OnRubbish,
    peers: RwLock<HashMap<BrickId, Arc<Peer>>>,
    hints: watch::Sender<u64>,
    start: Instant,
}

#[derive(Debug)]
struct Peer {
    brick: BrickId,
    node: String,
    address: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Connection>,
    down: Option<Down>,
    said: Option<String>,
    record: Record,
    /// When it answered last.
    reached: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Down {
    until: Instant,
    wait: Duration,
    /// Trying takes long: worth to be skipped even by those who need it.
    slow: bool,
}

impl Peer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reached(&self) {
        let mut state = self.state();
        state.down = None;
        state.reached = Some(Instant::now());
        if state.said.take().is_some() {
            tracing::info!(brick = %self.brick, node = self.node, "the peer answers again");
        }
    }

    fn failed(&self, error: &CallError) {
        let slow = matches!(error, CallError::Slow(_));
        let mut state = self.state();
        if !matches!(error, CallError::Refused(..)) {
            state.idle.clear();
        }
        let wait = state.down.map_or(FIRST_BACKOFF, |d| (d.wait * 2).min(LAST_BACKOFF));
        state.down = Some(Down { until: Instant::now() + wait, wait, slow });
        let text = error.to_string();
        if self.address.is_none() {
            // It has never been on yet: no news.
        } else if state.said.as_ref() != Some(&text) {
            tracing::info!(brick = %self.brick, node = self.node, "the peer does not answer: {text}");
            state.said = Some(text);
        }
    }

    fn take_idle(&self, generation: u64) -> Option<Connection> {
        let mut state = self.state();
        while let Some(connection) = state.idle.pop() {
            if connection.is_ready() && connection.generation == generation {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, connection: Connection) {
        let mut state = self.state();
        if state.idle.len() < MAX_IDLE {
            state.idle.push(connection);
        }
    }
}

impl Client {
    /// For one volume; knows no peer before [`Client::set_members`].
    pub fn new(
        volume: Uuid,
        me: BrickId,
        tls: Arc<Tls>,
        runtime: Handle,
        patience: Patience,
        on_rubbish: OnRubbish,
    ) -> Arc<Self> {
        Arc::new(Client {
            volume,
            me,
            tls,
            runtime,
            patience,
            on_rubbish,
            peers: RwLock::default(),
            hints: watch::Sender::new(0),
            start: Instant::now(),
        })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Notes how long a read took. Heals are not measured: they may be slow because they are held back.
    fn measured(&self, peer: &Peer, bytes: u64, asked: Instant, first: Instant) {
        let ms = |at: Instant| at.duration_since(asked).as_secs_f64() * 1000.0;
        let now = self.now_ms();
        peer.state().record.succeeded(now, bytes, ms(first), ms(Instant::now()));
    }

    /// The bricks that are members, the best for so many bytes first.
    fn ordered(&self, from: &[BrickId], bytes: u64) -> Vec<BrickId> {
        let now = self.now_ms();
        let mut list: Vec<_> = from
            .iter()
            .map(|brick| (*brick, self.peer(*brick).map(|p| p.state().record).unwrap_or_default()))
            .collect();
        holders::order(&mut list, now, bytes, |(_, record)| *record);
        list.into_iter().map(|(brick, _)| brick).collect()
    }

    /// Takes over who the members are, and where.
    pub fn set_members(&self, members: &[Member]) {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut *peers);
        *peers = members
            .iter()
            .filter(|m| m.brick != self.me)
            .map(|m| {
                let same = old.remove(&m.brick).filter(|p| p.node == m.node && p.address == m.address);
                let peer = same.unwrap_or_else(|| {
                    Arc::new(Peer {
                        brick: m.brick,
                        node: m.node.clone(),
                        address: m.address.clone(),
                        state: Mutex::default(),
                    })
                });
                (m.brick, peer)
            })
            .collect();
    }

    /// The other bricks of the volume.
    pub fn peers(&self) -> Vec<BrickId> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }

    /// How long this peer is to be left alone; none: it may be asked now.
    pub fn wait_for(&self, brick: BrickId) -> Option<Duration> {
        let down = self.peer(brick).ok()?.state().down?;
        down.until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero())
    }

    /// Whether the last attempt to reach it succeeded, or none failed yet.
    pub fn is_up(&self, brick: BrickId) -> bool {
        self.peer(brick).is_ok_and(|p| p.address.is_some() && p.state().down.is_none())
    }

    /// Whether it answered within that time.
    pub fn answered_within(&self, brick: BrickId, time: Duration) -> bool {
        self.peer(brick).is_ok_and(|p| p.state().reached.is_some_and(|at| at.elapsed() < time))
    }

    /// The node that a brick is on.
    pub fn node_of(&self, brick: BrickId) -> Option<String> {
        self.peer(brick).ok().map(|p| p.node.clone())
    }

    /// The peer gave a sign of life: it is worth asking again.
    pub fn alive(&self, brick: BrickId) {
        if let Ok(peer) = self.peer(brick) {
            peer.state().down = None;
        }
    }

    /// Ticks when peers are to be told of new entries.
    pub fn hints(&self) -> watch::Receiver<u64> {
        self.hints.subscribe()
    }

    fn peer(&self, brick: BrickId) -> Result<Arc<Peer>, CallError> {
        let peers = self.peers.read().unwrap_or_else(PoisonError::into_inner);
        peers
            .get(&brick)
            .cloned()
            .ok_or_else(|| CallError::Unreachable(format!("brick {brick} is no member of the volume")))
    }

    async fn call<T: Serialize>(
        &self,
        peer: &Peer,
        verb: &str,
        message: &T,
        limit: Duration,
    ) -> Result<(Connection, Response<Incoming>), CallError> {
        let result = self.try_call(peer, verb, wire::encode(message).into(), limit).await;
        match &result {
            Ok(_) => peer.reached(),
            Err(error) => peer.failed(error),
        }
        result
    }

    async fn try_call(
        &self,
        peer: &Peer,
        verb: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<(Connection, Response<Incoming>), CallError> {
        let address = peer
            .address
            .as_deref()
            .ok_or_else(|| CallError::Unreachable(format!("node {} has reported no address", peer.node)))?;
        let path = format!("/v{}/volumes/{}/bricks/{}/{verb}", wire::PROTOCOL, self.volume, peer.brick);
        let tls = self.tls.current();
        let mut response = None;
        if let Some(mut connection) = peer.take_idle(tls.generation) {
            match connection.post(&peer.node, &path, body.clone(), limit).await {
                Ok(answer) => response = Some((connection, answer)),
                // Closed while it was idle; every request can be repeated.
                Err(CallError::Unreachable(_)) => {}
                Err(error) => return Err(error),
            }
        }
        let (connection, response) = match response {
            Some(found) => found,
            None => {
                let mut connection =
                    Connection::open(address, &peer.node, &tls, self.patience.connect).await?;
                let response = connection.post(&peer.node, &path, body, limit).await?;
                (connection, response)
            }
        };
        if response.status().is_success() {
            Ok((connection, response))
        } else {
            Err(refusal(response, self.patience.answer).await)
        }
    }

    /// Tells of an answer that made no sense, or passes on what else went wrong.
    fn judged(&self, peer: &Peer, error: CallError) -> CallError {
        if let CallError::Rubbish(why) = &error {
            (self.on_rubbish)(peer.brick, why);
        }
        peer.failed(&error);
        error
    }

    /// Asks a peer for the entries after `cursors`.
    ///
    /// # Errors
    /// It cannot be reached, refuses, or answers rubbish.
    pub async fn journal(&self, from: BrickId, cursors: Heads) -> Result<JournalReply, CallError> {
        let peer = self.peer(from)?;
        let limit = self.patience.answer;
        let (connection, response) = self.call(&peer, "journal", &JournalRequest { cursors }, limit).await?;
        let reply = collect(response.into_body(), wire::MAX_BODY, limit).await.and_then(|body| {
            wire::decode::<JournalReply>(&body)
                .filter(|reply| reply.heads.len() <= wire::MAX_HEADS)
                .ok_or(CallError::Rubbish("a journal reply that cannot be read"))
        });
        let reply = reply.map_err(|e| self.judged(&peer, e))?;
        peer.keep(connection);
        Ok(reply)
    }

    /// Tells a peer what this brick has.
    ///
    /// # Errors
    /// It cannot be reached, or refuses.
    pub async fn send_hint(&self, to: BrickId, heads: Heads) -> Result<(), CallError> {
        let peer = self.peer(to)?;
        let limit = self.patience.answer;
        let (connection, response) = self.call(&peer, "hint", &Hint { brick: self.me, heads }, limit).await?;
        collect(response.into_body(), 0, limit).await.map_err(|e| self.judged(&peer, e))?;
        peer.keep(connection);
        Ok(())
    }

    /// A short question with a short answer.
    async fn ask<T: Serialize, R: serde::de::DeserializeOwned>(
        &self,
        from: BrickId,
        verb: &str,
        message: &T,
        limit: Duration,
        check: impl FnOnce(&R) -> Result<(), &'static str>,
    ) -> Result<R, CallError> {
        let peer = self.peer(from)?;
        let (connection, response) = self.call(&peer, verb, message, limit).await?;
        let reply = collect(response.into_body(), wire::MAX_BODY, limit).await.and_then(|body| {
            let reply =
                wire::decode::<R>(&body).ok_or(CallError::Rubbish("an answer that cannot be read"))?;
            check(&reply).map_err(CallError::Rubbish)?;
            Ok(reply)
        });
        let reply = reply.map_err(|e| self.judged(&peer, e))?;
        peer.keep(connection);
        Ok(reply)
    }

    /// Asks a peer one question of a comparison. The answer is checked.
    ///
    /// # Errors
    /// It cannot be reached, refuses, or answers rubbish.
    pub async fn compare(&self, from: BrickId, request: &CompareRequest) -> Result<CompareReply, CallError> {
        let check = |reply: &CompareReply| reply.check(request);
        self.ask(from, CompareRequest::VERB, request, self.patience.answer, check).await
    }

    /// Tells a peer what members have heard, and asks for the same.
    ///
    /// # Errors
    /// It cannot be reached, refuses, or answers rubbish.
    pub async fn acks(&self, from: BrickId, told: &Acks) -> Result<Acks, CallError> {
        let bounded = |reply: &Acks| {
            wire::acks_are_bounded(reply).then_some(()).ok_or("acknowledgements over their bound")
        };
        self.ask(from, "acks", told, self.patience.answer, bounded).await
    }
}
