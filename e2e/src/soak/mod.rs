//! `cargo lab soak`: hours of work on all workstations at once, while workstations lose network, agents and
//! power, and operator and API server come and go. In each round people work through faults; then all is
//! whole again, and a check from outside looks for what was acknowledged.
//!
//! Nothing here asks our own code what is there: documents say themselves what they are ([`document`]), and what
//! was acknowledged is recorded outside of the workstations ([`record`]).

pub mod document;
mod faults;
pub mod record;
pub mod user;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use kube::Api;
use nearbrick_crds::Workstation as WorkstationObject;
use nearbrick_crds::condition::SAFE_TO_LEAVE;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use self::document::Document;
use self::record::{History, read_on};
use crate::error::{Context, Error, Result};
use crate::kube_api::{self, eventually};
use crate::lab::{self, Lab};
use crate::logs::save;
use crate::process::{Daemon, wait_until};
use crate::scene::NODES;
use crate::trees::{Place, Tree, quoted};
use crate::volumes::Volume;
use crate::workstation::Workstation;
use crate::{fail, progress};

/// Bytes of each disk: of an hour's conflicts all losers are kept, in a tenth of it.
const DISK: u64 = 32 << 30;
/// How long after a round all may take to be whole.
const LIMIT: Duration = Duration::from_secs(300);

const MANIFEST: &str = "\
apiVersion: nearbrick.io/v1alpha1
kind: HealPolicy
metadata: {name: soak, namespace: default}
spec: {interval: 15s}
---
apiVersion: nearbrick.io/v1alpha1
kind: WorkstationVolume
metadata: {name: soak, namespace: default}
spec:
  members: {nodes: [ws-a, ws-b, ws-c]}
  replicas: 2
  replicaSets: [{nodes: [ws-a, ws-b]}, {nodes: [ws-c, ws-a]}]
  healPolicyRef: {name: soak}
";

/// Options of the soak.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How long, at least; the round that has begun is ended.
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
    /// What is done, and which faults come; by default another one each time.
    #[arg(long)]
    pub seed: Option<u64>,
    /// Seconds of work in a round.
    #[arg(long, default_value_t = 90)]
    pub round: u64,
    /// Things that each person does in a second, at most.
    #[arg(long, default_value_t = 40)]
    pub rate: u32,
    /// Have the agents serve all reads and writes themselves.
    #[arg(long)]
    pub no_passthrough: bool,
    /// Leave the lab as it is when something is wrong, to be looked at.
    #[arg(long)]
    pub keep: bool,
}

/// Runs the soak on a lab of its own.
///
/// # Errors
/// What was lost, or what did not become whole again, in one line; logs and the state are kept.
pub async fn run(name: &str, options: &Options) -> Result<()> {
    let name = format!("{name}-soak");
    lab::check_machine()?;
    if Lab::down(&name)? {
        progress::note("took down what an earlier soak left");
    }
    let seed = options.seed.unwrap_or_else(rand::random);
    let result = tokio::select! {
        result = play(&name, options, seed) => result,
        _ = tokio::signal::ctrl_c() => Err(Error::new("interrupted")),
    };
    if result.is_err() {
        match save(&name) {
            Ok(dir) => eprintln!("lab: logs and objects are in {}", dir.display()),
            Err(error) => progress::warn(error),
        }
        eprintln!("lab: the same again: cargo lab soak --minutes {} --seed {seed}", options.minutes);
    }
    if options.keep && result.is_err() {
        progress::note(format!("the lab is left as it is: cargo lab --name {name} status"));
        return result;
    }
    progress::step("Taking the lab down");
    Lab::down(&name)?;
    result
}

