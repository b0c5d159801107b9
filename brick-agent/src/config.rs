//! What an agent knows of a volume: the values that come from the API (or from
//! the last copy that was kept beside the brick), checked and typed.

use std::path::PathBuf;

use nearbrick_core::BrickId;
use nearbrick_core::conflict::Policy;
use nearbrick_core::resolution::Order;
use nearbrick_crds::{HealPolicySpec, Joining, RelatedFiles};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One brick of the volume, here or elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its UUID.
    pub brick: BrickId,
    /// The name of its `Brick` object.
    pub name: String,
    /// Its workstation; its certificate must say so.
    pub node: String,
    /// `host:port` of its agent, once it has reported one.
    pub address: Option<String>,
}

/// A rule for the replica set of files of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacementRule {
    /// The node whose files they are: on which they were created, as long as its brick is in their set. Of all nodes if empty.
    pub creator: String,
    /// Globs on the path from the volume's root, without a leading slash; empty: all.
    pub paths: Vec<String>,
    /// The bricks that must hold it.
    pub bricks: Vec<BrickId>,
    /// The move by which files come under this rule.
    #[serde(default)]
    pub migration: Option<String>,
    /// Whether those that hold the files go on doing so; and how far the others are.
    #[serde(default)]
    pub joining: Option<Joining>,
    /// Of these bricks the second takes what the first, whose disk is full, does not hold yet.
    #[serde(default)]
    pub stand_ins: Vec<(BrickId, BrickId)>,
}

/// What happens to concurrent versions of some files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictRule {
    /// Globs on the path from the volume's root, without a leading slash; empty: all.
    pub paths: Vec<String>,
    /// What happens.
    pub policy: Policy,
}

/// What the agent does when it cannot reach a newer version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StaleReads {
    /// Reads what is here, and counts it.
    #[default]
    Allow,
    /// Reads what is here, and makes an Event.
    Warn,
    /// EIO, with a log line that names the holder.
    Fail,
}

/// How the volume is healed where no job comes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Healing {
    /// The policy; none: it is not known, or not to be had, and only jobs heal.
    pub policy: Option<HealPolicySpec>,
    /// When the volume was made, in seconds since 1970: intervals are counted from there.
    pub anchor: i64,
}

/// One volume as one agent sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeConfig {
    /// Namespace of the `WorkstationVolume`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: the brick's identity must say the same.
    pub volume_uuid: Uuid,
    /// This workstation.
    pub node: String,
    /// This brick.
    pub brick: BrickId,
    /// The brick's directory.
    pub path: PathBuf,
    /// Whether the API says that this brick has been in use before: then an
    /// empty directory is a disk that is not mounted, not a new brick (T24).
    pub was_initialised: bool,
    /// All bricks of the volume, this one too.
    pub members: Vec<Member>,
    /// First match decides; without a match a new file's set is this brick alone.
    pub placement: Vec<PlacementRule>,
    /// See there.
    pub stale_reads: StaleReads,
    /// First match decides; without a match both versions are kept.
    #[serde(default)]
    pub conflicts: Vec<ConflictRule>,
    /// How long deleted files and losers of conflicts are kept, in milliseconds.
    #[serde(default = "default_retention")]
    pub retention_ms: u64,
    /// How it is healed where no job comes.
    #[serde(default)]
    pub healing: Healing,
    /// How many bricks must have the bytes when `fsync` returns, this one among them.
    #[serde(default)]
    pub min_sync_copies: u32,
    /// A person's word that these removals, which are held back, are right.
    #[serde(default)]
    pub release_removals: Option<String>,
    /// And that these are wrong: what they removed is to be there again.
    #[serde(default)]
    pub take_back_removals: Option<String>,
    /// How the brick is looked after.
    #[serde(default)]
    pub upkeep: Upkeep,
}

/// How a brick is looked after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Upkeep {
    /// A person's word that the brick with this incarnation is to say all that it has again.
    pub say_again: Option<String>,
    /// Persons' words on conflicts: the resolutions of the volume's `FileConflict`s.
    pub orders: Vec<Order>,
    /// The name of the placement rules in the API: for the reports.
    pub rules: Option<String>,
    /// Bricks that were members once, and of which there is no `Brick` any more: files may still be theirs.
    pub former: Vec<Former>,
    /// Whether a directory that has files and is no brick is to become one.
    pub adopt: Adopt,
    /// Which files belong together, where uses are counted.
    pub related: RelatedFiles,
}

/// A brick that was a member once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// Its UUID.
    pub brick: BrickId,
    /// Its workstation.
    pub node: String,
}

/// The end of a brick: its object is being deleted, and its files are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The volume's UUID.
    pub volume_uuid: Uuid,
    /// The brick's.
    pub brick: BrickId,
    /// Its directory.
    pub path: PathBuf,
    /// Whether the volume goes on without it: then nothing goes that no other brick holds.
    pub volume_lives: bool,
}

/// Whether a directory with files becomes a brick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adopt {
    /// It is refused.
    #[default]
    No,
    /// A person says so. What the other members have is asked for first: equal files are the same file.
    Yes,
    /// The same, and no other member has been in use yet, so that nobody need be asked.
    First,
}

/// A week, in milliseconds: how long versions are kept, unless the volume says otherwise.
pub const RETENTION_MS: u64 = 168 * 3600 * 1000;

fn default_retention() -> u64 {
    RETENTION_MS
}

impl VolumeConfig {
    /// The member with this brick.
    pub fn member(&self, brick: BrickId) -> Option<&Member> {
        self.members.iter().find(|m| m.brick == brick)
    }
}
