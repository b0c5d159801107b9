//! `cargo lab bench migration`: see [`trace`]; `scale`: see [`scale`]. `cargo lab bench local`: the same work on the brick's own file system, on a volume, and on GlusterFS, in
//! one run: each round does every kind of work on every file system, in turning order.

pub mod load;
pub mod place;
pub mod report;
pub mod scale;
pub mod trace;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::Value;

use self::load::Done;
use self::place::Place;
use self::report::{Report, Sample};
use crate::command::run as run_program;
use crate::error::{Context, Error, Result};
use crate::lab::{self, Lab};
use crate::logs::save;
use crate::volumes::Volume;
use crate::{packages, paths, progress};

/// A file system that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// XFS, as the brick has it.
    Native,
    /// A volume of ours.
    Nearbrick,
    /// GlusterFS 10 with two replicas.
    Gluster,
}

impl Target {
    fn name(self) -> &'static str {
        match self {
            Self::Native => "XFS",
            Self::Nearbrick => "Nearbrick",
            Self::Gluster => "GlusterFS replica 2",
        }
    }
}

/// Options of the bench.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How often everything is measured.
    #[arg(long, default_value_t = 5)]
    pub rounds: u32,
    /// Which file systems.
    #[arg(long, value_delimiter = ',', default_values = ["native", "nearbrick", "gluster"])]
    pub targets: Vec<Target>,
    /// Have the agents serve all reads and writes themselves.
    #[arg(long)]
    pub no_passthrough: bool,
}

/// A kind of work.
struct Workload {
    name: &'static str,
    unit: &'static str,
    tool: Tool,
}

