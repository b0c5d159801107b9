//! The state of one object, merged from operations.
//!
//! Invariant: [`Object::apply`] is commutative, associative and idempotent.
//! Every field is a register in which the last stamp wins, a map of such
//! registers, or the set of the content versions that no other includes.
//! So operations may come in any order, through any relay, any number of times;
//! [`merge`](crate::merge) does the same for states.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{BrickId, FileId, LinkId};
use crate::op::{Attr, Entry, Kind, Op, Place};
use crate::resolution::Decision;
use crate::stamp::{Reg, Stamp};
use crate::version::{Relation, VersionVector};

/// One version of a file's content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
pub struct Content {
    /// What it includes.
    pub version: VersionVector,
    /// The brick that wrote it.
    pub writer: BrickId,
    /// Bytes.
    pub size: u64,
    /// When it was written, by the writer's hybrid clock.
    pub stamp: Stamp,
    /// The file's modification time then: seconds and nanoseconds.
    pub mtime: (i64, u32),
}

/// One name of an object.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
pub struct Link {
    /// Where it is; none until the operation that made it has come.
    pub place: Option<Reg<Place>>,
    /// That it was removed: when last, and the content that those who did had seen, taken together.
    pub removed: Option<Reg<VersionVector>>,
}

impl Link {
    /// Someone who had `seen` this content removed it.
    pub(crate) fn remove(&mut self, seen: VersionVector, stamp: Stamp) {
        let reg = self.removed.get_or_insert_with(|| Reg::new(VersionVector::new(), stamp));
        reg.value.merge(&seen);
        reg.stamp = reg.stamp.max(stamp);
    }
}

/// One object of the tree.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug, Default)]
pub struct Object {
    /// Its kind; none until its creation is known here.
    pub kind: Option<Kind>,
    /// Owner, mode.
    pub attr: Option<Reg<Attr>>,
    /// Modification time: seconds and nanoseconds.
    pub mtime: Option<Reg<(i64, u32)>>,
    /// Extended attributes; none for a removed one.
    pub xattrs: BTreeMap<Vec<u8>, Reg<Option<Vec<u8>>>>,
    /// Its names.
    pub links: BTreeMap<LinkId, Link>,
    /// The versions that no other known version includes, sorted.
    pub contents: Vec<Content>,
    /// Versions that lost a conflict, and whose bytes are kept elsewhere; only those that no content includes otherwise.
    pub losers: BTreeSet<VersionVector>,
    /// That it is the kept loser of a conflict: of which object, and the name that was given to it.
    pub kept: Option<Reg<(FileId, Vec<u8>)>>,
    /// Whether a brick's own programs are changing it.
    pub writers: BTreeMap<BrickId, Reg<bool>>,
    /// The complete version that each brick holds.
    pub holders: BTreeMap<BrickId, Reg<Option<VersionVector>>>,
    /// BLAKE3 of versions of which someone has read all; only of those that no other of these includes. So it is
    /// known of each side of a conflict. With when it was said first.
    pub hashes: BTreeMap<VersionVector, (Stamp, [u8; 32])>,
    /// The bricks that must hold the newest data.
    pub replicas: Option<Reg<Vec<BrickId>>>,
    /// A person's last word on its conflicts that each brick has carried out.
    pub decisions: BTreeMap<BrickId, Reg<Decision>>,
}

pub(crate) fn set<T: Ord>(slot: &mut Option<Reg<T>>, value: T, stamp: Stamp) {
    match slot {
        Some(reg) => reg.set(value, stamp),
        None => *slot = Some(Reg::new(value, stamp)),
    }
}

pub(crate) fn put<K: Ord, T: Ord>(map: &mut BTreeMap<K, Reg<T>>, key: K, value: T, stamp: Stamp) {
    match map.get_mut(&key) {
        Some(reg) => reg.set(value, stamp),
        None => {
            map.insert(key, Reg::new(value, stamp));
        }
    }
}

impl Object {
    /// The root directory: it has no link and no maker.
    pub fn root() -> Self {
        Object { kind: Some(Kind::Dir), ..Object::default() }
    }

