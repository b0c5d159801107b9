//! Journals that keep abreast of each other: by hints at once, by polls for
//! certain, through a third member, and past rubbish.

#![allow(clippy::unwrap_used)]

mod peer_common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nearbrick_agent::peer::client::Client;
use nearbrick_agent::peer::exchange::{Exchange, Pace};
use nearbrick_agent::peer::server::Limits;
use nearbrick_agent::peer::wire::KeepRequest;
use nearbrick_agent::peer::{Remote, Served};
use nearbrick_core::heal::Reason;
use nearbrick_core::op::{Op, Place};
use nearbrick_core::{BrickId, FileId, Incarnation};
use peer_common::*;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const NODES: [(&str, u8); 3] = [("ws-a", 1), ("ws-b", 2), ("ws-c", 3)];
/// Never within a test.
const NO_POLL: Duration = Duration::from_secs(3600);

struct Peer {
    volume: Arc<Memory>,
    client: Arc<Client>,
    exchange: Arc<Exchange>,
    server: Running,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.exchange.stop();
    }
}

async fn peer(ca: &Ca, n: usize, poll: Duration) -> Peer {
    let (node, id) = NODES[n];
    let nodes: Vec<_> = NODES.map(|(n, b)| (n, brick(b))).into();
    let volume = Memory::new(brick(id), &nodes);
    let tls = ca.tls(node);
    let (client, _) = client(tls.clone(), brick(id), &[]);
    let exchange = Exchange::new(volume.clone(), client.clone(), Pace { poll, ..Pace::default() });
    let server = start(tls, exchange.clone(), Limits::default()).await;
    Peer { volume, client, exchange, server }
}

/// Tells `who` of these others.
fn meet(who: &Peer, others: &[(usize, &Peer)]) {
    let known: Vec<_> = others.iter().map(|(n, p)| (NODES[*n], p.server.address.to_string())).collect();
    let known: Vec<_> = known.iter().map(|((node, b), at)| (brick(*b), *node, at.as_str())).collect();
    who.client.set_members(&members(&known));
    who.exchange.members_changed();
}

