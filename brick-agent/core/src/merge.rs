//! Two states of one object, merged: what a comparison of trees exchanges in place of operations.
//!
//! Invariant: [`Object::merge`] is the join of [`Object::apply`]: merging the states after any two
//! sets of operations is the state after the union of both. It is commutative, associative and
//! idempotent, so operations and states may be mixed in any order.

use crate::id::FileId;
use crate::name;
use crate::object::{Content, Link, Object, put, set};
use crate::op::{
    BadEntry, MAX_MEMBERS, MAX_SIZE, MAX_TIME, check_attr, check_kind, check_link, check_replicas,
    check_xattr,
};
use crate::stamp::{Reg, Stamp};

/// The most names, and the most extended attributes, of one object that are taken from the wire.
const MAX_PARTS: usize = 65_536;

fn join<T: Ord>(slot: &mut Option<Reg<T>>, other: Option<Reg<T>>) {
    if let Some(Reg { value, stamp }) = other {
        set(slot, value, stamp);
    }
}

impl Object {
    /// Takes in all that another state of the same object has.
    pub fn merge(&mut self, other: Object) {
        // Without `..`, so that a field that is forgotten here does not compile.
        let Object {
            kind,
            attr,
            mtime,
            xattrs,
            links,
            contents,
            losers,
            kept,
            writers,
            holders,
            hashes,
            replicas,
            decisions,
        } = other;
        if let Some(kind) = kind {
            self.set_kind(kind);
        }
        join(&mut self.attr, attr);
        join(&mut self.mtime, mtime);
        xattrs.into_iter().for_each(|(name, reg)| put(&mut self.xattrs, name, reg.value, reg.stamp));
        for (id, Link { place, removed }) in links {
            let link = self.links.entry(id).or_default();
            join(&mut link.place, place);
            if let Some(removed) = removed {
                link.remove(removed.value, removed.stamp);
            }
        }
        self.losers.extend(losers);
        contents.into_iter().for_each(|content| self.add_content(content));
        self.prune_losers();
        join(&mut self.kept, kept);
        writers.into_iter().for_each(|(brick, reg)| put(&mut self.writers, brick, reg.value, reg.stamp));
        holders.into_iter().for_each(|(brick, reg)| put(&mut self.holders, brick, reg.value, reg.stamp));
        hashes.into_iter().for_each(|(version, said)| self.set_hash(version, said));
        join(&mut self.replicas, replicas);
        decisions.into_iter().for_each(|(brick, reg)| put(&mut self.decisions, brick, reg.value, reg.stamp));
    }
}

