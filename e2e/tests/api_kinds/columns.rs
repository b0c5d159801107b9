//! Every printer column of every kind, on a real object, as the API server prints it.

use std::collections::BTreeMap;

use kube::api::{Api, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use nearbrick_crds::{
    Brick, FileConflict, HealJob, HealPolicy, ReplicaMigration, Workstation, WorkstationVolume,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{self, Namespace, ago};

/// The cells of the row called `name`, by column.
async fn cells(client: &Client, path: &str, name: &str) -> BTreeMap<String, Value> {
    let request = http::Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(vec![])
        .unwrap();
    let table: Value = client.request(request).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap();
    let row = table["rows"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["object"]["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no row {name} in {table}"));
    columns
        .iter()
        .zip(row["cells"].as_array().unwrap())
        .map(|(c, cell)| (c["name"].as_str().unwrap().to_string(), cell.clone()))
        .collect()
}

/// Makes the object with its status, and compares all its columns. Ages go on while the test runs: of
/// them only the first unit is compared.
async fn check<K>(api: &Api<K>, client: &Client, path: &str, object: Value, expected: &[(&str, Value)])
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + serde::Serialize + std::fmt::Debug,
{
    let status = object["status"].clone();
    let object: K = serde_json::from_value(object).unwrap();
    let name = api.create(&PostParams::default(), &object).await.unwrap().name_any();
    support::write_status(api, &name, "test", &status).await;
    let mut cells = cells(client, path, &name).await;
    cells.remove("Name");
    assert!(cells.remove("Age").is_some());
    for (column, wanted) in expected {
        let cell = cells.remove(*column).unwrap_or_else(|| panic!("no column {column}"));
        let is_age =
            wanted.as_str().is_some_and(|w| w.ends_with('m') && w[..w.len() - 1].parse::<u32>().is_ok());
        if is_age {
            let (cell, wanted) = (cell.as_str().unwrap_or_default(), wanted.as_str().unwrap());
            assert!(cell.starts_with(wanted), "{column}: {cell} for {wanted}");
        } else {
            assert_eq!(&cell, wanted, "{column}");
        }
    }
    assert!(cells.is_empty(), "columns of {} without a test: {cells:?}", K::kind(&()));
}

fn namespaced<K>(ns: &Namespace) -> (Api<K>, String)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let path = K::url_path(&(), Some(&ns.name));
    (Api::namespaced(ns.client.clone(), &ns.name), path)
}

fn condition(type_: &str, status: &str) -> Value {
    json!([{
        "type": type_, "status": status, "reason": "Test", "message": "m", "lastTransitionTime": ago(0),
    }])
}

#[tokio::test]
async fn workstation_volume() {
    let ns = Namespace::new("columns-wsv").await;
    let (api, path) = namespaced::<WorkstationVolume>(&ns);
    let object = json!({
        "metadata": { "name": "home" },
        "spec": { "members": { "nodes": ["a", "b", "c"] }, "replicas": 3 },
        "status": {
            "phase": "Ready", "health": "Pending", "files": 2143, "bytes": 300_000_000u64, "conflicts": 2,
            "pending": { "files": 12, "bytes": 224_709_837u64, "size": "214.3 MiB", "oldestSince": ago(7200) },
            "lastHealTime": ago(300), "nextHealTime": "2030-01-01T00:00:00Z", "conditions": condition("Placed", "False"),
        },
    });
    let expected = [
        ("Phase", json!("Ready")),
        ("Health", json!("Pending")),
        ("Replicas", json!(3)),
        ("Files", json!(2143)),
        ("Pending", json!(12)),
        ("Pending-Bytes", json!(224_709_837u64)),
        ("Size", json!("214.3 MiB")),
        ("Oldest", json!("120m")),
        ("Conflicts", json!(2)),
        ("Placed", json!("False")),
        ("Last-Heal", json!("5m")),
        ("Next-Heal", json!("2030-01-01T00:00:00Z")),
        ("Bytes", json!(300_000_000u64)),
    ];
    check(&api, &ns.client, &path, object, &expected).await;
}

#[tokio::test]
async fn brick() {
    let ns = Namespace::new("columns-wsb").await;
    let (api, path) = namespaced::<Brick>(&ns);
    let uuid = "0f1e2d3c-4b5a-4678-8796-a5b4c3d2e1f0";
    let object = json!({
        "metadata": { "name": "home.ws-a" },
        "spec": { "volumeRef": { "name": "home" }, "volumeUuid": uuid, "node": "ws-a", "uuid": uuid },
        "status": {
            "state": "Ready", "message": "mounted", "address": "10.0.0.1:7443", "files": 2143, "bytes": 99,
            "stubs": 7, "freeBytes": 1000, "conflicts": 1, "heartbeat": ago(180), "lastVerifiedTime": ago(300),
            "pending": { "files": 5, "bytes": 2048, "size": "2.0 KiB", "oldestSince": ago(7200) },
            "pendingIn": { "files": 3, "bytes": 1 }, "inSet": { "files": 9, "bytes": 1 },
            "unplaced": { "files": 4, "bytes": 1 },
            "conditions": condition("Ready", "True"),
        },
    });
    let expected = [
        ("Volume", json!("home")),
        ("Node", json!("ws-a")),
        ("State", json!("Ready")),
        ("Ready", json!("True")),
        ("Files", json!(2143)),
        ("Stubs", json!(7)),
        ("Pending-Out", json!(5)),
        ("Pending-Bytes", json!(2048)),
        ("Size", json!("2.0 KiB")),
        ("Oldest", json!("120m")),
        ("Pending-In", json!(3)),
        ("In-Set", json!(9)),
        ("Unplaced", json!(4)),
        ("Conflicts", json!(1)),
        ("Seen", json!("3m")),
        ("Verified", json!("5m")),
        ("Bytes", json!(99)),
        ("Free", json!(1000)),
        ("Address", json!("10.0.0.1:7443")),
        ("Message", json!("mounted")),
    ];
    check(&api, &ns.client, &path, object, &expected).await;
}

#[tokio::test]
async fn heal_job() {
    let ns = Namespace::new("columns-whj").await;
    let (api, path) = namespaced::<HealJob>(&ns);
    let object = json!({
        "metadata": { "name": "home-1" },
        "spec": { "volumeRef": { "name": "home" }, "reason": "Trigger" },
        "status": {
            "phase": "Running", "files": { "done": 3, "total": 9, "failed": 1 },
            "bytes": { "done": 300, "total": 900 }, "bytesPerSecond": 50, "etaSeconds": 12,
            "progress": "300 B of 900 B, 50 B/s", "startedAt": ago(120), "message": "3 of 9 files copied",
            "failures": "1 NoSpace",
        },
    });
    let expected = [
        ("Volume", json!("home")),
        ("Reason", json!("Trigger")),
        ("Phase", json!("Running")),
        ("Done", json!(3)),
        ("Total", json!(9)),
        ("Failed", json!(1)),
        ("Bytes-Done", json!(300)),
        ("Bytes-Total", json!(900)),
        ("Progress", json!("300 B of 900 B, 50 B/s")),
        ("ETA-Seconds", json!(12)),
        ("Failures", json!("1 NoSpace")),
        ("Started", json!("2m")),
        ("Message", json!("3 of 9 files copied")),
    ];
    check(&api, &ns.client, &path, object, &expected).await;
}

#[tokio::test]
async fn heal_policy() {
    let ns = Namespace::new("columns-whp").await;
    let (api, path) = namespaced::<HealPolicy>(&ns);
    let object = json!({
        "metadata": { "name": "nightly" },
        "spec": { "cron": { "schedule": "0 18 * * 1-5", "timeZone": "Europe/Berlin" }, "paused": true },
        "status": {
            "schedule": "0 18 * * 1-5 (Europe/Berlin)", "volumes": 4, "lastRun": ago(7200),
            "nextRun": "2030-01-01T00:00:00Z", "conditions": condition("Ready", "False"),
        },
    });
    let expected = [
        ("Schedule", json!("0 18 * * 1-5 (Europe/Berlin)")),
        ("Paused", json!(true)),
        ("Volumes", json!(4)),
        ("Last-Run", json!("120m")),
        ("Next-Run", json!("2030-01-01T00:00:00Z")),
        ("Ready", json!("False")),
    ];
    check(&api, &ns.client, &path, object, &expected).await;
}

#[tokio::test]
async fn replica_migration() {
    let ns = Namespace::new("columns-wrm").await;
    let (api, path) = namespaced::<ReplicaMigration>(&ns);
    let object = json!({
        "metadata": { "name": "move" },
        "spec": { "volumeRef": { "name": "home" }, "paths": ["p/**"], "to": "home.ws-b", "from": "home.ws-a" },
        "status": {
            "phase": "Adding", "message": "4 files left", "from": "home.ws-a", "evidence": "opened 9 times there",
            "group": { "files": 12, "bytes": 2048, "size": "2.0 KiB" }, "left": { "files": 4, "bytes": 7 },
            "conditions": condition("Moved", "False"),
        },
    });
    let expected = [
        ("Volume", json!("home")),
        ("To", json!("home.ws-b")),
        ("From", json!("home.ws-a")),
        ("Phase", json!("Adding")),
        ("Files", json!(12)),
        ("Size", json!("2.0 KiB")),
        ("Left", json!(4)),
        ("Message", json!("4 files left")),
        ("Paths", json!("[\"p/**\"]")),
        ("Evidence", json!("opened 9 times there")),
    ];
    check(&api, &ns.client, &path, object, &expected).await;
}

#[tokio::test]
async fn file_conflict() {
    let ns = Namespace::new("columns-wfc").await;
    let (api, path) = namespaced::<FileConflict>(&ns);
    let object = json!({
        "metadata": { "name": "home.0f1e2d3c4b5a69788796a5b4c3d2e1f0" },
        "spec": { "volumeRef": { "name": "home" }, "path": "a/b.txt", "resolution": "Brick/home.ws-a" },
        "status": {
            "phase": "Resolved", "resolvedAt": ago(7200), "summary": "ws-a 24 B, ws-b 10 B",
            "conditions": condition("Resolved", "True"),
        },
    });
    let expected = [
        ("Volume", json!("home")),
        ("Path", json!("a/b.txt")),
        ("Versions", json!("ws-a 24 B, ws-b 10 B")),
        ("Phase", json!("Resolved")),
        ("Resolution", json!("Brick/home.ws-a")),
        ("Resolved", json!("120m")),
        ("Message", json!("m")),
    ];
    check(&api, &ns.client, &path, object, &expected).await;
}

#[tokio::test]
async fn workstation() {
    let ns = Namespace::new("columns-wsn").await;
    let api: Api<Workstation> = Api::all(ns.client.clone());
    let path = Workstation::url_path(&(), None);
    let name = format!("{}-ws", ns.name);
    let mut both = condition("SafeToLeave", "False");
    both.as_array_mut().unwrap().extend(condition("Evicted", "True").as_array().unwrap().clone());
    let object = json!({
        "metadata": { "name": name },
        "spec": {},
        "status": {
            "state": "Away", "onlineShare": { "perMille": 832, "shown": "83 %", "asOf": ago(7200) },
            "lastSeen": ago(7200), "address": "10.0.0.1:7443", "agentVersion": "0.1.0",
            "bricks": 2, "conditions": both,
            "pendingOut": { "files": 5, "bytes": 2048, "size": "2.0 KiB", "oldestSince": ago(180) },
        },
    });
    let expected = [
        ("State", json!("Away")),
        ("Safe-To-Leave", json!("False")),
        ("Last-Seen", json!("120m")),
        ("Bricks", json!(2)),
        ("Pending-Out", json!(5)),
        ("Pending-Bytes", json!(2048)),
        ("Size", json!("2.0 KiB")),
        ("Oldest", json!("3m")),
        ("Evicted", json!("True")),
        ("Online", json!("83 %")),
        ("Address", json!("10.0.0.1:7443")),
        ("Version", json!("0.1.0")),
    ];
    check(&api, &ns.client, &path, object, &expected).await;
}
