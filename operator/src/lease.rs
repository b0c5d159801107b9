//! Leader election by a `Lease`: at most one operator acts at a time.
//!
//! The protocol is that of client-go. A holder renews; another takes over when it has seen the same
//! record, by its own clock, for the whole duration that the record names. Clocks of two machines are
//! never compared. The holder gives up (and the process ends) when it could not renew within
//! `renew_within`, which is less than the duration, so that there are never two leaders even if the
//! API server cannot be reached. Every write names the version that was read: of two that try, one loses.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::Instant;

use crate::error::{is_conflict, is_not_found};

/// Which lease, and how patient.
#[derive(Clone, Debug)]
pub struct Config {
    /// Namespace of the lease; it must exist.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Who this is; different for each process.
    pub identity: String,
    /// How long the others wait for a holder that is silent.
    pub duration: Duration,
    /// How long a holder tries to renew before it gives up; less than `duration`.
    pub renew_within: Duration,
    /// Time between two tries.
    pub retry: Duration,
}

impl Config {
    /// With the usual times.
    pub fn new(namespace: String, name: String, identity: String) -> Self {
        Self {
            namespace,
            name,
            identity,
            duration: Duration::from_secs(15),
            renew_within: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What a lease says, as far as the decision asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; nobody if `None`.
    pub holder: Option<String>,
    /// For how long without a renewal.
    pub duration: Duration,
    /// When it was last renewed, by the holder's clock; only compared for equality.
    pub renewed: Option<Timestamp>,
}

impl Record {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        Self {
            holder: spec.holder_identity.filter(|h| !h.is_empty()),
            duration: Duration::from_secs(
                spec.lease_duration_seconds.unwrap_or(0).max(0).unsigned_abs().into(),
            ),
            renewed: spec.renew_time.map(|t| t.0),
        }
    }
}

/// What to do with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write it, as the holder.
    Take,
    /// Leave it; somebody else holds it.
    Wait,
}

/// What to do, where `unchanged_for` is how long the same record has been seen.
pub fn step(record: &Record, me: &str, unchanged_for: Duration) -> Step {
    match &record.holder {
        None => Step::Take,
        Some(holder) if holder == me => Step::Take,
        Some(_) if unchanged_for >= record.duration => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// Why this process does not lead any more.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else has the lease.
    #[error("the lease {0} is now held by {1}: this operator stands by, so that two never act")]
    Taken(String, String),
    /// It could not be renewed in time.
    #[error(
        "the lease {lease} could not be renewed within {limit:?} ({last}): this operator stands by, so that two never act"
    )]
    NotRenewed {
        /// Which.
        lease: String,
        /// How long was tried.
        limit: Duration,
        /// The last error.
        last: String,
    },
}

/// A candidate for the lead.
pub struct Elector {
    api: Api<Lease>,
    config: Config,
    seen: Option<(Record, Instant)>,
    contact: Box<dyn Fn() + Send + Sync>,
}

impl Elector {
    /// A candidate. `contact` is called whenever the API server answered.
    pub fn new(client: Client, config: Config, contact: impl Fn() + Send + Sync + 'static) -> Self {
        let api = Api::namespaced(client, &config.namespace);
        Self { api, config, seen: None, contact: Box::new(contact) }
    }

    /// Returns once this process leads. Tries for ever: without an API server there is nothing to do.
    pub async fn acquire(&mut self) {
        let mut said: Option<String> = None;
        loop {
            match self.try_once().await {
                Ok(None) => return,
                Ok(Some(holder)) => {
                    let line = format!("stands by; {holder} leads");
                    if said.as_ref() != Some(&line) {
                        tracing::info!("{line}");
                        said = Some(line);
                    }
                }
                Err(error) => {
                    let line = self.explain(&error);
                    if said.as_ref() != Some(&line) {
                        tracing::warn!("{line}");
                        said = Some(line);
                    }
                }
            }
            tokio::time::sleep(self.config.retry).await;
        }
    }

