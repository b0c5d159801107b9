//! What is rare or large on a mounted volume: files over 4 GiB, huge directories, deep trees, holes, direct
//! I/O, locks of the kernel on running programs. Where the disk's own file system can be asked, it says what is right.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, Mode, OFlags, RenameFlags, SeekFrom as Seek2};
use rustix::io::Errno;
use support::disk::{Disk, TestDir};
use support::mounts::{MountedLab, as_user};
use support::wait;

fn on(members: usize, work: impl Fn(&MountedLab)) {
    for passthrough in [true, false] {
        println!("passthrough wanted: {passthrough}");
        work(&MountedLab::new(members, members.min(2), passthrough));
    }
}

/// What `work` says on the mount is what it says on the disk itself.
fn as_on_disk<T: PartialEq + std::fmt::Debug>(work: impl Fn(&Path) -> T) {
    let bare = TestDir::new();
    let expected = work(&bare.dir("bare"));
    on(1, |m| assert_eq!(work(m.at(0)), expected));
}

/// Where data is: begin and end of each stretch.
fn data(file: &File) -> Vec<(u64, u64)> {
    let mut all = Vec::new();
    let mut at = 0;
    while let Ok(start) = rustix::fs::seek(file, Seek2::Data(at)) {
        at = rustix::fs::seek(file, Seek2::Hole(start)).unwrap();
        all.push((start, at));
    }
    all
}

const GIB: u64 = 1 << 30;

#[test]
fn files_over_4_gib_and_their_holes() {
    needs!(Fuse);
    as_on_disk(|dir| {
        let path = dir.join("large");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(6 * GIB).unwrap();
        for at in [0, 4 * GIB - 4096, 5 * GIB, 6 * GIB] {
            file.write_all_at(&[7; 8192], at).unwrap();
        }
        let mut said = vec![data(&file)];
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 4 * GIB, 2 * GIB).unwrap();
        said.push(data(&file));
        // Allocated past the end, and the size stays.
        rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 7 * GIB, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 6 * GIB + 8192);
        assert_eq!(rustix::fs::seek(&file, Seek2::Data(7 * GIB)), Err(Errno::NXIO));
        let mut bytes = [1; 8192];
        file.read_exact_at(&mut bytes, 4 * GIB - 4096).unwrap();
        assert!(bytes[..4096].iter().all(|b| *b == 7) && bytes[4096..].iter().all(|b| *b == 0));
        drop(file);
        let mut again = File::open(&path).unwrap();
        assert_eq!(again.seek(SeekFrom::End(-8192)).unwrap(), 6 * GIB);
        again.read_exact(&mut bytes).unwrap();
        assert!(bytes.iter().all(|b| *b == 7));
        assert!(again.metadata().unwrap().blocks() * 512 < 4 << 20, "holes take no space");
        said.push(data(&again));
        drop(again);
        fs::remove_file(path).unwrap();
        said
    });
}

#[test]
fn t17_holes_are_holes_on_every_member() {
    needs!(Fuse);
    on(2, |m| {
        let file = File::create(m.path(0, "sparse")).unwrap();
        file.set_len(32 << 20).unwrap();
        file.write_all_at(&[7; 4096], 1 << 20).unwrap();
        file.write_all_at(&[8; 4096], (32 << 20) - 4096).unwrap();
        file.write_all_at(&[9; 65536], 8 << 20).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 8 << 20, 32768)
            .unwrap();
        let wanted = data(&file);
        drop(file);
        m.lab.converge();
        wait("it is there", || m.path(1, "sparse").exists());
        let copy = File::open(m.path(1, "sparse")).unwrap();
        assert_eq!(data(&copy), wanted);
        assert!(copy.metadata().unwrap().blocks() * 512 < 1 << 20);
        assert!(fs::read(m.path(1, "sparse")).unwrap() == fs::read(m.path(0, "sparse")).unwrap());
    });
}

