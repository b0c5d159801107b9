//! The requests of the peer API, each authorised for its volume and brick
//! before its body is read, and bounded before memory is taken for it.
//!
//! `POST /v2/volumes/VOLUME/bricks/BRICK/{journal,hint,acks,compare,newest,keep,fetch,read,chunks,ranges}`, where
//! BRICK is the one that the caller believes it talks to: an agent on the address
//! of another refuses (T27). What the operator asks, and nobody else may, is in [`super::operator`]; of these it may ask none.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures::{Stream, StreamExt};
use nearbrick_core::BrickId;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use uuid::Uuid;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, filters::BoxedFilter};

use super::Served;
use super::compare::CompareRequest;
use super::frame;
use super::rubbish::Rubbish;
use super::send::Outlet;
use super::server::{Registry, Stats};
use super::wire::{
    self, Acks, ChunksRequest, FetchRequest, Hint, JournalReply, JournalRequest, KeepReply, KeepRequest,
    NewestRequest, RangesRequest, ReadRequest,
};

/// How long a request's body may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// Streams served at a time; more wait their turn.
const STREAMS: usize = 32;
/// Versions that are brought here at a time because an `fsync` elsewhere waits; more wait their turn.
const KEEPS: usize = 16;
/// Requests whose bodies are held at a time; more wait their turn.
const REQUESTS: usize = 64;

/// Why nothing more is begun.
const ENDING: &str = "this agent is about to end";

/// Who is on the other side, by the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerNode {
    /// The agent of this node.
    Agent(Arc<str>),
    /// The operator.
    Operator,
}

impl std::fmt::Display for PeerNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PeerNode::Agent(node) => write!(f, "node {node}"),
            PeerNode::Operator => f.write_str("the operator"),
        }
    }
}

/// What all requests share.
pub struct Shared {
    /// The volumes served.
    pub registry: Arc<Registry>,
    /// What was logged.
    pub rubbish: Rubbish,
    /// What was counted.
    pub stats: Arc<Stats>,
    streams: Arc<Semaphore>,
    keeps: Arc<Semaphore>,
    requests: Arc<Semaphore>,
}

impl Shared {
    /// For these volumes.
    pub fn new(registry: Arc<Registry>, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Shared {
            registry,
            stats,
            rubbish: Rubbish::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
            keeps: Arc::new(Semaphore::new(KEEPS)),
            requests: Arc::new(Semaphore::new(REQUESTS)),
        })
    }
}

/// A request that is not answered, with one line that says why.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) String);

impl Refusal {
    pub(super) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Refusal(status, why.into())
    }
}

/// The filter that answers every request.
pub fn routes(shared: Arc<Shared>) -> BoxedFilter<(Response,)> {
    let of_operator = super::operator::route(shared.clone());
    let shared = warp::any().map(move || shared.clone());
    warp::post()
        .and(warp::path!("v2" / "volumes" / Uuid / "bricks" / BrickId / String))
        .and(warp::ext::get::<PeerNode>())
        .and(warp::header::optional::<u64>("content-length"))
        .and(warp::body::stream())
        .and(shared)
        .then(|volume, brick, verb: String, peer: PeerNode, length, body, shared: Arc<Shared>| async move {
            let stats = shared.stats.clone();
            match answer(&shared, &peer, volume, brick, &verb, length, body).await {
                Ok(response) => response,
                Err(Refusal(status, why)) => {
                    stats.refused();
                    tracing::debug!(from = %peer, %volume, %brick, verb, %status, "refused: {why}");
                    text(status, why)
                }
            }
        })
        .or(of_operator)
        .unify()
        .recover(|_| async { Ok::<_, Infallible>(text(StatusCode::NOT_FOUND, "no such request".to_owned())) })
        .unify()
        .boxed()
}

pub(super) fn text(status: StatusCode, why: String) -> Response {
    let mut response = Response::new(why.into());
    *response.status_mut() = status;
    response
}

async fn answer<S, B>(
    shared: &Arc<Shared>,
    peer: &PeerNode,
    volume: Uuid,
    brick: BrickId,
    verb: &str,
    length: Option<u64>,
    body: S,
) -> Result<Response, Refusal>
where
    S: Stream<Item = Result<B, warp::Error>> + Send,
    B: Buf,
{
    let Some(served) = shared.registry.get(volume) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("volume {volume} is not served here")));
    };
    let from = match peer {
        PeerNode::Agent(node) => served.brick_of(node),
        PeerNode::Operator => None,
    };
    let Some(from) = from else {
        let why = format!("{peer} carries no brick of volume {volume}");
        return Err(Refusal::new(StatusCode::FORBIDDEN, why));
    };
    if served.brick() != brick {
        let why = format!("this is brick {}, not {brick}", served.brick());
        return Err(Refusal::new(StatusCode::MISDIRECTED_REQUEST, why));
    }
    let caller = Caller { shared, served: &served, from };
    // Held until the reply is made: bounds what all bodies together take.
    let turn = shared.requests.acquire().await.map_err(|_| closing(ENDING))?;
    let body = caller.body(length, body).await?;
    match verb {
        "keep" => {
            // It is small, and may take long.
            drop(turn);
            caller.keep(&body).await
        }
        "journal" => caller.journal(&body).await,
        "hint" => caller.hint(&body).await,
        "acks" => caller.acks(&body).await,
        CompareRequest::VERB => caller.compare(&body).await,
        "newest" => caller.newest(&body).await,
        "fetch" => caller.fetch(&body).await,
        "read" => caller.read(&body).await,
        "chunks" => caller.chunks(&body).await,
        "ranges" => caller.ranges(&body).await,
        _ => Err(Refusal::new(StatusCode::NOT_FOUND, "no such request")),
    }
}

