//! Asks one agent, over TLS both ways: it must be the agent of the node that is meant, and knows the operator by its certificate.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nearbrick_crds::files::{Answer, Ask, Refusal};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::identity::Identity;

/// How long a connection may take, and again TLS.
const CONNECT: Duration = Duration::from_secs(2);
/// The longest answer.
const MAX_ANSWER: usize = 8 << 20;

/// A brick, and where its agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its workstation.
    pub node: String,
    /// Its UUID.
    pub brick: String,
    /// `host:port`, once its agent has said it.
    pub address: Option<String>,
    /// Its agent reports.
    pub reports: bool,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was not asked, or it refuses to be: nothing was done.
    Silent(String),
    /// It was asked, and did not answer in time: what became of it is not known.
    Slow(Duration),
    /// It answers that it does not do it.
    Refused(Refusal, String),
}

impl Failure {
    /// In one line.
    pub fn line(&self) -> String {
        match self {
            Failure::Silent(line) | Failure::Refused(_, line) => line.clone(),
            Failure::Slow(limit) => format!("no answer within {} s", limit.as_secs()),
        }
    }
}

/// What the agent of a brick of the volume answers within `limit`.
///
/// # Errors
/// See there.
pub async fn ask(
    identity: &Identity,
    volume: &str,
    target: &Target,
    ask: &Ask,
    limit: Duration,
) -> Result<Answer, Failure> {
    let silent = |why: &dyn std::fmt::Display| Failure::Silent(why.to_string());
    let address = target.address.as_deref().ok_or_else(|| silent(&"its agent has never said where it is"))?;
    let material =
        identity.current().ok_or_else(|| silent(&"the operator has no certificate yet: its log says why"))?;
    let path = format!("/v2/operator/volumes/{volume}/bricks/{}", target.brick);
    let body = serde_json::to_vec(ask).map_err(|e| silent(&e))?;
    let request = Request::post(path)
        .header(header::HOST, &target.node)
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| silent(&e))?;

    let connected = connect(address, &target.node, &material.client).await.map_err(|e| silent(&e))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(connected)).await.map_err(|e| silent(&e))?;
    // It ends with this question: it is dropped then.
    let _driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let answered = async {
        let response = sender.send_request(request).await.map_err(|e| silent(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| silent(&format_args!("its answer was cut: {e}")))?.to_bytes();
        match status {
            StatusCode::OK => serde_json::from_slice(&body)
                .map_err(|e| silent(&format_args!("its answer makes no sense: {e}"))),
            StatusCode::NOT_FOUND => Err(silent(&"its agent is of a version that knows no such question")),
            status => {
                let text: String =
                    String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(512).collect();
                Err(silent(&format_args!("refused with {}: {text}", status.as_u16())))
            }
        }
    };
    match tokio::time::timeout(limit, answered).await {
        Err(_) => Err(Failure::Slow(limit)),
        Ok(Ok(Answer::Refused { why, line })) => Err(Failure::Refused(why, line)),
        Ok(result) => result,
    }
}

/// Ends a connection with the value.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn connect(
    address: &str,
    node: &str,
    client: &Arc<rustls::ClientConfig>,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let slow = |_| format!("{address} does not answer within {} s", CONNECT.as_secs());
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await.map_err(slow)?;
    let stream = stream.map_err(|e| format!("{address}: {e}"))?;
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from(node.to_owned()).map_err(|e| format!("{node}: {e}"))?;
    let connector = TlsConnector::from(client.clone());
    let stream = tokio::time::timeout(CONNECT, connector.connect(name, stream)).await.map_err(slow)?;
    let stream = stream.map_err(|e| format!("no TLS with {address}: {e}"))?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    match certificate.is_some_and(|der| is_of(der, node)) {
        true => Ok(stream),
        false => Err(format!("{address} has not the certificate of node {node}")),
    }
}

/// Whether it names this node, and no other: TLS has only checked that the name is covered.
fn is_of(certificate: &[u8], node: &str) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let names = parsed.subject_alternative_name().ok().flatten();
    let mut dns = names.iter().flat_map(|san| &san.value.general_names).filter_map(|name| match name {
        GeneralName::DNSName(dns) => Some(*dns),
        _ => None,
    });
    dns.next() == Some(node) && dns.next().is_none()
}
