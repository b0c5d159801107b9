//! One run: the steps, the checks all along, and the rest at the end.

use std::any::Any;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::time::Duration;

use nearbrick_agent::peer::Served;
use nearbrick_agent::volume::VolumeStatus;
use nearbrick_core::replace::same_set;
use nearbrick_core::scrub::hash_of;

use super::chance::Chance;
use super::disk::Trouble;
use super::oracle::{Content, content_of};
use super::program::{Program, shown};
use super::steps::{Faults, Step, Transfer, What, steps};
use super::support::tree::{self, Tree};
use super::world::World;

/// Rounds in which all exchange and heal, until all must be at rest.
const ROUNDS: usize = 40;
/// How often disks turn bits when all are at rest.
const FLIPS: usize = 2;

/// A run, before it runs.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub members: usize,
    pub faults: Faults,
    pub steps: Vec<Step>,
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// What panics in a run is said with its failure, once.
fn hush_panics() {
    static HUSHED: Once = Once::new();
    HUSHED.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                loud(panic);
            }
        }));
    });
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a word").to_owned()
}

/// What became of it.
pub struct Ran {
    pub trace: Vec<String>,
    pub failure: Option<String>,
}

impl Plan {
    pub fn new(seed: u64, faults: Faults) -> Self {
        let mut chance = Chance::of(seed, &[1]);
        let members = *chance.pick(&[3, 3, 3, 4, 4, 5, 6, 7]);
        let steps = steps(&mut chance, members, faults);
        Plan { seed, members, faults, steps }
    }

    /// With these steps only.
    pub fn keeping(&self, keep: &[usize]) -> Self {
        let steps = keep.iter().filter_map(|n| self.steps.get(*n).cloned()).collect();
        Plan { steps, ..self.clone() }
    }

    /// Runs it; `says` prints as it goes.
    pub fn run(&self, says: bool) -> Ran {
        let mut world = None;
        hush_panics();
        QUIET.set(!says);
        let result = catch_unwind(AssertUnwindSafe(|| self.go(&mut world, says)));
        QUIET.set(false);
        let failure = match result {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(panic) => Some(format!("a panic: {}", words(&*panic))),
        };
        let trace = world.as_ref().map(|w: &World| w.trace().to_vec()).unwrap_or_default();
        Ran { trace, failure }
    }

    fn go(&self, slot: &mut Option<World>, says: bool) -> Result<(), String> {
        let mut chance = Chance::of(self.seed, &[2]);
        let world = slot.insert(World::new(self.members, &mut chance, self.faults.clocks, says)?);
        world.scrubs = self.faults.flips;
        world.oracle.cuts = self.faults.power;
        for (n, step) in self.steps.iter().enumerate() {
            let chance = &mut Chance::new(step.salt);
            one(world, n, step, chance)?;
            world.look_after(chance)?;
            for machine in &world.machines {
                if let Some(name) = machine.disk.escaped() {
                    return Err(format!("a name that leads out of the brick was used: {name}"));
                }
            }
            if matches!(
                step.what,
                What::End { .. } | What::Start { .. } | What::Heal { .. } | What::LoseIndex { .. }
            ) && let Some(lost) = world.oracle.lost(&world.machines)
            {
                return Err(lost);
            }
        }
        let end = rest(world, &mut chance).and_then(|()| check(world));
        if end.is_err() && world.oracle.last_copy_was_given_up(&world.machines) {
            world.say("a program removed the last whole copy of what a disk had damaged".to_owned());
            return Ok(());
        }
        end
    }
}

