//! Errors of reconciliations.

/// What went wrong, and with which object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("cannot {what}: {source}")]
    Api {
        /// What was tried, with the object's name.
        what: String,
        /// What the API server, or the way to it, said.
        source: Box<kube::Error>,
    },
    /// An object lacks something that the API server always gives.
    #[error("{0} has no {1}: it did not come from an API server")]
    Incomplete(String, &'static str),
    /// An authority cannot be read, or cannot sign.
    #[error("{0}")]
    Certificate(String),
    /// A value could not be turned into JSON; only a mistake in a type can cause it.
    #[error("cannot serialise a status: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// Wraps an error of a request.
    pub fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }

    /// One word for a metric's label.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Incomplete(..) => "incomplete",
            Self::Json(_) => "json",
            Self::Certificate(_) => "certificate",
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) => match status.code {
                    401 | 403 => "forbidden",
                    404 => "not_found",
                    409 => "conflict",
                    422 => "invalid",
                    429 => "throttled",
                    500..=599 => "server",
                    _ => "refused",
                },
                _ => "unreachable",
            },
        }
    }
}

/// Whether the API server said that there is no such object.
pub fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API server said that there is such an object already, or a newer version of it.
pub fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
