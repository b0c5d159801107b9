//! Tests on a lab: one lab for all tests of a program, brought up by the first that runs, and taken down at
//! the end however that comes: by return, by panic, or by SIGKILL of the test program.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::Pin;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use libtest_mimic::{Arguments, Trial};

use crate::error::{Context, Result};
use crate::kube_api;
use crate::lab::{Lab, Options};
use crate::trees::{Place, Tree};
use crate::volumes::Volume;
use crate::workstation::Workstation;
use crate::{logs, progress};

/// Set to 1, tests that need a lab (and root) run.
pub const GATE: &str = "NEARBRICK_LAB_TESTS";

/// How long a test waits for something that should take seconds.
pub const LIMIT: Duration = Duration::from_secs(60);

type Work = Pin<Box<dyn Future<Output = Result<()>>>>;

/// A test.
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub body: fn(Lab) -> Work,
}

/// A list of [`Case`]s from functions `async fn(Lab) -> Result<()>`.
#[macro_export]
macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        vec![$($crate::testing::Case {
            name: concat!(stringify!($module), "::", stringify!($name)),
            body: |lab| Box::pin($module::$name(lab)),
        }),*]
    };
}

/// Runs tests one after the other on one lab of the name `name`; `lab_program` is the built `lab`.
pub fn run(name: &'static str, lab_program: &'static str, cases: Vec<Case>) -> ExitCode {
    static LAB: OnceLock<Result<(Lab, Keeper)>> = OnceLock::new();
    let start = move || match LAB.get_or_init(|| start(name, lab_program)) {
        Ok((lab, _)) => Ok(lab.clone()),
        Err(error) => Err(error.clone()),
    };
    let trials = cases.into_iter().map(|case| {
        Trial::test(case.name, move || Ok(block_on(case.name, async move { (case.body)(start()?).await })?))
    });
    let code = conclude(trials.collect(), || {
        if LAB.get().is_some() {
            match logs::save(name) {
                Ok(dir) => eprintln!("logs and objects of the lab are in {}", dir.display()),
                Err(error) => progress::warn(error),
            }
        }
    });
    if LAB.get().is_some()
        && let Err(error) = Lab::down(name)
    {
        eprintln!("the lab {name} cannot be taken down: {error}");
        return ExitCode::FAILURE;
    }
    code
}

