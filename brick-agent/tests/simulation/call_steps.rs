//! Calls that make something, of which one step fails, or all from one on: what failed for the program is nowhere.

use std::time::Duration;

use nearbrick_agent::volume::Volume;
use nearbrick_agent::volume::types::Caller;
use rustix::io::Errno;

use super::chance::Chance;
use super::machine::End;
use super::support::fs::{self, Fs, path};
use super::support::tree;
use super::world::World;

type Call = fn(&Volume) -> Result<(), Errno>;

/// The name that each of them makes.
const NEW: &str = "dir/new";

fn in_dir<T>(volume: &Volume, make: impl FnOnce(Caller, u64) -> Result<T, Errno>) -> Result<T, Errno> {
    let fs = Fs::new(volume);
    let dir = fs.stat(&path("dir")).unwrap().node;
    make(fs::me(), dir)
}

fn opened(volume: &Volume, flags: i32) -> Result<(), Errno> {
    let (_, open) = Fs::new(volume).open(&path(NEW), flags, 0o640)?;
    volume.release(open.handle);
    Ok(())
}

fn node(volume: &Volume, mode: u32) -> Result<(), Errno> {
    let stat = in_dir(volume, |me, dir| volume.mknod(me, dir, b"new", mode | 0o640, 0))?;
    volume.forget(stat.node, 1);
    Ok(())
}

const CALLS: [(&str, Call); 7] = [
    ("O_CREAT", |v| opened(v, libc::O_RDWR | libc::O_CREAT)),
    ("O_CREAT and O_EXCL", |v| opened(v, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL)),
    ("mkdir", |v| Fs::new(v).mkdir(&path(NEW))),
    ("symlink", |v| Fs::new(v).symlink(&path(NEW), b"target")),
    ("mknod of a file", |v| node(v, libc::S_IFREG)),
    ("mknod of a FIFO", |v| node(v, libc::S_IFIFO)),
    ("link", |v| {
        let fs = Fs::new(v);
        let file = fs.stat(&path("f")).unwrap().node;
        let stat = in_dir(v, |_, dir| v.link(file, dir, b"new"))?;
        fs.counted(&stat);
        Ok(())
    }),
];

/// A file and a directory, of which both members know.
fn world() -> World {
    let mut world = World::new(2, &mut Chance::new(1), false, false).unwrap();
    let volume = world.volume(0).unwrap();
    let fs = Fs::new(&volume);
    fs.write_file(&path("f"), b"bytes").unwrap();
    fs.mkdir(&path("dir")).unwrap();
    drop(fs);
    world.time.pass(Duration::from_secs(1));
    world.work(0);
    world.pull(1, 0).unwrap();
    world
}

/// Nobody knows anything of it.
fn is_nowhere(world: &mut World, what: &str) {
    let volume = world.volume(0).unwrap();
    let fs = Fs::new(&volume);
    assert_eq!(fs.stat(&path(NEW)).map(drop), Err(Errno::NOENT), "{what}: it is shown");
    assert_eq!(fs.stat(&path("f")).unwrap().nlink, 1, "{what}");
    let machine = &world.machines[0];
    assert_eq!(machine.disk.names_in(&[b"data", b"dir"]), Vec::<Vec<u8>>::new(), "{what}: it is in data/");
    let index = machine.index();
    for (file, object) in index.objects().map(Result::unwrap) {
        let names = object.links.values().filter_map(|link| link.place.as_ref());
        assert!(names.into_iter().all(|reg| reg.value.name != b"new"), "{what}: it is object {file}");
        let shown = index.shown_in(file).unwrap();
        assert!(shown.iter().all(|(name, _)| name != b"new"), "{what}: the index has it in data/");
    }
    let entries = world.volume(0).unwrap();
    drop(fs);
    drop(entries);
    world.pull(1, 0).unwrap();
    let other = tree::of_volume(&world.volume(1).unwrap(), 50);
    assert!(!other.0.contains_key(&path(NEW)), "{what}: the other member has it");
    let names = world.machines[1].disk.names_in(&[b"data", b"dir"]);
    assert_eq!(names, Vec::<Vec<u8>>::new(), "{what}: it is in data/ of the other member");
}

fn nothing_is_staged(world: &World, what: &str) {
    let staged = world.machines[0].disk.names_in(&[b".nearbrick", b"staging"]);
    assert!(staged.is_empty(), "{what}: in staging/ there is {:?}", tree::shown(&staged));
}

