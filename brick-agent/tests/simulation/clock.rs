//! One time for the whole world, and each machine's own idea of the date.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nearbrick_agent::volume::{Entropy, WallClock};

use super::chance::Chance;

/// Milliseconds from 1970 to the beginning of all runs.
const BEGINNING: i64 = 1_790_000_000_000;

/// How much time has passed, for all.
#[derive(Clone, Debug, Default)]
pub struct Time(Arc<AtomicU64>);

impl Time {
    pub fn pass(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::Relaxed);
    }

    fn ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The clock of a machine.
#[derive(Debug)]
pub struct MachineTime {
    time: Time,
    /// Milliseconds by which it is wrong.
    wrong: Mutex<i64>,
}

impl MachineTime {
    pub fn new(time: Time, wrong: i64) -> Self {
        MachineTime { time, wrong: Mutex::new(wrong) }
    }

    /// Its date jumps.
    pub fn jump(&self, ms: i64) {
        *self.wrong.lock().unwrap() += ms;
    }
}

impl WallClock for MachineTime {
    fn now_ms(&self) -> u64 {
        let now = BEGINNING + self.time.ms() as i64 + *self.wrong.lock().unwrap();
        now.max(0) as u64
    }

    fn passed(&self) -> Duration {
        Duration::from_millis(self.time.ms())
    }

    fn pause(&self, time: Duration) {
        self.time.pass(time);
    }
}

/// Identities of one machine: no two are the same.
#[derive(Debug)]
pub struct Dice(Mutex<Chance>);

impl Dice {
    pub fn new(chance: Chance) -> Self {
        Dice(Mutex::new(chance))
    }
}

impl Entropy for Dice {
    fn fill(&self, bytes: &mut [u8]) {
        let mut chance = self.0.lock().unwrap();
        for part in bytes.chunks_mut(8) {
            let number = chance.next().to_le_bytes();
            part.copy_from_slice(&number[..part.len()]);
        }
    }
}
