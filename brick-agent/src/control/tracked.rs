//! The objects of one watch: whole lists only, never half of one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Resource;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::Event;

/// What a watch has seen.
#[derive(Debug)]
pub struct Tracked<K> {
    objects: BTreeMap<String, Arc<K>>,
    /// The new list, while it comes in.
    coming: Option<BTreeMap<String, Arc<K>>>,
    synced: bool,
}

impl<K> Default for Tracked<K> {
    fn default() -> Self {
        Tracked { objects: BTreeMap::new(), coming: None, synced: false }
    }
}

impl<K: Resource> Tracked<K> {
    /// Takes an event. Says whether the objects are now to be looked at again.
    pub fn take(&mut self, event: Event<K>) -> bool {
        match event {
            Event::Init => {
                self.coming = Some(BTreeMap::new());
                false
            }
            Event::InitApply(object) => {
                self.coming.get_or_insert_default().insert(key(&object), Arc::new(object));
                false
            }
            Event::InitDone => {
                self.objects = self.coming.take().unwrap_or_default();
                self.synced = true;
                true
            }
            Event::Apply(object) => {
                self.objects.insert(key(&object), Arc::new(object));
                self.synced
            }
            Event::Delete(object) => {
                self.objects.remove(&key(&object));
                self.synced
            }
        }
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

    fn map(name: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map
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
    fn the_waits_are_bounded() {
        let waits: Vec<_> = Patience::default().take(40).collect();
        assert!(waits[0] < Duration::from_millis(400));
        assert!(waits.iter().all(|w| *w <= Duration::from_secs(6)));
    }
}
