//! The lab's network: a namespace with the bridge and the control plane, one namespace for each
//! workstation, and one link from the machine's own namespace to the first.
//!
//! ```text
//! machine --(uplink)-- control [ bridge ] --(veth)-- ws-a, ws-b, ws-c
//! ```
//!
//! Invariant: nothing routes between the machine and the workstations, and no other namespace is touched.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::command::run;
use crate::error::{Context, Result};
use crate::lock::Lock;
use crate::programs::Programs;
use crate::record::{Identity, Kind, Record};

/// The part of the control plane's namespace in its name.
pub const CONTROL: &str = "control";
const BRIDGE: &str = "br0";
const NAMESPACES: &str = "/run/netns";

/// Bytes that crossed a workstation's link, as the workstation counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sent by the workstation.
    pub sent: u64,
    /// Received by it.
    pub received: u64,
}

/// The file that stands for a network namespace.
pub fn path(identity: &Identity, part: &str) -> PathBuf {
    Path::new(NAMESPACES).join(identity.namespace(part))
}

/// Makes the lab's record with a subnet that nothing on this machine uses, writes it, and makes the
/// network. Labs that start at the same moment wait for each other.
///
/// # Errors
/// No subnet is free, or `ip` fails.
pub fn make(identity: &Identity, kind: Kind, programs: &Programs) -> Result<Record> {
    let lock = lock()?;
    let record = Record::new(kind, free_subnet(identity)?, programs);
    record.write(identity)?;
    let control = identity.namespace(CONTROL);
    let subnet = record.subnet;
    ip(&format!("netns add {control}"))?;
    ip(&format!("-n {control} link set lo up"))?;
    ip(&format!("-n {control} link add {BRIDGE} type bridge"))?;
    ip(&format!("-n {control} addr add {}/25 dev {BRIDGE}", record.control_address()))?;
    ip(&format!("-n {control} link set {BRIDGE} up"))?;
    let uplink = identity.uplink();
    ip(&format!("link add {uplink} type veth peer name machine netns {control}"))?;
    ip(&format!("-n {control} addr add {}/30 dev machine", record.uplink_address()))?;
    ip(&format!("-n {control} link set machine up"))?;
    ip(&format!("addr add {}/30 dev {uplink}", record.machine_address()))?;
    ip(&format!("link set {uplink} up"))?;
    for seat in &record.seats {
        let (node, namespace) = (&seat.node, identity.namespace(&seat.node));
        ip(&format!("netns add {namespace}"))?;
        ip(&format!("-n {control} link add {node} type veth peer name eth0 netns {namespace}"))?;
        ip(&format!("-n {control} link set {node} master {BRIDGE} up"))?;
        ip(&format!("-n {namespace} link set lo up"))?;
        ip(&format!("-n {namespace} addr add {}/25 dev eth0", seat.address))?;
        ip(&format!("-n {namespace} link set eth0 up"))?;
        ip(&format!("-n {namespace} route add 10.199.{subnet}.0/24 via {}", record.control_address()))?;
    }
    lock.remove();
    Ok(record)
}

/// Orders what labs do to what they share: subnets, and the folder of namespaces.
fn lock() -> Result<Lock> {
    Lock::take(Path::new("/run/lock/nearbrick-lab-network.lock"), "makes or removes the network of a lab")
}

/// Removes every namespace and link of the lab that is there.
///
/// # Errors
/// `ip` fails to remove one.
pub fn remove(identity: &Identity) -> Result<()> {
    let lock = lock()?;
    let uplink = identity.uplink();
    if Path::new("/sys/class/net").join(&uplink).exists() {
        // It may go at the same moment, with the namespace of its other end.
        if let Err(error) = ip(&format!("link del {uplink}"))
            && Path::new("/sys/class/net").join(&uplink).exists()
        {
            return Err(error);
        }
    }
    for name in namespaces(identity) {
        ip(&format!("netns del {name}"))?;
    }
    // The folder is a mount that `ip` makes when it needs it: the last one out removes it.
    if std::fs::read_dir(NAMESPACES).is_ok_and(|mut entries| entries.next().is_none()) {
        let _ = run("umount", [NAMESPACES]);
        let _ = std::fs::remove_dir(NAMESPACES);
    }
    lock.remove();
    Ok(())
}

/// The names of the lab's namespaces that are there.
pub fn namespaces(identity: &Identity) -> Vec<String> {
    let prefix = identity.namespace_prefix();
    let entries = std::fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with(&prefix));
    names.sort();
    names
}

/// Connects a workstation, or cuts it off, at the bridge's end: the workstation sees a dead cable.
///
/// # Errors
/// The link is not there.
pub fn set_link(identity: &Identity, node: &str, up: bool) -> Result<()> {
    let state = if up { "up" } else { "down" };
    ip(&format!("-n {} link set {node} {state}", identity.namespace(CONTROL))).map(|_| ())
}

/// Whether a workstation is connected.
///
/// # Errors
/// The link is not there.
pub fn is_connected(identity: &Identity, node: &str) -> Result<bool> {
    let link = link(identity, node)?;
    let flags = link["flags"].as_array().context("`ip` told no flags of a link")?;
    Ok(flags.iter().any(|f| f == "UP"))
}

/// What has crossed a workstation's link so far.
///
/// # Errors
/// The link is not there.
pub fn counters(identity: &Identity, node: &str) -> Result<Counters> {
    let stats = &link(identity, node)?["stats64"];
    let count = |way: &str| stats[way]["bytes"].as_u64().context("`ip` told no counters of a link");
    // The bridge's end receives what the workstation sends.
    Ok(Counters { sent: count("rx")?, received: count("tx")? })
}

fn link(identity: &Identity, node: &str) -> Result<Value> {
    let control = identity.namespace(CONTROL);
    let text = ip(&format!("-n {control} -s -j link show dev {node}"))?;
    let links: Value = serde_json::from_str(&text).context("`ip` wrote no JSON")?;
    Ok(links[0].clone())
}

fn free_subnet(identity: &Identity) -> Result<u8> {
    let text = ip("-j route show table all")? + &ip("-j addr show")?;
    let first = identity.tag.bytes().fold(0_u8, u8::wrapping_add);
    let mut candidates = (0..=255).map(|step| first.wrapping_add(step));
    candidates
        .find(|x| !text.contains(&format!("\"10.199.{x}.")))
        .context("every network 10.199.X.0/24 is in use on this machine: take a lab down first")
}

fn ip(arguments: &str) -> Result<String> {
    run("ip", arguments.split_whitespace())
}
