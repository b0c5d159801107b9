//! The objects of one watch: whole lists only, never half of one.
//!
//! One that this version cannot read, because an older or a newer one made it, is not gone: what was known of it before
//! stands, and it hides none of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::Event;

/// What a watch has seen.
#[derive(Debug)]
pub struct Tracked<K> {
    objects: BTreeMap<String, Arc<K>>,
    /// The new list, while it comes in.
    coming: Option<BTreeMap<String, Arc<K>>>,
    synced: bool,
    /// Those that are there and cannot be read.
    unreadable: BTreeSet<String>,
}

impl<K> Default for Tracked<K> {
    fn default() -> Self {
        Tracked { objects: BTreeMap::new(), coming: None, synced: false, unreadable: BTreeSet::new() }
    }
}

impl<K: Resource> Tracked<K> {
    /// Takes an event. Says whether the objects are now to be looked at again.
    pub fn take(&mut self, event: Event<DeserializeGuard<K>>) -> bool {
        match event {
            Event::Init => {
                self.coming = Some(BTreeMap::new());
                self.unreadable.clear();
                false
            }
            Event::InitApply(object) => {
                let key = key(&object);
                let object = self.read(&key, object);
                self.coming.get_or_insert_default().extend(object.map(|object| (key, object)));
                false
            }
            Event::InitDone => {
                self.objects = self.coming.take().unwrap_or_default();
                self.synced = true;
                true
            }
            Event::Apply(object) => {
                let key = key(&object);
                let object = self.read(&key, object);
                self.objects.extend(object.map(|object| (key, object)));
                self.synced
            }
            Event::Delete(object) => {
                let key = key(&object);
                self.unreadable.remove(&key);
                self.objects.remove(&key);
                self.synced
            }
        }
    }

    /// The object, or what was known of it while it cannot be read.
    fn read(&mut self, key: &str, object: DeserializeGuard<K>) -> Option<Arc<K>> {
        match object.0 {
            Ok(object) => {
                self.unreadable.remove(key);
                Some(Arc::new(object))
            }
            Err(invalid) => {
                if self.unreadable.insert(key.to_owned()) {
                    let error = &invalid.error;
                    tracing::warn!("an object {key} cannot be read, and is left as it was known: {error}");
                }
                self.objects.get(key).cloned()
            }
        }
    }

    /// Whether an object of this name is there, and cannot be read.
    pub fn is_unreadable(&self, namespace: &str, name: &str) -> bool {
        self.unreadable.contains(&format!("{namespace}/{name}"))
    }

    /// Whether a whole list was seen.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// The objects, sorted by namespace and name.
    pub fn objects(&self) -> impl Iterator<Item = &Arc<K>> {
        self.objects.values()
    }
}

fn key<K: Resource>(object: &K) -> String {
    let meta = object.meta();
    let part = |p: &Option<String>| p.clone().unwrap_or_default();
    format!("{}/{}", part(&meta.namespace), part(&meta.name))
}

/// How long a watch waits before it tries again: doubling to five seconds, jittered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Patience {
    failures: u32,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = Duration::from_millis(250) * 2u32.pow(self.failures.min(5));
        self.failures = self.failures.saturating_add(1);
        Some(wait.min(Duration::from_secs(5)).mul_f64(rand::random_range(0.8..1.2)))
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(name: &str) -> DeserializeGuard<ConfigMap> {
        read(serde_json::json!({ "metadata": { "namespace": "n", "name": name } }))
    }

    fn read(object: serde_json::Value) -> DeserializeGuard<ConfigMap> {
        serde_json::from_value(object).unwrap()
    }

    fn names(tracked: &Tracked<ConfigMap>) -> Vec<&str> {
        tracked.objects().filter_map(|o| o.metadata.name.as_deref()).collect()
    }

    #[test]
    fn nothing_is_gone_before_the_whole_list_was_seen() {
        let mut tracked = Tracked::default();
        for event in [Event::Init, Event::InitApply(map("a")), Event::InitApply(map("b"))] {
            assert!(!tracked.take(event));
            assert!(!tracked.is_synced());
        }
        assert!(tracked.take(Event::InitDone));
        assert_eq!(names(&tracked), ["a", "b"]);
        // A second list begins: the first one stands until it is whole.
        assert!(!tracked.take(Event::Init));
        assert!(!tracked.take(Event::InitApply(map("b"))));
        assert_eq!(names(&tracked), ["a", "b"]);
        assert!(tracked.take(Event::InitDone));
        assert_eq!(names(&tracked), ["b"]);
        assert!(tracked.take(Event::Apply(map("c"))));
        assert!(tracked.take(Event::Delete(map("b"))));
        assert_eq!(names(&tracked), ["c"]);
    }

    #[test]
    fn what_cannot_be_read_is_not_gone_and_hides_nothing() {
        let odd = |name: &str| {
            let object =
                read(serde_json::json!({ "metadata": { "namespace": "n", "name": name }, "data": 5 }));
            assert!(object.0.is_err());
            object
        };
        let mut tracked = Tracked::default();
        for event in [Event::Init, Event::InitApply(odd("a")), Event::InitApply(map("b"))] {
            tracked.take(event);
        }
        assert!(tracked.take(Event::InitDone));
        assert_eq!(names(&tracked), ["b"]);
        assert!(tracked.is_unreadable("n", "a") && !tracked.is_unreadable("n", "b"));
        // What was known of it stands, also in a new list.
        tracked.take(Event::Apply(odd("b")));
        tracked.take(Event::Init);
        tracked.take(Event::InitApply(odd("b")));
        assert!(tracked.take(Event::InitDone));
        assert_eq!(names(&tracked), ["b"]);
        assert!(tracked.is_unreadable("n", "b") && !tracked.is_unreadable("n", "a"));
        tracked.take(Event::Apply(map("b")));
        assert!(!tracked.is_unreadable("n", "b"));
        tracked.take(Event::Delete(odd("b")));
        assert!(names(&tracked).is_empty());
    }

    #[test]
    fn the_waits_are_bounded() {
        let waits: Vec<_> = Patience::default().take(40).collect();
        assert!(waits[0] < Duration::from_millis(400));
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(6)));
    }
}
