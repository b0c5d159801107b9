//! A version of a file as a list of content-defined chunks (FastCDC), each named by its BLAKE3.
//!
//! The list of a file travels whole, 20 bytes a chunk; of a change in one place mostly one chunk travels, at most
//! two. Larger chunks make the first less and the second more: both cost least together when a chunk is about
//! twice the root of the file's size. That is 64 KiB for 1 GiB: a list of a third of 1 MiB and a change of 64 to 512 KiB,
//! within 1 MiB on the wire, always. Not below 8 KiB, because each costs a read; not above 4 MiB,
//! because one is checked in memory.
//!
//! Holes are pieces of their own, so that they cost neither bytes nor reads. Chunks are found anew after each.
//!
//! A chunk's name is cut to 128 bits: it finds equal chunks and catches damage early. What is kept
//! is decided by the whole hash of the whole file.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use fastcdc::v2020::FastCDC;
use nearbrick_core::{FileId, VersionVector};
use rustix::io::Errno;

use crate::brick::disk::FileAccess;
use crate::peer::wire::{ChunkHash, ChunkList, Piece};

/// Bounds of the average chunk.
pub const AVERAGE: (u32, u32) = (8 << 10, 4 << 20);
/// A hole shorter than this is data: it would cost more to say than to send.
const HOLE: u64 = 64 << 10;
/// Zeroes that stand for a hole when the whole is hashed.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];

/// How large the chunks of a file of `size` bytes are, on average.
pub fn average_for(size: u64) -> u32 {
    let wanted = size.isqrt().saturating_mul(2).max(1).next_power_of_two();
    u32::try_from(wanted).unwrap_or(u32::MAX).clamp(AVERAGE.0, AVERAGE.1)
}

/// The longest chunk of this average.
pub fn longest(average: u32) -> u32 {
    average.saturating_mul(4)
}

