//! The command line of the brick agent.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use nearbrick_agent::commands::{self, Answer, Ask, client};
use nearbrick_agent::control::api::ApiServer;
use nearbrick_agent::control::certificate::Certificate;
use nearbrick_agent::control::report::Reporter;
use nearbrick_agent::control::status::Reporting;
use nearbrick_agent::control::watch::{Follower, Seen};
use nearbrick_agent::csi::controller::ControllerService;
use nearbrick_agent::csi::node::NodeService;
use nearbrick_agent::csi::register::{self, Registration};
use nearbrick_agent::csi::server::{self as csi_server, Socket};
use nearbrick_agent::fuse;
use nearbrick_agent::holder;
use nearbrick_agent::holder::client::HolderOptions;
use nearbrick_agent::holder::server::HoldOptions;
use nearbrick_agent::metrics::{self, Sources};
use nearbrick_agent::peer::server::{self, Limits, Registry, Stats};
use nearbrick_agent::peer::tls::{Tls, is_node_name};
use nearbrick_agent::supervisor::{Options, Supervisor};
use nearbrick_crds::quantity;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Descriptors that the agent asks for: each file that is open at the workstation takes two.
const DESCRIPTORS: u64 = 1 << 20;
/// Where the holder is, unless it is said otherwise.
const RUN_DIR: &str = "/run/nearbrick";
/// Seconds for which calls wait for the next agent, unless it is said otherwise.
const WAIT: u64 = 120;

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
    Run(Box<Run>),
    /// Makes volumes for claims, beside csi-provisioner: the controller of the CSI driver. Runs until SIGTERM or Ctrl-C.
    CsiController(CsiController),
    /// Keeps mounts while their agent is away. An agent starts one by itself, unless it is told to join one.
    Hold(Hold),
    /// Deleted files and losers of conflicts that are kept on this workstation's bricks.
    #[command(subcommand)]
    Versions(Versions),
    /// Looks through all that this workstation holds of a volume now, as `verifySchedule` does from time to time: whether
    /// bytes are as they were written, and what was changed past the mount. Shows how far it is; it goes on without that.
    Scrub {
        /// The volume: its mount, or NAMESPACE/NAME.
        volume: PathBuf,
        #[command(flatten)]
        agent: Agent,
    },
}

#[derive(Subcommand)]
enum Versions {
    /// Lists them, the oldest first.
    List {
        /// A file or directory of a volume, as it is or was in the mount.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        path: Option<PathBuf>,
        /// Those of all volumes.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        agent: Agent,
    },
    /// Brings one back, as a new edit or a new file; the others hear of it as of any other.
    Restore {
        /// The version, as `list` shows it.
        version: String,
        /// Where to put it, in the same volume, if not where it was. What is there is kept first.
        #[arg(long, value_name = "PATH")]
        to: Option<PathBuf>,
        #[command(flatten)]
        agent: Agent,
    },
}

/// The agent that is asked.
#[derive(Args)]
struct Agent {
    /// The folder that it was given with the same flag.
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    run_dir: PathBuf,
}

#[derive(Args)]
struct Hold {
    /// Folder for its socket, holder.sock, and its pid, holder.pid.
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    run_dir: PathBuf,
    /// For how long calls wait for the next agent. After that programs get an error.
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT)]
    wait_seconds: u64,
    /// Ends when it keeps nothing and no agent is there.
    #[arg(long)]
    until_empty: bool,
}

