//! What the agent knows of its volumes, as the reports need it.

use std::sync::Arc;

use crate::config::VolumeConfig;
use crate::volume::VolumeStatus;

use super::convert::VolumeKey;

/// How far a volume is on this workstation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Being opened; why it takes time.
    Starting(String),
    /// Mounted and in use.
    Ready,
    /// Open, and peers are served, but something is wrong.
    Degraded {
        /// What, in one line.
        message: String,
        /// Whether programs can use it.
        mounted: bool,
    },
    /// Not used; why, in one line.
    Refused(String),
    /// Its files are being deleted, as its volume's deletion policy says; how far that is, in one line.
    Emptying(String),
    /// They are gone.
    Emptied,
}

/// One volume of this workstation.
#[derive(Clone, Debug)]
pub struct VolumeFacts {
    /// Which.
    pub key: VolumeKey,
    /// What is known of it; none where the API has told nothing usable yet.
    pub config: Option<Arc<VolumeConfig>>,
    /// How far it is.
    pub phase: Phase,
    /// Counts, when it is open.
    pub status: Option<VolumeStatus>,
}

/// Everything on this workstation.
pub trait Facts: Send + Sync + 'static {
    /// All volumes, sorted. May block on the disk, shortly.
    fn facts(&self) -> Vec<VolumeFacts>;
    /// Ticks when something changed that is worth a report.
    fn changed(&self) -> tokio::sync::watch::Receiver<u64>;
}
