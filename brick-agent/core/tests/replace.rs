//! One file of which other bricks are to hold copies, and members as plain values: each acts when it likes, on what it has heard, and
//! forgets now and then what it was waiting for. An observer who sees all disks counts copies after every step.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use nearbrick_core::evict::may_empty;
use nearbrick_core::heal::{Decision, Local, decide};
use nearbrick_core::replace::{Obstacle, Step as Next, same_set, step};
use nearbrick_core::{
    Attr, BrickId, Entry, FileId, Incarnation, Kind, Object, Op, Place, Stamp, VersionVector,
};
use proptest::prelude::*;

const FILE: FileId = FileId([1; 16]);

#[derive(Clone, Debug)]
enum Step {
    /// A member hears of all that another has of one journal.
    Pull(usize, usize, usize),
    /// A member says what it has heard.
    Gossip(usize, usize),
    /// A member takes the step that is next as it sees it.
    Act(usize),
    /// A member brings what it lacks.
    Heal(usize),
    /// A program reads the file there, and a cached copy is left.
    Read(usize),
    /// The disk is full: a cached copy goes.
    Empty(usize),
    /// A program of the only writer writes it.
    Write,
    /// An agent ends without notice.
    Crash(usize),
    /// A member learns the next rules.
    Learn(usize),
}

fn steps(members: usize, len: usize) -> impl Strategy<Value = Vec<Step>> {
    let m = move || 0..members;
    let step = prop_oneof![
        8 => (m(), m(), m()).prop_map(|(to, from, of)| Step::Pull(to, from, of)),
        4 => (m(), m()).prop_map(|(to, from)| Step::Gossip(to, from)),
        6 => m().prop_map(Step::Act),
        4 => m().prop_map(Step::Heal),
        2 => m().prop_map(Step::Read),
        3 => m().prop_map(Step::Empty),
        1 => Just(Step::Write),
        1 => m().prop_map(Step::Crash),
        2 => m().prop_map(Step::Learn),
    ];
    prop::collection::vec(step, 1..len)
}

type Heads = BTreeMap<usize, u64>;

#[derive(Clone, Default)]
struct Member {
    object: Object,
    heads: Heads,
    /// What others are known to have heard.
    acks: BTreeMap<usize, Heads>,
    clock: u64,
    /// The version of the bytes on its disk.
    bytes: Option<VersionVector>,
    /// The stamp of the set, and how far its journal was known then.
    seen: Option<(Stamp, u64)>,
    /// Which of the rules it knows.
    rules: usize,
}

struct World {
    members: Vec<Member>,
    journals: Vec<Vec<Entry>>,
    rules: Vec<Vec<BrickId>>,
    /// All operations.
    all: Object,
    empties: bool,
    writes: bool,
}

fn brick(m: usize) -> BrickId {
    BrickId([m as u8 + 1; 16])
}

fn bricks(list: &BTreeSet<usize>) -> Vec<BrickId> {
    list.iter().map(|m| brick(*m)).collect()
}

fn incarnation(m: usize) -> Incarnation {
    Incarnation(m as u64 + 1)
}

impl World {
    /// A file that the members of `before` hold, and of which all have heard. Clocks differ.
    fn new(members: usize, before: &BTreeSet<usize>, rules: &[BTreeSet<usize>]) -> Self {
        let mut world = World {
            members: (0..members)
                .map(|m| Member { clock: (m as u64 * 7919) % 50, ..Member::default() })
                .collect(),
            journals: vec![Vec::new(); members],
            rules: rules.iter().map(bricks).collect(),
            all: Object::default(),
            empties: true,
            writes: false,
        };
        let first = *before.first().unwrap();
        let place = Place { parent: FileId::ROOT, name: b"f".to_vec() };
        let (kind, attr, replicas) = (Kind::File, Attr::default(), bricks(before));
        world.emit(first, Op::Create { brick: brick(first), kind, attr, place, replicas });
        world.write(first);
        world.hear_all();
        before.iter().for_each(|m| world.heal(*m));
        world.hear_all();
        assert_eq!(world.protected(), before.len());
        world
    }

    fn emit(&mut self, m: usize, op: Op) {
        let member = &mut self.members[m];
        member.clock += 1;
        let seq = self.journals[m].len() as u64 + 1;
        let entry = Entry { origin: incarnation(m), seq, time: member.clock, file: FILE, op };
        member.object.apply(&entry);
        member.heads.insert(m, seq);
        self.all.apply(&entry);
        self.journals[m].push(entry);
    }

