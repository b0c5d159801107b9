//! Calls as kubelet makes them: HTTP/2 on the socket, and messages with their lengths before them.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2 as client;

use super::super::register::{self, Registration};
use super::super::types::{Nothing, Registrant, RegistrationStatus};
use super::*;

async fn call<A: Message, B: Message + Default>(at: &Path, path: &str, message: A) -> Result<B, i32> {
    let stream = UnixStream::connect(at).await.unwrap();
    let (mut sender, connection) =
        client::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut body).unwrap();
    let request = hyper::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Full::<Bytes>::from(body.freeze()))
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status =
        |headers: &hyper::HeaderMap| headers.get("grpc-status").map(|s| s.to_str().unwrap().parse().unwrap());
    let at_once: Option<i32> = status(answer.headers());
    let all = answer.into_body().collect().await.unwrap();
    let code = at_once.or_else(|| all.trailers().and_then(status)).unwrap();
    let mut bytes = all.to_bytes();
    drop(sender);
    let _ = connection.await;
    if code != 0 {
        return Err(code);
    }
    assert_eq!(bytes.get_u8(), 0, "it is not compressed");
    assert_eq!(bytes.get_u32() as usize, bytes.remaining());
    Ok(B::decode(bytes).unwrap())
}

#[tokio::test]
async fn kubelet_registers_the_driver() {
    let dir = tempfile::tempdir().unwrap();
    let at = register::socket(&dir.path().join("registry"));
    let stop = CancellationToken::new();
    let service = Arc::new(Registration { endpoint: dir.path().join("csi.sock") });
    let serving = tokio::spawn(serve(Socket::listen(&at).unwrap(), service, stop.clone()));
    let info: Registrant = call(&at, "/pluginregistration.Registration/GetInfo", Nothing {}).await.unwrap();
    assert_eq!((info.r#type.as_str(), info.name.as_str()), ("CSIPlugin", "nearbrick.io"));
    assert_eq!(info.endpoint, dir.path().join("csi.sock").display().to_string());
    assert_eq!(info.supported_versions, ["1.0.0"]);
    let said = RegistrationStatus { plugin_registered: false, error: "not now".to_owned() };
    let _: Nothing =
        call(&at, "/pluginregistration.Registration/NotifyRegistrationStatus", said).await.unwrap();
    let unknown = call::<_, Nothing>(&at, "/pluginregistration.Registration/Other", Nothing {}).await;
    assert_eq!(unknown, Err(tonic::Code::Unimplemented as i32));
    stop.cancel();
    serving.await.unwrap();
    assert!(!at.exists(), "the socket goes with the driver");
}

#[tokio::test]
async fn too_large_a_message_is_refused_before_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("csi.sock");
    let stop = CancellationToken::new();
    let service = Arc::new(Registration { endpoint: at.clone() });
    let serving = tokio::spawn(serve(Socket::listen(&at).unwrap(), service, stop.clone()));
    let said = RegistrationStatus { plugin_registered: false, error: "x".repeat(MAX_MESSAGE) };
    let path = "/pluginregistration.Registration/NotifyRegistrationStatus";
    assert_eq!(call::<_, Nothing>(&at, path, said).await, Err(tonic::Code::OutOfRange as i32));
    stop.cancel();
    serving.await.unwrap();
}

#[tokio::test]
async fn the_socket_of_the_next_one_stays() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("csi.sock");
    let first = Socket::listen(&at).unwrap();
    assert_eq!(std::fs::symlink_metadata(&at).unwrap().permissions().mode() & 0o777, 0o600);
    let second = Socket::listen(&at).unwrap();
    drop(first);
    assert!(at.exists());
    drop(second);
    assert!(!at.exists());
}
