//! The agent's side of the holder.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use super::server::is_cut;
use super::socket;
use super::wire::{Answer, Ask, VERSION, receive, send};

/// How long a holder may take to listen.
const START: Duration = Duration::from_secs(10);

/// How an agent comes to a holder.
#[derive(Clone, Debug)]
pub struct HolderOptions {
    /// The holder's directory.
    pub run_dir: PathBuf,
    /// The program that starts one where none listens; none: it is someone else's business.
    pub start: Option<PathBuf>,
    /// What that one is told: for how long calls wait for the next agent.
    pub wait: Duration,
}

/// The holder, as one agent knows it. A lost connection is made again, with a new holder where
/// none listens: mounts are then to be kept anew, see [`Client::generation`].
pub struct Client {
    options: HolderOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connection: Option<OwnedFd>,
    /// Connections so far.
    generation: u64,
    /// Those that we started, until they end.
    children: Vec<Child>,
}

/// What was kept of a mount.
pub struct Taken {
    /// The device.
    pub device: OwnedFd,
    /// The ledger of open files.
    pub ledger: OwnedFd,
    /// What the last agent said.
    pub agreed: Vec<u8>,
    /// Brick files without a name, by node.
    pub orphans: Vec<(u64, OwnedFd)>,
}

fn odd() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the holder's answer makes no sense")
}

impl Client {
    /// Not connected yet.
    pub fn new(options: HolderOptions) -> Self {
        Client { options, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects if it is not connected; says which connection it is. Another number than
    /// before: the holder knows nothing of what was kept through the last one.
    ///
    /// # Errors
    /// One clear line.
    pub fn generation(&self) -> Result<u64, String> {
        let state = &mut *self.state();
        self.connected(state).map_err(|e| format!("no holder at {}: {e}", self.options.run_dir.display()))?;
        Ok(state.generation)
    }

    fn connected<'a>(&self, state: &'a mut State) -> io::Result<&'a OwnedFd> {
        // Laid to rest, if they ended.
        state.children.retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
        if state.connection.as_ref().is_some_and(is_cut) {
            state.connection = None;
        }
        if state.connection.is_none() {
            let connection = match join(&self.options.run_dir) {
                Ok(connection) => connection,
                Err(error) => match &self.options.start {
                    None => return Err(error),
                    Some(program) => self.start(program, &mut state.children)?,
                },
            };
            send(&connection, &Ask::Hello { version: VERSION }, &[])?;
            match receive(&connection)? {
                Some((Answer::Done, _)) => {}
                Some((Answer::Refused(why), _)) => return Err(io::Error::other(why)),
                _ => return Err(odd()),
            }
            state.generation += 1;
            state.connection = Some(connection);
        }
        state.connection.as_ref().ok_or_else(odd)
    }

    /// Starts a holder, and waits until it listens.
    fn start(&self, program: &Path, children: &mut Vec<Child>) -> io::Result<OwnedFd> {
        let child = Command::new(program)
            .arg("hold")
            .arg("--run-dir")
            .arg(&self.options.run_dir)
            .arg("--wait-seconds")
            .arg(self.options.wait.as_secs().to_string())
            .arg("--until-empty")
            .stdin(Stdio::null())
            .current_dir("/")
            .spawn()?;
        children.push(child);
        let limit = Instant::now() + START;
        loop {
            match join(&self.options.run_dir) {
                Err(error) if Instant::now() >= limit => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
                joined => return joined,
            }
        }
    }

    fn ask(&self, ask: &Ask, fds: &[BorrowedFd<'_>]) -> io::Result<(Answer, Vec<OwnedFd>)> {
        let state = &mut *self.state();
        let connection = self.connected(state)?;
        send(connection, ask, fds)?;
        receive(connection)?.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
    }

    fn say(&self, ask: &Ask, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let state = &*self.state();
        let connection = state.connection.as_ref().ok_or(io::ErrorKind::NotConnected)?;
        send(connection, ask, fds)
    }

    /// Has a mount kept.
    ///
    /// # Errors
    /// The connection's; what the holder says.
    pub fn keep(
        &self,
        name: &str,
        agreed: &[u8],
        device: impl AsFd,
        ledger: impl AsFd,
        orphans: &[(u64, impl AsFd)],
    ) -> io::Result<()> {
        let ask = Ask::Keep { name: name.to_owned(), agreed: agreed.to_vec() };
        match self.ask(&ask, &[device.as_fd(), ledger.as_fd()])? {
            (Answer::Done, _) => {}
            (Answer::Refused(why), _) => return Err(io::Error::other(why)),
            _ => return Err(odd()),
        }
        orphans.iter().try_for_each(|(node, file)| self.orphan(name, *node, file))
    }

    /// Takes what was kept of a mount, if anything was.
    ///
    /// # Errors
    /// The connection's; what the holder says.
    pub fn take(&self, name: &str) -> io::Result<Option<Taken>> {
        let state = &mut *self.state();
        let connection = self.connected(state)?;
        send(connection, &Ask::Take { name: name.to_owned() }, &[])?;
        let next = || receive::<Answer>(connection)?.ok_or_else(odd);
        let (answer, mut fds) = next()?;
        let (agreed, count) = match answer {
            Answer::Kept { agreed, orphans } => (agreed, orphans),
            Answer::Nothing => return Ok(None),
            Answer::Refused(why) => return Err(io::Error::new(io::ErrorKind::ResourceBusy, why)),
            Answer::Done | Answer::Orphan { .. } => return Err(odd()),
        };
        let (Some(ledger), Some(device)) = (fds.pop(), fds.pop()) else { return Err(odd()) };
        let mut orphans = Vec::new();
        for _ in 0..count {
            match next()? {
                (Answer::Orphan { node }, mut fds) => orphans.push((node, fds.pop().ok_or_else(odd)?)),
                _ => return Err(odd()),
            }
        }
        Ok(Some(Taken { device, ledger, agreed, orphans }))
    }

    /// The mount is served.
    ///
    /// # Errors
    /// The connection's.
    pub fn serving(&self, name: &str) -> io::Result<()> {
        self.say(&Ask::Serving { name: name.to_owned() }, &[])
    }

    /// Has a brick file without a name kept. It is safe when this returns, even if we die.
    ///
    /// # Errors
    /// The connection's.
    pub fn orphan(&self, name: &str, node: u64, file: impl AsFd) -> io::Result<()> {
        self.say(&Ask::Orphan { name: name.to_owned(), node }, &[file.as_fd()])
    }

    /// That file is closed.
    ///
    /// # Errors
    /// The connection's.
    pub fn forget(&self, name: &str, node: u64) -> io::Result<()> {
        self.say(&Ask::Forget { name: name.to_owned(), node }, &[])
    }

    /// The mount is over.
    ///
    /// # Errors
    /// The connection's.
    pub fn end(&self, name: &str) -> io::Result<()> {
        self.ask(&Ask::End { name: name.to_owned() }, &[]).map(drop)
    }
}

fn join(run_dir: &Path) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let connection = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    connect(&connection, &SocketAddrUnix::new(socket(run_dir))?)?;
    Ok(connection)
}
