//! A volume that is really mounted, with passthrough and without: what programs do to files
//! works as on any local file system.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nearbrick_agent::fuse::{MountError, MountOptions, mount};
use rustix::fs::{FallocateFlags, RenameFlags, SeekFrom as Seek2, XattrFlags};
use rustix::io::Errno;

use support::disk::Disk;
use support::mounts::{MountedLab, as_user};

/// Runs with passthrough and without.
fn both(work: impl Fn(&MountedLab)) {
    for passthrough in [true, false] {
        println!("passthrough wanted: {passthrough}");
        work(&MountedLab::new(1, 1, passthrough));
    }
}

fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("must fail").raw_os_error().expect("from the kernel")
}

/// Bytes that do not repeat soon.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 251) as u8).collect()
}

#[test]
fn passthrough_is_active_where_the_kernel_offers_it() {
    needs!(Fuse);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let with = MountedLab::new(1, 1, true);
    assert_eq!(with.mounted(0).passthrough_active(), version >= (6, 9), "Linux {release}");
    let without = MountedLab::new(1, 1, false);
    assert!(!without.mounted(0).passthrough_active());

    if with.mounted(0).passthrough_active() {
        // What can be seen from here: a write to the brick is read through the mount at once, though
        // nobody told the kernel to forget a page.
        let path = with.path(0, "f");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all_at(&pattern(100_000), 0).unwrap();
        let brick = OpenOptions::new().read(true).write(true).open(with.lab.data(0).join("f")).unwrap();
        let mut bytes = vec![0; 100_000];
        brick.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(bytes, pattern(100_000));
        file.read_exact_at(&mut bytes, 0).unwrap();
        brick.write_all_at(b"behind our back", 50_000).unwrap();
        let mut seen = [0; 15];
        file.read_exact_at(&mut seen, 50_000).unwrap();
        assert_eq!(&seen, b"behind our back");
    }
}

#[test]
fn files_are_written_read_and_truncated() {
    needs!(Fuse);
    both(|m| {
        let path = m.path(0, "f");
        let bytes = pattern(3 << 20);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(fs::read(&path).unwrap(), bytes);
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 << 20);

        // O_APPEND, by two descriptors in turn.
        let mut a = OpenOptions::new().append(true).open(&path).unwrap();
        let mut b = OpenOptions::new().append(true).open(&path).unwrap();
        a.write_all(b"one").unwrap();
        b.write_all(b"two").unwrap();
        a.write_all(b"three").unwrap();
        drop((a, b));
        let mut tail = [0; 11];
        File::open(&path).unwrap().read_exact_at(&mut tail, 3 << 20).unwrap();
        assert_eq!(&tail, b"onetwothree");

        // O_TRUNC, while another descriptor is open.
        let old = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        fs::write(&path, b"short").unwrap();
        assert_eq!(old.metadata().unwrap().len(), 5);
        old.write_all_at(b"!", 9).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"short\0\0\0\0!");
        old.set_len(3).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 3);
        old.set_len(6).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"sho\0\0\0");
        old.sync_all().unwrap();
        drop(old);
        m.lab.settle(0);
        assert_eq!(fs::read(m.lab.data(0).join("f")).unwrap(), b"sho\0\0\0");
    });
}

#[test]
fn holes_are_made_and_found() {
    needs!(Fuse);
    both(|m| {
        let path = m.path(0, "sparse");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1 << 20).unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1 << 20);
        file.write_all_at(&pattern(1 << 20), 0).unwrap();
        let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, punch, 65536, 65536).unwrap();
        let mut bytes = vec![1; 65536];
        file.read_exact_at(&mut bytes, 65536).unwrap();
        assert!(bytes.iter().all(|b| *b == 0));
        assert_eq!(rustix::fs::seek(&file, Seek2::Hole(0)).unwrap(), 65536);
        assert_eq!(rustix::fs::seek(&file, Seek2::Data(65536)).unwrap(), 131_072);
        drop(file);
        let mut file = File::open(&path).unwrap();
        assert_eq!(file.seek(SeekFrom::End(0)).unwrap(), 1 << 20);
        assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
    });
}

