//! A disk that programs fill for real: what does not fit is refused, what was acknowledged stays, and when there is space again
//! work goes on, without anyone's help.

#![allow(clippy::unwrap_used)]

mod peer_common;
mod support;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use peer_common::Ca;
use support::agent::{Machine, within};
use support::disk::{Disk, TestDir};
use support::wait;

/// Files that are made on the full disk, at most.
const MOST: usize = 20_000;

fn write_synced(at: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(at)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Appends until the disk takes no more.
fn fill(at: &Path) -> io::Error {
    let mut file = File::create(at).unwrap();
    let block = vec![7; 1 << 20];
    loop {
        if let Err(error) = file.write_all(&block) {
            return error;
        }
    }
}

fn filled(kind: Disk) {
    let dir = TestDir::new();
    let Some(disk) = dir.disk("disk", kind) else { return };
    let ca = Ca::new();
    let mut m = Machine::on(dir, disk.join("brick"), ca.issue("ws-a"), &[]);
    m.start();
    m.wait_mounted();
    let at = m.at();
    let kept: Vec<(String, Vec<u8>)> = within("the disk is filled", {
        let at = at.clone();
        move || {
            write_synced(&at.join("before"), b"before").unwrap();
            let full = fill(&at.join("large"));
            assert!(is_full(&full), "{full}");
            let mut kept = vec![("before".to_owned(), b"before".to_vec())];
            for n in 0..MOST {
                let (name, bytes) = (format!("small-{n}"), format!("{n} ").repeat(1000).into_bytes());
                match write_synced(&at.join(&name), &bytes) {
                    Ok(()) => kept.push((name, bytes)),
                    Err(error) if is_full(&error) => return kept,
                    Err(error) => panic!("{name}: {error}"),
                }
            }
            panic!("the disk is not full after {MOST} files");
        }
    });
    println!("{} files were acknowledged", kept.len());
    // A person makes room.
    wait("something can be removed", || {
        fs::remove_file(at.join("large")).is_ok() || !at.join("large").exists()
    });
    wait("there is room again", || write_synced(&at.join("after"), b"after").is_ok());
    let is_there = |m: &Machine| {
        for (name, bytes) in &kept {
            let now = fs::read(m.at().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(now == *bytes, "{name} is not what was acknowledged");
        }
        assert_eq!(fs::read(m.at().join("after")).unwrap(), b"after");
    };
    is_there(&m);
    m.terminate();
    let before = m.log().matches("mounted volume=").count();
    m.start();
    wait("it is mounted again", || m.log().matches("mounted volume=").count() > before);
    is_there(&m);
    fs::write(m.at().join("later"), b"later").unwrap();
    m.terminate();
}

#[test]
fn t23_a_full_disk_of_ext4_goes_on_when_there_is_room() {
    needs!(Fuse);
    filled(Disk::Ext4);
}

#[test]
fn t23_a_full_disk_of_xfs_goes_on_when_there_is_room() {
    needs!(Fuse);
    filled(Disk::Xfs);
}

/// Nothing was left of the reserve, and a commit failed: nobody knows what of it is on the disk.
#[test]
fn t23_an_agent_whose_index_takes_no_more_begins_anew_when_there_is_room() {
    needs!(Fuse);
    let dir = TestDir::new();
    let Some(disk) = dir.disk("disk", Disk::Ext4) else { return };
    let ca = Ca::new();
    let mut m = Machine::on(dir, disk.join("brick"), ca.issue("ws-a"), &[]);
    m.start();
    m.wait_mounted();
    let (at, others) = (m.at(), disk.join("others"));
    write_synced(&others, &vec![1; 64 << 20]).unwrap();
    let open = File::create(at.join("open")).unwrap();
    let kept = within("the disk is filled", {
        let (at, reserve) = (at.clone(), disk.join("brick/.nearbrick/reserve"));
        move || {
            let full = fill(&at.join("large"));
            assert!(is_full(&full), "{full}");
            File::options().write(true).open(reserve).unwrap().set_len(0).unwrap();
            fill(&at.join("large-2"));
            let name = |n| format!("small-{n}");
            let made = |n: &usize| write_synced(&at.join(name(*n)), &vec![b'x'; 30_000]).is_ok();
            let kept: Vec<String> = (0..MOST).take_while(made).map(name).collect();
            // Until the index is stuck: with each of these it has something to say.
            (0..MOST)
                .take_while(|n| {
                    fs::rename(at.join("large"), at.join(format!("large~{n}")))
                        .and_then(|()| fs::rename(at.join(format!("large~{n}")), at.join("large")))
                        .is_ok()
                })
                .count();
            kept
        }
    });
    assert_eq!(m.log().matches("begins anew").count(), 0);
    fs::remove_file(&others).unwrap();
    wait("the agent begins anew", || m.takeovers() == 1);
    within("work goes on", move || {
        (&open).write_all(b"goes on").unwrap();
        open.sync_all().unwrap();
        assert_eq!(fs::read(at.join("open")).unwrap(), b"goes on");
        for name in kept {
            assert_eq!(fs::read(at.join(&name)).unwrap(), vec![b'x'; 30_000], "{name}");
        }
        write_synced(&at.join("after"), b"after").unwrap();
    });
    m.terminate();
}
