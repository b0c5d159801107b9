//! Mounting and unmounting.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fuser::{BackgroundSession, SessionACL};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use super::begin::{self, Start, mount_at};
use super::init::Negotiated;
use super::invalidate::{Pending, Queue};
use super::keep::{Keep, Taken};
use super::ledger::{Entry, Ledger};
use super::open::Handle;
use super::shell::{Served, Shell};
use crate::holder::server::notify;
use crate::volume::Volume;
use crate::volume::types::Opened;

const DEVICE: &str = "/dev/fuse";
/// The kernel gives out again what was read and not answered: Linux 6.9.
const NOTIFY_RESEND: i32 = 7;
/// All names are to be looked up again before they are used: Linux 6.16.
const NOTIFY_INC_EPOCH: i32 = 8;
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
    begin(volume, at, options, None)
}

/// The same, and the mount outlives this process: the next agent can take it over.
///
/// # Errors
/// As there. That no holder is to be had is only logged: then it is mounted without one.
pub fn mount_kept(
    volume: Arc<Volume>,
    at: &Path,
    options: MountOptions,
    keep: Arc<Keep>,
) -> Result<Mounted, MountError> {
    begin(volume, at, options, Some(keep))
}

fn begin(
    volume: Arc<Volume>,
    at: &Path,
    options: MountOptions,
    keep: Option<Arc<Keep>>,
) -> Result<Mounted, MountError> {
    check(at)?;
    let refused = |source| MountError::Refused { at: at.to_owned(), source };
    let (queue, pending) = Queue::new();
    let fuse = Arc::new(mount_at(at).map_err(refused)?);
    let device = device(at);
    let undo = |source| {
        let _ = unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        refused(source)
    };
    let kept = match keep {
        Some(keep) => {
            keep.new_mount();
            Some((keep, Arc::new(Ledger::new().map_err(undo)?)))
        }
        None => None,
    };
    let parts = Parts { volume, at, options, fuse, device, queue, pending, kept, open: Vec::new() };
    let (kept, fuse) = (parts.kept.clone(), parts.fuse.clone());
    let mut agreed = None;
    let mounted = parts
        .serve(|fuse, filesystem, config| {
            let (session, word) = begin::first(fuse, filesystem, config)?;
            agreed = Some(word);
            Ok(session)
        })
        .map_err(undo)?;
    if let (Some((keep, ledger)), Some(agreed)) = (kept, agreed) {
        if !agreed.repeats() {
            tracing::info!(
                "this kernel does not repeat calls (Linux 6.9): a mount does not outlive its agent"
            );
        } else if let Err(why) = keep.begin(at, agreed, &fuse, &ledger) {
            tracing::warn!(at = %at.display(), "{why}: the mount does not outlive this agent");
        }
    }
    Ok(mounted)
}

/// Goes on with a mount that an agent before this one served.
///
/// # Errors
/// One clear line; then it is detached, and can be mounted anew.
pub fn take_over(
    volume: Arc<Volume>,
    at: &Path,
    options: MountOptions,
    keep: Arc<Keep>,
    taken: Taken,
) -> Result<Mounted, MountError> {
    let Taken { device: fuse, ledger, entries, word, queue, pending, .. } = taken;
    let kept = Some((keep.clone(), ledger));
    let device = device(at);
    let handle = |entry: &Entry| Handle::from_raw(entry.raw).id;
    let files = entries.iter().filter(|entry| !entry.dir);
    let open: Vec<_> = files.map(|entry| (*entry, volume.opened(handle(entry)).ok())).collect();
    let of = volume.clone();
    // Before the first call is read, as one that is given out again while it is carried out would be done twice.
    // The holder has asked for the calls already, if it could.
    for (what, code) in [("calls", NOTIFY_RESEND), ("names", NOTIFY_INC_EPOCH)] {
        if let Err(error) = notify(&fuse, code) {
            tracing::debug!(what, %error, "not to be had from this kernel");
        }
    }
    let parts = Parts { volume, at, options, fuse: fuse.clone(), device, queue, pending, kept, open };
    let mounted = parts.serve(|_, filesystem, config| begin::again(&word.agreed, filesystem, config));
    let mounted = mounted.map_err(|source| {
        for entry in &entries {
            if entry.dir { of.releasedir(handle(entry)) } else { of.release(handle(entry)) }
        }
        keep.end();
        let _ = unmount(at, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        MountError::Refused { at: at.to_owned(), source }
    })?;
    keep.serving();
    Ok(mounted)
}

/// What a session is made of.
struct Parts<'a> {
    volume: Arc<Volume>,
    at: &'a Path,
    options: MountOptions,
    fuse: Arc<OwnedFd>,
    device: Option<(u32, u32)>,
    queue: Queue,
    pending: Pending,
    kept: Option<(Arc<Keep>, Arc<Ledger>)>,
    /// What programs opened through an agent before this one, and what the volume has of it.
    open: Vec<(Entry, Option<Opened>)>,
}

