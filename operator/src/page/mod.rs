//! The status page: what the objects say, for a browser; and one change, that of a conflict's resolution.
//!
//! Without a token it shows counts and states, as `/metrics` does. With a person's own token, which the page keeps in its memory
//! only, the API server is asked, as that person, what they may read; a change is a request of theirs (`people`). The operator's
//! own rights show nobody a path and change nothing. What is shown is decided in `view`.
//!
//! Page, style and script are of this program, and the policy that goes with them lets nothing else in.

pub mod history;
pub mod people;
pub mod view;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HOST, HeaderMap, HeaderName,
    IF_NONE_MATCH, ORIGIN, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{Response, StatusCode};
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use warp::Filter;
use warp::filters::BoxedFilter;

use self::history::History;
use self::people::{People, Refused, Token};
use self::view::{Objects, Rights, View};
use crate::http::Published;

/// Requests with tokens that are under way at a time: each makes requests to the API server.
const MOST_AT_ONCE: usize = 16;
/// The longest body of a change.
const LONGEST_BODY: u64 = 4096;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PARTS: [(&str, &str, &str); 3] = [
    ("", "text/html; charset=utf-8", include_str!("page.html")),
    ("page.css", "text/css; charset=utf-8", include_str!("page.css")),
    ("page.js", "text/javascript; charset=utf-8", include_str!("page.js")),
];

type Answer = Response<String>;

/// What the page needs.
#[derive(Clone)]
pub struct Page {
    stores: Published,
    history: Arc<History>,
    people: People,
    slots: Arc<Semaphore>,
}

/// A change that a person asks for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Resolve {
    namespace: String,
    name: String,
    resolution: String,
}

impl Page {
    /// The page of what is in `stores`.
    pub fn new(stores: Published, people: People) -> Self {
        Self { stores, history: Arc::default(), people, slots: Arc::new(Semaphore::new(MOST_AT_ONCE)) }
    }

    /// What was pending.
    pub fn history(&self) -> Arc<History> {
        self.history.clone()
    }

    /// `/`, `/page.css`, `/page.js`, `/status.json` and `/resolve`.
    pub fn routes(self) -> BoxedFilter<(Answer,)> {
        let parts = warp::get().and(warp::path::full()).and_then(|path: warp::path::FullPath| async move {
            let path = path.as_str().trim_start_matches('/').to_owned();
            let part = PARTS.iter().find(|(name, ..)| *name == path);
            part.map(|(_, kind, text)| answer(StatusCode::OK, kind, (*text).to_owned()))
                .ok_or_else(warp::reject::not_found)
        });
        let page = self.clone();
        let status = warp::path!("status.json").and(warp::get()).and(warp::header::headers_cloned()).then(
            move |headers: HeaderMap| {
                let page = page.clone();
                async move { page.status(&headers).await.unwrap_or_else(said) }
            },
        );
        let resolve = warp::path!("resolve")
            .and(warp::post())
            .and(warp::header::headers_cloned())
            .and(warp::body::content_length_limit(LONGEST_BODY))
            .and(warp::body::bytes())
            .then(move |headers: HeaderMap, body| {
                let page = self.clone();
                async move { page.resolve(&headers, &Vec::from(body)).await.unwrap_or_else(said) }
            });
        parts.or(status).unify().or(resolve).unify().boxed()
    }

    async fn status(&self, headers: &HeaderMap) -> Result<Answer, Refused> {
        let token = Token::of(headers.get(AUTHORIZATION))?;
        let view = match self.stores.get().filter(crate::stores::Stores::are_filled) {
            None => View::standing_by(),
            Some(stores) => {
                let objects = Objects::of(&stores);
                let rights = match &token {
                    None => Rights::default(),
                    Some(token) => {
                        let _slot = self.slot()?;
                        let namespaces: BTreeSet<String> =
                            objects.volumes.iter().filter_map(|v| v.namespace()).collect();
                        self.people.rights(token, &namespaces.into_iter().collect::<Vec<_>>()).await?
                    }
                };
                View::of(&objects, &rights, |namespace, name| self.history.of(namespace, name))
            }
        };
        let body = serde_json::to_string(&view).map_err(|e| Refused {
            code: StatusCode::INTERNAL_SERVER_ERROR,
            line: format!("cannot write the status: {e}"),
        })?;
        Ok(unless_known(headers, body))
    }