#[derive(Args)]
struct CsiController {
    /// The socket on which csi-provisioner asks.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Kubeconfig file; without it, the pod's service account.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

/// Who keeps mounts while the agent is away.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Holder {
    /// One that the agent starts, and that ends after it unless mounts are left to the next agent.
    Start,
    /// One that runs already: `brick-agent hold`.
    Join,
    /// None: mounts end with the agent.
    None,
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
    /// Where peers are listened for. Others are told this address, unless there is --advertise: then it may be 0.0.0.0.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// The address at which peers reach this agent, if it is another one than that at which it listens.
    #[arg(long, value_name = "ADDRESS:PORT")]
    advertise: Option<SocketAddr>,
    /// Folder with ca.crt, tls.crt and tls.key; the certificate's DNS name is the node's.
    #[arg(long, value_name = "DIR")]
    tls_dir: PathBuf,
    /// Asks the operator for the certificate, by way of the API server, keeps it in --tls-dir, and renews it; otherwise somebody else has to
    /// do that.
    #[arg(long)]
    tls_from_cluster: bool,
    /// Namespace in which the operator says whose certificates are to be trusted.
    #[arg(long, value_name = "NAMESPACE", default_value = "nearbrick-system", env = "NEARBRICK_NAMESPACE")]
    system_namespace: String,
    /// Where /metrics and /healthz are served.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7444")]
    metrics: SocketAddr,
    /// Serves all reads and writes itself, even where the kernel could go to the brick file.
    #[arg(long)]
    no_passthrough: bool,
    /// Who keeps mounts while the agent is away.
    #[arg(long, value_enum, default_value_t = Holder::Start)]
    holder: Holder,
    /// The holder's folder, and that of the socket for commands. One for each agent of a machine.
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    run_dir: PathBuf,
    /// What a holder that the agent starts is told: for how long calls wait for the next agent.
    #[arg(long, value_name = "SECONDS", default_value_t = WAIT)]
    wait_seconds: u64,
    /// At SIGTERM, leaves the mounts to the next agent instead of unmounting them: for upgrades.
    #[arg(long)]
    hand_over: bool,
    /// Most bytes in a second that heals of all volumes together may take from peers, such as 50Mi; at least 16Ki.
    #[arg(long, value_name = "BYTES", env = "NEARBRICK_HEAL_BANDWIDTH", value_parser = bytes)]
    heal_bandwidth: Option<u64>,
    /// Most bytes in a second that are read from the disk to look through bricks (`verifySchedule` says when), for all volumes
    /// together; at least 16Ki.
    #[arg(long, value_name = "BYTES", env = "NEARBRICK_SCRUB_BANDWIDTH", default_value = "32Mi", value_parser = bytes)]
    scrub_bandwidth: u64,
    /// Shows volumes to pods: the socket of the CSI driver, at the same path as kubelet sees it. Off unless given.
    #[arg(long, value_name = "PATH")]
    csi_socket: Option<PathBuf>,
    /// The folder in which kubelet looks for drivers, such as /var/lib/kubelet/plugins_registry; without it, somebody else registers the
    /// driver.
    #[arg(long, value_name = "DIR", requires = "csi_socket")]
    csi_registration_dir: Option<PathBuf>,
}

fn bytes(text: &str) -> Result<u64, String> {
    quantity::bytes(text).filter(|n| *n > 0).ok_or_else(|| "give a number of bytes, such as 50Mi".to_owned())
}

fn node_name(text: &str) -> Result<String, String> {
    if is_node_name(text) {
        return Ok(text.to_owned());
    }
    Err("not the name of a node: lower-case letters, digits, - and . only, as `kubectl get nodes` shows it"
        .to_owned())
}

/// What peers are told.
fn peer_address(listen: SocketAddr, advertise: Option<SocketAddr>) -> Result<SocketAddr, String> {
    let (flag, address) = advertise.map_or(("--listen", listen), |given| ("--advertise", given));
    if address.ip().is_unspecified() || address.port() == 0 {
        return Err(format!(
            "{flag} {address}: peers are told this address: give the one at which they reach this workstation, as --advertise if it is not \
             one of this machine"
        ));
    }
    Ok(address)
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube=warn,kube_client::client::builder=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let args = match command {
        Command::Run(args) => *args,
        Command::CsiController(args) => {
            return match in_runtime(csi_controller(args)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(line) => failed(&line),
            };
        }
        Command::Versions(versions) => {
            return match ask_versions(versions) {
                Ok(()) => ExitCode::SUCCESS,
                Err(line) => failed(&line),
            };
        }
        Command::Scrub { volume, agent } => {
            return match ask_scrub(&volume, &agent) {
                Ok(()) => ExitCode::SUCCESS,
                Err(line) => failed(&line),
            };
        }
        Command::Hold(Hold { run_dir, wait_seconds, until_empty }) => {
            raise_descriptors();
            let wait = Duration::from_secs(wait_seconds);
            return match holder::server::run(HoldOptions { run_dir, wait, until_empty }) {
                Ok(()) => ExitCode::SUCCESS,
                Err(line) => failed(&line),
            };
        }
    };
    match in_runtime(run(args)) {
        Ok(Ended::ForGood) => ExitCode::SUCCESS,
        Ok(Ended::ToBeginAnew) => failed(&begin_anew()),
        Err(line) => failed(&line),
    }
}

fn in_runtime<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|e| format!("cannot start threads: {e}"))?.block_on(work)
}

