//! Bytes that no member and no agent wrote, wherever bytes come from a peer or from the disk: random ones, and
//! valid ones that are spoiled. Nothing panics, nothing outside the brick is touched, what is refused says why in
//! one line, and what is not refused leaves a volume that goes on.
//!
//! The seed of a run is printed; `NEARBRICK_SEED=N` repeats it, `NEARBRICK_CASES=N` makes it longer.

#![allow(clippy::unwrap_used)]

#[path = "hostile/disk.rs"]
mod disk;
mod peer_common;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nearbrick_agent::brick::mark::Mark;
use nearbrick_agent::holder::wire::{Answer, Ask};
use nearbrick_agent::index::{Index, Local};
use nearbrick_agent::peer::compare::{Compare, CompareReply, CompareRequest};
use nearbrick_agent::peer::frame::{self, Decoder, Frame};
use nearbrick_agent::peer::server::Limits;
use nearbrick_agent::peer::tls::node_of;
use nearbrick_agent::peer::wire::{
    self, Ack, Acks, ChunksRequest, FetchItem, FetchRequest, Heads, Hint, JournalReply, JournalRequest,
    Piece, RangesRequest, ReadRequest,
};
use nearbrick_agent::peer::{Remote, Served};
use nearbrick_core::op::{Attr, Entry, Kind, Op, Place};
use nearbrick_core::resolution::{Choice, Decision, Side, Word};
use nearbrick_core::{BrickId, Content, FileId, Incarnation, LinkId, Object, Stamp, VersionVector};
use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use peer_common::{Ca, Liar, Memory, Raw, Sink, Told, client, start};
use support::fs::{Fs, path};
use support::members::Lab;
use support::random::{check, spoil, spoils};

// --- what a hostile member can say ---

/// Numbers at which things end.
fn number() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 0xffff, 1 << 48, 1 << 56, i64::MAX as u64, 1 << 63, u64::MAX - 1, u64::MAX];
    prop_oneof![4 => 0u64..5, 2 => prop::sample::select(edges.to_vec()), 1 => any::<u64>()]
}