async fn play(name: &str, options: &Options, seed: u64) -> Result<()> {
    let agent = if options.no_passthrough { vec!["--no-passthrough".to_owned()] } else { Vec::new() };
    let (lab, _) = Lab::up(name, &lab::Options { agent, disk: DISK, ..lab::Options::default() }).await?;
    let client = lab.client().await?;
    kube_api::apply(&client, MANIFEST).await?;
    let volume = Volume::new(&client, "default", "soak");
    volume.wait_ready(&NODES, Duration::from_secs(60)).await?;
    progress::step(format!("Soak for {} minutes, seed {seed}", options.minutes));
    let mut soak = Soak {
        options: options.clone(),
        random: StdRng::seed_from_u64(seed),
        dir: lab.identity().dir.join("soak"),
        client,
        lab,
        volume,
        lives: 0,
        history: History::default(),
        read: BTreeMap::new(),
        faults: BTreeMap::new(),
    };
    std::fs::create_dir_all(&soak.dir).context("cannot make the folder of the soak")?;
    let began = Instant::now();
    let mut rounds = 0;
    println!("{HEADINGS}");
    while began.elapsed() < Duration::from_secs(options.minutes * 60) {
        rounds += 1;
        let line = soak.round(rounds).await.context(format!("round {rounds}, seed {seed}"))?;
        println!("{line}");
    }
    soak.summary(rounds, began.elapsed());
    Ok(())
}

const HEADINGS: &str = "\
round  seconds  whole after  files  checked  interrupted  conflict files  agents' memory MiB a/b/c";

struct Soak {
    options: Options,
    random: StdRng,
    lab: Lab,
    client: kube::Client,
    volume: Volume,
    /// Where programs say what they do.
    dir: PathBuf,
    /// Programs started so far.
    lives: u32,
    history: History,
    /// How far each record was read.
    read: BTreeMap<PathBuf, u64>,
    /// How often each fault came.
    faults: BTreeMap<&'static str, u32>,
}

impl Soak {
    fn stop_file(&self) -> PathBuf {
        self.dir.join("stop")
    }

    fn user(&self, node: &str) -> Daemon {
        Daemon::new(&self.lab.identity().dir, &format!("user-{node}"))
    }

    /// Starts the programs of the person at a workstation.
    fn sit_down(&mut self, workstation: &Workstation) -> Result<()> {
        let node = workstation.seat.node.clone();
        self.lives += 1;
        let record = self.dir.join(format!("{node}-{}.jsonl", self.lives));
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = workstation.command(program)?;
        command.args(["soak-user", "--node", &node, "--mount", &self.volume.mount()]);
        command.arg("--record").arg(&record).arg("--stop").arg(self.stop_file());
        command.args(["--life", &self.lives.to_string(), "--rate", &self.options.rate.to_string()]);
        command.args(["--seed", &self.random.random::<u64>().to_string()]);
        self.user(&node).start(&mut command, &self.lab.identity().dir)?;
        self.read.insert(record, 0);
        Ok(())
    }

    /// One round; its line in the table.
    async fn round(&mut self, number: u32) -> Result<String> {
        let began = Instant::now();
        let _ = std::fs::remove_file(self.stop_file());
        for workstation in self.lab.workstations() {
            self.sit_down(&workstation)?;
        }
        self.make_trouble(Duration::from_secs(self.options.round)).await?;
        self.stand_up()?;
        let ended = Instant::now();
        self.wait_whole().await?;
        let whole = ended.elapsed();
        let (files, conflicts, verdict) = self.check()?;
        let memory: Vec<String> = self.lab.workstations().iter().map(|w| memory(&w.agent())).collect();
        Ok(format!(
            "{number:>5}  {:>7}  {:>9.1} s  {files:>5}  {:>7}  {:>11}  {conflicts:>14}  {}",
            began.elapsed().as_secs(),
            whole.as_secs_f64(),
            verdict.checked,
            verdict.interrupted,
            memory.join("/"),
        ))
    }

    /// Has all programs end what they do, and stop.
    fn stand_up(&self) -> Result<()> {
        std::fs::write(self.stop_file(), b"").context("cannot ask the programs to stop")?;
        for node in NODES {
            let user = self.user(node);
            wait_until(&format!("the programs on {node} to stop"), LIMIT, || Ok(user.running().is_none()))?;
        }
        Ok(())
    }

