//! The command line of the brick agent.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use clap::{Args, Parser, Subcommand};
use nearbrick_agent::control::api::ApiServer;
use nearbrick_agent::control::report::Reporter;
use nearbrick_agent::control::status::Reporting;
use nearbrick_agent::control::watch::{Follower, Seen};
use nearbrick_agent::fuse;
use nearbrick_agent::metrics::{self, Sources};
use nearbrick_agent::peer::server::{self, Limits, Registry, Stats};
use nearbrick_agent::peer::tls::{Tls, is_node_name};
use nearbrick_agent::supervisor::{Options, Supervisor};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Descriptors that the agent asks for: each file that is open at the workstation takes two.
const DESCRIPTORS: u64 = 1 << 20;

/// The brick agent of Nearbrick: mounts volumes at a workstation, and keeps bricks on its disk.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs until SIGTERM or Ctrl-C; then it unmounts and closes every volume.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Name of the Node object of this workstation.
    #[arg(long, env = "NODE_NAME", value_parser = node_name)]
    node: String,
    /// Kubeconfig file; without it, the pod's service account.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Where bricks are kept: DIR/NAMESPACE/VOLUME, unless a brick has a path of its own.
    #[arg(long, value_name = "DIR")]
    bricks_dir: PathBuf,
    /// Where volumes are mounted: DIR/NAMESPACE/VOLUME.
    #[arg(long, value_name = "DIR", default_value = "/volumes")]
    mounts_dir: PathBuf,
    /// Where peers reach this agent. Not 0.0.0.0: others are told this address.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = peer_address)]
    listen: SocketAddr,
    /// Folder with ca.crt, tls.crt and tls.key; the certificate's DNS name is the node's.
    #[arg(long, value_name = "DIR")]
    tls_dir: PathBuf,
    /// Where /metrics and /healthz are served.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7444")]
    metrics: SocketAddr,
    /// Serves all reads and writes itself, even where the kernel could go to the brick file.
    #[arg(long)]
    no_passthrough: bool,
}

fn node_name(text: &str) -> Result<String, String> {
    if is_node_name(text) {
        return Ok(text.to_owned());
    }
    Err("not the name of a node: lower-case letters, digits, - and . only, as `kubectl get nodes` shows it"
        .to_owned())
}

fn peer_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr =
        text.parse().map_err(|_| "give ADDRESS:PORT, as in 10.0.0.1:7443".to_owned())?;
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(
            "peers are told this address: give the one at which they reach this workstation".to_owned()
        );
    }
    Ok(address)
}

fn main() -> ExitCode {
    let Command::Run(args) = Cli::parse().command;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start threads: {error}")),
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => failed(&line),
    }
}

fn failed(line: &str) -> ExitCode {
    eprintln!("brick-agent: {line}");
    ExitCode::FAILURE
}

async fn run(args: Run) -> Result<(), String> {
    fuse::available().map_err(|e| e.to_string())?;
    raise_descriptors();
    let tls = Tls::load(&args.tls_dir, &args.node).map_err(|e| e.to_string())?;
    let peers = listener("--listen", args.listen).await?;
    let scrapes = listener("--metrics", args.metrics).await?;
    let api = ApiServer::connect(args.kubeconfig.as_deref(), &args.node).await.map_err(|e| e.to_string())?;
    let ends = Ends::new().map_err(|e| format!("cannot wait for signals: {e}"))?;
    tracing::info!(node = %args.node, version = env!("CARGO_PKG_VERSION"), "the brick agent starts");

    let registry = Arc::new(Registry::default());
    let options = Options {
        node: args.node.clone(),
        bricks_dir: args.bricks_dir.clone(),
        mounts_dir: args.mounts_dir.clone(),
        passthrough: !args.no_passthrough,
    };
    let supervisor = Supervisor::new(options, tls.clone(), registry.clone(), api.clone());
    let facts = Arc::new(supervisor.clone());
    let stats = Arc::new(Stats::default());
    let sources = Sources { facts: facts.clone(), peers: stats.clone(), api: api.state() };
    let seen = Arc::new(Seen::default());
    let follower = Follower {
        api: api.clone(),
        node: args.node.clone(),
        bricks_dir: args.bricks_dir,
        volumes: facts.clone(),
        seen: seen.clone(),
        gate: Mutex::new(()),
    };
    let reporting = Reporting { address: args.listen.to_string(), mounts_dir: args.mounts_dir };
    let reporter = Reporter::new(api, &args.node, reporting, facts, seen);

    // In this order at the end: no new work, volumes closed, the last report, then what serves.
    let (no_work, no_reports, no_service) =
        (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
    let serving = [
        tokio::spawn(server::serve(peers, tls, registry, stats, Limits::default(), no_service.clone())),
        tokio::spawn(metrics::serve(scrapes, metrics::routes(sources), no_service.clone())),
    ];
    supervisor.resume();
    let following = tokio::spawn(follower.run(no_work.clone()));
    let reporting = tokio::spawn(reporter.run(no_reports.clone()));

    ends.wait().await;
    tracing::info!("ends: unmounts and closes all volumes");
    no_work.cancel();
    let _ = following.await;
    no_reports.cancel();
    let _ = reporting.await;
    supervisor.shut_down().await;
    no_service.cancel();
    for task in serving {
        let _ = task.await;
    }
    tracing::info!("ended");
    Ok(())
}

async fn listener(flag: &str, address: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{flag} {address}: the port is taken: end what listens there, or give another one")
        }
        std::io::ErrorKind::AddrNotAvailable => {
            format!("{flag} {address}: this machine does not have the address: give one of `ip address`")
        }
        _ => format!("{flag} {address}: {error}"),
    })
}

/// As many descriptors as may be had: work goes on with fewer, but a big job may then meet the limit.
fn raise_descriptors() {
    let now = getrlimit(Resource::Nofile);
    let hard = now.maximum.unwrap_or(DESCRIPTORS);
    for wanted in [DESCRIPTORS, hard] {
        let limit = Rlimit { current: Some(wanted), maximum: Some(hard.max(wanted)) };
        if now.current.is_some_and(|n| n >= wanted) || setrlimit(Resource::Nofile, limit).is_ok() {
            return;
        }
    }
    tracing::warn!("the limit of open files stays at {:?}", now.current);
}

/// SIGTERM and Ctrl-C.
struct Ends {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Ends {
    fn new() -> std::io::Result<Self> {
        Ok(Ends { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
