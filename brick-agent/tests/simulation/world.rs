//! Machines that are members of one volume, and what is under way between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use nearbrick_agent::config::{Member, PlacementRule, StaleReads, VolumeConfig};
use nearbrick_agent::heal::limit::Throttle;
use nearbrick_agent::heal::{self, HealOutcome, HealRequest};
use nearbrick_agent::peer::Served;
use nearbrick_agent::peer::compare::Compare;
use nearbrick_agent::peer::wire::{Acks, Heads};
use nearbrick_agent::volume::{Comparison, Volume};
use nearbrick_core::brake::HeldId;
use nearbrick_core::scrub::hash_of;
use nearbrick_core::{BrickId, Entry, FileId, Incarnation, VersionVector};
use uuid::Uuid;

use super::chance::Chance;
use super::clock::Time;
use super::machine::{End, Machine};
use super::oracle::Oracle;
use super::steps::Transfer;
use super::support::net::Net;

/// Bytes of entries in one answer: few, so that it takes several.
const ANSWER: usize = 600;
/// Letters under way, at most.
const LETTERS: usize = 24;

/// What is under way from one member to another.
#[derive(Clone, Debug)]
pub enum Letter {
    /// What do you have after these?
    Question { from: usize, to: usize, cursors: Heads },
    /// These, and so far I have heard.
    Answer { from: usize, to: usize, entries: Vec<Entry>, heads: Heads, behind: bool },
    /// What members have heard.
    Told { from: usize, to: usize, acks: Acks, answer: bool },
}

pub struct World {
    pub time: Time,
    pub net: Arc<Net>,
    pub machines: Vec<Machine>,
    pub oracle: Oracle,
    /// Members look through their bricks until all is well.
    pub scrubs: bool,
    /// The last placement rules.
    rules: Vec<PlacementRule>,
    letters: Vec<Letter>,
    trace: Vec<String>,
    says: bool,
}

fn brick(n: usize) -> BrickId {
    BrickId([n as u8 + 1; 16])
}

fn node(n: usize) -> String {
    format!("ws-{}", char::from(b'a' + n as u8))
}

/// For each node between one and three bricks, mostly its own first.
fn some_rules(members: usize, chance: &mut Chance) -> Vec<PlacementRule> {
    (0..members)
        .map(|n| {
            let replicas = chance.between(1, members.min(3));
            let first = if chance.one_in(3) { 0 } else { n };
            let bricks = (0..replicas).map(|k| brick((first + k) % members)).collect();
            PlacementRule { creator: node(n), bricks, ..PlacementRule::default() }
        })
        .collect()
}

impl World {
    /// Members with random replica sets and clocks. All are up.
    pub fn new(members: usize, chance: &mut Chance, clocks: bool, says: bool) -> Result<Self, String> {
        let time = Time::default();
        let addresses: Vec<_> = (0..members)
            .map(|n| Member {
                brick: brick(n),
                name: format!("home.{}", node(n)),
                node: node(n),
                address: None,
            })
            .collect();
        let placement = some_rules(members, chance);
        let machines = (0..members)
            .map(|n| {
                let config = VolumeConfig {
                    namespace: "default".to_owned(),
                    name: "home".to_owned(),
                    volume_uuid: Uuid::from_u128(1),
                    node: node(n),
                    brick: brick(n),
                    path: "/brick".into(),
                    was_initialised: false,
                    members: addresses.clone(),
                    placement: placement.clone(),
                    stale_reads: StaleReads::Allow,
                    conflicts: Vec::new(),
                    retention_ms: nearbrick_agent::config::RETENTION_MS,
                    healing: Default::default(),
                    min_sync_copies: 1,
                    release_removals: None,
                    take_back_removals: None,
                    upkeep: Default::default(),
                };
                let wrong =
                    if clocks && chance.one_in(3) { chance.below(4_000_000_000) as i64 * 100 } else { 0 };
                Machine::new(config, &time, wrong, chance, says)
            })
            .collect();
        let oracle = Oracle::default();
        let mut world = World {
            time,
            net: Arc::default(),
            machines,
            oracle,
            scrubs: false,
            rules: placement,
            letters: Vec::new(),
            trace: Vec::new(),
            says,
        };
        for n in 0..members {
            world.start(n)?;
        }
        Ok(world)
    }