/// Why the agent ended.
enum Ended {
    /// It was told to.
    ForGood,
    /// Only a new process can go on.
    ToBeginAnew,
}

/// This program once more, in the place of this process. Gives back only why that cannot be.
fn begin_anew() -> String {
    let error = match std::env::current_exe() {
        Ok(program) => std::process::Command::new(program).args(std::env::args_os().skip(1)).exec(),
        Err(error) => error,
    };
    format!("cannot begin anew: {error}: start it again")
}

fn ask_versions(versions: Versions) -> Result<(), String> {
    let (agent, ask) = match versions {
        Versions::List { path, agent, all: _ } => {
            (agent, Ask::Versions { path: path.as_deref().map(client::absolute).transpose()? })
        }
        Versions::Restore { version, to, agent } => {
            (agent, Ask::Restore { id: version, to: to.as_deref().map(client::absolute).transpose()? })
        }
    };
    let mut out = std::io::stdout().lock();
    let mut any = false;
    client::ask(&agent.run_dir, &ask, |answer| {
        // A pipe that is closed wants no more.
        let _ = match answer {
            Answer::Version(version) => {
                let heads = if std::mem::replace(&mut any, true) {
                    Ok(())
                } else {
                    writeln!(out, "{}", client::HEADS)
                };
                heads.and_then(|()| writeln!(out, "{}", client::line(&version)))
            }
            Answer::Restored(path) => {
                any = true;
                writeln!(out, "restored {}", String::from_utf8_lossy(&path).escape_debug())
            }
            Answer::Scrub(_) | Answer::End | Answer::Failed(_) => Ok(()),
        };
    })?;
    if !any {
        let _ = writeln!(out, "nothing is kept of that on this workstation's bricks");
    }
    Ok(())
}

fn ask_scrub(volume: &std::path::Path, agent: &Agent) -> Result<(), String> {
    let ask = Ask::Scrub { volume: volume.as_os_str().as_bytes().to_vec() };
    let mut out = std::io::stdout().lock();
    client::ask(&agent.run_dir, &ask, |answer| {
        if let Answer::Scrub(progress) = answer {
            // A pipe that is closed wants no more.
            let _ = writeln!(out, "{}", client::progress(&progress));
        }
    })
}

fn failed(line: &str) -> ExitCode {
    eprintln!("brick-agent: {line}");
    ExitCode::FAILURE
}

async fn csi_controller(args: CsiController) -> Result<(), String> {
    let api = ApiServer::connect(args.kubeconfig.as_deref(), "csi").await.map_err(|e| e.to_string())?;
    let mut ends = Ends::new().map_err(|e| format!("cannot wait for signals: {e}"))?;
    let socket = csi_socket("--socket", &args.socket)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "the controller of the CSI driver starts");
    let stop = CancellationToken::new();
    let service = Arc::new(ControllerService::new(api.client));
    let serving = tokio::spawn(csi_server::serve(socket, service, stop.clone()));
    ends.wait().await;
    stop.cancel();
    let _ = serving.await;
    tracing::info!("ended");
    Ok(())
}

fn csi_socket(flag: &str, at: &std::path::Path) -> Result<Socket, String> {
    Socket::listen(at)
        .map_err(|e| format!("{flag} {}: {e}: give a path at which a socket can be made", at.display()))
}