/// The name of a chunk.
pub fn name_of(bytes: &[u8]) -> ChunkHash {
    let hash = blake3::hash(bytes);
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Adds so many zeroes, as long as `go_on` says so; gives whether it did to the end.
pub fn hash_zeroes(hasher: &mut blake3::Hasher, mut len: u64, go_on: impl Fn() -> bool) -> bool {
    let mut blocks = 0u32;
    while len > 0 {
        blocks = blocks.wrapping_add(1);
        if blocks.is_multiple_of(4096) && !go_on() {
            return false;
        }
        let now = len.min(ZEROES.len() as u64);
        hasher.update(&ZEROES[..usize::try_from(now).unwrap_or(ZEROES.len())]);
        len -= now;
    }
    true
}

/// Where the next data is at or after `at`, and where it ends: both at most `size`. Short holes count as data.
pub fn next_data(file: &dyn FileAccess, at: u64, size: u64) -> io::Result<(u64, u64)> {
    let start = match file.seek_data(at) {
        Ok(start) => start.min(size),
        // A hole to the end, unless the end came nearer.
        Err(Errno::NXIO) if u64::try_from(file.stat()?.st_size).is_ok_and(|now| now >= size) => {
            return Ok((size, size));
        }
        Err(Errno::NXIO) => return Err(io::ErrorKind::UnexpectedEof.into()),
        // A file system that does not know holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok((at.min(size), size)),
        Err(error) => return Err(error.into()),
    };
    let start = if start.saturating_sub(at) < HOLE { at } else { start };
    let mut end = start;
    while end < size {
        end = match file.seek_hole(end) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => return Ok((start, size)),
            Err(error) => return Err(error.into()),
        };
        match file.seek_data(end) {
            Ok(next) if next.min(size) - end < HOLE => end = next.min(size).max(end + 1).min(size),
            Ok(_) | Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok((start, end))
}

/// Fills the buffer from `offset`; fewer bytes are an error: the file was cut while it was read.
pub fn read_exact(file: &dyn FileAccess, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match file.read_at(buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buffer = &mut buffer[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Goes over the file's pieces in order, until `each` says to stop. Says whether it came to the end.
///
/// # Errors
/// What the disk says; `UnexpectedEof` if the file is shorter than `size`.
pub fn pieces(
    file: &dyn FileAccess,
    size: u64,
    average: u32,
    mut whole: Option<&mut blake3::Hasher>,
    mut each: impl FnMut(Piece) -> bool,
) -> io::Result<bool> {
    let (average, max) = (average as usize, longest(average) as usize);
    let mut buffer = vec![0; (2 * max).max(1 << 20)];
    let mut at = 0;
    while at < size {
        let (start, end) = next_data(file, at, size)?;
        if end <= start && start < size {
            // It became a hole just now.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if start > at {
            if let Some(whole) = &mut whole {
                hash_zeroes(whole, start - at, || true);
            }
            if !each(Piece::Hole { len: start - at }) {
                return Ok(false);
            }
        }
        // `buffer[from..to]` is what was read and not yet cut; it begins at `at`.
        let (mut from, mut to) = (0, 0);
        at = start;
        while at < end {
            let left = usize::try_from(end - at).unwrap_or(usize::MAX);
            if to - from < max.min(left) {
                buffer.copy_within(from..to, 0);
                (from, to) = (0, to - from);
                let more = (buffer.len() - to).min(left - to);
                read_exact(file, &mut buffer[to..to + more], at + to as u64)?;
                to += more;
            }
            let source = &buffer[from..to];
            let (_, cut) = FastCDC::new(source, average / 4, average, max).cut(0, source.len());
            let bytes = &source[..cut.clamp(1, source.len())];
            if let Some(whole) = &mut whole {
                whole.update(bytes);
            }
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            if !each(Piece::Data { len, hash: name_of(bytes) }) {
                return Ok(false);
            }
            from += bytes.len();
            at += u64::from(len);
        }
    }
    Ok(true)
}

/// Lists of chunks that were asked for lately, bounded in memory. They say what a version's bytes are, so
/// they never grow old; whoever uses one checks each chunk.
#[derive(Default)]
pub struct Cache {
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    by_version: BTreeMap<(FileId, VersionVector), Arc<ChunkList>>,
    /// The one used last is at the end.
    order: VecDeque<(FileId, VersionVector)>,
    pieces: usize,
}

/// Pieces kept in memory, of all lists: 32 bytes each.
const KEPT_PIECES: usize = 512 << 10;

impl Cache {
    /// The list of this version, if it is here.
    pub fn get(&self, file: FileId, version: &VersionVector) -> Option<Arc<ChunkList>> {
        let lists = &mut *self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (file, version.clone());
        let found = lists.by_version.get(&key)?.clone();
        lists.order.retain(|k| *k != key);
        lists.order.push_back(key);
        Some(found)
    }

    /// Keeps it, and of the others those that were used last.
    pub fn put(&self, file: FileId, list: Arc<ChunkList>) {
        let lists = &mut *self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        if list.pieces.len() > KEPT_PIECES / 2 {
            return;
        }
        let key = (file, list.version.clone());
        lists.pieces += list.pieces.len();
        if let Some(old) = lists.by_version.insert(key.clone(), list) {
            lists.pieces -= old.pieces.len();
            lists.order.retain(|k| *k != key);
        }
        lists.order.push_back(key);
        while lists.pieces > KEPT_PIECES {
            let Some(oldest) = lists.order.pop_front() else { break };
            if let Some(old) = lists.by_version.remove(&oldest) {
                lists.pieces -= old.pieces.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::brick::disk::{File, Reader};
    use crate::brick::machine;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;

    fn noise(len: usize, mut seed: u64) -> Vec<u8> {
        (0..len)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) as u8
            })
            .collect()
    }

    fn file_of(bytes: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        machine::file(file)
    }

    fn list(file: &File, size: u64, average: u32) -> (Vec<Piece>, [u8; 32]) {
        let (mut list, mut hasher) = (Vec::new(), blake3::Hasher::new());
        assert!(
            pieces(&**file, size, average, Some(&mut hasher), |piece| {
                list.push(piece);
                true
            })
            .unwrap()
        );
        (list, *hasher.finalize().as_bytes())
    }

    #[test]
    fn chunks_grow_with_the_root_of_the_file() {
        for (size, average) in [
            (0, 8 << 10),
            (16 << 20, 8 << 10),
            (64 << 20, 16 << 10),
            (1 << 30, 64 << 10),
            (1 << 30 | 1 << 20, 128 << 10),
            (64 << 30, 512 << 10),
            (4 << 40, 4 << 20),
            (u64::MAX, 4 << 20),
        ] {
            assert_eq!(average_for(size), average, "{size}");
        }
    }

    #[test]
    fn a_change_in_one_place_changes_few_chunks_and_an_insertion_too() {
        let average = AVERAGE.0;
        let old = noise(4 << 20, 7);
        let mut changed = old.clone();
        changed[2_000_000..2_004_096].copy_from_slice(&noise(4096, 8));
        let mut longer = old.clone();
        longer.splice(1_000_000..1_000_000, noise(777, 9));
        let (before, _) = list(&file_of(&old), old.len() as u64, average);
        let known: std::collections::HashSet<_> = before.into_iter().collect();
        for new in [changed, longer] {
            let (after, hash) = list(&file_of(&new), new.len() as u64, average);
            assert_eq!(hash, *blake3::hash(&new).as_bytes());
            let moved: u64 = after.iter().filter(|p| !known.contains(p)).map(Piece::len).sum();
            assert!(moved <= 2 * u64::from(longest(average)), "{moved} bytes are new");
        }
    }

    #[test]
    fn t17_a_hole_is_one_piece() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(3 << 30).unwrap();
        file.write_all_at(&noise(100_000, 1), 1 << 30).unwrap();
        let file = machine::file(file);
        let (list, hash) = list(&file, 3 << 30, average_for(3 << 30));
        assert!(matches!(list[0], Piece::Hole { len } if len == 1 << 30), "{list:?}");
        assert!(matches!(list[list.len() - 1], Piece::Hole { .. }));
        assert!(list.len() < 10);
        assert_eq!(list.iter().map(Piece::len).sum::<u64>(), 3 << 30);
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(Reader::new(&*file, 0)).unwrap();
        assert_eq!(hash, *hasher.finalize().as_bytes());
    }

    #[test]
    fn a_file_that_is_shorter_than_it_was_is_an_error() {
        let file = file_of(&noise(100_000, 1));
        assert!(next_data(&*file, 100_000, 200_000).is_err());
        assert!(pieces(&*file, 200_000, AVERAGE.0, None, |_| true).is_err());
    }

    #[test]
    fn the_cache_keeps_what_was_used_last() {
        let cache = Cache::default();
        let version = |n| VersionVector::from_iter([(nearbrick_core::Incarnation(1), n)]);
        let list = |n| {
            let pieces = vec![Piece::Hole { len: 1 }; KEPT_PIECES / 4];
            Arc::new(ChunkList { version: version(n), size: 1, average: 1, pieces, hash: [0; 32] })
        };
        let file = FileId([1; 16]);
        (1..=4).for_each(|n| cache.put(file, list(n)));
        assert!(cache.get(file, &version(1)).is_some());
        cache.put(file, list(5));
        assert!(cache.get(file, &version(1)).is_some());
        assert!(cache.get(file, &version(2)).is_none());
        assert!(cache.get(file, &version(5)).is_some());
    }

    proptest! {
        #[test]
        fn pieces_cover_the_file(len in 0usize..600_000, hole in 0u64..2_000_000, seed in any::<u64>()) {
            let bytes = noise(len, seed);
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, hole).unwrap();
            let file = machine::file(file);
            let size = hole + len as u64;
            let (list, hash) = list(&file, size, AVERAGE.0);
            prop_assert_eq!(list.iter().map(Piece::len).sum::<u64>(), size);
            let mut all = vec![0; hole as usize];
            all.extend(&bytes);
            prop_assert_eq!(hash, *blake3::hash(&all).as_bytes());
            let mut at = 0;
            for piece in list {
                let part = &all[at..at + piece.len() as usize];
                match piece {
                    Piece::Data { len, hash } => {
                        prop_assert!(len > 0 && len <= longest(AVERAGE.0));
                        prop_assert_eq!(hash, name_of(part));
                    }
                    Piece::Hole { .. } => prop_assert!(part.iter().all(|b| *b == 0)),
                }
                at += part.len();
            }
        }
    }
}
