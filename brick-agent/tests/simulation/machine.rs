//! A simulated workstation: its disk, the store of its index, its clock, its power, and the agent's
//! volume while there is one.

use std::sync::Arc;

use nearbrick_agent::config::VolumeConfig;
use nearbrick_agent::index::Index;
use nearbrick_agent::volume::types::HandleId;
use nearbrick_agent::volume::{Later, Volume, VolumeOptions};
use nearbrick_core::FileId;

use super::chance::Chance;
use super::clock::{Dice, MachineTime, Time};
use super::disk::{SimDisk, Trouble};
use super::life::Life;
use super::store::SimStores;
use super::support::net::Net;

/// How an agent ends without notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is killed; the machine goes on.
    Kill,
    /// The machine loses its power.
    PowerCut,
}

/// A file that a program has open.
#[derive(Clone, Copy, Debug)]
pub struct Slot {
    pub handle: HandleId,
    pub file: FileId,
    pub writes: bool,
}

/// Files that the programs of one machine have open, at most.
pub const SLOTS: usize = 3;

pub struct Machine {
    pub config: VolumeConfig,
    pub disk: SimDisk,
    pub stores: SimStores,
    pub clock: Arc<MachineTime>,
    pub life: Arc<Life>,
    pub slots: [Option<Slot>; SLOTS],
    /// What is to come when its life ends.
    pub doom: End,
    /// It was to end in the middle of a start, and has no volume.
    pub doom_is_due: bool,
    /// The next agent dies after so many changes.
    pub dies_after: Option<u64>,
    dice: Arc<Dice>,
    boot: u64,
    volume: Option<Arc<Volume>>,
}

impl Machine {
    pub fn new(config: VolumeConfig, time: &Time, wrong: i64, chance: &mut Chance, says: bool) -> Self {
        let life = Arc::new(Life::new(says.then(|| config.node.clone())));
        let clock = Arc::new(MachineTime::new(time.clone(), wrong));
        let stores = SimStores::new(life.clone(), Chance::new(chance.next()));
        let shares = chance.one_in(2);
        let disk =
            SimDisk::new(life.clone(), clock.clone(), stores.clone(), Chance::new(chance.next()), shares);
        let dice = Arc::new(Dice::new(Chance::new(chance.next())));
        let slots = Default::default();
        Machine {
            config,
            disk,
            stores,
            clock,
            life,
            slots,
            doom: End::Kill,
            doom_is_due: false,
            dies_after: None,
            dice,
            boot: 1,
            volume: None,
        }
    }

    pub fn volume(&self) -> Option<&Arc<Volume>> {
        self.volume.as_ref()
    }

    pub fn is_up(&self) -> bool {
        self.volume.is_some()
    }

    /// The agent starts. Why not, if it does not.
    pub fn start(&mut self, net: &Arc<Net>) -> Result<(), String> {
        self.life.begin();
        self.disk.agent_ended();
        let options = VolumeOptions {
            clock: self.clock.clone(),
            entropy: self.dice.clone(),
            disk: Arc::new(self.disk.clone()),
            stores: Arc::new(self.stores.clone()),
            boot: format!("boot {}", self.boot).into_bytes(),
            later: Later::Called,
            ..VolumeOptions::default()
        };
        if let Some(changes) = self.dies_after.take() {
            self.life.end_after(changes);
            self.doom_is_due = true;
        }
        let volume = Volume::open(self.config.clone(), options).map_err(|e| e.to_string())?;
        self.doom_is_due = false;
        self.config.was_initialised = true;
        net.join(self.config.brick, &volume);
        self.volume = Some(volume);
        Ok(())
    }

    /// The agent ends in order, after the programs.
    pub fn close(&mut self, net: &Net) {
        if let Some(volume) = self.volume.take() {
            for slot in self.slots.iter_mut().filter_map(Option::take) {
                let _ = volume.flush(slot.handle);
                volume.release(slot.handle);
            }
            volume.close();
            net.leave(self.config.brick);
            self.doom_is_due = self.life.is_over();
        }
        self.life.end();
    }

    /// The agent ends without notice. Says what is left, if it was the power.
    pub fn end(&mut self, net: &Net, how: End, chance: &mut Chance) -> String {
        self.life.end();
        net.leave(self.config.brick);
        self.slots = Default::default();
        self.volume = None;
        self.disk.agent_ended();
        if how == End::Kill {
            return String::new();
        }
        self.boot += 1;
        let (files, commits) = (self.disk.power_cut(chance), self.stores.power_cut(chance));
        format!("{files}; {commits}")
    }

    pub fn set_trouble(&self, trouble: Trouble) {
        self.disk.set_trouble(trouble);
        self.stores.set_full(trouble == Trouble::Full);
    }

    /// The index as it is now.
    pub fn index(&self) -> Index {
        self.stores.look(&self.config.path.join(".nearbrick/index"))
    }

    /// The index as it would be after the next power cut, at the least.
    pub fn durable_index(&self) -> Index {
        self.stores.look_durable(&self.config.path.join(".nearbrick/index"))
    }

    /// Its index is gone.
    pub fn lose_index(&self) {
        self.stores.lose_all();
    }
}
