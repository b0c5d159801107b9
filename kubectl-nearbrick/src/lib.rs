//! The plugin `kubectl nearbrick`.
//!
//! * [`cluster`]: what is read from the API server, and what is changed there.
//! * [`status`]: volumes, workstations, and what is pending, as values; [`table`]: as text.
//! * [`wait`]: `flush` and `leave`, which go on until all is copied.
//! * [`conflicts`]: the open conflicts, and a person's word on them.
//! * [`files`]: files of one volume, as agents know them: what is pending, who holds which version, kept versions, and copies read.
//! * [`bundle`]: what somebody needs who is to help and was not there.
//! * [`usage`]: who uses what, why it is where it is, and moves.

pub mod bundle;
pub mod cluster;
pub mod conflicts;
pub mod files;
pub mod status;
pub mod table;
pub mod usage;
pub mod wait;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use nearbrick_crds::files::RestoreRequest;

use crate::cluster::{Cluster, Scope};
use crate::table::Paint;

/// The command line.
#[derive(Parser, Debug)]
#[command(
    name = "kubectl-nearbrick",
    bin_name = "kubectl nearbrick",
    version,
    about = "Is my work safe, may I leave?"
)]
pub struct Cli {
    /// The namespace; that of the kubeconfig's context if not given.
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long, global = true)]
    all_namespaces: bool,
    /// The context of the kubeconfig.
    #[arg(long, global = true)]
    context: Option<String>,
    /// The user as whom it is asked, if you may: to see what others can.
    #[arg(long = "as", value_name = "USER", global = true)]
    as_user: Option<String>,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// What can be done.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Shows volumes, workstations, and what is pending where and since when.
    Status {
        /// How it is shown.
        #[arg(short, long, default_value = "table")]
        output: Output,
        /// Shows it again whenever it changes, until Ctrl-C.
        #[arg(short, long)]
        watch: bool,
    },
    /// Copies what is pending, now.
    Flush {
        /// The volumes; all of the namespace if none is named.
        volumes: Vec<String>,
        /// Waits until all is copied; fails if something cannot be.
        #[arg(long)]
        wait: bool,
        /// The longest wait, for example `30m`.
        #[arg(long, default_value = "30m", value_parser = duration)]
        timeout: Duration,
    },
    /// Says whether a workstation may be switched off: succeeds if all that was written there is held by others.
    Leave {
        /// The workstation.
        node: String,
        /// Copies what is pending and waits until it may leave.
        #[arg(long)]
        wait: bool,
        /// The longest wait, for example `30m`.
        #[arg(long, default_value = "30m", value_parser = duration)]
        timeout: Duration,
    },
    /// Lists open conflicts, or shows one with all of its versions.
    Conflicts {
        /// The object's name, or the path of the file.
        which: Option<String>,
        /// How the list is shown.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Chooses which version of files in conflict stays. The others are kept for the volume's `versionRetention`.
    Resolve {
        /// Names of the objects, paths, or globs of paths.
        which: Vec<String>,
        /// All that are open.
        #[arg(long, conflicts_with = "which")]
        all: bool,
        /// The version: `both`, `newest`, `largest`, or the name of the workstation (or brick) that wrote it.
        #[arg(long)]
        keep: String,
    },
    /// Takes choices back: all versions of those files are side by side again, as long as they are kept.
    Undo {
        /// Names of the objects, paths, or globs of paths.
        #[arg(required = true)]
        which: Vec<String>,
    },
    /// Shows what is used most, and on which workstations.
    Heat {
        /// The volume.
        volume: String,
        /// How it is shown.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Lists the files of which a brick lacks the newest data: who lacks it, since when, and what it waits for.
    Pending {
        /// The volume.
        volume: String,
        /// Only what this workstation lacks; its agent is asked first.
        #[arg(long)]
        node: Option<String>,
        /// Only this file, or what is below this directory, from the volume's root.
        #[arg(long)]
        path: Option<String>,
        /// So many files at most; all if not given.
        #[arg(long)]
        limit: Option<u64>,
        /// How it is shown.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Shows which workstation holds which version of a file, who wrote it, and whether the copy is known to be good.
    Where {
        /// The volume.
        volume: String,
        /// The file, from the volume's root.
        path: String,
        /// How it is shown.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Lists versions that are kept (deleted, replaced, or lost in a conflict), or brings one back.
    Versions {
        /// The volume.
        volume: String,
        /// The file, or a directory, from the volume's root; all if not given.
        path: Option<String>,
        /// Only on this workstation.
        #[arg(long)]
        node: Option<String>,
        /// The version to bring back, as the list names it. What is there now is kept too.
        #[arg(long, value_name = "VERSION")]
        restore: Option<String>,
        /// Where it is put, from the volume's root; where it was if not given.
        #[arg(long, requires = "restore")]
        to: Option<String>,
        /// How the list is shown.
        #[arg(short, long, default_value = "table")]
        output: Output,
    },
    /// Has the workstations read their copies now and compare them with their hashes; succeeds if none is damaged.
    Verify {
        /// The volume.
        volume: String,
        /// Only on this workstation.
        #[arg(long)]
        node: Option<String>,
        /// Only this file, or what is below this directory, from the volume's root.
        #[arg(long)]
        path: Option<String>,
        /// Only asks for it.
        #[arg(long)]
        no_wait: bool,
        /// The longest wait, for example `30m`.
        #[arg(long, default_value = "1h", value_parser = duration)]
        timeout: Duration,
    },
    /// Says which bricks are to hold a file or directory, because of what, and what is still to come.
    Why {
        /// The volume.
        volume: String,
        /// The path, from the volume's root.
        path: String,
    },
    /// Moves the replicas of files to a workstation: a copy is added there first, and one is dropped elsewhere after.
    Migrate {
        /// The volume.
        volume: String,
        /// Files, directories, or globs, from the volume's root.
        #[arg(required = true)]
        paths: Vec<String>,
        /// The workstation.
        #[arg(long)]
        to: String,
        /// The workstation that is to hold them no longer; the one where they are used least if not given.
        #[arg(long)]
        from: Option<String>,
        /// Shows what would be done, and does nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Packs what somebody needs who is to help: objects, events and logs, as far as you may read them; no file's content, and no Secret.
    SupportBundle {
        /// Where it is written.
        #[arg(short, long, value_name = "FILE", default_value = "nearbrick-support.tar.gz")]
        file: PathBuf,
        /// The namespace in which operator and agents run.
        #[arg(long, default_value = "nearbrick-system")]
        system_namespace: String,
        /// Leaves out what has names of people's files: paths in objects are replaced, and logs stay out.
        #[arg(long)]
        without_paths: bool,
    },
    /// Prints a script that completes this command in a shell.
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// How something is shown.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// The same with more columns.
    Wide,
    /// For programs.
    Json,
    /// The same.
    Yaml,
}

/// What went wrong, in one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cluster can be asked.
    #[error("cannot reach a cluster: {0}; is KUBECONFIG right?")]
    Config(String),
    /// A request failed.
    #[error("cannot {what}: {why}")]
    Api {
        /// What was tried.
        what: String,
        /// What the API server, or the way to it, said.
        why: String,
    },
    /// What was named is not there, or cannot be done.
    #[error("{0}")]
    Said(String),
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<kube::core::Duration>().map(Duration::from);
    parsed.map_err(|_| format!("{text:?} is no duration: write one such as 90s, 30m or 2h"))
}

/// Does what the command line says. The code is the answer: 0 for yes, and for done.
///
/// # Errors
/// With one clear line.
pub async fn run(cli: Cli) -> Result<ExitCode, Error> {
    if let Command::Completion { shell } = cli.command {
        clap_complete::generate(shell, &mut Cli::command(), "kubectl-nearbrick", &mut std::io::stdout());
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = Cluster::connect(cli.context.as_deref(), cli.as_user).await?;
    let scope = Scope::of(&cluster, cli.namespace, cli.all_namespaces);
    let paint = Paint::of_stdout();
    match cli.command {
        Command::Status { output, watch } => status::show(&cluster, &scope, output, watch, paint).await,
        Command::Flush { volumes, wait, timeout } => {
            wait::flush(&cluster, &scope, &volumes, wait.then_some(timeout)).await
        }
        Command::Leave { node, wait, timeout } => {
            wait::leave(&cluster, &node, wait.then_some(timeout), paint).await
        }
        Command::Conflicts { which, output } => {
            conflicts::show(&cluster, &scope, which.as_deref(), output, paint).await
        }
        Command::Resolve { which, all, keep } => {
            conflicts::resolve(&cluster, &scope, &which, all, &keep).await
        }
        Command::Undo { which } => conflicts::undo(&cluster, &scope, &which).await,
        Command::Heat { volume, output } => usage::heat(&cluster, &scope, &volume, output, paint).await,
        Command::Pending { volume, node, path, limit, output } => {
            let part = files::Part { node, path, limit };
            files::pending(&cluster, &scope, &volume, &part, output, paint).await
        }
        Command::Where { volume, path, output } => {
            files::whereabouts(&cluster, &scope, &volume, &path, output, paint).await
        }
        Command::Versions { volume, path, node, restore: Some(version), to, .. } => {
            let path = path.unwrap_or_default();
            let wanted = RestoreRequest { version, path, to, node };
            files::restore(&cluster, &scope, &volume, &wanted).await
        }
        Command::Versions { volume, path, node, output, .. } => {
            let part = files::Part { node, path, limit: None };
            files::versions(&cluster, &scope, &volume, &part, output, paint).await
        }
        Command::Verify { volume, node, path, no_wait, timeout } => {
            let part = files::Part { node, path, limit: None };
            files::verify(&cluster, &scope, &volume, &part, (!no_wait).then_some(timeout)).await
        }
        Command::Why { volume, path } => usage::why(&cluster, &scope, &volume, &path).await,
        Command::Migrate { volume, paths, to, from, dry_run } => {
            let wanted = usage::Move { volume, paths, to, from, dry_run };
            usage::migrate(&cluster, &scope, &wanted).await
        }
        Command::SupportBundle { file, system_namespace, without_paths } => {
            let wanted = bundle::Wanted { file, system_namespace, without_paths };
            bundle::pack(&cluster, &wanted).await
        }
        Command::Completion { .. } => Ok(ExitCode::SUCCESS),
    }
}

/// Prints to stdout. Who reads may have gone: that is no error.
pub(crate) fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// For programs.
pub(crate) fn structured<T: serde::Serialize>(value: &T, output: Output) -> Result<String, Error> {
    let failed = |why: String| Error::Said(format!("cannot be written: {why}"));
    match output {
        Output::Yaml => serde_norway::to_string(value).map_err(|e| failed(e.to_string())),
        _ => serde_json::to_string_pretty(value).map(|t| t + "\n").map_err(|e| failed(e.to_string())),
    }
}
