//! What a lab is: its name, where its state is, its addresses and workstations. Written down before
//! anything else is made; all other names follow from it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Result};
use crate::process::write_whole;
use crate::programs::Programs;

/// Where labs keep their state, unless `NEARBRICK_LAB_DIR` names another folder.
pub const DEFAULT_BASE: &str = "/var/lib/nearbrick-lab";

/// A lab's name, and what it is called on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name that the person gave.
    pub name: String,
    /// The name on the machine: another one for a lab of the same name in another folder.
    pub tag: String,
    /// Its state directory.
    pub dir: PathBuf,
}

impl Identity {
    /// The lab of this name.
    ///
    /// # Errors
    /// The name is not made of small letters, digits and hyphens.
    pub fn new(name: &str) -> Result<Self> {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 24 || !name.chars().all(fine) || name.starts_with('-') {
            crate::fail!("{name:?} cannot name a lab: use up to 24 small letters, digits and hyphens");
        }
        let base = std::env::var_os("NEARBRICK_LAB_DIR").filter(|dir| !dir.is_empty());
        let base = base.map_or_else(|| PathBuf::from(DEFAULT_BASE), PathBuf::from);
        let base = std::path::absolute(&base).context(format!("odd folder {}", base.display()))?;
        let tag = match base == Path::new(DEFAULT_BASE) {
            true => name.to_owned(),
            false => format!("{name}~{:06x}", short_hash(base.as_os_str().as_encoded_bytes()) & 0xff_ffff),
        };
        Ok(Self { name: name.to_owned(), tag, dir: base.join(name) })
    }

    /// The lock that orders what is done to this lab. It is beside the state, which goes with `down`.
    pub fn lock(&self) -> PathBuf {
        self.dir.with_file_name(format!(".{}.lock", self.name))
    }

    /// The name of a network namespace of this lab.
    pub fn namespace(&self, part: &str) -> String {
        format!("{}{part}", self.namespace_prefix())
    }

    /// What the names of all its network namespaces begin with; no other lab's do.
    pub fn namespace_prefix(&self) -> String {
        format!("nearbrick.{}.", self.tag)
    }

    /// The name of the one link in the machine's own namespace.
    pub fn uplink(&self) -> String {
        format!("nb{:08x}", short_hash(self.tag.as_bytes()))
    }

    fn record(&self) -> PathBuf {
        self.dir.join("lab.json")
    }
}

/// FNV-1a, folded: only for names that must be short.
fn short_hash(bytes: &[u8]) -> u32 {
    let hash = bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3));
    (hash ^ (hash >> 32)) as u32
}

/// How far a lab is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Being made; after a crash, half made.
    Starting,
    /// All of it was made.
    Up,
}

/// What workstations are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Namespaces in which an agent runs as a process; the operator is one too.
    #[default]
    Processes,
    /// Nodes of the cluster, with kubelet and containerd; Nearbrick is installed by its chart.
    Nodes,
}

/// A file system of a brick's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSystem {
    /// XFS.
    Xfs,
    /// ext4.
    Ext4,
}

/// A workstation of the lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// The node's name.
    pub node: String,
    /// Its address on the lab's bridge.
    pub address: Ipv4Addr,
    /// What its disk is formatted with.
    pub filesystem: FileSystem,
}

/// The record of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// How far it is.
    pub phase: Phase,
    /// What its workstations are.
    pub kind: Kind,
    /// Third byte of all its addresses: 10.199.X.0/24.
    pub subnet: u8,
    /// Its workstations.
    pub seats: Vec<Seat>,
    /// What it runs.
    pub programs: Programs,
}

impl Record {
    /// A lab with the three usual workstations.
    pub fn new(kind: Kind, subnet: u8, programs: &Programs) -> Self {
        let seat = |node: &str, last, filesystem| Seat {
            node: node.to_owned(),
            address: Ipv4Addr::new(10, 199, subnet, last),
            filesystem,
        };
        Self {
            phase: Phase::Starting,
            kind,
            subnet,
            programs: programs.clone(),
            seats: vec![
                seat("ws-a", 11, FileSystem::Xfs),
                seat("ws-b", 12, FileSystem::Ext4),
                seat("ws-c", 13, FileSystem::Xfs),
            ],
        }
    }

    /// The addresses of a node's pods: its part of the upper half of the lab's network.
    pub fn pods(&self, seat: &Seat) -> String {
        let n = self.seats.iter().position(|s| s == seat).unwrap_or_default();
        format!("10.199.{}.{}/27", self.subnet, 128 + 32 * n)
    }

    /// The control plane's address on the bridge.
    pub fn control_address(&self) -> IpAddr {
        Ipv4Addr::new(10, 199, self.subnet, 1).into()
    }

    /// The control plane's address on the link to the machine.
    pub fn uplink_address(&self) -> IpAddr {
        Ipv4Addr::new(10, 199, self.subnet, 253).into()
    }

    /// The machine's address on that link.
    pub fn machine_address(&self) -> IpAddr {
        Ipv4Addr::new(10, 199, self.subnet, 254).into()
    }

    /// The workstation of this name.
    ///
    /// # Errors
    /// There is none; the line names those that there are.
    pub fn seat(&self, node: &str) -> Result<&Seat> {
        let names = || self.seats.iter().map(|s| s.node.as_str()).collect::<Vec<_>>().join(", ");
        let found = self.seats.iter().find(|s| s.node == node);
        found.context(format!("no workstation {node} in this lab: it has {}", names()))
    }

    /// Reads the record of a lab, if it has one.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn read(identity: &Identity) -> Result<Option<Self>> {
        let path = identity.record();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => crate::fail!("cannot read {}: {error}", path.display()),
        };
        let record = serde_json::from_str(&text);
        record.map(Some).context(format!("{}: run `cargo lab down`", path.display()))
    }

    /// Writes it.
    ///
    /// # Errors
    /// The state directory cannot be written.
    pub fn write(&self, identity: &Identity) -> Result<()> {
        let dir = &identity.dir;
        std::fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
        let text = serde_json::to_string_pretty(self).context("cannot write the record")?;
        write_whole(&identity.record(), text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_told_apart() {
        for bad in ["", "-a", "A", "a.b", "a/b", "../x", "abcdefghijklmnopqrstuvwxyz"] {
            assert!(Identity::new(bad).is_err(), "{bad}");
        }
        let (one, other) = (Identity::new("lab").expect("fine"), Identity::new("lab-2").expect("fine"));
        assert_ne!(one.uplink(), other.uplink());
        assert!(one.uplink().len() < 16, "the kernel's limit for names of links");
        assert!(!other.namespace("x").starts_with(&one.namespace_prefix()));
    }
}
