//! The control plane's programs: those in `KUBEBUILDER_ASSETS` or on PATH if they are new enough, else
//! built from Go modules into a cache, once.
//!
//! Invariant: a file in the cache is whole. Builds happen in a folder of their own, under a lock.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::command::{find, output};
use crate::error::{Context, Result};
use crate::lock::Lock;
use crate::{paths, progress};

/// The version of Kubernetes that is built.
pub const VERSION: &str = "v1.34.4";
/// The version of helm.
const HELM_VERSION: &str = "v3.19.5";
/// The versions of the test suite of CSI drivers, and of the sidecar that serves claims.
const CSI_SANITY_VERSION: &str = "v5.4.0";
const CSI_PROVISIONER_VERSION: &str = "v6.3.0";
const CSI_RESIZER_VERSION: &str = "v2.3.0";
const OLDEST_KUBERNETES: (u32, u32) = (1, 34);
const OLDEST_ETCD: (u32, u32) = (3, 5);
const OLDEST_HELM: (u32, u32) = (3, 17);
const OLDEST_KUBECTL: (u32, u32) = (1, 31);

/// What Go keeps of a build, beside the programs.
const COMPILED: &str = "building-go";

/// Where the programs are.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// etcd.
    pub etcd: PathBuf,
    /// kube-apiserver.
    pub apiserver: PathBuf,
    /// kube-controller-manager.
    pub controller_manager: PathBuf,
}

/// What a node needs besides, and the scheduler that gives it pods.
#[derive(Clone, Debug)]
pub struct NodeBinaries {
    /// kubelet.
    pub kubelet: PathBuf,
    /// kube-proxy.
    pub proxy: PathBuf,
    /// kube-scheduler.
    pub scheduler: PathBuf,
}

struct Program {
    name: &'static str,
    /// The folder with the Go module that says of which modules it is built; the version that it is given.
    module: (&'static str, &'static str),
    package: &'static str,
    oldest: (u32, u32),
    version_args: &'static [&'static str],
}

const KUBERNETES: (&str, &str) = ("control-plane", VERSION);
const HELM: Program = Program {
    name: "helm",
    module: ("helm", HELM_VERSION),
    package: "helm.sh/helm/v3/cmd/helm",
    oldest: OLDEST_HELM,
    version_args: &["version", "--short"],
};
const ETCD: Program = Program {
    name: "etcd",
    module: KUBERNETES,
    package: "go.etcd.io/etcd/server/v3",
    oldest: OLDEST_ETCD,
    version_args: &["--version"],
};
const APISERVER: Program = Program {
    name: "kube-apiserver",
    module: KUBERNETES,
    package: "k8s.io/kubernetes/cmd/kube-apiserver",
    oldest: OLDEST_KUBERNETES,
    version_args: &["--version"],
};
const CONTROLLER_MANAGER: Program = Program {
    name: "kube-controller-manager",
    module: KUBERNETES,
    package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    oldest: OLDEST_KUBERNETES,
    version_args: &["--version"],
};
const KUBELET: Program = Program {
    name: "kubelet",
    module: KUBERNETES,
    package: "k8s.io/kubernetes/cmd/kubelet",
    oldest: OLDEST_KUBERNETES,
    version_args: &["--version"],
};
const PROXY: Program = Program {
    name: "kube-proxy",
    module: KUBERNETES,
    package: "k8s.io/kubernetes/cmd/kube-proxy",
    oldest: OLDEST_KUBERNETES,
    version_args: &["--version"],
};
const SCHEDULER: Program = Program {
    name: "kube-scheduler",
    module: KUBERNETES,
    package: "k8s.io/kubernetes/cmd/kube-scheduler",
    oldest: OLDEST_KUBERNETES,
    version_args: &["--version"],
};
const KUBECTL: Program = Program {
    name: "kubectl",
    module: KUBERNETES,
    package: "k8s.io/kubernetes/cmd/kubectl",
    oldest: OLDEST_KUBECTL,
    version_args: &["version", "--client"],
};
const CSI_SANITY: Program = Program {
    name: "csi-sanity",
    module: ("csi-sanity", CSI_SANITY_VERSION),
    package: "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity",
    oldest: (5, 4),
    version_args: &["-version"],
};
const CSI_PROVISIONER: Program = Program {
    name: "csi-provisioner",
    module: ("csi-provisioner", CSI_PROVISIONER_VERSION),
    package: "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner",
    oldest: (6, 0),
    version_args: &["--version"],
};

const CSI_RESIZER: Program = Program {
    name: "csi-resizer",
    module: ("csi-resizer", CSI_RESIZER_VERSION),
    package: "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer",
    oldest: (2, 0),
    version_args: &["--version"],
};

impl Binaries {
    /// Finds the three programs, and builds what is missing.
    ///
    /// # Errors
    /// Go is missing, or a build fails.
    pub fn ensure() -> Result<Self> {
        let [etcd, apiserver, controller_manager] = ensure([&ETCD, &APISERVER, &CONTROLLER_MANAGER])?;
        Ok(Self { etcd, apiserver, controller_manager })
    }
}

impl NodeBinaries {
    /// Finds the three programs, and builds what is missing.
    ///
    /// # Errors
    /// Go is missing, or a build fails.
    pub fn ensure() -> Result<Self> {
        let [kubelet, proxy, scheduler] = ensure([&KUBELET, &PROXY, &SCHEDULER])?;
        Ok(Self { kubelet, proxy, scheduler })
    }
}