#[test]
fn t16_hard_links_are_one_file_on_every_member() {
    needs!(Fuse);
    on(2, |m| {
        fs::create_dir(m.path(0, "d")).unwrap();
        fs::write(m.path(0, "a"), b"one").unwrap();
        fs::hard_link(m.path(0, "a"), m.path(0, "b")).unwrap();
        fs::hard_link(m.path(0, "a"), m.path(0, "d/c")).unwrap();
        m.lab.converge();
        wait("all names are there", || m.path(1, "d/c").exists());
        let ino = |n: usize, name: &str| fs::metadata(m.path(n, name)).unwrap().ino();
        let one = |n: usize, names: &[&str], bytes: &[u8]| {
            for name in names {
                assert_eq!(fs::read(m.path(n, name)).unwrap(), bytes, "{name} at {n}");
                assert_eq!(ino(n, name), ino(n, names[0]), "{name} at {n}");
                assert_eq!(
                    fs::metadata(m.path(n, name)).unwrap().nlink(),
                    names.len() as u64,
                    "{name} at {n}"
                );
            }
        };
        one(1, &["a", "b", "d/c"], b"one");
        // Written through another name, at the other member.
        fs::write(m.path(1, "d/c"), b"through c").unwrap();
        m.lab.converge();
        wait("the bytes have come", || fs::read(m.path(0, "a")).unwrap() == b"through c");
        one(0, &["a", "b", "d/c"], b"through c");
        // Broken, as an editor that saves by rename does.
        fs::write(m.path(0, "new"), b"alone").unwrap();
        fs::rename(m.path(0, "new"), m.path(0, "b")).unwrap();
        m.lab.converge();
        wait("the name stands for another file", || fs::read(m.path(1, "b")).unwrap() == b"alone");
        for n in 0..2 {
            one(n, &["a", "d/c"], b"through c");
            one(n, &["b"], b"alone");
        }
        // Two names of one file, renamed one over the other: nothing happens.
        fs::rename(m.path(0, "a"), m.path(0, "d/c")).unwrap();
        one(0, &["a", "d/c"], b"through c");
    });
}

#[test]
fn t18_a_heal_is_no_change_of_the_directory() {
    needs!(Fuse);
    on(2, |m| {
        let long_ago = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        fs::create_dir(m.path(0, "d")).unwrap();
        fs::write(m.path(0, "d/f"), b"one").unwrap();
        fs::hard_link(m.path(0, "d/f"), m.path(0, "d/g")).unwrap();
        let times = FileTimes::new().set_modified(long_ago);
        File::open(m.path(0, "d")).unwrap().set_times(times).unwrap();
        let time = |n: usize| fs::metadata(m.path(n, "d")).unwrap().modified().unwrap();
        m.lab.converge();
        wait("it is there", || m.path(1, "d/g").exists());
        assert_eq!((time(0), time(1)), (long_ago, long_ago));
        fs::write(m.path(0, "d/f"), b"other bytes").unwrap();
        m.lab.converge();
        wait("the bytes have come", || fs::read(m.path(1, "d/g")).unwrap() == b"other bytes");
        assert_eq!((time(0), time(1)), (long_ago, long_ago));
        // What comes to be in it is a change.
        fs::write(m.path(0, "d/new"), b"").unwrap();
        m.lab.converge();
        wait("it is seen", || m.path(1, "d/new").exists());
        wait("and the time moved", || time(1) > long_ago);
    });
}

/// Found by pjdfstest: the mark that a settled file gets moved its ctime, and archivers and git took
/// the file for changed.
#[test]
fn regression_settling_is_no_change_of_the_file() {
    needs!(Fuse);
    on(1, |m| {
        let path = m.path(0, "f");
        fs::write(&path, b"one").unwrap();
        let times = |path: &Path| {
            let meta = fs::metadata(path).unwrap();
            (meta.ctime(), meta.ctime_nsec(), meta.modified().unwrap())
        };
        let before = times(&path);
        m.lab.settle(0);
        wait("the kernel has forgotten what it knew", || times(&path) == before);
        assert_eq!(times(&path), before);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let after = times(&path);
        assert!(after > before);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"two").unwrap();
        let after_that = times(&path);
        assert!(after_that > after);
        m.lab.settle(0);
        assert_eq!(times(&path), after_that);
    });
}