fn file_id() -> impl Strategy<Value = FileId> {
    prop_oneof![
        1 => Just(FileId::ROOT),
        8 => (1u8..6).prop_map(|n| FileId([n; 16])),
        1 => any::<[u8; 16]>().prop_map(FileId),
    ]
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let odd: [&[u8]; 9] = [
        b"",
        b".",
        b"..",
        b"../../escaped",
        b"/etc/escaped",
        b"a\0b",
        b".nearbrick",
        &[b'x'; 255],
        &[b'x'; 256],
    ];
    prop_oneof![
        6 => (0u8..4).prop_map(|n| vec![b'a' + n]),
        2 => prop::sample::select(odd.map(<[u8]>::to_vec).to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    (file_id(), name()).prop_map(|(parent, name)| Place { parent, name })
}

fn vector() -> impl Strategy<Value = VersionVector> {
    prop::collection::vec((0u64..4, number()), 0..4)
        .prop_map(|v| v.into_iter().map(|(who, n)| (Incarnation(who), n)).collect())
}

fn brick() -> impl Strategy<Value = BrickId> {
    (0u8..4).prop_map(|n| BrickId([n; 16]))
}

fn link() -> impl Strategy<Value = LinkId> {
    (0u64..4, number()).prop_map(|(origin, seq)| LinkId { origin: Incarnation(origin), seq })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        4 => Just(Kind::File),
        3 => Just(Kind::Dir),
        1 => name().prop_map(Kind::Symlink),
        1 => Just(Kind::Symlink(b"../../../../../etc/passwd".to_vec())),
        1 => prop::sample::select(vec![0o010_000, 0o140_000, 0, 0o040_000, u32::MAX])
            .prop_map(|format| Kind::Special { format, rdev: 0 }),
    ]
}

fn attr() -> impl Strategy<Value = Attr> {
    let id = || prop_oneof![3 => Just(0u32), 1 => Just(u32::MAX), 1 => any::<u32>()];
    let mode = prop_oneof![4 => 0u32..0o1000, 1 => any::<u32>()];
    (mode, id(), id(), number(), prop_oneof![3 => Just(0u32), 1 => any::<u32>()]).prop_map(
        |(mode, uid, gid, sec, mtime_nsec)| Attr { mode, uid, gid, mtime_sec: sec as i64, mtime_nsec },
    )
}

fn decision() -> impl Strategy<Value = Decision> {
    let side = (vector(), brick(), number(), prop::option::of(file_id())).prop_map(
        |(version, writer, size, beside)| {
            let stamp = Stamp { time: size, origin: Incarnation(1) };
            let content = Content { version, writer, size, stamp, mtime: (size as i64, 0) };
            Side { content, beside, hash: None }
        },
    );
    let word = (number(), number()).prop_map(|(made, generation)| Word { made, generation });
    (word, prop::collection::vec(side, 0..4), vector(), 0u32..4).prop_map(|(word, sides, outcome, holds)| {
        Decision { word, choice: Choice::Newest, sides, outcome, holds }
    })
}

fn op() -> impl Strategy<Value = Op> {
    let xattr = prop::sample::select(
        [&b"user.a"[..], b"user.", b"trusted.nearbrick", b"system.posix_acl_access", b"security.x"]
            .map(<[u8]>::to_vec)
            .to_vec(),
    );
    let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..60));
    prop_oneof![
        4 => (brick(), kind(), attr(), place(), prop::collection::vec(brick(), 0..4))
            .prop_map(|(brick, kind, attr, place, replicas)| Op::Create { brick, kind, attr, place, replicas }),
        2 => place().prop_map(Op::Link),
        2 => (link(), place()).prop_map(|(link, place)| Op::Move { link, place }),
        2 => (link(), vector()).prop_map(|(link, seen)| Op::Unlink { link, seen }),
        1 => attr().prop_map(Op::SetAttr),
        1 => (xattr, value).prop_map(|(name, value)| Op::SetXattr { name, value }),
        1 => brick().prop_map(|brick| Op::Dirty { brick }),
        1 => brick().prop_map(|brick| Op::Clean { brick }),
        3 => (brick(), vector(), number(), number(), any::<bool>()).prop_map(|(brick, version, size, sec, still_dirty)| {
            Op::Content { brick, version, size, mtime_sec: sec as i64, mtime_nsec: 0, still_dirty }
        }),
        2 => (brick(), vector()).prop_map(|(brick, version)| Op::Have { brick, version, hash: [7; 32] }),
        1 => brick().prop_map(|brick| Op::Drop { brick }),
        1 => prop::collection::vec(brick(), 0..4).prop_map(Op::Replicas),
        1 => (vector(), prop::option::of(file_id())).prop_map(|(loser, kept)| Op::Resolve { loser, kept }),
        1 => (file_id(), name()).prop_map(|(of, name)| Op::Kept { of, name }),
        1 => (brick(), decision()).prop_map(|(brick, decision)| Op::Decide { brick, decision }),
    ]
}

/// Entries of a few origins, mostly in order.
fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let one = (
        0u64..4,
        prop::option::weighted(0.1, number()),
        prop::option::weighted(0.1, number()),
        file_id(),
        op(),
    );
    prop::collection::vec(one, 1..40).prop_map(|list| {
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        let mut entries = Vec::new();
        for (n, (origin, seq, time, file, op)) in list.into_iter().enumerate() {
            let next = next.entry(origin).or_insert(1);
            let seq = seq.unwrap_or(*next);
            *next = (*next).max(seq.saturating_add(1));
            let time = time.unwrap_or((n as u64 + 1) << 16);
            entries.push(Entry { origin: Incarnation(origin), seq, time, file, op });
        }
        entries
    })
}

/// As it would come over the wire; none if it would not.
fn sent<T: Serialize + DeserializeOwned>(value: &T) -> Option<T> {
    wire::decode(&wire::encode(value))
}

