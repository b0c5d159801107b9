//! The chart, by the real helm, on a real API server: what it installs is taken, and what people get wrong is one line.

use std::path::PathBuf;
use std::process::{Command, Output};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::storage::v1::{CSIDriver, StorageClass};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::Api;
use nearbrick_e2e::control_plane::binaries;
use nearbrick_e2e::{ControlPlane, kube_api, paths};

fn helm() -> Command {
    Command::new(binaries::helm().expect("helm"))
}

fn chart() -> PathBuf {
    paths::workspace().join("charts/nearbrick")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn it_has_no_faults_that_helm_knows() {
    for set in [
        "certificates.from=operator",
        "certificates.from=files",
        "certificates.from=files,files.certificateSecret=operator",
        "files.enabled=false",
        "csi.enabled=true,csi.provisioner.image=csi-provisioner:v6",
        "csi.enabled=true,csi.provisioner.image=csi-provisioner:v6,csi.resizer.image=csi-resizer:v2",
    ] {
        let said =
            helm().arg("lint").arg("--strict").arg(chart()).args(["--set", set]).output().expect("helm");
        assert!(said.status.success(), "{}", text(&said));
    }
}

/// `helm upgrade --reuse-values` gives a newer chart the values of the older one, without those that there were not.
#[test]
fn values_of_an_older_release_are_enough() {
    let older = "files=null,csi.enabled=true,csi.provisioner.image=csi-provisioner:v6,csi.resizer=null,csi.preferNodes=null";
    let policies = "admissionregistration.k8s.io/v1beta1/MutatingAdmissionPolicy";
    let said = helm()
        .arg("template")
        .arg(chart())
        .args(["--set", older, "--api-versions", policies])
        .output()
        .expect("helm");
    let text = text(&said);
    assert!(said.status.success(), "{text}");
    // As in values.yaml.
    assert!(
        text.contains("name: v1alpha1.files.nearbrick.io") && text.contains("kind: MutatingAdmissionPolicy")
    );
    assert!(text.contains("allowVolumeExpansion: false") && !text.contains("name: resizer"));
}

#[test]
fn what_is_wrong_with_values_is_said() {
    for (set, part) in [
        ("certificates.from=nobody", "certificates/from"),
        ("agent.peerPort=0", "agent/peerPort"),
        ("agent.bricksDir=bricks", "agent/bricksDir"),
        ("operator.awayAfter=soon", "operator/awayAfter"),
        ("agent.brickDir=/b", "brickDir"),
        ("files.certificateSecret=A_B", "files/certificateSecret"),
        ("csi.enabled=true", "csi.provisioner.image"),
        ("csi.storageClass.reclaimPolicy=Keep", "csi/storageClass/reclaimPolicy"),
    ] {
        let said = helm().arg("template").arg(chart()).args(["--set", set]).output().expect("helm");
        assert!(!said.status.success() && text(&said).contains(part), "{set}: {}", text(&said));
    }
}

#[tokio::test]
async fn it_is_installed_upgraded_and_uninstalled_and_the_volumes_definitions_stay() {
    const NAMESPACE: &str = "lab-system";
    let plane = ControlPlane::start_private().await.expect("a control plane");
    let client = plane.client().await.expect("a client");
    let run = |arguments: &[&str]| {
        let mut command = helm();
        command.arg(arguments[0]).arg("nearbrick");
        if arguments[0] != "uninstall" {
            command.arg(chart());
        }
        command
            .args(&arguments[1..])
            .args(["--namespace", NAMESPACE])
            .arg("--kubeconfig")
            .arg(plane.kubeconfig());
        // Helm's own cache and configuration are in the plane's folder, which goes with it.
        if let Some(folder) = plane.kubeconfig().parent() {
            command.env("HOME", folder).env("HELM_CACHE_HOME", folder).env("HELM_CONFIG_HOME", folder);
        }
        let said = command.output().expect("helm");
        assert!(said.status.success(), "{arguments:?}: {}", text(&said));
    };
    run(&["install", "--create-namespace"]);
    let operators: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let arguments = |d: &Deployment| {
        let pod = d.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
        pod.containers.into_iter().flat_map(|c| c.args.unwrap_or_default()).collect::<Vec<_>>()
    };
    let operator = operators.get("nearbrick-operator").await.expect("the operator");
    assert!(!arguments(&operator).contains(&"--no-certificates".to_owned()));
    let files = |d: &Deployment| arguments(d).iter().any(|a| a.starts_with("--files-listen"));
    let services: Api<APIService> = Api::all(client.clone());
    const FILES: &str = "v1alpha1.files.nearbrick.io";
    assert!(files(&operator));
    let service = services.get(FILES).await.expect("the API of files").spec.and_then(|s| s.service);
    assert_eq!(service.and_then(|s| s.namespace).as_deref(), Some(NAMESPACE));
    let agents: Api<DaemonSet> = Api::namespaced(client.clone(), NAMESPACE);
    for name in ["nearbrick-agent", "nearbrick-holder"] {
        agents.get(name).await.expect(name);
    }
    // Nothing of it is of another namespace than the one that was said.
    let said = helm().arg("template").arg(chart()).args(["--namespace", NAMESPACE]).output().expect("helm");
    assert!(!text(&said).contains("nearbrick-system"), "{}", text(&said));

    run(&["upgrade", "--set", "certificates.from=files"]);
    let operator = operators.get("nearbrick-operator").await.expect("the operator");
    assert!(arguments(&operator).contains(&"--no-certificates".to_owned()));
    // The operator has no certificate then, by which agents know it.
    assert!(!files(&operator) && services.get_opt(FILES).await.expect("a look").is_none());
    run(&["upgrade", "--set", "certificates.from=files,files.certificateSecret=operator"]);
    let operator = operators.get("nearbrick-operator").await.expect("the operator");
    assert!(
        files(&operator) && arguments(&operator).contains(&"--files-tls-dir=/etc/nearbrick/files".to_owned())
    );
    services.get(FILES).await.expect("the API of files");

    let with_csi = [
        "upgrade",
        "--set",
        "csi.enabled=true,csi.provisioner.image=csi-provisioner:v6,agent.nodeSelector.lab=one",
    ];
    run(&with_csi);
    let classes: Api<StorageClass> = Api::all(client.clone());
    let class = classes.get("nearbrick").await.expect("the class");
    let parameters = class.parameters.unwrap_or_default();
    let expected = [("deletionPolicy", "Retain"), ("nodeSelector", "lab=one"), ("replicas", "2")];
    assert_eq!(parameters.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect::<Vec<_>>(), expected);
    let drivers: Api<CSIDriver> = Api::all(client.clone());
    assert_eq!(drivers.get("nearbrick.io").await.expect("the driver").spec.attach_required, Some(false));
    operators.get("nearbrick-csi").await.expect("what makes volumes for claims");
    let agent = agents
        .get("nearbrick-agent")
        .await
        .expect("agents")
        .spec
        .and_then(|s| s.template.spec)
        .unwrap_or_default();
    let told: Vec<_> = agent.containers.iter().flat_map(|c| c.args.clone().unwrap_or_default()).collect();
    assert!(
        told.contains(&"--csi-socket=/var/lib/kubelet/plugins/nearbrick.io/csi.sock".to_owned()),
        "{told:?}"
    );
    let said = helm()
        .arg("template")
        .arg(chart())
        .args(["--namespace", NAMESPACE])
        .args(&with_csi[1..])
        .output()
        .expect("helm");
    assert!(!text(&said).contains("nearbrick-system"), "{}", text(&said));
    run(&["upgrade", "--set", "csi.enabled=false"]);
    assert!(drivers.get_opt("nearbrick.io").await.expect("an answer").is_none());

    run(&["uninstall"]);
    kube_api::eventually("the operator is gone", std::time::Duration::from_secs(30), || async {
        match operators.get_opt("nearbrick-operator").await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|o| o.map(|o| o.metadata)))),
        }
    })
    .await
    .expect("gone");
    // Definitions stay, and with them every volume: who wants to be rid of those deletes them.
    let definitions: Api<CustomResourceDefinition> = Api::all(client);
    definitions.get("workstationvolumes.nearbrick.io").await.expect("the definition of volumes");
}