enum Tool {
    /// fio with these options; the figure is in bytes or in operations.
    Fio { options: &'static str, way: &'static str, figure: &'static str, scale: f64 },
    /// Our own generator.
    Load(&'static str),
}

const MIB: f64 = 1024.0 * 1024.0;

const fn fio(options: &'static str, way: &'static str, figure: &'static str, scale: f64) -> Tool {
    Tool::Fio { options, way, figure, scale }
}

/// The file for fio is laid out by the first workload, and stays for the others of the round.
const WORKLOADS: [Workload; 7] = [
    Workload {
        name: "sequential write, 1 MiB",
        unit: "MiB/s",
        tool: fio("--rw=write --bs=1M --end_fsync=1", "write", "bw_bytes", MIB),
    },
    Workload {
        name: "sequential read, 1 MiB",
        unit: "MiB/s",
        tool: fio("--rw=read --bs=1M --time_based --runtime=2", "read", "bw_bytes", MIB),
    },
    Workload {
        name: "random write, 4 KiB",
        unit: "ops/s",
        tool: fio("--rw=randwrite --bs=4k --norandommap --time_based --runtime=2", "write", "iops", 1.0),
    },
    Workload {
        name: "random read, 4 KiB",
        unit: "ops/s",
        tool: fio("--rw=randread --bs=4k --norandommap --time_based --runtime=2", "read", "iops", 1.0),
    },
    Workload { name: "create, write 4 KiB, close", unit: "files/s", tool: Tool::Load("create") },
    Workload { name: "stat of a known file", unit: "files/s", tool: Tool::Load("stat") },
    Workload { name: "readdir, 500 entries", unit: "entries/s", tool: Tool::Load("readdir") },
];

/// Size of fio's file.
const FILE: &str = "256M";

/// Measures local work on a lab of its own; the files that were written.
///
/// # Errors
/// A part cannot be started, or a measurement fails.
pub async fn local(name: &str, options: &Options) -> Result<Vec<PathBuf>> {
    let name = format!("{name}-bench");
    lab::check_machine()?;
    Lab::down(&name)?;
    let result = tokio::select! {
        result = measure(&name, options) => result,
        _ = tokio::signal::ctrl_c() => Err(Error::new("interrupted")),
    };
    if result.is_err()
        && let Ok(dir) = save(&name)
    {
        eprintln!("lab: logs are in {}", dir.display());
    }
    Lab::down(&name)?;
    write("local", &result?)
}

async fn measure(name: &str, options: &Options) -> Result<Report> {
    if options.targets.contains(&Target::Gluster) {
        packages::ensure(packages::BENCH)?;
    } else {
        packages::ensure(&packages::BENCH[..1])?;
    }
    let agent = if options.no_passthrough { vec!["--no-passthrough".to_owned()] } else { Vec::new() };
    let (lab, _) = Lab::up(name, &lab::Options { agent, ..lab::Options::default() }).await?;
    progress::step("File systems to measure");
    let volume = Volume::new(&lab.client().await?, "default", "home");
    if options.targets.contains(&Target::Nearbrick) {
        Volume::apply_home(&lab.client().await?, "home.yaml").await?;
        volume.wait_ready(&["ws-a", "ws-b", "ws-c"], Duration::from_secs(60)).await?;
    }
    // It sees what is mounted by now, and nothing that is mounted later.
    let place = Place::make(&lab)?;
    if options.targets.contains(&Target::Gluster) {
        place.start_gluster(&lab.identity().dir)?;
    }
    let dirs: Vec<(Target, String)> = options
        .targets
        .iter()
        .map(|target| match target {
            Target::Native => (*target, "/bench/native".to_owned()),
            Target::Nearbrick => (*target, volume.mount()),
            Target::Gluster => (*target, "/bench/gluster".to_owned()),
        })
        .collect();
    // A directory on which nothing is mounted would measure something else.
    for (target, dir) in &dirs {
        let kind = place.sh(&format!("stat --file-system --format %T {dir}"))?;
        if (*target != Target::Native) != kind.trim().starts_with("fuse") {
            crate::fail!("{dir} should be {}, and is on {}", target.name(), kind.trim());
        }
    }
    let samples = rounds(&place, &dirs, options.rounds)?;
    Ok(Report {
        title: "Local work on one workstation, per second".to_owned(),
        notes: notes(&place, options)?,
        targets: options.targets.iter().map(|t| t.name()).collect(),
        samples,
    })
}

fn rounds(place: &Place, dirs: &[(Target, String)], rounds: u32) -> Result<Vec<Sample>> {
    let program = std::env::current_exe().context("cannot find the running program")?;
    let mut samples = Vec::new();
    for round in 1..=rounds {
        progress::step(format!("Round {round} of {rounds}"));
        for (_, dir) in dirs {
            place.sh(&format!("mkdir -p {dir}/round-{round}"))?;
        }
        for (number, workload) in WORKLOADS.iter().enumerate() {
            let mut said = Vec::new();
            for step in 0..dirs.len() {
                let (target, dir) = &dirs[(step + number + round as usize) % dirs.len()];
                let what = format!("{} on {}", workload.name, target.name());
                let folder = format!("{dir}/round-{round}");
                let rate = one(place, &program, workload, &folder).context(what)?;
                said.push(format!("{} {rate:.0}", target.name()));
                let (name, unit, target) = (workload.name, workload.unit, target.name());
                samples.push(Sample { workload: name, unit, target, rate });
            }
            said.sort();
            progress::note(format!("{}, {}: {}", workload.name, workload.unit, said.join(", ")));
        }
        for (_, dir) in dirs {
            place.sh(&format!("rm -rf {dir}/round-{round}"))?;
        }
        place.sh("sync")?;
    }
    Ok(samples)
}

/// Measures once: how much in a second.
fn one(place: &Place, program: &Path, workload: &Workload, folder: &str) -> Result<f64> {
    match &workload.tool {
        Tool::Fio { options, way, figure, scale } => {
            let text = place.sh(&format!(
                "fio --name=bench --filename={folder}/fio --size={FILE} --ioengine=psync --invalidate=0 \
                 --fallocate=none --output-format=json {options}"
            ))?;
            // fio may say something before its JSON.
            let json = &text[text.find('{').unwrap_or(0)..];
            let value: Value = serde_json::from_str(json).context("fio wrote no JSON")?;
            let rate = value["jobs"][0][*way][*figure].as_f64().context("fio told no figure")?;
            Ok(rate / scale)
        }
        Tool::Load(work) => {
            let dir = format!("{folder}/{work}");
            let program = program.display();
            let text = place.sh(&format!("mkdir {dir} && {program} load {work} {dir}"))?;
            let done: Done = serde_json::from_str(&text).context("the load generator wrote no JSON")?;
            place.sh(&format!("rm -rf {dir}"))?;
            Ok(done.count as f64 / done.seconds)
        }
    }
}

fn notes(place: &Place, options: &Options) -> Result<Vec<String>> {
    let kernel = run_program("uname", ["-sr"])?;
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let mut notes = vec![
        format!("{}, {cpus} processors, {} rounds, interleaved", kernel.trim(), options.rounds),
        format!("fio: one job, psync, one file of {FILE}, page cache warm; others: 2 s each, one thread"),
        "each file system on a disk image of its own (XFS, loop device) on the same disk".to_owned(),
    ];
    if options.targets.contains(&Target::Gluster) {
        let version = place.sh("glusterfs --version | head -n 1")?;
        notes.push(format!("{}, two bricks and the client on one machine", version.trim()));
    }
    if options.targets.contains(&Target::Nearbrick) {
        let passthrough =
            if options.no_passthrough { "without FUSE passthrough" } else { "FUSE passthrough allowed" };
        notes.push(format!("Nearbrick built as {}, {passthrough}", profile_name()?));
    }
    Ok(notes)
}

fn profile_name() -> Result<String> {
    let dir = paths::profile_dir()?;
    Ok(dir.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()))
}

/// Writes table and plot under this name; where.
///
/// # Errors
/// What the disk says.
pub fn write(name: &str, report: &Report) -> Result<Vec<PathBuf>> {
    let dir = paths::target("bench")?;
    std::fs::create_dir_all(&dir).context(format!("cannot make {}", dir.display()))?;
    println!("{}", report.text());
    let json = serde_json::to_string_pretty(report).context("cannot write the samples")?;
    let contents = [("txt", report.text()), ("md", report.markdown()), ("svg", report.svg()), ("json", json)];
    let mut files = Vec::new();
    for (ending, content) in contents {
        let file = dir.join(format!("{name}.{ending}"));
        std::fs::write(&file, content).context(format!("cannot write {}", file.display()))?;
        files.push(file);
    }
    Ok(files)
}