/// Nothing beside the bricks is there that was not, and what was is as it was.
struct Outside<'a>(&'a Lab, BTreeMap<std::path::PathBuf, (u64, i64)>);

impl<'a> Outside<'a> {
    fn of(lab: &'a Lab) -> Self {
        fs::write(lab.dir.path().join("escaped"), b"not of the volume").unwrap();
        Outside(lab, Self::seen(lab))
    }

    fn seen(lab: &Lab) -> BTreeMap<std::path::PathBuf, (u64, i64)> {
        let mut seen = BTreeMap::new();
        let mut ahead = vec![lab.dir.path().to_owned()];
        while let Some(dir) = ahead.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let (path, meta) = entry.map(|e| (e.path(), e.path().symlink_metadata().unwrap())).unwrap();
                let is_data = (0..lab.count())
                    .any(|n| path == lab.data(n) || path == lab.brick_dir(n).join(".nearbrick"));
                if meta.is_dir() && !is_data {
                    ahead.push(path.clone());
                }
                if meta.is_file() {
                    seen.insert(path, (meta.len(), meta.mtime()));
                }
            }
        }
        seen
    }

    fn check(&self) {
        assert_eq!(Self::seen(self.0), self.1, "something outside the bricks was touched");
        assert!(!Path::new("/etc/escaped").exists());
    }
}

/// Programs can go on here.
fn goes_on(lab: &Lab, n: usize, name: &str) {
    let fs = Fs::new(lab.volume(n));
    fs.write_file(&path(name), b"written after that").unwrap();
    assert_eq!(fs.read_file(&path(name)).unwrap(), b"written after that");
    drop(fs);
    let _ = lab.volume(n).status();
    let lacks = lab.volume(n).entries_after(&Heads::new(), usize::MAX).unwrap();
    let ours: Incarnation = lab.volume(n).status().incarnation;
    for entry in lacks.iter().filter(|e| e.origin == ours) {
        assert_eq!(entry.check(), Ok(()), "what this brick says itself must be taken by others: {entry:?}");
        assert!(sent(entry).is_some(), "and be read by them: {entry:?}");
    }
}

#[test]
fn s01_any_entries_of_a_member_leave_a_volume_that_goes_on() {
    needs!(Root);
    check(48, &entries(), |entries| {
        let mut lab = Lab::new(1, 1);
        goes_on(&lab, 0, "mine");
        lab.settle(0);
        let outside = Outside::of(&lab);
        let heard: Vec<_> = entries.iter().filter_map(sent).collect();
        lab.volume(0).absorb(BrickId([9; 16]), heard).unwrap();
        outside.check();
        goes_on(&lab, 0, "after");
        lab.settle(0);
        lab.heal(0);
        Outside(&lab, Outside::seen(&lab)).check();
        lab.reopen(0);
        goes_on(&lab, 0, "later");
    });
}

#[test]
fn s01_any_answers_of_a_comparison_leave_a_volume_that_goes_on() {
    needs!(Root);
    let case = (entries(), prop::collection::vec(spoils(), 1..8));
    check(32, &case, |(entries, how)| {
        let lab = Lab::new(2, 2);
        for n in 0..2 {
            goes_on(&lab, n, &format!("of {n}"));
            lab.settle(n);
        }
        let heard: Vec<_> = entries.iter().filter_map(sent).collect();
        lab.volume(1).absorb(BrickId([9; 16]), heard).unwrap();
        let outside = Outside::of(&lab);
        let mut how = how.iter().cycle();
        let mut comparison = lab.volume(0).comparison(lab.brick(1));
        for _ in 0..200 {
            let Some(request) = comparison.request() else { break };
            let honest = wire::encode(&lab.volume(1).compared(&request).unwrap());
            let Some(reply) = wire::decode::<CompareReply>(&spoil(&honest, how.next().unwrap())) else {
                continue;
            };
            if reply.check(&request).is_err() {
                continue;
            }
            if comparison.answer(reply).is_err() {
                break;
            }
        }
        outside.check();
        goes_on(&lab, 0, "after");
    });
}