/// The session, as [`begin`] makes it of a device and what is to be served.
type Begun = io::Result<begin::Begun<Served>>;

impl Parts<'_> {
    fn serve(
        self,
        session: impl FnOnce(&Arc<OwnedFd>, Served, fuser::Config) -> Begun,
    ) -> io::Result<Mounted> {
        let threads = self.options.threads.max(1);
        let negotiated = Arc::new(Negotiated::default());
        let gone = Arc::new(AtomicBool::new(false));
        let keep = self.kept.as_ref().map(|(keep, _)| keep.clone());
        let shell = Arc::new(Shell::new(
            self.volume.clone(),
            self.options.passthrough,
            negotiated.clone(),
            gone.clone(),
            self.queue.clone(),
            self.fuse.clone(),
            self.kept,
            Start::new(threads),
        ));
        for (entry, opened) in &self.open {
            shell.resume(entry, opened.as_ref());
        }
        let mut config = fuser::Config::default();
        config.acl = SessionACL::All;
        config.n_threads = Some(threads);
        // One queue for all threads: what was read through a descriptor of a thread's own would be
        // answered with an error when that descriptor goes, and the holder does not have it.
        config.clone_fd = false;
        let session = session(&self.fuse, Served(shell.clone()), config)?.spawn(&self.fuse, &shell.start)?;
        let notifier = session.notifier();
        let mounted = Mounted {
            session: Some(session),
            shell,
            queue: self.queue.clone(),
            at: self.at.to_owned(),
            device: self.device,
            gone,
            negotiated,
            keep,
        };
        self.pending.start(notifier)?;
        self.volume.set_invalidate(Arc::new(self.queue));
        Ok(mounted)
    }
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
    shell: Arc<Shell>,
    queue: Queue,
    at: PathBuf,
    /// The device number of the mount: what is mounted there later is not ours.
    device: Option<(u32, u32)>,
    gone: Arc<AtomicBool>,
    negotiated: Arc<Negotiated>,
    keep: Option<Arc<Keep>>,
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

    /// How often the kernel asked for the names of a directory instead of remembering them.
    pub fn listings(&self) -> u64 {
        self.queue.listed().begun()
    }

    /// Whether nobody can reach it any more, for example because someone else unmounted it.
    pub fn ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Whether the next agent can go on with it.
    pub fn is_kept(&self) -> bool {
        self.keep.as_ref().is_some_and(|keep| keep.is_kept())
    }

    /// Leaves the mount to the next agent: no call is begun any more, and those that come wait for it. Whether
    /// all that were under way have ended; then the volume can be closed. This process must end soon.
    pub fn hand_over(mut self) -> bool {
        let Some(session) = self.session.take() else { return true };
        let ended = self.shell.hand_over(END_LIMIT);
        if !ended {
            tracing::warn!(at = %self.at.display(), "a call does not end: the next agent does it again");
        }
        // Its threads end with the process.
        std::mem::forget(session);
        ended
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
        // The holder's descriptor would keep alive what nobody serves.
        if let Some(keep) = &self.keep {
            keep.end();
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
pub(super) fn device(at: &Path) -> Option<(u32, u32)> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(rustix::fs::CWD, at, flags, StatxFlags::TYPE).ok()?;
    Some((stat.stx_dev_major, stat.stx_dev_minor))
}

/// Looks until `done` or the limit; says which.
pub(super) fn wait(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
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
