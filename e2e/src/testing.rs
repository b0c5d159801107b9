//! Tests on a lab: one lab for all tests of a program, brought up by the first that runs, and taken down at
//! the end however that comes: by return, by panic, or by SIGKILL of the test program.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;

use libtest_mimic::{Arguments, Trial};

use crate::error::{Context, Result};
use crate::lab::{Lab, Options};
use crate::record::Kind;
use crate::{logs, progress};

/// Set to 1, tests of a cluster run on that which KUBECONFIG names.
pub const CLUSTER: &str = "NEARBRICK_CLUSTER_TESTS";

/// Set to 1, tests that need a lab (and root) run.
pub const GATE: &str = "NEARBRICK_LAB_TESTS";

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

/// Runs tests one after the other on one lab of the name `name`, of this kind; `lab_program` is the built `lab`.
pub fn run(name: &'static str, lab_program: &'static str, kind: Kind, cases: Vec<Case>) -> ExitCode {
    static LAB: OnceLock<Result<(Lab, Keeper)>> = OnceLock::new();
    let start = move || match LAB.get_or_init(|| start(name, lab_program, kind)) {
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

/// Runs tests on the cluster that KUBECONFIG names.
pub fn run_on_cluster(cases: Vec<Alone>) -> ExitCode {
    let open = std::env::var(CLUSTER).is_ok_and(|v| v == "1");
    let trials = cases.into_iter().map(|(name, body)| Trial::test(name, move || Ok(body()?)));
    conclude_if(open, "a cluster; `cargo lab test --cluster` runs them", trials.collect(), || ())
}

fn conclude(trials: Vec<Trial>, on_failure: impl FnOnce()) -> ExitCode {
    let open = std::env::var(GATE).is_ok_and(|v| v == "1");
    conclude_if(open, "root and a lab; `cargo lab test` runs them", trials, on_failure)
}

fn conclude_if(open: bool, needed: &str, trials: Vec<Trial>, on_failure: impl FnOnce()) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let count = trials.len();
    let trials = trials.into_iter().map(|trial| trial.with_ignored_flag(!open)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if !open && !arguments.list {
        println!("left out: {count} tests that need {needed}");
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

fn start(name: &str, lab_program: &str, kind: Kind) -> Result<(Lab, Keeper)> {
    let name = name.to_owned();
    let keeper = Keeper::new(lab_program, &name)?;
    // A runtime of its own: the first test's ends with that test.
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start a runtime")?;
        Lab::down(&name)?;
        runtime.block_on(Lab::up(&name, &Options { kind, ..Options::default() }))
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