    fn pull(&mut self, to: usize, from: usize, of: usize) {
        let known = |n: usize, s: &Self| s.members[n].heads.get(&of).copied().unwrap_or(0) as usize;
        let (has, there) = (known(to, self), known(from, self));
        for entry in self.journals[of].get(has..there).unwrap_or_default().to_vec() {
            let member = &mut self.members[to];
            member.clock = member.clock.max(entry.time);
            member.object.apply(&entry);
            member.heads.insert(of, entry.seq);
        }
    }

    /// The word of a member counts once all that it had written by then is here.
    fn gossip(&mut self, to: usize, from: usize) {
        let said = self.members[from].heads.clone();
        let here = self.members[to].heads.get(&from).copied().unwrap_or(0);
        if to != from && here >= self.journals[from].len() as u64 {
            self.members[to].acks.insert(from, said);
        }
    }

    fn hear_all(&mut self) {
        let n = self.members.len();
        for to in 0..n {
            (0..n).for_each(|of| self.pull(to, of, of));
        }
        for to in 0..n {
            (0..n).for_each(|from| self.gossip(to, from));
        }
    }

    fn next(&mut self, m: usize) -> Next {
        let member = &mut self.members[m];
        let set = member.object.replicas.clone().unwrap();
        let origin = (set.stamp.origin.0 - 1) as usize;
        if member.seen.is_none_or(|(stamp, _)| stamp != set.stamp) {
            member.seen = Some((set.stamp, member.heads.get(&origin).copied().unwrap_or(0)));
        }
        let (_, seq) = member.seen.unwrap();
        let heard = |b: BrickId| {
            let who = usize::from(b.0[0]) - 1;
            who == m || member.acks.get(&who).is_some_and(|heads| heads.get(&origin).copied() >= Some(seq))
        };
        step(&member.object, &self.rules[member.rules], heard)
    }

    fn act(&mut self, m: usize) -> bool {
        match self.next(m) {
            Next::Add(set) | Next::Drop(set) => {
                self.emit(m, Op::Replicas(set));
                true
            }
            Next::Done | Next::Wait(_) => false,
        }
    }

    fn take(&mut self, m: usize, version: &VersionVector) {
        if self.members.iter().any(|other| other.bytes.as_ref() == Some(version)) {
            self.members[m].bytes = Some(version.clone());
            self.emit(m, Op::Have { brick: brick(m), version: version.clone(), hash: [0; 32] });
        }
    }

    fn heal(&mut self, m: usize) {
        let member = &self.members[m];
        let local = Local { have: member.bytes.as_ref(), dirty: false };
        let wanted = member.object.replica_set().contains(&brick(m));
        if let Decision::Fetch { version, .. } = decide(&member.object, brick(m), local)
            && wanted
        {
            self.take(m, &version);
        }
    }

    fn read(&mut self, m: usize) {
        let member = &self.members[m];
        let local = Local { have: member.bytes.as_ref(), dirty: false };
        if let Decision::Fetch { version, .. } = decide(&member.object, brick(m), local) {
            self.take(m, &version);
        }
    }

    /// As cached copies go: one of the set has to answer that it has the same.
    fn empty(&mut self, m: usize) {
        let member = &self.members[m];
        let Some(have) = member.bytes.clone() else { return };
        let held = Local { have: Some(&have), dirty: false };
        let answers = |b: &BrickId| {
            self.members[usize::from(b.0[0]) - 1].bytes.as_ref().is_some_and(|v| v.includes(&have))
        };
        let of_set = member.object.replica_set().iter().any(|b| *b != brick(m) && answers(b));
        if may_empty(&member.object, brick(m), held, false) && of_set {
            self.members[m].bytes = None;
            self.emit(m, Op::Drop { brick: brick(m) });
        }
    }

