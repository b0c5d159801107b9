//! What a target does about one object that it lacks.

use crate::id::BrickId;
use crate::object::Object;
use crate::pending::sources;
use crate::version::{Relation, VersionVector};

/// Why a heal of a file did not succeed. The names are the API's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reason {
    /// No holder of the newest data answers.
    Unreachable,
    /// The brick's file system is full.
    NoSpace,
    /// The brick's file system refuses.
    Permission,
    /// The local version and the newest one do not include each other.
    Conflict,
    /// The file is open for writing here or still being written at its source.
    Busy,
    /// The source has a newer version than the one asked for.
    SourceChanged,
    /// The bytes that came do not have the hash that they should have.
    Corrupt,
}

impl Reason {
    /// Its name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Unreachable => "Unreachable",
            Reason::NoSpace => "NoSpace",
            Reason::Permission => "Permission",
            Reason::Conflict => "Conflict",
            Reason::Busy => "Busy",
            Reason::SourceChanged => "SourceChanged",
            Reason::Corrupt => "Corrupt",
        }
    }
}

/// What the target holds of the object.
#[derive(Clone, Copy, Debug)]
pub struct Local<'a> {
    /// The complete version here; none for a stub.
    pub have: Option<&'a VersionVector>,
    /// Programs here are changing it, or it changed and is not settled.
    pub dirty: bool,
}

/// What to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// Nothing is lacking.
    Nothing,
    /// The newest data is here already; only say so.
    Acknowledge,
    /// Fetch this version from one of these, best first.
    Fetch {
        /// The version.
        version: VersionVector,
        /// Bytes to come.
        size: u64,
        /// Bricks that hold it; never empty, never the target.
        from: Vec<BrickId>,
    },
    /// Not now.
    Wait(Reason),
}

/// Decides what the target `me` does about `object`. Never replaces bytes that
/// are not included in what would replace them.
pub fn decide(object: &Object, me: BrickId, local: Local<'_>) -> Decision {
    let Some(head) = object.head() else {
        // Created, and not yet settled at its maker.
        return if object.writing().any(|w| w != me) {
            Decision::Wait(Reason::Busy)
        } else {
            Decision::Nothing
        };
    };
    if local.dirty {
        return Decision::Wait(Reason::Busy);
    }
    let lacking = match local.have {
        None => true,
        Some(have) => match object.standing_of(have) {
            Some(Relation::Before) => true,
            Some(Relation::Concurrent) => return Decision::Wait(Reason::Conflict),
            _ => false,
        },
    };
    if !lacking {
        let said = object.holders_of(&head.version).any(|h| h == me);
        return if said { Decision::Nothing } else { Decision::Acknowledge };
    }
    let from: Vec<_> = sources(object).into_iter().filter(|b| *b != me).collect();
    if from.is_empty() {
        return Decision::Wait(Reason::Unreachable);
    }
    Decision::Fetch { version: head.version.clone(), size: head.size, from }
}

/// Whether a version that has arrived may take the place of what is here now:
/// checked again under the file's lock, just before the rename (T10).
pub fn may_replace(object: &Object, local: Local<'_>, arrived: &VersionVector) -> Result<(), Reason> {
    if local.dirty {
        return Err(Reason::Busy);
    }
    let Some(have) = local.have else { return Ok(()) };
    match arrived.relation(have) {
        Relation::After | Relation::Equal => Ok(()),
        Relation::Before => Err(Reason::SourceChanged),
        // What lost is kept elsewhere, but nothing that lost may come in its place.
        Relation::Concurrent
            if object.standing_of(have) == Some(Relation::Before)
                && object.head().is_some_and(|h| h.version == *arrived) =>
        {
            Ok(())
        }
        Relation::Concurrent => Err(Reason::Conflict),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::tests::{brick, entries};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_fetch_never_loses_local_bytes(list in entries(), have in any::<Option<u8>>(), dirty in any::<bool>()) {
            let mut object = Object::default();
            list.iter().for_each(|e| object.apply(e));
            let have: Option<VersionVector> = have.map(|n| {
                [(crate::id::Incarnation(u64::from(n % 3)), u64::from(n / 3 % 4 + 1))].into_iter().collect()
            });
            let local = Local { have: have.as_ref(), dirty };
            if let Decision::Fetch { version, from, .. } = decide(&object, brick(1), local) {
                prop_assert!(!dirty);
                let lost = |h: &VersionVector| object.has_lost(h);
                prop_assert!(have.as_ref().is_none_or(|h| version.includes(h) || lost(h)));
                prop_assert!(!from.is_empty() && !from.contains(&brick(1)));
                prop_assert_eq!(may_replace(&object, local, &version), Ok(()));
            }
        }
    }

    #[test]
    fn t10_a_local_write_wins_the_race() {
        let one = VersionVector::from_iter([(crate::id::Incarnation(1), 1)]);
        let two = one.bumped(crate::id::Incarnation(2));
        let object = Object::default();
        assert_eq!(may_replace(&object, Local { have: Some(&one), dirty: true }, &two), Err(Reason::Busy));
        assert_eq!(may_replace(&object, Local { have: Some(&one), dirty: false }, &two), Ok(()));
        let other = one.bumped(crate::id::Incarnation(3));
        assert_eq!(
            may_replace(&object, Local { have: Some(&other), dirty: false }, &two),
            Err(Reason::Conflict)
        );
        assert_eq!(
            may_replace(&object, Local { have: Some(&two), dirty: false }, &one),
            Err(Reason::SourceChanged)
        );
    }
}
