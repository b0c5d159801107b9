//! What seeds found once, each under the name of what must hold.

use super::steps::{Action, Step, What};

mod damage;
mod disks;
mod members;
mod names;
mod power;
mod unsynced;

fn step(what: What) -> Step {
    Step { salt: 1, what }
}

fn does(member: usize, action: Action) -> Step {
    step(What::Program { member, action })
}

fn pull(to: usize, from: usize) -> Step {
    step(What::Pull { to, from })
}
