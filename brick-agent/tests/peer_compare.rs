//! Comparisons and acknowledgements over real TLS, with their bounds; real volumes that are brought abreast
//! by the exchange itself.

#![allow(clippy::unwrap_used)]

mod peer_common;
mod support;

use std::sync::Arc;
use std::time::Duration;

use nearbrick_agent::peer::Served;
use nearbrick_agent::peer::compare::{CompareReply, CompareRequest, FAN, MAX_LEAVES, MAX_OBJECTS};
use nearbrick_agent::peer::exchange::{Exchange, Pace};
use nearbrick_agent::peer::server::Limits;
use nearbrick_agent::volume::Volume;
use nearbrick_core::{FileId, Heard, Horizon, Incarnation, Kind, LinkId, Object, Place, Reg, Stamp};
use peer_common::{Ca, Running, client, members, start, until};
use support::fs::{Fs, path};
use support::members::Lab;

const NODES: [&str; 2] = ["ws-a", "ws-b"];

/// A brick of the lab behind a real server, and its client.
struct Peer {
    exchange: Arc<Exchange>,
    client: Arc<nearbrick_agent::peer::client::Client>,
    server: Running,
}

async fn peer(ca: &Ca, lab: &Lab, n: usize, pace: Pace) -> Peer {
    let tls = ca.tls(NODES[n]);
    let volume: Arc<Volume> = lab.volume(n).clone();
    let uuid = Served::volume(&*volume);
    let client = nearbrick_agent::peer::client::Client::new(
        uuid,
        lab.brick(n),
        tls.clone(),
        tokio::runtime::Handle::current(),
        nearbrick_agent::peer::client::Patience::default(),
        Box::new(|_, why| panic!("rubbish: {why}")),
    );
    let exchange = Exchange::new(volume, client.clone(), pace);
    let server = start(tls, exchange.clone(), Limits::default()).await;
    Peer { exchange, client, server }
}

#[tokio::test(flavor = "multi_thread")]
async fn t29_the_exchange_falls_back_to_a_comparison_and_compacts() {
    needs!(Root);
    let lab = Lab::new(2, 1);
    let fs = Fs::new(lab.volume(0));
    for n in 0..300 {
        fs.write_file(&path(&format!("f{n}")), b"bytes").unwrap();
    }
    drop(fs);
    lab.settle(0);
    // No one waits for the other: what it lacks is in no journal any more.
    lab.compact_alone(0);
    let ca = Ca::new();
    let pace = Pace { poll: Duration::from_millis(50), acks: Duration::ZERO, ..Pace::default() };
    let (a, b) = (peer(&ca, &lab, 0, pace).await, peer(&ca, &lab, 1, pace).await);
    for (who, n, other) in [(&a, 1usize, &b), (&b, 0, &a)] {
        let address = other.server.address.to_string();
        who.client.set_members(&members(&[(lab.brick(n), NODES[n], &address)]));
        who.exchange.members_changed();
    }
    until("all files at b", || lab.volume(1).status().files == 300).await;
    Fs::new(lab.volume(1)).write_file(&path("of-b"), b"more").unwrap();
    until("b's file at a", || lab.volume(0).status().files == 301).await;
    // Both say what they have, and give up what both have.
    until("both know the same, and their journals are compacted", || {
        let same = lab.volume(0).heads() == lab.volume(1).heads();
        same && (0..2).all(|n| {
            let volume = lab.volume(n);
            let none = volume.heads().keys().map(|origin| (*origin, 0)).collect();
            volume.status().dirty_files == 0 && volume.is_behind(&none)
        })
    })
    .await;
    a.exchange.stop();
    b.exchange.stop();
    lab.one_tree();
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_over_their_bounds_are_refused() {
    needs!(Root);
    let lab = Lab::new(2, 1);
    let ca = Ca::new();
    let a = peer(&ca, &lab, 0, Pace::default()).await;
    let (b, _) = client(ca.tls("ws-b"), lab.brick(1), &[]);
    drop(b);
    let b = peer(&ca, &lab, 1, Pace::default()).await;
    b.client.set_members(&members(&[(lab.brick(0), "ws-a", &a.server.address.to_string())]));
    let top = b.client.compare(lab.brick(0), &CompareRequest::Top).await.unwrap();
    assert!(matches!(top, CompareReply::Top { sums, .. } if sums.len() == FAN));
    for request in [
        CompareRequest::Under(vec![0; FAN + 1]),
        CompareRequest::Leaves { leaves: vec![[0, 0]; MAX_LEAVES + 1], after: None },
        CompareRequest::Leaves { leaves: vec![[1, 0], [0, 0]], after: None },
        CompareRequest::Objects(vec![FileId::ROOT; MAX_OBJECTS + 1]),
    ] {
        assert!(!request.is_bounded());
        let error = b.client.compare(lab.brick(0), &request).await.unwrap_err().to_string();
        assert!(error.contains("over its bound"), "{error}");
    }
    assert_eq!(lab.volume(0).status().rejected, 4);
}

#[test]
fn s01_answers_that_no_member_gives_are_refused() {
    let file = FileId([7; 16]);
    let objects = CompareRequest::Objects(vec![file]);
    let answer = |object: Object| CompareReply::Objects { objects: vec![(file, object)], answered: 1 };
    let stamp = Stamp { time: 1, origin: Incarnation(1) };
    let named = |name: &[u8]| {
        let place = Place { parent: FileId::ROOT, name: name.to_vec() };
        let mut object = Object { kind: Some(Kind::File), ..Object::default() };
        object.links.entry(LinkId { origin: Incarnation(1), seq: 1 }).or_default().place =
            Some(Reg::new(place, stamp));
        object
    };
    assert_eq!(answer(named(b"fine")).check(&objects), Ok(()));
    for name in [&b".."[..], b"../../etc/passwd", b"", b"a\0"] {
        assert!(answer(named(name)).check(&objects).is_err());
    }
    let other = CompareReply::Objects { objects: vec![(FileId([8; 16]), named(b"x"))], answered: 1 };
    assert!(other.check(&objects).is_err(), "not asked for");
    let none = CompareReply::Objects { objects: Vec::new(), answered: 0 };
    assert!(none.check(&objects).is_err(), "it would be asked for ever");
    assert!(CompareReply::Objects { objects: Vec::new(), answered: 2 }.check(&objects).is_err());
    let leaves = CompareRequest::Leaves { leaves: vec![[7, 7]], after: None };
    let list = |objects, more| CompareReply::Leaves { objects, more };
    assert_eq!(list(vec![(file, 1)], false).check(&leaves), Ok(()));
    assert!(list(vec![(FileId([8; 16]), 1)], false).check(&leaves).is_err());
    assert!(list(vec![(file, 1), (file, 1)], false).check(&leaves).is_err());
    assert!(list(Vec::new(), true).check(&leaves).is_err());
    let horizon: Horizon = [(Incarnation(1), Heard { seq: 1, time: u64::MAX })].into_iter().collect();
    assert!(CompareReply::Top { horizon, sums: vec![0; FAN] }.check(&CompareRequest::Top).is_err());
    assert!(
        CompareReply::Top { horizon: Horizon::new(), sums: Vec::new() }.check(&CompareRequest::Top).is_err()
    );
    assert!(CompareReply::Under(vec![0; FAN]).check(&CompareRequest::Top).is_err());
}
