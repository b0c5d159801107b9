//! What is read from the disk, and what the holder and an agent read from each other.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nearbrick_agent::brick::Brick;
use nearbrick_agent::brick::machine::MachineDisk;
use nearbrick_agent::config::VolumeConfig;
use nearbrick_agent::control::cache;
use nearbrick_agent::fuse::ledger::Ledger;
use nearbrick_agent::holder::wire::{Answer, Ask};
use nearbrick_agent::holder::{self, server::HoldOptions};
use nearbrick_agent::index::store::{FjallStores, Set, Stores, Table};
use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::support::fs::{Fs, path};
use super::support::members::Lab;
use super::support::random::{check, spoil, spoils};
use super::support::tree::{self, What};
use super::support::{self, wait_for};
use super::{goes_on, needs};

/// A brick with some files, closed.
fn closed() -> Lab {
    let mut lab = Lab::new(1, 1);
    let fs = Fs::new(lab.volume(0));
    fs.mkdir(&path("dir")).unwrap();
    fs.symlink(&path("link"), b"dir/b").unwrap();
    drop(fs);
    for name in ["a", "dir/b"] {
        goes_on(&lab, 0, name);
    }
    lab.settle(0);
    lab.close(0);
    lab
}

fn bytes_of(lab: &Lab) -> [Vec<u8>; 2] {
    ["a", "dir/b"].map(|name| fs::read(lab.data(0).join(name)).unwrap())
}

#[test]
fn any_bytes_in_the_index_are_read_or_refused_in_one_line() {
    needs!(Root);
    let case = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), spoils(), any::<bool>());
    check(48, &case, |(table, which, how, of_key)| {
        let lab = closed();
        let at = lab.brick_dir(0).join(".nearbrick/index");
        let before = bytes_of(&lab);
        {
            let store = FjallStores.open(&at).unwrap();
            let table = *table.get(&Table::ALL);
            let all: Vec<_> = store.prefix(table, &[]).map(Result::unwrap).collect();
            if all.is_empty() {
                return;
            }
            let (key, value) = which.get(&all).clone();
            let value = Some(if of_key { value.clone() } else { spoil(&value, &how).into() });
            let spoiled = if of_key { spoil(&key, &how).into() } else { key };
            if spoiled.is_empty() {
                return;
            }
            store.commit(vec![Set { table, key: spoiled, value }]).unwrap();
            store.persist().unwrap();
        }
        match lab.try_open(0) {
            Ok(volume) => {
                let _ = volume.status();
                volume.close();
            }
            Err(why) => assert!(!why.contains('\n') && why.len() < 400, "{why}"),
        }
        assert_eq!(bytes_of(&lab), before, "nothing in data/ was changed");
    });
}

#[test]
fn any_marks_are_read_or_passed_over_and_no_file_is_lost() {
    needs!(Root);
    let case = (spoils(), prop::collection::vec(any::<u8>(), 0..80), any::<bool>(), any::<bool>());
    check(32, &case, |(how, random, spoiled, lost)| {
        let lab = closed();
        let before = bytes_of(&lab);
        let marks = ["a", "dir", "dir/b"].map(|name| {
            let at = lab.data(0).join(name);
            let mut mark = [0; 200];
            let n = rustix::fs::getxattr(&at, "trusted.nearbrick", &mut mark[..]).unwrap();
            let value = if spoiled { spoil(&mark[..n], &how) } else { random.clone() };
            rustix::fs::setxattr(&at, "trusted.nearbrick", &value, rustix::fs::XattrFlags::empty()).unwrap();
            value
        });
        if lost {
            fs::remove_dir_all(lab.brick_dir(0).join(".nearbrick/index")).unwrap();
        } else {
            lab.lose_power(0);
        }
        let volume = lab.try_open(0).unwrap();
        // Who is taken for another may have another name.
        volume.close();
        let there =
            [lab.data(0), lab.brick_dir(0).join(".nearbrick/versions")].map(|dir| tree::of_disk(&dir).0);
        let there = there.iter().flat_map(|tree| tree.values());
        let same = there.filter(|entry| entry.what == What::File(before[0].clone()));
        // Ids are others in each run, so the marks themselves are what repeats it.
        assert!(same.count() >= 2, "the bytes of both are there, marks {marks:?}, index lost: {lost}");
    });
}