async fn run(args: Run) -> Result<Ended, String> {
    let address = peer_address(args.listen, args.advertise)?.to_string();
    fuse::available().map_err(|e| e.to_string())?;
    raise_descriptors();
    let api = ApiServer::connect(args.kubeconfig.as_deref(), &args.node).await.map_err(|e| e.to_string())?;
    let mut ends = Ends::new().map_err(|e| format!("cannot wait for signals: {e}"))?;
    let no_work = CancellationToken::new();
    let certificate = args
        .tls_from_cluster
        .then(|| Certificate::new(api.client.clone(), &args.node, &args.system_namespace, &args.tls_dir));
    if let Some(certificate) = &certificate {
        tokio::select! {
            () = certificate.wait(&no_work) => {}
            () = ends.wait() => return Ok(Ended::ForGood),
        }
    }
    let tls = Tls::load(&args.tls_dir, &args.node).map_err(|e| e.to_string())?;
    let peers = listener("--listen", args.listen).await?;
    let scrapes = listener("--metrics", args.metrics).await?;
    let asked = commands::server::listen(&args.run_dir).map_err(|e| {
        format!("--run-dir {}: {e}: give a folder in which this agent may listen", args.run_dir.display())
    })?;
    let for_pods = args.csi_socket.as_deref().map(|at| csi_socket("--csi-socket", at)).transpose()?;
    let for_kubelet = args.csi_registration_dir.as_deref().map(register::socket);
    let for_kubelet = for_kubelet.map(|at| csi_socket("--csi-registration-dir", &at)).transpose()?;
    tracing::info!(node = %args.node, version = env!("CARGO_PKG_VERSION"), "the brick agent starts");

    let registry = Arc::new(Registry::default());
    let options = Options {
        node: args.node.clone(),
        bricks_dir: args.bricks_dir.clone(),
        mounts_dir: args.mounts_dir.clone(),
        passthrough: !args.no_passthrough,
        holder: holder_options(&args)?,
        hand_over: args.hand_over,
        heal_bandwidth: args.heal_bandwidth,
        scrub_bandwidth: args.scrub_bandwidth,
    };
    let supervisor = Supervisor::new(options, tls.clone(), registry.clone(), api.clone());
    let facts = Arc::new(supervisor.clone());
    let stats = Arc::new(Stats::default());
    let sources =
        Sources { facts: facts.clone(), peers: stats.clone(), api: api.state(), tls: Some(tls.clone()) };
    let seen = Arc::new(Seen::default());
    let follower = Follower {
        api: api.clone(),
        node: args.node.clone(),
        bricks_dir: args.bricks_dir,
        volumes: facts.clone(),
        seen: seen.clone(),
        gate: Mutex::new(()),
    };
    let pods = NodeService::new(&args.node, &args.mounts_dir, facts.clone(), api.client.clone());
    let reporting = Reporting { address, mounts_dir: args.mounts_dir };
    let reporter = Reporter::new(api, &args.node, reporting, facts.clone(), seen);

    // In this order at the end: no new work, volumes closed, the last report, then what serves.
    let (no_reports, no_service) = (CancellationToken::new(), CancellationToken::new());
    if let Some(certificate) = certificate {
        tokio::spawn(certificate.keep(no_work.clone()));
    }
    let mut serving = vec![
        tokio::spawn(server::serve(peers, tls, registry, stats, Limits::default(), no_service.clone())),
        tokio::spawn(metrics::serve(scrapes, metrics::routes(sources), no_service.clone())),
        tokio::spawn(commands::server::serve(asked, facts, no_work.clone())),
    ];
    if let Some(socket) = for_pods {
        serving.push(tokio::spawn(csi_server::serve(socket, Arc::new(pods), no_work.clone())));
    }
    // Kubelet asks the driver at once when it hears of it.
    if let (Some(socket), Some(endpoint)) = (for_kubelet, args.csi_socket) {
        let service = Arc::new(Registration { endpoint });
        serving.push(tokio::spawn(csi_server::serve(socket, service, no_work.clone())));
    }
    supervisor.resume();
    let following = tokio::spawn(follower.run(no_work.clone()));
    let reporting = tokio::spawn(reporter.run(no_reports.clone()));

    let ended = tokio::select! {
        () = ends.wait() => Ended::ForGood,
        () = supervisor.must_begin_anew() => Ended::ToBeginAnew,
    };
    let leaves = args.hand_over || matches!(ended, Ended::ToBeginAnew);
    let how = if leaves { "leaves to the next agent" } else { "unmounts" };
    tracing::info!("ends: {how} and closes all volumes");
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
    Ok(ended)
}

fn holder_options(args: &Run) -> Result<Option<HolderOptions>, String> {
    let start = match args.holder {
        Holder::None => return Ok(None),
        Holder::Join => None,
        Holder::Start => {
            Some(std::env::current_exe().map_err(|e| format!("cannot find this program's own file: {e}"))?)
        }
    };
    let wait = Duration::from_secs(args.wait_seconds);
    Ok(Some(HolderOptions { run_dir: args.run_dir.clone(), start, wait }))
}

/// For how long a port that is taken is waited for: an agent that was killed has it until its last call to a busy disk ends.
const PORT: Duration = Duration::from_secs(15);

async fn listener(flag: &str, address: SocketAddr) -> Result<TcpListener, String> {
    let until = Instant::now() + PORT;
    let mut said = false;
    let bound = loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until => {
                if !std::mem::replace(&mut said, true) {
                    tracing::debug!("{flag} {address}: the port is taken: waiting for it");
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            bound => break bound,
        }
    };
    bound.map_err(|error| match error.kind() {
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

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
