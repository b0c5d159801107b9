//! What happens in a run, one step after the other. All of it follows from the seed; each step has its own
//! randomness, so that a run from which steps were left out is still much the same.

use super::chance::Chance;
use super::disk::Trouble;
use super::machine::{End, SLOTS};

#[derive(Clone, Debug)]
pub struct Step {
    /// For what is left to chance in it.
    pub salt: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    /// A program does something.
    Program {
        member: usize,
        action: Action,
    },
    /// The agent does what is due.
    Work {
        member: usize,
    },
    /// The kernel writes on its own.
    WriteBack {
        member: usize,
    },
    /// Time passes.
    Pass {
        ms: u64,
    },
    /// The date of a machine jumps.
    Jump {
        member: usize,
        ms: i64,
    },
    /// A member asks another for entries.
    Ask {
        to: usize,
        from: usize,
    },
    /// A letter that is under way arrives, or arrives and is still under way.
    Deliver {
        letter: usize,
        again: bool,
    },
    /// One is lost.
    Lose {
        letter: usize,
    },
    /// Two members tell each other what members have heard.
    Tell {
        a: usize,
        b: usize,
    },
    /// A member gives up what all have heard.
    Compact {
        member: usize,
        alone: bool,
    },
    /// A member compares its tree with another's; cut off after so many answers.
    Compare {
        to: usize,
        from: usize,
        answers: usize,
    },
    /// A member asks and gets all that another has.
    Pull {
        to: usize,
        from: usize,
    },
    /// A member brings what it lacks.
    Heal {
        member: usize,
        fault: Transfer,
    },
    /// Two cannot reach each other.
    Part {
        a: usize,
        b: usize,
    },
    /// All can reach all.
    Join,
    /// The agent ends without notice, now or in the middle of what it does next.
    End {
        member: usize,
        how: End,
        after: Option<u64>,
    },
    Close {
        member: usize,
    },
    Start {
        member: usize,
    },
    /// Of an agent that is not there the index is lost.
    LoseIndex {
        member: usize,
    },
    /// The disk turns a bit of a file of which another brick has the same version, whole.
    Flip {
        member: usize,
        file: usize,
    },
    /// A member looks through its brick.
    Scrub {
        member: usize,
    },
    /// Something is wrong with a disk, or no longer.
    Disk {
        member: usize,
        trouble: Trouble,
    },
    /// There are other placement rules; one member hears of them, the others later.
    Rules {
        member: usize,
    },
    /// A member hears of the last rules.
    Learn {
        member: usize,
    },
    /// A program does something to more files than a brake lets go by.
    Mass {
        member: usize,
        mass: Mass,
    },
    /// A person decides about the removals that are held back, and all members hear of it.
    Decide {
        right: bool,
    },
}

/// What a program does to many files at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mass {
    Make,
    Remove,
    /// Each is saved anew, as editors do.
    Replace,
}

/// What goes wrong with what a heal brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    Good,
    /// The streams are cut at this part.
    Cut(u64),
    /// A byte of this part is wrong.
    Wrong(u64),
}

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Read,
    Write,
    Truncate,
    Create,
    Exclusive,
}

/// What a program does. Paths are numbers in [`PATHS`] and [`DIRS`].
#[derive(Clone, Debug)]
pub enum Action {
    Open {
        path: usize,
        slot: usize,
        how: How,
    },
    Write {
        slot: usize,
        at: u64,
        len: usize,
    },
    Sync {
        slot: usize,
    },
    Close {
        slot: usize,
    },
    /// Makes or empties a file, writes it, and perhaps makes it durable.
    Put {
        path: usize,
        len: usize,
        sync: bool,
    },
    /// As editors save: a new file, made durable, renamed over the old one.
    Save {
        path: usize,
        len: usize,
        sync: bool,
    },
    Read {
        path: usize,
    },
    /// Reads every file that is shown.
    ReadAll,
    Unlink {
        path: usize,
    },
    Rename {
        from: usize,
        to: usize,
    },
    Exchange {
        a: usize,
        b: usize,
    },
    Link {
        from: usize,
        to: usize,
    },
    Symlink {
        path: usize,
    },
    Truncate {
        path: usize,
        size: u64,
    },
    Chmod {
        path: usize,
        mode: u32,
    },
    Xattr {
        path: usize,
        value: Option<u8>,
    },
    Mkdir {
        dir: usize,
    },
    Rmdir {
        dir: usize,
    },
    RenameDir {
        from: usize,
        to: usize,
    },
}

pub const PATHS: [&str; 9] = ["a", "b", "c", "p/a", "p/b", "q/a", "q/b", "p/r/a", "q/r/b"];
pub const DIRS: [&str; 4] = ["p", "q", "p/r", "q/r"];