    async fn resolve(&self, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Refused> {
        is_of_the_page(headers)?;
        let token = Token::of(headers.get(AUTHORIZATION))?.ok_or_else(|| Refused {
            code: StatusCode::UNAUTHORIZED,
            line: "a change needs your token".to_owned(),
        })?;
        let Resolve { namespace, name, resolution } = serde_json::from_slice(body).map_err(|_| Refused {
            code: StatusCode::BAD_REQUEST,
            line: "say namespace, name and resolution".to_owned(),
        })?;
        let _slot = self.slot()?;
        let path = self.people.resolve(&token, &namespace, &name, &resolution).await?;
        Ok(json(StatusCode::OK, &json!({ "path": path, "resolution": resolution })))
    }

    fn slot(&self) -> Result<tokio::sync::SemaphorePermit<'_>, Refused> {
        self.slots.try_acquire().map_err(|_| Refused {
            code: StatusCode::SERVICE_UNAVAILABLE,
            line: "too many ask at once: try again in a moment".to_owned(),
        })
    }
}

/// Whether a change comes from the page itself: JSON, which no form of another site can send, and of the same origin where the
/// browser says one.
fn is_of_the_page(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name: HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or("?"));
    let kind = text(CONTENT_TYPE).and_then(|kind| kind.split(';').next()).map(str::trim);
    if !kind.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return Err(Refused {
            code: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            line: "a change is application/json".to_owned(),
        });
    }
    let host = text(HOST);
    let same_host = |origin: &str| origin.split_once("://").map(|(_, authority)| authority) == host;
    let is_same = text(ORIGIN).is_none_or(same_host)
        && text(HeaderName::from_static("sec-fetch-site")).is_none_or(|site| site == "same-origin");
    is_same.then_some(()).ok_or_else(|| Refused {
        code: StatusCode::FORBIDDEN,
        line: "a change comes from this page only".to_owned(),
    })
}

fn said(refused: Refused) -> Answer {
    json(refused.code, &json!({ "error": refused.line }))
}

fn json(code: StatusCode, value: &serde_json::Value) -> Answer {
    answer(code, "application/json", value.to_string())
}

/// The body with its tag; only the tag, where the browser has it.
fn unless_known(headers: &HeaderMap, body: String) -> Answer {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = if is_known {
        answer(StatusCode::NOT_MODIFIED, "application/json", String::new())
    } else {
        answer(StatusCode::OK, "application/json", body)
    };
    if let Ok(tag) = tag.parse() {
        answer.headers_mut().insert(ETAG, tag);
    }
    answer
}

fn answer(code: StatusCode, kind: &'static str, body: String) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    let own = [
        (CONTENT_TYPE, kind),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
        // Nothing of it is kept on a disk.
        (CACHE_CONTROL, "no-store"),
        (VARY, "authorization"),
    ];
    for (name, value) in own {
        answer.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(n, v)| (HeaderName::from_static(n), v.parse().unwrap())).collect()
    }

    #[test]
    fn changes_come_from_the_page_itself() {
        let json = ("content-type", "application/json");
        let host = ("host", "localhost:8080");
        for good in [
            &[json, host][..],
            &[json, host, ("origin", "http://localhost:8080"), ("sec-fetch-site", "same-origin")],
            &[("content-type", "application/json; charset=utf-8"), host],
        ] {
            assert_eq!(is_of_the_page(&headers(good)), Ok(()), "{good:?}");
        }
        for bad in [
            &[host][..],
            &[("content-type", "text/plain"), host],
            &[json, host, ("origin", "http://evil.example")],
            &[json, host, ("origin", "null")],
            &[json, host, ("sec-fetch-site", "cross-site")],
            &[json, host, ("sec-fetch-site", "same-site")],
            &[json, ("origin", "http://localhost:8080")],
        ] {
            assert!(is_of_the_page(&headers(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_the_browser_has_is_not_sent_again() {
        let first = unless_known(&HeaderMap::new(), "{}".to_owned());
        let tag = first.headers()[ETAG].to_str().unwrap();
        let again = unless_known(&headers(&[("if-none-match", tag)]), "{}".to_owned());
        assert_eq!((again.status(), again.body().as_str()), (StatusCode::NOT_MODIFIED, ""));
        let other = unless_known(&headers(&[("if-none-match", tag)]), "[]".to_owned());
        assert_eq!((other.status(), other.body().as_str()), (StatusCode::OK, "[]"));
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_writes_no_markup() {
        for (name, _, text) in PARTS {
            for foreign in ["http:", "https:", "//cdn", "@import", "url("] {
                // The namespace of SVG is a name and no address.
                let text = text.replace("http://www.w3.org/2000/svg", "");
                assert!(!text.contains(foreign), "{name}: {foreign}");
            }
            for markup in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "localStorage",
                "sessionStorage",
                "document.cookie",
            ] {
                assert!(!text.contains(markup), "{name}: {markup}");
            }
        }
        let html = PARTS[0].2;
        assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains(" onclick"));
        assert_eq!(html.matches("<script").count(), 1);
    }
}