    /// Waits until the objects say that all is whole and everybody may leave, and mounts list the same.
    async fn wait_whole(&self) -> Result<()> {
        let workstations: Api<WorkstationObject> = Api::all(self.client.clone());
        let mount = self.volume.mount();
        let at = self.lab.workstations();
        eventually("the same tree everywhere", LIMIT, || async {
            let listings: Result<Vec<Tree>> =
                at.iter().map(|w| Tree::listing(Place::At(w), &mount)).collect();
            let listings = listings.map_err(|e| e.to_string())?;
            for (other, workstation) in listings.iter().zip(&at).skip(1) {
                let what = format!("{} against {}", workstation.seat.node, at[0].seat.node);
                other.must_be(&listings[0], &what).map_err(|e| e.to_string())?;
            }
            Ok(())
        })
        .await?;
        self.volume.wait_healed(&NODES, LIMIT).await?;
        for node in NODES {
            kube_api::wait_for(&workstations, node, "SafeToLeave", LIMIT, |w| {
                let conditions = w.status.iter().flat_map(|s| &s.conditions);
                conditions.clone().any(|c| c.type_ == SAFE_TO_LEAVE && c.status == "True")
            })
            .await?;
        }
        Ok(())
    }

    /// What is there now, read on all mounts and on the bricks, against what was acknowledged.
    fn check(&mut self) -> Result<(usize, usize, record::Verdict)> {
        for (path, from) in &mut self.read {
            read_on(path, from, &mut self.history)?;
        }
        let at = self.lab.workstations();
        let mount = self.volume.mount();
        let trees: Vec<Tree> =
            at.iter().map(|w| Tree::hashes(Place::At(w), &mount)).collect::<Result<_>>()?;
        for (tree, workstation) in trees.iter().zip(&at).skip(1) {
            let what = format!("read on {} and {}", workstation.seat.node, at[0].seat.node);
            tree.must_be(&trees[0], &what).inspect_err(|_| self.show_what_differs(tree, &trees[0]))?;
        }
        let data = format!("{}/data", self.volume.brick_dir());
        let bricks: Vec<Tree> =
            at.iter().map(|w| Tree::hashes(Place::At(w), &data)).collect::<Result<_>>()?;
        let few: Vec<String> = trees[0]
            .entries()
            .filter(|(path, hash)| bricks.iter().filter(|b| b.get(path) == Some(*hash)).count() < 2)
            .map(|(path, _)| path.to_owned())
            .collect();
        if !few.is_empty() {
            fail!(
                "{} files are whole on fewer than two bricks: {}",
                few.len(),
                few[..few.len().min(5)].join(", ")
            );
        }
        let present = self.documents(&at[0], &mount)?;
        let mut kept = Vec::new();
        for workstation in &at {
            let aside = format!("{}/.nearbrick/versions", self.volume.brick_dir());
            let documents = self.documents(workstation, &aside)?;
            kept.extend(documents.into_iter().filter_map(|(_, document)| Some(document.ok()?.version)));
        }
        let conflicts = present.iter().filter(|(path, _)| path.contains("(conflict")).count();
        let verdict = self.history.judge(&present, &kept);
        for (what, list) in [("lost", &verdict.lost), ("not whole", &verdict.torn)] {
            if !list.is_empty() {
                // What was lost is to be said whatever becomes of the records.
                if let Err(error) = self.keep_records() {
                    progress::warn(error);
                }
                fail!("{} {what}: {}", list.len(), list[..list.len().min(5)].join("; "));
            }
        }
        Ok((trees[0].len(), conflicts, verdict))
    }