    /// Takes one operation in.
    pub fn apply(&mut self, entry: &Entry) {
        let stamp = entry.stamp();
        match &entry.op {
            Op::Create { brick, kind, attr, place, replicas } => {
                if kind.is_file() {
                    put(&mut self.writers, *brick, true, stamp);
                }
                self.set_kind(kind.clone());
                self.set_attr(*attr, stamp);
                set(&mut self.replicas, replicas.clone(), stamp);
                self.place(LinkId { origin: entry.origin, seq: entry.seq }, place.clone(), stamp);
            }
            Op::Link(place) => {
                self.place(LinkId { origin: entry.origin, seq: entry.seq }, place.clone(), stamp);
            }
            Op::Move { link, place } => self.place(*link, place.clone(), stamp),
            Op::Unlink { link, seen } => {
                self.links.entry(*link).or_default().remove(seen.clone(), stamp);
            }
            Op::SetAttr(attr) => self.set_attr(*attr, stamp),
            Op::SetXattr { name, value } => put(&mut self.xattrs, name.clone(), value.clone(), stamp),
            Op::Dirty { brick } => put(&mut self.writers, *brick, true, stamp),
            Op::Clean { brick } => put(&mut self.writers, *brick, false, stamp),
            Op::Content { brick, version, size, mtime_sec, mtime_nsec, still_dirty } => {
                let (mtime, size) = ((*mtime_sec, *mtime_nsec), *size);
                self.add_content(Content { version: version.clone(), writer: *brick, size, stamp, mtime });
                set(&mut self.mtime, mtime, stamp);
                put(&mut self.writers, *brick, *still_dirty, stamp);
                put(&mut self.holders, *brick, Some(version.clone()), stamp);
            }
            Op::Have { brick, version, hash } => {
                put(&mut self.holders, *brick, Some(version.clone()), stamp);
                self.set_hash(version.clone(), (stamp, *hash));
            }
            Op::Drop { brick } => put(&mut self.holders, *brick, None, stamp),
            Op::Replicas(bricks) => set(&mut self.replicas, bricks.clone(), stamp),
            Op::Resolve { loser, .. } => {
                self.losers.insert(loser.clone());
                self.prune_losers();
            }
            Op::Kept { of, name } => set(&mut self.kept, (*of, name.clone()), stamp),
            Op::Decide { brick, decision } => put(&mut self.decisions, *brick, decision.clone(), stamp),
        }
    }

    /// A kind is fixed at creation; should a peer say otherwise, all members choose alike.
    pub(crate) fn set_kind(&mut self, kind: Kind) {
        if self.kind.as_ref().is_none_or(|known| *known < kind) {
            self.kind = Some(kind);
        }
    }

    /// The hashes that stay are those of versions that no other one with a hash includes: so members agree. Two
    /// hashes of one version are a torn snapshot, or a damaged copy that somebody took who had not heard of the right one: what was
    /// said first stays, as copies get worse with time.
    pub(crate) fn set_hash(&mut self, version: VersionVector, said: (Stamp, [u8; 32])) {
        if !self.would_keep_hash(&version) {
            return;
        }
        self.hashes.retain(|known, _| version.relation(known) != Relation::After);
        let known = self.hashes.entry(version).or_insert(said);
        *known = said.min(*known);
    }

    /// Whether the hash of this version stays, if it is said.
    pub(crate) fn would_keep_hash(&self, version: &VersionVector) -> bool {
        !self.hashes.keys().any(|known| known.relation(version) == Relation::After)
    }

    /// What a content includes needs no word that it lost.
    pub(crate) fn prune_losers(&mut self) {
        let contents = &self.contents;
        self.losers.retain(|l| !contents.iter().any(|c| c.version.relation(l) == Relation::After));
    }

    fn set_attr(&mut self, attr: Attr, stamp: Stamp) {
        set(&mut self.attr, attr, stamp);
        set(&mut self.mtime, (attr.mtime_sec, attr.mtime_nsec), stamp);
    }

    fn place(&mut self, link: LinkId, place: Place, stamp: Stamp) {
        set(&mut self.links.entry(link).or_default().place, place, stamp);
    }

