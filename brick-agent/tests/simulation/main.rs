//! The whole logic of the agent on simulated machines: 3 to 7 members with random programs, and clocks, networks, disks and
//! power that fail. One seed is one run, in one thread: nothing in it depends on anything else.
//!
//! * [`machine`]: a workstation: [`disk`] (on [`files`]), [`store`], [`clock`], and how long its agent has to live ([`life`]).
//! * [`world`]: the machines, and what they say to each other by the messages of the peer API.
//! * [`steps`]: what happens; [`program`]: what programs do; [`oracle`]: what they were told.
//! * [`run`]: a run and its checks; [`shrink`]: a failing one with fewer steps.
//! * [`cases`]: the tests; [`regressions`]: what they found once.
//! * [`moving`]: one person at several workstations, and no fault.
//! * [`instructions`]: what calls cost.
//! * [`heal_steps`], [`call_steps`]: one heal, and calls that make something, that end or fail at each of their steps.
//!
//! `NEARBRICK_CASES=20000` runs so many seeds; `NEARBRICK_SEED=7` runs one and prints what happens;
//! `NEARBRICK_KEEP=0-5,9` leaves out all other steps.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod call_steps;
mod cases;
mod chance;
mod clock;
mod disk;
mod files;
mod heal_steps;
mod instructions;
mod life;
mod machine;
mod moving;
mod oracle;
mod program;
mod regressions;
mod run;
mod shrink;
mod steps;
mod store;
mod world;
