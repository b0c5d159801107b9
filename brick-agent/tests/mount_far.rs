//! What waits for peers does not hold up what needs none.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, OpenOptions};
use std::sync::mpsc::channel;

use support::mounts::MountedLab;
use support::{LIMIT, wait};

const A: usize = 0;
const B: usize = 1;
/// Many times the threads that serve requests in these tests.
const OPENS: usize = 40;

#[test]
fn local_calls_go_on_while_dozens_of_opens_wait_for_silent_peers() {
    needs!(Fuse);
    for passthrough in [true, false] {
        let m = MountedLab::new(2, 1, passthrough);
        for n in 0..OPENS {
            fs::write(m.path(A, format!("f{n}")), format!("of A: {n}")).unwrap();
        }
        m.lab.settle(A);
        m.lab.exchange();
        m.lab.net.set_silent(true);
        let waiting: Vec<_> = (0..OPENS)
            .map(|n| {
                let path = m.path(B, format!("f{n}"));
                std::thread::spawn(move || {
                    OpenOptions::new().read(true).write(true).open(&path).map(drop).unwrap();
                    fs::read_to_string(path).unwrap()
                })
            })
            .collect();
        wait("all of them wait", || m.lab.net.waiting() == OPENS);

        let (done, is_done) = channel();
        let at = m.at(B).to_owned();
        let local = std::thread::spawn(move || {
            for n in 0..50 {
                let path = at.join(format!("local-{n}"));
                fs::write(&path, b"here").unwrap();
                assert_eq!(fs::read(&path).unwrap(), b"here");
                fs::rename(&path, at.join("renamed")).unwrap();
            }
            assert_eq!(fs::read_dir(&at).unwrap().count(), OPENS + 1);
            // Emptied, so nothing of it is needed.
            fs::write(at.join("f1"), b"").unwrap_or_else(|e| panic!("{e}"));
            done.send(()).unwrap();
        });
        let went_on = is_done.recv_timeout(LIMIT);
        let still = m.lab.net.waiting();
        m.lab.net.set_silent(false);
        went_on.expect("local calls wait for peers that nobody asked");
        local.join().unwrap();
        assert_eq!(still, OPENS, "they were waiting all the time");
        for (n, open) in waiting.into_iter().enumerate() {
            let text = open.join().unwrap();
            assert_eq!(text, if n == 1 { String::new() } else { format!("of A: {n}") });
        }
    }
}