#[test]
fn special_files_are_replicated() {
    needs!(Fuse);
    on(2, |m| {
        let device = rustix::fs::makedev(1, 3);
        for (name, kind, mode, rdev) in [
            ("fifo", FileType::Fifo, 0o640, 0),
            ("socket", FileType::Socket, 0o600, 0),
            ("null", FileType::CharacterDevice, 0o666, device),
            ("block", FileType::BlockDevice, 0o660, rustix::fs::makedev(7, 300)),
        ] {
            let path = m.path(0, name);
            rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(mode), rdev).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            chown(&path, Some(7), Some(8)).unwrap();
            m.lab.exchange();
            for n in 0..2 {
                wait("it is there", || {
                    fs::symlink_metadata(m.path(n, name)).is_ok_and(|meta| meta.uid() == 7)
                });
                let meta = fs::symlink_metadata(m.path(n, name)).unwrap();
                assert_eq!((meta.mode(), meta.rdev()), (kind.as_raw_mode() | mode, rdev), "{name}");
            }
        }
        // The mount is nodev.
        assert_eq!(File::open(m.path(0, "null")).unwrap_err().raw_os_error(), Some(libc::EACCES));
    });
}

#[test]
fn sticky_directories_protect_their_entries() {
    needs!(Fuse);
    as_on_disk(|dir| {
        fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
        let tmp = dir.join("tmp");
        fs::create_dir(&tmp).unwrap();
        fs::set_permissions(&tmp, Permissions::from_mode(0o1777)).unwrap();
        as_user(1000, || fs::write(tmp.join("theirs"), b"x")).unwrap();
        as_user(2000, || fs::write(tmp.join("mine"), b"x")).unwrap();
        let error = |r: std::io::Result<()>| r.err().and_then(|e| e.raw_os_error());
        as_user(2000, || {
            [
                error(fs::remove_file(tmp.join("theirs"))),
                error(fs::rename(tmp.join("theirs"), tmp.join("other"))),
                error(fs::rename(tmp.join("mine"), tmp.join("theirs"))),
                error(fs::remove_file(tmp.join("mine"))),
            ]
        })
    });
}

