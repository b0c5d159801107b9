//! How a session begins: on a new mount, or on one that another agent served before.
//!
//! The kernel says once per mount what it can do, and takes one answer. Here that word and the
//! answer go through a socket, on which `fuser` believes to speak with the kernel; so they can be kept for the next
//! agent, which is told the same and must answer the same. Then the device takes the socket's place.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Barrier};

use fuser::{BackgroundSession, Filesystem, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair};
use serde::{Deserialize, Serialize};

use super::device::{lay_buffer, put_behind};
use super::init::MAX_WRITE;

/// The kernel refuses to read into less.
const REQUEST: usize = 64 << 10;
/// The largest request that the kernel makes, with its headers.
const BUFFER: usize = MAX_WRITE as usize + 8192;
const IN_HEADER: usize = 40;
const OUT_HEADER: usize = 16;
/// `FUSE_INIT_EXT`: the second word of flags is there.
const INIT_EXT: u32 = 1 << 30;
/// `FUSE_PASSTHROUGH` and `FUSE_HAS_RESEND`, in the second word.
const PASSTHROUGH: u32 = 1 << (37 - 32);
const HAS_RESEND: u32 = 1 << (39 - 32);

/// What the kernel said when the mount began, and what was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreed {
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}

/// Both words of flags that the kernel offers: `struct fuse_init_in`.
const OFFERED: [usize; 2] = [IN_HEADER + 12, IN_HEADER + 16];
/// Both words of flags in the answer: `struct fuse_init_out`.
const TAKEN: [usize; 2] = [OUT_HEADER + 12, OUT_HEADER + 32];
/// `max_write` and `max_stack_depth` there.
const SIZES: [usize; 2] = [OUT_HEADER + 20, OUT_HEADER + 36];

impl Agreed {
    /// Whether the kernel repeats what an agent had read and not answered. Without that, nothing is kept.
    pub fn repeats(&self) -> bool {
        word(&self.request, OFFERED[1]).is_some_and(|flags| flags & HAS_RESEND != 0)
    }

    /// The kernel's word, without what was not taken up.
    fn again(&self) -> Vec<u8> {
        let mut request = self.request.clone();
        for (offered, taken) in OFFERED.into_iter().zip(TAKEN) {
            let both =
                word(&request, offered).unwrap_or(0) & (word(&self.answer, taken).unwrap_or(0) | INIT_EXT);
            put(&mut request, offered, both);
        }
        request
    }

    /// Whether `answer` is what was answered then. Passthrough may be left unused.
    fn holds(&self, answer: &[u8]) -> bool {
        let same = |at| word(&self.answer, at) == word(answer, at);
        let flags = |bytes| word(bytes, TAKEN[1]).map(|flags| flags & !PASSTHROUGH);
        same(TAKEN[0]) && flags(&self.answer) == flags(answer) && same(SIZES[0])
    }
}

/// Mounts at `at`; gives the device.
///
/// # Errors
/// What the kernel says; nothing is mounted then.
pub fn mount_at(at: &Path) -> io::Result<OwnedFd> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let options = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions",
        device.as_raw_fd()
    );
    let options = std::ffi::CString::new(options)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("nearbrick", at, "fuse.nearbrick", flags, options.as_c_str())?;
    Ok(device)
}

/// A session on a mount that was just made, and what was agreed.
///
/// # Errors
/// What the kernel says.
pub fn first<F: Filesystem + Send + 'static>(
    device: &Arc<OwnedFd>,
    filesystem: F,
    config: fuser::Config,
) -> io::Result<(Begun<F>, Agreed)> {
    let mut request = vec![0; REQUEST];
    let got = loop {
        match rustix::io::read(device, &mut request) {
            Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
            other => break other?,
        }
    };
    request.truncate(got);
    let (session, ours, answer) = shake_hands(&request, filesystem, config)?;
    rustix::io::write(device, &answer)?;
    Ok((Begun { session, ours }, Agreed { request, answer }))
}