    pub(crate) fn add_content(&mut self, new: Content) {
        let rank = |c: &Content| (c.stamp, c.writer, c.size, c.mtime);
        let dominated = |c: &Content| match c.version.relation(&new.version) {
            Relation::After => true,
            // One version has one content; a repetition changes nothing.
            Relation::Equal => rank(c) >= rank(&new),
            _ => false,
        };
        if self.contents.iter().any(dominated) {
            return;
        }
        self.contents.retain(|c| !new.version.includes(&c.version));
        self.contents.push(new);
        self.contents.sort();
        self.prune_losers();
    }

    /// Whether any brick says that it holds this version or more.
    pub fn is_held(&self, version: &VersionVector) -> bool {
        self.holders_of(version).next().is_some()
    }

    /// The versions that count: those that a brick holds and that lost no conflict. What no brick holds any more counts
    /// only as long as nothing else is held: then it is waited for. Where it is alive only because of a version that whoever
    /// removed its last name had not seen, those that were seen do not count. Should members that did
    /// not know of each other have declared all of them losers, the greatest counts.
    pub fn current(&self) -> impl Iterator<Item = &Content> {
        // One alone counts in any case.
        let any_held = self.contents.len() > 1 && self.contents.iter().any(|c| self.is_held(&c.version));
        let counts = move |c: &Content| !any_held || self.is_held(&c.version);
        let removed = if self.contents.len() > 1 { self.removed() } else { None };
        let lost = move |c: &Content| {
            self.losers.contains(&c.version)
                || self.is_superseded(&c.version)
                || removed.is_some_and(|seen| seen.includes(&c.version))
        };
        let all_lost = self.contents.iter().filter(|c| counts(c)).all(lost);
        let last = self.contents.iter().rposition(counts);
        self.contents
            .iter()
            .enumerate()
            .filter(move |(n, c)| if all_lost { Some(*n) == last } else { counts(c) && !lost(c) })
            .map(|(_, c)| c)
    }

    /// The version that a reader gets. Among versions in conflict it is the
    /// greatest by a fixed order of the vectors, so that all members choose alike.
    pub fn head(&self) -> Option<&Content> {
        self.current().last()
    }

    /// How bytes of the version `have` stand to the newest ones. A version that lost a
    /// conflict, or that came before one that did, is an older one.
    pub fn standing_of(&self, have: &VersionVector) -> Option<Relation> {
        let head = &self.head()?.version;
        Some(match have.relation(head) {
            Relation::Concurrent if self.has_lost(have) || self.is_removed(have) => Relation::Before,
            relation => relation,
        })
    }

    /// Whether the version lost a conflict, or came before one that did.
    pub fn has_lost(&self, have: &VersionVector) -> bool {
        let superseded = |c: &&Content| self.is_superseded(&c.version);
        self.losers.iter().any(|l| l.includes(have))
            || self.contents.iter().filter(superseded).any(|c| c.version.includes(have))
    }

    /// All that is known of it but its names.
    #[must_use]
    pub fn without_names(self) -> Self {
        Object { links: BTreeMap::new(), ..self }
    }

    /// Whether the version is known, or one that came after it, or that it lost a conflict.
    pub fn knows(&self, version: &VersionVector) -> bool {
        self.contents.iter().any(|c| c.version.includes(version)) || self.has_lost(version)
    }

    /// A vector that includes every version known.
    pub fn seen(&self) -> VersionVector {
        let mut all = VersionVector::new();
        self.contents.iter().for_each(|c| all.merge(&c.version));
        all
    }

    /// Size in bytes of the newest version.
    pub fn size(&self) -> u64 {
        self.head().map_or(0, |c| c.size)
    }

    /// Whether versions exist of which neither includes the other.
    pub fn in_conflict(&self) -> bool {
        self.current().nth(1).is_some()
    }

    /// The object of which it, with this id, is the kept loser, as long as nobody gave it another name, or said that it
    /// is to stay as a file of its own.
    pub fn kept_loser_of(&self, me: FileId) -> Option<FileId> {
        let (of, name) = &self.kept.as_ref()?.value;
        (*of != me && self.live_links().any(|(_, place)| place.value.name == *name)).then_some(*of)
    }