/// Does one step.
pub fn one(world: &mut World, n: usize, step: &Step, chance: &mut Chance) -> Result<(), String> {
    world.say(format!("{n}, salt {}: {:?}", step.salt, step.what));
    match step.what.clone() {
        What::Program { member, action } => {
            let Some(volume) = world.volume(member) else { return Ok(()) };
            let mut program = Program {
                member,
                machine: &mut world.machines[member],
                volume: &volume,
                oracle: &mut world.oracle,
            };
            let done = program.act(&action)?;
            world.say(format!("  {}: {done:?}", World::name(member)));
            if let Some(torn) = world.oracle.is_there_whole(&world.machines) {
                return Err(torn);
            }
        }
        What::Work { member } => {
            world.time.pass(Duration::from_millis(10));
            world.work(member);
        }
        What::WriteBack { member } => {
            world.machines[member].disk.write_back();
            world.machines[member].stores.write_back();
            world.oracle.is_all_synced(member);
        }
        What::Pass { ms } => world.time.pass(Duration::from_millis(ms)),
        What::Jump { member, ms } => world.machines[member].clock.jump(ms),
        What::Ask { to, from } => world.ask(to, from),
        What::Deliver { letter, again } => world.deliver(letter, again),
        What::Lose { letter } => world.lose(letter),
        What::Tell { a, b } => world.tell(a, b),
        What::Compact { member, alone } => world.compact(member, alone),
        What::Compare { to, from, answers } => {
            world.compare(to, from, answers);
        }
        What::Pull { to, from } => {
            world.pull(to, from)?;
        }
        What::Heal { member, fault } => {
            world.heal(member, fault);
        }
        What::Part { a, b } => world.net.part(World::brick(a), World::brick(b)),
        What::Join => world.net.join_pairs(),
        What::End { member, how, after } => {
            let machine = &mut world.machines[member];
            machine.doom = how;
            match after {
                Some(changes) if machine.is_up() => machine.life.end_after(changes),
                Some(changes) => machine.dies_after = Some(changes),
                None => world.end(member, how, chance),
            }
        }
        What::Close { member } => {
            world.machines[member].close(&world.net);
        }
        What::Start { member } => world.start(member)?,
        What::LoseIndex { member } => {
            if !world.machines[member].is_up() {
                world.machines[member].lose_index();
            }
        }
        What::Flip { member, file } => world.flip(member, file, chance),
        What::Scrub { member } => world.scrub(member),
        What::Disk { member, trouble } => world.machines[member].set_trouble(trouble),
        What::Rules { member } => {
            world.change_rules(chance);
            world.learn(member);
        }
        What::Learn { member } => world.learn(member),
        What::Mass { member, mass } => {
            let Some(volume) = world.volume(member) else { return Ok(()) };
            let mut program = Program {
                member,
                machine: &mut world.machines[member],
                volume: &volume,
                oracle: &mut world.oracle,
            };
            let done = program.mass(mass);
            world.say(format!("  {}: {done} files", World::name(member)));
        }
        What::Decide { right } => world.decide(right),
    }
    Ok(())
}

fn at_rest(status: &VolumeStatus) -> bool {
    status.dirty_files == 0
        && status.pending.files == 0
        && status.pending_in.files == 0
        && status.pending_out.is_empty()
        && !status.rebuilding
        && status.placing.unplaced.is_empty()
        && status.held.is_empty()
}

/// Everything is mended, all are up and reach each other, programs have closed their files: until
/// nothing is to be done any more.
fn rest(world: &mut World, chance: &mut Chance) -> Result<(), String> {
    world.say("rest".to_owned());
    world.net.join_pairs();
    world.lose_all();
    for n in 0..world.count() {
        world.learn(n);
        let machine = &mut world.machines[n];
        machine.set_trouble(Trouble::None);
        machine.dies_after = None;
        if !machine.is_up() {
            world.start(n)?;
        }
        let machine = &mut world.machines[n];
        machine.life.end_after(u64::MAX);
        if let Some(volume) = machine.volume().cloned() {
            for slot in machine.slots.iter_mut().filter_map(Option::take) {
                volume.release(slot.handle);
            }
        }
    }
    let (mut quiet, mut flips) = (0, if world.scrubs { FLIPS } else { 0 });
    for round in 0..ROUNDS {
        world.say(format!("round {round}"));
        world.time.pass(Duration::from_secs(31));
        (0..world.count()).for_each(|n| world.work(n));
        if round > 0 {
            world.decide(chance.one_in(2));
        }
        let mut new = 0;
        for to in 0..world.count() {
            for from in (0..world.count()).filter(|from| *from != to) {
                new += world.pull(to, from)?;
                world.reconcile(to, from);
            }
        }
        for a in 0..world.count() {
            (0..world.count()).filter(|b| *b != a).for_each(|b| world.gossip(a, b));
        }
        for n in 0..world.count() {
            if world.scrubs {
                world.scrub(n);
            }
            world.heal(n, Transfer::Good);
            world.compact(n, false);
        }
        world.look_after(chance)?;
        if let Some(lost) = world.oracle.lost(&world.machines) {
            return Err(lost);
        }
        let statuses: Vec<_> =
            (0..world.count()).filter_map(|n| world.volume(n).map(|v| v.status())).collect();
        let unrepaired =
            (0..world.count()).filter_map(|n| world.volume(n)).any(|v| v.scrub_status().unrepaired() > 0);
        let still =
            new == 0 && !unrepaired && statuses.len() == world.count() && statuses.iter().all(at_rest);
        quiet = if still { quiet + 1 } else { 0 };
        if quiet == 2 && flips > 0 {
            (quiet, flips) = (0, flips - 1);
            (0..world.count()).for_each(|n| world.flip(n, chance.below(16), chance));
        }
        if quiet == 2 {
            return Ok(());
        }
        if round == ROUNDS - 1 {
            let mut why = format!("no rest after {ROUNDS} rounds, new entries: {new}, damage: {unrepaired}");
            for (n, s) in statuses.iter().enumerate().filter(|(_, s)| !at_rest(s)) {
                why += &format!(
                    "\n  {}: dirty {}, lacks {}, others lack {:?}, rebuilding {}, not placed {:?}, last error {:?}",
                    World::name(n),
                    s.dirty_files,
                    s.pending_in.files,
                    s.pending_out.keys().collect::<Vec<_>>(),
                    s.rebuilding,
                    s.placing.unplaced.keys().collect::<Vec<_>>(),
                    s.last_error.as_ref().map(|e| &e.1),
                );
            }
            return Err(why + &what_stands(world));
        }
    }
    Ok(())
}

