//! Which bricks belong to a volume, and to a node: so that a look at one volume does not go over the bricks of all.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use nearbrick_crds::{Brick, WorkstationVolume};

/// The index. It follows the store of bricks: a name in it that the store no longer has is one that went
/// while the watch was broken, and stands for nothing.
#[derive(Debug, Default)]
pub struct BrickIndex(Mutex<Maps>);

#[derive(Debug, Default)]
struct Maps {
    by_volume: HashMap<ObjectRef<WorkstationVolume>, BTreeSet<String>>,
    /// With their namespaces.
    by_node: HashMap<String, BTreeSet<(String, String)>>,
}

impl BrickIndex {
    /// Takes over a brick that came, changed or went. What it belongs to never changes (CEL).
    pub fn touch(&self, brick: &Brick, gone: bool) {
        let (namespace, name) = (brick.namespace().unwrap_or_default(), brick.name_any());
        let volume = ObjectRef::new(&brick.spec.volume_ref.name).within(&namespace);
        let mut maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_volume = maps.by_volume.entry(volume.clone()).or_default();
        if !gone {
            of_volume.insert(name.clone());
        } else if of_volume.remove(&name) && of_volume.is_empty() {
            maps.by_volume.remove(&volume);
        }
        let node = &brick.spec.node;
        let of_node = maps.by_node.entry(node.clone()).or_default();
        if !gone {
            of_node.insert((namespace, name));
        } else if of_node.remove(&(namespace, name)) && of_node.is_empty() {
            maps.by_node.remove(node);
        }
    }

    /// Names of the bricks of a volume.
    pub fn of_volume(&self, namespace: &str, name: &str) -> Vec<ObjectRef<Brick>> {
        let volume = ObjectRef::new(name).within(namespace);
        let maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = maps.by_volume.get(&volume).into_iter().flatten();
        names.map(|name| ObjectRef::new(name).within(namespace)).collect()
    }

    /// Names of the bricks of a node.
    pub fn of_node(&self, node: &str) -> Vec<ObjectRef<Brick>> {
        let maps = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let names = maps.by_node.get(node).into_iter().flatten();
        names.map(|(namespace, name)| ObjectRef::new(name).within(namespace)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_crds::{BrickSpec, LocalRef};

    #[test]
    fn bricks_are_found_by_volume_and_by_node_until_they_go() {
        let brick = |namespace: &str, volume: &str, node: &str| {
            let spec = BrickSpec {
                volume_ref: LocalRef::new(volume),
                volume_uuid: "u".into(),
                node: node.into(),
                path: None,
                uuid: "b".into(),
            };
            let mut brick = Brick::new(&format!("{volume}.{node}"), spec);
            brick.metadata.namespace = Some(namespace.into());
            brick
        };
        let index = BrickIndex::default();
        for one in [brick("x", "v", "a"), brick("x", "v", "b"), brick("y", "v", "a")] {
            index.touch(&one, false);
            index.touch(&one, false);
        }
        let names = |list: Vec<ObjectRef<Brick>>| {
            list.iter()
                .map(|r| format!("{}/{}", r.namespace.clone().unwrap_or_default(), r.name))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(index.of_volume("x", "v")), ["x/v.a", "x/v.b"]);
        assert_eq!(names(index.of_node("a")), ["x/v.a", "y/v.a"]);
        index.touch(&brick("x", "v", "a"), true);
        assert_eq!(names(index.of_volume("x", "v")), ["x/v.b"]);
        assert_eq!(names(index.of_node("a")), ["y/v.a"]);
        index.touch(&brick("y", "v", "a"), true);
        assert!(index.of_node("a").is_empty() && index.of_volume("y", "v").is_empty());
    }
}
