//! Requests, told apart. The API server has authorised the namespace, the resource, and the verb that it read in the path: what it could have
//! read in another way is refused here.

use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use nearbrick_crds::files::{
    API_VERSION, MOST_ROWS, PendingAsk, RestoreRequest, Subject, VerifyRequest, checked_path,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answers::{Answers, Volume};
use super::discovery;
use super::front::Front;

/// The longest body: paths, escaped.
const LONGEST_BODY: usize = 64 << 10;
/// The longest name in a request's path.
const LONGEST_NAME: usize = 253;

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As an API server would say it.
    pub code: StatusCode,
    /// One line.
    pub line: String,
}

impl Refused {
    /// With one line.
    pub fn new(code: StatusCode, line: impl Into<String>) -> Self {
        Refused { code, line: line.into() }
    }

    fn status(&self) -> Value {
        let reason = match self.code {
            StatusCode::BAD_REQUEST => "BadRequest",
            StatusCode::NOT_FOUND => "NotFound",
            StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
            StatusCode::CONFLICT => "Conflict",
            StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
            StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
            StatusCode::GATEWAY_TIMEOUT => "Timeout",
            _ => "InternalError",
        };
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.line, "reason": reason, "code": self.code.as_u16(),
        })
    }
}

/// The answer to any request.
pub async fn answer(answers: &Answers, front: &Front, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let done = match discovery::document(request.uri().path()) {
        Some(document) if request.method() == Method::GET => Ok(document),
        _ => of_volume(answers, front, request).await,
    };
    let (code, value) = match done {
        Ok(value) => (StatusCode::OK, value),
        Err(refused) => (refused.code, refused.status()),
    };
    let mut response = Response::new(Full::new(Bytes::from(value.to_string())));
    *response.status_mut() = code;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

async fn of_volume(answers: &Answers, front: &Front, request: Request<Incoming>) -> Result<Value, Refused> {
    let (volume, subject) = parsed(request.uri().path()).ok_or_else(|| {
        Refused::new(StatusCode::NOT_FOUND, format!("{} is nothing of {API_VERSION}", request.uri().path()))
    })?;
    let wanted = if subject.verb() == "get" { Method::GET } else { Method::POST };
    if *request.method() != wanted {
        let line = format!("{} is asked for by {wanted}", subject.as_str());
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, line));
    }
    let user = front.user(request.headers()).unwrap_or_else(|| "somebody unknown".to_owned());
    let query = Query::of(request.uri().query().unwrap_or_default());
    let value = match subject {
        Subject::Pending => json(answers.pending(&volume, query.pending()?).await?),
        Subject::Where => json(answers.whereabouts(&volume, &query.path()?).await?),
        Subject::Versions => json(answers.versions(&volume, query.node.as_deref(), &query.path()?).await?),
        Subject::Restore => {
            let wanted: RestoreRequest = body(request).await?;
            let line = format!("{volume}: version {} for {user}", wanted.version);
            tracing::info!("restore, {line}");
            let done = answers.restore(&volume, &wanted).await;
            match &done {
                Ok(done) => tracing::info!("restored, {line}: by the agent of {}", done.node),
                Err(refused) => tracing::info!("not restored, {line}: {}", refused.line),
            }
            json(done?)
        }
        Subject::Verify => {
            let wanted: VerifyRequest = body(request).await?;
            tracing::info!("verify, {volume}: for {user}");
            json(answers.verify(&volume, &wanted).await?)
        }
    };
    value.map_err(|e| {
        Refused::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the answer cannot be written: {e}"))
    })
}

fn json<T: serde::Serialize>(value: T) -> serde_json::Result<Value> {
    serde_json::to_value(value)
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refused> {
    let whole = Limited::new(request.into_body(), LONGEST_BODY).collect().await;
    let whole = whole.map_err(|e| {
        Refused::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request cannot be taken ({LONGEST_BODY} bytes at most): {e}"),
        )
    })?;
    serde_json::from_slice(&whole.to_bytes())
        .map_err(|e| Refused::new(StatusCode::BAD_REQUEST, format!("the request cannot be read: {e}")))
}