#[test]
fn open_files_outlive_their_names() {
    needs!(Fuse);
    both(|m| {
        // Unlinked while it is open.
        let path = m.path(0, "gone");
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(b"still ").unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!path.exists());
        file.write_all(b"here").unwrap();
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "still here");
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        drop(file);
        assert_eq!(fs::read_dir(m.at(0)).unwrap().count(), 0);

        // Renamed over while it is open.
        let (a, b) = (m.path(0, "a"), m.path(0, "b"));
        fs::write(&a, b"new").unwrap();
        fs::write(&b, b"old").unwrap();
        let mut old = OpenOptions::new().read(true).append(true).open(&b).unwrap();
        fs::rename(&a, &b).unwrap();
        old.write_all(b" and on").unwrap();
        old.seek(SeekFrom::Start(0)).unwrap();
        let mut text = String::new();
        old.read_to_string(&mut text).unwrap();
        assert_eq!(text, "old and on");
        assert_eq!(fs::read(&b).unwrap(), b"new");
        assert!(!a.exists());
    });
}

#[test]
fn names_are_bytes() {
    needs!(Fuse);
    both(|m| {
        let names: BTreeSet<OsString> = [
            vec![b'n'; 255],
            b"\xff\xfe not UTF-8".to_vec(),
            b"new\nline".to_vec(),
            b"-rf".to_vec(),
            b" ".to_vec(),
            "ä (conflict, ws-a, 2026-01-01).txt".as_bytes().to_vec(),
        ]
        .into_iter()
        .map(OsString::from_vec)
        .collect();
        for name in &names {
            fs::write(m.path(0, name), name.as_bytes()).unwrap();
        }
        let listed: BTreeSet<_> = fs::read_dir(m.at(0)).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(listed, names);
        for name in &names {
            assert_eq!(fs::read(m.path(0, name)).unwrap(), name.as_bytes());
            assert_eq!(fs::read(m.lab.data(0).join(name)).unwrap(), name.as_bytes());
        }
        let long = OsString::from_vec(vec![b'n'; 256]);
        assert_eq!(errno(File::create(m.path(0, long))), libc::ENAMETOOLONG);
    });
}

#[test]
fn directories_of_thousands_are_listed() {
    needs!(Fuse);
    both(|m| {
        let dir = m.path(0, "many");
        fs::create_dir(&dir).unwrap();
        for n in 0..5000 {
            File::create(dir.join(format!("file-{n}"))).unwrap();
        }
        // Twice: readdirplus first, and what the kernel makes of it then.
        for _ in 0..2 {
            let mut names: Vec<_> = fs::read_dir(&dir)
                .unwrap()
                .map(|e| {
                    let e = e.unwrap();
                    assert!(e.file_type().unwrap().is_file());
                    assert_eq!(e.metadata().unwrap().len(), 0);
                    e.file_name()
                })
                .collect();
            let listed = names.len();
            names.sort();
            names.dedup();
            assert_eq!((listed, names.len()), (5000, 5000));
        }
        assert_eq!(errno(fs::remove_dir(&dir)), libc::ENOTEMPTY);
        fs::remove_dir_all(&dir).unwrap();
        assert!(!dir.exists());
    });
}

