//! The peer API over real TLS: what a member may ask, and what it gets.

#![allow(clippy::unwrap_used)]

mod peer_common;

use std::sync::Arc;

use nearbrick_agent::peer::Remote;
use nearbrick_agent::peer::client::Client;
use nearbrick_agent::peer::server::Limits;
use nearbrick_agent::peer::wire::{ChunkList, FetchItem, Heads, MAX_FETCH, Piece, RangesRequest};
use nearbrick_core::heal::Reason;
use nearbrick_core::{BrickId, Entry, Incarnation, Op};
use peer_common::*;

const NODES: [(&str, u8); 2] = [("ws-a", 1), ("ws-b", 2)];

struct World {
    volume: Arc<Memory>,
    server: Running,
    client: Arc<Client>,
    rubbish: RubbishLog,
    _ca: Ca,
}

/// `ws-a` serves brick 1; a client of brick 2 on `ws-b`.
async fn world() -> World {
    let ca = Ca::new();
    let nodes: Vec<_> = NODES.map(|(n, b)| (n, brick(b))).into();
    let volume = Memory::new(brick(1), &nodes);
    let server = start(ca.tls("ws-a"), volume.clone(), Limits::default()).await;
    let address = server.address.to_string();
    let (client, rubbish) = client(ca.tls("ws-b"), brick(2), &[(brick(1), "ws-a", &address)]);
    World { volume, server, client, rubbish, _ca: ca }
}

async fn fetch(
    client: &Arc<Client>,
    from: BrickId,
    items: Vec<FetchItem>,
    mut sink: Sink,
) -> (Result<(), Reason>, Sink) {
    let client = client.clone();
    tokio::task::spawn_blocking(move || {
        let result = client.fetch(from, &items, &mut sink);
        (result, sink)
    })
    .await
    .unwrap()
}

async fn read(
    client: &Arc<Client>,
    n: u8,
    of: u64,
    range: (u64, usize),
    from: Vec<BrickId>,
) -> Result<Vec<u8>, Reason> {
    let client = client.clone();
    let read = move || client.read(file(n), &version(of), range.0, range.1, &from);
    tokio::task::spawn_blocking(read).await.unwrap().map(|(_, bytes)| bytes)
}

