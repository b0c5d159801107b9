//! A rolling upgrade of the agents.

use std::process::{Child, Stdio};

use nearbrick_e2e::cluster::SYSTEM_NAMESPACE;
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::scene::{LIMIT, Scene};
use nearbrick_e2e::workstation::Workstation;
use nearbrick_e2e::{Lab, Result, fail, nodes};

/// Appends with fsync, reads back what it wrote, and makes a file in each round, until there is a file TAG. The first thing that
/// goes wrong ends it.
const PROGRAM: &str = "i=0; exec 3>>log; while [ ! -e TAG ]; do i=$((i+1)); echo $i >&3; sync log; \
                       [ \"$(tail -n 1 log)\" = $i ]; echo $i > round-$((i % 50)); \
                       [ \"$(cat round-$((i % 50)))\" = $i ]; done; echo $i > done";

struct Program<'a> {
    workstation: &'a Workstation,
    tag: String,
    child: Child,
}

fn begin<'a>(scene: &Scene, workstation: &'a Workstation) -> Result<Program<'a>> {
    let node = &workstation.seat.node;
    let tag = format!("/tmp/nearbrick-stop-{}-{node}", scene.volume.namespace);
    scene.sh(workstation, &format!("rm -f {tag}; mkdir program-{node}"))?;
    let folder = format!("{}/program-{node}", scene.volume.mount());
    let script = format!("cd {folder} && set -eu && {}", PROGRAM.replace("TAG", &tag));
    let mut command = workstation.command("sh")?;
    command.args(["-c", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Ok(Program { workstation, tag, child: command.spawn().context("cannot start a program")? })
}

/// Ends it, and looks at what it wrote; how many rounds it went.
fn end(scene: &Scene, program: Program<'_>) -> Result<u64> {
    let node = &program.workstation.seat.node;
    program.workstation.sh(&format!("touch {}", program.tag))?;
    let output = program.child.wait_with_output().context("a program")?;
    program.workstation.sh(&format!("rm -f {}", program.tag))?;
    if !output.status.success() {
        fail!("the program on {node} failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let said = scene.sh(program.workstation, &format!("cd program-{node} && wc -l < log && cat done"))?;
    let mut numbers = said.split_whitespace().map(|n| n.parse::<u64>().unwrap_or_default());
    match (numbers.next(), numbers.next()) {
        (Some(lines), Some(rounds)) if lines == rounds => Ok(rounds),
        _ => fail!("the log of {node}, and its rounds: {said:?}"),
    }
}

pub async fn agents_are_replaced_while_programs_work(lab: Lab) -> Result<()> {
    let scene = Scene::new(&lab, "5s").await?;
    let pods = |name: &str| {
        let label = format!("app.kubernetes.io/name={name}");
        lab.kubectl_output(&["get", "pods", "-n", SYSTEM_NAMESPACE, "-l", &label, "-o", "name"])
    };
    let (agents, holders) = (pods("nearbrick-agent")?, pods("nearbrick-holder")?);
    // One of them holds no copies.
    let running = [begin(&scene, &scene.a)?, begin(&scene, &scene.c)?];
    // As an upgrade does it: another template, one node after the other.
    let upgraded = nodes::chart::install(&lab, &["agent.resources.requests.cpu=60m"]);
    let daemons = "daemonset/nearbrick-agent";
    let rolled =
        lab.kubectl_output(&["rollout", "status", "-n", SYSTEM_NAMESPACE, daemons, "--timeout", "3m"]);
    for program in running {
        let node = program.workstation.seat.node.clone();
        let rounds = end(&scene, program)?;
        println!("{node}: {rounds} rounds");
        if rounds < 10 {
            fail!("the program on {node} did hardly anything meanwhile: {rounds} rounds");
        }
    }
    upgraded?;
    rolled?;
    let (agents_now, holders_now) = (pods("nearbrick-agent")?, pods("nearbrick-holder")?);
    if agents.lines().any(|pod| agents_now.contains(pod)) || agents_now.lines().count() != 3 {
        fail!("not all agents were replaced: {agents} then {agents_now}");
    }
    if holders != holders_now {
        fail!("holders were replaced too: {holders} then {holders_now}");
    }
    let written = scene.read(&scene.a)?;
    eventually("all workstations show the same", LIMIT, || async {
        let there = scene.read(&scene.c).map_err(|e| e.to_string())?;
        there.must_be(&written, "ws-c").map_err(|e| e.to_string())
    })
    .await?;
    scene.volume.wait_healed(&["ws-a", "ws-b"], LIMIT * 2).await
}
