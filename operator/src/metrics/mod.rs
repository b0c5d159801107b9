//! Counters and gauges, as OpenMetrics text. No label holds a file's name or an error's text.

mod objects;

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use self::objects::Objects;
use crate::stores::Stores;

/// Label: which controller.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ControllerLabel {
    controller: &'static str,
}

/// Labels: which controller, and how its reconciliation ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    controller: &'static str,
    outcome: &'static str,
}

/// Label: why a job was made.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Label: what is asked of the API server.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct VerbLabel {
    verb: &'static str,
}

/// All metrics of this process.
pub struct Metrics {
    registry: Registry,
    reconciliations: Family<OutcomeLabels, Counter>,
    seconds: Family<ControllerLabel, Histogram, fn() -> Histogram>,
    writes: Family<ControllerLabel, Counter>,
    jobs: Family<ReasonLabel, Counter>,
    requests: Family<VerbLabel, Counter>,
    leader: Gauge,
    objects: Objects,
    leading: AtomicBool,
    last_contact: AtomicI64,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn buckets() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 4.0, 9))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut m = Self {
            registry: Registry::with_prefix("nearbrick_operator"),
            reconciliations: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            writes: Family::default(),
            jobs: Family::default(),
            requests: Family::default(),
            leader: Gauge::default(),
            objects: Objects::default(),
            leading: AtomicBool::new(false),
            last_contact: AtomicI64::new(0),
        };
        let r = &mut m.registry;
        r.register("reconciliations", "Reconciliations, by how they ended", m.reconciliations.clone());
        r.register_with_unit("reconciliation", "How long they took", Unit::Seconds, m.seconds.clone());
        r.register("status_writes", "Statuses that were written", m.writes.clone());
        r.register("heal_jobs_created", "Heal jobs made", m.jobs.clone());
        r.register("api_requests", "Requests to the API server", m.requests.clone());
        r.register("leader", "1 while this process leads", m.leader.clone());
        m.objects.register(r);
        m
    }
}

impl Metrics {
    /// Notes a reconciliation; `outcome` is `ok` or an error's kind.
    pub fn reconciled(&self, controller: &'static str, outcome: &'static str, took: Duration) {
        self.reconciliations.get_or_create(&OutcomeLabels { controller, outcome }).inc();
        self.seconds.get_or_create(&ControllerLabel { controller }).observe(took.as_secs_f64());
    }

    /// Notes a status that was written.
    pub fn wrote(&self, controller: &'static str) {
        self.writes.get_or_create(&ControllerLabel { controller }).inc();
    }

    /// Notes a request to the API server.
    pub fn asked(&self, verb: &'static str) {
        self.requests.get_or_create(&VerbLabel { verb }).inc();
    }

    /// Notes a heal job that was made.
    pub fn job_created(&self, reason: &'static str) {
        self.jobs.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// Notes whether this process leads.
    pub fn lead(&self, leading: bool) {
        self.leader.set(i64::from(leading));
        self.leading.store(leading, Ordering::Relaxed);
    }

    /// Whether this process leads.
    pub fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Relaxed)
    }

    /// Notes that the API server answered.
    pub fn contact(&self) {
        self.last_contact.store(jiff::Timestamp::now().as_second(), Ordering::Relaxed);
    }

    /// Seconds since the API server last answered.
    pub fn contact_age(&self) -> i64 {
        jiff::Timestamp::now().as_second().saturating_sub(self.last_contact.load(Ordering::Relaxed))
    }

    /// All metrics as text. Gauges of volumes and workstations are taken from the stores now, so that
    /// what was deleted is gone.
    pub fn render(&self, stores: Option<&Stores>) -> Result<String, std::fmt::Error> {
        self.objects.clear();
        if let Some(stores) = stores.filter(|_| self.is_leading()) {
            self.objects.fill(stores, jiff::Timestamp::now());
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_documented() {
        let m = Metrics::default();
        m.reconciled("volume", "ok", Duration::from_millis(3));
        m.wrote("volume");
        m.job_created("Scheduled");
        m.asked("patch");
        m.lead(true);
        let text = m.render(None).unwrap();
        for line in [
            "nearbrick_operator_reconciliations_total{controller=\"volume\",outcome=\"ok\"} 1",
            "nearbrick_operator_status_writes_total{controller=\"volume\"} 1",
            "nearbrick_operator_heal_jobs_created_total{reason=\"Scheduled\"} 1",
            "nearbrick_operator_api_requests_total{verb=\"patch\"} 1",
            "nearbrick_operator_leader 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
