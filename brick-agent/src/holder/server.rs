//! The holder: one thread that waits for agents and for the time to run out.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, socket_with,
};

use super::wire::{Answer, Ask, VERSION, receive, send};
use super::{pid_file, socket};

/// Between two looks at mounts without an agent.
const LOOK: Duration = Duration::from_secs(1);

/// How a holder is run.
#[derive(Clone, Debug)]
pub struct HoldOptions {
    /// Its socket and its pid are here.
    pub run_dir: PathBuf,
    /// For how long calls wait for the next agent.
    pub wait: Duration,
    /// Ends when it has neither mounts nor agents.
    pub until_empty: bool,
}

/// A mount that is kept.
struct Kept {
    device: OwnedFd,
    ledger: OwnedFd,
    agreed: Vec<u8>,
    orphans: BTreeMap<u64, OwnedFd>,
    /// The connection of its agent.
    agent: Option<u64>,
    /// When it is let go, unless an agent serves it by then.
    until: Option<Instant>,
}

struct Holder {
    options: HoldOptions,
    kept: BTreeMap<String, Kept>,
    agents: BTreeMap<u64, OwnedFd>,
    next: u64,
    had_agents: bool,
}

/// Listens, and holds until there is nothing to be held, or for good. One holder a directory.
///
/// # Errors
/// One clear line.
pub fn run(options: HoldOptions) -> Result<(), String> {
    let dir = options.run_dir.clone();
    let said = |what: &str| {
        let what = format!("{what} {}", dir.display());
        move |e: io::Error| format!("{what}: {e}")
    };
    // Not the agent's session: what ends that one must not end this. Fails only where we lead one already.
    let _ = rustix::process::setsid();
    let _lock = own(&dir).map_err(said("another holder runs in, or nothing can be made in"))?;
    let listener = listener(&socket(&dir)).map_err(said("cannot listen in"))?;
    std::fs::write(pid_file(&dir), format!("{}\n", std::process::id())).map_err(said("cannot write in"))?;
    tracing::info!(dir = %dir.display(), wait = ?options.wait, "holds mounts while their agent is away");
    let mut holder =
        Holder { options, kept: BTreeMap::new(), agents: BTreeMap::new(), next: 0, had_agents: false };
    let ended = holder.work(&listener);
    // The lock is still ours, so these are too.
    let _ = std::fs::remove_file(socket(&dir));
    let _ = std::fs::remove_file(pid_file(&dir));
    ended.map_err(said("cannot go on in"))
}

/// Whether the process has ended, whatever its threads still do.
fn is_zombie(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
}

