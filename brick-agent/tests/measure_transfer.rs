//! How fast heals are, over the peer API with TLS on loopback, against plain copies on the same disk. Prints figures and
//! asserts none: `NEARBRICK_MEASURE=MIB`, with the size of the large file. Best with a release build.

#![allow(clippy::unwrap_used)]

mod peer_common;
mod support;

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use nearbrick_agent::config::{PlacementRule, StaleReads, VolumeConfig};
use nearbrick_agent::heal::{self, HealRequest};
use nearbrick_agent::peer::Served;
use nearbrick_agent::peer::server::Limits;
use nearbrick_agent::volume::{Volume, VolumeOptions};
use peer_common::{Ca, Running, VOLUME, brick, client, members, start};
use support::disk::TestDir;
use support::fs::{Fs, path, write_all};

const MIB: usize = 1 << 20;
const ROUNDS: usize = 5;
const SMALL_FILES: usize = 2000;

struct World {
    a: Arc<Volume>,
    b: Arc<Volume>,
    server: Running,
    dir: TestDir,
}

async fn world() -> World {
    let (ca, dir) = (Ca::new(), TestDir::new());
    let open = |node: &str, n: u8| {
        let config = VolumeConfig {
            namespace: "default".to_owned(),
            name: "home".to_owned(),
            volume_uuid: VOLUME,
            node: node.to_owned(),
            brick: brick(n),
            path: dir.dir(node).join("brick"),
            was_initialised: false,
            members: members(&[(brick(1), "ws-a", ""), (brick(2), "ws-b", "")]),
            placement: vec![PlacementRule {
                creator: "ws-a".to_owned(),
                paths: Vec::new(),
                bricks: vec![brick(1), brick(2)],
                ..PlacementRule::default()
            }],
            stale_reads: StaleReads::Allow,
            conflicts: Vec::new(),
            retention_ms: nearbrick_agent::config::RETENTION_MS,
            healing: Default::default(),
            min_sync_copies: 1,
            release_removals: None,
            take_back_removals: None,
            upkeep: Default::default(),
        };
        Volume::open(config, VolumeOptions::default()).unwrap()
    };
    let (a, b) = (open("ws-a", 1), open("ws-b", 2));
    let server = start(ca.tls("ws-a"), a.clone(), Limits::default()).await;
    let address = server.address.to_string();
    let (client, _) = client(ca.tls("ws-b"), brick(2), &[(brick(1), "ws-a", &address)]);
    b.set_remote(client);
    World { a, b, server, dir }
}

impl World {
    /// The second member hears of all that the first one did.
    fn tell(&self) {
        support::wait("all is settled", || self.a.status().dirty_files == 0);
        loop {
            let entries = self.a.entries_after(&self.b.heads(), 4 << 20).unwrap();
            if entries.is_empty() {
                return;
            }
            self.b.absorb(brick(1), entries).unwrap();
        }
    }

    /// Heals; says how long it took and how many bytes came.
    fn heal(&self, files: u64) -> (f64, u64) {
        let sent = &self.server.stats.bytes_sent;
        let before = sent.load(Ordering::Relaxed);
        let at = Instant::now();
        let request = HealRequest { concurrency: Some(4), ..HealRequest::default() };
        let outcome = heal::run(&self.b, &request, &|_| {}, &AtomicBool::new(false));
        assert_eq!((outcome.files_done, outcome.files_failed), (files, 0), "{outcome:?}");
        (at.elapsed().as_secs_f64(), sent.load(Ordering::Relaxed) - before)
    }

    fn large(&self, name: &str, size: usize, seed: u64) {
        let fs = Fs::new(&self.a);
        let (_, opened) = fs.open(&path(name), libc::O_RDWR | libc::O_CREAT, 0o600).unwrap();
        for n in 0..size / MIB {
            write_all(&self.a, opened.handle, (n * MIB) as u64, &noise(MIB, seed + n as u64)).unwrap();
        }
        self.a.fsync(opened.handle, false).unwrap();
        self.a.release(opened.handle);
    }
}

fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// As `cp` does it, with the file made durable.
fn copy(from: &Path, to: &Path) -> f64 {
    let at = Instant::now();
    let (mut from, mut to) = (std::fs::File::open(from).unwrap(), std::fs::File::create(to).unwrap());
    let mut buffer = vec![0; 256 << 10];
    loop {
        let got = from.read(&mut buffer).unwrap();
        if got == 0 {
            break;
        }
        to.write_all(&buffer[..got]).unwrap();
    }
    to.sync_all().unwrap();
    at.elapsed().as_secs_f64()
}

fn shown(what: &str, unit: &str, mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let median = figures[figures.len() / 2];
    println!(
        "{what}: median {median:.1} {unit}, {:.1} to {:.1} of {} rounds",
        figures[0],
        figures[figures.len() - 1],
        figures.len()
    );
    median
}

#[tokio::test(flavor = "multi_thread")]
async fn figures() {
    let Some(mib) = std::env::var("NEARBRICK_MEASURE").ok().and_then(|n| n.parse::<usize>().ok()) else {
        println!("left out: set NEARBRICK_MEASURE to the size of the large file in MiB");
        return;
    };
    let world = world().await;
    tokio::task::spawn_blocking(move || {
        let (mut small, mut copied_small) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let fs = Fs::new(&world.a);
            for n in 0..SMALL_FILES {
                fs.write_file(&path(&format!("s-{round}-{n}")), &noise(4096, n as u64)).unwrap();
            }
            drop(fs);
            world.tell();
            small.push(SMALL_FILES as f64 / world.heal(SMALL_FILES as u64).0);
            let (from, to) =
                (world.dir.path().join("ws-a/brick/data"), world.dir.dir(&format!("copy-{round}")));
            let at = Instant::now();
            for n in 0..SMALL_FILES {
                let name = format!("s-{round}-{n}");
                std::fs::copy(from.join(&name), to.join(&name)).unwrap();
            }
            rustix::fs::syncfs(std::fs::File::open(&to).unwrap()).unwrap();
            copied_small.push(SMALL_FILES as f64 / at.elapsed().as_secs_f64());
        }
        let a = shown("heal of files of 4 KiB", "files/s", small);
        let b = shown("copying them, and one sync", "files/s", copied_small);
        println!("ratio {:.2}", a / b);

        let (mut healed, mut copied) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let name = format!("large-{round}");
            world.large(&name, mib * MIB, (round * 100_000) as u64);
            world.tell();
            let (time, _) = world.heal(1);
            healed.push(mib as f64 / time);
            let from = world.dir.path().join("ws-a/brick/data").join(&name);
            let to = world.dir.path().join("copy");
            copied.push(mib as f64 / copy(&from, &to));
            std::fs::remove_file(&to).unwrap();
            if round + 1 < ROUNDS {
                world.a.unlink(support::fs::ROOT, name.as_bytes()).unwrap();
                world.tell();
            }
        }
        let a = shown("heal of a large file, first copy", "MiB/s", healed);
        let b = shown("cp and fsync of it", "MiB/s", copied);
        println!("ratio {:.2}", a / b);

        let name = format!("large-{}", ROUNDS - 1);
        let (mut seconds, mut wire) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let fs = Fs::new(&world.a);
            let (_, opened) = fs.open(&path(&name), libc::O_RDWR, 0).unwrap();
            let at = (mib * MIB / 7 * (round + 1)) as u64;
            write_all(&world.a, opened.handle, at, &noise(4096, round as u64)).unwrap();
            world.a.release(opened.handle);
            drop(fs);
            world.tell();
            let (time, bytes) = world.heal(1);
            seconds.push(time);
            wire.push(bytes as f64 / 1024.0);
        }
        shown("4 KiB changed in it", "s", seconds);
        shown("the same, on the wire", "KiB", wire);
        world.a.close();
        world.b.close();
    })
    .await
    .unwrap();
}
