//! A way to the API server on which answers can be changed, held back or lost: plain HTTP on loopback in front of the real one.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::config::AuthInfo;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is answered by the API server.
    Pass,
    /// As `Pass`, so much later.
    Late(Duration),
    /// The API server does not get it, and this is the answer.
    Refused(u16),
    /// The API server does what is asked, and this is the answer all the same.
    Done(u16),
    /// The API server does not get it, and nobody answers.
    Lost,
    /// The API server does what is asked, and nobody answers.
    DoneInSilence,
}

/// Decides about a request by its method and path.
pub type Decide = Arc<dyn Fn(&Method, &str) -> Fate + Send + Sync>;

/// The proxy; it ends when this is dropped.
pub struct Proxy {
    /// How the operator reaches the control plane through it.
    pub config: Config,
    task: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a request changes something that people see: not the lease, nor an Event, nor a question about rights.
pub fn is_write(method: &Method, path: &str) -> bool {
    let aside = ["/leases", "/events", "/apis/authorization.k8s.io"];
    *method != Method::GET && !aside.iter().any(|part| path.contains(part))
}

impl Proxy {
    /// Starts one for whoever would use `config`.
    pub async fn start(config: Config, decide: Decide) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut mine = config.clone();
        mine.cluster_url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        mine.root_cert = None;
        let mut theirs = config;
        // Who asks has a token of its own.
        theirs.auth_info = AuthInfo::default();
        let client = Client::try_from(theirs).unwrap();
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let (client, decide) = (client.clone(), decide.clone());
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let (client, decide) = (client.clone(), decide.clone());
                        async move { Ok::<_, Infallible>(answer(client, decide, request).await) }
                    });
                    // A connection that breaks is the asker's to notice.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { config: mine, task }
    }
}

async fn answer(client: Client, decide: Decide, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let fate = decide(&parts.method, parts.uri.path());
    let body = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    let forward = || async {
        let mut request = Request::new(Body::from(body.to_vec()));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.headers_mut() = parts.headers.clone();
        for own in ["host", "connection", "content-length"] {
            request.headers_mut().remove(own);
        }
        client.send(request).await.unwrap_or_else(|_| error(502))
    };
    match fate {
        Fate::Pass => forward().await,
        Fate::Late(by) => {
            tokio::time::sleep(by).await;
            forward().await
        }
        Fate::Refused(code) => error(code),
        Fate::Done(code) => {
            let _ = forward().await;
            error(code)
        }
        Fate::Lost => std::future::pending().await,
        Fate::DoneInSilence => {
            let _ = forward().await;
            std::future::pending().await
        }
    }
}

/// An error as the API server writes it.
fn error(code: u16) -> Response<Body> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        500 => "InternalError",
        _ => "ServiceUnavailable",
    };
    let status = serde_json::json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason,
        "message": "made up by the test",
    });
    let mut response = Response::new(Body::from(status.to_string().into_bytes()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response.headers_mut().insert("content-type", "application/json".parse().unwrap());
    response
}
