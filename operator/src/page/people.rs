//! Requests to the API server as the person who looks at the page: with their token, and with nothing of the operator's own.
//!
//! The API server decides what each of them may read and change. A token is kept for the time of a request, and is in no log.

use std::time::Duration;

use futures::future::join_all;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Request, StatusCode};
use kube::api::{ListParams, ObjectList, PartialObjectMeta, Patch, PatchParams};
use kube::config::AuthInfo;
use kube::{Client, Config, Resource};
use nearbrick_crds::{Brick, ConflictPolicy, FileConflict, ReplicaMigration};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::view::{Rights, Scope};

/// Namespaces that are asked for one by one, where somebody may not read all.
const MOST_NAMESPACES: usize = 32;
/// The longest token that is taken.
const LONGEST_TOKEN: usize = 16 * 1024;

/// How long the API server is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a person is told, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// As the API server answered, or as if it had.
    pub code: StatusCode,
    /// The line.
    pub line: String,
}

impl Refused {
    fn new(code: StatusCode, line: impl Into<String>) -> Self {
        Self { code, line: line.into() }
    }
}

/// A person's token, as a header. Its `Debug` does not show it.
#[derive(Clone, Debug)]
pub struct Token(HeaderValue);

impl Token {
    /// The token in an `Authorization` header, if there is one.
    ///
    /// # Errors
    /// There is one that is no bearer token.
    pub fn of(header: Option<&HeaderValue>) -> Result<Option<Self>, Refused> {
        let Some(header) = header else { return Ok(None) };
        let wrong = || {
            Refused::new(
                StatusCode::UNAUTHORIZED,
                "this is no token: give one that kubectl create token makes",
            )
        };
        let token = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer ")).ok_or_else(wrong)?;
        let fits = |c: u8| c.is_ascii_alphanumeric() || b"-._~+/=".contains(&c);
        if token.is_empty() || token.len() > LONGEST_TOKEN || !token.bytes().all(fits) {
            return Err(wrong());
        }
        let mut value = header.clone();
        value.set_sensitive(true);
        Ok(Some(Self(value)))
    }
}

/// The way to the API server for people.
#[derive(Clone)]
pub struct People {
    client: Client,
}

impl People {
    /// Reaches this cluster, as nobody.
    ///
    /// # Errors
    /// One line.
    pub fn new(cluster: &Config) -> Result<Self, String> {
        let mut cluster = cluster.clone();
        cluster.auth_info = AuthInfo::default();
        cluster.connect_timeout = Some(PATIENCE);
        cluster.read_timeout = Some(PATIENCE);
        let client = Client::try_from(cluster);
        Ok(Self { client: client.map_err(|e| format!("cannot make a client: {e}"))? })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        token: &Token,
        request: Result<Request<Vec<u8>>, kube::core::request::Error>,
    ) -> Result<T, kube::Error> {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert(AUTHORIZATION, token.0.clone());
        self.client.request(request).await
    }

    /// Whether objects of a kind may be listed there: one is.
    async fn may_list<K>(&self, token: &Token, namespace: Option<&str>) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone,
    {
        let path = K::url_path(&(), namespace);
        let request = kube::core::Request::new(path).list_metadata(&ListParams::default().limit(1));
        self.ask::<ObjectList<PartialObjectMeta<K>>>(token, request).await.map(drop)
    }

