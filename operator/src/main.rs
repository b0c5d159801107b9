//! The command line of the operator.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nearbrick_operator::plan::job::Limits;
use nearbrick_operator::{Options, Settings, files, lease, shutdown};
use tracing_subscriber::EnvFilter;

/// The Nearbrick operator.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs until SIGTERM or Ctrl-C.
    Run(Run),
}

#[derive(Args)]
struct Run {
    /// Kubeconfig file; without it, KUBECONFIG, the usual file, or the pod's service account.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
    /// Where the status page, /metrics, /healthz and /readyz are served.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Namespace of the lease; it must exist.
    #[arg(long, default_value = "nearbrick-system")]
    lease_namespace: String,
    /// Name of the lease.
    #[arg(long, default_value = "nearbrick-operator")]
    lease_name: String,
    /// Who this process is; different for each. The host's name and the process id if not given.
    #[arg(long, env = "NEARBRICK_IDENTITY")]
    identity: Option<String>,
    /// Silence after which an agent is away.
    #[arg(long, default_value = "40s", value_parser = duration)]
    away_after: Duration,
    /// How long a heal job waits for a workstation that is away.
    #[arg(long, default_value = "60s", value_parser = duration)]
    unreachable_after: Duration,
    /// Agents get their certificates elsewhere, from cert-manager for example.
    #[arg(long)]
    no_certificates: bool,
    /// Where lists of files are served to the API server; without it they are not.
    #[arg(long)]
    files_listen: Option<SocketAddr>,
    /// The Service, in the namespace of the lease, by which the API server comes for them.
    #[arg(long, default_value = "nearbrick-files")]
    files_service: String,
    /// A folder with ca.crt, tls.crt and tls.key for that, and to ask agents; needed with --no-certificates.
    #[arg(long)]
    files_tls_dir: Option<PathBuf>,
    /// How long a heal job waits for an agent that reports to start its part.
    #[arg(long, default_value = "5m", value_parser = duration)]
    start_within: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<kube::core::Duration>().map(Duration::from).map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    let Command::Run(args) = Cli::parse().command;
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("info,kube=warn,kube_client::client::builder=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("nearbrick-operator: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("nearbrick-operator: {line}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Run) -> Result<(), String> {
    let cluster = cluster(args.kubeconfig).await?;
    let identity = args.identity.unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        format!("{}-{}", host.trim(), std::process::id())
    });
    if args.files_listen.is_some() && args.no_certificates && args.files_tls_dir.is_none() {
        return Err("--files-listen with --no-certificates needs --files-tls-dir: a certificate by which agents know the operator".to_owned());
    }
    let files = args.files_listen.map(|listen| files::Config {
        listen,
        service: args.files_service,
        namespace: args.lease_namespace.clone(),
        tls_dir: args.files_tls_dir,
    });
    let options = Options {
        certificates: !args.no_certificates,
        files,
        listen: args.listen,
        lease: lease::Config::new(args.lease_namespace, args.lease_name, identity),
        settings: Settings {
            away_after: args.away_after,
            job_limits: Limits { unreachable_after: args.unreachable_after, start_within: args.start_within },
        },
    };
    let (trigger, shutdown) = shutdown::channel();
    let signals = tokio::spawn(async move {
        if let Err(error) = shutdown::on_signals().await {
            tracing::error!("cannot wait for signals: {error}");
        }
        tracing::info!("ends");
        trigger.fire();
    });
    let result = nearbrick_operator::run(cluster, options, shutdown).await;
    signals.abort();
    result
}

async fn cluster(kubeconfig: Option<PathBuf>) -> Result<kube::Config, String> {
    match &kubeconfig {
        Some(path) => {
            let said = |e: kube::config::KubeconfigError| {
                format!("cannot use the kubeconfig {}: {e}", path.display())
            };
            let file = Kubeconfig::read_from(path).map_err(said)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(said)
        }
        None => kube::Config::infer()
            .await
            .map_err(|e| format!("found no way to a cluster: {e}: give --kubeconfig FILE")),
    }
}
