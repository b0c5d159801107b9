//! The agent's end does not break the mount: what programs have open goes on, and calls wait.

#![allow(clippy::unwrap_used)]

mod peer_common;
mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::mount::{UnmountFlags, unmount};

use peer_common::Ca;
use support::agent::{Machine, within};
use support::mapping::SharedMapping;
use support::wait;

/// An agent that serves a volume, with passthrough and without.
fn both(args: &[&str], work: impl Fn(&mut Machine)) {
    let ca = Ca::new();
    for passthrough in [true, false] {
        println!("passthrough wanted: {passthrough}");
        let mut all = args.to_vec();
        if !passthrough {
            all.push("--no-passthrough");
        }
        let mut m = Machine::new(ca.issue("ws-a"), &all);
        m.start();
        m.wait_mounted();
        work(&mut m);
    }
}

fn rw(path: impl AsRef<Path>) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn text(file: &File) -> String {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn t28_what_programs_have_open_survives_a_kill_of_the_agent() {
    needs!(Fuse);
    both(&[], |m| {
        let at = m.at();
        fs::write(at.join("read"), b"to be read").unwrap();
        fs::create_dir(at.join("dir")).unwrap();
        for n in 0..1000 {
            File::create(at.join(format!("dir/{n}"))).unwrap();
        }
        let reads = File::open(at.join("read")).unwrap();
        let writes = rw(at.join("write"));
        writes.write_all_at(b"before ", 0).unwrap();
        let mut appends = OpenOptions::new().append(true).create(true).open(at.join("append")).unwrap();
        appends.write_all(b"one ").unwrap();
        let gone = rw(at.join("gone"));
        gone.write_all_at(b"without a name", 0).unwrap();
        fs::remove_file(at.join("gone")).unwrap();
        let replaced = rw(at.join("replaced"));
        replaced.write_all_at(b"the old one", 0).unwrap();
        fs::write(at.join("new"), b"the new one").unwrap();
        fs::rename(at.join("new"), at.join("replaced")).unwrap();
        let locked = rw(at.join("locked"));
        flock(&locked, FlockOperation::NonBlockingLockExclusive).unwrap();
        let mapped = rw(at.join("mapped"));
        mapped.set_len(4096).unwrap();
        let mapping = SharedMapping::new(&mapped, 4096).unwrap();
        mapping.write(0, b"mapped");
        let mut listing = fs::read_dir(at.join("dir")).unwrap();
        let first: BTreeSet<_> = listing.by_ref().take(300).map(|e| e.unwrap().file_name()).collect();
        let work_dir = File::open(at.join("dir")).unwrap();

        for round in 0..3 {
            m.kill();
            m.start();
            let (reads, writes) = (reads.try_clone().unwrap(), writes.try_clone().unwrap());
            let (gone, replaced) = (gone.try_clone().unwrap(), replaced.try_clone().unwrap());
            let (mut appending, locked) = (appends.try_clone().unwrap(), locked.try_clone().unwrap());
            let (work_dir, at) = (work_dir.try_clone().unwrap(), m.at());
            within("open files go on", move || {
                assert_eq!(text(&reads), "to be read");
                writes.write_all_at(b"after", 7 + 5 * round).unwrap();
                assert!(text(&writes).starts_with("before after"));
                writes.sync_all().unwrap();
                appending.write_all(b"more ").unwrap();
                gone.write_all_at(b"WITHOUT", 0).unwrap();
                assert_eq!(text(&gone), "WITHOUT a name");
                assert_eq!(gone.metadata().unwrap().nlink(), 0);
                assert_eq!(text(&replaced), "the old one");
                assert_eq!(fs::read(at.join("replaced")).unwrap(), b"the new one");
                let again = rw(at.join("locked"));
                let refused = flock(&again, FlockOperation::NonBlockingLockExclusive).unwrap_err();
                assert_eq!(refused, rustix::io::Errno::AGAIN);
                drop(locked);
                assert_eq!(
                    rustix::fs::statat(&work_dir, "999", rustix::fs::AtFlags::empty()).unwrap().st_size,
                    0
                );
            });
            wait("it was taken over", || m.takeovers() == round as usize + 1);
        }
        mapping.write(6, b" on");
        drop(mapping);
        drop(mapped);
        appends.write_all(b"last").unwrap();
        drop((reads, writes, appends, gone, replaced, locked, work_dir));
        let rest: BTreeSet<_> = listing.map(|e| e.unwrap().file_name()).collect();
        assert!(first.is_disjoint(&rest));
        assert_eq!(first.len() + rest.len(), 1000);
        // All is settled, nothing is held, and the plain files say the same.
        m.terminate();
        wait("the holder ends after the agent", || m.holder().is_none());
        let on_disk = |name: &str| String::from_utf8(fs::read(m.data().join(name)).unwrap()).unwrap();
        assert_eq!(on_disk("write"), "before afterafterafter");
        assert_eq!(on_disk("append"), "one more more more last");
        assert_eq!(on_disk("replaced"), "the new one");
        assert!(on_disk("mapped").starts_with("mapped on"));
        assert!(!m.data().join("gone").exists());
        assert_eq!(fs::read_dir(m.at()).unwrap().count(), 0, "nothing is mounted");
    });
}

#[test]
fn t28_calls_wait_for_the_next_agent_and_passthrough_does_not_even_wait() {
    needs!(Fuse);
    both(&[], |m| {
        let at = m.at();
        let file = rw(at.join("f"));
        file.write_all_at(b"first", 0).unwrap();
        let passes = m.log().contains("reads and writes are served");
        let through_kernel = !passes && !m.has_arg("--no-passthrough");
        m.kill();
        let calls: Vec<_> = [
            Box::new(|at: &Path| fs::create_dir(at.join("d")).unwrap()) as Box<dyn FnOnce(&Path) + Send>,
            Box::new(|at: &Path| fs::write(at.join("new"), b"new").unwrap()),
            Box::new(|at: &Path| symlink("f", at.join("s")).unwrap()),
            Box::new(|at: &Path| assert!(!at.join("missing").exists())),
            Box::new(|at: &Path| assert!(fs::read_dir(at).unwrap().count() >= 1)),
        ]
        .into_iter()
        .map(|call| {
            let at = at.clone();
            std::thread::spawn(move || call(&at))
        })
        .collect();
        if through_kernel {
            let file = file.try_clone().unwrap();
            within("reads and writes go on without any agent", move || {
                file.write_all_at(b"alone", 0).unwrap();
                let mut seen = [0; 5];
                file.read_exact_at(&mut seen, 0).unwrap();
                assert_eq!(&seen, b"alone");
            });
        }
        std::thread::park_timeout(Duration::from_millis(200));
        assert!(calls.iter().all(|call| !call.is_finished()), "they wait");
        m.start();
        within("calls that waited", move || calls.into_iter().for_each(|call| call.join().unwrap()));
        let at = m.at();
        within("the next calls", move || {
            assert_eq!(fs::read(at.join("new")).unwrap(), b"new");
            assert_eq!(fs::read_link(at.join("s")).unwrap(), Path::new("f"));
            assert!(at.join("d").is_dir());
        });
    });
}

#[test]
fn t28_a_program_that_waits_can_be_killed_and_a_person_can_unmount() {
    needs!(Fuse);
    both(&[], |m| {
        let at = m.at();
        m.kill();
        let mut waits = std::process::Command::new("ls").arg(at.join("missing")).spawn().unwrap();
        std::thread::park_timeout(Duration::from_millis(100));
        assert!(waits.try_wait().unwrap().is_none(), "it waits");
        waits.kill().unwrap();
        within("the killed program ends", move || waits.wait().unwrap());
        let lazily = at.clone();
        within("umount -l", move || unmount(&lazily, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).unwrap());
        wait("the holder lets go of what was unmounted", || m.holder().is_none());
        m.start();
        m.wait_mounted();
        within("the new mount", move || fs::write(at.join("f"), b"new").unwrap());
    });
}

#[test]
fn t28_after_the_limit_programs_get_an_error_and_the_next_agent_mounts_anew() {
    needs!(Fuse);
    both(&["--wait-seconds", "1"], |m| {
        let at = m.at();
        let file = rw(at.join("f"));
        file.write_all_at(b"kept", 0).unwrap();
        m.kill();
        let missing = at.join("missing");
        let error =
            within("an error instead of waiting for ever", move || fs::metadata(missing).unwrap_err());
        assert!(matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED)), "{error}");
        wait("the holder has nothing to hold", || m.holder().is_none());
        m.start();
        wait("it is mounted anew", || fs::read(at.join("f")).is_ok_and(|bytes| bytes == b"kept"));
        assert_eq!(m.takeovers(), 0);
        drop(file);
    });
}

