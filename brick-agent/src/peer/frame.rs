//! The frames of a stream of files: a length, a kind, and what it carries.
//!
//! For each file asked for, in order: `Begin`, any number of `Data` and `Hole`, `End`; or
//! `Failed` in place of any of them. A stream that stops in the middle of a
//! file was cut. A list of chunks is the same with `Pieces` in place of the data.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use nearbrick_core::heal::Reason;
use nearbrick_core::op::MAX_SIZE;
use nearbrick_core::{FileId, VersionVector};
use serde::{Deserialize, Serialize};

use super::wire::{CHUNK_AVERAGE, MAX_FRAME, Piece};

/// A part of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A file begins.
    Begin {
        /// Which.
        file: FileId,
        /// What its bytes are.
        version: VersionVector,
        /// How many will come.
        size: u64,
    },
    /// Its next bytes.
    Data(Bytes),
    /// Its next bytes are so many zeroes that take no space.
    Hole(u64),
    /// Its next chunks.
    Pieces {
        /// With which average it was cut.
        average: u32,
        /// In order.
        pieces: Vec<Piece>,
    },
    /// Its end, with the BLAKE3 of the bytes sent; of a list of chunks, that of the file.
    End {
        /// The hash.
        hash: [u8; 32],
    },
    /// It will not come, or not the rest of it.
    Failed {
        /// Which.
        file: FileId,
        /// Why.
        reason: Reason,
    },
}

/// Bytes that are no frame. The text is the same for each kind of rubbish.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFrame(pub &'static str);

const BEGIN: u8 = 1;
const DATA: u8 = 2;
const END: u8 = 3;
const FAILED: u8 = 4;
const HOLE: u8 = 5;
const PIECES: u8 = 6;
const HEADER: usize = 5;

#[derive(Serialize, Deserialize)]
struct Begin {
    file: FileId,
    version: VersionVector,
    size: u64,
}

/// A reason on the wire; never 0.
pub fn code(reason: Reason) -> u8 {
    match reason {
        Reason::Unreachable => 1,
        Reason::NoSpace => 2,
        Reason::Permission => 3,
        Reason::Conflict => 4,
        Reason::Busy => 5,
        Reason::SourceChanged => 6,
        Reason::Corrupt => 7,
    }
}

/// And back.
pub fn reason(code: u8) -> Option<Reason> {
    Some(match code {
        1 => Reason::Unreachable,
        2 => Reason::NoSpace,
        3 => Reason::Permission,
        4 => Reason::Conflict,
        5 => Reason::Busy,
        6 => Reason::SourceChanged,
        7 => Reason::Corrupt,
        _ => return None,
    })
}

fn put_header(out: &mut BytesMut, kind: u8, len: usize) {
    // Callers keep to MAX_FRAME, far below 4 GiB.
    out.put_u32_le(u32::try_from(len).unwrap_or(u32::MAX));
    out.put_u8(kind);
}

/// Appends a `Begin`.
pub fn put_begin(out: &mut BytesMut, file: FileId, version: &VersionVector, size: u64) {
    // Serialising to memory cannot fail for these types.
    let body = postcard::to_stdvec(&Begin { file, version: version.clone(), size }).unwrap_or_default();
    put_header(out, BEGIN, body.len());
    out.put_slice(&body);
}

/// Appends a `Data` whose bytes `fill` writes: up to `want`, and it says how
/// many they are. Without bytes, or on an error, nothing is appended.
///
/// # Errors
/// What `fill` says.
pub fn put_data_with<E>(
    out: &mut BytesMut,
    want: usize,
    fill: impl FnOnce(&mut [u8]) -> Result<usize, E>,
) -> Result<usize, E> {
    let at = out.len();
    put_header(out, DATA, 0);
    let start = out.len();
    out.resize(start + want.min(MAX_FRAME), 0);
    let got = match fill(&mut out[start..]) {
        Ok(got) if got > 0 => got,
        other => {
            out.truncate(at);
            return other;
        }
    };
    out.truncate(start + got);
    let len = u32::try_from(got).unwrap_or(u32::MAX).to_le_bytes();
    out[at..at + 4].copy_from_slice(&len);
    Ok(got)
}

/// Appends a `Hole`.
pub fn put_hole(out: &mut BytesMut, len: u64) {
    put_header(out, HOLE, 8);
    out.put_u64_le(len);
}

/// Appends `Pieces`; far fewer than fill a frame.
pub fn put_pieces(out: &mut BytesMut, average: u32, pieces: &[Piece]) {
    // Serialising to memory cannot fail for these types.
    let body = postcard::to_stdvec(&(average, pieces)).unwrap_or_default();
    put_header(out, PIECES, body.len());
    out.put_slice(&body);
}

/// Appends an `End`.
pub fn put_end(out: &mut BytesMut, hash: &[u8; 32]) {
    put_header(out, END, hash.len());
    out.put_slice(hash);
}

/// Appends a `Failed`.
pub fn put_failed(out: &mut BytesMut, file: FileId, reason: Reason) {
    put_header(out, FAILED, 17);
    out.put_slice(&file.0);
    out.put_u8(code(reason));
}

