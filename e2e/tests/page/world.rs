//! A volume with something of everything that the page shows, people with tokens, and requests.

use std::net::SocketAddr;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use nearbrick_crds::{FileConflict, HealJob, ReplicaMigration, WorkstationVolume};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::agent::{Agent, Nodes};
use crate::support::{self, Namespace, ago, eventually};

/// The file in conflict.
pub const FILE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
/// Its `FileConflict`.
pub const CONFLICT: &str = "home.0f1e2d3c4b5a69788796a5b4c3d2e1f0";

/// A lab of three workstations.
pub struct World {
    /// Its namespace.
    pub ns: Namespace,
    /// Where the operator is.
    pub address: SocketAddr,
    /// Its workstations.
    pub nodes: Vec<String>,
    // They report until this value goes.
    agents: Vec<Agent>,
    /// What the last of them says.
    last: Value,
}

fn pending(files: u64, mebibytes: u64) -> Value {
    json!({ "files": files, "bytes": mebibytes << 20, "oldestSince": ago(95) })
}

fn group(path: &str, local: u64) -> Value {
    json!({ "path": path, "below": true, "local": local, "cached": 0, "remote": 2, "writes": 5, "files": 40,
            "bytes": 1 << 20, "awayFiles": 0, "awayBytes": 0 })
}

impl World {
    /// Makes it, with nodes of these names, and waits until the operator says all of it. `path` is the file in conflict, `project`
    /// a directory that is used.
    pub async fn new(prefix: &str, names: [&str; 3], path: &str, project: &str) -> Self {
        let ns = Namespace::new(prefix).await;
        let address = support::operator::shared().await;
        let mut nodes = Nodes::new(&ns, &[]).await;
        for (name, zone) in names.iter().zip(["north", "north", "south"]) {
            nodes.add(name, json!({ "topology.kubernetes.io/zone": zone })).await;
        }
        let spec = json!({ "members": { "nodes": names } });
        ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
        let version = |n: usize, size: u64, hash: &str| {
            json!({ "writer": names[n], "brick": format!("home.{}", names[n]), "size": size, "mtime": ago(400),
                    "hash": hash.repeat(32) })
        };
        let conflict = json!({ "file": FILE, "path": path, "open": true,
            "versions": [version(0, 24_310, "a7"), version(1, 25_002, "3e")] });
        let (mut agents, mut said) = (vec![], Value::Null);
        for (n, name) in names.iter().enumerate() {
            let agent = Agent::start(&ns, "home", name).await;
            let uses = u64::try_from(n).unwrap();
            let mut status = json!({
                "message": format!("mounted; last wrote {path}"), "files": 18_204, "bytes": 41_u64 << 30,
                "capacityBytes": 500_u64 << 30, "freeBytes": (310 - 90 * uses) << 30,
                "conflicts": 1, "conflictList": [conflict],
                "hottest": [group(project, 40 - 19 * uses), group("papers", 3 + 9 * uses)],
            });
            if n == 2 {
                status["pendingIn"] = pending(31, 214);
            }
            agent.report(&format!("home.{name}"), status.clone()).await;
            said = status;
            agents.push(agent);
        }
        let world = Self { ns, address, nodes: names.map(str::to_owned).into(), agents, last: said };
        let namespace = world.ns.name.clone();
        world
            .until("all of it is shown", |status| {
                let here = |list: &str| {
                    status[list]
                        .as_array()
                        .into_iter()
                        .flatten()
                        .find(|o| o["namespace"] == namespace)
                        .cloned()
                };
                let volume = here("volumes")?;
                let is_all =
                    volume["conflicts"] == 1 && here("heat").is_some() && volume["pending"]["files"] == 31;
                is_all.then_some(())
            })
            .await;
        world.ns.until("it is open", CONFLICT, |c: &FileConflict| c.status.as_ref()?.phase.map(drop)).await;
        world
    }

    /// A heal is asked for, and under way.
    pub async fn heals(&self) {
        self.ns.patch::<WorkstationVolume>("home", json!({ "spec": { "trigger": "1" } })).await;
        let jobs = self.ns.api::<HealJob>();
        let job = eventually("a job", || async {
            jobs.list(&Default::default()).await.unwrap().items.into_iter().find_map(|j| j.metadata.name)
        })
        .await;
        let transfer = json!({ "target": format!("home.{}", self.nodes[2]), "phase": "Running", "filesTotal": 31,
            "filesDone": 12, "bytesTotal": 214_u64 << 20, "bytesDone": 80_u64 << 20,
            "bytesPerSecond": 21_u64 << 20, "etaSeconds": 6, "startedAt": ago(4) });
        self.agents[2].transfer(&job, transfer).await;
        let running = |status: &Value| {
            let heals = status["heals"].as_array()?.iter();
            heals
                .filter(|h| h["namespace"] == self.ns.name.as_str())
                .find(|h| h["phase"] == "Running")
                .map(drop)
        };
        self.until("a heal runs", running).await;
    }

