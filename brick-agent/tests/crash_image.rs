//! The power is cut for real: the image of the brick's disk is copied in one moment while programs work, and the agent
//! is started on the copy, as its own file system recovers it. All that was fsynced before is there.

#![allow(clippy::unwrap_used)]

mod peer_common;
mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustix::mount::{UnmountFlags, unmount};

use peer_common::Ca;
use support::agent::{Machine, within};
use support::disk::TestDir;
use support::wait;

const PROGRAMS: usize = 3;
/// Things that are fsynced before the power is cut.
const ENOUGH: usize = 150;

/// Runs it; false, with a line that says why, if that does not work here.
fn does(program: &str, args: &[&str], paths: &[&Path]) -> bool {
    match Command::new(program).args(args).args(paths).output() {
        Ok(out) if out.status.success() => true,
        Ok(out) => {
            println!("left out: {program}: {}", String::from_utf8_lossy(&out.stderr).trim());
            false
        }
        Err(error) => {
            println!("left out: {program}: {error}");
            false
        }
    }
}

fn image(at: &Path, bytes: u64) {
    File::create(at).unwrap().set_len(bytes).unwrap();
}

/// What was fsynced, by its name in the volume. Files only grow.
type Synced = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Appends to a log and makes files, and fsyncs all of it.
fn program(n: usize, at: &Path, synced: &Synced, stop: &AtomicBool) {
    let dir = at.join(format!("p{n}"));
    fs::create_dir(&dir).unwrap();
    let name = format!("p{n}/log");
    let mut log = File::create(at.join(&name)).unwrap();
    File::open(at).unwrap().sync_all().unwrap();
    File::open(&dir).unwrap().sync_all().unwrap();
    let mut bytes = Vec::new();
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let more = format!("{n}:{round} ").repeat(1 + round % 300);
        log.write_all(more.as_bytes()).unwrap();
        log.sync_data().unwrap();
        bytes.extend_from_slice(more.as_bytes());
        synced.lock().unwrap().insert(name.clone(), bytes.clone());
        // As an editor saves: beside it, and renamed.
        let (made, saved) = (dir.join("saved.new"), format!("p{n}/saved-{}", round / 2));
        fs::write(&made, &more).unwrap();
        File::open(&made).unwrap().sync_all().unwrap();
        fs::rename(&made, at.join(&saved)).unwrap();
        File::open(&dir).unwrap().sync_all().unwrap();
        if round % 2 == 1 {
            synced.lock().unwrap().insert(saved, more.into_bytes());
        }
    }
}

fn cut(make: &[&str], options: &str) {
    let dir = TestDir::new();
    let (outer, disk) = (dir.dir("outer"), dir.dir("disk"));
    let around = dir.path().join("around.img");
    image(&around, 2 << 30);
    // Copies in one moment need a file system that shares blocks.
    if !does("mkfs.xfs", &["-q", "-m", "reflink=1"], &[&around])
        || !does("mount", &["-o", "loop"], &[&around, &outer])
    {
        return;
    }
    let (running, copy) = (outer.join("running.img"), outer.join("copy.img"));
    image(&running, 512 << 20);
    if !does(make[0], &make[1..], &[&running]) || !does("mount", &["-o", "loop"], &[&running, &disk]) {
        return;
    }
    let ca = Ca::new();
    let mut m = Machine::on(dir, disk.join("brick"), ca.issue("ws-a"), &[]);
    m.start();
    m.wait_mounted();
    let (synced, stop) = (Synced::default(), Arc::new(AtomicBool::new(false)));
    let programs: Vec<_> = (0..PROGRAMS)
        .map(|n| {
            let (at, synced, stop) = (m.at(), synced.clone(), stop.clone());
            std::thread::spawn(move || program(n, &at, &synced, &stop))
        })
        .collect();
    wait("the programs have fsynced enough", || {
        synced.lock().unwrap().len() >= ENOUGH || programs.iter().any(std::thread::JoinHandle::is_finished)
    });
    let before = synced.lock().unwrap().clone();
    let copied = does("cp", &["--reflink=always"], &[&running, &copy]);
    stop.store(true, Ordering::Relaxed);
    within("the programs end", move || programs.into_iter().for_each(|p| p.join().unwrap()));
    m.terminate();
    unmount(&disk, UnmountFlags::NOFOLLOW).unwrap();
    assert!(copied && does("mount", &["-o", options], &[&copy, &disk]), "the copy is no disk");

    m.lose_power();
    m.start();
    wait("it is mounted again", || m.log().matches("mounted volume=").count() == 2);
    assert!(before.len() >= ENOUGH);
    for (name, bytes) in &before {
        let file = File::open(m.at().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut now = vec![0; bytes.len()];
        file.read_exact_at(&mut now, 0).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(now == *bytes, "{name} is not what was fsynced");
    }
    let conflicts = |dir: &Path| {
        let entries = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        entries.filter(|name| name.contains("(conflict")).collect::<Vec<_>>()
    };
    for n in 0..PROGRAMS {
        assert_eq!(conflicts(&m.at().join(format!("p{n}"))), Vec::<String>::new());
    }
    // It goes on as any other.
    fs::write(m.at().join("after"), b"after").unwrap();
    m.terminate();
    assert_eq!(fs::read(m.data().join("after")).unwrap(), b"after");
}

#[test]
fn t28_what_was_fsynced_is_on_a_disk_whose_power_was_cut_xfs() {
    needs!(Fuse);
    cut(&["mkfs.xfs", "-q"], "loop,nouuid");
}

#[test]
fn t28_what_was_fsynced_is_on_a_disk_whose_power_was_cut_ext4() {
    needs!(Fuse);
    cut(&["mkfs.ext4", "-q"], "loop");
}