    /// What each workstation and each brick has of some files that are not the same in two trees.
    fn show_what_differs(&self, tree: &Tree, other: &Tree) {
        let differ =
            tree.entries().filter(|(path, hash)| other.get(path) != Some(*hash)).map(|(path, _)| path);
        for path in differ.take(3) {
            eprintln!("lab: {path}");
            for workstation in self.lab.workstations() {
                for dir in [self.volume.mount(), format!("{}/data", self.volume.brick_dir())] {
                    let file = quoted(format!("{dir}/{path}"));
                    let script = format!(
                        "stat --format '%i, %s bytes, %b blocks, written %y, changed %z' {file}; \
                         sha256sum < {file}; head --bytes 160 {file} | tr -c '[:print:]' ' '"
                    );
                    let said = workstation.sh(&script).unwrap_or_else(|error| error.to_string());
                    eprintln!("  {} {dir}: {}", workstation.seat.node, said.replace('\n', " | "));
                }
            }
        }
    }

    /// All documents below a folder, as they are read on a workstation.
    fn documents(
        &self,
        workstation: &Workstation,
        folder: &str,
    ) -> Result<Vec<(String, std::result::Result<Document, String>)>> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = workstation.command(program)?;
        let output = crate::command::output(command.arg("soak-list").arg(folder))?;
        serde_json::from_slice(&output.stdout).context("odd list of documents")
    }

    /// Copies what the programs said to where it stays.
    fn keep_records(&self) -> Result<()> {
        let to = crate::paths::target("soak")?;
        let _ = std::fs::remove_dir_all(&to);
        std::fs::create_dir_all(&to).context(format!("cannot make {}", to.display()))?;
        // A program that ended before it did anything has none.
        for path in self.read.keys().filter(|path| path.exists()) {
            let name = path.file_name().unwrap_or_default();
            std::fs::copy(path, to.join(name)).context(format!("cannot write {}", to.display()))?;
        }
        eprintln!("lab: what the programs did is in {}", to.display());
        Ok(())
    }

    fn summary(&self, rounds: u32, time: Duration) {
        let faults: Vec<String> = self.faults.iter().map(|(what, n)| format!("{n} {what}")).collect();
        println!(
            "\n{rounds} rounds in {} min: {} versions acknowledged by fsync, {} programs, none lost, no half files.",
            time.as_secs() / 60,
            self.history.durable(),
            self.lives,
        );
        println!("Faults: {}.", faults.join(", "));
        let mut failures: Vec<_> = self.history.failures.iter().collect();
        failures.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
        println!("Calls that failed, of {}:", self.history.calls);
        for (what, n) in failures.iter().take(12) {
            println!("  {n:>6}  {what}");
        }
    }
}

/// The documents below a folder, each with what it holds; for `lab soak-list`.
///
/// # Errors
/// The folder cannot be listed, or a file cannot be read.
pub fn list(mount: &std::path::Path) -> Result<Vec<(String, std::result::Result<Document, String>)>> {
    let mut ahead = vec![mount.to_path_buf()];
    let mut found = Vec::new();
    while let Some(dir) = ahead.pop() {
        let what = format!("cannot read {}", dir.display());
        for entry in std::fs::read_dir(&dir).context(&what)? {
            let entry = entry.context(&what)?;
            let kind = entry.file_type().context(&what)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() {
                ahead.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).context(format!("cannot read {name}"))?;
                let document = Document::read(&bytes);
                // What bricks keep aside has other names.
                if document.is_ok() || document::document_of(&name).is_some() {
                    found.push((entry.path().display().to_string(), document));
                }
            }
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Resident memory of a program, in MiB.
fn memory(daemon: &Daemon) -> String {
    let status =
        daemon.running().and_then(|id| std::fs::read_to_string(format!("/proc/{}/status", id.pid)).ok());
    let line = status.as_deref().and_then(|s| s.lines().find(|l| l.starts_with("VmRSS:")));
    let kib: Option<u64> = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
    kib.map_or("?".to_owned(), |kib| (kib / 1024).to_string())
}
