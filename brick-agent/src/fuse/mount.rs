//! Mounting and unmounting.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, MountOption, Session, SessionACL};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::init::Negotiated;
use super::invalidate::Queue;
use super::shell::Shell;
use crate::volume::Volume;

const DEVICE: &str = "/dev/fuse";
/// How long an unmount waits for programs that are about to leave.
const BUSY_LIMIT: Duration = Duration::from_secs(2);
/// How long it then waits for the last requests.
const END_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a mount that is still busy.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How to mount.
#[derive(Clone, Copy, Debug)]
pub struct MountOptions {
    /// Whether the kernel may read and write brick files itself, where it can.
    pub passthrough: bool,
    /// Threads that serve requests.
    pub threads: usize,
}

impl Default for MountOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        MountOptions { passthrough: true, threads: (4 * cores).clamp(8, 32) }
    }
}

/// Why a volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The kernel has no FUSE.
    #[error("{DEVICE} is not there: load the kernel module fuse, or give the agent's container the device")]
    NoDevice,
    /// Not root.
    #[error("mounting needs root: run the agent as root, or its container privileged")]
    NotRoot,
    /// The device cannot be opened.
    #[error("{DEVICE} cannot be opened: {0}")]
    Device(#[source] io::Error),
    /// No directory to mount on.
    #[error("{at} cannot be mounted on: {source}")]
    At {
        /// The mount point.
        at: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("the kernel does not mount {at}: {source}")]
    Refused {
        /// The mount point.
        at: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Mounts the volume, and has it tell the kernel of changes by peers.
///
/// # Errors
/// One clear line; nothing is left behind.
pub fn mount(volume: Arc<Volume>, at: &Path, options: MountOptions) -> Result<Mounted, MountError> {
    check(at)?;
    let refused = |source| MountError::Refused { at: at.to_owned(), source };
    let (queue, pending) = Queue::new();
    let negotiated = Arc::new(Negotiated::default());
    let gone = Arc::new(AtomicBool::new(false));
    let shell =
        Shell::new(volume.clone(), options.passthrough, negotiated.clone(), gone.clone(), queue.clone());

    let mut config = fuser::Config::default();
    config.mount_options = vec![
        MountOption::FSName("nearbrick".to_owned()),
        MountOption::Subtype("nearbrick".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(options.threads.max(1));
    config.clone_fd = true;
    let session = Session::new(shell, at, &config).and_then(Session::spawn).map_err(refused)?;

    let notifier = session.notifier();
    let mounted = Mounted {
        session: Some(session),
        queue: queue.clone(),
        at: at.to_owned(),
        device: device(at),
        gone,
        negotiated,
    };
    pending.start(notifier).map_err(refused)?;
    volume.set_invalidate(Arc::new(queue));
    Ok(mounted)
}

/// Whether this process can mount at all, for the start of the agent.
///
/// # Errors
/// One clear line.
pub fn available() -> Result<(), MountError> {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV | libc::ENXIO)) => {
            Err(MountError::NoDevice)
        }
        // An unprivileged helper could mount, but not what other people may use.
        _ if !rustix::process::geteuid().is_root() => Err(MountError::NotRoot),
        Err(e) => Err(MountError::Device(e)),
        Ok(_) => Ok(()),
    }
}

fn check(at: &Path) -> Result<(), MountError> {
    available()?;
    let is_dir = std::fs::metadata(at)
        .and_then(|m| if m.is_dir() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOTDIR)) });
    is_dir.map_err(|source| MountError::At { at: at.to_owned(), source })
}

/// A mounted volume; dropping it unmounts.
pub struct Mounted {
    session: Option<BackgroundSession>,
    queue: Queue,
    at: PathBuf,
    /// The device number of the mount: what is mounted there later is not ours.
    device: Option<(u32, u32)>,
    gone: Arc<AtomicBool>,
    negotiated: Arc<Negotiated>,
}

impl Mounted {
    /// Whether the kernel reads and writes brick files itself.
    pub fn passthrough_active(&self) -> bool {
        self.negotiated.passthrough()
    }

    /// Where it is mounted.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// Whether nobody can reach it any more, for example because someone else unmounted it.
    pub fn ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Unmounts. Programs that still use the mount after a short while are cut off from it.
    pub fn unmount(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(session) = self.session.take() else { return };
        if !session.guard.is_finished() && self.is_ours() {
            self.leave();
        }
        let finished = wait(END_LIMIT, || session.guard.is_finished());
        self.gone.store(true, Ordering::Relaxed);
        self.queue.end();
        if finished {
            // Nothing is mounted any more: this only collects the threads.
            if let Err(error) = session.umount_and_join() {
                tracing::debug!(at = %self.at.display(), %error, "the mount ended");
            }
        } else {
            tracing::warn!(at = %self.at.display(), "unmounted, but a request does not end: it is left to itself");
        }
    }

    /// Whether what is mounted there is this. Asks only the kernel, never ourselves.
    fn is_ours(&self) -> bool {
        let now = device(&self.at);
        now.is_none() || self.device.is_none() || now == self.device
    }

    fn leave(&self) {
        let plain = || unmount(&self.at, UnmountFlags::NOFOLLOW);
        let mut last = plain();
        if last == Err(Errno::BUSY) {
            wait(BUSY_LIMIT, || {
                last = plain();
                last != Err(Errno::BUSY)
            });
        }
        if last == Err(Errno::BUSY) {
            tracing::warn!(at = %self.at.display(), "programs still use the volume: they are cut off from it");
            last = unmount(&self.at, UnmountFlags::FORCE | UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        }
        match last {
            // Someone else has unmounted it.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(error) => tracing::error!(at = %self.at.display(), %error, "cannot be unmounted"),
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.end();
    }
}

/// The device number of what is mounted at `at`, as far as the kernel knows it.
fn device(at: &Path) -> Option<(u32, u32)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(rustix::fs::CWD, at, flags, StatxFlags::TYPE).ok()?;
    Some((stat.stx_dev_major, stat.stx_dev_minor))
}

/// Looks until `done` or the limit; says which.
fn wait(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let limit = Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= limit {
            return false;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}
