//! The Nearbrick operator: makes bricks, decides placement, makes heal jobs, and sums up.
//!
//! It only talks to the Kubernetes API, never touches file data, and holds no state of its own: end it
//! at any moment and nothing is lost. One of several acts at a time ([`lease`]). What it decides is in
//! [`plan`], without a client; each controller (`volume`, `heal`, `job`, `policy`, `workstation`) reads
//! from [`stores`], decides, and applies.

mod agent;
mod backoff;
mod context;
mod controller;
mod error;
mod heal;
pub mod http;
mod job;
pub mod lease;
pub mod metrics;
mod patch;
pub mod plan;
mod policy;
pub mod shutdown;
pub mod stores;
mod unacted;
mod volume;
mod workstation;
mod world;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

pub use context::Settings;
use futures::stream;
use kube::Client;
use nearbrick_crds::{FileConflict, ReplicaMigration};

use crate::context::Context;
use crate::lease::Elector;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::stores::{Queues, Stores, watch_all};

/// How an operator runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where metrics and health are served.
    pub listen: SocketAddr,
    /// The election.
    pub lease: lease::Config,
    /// Times.
    pub settings: Settings,
}

/// Runs until the shutdown. An error is one line for a person.
pub async fn run(client: Client, options: Options, shutdown: Shutdown) -> Result<(), String> {
    let listener = http::bind(options.listen).await?;
    let metrics = Arc::new(Metrics::default());
    let stores: Arc<OnceLock<Stores>> = Arc::default();
    let server = tokio::spawn(http::serve(listener, metrics.clone(), stores.clone(), shutdown.clone()));
    let contact = metrics.clone();
    let identity = options.lease.identity.clone();
    let mut elector = Elector::new(client.clone(), options.lease, move || contact.contact());

    let acquired = tokio::select! {
        () = elector.acquire() => true,
        () = shutdown.clone().wait() => false,
    };
    let mut result = Ok(());
    if acquired {
        tracing::info!("leads as {identity}");
        metrics.lead(true);
        let work = act(client, options.settings, &stores, metrics.clone(), &identity, shutdown.clone());
        result = tokio::select! {
            () = work => Ok(()),
            lost = elector.hold() => Err(lost.to_string()),
        };
        metrics.lead(false);
        if result.is_ok() {
            elector.release().await;
            tracing::info!("released the lease");
        }
    }
    if result.is_err() {
        server.abort();
    }
    // The server ends with the shutdown; a panic in it was reported by the runtime.
    let _ = server.await;
    result
}

/// Runs all controllers until the shutdown.
async fn act(
    client: Client,
    settings: Settings,
    published: &OnceLock<Stores>,
    metrics: Arc<Metrics>,
    identity: &str,
    shutdown: Shutdown,
) {
    let (stores, queues, watches) = watch_all(&client);
    // Leading happens once in a process.
    let _ = published.set(stores.clone());
    let filled = stores.clone();
    let context = Arc::new(Context::new(client, settings, stores, metrics, identity));
    let controllers = async {
        let ready = tokio::select! {
            filled = filled.wait_until_filled() => filled,
            () = shutdown.clone().wait() => false,
        };
        if ready {
            tracing::info!("all objects are read; the controllers start");
            controllers(context, queues, shutdown.clone()).await;
        }
    };
    tokio::select! {
        () = watches => {}
        () = controllers => {}
    }
}

async fn controllers(context: Arc<Context>, queues: Queues, shutdown: Shutdown) {
    let Queues { volume, heal, job, policy } = queues;
    let c = || context.clone();
    let s = || shutdown.clone();
    tokio::join!(
        controller::run("volume", c(), volume, s(), volume::reconcile),
        controller::run("heal", c(), heal, s(), heal::reconcile),
        controller::run("job", c(), job, s(), job::reconcile),
        controller::run("policy", c(), policy, s(), policy::reconcile),
        controller::run("workstation", c(), stream::pending(), s(), workstation::reconcile),
        controller::run("migration", c(), stream::pending(), s(), unacted::reconcile::<ReplicaMigration>),
        controller::run("conflict", c(), stream::pending(), s(), unacted::reconcile::<FileConflict>),
    );
}