#[test]
fn any_bytes_are_an_identity_or_refused_and_nothing_is_changed() {
    needs!(Root);
    let lab = closed();
    let at = lab.brick_dir(0).join(".nearbrick/identity");
    let good = fs::read(&at).unwrap();
    let random = prop::collection::vec(any::<u8>(), 0..100);
    check(200, &(spoils(), random, any::<bool>()), |(how, random, spoiled)| {
        let bytes = if spoiled { spoil(&good, &how) } else { random };
        fs::write(&at, &bytes).unwrap();
        let identity: serde_json::Value = serde_json::from_slice(&good).unwrap();
        let volume = identity["volume"].as_str().unwrap().parse().unwrap();
        let opened = Brick::open(&MachineDisk, lab.brick_dir(0), volume, lab.brick(0), true, &|| 7);
        if let Err(why) = opened {
            let why = why.to_string();
            assert!(!why.contains('\n') && why.contains(&*lab.brick_dir(0).to_string_lossy()), "{why}");
        }
        assert_eq!(fs::read(&at).unwrap(), bytes);
    });
    // A pipe in its place holds up nothing, and a file without end takes no memory.
    let id = serde_json::from_slice::<serde_json::Value>(&good).unwrap()["volume"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    fs::remove_file(&at).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert!(Brick::open(&MachineDisk, lab.brick_dir(0), id, lab.brick(0), true, &|| 7).is_err());
    fs::remove_file(&at).unwrap();
    fs::File::create(&at).unwrap().set_len(1 << 40).unwrap();
    assert!(Brick::open(&MachineDisk, lab.brick_dir(0), id, lab.brick(0), true, &|| 7).is_err());
}

#[test]
fn any_bytes_are_a_configuration_or_left_out() {
    needs!(Root);
    let dir = tempfile::tempdir().unwrap();
    let brick = dir.path().join("lab/home");
    fs::create_dir_all(brick.join(".nearbrick")).unwrap();
    let lab = Lab::new(1, 1);
    let config = VolumeConfig {
        namespace: "lab".to_owned(),
        path: brick.clone(),
        ..(*lab.volume(0).config()).clone()
    };
    cache::save(dir.path(), &config).unwrap();
    let at = brick.join(".nearbrick/config.json");
    let good = fs::read(&at).unwrap();
    let random = prop::collection::vec(any::<u8>(), 0..100);
    check(300, &(spoils(), random, any::<bool>()), |(how, random, spoiled)| {
        fs::write(&at, if spoiled { spoil(&good, &how) } else { random }).unwrap();
        for found in cache::load_all(dir.path(), "ws-a") {
            assert_eq!(
                (found.path, found.node.as_str()),
                (brick.clone(), "ws-a"),
                "of no other place, of no other node"
            );
        }
    });
    fs::remove_file(&at).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(cache::load_all(dir.path(), "ws-a"), []);
    fs::remove_file(&at).unwrap();
    fs::File::create(&at).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(cache::load_all(dir.path(), "ws-a"), []);
}

fn join(dir: &Path) -> std::os::fd::OwnedFd {
    wait_for("the holder listens", || {
        let fd = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
        connect(&fd, &SocketAddrUnix::new(holder::socket(dir)).ok()?).ok()?;
        Some(fd)
    })
}

#[test]
fn any_packets_to_the_holder_cost_their_sender_the_connection_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let options = HoldOptions { run_dir: dir.path().to_owned(), wait: support::LIMIT, until_empty: false };
    // It runs to the end of this process.
    std::thread::spawn(move || holder::server::run(options));
    let good = join(dir.path());
    holder::wire::send(&good, &Ask::Hello { version: holder::wire::VERSION }, &[]).unwrap();
    assert_eq!(holder::wire::receive::<Answer>(&good).unwrap().unwrap().0, Answer::Done);
    let name = "lab/home".to_owned();
    let asks = [
        Ask::Keep { name: name.clone(), agreed: vec![1; 40] },
        Ask::Take { name: name.clone() },
        Ask::Orphan { name: name.clone(), node: 7 },
        Ask::Forget { name: name.clone(), node: 7 },
        Ask::End { name },
    ]
    .map(|ask| postcard::to_stdvec(&ask).unwrap());
    let random = prop::collection::vec(any::<u8>(), 1..100);
    check(
        200,
        &(any::<prop::sample::Index>(), spoils(), random, any::<bool>()),
        |(which, how, random, spoiled)| {
            let bytes = if spoiled { spoil(&asks[which.index(asks.len())], &how) } else { random };
            if bytes.is_empty() {
                return;
            }
            let other = join(dir.path());
            rustix::net::send(&other, &bytes, rustix::net::SendFlags::NOSIGNAL).unwrap();
        },
    );
    holder::wire::send(&good, &Ask::Take { name: "none".to_owned() }, &[]).unwrap();
    assert_eq!(holder::wire::receive::<Answer>(&good).unwrap().unwrap().0, Answer::Nothing);
}

#[test]
fn any_bytes_are_a_ledger_or_refused() {
    let memory =
        || fs::File::from(rustix::fs::memfd_create("hostile", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    let good = {
        let ledger = Ledger::new().unwrap();
        let file = fs::File::from(ledger.as_fd().try_clone_to_owned().unwrap());
        let mut bytes = vec![0; 64];
        file.read_exact_at(&mut bytes, 0).unwrap();
        // Slots that look like open files.
        let slot = bytes[..4].iter().copied().chain(1..=60).collect::<Vec<_>>();
        bytes.extend(slot.iter().chain(&slot));
        bytes
    };
    let random = prop::collection::vec(any::<u8>(), 0..300);
    check(500, &(spoils(), random, any::<bool>()), |(how, random, spoiled)| {
        let file = memory();
        file.write_all_at(&if spoiled { spoil(&good, &how) } else { random }, 0).unwrap();
        if let Ok((ledger, found)) = Ledger::resumed(file.into()) {
            found.iter().for_each(|entry| ledger.closed(entry.raw));
        }
    });
    let file = memory();
    file.write_all_at(&good, 0).unwrap();
    file.set_len(1 << 40).unwrap();
    assert!(Ledger::resumed(file.into()).is_err(), "it would be read for hours");
}
