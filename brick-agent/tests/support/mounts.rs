//! Members with mounts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nearbrick_agent::fuse::{MountOptions, Mounted, mount};

use super::disk::Disk;
use super::members::Lab;

/// Members of one volume, all mounted. The mounts go first.
pub struct MountedLab {
    mounts: Vec<Option<Mounted>>,
    pub lab: Lab,
    passthrough: bool,
}

impl MountedLab {
    pub fn new(count: usize, replicas: usize, passthrough: bool) -> Self {
        MountedLab::on(Disk::Here, count, replicas, passthrough).expect("a directory")
    }

    pub fn on(disk: Disk, count: usize, replicas: usize, passthrough: bool) -> Option<Self> {
        let lab = Lab::on(disk, count, replicas)?;
        let mut all = MountedLab { mounts: Vec::new(), lab, passthrough };
        for n in 0..count {
            all.mounts.push(None);
            all.mount(n);
        }
        Some(all)
    }

    pub fn mount(&mut self, n: usize) {
        let at = self.lab.dir.dir(&format!("mount-{n}"));
        let options = MountOptions { passthrough: self.passthrough, threads: 4 };
        let mounted = mount(Arc::clone(self.lab.volume(n)), &at, options);
        self.mounts[n] = Some(mounted.unwrap_or_else(|e| panic!("{e}")));
    }

    pub fn unmount(&mut self, n: usize) {
        if let Some(mounted) = self.mounts[n].take() {
            mounted.unmount();
        }
    }

    /// Unmounts, closes the volume, opens it again and mounts it.
    pub fn restart(&mut self, n: usize) {
        self.unmount(n);
        self.lab.reopen(n);
        self.mount(n);
    }

    pub fn mounted(&self, n: usize) -> &Mounted {
        self.mounts[n].as_ref().expect("mounted")
    }

    pub fn at(&self, n: usize) -> &Path {
        self.mounted(n).at()
    }

    /// The path of a file on the mount of a member.
    pub fn path(&self, n: usize, path: impl AsRef<Path>) -> PathBuf {
        self.at(n).join(path)
    }
}

/// Does `work` on a thread that is this user, without other groups.
pub fn as_user<T: Send>(uid: u32, work: impl FnOnce() -> T + Send) -> T {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (user, group) = (rustix::process::Uid::from_raw(uid), rustix::process::Gid::from_raw(uid));
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