#[test]
fn links_and_renames() {
    needs!(Fuse);
    both(|m| {
        let p = |name: &str| m.path(0, name);
        fs::write(p("a"), b"a").unwrap();
        fs::hard_link(p("a"), p("b")).unwrap();
        let (a, b) = (fs::metadata(p("a")).unwrap(), fs::metadata(p("b")).unwrap());
        assert_eq!((a.ino(), a.nlink()), (b.ino(), 2));
        fs::write(p("b"), b"through b").unwrap();
        assert_eq!(fs::read(p("a")).unwrap(), b"through b");
        fs::remove_file(p("a")).unwrap();
        assert_eq!(fs::metadata(p("b")).unwrap().nlink(), 1);

        symlink("b", p("s")).unwrap();
        symlink(OsStr::from_bytes(b"/nowhere \xff"), p("dangling")).unwrap();
        assert_eq!(fs::read(p("s")).unwrap(), b"through b");
        assert_eq!(fs::read_link(p("dangling")).unwrap().as_os_str().as_bytes(), b"/nowhere \xff");
        assert_eq!(errno(File::open(p("dangling"))), libc::ENOENT);

        fs::create_dir_all(p("d/e")).unwrap();
        fs::rename(p("b"), p("d/e/b")).unwrap();
        assert_eq!(errno(fs::rename(p("d"), p("d/e/d"))), libc::EINVAL);
        fs::create_dir(p("x")).unwrap();
        assert_eq!(errno(fs::rename(p("x"), p("d"))), libc::ENOTEMPTY);
        assert_eq!(errno(fs::rename(p("s"), p("x"))), libc::EISDIR);
        assert_eq!(errno(fs::rename(p("x"), p("s"))), libc::ENOTDIR);
        let cwd = rustix::fs::CWD;
        rustix::fs::renameat_with(cwd, p("d"), cwd, p("x"), RenameFlags::EXCHANGE).unwrap();
        assert_eq!(fs::read(p("x/e/b")).unwrap(), b"through b");
        let refused = rustix::fs::renameat_with(cwd, p("s"), cwd, p("x/e/b"), RenameFlags::NOREPLACE);
        assert_eq!(refused, Err(Errno::EXIST));
        fs::rename(p("x/e"), p("d")).unwrap();
        assert_eq!(fs::read(p("d/b")).unwrap(), b"through b");
        fs::remove_dir(p("x")).unwrap();

        rustix::fs::mkfifoat(cwd, p("fifo"), rustix::fs::Mode::from_raw_mode(0o640)).unwrap();
        let fifo = fs::metadata(p("fifo")).unwrap();
        assert_eq!(fifo.mode(), libc::S_IFIFO | 0o640);
    });
}

#[test]
fn extended_attributes_and_their_sizes() {
    needs!(Fuse);
    both(|m| {
        let path = m.path(0, "f");
        fs::write(&path, b"x").unwrap();
        let set = |name: &str, value: &[u8], flags| rustix::fs::setxattr(&path, name, value, flags);
        set("user.a", b"value", XattrFlags::empty()).unwrap();
        set("user.empty", b"", XattrFlags::CREATE).unwrap();
        assert_eq!(set("user.a", b"", XattrFlags::CREATE), Err(Errno::EXIST));
        assert_eq!(set("user.none", b"", XattrFlags::REPLACE), Err(Errno::NODATA));
        let mut buffer = [0; 100];
        assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut buffer[..]), Ok(5));
        assert_eq!(&buffer[..5], b"value");
        assert_eq!(rustix::fs::getxattr_query(&path, "user.a"), Ok(5));
        assert_eq!(rustix::fs::getxattr(&path, "user.a", &mut buffer[..4]), Err(Errno::RANGE));
        assert_eq!(rustix::fs::getxattr(&path, "user.none", &mut buffer[..]), Err(Errno::NODATA));
        let len = rustix::fs::listxattr(&path, &mut buffer[..]).unwrap();
        let names: BTreeSet<_> = buffer[..len].split(|b| *b == 0).filter(|n| !n.is_empty()).collect();
        assert_eq!(names, BTreeSet::from([&b"user.a"[..], b"user.empty"]), "only what programs set");
        assert_eq!(rustix::fs::listxattr(&path, &mut buffer[..3]), Err(Errno::RANGE));
        rustix::fs::removexattr(&path, "user.a").unwrap();
        assert_eq!(rustix::fs::removexattr(&path, "user.a"), Err(Errno::NODATA));
        // Our own mark is not to be seen or touched.
        assert!(rustix::fs::getxattr(&path, "trusted.nearbrick", &mut buffer[..]).is_err());
        assert!(set("trusted.nearbrick", b"x", XattrFlags::empty()).is_err());
        assert!(set("security.capability", b"x", XattrFlags::empty()).is_err());
    });
}

