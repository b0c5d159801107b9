//! What the tests of a volume share.
//!
//! * [`agent`]: the real program.
//! * [`child`]: another process; [`locks`] and [`mapping`]: what it shares with this one.
//! * [`clock`]: a clock that a test puts forward.
//! * [`disk`]: directories and disk images for bricks; nothing of them stays.
//! * [`members`]: volumes in one process, joined by [`net`] without a network; [`mounts`]: mounted.
//! * [`faulty`]: an index that cannot be written.
//! * [`fs`]: paths and whole files over the calls of a volume.
//! * [`leave`]: whether a member may leave.
//! * [`ops`]: random operations; [`drive`] does them to a volume, [`reference`] to a plain model.
//! * [`random`]: random cases with their seed, and bytes that are spoiled.
//! * [`tree`]: whole trees, to be compared.
#![allow(dead_code, clippy::unwrap_used)]

pub mod agent;
pub mod child;
pub mod clock;
pub mod disk;
pub mod drive;
pub mod faulty;
pub mod fs;
pub mod leave;
pub mod locks;
pub mod mapping;
pub mod members;
pub mod mounts;
pub mod net;
pub mod ops;
pub mod random;
pub mod reference;
pub mod tree;

use std::time::{Duration, Instant};

/// Longer than anything takes that works.
pub const LIMIT: Duration = Duration::from_secs(60);

/// What a test cannot do without.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Root: the bricks' marks are `trusted.*` attributes.
    Root,
    /// Root and `/dev/fuse`.
    Fuse,
    /// The program `valgrind`.
    Valgrind,
}

/// Whether it is to be had; says so if not.
pub fn has(need: Need) -> bool {
    if need == Need::Valgrind {
        let has = std::process::Command::new("valgrind").arg("--version").output().is_ok();
        if !has {
            println!("left out: this test needs valgrind");
        }
        return has;
    }
    if !rustix::process::geteuid().is_root() {
        println!("left out: this test needs root");
        return false;
    }
    if need == Need::Fuse && std::fs::File::options().read(true).write(true).open("/dev/fuse").is_err() {
        println!("left out: this test needs /dev/fuse");
        return false;
    }
    true
}

/// Returns from the test, with a line that says why, unless the need is met.
#[macro_export]
macro_rules! needs {
    ($need:ident) => {
        if !support::has(support::Need::$need) {
            return;
        }
    };
}

/// Waits until `done` gives something, within [`LIMIT`].
pub fn wait_for<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let limit = Instant::now() + LIMIT;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < limit, "not within {LIMIT:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Waits until the condition holds.
pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}