    async fn scope<K>(&self, token: &Token, namespaces: &[String]) -> Result<Scope, kube::Error>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope> + Clone,
    {
        match self.may_list::<K>(token, None).await {
            Ok(()) => return Ok(Scope::All),
            Err(error) if is_forbidden(&error) => {}
            Err(error) => return Err(error),
        }
        let asked = namespaces.iter().take(MOST_NAMESPACES).map(|namespace| async move {
            match self.may_list::<K>(token, Some(namespace)).await {
                Ok(()) => Ok(Some(namespace.clone())),
                Err(error) if is_forbidden(&error) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let readable: Result<Vec<_>, _> = join_all(asked).await.into_iter().collect();
        Ok(Scope::Some(readable?.into_iter().flatten().collect()))
    }

    /// What they may see of volumes in these namespaces.
    ///
    /// # Errors
    /// Nothing, or the API server does not know them, or does not answer.
    pub async fn rights(&self, token: &Token, namespaces: &[String]) -> Result<Rights, Refused> {
        let (conflicts, bricks, moves) = tokio::join!(
            self.scope::<FileConflict>(token, namespaces),
            self.scope::<Brick>(token, namespaces),
            self.scope::<ReplicaMigration>(token, namespaces),
        );
        let rights = Rights {
            conflicts: conflicts.map_err(|e| refused("list conflicts", &e))?,
            bricks: bricks.map_err(|e| refused("list bricks", &e))?,
            moves: moves.map_err(|e| refused("list moves", &e))?,
        };
        if rights.is_none() {
            let line = "with this token you may list neither fileconflicts nor bricks nor replicamigrations of nearbrick.io: ask for a Role";
            return Err(Refused::new(StatusCode::FORBIDDEN, line));
        }
        Ok(rights)
    }

    /// Says what becomes of a conflict: the change that `kubectl nearbrick resolve` makes. The path of its file.
    ///
    /// # Errors
    /// What is asked makes no sense, or the API server refuses it.
    pub async fn resolve(
        &self,
        token: &Token,
        namespace: &str,
        name: &str,
        resolution: &str,
    ) -> Result<String, Refused> {
        checked(namespace, name, resolution)?;
        let path = FileConflict::url_path(&(), Some(namespace));
        let patch = Patch::Merge(json!({ "spec": { "resolution": resolution } }));
        let request = kube::core::Request::new(path).patch(name, &PatchParams::default(), &patch);
        let what = format!("change the conflict {namespace}/{name}");
        let changed: FileConflict = self.ask(token, request).await.map_err(|e| refused(&what, &e))?;
        Ok(changed.spec.path)
    }
}

/// What becomes part of a request's path is a name and nothing else.
fn checked(namespace: &str, name: &str, resolution: &str) -> Result<(), Refused> {
    let is_name = |text: &str| {
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
        (1..=253).contains(&text.len()) && !text.contains("..") && text.bytes().all(fits)
    };
    if !is_name(namespace) || !is_name(name) {
        return Err(Refused::new(StatusCode::BAD_REQUEST, "this is no name of a conflict"));
    }
    match resolution.parse::<ConflictPolicy>() {
        Ok(ConflictPolicy::Manual) | Err(_) => {
            let line = "a resolution is KeepBoth, Newest, Largest or Brick/NAME";
            Err(Refused::new(StatusCode::BAD_REQUEST, line))
        }
        Ok(_) => Ok(()),
    }
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

fn refused(what: &str, error: &kube::Error) -> Refused {
    match error {
        kube::Error::Api(status) => {
            let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_GATEWAY);
            let line = match status.code {
                401 => {
                    "the API server does not take this token: it is over, or of another cluster".to_owned()
                }
                _ => format!("cannot {what}: {}", status.message.lines().collect::<Vec<_>>().join(" ")),
            };
            Refused::new(code, line)
        }
        // Its text has the address of the API server, and nothing of the person.
        error => {
            tracing::debug!("a request for a person failed: {error}");
            Refused::new(StatusCode::BAD_GATEWAY, format!("cannot {what}: the API server does not answer"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_bearer_token_and_is_never_shown() {
        let of = |text: &'static str| Token::of(Some(&HeaderValue::from_static(text)));
        assert!(Token::of(None).unwrap().is_none());
        let token = of("Bearer abc.def-g_h=").unwrap().unwrap();
        assert!(!format!("{token:?}").contains("abc"), "{token:?}");
        for wrong in ["Basic abc", "Bearer ", "Bearer a b", "bearer", "Bearer a,b"] {
            assert_eq!(of(wrong).unwrap_err().code, StatusCode::UNAUTHORIZED, "{wrong}");
        }
        let long = HeaderValue::from_str(&format!("Bearer {}", "a".repeat(LONGEST_TOKEN + 1))).unwrap();
        assert!(Token::of(Some(&long)).is_err());
    }

    #[test]
    fn only_names_and_resolutions_go_on() {
        let name = "home.0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        for resolution in ["KeepBoth", "Newest", "Largest", "Brick/ws-a"] {
            assert_eq!(checked("lab", name, resolution), Ok(()));
        }
        for (namespace, name, resolution) in [
            ("lab", "../secrets/x", "Newest"),
            ("lab/secrets", name, "Newest"),
            ("..", name, "Newest"),
            ("lab", "", "Newest"),
            ("lab", "a?b", "Newest"),
            ("lab", name, "Manual"),
            ("lab", name, "Mine"),
            ("lab", name, ""),
        ] {
            assert!(checked(namespace, name, resolution).is_err(), "{namespace} {name} {resolution}");
        }
    }

    #[test]
    fn what_the_api_server_says_is_one_line() {
        let status = kube::core::Status { code: 403, message: "no\nnever".to_owned(), ..Default::default() };
        let said = refused("list bricks", &kube::Error::Api(status.boxed()));
        assert_eq!((said.code, said.line.as_str()), (StatusCode::FORBIDDEN, "cannot list bricks: no never"));
    }
}
