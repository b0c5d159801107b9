//! Messages with descriptors, one a packet, on a Unix socket that keeps packets apart.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Of what is said here. A holder stays when agents are replaced: this changes hardly ever.
pub const VERSION: u32 = 1;
/// Bytes of a message.
const MAX_BYTES: usize = 64 << 10;
/// Descriptors of a message.
const MAX_FDS: usize = 2;

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// The first message. Answered.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Keeps a mount; its device and its ledger come with it. Answered.
    Keep {
        /// The mount's.
        name: String,
        /// What the next agent must know, in the agents' own words.
        agreed: Vec<u8>,
    },
    /// Asks for a mount that was kept and that no agent has. Answered.
    Take {
        /// The mount's.
        name: String,
    },
    /// It is served: its time does not run out any more.
    Serving {
        /// The mount's.
        name: String,
    },
    /// Keeps a brick file that has no name any more; it comes with this.
    Orphan {
        /// The mount's.
        name: String,
        /// What the kernel calls it.
        node: u64,
    },
    /// That file is closed.
    Forget {
        /// The mount's.
        name: String,
        /// As before.
        node: u64,
    },
    /// The mount is over. Answered.
    End {
        /// The mount's.
        name: String,
    },
}

/// What the holder answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Done.
    Done,
    /// No.
    Refused(String),
    /// Nothing is kept under this name.
    Nothing,
    /// What was kept; its device and its ledger come with it. So many [`Answer::Orphan`]s follow.
    Kept {
        /// As it was given.
        agreed: Vec<u8>,
        /// How many.
        orphans: u32,
    },
    /// A file without a name; it comes with this.
    Orphan {
        /// What the kernel calls it.
        node: u64,
    },
}

/// Sends a message with descriptors.
///
/// # Errors
/// What the kernel says.
pub fn send(to: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
    if bytes.len() > MAX_BYTES || fds.len() > MAX_FDS {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
    }
    rustix::io::retry_on_intr(|| {
        sendmsg(&to, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL).map(drop)
    })?;
    Ok(())
}

/// The next message, with its descriptors; none at the other's end.
///
/// # Errors
/// What the kernel says; `InvalidData` for what is no message.
pub fn receive<M: DeserializeOwned>(from: impl AsFd) -> io::Result<Option<(M, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg(&from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let bad = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(bad("a message was cut off".to_owned()));
    }
    let message = postcard::from_bytes(&bytes[..got.bytes]).map_err(|e| bad(e.to_string()))?;
    Ok(Some((message, fds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use std::io::Read;

    #[test]
    fn messages_carry_descriptors_and_the_end_is_seen() {
        let flags = SocketFlags::CLOEXEC;
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), b"handed over").unwrap();
        let file = std::fs::File::open(dir.path().join("f")).unwrap();
        let said = Ask::Orphan { name: "lab/home".to_owned(), node: 7 };
        send(&a, &said, &[file.as_fd()]).unwrap();
        drop(file);
        send(&a, &Ask::Hello { version: VERSION }, &[]).unwrap();
        let (heard, mut fds) = receive::<Ask>(&b).unwrap().unwrap();
        assert_eq!(heard, said);
        let mut text = String::new();
        std::fs::File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "handed over");
        let (heard, fds) = receive::<Ask>(&b).unwrap().unwrap();
        assert_eq!((heard, fds.len()), (Ask::Hello { version: VERSION }, 0));
        rustix::net::send(&a, &[0xff; 9], SendFlags::empty()).unwrap();
        assert_eq!(receive::<Ask>(&b).unwrap_err().kind(), io::ErrorKind::InvalidData);
        drop(a);
        assert!(receive::<Ask>(&b).unwrap().is_none());
    }
}
