//! How every controller runs: on a store that all share, with a queue of wake-ups, metrics, and a rest after errors.

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Instant;

use futures::{Stream, StreamExt, stream};
use kube::runtime::controller::{Action, Controller, Error as ControllerError};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::context::Context;
use crate::error::Error;
use crate::shutdown::Shutdown;
use crate::stores::controller_config;

/// Runs a controller until the shutdown; reconciliations that have begun are finished.
pub async fn run<K, F>(
    name: &'static str,
    context: Arc<Context>,
    store: Store<K>,
    wake: impl Stream<Item = ObjectRef<K>> + Send + 'static,
    shutdown: Shutdown,
    reconcile: impl Fn(Arc<K>, Arc<Context>) -> F + Send + Sync + 'static,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Debug + Unpin,
    F: Future<Output = Result<Action, Error>> + Send + 'static,
{
    let timed = move |object: Arc<K>, context: Arc<Context>| {
        let key = key(name, &*object);
        let started = Instant::now();
        let work = reconcile(object, context.clone());
        async move {
            let result = work.await;
            let outcome = result.as_ref().map_or_else(Error::kind, |_| "ok");
            context.metrics.reconciled(name, outcome, started.elapsed());
            if result.is_ok() {
                context.backoff.succeeded(&key);
            }
            result
        }
    };
    let rest = move |object: Arc<K>, error: &Error, context: Arc<Context>| {
        let rest = context.backoff.failed(&key(name, &*object), rand::random());
        tracing::warn!("{name}: {error}; tries again in {rest:.1?}");
        Action::requeue(rest)
    };
    // The store's own watch wakes it by the queue, as others do.
    Controller::for_stream(stream::pending(), store)
        .with_config(controller_config())
        .reconcile_on(wake)
        .graceful_shutdown_on(shutdown.wait())
        .run(timed, rest, context)
        .for_each(|done| async move {
            match done {
                // Errors of reconciliations were logged where their rest was decided. An object that is
                // gone by now needs nothing.
                Ok(_) | Err(ControllerError::ReconcilerFailed(..) | ControllerError::ObjectNotFound(_)) => {}
                Err(ControllerError::QueueError(error)) => {
                    tracing::debug!("{name}: the watch broke: {error}")
                }
                Err(error) => tracing::warn!("{name}: {error}"),
            }
        })
        .await;
}

fn key<K: Resource<DynamicType = ()>>(controller: &str, object: &K) -> String {
    format!("{controller}/{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}
