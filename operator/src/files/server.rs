//! Accepts connections from the API server: TLS 1.3, with a certificate that [`super::front`] allows, or none at all. Bounded in number and
//! in time; when what is to be trusted changes, connections that were made before end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use super::answers::Answers;
use super::front::{Front, Fronts};
use super::identity::{Identity, Material};
use super::routes;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 64;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may be without a request. API servers keep theirs.
const IDLE: Duration = Duration::from_secs(600);

/// What a connection is made with.
struct Made {
    identity: watch::Receiver<Option<Arc<Material>>>,
    fronts: watch::Receiver<Option<Front>>,
    answers: Answers,
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, identity: Arc<Identity>, fronts: Arc<Fronts>, answers: Answers) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                let made = Made {
                    identity: identity.subscribe(),
                    fronts: fronts.subscribe(),
                    answers: answers.clone(),
                };
                connections.spawn(async move {
                    let address = stream.peer_addr().map(|a| a.to_string()).unwrap_or_default();
                    if let Err(why) = made.connection(stream).await {
                        tracing::debug!(address, "a connection to the files API was refused: {why}");
                    }
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!("a connection to the files API cannot be accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Made {
    async fn connection(mut self, stream: TcpStream) -> Result<(), String> {
        let front =
            self.fronts.borrow_and_update().clone().ok_or("the API server's authority is not known")?;
        let material = self.identity.borrow_and_update().clone().ok_or("there is no certificate yet")?;
        let _ = stream.set_nodelay(true);
        let acceptor = TlsAcceptor::from(Arc::new(configured(&front, &material)?));
        let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
        let stream = handshake.map_err(|_| "the handshake took too long")?.map_err(|e| e.to_string())?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        if !certificate.is_some_and(|certificate| front.allows(certificate)) {
            return Err("its certificate has none of the names that may pass requests on".to_owned());
        }
        let front = Arc::new(front);
        let answers = self.answers.clone();
        let service = service_fn(move |request: hyper::Request<Incoming>| {
            let (answers, front) = (answers.clone(), front.clone());
            async move { Ok::<_, Infallible>(routes::answer(&answers, &front, request).await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(IDLE)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(|e| e.to_string()),
            _ = self.fronts.changed() => {}
            _ = self.identity.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await.map_err(|e| e.to_string())
    }
}

fn configured(front: &Front, material: &Material) -> Result<ServerConfig, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(front.roots.clone(), provider.clone())
        .build()
        .map_err(|e| e.to_string())?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| e.to_string())?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(material.pair.clone());
    // Each connection is checked anew.
    config.send_tls13_tickets = 0;
    Ok(config)
}