#[test]
fn a_huge_directory_is_listed_whole_while_it_changes() {
    needs!(Fuse);
    let count: usize =
        std::env::var("NEARBRICK_ENTRIES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let m = MountedLab::new(1, 1, true);
    let dir = m.path(0, "huge");
    fs::create_dir(&dir).unwrap();
    let fd = File::open(&dir).unwrap();
    for n in 0..count {
        rustix::fs::symlinkat("x", &fd, format!("entry-{n}")).unwrap();
    }
    let mut entries = fs::read_dir(&dir).unwrap();
    let mut names: Vec<OsString> = entries.by_ref().take(1000).map(|e| e.unwrap().file_name()).collect();
    // Gone and come while the directory is read: what was there all the time is listed once.
    for (n, name) in names[..500].iter().enumerate() {
        fs::remove_file(dir.join(name)).unwrap();
        symlink("y", dir.join(format!("late-{n}"))).unwrap();
    }
    names.extend(
        entries.map(|e| e.unwrap().file_name()).filter(|name| !name.to_str().unwrap().starts_with("late")),
    );
    let unique: BTreeSet<_> = names.iter().collect();
    assert_eq!((names.len(), unique.len()), (count, count));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), count);
    assert_eq!(fs::remove_dir(&dir).unwrap_err().raw_os_error(), Some(libc::ENOTEMPTY));
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn trees_as_deep_as_documented() {
    needs!(Fuse);
    on(1, |m| {
        let open = |dir: &OwnedFd| {
            rustix::fs::mkdirat(dir, "d", Mode::from_raw_mode(0o755)).unwrap();
            rustix::fs::openat(dir, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
        };
        let mut dir = OwnedFd::from(File::open(m.at(0)).unwrap());
        for _ in 0..1000 {
            dir = open(&dir);
        }
        let made =
            rustix::fs::openat(&dir, "f", OFlags::CREATE | OFlags::RDWR, Mode::from_raw_mode(0o644)).unwrap();
        File::from(made).write_all(b"far down").unwrap();
        // A shallow one into the depth, and the depth out again.
        fs::create_dir(m.path(0, "e")).unwrap();
        rustix::fs::renameat(CWD, m.path(0, "e"), &dir, "e").unwrap();
        rustix::fs::renameat(&dir, "f", CWD, m.path(0, "f")).unwrap();
        assert_eq!(fs::read(m.path(0, "f")).unwrap(), b"far down");
        assert_eq!(rustix::fs::renameat(CWD, m.path(0, "d"), &dir, "d"), Err(Errno::INVAL), "into itself");
        drop(dir);
        fs::rename(m.path(0, "d"), m.path(0, "moved")).unwrap();
        fs::remove_dir_all(m.path(0, "moved")).unwrap();
    });
}

#[test]
fn direct_io_goes_together_with_the_cache() {
    needs!(Fuse);
    on(1, |m| {
        let path = m.path(0, "f");
        fs::write(&path, vec![b'.'; 16384]).unwrap();
        let direct =
            OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
        let cached = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut space = vec![0u8; 3 * 4096];
        let at = space.as_ptr().align_offset(4096);
        let block = &mut space[at..at + 4096];
        block.fill(b'd');
        direct.write_all_at(block, 4096).unwrap();
        let mut seen = [0; 16384];
        cached.read_exact_at(&mut seen, 0).unwrap();
        assert!(seen[4096..8192].iter().all(|b| *b == b'd') && seen[8192..].iter().all(|b| *b == b'.'));
        cached.write_all_at(b"cached", 8192).unwrap();
        direct.read_exact_at(block, 8192).unwrap();
        assert_eq!(&block[..7], b"cached.");
    });
}

#[test]
fn ranges_are_copied_by_the_kernel() {
    needs!(Fuse);
    as_on_disk(|dir| {
        let (from, to) = (dir.join("from"), dir.join("to"));
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i / 7) as u8).collect();
        fs::write(&from, &bytes).unwrap();
        let from = File::open(from).unwrap();
        let to_file = OpenOptions::new().read(true).write(true).create_new(true).open(&to).unwrap();
        let (mut a, mut b) = (1000, 5);
        let mut left = 200_000;
        while left > 0 {
            let n = rustix::fs::copy_file_range(&from, Some(&mut a), &to_file, Some(&mut b), left).unwrap();
            assert!(n > 0);
            left -= n;
        }
        assert_eq!((a, b), (201_000, 200_005));
        assert!(fs::read(&to).unwrap()[5..] == bytes[1000..201_000]);
        let (mut end, mut b) = (300_000, 0);
        let past = rustix::fs::copy_file_range(&from, Some(&mut end), &to_file, Some(&mut b), 10);
        let copied = fs::copy(dir.join("from"), dir.join("again")).unwrap();
        (past, copied, fs::metadata(&to).unwrap().len())
    });
}

#[test]
fn space_is_the_bricks() {
    needs!(Fuse);
    for disk in [Disk::Ext4, Disk::Xfs] {
        let Some(m) = MountedLab::on(disk, 1, 1, true) else { return };
        let (here, below) =
            (rustix::fs::statvfs(m.at(0)).unwrap(), rustix::fs::statvfs(m.lab.data(0)).unwrap());
        let size = |s: &rustix::fs::StatVfs| (s.f_blocks * s.f_frsize, s.f_files, s.f_namemax);
        assert_eq!(size(&here), size(&below));
        let free = here.f_bavail * here.f_frsize;
        fs::write(m.path(0, "f"), vec![7; 64 << 20]).unwrap();
        File::open(m.path(0, "f")).unwrap().sync_all().unwrap();
        let now = rustix::fs::statvfs(m.at(0)).unwrap();
        assert!(now.f_bavail * now.f_frsize < free - (60 << 20));
        m.lab.settle(0);
    }
}

