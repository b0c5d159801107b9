//! `cargo lab bench scale`: the operator program on a real API server, with the reports of many workstations that are only
//! simulated ([`crate::fleet`]): what it costs at rest, how soon a report is in a volume's status, and what it makes of many
//! workstations that are switched on at once.

mod measure;
mod workstations;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Args;
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use nearbrick_crds::{Brick, Workstation, WorkstationState, WorkstationVolume};
use serde_json::json;

use self::measure::{Use, Window};
use self::workstations::Workstations;
use super::report::{Report, Sample};
use crate::command::run as run_program;
use crate::error::{Context, Error, Result};
use crate::programs::Programs;
use crate::{ControlPlane, kube_api, progress};

/// Options of the bench.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How many workstations; each number is a cluster of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 300, 1000])]
    pub workstations: Vec<usize>,
    /// How many volumes.
    #[arg(long, default_value_t = 100)]
    pub volumes: usize,
    /// How many volumes each workstation carries.
    #[arg(long, default_value_t = 3)]
    pub carries: usize,
    /// Seconds for which the operator is watched at rest.
    #[arg(long, default_value_t = 120)]
    pub seconds: u64,
    /// Most workstations that are switched on at once; no more than a fifth of all.
    #[arg(long, default_value_t = 200)]
    pub storm: usize,
    /// How often the time from a report to a volume's status is taken.
    #[arg(long, default_value_t = 50)]
    pub reports: usize,
}

/// The namespace of the volumes.
const NAMESPACE: &str = "labs";
/// So long nothing is written when what was to be done is done.
const QUIET: Duration = Duration::from_secs(5);
/// The longest wait for anything.
const LIMIT: Duration = Duration::from_secs(300);

/// The operator, as a process of its own.
struct Operator(Child);

impl Operator {
    fn start(program: &std::path::Path, plane: &ControlPlane, listen: &str) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("run").arg("--kubeconfig").arg(plane.kubeconfig());
        command.args(["--listen", listen, "--no-certificates"]);
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null());
        Ok(Self(command.spawn().context("cannot start the operator")?))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Measures each number of workstations.
///
/// # Errors
/// A part cannot be started, or something does not come within five minutes.
pub async fn run(options: &Options) -> Result<Report> {
    let programs = Programs::ensure()?;
    let mut samples = Vec::new();
    let mut targets = Vec::new();
    for count in &options.workstations {
        // Targets of a report are constants elsewhere; a bench names few.
        let target: &'static str = Box::leak(format!("{count} workstations").into_boxed_str());
        targets.push(target);
        let figures = tokio::select! {
            figures = one(&programs, *count, options) => figures?,
            _ = tokio::signal::ctrl_c() => return Err(Error::new("interrupted")),
        };
        samples.extend(figures.into_iter().map(|(workload, unit, rate)| Sample {
            workload,
            unit,
            target,
            rate,
        }));
    }
    let kernel = run_program("uname", ["-sr"])?;
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let (volumes, carries) = (options.volumes, options.carries);
    Ok(Report {
        title: "The operator, by number of workstations".to_owned(),
        notes: vec![
            format!(
                "{}, {cpus} processors for operator, API server, etcd and the simulated agents together",
                kernel.trim()
            ),
            format!(
                "{volumes} volumes, each workstation carries {carries}; agents report as real ones do, and watch nothing"
            ),
            format!("at rest: {} s; report: until the volume's status says it", options.seconds),
            "etcd without fsync, so that the disk of this machine does not count".to_owned(),
        ],
        targets,
        samples,
    })
}

type Figures = Vec<(&'static str, &'static str, f64)>;

