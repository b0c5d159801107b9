//! A person's word on a conflict: which version is chosen, what is remembered of that, and who sees to it.
//!
//! A word is carried out as an edit by one member: it writes the bytes that were chosen as a version of the file that
//! includes all the others, and says in the same change between what it decided ([`Op::Decide`](crate::Op::Decide)). So
//! members learn of it from the journal, whether or not they reach the API, and none does it twice. The sides stay in the
//! decision: a later word can choose another one, as long as its bytes are kept somewhere.
//!
//! Two members that could not reach each other may both have acted, on one word or on two. Their versions include neither
//! each other, and are no conflict: that of the later word counts, and of one word the greater one ([`Object::decision`]).

use serde::{Deserialize, Serialize};

use crate::id::{BrickId, FileId};
use crate::object::{Content, Object};
use crate::op::BadEntry;
use crate::op::MAX_SIZE;
use crate::version::{Relation, VersionVector};

/// The most versions between which one word decides. Those beyond stay in conflict, and are for the next one.
pub const MAX_SIDES: usize = 32;

/// Which version a person chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Choice {
    /// All stay, as files of their own.
    KeepBoth,
    /// The one with the latest modification time; then that of the greater brick id.
    Newest,
    /// The longest one; then that of the greater brick id.
    Largest,
    /// The one that was written at this brick.
    Brick(BrickId),
}

/// Which word of a person it is. Of two the later counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Word {
    /// When the `FileConflict` was made: seconds since 1970. One that was deleted and made again is another.
    pub made: u64,
    /// The generation of its spec.
    pub generation: u64,
}

/// A word, and the file that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The file in conflict.
    pub file: FileId,
    /// Which word.
    pub word: Word,
    /// What it says.
    pub choice: Choice,
}

/// One of the versions in conflict.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Side {
    /// The version.
    pub content: Content,
    /// The file beside that has it; none: it is one of the file itself.
    pub beside: Option<FileId>,
    /// BLAKE3 of its bytes, if somebody has read them.
    pub hash: Option<[u8; 32]>,
}

/// A word that was carried out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Decision {
    /// Which word.
    pub word: Word,
    /// What it said.
    pub choice: Choice,
    /// Between what.
    pub sides: Vec<Side>,
    /// The version that the file has since then.
    pub outcome: VersionVector,
    /// The side whose bytes it has.
    pub holds: u32,
}

impl Side {
    /// The file whose version it is.
    pub fn file(&self, of: FileId) -> FileId {
        self.beside.unwrap_or(of)
    }
}

impl Decision {
    /// The side whose bytes the file has since then.
    pub fn held(&self) -> Option<&Side> {
        self.sides.get(usize::try_from(self.holds).ok()?)
    }

    /// Checks what a peer sent.
    ///
    /// # Errors
    /// What no member says.
    pub(crate) fn check(&self) -> Result<(), BadEntry> {
        if self.sides.len() > MAX_SIDES {
            return Err(BadEntry::TooBig("decision"));
        }
        let nonsense = |c: &Content| c.version.is_empty() || c.size > MAX_SIZE || c.mtime.1 >= 1_000_000_000;
        if self.held().is_none() || self.outcome.is_empty() || self.sides.iter().any(|s| nonsense(&s.content))
        {
            return Err(BadEntry::Nonsense("decision"));
        }
        Ok(())
    }
}

/// The side that is chosen, by its place. None where all stay, and where none was written at the brick that is named.
pub fn choose(sides: &[Side], choice: Choice) -> Option<usize> {
    let of = |n: &usize| &sides[*n].content;
    let all = 0..sides.len();
    match choice {
        Choice::KeepBoth => None,
        Choice::Newest => all.max_by_key(|n| (of(n).mtime, of(n).writer, &of(n).version)),
        Choice::Largest => all.max_by_key(|n| (of(n).size, of(n).writer, &of(n).version)),
        Choice::Brick(brick) => all.filter(|n| of(n).writer == brick).max_by_key(|n| &of(n).version),
    }
}

/// How many members are to act before `me`: those that hold what is needed first, then all others, each by its id; only
/// those that can be reached count. The first acts at once, the next only if that did not help.
pub fn turn(
    me: BrickId,
    holders: &[BrickId],
    members: &[BrickId],
    is_reached: impl Fn(BrickId) -> bool,
) -> usize {
    let mut order = Vec::new();
    for list in [holders, members] {
        let mut list = list.to_vec();
        list.sort_unstable();
        list.retain(|brick| !order.contains(brick));
        order.extend(list);
    }
    order.iter().take_while(|brick| **brick != me).filter(|brick| is_reached(**brick)).count()
}

impl Object {
    /// The last word that was carried out on it.
    pub fn decision(&self) -> Option<&Decision> {
        self.decided().map(|(_, decision)| decision)
    }

