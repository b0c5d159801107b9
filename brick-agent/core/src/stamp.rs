//! Hybrid logical clock stamps, and registers in which the last stamp wins.
//!
//! Source: S. Kulkarni et al., "Logical Physical Clocks" (2014). A stamp is
//! later than everything that its maker had seen, so a change made with
//! knowledge of another always wins over it, whatever the clocks say. Only
//! changes made apart are ordered by clock, and then by incarnation.

use serde::{Deserialize, Serialize};

use crate::id::Incarnation;

const LOGICAL_BITS: u32 = 16;
const YEAR_MS: u64 = 31_557_600_000;
/// A wall clock that is later than about the year 2250 counts as that.
const LATEST_WALL: u64 = 280 * YEAR_MS;
/// How far ahead of a member's wall clock a time may be that another says. More than any wall clock that
/// counts can be ahead of one in 1970, so that no member is refused for a clock that is wrong.
const AHEAD: u64 = 300 * YEAR_MS;

/// The latest time that a member with this wall clock takes from another. Without a bound one entry at the end of
/// time would leave no room for all those that its readers make after it.
pub fn latest_taken(wall_millis: u64) -> u64 {
    (wall_millis.min(LATEST_WALL) + AHEAD) << LOGICAL_BITS
}

/// When, by a hybrid logical clock, and by whom.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Debug)]
pub struct Stamp {
    /// 48 bits of milliseconds since 1970, then 16 bits that count within one.
    pub time: u64,
    /// Breaks ties.
    pub origin: Incarnation,
}

impl Stamp {
    /// Before all others.
    pub const ZERO: Stamp = Stamp { time: 0, origin: Incarnation(0) };

    /// Its wall clock part: milliseconds since 1970, as its maker believed.
    pub fn millis(&self) -> u64 {
        self.time >> LOGICAL_BITS
    }
}

/// A hybrid logical clock. The wall clock comes in as a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock {
    last: u64,
}

impl Clock {
    /// A clock that has seen times up to `last` (as [`Stamp::time`]).
    pub fn resumed(last: u64) -> Self {
        Clock { last }
    }

    /// The last time given or seen.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// A time later than all given and seen, at the wall clock if that is later.
    pub fn tick(&mut self, wall_millis: u64) -> u64 {
        let wall = wall_millis.min(LATEST_WALL) << LOGICAL_BITS;
        self.last = wall.max(self.last.saturating_add(1));
        self.last
    }

    /// Takes note of a stamp from elsewhere.
    pub fn saw(&mut self, time: u64) {
        self.last = self.last.max(time);
    }
}

/// A value in which the last stamp wins.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Reg<T> {
    /// The value.
    pub value: T,
    /// When it was set, and by whom.
    pub stamp: Stamp,
}

impl<T: Ord> Reg<T> {
    /// A register that was set once.
    pub fn new(value: T, stamp: Stamp) -> Self {
        Reg { value, stamp }
    }

    /// Takes the value if its stamp is later. No two operations have one stamp; should a peer say
    /// otherwise, the greater value stays, so that members agree even then.
    pub fn set(&mut self, value: T, stamp: Stamp) {
        if (stamp, &value) > (self.stamp, &self.value) {
            *self = Reg { value, stamp };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let mut clock = Clock::default();
        let a = clock.tick(1_000);
        let b = clock.tick(10);
        let c = clock.tick(1_000);
        assert!(a < b && b < c);
        clock.saw(5_000 << LOGICAL_BITS);
        assert!(clock.tick(1) > 5_000 << LOGICAL_BITS);
    }

    #[test]
    fn t14_no_clock_is_so_wrong_that_others_refuse_it_and_none_can_push_others_to_the_end() {
        use crate::op::MAX_TIME;
        let mut wrong = Clock::default();
        assert!(wrong.tick(u64::MAX) < latest_taken(0), "the latest clock, read by one in 1970");
        let mut pushed = Clock::default();
        pushed.saw(latest_taken(u64::MAX));
        assert!(pushed.tick(0) + (1 << 50) < MAX_TIME);
    }
}
