//! Decisions: pure functions on values, without a client, a clock or anything asynchronous.
//!
//! The controllers collect what these functions need, and carry out what they say. All properties
//! that matter (who holds what, when a heal is due, what a status says) are tested here.

pub mod away;
pub mod certificate;
pub mod conflict;
pub mod due;
pub mod evict;
pub mod history;
pub mod job;
pub mod limits;
pub mod members;
pub mod migrate;
pub mod pending;
pub mod placed;
pub mod placement;
pub mod release;
pub mod share;
pub mod speed;
pub mod used;
pub mod verified;
pub mod volume;