    /// The same, with the brick that did it.
    pub fn decided(&self) -> Option<(BrickId, &Decision)> {
        let all = self.decisions.iter().map(|(brick, reg)| (*brick, &reg.value));
        all.max_by_key(|(brick, decision)| (decision.word, &decision.outcome, *brick))
    }

    /// When that was: milliseconds since 1970, by the hybrid clock of who did it.
    pub fn decided_at(&self) -> Option<u64> {
        let (brick, _) = self.decided()?;
        self.decisions.get(&brick).map(|reg| reg.stamp.millis())
    }

    /// Whether the version came of a word beside which a later one was carried out: it has lost.
    pub fn is_superseded(&self, version: &VersionVector) -> bool {
        let Some(last) = self.decision() else { return false };
        *version != last.outcome
            && self.decisions.values().any(|reg| reg.value.outcome == *version)
            && version.relation(&last.outcome) == Relation::Concurrent
            && self.contents.iter().any(|c| c.version.includes(&last.outcome))
    }

    /// Whether the last word was carried out, and what came of it was not overruled by an earlier one.
    pub fn is_decided(&self, word: Word) -> bool {
        let Some(last) = self.decision().filter(|last| last.word >= word) else { return false };
        let earlier = |d: &Decision| d.word < last.word;
        let head = self.head().map(|head| &head.version);
        let overruled =
            |d: &Decision| earlier(d) && Some(&d.outcome) == head && !last.outcome.includes(&d.outcome);
        !self.decisions.values().any(|reg| overruled(&reg.value))
    }