/// Takes frames out of bytes as they arrive.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether all bytes were taken: only then is an end of the stream no cut.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next frame; none while more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no frame; the stream is of no use any more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, BadFrame> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, kind] = *header;
        let len = u32::from_le_bytes([a, b, c, d]) as usize;
        if len > MAX_FRAME {
            return Err(BadFrame("a frame over its bound"));
        }
        if self.buffer.len() < HEADER + len {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        let body = self.buffer.split_to(len).freeze();
        Ok(Some(match kind {
            BEGIN => {
                let (begin, rest) = postcard::take_from_bytes::<Begin>(&body)
                    .map_err(|_| BadFrame("the begin of a file that cannot be read"))?;
                if !rest.is_empty() || begin.size > MAX_SIZE {
                    return Err(BadFrame("the begin of a file over its bound"));
                }
                Frame::Begin { file: begin.file, version: begin.version, size: begin.size }
            }
            DATA if !body.is_empty() => Frame::Data(body),
            HOLE => match body[..].try_into().map(u64::from_le_bytes) {
                Ok(len) if len > 0 => Frame::Hole(len),
                _ => return Err(BadFrame("a hole that cannot be read")),
            },
            PIECES => {
                let ((average, pieces), rest) = postcard::take_from_bytes::<(u32, Vec<Piece>)>(&body)
                    .map_err(|_| BadFrame("chunks that cannot be read"))?;
                let longest = u64::from(average) * 4;
                let odd = |p: &Piece| p.is_empty() || matches!(p, Piece::Data { .. } if p.len() > longest);
                if !rest.is_empty() || !CHUNK_AVERAGE.contains(&average) || pieces.iter().any(odd) {
                    return Err(BadFrame("chunks over their bound"));
                }
                Frame::Pieces { average, pieces }
            }
            END => Frame::End {
                hash: body[..].try_into().map_err(|_| BadFrame("the end of a file that cannot be read"))?,
            },
            FAILED => {
                let bad = BadFrame("the failure of a file that cannot be read");
                let (file, code) = match body.split_at_checked(16) {
                    Some((file, &[code])) => (file, code),
                    _ => return Err(bad),
                };
                Frame::Failed {
                    file: FileId(file.try_into().map_err(|_| bad)?),
                    reason: reason(code).ok_or(bad)?,
                }
            }
            _ => return Err(BadFrame("a frame of an unknown kind")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_core::Incarnation;
    use proptest::prelude::*;

    fn all() -> (BytesMut, Vec<Frame>) {
        let version = VersionVector::new().bumped(Incarnation(3));
        let file = FileId([4; 16]);
        let mut out = BytesMut::new();
        put_begin(&mut out, file, &version, 3);
        put_data_with(&mut out, 8, |buf| {
            buf[..3].copy_from_slice(b"abc");
            Ok::<_, ()>(3)
        })
        .unwrap();
        assert_eq!(put_data_with(&mut out, 8, |_| Err("eio")), Err("eio"));
        assert_eq!(put_data_with(&mut out, 8, |_| Ok::<_, ()>(0)), Ok(0));
        put_hole(&mut out, 1 << 40);
        let pieces = vec![Piece::Data { len: 4 << 10, hash: [5; 16] }, Piece::Hole { len: 1 << 50 }];
        put_pieces(&mut out, 1 << 10, &pieces);
        put_end(&mut out, &[9; 32]);
        put_failed(&mut out, file, Reason::Busy);
        let frames = vec![
            Frame::Begin { file, version, size: 3 },
            Frame::Data(Bytes::from_static(b"abc")),
            Frame::Hole(1 << 40),
            Frame::Pieces { average: 1 << 10, pieces },
            Frame::End { hash: [9; 32] },
            Frame::Failed { file, reason: Reason::Busy },
        ];
        (out, frames)
    }

    #[test]
    fn every_reason_has_its_code() {
        for n in 0..=255 {
            if let Some(r) = reason(n) {
                assert_eq!(code(r), n);
            }
        }
        assert_eq!((0..=255).filter_map(reason).count(), 7);
    }

    #[test]
    fn a_length_over_the_bound_is_refused_before_the_bytes_come() {
        let mut decoder = Decoder::default();
        decoder.push(&[0xff, 0xff, 0xff, 0x7f, DATA]);
        assert_eq!(decoder.next_frame(), Err(BadFrame("a frame over its bound")));
    }

    #[test]
    fn chunks_longer_than_their_average_allows_and_empty_ones_are_refused() {
        let data = |len| Piece::Data { len, hash: [0; 16] };
        let bad = [
            (1 << 10, vec![data(4097)]),
            (1 << 10, vec![data(0)]),
            (1 << 10, vec![Piece::Hole { len: 0 }]),
            (1, vec![data(1)]),
            (8 << 20, vec![data(1)]),
        ];
        for (average, pieces) in bad {
            let mut out = BytesMut::new();
            put_pieces(&mut out, average, &pieces);
            let mut decoder = Decoder::default();
            decoder.push(&out);
            assert_eq!(decoder.next_frame(), Err(BadFrame("chunks over their bound")));
        }
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_they_are_cut(cuts in prop::collection::vec(1usize..20, 0..40)) {
            let (bytes, frames) = all();
            let mut decoder = Decoder::default();
            let mut got = Vec::new();
            let mut rest = &bytes[..];
            for cut in cuts.into_iter().chain([usize::MAX]) {
                let (now, later) = rest.split_at(cut.min(rest.len()));
                rest = later;
                decoder.push(now);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(decoder.is_empty());
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_frame() {}
        }
    }
}