/// A test that makes what it needs itself.
pub type Alone = (&'static str, fn() -> Result<()>);

/// Runs tests that make what they need themselves, one after the other.
pub fn run_alone(cases: Vec<Alone>) -> ExitCode {
    let trials = cases.into_iter().map(|(name, body)| Trial::test(name, move || Ok(body()?)));
    conclude(trials.collect(), || ())
}

fn conclude(trials: Vec<Trial>, on_failure: impl FnOnce()) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let open = std::env::var(GATE).is_ok_and(|v| v == "1");
    let count = trials.len();
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(!open)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !open && !arguments.list {
        println!("left out: {count} tests that need root and a lab; `cargo lab test` runs them");
    }
    if conclusion.has_failed() {
        on_failure();
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn block_on(name: &str, work: impl Future<Output = Result<()>>) -> Result<()> {
    progress::step(format!("test {name}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let done = std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
    runtime.shutdown_background();
    match done {
        Ok(result) => result.inspect_err(|error| progress::warn(format!("{name}: {error}"))),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn start(name: &str, lab_program: &str) -> Result<(Lab, Keeper)> {
    let name = name.to_owned();
    let keeper = Keeper::new(lab_program, &name)?;
    // A runtime of its own: the first test's ends with that test.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start a runtime")?;
        Lab::down(&name)?;
        runtime.block_on(Lab::up(&name, &Options::default()))
    });
    let (lab, _) = thread.join().map_err(|_| crate::Error::new("the lab's start panicked"))??;
    Ok((lab, keeper))
}

/// A process that takes the lab down when this one is gone.
struct Keeper {
    _child: Child,
}

impl Keeper {
    fn new(lab_program: &str, name: &str) -> Result<Self> {
        use std::os::unix::process::CommandExt;
        let child = Command::new(lab_program)
            .args(["--name", name, "down", "--when-input-ends"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context(format!("cannot start {lab_program}"))?;
        Ok(Self { _child: child })
    }
}

/// What most tests begin with: a volume of their own on all workstations, healed only when asked.
pub struct Scene {
    /// The lab.
    pub lab: Lab,
    /// An administrator's client.
    pub client: Client,
    /// The volume.
    pub volume: Volume,
    /// ws-a: in the replica set.
    pub a: Workstation,
    /// ws-b: in the replica set.
    pub b: Workstation,
    /// ws-c: not in it.
    pub c: Workstation,
}

/// The nodes of the usual lab.
pub const NODES: [&str; 3] = ["ws-a", "ws-b", "ws-c"];

impl Scene {
    /// A volume whose policy heals every `interval`, in a namespace of its own, in use on all three.
    ///
    /// # Errors
    /// It is not in use within a minute.
    pub async fn new(lab: &Lab, interval: &str) -> Result<Self> {
        let scene = Self::without_volume(lab).await?;
        kube_api::apply(&scene.client, &manifest(&scene.volume.namespace, interval)).await?;
        scene.volume.wait_ready(&NODES, LIMIT).await?;
        Ok(scene)
    }

    /// The same before the volume is made.
    ///
    /// # Errors
    /// A workstation is not as it should be at the start, or the namespace cannot be made.
    pub async fn without_volume(lab: &Lab) -> Result<Self> {
        lab.cluster().wait_ready().await?;
        for node in NODES {
            lab.start(node)?;
        }
        let client = lab.client().await?;
        let metadata = ObjectMeta { generate_name: Some("flow-".to_owned()), ..Default::default() };
        let namespace = Namespace { metadata, ..Default::default() };
        let api: Api<Namespace> = Api::all(client.clone());
        let made = api.create(&PostParams::default(), &namespace).await.context("cannot make a namespace")?;
        Ok(Self {
            lab: lab.clone(),
            volume: Volume::new(&client, &made.name_any(), "tree"),
            client,
            a: lab.workstation("ws-a")?,
            b: lab.workstation("ws-b")?,
            c: lab.workstation("ws-c")?,
        })
    }

    /// Runs a script in the volume on a workstation.
    ///
    /// # Errors
    /// It fails.
    pub fn sh(&self, workstation: &Workstation, script: &str) -> Result<String> {
        workstation.sh(&format!("cd {} && {script}", self.volume.mount()))
    }

    /// Writes files of all sizes from 0 bytes to `large` MiB into `folder` on a workstation; their hashes.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write(&self, workstation: &Workstation, folder: &str, large: u32) -> Result<Tree> {
        let script = format!(
            "mkdir -p {folder}/small {folder}/empty && cd {folder} && : > nothing && \
             for i in $(seq 100); do head -c $((i * 37)) /dev/urandom > small/$i; done && \
             head -c 300000 /dev/urandom > medium && head -c {large}M /dev/urandom > large && \
             ln -s medium link && chmod 640 medium"
        );
        self.sh(workstation, &script)?;
        Ok(self.read(workstation)?.below(&format!("./{folder}/")))
    }

    /// The hashes of all files in the volume, read through the mount of a workstation.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&self, workstation: &Workstation) -> Result<Tree> {
        Tree::hashes(Place::At(workstation), &self.volume.mount())
    }

    /// The hashes of all files on the brick of a workstation.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn on_brick(&self, workstation: &Workstation) -> Result<Tree> {
        Tree::hashes(Place::At(workstation), &format!("{}/data", self.volume.brick_dir()))
    }

    /// Waits until the mount of a workstation lists what another lists.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn wait_same_listing(
        &self,
        one: &Workstation,
        as_other: &Workstation,
        limit: Duration,
    ) -> Result<()> {
        let mount = self.volume.mount();
        let what = format!("the listing of {} on {}", as_other.seat.node, one.seat.node);
        kube_api::eventually(&what, limit, || async {
            let wanted = Tree::listing(Place::At(as_other), &mount).map_err(|e| e.to_string())?;
            let there = Tree::listing(Place::At(one), &mount).map_err(|e| e.to_string())?;
            there.must_be(&wanted, &what).map_err(|e| e.to_string())
        })
        .await
    }

    /// Asks for a heal and waits until ws-a and ws-b hold the same data, and say so.
    ///
    /// # Errors
    /// Not within two minutes.
    pub async fn heal(&self, trigger: &str) -> Result<()> {
        self.wait_settled().await?;
        self.volume.trigger(trigger).await?;
        self.volume
            .wait("the trigger acted on", LIMIT, |v| {
                v.status.as_ref().and_then(|s| s.last_trigger.as_deref()) == Some(trigger)
            })
            .await?;
        self.volume.wait_healed(&["ws-a", "ws-b"], LIMIT * 2).await
    }

    /// Waits until the reports of all that is switched on are of the files that are there now.
    ///
    /// # Errors
    /// Not within a minute.
    pub async fn wait_settled(&self) -> Result<()> {
        for workstation in [&self.a, &self.b] {
            if !workstation.is_on() {
                continue;
            }
            let count = crate::trees::size(Place::At(workstation), &self.volume.mount())?.files;
            let node = &workstation.seat.node;
            let what = format!("{count} files, all settled");
            self.volume
                .wait_brick(node, &what, LIMIT, |b| {
                    let status = b.status.clone().unwrap_or_default();
                    status.files == Some(count) && status.dirty_files.unwrap_or(0) == 0
                })
                .await?;
        }
        Ok(())
    }

    /// Runs the agent once more on a workstation, in the way that `wrap` (a shell prefix) says; what it
    /// wrote to stderr, if it gave up.
    ///
    /// # Errors
    /// It does not give up within a minute.
    pub fn refused_agent(
        &self,
        workstation: &Workstation,
        wrap: &str,
        change: (&str, &str),
    ) -> Result<String> {
        // A copy that everybody may run: the build may be where only root can look.
        let program = self.lab.identity().dir.join("brick-agent");
        let built = &self.lab.record().programs.agent;
        crate::command::run("install", [built, &program])?;
        let command = workstation.agent_command(Path::new("PROGRAM"), &[])?;
        let words = command.get_args().map(|w| w.to_string_lossy().into_owned());
        let line: Vec<String> = words.skip_while(|w| w != "PROGRAM").skip(1).collect();
        let line = line.join(" ").replace(change.0, change.1);
        let script =
            format!("{wrap} timeout 60 {} {line} 2>&1 >/dev/null || echo code $?", program.display());
        let said = workstation.sh(&script)?;
        if said.contains("code 124") || !said.contains("code ") {
            crate::fail!("the agent did not give up: {said}");
        }
        Ok(said)
    }
}

/// A policy and a volume `tree` in a namespace: all three workstations, files of ws-a and ws-b on both.
pub fn manifest(namespace: &str, interval: &str) -> String {
    format!(
        "apiVersion: nearbrick.io/v1alpha1\nkind: HealPolicy\n\
         metadata: {{name: policy, namespace: {namespace}}}\nspec: {{interval: {interval}}}\n---\n\
         apiVersion: nearbrick.io/v1alpha1\nkind: WorkstationVolume\n\
         metadata: {{name: tree, namespace: {namespace}}}\nspec:\n  \
         members: {{nodes: [ws-a, ws-b, ws-c]}}\n  replicas: 2\n  \
         replicaSets: [{{nodes: [ws-a, ws-b]}}]\n  healPolicyRef: {{name: policy}}\n"
    )
}