/// Names as Kubernetes has them: nothing in them can be read in two ways.
fn is_name(name: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !name.is_empty()
        && name.len() <= LONGEST_NAME
        && name.bytes().all(fits)
        && !name.starts_with('.')
        && !name.ends_with('.')
}

/// The volume and what is asked of it.
fn parsed(path: &str) -> Option<(Volume, Subject)> {
    let rest = path.strip_prefix("/apis/")?.strip_prefix(API_VERSION)?.strip_prefix("/namespaces/")?;
    let mut parts = rest.split('/');
    let (namespace, kind, name, subject) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let subject = Subject::ALL.into_iter().find(|s| s.as_str() == subject)?;
    let fits = parts.next().is_none() && kind == "workstationvolumes" && is_name(namespace) && is_name(name);
    fits.then(|| (Volume { namespace: namespace.to_owned(), name: name.to_owned() }, subject))
}

/// What is in a query. What is not known there is left alone, as API servers do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Query {
    node: Option<String>,
    path: Option<String>,
    limit: Option<String>,
    after: Option<String>,
}

impl Query {
    fn of(text: &str) -> Self {
        let mut query = Query::default();
        for (key, value) in form_urlencoded::parse(text.as_bytes()) {
            let slot = match &*key {
                "node" => &mut query.node,
                "path" => &mut query.path,
                "limit" => &mut query.limit,
                "continue" => &mut query.after,
                _ => continue,
            };
            *slot = Some(value.into_owned()).filter(|value| !value.is_empty());
        }
        query
    }

    fn path(&self) -> Result<String, Refused> {
        checked(self.path.as_deref().unwrap_or_default())
    }

    fn pending(self) -> Result<PendingAsk, Refused> {
        let path = self.path()?;
        let limit = match self.limit.as_deref().map(str::parse::<u32>) {
            None => 0,
            Some(Ok(limit @ 1..=MOST_ROWS)) => limit,
            Some(Ok(_)) => MOST_ROWS,
            Some(Err(_)) => return Err(Refused::new(StatusCode::BAD_REQUEST, "limit is a number of rows")),
        };
        Ok(PendingAsk { node: self.node, path, limit, after: self.after })
    }
}

/// A path that is asked for.
pub fn checked(path: &str) -> Result<String, Refused> {
    checked_path(path).map(str::to_owned).map_err(|line| Refused::new(StatusCode::BAD_REQUEST, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_in_one_way_only() {
        let at = |rest: &str| parsed(&format!("/apis/files.nearbrick.io/v1alpha1{rest}"));
        let (volume, subject) = at("/namespaces/lab/workstationvolumes/home/pending").unwrap();
        assert_eq!((volume.to_string().as_str(), subject), ("lab/home", Subject::Pending));
        for odd in [
            "/namespaces/lab/workstationvolumes/home",
            "/namespaces/lab/workstationvolumes/home/pending/",
            "/namespaces/lab/workstationvolumes/home/pending/more",
            "/namespaces/lab/workstationvolumes/home/secrets",
            "/namespaces/lab/bricks/home/pending",
            "/namespaces/a%2Fb/workstationvolumes/home/pending",
            "/namespaces/../workstationvolumes/home/pending",
            "/namespaces//workstationvolumes/home/pending",
            "/watch/namespaces/lab/workstationvolumes/home/pending",
            "//namespaces/lab/workstationvolumes/home/pending",
        ] {
            assert!(at(odd).is_none(), "{odd}");
        }
        assert!(
            parsed("/apis/nearbrick.io/v1alpha1/namespaces/lab/workstationvolumes/home/pending").is_none()
        );
    }

    #[test]
    fn queries_are_checked() {
        let of = |text: &str| Query::of(text).pending();
        let asked = of("node=ws-a&path=/a%20b/&limit=5000&continue=x&pretty=true").unwrap();
        let wanted = PendingAsk {
            node: Some("ws-a".to_owned()),
            path: "a b".to_owned(),
            limit: MOST_ROWS,
            after: Some("x".to_owned()),
        };
        assert_eq!(asked, wanted);
        assert_eq!(of(""), Ok(PendingAsk::default()));
        for bad in ["limit=many", "limit=-1", "path=a/../b"] {
            assert_eq!(of(bad).unwrap_err().code, StatusCode::BAD_REQUEST, "{bad}");
        }
    }
}
