//! Accepts connections from peers: TLS both ways, then HTTP/1.1. Bounded in
//! number, in all and per node; one that says and takes nothing for
//! [`Limits::idle`] is cut, and none outlives the certificate of its peer.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::Served;
use super::routes::{PeerNode, Shared, routes};
use super::tls::{Tls, Who, who_of};

/// The volumes that this agent serves to peers.
#[derive(Default)]
pub struct Registry {
    volumes: RwLock<HashMap<Uuid, Arc<dyn Served>>>,
}

impl Registry {
    /// Serves it from now on, in place of what had its UUID.
    pub fn insert(&self, volume: Arc<dyn Served>) {
        let uuid = volume.volume();
        self.volumes.write().unwrap_or_else(PoisonError::into_inner).insert(uuid, volume);
    }

    /// No longer serves it.
    pub fn remove(&self, volume: Uuid) {
        self.volumes.write().unwrap_or_else(PoisonError::into_inner).remove(&volume);
    }

    /// The volume with this UUID.
    pub fn get(&self, volume: Uuid) -> Option<Arc<dyn Served>> {
        self.volumes.read().unwrap_or_else(PoisonError::into_inner).get(&volume).cloned()
    }
}

/// What the peer API counts, for the metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections that are open now.
    pub connections: AtomicU64,
    /// Connections that failed at TLS or were over a bound.
    pub connections_refused: AtomicU64,
    /// Requests that were refused.
    pub requests_refused: AtomicU64,
    /// Bytes of journal and files that were sent.
    pub bytes_sent: Arc<AtomicU64>,
}

impl Stats {
    /// Counts a refused request.
    pub fn refused(&self) {
        self.requests_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts bytes.
    pub fn sent(&self, bytes: u64) {
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// The bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one node.
    pub per_node: usize,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// How long a connection may say and take nothing.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections: 512,
            per_node: 64,
            handshake: Duration::from_secs(5),
            idle: Duration::from_secs(90),
        }
    }
}

struct Server {
    tls: Arc<Tls>,
    routes: BoxedFilter<(Response,)>,
    limits: Limits,
    stats: Arc<Stats>,
    nodes: Mutex<HashMap<Arc<str>, usize>>,
    stop: CancellationToken,
}

/// Serves until `stop`; then lets requests in flight end, but not for long.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<Tls>,
    registry: Arc<Registry>,
    stats: Arc<Stats>,
    limits: Limits,
    stop: CancellationToken,
) {
    let routes = routes(Shared::new(registry, stats.clone()));
    let server = Arc::new(Server { tls, routes, limits, stats, nodes: Mutex::default(), stop });
    let slots = Arc::new(Semaphore::new(limits.connections));
    loop {
        // A slot first: what is over the bound waits in the kernel's queue.
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = server.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let server = server.clone();
                tokio::spawn(async move {
                    server.connection(stream).await;
                    drop(slot);
                });
            }
            Err(error) => {
                // No descriptors, most likely: give others time to close some.
                tracing::warn!(%error, "a connection from a peer cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(limits.connections).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(Duration::from_secs(5), slots.acquire_many(all)).await;
}

impl Server {
    fn nodes(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connection(&self, stream: TcpStream) {
        let address = stream.peer_addr().map(|a| a.to_string()).unwrap_or_default();
        let refused = |why: &dyn std::fmt::Display| {
            self.stats.connections_refused.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(address, "a connection was refused: {why}");
        };
        let _ = stream.set_nodelay(true);
        let activity = Arc::new(Activity::new());
        let stream = Watched { stream, activity: activity.clone() };
        let acceptor = TlsAcceptor::from(self.tls.current().server.clone());
        let handshake = tokio::time::timeout(self.limits.handshake, acceptor.accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return refused(&error),
            Err(_) => return refused(&"the handshake took too long"),
        };
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let (who, not_after) = match certificate.map(who_of) {
            Some(Ok(found)) => found,
            Some(Err(error)) => return refused(&error),
            None => return refused(&"there is no certificate"),
        };
        let peer = match who {
            Who::Node(node) => PeerNode::Agent(node.into()),
            Who::Operator => PeerNode::Operator,
        };
        let Some(_counted) = self.count(&peer.to_string().into()) else {
            return refused(&format_args!("{peer} has too many connections"));
        };
        self.stats.connections.fetch_add(1, Ordering::Relaxed);
        self.http(stream, peer, not_after, &activity).await;
        self.stats.connections.fetch_sub(1, Ordering::Relaxed);
    }

    fn count(&self, node: &Arc<str>) -> Option<Counted<'_>> {
        let mut nodes = self.nodes();
        let count = nodes.entry(node.clone()).or_insert(0);
        (*count < self.limits.per_node).then(|| {
            *count += 1;
            Counted { server: self, node: node.clone() }
        })
    }

    async fn http<T>(&self, stream: T, peer: PeerNode, not_after: i64, activity: &Activity)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let filter = TowerToHyperService::new(warp::service(self.routes.clone()));
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            filter.call(request)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.idle)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ends = UNIX_EPOCH + Duration::from_secs(not_after.try_into().unwrap_or(0));
        let lifetime = ends.duration_since(SystemTime::now()).unwrap_or_default();
        let mut lifetime = std::pin::pin!(tokio::time::sleep(lifetime));
        let mut tick = tokio::time::interval(self.limits.idle / 4);
        let mut ending = false;
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = self.stop.cancelled(), if !ending => {
                    connection.as_mut().graceful_shutdown();
                    ending = true;
                }
                () = lifetime.as_mut(), if !ending => {
                    connection.as_mut().graceful_shutdown();
                    ending = true;
                }
                _ = tick.tick() => {
                    if activity.quiet_for() > self.limits.idle {
                        return;
                    }
                }
            }
        }
    }
}

/// Counts a connection of a node for as long as it lives.
struct Counted<'a> {
    server: &'a Server,
    node: Arc<str>,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut nodes = self.server.nodes();
        if let Some(count) = nodes.get_mut(&self.node) {
            *count -= 1;
            if *count == 0 {
                nodes.remove(&self.node);
            }
        }
    }
}

/// When bytes last went over a connection.
struct Activity {
    start: Instant,
    last_ms: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Activity { start: Instant::now(), last_ms: AtomicU64::new(0) }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn note(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn quiet_for(&self) -> Duration {
        Duration::from_millis(self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// A connection that notes each byte that goes either way.
struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    fn noted<T>(&self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(result, Poll::Ready(Ok(_))) {
            self.activity.note();
        }
        result
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.noted(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.noted(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.noted(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