#[test]
fn t28_an_upgrade_hands_the_mount_over() {
    needs!(Fuse);
    both(&["--hand-over"], |m| {
        let at = m.at();
        let mut file = rw(at.join("f"));
        file.write_all(b"before ").unwrap();
        m.terminate();
        assert!(m.holder().is_some());
        let waits = {
            let at = at.clone();
            std::thread::spawn(move || fs::write(at.join("g"), b"waited").unwrap())
        };
        m.start();
        within("the call that waited", move || waits.join().unwrap());
        let mut again = file.try_clone().unwrap();
        within("the open file", move || again.write_all(b"after").unwrap());
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut all = String::new();
        file.read_to_string(&mut all).unwrap();
        assert_eq!(all, "before after");
        wait("it was taken over", || m.takeovers() == 1);
        drop(file);
        // Nobody comes after this one: the holder is told what to do by its limit, here by the test's end.
        m.terminate();
    });
}

#[test]
fn t28_a_holder_that_dies_is_replaced() {
    needs!(Fuse);
    both(&[], |m| {
        let at = m.at();
        let gone = rw(at.join("gone"));
        gone.write_all_at(b"no name", 0).unwrap();
        fs::remove_file(at.join("gone")).unwrap();
        let file = rw(at.join("f"));
        file.write_all_at(b"one", 0).unwrap();
        m.kill_holder();
        fs::write(at.join("served"), b"the mount does not need it").unwrap();
        // The agent looks every few seconds.
        wait("another one keeps the mount", || m.log().contains("the holder is another one now"));
        m.kill();
        m.start();
        within("open files", move || {
            file.write_all_at(b"two", 3).unwrap();
            assert_eq!(text(&file), "onetwo");
            assert_eq!(text(&gone), "no name");
        });
        wait("it was taken over", || m.takeovers() == 1);
    });
}
