//! gRPC on a Unix socket: the few unary calls of CSI and of kubelet's registration, told apart by the path of the request.
//!
//! The services are dispatched by hand: generated code for them would need `protoc`, or copies of its output, and tonic's own server a
//! router and a client that nobody uses here.

use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Response, Status};
use tonic_prost::ProstCodec;

use super::authority::Localhost;

/// The largest message that is taken: kubelet's and the sidecars' are some kilobytes.
const MAX_MESSAGE: usize = 1 << 20;
/// Connections at a time; each of kubelet's calls may be one.
const CONNECTIONS: usize = 64;
/// Calls at a time on one of them.
const CALLS: u32 = 64;
/// For how long calls that are under way are waited for at the end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// A call.
pub type Request = hyper::Request<Incoming>;
/// Its answer.
pub type Reply = hyper::Response<Body>;

/// What answers on a socket.
pub trait Service: Send + Sync + 'static {
    /// Answers one call.
    fn answer(self: Arc<Self>, request: Request) -> BoxFuture<'static, Reply>;
}

/// A socket that is listened on; the file goes when this is dropped, unless somebody else has made it anew.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    at: PathBuf,
    identity: (u64, u64),
}

impl Socket {
    /// Takes the socket at `at`, also from a process before this one. Only root may connect.
    ///
    /// # Errors
    /// What the disk says.
    pub fn listen(at: &Path) -> io::Result<Self> {
        if let Some(folder) = at.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
        }
        match std::fs::remove_file(at) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(at)?;
        std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o600))?;
        let made = std::fs::symlink_metadata(at)?;
        Ok(Socket { listener, at: at.to_owned(), identity: (made.dev(), made.ino()) })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.at).is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            let _ = std::fs::remove_file(&self.at);
        }
    }
}

/// Answers until it is stopped; calls that are under way then have a little time to end.
pub async fn serve(socket: Socket, service: Arc<dyn Service>, stop: CancellationToken) {
    let (slots, tasks) = (Arc::new(Semaphore::new(CONNECTIONS)), TaskTracker::new());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, socket.listener.accept().await)
            } => accepted,
        };
        match accepted {
            (slot, Ok((stream, _))) => {
                let (service, stop) = (service.clone(), stop.clone());
                tasks.spawn(async move {
                    let _slot = slot;
                    connection(stream, service, stop).await;
                });
            }
            (_, Err(error)) => {
                tracing::warn!(%error, at = %socket.at.display(), "a connection cannot be taken");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
    // Nobody is to find it while the last calls end.
    drop(socket);
    tasks.close();
    let _ = tokio::time::timeout(END_LIMIT, tasks.wait()).await;
}

async fn connection(stream: UnixStream, service: Arc<dyn Service>, stop: CancellationToken) {
    let answer = service_fn(move |request| {
        let answer = service.clone().answer(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(CALLS);
    let connection = builder.serve_connection(TokioIo::new(Localhost::new(stream)), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the CSI driver ended");
    }
}

/// Answers a call that takes one message and gives one. An error is logged: kubelet and the sidecars say it only in Events that go.
pub(crate) async fn unary<A, B, F>(request: Request, work: impl Fn(A) -> F + Send) -> Reply
where
    A: Message + Default + 'static,
    B: Message + Default + 'static,
    F: Future<Output = Result<B, Status>> + Send,
{
    let call = request.uri().path().to_owned();
    let answer = tower::service_fn(|asked: tonic::Request<A>| {
        let (answer, call) = (work(asked.into_inner()), &call);
        async move {
            let answer = answer.await;
            if let Err(status) = &answer {
                tracing::info!(call, code = ?status.code(), "{}", status.message());
            }
            answer.map(Response::new)
        }
    });
    let codec = ProstCodec::<B, A>::default();
    Grpc::new(codec).apply_max_message_size_config(Some(MAX_MESSAGE), None).unary(answer, request).await
}

/// The answer to a call that this driver does not offer.
pub(crate) fn not_offered(request: &Request) -> Reply {
    Status::unimplemented(format!("{} is not offered by this driver", request.uri().path())).into_http()
}

#[cfg(test)]
#[path = "server/tests.rs"]
mod tests;
