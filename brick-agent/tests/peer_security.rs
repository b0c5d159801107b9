//! Who is refused, and what rubbish does: nothing.

#![allow(clippy::unwrap_used)]

mod peer_common;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use nearbrick_agent::peer::Remote;
use nearbrick_agent::peer::frame::{put_begin, put_data_with, put_end};
use nearbrick_agent::peer::server::Limits;
use nearbrick_agent::peer::tls::Tls;
use nearbrick_agent::peer::wire::{self, FetchItem, FetchRequest, Heads, Hint, ReadRequest};
use nearbrick_core::BrickId;
use nearbrick_core::heal::Reason;
use nearbrick_crds::files::OPERATOR;
use peer_common::*;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

async fn served(ca: &Ca, limits: Limits) -> (Arc<Memory>, Running) {
    let volume = Memory::new(brick(1), &[("ws-a", brick(1)), ("ws-b", brick(2))]);
    volume.add(file(1), version(1), b"secret", 6);
    let server = start(ca.tls("ws-a"), volume.clone(), limits).await;
    (volume, server)
}

/// What a journal request says with this identity.
async fn ask(tls: Arc<Tls>, server: &Running, to: BrickId, node: &str) -> Result<(), String> {
    let (client, _) = client(tls, brick(2), &[(to, node, &server.address.to_string())]);
    client.journal(to, Heads::new()).await.map(drop).map_err(|e| e.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn s08_a_certificate_of_another_ca_is_refused_both_ways() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (_volume, server) = served(&ours, Limits::default()).await;
    ask(ours.tls("ws-b"), &server, brick(1), "ws-a").await.unwrap();
    // The client does not take the server's.
    let error = ask(theirs.tls("ws-b"), &server, brick(1), "ws-a").await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    // And if it did, the server would not take the client's.
    let dir = theirs.issue("ws-b");
    std::fs::copy(ours.dir_of("ws-a").join("ca.crt"), dir.join("ca.crt")).unwrap();
    let error = ask(Tls::load(&dir, "ws-b").unwrap(), &server, brick(1), "ws-a").await.unwrap_err();
    assert!(!error.contains("invalid peer certificate"), "the server's certificate was fine: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s08_a_server_of_another_node_is_refused() {
    let ca = Ca::new();
    let (volume, server) = served(&ca, Limits::default()).await;
    let error = ask(ca.tls("ws-b"), &server, brick(3), "ws-c").await.unwrap_err();
    assert!(error.contains("ws-c") && error.contains("certificate"), "{error}");
    assert_eq!(volume.state.lock().unwrap().hinted, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn s08_an_expired_certificate_is_refused() {
    let ca = Ca::new();
    let (_volume, server) = served(&ca, Limits::default()).await;
    let dir = ca.issue_with("ws-b", |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    });
    // The agent starts with it all the same: local work must go on.
    let error = ask(Tls::load(&dir, "ws-b").unwrap(), &server, brick(1), "ws-a").await.unwrap_err();
    assert!(!error.contains("invalid peer certificate"), "it is the server that refuses: {error}");
    // The server counts it after it has refused.
    until("it is counted", || server.stats.connections_refused.load(Ordering::Relaxed) == 1).await;
    // Renewed in place: used without a restart.
    let tls = Tls::load(&dir, "ws-b").unwrap();
    ca.issue("ws-b");
    ask(tls, &server, brick(1), "ws-a").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s08_a_renewed_certificate_replaces_open_connections() {
    let ca = Ca::new();
    let (_volume, server) = served(&ca, Limits::default()).await;
    let tls = ca.tls("ws-b");
    let (client, _) = client(tls.clone(), brick(2), &[(brick(1), "ws-a", &server.address.to_string())]);
    client.journal(brick(1), Heads::new()).await.unwrap();
    let before = tls.current().generation;
    // A bad renewal changes nothing.
    append(&ca.dir_of("ws-b").join("tls.crt"), "-----BEGIN CERTIFICATE-----\n!\n");
    client.journal(brick(1), Heads::new()).await.unwrap();
    assert_eq!(tls.current().generation, before);
    ca.issue("ws-b");
    client.journal(brick(1), Heads::new()).await.unwrap();
    assert_eq!(tls.current().generation, before + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn s08_a_client_without_a_certificate_is_refused() {
    let ca = Ca::new();
    let (_volume, server) = served(&ca, Limits::default()).await;
    let mut roots = rustls::RootCertStore::empty();
    let pem = std::fs::read(ca.dir_of("ws-a").join("ca.crt")).unwrap();
    use rustls_pki_types::pem::PemObject;
    roots.add(rustls_pki_types::CertificateDer::from_pem_slice(&pem).unwrap()).unwrap();
    let config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("ws-a").unwrap();
    // In TLS 1.3 the client learns of it with the first answer.
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let _ = stream.write_all(b"POST / HTTP/1.1\r\nhost: ws-a\r\n\r\n").await;
    let error = stream.read(&mut [0; 100]).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    // Nor is one that does not speak TLS.
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"POST / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    ask(ca.tls("ws-b"), &server, brick(1), "ws-a").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s07_a_node_that_does_not_carry_the_volume_gets_nothing() {
    let ca = Ca::new();
    let (volume, server) = served(&ca, Limits::default()).await;
    let error = ask(ca.tls("ws-x"), &server, brick(1), "ws-a").await.unwrap_err();
    assert!(error.contains("403") && error.contains("node ws-x carries no brick"), "{error}");
    let (client, _) = client(ca.tls("ws-x"), brick(9), &[(brick(1), "ws-a", &server.address.to_string())]);
    let read = tokio::task::spawn_blocking(move || client.read(file(1), &version(1), 0, 6, &[brick(1)]));
    assert_eq!(read.await.unwrap(), Err(Reason::Permission));
    assert_eq!(volume.rejected_kinds(), [""; 0]);
}

/// The status of an answer, and its text.
async fn said(raw: &mut Raw, path: &str, body: impl Into<bytes::Bytes>) -> (StatusCode, String) {
    let response = raw.post(path, body).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn s07_only_the_operator_may_ask_for_people_and_it_may_ask_for_nothing_else() {
    let ca = Ca::new();
    let (volume, server) = served(&ca, Limits::default()).await;
    let question = r#"{"versions":{"path":""}}"#;
    let at = path_of_operator();
    let mut node = Raw::connect(&ca, &server).await;
    let (status, line) = said(&mut node, &at, question).await;
    assert_eq!((status, line.as_str()), (StatusCode::FORBIDDEN, "node ws-b is not the operator"));

    let dir = ca.issue_operator();
    let mut operator = Raw::connect_with(&dir, &server).await;
    let (status, answer) = said(&mut operator, &at, question).await;
    assert_eq!((status, answer.as_str()), (StatusCode::OK, r#"{"versions":{"versions":[],"cut":false}}"#));
    let (status, answer) = said(&mut operator, &at, r#"{"where":{"path":"f"}}"#).await;
    assert!(status == StatusCode::OK && answer.contains("NotFound"), "{answer}");
    // Bytes of files, and the journal, are for members only.
    for verb in ["journal", "hint", "acks", "compare", "newest", "keep", "fetch", "read", "chunks", "ranges"]
    {
        let (status, line) = said(&mut operator, &path(verb), wire::encode(&Heads::new())).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{verb}");
        assert!(line.starts_with("the operator carries no brick"), "{line}");
    }

    for (path, body, wanted) in [
        (at.clone(), "{".to_owned(), StatusCode::BAD_REQUEST),
        (at.clone(), r#"{"erase":{}}"#.to_owned(), StatusCode::BAD_REQUEST),
        (
            at.clone(),
            format!(r#"{{"where":{{"path":"{}"}}}}"#, "x".repeat(64 << 10)),
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
        (
            at.replace(&brick(1).to_string(), &brick(8).to_string()),
            question.to_owned(),
            StatusCode::MISDIRECTED_REQUEST,
        ),
        (
            at.replace(&VOLUME.to_string(), &uuid::Uuid::nil().to_string()),
            question.to_owned(),
            StatusCode::SERVICE_UNAVAILABLE,
        ),
        (format!("{at}/more"), question.to_owned(), StatusCode::NOT_FOUND),
    ] {
        // A body that is not taken ends its connection.
        let mut operator = Raw::connect_with(&dir, &server).await;
        assert_eq!(said(&mut operator, &path, body).await.0, wanted, "{path}");
    }
    assert_eq!(volume.rejected_kinds(), [""; 0]);
}

#[test]
fn s08_the_operators_certificate_is_no_nodes() {
    let ca = Ca::new();
    // Even where it names a node as well.
    let dir = ca.issue_with("ws-a", |params| {
        params.subject_alt_names.push(rcgen::SanType::URI(OPERATOR.try_into().unwrap()));
    });
    let error = Tls::load(&dir, "ws-a").unwrap_err().to_string();
    assert!(error.contains("the certificate is the operator's"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_another_bricks_uuid_is_refused() {
    let ca = Ca::new();
    let (_volume, server) = served(&ca, Limits::default()).await;
    let error = ask(ca.tls("ws-b"), &server, brick(8), "ws-a").await.unwrap_err();
    assert!(error.contains("421") && error.contains("this is brick 01010101"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_is_counted_and_the_server_lives() {
    let ca = Ca::new();
    let (volume, server) = served(&ca, Limits::default()).await;
    let mut raw = Raw::connect(&ca, &server).await;
    let mut status = async |path: &str, body: Vec<u8>| {
        let response = raw.post(path, body).await;
        let status = response.status();
        response.into_body().collect().await.unwrap();
        status
    };
    let bad = StatusCode::BAD_REQUEST;
    for verb in ["journal", "hint", "acks", "compare", "newest", "fetch", "read"] {
        assert_eq!(status(&path(verb), vec![0xff; 100]).await, bad, "{verb}");
    }
    assert_eq!(status(&path("hint"), Vec::new()).await, bad);
    let forged = Hint { brick: brick(1), heads: Heads::new() };
    assert_eq!(status(&path("hint"), wire::encode(&forged)).await, StatusCode::FORBIDDEN);
    let item = FetchItem { file: file(1), version: version(1) };
    let many = FetchRequest { items: vec![item; wire::MAX_FETCH + 1] };
    assert_eq!(status(&path("fetch"), wire::encode(&many)).await, bad);
    let wide = ReadRequest { file: file(1), version: version(1), offset: 0, len: u32::MAX };
    assert_eq!(status(&path("read"), wire::encode(&wide)).await, bad);
    let mut trailing = wire::encode(&ReadRequest { len: 1, ..wide });
    trailing.push(1);
    assert_eq!(status(&path("read"), trailing).await, bad);
    assert_eq!(volume.rejected_kinds().len(), 12);
    assert!(volume.state.lock().unwrap().rejected.iter().all(|(from, _)| *from == Some(brick(2))));

    // What is no request at all is not counted with the volume.
    for odd in ["/", "/v2/volumes/x/bricks/y/journal", &path("format"), &path("../../journal")] {
        assert_eq!(status(odd, Vec::new()).await, StatusCode::NOT_FOUND, "{odd}");
    }
    assert_eq!(volume.rejected_kinds().len(), 12);
    ask(ca.tls("ws-b"), &server, brick(1), "ws-a").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversize_body_is_refused_before_it_is_taken() {
    let ca = Ca::new();
    let (volume, server) = served(&ca, Limits::default()).await;
    // Announced: refused by its head alone; the body never comes.
    let tls = ca.tls("ws-b");
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("ws-a").unwrap();
    let mut stream = TlsConnector::from(tls.current().client.clone()).connect(name, stream).await.unwrap();
    let head =
        format!("POST {} HTTP/1.1\r\nhost: ws-a\r\ncontent-length: 99999999999\r\n\r\n", path("journal"));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");

    // Not announced: refused when it passes the bound.
    let stream = TcpStream::connect(server.address).await.unwrap();
    let name = ServerName::try_from("ws-a").unwrap();
    let stream = TlsConnector::from(tls.current().client.clone()).connect(name, stream).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = tokio::spawn(async move {
        let head =
            format!("POST {} HTTP/1.1\r\nhost: ws-a\r\ntransfer-encoding: chunked\r\n\r\n", path("journal"));
        writer.write_all(head.as_bytes()).await?;
        loop {
            writer.write_all(b"10000\r\n").await?;
            writer.write_all(&vec![0; 0x10000]).await?;
            writer.write_all(b"\r\n").await?;
        }
        #[allow(unreachable_code)]
        Ok::<(), std::io::Error>(())
    });
    let mut answer = vec![0; 12];
    reader.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 413");
    sending.abort();
    assert_eq!(volume.rejected_kinds(), ["a request body over its bound"; 2]);
    ask(ca.tls("ws-b"), &server, brick(1), "ws-a").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_bounded_per_node_and_quiet_ones_are_cut() {
    let ca = Ca::new();
    let limits = Limits { per_node: 2, idle: Duration::from_millis(400), ..Limits::default() };
    let (_volume, server) = served(&ca, limits).await;
    let mut raws = vec![Raw::connect(&ca, &server).await, Raw::connect(&ca, &server).await];
    for raw in &mut raws {
        raw.post(&path("journal"), wire::encode(&wire::JournalRequest { cursors: Heads::new() })).await;
    }
    let mut third = Raw::connect(&ca, &server).await;
    third.sender.ready().await.ok();
    let request = Request::post(path("journal")).header("host", "ws-a").body(Full::default()).unwrap();
    assert!(third.sender.send_request(request).await.is_err());
    // The quiet ones make room: the client asks until it is let in.
    let tls = ca.tls("ws-b");
    let let_in = async {
        while ask(tls.clone(), &server, brick(1), "ws-a").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), let_in).await.unwrap();
}

async fn fetch_from(ca: &Ca, address: &str, files: &[u8]) -> (Result<(), Reason>, Vec<Told>, Vec<String>) {
    let (client, log) = client(ca.tls("ws-b"), brick(2), &[(brick(1), "ws-a", address)]);
    let items: Vec<_> = files.iter().map(|n| FetchItem { file: file(*n), version: version(1) }).collect();
    let (result, told) = tokio::task::spawn_blocking(move || {
        let mut sink = Sink::default();
        (client.fetch(brick(1), &items, &mut sink), sink.told)
    })
    .await
    .unwrap();
    let log = log.lock().unwrap().iter().map(|(_, why)| why.clone()).collect();
    (result, told, log)
}

fn begun(n: u8, of: u64, size: u64, bytes: &[u8]) -> bytes::BytesMut {
    let mut out = bytes::BytesMut::new();
    put_begin(&mut out, file(n), &version(of), size);
    put_data_with(&mut out, bytes.len(), |space| {
        space.copy_from_slice(bytes);
        Ok::<_, ()>(bytes.len())
    })
    .unwrap();
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn t22_a_stream_that_is_cut_fails_the_open_file() {
    let ca = Ca::new();
    let whole = {
        let mut out = begun(1, 1, 4, b"data");
        put_end(&mut out, blake3::hash(b"data").as_bytes());
        out
    };
    for at in 0..whole.len() {
        // Cut by the connection, and cut although the reply claims to be whole.
        for announced in [whole.len(), at] {
            let address = Liar::new(&ca, whole[..at].to_vec(), announced).await.address;
            let (result, told, log) = fetch_from(&ca, &address, &[1, 2]).await;
            assert_eq!(result, Err(Reason::Unreachable), "cut at {at}");
            assert!(!told.iter().any(|t| matches!(t, Told::End(..))));
            let began = told.iter().any(|t| matches!(t, Told::Begin(..)));
            assert_eq!(told.last() == Some(&Told::Failed(file(1), Reason::Unreachable)), began, "{told:?}");
            assert_eq!(log, [""; 0]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_make_no_sense_are_refused_and_counted() {
    let ca = Ca::new();
    let mut short = begun(1, 1, 5, b"data");
    put_end(&mut short, &[0; 32]);
    let mut extra = begun(1, 1, 4, b"data");
    put_end(&mut extra, blake3::hash(b"data").as_bytes());
    extra.extend_from_slice(&begun(1, 1, 4, b"data"));
    let cases = [
        (b"\xff\xff\xff\xff\x02".to_vec(), "a frame over its bound"),
        (b"\x01\0\0\0\x09x".to_vec(), "a frame of an unknown kind"),
        (begun(2, 1, 4, b"data").to_vec(), "another file than the one asked for"),
        (begun(1, 0, 4, b"data").to_vec(), "an older version than the one asked for"),
        (begun(1, 1, 3, b"data").to_vec(), "a file of another size than announced"),
        (short.to_vec(), "a file of another size than announced"),
        (extra.to_vec(), "more files than were asked for"),
    ];
    for (bytes, why) in cases {
        let len = bytes.len();
        let address = Liar::new(&ca, bytes, len).await.address;
        let (result, _, log) = fetch_from(&ca, &address, &[1]).await;
        assert_eq!((result, log), (Err(Reason::Corrupt), vec![why.to_owned()]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_make_no_sense_are_refused_and_counted() {
    let ca = Ca::new();
    let address = Liar::new(&ca, vec![0xff; 50], 50).await.address;
    let (client, log) = client(ca.tls("ws-b"), brick(2), &[(brick(1), "ws-a", &address)]);
    assert!(client.journal(brick(1), Heads::new()).await.is_err());
    let mut out = begun(1, 1, 4, b"data");
    put_end(&mut out, &[0; 32]);
    let len = out.len();
    client.set_members(&members(&[(brick(1), "ws-a", &Liar::new(&ca, out.to_vec(), len).await.address)]));
    let reader = client.clone();
    let read = tokio::task::spawn_blocking(move || reader.read(file(1), &version(1), 0, 4, &[brick(1)]));
    assert_eq!(read.await.unwrap(), Err(Reason::Corrupt));
    let kinds: Vec<_> = log.lock().unwrap().iter().map(|(_, why)| why.clone()).collect();
    assert_eq!(kinds, ["a journal reply that cannot be read", "a range whose hash is wrong"]);
}

#[test]
fn bad_folders_are_one_clear_line() {
    let ca = Ca::new();
    let lines = |error: String| {
        assert!(!error.contains('\n'), "{error}");
        error
    };
    let dir = ca.issue("ws-a");
    let error = lines(Tls::load(&dir, "ws-b").unwrap_err().to_string());
    assert!(error.contains("is the certificate of node \"ws-a\""), "{error}");
    std::fs::copy(ca.issue("ws-b").join("tls.key"), dir.join("tls.key")).unwrap();
    let error = lines(Tls::load(&dir, "ws-a").unwrap_err().to_string());
    assert!(error.contains("do not fit together"), "{error}");
    std::fs::write(dir.join("tls.key"), "no key").unwrap();
    let error = lines(Tls::load(&dir, "ws-a").unwrap_err().to_string());
    assert!(error.contains("tls.key has no usable private key"), "{error}");
    std::fs::remove_file(dir.join("tls.key")).unwrap();
    let error = lines(Tls::load(&dir, "ws-a").unwrap_err().to_string());
    assert!(error.contains("tls.key: No such file"), "{error}");
    std::fs::write(dir.join("ca.crt"), "").unwrap();
    let error = lines(Tls::load(&dir, "ws-a").unwrap_err().to_string());
    assert!(error.contains("ca.crt has no usable certificate"), "{error}");
    let two = ca.issue_with("ws-c", |params| {
        params.subject_alt_names.push(rcgen::SanType::DnsName("ws-d".try_into().unwrap()));
    });
    let error = lines(Tls::load(&two, "ws-c").unwrap_err().to_string());
    assert!(error.contains("has 2 DNS names"), "{error}");
}