    pub fn count(&self) -> usize {
        self.machines.len()
    }

    /// One line of the trace.
    pub fn say(&mut self, line: String) {
        if self.says {
            eprintln!("{line}");
        }
        self.trace.push(line);
    }

    pub fn trace(&self) -> &[String] {
        &self.trace
    }

    pub fn volume(&self, n: usize) -> Option<Arc<Volume>> {
        self.machines[n].volume().cloned()
    }

    /// The agent starts. It may die on the way, or not be able to; without a reason it may not.
    pub fn start(&mut self, n: usize) -> Result<(), String> {
        if self.machines[n].is_up() {
            return Ok(());
        }
        let machine = &mut self.machines[n];
        match machine.start(&self.net) {
            Ok(()) => {
                // Whom the one before had asked answers nobody: its connections ended with it.
                self.letters.retain(|letter| match letter {
                    Letter::Answer { to, .. } | Letter::Told { to, answer: true, .. } => *to != n,
                    Letter::Question { .. } | Letter::Told { .. } => true,
                });
                let machine = &self.machines[n];
                let life = machine.volume().map(|v| v.status().incarnation);
                if let Some(life) = life {
                    self.oracle.lives(n, life);
                    self.say(format!("{} starts as {life}", node(n)));
                }
                Ok(())
            }
            Err(error) if machine.life.is_over() || machine.disk.trouble() != Default::default() => {
                self.say(format!("{} does not start: {error}", node(n)));
                Ok(())
            }
            Err(error) => Err(format!("{} does not start, and nothing is wrong: {error}", node(n))),
        }
    }

    /// The agent of this machine ends without notice.
    pub fn end(&mut self, n: usize, how: End, chance: &mut Chance) {
        let machine = &mut self.machines[n];
        let open = machine.slots.iter().flatten().filter(|slot| slot.writes).map(|slot| slot.file).collect();
        let before = machine.disk.contents();
        let left = machine.end(&self.net, how, chance);
        self.oracle.crashed(n, how, &self.machines[n], &open, &before);
        self.say(format!("{} {how:?}: {left}", node(n)));
    }

    /// What is due after each step: agents that died in it, and those that must begin anew.
    pub fn look_after(&mut self, chance: &mut Chance) -> Result<(), String> {
        for n in 0..self.count() {
            self.machines[n].life.gets_on();
            if self.machines[n].life.is_over() && (self.machines[n].is_up() || self.machines[n].doom_is_due) {
                self.machines[n].doom_is_due = false;
                let doom = self.machines[n].doom;
                self.end(n, doom, chance);
            } else if self.volume(n).is_some_and(|v| v.must_reopen()) {
                self.say(format!("{} is an old copy of itself and begins anew", node(n)));
                self.machines[n].close(&self.net);
                self.start(n)?;
            }
        }
        Ok(())
    }

    fn reach(&self, from: usize, to: usize) -> Option<Arc<Volume>> {
        self.volume(from)?;
        self.net.reach(brick(from), brick(to))?;
        self.volume(to)
    }

    fn post(&mut self, letter: Letter) {
        if self.letters.len() < LETTERS {
            self.letters.push(letter);
        }
    }

    /// A member asks another for what it lacks.
    pub fn ask(&mut self, to: usize, from: usize) {
        if let Some(volume) = self.volume(to) {
            let cursors = volume.heads();
            self.post(Letter::Question { from: to, to: from, cursors });
        }
    }

    /// Two members tell each other what members have heard.
    pub fn tell(&mut self, from: usize, to: usize) {
        if let Some(volume) = self.volume(from) {
            let acks = volume.acks(&Acks::new());
            self.post(Letter::Told { from, to, acks, answer: false });
        }
    }

    fn take(&mut self, letter: usize, again: bool) -> Option<Letter> {
        if self.letters.is_empty() {
            return None;
        }
        let at = letter % self.letters.len();
        if again { self.letters.get(at).cloned() } else { Some(self.letters.remove(at)) }
    }

    pub fn lose(&mut self, letter: usize) {
        self.take(letter, false);
    }

    pub fn lose_all(&mut self) {
        self.letters.clear();
    }

