//! Two states of one object, merged: what a comparison of trees exchanges in place of operations.
//!
//! Invariant: [`Object::merge`] is the join of [`Object::apply`]: merging the states after any two
//! sets of operations is the state after the union of both. It is commutative, associative and
//! idempotent, so operations and states may be mixed in any order.

use crate::object::{Link, Object, put, set};
use crate::stamp::Reg;

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
            hash,
            replicas,
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
            join(&mut link.removed, removed);
        }
        self.losers.extend(losers);
        contents.into_iter().for_each(|content| self.add_content(content));
        self.prune_losers();
        join(&mut self.kept, kept);
        writers.into_iter().for_each(|(brick, reg)| put(&mut self.writers, brick, reg.value, reg.stamp));
        holders.into_iter().for_each(|(brick, reg)| put(&mut self.holders, brick, reg.value, reg.stamp));
        if let Some(hash) = hash {
            self.set_hash(hash);
        }
        join(&mut self.replicas, replicas);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::tests::{all, entries};
    use crate::op::Entry;
    use proptest::prelude::*;

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
