//! Alert rules and dashboard of the chart: promtool takes the rules and tests each; each metric that they name is one that a running
//! operator or agent says, with these labels; and each metric and each alert is explained.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

#[path = "operator_support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output};

use nearbrick_crds::{HealPolicy, WorkstationVolume};
use nearbrick_e2e::control_plane::binaries;
use nearbrick_e2e::pki::{Authority, Subject};
use nearbrick_e2e::programs::Programs;
use nearbrick_e2e::{ControlPlane, kube_api, packages, paths, pki};
use serde_json::{Value, json};
use support::Namespace;
use support::agent::{Agent, Nodes};
use support::operator::{Operator, page};

/// Metrics by name; of each the names of its labels.
type Metrics = BTreeMap<String, BTreeSet<String>>;

fn chart() -> PathBuf {
    paths::workspace().join("charts/nearbrick")
}

fn rules() -> PathBuf {
    chart().join("files/alerts.yaml")
}

fn rule_tests() -> PathBuf {
    paths::workspace().join("e2e/tests/alerts/alerts.yaml")
}

fn yaml(file: PathBuf) -> Value {
    serde_norway::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn list<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().unwrap_or_else(|| panic!("no list {key} in {value}"))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn alerts() -> Vec<Value> {
    list(&yaml(rules()), "groups").iter().flat_map(|g| list(g, "rules").clone()).collect()
}

#[test]
fn promtool_takes_the_rules_and_their_tests_pass() {
    packages::ensure(packages::MONITORING).unwrap();
    for (what, file) in [("rules", rules()), ("tests", rule_tests())] {
        let verb = if what == "rules" { "check" } else { "test" };
        let output = Command::new("promtool").args([verb, "rules"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{what}: {}", said(&output));
    }
}

#[test]
fn each_alert_is_tested_both_ways() {
    let tests = yaml(rule_tests());
    let cases: Vec<&Value> = list(&tests, "tests").iter().flat_map(|t| list(t, "alert_rule_test")).collect();
    for alert in alerts() {
        for fires in [true, false] {
            let is_tested = cases
                .iter()
                .any(|c| c["alertname"] == alert["alert"] && list(c, "exp_alerts").is_empty() != fires);
            assert!(is_tested, "no test in which {} fires: {fires}", alert["alert"]);
        }
    }
}

/// The metrics that an expression of Prometheus names.
fn named_in(expression: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    expression.split(move |c| !is_name(c)).filter(|word| word.starts_with("nearbrick_"))
}

/// The labels of a series as Prometheus writes it; values hold no comma here.
fn labels(series: &str) -> BTreeSet<String> {
    let inner = series.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
    inner.split(',').filter_map(|pair| Some(pair.split_once('=')?.0.trim().to_owned())).collect()
}

/// What a text in OpenMetrics says: of what it only describes the name, of what it has a sample of the labels too.
fn metrics(text: &str) -> Metrics {
    let mut found = Metrics::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let endings: &[&str] = match kind {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            for ending in endings {
                found.entry(format!("{name}{ending}")).or_default();
            }
        } else if !line.starts_with('#')
            && let Some((series, _)) = line.rsplit_once(' ')
        {
            let name = series.split('{').next().unwrap_or_default();
            found.entry(name.to_owned()).or_default().extend(labels(series));
        }
    }
    found
}

/// What an operator says that leads, of a volume whose policy has limits, and whose agents report.
async fn of_the_operator() -> Metrics {
    let ns = Namespace::new("monitoring").await;
    let operator = Operator::start("monitoring").await;
    let nodes = Nodes::new(&ns, &["a", "b"]).await;
    let limits = json!({ "maxPendingAge": "1h", "maxPendingBytes": "1Gi" });
    ns.create::<HealPolicy>(json!({ "metadata": { "name": "limits" }, "spec": limits })).await;
    let spec = json!({ "members": { "nodes": nodes.names }, "healPolicyRef": { "name": "limits" } });
    ns.create::<WorkstationVolume>(json!({ "metadata": { "name": "home" }, "spec": spec })).await;
    let now = support::ago(0);
    let looked =
        json!({ "lastVerifiedTime": now, "verification": { "startedAt": now }, "unrepairedFiles": 0 });
    let mut agents = vec![];
    for node in &nodes.names {
        let agent = Agent::start(&ns, "home", node).await;
        agent.report(&format!("home.{node}"), looked.clone()).await;
        agents.push(agent);
    }
    ns.patch::<WorkstationVolume>("home", json!({ "spec": { "trigger": "1" } })).await;
    let mut lacks = looked;
    lacks["pendingIn"] = json!({ "files": 3, "bytes": 3, "oldestSince": support::ago(60) });
    agents[1].report(&format!("home.{}", nodes.names[1]), lacks).await;
    // Which job there is, the operator decides; that one ends is the agents' part.
    let jobs = ns.api::<nearbrick_crds::HealJob>();
    let job = support::eventually("a job", || async {
        jobs.list(&Default::default()).await.unwrap().items.into_iter().find_map(|j| j.metadata.name)
    })
    .await;
    let transfer = json!({ "target": format!("home.{}", nodes.names[1]), "phase": "Completed",
        "filesTotal": 3, "filesDone": 3, "bytesTotal": 3, "bytesDone": 3 });
    agents[1].transfer(&job, transfer).await;
    let address = operator.address;
    let found = kube_api::eventually("metrics of all that was made", support::LIMIT, || async {
        let text = page(address, "/metrics").await.ok_or("no answer")?;
        let found = metrics(&text);
        let all = ["last_heal_timestamp_seconds", "last_verified_timestamp_seconds", "verification_overdue"];
        let has = |name: &str| found.contains_key(&format!("nearbrick_operator_volume_{name}"));
        all.iter().all(|name| has(name)).then_some(found).ok_or(text)
    })
    .await
    .unwrap();
    operator.stop().await.unwrap();
    found
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What an agent says that carries no volume.
async fn of_an_agent() -> Metrics {
    let plane = ControlPlane::shared().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new("agents").unwrap();
    let subject = Subject { name: "ws-a", dns: &["ws-a"], ..Subject::default() };
    authority.sign(&subject).unwrap().write(dir.path(), "tls").unwrap();
    pki::write_file(&dir.path().join("ca.crt"), authority.cert(), 0o644).unwrap();
    // Both are bound at once, so that they differ.
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [peers, scrapes] = ports.each_ref().map(|port| port.local_addr().unwrap());
    drop(ports);
    let folder = |name: &str| dir.path().join(name);
    let child = Command::new(Programs::ensure().unwrap().agent)
        .args(["run", "--node", "ws-a", "--holder", "none"])
        .args(["--listen", &peers.to_string(), "--metrics", &scrapes.to_string()])
        .arg("--kubeconfig")
        .arg(plane.kubeconfig())
        .arg("--bricks-dir")
        .arg(folder("bricks"))
        .arg("--mounts-dir")
        .arg(folder("volumes"))
        .arg("--run-dir")
        .arg(folder("run"))
        .arg("--tls-dir")
        .arg(dir.path())
        .spawn();
    let _running = Running(child.unwrap());
    support::eventually("the agent's metrics", || async {
        let text = page(scrapes, "/metrics").await?;
        text.contains("# EOF").then(|| metrics(&text))
    })
    .await
}

#[tokio::test]
async fn rules_dashboard_and_documents_name_what_is_there() {
    let operator = of_the_operator().await;
    let agent = of_an_agent().await;
    let all: Metrics = operator.clone().into_iter().chain(agent.clone()).collect();

    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(chart().join("files/dashboard.json")).unwrap())
            .unwrap();
    let mut expressions: Vec<String> = vec![];
    for alert in alerts() {
        expressions.push(alert["expr"].as_str().unwrap().to_owned());
    }
    for panel in list(&dashboard, "panels") {
        for target in list(panel, "targets") {
            expressions.push(target["expr"].as_str().unwrap().to_owned());
        }
    }
    for variable in list(&dashboard["templating"], "list") {
        expressions.push(variable["query"]["query"].as_str().unwrap_or_default().to_owned());
    }
    for expression in &expressions {
        for name in named_in(expression) {
            assert!(all.contains_key(name), "{expression}: nobody says {name}");
        }
    }
    assert!(expressions.iter().map(|e| named_in(e).count()).sum::<usize>() > 20);

    // The worlds of the rules' tests are like this one: the same labels, and those that the scrape adds.
    for test in list(&yaml(rule_tests()), "tests") {
        let series = test["input_series"].as_array().into_iter().flatten();
        for series in series.map(|s| s["series"].as_str().unwrap()) {
            let name = series.split('{').next().unwrap();
            assert!(all.contains_key(name), "{series}: nobody says {name}");
            if let Some(real) = operator.get(name) {
                let mut made_up = labels(series);
                made_up.remove("pod");
                assert_eq!(&made_up, real, "{series}");
            }
        }
    }

    let document = std::fs::read_to_string(paths::workspace().join("docs/OPERATIONS.md")).unwrap();
    for (name, real) in &all {
        // A histogram is explained once, and its sum and count are its.
        let family = ["_bucket", "_sum", "_count"].iter().find_map(|ending| name.strip_suffix(ending));
        let name = family.filter(|f| all.contains_key(&format!("{f}_bucket"))).unwrap_or(name);
        let (_, after) = document
            .split_once(&format!("`{name}"))
            .filter(|(_, after)| after.starts_with(['`', '{']))
            .unwrap_or_else(|| panic!("docs/OPERATIONS.md does not explain {name}"));
        if operator.contains_key(name) {
            let inner = after.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or("", |(i, _)| i);
            let documented: BTreeSet<String> =
                inner.split(',').filter(|l| !l.is_empty()).map(str::to_owned).collect();
            assert_eq!(&documented, real, "labels of {name} in docs/OPERATIONS.md");
        }
    }
    for alert in alerts() {
        let row = format!("| `{}` |", alert["alert"].as_str().unwrap());
        assert!(document.contains(&row), "docs/OPERATIONS.md does not explain {row}");
    }
}

#[test]
fn the_chart_ships_what_is_asked_for() {
    let template = |sets: &[&str]| -> Vec<Value> {
        let mut helm = Command::new(binaries::helm().unwrap());
        helm.arg("template").arg(chart());
        for set in sets {
            helm.args(["--set", set]);
        }
        let output = helm.output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        let documents = serde_norway::Deserializer::from_str(&text);
        documents.map(|d| serde::Deserialize::deserialize(d).unwrap()).collect()
    };
    let of_kind = |objects: &[Value], kind: &str| -> Vec<Value> {
        objects.iter().filter(|o| o["kind"] == kind).cloned().collect()
    };
    let none = template(&[]);
    for kind in ["PrometheusRule", "PodMonitor", "ConfigMap"] {
        assert_eq!(of_kind(&none, kind), Vec::<Value>::new(), "{kind}");
    }
    let all = template(&[
        "monitoring.prometheusRule=true",
        "monitoring.podMonitor=true",
        "monitoring.dashboard=true",
        "monitoring.labels.release=prometheus",
    ]);
    let [rule] = &of_kind(&all, "PrometheusRule")[..] else { panic!("one PrometheusRule") };
    assert_eq!(
        (&rule["spec"], &rule["metadata"]["labels"]["release"]),
        (&yaml(rules()), &json!("prometheus"))
    );
    let [map] = &of_kind(&all, "ConfigMap")[..] else { panic!("one ConfigMap") };
    assert_eq!(map["metadata"]["labels"]["grafana_dashboard"], "1");
    let shipped: Value = serde_json::from_str(map["data"]["nearbrick.json"].as_str().unwrap()).unwrap();
    let file = std::fs::read_to_string(chart().join("files/dashboard.json")).unwrap();
    assert_eq!(shipped, serde_json::from_str::<Value>(&file).unwrap());

    // Each monitor finds pods by their labels, and the port by its name.
    let monitors = of_kind(&all, "PodMonitor");
    assert_eq!(monitors.len(), 2);
    for monitor in monitors {
        let wanted = &monitor["spec"]["selector"]["matchLabels"];
        let port = &list(&monitor["spec"], "podMetricsEndpoints")[0]["port"];
        let pod = all
            .iter()
            .map(|o| &o["spec"]["template"])
            .find(|pod| &pod["metadata"]["labels"] == wanted)
            .unwrap_or_else(|| panic!("no pod has {wanted}"));
        let ports: Vec<&Value> = list(&pod["spec"], "containers")
            .iter()
            .flat_map(|c| c["ports"].as_array().into_iter().flatten())
            .map(|p| &p["name"])
            .collect();
        assert!(ports.contains(&port), "{port} is none of {ports:?}");
    }
}
