//! A connection to a peer: TLS to the node that was meant and to no other,
//! HTTP/1.1, one request at a time; and what can go wrong with it.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use nearbrick_core::heal::Reason;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::frame::{Decoder, Frame};
use super::tls::{Material, node_of};

/// The most of a refusal's text that is looked at.
const MAX_REFUSAL: usize = 512;

/// Why a request to a peer was not answered.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or it was cut.
    #[error("{0}")]
    Unreachable(String),
    /// Nothing came for too long.
    #[error("no answer within {0:?}")]
    Slow(Duration),
    /// The peer refuses.
    #[error("refused with {0}: {1}")]
    Refused(StatusCode, String),
    /// The answer makes no sense.
    #[error("{0}")]
    Rubbish(&'static str),
}

impl CallError {
    /// Its name in the API.
    pub fn reason(&self) -> Reason {
        match self {
            CallError::Rubbish(_) => Reason::Corrupt,
            CallError::Refused(StatusCode::FORBIDDEN, _) => Reason::Permission,
            _ => Reason::Unreachable,
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// The reading of the certificates that it was made with.
    pub generation: u64,
}

impl Connection {
    /// Connects within `limit`, and again `limit` for TLS. The other side's
    /// certificate must be of `node`.
    ///
    /// # Errors
    /// Says what failed.
    pub async fn open(
        address: &str,
        node: &str,
        tls: &Arc<Material>,
        limit: Duration,
    ) -> Result<Self, CallError> {
        let fail = |what: &str, e: &dyn std::fmt::Display| {
            CallError::Unreachable(format!("{what} {address} (node {node}): {e}"))
        };
        let stream = tokio::time::timeout(limit, TcpStream::connect(address))
            .await
            .map_err(|_| CallError::Slow(limit))?
            .map_err(|e| fail("cannot connect to", &e))?;
        let _ = stream.set_nodelay(true);
        let name = ServerName::try_from(node.to_owned()).map_err(|e| fail("no name for TLS:", &e))?;
        let connector = TlsConnector::from(tls.client.clone());
        let stream = tokio::time::timeout(limit, connector.connect(name, stream))
            .await
            .map_err(|_| CallError::Slow(limit))?
            .map_err(|e| fail("no TLS with", &e))?;
        // TLS has checked that the name is covered; a certificate for several names is none of a node.
        let found = stream.get_ref().1.peer_certificates().and_then(|c| c.first()).map(node_of);
        match found {
            Some(Ok((found, _))) if found == node => {}
            Some(Err(e)) => return Err(fail("no TLS with", &e)),
            _ => return Err(fail("no TLS with", &"the certificate is of another node")),
        }
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| fail("no HTTP with", &e))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to a peer ended");
            }
        });
        Ok(Connection { sender, generation: tls.generation })
    }

    /// Whether it can take a request now.
    pub fn is_ready(&self) -> bool {
        self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the reply within `limit`.
    ///
    /// # Errors
    /// The connection is of no use then.
    pub async fn post(
        &mut self,
        node: &str,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Response<Incoming>, CallError> {
        let request = Request::post(path)
            .header(hyper::header::HOST, node)
            .body(Full::new(body))
            .map_err(|e| CallError::Unreachable(e.to_string()))?;
        let unreachable = |e: hyper::Error| CallError::Unreachable(format!("node {node}: {e}"));
        let send = async {
            self.sender.ready().await.map_err(unreachable)?;
            self.sender.send_request(request).await.map_err(unreachable)
        };
        tokio::time::timeout(limit, send).await.unwrap_or(Err(CallError::Slow(limit)))
    }
}

/// Collects a whole body of at most `max` bytes, each part within `limit`.
///
/// # Errors
/// It is bigger, cut, or slow.
pub async fn collect(mut body: Incoming, max: usize, limit: Duration) -> Result<Bytes, CallError> {
    let mut whole = BytesMut::new();
    while let Some(part) = next_part(&mut body, limit).await? {
        if whole.len() + part.len() > max {
            return Err(CallError::Rubbish("a reply body over its bound"));
        }
        whole.extend_from_slice(&part);
    }
    Ok(whole.freeze())
}

/// The text of a refusal, cut to one short line.
pub async fn refusal(response: Response<Incoming>, limit: Duration) -> CallError {
    let status = response.status();
    let text = collect(response.into_body(), MAX_REFUSAL, limit).await.unwrap_or_default();
    let text: String = String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).collect();
    CallError::Refused(status, text)
}

async fn next_part(body: &mut Incoming, limit: Duration) -> Result<Option<Bytes>, CallError> {
    loop {
        match tokio::time::timeout(limit, body.frame()).await {
            Err(_) => return Err(CallError::Slow(limit)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(e))) => return Err(CallError::Unreachable(e.to_string())),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// The frames of a reply that streams files.
#[derive(Debug)]
pub struct Frames {
    body: Incoming,
    decoder: Decoder,
    limit: Duration,
}

impl Frames {
    /// Of this body; each part must come within `limit`.
    pub fn new(body: Incoming, limit: Duration) -> Self {
        Frames { body, decoder: Decoder::default(), limit }
    }

    /// The next frame; none at the end.
    ///
    /// # Errors
    /// The stream was cut, is slow, or makes no sense.
    pub async fn next(&mut self) -> Result<Option<Frame>, CallError> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(|e| CallError::Rubbish(e.0))? {
                return Ok(Some(frame));
            }
            match next_part(&mut self.body, self.limit).await? {
                Some(part) => self.decoder.push(&part),
                None if self.decoder.is_empty() => return Ok(None),
                None => return Err(CallError::Unreachable("the stream was cut".to_owned())),
            }
        }
    }
}