    /// Under which file and version bytes are kept that are about to give way to what came of a word: those of a side
    /// that was not chosen, and those that an earlier word had chosen. None: they need not be.
    pub fn kept_for_word(&self, file: FileId, have: &VersionVector) -> Option<(FileId, VersionVector)> {
        let last = self.decision()?;
        let turned_down = |n: usize, side: &Side| {
            side.beside.is_none() && side.content.version == *have && u32::try_from(n) != Ok(last.holds)
        };
        if last.sides.iter().enumerate().any(|(n, side)| turned_down(n, side)) {
            return Some((file, have.clone()));
        }
        let earlier = self.decisions.values().map(|reg| &reg.value).find(|d| d.outcome == *have)?;
        let side = earlier.held().filter(|_| earlier.outcome != last.outcome)?;
        Some((side.file(file), side.content.version.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;
    use crate::object::tests::{all, brick, entries};
    use crate::op::{Entry, Op};
    use proptest::prelude::*;

    const FILE: FileId = FileId([9; 16]);

    fn v(list: &[(u64, u64)]) -> VersionVector {
        list.iter().map(|(who, n)| (Incarnation(*who), *n)).collect()
    }

    /// Written at bricks 1, 2, ...: (size, modification time) of each.
    fn sides(written: &[(u64, i64)]) -> Vec<Side> {
        (1u8..)
            .zip(written)
            .map(|(n, (size, mtime))| Side {
                content: Content {
                    version: v(&[(n.into(), 1)]),
                    writer: brick(n),
                    size: *size,
                    stamp: crate::Stamp { time: 1, origin: Incarnation(n.into()) },
                    mtime: (*mtime, 0),
                },
                beside: None,
                hash: None,
            })
            .collect()
    }

    fn say(origin: u64, seq: u64, time: u64, op: Op) -> Entry {
        Entry { origin: Incarnation(origin), seq, time, file: FILE, op }
    }

    fn content(who: u8, version: VersionVector) -> Op {
        Op::Content { brick: brick(who), version, size: 3, mtime_sec: 0, mtime_nsec: 0, still_dirty: false }
    }

    fn decide(who: u8, generation: u64, holds: u32, outcome: VersionVector) -> Op {
        let decision = Decision {
            word: Word { made: 1, generation },
            choice: Choice::Brick(brick(u8::try_from(holds).unwrap() + 1)),
            sides: sides(&[(3, 0), (3, 0)]),
            outcome,
            holds,
        };
        Op::Decide { brick: brick(who), decision }
    }

    #[test]
    fn t15_each_choice_has_its_side_and_ties_go_by_the_brick() {
        let of = |written: &[(u64, i64)], choice| choose(&sides(written), choice);
        let written = [(30, -5), (20, 8), (10, 7)];
        assert_eq!(of(&written, Choice::Newest), Some(1));
        assert_eq!(of(&written, Choice::Largest), Some(0));
        assert_eq!(of(&written, Choice::Brick(brick(3))), Some(2));
        assert_eq!(of(&written, Choice::Brick(brick(9))), None);
        assert_eq!(of(&written, Choice::KeepBoth), None);
        assert_eq!(of(&[(5, 1), (5, 1)], Choice::Newest), Some(1));
        assert_eq!(of(&[(5, 1), (5, 1)], Choice::Largest), Some(1));
    }

    #[test]
    fn holders_that_are_reached_go_first_and_then_all_by_their_ids() {
        let all: Vec<_> = (1..=4).map(brick).collect();
        let reached = |_| true;
        assert_eq!(turn(brick(3), &[brick(3)], &all, reached), 0);
        assert_eq!(turn(brick(1), &[brick(3)], &all, reached), 1);
        assert_eq!(turn(brick(4), &[brick(3)], &all, reached), 3);
        assert_eq!(turn(brick(1), &[brick(3)], &all, |b| b != brick(3)), 0);
        assert_eq!(turn(brick(4), &[brick(4), brick(2)], &all, |b| b != brick(2)), 0);
    }

    #[test]
    fn t15_of_two_words_carried_out_apart_the_later_counts_whatever_the_clocks_say() {
        let (a, b) = (v(&[(1, 1)]), v(&[(2, 1)]));
        // By bricks 3 and 4; the clock of the first is far ahead.
        let (one, two) = (v(&[(1, 1), (2, 1), (3, 1)]), v(&[(1, 1), (2, 1), (4, 1)]));
        let list = [
            say(1, 1, 1, content(1, a)),
            say(2, 1, 1, content(2, b)),
            say(3, 1, 900, content(3, one.clone())),
            say(3, 2, 901, decide(3, 2, 0, one.clone())),
            say(4, 1, 5, content(4, two.clone())),
            say(4, 2, 6, decide(4, 3, 1, two.clone())),
        ];
        let object = all(&list);
        assert!(!object.in_conflict());
        assert_eq!(object.head().unwrap().version, two);
        assert_eq!(object.standing_of(&one), Some(Relation::Before));
        assert!(object.is_decided(Word { made: 1, generation: 3 }));
        assert!(!object.is_decided(Word { made: 1, generation: 4 }));
        assert!(!object.is_decided(Word { made: 2, generation: 1 }));
        // What the other word had chosen is kept where it gives way.
        assert_eq!(object.kept_for_word(FILE, &one), Some((FILE, v(&[(1, 1)]))));
        assert_eq!(object.kept_for_word(FILE, &v(&[(1, 1)])), Some((FILE, v(&[(1, 1)]))));
        assert_eq!(object.kept_for_word(FILE, &v(&[(2, 1)])), None);
    }

    #[test]
    fn an_edit_that_did_not_know_of_the_word_is_a_conflict_anew() {
        let one = v(&[(1, 1), (2, 1), (3, 1)]);
        let edit = v(&[(1, 2)]);
        let list = [
            say(1, 1, 1, content(1, v(&[(1, 1)]))),
            say(2, 1, 1, content(2, v(&[(2, 1)]))),
            say(3, 1, 3, content(3, one.clone())),
            say(3, 2, 4, decide(3, 2, 0, one)),
            say(1, 2, 5, content(1, edit)),
        ];
        assert!(all(&list).in_conflict());
    }

    #[test]
    fn a_word_to_keep_both_that_an_earlier_one_overruled_is_not_done() {
        let (a, b) = (v(&[(1, 1)]), v(&[(2, 1)]));
        let one = v(&[(1, 1), (2, 1), (3, 1)]);
        let mut list = vec![
            say(1, 1, 1, content(1, a.clone())),
            say(2, 1, 1, content(2, b)),
            say(4, 1, 6, decide(4, 3, 0, a)),
        ];
        let word = Word { made: 1, generation: 3 };
        assert!(all(&list).is_decided(word));
        list.extend([say(3, 1, 3, content(3, one.clone())), say(3, 2, 4, decide(3, 2, 1, one))]);
        assert!(!all(&list).is_decided(word));
    }

    #[test]
    fn s01_decisions_that_no_member_makes_are_refused() {
        let good = decide(1, 1, 0, v(&[(1, 1)]));
        assert_eq!(say(1, 1, 1, good.clone()).check(), Ok(()));
        let with = |change: fn(&mut Decision)| {
            let Op::Decide { brick, mut decision } = good.clone() else { panic!() };
            change(&mut decision);
            say(1, 1, 1, Op::Decide { brick, decision }).check()
        };
        assert!(with(|d| d.holds = 2).is_err());
        assert!(with(|d| d.outcome = VersionVector::new()).is_err());
        assert!(with(|d| d.sides[1].content.size = u64::MAX).is_err());
        assert!(with(|d| d.sides = vec![d.sides[0].clone(); MAX_SIDES + 1]).is_err());
    }

    proptest! {
        #[test]
        fn whatever_was_decided_one_version_at_least_counts(list in entries()) {
            let object = all(&list);
            prop_assert_eq!(object.contents.is_empty(), object.current().next().is_none());
            if let Some(last) = object.decision() {
                prop_assert!(!object.is_superseded(&last.outcome));
            }
        }
    }
}