/// For people who look for the cause: what members know of files of which not all have the newest version.
fn what_stands(world: &World) -> String {
    let mut said = String::new();
    for n in 0..world.count() {
        let index = world.machines[n].index();
        for (file, object) in index.objects().filter_map(Result::ok) {
            let local = index.local(file).ok().flatten().unwrap_or_default();
            let newest = object.head().map(|head| &head.version);
            let lacks = object.replica_set().contains(&World::brick(n)) && local.have.as_ref() != newest;
            if object.exists(file) && (lacks || local.dirty || object.in_conflict()) {
                let versions: Vec<_> = object.contents.iter().map(|c| (&c.version, c.size)).collect();
                let holders: Vec<_> = object.holders.iter().map(|(who, reg)| (who, &reg.value)).collect();
                said += &format!(
                    "\n  {} of {file}: has {:?} (dirty {}, base {:?}); versions {versions:?}, losers {:?}, holders {holders:?}, writers {:?}",
                    World::name(n),
                    local.have,
                    local.dirty,
                    local.base,
                    object.losers,
                    object.writing().collect::<Vec<_>>(),
                );
            }
        }
    }
    said
}

/// Everything is mended, and all that must be true then is.
pub fn comes_to_rest(world: &mut World, chance: &mut Chance) -> Result<(), String> {
    rest(world, chance).and_then(|()| check(world))
}

/// What members know that a brick holds is what it holds.
fn says_what_it_holds(world: &World, n: usize) -> Result<(), String> {
    let index = world.machines[n].index();
    for (file, object) in index.objects().filter_map(Result::ok).filter(|(file, object)| object.exists(*file))
    {
        let local = index.local(file).map_err(|e| e.to_string())?.unwrap_or_default();
        let said = object.holders.get(&World::brick(n)).and_then(|reg| reg.value.as_ref());
        if !local.placed.is_empty() && local.have.as_ref() != said {
            let (name, have) = (World::name(n), &local.have);
            return Err(format!(
                "others believe that {name} has another version of {file}: {said:?}, not {have:?}"
            ));
        }
    }
    Ok(())
}

/// What must be true now.
fn check(world: &mut World) -> Result<(), String> {
    world.say("check".to_owned());
    for n in 0..world.count() {
        says_what_it_holds(world, n)?;
    }
    let mut trees: Vec<Tree> = Vec::new();
    for n in 0..world.count() {
        let Some(volume) = world.volume(n) else { return Err(format!("{} is down", World::name(n))) };
        let read = catch_unwind(AssertUnwindSafe(|| tree::of_volume(&volume, 50)));
        trees.push(read.map_err(|why| format!("{} cannot be read: {}", World::name(n), words(&*why)))?);
    }
    for n in 1..trees.len() {
        tree::assert_same("ws-a", &trees[0], &World::name(n), &trees[n]);
    }
    let mut contents: BTreeSet<Content> = BTreeSet::new();
    for (path, entry) in &trees[0].0 {
        if let tree::What::File(bytes) = &entry.what {
            contents.insert(content_of(bytes));
            let path = tree::shown(path);
            if !world.oracle.is_whole(bytes) && !world.oracle.shows_torn(bytes, &path) {
                return Err(format!("in the end {path} has what no program left there: {}", shown(bytes)));
            }
        }
    }
    for machine in &world.machines {
        contents.extend(
            machine.disk.files_below(&[b".nearbrick", b"versions"]).iter().map(|f| content_of(&f.bytes)),
        );
    }
    if let Some(torn) = world.oracle.is_there_whole(&world.machines) {
        return Err(torn);
    }
    if let Some(lost) = world.oracle.not_shown(&contents) {
        return Err(lost);
    }
    for n in 0..world.count() {
        holds_what_it_must(world, n, &trees[0])?;
    }
    is_placed(world, &trees[0])?;
    // Who has read a file has a copy of it now, and says so.
    for to in 0..world.count() {
        for from in (0..world.count()).filter(|from| *from != to) {
            world.pull(to, from)?;
        }
    }
    for n in 0..world.count() {
        nothing_changes_by_repetition(world, n)?;
    }
    Ok(())
}