/// Takes the directory for this process.
fn own(dir: &Path) -> io::Result<File> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let lock = File::options().create(true).truncate(false).write(true).open(dir.join("holder.lock"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(lock)
}

fn listener(at: &Path) -> io::Result<OwnedFd> {
    // Of a holder that is gone: the lock says so.
    let _ = std::fs::remove_file(at);
    let flags = SocketFlags::CLOEXEC;
    let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    bind(&listener, &SocketAddrUnix::new(at)?)?;
    listen(&listener, 8)?;
    Ok(listener)
}

impl Holder {
    fn work(&mut self, listener: &OwnedFd) -> io::Result<()> {
        loop {
            if self.options.until_empty && self.had_agents && self.agents.is_empty() && self.kept.is_empty() {
                return Ok(());
            }
            for agent in self.wait(listener)? {
                match agent {
                    None => {
                        let agent = accept_with(listener, SocketFlags::CLOEXEC)?;
                        self.agents.insert(self.next, agent);
                        self.next += 1;
                        self.had_agents = true;
                    }
                    Some(agent) => self.hear(agent),
                }
            }
            self.notice_dying();
            self.let_go();
        }
    }

    /// An agent that was killed may be unable to end: a thread of it waits in the kernel for a lock that a call
    /// holds which nobody answers any more. Then its connection stays, and only another agent can free it.
    fn notice_dying(&mut self) {
        let dying = |agent: &&OwnedFd| {
            rustix::net::sockopt::socket_peercred(agent)
                .is_ok_and(|who| is_zombie(who.pid.as_raw_nonzero().get()))
        };
        let ids: Vec<_> = self.agents.iter().filter(|(_, agent)| dying(agent)).map(|(id, _)| *id).collect();
        for id in ids {
            // What it said before still counts.
            while self.agents.get(&id).is_some_and(|agent| is_ready(agent, PollFlags::IN)) {
                self.hear(id);
            }
            if self.agents.remove(&id).is_some() {
                self.gone(id);
            }
        }
    }

    /// Waits for agents that say something, or for a new one (none), or for time.
    fn wait(&self, listener: &OwnedFd) -> io::Result<Vec<Option<u64>>> {
        let mut asked = vec![PollFd::new(listener, PollFlags::IN)];
        asked.extend(self.agents.values().map(|agent| PollFd::new(agent, PollFlags::IN)));
        let limit = (!self.kept.is_empty()).then_some(Timespec { tv_sec: LOOK.as_secs() as i64, tv_nsec: 0 });
        match poll(&mut asked, limit.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let who = std::iter::once(None).chain(self.agents.keys().map(|id| Some(*id)));
        Ok(asked.iter().zip(who).filter(|(fd, _)| !fd.revents().is_empty()).map(|(_, who)| who).collect())
    }

    fn hear(&mut self, id: u64) {
        let Some(agent) = self.agents.get(&id) else { return };
        let heard = match receive::<Ask>(agent) {
            Ok(Some((ask, fds))) => self.act(id, ask, fds),
            Ok(None) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) => Err(error),
        };
        if let Err(error) = heard {
            if error.kind() != io::ErrorKind::UnexpectedEof {
                tracing::warn!(%error, "an agent is not understood");
            }
            self.agents.remove(&id);
            self.gone(id);
        }
    }

    fn act(&mut self, id: u64, ask: Ask, fds: Vec<OwnedFd>) -> io::Result<()> {
        let mut fds = fds.into_iter();
        if let Ask::Keep { name, .. } = &ask {
            self.hear_out(name);
        }
        let answer = match ask {
            Ask::Hello { version: VERSION } => Answer::Done,
            Ask::Hello { version } => {
                Answer::Refused(format!("the holder speaks version {VERSION}, not {version}"))
            }
            Ask::Keep { name, agreed } => match (fds.next(), fds.next()) {
                _ if self.kept.get(&name).is_some_and(|kept| kept.agent.is_some_and(|agent| agent != id)) => {
                    Answer::Refused(format!(
                        "another agent has {name} kept here: give each agent of a machine a --run-dir of its own"
                    ))
                }
                (Some(device), Some(ledger)) => {
                    let agent = Some(id);
                    let orphans = BTreeMap::new();
                    self.kept.insert(name, Kept { device, ledger, agreed, orphans, agent, until: None });
                    Answer::Done
                }
                _ => Answer::Refused("no descriptors came".to_owned()),
            },
            Ask::Take { name } => return self.take(id, &name),
            Ask::Serving { name } => {
                if let Some(kept) = self.of(id, &name) {
                    kept.until = None;
                }
                return Ok(());
            }
            Ask::Orphan { name, node } => {
                if let (Some(kept), Some(file)) = (self.of(id, &name), fds.next()) {
                    kept.orphans.insert(node, file);
                }
                return Ok(());
            }
            Ask::Forget { name, node } => {
                if let Some(kept) = self.of(id, &name) {
                    kept.orphans.remove(&node);
                }
                return Ok(());
            }
            Ask::End { name } => {
                if self.of(id, &name).is_some() {
                    self.kept.remove(&name);
                }
                Answer::Done
            }
        };
        self.answer(id, &answer, &[])
    }

    fn answer(&self, id: u64, answer: &Answer, fds: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
        let agent = self.agents.get(&id).ok_or(io::ErrorKind::UnexpectedEof)?;
        send(agent, answer, fds)
    }

    /// A mount of this agent.
    fn of(&mut self, id: u64, name: &str) -> Option<&mut Kept> {
        self.kept.get_mut(name).filter(|kept| kept.agent == Some(id))
    }

    /// Hears out the agent of a mount, if it is gone and that was not noticed yet.
    fn hear_out(&mut self, name: &str) {
        while let Some(agent) = self.kept.get(name).and_then(|kept| kept.agent)
            && self.agents.get(&agent).is_some_and(is_cut)
        {
            self.hear(agent);
        }
    }

    fn take(&mut self, id: u64, name: &str) -> io::Result<()> {
        self.hear_out(name);
        let Some(kept) = self.kept.get_mut(name) else { return self.answer(id, &Answer::Nothing, &[]) };
        if kept.agent.is_some_and(|agent| agent != id) {
            let why = format!("another agent serves {name}: end it first");
            return self.answer(id, &Answer::Refused(why), &[]);
        }
        kept.agent = Some(id);
        let kept = &self.kept[name];
        let orphans = u32::try_from(kept.orphans.len()).unwrap_or(u32::MAX);
        let answer = Answer::Kept { agreed: kept.agreed.clone(), orphans };
        self.answer(id, &answer, &[kept.device.as_fd(), kept.ledger.as_fd()])?;
        for (node, file) in &kept.orphans {
            self.answer(id, &Answer::Orphan { node: *node }, &[file.as_fd()])?;
        }
        Ok(())
    }

    /// An agent is gone: what it served waits for the next one.
    fn gone(&mut self, id: u64) {
        for (name, kept) in self.kept.iter_mut().filter(|(_, kept)| kept.agent == Some(id)) {
            kept.agent = None;
            kept.until.get_or_insert_with(|| Instant::now() + self.options.wait);
            // It has ended altogether, so nothing of what it had read will be answered.
            match resend(&kept.device) {
                Ok(()) => tracing::info!(mount = name, "its agent is gone: calls wait for the next one"),
                Err(error) => {
                    tracing::warn!(mount = name, %error, "its agent is gone, and the kernel does not repeat calls")
                }
            }
        }
    }

    /// Lets go of what waited too long, and of what was unmounted meanwhile.
    fn let_go(&mut self) {
        let now = Instant::now();
        self.kept.retain(|name, kept| {
            let Some(until) = kept.until else { return true };
            if until <= now {
                tracing::warn!(mount = name, "no agent came in time: programs are cut off from it");
                return false;
            }
            if kept.agent.is_none() && is_over(&kept.device) {
                tracing::info!(mount = name, "was unmounted");
                return false;
            }
            true
        });
    }
}

/// Asks the kernel to give out again, marked, all that was read and not answered. As long as nobody
/// reads it, programs that wait for it can be killed.
///
/// # Errors
/// `InvalidInput` before Linux 6.9.
pub fn resend(device: impl AsFd) -> io::Result<()> {
    /// `FUSE_NOTIFY_RESEND`.
    const RESEND: i32 = 7;
    notify(device, RESEND)
}

/// Sends the kernel a notification that says nothing more.
///
/// # Errors
/// What the kernel says; `InvalidInput` if it does not know it.
pub fn notify(device: impl AsFd, code: i32) -> io::Result<()> {
    // struct fuse_out_header: its own length, the code in the place of an error, and no request.
    let mut header = [0; 16];
    header[..4].copy_from_slice(&16_u32.to_ne_bytes());
    header[4..8].copy_from_slice(&code.to_ne_bytes());
    File::from(device.as_fd().try_clone_to_owned()?).write_all(&header)
}

/// Whether the other side of a connection is gone; what it said may still be there to be heard.
pub fn is_cut(connection: &OwnedFd) -> bool {
    is_ready(connection, PollFlags::RDHUP)
}

fn is_ready(connection: &OwnedFd, how: PollFlags) -> bool {
    let mut asked = [PollFd::new(connection, how)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&now)).is_ok_and(|n| n > 0)
}

/// Whether nothing is behind the device any more.
pub fn is_over(device: impl AsFd) -> bool {
    let mut asked = [PollFd::new(&device, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut asked, Some(&now)).is_ok_and(|n| n > 0) && asked[0].revents().contains(PollFlags::ERR)
}