#[test]
fn s01_any_words_of_members_about_what_they_heard_leave_a_volume_that_goes_on() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    goes_on(&lab, 0, "mine");
    lab.settle(0);
    let heads = || prop::collection::btree_map((0u64..4).prop_map(Incarnation), number(), 0..4);
    let ack = (number(), 0u64..4, heads(), any::<u128>()).prop_map(|(at, life, heads, sum)| Ack {
        at,
        incarnation: Incarnation(life),
        heads,
        sum,
    });
    let acks = prop::collection::btree_map(brick(), ack, 0..4);
    check(64, &(acks, heads()), |(acks, heads)| {
        let volume = lab.volume(0);
        if let Some(acks) = sent::<Acks>(&acks).filter(wire::acks_are_bounded) {
            volume.acks(&acks);
        }
        volume.hinted(lab.brick(1), &heads);
        volume.is_behind(&heads);
        volume.entries_after(&heads, 1 << 20).unwrap();
        lab.compact_alone(0);
        goes_on(&lab, 0, "mine");
    });
}

/// Its own journal is stopped by an entry that nobody can take; a person has it say all again.
#[test]
fn an_entry_that_makes_no_sense_stops_its_journal_alone_and_a_person_can_have_all_said_again() {
    needs!(Root);
    let mut lab = Lab::new(3, 3);
    goes_on(&lab, 0, "before");
    lab.settle(0);
    lab.converge();
    lab.gossip(0, 1);
    // Written by a faulty agent: the brick's own index has it.
    let origin = lab.volume(0).status().incarnation;
    let seq = lab.volume(0).heads()[&origin] + 1;
    lab.close(0);
    let index = Index::open(&lab.brick_dir(0).join(".nearbrick/index")).unwrap();
    let op = Op::Link(Place { parent: FileId::ROOT, name: b"..".to_vec() });
    let mut batch = index.batch();
    batch.entry(&Entry { origin, seq, time: 1, file: FileId([7; 16]), op });
    batch.commit().unwrap();
    index.persist().unwrap();
    drop(index);
    lab.open(0);
    goes_on_but_for(&lab, 0, "stuck", seq);
    lab.settle(0);
    goes_on(&lab, 2, "of another");
    lab.settle(2);
    let take = |lab: &Lab, to: usize, from: usize| {
        lab.volume(to).absorb(lab.brick(from), lab.lacking(to, from)).unwrap();
    };
    take(&lab, 1, 0);
    take(&lab, 1, 2);
    let names = |lab: &Lab, n: usize| {
        let fs = Fs::new(lab.volume(n));
        ["before", "stuck", "of another"].map(|name| fs.stat(&path(name)).is_ok())
    };
    assert_eq!(names(&lab, 1), [true, false, true], "the others' journals are followed");
    let refused = lab.volume(1).status().refused;
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!((refused[0].origin, refused[0].brick, refused[0].seq), (origin, Some(lab.brick(0)), seq));
    // The word of a person, as the annotation brings it.
    assert!(!lab.volume(0).must_reopen());
    lab.say_again(0, &origin.to_string());
    assert!(lab.volume(0).must_reopen());
    lab.reopen(0);
    assert!(!lab.volume(0).must_reopen());
    lab.converge();
    (1..3).for_each(|n| lab.gossip(0, n));
    for n in 0..3 {
        assert_eq!(names(&lab, n), [true; 3], "member {n}");
        assert_eq!(lab.volume(n).status().refused, []);
    }
    assert_eq!(Fs::new(lab.volume(1)).read_file(&path("stuck")).unwrap(), b"written after that");
    lab.one_tree();
}

