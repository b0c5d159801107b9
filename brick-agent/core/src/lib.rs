//! The pure core of Nearbrick: functions on values, with no I/O, no clock and no async.
//!
//! * [`id`]: the identities of objects, bricks and incarnations.
//! * [`version`]: version vectors.
//! * [`stamp`]: hybrid logical clock stamps and last-writer registers.
//! * [`op`]: the operations that a journal carries between members.
//! * [`object`]: the state of one object, merged from operations in any order.
//! * [`merge`]: the state of one object, merged from states.
//! * [`conflict`]: which version keeps the name, what becomes of the others, and who sees to that.
//! * [`resolution`]: a person's word on a conflict: what it chooses, and what is remembered of that.
//! * [`pending`]: which bricks lack the newest data of an object.
//! * [`replace`]: how the replica set of a file becomes the one that is wanted for it.
//! * [`fallen`]: what becomes of versions that no brick holds any more.
//! * [`tree`]: where the links of the replicated tree are to be seen, names decided.
//! * [`horizon`]: how far a member has heard of each journal.
//! * [`brake`]: when so much is removed that a person is asked.
//! * [`forget`]: when a deleted object may be forgotten, and what a returning member makes of that.
//! * [`heal`]: what a target does about one pending object.
//! * [`recover`]: what is made of a file's bytes after an end without notice.
//! * [`scrub`]: what a look at the bytes of a settled file shows.
//! * [`acl`]: POSIX ACLs, and what a mode has to do with them.
//! * [`retention`]: which kept versions are given up.
//! * [`rate`]: a bound on bytes per second; [`holders`]: which holder is asked first.
//! * [`ahead`]: what of remote files is fetched before it is asked for; [`evict`]: which cached copies are emptied.
//! * [`heat`]: how much groups of files are used here.
//! * [`name`]: names from peers are bytes to be validated.
//!
//! Invariant of the whole crate: merging is commutative, associative and
//! idempotent, so members that have seen the same operations agree, whatever
//! the order, the relays and the repetitions.

pub mod acl;
pub mod ahead;
pub mod brake;
pub mod coaccess;
pub mod conflict;
pub mod evict;
pub mod fallen;
pub mod forget;
pub mod heal;
pub mod heat;
pub mod holders;
pub mod horizon;
pub mod id;
pub mod merge;
pub mod name;
pub mod object;
pub mod op;
pub mod pending;
pub mod rate;
pub mod recover;
pub mod replace;
pub mod resolution;
pub mod retention;
pub mod scrub;
pub mod stamp;
pub mod tree;
pub mod version;

pub use horizon::{Heard, Horizon};
pub use id::{BrickId, FileId, Incarnation, LinkId};
pub use object::{Content, Object};
pub use op::{Attr, Entry, Kind, Op, Place};
pub use stamp::{Reg, Stamp};
pub use version::{Relation, VersionVector};
