//! The way to the API server; each request is counted.

use std::sync::Arc;

use http::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::util::MapRequestLayer;

use crate::metrics::Metrics;

/// A client of this cluster. An error is one line for a person.
pub fn connect(cluster: Config, metrics: Arc<Metrics>) -> Result<Client, String> {
    let builder = ClientBuilder::try_from(cluster).map_err(|e| format!("cannot make a client: {e}"))?;
    let count = move |request: Request<Body>| {
        metrics.asked(verb(request.method(), request.uri().query()));
        request
    };
    Ok(builder.with_layer(&MapRequestLayer::new(count)).build())
}

/// As Kubernetes names it; a list is a `get` here.
fn verb(method: &Method, query: Option<&str>) -> &'static str {
    let watches = || query.is_some_and(|q| q.split('&').any(|part| part == "watch=true"));
    match *method {
        Method::GET if watches() => "watch",
        Method::GET => "get",
        Method::POST => "create",
        Method::PATCH => "patch",
        Method::PUT => "update",
        Method::DELETE => "delete",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_told_from_a_list() {
        assert_eq!(verb(&Method::GET, Some("limit=500&watch=true")), "watch");
        assert_eq!(verb(&Method::GET, Some("limit=500")), "get");
        assert_eq!(verb(&Method::PATCH, None), "patch");
    }
}
