//! Two processes on one file of a mounted volume: locks, appends, shared mappings, pipes and sockets
//! work between them as on a local file system.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use support::child::{self, Other};
use support::locks::{Of, try_lock, unlock};
use support::mapping::SharedMapping;
use support::mounts::MountedLab;

fn both(work: impl Fn(&MountedLab)) {
    for passthrough in [true, false] {
        println!("passthrough wanted: {passthrough}");
        work(&MountedLab::new(1, 1, passthrough));
    }
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

const PAGES: usize = 4 * 4096;
const RECORDS: usize = 2000;

/// One line of a log, of one length.
fn record(who: &str, n: usize) -> String {
    format!("{who} {n:08} {}\n", "x".repeat(n % 50 + 1))
}

fn append(path: &Path, who: &str) {
    let mut log = OpenOptions::new().append(true).open(path).unwrap();
    (0..RECORDS).for_each(|n| log.write_all(record(who, n).as_bytes()).unwrap());
}

fn its<'a>(held: &'a mut Option<File>, path: &Path) -> &'a File {
    held.get_or_insert_with(|| open(path))
}

/// What the other process does.
#[test]
#[ignore = "no test: the tests of this file start it as their other process"]
fn child() {
    let mut held: Option<File> = None;
    let mut mapping: Option<SharedMapping> = None;
    child::serve(|path, order| {
        let said = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let words: Vec<_> = order.split(' ').collect();
        match words.as_slice() {
            ["flock"] => {
                match rustix::fs::flock(its(&mut held, path), FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => said(true),
                    Err(Errno::WOULDBLOCK) => said(false),
                    Err(error) => error.to_string(),
                }
            }
            ["flock-wait"] => {
                said(rustix::fs::flock(its(&mut held, path), FlockOperation::LockExclusive).is_ok())
            }
            ["unflock"] => said(rustix::fs::flock(its(&mut held, path), FlockOperation::Unlock).is_ok()),
            ["lock", of, start, len] => {
                let of = if *of == "process" { Of::Process } else { Of::Description };
                said(try_lock(its(&mut held, path), of, start.parse().unwrap(), len.parse().unwrap()))
            }
            ["close"] => {
                held = None;
                said(true)
            }
            ["append", who] => {
                append(path, who);
                said(true)
            }
            ["map"] => {
                mapping = Some(SharedMapping::new(its(&mut held, path), PAGES).unwrap());
                held = None;
                said(true)
            }
            ["store", at, text] => {
                mapping.as_ref().unwrap().write(at.parse().unwrap(), text.as_bytes());
                said(true)
            }
            ["load", at, len] => {
                let bytes = mapping.as_ref().unwrap().read(at.parse().unwrap(), len.parse().unwrap());
                String::from_utf8(bytes).unwrap()
            }
            ["unmap"] => {
                mapping = None;
                said(true)
            }
            ["pipe", text] => {
                OpenOptions::new().write(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
                said(true)
            }
            ["connect"] => {
                let mut stream = UnixStream::connect(path).unwrap();
                stream.write_all(b"hello\n").unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            }
            _ => panic!("no such order: {order}"),
        }
    });
}

#[test]
fn t33_flock_between_two_processes() {
    needs!(Fuse);
    both(|m| {
        let path = m.path(0, "f");
        fs::write(&path, b"x").unwrap();
        let mine = open(&path);
        let mut other = Other::new(&path);
        rustix::fs::flock(&mine, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(other.ask("flock"), "no");
        // Another name of the file is the same file; another file is not.
        fs::hard_link(&path, m.path(0, "g")).unwrap();
        let mut by_link = Other::new(&m.path(0, "g"));
        assert_eq!(by_link.ask("flock"), "no");
        other.tell("flock-wait");
        rustix::fs::flock(&mine, FlockOperation::Unlock).unwrap();
        assert_eq!(other.answer(), "yes");
        let refused = rustix::fs::flock(&mine, FlockOperation::NonBlockingLockShared);
        assert_eq!(refused, Err(Errno::WOULDBLOCK));
        // The end of the other process is the end of its lock.
        drop(other);
        rustix::fs::flock(&mine, FlockOperation::NonBlockingLockExclusive).unwrap();
    });
}

#[test]
fn t33_fcntl_locks_between_two_processes() {
    needs!(Fuse);
    both(|m| {
        for of in [Of::Process, Of::Description] {
            let name = if matches!(of, Of::Process) { "process" } else { "description" };
            let path = m.path(0, name);
            fs::write(&path, b"0123456789").unwrap();
            let mine = open(&path);
            let mut other = Other::new(&path);
            assert!(try_lock(&mine, of, 2, 4));
            assert_eq!(other.ask(&format!("lock {name} 0 2")), "yes", "beside it");
            assert_eq!(other.ask(&format!("lock {name} 5 1")), "no", "in it");
            // A lock of a process and one of a description exclude each other too.
            assert_eq!(other.ask("lock process 4 1"), "no");
            assert_eq!(other.ask("lock description 4 1"), "no");
            assert!(!try_lock(&mine, of, 0, 3), "what the other one has");
            unlock(&mine, of, 5, 1);
            assert_eq!(other.ask(&format!("lock {name} 5 1")), "yes");
            other.ask("close");
            assert!(try_lock(&mine, of, 0, 0), "all of it");
        }
        let path = m.path(0, "two descriptions");
        fs::write(&path, b"").unwrap();
        let (a, b) = (open(&path), open(&path));
        assert!(try_lock(&a, Of::Description, 0, 0));
        assert!(!try_lock(&b, Of::Description, 0, 0), "of one process, but of two descriptions");
    });
}

#[test]
fn two_processes_append_and_nothing_is_lost() {
    needs!(Fuse);
    both(|m| {
        let path = m.path(0, "log");
        File::create(&path).unwrap();
        let mut other = Other::new(&path);
        other.tell("append other");
        append(&path, "mine");
        assert_eq!(other.answer(), "yes");
        let mut next = [("mine", 0), ("other", 0)];
        for line in BufReader::new(File::open(&path).unwrap()).lines() {
            let line = line.unwrap() + "\n";
            let (who, n) = next.iter_mut().find(|(who, _)| line.starts_with(who)).unwrap();
            assert_eq!(line, record(who, *n), "each process's records are whole and in order");
            *n += 1;
        }
        assert_eq!(next, [("mine", RECORDS), ("other", RECORDS)]);
    });
}

#[test]
fn a_mapping_is_shared_by_two_processes() {
    needs!(Fuse);
    both(|m| {
        let path = m.path(0, "shared");
        fs::write(&path, vec![b'.'; PAGES]).unwrap();
        let file = open(&path);
        let mine = SharedMapping::new(&file, PAGES).unwrap();
        let mut other = Other::new(&path);
        other.ask("map");
        mine.write(5000, b"ping");
        assert_eq!(other.ask("load 5000 4"), "ping");
        other.ask("store 9000 pong");
        assert_eq!(mine.read(9000, 4), b"pong");
        // What is written by write() is in the mappings, and the other way.
        use std::os::unix::fs::FileExt;
        file.write_all_at(b"write", 100).unwrap();
        assert_eq!(other.ask("load 100 5"), "write");
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, 9000).unwrap();
        assert_eq!(&bytes, b"pong");
        drop((mine, file));
        other.ask("store 0 last");
        other.ask("unmap");
        m.lab.settle(0);
        let on_disk = fs::read(m.lab.data(0).join("shared")).unwrap();
        assert_eq!((&on_disk[..4], &on_disk[5000..5004]), (&b"last"[..], &b"ping"[..]));
    });
}

#[test]
fn pipes_and_sockets_join_two_processes() {
    needs!(Fuse);
    both(|m| {
        let path = m.path(0, "fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        let mut other = Other::new(&path);
        other.tell("pipe through");
        assert_eq!(fs::read(&path).unwrap(), b"through");
        other.answer();

        let path = m.path(0, "socket");
        let listener = UnixListener::bind(&path).unwrap();
        let mut other = Other::new(&path);
        other.tell("connect");
        let (stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        assert_eq!(line, "hello\n");
        (&stream).write_all(b"and back").unwrap();
        drop(stream);
        assert_eq!(other.answer(), "and back");
    });
}