fn item(n: u8, of: u64) -> FetchItem {
    FetchItem { file: file(n), version: version(of) }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_is_read_by_cursor() {
    let w = world().await;
    w.volume.write(7, 1..=5);
    let all = w.client.journal(brick(1), Heads::new()).await.unwrap();
    assert_eq!(all.entries.len(), 5);
    assert_eq!(all.heads, Heads::from([(Incarnation(7), 5)]));
    let rest = w.client.journal(brick(1), Heads::from([(Incarnation(7), 3)])).await.unwrap();
    assert_eq!(rest.entries.iter().map(|e| e.seq).collect::<Vec<_>>(), [4, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_arrives_with_its_sender() {
    let w = world().await;
    let heads = Heads::from([(Incarnation(9), 4)]);
    w.client.send_hint(brick(1), heads.clone()).await.unwrap();
    assert_eq!(w.volume.state.lock().unwrap().hinted, [(brick(2), heads)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn several_files_come_in_order_also_an_empty_and_a_big_one() {
    let w = world().await;
    let big = pattern((3 << 20) + 12_345);
    w.volume.add(file(1), version(1), b"small", 5);
    w.volume.add(file(2), version(1), b"", 0);
    w.volume.add(file(3), version(2), &big, big.len() as u64);
    let items = vec![item(3, 1), item(9, 1), item(2, 1), item(1, 1)];
    let (result, sink) = fetch(&w.client, brick(1), items, Sink::default()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        sink.told,
        [
            // A newer version that includes the one asked for.
            Told::Begin(file(3), version(2), big.len() as u64),
            Told::Data(big.len()),
            Told::End(file(3), true),
            Told::Failed(file(9), Reason::Unreachable),
            Told::Begin(file(2), version(1), 0),
            Told::End(file(2), true),
            Told::Begin(file(1), version(1), 5),
            Told::Data(5),
            Told::End(file(1), true),
        ]
    );
    assert_eq!(sink.bytes[&file(3)], big);
    assert_eq!(sink.bytes[&file(1)], b"small");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_files_than_one_request_may_ask_for() {
    let w = world().await;
    w.volume.add(file(1), version(1), b"x", 1);
    let (result, sink) = fetch(&w.client, brick(1), vec![item(1, 1); MAX_FETCH + 3], Sink::default()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(sink.told.iter().filter(|t| **t == Told::End(file(1), true)).count(), MAX_FETCH + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_can_be_cancelled_between_two_files() {
    let w = world().await;
    w.volume.add(file(1), version(1), b"x", 1);
    let sink = Sink { enough: Some(2), ..Sink::default() };
    let (result, sink) = fetch(&w.client, brick(1), vec![item(1, 1); 50], sink).await;
    assert_eq!(result, Ok(()));
    assert_eq!(sink.told.iter().filter(|t| matches!(t, Told::End(..))).count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_became_shorter_fails_and_the_next_ones_come() {
    let w = world().await;
    w.volume.add(file(1), version(1), b"only this", 1000);
    w.volume.add(file(2), version(1), b"fine", 4);
    let (result, sink) = fetch(&w.client, brick(1), vec![item(1, 1), item(2, 1)], Sink::default()).await;
    assert_eq!(result, Ok(()));
    assert_eq!(
        sink.told,
        [
            Told::Begin(file(1), version(1), 1000),
            Told::Data(9),
            Told::Failed(file(1), Reason::SourceChanged),
            Told::Begin(file(2), version(1), 4),
            Told::Data(4),
            Told::End(file(2), true),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_read_and_the_end_of_the_file_is_known() {
    let w = world().await;
    let bytes = pattern(1 << 20);
    w.volume.add(file(1), version(1), &bytes, bytes.len() as u64);
    let from = vec![brick(1)];
    assert_eq!(read(&w.client, 1, 1, (100, 5000), from.clone()).await.unwrap(), bytes[100..5100]);
    assert_eq!(
        read(&w.client, 1, 1, ((1 << 20) - 3, 10), from.clone()).await.unwrap(),
        bytes[(1 << 20) - 3..]
    );
    assert_eq!(read(&w.client, 1, 1, (2 << 20, 10), from.clone()).await.unwrap(), b"");
    assert_eq!(read(&w.client, 1, 1, (0, 2 << 20), from).await.unwrap(), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_of_exactly_the_version_asked_for() {
    let w = world().await;
    w.volume.add(file(1), version(2), b"newer", 5);
    assert_eq!(read(&w.client, 1, 1, (0, 5), vec![brick(1)]).await, Err(Reason::SourceChanged));
    assert_eq!(read(&w.client, 1, 3, (0, 5), vec![brick(1)]).await, Err(Reason::SourceChanged));
    assert_eq!(read(&w.client, 1, 2, (0, 5), vec![brick(1)]).await.unwrap(), b"newer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_goes_on_to_a_holder_that_answers() {
    let w = world().await;
    w.volume.add(file(1), version(1), b"here", 4);
    let address = w.server.address.to_string();
    w.client.set_members(&members(&[
        // Nobody listens there; one has reported no address.
        (brick(3), "ws-c", "127.0.0.1:1"),
        (brick(4), "ws-d", ""),
        (brick(1), "ws-a", &address),
    ]));
    let from = vec![brick(5), brick(4), brick(3), brick(1)];
    assert_eq!(read(&w.client, 1, 1, (0, 9), from).await.unwrap(), b"here");
    assert!(!w.client.is_up(brick(3)) && w.client.is_up(brick(1)));
    assert!(w.client.wait_for(brick(3)).is_some(), "left alone for a while");
    w.client.alive(brick(3));
    assert!(w.client.wait_for(brick(3)).is_none(), "until it gives a sign of life");
    assert_eq!(read(&w.client, 1, 1, (0, 9), vec![brick(3), brick(5)]).await, Err(Reason::Unreachable));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_used_again() {
    let w = world().await;
    for _ in 0..20 {
        w.client.journal(brick(1), Heads::new()).await.unwrap();
    }
    let open = w.server.stats.connections.load(std::sync::atomic::Ordering::Relaxed);
    // One that has answered may not be back in the pool before the next is asked for.
    assert!(open < 10, "{open} connections for 20 calls");
    assert_eq!(*w.rubbish.lock().unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_is_no_longer_served_is_not_found() {
    let w = world().await;
    w.client.journal(brick(1), Heads::new()).await.unwrap();
    w.server.registry.remove(VOLUME);
    let error = w.client.journal(brick(1), Heads::new()).await.unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_says_what_its_file_is_now() {
    let w = world().await;
    w.volume.write(7, 1..=1);
    let newest = |n: u8, from: u8| {
        let client = w.client.clone();
        tokio::task::spawn_blocking(move || client.newest(brick(from), file(n)))
    };
    let object = newest(1, 1).await.unwrap().unwrap().expect("it is known");
    assert_eq!(object.writing().collect::<Vec<_>>(), [brick(1)]);
    assert_eq!(newest(2, 1).await.unwrap(), Ok(None));
    assert_eq!(newest(1, 9).await.unwrap(), Err(Reason::Unreachable));
    // What no member has is not taken.
    let root = Op::Link(nearbrick_core::Place { parent: file(3), name: b"..".to_vec() });
    w.volume.insert(Entry { file: file(4), ..entry(7, 2, root) });
    assert!(newest(4, 1).await.unwrap().is_err());
    assert_eq!(w.volume.state.lock().unwrap().asked, [file(1), file(2), file(4)]);
    assert_eq!(w.rubbish.lock().unwrap().len(), 1);
    // One that failed just now is not asked again at once.
    assert_eq!(newest(1, 1).await.unwrap(), Err(Reason::Unreachable));
    assert_eq!(w.volume.state.lock().unwrap().asked.len(), 3);
}

async fn ranges(
    client: &Arc<Client>,
    of: u64,
    ranges: &[(u64, u64)],
    mut sink: Sink,
) -> (Result<(), Reason>, Sink) {
    let client = client.clone();
    let wanted = RangesRequest { file: file(1), version: version(of), ranges: ranges.to_vec() };
    tokio::task::spawn_blocking(move || (client.ranges(brick(1), &wanted, &mut sink), sink)).await.unwrap()
}

async fn chunks(client: &Arc<Client>, n: u8, of: u64) -> Result<Option<Arc<ChunkList>>, Reason> {
    let client = client.clone();
    tokio::task::spawn_blocking(move || client.chunks(brick(1), file(n), &version(of))).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_chunks_is_the_file_and_the_second_time_it_is_kept() {
    let w = world().await;
    let bytes = pattern((3 << 20) + 12_345);
    w.volume.add(file(1), version(2), &bytes, bytes.len() as u64);
    for _ in 0..2 {
        let list = chunks(&w.client, 1, 1).await.unwrap().unwrap();
        assert_eq!((list.size, &list.version), (bytes.len() as u64, &version(2)));
        assert_eq!(list.hash, *blake3::hash(&bytes).as_bytes());
        let mut at = 0;
        for piece in &list.pieces {
            let Piece::Data { len, hash } = piece else { panic!("a hole") };
            let part = &bytes[at..at + *len as usize];
            assert_eq!(blake3::hash(part).as_bytes()[..16], hash[..]);
            at += part.len();
        }
        assert_eq!(at, bytes.len());
    }
    assert_eq!(chunks(&w.client, 9, 1).await.unwrap_err(), Reason::Unreachable);
    // A file that is shorter than it says it is.
    w.volume.add(file(3), version(1), b"short", 1 << 20);
    assert_eq!(chunks(&w.client, 3, 1).await.unwrap_err(), Reason::SourceChanged);
    assert!(w.rubbish.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_come_one_after_the_other_of_exactly_one_version() {
    let w = world().await;
    let bytes = pattern(1 << 20);
    w.volume.add(file(1), version(2), &bytes, bytes.len() as u64);
    let (result, sink) = ranges(&w.client, 2, &[(10, 5), (700_000, 300_000)], Sink::default()).await;
    assert_eq!(result, Ok(()));
    let wanted = [&bytes[10..15], &bytes[700_000..1_000_000]].concat();
    assert_eq!(sink.bytes[&file(1)], wanted);
    assert_eq!(sink.told.last(), Some(&Told::End(file(1), true)));
    let (result, sink) = ranges(&w.client, 1, &[(0, 5)], Sink::default()).await;
    assert_eq!((result, sink.told), (Ok(()), vec![Told::Failed(file(1), Reason::SourceChanged)]));
    // Out of order: refused before anything is read.
    let (result, sink) = ranges(&w.client, 2, &[(10, 5), (0, 5)], Sink::default()).await;
    assert_eq!((result, sink.told.len()), (Err(Reason::Unreachable), 0));
    assert_eq!(w.volume.rejected_kinds(), ["a request for ranges over its bound"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn t17_holes_travel_as_holes() {
    let w = world().await;
    w.volume.add(file(1), version(1), b"", 4 << 30);
    let sparse = std::fs::File::options().write(true).open(w.volume.path_of(file(1))).unwrap();
    sparse.set_len(4 << 30).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &pattern(100_000), 1 << 20).unwrap();
    let before = w.server.stats.bytes_sent.load(std::sync::atomic::Ordering::Relaxed);
    let list = chunks(&w.client, 1, 1).await.unwrap().unwrap();
    assert_eq!(list.pieces.iter().map(Piece::len).sum::<u64>(), 4 << 30);
    assert!(list.pieces.len() < 50);
    let sent = w.server.stats.bytes_sent.load(std::sync::atomic::Ordering::Relaxed) - before;
    assert!(sent < 10_000, "{sent} bytes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_does_not_answer_is_asked_last() {
    let ca = Ca::new();
    let nodes: Vec<_> = NODES.map(|(n, b)| (n, brick(b))).into();
    let volume = Memory::new(brick(1), &nodes);
    let server = start(ca.tls("ws-a"), volume.clone(), Limits::default()).await;
    let address = server.address.to_string();
    // Nobody listens there.
    let gone = "127.0.0.1:1";
    let peers = [(brick(3), "ws-c", gone), (brick(1), "ws-a", &address)];
    let (client, _) = client(ca.tls("ws-b"), brick(2), &peers);
    volume.add(file(1), version(1), b"bytes", 5);
    let mut order = [brick(3), brick(1)];
    client.order(&mut order);
    assert_eq!(order, [brick(3), brick(1)], "nothing is known yet");
    let both = vec![brick(3), brick(1)];
    assert_eq!(read(&client, 1, 1, (0, 5), both).await.unwrap(), b"bytes");
    client.order(&mut order);
    assert_eq!(order, [brick(1), brick(3)]);
}
