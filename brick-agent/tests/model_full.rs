//! An index that cannot be written, as on a full disk: no call succeeds that could not be said, and the disk and the
//! index agree afterwards.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use nearbrick_agent::volume::types::{SetAttr, SetTime};
use nearbrick_agent::volume::{Volume, VolumeOptions};
use nearbrick_core::heal::Reason;
use rustix::io::Errno;
use support::faulty::FaultyStores;
use support::fs::{Fs, ROOT, path};
use support::members::Lab;
use support::tree;

type Call = fn(&Volume) -> Result<(), Errno>;

const CALLS: [(&str, Call); 15] = [
    ("create", |v| Fs::new(v).write_file(&path("new"), b"x")),
    ("mkdir", |v| Fs::new(v).mkdir(&path("newdir"))),
    ("symlink", |v| Fs::new(v).symlink(&path("sym"), b"f")),
    ("link", |v| {
        let fs = Fs::new(v);
        fs.counted(&v.link(fs.stat(&path("f")).unwrap().node, ROOT, b"linked")?);
        Ok(())
    }),
    ("unlink", |v| Fs::new(v).unlink(&path("f"))),
    ("unlink one of two names", |v| Fs::new(v).unlink(&path("one"))),
    ("rmdir", |v| Fs::new(v).rmdir(&path("empty"))),
    ("rename", |v| Fs::new(v).rename(&path("f"), &path("dir/g"))),
    ("rename of a directory", |v| Fs::new(v).rename(&path("dir"), &path("moved"))),
    ("rename over a directory", |v| Fs::new(v).rename(&path("dir"), &path("empty"))),
    ("exchange", |v| v.rename(ROOT, b"f", ROOT, b"dir", libc::RENAME_EXCHANGE)),
    ("chmod", |v| Fs::new(v).chmod(&path("f"), 0o600)),
    ("chown and times", |v| {
        let node = Fs::new(v).stat(&path("f")).unwrap().node;
        let set = SetAttr { uid: Some(7), mtime: Some(SetTime::Now), ..SetAttr::default() };
        v.setattr(node, None, &set).map(drop)
    }),
    ("setxattr", |v| v.setxattr(Fs::new(v).stat(&path("f")).unwrap().node, b"user.a", b"other", 0)),
    ("removexattr", |v| v.removexattr(Fs::new(v).stat(&path("f")).unwrap().node, b"user.a")),
];

fn opened() -> (Lab, FaultyStores, Arc<Volume>) {
    let mut lab = Lab::new(1, 1);
    let fs = Fs::new(lab.volume(0));
    fs.write_file(&path("f"), b"bytes").unwrap();
    fs.write_file(&path("one"), b"with two names").unwrap();
    fs.write_file(&path("other"), b"to be replaced").unwrap();
    fs.counted(&lab.volume(0).link(fs.stat(&path("one")).unwrap().node, ROOT, b"two").unwrap());
    fs.mkdir(&path("dir")).unwrap();
    fs.mkdir(&path("empty")).unwrap();
    fs.write_file(&path("dir/inside"), b"inside").unwrap();
    lab.volume(0).setxattr(fs.stat(&path("f")).unwrap().node, b"user.a", b"value", 0).unwrap();
    drop(fs);
    lab.settle(0);
    lab.close(0);
    let stores = FaultyStores::default();
    let options = VolumeOptions { stores: Arc::new(stores.clone()), ..VolumeOptions::default() };
    let volume = lab.open_in(0, options).unwrap();
    (lab, stores, volume)
}

fn assert_agree(lab: &Lab, volume: &Volume, what: &str) {
    let (shown, disk) = (tree::of_volume(volume, 20), tree::of_disk(&lab.data(0)));
    tree::assert_same(what, &shown, "the brick", &disk);
}

#[test]
fn t23_what_cannot_be_said_is_taken_back() {
    needs!(Root);
    for (what, call) in CALLS {
        let (lab, stores, volume) = opened();
        let before = tree::of_volume(&volume, 20);
        for errno in [libc::ENOSPC, libc::EIO, libc::EDQUOT, libc::EROFS] {
            stores.fail_with(errno);
            assert_eq!(call(&volume), Err(Errno::from_raw_os_error(errno)), "{what}");
            let reason = volume.status().last_error.map(|(reason, _, _)| reason);
            assert!(reason.is_some_and(|r| r != Reason::Unreachable), "{what}: {reason:?}");
            stores.fail_with(0);
            tree::assert_same("before", &before, what, &tree::of_volume(&volume, 20));
            assert_agree(&lab, &volume, what);
        }
        call(&volume).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_agree(&lab, &volume, what);
        // Nothing of it passes for an edit past the mount.
        volume.compact(Duration::ZERO).unwrap();
        support::wait("it is settled", || volume.status().dirty_files == 0);
        assert_agree(&lab, &volume, what);
        assert_eq!(volume.status().conflicts, 0);
        volume.close();
    }
}

#[test]
fn t23_a_rename_over_a_file_that_could_not_be_said_is_said_later() {
    needs!(Root);
    let (lab, stores, volume) = opened();
    stores.fail_with(libc::ENOSPC);
    assert_eq!(Fs::new(&volume).rename(&path("f"), &path("other")), Err(Errno::NOSPC));
    stores.fail_with(0);
    volume.compact(Duration::ZERO).unwrap();
    assert_agree(&lab, &volume, "after it was tried again");
    assert_eq!(Fs::new(&volume).read_file(&path("other")).unwrap(), b"bytes");
    assert_eq!(Fs::new(&volume).read_file(&path("f")), Err(Errno::NOENT));
    volume.close();
}