/// A session on a mount that another agent served.
///
/// # Errors
/// `Unsupported` if this agent would not have agreed to the same.
pub fn again<F: Filesystem + Send + 'static>(
    agreed: &Agreed,
    filesystem: F,
    config: fuser::Config,
) -> io::Result<Begun<F>> {
    let (session, ours, answer) = shake_hands(&agreed.again(), filesystem, config)?;
    if !agreed.holds(&answer) {
        let why = "the agent before this one had agreed to something else with the kernel";
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    Ok(Begun { session, ours })
}

/// A session that has agreed with the kernel and still listens to a socket.
pub struct Begun<F: Filesystem> {
    session: Session<F>,
    /// The socket's other end.
    ours: OwnedFd,
}

/// Where the threads of a session and who starts it wait for each other.
pub struct Start {
    all: Barrier,
    threads: usize,
}

/// The node that the kernel never speaks of: a request to forget it is ours.
pub const NOTHING: u64 = 0;

impl Start {
    /// For so many threads.
    pub fn new(threads: usize) -> Self {
        Start { all: Barrier::new(threads + 1), threads }
    }

    /// This thread has heard of the start, in `request`.
    pub fn ready(&self, request: &fuser::Request) {
        lay_buffer(request, BUFFER);
        // All are here and none reads; the device takes the socket's place; on.
        self.all.wait();
        self.all.wait();
    }
}

impl<F: Filesystem + Send + 'static> Begun<F> {
    /// Starts its threads on the device.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn spawn(self, device: &Arc<OwnedFd>, start: &Start) -> io::Result<BackgroundSession> {
        let number = self.session.as_fd().as_raw_fd();
        let session = self.session.spawn()?;
        for _ in 0..start.threads {
            send(&self.ours, &forget_nothing(), SendFlags::NOSIGNAL)?;
        }
        start.all.wait();
        let put = put_behind(number, device);
        // On failure they read the end of the socket, and end too.
        drop(self.ours);
        start.all.wait();
        put.map(|()| session)
    }
}

/// `FUSE_FORGET`, which has no answer.
fn forget_nothing() -> [u8; IN_HEADER + 8] {
    const FORGET: u32 = 2;
    let mut request = [0; IN_HEADER + 8];
    let len = request.len() as u32;
    put(&mut request, 0, len);
    put(&mut request, 4, FORGET);
    request
}

/// Lets `fuser` hear `request`; gives what it answers.
fn shake_hands<F: Filesystem + Send + 'static>(
    request: &[u8],
    filesystem: F,
    config: fuser::Config,
) -> io::Result<(Session<F>, OwnedFd, Vec<u8>)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    send(&ours, request, SendFlags::NOSIGNAL)?;
    let session = Session::from_fd(filesystem, theirs, SessionACL::All, config)?;
    let mut answer = vec![0; REQUEST];
    let (got, _) = recv(ours.as_fd(), &mut answer[..], RecvFlags::DONTWAIT)?;
    answer.truncate(got);
    Ok((session, ours, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(offered: [u32; 2], taken: [u32; 2]) -> Agreed {
        let (mut request, mut answer) = (vec![0; IN_HEADER + 64], vec![0; OUT_HEADER + 64]);
        for n in 0..2 {
            put(&mut request, OFFERED[n], offered[n]);
            put(&mut answer, TAKEN[n], taken[n]);
        }
        put(&mut answer, SIZES[0], 1 << 20);
        Agreed { request, answer }
    }

    #[test]
    fn the_next_agent_hears_only_what_was_taken_up() {
        let a = agreed([INIT_EXT | 0b111, PASSTHROUGH | HAS_RESEND | 1], [INIT_EXT | 0b101, PASSTHROUGH]);
        assert!(a.repeats());
        let again = a.again();
        assert_eq!(word(&again, OFFERED[0]), Some(INIT_EXT | 0b101));
        assert_eq!(word(&again, OFFERED[1]), Some(PASSTHROUGH));
        assert!(!agreed([INIT_EXT, PASSTHROUGH], [0, 0]).repeats());
    }

    #[test]
    fn another_answer_is_noticed_but_passthrough_may_be_left() {
        let a = agreed([7, PASSTHROUGH | 1], [5, PASSTHROUGH | 1]);
        assert!(a.holds(&a.answer));
        assert!(a.holds(&agreed([7, PASSTHROUGH | 1], [5, 1]).answer));
        assert!(!a.holds(&agreed([7, PASSTHROUGH | 1], [4, PASSTHROUGH | 1]).answer));
        assert!(!a.holds(&agreed([7, PASSTHROUGH | 1], [5, PASSTHROUGH]).answer));
        let mut smaller = a.answer.clone();
        put(&mut smaller, SIZES[0], 4096);
        assert!(!a.holds(&smaller));
        assert!(!a.holds(&[]));
    }
}