#[derive(Clone, Copy)]
enum Fault {
    Net,
    Close,
    Kill,
    Power,
    Clock,
    Index,
    Disk,
    Flip,
    Rules,
    Mass,
}

/// Which kinds of faults there are.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    pub kills: bool,
    pub power: bool,
    pub disks: bool,
    /// Disks turn bits, and members look through their bricks.
    pub flips: bool,
    pub clocks: bool,
    pub indexes: bool,
    pub compaction: bool,
    /// The placement changes.
    pub rules: bool,
    /// Many files are removed at once, and persons decide about that.
    pub brakes: bool,
    /// Some files are so large that they come by chunks.
    pub large: bool,
}

fn action(chance: &mut Chance, large: bool) -> Action {
    let path = chance.below(PATHS.len());
    let other = chance.below(PATHS.len());
    let slot = chance.below(SLOTS);
    let len = match chance.below(8) {
        7 if large => chance.between(1 << 20, 3 << 19),
        0 => 0,
        1 => chance.between(1, 9000),
        _ => chance.between(1, 1500),
    };
    match chance.below(40) {
        0..=4 => {
            let how = *chance.pick(&[
                How::Read,
                How::Write,
                How::Write,
                How::Truncate,
                How::Create,
                How::Exclusive,
            ]);
            Action::Open { path, slot, how }
        }
        5..=9 => Action::Write { slot, at: chance.between(0, 2000) as u64, len: len.max(1) },
        10..=12 => Action::Sync { slot },
        13..=14 => Action::Close { slot },
        15..=21 => Action::Put { path, len, sync: chance.one_in(2) },
        22..=24 => Action::Save { path, len, sync: !chance.one_in(3) },
        25..=26 => Action::Read { path },
        27 => Action::ReadAll,
        28..=29 => Action::Unlink { path },
        30..=31 => Action::Rename { from: path, to: other },
        32 => match chance.below(3) {
            0 => Action::Exchange { a: path, b: other },
            1 => Action::Symlink { path },
            _ => Action::Link { from: path, to: other },
        },
        33 => Action::Truncate { path, size: *chance.pick(&[0, 1, 100, 700, 3000]) },
        34 => Action::Chmod { path, mode: *chance.pick(&[0o600, 0o644, 0o755]) },
        35 => Action::Xattr { path, value: (!chance.one_in(3)).then(|| chance.below(250) as u8) },
        36..=37 => Action::Mkdir { dir: chance.below(DIRS.len()) },
        38 => Action::Rmdir { dir: chance.below(DIRS.len()) },
        _ => Action::RenameDir { from: chance.below(DIRS.len()), to: chance.below(DIRS.len()) },
    }
}

/// A fault of one of the kinds that there are.
fn fault(chance: &mut Chance, members: usize, faults: Faults) -> What {
    let member = chance.below(members);
    let kinds: Vec<Fault> = [
        (true, Fault::Net),
        (true, Fault::Close),
        (faults.kills, Fault::Kill),
        (faults.kills, Fault::Kill),
        (faults.power, Fault::Power),
        (faults.power, Fault::Power),
        (faults.clocks, Fault::Clock),
        (faults.indexes, Fault::Index),
        (faults.disks, Fault::Disk),
        (faults.disks, Fault::Disk),
        (faults.flips, Fault::Flip),
        (faults.flips, Fault::Flip),
        (faults.flips, Fault::Flip),
        (faults.flips, Fault::Flip),
        (faults.rules, Fault::Rules),
        (faults.rules, Fault::Rules),
        (faults.brakes, Fault::Mass),
        (faults.brakes, Fault::Mass),
        (faults.brakes, Fault::Mass),
    ]
    .into_iter()
    .filter_map(|(there, kind)| there.then_some(kind))
    .collect();
    let after = (!chance.one_in(3)).then(|| chance.between(0, 25) as u64);
    match chance.pick(&kinds) {
        Fault::Net if chance.one_in(4) => What::Join,
        Fault::Net => What::Part { a: member, b: chance.below(members) },
        Fault::Close => What::Close { member },
        Fault::Kill => What::End { member, how: End::Kill, after },
        Fault::Power if chance.one_in(4) => What::WriteBack { member },
        Fault::Power => What::End { member, how: End::PowerCut, after },
        Fault::Clock => {
            let years = 365 * 24 * 3_600_000i64;
            What::Jump { member, ms: *chance.pick(&[-10 * years, -years, -5000, 5000, years, 30 * years]) }
        }
        Fault::Index => What::LoseIndex { member },
        Fault::Disk => {
            let trouble = *chance.pick(&[Trouble::None, Trouble::Full, Trouble::Failing, Trouble::ReadOnly]);
            What::Disk { member, trouble }
        }
        Fault::Flip if chance.one_in(4) => What::WriteBack { member },
        Fault::Flip if chance.one_in(4) => What::Scrub { member },
        Fault::Flip => What::Flip { member, file: chance.below(16) },
        Fault::Rules if chance.one_in(2) => What::Rules { member },
        Fault::Rules => What::Learn { member },
        Fault::Mass if chance.one_in(3) => What::Decide { right: chance.one_in(2) },
        Fault::Mass => {
            let mass = *chance.pick(&[Mass::Make, Mass::Make, Mass::Remove, Mass::Remove, Mass::Replace]);
            What::Mass { member, mass }
        }
    }
}