    /// The bricks at which programs are changing it.
    pub fn writing(&self) -> impl Iterator<Item = BrickId> + '_ {
        self.writers.iter().filter(|(_, reg)| reg.value).map(|(brick, _)| *brick)
    }

    /// The bricks that hold `version` or more.
    pub fn holders_of<'a>(&'a self, version: &'a VersionVector) -> impl Iterator<Item = BrickId> + 'a {
        self.holders
            .iter()
            .filter(|(_, reg)| reg.value.as_ref().is_some_and(|v| v.includes(version)))
            .map(|(brick, _)| *brick)
    }

    /// Whether this name is to be seen, as far as the object itself can tell: placed and not removed;
    /// or the last of all names to be removed, while nobody who removed one had seen all of the content.
    pub fn is_live(&self, link: &Link) -> bool {
        let (Some(_), Some(removed)) = (&link.place, &link.removed) else { return link.place.is_some() };
        if Self::is_placed(link) {
            return true;
        }
        let known = || self.links.values().filter(|l| l.place.is_some());
        let removals = || known().filter_map(|l| l.removed.as_ref());
        // Another name keeps the content, and what was removed on purpose stays so.
        !known().any(Self::is_placed)
            && removals().all(|r| r.stamp <= removed.stamp)
            && removals().all(|r| self.contents.iter().any(|c| !r.value.includes(&c.version)))
    }

    /// What was seen by who removed the last of its names; none if one is placed.
    fn removed(&self) -> Option<&VersionVector> {
        let known = || self.links.values().filter(|l| l.place.is_some());
        if known().any(Self::is_placed) {
            return None;
        }
        known().filter_map(|l| l.removed.as_ref()).max_by_key(|r| r.stamp).map(|r| &r.value)
    }

    /// Whether the version, or one that came after it, was removed with the last of the names.
    pub fn is_removed(&self, have: &VersionVector) -> bool {
        let Some(seen) = self.removed() else { return false };
        self.contents.iter().any(|c| seen.includes(&c.version) && c.version.includes(have))
    }

    /// Placed, and not removed since.
    fn is_placed(link: &Link) -> bool {
        link.place.as_ref().is_some_and(|place| link.removed.as_ref().is_none_or(|r| place.stamp > r.stamp))
    }

    /// Its live names.
    pub fn live_links(&self) -> impl Iterator<Item = (LinkId, &Reg<Place>)> + '_ {
        self.links
            .iter()
            .filter(|(_, link)| self.kind.is_some() && self.is_live(link))
            .filter_map(|(id, link)| link.place.as_ref().map(|place| (*id, place)))
    }

    /// The names that were removed, and are live only since whoever did that had not seen all of the content.
    pub fn kept_links(&self) -> impl Iterator<Item = (LinkId, &Reg<Place>)> + '_ {
        self.live_links().filter(|(id, _)| self.links.get(id).is_some_and(|link| !Self::is_placed(link)))
    }

    /// Whether it has a live name, or is the root.
    pub fn exists(&self, id: FileId) -> bool {
        id == FileId::ROOT || self.live_links().next().is_some()
    }

    /// Its replica set; empty when none was chosen yet.
    pub fn replica_set(&self) -> &[BrickId] {
        self.replicas.as_ref().map_or(&[], |reg| &reg.value)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::id::Incarnation;
    use crate::resolution::{Choice, Side, Word};
    use proptest::prelude::*;

    pub(crate) fn brick(n: u8) -> BrickId {
        BrickId([n; 16])
    }

    fn place(n: u8) -> Place {
        Place { parent: FileId([n / 2; 16]), name: vec![b'a' + n % 2] }
    }

    fn version() -> impl Strategy<Value = VersionVector> {
        prop::collection::vec((0u64..3, 1u64..4), 1..3)
            .prop_map(|v| v.into_iter().map(|(w, n)| (Incarnation(w), n)).collect())
    }

    fn link() -> impl Strategy<Value = LinkId> {
        (0u64..3, 1u64..4).prop_map(|(o, seq)| LinkId { origin: Incarnation(o), seq })
    }

    fn decision(generation: u64, holds: u32, outcome: VersionVector) -> Decision {
        let side = |who: u64| Side {
            content: Content {
                version: VersionVector::from_iter([(Incarnation(who), 1)]),
                writer: brick(0),
                size: 1,
                stamp: Stamp::ZERO,
                mtime: (1, 0),
            },
            beside: None,
            hash: None,
        };
        let word = Word { made: 1, generation };
        Decision { word, choice: Choice::Newest, sides: vec![side(0), side(1)], outcome, holds }
    }

    fn op() -> impl Strategy<Value = Op> {
        let bricks = || (0u8..3).prop_map(brick);
        prop_oneof![
            (0u8..4, any::<u32>()).prop_map(|(p, m)| Op::Create {
                brick: brick(p % 3),
                kind: Kind::File,
                attr: Attr { mode: m & 0o777, ..Attr::default() },
                place: place(p),
                replicas: vec![brick(0), brick(1)],
            }),
            (0u8..4).prop_map(|p| Op::Link(place(p))),
            (link(), 0u8..4).prop_map(|(link, p)| Op::Move { link, place: place(p) }),
            (link(), version()).prop_map(|(link, seen)| Op::Unlink { link, seen }),
            any::<u32>().prop_map(|m| Op::SetAttr(Attr { mode: m & 0o777, ..Attr::default() })),
            (0u8..2, any::<Option<u8>>())
                .prop_map(|(n, v)| Op::SetXattr { name: vec![b'u', n + 1], value: v.map(|b| vec![b]) }),
            bricks().prop_map(|brick| Op::Dirty { brick }),
            bricks().prop_map(|brick| Op::Clean { brick }),
            (bricks(), version(), 0u64..9, any::<bool>()).prop_map(|(brick, version, size, still_dirty)| {
                Op::Content { brick, version, size, mtime_sec: 1, mtime_nsec: 0, still_dirty }
            }),
            (bricks(), version(), any::<u8>()).prop_map(|(brick, version, h)| Op::Have {
                brick,
                version,
                hash: [h; 32]
            }),
            bricks().prop_map(|brick| Op::Drop { brick }),
            prop::collection::vec(bricks(), 0..3).prop_map(Op::Replicas),
            version().prop_map(|loser| Op::Resolve { loser, kept: None }),
            (0u8..4).prop_map(|n| Op::Kept { of: FileId([n; 16]), name: vec![b'a' + n % 2] }),
            (bricks(), version(), 0u64..3, 0u32..2).prop_map(|(brick, outcome, generation, holds)| {
                Op::Decide { brick, decision: decision(generation, holds, outcome) }
            }),
        ]
    }

    /// Entries as journals have them: each (origin, sequence) once, with its own stamp.
    pub(crate) fn entries() -> impl Strategy<Value = Vec<Entry>> {
        prop::collection::vec((0u64..3, op(), 0u64..6), 0..14).prop_map(|list| {
            let mut next = [0u64; 3];
            let mut clock = [0u64; 3];
            list.into_iter()
                .map(|(origin, op, skip)| {
                    let o = usize::try_from(origin).expect("small");
                    next[o] += 1;
                    clock[o] += 1 + skip;
                    Entry {
                        origin: Incarnation(origin),
                        seq: next[o],
                        time: clock[o],
                        file: FileId([9; 16]),
                        op,
                    }
                })
                .collect()
        })
    }

    pub(crate) fn all(entries: &[Entry]) -> Object {
        let mut object = Object::default();
        entries.iter().for_each(|e| object.apply(e));
        object
    }

    /// Found by `any_order_gives_one_object`: of three versions the first was before the third, and the
    /// second beside both; which hash stayed depended on the order.
    #[test]
    fn regression_the_hash_that_stays_does_not_depend_on_the_order() {
        let versions = [[(1, 1), (2, 1)].as_slice(), &[(1, 1), (3, 2)], &[(1, 1)]];
        let list: Vec<_> = versions
            .iter()
            .zip(1..)
            .map(|(version, seq)| Entry {
                origin: Incarnation(1),
                seq,
                time: seq,
                file: FileId([9; 16]),
                op: Op::Have {
                    brick: brick(1),
                    version: version.iter().map(|&(who, n)| (Incarnation(who), n)).collect(),
                    hash: [0; 32],
                },
            })
            .collect();
        let pick = |order: [usize; 3]| all(&order.map(|n| list[n].clone())).hashes;
        let first = pick([0, 1, 2]);
        assert_eq!(first.len(), 2, "each side of a conflict has its own");
        for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            assert_eq!(pick(order), first);
        }
    }

    proptest! {
        #[test]
        fn any_order_gives_one_object(list in entries(), seed in any::<u64>()) {
            let mut shuffled = list.clone();
            let mut state = seed | 1;
            for i in (1..shuffled.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                shuffled.swap(i, usize::try_from(state >> 33).expect("fits") % (i + 1));
            }
            prop_assert_eq!(all(&list), all(&shuffled));
        }

        #[test]
        fn repetition_changes_nothing(list in entries(), upto in 0usize..14) {
            let once = all(&list);
            let mut twice = once.clone();
            list.iter().take(upto).for_each(|e| twice.apply(e));
            prop_assert_eq!(once, twice);
        }

        #[test]
        fn contents_never_include_each_other(list in entries()) {
            let object = all(&list);
            for (i, a) in object.contents.iter().enumerate() {
                for b in &object.contents[i + 1..] {
                    prop_assert_eq!(a.version.relation(&b.version), Relation::Concurrent);
                }
            }
        }

        #[test]
        fn t09_an_edit_beats_a_delete(list in entries()) {
            let mut object = all(&list);
            object.kind = Some(Kind::File);
            let link = LinkId { origin: Incarnation(7), seq: 1 };
            let at = |origin, seq, time, op| Entry { origin: Incarnation(origin), seq, time, file: FileId([9; 16]), op };
            object.apply(&at(7, 1, 100, Op::Link(place(0))));
            let seen = object.seen();
            object.apply(&at(8, 1, 200, Op::Unlink { link, seen: seen.clone() }));
            prop_assert!(!object.is_live(&object.links[&link]));
            let edit = Op::Content {
                brick: brick(1), version: seen.bumped(Incarnation(9)), size: 1, mtime_sec: 0, mtime_nsec: 0, still_dirty: false,
            };
            object.apply(&at(9, 1, 150, edit));
            prop_assert!(object.exists(FileId([9; 16])));
            let others = object.live_links().filter(|(id, _)| *id != link).count();
            prop_assert_eq!(object.is_live(&object.links[&link]), others == 0);
            // Placed anew, it stays with one more name.
            let kept: Vec<_> = object.kept_links().map(|(id, reg)| (id, reg.value.clone())).collect();
            prop_assert_eq!(kept.iter().any(|(id, _)| *id == link), others == 0);
            for (seq, (link, place)) in (2..).zip(kept) {
                object.apply(&at(9, seq, 300, Op::Move { link, place }));
            }
            object.apply(&at(9, 100, 300, Op::Link(place(1))));
            prop_assert_eq!(object.kept_links().count(), 0);
            prop_assert_eq!(object.is_live(&object.links[&link]), others == 0);
        }
    }
    #[test]
    fn t16_a_removed_name_stays_removed_when_the_file_is_written_through_another() {
        let file = FileId([9; 16]);
        let mut object = Object { kind: Some(Kind::File), ..Object::default() };
        let mut seq = 0;
        let mut say = |object: &mut Object, op| {
            seq += 1;
            object.apply(&Entry { origin: Incarnation(7), seq, time: 10 * seq, file, op });
            LinkId { origin: Incarnation(7), seq }
        };
        let content = |version: &VersionVector| Op::Content {
            brick: brick(1),
            version: version.clone(),
            size: 1,
            mtime_sec: 0,
            mtime_nsec: 0,
            still_dirty: false,
        };
        let (a, b) = (say(&mut object, Op::Link(place(0))), say(&mut object, Op::Link(place(1))));
        let live = |object: &Object| object.live_links().map(|(link, _)| link).collect::<Vec<_>>();
        let first = VersionVector::new().bumped(Incarnation(7));
        say(&mut object, content(&first));
        say(&mut object, Op::Unlink { link: a, seen: first.clone() });
        let second = first.bumped(Incarnation(7));
        say(&mut object, content(&second));
        assert_eq!(live(&object), [b]);
        // The last name goes too: the one that went before does not come back for what that one's remover had not seen.
        let mut all_gone = object.clone();
        say(&mut all_gone, Op::Unlink { link: b, seen: second.clone() });
        assert_eq!(live(&all_gone), []);
        // But an edit that nobody had seen is kept, under the name that went last.
        say(&mut all_gone, content(&second.bumped(Incarnation(8))));
        assert_eq!(live(&all_gone), [b]);
    }
}
