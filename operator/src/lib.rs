//! The Nearbrick operator: makes bricks, decides placement, makes heal jobs, and sums up.
//!
//! It only talks to the Kubernetes API, and for lists of files that people ask for to agents ([`files`]), never touches file data, and holds no state of its own: end it
//! at any moment and nothing is lost. One of several acts at a time ([`lease`]). What it decides is in
//! [`plan`], without a client; each controller (`volume`, `brick`, `heal`, `job`, `policy`, `workstation`, `migration`, `conflict`) reads
//! from [`stores`], decides, and applies.

mod agent;
mod backoff;
mod brick;
mod client;
mod conflict;
mod context;
mod controller;
mod error;
pub mod files;
mod finalizer;
mod heal;
pub mod http;
mod index;
mod job;
pub mod lease;
pub mod metrics;
mod migration;
pub mod page;
mod patch;
pub mod plan;
mod policy;
pub mod shutdown;
pub mod stores;
pub mod trust;
mod volume;
mod workstation;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;

pub use context::Settings;
use kube::{Client, Config};

use crate::context::Context;
use crate::lease::Elector;
use crate::metrics::Metrics;
use crate::page::Page;
use crate::page::people::People;
use crate::shutdown::Shutdown;
use crate::stores::{Queues, Stores, watch_all};

/// How an operator runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where metrics, health and the status page are served.
    pub listen: SocketAddr,
    /// The election.
    pub lease: lease::Config,
    /// Times.
    pub settings: Settings,
    /// Whether agents get their certificates from here.
    pub certificates: bool,
    /// How lists of files are served; none: they are not.
    pub files: Option<files::Config>,
}

/// Runs until the shutdown. An error is one line for a person.
///
/// An operator that loses the lead, because the API server was away for too long or another took the
/// lease, stops acting at once, and stands for election again.
pub async fn run(cluster: Config, options: Options, shutdown: Shutdown) -> Result<(), String> {
    let listener = http::bind(options.listen).await?;
    let for_files = match options.files {
        Some(config) => Some((files::bind(&config).await?, config)),
        None => None,
    };
    let metrics = Arc::new(Metrics::default());
    let published = http::Published::default();
    let page = Page::new(published.clone(), People::new(&cluster)?);
    let client = client::connect(cluster, metrics.clone())?;
    let server = {
        let (metrics, published, shutdown) = (metrics.clone(), published.clone(), shutdown.clone());
        tokio::spawn(async move {
            let history = page.history();
            tokio::join!(
                http::serve(listener, metrics, published.clone(), page, shutdown.clone()),
                page::history::keep(&history, &published, shutdown),
            );
        })
    };
    let files = for_files.map(|(listener, config)| {
        tokio::spawn(files::run(config, listener, client.clone(), shutdown.clone()))
    });
    let contact = metrics.clone();
    let identity = options.lease.identity.clone();
    let signs_in = options.certificates.then(|| options.lease.namespace.clone());
    let mut elector = Elector::new(client.clone(), options.lease, move || contact.contact());

    loop {
        let acquired = tokio::select! {
            () = elector.acquire() => true,
            () = shutdown.clone().wait() => false,
        };
        if !acquired {
            break;
        }
        tracing::info!("leads as {identity}");
        metrics.lead(true);
        let signs_in = signs_in.clone();
        let work = act(
            &client,
            options.settings,
            signs_in,
            &published,
            metrics.clone(),
            &identity,
            shutdown.clone(),
        );
        let lost = tokio::select! {
            () = work => None,
            lost = elector.hold() => Some(lost),
        };
        metrics.lead(false);
        published.clear();
        match lost {
            Some(lost) => tracing::warn!("{lost}"),
            None => {
                elector.release().await;
                tracing::info!("released the lease");
                break;
            }
        }
    }
    // The server ends with the shutdown; a panic in it was reported by the runtime.
    let _ = server.await;
    if let Some(files) = files {
        let _ = files.await;
    }
    Ok(())
}

/// Runs all controllers until the shutdown. Dropping it stops them.
async fn act(
    client: &Client,
    settings: Settings,
    signs_in: Option<String>,
    published: &http::Published,
    metrics: Arc<Metrics>,
    identity: &str,
    shutdown: Shutdown,
) {
    let (stores, queues, watches) = watch_all(client);
    published.set(stores.clone());
    let filled = stores.clone();
    let context = Arc::new(Context::new(client.clone(), settings, stores, metrics, identity));
    let controllers = async {
        let ready = tokio::select! {
            filled = filled.wait_until_filled() => filled,
            () = shutdown.clone().wait() => false,
        };
        if ready {
            tracing::info!("all objects are read; the controllers start");
            let signing = async {
                if let Some(namespace) = signs_in {
                    trust::run(context.clone(), namespace, shutdown.clone()).await;
                }
            };
            tokio::join!(controllers(context.clone(), queues, shutdown.clone()), signing);
        }
    };
    tokio::select! {
        () = watches => {}
        () = controllers => {}
    }
}

async fn controllers(context: Arc<Context>, queues: Queues, shutdown: Shutdown) {
    let Queues { volume, heal, job, policy, conflict, migration, workstation, brick } = queues;
    let Stores { volumes, jobs, policies, workstations, bricks, .. } = context.stores.clone();
    let v = || volumes.clone();
    let c = || context.clone();
    let s = || shutdown.clone();
    tokio::join!(
        controller::run("volume", c(), v(), volume, s(), volume::reconcile),
        controller::run("heal", c(), v(), heal, s(), heal::reconcile),
        controller::run("job", c(), jobs, job, s(), job::reconcile),
        controller::run("policy", c(), policies, policy, s(), policy::reconcile),
        controller::run("workstation", c(), workstations, workstation, s(), workstation::reconcile),
        controller::run("brick", c(), bricks, brick, s(), brick::reconcile),
        controller::run("migration", c(), v(), migration, s(), migration::reconcile),
        controller::run("conflict", c(), v(), conflict, s(), conflict::reconcile),
    );
}