/// Finds helm, or builds it.
///
/// # Errors
/// Go is missing, or the build fails.
pub fn helm() -> Result<PathBuf> {
    let [helm] = ensure([&HELM])?;
    Ok(helm)
}

/// Finds kubectl, or builds it.
///
/// # Errors
/// Go is missing, or the build fails.
pub fn kubectl() -> Result<PathBuf> {
    let [kubectl] = ensure([&KUBECTL])?;
    Ok(kubectl)
}

/// Finds csi-sanity, or builds it.
///
/// # Errors
/// Go is missing, or the build fails.
pub fn csi_sanity() -> Result<PathBuf> {
    let [program] = ensure([&CSI_SANITY])?;
    Ok(program)
}

/// Finds csi-provisioner, or builds it.
///
/// # Errors
/// Go is missing, or the build fails.
pub fn csi_provisioner() -> Result<PathBuf> {
    let [program] = ensure([&CSI_PROVISIONER])?;
    Ok(program)
}

/// Finds csi-resizer, or builds it.
///
/// # Errors
/// Go is missing, or the build fails.
pub fn csi_resizer() -> Result<PathBuf> {
    let [program] = ensure([&CSI_RESIZER])?;
    Ok(program)
}

fn cache_dir((module, version): (&str, &str)) -> Result<PathBuf> {
    Ok(paths::cache()?.join(format!("{module}-{version}")))
}

fn ensure<const N: usize>(programs: [&Program; N]) -> Result<[PathBuf; N]> {
    // Those that are asked for together are of one module.
    let module = programs.first().map_or(KUBERNETES, |p| p.module);
    let cache = cache_dir(module)?;
    let place = |p: &Program| on_machine(p).unwrap_or_else(|| cache.join(p.name));
    let mut found = programs.map(place);
    if found.iter().any(|f| !f.exists()) {
        let lock = Lock::take(&cache.join("lock"), &format!("builds the {}", module.0))?;
        // Another process may have built it while this one waited.
        for (program, file) in programs.iter().zip(&mut found) {
            if !file.exists() {
                build(program, &cache)?;
                *file = cache.join(program.name);
            }
        }
        // What was compiled on the way is gigabytes, and of no use until the next version.
        let _ = std::fs::remove_dir_all(cache.join(COMPILED));
        drop(lock);
    }
    Ok(found)
}

/// The program in `KUBEBUILDER_ASSETS` or on PATH, if it is new enough.
fn on_machine(program: &Program) -> Option<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(|dir| Path::new(&dir).join(program.name));
    assets.into_iter().chain(find(program.name)).find(|file| {
        let said = output(Command::new(file).args(program.version_args));
        let text = said.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        version(&text).is_some_and(|v| v >= program.oldest)
    })
}

/// The first `MAJOR.MINOR` in what a program says of its version.
fn version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.trim_start_matches('v').split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    })
}

fn build(program: &Program, cache: &Path) -> Result<()> {
    let go = find("go").context(format!(
        "cannot build {}: `go` is not on PATH; install Go 1.24 or later (https://go.dev/dl)",
        program.name
    ))?;
    let folder = cache.join(format!("building-{}", program.name));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).context(format!("cannot make {}", folder.display()))?;
    let (module, version) = program.module;
    let line = progress::Line::new(format!("building {} {version} from Go modules, once", program.name));
    // Each says its own version by one of these, and helm takes charts for the Kubernetes that it was built for.
    let version = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion={version} -X helm.sh/helm/v3/internal/version.version={version} \
         -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=34"
    );
    let mut child = Command::new(go)
        .current_dir(paths::in_crate(module))
        .env("GOBIN", &folder)
        .env("GOCACHE", cache.join(COMPILED))
        .env("GOFLAGS", "-mod=readonly")
        .env("CGO_ENABLED", "0")
        .args(["install", "-v", "-trimpath", "-ldflags", &version, program.package])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start go")?;
    let (mut packages, mut modules, mut last) = (0, 0, String::new());
    for said in child.stderr.take().into_iter().flat_map(|e| BufReader::new(e).lines()).map_while(|l| l.ok())
    {
        match said.starts_with("go: downloading") {
            true => modules += 1,
            false => packages += 1,
        }
        line.update(format!("{modules} modules fetched, {packages} packages built"));
        last = said;
    }
    let status = child.wait().context("cannot wait for go")?;
    if !status.success() {
        crate::fail!("cannot build {}: `go install {}`: {last}", program.name, program.package);
    }
    // A program is called like the last part of its package, but for a version there.
    let parts = program.package.rsplit('/').find(|p| !p.starts_with("v3")).unwrap_or(program.name);
    let (made, wanted) = (folder.join(parts), cache.join(program.name));
    std::fs::rename(&made, &wanted).context(format!("cannot place {}", wanted.display()))?;
    let _ = std::fs::remove_dir_all(&folder);
    line.done(wanted.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        assert_eq!(version("Kubernetes v1.34.4\n"), Some((1, 34)));
        assert_eq!(version("etcd Version: 3.6.4\nGit SHA: Not provided"), Some((3, 6)));
        assert_eq!(version("Client Version: v1.32.4-dispatcher"), Some((1, 32)));
        assert_eq!(version("nonsense"), None);
    }
}
