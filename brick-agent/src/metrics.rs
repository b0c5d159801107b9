//! Metrics and health over plain HTTP: counts and ages only, never a file's name.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use warp::filters::BoxedFilter;
use warp::http::StatusCode;
use warp::reply::Response;
use warp::{Filter, Reply};

use crate::control::api;
use crate::control::facts::{Facts, Phase, VolumeFacts};
use crate::peer::server::Stats;
use crate::peer::tls::Tls;
use crate::volume::VolumeStatus;

const CONNECTIONS: usize = 32;
const IDLE: Duration = Duration::from_secs(30);

/// Where the figures come from.
#[derive(Clone)]
pub struct Sources {
    /// The volumes.
    pub facts: Arc<dyn Facts>,
    /// The peer API.
    pub peers: Arc<Stats>,
    /// Reports.
    pub api: Arc<api::State>,
    /// This agent's certificate, where it has one.
    pub tls: Option<Arc<Tls>>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// Gauges of a volume: name, help, value.
type VolumeGauge = (&'static str, &'static str, fn(&VolumeStatus) -> u64);

const GAUGES: &[VolumeGauge] = &[
    ("nearbrick_files", "Regular files in the tree as this brick knows it", |s| s.files),
    ("nearbrick_bytes", "Sum of the sizes of these files", |s| s.bytes),
    ("nearbrick_stubs", "Files without all of their data here", |s| s.stubs),
    ("nearbrick_dirty_files", "Files that were changed here and have not settled", |s| s.dirty_files),
    ("nearbrick_pending_in_files", "Files that this brick must hold and lacks", |s| s.pending_in.files),
    ("nearbrick_pending_in_bytes", "Bytes that this brick must hold and lacks", |s| s.pending_in.bytes),
    ("nearbrick_pending_out_files", "Files written here that others lack", |s| s.pending.files),
    ("nearbrick_pending_out_bytes", "Bytes written here that others lack", |s| s.pending.bytes),
    ("nearbrick_pending_out_oldest_seconds", "Age of the oldest file that others lack", |s| {
        age(s.pending.oldest_ms)
    }),
    ("nearbrick_dirty_oldest_seconds", "Age of the oldest file that has not settled", |s| {
        age(s.oldest_dirty_ms)
    }),
    ("nearbrick_conflicts", "Open conflicts", |s| s.conflicts),
    ("nearbrick_unrepaired_files", "Files with a damaged copy, or hashes that differ between bricks", |s| {
        s.scrub.unrepaired()
    }),
    ("nearbrick_verified_seconds", "Time since all that is here was last read and compared; 0: never", |s| {
        age(s.scrub.last.as_ref().and_then(|pass| pass.ended_ms))
    }),
    ("nearbrick_capacity_bytes", "Size of the brick's file system", |s| s.capacity_bytes),
    ("nearbrick_free_bytes", "Free bytes of the brick's file system", |s| s.free_bytes),
];

const COUNTERS: &[VolumeGauge] = &[
    ("nearbrick_rejected_messages", "Messages from peers that made no sense", |s| s.rejected),
    ("nearbrick_stale_reads", "Opens of an older version because the newest could not be reached", |s| {
        s.stale_reads
    }),
];

fn age(since_ms: Option<u64>) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    since_ms.map_or(0, |since| now.saturating_sub(since) / 1000)
}

