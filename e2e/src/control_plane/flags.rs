//! Keys, certificates and command lines of a control plane, wherever it runs.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};
use crate::kubeconfig;
use crate::pki::{Authority, Pair, Subject, token_keys, write_file};
use crate::record::Kind;

/// The API server, as pods know it.
const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));

/// As whom the API server passes requests on.
const FRONT_PROXY: &str = "front-proxy-client";

/// The cluster's CA, and the files that the API server needs.
pub struct Keys {
    /// Signs users' certificates.
    pub authority: Authority,
    /// Where the files are.
    pub dir: PathBuf,
}

impl Keys {
    /// Makes all of them for an API server that is reached at these addresses.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn make(dir: &Path, addresses: &[IpAddr]) -> Result<Self> {
        std::fs::create_dir_all(dir).context(format!("cannot make {}", dir.display()))?;
        let authority = Authority::new("nearbrick-lab")?;
        write_file(&dir.join("ca.crt"), authority.cert(), 0o644)?;
        // The first address of the services is the API server's, as pods know it.
        let addresses = &[addresses, &[SERVICE]].concat();
        let dns = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let subject = Subject { name: "kube-apiserver", dns: &dns, addresses, ..Default::default() };
        authority.sign(&subject)?.write(dir, "apiserver")?;
        // With this one it passes requests on to those who answer for other groups: signed by nobody else's authority.
        let front = Authority::new("nearbrick-lab-front-proxy")?;
        write_file(&dir.join("front-proxy-ca.crt"), front.cert(), 0o644)?;
        front.sign(&Subject { name: FRONT_PROXY, ..Default::default() })?.write(dir, "front-proxy")?;
        let (public, private) = token_keys()?;
        write_file(&dir.join("tokens.pub"), &public, 0o644)?;
        write_file(&dir.join("tokens.key"), &private, 0o600)?;
        Ok(Self { authority, dir: dir.to_path_buf() })
    }

    /// A user's certificate.
    ///
    /// # Errors
    /// The name cannot stand in a certificate.
    pub fn user(&self, name: &str, group: Option<&str>) -> Result<Pair> {
        self.authority.sign(&Subject { name, group, ..Default::default() })
    }

    /// Writes the kubeconfig of a user.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn kubeconfig(&self, path: &Path, server: &str, user: &str, group: Option<&str>) -> Result<()> {
        let pair = self.user(user, group)?;
        kubeconfig::write(path, server, self.authority.cert(), user, &pair)
    }
}

/// etcd's arguments, for one that serves only this machine.
pub fn etcd(data: &Path, client: u16, peer: u16) -> Vec<String> {
    let (client, peer) = (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    vec![
        "--name=lab".to_owned(),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=lab={peer}"),
        "--log-level=warn".to_owned(),
    ]
}

/// kube-apiserver's arguments.
pub fn apiserver(keys: &Path, etcd: u16, bind: IpAddr, advertise: IpAddr, port: u16) -> Vec<String> {
    let key = |name: &str| keys.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--bind-address={bind}"),
        format!("--advertise-address={advertise}"),
        format!("--secure-port={port}"),
        format!("--tls-cert-file={}", key("apiserver.crt")),
        format!("--tls-private-key-file={}", key("apiserver.key")),
        format!("--client-ca-file={}", key("ca.crt")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", key("tokens.pub")),
        format!("--service-account-signing-key-file={}", key("tokens.key")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        // On by itself from Kubernetes 1.36 on: the chart's hint for the scheduler.
        "--feature-gates=MutatingAdmissionPolicy=true".to_owned(),
        "--runtime-config=admissionregistration.k8s.io/v1beta1=true".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--requestheader-client-ca-file={}", key("front-proxy-ca.crt")),
        format!("--requestheader-allowed-names={FRONT_PROXY}"),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        format!("--proxy-client-cert-file={}", key("front-proxy.crt")),
        format!("--proxy-client-key-file={}", key("front-proxy.key")),
        // No address of a Service leads anywhere from here: it goes to the pods behind it.
        "--enable-aggregator-routing=true".to_owned(),
    ]
}

/// What kube-apiserver needs besides for nodes that run pods: how kubelets know it, and where pods find it.
pub fn apiserver_for(kind: Kind, keys: &Path) -> Vec<String> {
    let key = |name: &str| keys.join(name).display().to_string();
    match kind {
        Kind::Processes => vec!["--endpoint-reconciler-type=none".to_owned()],
        Kind::Nodes => vec![
            format!("--kubelet-client-certificate={}", key("kubelet-client.crt")),
            format!("--kubelet-client-key={}", key("kubelet-client.key")),
        ],
    }
}

/// kube-controller-manager's arguments. No controller judges nodes that have no kubelet.
pub fn controller_manager(kind: Kind, keys: &Path, kubeconfig: &Path) -> Vec<String> {
    let kubeconfig = kubeconfig.display();
    let judges = if kind == Kind::Nodes { "" } else { ",-node-lifecycle-controller" };
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--service-account-private-key-file={}", keys.join("tokens.key").display()),
        format!("--root-ca-file={}", keys.join("ca.crt").display()),
        "--use-service-account-credentials=true".to_owned(),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
        format!("--controllers=*,-node-ipam-controller,-node-route-controller{judges}"),
    ]
}

/// kube-scheduler's arguments.
pub fn scheduler(kubeconfig: &Path) -> Vec<String> {
    let kubeconfig = kubeconfig.display();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--leader-elect=false".to_owned(),
    ]
}