pub(super) fn closing(why: &str) -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)
}

/// Takes a request's body, as far as it is within its bound.
pub(super) async fn collect<B: Buf>(
    length: Option<u64>,
    body: impl Stream<Item = Result<B, warp::Error>> + Send,
    max: usize,
    too_big: &(dyn Fn() -> Refusal + Sync),
) -> Result<Bytes, Refusal> {
    if length.is_some_and(|n| n > max as u64) {
        return Err(too_big());
    }
    let whole = async {
        let mut whole = Vec::new();
        let mut body = std::pin::pin!(body);
        while let Some(part) = body.next().await {
            let mut part =
                part.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the request body was cut"))?;
            if whole.len() + part.remaining() > max {
                return Err(too_big());
            }
            while part.has_remaining() {
                let bytes = part.chunk();
                let n = bytes.len();
                whole.extend_from_slice(bytes);
                part.advance(n);
            }
        }
        Ok(Bytes::from(whole))
    };
    tokio::time::timeout(BODY_LIMIT, whole)
        .await
        .unwrap_or_else(|_| Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the request body is too slow")))
}

/// An authorised request.
struct Caller<'a> {
    shared: &'a Arc<Shared>,
    served: &'a Arc<dyn Served>,
    from: BrickId,
}

impl Caller<'_> {
    fn rubbish(&self, status: StatusCode, why: &str) -> Refusal {
        self.shared.rubbish.note(&**self.served, Some(self.from), why);
        Refusal::new(status, why)
    }

    async fn body<B: Buf>(
        &self,
        length: Option<u64>,
        body: impl Stream<Item = Result<B, warp::Error>> + Send,
    ) -> Result<Bytes, Refusal> {
        let too_big = || self.rubbish(StatusCode::PAYLOAD_TOO_LARGE, "a request body over its bound");
        collect(length, body, wire::MAX_REQUEST, &too_big).await
    }

    fn decode<T: DeserializeOwned>(&self, body: &[u8], why: &str) -> Result<T, Refusal> {
        wire::decode(body).ok_or_else(|| self.rubbish(StatusCode::BAD_REQUEST, why))
    }

    /// Runs what may block on the disk elsewhere.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Served) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let served = self.served.clone();
        tokio::task::spawn_blocking(move || work(&*served))
            .await
            .map_err(|_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed"))
    }

    async fn journal(&self, body: &[u8]) -> Result<Response, Refusal> {
        let request: JournalRequest = self.decode(body, "a journal request that cannot be read")?;
        if request.cursors.len() > wire::MAX_HEADS {
            return Err(self.rubbish(StatusCode::BAD_REQUEST, "a journal request over its bound"));
        }
        let from = self.from;
        let reply = self
            .blocking(move |served| {
                served.asked(from, &request.cursors);
                // Heads first: entries may only be beyond them, never short of them.
                let heads = served.heads();
                let behind = served.is_behind(&request.cursors);
                let entries = match behind {
                    true => Vec::new(),
                    false => served.entries_after(&request.cursors, wire::ENTRIES_BYTES)?,
                };
                Ok::<_, std::io::Error>(wire::encode(&JournalReply { entries, heads, behind }))
            })
            .await?;
        let reply = reply.map_err(|error| {
            tracing::warn!(%error, "the journal cannot be read for a peer");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the journal cannot be read")
        })?;
        self.shared.stats.sent(reply.len() as u64);
        Ok(Response::new(reply.into()))
    }

    async fn hint(&self, body: &[u8]) -> Result<Response, Refusal> {
        let hint: Hint = self.decode(body, "a hint that cannot be read")?;
        if hint.heads.len() > wire::MAX_HEADS {
            return Err(self.rubbish(StatusCode::BAD_REQUEST, "a hint over its bound"));
        }
        if hint.brick != self.from {
            return Err(self.rubbish(StatusCode::FORBIDDEN, "a hint in the name of another brick"));
        }
        let from = self.from;
        self.blocking(move |served| served.hinted(from, &hint.heads)).await?;
        Ok(text(StatusCode::NO_CONTENT, String::new()))
    }

    async fn acks(&self, body: &[u8]) -> Result<Response, Refusal> {
        let told: Acks = self.decode(body, "acknowledgements that cannot be read")?;
        if !wire::acks_are_bounded(&told) {
            return Err(self.rubbish(StatusCode::BAD_REQUEST, "acknowledgements over their bound"));
        }
        let reply = self.blocking(move |served| wire::encode(&served.acks(&told))).await?;
        self.shared.stats.sent(reply.len() as u64);
        Ok(Response::new(reply.into()))
    }

    async fn compare(&self, body: &[u8]) -> Result<Response, Refusal> {
        let request: CompareRequest = self.decode(body, "a comparison that cannot be read")?;
        if !request.is_bounded() {
            return Err(self.rubbish(StatusCode::BAD_REQUEST, "a comparison over its bound"));
        }
        let reply = self.blocking(move |served| served.compared(&request).map(|r| wire::encode(&r))).await?;
        let reply = reply.map_err(|error| {
            tracing::warn!(%error, "a comparison cannot be answered");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the comparison cannot be answered")
        })?;
        self.shared.stats.sent(reply.len() as u64);
        Ok(Response::new(reply.into()))
    }

    async fn newest(&self, body: &[u8]) -> Result<Response, Refusal> {
        let request: NewestRequest =
            self.decode(body, "a question for the newest version that cannot be read")?;
        let reply =
            self.blocking(move |served| served.newest(request.file).map(|o| wire::encode(&o))).await?;
        let reply = reply.map_err(|error| {
            tracing::warn!(file = %request.file, %error, "a file that is being written cannot be given to a peer");
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read")
        })?;
        self.shared.stats.sent(reply.len() as u64);
        Ok(Response::new(reply.into()))
    }

    async fn keep(&self, body: &[u8]) -> Result<Response, Refusal> {
        let request: KeepRequest = self.decode(body, "a request to keep a version that cannot be read")?;
        if request.heads.len() > wire::MAX_HEADS {
            return Err(self.rubbish(StatusCode::BAD_REQUEST, "a request to keep a version over its bound"));
        }
        let _turn = self.shared.keeps.acquire().await.map_err(|_| closing(ENDING))?;
        let from = self.from;
        let KeepRequest { heads, file, version } = request;
        let kept = self.blocking(move |served| served.keep(from, &heads, file, &version)).await?;
        let reply = wire::encode(&KeepReply { why: kept.err().map_or(0, frame::code) });
        self.shared.stats.sent(reply.len() as u64);
        Ok(Response::new(reply.into()))
    }

    async fn fetch(&self, body: &[u8]) -> Result<Response, Refusal> {
        let request: FetchRequest = self.decode(body, "a fetch request that cannot be read")?;
        if request.items.len() > wire::MAX_FETCH {
            return Err(self.rubbish(StatusCode::BAD_REQUEST, "a fetch request over its bound"));
        }
        self.stream(move |outlet, served| outlet.fetch(served, &request.items)).await
    }

    async fn read(&self, body: &[u8]) -> Result<Response, Refusal> {
        let request: ReadRequest = self.decode(body, "a read request that cannot be read")?;
        if request.len as usize > wire::MAX_READ {
            return Err(self.rubbish(StatusCode::BAD_REQUEST, "a read request over its bound"));
        }
        self.stream(move |outlet, served| outlet.read(served, &request)).await
    }

    async fn chunks(&self, body: &[u8]) -> Result<Response, Refusal> {
        let request: ChunksRequest = self.decode(body, "a request for chunks that cannot be read")?;
        self.stream(move |outlet, served| outlet.chunks(served, &request)).await
    }

    async fn ranges(&self, body: &[u8]) -> Result<Response, Refusal> {
        let request: RangesRequest = self.decode(body, "a request for ranges that cannot be read")?;
        if request.total().is_none() {
            return Err(self.rubbish(StatusCode::BAD_REQUEST, "a request for ranges over its bound"));
        }
        self.stream(move |outlet, served| outlet.ranges(served, &request)).await
    }

    async fn stream(
        &self,
        work: impl FnOnce(Outlet, &dyn Served) + Send + 'static,
    ) -> Result<Response, Refusal> {
        let turn = self.shared.streams.clone().acquire_owned().await.map_err(|_| closing(ENDING))?;
        let (outlet, mut body) = Outlet::new(Handle::current(), self.shared.stats.bytes_sent.clone());
        let served = self.served.clone();
        tokio::task::spawn_blocking(move || {
            work(outlet, &*served);
            drop(turn);
        });
        let body = futures::stream::poll_fn(move |cx| body.poll_recv(cx));
        Ok(warp::Reply::into_response(warp::reply::stream(body)))
    }
}