#[test]
fn directories_count_their_subdirectories() {
    needs!(Fuse);
    on(1, |m| {
        let links = |path: &str| fs::metadata(m.path(0, path)).unwrap().nlink();
        fs::create_dir_all(m.path(0, "d/a")).unwrap();
        fs::create_dir(m.path(0, "d/b")).unwrap();
        fs::write(m.path(0, "d/f"), b"").unwrap();
        assert_eq!((links("d"), links("d/a")), (4, 2));
        fs::rename(m.path(0, "d/b"), m.path(0, "d/a/b")).unwrap();
        assert_eq!((links("d"), links("d/a")), (3, 3));
        fs::remove_dir(m.path(0, "d/a/b")).unwrap();
        assert_eq!((links("d"), links("d/a")), (3, 2));
    });
}

#[test]
fn a_running_program_is_not_overwritten() {
    needs!(Fuse);
    on(1, |m| {
        let path = m.path(0, "program");
        fs::copy("/bin/cat", &path).unwrap();
        let mut running = Command::new(&path).stdin(std::process::Stdio::piped()).spawn().unwrap();
        let busy = OpenOptions::new().write(true).open(&path).unwrap_err();
        assert_eq!(busy.raw_os_error(), Some(libc::ETXTBSY));
        // Replaced, as package managers do.
        fs::copy("/bin/cat", m.path(0, "new")).unwrap();
        fs::rename(m.path(0, "new"), &path).unwrap();
        drop(running.stdin.take());
        assert!(running.wait().unwrap().success());
        let writer = OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(Command::new(&path).spawn().unwrap_err().raw_os_error(), Some(libc::ETXTBSY));
        drop(writer);
    });
}

#[test]
fn flags_that_are_not_for_a_volume_say_so() {
    needs!(Fuse);
    on(1, |m| {
        fs::write(m.path(0, "a"), b"").unwrap();
        let whiteout =
            rustix::fs::renameat_with(CWD, m.path(0, "a"), CWD, m.path(0, "b"), RenameFlags::WHITEOUT);
        assert_eq!(whiteout, Err(Errno::INVAL));
        // Programs fall back to a file with a name.
        let unnamed = rustix::fs::open(m.at(0), OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o600));
        assert_eq!(unnamed.err(), Some(Errno::OPNOTSUPP));
        let mut file = tempfile::tempfile_in(m.at(0)).unwrap();
        file.write_all(b"without a name").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "without a name");
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        let linked = rustix::fs::linkat(CWD, m.at(0), CWD, m.path(0, "dir-link"), AtFlags::empty());
        assert_eq!(linked, Err(Errno::PERM));
    });
}

#[test]
fn a_read_moves_the_time_of_access_as_on_the_disk() {
    needs!(Fuse);
    as_on_disk(|dir| {
        let path = dir.join("f");
        fs::write(&path, b"bytes").unwrap();
        let old = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let accessed = || fs::metadata(&path).unwrap().accessed().unwrap();
        let set = || {
            let times = FileTimes::new().set_accessed(old).set_modified(old);
            OpenOptions::new().write(true).open(&path).unwrap().set_times(times).unwrap();
            // No reader finds the bytes in a cache.
            let file = File::open(&path).unwrap();
            file.sync_all().unwrap();
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        };
        set();
        assert_eq!(accessed(), old);
        let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(&path).unwrap();
        file.read_to_end(&mut Vec::new()).unwrap();
        drop(file);
        let without = accessed() == old;
        set();
        fs::read(&path).unwrap();
        (without, accessed() > old)
    });
}