#[test]
fn times_owners_and_modes() {
    needs!(Fuse);
    both(|m| {
        let path = m.path(0, "f");
        fs::write(&path, b"x").unwrap();
        for (at, name) in [
            (UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789), "2001"),
            (UNIX_EPOCH, "1970"),
            (UNIX_EPOCH - Duration::new(5, 500_000_000), "before 1970"),
            (UNIX_EPOCH + Duration::from_secs(4_102_444_800), "2100"),
        ] {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_times(FileTimes::new().set_modified(at).set_accessed(at)).unwrap();
            assert_eq!(file.metadata().unwrap().modified().unwrap(), at, "{name}");
            drop(file);
            assert_eq!(fs::metadata(&path).unwrap().accessed().unwrap(), at, "{name}");
        }
        // A write moves the time on, also one that the kernel does itself.
        let before = SystemTime::now() - Duration::from_secs(2);
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"y").unwrap();
        assert!(fs::metadata(&path).unwrap().modified().unwrap() > before);
        // A time that no clock shows does not hurt.
        let far = rustix::fs::Timespec { tv_sec: i64::MIN, tv_nsec: 0 };
        let times = rustix::fs::Timestamps { last_access: far, last_modification: far };
        let cwd = rustix::fs::CWD;
        for _ in 0..16 {
            let _ = rustix::fs::utimensat(cwd, &path, &times, rustix::fs::AtFlags::empty());
        }
        fs::metadata(m.at(0)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"xy");

        fs::set_permissions(&path, Permissions::from_mode(0o4751)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o4751);
        chown(&path, Some(7), Some(8)).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (7, 8));
        assert_eq!(meta.mode() & 0o7777, 0o751, "a new owner takes setuid away");

        // Setgid directories hand their group on.
        let dir = m.path(0, "team");
        fs::create_dir(&dir).unwrap();
        chown(&dir, Some(0), Some(50)).unwrap();
        fs::set_permissions(&dir, Permissions::from_mode(0o2775)).unwrap();
        fs::write(dir.join("f"), b"").unwrap();
        fs::create_dir(dir.join("d")).unwrap();
        assert_eq!(fs::metadata(dir.join("f")).unwrap().gid(), 50);
        let inner = fs::metadata(dir.join("d")).unwrap();
        assert_eq!((inner.gid(), inner.mode() & 0o2000), (50, 0o2000));
    });
}