/// As [`goes_on`], at the brick that has the entry itself.
fn goes_on_but_for(lab: &Lab, n: usize, name: &str, seq: u64) {
    Fs::new(lab.volume(n)).write_file(&path(name), b"written after that").unwrap();
    assert!(lab.volume(n).heads().values().any(|head| *head > seq));
}

// --- the wire ---

/// One of each message, so that spoiling it reaches all of its fields.
fn messages() -> Vec<(&'static str, Vec<u8>)> {
    let version = VersionVector::from_iter([(Incarnation(3), 4), (Incarnation(9), 1)]);
    let heads = Heads::from([(Incarnation(1), 9), (Incarnation(u64::MAX), 3)]);
    let (file, brick) = (FileId([4; 16]), BrickId([1; 16]));
    let ack = Ack { at: 5, incarnation: Incarnation(1), heads: heads.clone(), sum: 7 };
    vec![
        ("journal", wire::encode(&JournalRequest { cursors: heads.clone() })),
        ("hint", wire::encode(&Hint { brick: BrickId([2; 16]), heads: heads.clone() })),
        ("acks", wire::encode(&Acks::from([(brick, ack)]))),
        (
            "compare",
            wire::encode(&CompareRequest::Leaves { leaves: vec![[1, 2], [1, 3]], after: Some(file) }),
        ),
        ("compare", wire::encode(&CompareRequest::Objects(vec![file, FileId::ROOT]))),
        (
            "fetch",
            wire::encode(&FetchRequest { items: vec![FetchItem { file, version: version.clone() }; 2] }),
        ),
        ("read", wire::encode(&ReadRequest { file, version: version.clone(), offset: 3, len: 9 })),
        ("chunks", wire::encode(&ChunksRequest { file, version: version.clone() })),
        ("ranges", wire::encode(&RangesRequest { file, version, ranges: vec![(0, 5), (9, 2)] })),
    ]
}

/// Reads what a message of this kind may be, with what is checked of it; what is taken is written as it was read.
fn read_as<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let value = wire::decode::<T>(bytes)?;
    assert_eq!(sent(&value).as_ref(), Some(&value), "what is read can be written and read again");
    Some(value)
}

fn read_as_everything(bytes: &[u8]) {
    read_as::<JournalRequest>(bytes);
    read_as::<Hint>(bytes);
    read_as::<FetchRequest>(bytes);
    read_as::<ReadRequest>(bytes);
    read_as::<ChunksRequest>(bytes);
    read_as::<RangesRequest>(bytes).and_then(|r| r.total());
    read_as::<Acks>(bytes).as_ref().map(wire::acks_are_bounded);
    if let Some(request) = read_as::<CompareRequest>(bytes) {
        request.is_bounded();
    }
    if let Some(reply) = read_as::<CompareReply>(bytes) {
        let asked = [
            CompareRequest::Top,
            CompareRequest::Under(vec![0]),
            CompareRequest::Objects(vec![FileId::ROOT]),
        ];
        asked.iter().filter(|request| reply.check(request).is_ok()).for_each(drop);
    }
    for entry in read_as::<JournalReply>(bytes).into_iter().flat_map(|reply| reply.entries) {
        if entry.check().is_ok() {
            let mut object = Object::default();
            object.apply(&entry);
            object.merge(object.clone());
            assert_eq!(object.check(entry.file), Ok(()), "a state of good entries is good: {entry:?}");
        }
    }
    Mark::from_bytes(bytes);
    let _ = postcard::from_bytes::<Ask>(bytes);
    let _ = postcard::from_bytes::<Answer>(bytes);
    let _ = postcard::from_bytes::<Local>(bytes);
}