    pub fn deliver(&mut self, letter: usize, again: bool) {
        let Some(letter) = self.take(letter, again) else { return };
        let (from, to) = match &letter {
            Letter::Question { from, to, .. }
            | Letter::Answer { from, to, .. }
            | Letter::Told { from, to, .. } => (*from, *to),
        };
        let Some(volume) = self.reach(from, to) else { return };
        match letter {
            Letter::Question { cursors, .. } => {
                if volume.is_rebuilding() {
                    return;
                }
                let behind = volume.is_behind(&cursors);
                let Ok(entries) = volume.entries_after(&cursors, ANSWER) else { return };
                let heads = volume.heads();
                self.say(format!("  {} answers {} with {} entries", node(to), node(from), entries.len()));
                self.post(Letter::Answer { from: to, to: from, entries, heads, behind });
            }
            Letter::Answer { entries, heads, behind, .. } => {
                volume.hinted(brick(from), &heads);
                if behind || volume.is_rebuilding() {
                    self.compare(to, from, usize::MAX);
                } else {
                    let took = volume.absorb(brick(from), entries);
                    self.say(format!("  {} takes {took:?} entries of {}", node(to), node(from)));
                    if let Some(rest) = volume.completion(brick(from)) {
                        self.drive(from, rest, usize::MAX);
                    }
                }
            }
            Letter::Told { acks, answer, .. } => {
                let told = volume.acks(&acks);
                if !answer {
                    self.post(Letter::Told { from: to, to: from, acks: told, answer: true });
                }
            }
        }
    }

    /// Asks and answers, so often at most. Says whether it came to its end.
    fn drive(&mut self, from: usize, mut comparison: Comparison, answers: usize) -> bool {
        let mut left = answers;
        while let Some(request) = comparison.request() {
            if left == 0 || !self.machines[from].is_up() || self.machines[from].life.is_over() {
                return false;
            }
            left -= 1;
            let Some(volume) = self.volume(from) else { return false };
            let Ok(reply) = volume.compared(&request) else { return false };
            if reply.check(&request).is_err() || comparison.answer(reply).is_err() {
                return false;
            }
        }
        true
    }

    /// A member compares its tree with another's.
    pub fn compare(&mut self, to: usize, from: usize, answers: usize) -> bool {
        let (Some(volume), Some(_)) = (self.volume(to), self.reach(to, from)) else { return false };
        let done = self.drive(from, volume.comparison(brick(from)), answers);
        self.say(format!("  {} compared with {}: {done}", node(to), node(from)));
        done
    }

    /// A member gets all that another has. Says how much was new, or why it stopped.
    pub fn pull(&mut self, to: usize, from: usize) -> Result<usize, String> {
        let mut new = 0;
        for _ in 0..1000 {
            let (Some(volume), Some(other)) = (self.volume(to), self.reach(to, from)) else { return Ok(new) };
            if other.is_rebuilding() {
                if volume.is_rebuilding() && self.compare(to, from, usize::MAX) {
                    new += 1;
                }
                return Ok(new);
            }
            volume.hinted(brick(from), &other.heads());
            if volume.is_rebuilding() || other.is_behind(&volume.heads()) {
                if !self.compare(to, from, usize::MAX) {
                    return Ok(new);
                }
                new += 1;
                continue;
            }
            let Ok(entries) = other.entries_after(&volume.heads(), ANSWER) else { return Ok(new) };
            if entries.is_empty() {
                if let Some(rest) = volume.completion(brick(from)) {
                    self.drive(from, rest, usize::MAX);
                }
                return Ok(new);
            }
            match volume.absorb(brick(from), entries) {
                Ok(0) | Err(_) => return Ok(new),
                Ok(took) => new += took,
            }
        }
        Err(format!("{} never has all that {} has", node(to), node(from)))
    }

    /// Who has heard the same as another and has not the same compares.
    pub fn reconcile(&mut self, to: usize, from: usize) {
        let (Some(volume), Some(other)) = (self.volume(to), self.reach(to, from)) else { return };
        if volume.is_rebuilding() || other.is_rebuilding() {
            return;
        }
        let ours = volume.acks(&Acks::new()).remove(&brick(to));
        let theirs = other.acks(&Acks::new()).remove(&brick(from));
        if let (Some(ours), Some(theirs)) = (ours, theirs)
            && ours.heads == theirs.heads
            && ours.sum != theirs.sum
        {
            self.compare(to, from, usize::MAX);
        }
    }

