//! How fast small files are made on a mount, against the same disk without it. Prints figures and asserts none: `NEARBRICK_MEASURE=FILES`, the
//! number of files in each round; `NEARBRICK_MEASURE_THREADS=N`. On the file system of the temporary directory (`TMPDIR`).

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Instant;

use support::mounts::MountedLab;

const ROUNDS: usize = 5;

/// Files per second, of `count` that this many threads make, each in a directory of its own.
fn made(at: &Path, count: usize, threads: usize) -> f64 {
    let bytes = [7; 4096];
    for thread in 0..threads {
        fs::create_dir_all(at.join(format!("t{thread}"))).unwrap();
    }
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let dir = at.join(format!("t{thread}"));
                for n in 0..count / threads {
                    File::create_new(dir.join(format!("f{n}"))).unwrap().write_all(&bytes).unwrap();
                }
            });
        }
    });
    count as f64 / began.elapsed().as_secs_f64()
}

/// Questions per second that the kernel asks the agent, and for which the agent asks the disk once: for an attribute that is not there.
fn questions(at: &Path, count: usize) -> f64 {
    let began = Instant::now();
    for _ in 0..count {
        let mut value = [0; 16];
        assert!(rustix::fs::getxattr(at, "user.none", &mut value[..]).is_err());
    }
    count as f64 / began.elapsed().as_secs_f64()
}

#[test]
fn creates() {
    needs!(Fuse);
    let env = |name| std::env::var(name).ok().and_then(|text| text.parse::<usize>().ok());
    let Some(count) = env("NEARBRICK_MEASURE") else {
        println!("left out: set NEARBRICK_MEASURE=FILES");
        return;
    };
    let threads = env("NEARBRICK_MEASURE_THREADS").unwrap_or(1);
    let lab = MountedLab::new(1, 1, true);
    let beside = lab.lab.brick_dir(0).parent().unwrap().join("beside");
    let (mut on_disk, mut on_mount, mut asked) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        on_disk.push(made(&beside.join(format!("r{round}")), count, threads));
        on_mount.push(made(&lab.path(0, format!("r{round}")), count, threads));
        asked.push(questions(&lab.path(0, format!("r{round}/t0/f0")), count));
    }
    for (what, all) in [
        ("made on the disk, 1/s", &mut on_disk),
        ("made on the mount, 1/s", &mut on_mount),
        ("questions to the agent, 1/s", &mut asked),
    ] {
        all.sort_by(f64::total_cmp);
        println!("{threads} threads, {what}: {:.0} ({:.0}-{:.0})", all[ROUNDS / 2], all[0], all[ROUNDS - 1]);
    }
}