/// How the agent ends after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Killed,
    Closed,
}

/// One call that fails at this step. False if it has fewer steps.
fn fails_at(step: u64, what: &str, call: Call, errno: Errno, lasts: bool, then: Then) -> bool {
    let what = format!("{what}, {errno:?} at step {step}, for good: {lasts}, then {then:?}");
    let mut world = world();
    let volume = world.volume(0).unwrap();
    let life = world.machines[0].life.clone();
    life.fail_after(step, errno, lasts);
    let done = call(&volume);
    if !life.mend() {
        assert_eq!(done, Ok(()), "{what}");
        return false;
    }
    if done.is_ok() {
        // What fails after all is said costs the program nothing.
        assert!(Fs::new(&volume).stat(&path(NEW)).is_ok(), "{what}");
        return true;
    }
    assert_eq!(done, Err(errno), "{what}");
    if lasts {
        // What the disk did not let it take back it takes back when the disk is well.
        assert_eq!(Fs::new(&volume).stat(&path(NEW)).map(drop), Err(Errno::NOENT), "{what}");
        world.time.pass(Duration::from_secs(61));
        world.work(0);
    } else {
        nothing_is_staged(&world, &what);
    }
    is_nowhere(&mut world, &what);
    drop(volume);
    match then {
        Then::Killed => world.end(0, End::Kill, &mut Chance::new(step)),
        Then::Closed => {
            let net = world.net.clone();
            world.machines[0].close(&net);
        }
    }
    world.start(0).unwrap();
    is_nowhere(&mut world, &what);
    nothing_is_staged(&world, &what);
    // And nothing of it is in the way.
    let volume = world.volume(0).unwrap();
    call(&volume).unwrap_or_else(|error| panic!("{what}: afterwards it fails: {error}"));
    world.pull(1, 0).unwrap();
    let other = tree::of_volume(&world.volume(1).unwrap(), 50);
    assert!(other.0.contains_key(&path(NEW)), "{what}: made afterwards, the other member has it not");
    true
}

#[test]
fn t06_what_could_not_be_made_for_a_program_is_nowhere_whatever_failed() {
    for (what, call) in CALLS {
        for (errno, lasts) in [Errno::NOSPC, Errno::IO].into_iter().flat_map(|e| [(e, false), (e, true)]) {
            for then in [Then::Killed, Then::Closed] {
                let steps =
                    (0..100).take_while(|step| fails_at(*step, what, call, errno, lasts, then)).count();
                assert!((2..100).contains(&steps), "{what}: {steps} steps");
            }
        }
    }
}

/// The disk refused to empty a file of which another brick has a newer version: what was here passed for what the program had made of that
/// one, and replaced it everywhere.
#[test]
fn t23_a_file_that_could_not_be_emptied_replaces_nothing() {
    let newest = |world: &World| Fs::new(&world.volume(1).unwrap()).read_file(&path("f"));
    let exchange = |world: &mut World| {
        for n in [0, 1] {
            world.time.pass(Duration::from_secs(1));
            world.work(n);
        }
        world.pull(1, 0).unwrap();
        world.pull(0, 1).unwrap();
    };
    let mut refused = 0;
    for step in 0..20 {
        let mut world = world();
        exchange(&mut world);
        Fs::new(&world.volume(1).unwrap()).write_file(&path("f"), b"newer bytes").unwrap();
        exchange(&mut world);
        let life = world.machines[0].life.clone();
        life.fail_after(step, Errno::IO, false);
        let volume = world.volume(0).unwrap();
        let opened = Fs::new(&volume).open(&path("f"), libc::O_WRONLY | libc::O_TRUNC, 0);
        let failed = life.mend();
        let was_emptied = opened.is_ok();
        match opened {
            Ok((_, open)) => volume.release(open.handle),
            Err(_) => refused += 1,
        }
        exchange(&mut world);
        let wanted: &[u8] = if was_emptied { b"" } else { b"newer bytes" };
        assert_eq!(newest(&world).unwrap(), wanted, "step {step}");
        let tree = tree::of_volume(&world.volume(1).unwrap(), 50);
        assert_eq!(tree.0.len(), 2, "step {step}: {tree:?}");
        if !failed {
            break;
        }
    }
    assert!(refused > 1, "{refused}");
}