#[test]
fn s01_any_bytes_are_a_message_or_none() {
    let bytes = prop::collection::vec(any::<u8>(), 0..400);
    check(2000, &bytes, |bytes| read_as_everything(&bytes));
    let object = |entries: &[Entry]| {
        let mut object = Object::default();
        entries.iter().for_each(|e| object.apply(e));
        object
    };
    let case = (entries(), spoils(), any::<prop::sample::Index>());
    check(1500, &case, |(entries, how, which)| {
        let mut all: Vec<Vec<u8>> = messages().into_iter().map(|(_, bytes)| bytes).collect();
        let objects = vec![(FileId([1; 16]), object(&entries))];
        all.push(wire::encode(&CompareReply::Objects { objects, answered: 1 }));
        all.push(wire::encode(&JournalReply { entries, heads: Heads::new(), behind: false }));
        all.push(
            Mark::new(FileId([1; 16]), Some(VersionVector::from_iter([(Incarnation(3), 4)]))).to_bytes(),
        );
        read_as_everything(&spoil(&all[which.index(all.len())], &how));
    });
}

/// A stream of two files, a list of chunks, and a failure.
fn streams() -> [Vec<u8>; 2] {
    let version = peer_common::version(1);
    let (mut files, mut list) = (bytes::BytesMut::new(), bytes::BytesMut::new());
    for n in [1, 2] {
        frame::put_begin(&mut files, peer_common::file(n), &version, 4 + (1 << 20));
        frame::put_data_with(&mut files, 4, |space| {
            space.copy_from_slice(b"data");
            Ok::<_, ()>(4)
        })
        .unwrap();
        frame::put_hole(&mut files, 1 << 20);
        let mut hash = blake3::Hasher::new();
        hash.update(b"data").update(&vec![0; 1 << 20]);
        frame::put_end(&mut files, hash.finalize().as_bytes());
    }
    frame::put_begin(&mut list, peer_common::file(1), &version, (4 << 10) + 9);
    frame::put_pieces(
        &mut list,
        4 << 10,
        &[Piece::Data { len: 4 << 10, hash: [5; 16] }, Piece::Hole { len: 9 }],
    );
    frame::put_end(&mut list, &[3; 32]);
    [files.to_vec(), list.to_vec()]
}