    /// Files are to move to the last workstation.
    pub async fn moves(&self, paths: &str) {
        let [from, to] = [0, 2].map(|n| format!("home.{}", self.nodes[n]));
        let spec = json!({ "volumeRef": { "name": "home" }, "paths": [paths], "from": from, "to": to });
        self.ns.create::<ReplicaMigration>(json!({ "metadata": { "name": "follow" }, "spec": spec })).await;
        self.until("a move is shown", |status| {
            let mut moves = status["moves"].as_array()?.iter();
            moves.find(|m| m["namespace"] == self.ns.name.as_str() && m["from"] == from.as_str()).map(drop)
        })
        .await;
    }

    /// The last workstation lacks so much now.
    pub async fn lacks(&self, files: u64, mebibytes: u64) {
        let mut status = self.last.clone();
        status["pendingIn"] = pending(files, mebibytes);
        self.agents[2].report(&format!("home.{}", self.nodes[2]), status).await;
    }

    /// What the page shows to nobody in particular, once `check` finds what it wants there.
    pub async fn until<T>(&self, what: &str, check: impl Fn(&Value) -> Option<T>) -> T {
        eventually(what, || async {
            let (code, body) = self.get("/status.json", None).await;
            (code == 200).then(|| check(&serde_json::from_str(&body).unwrap())).flatten()
        })
        .await
    }

    /// A token of somebody who may do this with these kinds, in this namespace.
    pub async fn person(&self, name: &str, rules: &[(&str, &str)]) -> String {
        let account = json!({ "metadata": { "name": name } });
        self.ns.create::<ServiceAccount>(account).await;
        if !rules.is_empty() {
            let rule = |(kind, verbs): &(&str, &str)| {
                json!({ "apiGroups": ["nearbrick.io"], "resources": [kind],
                        "verbs": verbs.split(',').collect::<Vec<_>>() })
            };
            let rules: Vec<Value> = rules.iter().map(rule).collect();
            self.ns.create::<Role>(json!({ "metadata": { "name": name }, "rules": rules })).await;
            self.ns
                .create::<RoleBinding>(json!({
                    "metadata": { "name": name },
                    "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
                    "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": self.ns.name }],
                }))
                .await;
        }
        let request = TokenRequest {
            spec: TokenRequestSpec { audiences: vec![], ..Default::default() },
            ..Default::default()
        };
        let accounts = self.ns.api::<ServiceAccount>();
        let made = accounts.create_token_request(name, &PostParams::default(), &request).await.unwrap();
        made.status.unwrap().token
    }

    /// Code and body of a page.
    pub async fn get(&self, path: &str, token: Option<&str>) -> (u16, String) {
        let header = token.map(|token| format!("authorization: Bearer {token}"));
        let answer = self.request("GET", path, &header.into_iter().collect::<Vec<_>>(), "").await;
        (answer.0, answer.2)
    }

    /// Asks for a resolution as the page does; code and body.
    pub async fn resolve(&self, token: &str, resolution: &str) -> (u16, String) {
        let body = json!({ "namespace": self.ns.name, "name": CONFLICT, "resolution": resolution });
        let headers = [
            "content-type: application/json".to_owned(),
            format!("origin: http://{}", self.address),
            format!("authorization: Bearer {token}"),
        ];
        let answer = self.request("POST", "/resolve", &headers, &body.to_string()).await;
        (answer.0, answer.2)
    }

    /// Code, headers and body of what is answered to a request.
    pub async fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[String],
        body: &str,
    ) -> (u16, String, String) {
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let length =
            if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let more: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{length}{more}\r\n{body}",
            self.address
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        (code, head.to_ascii_lowercase(), body.to_owned())
    }

    /// What a person chose in the conflict.
    pub async fn resolution(&self) -> Option<String> {
        self.ns.api::<FileConflict>().get(CONFLICT).await.unwrap().spec.resolution
    }
}
