//! What a claim and its StorageClass ask for, as a `WorkstationVolume`; and whether one that is there is what they ask for.

use std::collections::BTreeMap;

use kube::ResourceExt;
use nearbrick_crds::{WorkstationVolume, WorkstationVolumeSpec, quantity};
use serde_json::{Map, Value, json};

use super::types::{CapacityRange, CreateVolumeRequest, Topology, Volume};
use super::{TOPOLOGY, id};
use crate::control::convert::VolumeKey;

/// On a volume that was made for a claim: what CSI calls it.
pub(crate) const NAME: &str = "nearbrick.io/csi-name";
/// With which parameters.
pub(crate) const PARAMETERS: &str = "nearbrick.io/csi-parameters";
/// For which claim; for people.
pub(crate) const CLAIM: &str = "nearbrick.io/claim";

/// What csi-provisioner adds of the claim (`--extra-create-metadata`) begins so, and is no parameter of the class.
const ADDED: &str = "csi.storage.k8s.io/";
const CLAIM_NAMESPACE: &str = "csi.storage.k8s.io/pvc/namespace";
const CLAIM_NAME: &str = "csi.storage.k8s.io/pvc/name";

/// The parameters that there are, for who wrote another one.
const KNOWN: &str = "namespace, nodes, nodeSelector, replicas, healPolicy, conflicts, staleReads, replaceAfter, versionRetention, \
                     minSyncCopies, migration, ignore, deletionPolicy";

/// The volume that is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Its object.
    pub(crate) object: WorkstationVolume,
    /// How large it may be.
    pub(crate) capacity: Capacity,
}

/// A range of sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Capacity {
    /// At least.
    required: Option<u64>,
    /// At most.
    limit: Option<u64>,
}

impl Capacity {
    /// What CSI says; 0 is not said.
    pub(crate) fn of(range: Option<CapacityRange>) -> Result<Self, String> {
        let said = |n: i64, what| match u64::try_from(n) {
            Ok(0) => Ok(None),
            Ok(n) => Ok(Some(n)),
            Err(_) => Err(format!("{what} is {n}: give a number of bytes")),
        };
        let range = range.unwrap_or_default();
        let range = Capacity {
            required: said(range.required_bytes, "required_bytes")?,
            limit: said(range.limit_bytes, "limit_bytes")?,
        };
        match (range.required, range.limit) {
            (Some(required), Some(limit)) if limit < required => {
                Err(format!("at least {required} bytes and at most {limit} are asked for: no size is both"))
            }
            _ => Ok(range),
        }
    }

    /// The size that is made for it, if one is said.
    pub(crate) fn size(self) -> Option<u64> {
        self.required.or(self.limit)
    }

    /// Whether a volume of this size will do; none: one without bounds.
    pub(crate) fn fits(self, size: Option<u64>) -> bool {
        let is_enough = self.required.is_none_or(|least| size.is_none_or(|size| size >= least));
        is_enough && self.limit.is_none_or(|most| size.is_some_and(|size| size <= most))
    }
}

/// What is asked for. An error is one line for who wrote the StorageClass or the claim.
pub(crate) fn wanted(request: &CreateVolumeRequest) -> Result<Wanted, String> {
    let capacity = Capacity::of(request.capacity_range)?;
    let parameter = |name: &str| request.parameters.get(name).map(String::as_str);
    let namespace = parameter("namespace").or(parameter(CLAIM_NAMESPACE)).ok_or(
        "it is not said in which namespace the volume is to be: give csi-provisioner --extra-create-metadata, or the StorageClass the \
         parameter namespace",
    )?;
    if !id::is_label(namespace) {
        return Err(format!(
            "the parameter namespace is {namespace:?}, which is not the name of a namespace"
        ));
    }
    let own = own(&request.parameters);
    let mut spec = Map::new();
    for (name, value) in &own {
        set(&mut spec, name, value).map_err(|why| format!("parameter {name}: {why}"))?;
    }
    let members = spec.entry("members").or_insert_with(|| json!({ "nodeSelector": {} }));
    if members.as_object().is_some_and(|m| m.len() > 1) {
        return Err(
            "the parameters nodes and nodeSelector exclude each other: leave one of them out".to_owned()
        );
    }
    if let Some(size) = capacity.size() {
        spec.insert("capacity".to_owned(), shown(size).into());
    }
    let spec: WorkstationVolumeSpec =
        serde_json::from_value(spec.into()).map_err(|e| format!("in the parameters: {e}"))?;
    let mut object = WorkstationVolume::new(&id::object_name(&request.name), spec);
    object.metadata.namespace = Some(namespace.to_owned());
    let annotations = object.annotations_mut();
    annotations.insert(NAME.to_owned(), request.name.clone());
    annotations.insert(PARAMETERS.to_owned(), written(&own));
    if let (Some(namespace), Some(name)) = (parameter(CLAIM_NAMESPACE), parameter(CLAIM_NAME)) {
        annotations.insert(CLAIM.to_owned(), format!("{namespace}/{name}"));
    }
    Ok(Wanted { object, capacity })
}

