//! What a volume takes from its surroundings: time, randomness, disks, and who does the
//! work that follows later. The machine's own are the default; a simulation brings others.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::resume::{Keeper, Resumed};
use super::types::Invalidate;
use crate::brick::disk::Disk;
use crate::brick::machine::MachineDisk;
use crate::index::store::{FjallStores, Stores};

/// Where the time comes from.
pub trait WallClock: Send + Sync + 'static {
    /// Milliseconds since 1970. May jump.
    fn now_ms(&self) -> u64;

    /// Time that only goes forward, since any moment.
    fn passed(&self) -> Duration;

    /// Lets a moment pass.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// The machine's clock.
#[derive(Debug)]
pub struct MachineClock(Instant);

impl Default for MachineClock {
    fn default() -> Self {
        MachineClock(Instant::now())
    }
}

impl WallClock for MachineClock {
    fn now_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn passed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Where randomness comes from: identities are never used twice.
pub trait Entropy: Send + Sync + 'static {
    /// Bytes that no one can foresee.
    fn fill(&self, bytes: &mut [u8]);
}

/// The machine's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineEntropy;

impl Entropy for MachineEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        rand::fill(bytes);
    }
}

/// Who does what is due later: settling, and what follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Later {
    /// A thread of the volume.
    Thread,
    /// Whoever calls [`super::Volume::work`].
    Called,
}

/// What a volume takes from its surroundings.
#[derive(Clone)]
pub struct VolumeOptions {
    /// For stamps, and for what is due later.
    pub clock: Arc<dyn WallClock>,
    /// For identities.
    pub entropy: Arc<dyn Entropy>,
    /// Where the brick is.
    pub disk: Arc<dyn Disk>,
    /// Where its index is.
    pub stores: Arc<dyn Stores>,
    /// Identifies the time from one start of the machine to its end.
    pub boot: Vec<u8>,
    /// Whether the disk has been in use all the time since the agent before this one, if the machine was not started anew: what was
    /// written to it, and not synced, is there then. A disk that went away and was mounted again has lost that, as in a power cut.
    pub disk_stayed: bool,
    /// Who does what is due later.
    pub later: Later,
    /// The kernel that must forget what changes, if it knows the volume already.
    pub kernel: Option<Arc<dyn Invalidate>>,
    /// Who keeps open files without a name.
    pub keeper: Option<Arc<dyn Keeper>>,
    /// What programs opened through an agent before this one.
    pub resumed: Option<Resumed>,
}

impl Default for VolumeOptions {
    fn default() -> Self {
        VolumeOptions {
            clock: Arc::new(MachineClock::default()),
            entropy: Arc::new(MachineEntropy),
            disk: Arc::new(MachineDisk),
            stores: Arc::new(FjallStores),
            boot: std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default(),
            disk_stayed: true,
            later: Later::Thread,
            kernel: None,
            keeper: None,
            resumed: None,
        }
    }
}

/// A time of the wall clock.
pub(super) fn wall_time(clock: &dyn WallClock) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(clock.now_ms().min(1 << 52))
}

/// A random number.
pub(super) fn random_u64(entropy: &dyn Entropy) -> u64 {
    let mut bytes = [0; 8];
    entropy.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}