#[test]
fn permissions_hold_for_other_users() {
    needs!(Fuse);
    both(|m| {
        let p = |name: &str| m.path(0, name);
        fs::write(p("private"), b"secret").unwrap();
        fs::set_permissions(p("private"), Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(p("open")).unwrap();
        fs::set_permissions(p("open"), Permissions::from_mode(0o1777)).unwrap();
        fs::write(p("open/roots"), b"").unwrap();
        let privileged = p("open/suid");
        fs::write(&privileged, b"x").unwrap();
        fs::set_permissions(&privileged, Permissions::from_mode(0o6777)).unwrap();
        let test_dirs_are_reachable = m.lab.dir.path().ancestors().all(reachable);
        assert!(test_dirs_are_reachable, "other users must get to the mount: check the modes above it");
        as_user(1234, || {
            assert_eq!(errno(fs::read(p("private"))), libc::EACCES);
            assert_eq!(errno(fs::write(p("no"), b"")), libc::EACCES);
            assert_eq!(errno(fs::remove_file(p("open/roots"))), libc::EPERM, "sticky");
            fs::write(p("open/mine"), b"mine").unwrap();
            let meta = fs::metadata(p("open/mine")).unwrap();
            assert_eq!((meta.uid(), meta.gid()), (1234, 1234));
            assert_eq!(errno(chown(p("open/mine"), Some(0), None)), libc::EPERM);
            assert_eq!(fs::read(p("open/mine")).unwrap(), b"mine");
            fs::remove_file(p("open/mine")).unwrap();
            // A write by someone else takes setuid and setgid away.
            OpenOptions::new().append(true).open(&privileged).unwrap().write_all(b"y").unwrap();
        });
        assert_eq!(fs::metadata(&privileged).unwrap().mode() & 0o7777, 0o777);
        fs::set_permissions(&privileged, Permissions::from_mode(0o6777)).unwrap();
        as_user(1234, || File::create(&privileged).map(drop).unwrap());
        assert_eq!(fs::metadata(&privileged).unwrap().mode() & 0o7777, 0o777, "so does O_TRUNC");
        // The owner's own writes leave them.
        fs::set_permissions(&privileged, Permissions::from_mode(0o6777)).unwrap();
        fs::write(&privileged, b"z").unwrap();
        assert_eq!(fs::metadata(&privileged).unwrap().mode() & 0o7777, 0o6777);
    });
}

fn reachable(dir: &Path) -> bool {
    fs::metadata(dir).is_ok_and(|m| m.mode() & 0o001 != 0)
}

#[test]
fn statfs_is_the_bricks() {
    needs!(Fuse);
    both(|m| {
        let here = rustix::fs::statvfs(m.at(0)).unwrap();
        let brick = rustix::fs::statvfs(m.lab.data(0)).unwrap();
        assert_eq!(here.f_blocks * here.f_frsize, brick.f_blocks * brick.f_frsize);
        assert_eq!(here.f_namemax, 255);
        assert!(here.f_bavail > 0);
    });
}

#[test]
fn what_is_not_offered_is_said_so() {
    needs!(Fuse);
    both(|m| {
        fs::write(m.path(0, "f"), pattern(200_000)).unwrap();
        // copy_file_range falls back in the kernel.
        assert_eq!(fs::copy(m.path(0, "f"), m.path(0, "g")).unwrap(), 200_000);
        assert_eq!(fs::read(m.path(0, "g")).unwrap(), pattern(200_000));
        let file = File::open(m.path(0, "f")).unwrap();
        assert_eq!(rustix::fs::ioctl_getflags(&file).unwrap_err(), Errno::NOTTY);
        // Locks are the kernel's own, within the workstation.
        let (a, b) = (File::open(m.path(0, "g")).unwrap(), File::open(m.path(0, "g")).unwrap());
        a.try_lock().unwrap();
        assert!(b.try_lock().is_err());
        a.unlock().unwrap();
        b.try_lock().unwrap();
    });
}

#[test]
fn everything_is_there_after_a_restart_also_on_xfs_and_ext4() {
    needs!(Fuse);
    for disk in [Disk::Xfs, Disk::Ext4] {
        for passthrough in [true, false] {
            let Some(mut m) = MountedLab::on(disk, 1, 1, passthrough) else { continue };
            fs::create_dir(m.path(0, "d")).unwrap();
            for n in 0..50 {
                fs::write(m.path(0, format!("d/f{n}")), pattern(n * 100)).unwrap();
            }
            m.restart(0);
            for n in 0..50 {
                assert_eq!(fs::read(m.path(0, format!("d/f{n}"))).unwrap(), pattern(n * 100));
            }
            fs::write(m.path(0, "d/f0"), b"again").unwrap();
            assert_eq!(fs::read(m.path(0, "d/f0")).unwrap(), b"again");
        }
    }
}

#[test]
fn a_busy_mount_goes_within_a_limit() {
    needs!(Fuse);
    for passthrough in [true, false] {
        let mut m = MountedLab::new(1, 1, passthrough);
        let at = m.at(0).to_owned();
        fs::write(at.join("f"), b"x").unwrap();
        let held = File::open(at.join("f")).unwrap();
        m.unmount(0);
        assert!(support::disk::mounts_below(&at).is_empty());
        assert_eq!(fs::read_dir(&at).unwrap().count(), 0);
        drop(held);
        m.restart(0);
        assert_eq!(fs::read(at.join("f")).unwrap(), b"x");
        assert!(!m.mounted(0).ended());
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::empty()).unwrap();
        support::wait("the agent sees that it was unmounted", || m.mounted(0).ended());
    }
}

#[test]
fn no_place_to_mount_is_one_clear_line() {
    needs!(Fuse);
    let lab = support::members::Lab::new(1, 1);
    let nowhere = lab.dir.path().join("nowhere");
    let Err(error) = mount(lab.volume(0).clone(), &nowhere, MountOptions::default()) else {
        panic!("mounted on nothing");
    };
    assert!(matches!(error, MountError::At { .. }));
    let line = error.to_string();
    assert!(line.contains("nowhere") && !line.contains('\n'), "{line}");
    fs::write(&nowhere, b"").unwrap();
    let error = mount(lab.volume(0).clone(), &nowhere, MountOptions::default()).err().unwrap();
    assert!(error.to_string().contains("Not a directory"), "{error}");
    // Not root.
    let volume = lab.volume(0).clone();
    let at = lab.dir.dir("at");
    let error = as_user(1234, move || mount(volume, &at, MountOptions::default()).err().unwrap());
    assert!(matches!(error, MountError::NotRoot | MountError::Device(_)), "{error}");
}