/// Sets what the parameter stands for. What a value may be is told by the API server, but for those that are no text.
fn set(spec: &mut Map<String, Value>, name: &str, value: &str) -> Result<(), String> {
    let number = || value.parse::<u32>().map_err(|_| format!("{value:?} is not a number"));
    let (field, to): (&str, Value) = match name {
        // Where it is to be, and not what.
        "namespace" => return Ok(()),
        "nodes" | "nodeSelector" => {
            let who =
                if name == "nodes" { list(value).into() } else { json!({ "matchLabels": labels(value)? }) };
            spec.entry("members").or_insert_with(|| json!({}))[name] = who;
            return Ok(());
        }
        "replicas" | "minSyncCopies" => (name, number()?.into()),
        "healPolicy" => ("healPolicyRef", json!({ "name": value })),
        "migration" => (name, json!({ "mode": value })),
        "ignore" => (name, list(value).into()),
        "conflicts" | "staleReads" | "replaceAfter" | "versionRetention" | "deletionPolicy" => {
            (name, value.into())
        }
        _ => return Err(format!("there is no such parameter; there are {KNOWN}")),
    };
    spec.insert(field.to_owned(), to);
    Ok(())
}

fn list(text: &str) -> Vec<&str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn labels(text: &str) -> Result<BTreeMap<&str, &str>, String> {
    list(text)
        .into_iter()
        .map(|part| part.split_once('=').ok_or_else(|| format!("{part:?} is not of the form label=value")))
        .collect()
}

/// The parameters that are of the class.
fn own(parameters: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    let pairs = parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    pairs.filter(|(name, _)| !name.starts_with(ADDED)).collect()
}

fn written(own: &BTreeMap<&str, &str>) -> String {
    // Nothing in it can fail to be written.
    serde_json::to_string(own).unwrap_or_default()
}

/// Whether the volume was made with these parameters.
pub(crate) fn made_with(volume: &WorkstationVolume, parameters: &BTreeMap<String, String>) -> bool {
    volume.annotations().get(PARAMETERS).is_some_and(|with| *with == written(&own(parameters)))
}

/// Why the volume that is there is not the one that is asked for.
pub(crate) fn differs(there: &WorkstationVolume, wanted: &Wanted) -> Option<String> {
    let of = |volume: &WorkstationVolume, what| volume.annotations().get(what).cloned();
    if of(there, NAME).is_none() {
        return Some("it was not made for a claim: delete it, or make a PersistentVolume for it".to_owned());
    }
    if of(there, NAME) != of(&wanted.object, NAME) || of(there, PARAMETERS) != of(&wanted.object, PARAMETERS)
    {
        return Some("it was made for another claim, or with other parameters".to_owned());
    }
    let size = size(&there.spec);
    (!wanted.capacity.fits(size)).then(|| {
        format!(
            "its capacity is {}, which is not what is asked for",
            there.spec.capacity.as_deref().unwrap_or("not bounded")
        )
    })
}

/// The volume's capacity; none: not bounded.
pub(crate) fn size(spec: &WorkstationVolumeSpec) -> Option<u64> {
    quantity::bytes(spec.capacity.as_deref()?)
}

/// Bytes as a person would write them, if that is exact.
pub(crate) fn shown(bytes: u64) -> String {
    let suffixes = [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];
    let exact = suffixes.into_iter().find(|(_, power)| bytes > 0 && bytes.is_multiple_of(1 << power));
    exact.map_or_else(|| bytes.to_string(), |(suffix, power)| format!("{}{suffix}", bytes >> power))
}

/// From where it can be used. Empty: from every node that has the driver.
pub(crate) fn topology(spec: &WorkstationVolumeSpec) -> Vec<Topology> {
    if let Some(nodes) = &spec.members.nodes {
        let one = |node: &String| Topology { segments: [(TOPOLOGY.to_owned(), node.clone())].into() };
        return nodes.iter().map(one).collect();
    }
    // Labels are labels of nodes: a PersistentVolume goes by them as it does by those that a driver reports. Expressions cannot be said.
    let selector = spec.members.node_selector.as_ref();
    let labels = selector.filter(|s| s.match_expressions.as_ref().is_none_or(Vec::is_empty));
    let labels = labels.and_then(|s| s.match_labels.clone()).unwrap_or_default();
    if labels.is_empty() { vec![] } else { vec![Topology { segments: labels }] }
}

/// Whether the volume can be used from one of the places that are asked for, as far as the names of nodes say.
pub(crate) fn is_reachable(spec: &WorkstationVolumeSpec, requisite: &[Topology]) -> bool {
    let Some(nodes) = &spec.members.nodes else { return true };
    let names = |place: &Topology| place.segments.get(TOPOLOGY).is_none_or(|node| nodes.contains(node));
    requisite.is_empty() || requisite.iter().any(names)
}

/// The volume as CSI has it.
pub(crate) fn volume(object: &WorkstationVolume) -> Volume {
    let key = VolumeKey { namespace: object.namespace().unwrap_or_default(), volume: object.name_any() };
    Volume {
        capacity_bytes: size(&object.spec).and_then(|n| i64::try_from(n).ok()).unwrap_or(0),
        volume_id: key.to_string(),
        volume_context: BTreeMap::new(),
        accessible_topology: topology(&object.spec),
    }
}

#[cfg(test)]
#[path = "parameters/tests.rs"]
mod tests;
