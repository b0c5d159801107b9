//! `/metrics`, `/healthz` and `/readyz`, and the status page.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use warp::Filter;
use warp::http::{Response, StatusCode};

use crate::backoff::lock;
use crate::metrics::Metrics;
use crate::page::Page;
use crate::shutdown::Shutdown;
use crate::stores::Stores;

/// Seconds without an answer from the API server after which this process is not ready.
const SILENT_AFTER: i64 = 30;

/// Opens the port; the error is one line for a person.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|e| format!("cannot listen on {address}: {e}: choose another address with --listen"))
}

/// The stores of the operator while it leads.
#[derive(Clone, Default)]
pub struct Published(Arc<Mutex<Option<Stores>>>);

impl Published {
    /// These are the stores now.
    pub fn set(&self, stores: Stores) {
        *lock(&self.0) = Some(stores);
    }

    /// There are none.
    pub fn clear(&self) {
        *lock(&self.0) = None;
    }

    /// The stores, if there are some.
    pub(crate) fn get(&self) -> Option<Stores> {
        lock(&self.0).clone()
    }
}

/// Serves until the shutdown.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    stores: Published,
    page: Page,
    shutdown: Shutdown,
) {
    let health = warp::path!("healthz").map(|| "ok\n".to_string());
    let ready = {
        let metrics = metrics.clone();
        let stores = stores.clone();
        warp::path!("readyz").map(move || {
            let (code, text) = readiness(&metrics, stores.get().as_ref());
            warp::reply::with_status(text, code)
        })
    };
    let text = warp::path!("metrics").map(move || match metrics.render(stores.get().as_ref()) {
        Ok(text) => Response::builder()
            .header("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")
            .body(text),
        Err(error) => Response::builder()
            .status(StatusCode::INTERNAL_SERVER_ERROR)
            .body(format!("cannot write the metrics: {error}\n")),
    });
    let routes = warp::get().and(health.or(ready).or(text)).or(page.routes());
    warp::serve(routes).incoming(listener).graceful(shutdown.wait()).run().await;
}

fn readiness(metrics: &Metrics, stores: Option<&Stores>) -> (StatusCode, String) {
    if metrics.contact_age() > SILENT_AFTER {
        return (StatusCode::SERVICE_UNAVAILABLE, "the API server does not answer\n".to_string());
    }
    if !metrics.is_leading() {
        return (StatusCode::OK, "stands by\n".to_string());
    }
    match stores {
        Some(stores) if stores.are_filled() => (StatusCode::OK, "leads\n".to_string()),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "leads, and still reads the objects\n".to_string()),
    }
}