    /// Two members exchange what members have heard, at once.
    pub fn gossip(&self, a: usize, b: usize) {
        if let (Some(one), Some(other)) = (self.volume(a), self.reach(a, b)) {
            let told = other.acks(&one.acks(&Acks::new()));
            one.acks(&told);
        }
    }

    /// A member brings what it lacks.
    pub fn heal(&mut self, n: usize, fault: Transfer) -> Option<HealOutcome> {
        let volume = self.volume(n)?;
        match fault {
            Transfer::Good => {}
            Transfer::Wrong(part) => *self.net.damage.lock().unwrap() = Some(part),
            Transfer::Cut(part) => {
                let net = Arc::downgrade(&self.net);
                let (me, all) = (brick(n), self.count());
                let cut = move |at: u64| {
                    if at == part
                        && let Some(net) = net.upgrade()
                    {
                        (0..all).filter(|m| brick(*m) != me).for_each(|m| net.part(me, brick(m)));
                    }
                };
                *self.net.on_chunk.lock().unwrap() = Some(Box::new(cut));
            }
        }
        let outcome = heal::run(&volume, &HealRequest::default(), &|_| {}, &AtomicBool::new(false));
        *self.net.on_chunk.lock().unwrap() = None;
        *self.net.damage.lock().unwrap() = None;
        self.say(format!(
            "  {} healed {} of {}, failed: {:?}",
            node(n),
            outcome.files_done,
            outcome.files_total,
            outcome.failures
        ));
        Some(outcome)
    }

    /// The disk of a member turns a bit: of a version of which it can be told, since its hash is known, and which another brick has.
    pub fn flip(&mut self, n: usize, file: usize, chance: &mut Chance) {
        let machine = &self.machines[n];
        let index = machine.index();
        let elsewhere: Vec<_> =
            (0..self.count()).filter(|m| *m != n).map(|m| &self.machines[m].disk).collect();
        let mut all = machine.disk.files_below(&[b"data"]);
        all.retain(|found| {
            let Some(mark) = &found.mark else { return false };
            let (Ok(Some(local)), Ok(Some(object))) = (index.local(mark.file), index.object(mark.file))
            else {
                return false;
            };
            let Some(version) = local.have.filter(|have| !local.dirty && mark.version.as_ref() == Some(have))
            else {
                return false;
            };
            hash_of(&object, &version) == Some(*blake3::hash(&found.bytes).as_bytes())
                && machine.disk.is_durable(found.ino)
                && elsewhere.iter().any(|disk| {
                    disk.marked(mark.file).is_some_and(|f| {
                        let version = f.mark.and_then(|mark| mark.version);
                        f.bytes == found.bytes && version == mark.version && disk.is_durable(f.ino)
                    })
                })
                && (!self.oracle.cuts || self.is_safe(n, mark.file, &version))
        });
        if all.is_empty() {
            return;
        }
        // It is later than all that was said of the copy when it was whole.
        self.time.pass(Duration::from_millis(1));
        let found = &all[file % all.len()];
        if let Some(now) = machine.disk.flip(found.ino, chance) {
            self.oracle.flips(n, &found.bytes, &now);
            let file = found.mark.as_ref().map(|mark| mark.file);
            self.say(format!("  {}: a bit of {file:?} turns", node(n)));
        }
    }

    /// Whether, as is needed where the power fails, a member knows for good that another has the version, which has it for good.
    fn is_safe(&self, n: usize, file: FileId, version: &VersionVector) -> bool {
        let has_it = |m: usize| {
            let machine = &self.machines[m];
            let index = machine.durable_index();
            let local = index.local(file).ok().flatten().unwrap_or_default();
            let on_disk = machine.disk.marked(file).is_some_and(|f| machine.disk.is_all_durable(f.ino));
            (!local.dirty && local.have.as_ref() == Some(version) && local.synced == local.have && on_disk)
                .then_some(index)
        };
        let Some(index) = has_it(n) else { return false };
        let object = index.object(file).ok().flatten().unwrap_or_default();
        let holds = |m: usize| object.holders_of(version).any(|b| b == brick(m));
        hash_of(&object, version).is_some()
            && (0..self.count()).any(|m| m != n && holds(m) && has_it(m).is_some())
    }

