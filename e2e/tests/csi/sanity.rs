//! csi-sanity itself.

use std::process::Command;

use nearbrick_crds::WorkstationVolume;
use nearbrick_e2e::control_plane::binaries;
use serde_json::Value;

use crate::support;
use crate::world::{SANITY, World};

/// What may be left out, by the reason that the suite gives: what belongs to capabilities that the specification leaves to the driver, and
/// that this one does not announce.
const NOT_OFFERED: &[&str] = &[
    "Controller Publish, UnpublishVolume not supported",
    "ControllerModifyVolume not supported",
    "ControllerPublishVolume not supported",
    "ControllerUnpublishVolume not supported",
    "CreateSnapshot not supported",
    "DeleteSnapshot not supported",
    "GetCapacity not supported",
    "GroupControllerService not supported",
    "ListSnapshots not supported",
    "Modify Volume not supported",
    "Modify volume not supported",
    "NodeExpandVolume not supported",
    "NodeStageVolume not supported",
    "NodeUnstageVolume not supported",
    "Snapshot not supported",
    "Volume Cloning not supported",
];

#[tokio::test(flavor = "multi_thread")]
async fn csi_sanity_is_content() {
    let Some(world) = World::start("sanity").await else { return };
    let program = tokio::task::spawn_blocking(binaries::csi_sanity).await.unwrap().unwrap();
    let (parameters, report) = (world.at("parameters.yaml"), world.at("report.json"));
    std::fs::write(&parameters, world.parameters().to_string()).unwrap();
    std::fs::create_dir(world.at("pods")).unwrap();
    let path = |name: &str| world.at(name).display().to_string();
    let mut sanity = Command::new(program);
    sanity
        .arg(format!("--csi.endpoint=unix://{}", path("node.sock")))
        .arg(format!("--csi.controllerendpoint=unix://{}", path("controller.sock")))
        .arg(format!("--csi.mountdir={}", path("pods/mount")))
        .arg(format!("--csi.stagingdir={}", path("pods/staging")))
        .arg(format!("--csi.testvolumeparameters={}", parameters.display()))
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .arg(format!("--ginkgo.timeout={}s", SANITY.as_secs()));
    let output = tokio::task::spawn_blocking(move || sanity.output()).await.unwrap().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let closing: Vec<_> = said.lines().rev().take(6).collect();
    closing.iter().rev().for_each(|line| println!("{line}"));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(report).unwrap()).unwrap();
    let cases: Vec<&Value> = report
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|suite| suite["SpecReports"].as_array().into_iter().flatten())
        .filter(|case| case["LeafNodeType"] == "It")
        .collect();
    let in_state = |state: &str| cases.iter().filter(|c| c["State"] == state).count();
    println!(
        "csi-sanity: {} passed, {} skipped, {} failed",
        in_state("passed"),
        in_state("skipped"),
        in_state("failed")
    );
    assert!(output.status.success(), "{said}");
    for case in &cases {
        let why = case["Failure"]["Message"].as_str().unwrap_or_default();
        match case["State"].as_str().unwrap() {
            "passed" => {}
            // The suite itself has these set aside, for every driver.
            "pending" => {}
            "skipped" => {
                println!("skipped: {}: {why}", case["LeafNodeText"]);
                assert!(NOT_OFFERED.contains(&why), "{case:#}");
            }
            state => panic!("{state}: {case:#}"),
        }
    }
    assert!(in_state("passed") >= 38, "{said}");
    // It has cleaned up after itself, and so have operator and agent.
    support::eventually("all volumes are gone", || async {
        let left = world.ns.api::<WorkstationVolume>().list(&Default::default()).await.unwrap();
        left.items.is_empty().then_some(())
    })
    .await;
    world.end();
}