impl Object {
    /// Of when the operations are that it still shows.
    pub fn stamps(&self) -> impl Iterator<Item = Stamp> + '_ {
        let links = self.links.values().flat_map(|l| {
            let place = l.place.as_ref().map(|reg| reg.stamp);
            place.into_iter().chain(l.removed.as_ref().map(|reg| reg.stamp))
        });
        links
            .chain(self.attr.iter().map(|reg| reg.stamp))
            .chain(self.mtime.iter().map(|reg| reg.stamp))
            .chain(self.xattrs.values().map(|reg| reg.stamp))
            .chain(self.contents.iter().map(|c| c.stamp))
            .chain(self.hashes.values().map(|said| said.0))
            .chain(self.kept.iter().map(|reg| reg.stamp))
            .chain(self.writers.values().map(|reg| reg.stamp))
            .chain(self.holders.values().map(|reg| reg.stamp))
            .chain(self.replicas.iter().map(|reg| reg.stamp))
            .chain(self.decisions.values().map(|reg| reg.stamp))
    }

    /// Checks a state that a peer sent, as [`Entry::check`](crate::Entry::check) does an operation.
    ///
    /// # Errors
    /// What no member has.
    pub fn check(&self, file: FileId) -> Result<(), BadEntry> {
        if self.stamps().any(|stamp| stamp.time > MAX_TIME) {
            return Err(BadEntry::Nonsense("time"));
        }
        if self.links.len().max(self.xattrs.len()) > MAX_PARTS
            || self.contents.len().max(self.losers.len()).max(self.hashes.len()) > MAX_MEMBERS
            || self.writers.len().max(self.holders.len()).max(self.decisions.len()) > MAX_MEMBERS
        {
            return Err(BadEntry::TooBig("object"));
        }
        if file == FileId::ROOT && (self.kind.as_ref().is_some_and(|k| !k.is_dir()) || !self.links.is_empty())
        {
            return Err(BadEntry::Nonsense("root"));
        }
        self.kind.iter().try_for_each(check_kind)?;
        self.attr.iter().try_for_each(|reg| check_attr(&reg.value))?;
        if self.mtime.as_ref().is_some_and(|reg| reg.value.1 >= 1_000_000_000) {
            return Err(BadEntry::Nonsense("attributes"));
        }
        self.xattrs.iter().try_for_each(|(name, reg)| check_xattr(name, reg.value.as_deref()))?;
        for (id, link) in &self.links {
            check_link(*id)?;
            link.place.iter().try_for_each(|reg| name::check(&reg.value.name))?;
        }
        self.kept.iter().try_for_each(|reg| name::check(&reg.value.1))?;
        let nonsense = |c: &Content| c.version.is_empty() || c.size > MAX_SIZE || c.mtime.1 >= 1_000_000_000;
        if self.contents.iter().any(nonsense) {
            return Err(BadEntry::Nonsense("version"));
        }
        self.decisions.values().try_for_each(|reg| reg.value.check())?;
        self.replicas.iter().try_for_each(|reg| check_replicas(&reg.value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Incarnation, LinkId};
    use crate::object::tests::{all, entries};
    use crate::op::{Entry, Kind, Place};
    use proptest::prelude::*;

    #[test]
    fn s01_states_that_no_member_has_are_refused() {
        let file = FileId([1; 16]);
        let stamp = Stamp { time: 1, origin: Incarnation(1) };
        let named = |name: &[u8]| {
            let place = Place { parent: FileId::ROOT, name: name.to_vec() };
            let link = Link { place: Some(Reg::new(place, stamp)), removed: None };
            let links = [(LinkId { origin: Incarnation(1), seq: 1 }, link)].into();
            Object { kind: Some(Kind::File), links, ..Object::default() }
        };
        assert_eq!(named(b"fine").check(file), Ok(()));
        for name in [&b".."[..], b"", b"a/b", b"/etc/passwd", b"a\0b", &[b'x'; 256]] {
            assert!(matches!(named(name).check(file), Err(BadEntry::Name(_))), "{name:?}");
        }
        assert!(named(b"a").check(FileId::ROOT).is_err(), "the root has no name");
        let xattrs = [(b"trusted.nearbrick".to_vec(), Reg::new(Some(vec![1]), stamp))].into();
        assert!(Object { xattrs, ..Object::default() }.check(file).is_err());
        let late = Stamp { time: MAX_TIME + 1, origin: Incarnation(1) };
        let replicas = Some(Reg::new(Vec::new(), late));
        assert!(Object { replicas, ..Object::default() }.check(file).is_err());
        let kind = Some(Kind::Special { format: 0o100_000, rdev: 0 });
        assert!(Object { kind, ..Object::default() }.check(file).is_err());
    }

    /// Those entries whose bit is set.
    fn part(list: &[Entry], mask: u32) -> Vec<Entry> {
        list.iter().enumerate().filter(|(n, _)| mask >> n & 1 == 1).map(|(_, e)| e.clone()).collect()
    }

    fn merged(a: &Object, b: &Object) -> Object {
        let mut m = a.clone();
        m.merge(b.clone());
        m
    }

    proptest! {
        #[test]
        fn merged_states_are_the_state_of_all_operations(list in entries(), a in any::<u32>(), b in any::<u32>()) {
            let union = all(&part(&list, a | b));
            prop_assert_eq!(merged(&all(&part(&list, a)), &all(&part(&list, b))), union);
        }

        #[test]
        fn merge_is_a_join(list in entries(), a in any::<u32>(), b in any::<u32>(), c in any::<u32>()) {
            let (a, b, c) = (all(&part(&list, a)), all(&part(&list, b)), all(&part(&list, c)));
            prop_assert_eq!(merged(&a, &b), merged(&b, &a));
            prop_assert_eq!(merged(&merged(&a, &b), &c), merged(&a, &merged(&b, &c)));
            prop_assert_eq!(merged(&a, &a), a.clone());
            prop_assert_eq!(merged(&a, &Object::default()), a);
        }

        #[test]
        fn operations_after_a_merge_are_as_operations_before_it(list in entries(), a in any::<u32>(), b in any::<u32>()) {
            let (first, rest) = (part(&list, a), part(&list, b));
            let mut late = merged(&all(&first), &Object::default());
            rest.iter().for_each(|e| late.apply(e));
            prop_assert_eq!(late, merged(&all(&first), &all(&rest)));
        }
    }
}
