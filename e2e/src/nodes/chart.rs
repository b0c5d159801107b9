//! Nearbrick in the cluster, by its chart and the real helm.

use std::process::Command;

use crate::cluster::SYSTEM_NAMESPACE;
use crate::command::output;
use crate::control_plane::binaries;
use crate::error::Result;
use crate::lab::Lab;
use crate::paths;
use crate::workstation::BRICKS;

/// helm for a lab.
///
/// # Errors
/// There is none, and it cannot be built.
pub fn helm(lab: &Lab) -> Result<Command> {
    let mut command = Command::new(binaries::helm()?);
    let folder = &lab.identity().dir;
    // Its caches go with the lab.
    command
        .env("HOME", folder)
        .env("HELM_CACHE_HOME", folder.join("helm"))
        .env("HELM_CONFIG_HOME", folder.join("helm"));
    command.arg("--kubeconfig").arg(lab.kubeconfig()).args(["--namespace", SYSTEM_NAMESPACE]);
    Ok(command)
}

/// Installs the chart, or upgrades it; `set` are values besides those that the lab needs. Returns when everything is ready.
///
/// # Errors
/// helm fails.
pub fn install(lab: &Lab, set: &[&str]) -> Result<()> {
    // As the README has it: the agents' pods are privileged.
    if lab.kubectl_output(&["get", "namespace", SYSTEM_NAMESPACE]).is_err() {
        lab.kubectl_output(&["create", "namespace", SYSTEM_NAMESPACE])?;
    }
    let label = "pod-security.kubernetes.io/enforce=privileged";
    lab.kubectl_output(&["label", "--overwrite", "namespace", SYSTEM_NAMESPACE, label])?;
    let bricks = format!("agent.bricksDir={BRICKS}");
    let mut command = helm(lab)?;
    command.args(["upgrade", "--install", "nearbrick"]).arg(paths::workspace().join("charts/nearbrick"));
    command.args(["--wait", "--timeout", "3m", "--set", "image.pullPolicy=Never", "--set", &bricks]);
    for value in set {
        command.args(["--set", value]);
    }
    output(&mut command).map(drop)
}

/// Takes it out of the cluster.
///
/// # Errors
/// helm fails.
pub fn uninstall(lab: &Lab) -> Result<()> {
    output(helm(lab)?.args(["uninstall", "nearbrick", "--wait", "--timeout", "2m"])).map(drop)
}

/// What helm says of the release: where things are.
///
/// # Errors
/// helm fails.
pub fn notes(lab: &Lab) -> Result<String> {
    let said = output(helm(lab)?.args(["get", "notes", "nearbrick"]))?;
    Ok(String::from_utf8_lossy(&said.stdout).into_owned())
}