    /// Renews until that fails; returns why.
    pub async fn hold(&mut self) -> Lost {
        let mut renewed = Instant::now();
        let mut last = String::new();
        loop {
            tokio::time::sleep(self.config.retry).await;
            let left = self.config.renew_within.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.try_once()).await {
                Ok(Ok(None)) => renewed = Instant::now(),
                Ok(Ok(Some(holder))) => return Lost::Taken(self.path(), holder),
                Ok(Err(error)) => {
                    last = self.explain(&error);
                    tracing::warn!("{last}");
                }
                Err(_) => {
                    let last = if last.is_empty() { "no answer".to_string() } else { last };
                    return Lost::NotRenewed { lease: self.path(), limit: self.config.renew_within, last };
                }
            }
        }
    }

    /// Gives the lease back, so that the next one need not wait.
    pub async fn release(&mut self) {
        let released = async {
            let mut lease = self.api.get(&self.config.name).await?;
            if Record::of(&lease).holder.as_deref() != Some(&self.config.identity) {
                return Ok(());
            }
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
                spec.renew_time = Some(MicroTime(Timestamp::now()));
            }
            self.api.replace(&self.config.name, &PostParams::default(), &lease).await.map(|_| ())
        };
        if let Err(error) = released.await {
            tracing::warn!("{}", self.explain(&error));
        }
    }

    /// One try to get or renew the lease. `Ok(None)`: it is ours. `Ok(Some(holder))`: it is not.
    async fn try_once(&mut self) -> Result<Option<String>, kube::Error> {
        let found = match self.api.get(&self.config.name).await {
            Ok(lease) => Some(lease),
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error),
        };
        (self.contact)();
        let Some(mut lease) = found else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.config.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.spec_of(None)),
            };
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(_) => Ok(None),
                Err(error) if is_conflict(&error) => Ok(Some("another".to_string())),
                Err(error) => Err(error),
            };
        };
        let record = Record::of(&lease);
        let since = match &self.seen {
            Some((seen, since)) if *seen == record => *since,
            _ => Instant::now(),
        };
        self.seen = Some((record.clone(), since));
        if step(&record, &self.config.identity, since.elapsed()) == Step::Wait {
            return Ok(Some(record.holder.unwrap_or_default()));
        }
        lease.spec = Some(self.spec_of(lease.spec.as_ref()));
        match self.api.replace(&self.config.name, &PostParams::default(), &lease).await {
            Ok(_) => Ok(None),
            // Somebody wrote between our two requests; the next try sees what.
            Err(error) if is_conflict(&error) => Ok(Some("another".to_string())),
            Err(error) => Err(error),
        }
    }

    fn spec_of(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mine = before.is_some_and(|b| b.holder_identity.as_deref() == Some(&self.config.identity));
        let changes = before.and_then(|b| b.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.config.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.config.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: before
                .filter(|_| mine)
                .and_then(|b| b.acquire_time.clone())
                .or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if mine || before.is_none() {
                changes
            } else {
                changes.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.config.namespace, self.config.name)
    }

    fn explain(&self, error: &kube::Error) -> String {
        let lease = self.path();
        match error {
            kube::Error::Api(status) if status.code == 404 => format!(
                "cannot make the lease {lease}: the namespace {0} does not exist: create it (kubectl create namespace {0})",
                self.config.namespace
            ),
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                format!("may not use the lease {lease}: {}: apply the operator's RBAC", status.message)
            }
            _ => format!("cannot reach the lease {lease}: {error}: is the API server up?"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(holder: Option<&str>) -> Record {
        Record { holder: holder.map(Into::into), duration: Duration::from_secs(15), renewed: None }
    }

    #[test]
    fn table() {
        let secs = Duration::from_secs;
        for (holder, unchanged, expected) in [
            (None, 0, Step::Take),
            (Some("me"), 0, Step::Take),
            (Some("me"), 99, Step::Take),
            (Some("you"), 0, Step::Wait),
            (Some("you"), 14, Step::Wait),
            (Some("you"), 15, Step::Take),
        ] {
            assert_eq!(step(&record(holder), "me", secs(unchanged)), expected, "{holder:?} {unchanged}");
        }
    }

    #[test]
    fn a_released_lease_has_no_holder() {
        let spec = LeaseSpec { holder_identity: Some(String::new()), ..LeaseSpec::default() };
        let lease = Lease { metadata: ObjectMeta::default(), spec: Some(spec) };
        assert_eq!(Record::of(&lease).holder, None);
    }

    #[test]
    fn the_holder_gives_up_before_another_may_take_over() {
        let c = Config::new("ns".into(), "n".into(), "me".into());
        assert!(c.renew_within + c.retry < c.duration);
    }
}
