//! kubelet's calls, as an HTTP/2 server may take them.
//!
//! When kubelet (seen in 1.34) asks who wants to register, its request has the path of the socket as `:authority`, which is none, and the
//! server below hyper refuses such a request before anybody here could see it. So what comes from a client is looked at on its way: in
//! each block of headers, the value of `:authority` becomes `localhost`, as it is in all other calls on such sockets. Everything else goes
//! through as it came.
//!
//! The values need not be read for that, only their lengths. The client's and the server's tables of headers stay in step: an entry has the
//! same place in both, and as the new value is not longer than the old one, the server forgets none before the client does.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What stands in for the name.
const NAME: &[u8] = b"localhost";
/// What a client says first.
const PREFACE: usize = 24;
/// The head of a frame.
const HEAD: usize = 9;
/// The largest frame that a client may send unless it was told of larger ones, which it is not here.
const LARGEST: usize = 1 << 14;
/// A frame of headers, and of its flags those that matter: all of them are in it; there is padding; there is a priority.
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The place of `:authority` in the table that everybody has.
const AUTHORITY: usize = 1;

/// A connection of a client.
#[derive(Debug)]
pub(super) struct Localhost<S> {
    stream: S,
    frames: Frames,
    ended: bool,
}

impl<S> Localhost<S> {
    pub(super) fn new(stream: S) -> Self {
        Localhost { stream, frames: Frames::default(), ended: false }
    }
}

/// What came, cut into frames.
#[derive(Debug)]
struct Frames {
    /// Bytes that go through as they come, before the next frame.
    through: usize,
    came: Vec<u8>,
    /// What the server is to read, from `at`.
    ready: Vec<u8>,
    at: usize,
}

impl Default for Frames {
    fn default() -> Self {
        Frames { through: PREFACE, came: vec![], ready: vec![], at: 0 }
    }
}

impl Frames {
    fn take(&mut self, bytes: &[u8]) {
        self.came.extend_from_slice(bytes);
        let mut rest = self.came.as_slice();
        loop {
            let through = self.through.min(rest.len());
            self.ready.extend_from_slice(&rest[..through]);
            (self.through, rest) = (self.through - through, &rest[through..]);
            if rest.len() < HEAD {
                break;
            }
            let length = usize::from(rest[0]) << 16 | usize::from(rest[1]) << 8 | usize::from(rest[2]);
            let (kind, flags) = (rest[3], rest[4]);
            if kind != HEADERS || flags & END_HEADERS == 0 || flags & PADDED != 0 || length > LARGEST {
                self.through = HEAD + length;
                continue;
            }
            let Some((frame, after)) = rest.split_at_checked(HEAD + length) else { break };
            let (head, payload) = frame.split_at(HEAD);
            let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
            let changed = payload.split_at_checked(priority).and_then(|(priority, block)| {
                let block = renamed(block)?;
                Some([priority, &block].concat())
            });
            let payload = changed.as_deref().unwrap_or(payload);
            let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
            self.ready.extend_from_slice(&length[1..]);
            self.ready.extend_from_slice(&head[3..]);
            self.ready.extend_from_slice(payload);
            rest = after;
        }
        self.came = rest.to_vec();
    }

    /// Nothing more comes: what there is of a frame is the server's to refuse.
    fn end(&mut self) {
        let came = std::mem::take(&mut self.came);
        self.ready.extend_from_slice(&came);
    }

    fn give(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let rest = &self.ready[self.at..];
        let count = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..count]);
        self.at += count;
        if self.at == self.ready.len() {
            self.ready.clear();
            self.at = 0;
        }
        count > 0
    }
}

/// A block of headers with another `:authority`; none if it has none to change, or makes no sense.
fn renamed(block: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(block.len());
    let (mut rest, mut changed) = (block, false);
    while let Some(first) = rest.first() {
        // How a header is written: wholly by its place in a table, as a new size of the table, or with its value.
        let (bits, has_value) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let (place, mut length) = number(rest, bits)?;
        if has_value && place == 0 {
            length += text(rest.get(length..)?)?;
        }
        let (name, after) = rest.split_at_checked(length)?;
        out.extend_from_slice(name);
        rest = after;
        if has_value {
            let (value, after) = rest.split_at_checked(text(rest)?)?;
            // A coded value is not longer than what it stands for.
            if place == AUTHORITY && value.len() > NAME.len() {
                out.push(u8::try_from(NAME.len()).ok()?);
                out.extend_from_slice(NAME);
                changed = true;
            } else {
                out.extend_from_slice(value);
            }
            rest = after;
        }
    }
    changed.then_some(out)
}

/// A number that begins with the lower `bits` of the first byte, and how many bytes it takes.
fn number(bytes: &[u8], bits: u32) -> Option<(usize, usize)> {
    let most = (1usize << bits) - 1;
    let mut value = usize::from(*bytes.first()?) & most;
    if value < most {
        return Some((value, 1));
    }
    for (n, byte) in bytes.iter().enumerate().skip(1).take(4) {
        value += usize::from(byte & 0x7f) << (7 * (n - 1));
        if byte & 0x80 == 0 {
            return Some((value, n + 1));
        }
    }
    None
}

/// How many bytes a text takes, with its length before it.
fn text(bytes: &[u8]) -> Option<usize> {
    let (length, head) = number(bytes, 7)?;
    Some(head + length)
}

impl<S: AsyncRead + Unpin> AsyncRead for Localhost<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.frames.give(buf) && !this.ended && buf.remaining() > 0 {
            let mut space = [0; 4096];
            let mut came = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut this.stream).poll_read(cx, &mut came))?;
            if came.filled().is_empty() {
                this.ended = true;
                this.frames.end();
                this.frames.give(buf);
            } else {
                this.frames.take(came.filled());
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Localhost<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[path = "authority/tests.rs"]
mod tests;
