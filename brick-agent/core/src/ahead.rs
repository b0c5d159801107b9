//! Reading ahead: how much of a remote file is asked for at once, and which files after it.

use std::collections::VecDeque;

use crate::id::FileId;

/// Asked for at once of a file that is read here and there.
pub const SMALLEST: u64 = 128 << 10;
/// Asked for at once of a file that is read from one end to the other.
pub const LARGEST: u64 = 8 << 20;

/// How one file is read. One that is read in order is asked for in blocks that double.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Where a reader in order goes on.
    next: u64,
    block: u64,
    /// What comes in about half a second.
    most: u64,
}

impl Default for Window {
    fn default() -> Self {
        // The first read at the start counts as one in order.
        Window { next: 0, block: SMALLEST, most: LARGEST }
    }
}

impl Window {
    /// A program wants `start..end` of a file of `size` bytes, not all of which is here. Says what
    /// is to be asked for: a range that has it, on whole blocks of 4 KiB.
    pub fn wants(&mut self, start: u64, end: u64, size: u64) -> (u64, u64) {
        const PAGE: u64 = 4096;
        // The kernel may send reads in order a little out of it, and some of what is next may be here.
        let in_order = start.abs_diff(self.next) <= 2 * SMALLEST;
        if in_order {
            self.block = (self.block * 2).min(self.most);
        } else {
            self.block = SMALLEST;
        }
        let from = start / PAGE * PAGE;
        let wanted = end.max(from.saturating_add(self.block));
        let to = wanted.div_ceil(PAGE).saturating_mul(PAGE).min(size).max(end.min(size));
        self.next = to;
        (from, to)
    }

    /// The most that is asked for in one request.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// So many bytes took so long: over a slow link less is asked for at once, so that nobody waits long
    /// for what was not asked for, and no request takes longer than it may.
    pub fn took(&mut self, bytes: u64, ms: u64) {
        if bytes >= SMALLEST {
            let in_time = bytes.saturating_mul(HALF_A_SECOND) / ms.max(1);
            self.most = in_time.clamp(SMALLEST, LARGEST);
        }
    }
}

const HALF_A_SECOND: u64 = 500;

/// Directories of which the files are opened one after the other.
#[derive(Clone, Debug, Default)]
pub struct Walks {
    /// The one used last is at the end.
    recent: VecDeque<Walk>,
}

#[derive(Clone, Copy, Debug)]
struct Walk {
    dir: FileId,
    opened: u32,
    at_ms: u64,
}

/// Opened one after the other, until the next ones are fetched before they are asked for.
const OPENED: u32 = 3;
/// The longest time between two of them.
const PAUSE_MS: u64 = 5_000;
/// Directories followed at a time.
const DIRS: usize = 16;

impl Walks {
    /// A small file without its data was opened in this directory. Says whether those after it are to be fetched.
    pub fn opened(&mut self, dir: FileId, now_ms: u64) -> bool {
        let mut walk = Walk { dir, opened: 0, at_ms: now_ms };
        if let Some(at) = self.recent.iter().position(|w| w.dir == dir)
            && let Some(known) = self.recent.remove(at)
            && now_ms.saturating_sub(known.at_ms) <= PAUSE_MS
        {
            walk.opened = known.opened;
        }
        walk.opened += 1;
        let fetch = walk.opened >= OPENED;
        if fetch {
            // What is fetched is not opened without its data: the next ones are those after that.
            walk.opened = OPENED - 2;
        }
        self.recent.push_back(walk);
        if self.recent.len() > DIRS {
            self.recent.pop_front();
        }
        fetch
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reader_in_order_gets_more_each_time_and_others_do_not() {
        let mut window = Window::default();
        let size = 100 << 20;
        let (mut at, mut asked) = (0, Vec::new());
        while at < 40 << 20 {
            let (from, to) = window.wants(at, at + 4096, size);
            assert_eq!(from, at);
            asked.push((to - from) >> 10);
            at = to;
        }
        assert_eq!(asked[..8], [256, 512, 1024, 2048, 4096, 8192, 8192, 8192]);
        for at in [90 << 20, 3 << 20, 50 << 20] {
            assert_eq!(window.wants(at, at + 4096, size), (at, at + SMALLEST));
        }
        // From there in order again.
        let at = (50 << 20) + SMALLEST;
        assert_eq!(window.wants(at, at + 1, size), (at, at + 2 * SMALLEST));
    }

    #[test]
    fn over_a_slow_link_less_is_asked_for_at_once() {
        let mut window = Window::default();
        window.wants(0, 1, 1 << 30);
        window.took(256 << 10, 1000);
        let (from, to) = window.wants(256 << 10, (256 << 10) + 1, 1 << 30);
        assert_eq!(to - from, SMALLEST);
        window.took(SMALLEST, 10);
        let (from, to) = window.wants(to, to + 1, 1 << 30);
        assert_eq!((to - from, window.most()), (2 * SMALLEST, SMALLEST * 50));
        // One request of a few bytes says nothing.
        window.took(10, 10_000);
        assert_eq!(window.most(), SMALLEST * 50);
    }

    #[test]
    fn the_third_file_of_a_directory_makes_the_others_come() {
        let dir = |n| FileId([n; 16]);
        let mut walks = Walks::default();
        assert_eq!([1, 2, 3].map(|at| walks.opened(dir(1), at)), [false, false, true]);
        // Those that came are not seen here; the next but one makes more come.
        assert_eq!([4, 5, 6].map(|at| walks.opened(dir(1), at)), [false, true, false]);
        // Others in between do not disturb, a pause does.
        assert_eq!([7, 8].map(|at| walks.opened(dir(2), at)), [false, false]);
        assert!(walks.opened(dir(1), 9));
        assert!(!walks.opened(dir(2), 10_000));
        for n in 0..100 {
            walks.opened(dir(n), 20_000);
        }
        assert!(walks.recent.len() <= DIRS);
    }

    proptest! {
        #[test]
        fn what_is_wanted_is_asked_for_and_nothing_beyond_the_end(reads in prop::collection::vec((0u64..1 << 25, 0u64..1 << 20), 1..30), size in 1u64..1 << 25) {
            let mut window = Window::default();
            for (start, len) in reads {
                let (start, end) = (start.min(size), (start + len).min(size));
                if start == end { continue; }
                let (from, to) = window.wants(start, end, size);
                prop_assert!(from <= start && to >= end && to <= size, "{}..{} of {}..{}", from, to, start, end);
                prop_assert!(to - from <= LARGEST.max(end - from) + 8192);
            }
        }
    }
}
