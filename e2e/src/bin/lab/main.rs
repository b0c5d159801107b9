//! `cargo lab`: a real cluster of workstations on one machine.

mod control;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use nearbrick_e2e::error::Context;
use nearbrick_e2e::{Result, bench, demo, soak};

/// A real cluster of workstations on this machine: three workstations with a disk each, an agent on each,
/// the operator, and a Kubernetes control plane.
#[derive(Parser)]
#[command(name = "cargo lab", bin_name = "cargo lab", version, about)]
struct Cli {
    /// Which lab: several can be up at once.
    #[arg(long, global = true, default_value = "lab", env = "NEARBRICK_LAB")]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the lab, and leave it running.
    Up {
        /// Have the agents serve all reads and writes themselves.
        #[arg(long)]
        no_passthrough: bool,
        /// Have operator and agents run as processes, without kubelets and the chart: that is up sooner.
        #[arg(long)]
        processes: bool,
    },
    /// End the lab, and remove every trace of it.
    Down {
        /// Wait until standard input ends; then do it.
        #[arg(long, hide = true)]
        when_input_ends: bool,
    },
    /// Show what runs.
    Status,
    /// Show it all: write on one workstation, watch the heal, lose the workstation, get it back.
    Demo(demo::Options),
    /// Run every test, those that need a lab too.
    Test {
        /// Only tests with this in their names.
        #[arg(long)]
        filter: Option<String>,
        /// On the cluster that KUBECONFIG names, where the chart is installed, and nothing else.
        #[arg(long)]
        cluster: bool,
    },
    /// Measure.
    Bench {
        #[command(subcommand)]
        what: Bench,
    },
    /// Run a program on a workstation.
    Exec {
        /// The workstation.
        node: String,
        /// The program and its arguments.
        #[arg(required = true, last = true)]
        command: Vec<String>,
    },
    /// Show the log of a workstation's agent, or of a part of the control plane.
    Logs {
        /// ws-a, ws-b, ws-c, operator, etcd, kube-apiserver and others.
        part: String,
        /// Go on as it grows.
        #[arg(short, long)]
        follow: bool,
    },
    /// Run kubectl with the lab's kubeconfig.
    Kubectl {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Cut a workstation off from the network; it runs on.
    Partition {
        /// The workstation.
        node: String,
    },
    /// Connect a workstation again.
    Join {
        /// The workstation.
        node: String,
    },
    /// Pull a workstation's plug: all its programs end at once. Its disk stays.
    Kill {
        /// The workstation.
        node: String,
        /// Lose what was not yet written to its disk, too.
        #[arg(long)]
        lose_unwritten: bool,
    },
    /// Switch a workstation on again.
    Start {
        /// The workstation.
        node: String,
    },
    /// Work on all workstations for a long time, through faults, and look for what was acknowledged.
    Soak(soak::Options),
    /// Make a load where this runs: a part of the bench.
    #[command(hide = true)]
    Load(bench::load::Load),
    /// Work as a person does where this runs: a part of the soak.
    #[command(hide = true)]
    SoakUser(soak::user::User),
    /// List what people's work left: a part of the soak.
    #[command(hide = true)]
    SoakList {
        /// The volume's mount.
        mount: PathBuf,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// Local work: the brick's own file system, a volume, and GlusterFS 10 with two replicas.
    Local(bench::Options),
    /// Where copies of files are: weeks of people in a lab, simulated, under the operator's decisions and two others.
    Migration(bench::trace::Options),
    /// The operator with many workstations whose agents are simulated, on a real API server.
    Scale(bench::scale::Options),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("lab: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(&cli.name, cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(name: &str, command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { no_passthrough, processes } => control::up(name, no_passthrough, processes).await?,
        Command::Down { when_input_ends } => control::down(name, when_input_ends)?,
        Command::Status => control::status(name)?,
        Command::Demo(options) => demo::run(name, &options).await?,
        Command::Test { filter, cluster: true } => return verify::on_cluster(filter.as_deref()),
        Command::Test { filter, .. } => return verify::run(filter.as_deref()),
        Command::Bench { what: Bench::Local(options) } => {
            let files: Vec<PathBuf> = bench::local(name, &options).await?;
            for file in files {
                println!("{}", file.display());
            }
        }
        Command::Bench { what: Bench::Migration(options) } => {
            for (count, report) in options.workstations.iter().zip(bench::trace::run(&options)) {
                for file in bench::write(&format!("migration-{count}"), &report)? {
                    println!("{}", file.display());
                }
            }
        }
        Command::Bench { what: Bench::Scale(options) } => {
            for file in bench::write("scale", &bench::scale::run(&options).await?)? {
                println!("{}", file.display());
            }
        }
        Command::Exec { node, command } => return Err(control::exec(name, &node, &command)),
        Command::Logs { part, follow } => return Err(control::logs(name, &part, follow)),
        Command::Kubectl { arguments } => return Err(control::kubectl(name, &arguments)),
        Command::Partition { node } => control::set_link(name, &node, false)?,
        Command::Join { node } => control::set_link(name, &node, true)?,
        Command::Kill { node, lose_unwritten } => control::kill(name, &node, lose_unwritten)?,
        Command::Start { node } => control::start(name, &node)?,
        Command::Soak(options) => soak::run(name, &options).await?,
        Command::SoakUser(user) => {
            soak::user::wait_mounted(&user.mount, Duration::from_secs(180))?;
            soak::user::run(&user)?;
        }
        Command::SoakList { mount } => {
            let found = soak::list(&mount)?;
            println!("{}", serde_json::to_string(&found).context("cannot write the list")?);
        }
        Command::Load(load) => {
            let done = bench::load::run(&load)?;
            println!("{}", serde_json::to_string(&done).context("cannot write the result")?);
        }
    }
    Ok(ExitCode::SUCCESS)
}