#[test]
fn s01_any_bytes_are_frames_or_the_end_of_a_stream() {
    let case = (prop::collection::vec(any::<u8>(), 0..200), spoils(), 0usize..3, 1usize..64);
    check(3000, &case, |(random, how, which, step)| {
        let [files, list] = streams();
        let bytes = vec![random, spoil(&files, &how), spoil(&list, &how)].swap_remove(which);
        let mut decoder = Decoder::default();
        let mut carried = 0;
        'stream: for part in bytes.chunks(step) {
            decoder.push(part);
            loop {
                match decoder.next_frame() {
                    Ok(Some(Frame::Data(data))) => carried += data.len(),
                    Ok(Some(Frame::Pieces { pieces, .. })) => assert!(pieces.len() <= bytes.len()),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(why) => {
                        assert!(!why.to_string().contains('\n'));
                        break 'stream;
                    }
                }
            }
        }
        assert!(carried <= bytes.len());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn s01_any_answers_of_a_peer_are_taken_or_refused() {
    let ca = Ca::new();
    let liar = Liar::new(&ca, Vec::new(), 0).await;
    let me = peer_common::brick(2);
    let (client, _) = client(ca.tls("ws-b"), me, &[(peer_common::brick(1), "ws-a", &liar.address)]);
    let handle = tokio::runtime::Handle::current();
    let says = liar.says.clone();
    let asking = tokio::task::spawn_blocking(move || {
        let case = (prop::collection::vec(any::<u8>(), 0..200), spoils(), 0usize..3, any::<bool>());
        check(120, &case, |(random, how, which, announced)| {
            let [files, list] = streams();
            let bytes = vec![random, spoil(&files, &how), spoil(&list, &how)].swap_remove(which);
            let len = if announced { bytes.len() } else { bytes.len() + 7 };
            *says.lock().unwrap() = (bytes.clone(), len);
            let (file, version, from) =
                (peer_common::file(1), peer_common::version(1), peer_common::brick(1));
            client.alive(from);
            let mut sink = Sink::default();
            let items = [1, 2].map(|n| FetchItem { file: peer_common::file(n), version: version.clone() });
            let fetched = client.fetch(from, &items, &mut sink);
            assert!(fetched.is_err() || announced, "what was cut is no success");
            // What was said to be at its end has the hash, and was begun; a sink never has two at once.
            for (n, told) in sink.told.iter().enumerate() {
                if let Told::Begin(_, version, size) = told {
                    assert!(version.includes(&items[0].version) && *size <= i64::MAX as u64);
                    assert!(n == 0 || matches!(sink.told[n - 1], Told::End(..) | Told::Failed(..)));
                }
            }
            client.alive(from);
            let read = client.read(file, &version, 0, 16, &[from]);
            assert!(read.is_err() || read.unwrap().1.len() <= 16);
            client.alive(from);
            if let Ok(Some(list)) = client.chunks(from, file, &version) {
                assert_eq!(list.pieces.iter().map(Piece::len).sum::<u64>(), list.size);
            }
            client.alive(from);
            let wanted = RangesRequest { file, version, ranges: vec![(0, 4)] };
            let _ = client.ranges(from, &wanted, &mut Sink::default());
            for verb in ["journal", "compare", "acks"] {
                client.alive(from);
                handle.block_on(async {
                    match verb {
                        "journal" => drop(client.journal(from, Heads::new()).await),
                        "compare" => drop(client.compare(from, &CompareRequest::Top).await),
                        _ => drop(client.acks(from, &Acks::new()).await),
                    }
                });
            }
        });
    });
    asking.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s01_any_requests_of_a_peer_are_answered_or_refused() {
    let ca = Ca::new();
    let volume = Memory::new(
        peer_common::brick(1),
        &[("ws-a", peer_common::brick(1)), ("ws-b", peer_common::brick(2))],
    );
    volume.add(peer_common::file(4), peer_common::version(1), b"some bytes", 10);
    let server = start(ca.tls("ws-a"), volume.clone(), Limits::default()).await;
    let raw = Raw::connect(&ca, &server).await;
    let handle = tokio::runtime::Handle::current();
    let asking = tokio::task::spawn_blocking(move || {
        let raw = std::sync::Mutex::new(raw);
        let case = (any::<prop::sample::Index>(), spoils());
        check(300, &case, |(which, how)| {
            let all = messages();
            let (verb, bytes) = &all[which.index(all.len())];
            let body = spoil(bytes, &how);
            let mut raw = raw.lock().unwrap();
            let status = handle.block_on(async {
                use http_body_util::BodyExt;
                let answer = raw.post(&peer_common::path(verb), body).await;
                let status = answer.status();
                // A stream that says that it failed is whole all the same.
                answer.into_body().collect().await.unwrap();
                status
            });
            // A comparison is more than this volume can do.
            let fine = [200, 204, 400, 403].contains(&status.as_u16()) || *verb == "compare" && status == 500;
            assert!(fine, "{verb}: {status}");
        });
    });
    asking.await.unwrap();
    let (client, _) = client(
        ca.tls("ws-b"),
        peer_common::brick(2),
        &[(peer_common::brick(1), "ws-a", &server.address.to_string())],
    );
    client.journal(peer_common::brick(1), Heads::new()).await.unwrap();
}

#[test]
fn s08_any_bytes_are_a_certificate_of_a_node_or_none() {
    let ca = Ca::new();
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let pem = fs::read(ca.issue("ws-a").join("tls.crt")).unwrap();
    let good = CertificateDer::from_pem_slice(&pem).unwrap();
    assert_eq!(node_of(&good).unwrap().0, "ws-a");
    check(2000, &spoils(), |how| {
        let name = node_of(&CertificateDer::from(spoil(&good, &how)));
        if let Ok((name, _)) = name {
            assert!(nearbrick_agent::peer::tls::is_node_name(&name), "{name}");
        }
    });
    let random = prop::collection::vec(any::<u8>(), 0..300);
    check(1000, &random, |bytes| assert!(node_of(&CertificateDer::from(bytes)).is_err()));
}