async fn one(programs: &Programs, count: usize, options: &Options) -> Result<Figures> {
    progress::step(format!("{count} workstations, {} volumes", options.volumes));
    let plane = ControlPlane::start_private().await?;
    let client = plane.client().await?;
    kube_api::install_crds(&client).await?;
    for name in [NAMESPACE, "nearbrick-system"] {
        let namespace = serde_json::from_value::<Namespace>(json!({ "metadata": { "name": name } }));
        let namespace = namespace.context("not a namespace")?;
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.context(name)?;
    }
    let fleet = Workstations::new(&client, NAMESPACE, count, options.volumes, options.carries);
    make_nodes(&client, &fleet).await?;
    let listen = measure::free_address()?;
    let operator = Operator::start(&programs.operator, &plane, &listen)?;
    let mut figures = Figures::new();

    let start = Instant::now();
    make_volumes(&client, &fleet).await?;
    let bricks = fleet.bricks();
    until("all bricks are made", || async {
        Ok(names::<Brick>(&Api::namespaced(client.clone(), NAMESPACE)).await?.len() >= bricks)
    })
    .await?;
    figures.push(("objects of all volumes made", "s", start.elapsed().as_secs_f64()));
    progress::note(format!("{bricks} bricks in {:.1} s", start.elapsed().as_secs_f64()));

    let storm = options.storm.min(count / 5).max(1);
    fleet.start(0..count - storm);
    until("all but those of the storm are online", || online(&client, count - storm)).await?;
    quiet(&listen).await?;

    progress::note(format!("{} s at rest", options.seconds));
    let rest = Window::begin(&operator.0, &listen, &client).await?;
    tokio::time::sleep(Duration::from_secs(options.seconds)).await;
    let rest = rest.end(&operator.0, &listen, &client).await?;
    push(
        &mut figures,
        &rest,
        [
            "CPU at rest",
            "requests of the operator at rest",
            "writes of statuses at rest",
            "requests of all at rest",
        ],
    );

    progress::note(format!("{} reports", options.reports));
    let mut delays = latencies(&client, &fleet, options.reports).await?;
    delays.sort_by(f64::total_cmp);
    figures.push(("report to status, median", "ms", 1000.0 * delays[delays.len() / 2]));
    figures.push(("report to status, longest", "ms", 1000.0 * delays[delays.len() - 1]));

    progress::note(format!("{storm} workstations are switched on at once"));
    let window = Window::begin(&operator.0, &listen, &client).await?;
    let start = Instant::now();
    fleet.lack(count - storm..count, 10);
    fleet.start_at_once(count - storm..count);
    until("all are online", || online(&client, count)).await?;
    figures.push(("storm: until all are Online", "s", start.elapsed().as_secs_f64()));
    until("all volumes say what is pending", || pending_is_told(&client, &fleet)).await?;
    figures.push(("storm: until volumes say what is pending", "s", start.elapsed().as_secs_f64()));
    let window = window.end(&operator.0, &listen, &client).await?;
    push(
        &mut figures,
        &window,
        [
            "storm: CPU",
            "storm: requests of the operator",
            "storm: writes of statuses",
            "storm: requests of all",
        ],
    );
    let used = Use::of(&operator.0)?;
    figures.push(("memory, most", "MiB", used.peak_mib));
    for (what, unit, figure) in &figures {
        progress::note(format!("{what}: {figure:.2} {unit}"));
    }
    Ok(figures)
}