fn label(facts: &VolumeFacts) -> [(&'static str, String); 2] {
    [("namespace", facts.key.namespace.clone()), ("volume", facts.key.volume.clone())]
}

impl Collector for Sources {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let volumes = self.facts.facts();
        let gauge = |value: u64| ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
        let kind = gauge(0).metric_type();
        let mut family = encoder.encode_descriptor(
            "nearbrick_volume_ready",
            "Whether the volume is mounted and in use",
            None,
            kind,
        )?;
        for facts in &volumes {
            gauge(u64::from(facts.phase == Phase::Ready)).encode(family.encode_family(&label(facts))?)?;
        }
        for (name, help, value) in GAUGES {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for facts in &volumes {
                if let Some(status) = &facts.status {
                    gauge(value(status)).encode(family.encode_family(&label(facts))?)?;
                }
            }
        }
        let counter = |value: u64| ConstCounter::new(value);
        let kind = counter(0).metric_type();
        for (name, help, value) in COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, None, kind)?;
            for facts in &volumes {
                if let Some(status) = &facts.status {
                    counter(value(status)).encode(family.encode_family(&label(facts))?)?;
                }
            }
        }
        let own: [(&str, &str, &AtomicU64); 5] = [
            ("nearbrick_peer_sent_bytes", "Bytes of journal and files sent to peers", &self.peers.bytes_sent),
            (
                "nearbrick_peer_refused_connections",
                "Connections of peers that were refused",
                &self.peers.connections_refused,
            ),
            (
                "nearbrick_peer_refused_requests",
                "Requests of peers that were refused",
                &self.peers.requests_refused,
            ),
            ("nearbrick_api_writes", "Reports that were written", &self.api.writes),
            ("nearbrick_api_failed_writes", "Reports that could not be written", &self.api.failed_writes),
        ];
        for (name, help, value) in own {
            counter(value.load(Ordering::Relaxed))
                .encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        let gauges = [
            (
                "nearbrick_peer_connections",
                "Connections of peers that are open",
                self.peers.connections.load(Ordering::Relaxed),
            ),
            ("nearbrick_api_up", "Whether the API server answered last time", u64::from(self.api.is_up())),
        ];
        for (name, help, value) in gauges {
            let kind = gauge(0).metric_type();
            gauge(value).encode(encoder.encode_descriptor(name, help, None, kind)?)?;
        }
        let ends = self.tls.as_ref().map(|tls| tls.current()).map(|m| [m.not_before, m.not_after]);
        for (name, help, value) in [
            (
                "nearbrick_certificate_not_before_timestamp_seconds",
                "When this agent's certificate begins, since 1970",
                ends.map(|[from, _]| from),
            ),
            (
                "nearbrick_certificate_not_after_timestamp_seconds",
                "When this agent's certificate ends, since 1970",
                ends.map(|[_, to]| to),
            ),
        ] {
            if let Some(at) = value {
                let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
                let kind = gauge(0).metric_type();
                gauge(seconds).encode(encoder.encode_descriptor(name, help, None, kind)?)?;
            }
        }
        Ok(())
    }
}

/// `/metrics` and `/healthz`.
pub fn routes(sources: Sources) -> BoxedFilter<(Response,)> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(sources));
    let registry = Arc::new(registry);
    let metrics = warp::path!("metrics").and(warp::get()).then(move || {
        let registry = registry.clone();
        async move {
            let encoded = tokio::task::spawn_blocking(move || {
                let mut out = String::new();
                text::encode(&mut out, &registry).map(|()| out)
            });
            match encoded.await {
                Ok(Ok(out)) => {
                    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
                    warp::reply::with_header(out, "content-type", kind).into_response()
                }
                _ => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
            }
        }
    });
    let health = warp::path!("healthz").and(warp::get()).map(|| "ok\n".into_response());
    let other = warp::any().map(|| StatusCode::NOT_FOUND.into_response());
    metrics.or(health).unify().or(other).unify().boxed()
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, routes: BoxedFilter<(Response,)>, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the metrics port cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(warp::service(routes.clone()));
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(IDLE)
                .serve_connection(TokioIo::new(stream), service);
            // A scrape that takes longer is of no use to anyone.
            let _ = tokio::time::timeout(IDLE * 10, connection).await;
            drop(slot);
            Ok::<(), Infallible>(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::convert::VolumeKey;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    struct One;

    impl Facts for One {
        fn facts(&self) -> Vec<VolumeFacts> {
            let key = VolumeKey { namespace: "lab".to_owned(), volume: "home".to_owned() };
            vec![VolumeFacts { key, config: None, phase: Phase::Ready, status: None }]
        }

        fn changed(&self) -> tokio::sync::watch::Receiver<u64> {
            tokio::sync::watch::channel(0).1
        }
    }

    #[tokio::test]
    async fn metrics_and_health_are_served() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let peers = Arc::new(Stats::default());
        peers.sent(42);
        let sources = Sources { facts: Arc::new(One), peers, api: Arc::default(), tls: None };
        tokio::spawn(serve(listener, routes(sources), stop.clone()));
        let get = async |path: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert!(get("/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(get("/etc").await.starts_with("HTTP/1.1 404"));
        let metrics = get("/metrics").await;
        assert!(metrics.contains("nearbrick_volume_ready{namespace=\"lab\",volume=\"home\"} 1"), "{metrics}");
        assert!(metrics.contains("nearbrick_peer_sent_bytes_total 42"), "{metrics}");
        assert!(metrics.contains("nearbrick_api_up 1") && metrics.contains("# EOF"), "{metrics}");
        stop.cancel();
    }
}
