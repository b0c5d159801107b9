//! What was pending over the last hour, in memory: a ring of at most [`MOST_SAMPLES`] samples of at most [`MOST_VOLUMES`] volumes
//! each (360 and 64: less than 2 MiB with their names). A new operator begins a new one; Prometheus keeps more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use kube::ResourceExt;
use serde::Serialize;

use crate::backoff::lock;
use crate::http::Published;
use crate::shutdown::Shutdown;

/// Time between samples.
pub const EVERY: Duration = Duration::from_secs(10);
/// Samples that are kept: an hour.
pub const MOST_SAMPLES: usize = 360;
/// Volumes that are kept of each: the first by namespace and name.
pub const MOST_VOLUMES: usize = 64;

type Volumes = BTreeMap<(String, String), u64>;

/// Samples, the oldest first.
#[derive(Debug, Default)]
pub struct History(Mutex<VecDeque<(i64, Volumes)>>);

/// What was pending of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Series {
    /// When, in seconds since 1970.
    pub at: Vec<i64>,
    /// Bytes at these times.
    pub bytes: Vec<u64>,
}

impl History {
    /// Notes what is pending at a time, in seconds since 1970.
    pub fn note(&self, at: i64, pending: impl IntoIterator<Item = ((String, String), u64)>) {
        let mut volumes: Volumes = pending.into_iter().collect();
        while volumes.len() > MOST_VOLUMES {
            volumes.pop_last();
        }
        let mut samples = lock(&self.0);
        samples.push_back((at, volumes));
        while samples.len() > MOST_SAMPLES {
            samples.pop_front();
        }
    }

    /// What was pending of this volume.
    pub fn of(&self, namespace: &str, name: &str) -> Series {
        let key = (namespace.to_owned(), name.to_owned());
        let samples = lock(&self.0);
        let (at, bytes) = samples.iter().filter_map(|(at, v)| Some((*at, *v.get(&key)?))).unzip();
        Series { at, bytes }
    }

    fn clear(&self) {
        lock(&self.0).clear();
    }
}

/// Takes samples until the shutdown; while this operator does not lead there is nothing to take.
pub async fn keep(history: &History, published: &Published, shutdown: Shutdown) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.clone().wait() => return,
            _ = tick.tick() => {}
        }
        match published.get() {
            Some(stores) if stores.are_filled() => {
                let pending = stores.volumes.state().into_iter().map(|volume| {
                    let pending = volume.status.as_ref().and_then(|s| s.pending.as_ref());
                    let key = (volume.namespace().unwrap_or_default(), volume.name_any());
                    (key, pending.map_or(0, |p| p.bytes))
                });
                history.note(jiff::Timestamp::now().as_second(), pending.collect::<Vec<_>>());
            }
            Some(_) => {}
            None => history.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(bytes: u64) -> [((String, String), u64); 1] {
        [(("lab".to_owned(), "home".to_owned()), bytes)]
    }

    #[test]
    fn the_last_hour_of_each_volume_is_kept_and_no_more() {
        let history = History::default();
        for at in 0..1000 {
            history.note(at, home(u64::try_from(at).unwrap()));
        }
        let series = history.of("lab", "home");
        assert_eq!((series.at.len(), series.bytes.len()), (MOST_SAMPLES, MOST_SAMPLES));
        assert_eq!((series.at[0], series.bytes[0]), (640, 640));
        assert_eq!(history.of("lab", "other"), Series::default());
        history.clear();
        assert_eq!(history.of("lab", "home"), Series::default());
    }

    #[test]
    fn many_volumes_take_no_more_than_the_bound() {
        let history = History::default();
        history.note(0, (0..1000).map(|n| (("lab".to_owned(), format!("v{n:04}")), 1)));
        assert_eq!(history.of("lab", "v0063").bytes, [1]);
        assert_eq!(history.of("lab", "v0064"), Series::default());
    }
}