fn push(figures: &mut Figures, window: &measure::Rates, names: [&'static str; 4]) {
    figures.push((names[0], "% of a core", 100.0 * window.cores));
    figures.push((names[1], "1/s", window.requests));
    figures.push((names[2], "1/s", window.status_writes));
    figures.push((names[3], "1/s", window.server_requests));
}

async fn make_nodes(client: &Client, fleet: &Workstations) -> Result<()> {
    let api: Api<Node> = Api::all(client.clone());
    for name in fleet.names() {
        let node = serde_json::from_value(json!({ "metadata": { "name": name } })).context("not a node")?;
        api.create(&PostParams::default(), &node).await.context(format!("node {name}"))?;
    }
    Ok(())
}

async fn make_volumes(client: &Client, fleet: &Workstations) -> Result<()> {
    let api: Api<WorkstationVolume> = Api::namespaced(client.clone(), NAMESPACE);
    for (name, members) in fleet.volumes() {
        let volume = serde_json::from_value(json!({
            "apiVersion": "nearbrick.io/v1alpha1", "kind": "WorkstationVolume",
            "metadata": { "name": name },
            "spec": { "members": { "nodes": members }, "replicas": 2 },
        }))
        .context("not a volume")?;
        api.create(&PostParams::default(), &volume).await.context(format!("volume {name}"))?;
    }
    Ok(())
}

async fn names<K>(api: &Api<K>) -> Result<Vec<String>>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let list = api.list_metadata(&kube::api::ListParams::default()).await.context("cannot list")?;
    Ok(list.items.iter().map(ResourceExt::name_any).collect())
}

async fn online(client: &Client, count: usize) -> Result<bool> {
    let all = Api::<Workstation>::all(client.clone());
    let all = all.list(&kube::api::ListParams::default()).await.context("cannot list workstations")?;
    let is_online =
        |w: &&Workstation| w.status.as_ref().and_then(|s| s.state) == Some(WorkstationState::Online);
    Ok(all.items.iter().filter(is_online).count() >= count)
}

async fn pending_is_told(client: &Client, fleet: &Workstations) -> Result<bool> {
    let api: Api<WorkstationVolume> = Api::namespaced(client.clone(), NAMESPACE);
    let all = api.list(&kube::api::ListParams::default()).await.context("cannot list volumes")?;
    Ok(all.items.iter().all(|volume| {
        let told = volume.status.as_ref().and_then(|s| s.pending.as_ref()).map_or(0, |p| p.files);
        told == fleet.pending(&volume.name_any())
    }))
}

/// Seconds from a brick's report to the volume's status that says it, of one volume after the other.
async fn latencies(client: &Client, fleet: &Workstations, count: usize) -> Result<Vec<f64>> {
    use futures::StreamExt;
    use kube::runtime::{WatchStreamExt, watcher};
    let api: Api<WorkstationVolume> = Api::namespaced(client.clone(), NAMESPACE);
    let events = watcher(api, watcher::Config::default()).default_backoff().applied_objects();
    let mut events = std::pin::pin!(events);
    let mut delays = Vec::new();
    for round in 0..count {
        let (volume, files) = fleet.report_one(round, 7 + round as u64).await?;
        let start = Instant::now();
        loop {
            let event = tokio::time::timeout(LIMIT, events.next()).await.context("no status came")?;
            // A watch that broke begins anew by itself.
            let Some(Ok(seen)) = event else { continue };
            let told = seen.status.as_ref().and_then(|s| s.pending.as_ref()).map_or(0, |p| p.files);
            if seen.name_any() == volume && told == files {
                break;
            }
        }
        delays.push(start.elapsed().as_secs_f64());
    }
    fleet.lack_nothing();
    until("nothing is pending", || pending_is_told(client, fleet)).await?;
    Ok(delays)
}

/// What came with the first reports is done: no status was written for some time.
async fn quiet(listen: &str) -> Result<()> {
    let last = std::cell::Cell::new((measure::status_writes(listen).await?, Instant::now()));
    until("the operator has no more to write", || async {
        let now = measure::status_writes(listen).await?;
        if now != last.get().0 {
            last.set((now, Instant::now()));
        }
        Ok(last.get().1.elapsed() >= QUIET)
    })
    .await
}

async fn until<F: Future<Output = Result<bool>>>(what: &str, mut check: impl FnMut() -> F) -> Result<()> {
    kube_api::eventually(what, LIMIT, || {
        let done = check();
        async { done.await.map_err(|e| e.to_string())?.then_some(()).ok_or_else(|| "not yet".to_owned()) }
    })
    .await
}