    /// On all that is there: the writer asks who has the newest first.
    fn write(&mut self, m: usize) {
        let version = self.all.seen().bumped(incarnation(m));
        self.members[m].bytes = Some(version.clone());
        self.emit(m, Op::Dirty { brick: brick(m) });
        let (brick, size, mtime_sec, mtime_nsec, still_dirty) = (brick(m), 1, 0, 0, false);
        self.emit(m, Op::Content { brick, version, size, mtime_sec, mtime_nsec, still_dirty });
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pull(to, from, of) => self.pull(to, from, of),
            Step::Gossip(to, from) => self.gossip(to, from),
            Step::Act(m) => drop(self.act(m)),
            Step::Heal(m) => self.heal(m),
            Step::Read(m) => self.read(m),
            Step::Empty(m) if self.empties => self.empty(m),
            Step::Write if self.writes => self.write(0),
            Step::Empty(_) | Step::Write => {}
            Step::Crash(m) => {
                self.members[m].seen = None;
                self.members[m].acks.clear();
            }
            Step::Learn(m) => {
                let last = self.rules.len() - 1;
                self.members[m].rules = (self.members[m].rules + 1).min(last);
            }
        }
    }

    fn newest(&self) -> VersionVector {
        self.all.head().unwrap().version.clone()
    }

    /// The bricks of the set, as who has heard everything knows it, on whose disks the newest version is.
    fn protected(&self) -> usize {
        let newest = self.newest();
        let holds = |b: &&BrickId| self.members[usize::from(b.0[0]) - 1].bytes.as_ref() == Some(&newest);
        let set: BTreeSet<BrickId> = self.all.replica_set().iter().copied().collect();
        set.iter().filter(holds).count()
    }

    /// All that is left to do is done by all, each at once with the others.
    fn finish(&mut self) {
        let last = self.rules.len() - 1;
        let n = self.members.len();
        self.members.iter_mut().for_each(|m| m.rules = last);
        for _ in 0..12 {
            self.hear_all();
            (0..n).for_each(|m| self.heal(m));
            self.hear_all();
            for m in 0..n {
                let _ = self.act(m);
            }
        }
        self.hear_all();
        for m in 0..n {
            assert!(matches!(self.next(m), Next::Done), "member {m}: {:?}", self.next(m));
            assert_eq!(self.members[m].object, self.all, "member {m} has heard everything");
        }
        let wanted = &self.rules[last];
        assert!(same_set(self.all.replica_set(), wanted));
        assert_eq!(self.protected(), wanted.len());
    }
}

fn set(members: usize) -> impl Strategy<Value = BTreeSet<usize>> {
    prop::collection::btree_set(0..members, 1..4)
}

const MEMBERS: usize = 5;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// Whoever acts, and whatever they have heard, also while cached copies go.
    #[test]
    fn t26_copies_never_are_fewer_than_before_or_than_wanted(
        before in set(MEMBERS), wanted in set(MEMBERS), list in steps(MEMBERS, 120),
    ) {
        let mut world = World::new(MEMBERS, &before, std::slice::from_ref(&wanted));
        let least = before.len().min(wanted.len());
        for step in &list {
            world.step(step);
            prop_assert!(world.protected() >= least, "{} copies after {step:?}", world.protected());
        }
        world.finish();
    }

    /// The rules change again and again, and members learn of that at different times.
    #[test]
    fn t26_rules_that_change_on_the_way_cost_no_copy(
        before in set(MEMBERS), rules in prop::collection::vec(set(MEMBERS), 1..4), list in steps(MEMBERS, 150),
    ) {
        let mut world = World::new(MEMBERS, &before, &rules);
        world.empties = false;
        let least = rules.iter().map(BTreeSet::len).min().unwrap().min(before.len());
        for step in &list {
            world.step(step);
            prop_assert!(world.protected() >= least, "{} copies after {step:?}", world.protected());
        }
        world.finish();
    }

    /// A program writes all the while: the newest bytes are never lost, and in the end all is as wanted.
    #[test]
    fn t26_what_is_written_on_the_way_is_held_as_wanted_in_the_end(
        before in set(MEMBERS), rules in prop::collection::vec(set(MEMBERS), 1..3), list in steps(MEMBERS, 150),
    ) {
        let mut world = World::new(MEMBERS, &before, &rules);
        world.writes = true;
        for step in &list {
            world.step(step);
            let newest = world.newest();
            prop_assert!(world.members.iter().any(|m| m.bytes.as_ref() == Some(&newest)), "lost by {step:?}");
        }
        world.finish();
    }
}

/// Without the wanted brick's word a cached copy would be counted that goes at the same moment.
#[test]
fn t26_a_cached_copy_counts_only_when_its_brick_has_heard_that_it_is_wanted() {
    let of = |list: &[usize]| list.iter().copied().collect::<BTreeSet<_>>();
    let mut world = World::new(3, &of(&[0, 1]), &[of(&[0, 2])]);
    world.read(2);
    world.hear_all();
    assert!(world.act(0));
    assert!(matches!(world.next(0), Next::Wait(Obstacle::NotHeard)));
    // It has not heard of that, and its disk is full.
    world.empty(2);
    assert_eq!(world.members[2].bytes, None);
    assert_eq!(world.protected(), 2);
    world.hear_all();
    assert!(matches!(world.next(0), Next::Wait(Obstacle::Lacking)));
    world.heal(2);
    world.empty(2);
    assert!(world.members[2].bytes.is_some(), "now it is in the set, and keeps it");
    world.hear_all();
    assert!(world.act(0));
    assert_eq!(world.protected(), 2);
    world.finish();
}