fn step(chance: &mut Chance, members: usize, faults: Faults) -> What {
    let member = chance.below(members);
    let from = (member + 1 + chance.below(members - 1)) % members;
    match chance.below(100) {
        0..=41 => What::Program { member, action: action(chance, faults.large) },
        42..=52 => What::Work { member },
        53..=57 => What::Pass { ms: *chance.pick(&[1, 10, 20, 300, 40_000]) },
        58..=62 => What::Ask { to: member, from },
        63..=68 => What::Deliver { letter: chance.below(8), again: chance.one_in(4) },
        69 => What::Lose { letter: chance.below(8) },
        70..=72 => What::Tell { a: member, b: from },
        73..=74 if faults.compaction => What::Compact { member, alone: chance.one_in(12) },
        75 => What::Compare { to: member, from, answers: *chance.pick(&[1, 2, 3, 100]) },
        76..=80 => What::Pull { to: member, from },
        81..=86 => {
            let part = chance.below(4) as u64;
            let fault = match chance.below(6) {
                0 => Transfer::Cut(part),
                1 => Transfer::Wrong(part),
                _ => Transfer::Good,
            };
            What::Heal { member, fault }
        }
        87..=89 => What::Start { member },
        _ => fault(chance, members, faults),
    }
}

/// Files that are made, and brought to all who are to hold them: so that there is something to be damaged.
fn calm(chance: &mut Chance, members: usize) -> Vec<What> {
    let put = |chance: &mut Chance| {
        let (path, len) = (chance.below(3), chance.between(1, 1500));
        What::Program { member: chance.below(members), action: Action::Put { path, len, sync: true } }
    };
    let rest =
        || [What::Pass { ms: 40_000 }].into_iter().chain((0..members).map(|member| What::Work { member }));
    let pairs = || {
        (0..members).flat_map(|to| (0..members).map(move |from| (to, from))).filter(|(to, from)| to != from)
    };
    let mut all: Vec<_> = (0..members).map(|member| What::Start { member }).chain([What::Join]).collect();
    all.extend((0..3).map(|_| put(chance)));
    all.extend(rest());
    all.extend(pairs().map(|(to, from)| What::Pull { to, from }));
    all.extend((0..members).map(|member| What::Heal { member, fault: Transfer::Good }));
    all.extend(pairs().map(|(to, from)| What::Pull { to, from }));
    all.extend(rest());
    all.extend((0..members).map(|member| What::WriteBack { member }));
    all
}

/// Many files are there, everywhere.
fn bulk(chance: &mut Chance, members: usize) -> Vec<What> {
    let maker = chance.below(members);
    let others = (0..members).filter(|to| *to != maker);
    let mut all = vec![What::Mass { member: maker, mass: Mass::Make }];
    all.extend([What::Pass { ms: 1000 }, What::Work { member: maker }, What::Work { member: maker }]);
    all.extend(others.map(|to| What::Pull { to, from: maker }));
    all
}

/// A member has just read what others have, as it loses its power; and what is shown when it is back is read before it hears of
/// anything again.
fn sudden(chance: &mut Chance, members: usize) -> Vec<What> {
    let member = chance.below(members);
    let from = (member + 1 + chance.below(members - 1)) % members;
    let read = What::Program { member, action: Action::ReadAll };
    let heard = chance.one_in(2).then_some(What::Pull { to: member, from });
    let mut all: Vec<_> = heard.into_iter().collect();
    all.extend([read.clone(), What::End { member, how: End::PowerCut, after: None }]);
    all.extend([What::Start { member }, read]);
    all
}

/// The steps of a run.
pub fn steps(chance: &mut Chance, members: usize, faults: Faults) -> Vec<Step> {
    let count = chance.between(20, 110);
    let mut all = Vec::new();
    if faults.brakes {
        let bulk = bulk(chance, members);
        all.extend(bulk.into_iter().map(|what| Step { salt: chance.next(), what }));
    }
    for n in 0..count {
        if faults.flips && n % 30 == 0 {
            let calm = calm(chance, members);
            all.extend(calm.into_iter().map(|what| Step { salt: chance.next(), what }));
        }
        if faults.power && chance.one_in(30) {
            let sudden = sudden(chance, members);
            all.extend(sudden.into_iter().map(|what| Step { salt: chance.next(), what }));
        }
        all.push(Step { salt: chance.next(), what: step(chance, members, faults) });
    }
    all
}