/// The set of each file is as the rules of its home want it.
fn is_placed(world: &World, tree: &Tree) -> Result<(), String> {
    let machine = &world.machines[0];
    let index = machine.index();
    for (path, entry) in &tree.0 {
        let tree::What::File(_) = &entry.what else { continue };
        let Some(mark) = machine.disk.file_at(path).and_then(|found| found.mark) else { continue };
        let object = index.object(mark.file).map_err(|e| e.to_string())?.unwrap_or_default();
        let set = object.replica_set();
        if let Some(wanted) = set.first().and_then(|home| world.wanted(*home))
            && !same_set(set, &wanted)
        {
            let path = tree::shown(path);
            return Err(format!("{path} has the set {set:?}, and not {wanted:?}"));
        }
    }
    Ok(())
}

/// Each file whose replica set has this brick is on its disk, whole, in its place.
fn holds_what_it_must(world: &World, n: usize, tree: &Tree) -> Result<(), String> {
    let (machine, name) = (&world.machines[n], World::name(n));
    let index = machine.index();
    for (path, entry) in &tree.0 {
        let tree::What::File(bytes) = &entry.what else { continue };
        let shown_path = tree::shown(path);
        let Some(found) = machine.disk.file_at(path) else {
            return Err(format!("{shown_path} is not in data/ of {name}"));
        };
        let Some(mark) = &found.mark else { return Err(format!("{shown_path} has no mark at {name}")) };
        let object = index.object(mark.file).map_err(|e| e.to_string())?.unwrap_or_default();
        let must = object.replica_set().contains(&World::brick(n));
        let local = index.local(mark.file).map_err(|e| e.to_string())?.unwrap_or_default();
        if must && local.have.is_none() && object.head().is_some() {
            return Err(format!("{shown_path} is no replica at {name}, and nothing is pending: {local:?}"));
        }
        if local.have.is_some() && found.bytes != *bytes {
            return Err(format!(
                "{shown_path} has other bytes at {name}, and nothing is pending: {}, not {}",
                shown(&found.bytes),
                shown(bytes)
            ));
        }
        let known = local.have.as_ref().and_then(|have| hash_of(&object, have));
        if known.is_some_and(|hash| *blake3::hash(&found.bytes).as_bytes() != hash) {
            return Err(format!("{shown_path} has not the hash at {name} that all know"));
        }
    }
    Ok(())
}

/// All entries once more: nothing new, and the same sums.
fn nothing_changes_by_repetition(world: &World, n: usize) -> Result<(), String> {
    let Some(volume) = world.volume(n) else { return Ok(()) };
    let sum = || volume.acks(&Default::default()).remove(&World::brick(n)).map(|a| a.sum);
    let before = sum();
    for from in (0..world.count()).filter(|from| *from != n) {
        let Some(other) = world.volume(from) else { continue };
        let all = other.entries_after(&Default::default(), usize::MAX).map_err(|e| e.to_string())?;
        for part in [&all[..all.len() / 2], &all[..]] {
            let took = volume.absorb(World::brick(from), part.to_vec()).map_err(|e| e.to_string())?;
            if took != 0 || sum() != before {
                return Err(format!("{} takes {took} entries a second time", World::name(n)));
            }
        }
    }
    Ok(())
}

/// For the tests of the checks: a world after these steps.
pub fn after(plan: &Plan) -> Result<World, String> {
    let mut chance = Chance::of(plan.seed, &[2]);
    let mut world = World::new(plan.members, &mut chance, false, false)?;
    for (n, step) in plan.steps.iter().enumerate() {
        one(&mut world, n, step, &mut Chance::new(step.salt))?;
    }
    Ok(world)
}

/// What the checks say of a world that came to rest and was spoiled then.
pub fn verdict(plan: &Plan, spoil: impl Fn(&mut World)) -> Result<(), String> {
    let mut world = after(plan)?;
    rest(&mut world, &mut Chance::new(plan.seed))?;
    spoil(&mut world);
    // Trees that differ are a panic.
    let checked = catch_unwind(AssertUnwindSafe(|| check(&mut world)));
    checked.unwrap_or_else(|why| Err(words(&*why)))
}