    /// A member looks through its brick.
    pub fn scrub(&mut self, n: usize) {
        if let Some(volume) = self.volume(n) {
            let (throttle, go_on) = (Throttle::new(None, None), AtomicBool::new(false));
            let done = volume.scrub(&throttle, &go_on);
            volume.review_scrub(&throttle, &go_on);
            self.say(format!(
                "  {} looked through its brick: {done:?}, {:?}",
                node(n),
                volume.scrub_status()
            ));
        }
    }

    /// The agent does what is due.
    pub fn work(&mut self, n: usize) {
        if let Some(volume) = self.volume(n) {
            for _ in 0..8 {
                if !volume.work() {
                    break;
                }
            }
        }
    }

    pub fn compact(&mut self, n: usize, alone: bool) {
        if let Some(volume) = self.volume(n) {
            let done = volume.compact(if alone { Duration::ZERO } else { Duration::MAX });
            self.say(format!("  {} gives up {done:?}", node(n)));
        }
    }

    /// All files are to be on all bricks.
    pub fn hold_all_everywhere(&mut self) {
        let bricks: Vec<_> = (0..self.count()).map(brick).collect();
        for (n, rule) in self.rules.iter_mut().enumerate() {
            *rule = PlacementRule { creator: node(n), bricks: bricks.clone(), ..PlacementRule::default() };
        }
        (0..self.count()).for_each(|n| self.learn(n));
    }

    /// Other rules, of which no member has heard yet.
    pub fn change_rules(&mut self, chance: &mut Chance) {
        self.rules = some_rules(self.count(), chance);
        let shown: Vec<Vec<BrickId>> = self.rules.iter().map(|rule| rule.bricks.clone()).collect();
        self.say(format!("  {shown:?}"));
    }

    /// A member hears of the last rules.
    pub fn learn(&mut self, n: usize) {
        let machine = &mut self.machines[n];
        if machine.config.placement != self.rules {
            machine.config.placement = self.rules.clone();
            let config = machine.config.clone();
            if let Some(volume) = machine.volume() {
                volume.set_config(config);
            }
        }
    }

    /// A person decides about what is held back at any member, and all hear of it.
    pub fn decide(&mut self, right: bool) {
        let held = self.machines.iter().filter_map(|m| Some(m.volume()?.held_removals())).flatten();
        let mut last: BTreeMap<Incarnation, HeldId> = BTreeMap::new();
        for id in held.map(|held| held.id) {
            let known = last.entry(id.origin).or_insert(id);
            *known = id.max(*known);
        }
        // What was said stands, also where it is heard before the removals are.
        let words =
            self.machines.iter().flat_map(|m| [&m.config.release_removals, &m.config.take_back_removals]);
        let said: Vec<HeldId> = words.flatten().filter_map(|word| word.parse().ok()).collect();
        last.retain(|_, id| !said.iter().any(|word| word.covers(id)));
        let Some(id) = last.into_values().next() else { return };
        self.say(format!("  a person says of {id}: {}", if right { "right" } else { "wrong" }));
        for machine in &mut self.machines {
            let word = Some(id.to_string());
            let (release, take_back) = if right { (word, None) } else { (None, word) };
            machine.config.release_removals = release;
            machine.config.take_back_removals = take_back;
            let config = machine.config.clone();
            if let Some(volume) = machine.volume() {
                volume.set_config(config);
            }
        }
    }

    /// The bricks that the last rules want for files of this one.
    pub fn wanted(&self, home: BrickId) -> Option<Vec<BrickId>> {
        let home = (0..self.count()).find(|n| brick(*n) == home)?;
        self.rules.iter().find(|rule| rule.creator == node(home)).map(|rule| rule.bricks.clone())
    }

    pub fn name(n: usize) -> String {
        node(n)
    }

    pub fn brick(n: usize) -> BrickId {
        brick(n)
    }
}
