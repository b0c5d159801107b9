//! A small control plane of one's own, for tests of the API: etcd and kube-apiserver on loopback, with
//! free ports, in a temporary directory. Needs no root.
//!
//! Invariant: it does not outlive the process that started it. A shell holds the two programs and waits for
//! the end of its standard input, which comes when that process drops the value or ends in any way.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};

use super::{Binaries, flags};
use crate::error::{Context, Error, Result};
use crate::record::Kind;
use crate::trees::quoted;
use crate::{kubeconfig, progress};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const READY: Duration = Duration::from_secs(90);

/// A running private control plane.
#[derive(Debug)]
pub struct ControlPlane {
    dir: PathBuf,
    keeper: Child,
}

/// Runs both programs until its standard input ends, then ends them and removes the directory.
fn keeper(dir: &Path, etcd: &[String], apiserver: &[String]) -> String {
    let line = |words: &[String]| words.iter().map(quoted).collect::<Vec<_>>().join(" ");
    format!(
        "cd {dir} || exit 1\n\
         trap '' HUP INT TERM\n\
         {etcd} >etcd.log 2>&1 </dev/null & etcd=$!\n\
         {apiserver} >kube-apiserver.log 2>&1 </dev/null & server=$!\n\
         cat >/dev/null\n\
         kill -9 $server $etcd\n\
         wait\n\
         cd / && rm -rf {dir}\n",
        dir = quoted(dir),
        etcd = line(etcd),
        apiserver = line(apiserver),
    )
}

impl ControlPlane {
    /// Starts one and waits until it answers. Ports that another process takes at the same moment are
    /// met by another try.
    ///
    /// # Errors
    /// The programs cannot be found, built or started.
    pub async fn start_private() -> Result<Self> {
        let binaries =
            tokio::task::spawn_blocking(Binaries::ensure).await.context("building ended early")??;
        let mut last = Error::new("not tried");
        for _ in 0..3 {
            let plane = Self::launch(&binaries)?;
            match plane.wait_ready().await {
                Ok(()) => return Ok(plane),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The one that all tests of this process share; started by the first that asks.
    ///
    /// # Errors
    /// It could not be started; all who ask get the same line.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<ControlPlane>> = OnceLock::new();
        // A runtime of its own: the caller's may end with the first test.
        let start = || SHARED.get_or_init(|| on_own_thread(Self::start_private)).as_ref();
        let shared = tokio::task::spawn_blocking(start).await.context("starting ended early")?;
        shared.map_err(Clone::clone)
    }

    fn launch(binaries: &Binaries) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("nearbrick-control-plane-")
            .tempdir()
            .context("cannot make a temporary directory")?
            .keep();
        let [etcd, peer, port] = free_ports()?;
        let keys = flags::Keys::make(&dir.join("pki"), &[LOOPBACK])?;
        let server = format!("https://127.0.0.1:{port}");
        keys.kubeconfig(&dir.join("kubeconfig"), &server, "admin", Some("system:masters"))?;
        let mut etcd_line = vec![binaries.etcd.display().to_string(), "--unsafe-no-fsync".to_owned()];
        etcd_line.extend(flags::etcd(&dir.join("etcd"), etcd, peer));
        let mut server_line = vec![binaries.apiserver.display().to_string()];
        server_line.extend(flags::apiserver(&keys.dir, etcd, LOOPBACK, LOOPBACK, port));
        server_line.extend(flags::apiserver_for(Kind::Processes, &keys.dir));
        let keeper = {
            use std::os::unix::process::CommandExt;
            Command::new("sh")
                .args(["-c", &keeper(&dir, &etcd_line, &server_line)])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .context("cannot start sh")?
        };
        Ok(Self { dir, keeper })
    }

    async fn wait_ready(&self) -> Result<()> {
        let client = self.client().await?;
        let start = Instant::now();
        loop {
            if crate::kube_api::is_ready(&client).await {
                return Ok(());
            }
            if let Some(why) = self.failed() {
                crate::fail!("the private control plane does not start: {why}");
            }
            if start.elapsed() > READY {
                let why = last_line(&self.dir.join("kube-apiserver.log"));
                crate::fail!("kube-apiserver is not ready after {} s: {why}", READY.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The reason, if one of the two programs gave up because its port was taken.
    fn failed(&self) -> Option<String> {
        ["etcd.log", "kube-apiserver.log"].iter().find_map(|name| {
            let text = std::fs::read_to_string(self.dir.join(name)).ok()?;
            let line = text.lines().find(|l| l.contains("address already in use"))?;
            Some(line.trim().to_owned())
        })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// An administrator's client; it belongs to the runtime in which it is made, so each test makes one.
    ///
    /// # Errors
    /// The kubeconfig cannot be used.
    pub async fn client(&self) -> Result<Client> {
        kubeconfig::client(&self.kubeconfig()).await
    }

    /// A namespace of its own for a test; its name begins with `prefix`. It goes with the control plane.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn namespace(&self, client: &Client, prefix: &str) -> Result<String> {
        let metadata = ObjectMeta { generate_name: Some(format!("{prefix}-")), ..Default::default() };
        let namespace = Namespace { metadata, ..Default::default() };
        let made = Api::<Namespace>::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .context(format!("cannot make a namespace {prefix}"))?;
        Ok(made.name_any())
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        if let Err(error) = self.keeper.wait() {
            progress::warn(format!("the private control plane in {}: {error}", self.dir.display()));
        }
    }
}

/// Runs a future to its end on a thread and a runtime of its own.
fn on_own_thread<T, F>(work: impl FnOnce() -> F + Send + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>>,
{
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("cannot start a runtime")?.block_on(work())
    });
    thread.join().map_err(|_| Error::new("a thread of the lab panicked"))?
}

fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // Held together, so that no port comes twice.
    let mut held = Vec::new();
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((LOOPBACK, 0)).context("no free port on loopback")?;
        *port = listener.local_addr().context("no free port on loopback")?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn last_line(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing").trim().to_owned()
}
