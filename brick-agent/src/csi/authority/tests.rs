//! What goes through, and what is changed on the way.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

use super::super::register::{self, Registration};
use super::super::server::{Socket, serve};
use super::*;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn text_of(value: &str) -> Vec<u8> {
    [&[u8::try_from(value.len()).unwrap()], value.as_bytes()].concat()
}

/// A header with a name of its own, kept in the table.
fn header(name: &str, value: &str) -> Vec<u8> {
    [&[0x40][..], &text_of(name), &text_of(value)].concat()
}

/// As kubelet's client writes it: POST, http, the path, the authority, and what gRPC needs.
fn request(path: &str, authority: &[u8]) -> Vec<u8> {
    let path = [&[0x44][..], &text_of(path)].concat();
    [
        &[0x83, 0x86][..],
        &path,
        authority,
        &header("content-type", "application/grpc"),
        &header("te", "trailers"),
    ]
    .concat()
}

fn authority(value: &str) -> Vec<u8> {
    [&[0x41][..], &text_of(value)].concat()
}

const SOCKET: &str = "%2Fvar%2Flib%2Fkubelet%2Fplugins_registry%2Fnearbrick.io-reg.sock";

#[test]
fn the_authority_of_a_request_is_changed_and_nothing_else() {
    assert_eq!(renamed(&request("/a/B", &authority(SOCKET))), Some(request("/a/B", &authority("localhost"))));
    // By its place in the table, as in the second request of a connection.
    assert_eq!(renamed(&request("/a/B", &[0xc0])), None);
    for wrong in [&[0x41][..], &[0x41, 0x7f], &[0x41, 0x05, b'a'], &[0xff; 12], &[0x40, 0x01], &[0x00, 0xff]]
    {
        assert_eq!(renamed(wrong), None, "{wrong:?}");
    }
}

/// Two calls on one connection, byte by byte as kubelet's client sends them.
#[tokio::test]
async fn kubelet_registers_though_it_names_the_socket_as_authority() {
    let dir = tempfile::tempdir().unwrap();
    let at = register::socket(dir.path());
    let stop = CancellationToken::new();
    let service = std::sync::Arc::new(Registration { endpoint: dir.path().join("csi.sock") });
    let serving = tokio::spawn(serve(Socket::listen(&at).unwrap(), service, stop.clone()));
    let mut stream = tokio::net::UnixStream::connect(&at).await.unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    stream.write_all(&frame(4, 0, 0, &[])).await.unwrap();
    let path = "/pluginregistration.Registration/GetInfo";
    // The second names path, authority and the rest by their places: 65 is the newest of the table, and there are five.
    let again = [0x83, 0x86, 0xc1, 0xc0, 0xbf, 0xbe];
    for (id, block) in [(1, request(path, &authority(SOCKET))), (3, again.to_vec())] {
        stream.write_all(&frame(1, END_HEADERS, id, &block)).await.unwrap();
        stream.write_all(&frame(0, 1, id, &[0; 5])).await.unwrap();
        let mut said = vec![];
        loop {
            let mut head = [0; HEAD];
            stream.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            stream.read_exact(&mut payload).await.unwrap();
            assert!(!matches!(head[3], 3 | 7), "refused: {head:?} {payload:?}");
            if head[3] == 0 {
                said.extend(payload);
            }
            // The end of this answer.
            if head[3] == 1 && head[4] & 1 != 0 {
                break;
            }
        }
        assert!(String::from_utf8_lossy(&said).contains("nearbrick.io"), "call {id}: {said:?}");
    }
    stop.cancel();
    drop(stream);
    serving.await.unwrap();
}

proptest! {
    /// However the bytes come in, and whatever they are: what is no block of headers goes through as it is.
    #[test]
    fn all_else_goes_through(
        frames in proptest::collection::vec((0u8..10, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..6),
        cuts in proptest::collection::vec(1usize..30, 1..40),
    ) {
        let mut sent = vec![7; PREFACE];
        for (kind, flags, payload) in &frames {
            let kind = if *kind == HEADERS { 0 } else { *kind };
            sent.extend(frame(kind, *flags, 1, payload));
        }
        prop_assert_eq!(through(&sent, &cuts), sent);
    }

    #[test]
    fn no_bytes_end_in_a_panic_and_the_cuts_do_not_matter(
        bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(1), Just(4), any::<u8>()], 0..120),
        cuts in proptest::collection::vec(1usize..30, 1..40),
    ) {
        let sent = [vec![7; PREFACE], bytes].concat();
        prop_assert_eq!(through(&sent, &cuts), through(&sent, &[sent.len()]));
    }
}

/// What a server reads of what was sent, when it comes in pieces of these lengths.
fn through(sent: &[u8], cuts: &[usize]) -> Vec<u8> {
    let (mut frames, mut rest) = (Frames::default(), sent);
    for cut in cuts.iter().cycle() {
        let (piece, after) = rest.split_at((*cut).min(rest.len()));
        frames.take(piece);
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    frames.end();
    frames.ready
}