fn has(state: &State, origin: u64, seq: u64) -> bool {
    state.journal.contains_key(&(Incarnation(origin), seq))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_brings_new_entries_at_once_in_as_many_replies_as_it_takes() {
    let ca = Ca::new();
    let (a, b) = (peer(&ca, 0, NO_POLL).await, peer(&ca, 1, NO_POLL).await);
    meet(&b, &[(0, &a)]);
    meet(&a, &[(1, &b)]);
    a.volume.write(1, 1..=3000);
    a.client.hint();
    b.volume.until("all entries at b", |s| has(s, 1, 3000)).await;
    assert!(b.volume.state.lock().unwrap().absorbs >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_asked_to_keep_a_version_first_hears_of_it_and_says_why_if_it_cannot() {
    let ca = Ca::new();
    let (a, b, c) = (peer(&ca, 0, NO_POLL).await, peer(&ca, 1, NO_POLL).await, peer(&ca, 2, NO_POLL).await);
    meet(&b, &[(0, &a)]);
    meet(&c, &[(0, &a)]);
    meet(&a, &[(1, &b), (2, &c)]);
    a.volume.write(1, 1..=3);
    b.volume.add(file(1), version(3), b"x", 1);
    let request = KeepRequest { heads: a.volume.heads(), file: file(1), version: version(3) };
    let keep = |bricks: Vec<BrickId>, wanted| {
        let (client, request) = (a.client.clone(), request.clone());
        tokio::task::spawn_blocking(move || client.keep(&bricks, wanted, &request, Duration::from_secs(60)))
    };
    assert_eq!(keep(vec![brick(2)], 1).await.unwrap(), [(brick(2), Ok(()))]);
    assert!(has(&b.volume.state.lock().unwrap(), 1, 3));
    let mut all = keep(vec![brick(2), brick(3), brick(9)], 3).await.unwrap();
    all.sort();
    let wanted = [(brick(2), Ok(())), (brick(3), Err(Reason::NoSpace)), (brick(9), Err(Reason::Unreachable))];
    assert_eq!(all, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_are_gathered() {
    let ca = Ca::new();
    let (a, b) = (peer(&ca, 0, NO_POLL).await, peer(&ca, 1, NO_POLL).await);
    meet(&b, &[(0, &a)]);
    meet(&a, &[(1, &b)]);
    for n in 1..=500 {
        a.volume.write(1, n..=n);
        a.client.hint();
    }
    b.volume.until("all entries at b", |s| has(s, 1, 500)).await;
    assert!(b.volume.state.lock().unwrap().hinted.len() < 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_hints_a_poll_makes_it_certain() {
    let ca = Ca::new();
    let (a, b) = (peer(&ca, 0, NO_POLL).await, peer(&ca, 1, Duration::from_millis(50)).await);
    meet(&b, &[(0, &a)]);
    a.volume.write(1, 1..=1);
    b.volume.until("the entry at b", |s| has(s, 1, 1)).await;
}

/// A heal that was asked for right after the work ended with "nothing was left to copy", because its target had not heard of the
/// work yet.
#[tokio::test(flavor = "multi_thread")]
async fn who_catches_up_has_heard_all_that_its_peers_had() {
    let ca = Ca::new();
    let (a, b) = (peer(&ca, 0, NO_POLL).await, peer(&ca, 1, NO_POLL).await);
    meet(&b, &[(0, &a)]);
    b.exchange.catch_up(Duration::from_secs(60)).await;
    a.volume.write(1, 1..=500);
    b.exchange.catch_up(Duration::from_secs(60)).await;
    b.volume
        .until("all of it, without a wait", |s| {
            assert!(has(s, 1, 500), "it came later");
            true
        })
        .await;
}

/// Passes connections on to a server, but for so many that it closes. When it is told, it closes those that it has.
async fn cut_network(to: std::net::SocketAddr, cut: watch::Receiver<()>, fail: Arc<AtomicU32>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let is_cut = |left: u32| left.checked_sub(1);
            if fail.fetch_update(Ordering::SeqCst, Ordering::SeqCst, is_cut).is_ok() {
                continue;
            }
            let mut cut = cut.clone();
            cut.borrow_and_update();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    _ = cut.changed() => {}
                }
            });
        }
    });
    address
}

/// A heal that was asked for right after a network was whole again ended with "nothing was left to copy": its target had only tried the
/// connection that the cut had left.
#[tokio::test(flavor = "multi_thread")]
async fn who_catches_up_asks_again_who_was_there_a_moment_ago_and_says_who_was_not_heard() {
    let ca = Ca::new();
    let (a, b) = (peer(&ca, 0, NO_POLL).await, peer(&ca, 1, NO_POLL).await);
    let (cut, fail) = (watch::Sender::new(()), Arc::new(AtomicU32::new(0)));
    let address = cut_network(a.server.address, cut.subscribe(), fail.clone()).await;
    b.client.set_members(&members(&[(brick(1), "ws-a", &address)]));
    let catch_up = || b.exchange.catch_up(Duration::from_secs(60));
    assert_eq!(catch_up().await, []);
    a.volume.write(1, 1..=5);
    fail.store(1, Ordering::SeqCst);
    cut.send(()).unwrap();
    assert_eq!(catch_up().await, []);
    assert!(has(&b.volume.state.lock().unwrap(), 1, 5));
    assert_eq!(fail.load(Ordering::SeqCst), 0, "it failed once");
    a.volume.write(1, 6..=6);
    fail.store(u32::MAX, Ordering::SeqCst);
    cut.send(()).unwrap();
    assert_eq!(catch_up().await, [brick(1)]);
    assert_eq!(b.exchange.node_of(brick(1)).as_deref(), Some("ws-a"));
}

/// One that was never there is no news.
#[tokio::test(flavor = "multi_thread")]
async fn who_catches_up_does_not_name_who_is_off() {
    let ca = Ca::new();
    let b = peer(&ca, 1, NO_POLL).await;
    b.client.set_members(&members(&[(brick(1), "ws-a", "127.0.0.1:1")]));
    assert_eq!(b.exchange.catch_up(Duration::from_secs(60)).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_reaches_a_member_through_another_that_was_never_on_together_with_its_maker() {
    let ca = Ca::new();
    let b = {
        let (a, b) = (peer(&ca, 0, NO_POLL).await, peer(&ca, 1, Duration::from_millis(50)).await);
        a.volume.write(1, 1..=20);
        meet(&b, &[(0, &a)]);
        b.volume.until("all entries at b", |s| has(s, 1, 20)).await;
        b
    };
    let c = peer(&ca, 2, NO_POLL).await;
    meet(&c, &[(1, &b)]);
    c.volume.until("all entries at c", |s| has(s, 1, 20)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_returns_on_another_address_is_asked_at_once() {
    let ca = Ca::new();
    let b = peer(&ca, 1, NO_POLL).await;
    b.client.set_members(&members(&[(brick(1), "ws-a", "127.0.0.1:1")]));
    b.exchange.members_changed();
    let a = peer(&ca, 0, NO_POLL).await;
    a.volume.write(1, 1..=1);
    meet(&b, &[(0, &a)]);
    b.volume.until("the entry at b", |s| has(s, 1, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rubbish_in_a_journal_is_dropped_and_counted_and_the_rest_comes() {
    let ca = Ca::new();
    let (a, b) = (peer(&ca, 0, NO_POLL).await, peer(&ca, 1, Duration::from_millis(50)).await);
    a.volume.write(1, 1..=5);
    let place = Place { parent: FileId::ROOT, name: b"../../etc/passwd".to_vec() };
    a.volume.insert(entry(9, 1, Op::Link(place)));
    a.volume.write(9, 2..=4);
    meet(&b, &[(0, &a)]);
    b.volume.until("the good entries at b", |s| has(s, 1, 5) && !s.rejected.is_empty()).await;
    let state = b.volume.state.lock().unwrap();
    assert!((1..=4).all(|seq| !has(&state, 9, seq)));
    let (from, why) = &state.rejected[0];
    assert_eq!(*from, Some(brick(1)));
    assert!(why.contains("slash"), "{why}");
}
