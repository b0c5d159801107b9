//! What seeds found once, each under the name of what must hold.

use super::run::Plan;
use super::shrink;
use super::steps::{Action, Faults, Step, What};

mod damage;
mod disks;
mod members;
mod names;
mod power;
mod remains;
mod unsynced;

/// What a seed found, with the steps that it takes, is found no more.
fn stays_mended(seed: u64, faults: Faults, keep: &str) {
    let plan = Plan::new(seed, faults).keeping(&shrink::read(keep));
    assert_eq!(plan.run(false).failure, None, "seed {seed}");
}

fn step(what: What) -> Step {
    Step { salt: 1, what }
}

fn does(member: usize, action: Action) -> Step {
    step(What::Program { member, action })
}

fn pull(to: usize, from: usize) -> Step {
    step(What::Pull { to, from })
}
