//! The commands that start, end, show and change a lab.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use nearbrick_e2e::cluster::SYSTEM_NAMESPACE;
use nearbrick_e2e::error::Context;
use nearbrick_e2e::lab::Options;
use nearbrick_e2e::record::Kind;
use nearbrick_e2e::volumes::Volume;
use nearbrick_e2e::{Error, Lab, Result, fail, netns, progress};

/// Starts a lab with the volume `default/home`.
pub async fn up(name: &str, no_passthrough: bool, processes: bool) -> Result<()> {
    let agent = if no_passthrough { vec!["--no-passthrough".to_owned()] } else { Vec::new() };
    let kind = if processes { Kind::Processes } else { Kind::Nodes };
    let (lab, was_up) = Lab::up(name, &Options { agent, kind, ..Options::default() }).await?;
    if was_up {
        println!("The lab is already up; `cargo lab down` ends it.");
    } else {
        progress::step("Volume default/home");
        let volume = Volume::apply_home(&lab.client().await?, "home.yaml").await?;
        let nodes: Vec<&str> = lab.record().seats.iter().map(|s| s.node.as_str()).collect();
        let ready = volume.wait_ready(&nodes, Duration::from_secs(60)).await;
        ready.context(format!("the volume is not in use; logs are in {}", lab.log_dir().display()))?;
        println!("The lab is up.");
    }
    how_to(&lab);
    Ok(())
}

fn how_to(lab: &Lab) {
    let name = &lab.identity().name;
    let lab_command = if name == "lab" { "cargo lab".to_owned() } else { format!("cargo lab --name {name}") };
    println!("  export KUBECONFIG={}", lab.kubeconfig().display());
    println!("  kubectl get wsv,wsb,whj,wsn       or: {lab_command} kubectl get wsv,wsb,whj,wsn");
    println!("  {lab_command} exec ws-a -- bash       the volume is /volumes/default/home there");
    println!("  {lab_command} logs ws-a               and: kill, start, partition, join ws-a");
    println!("  {lab_command} down                    removes every trace");
}

/// Ends a lab.
pub fn down(name: &str, when_input_ends: bool) -> Result<()> {
    if when_input_ends {
        let mut nothing = Vec::new();
        let _ = std::io::stdin().read_to_end(&mut nothing);
    }
    match Lab::down(name)? {
        true => println!("The lab is down, and nothing of it is left."),
        false => println!("There is no lab {name:?}: nothing to do."),
    }
    Ok(())
}

/// Shows what runs.
pub fn status(name: &str) -> Result<()> {
    let lab = Lab::open(name)?;
    for daemon in lab.cluster().daemons() {
        let state = match daemon.running() {
            Some(id) => format!("runs, pid {}", id.pid),
            None => format!("does not run: {}", daemon.last_words()),
        };
        println!("{:<24} {state}", daemon.name);
    }
    for workstation in lab.workstations() {
        let node = &workstation.seat.node;
        let state = match (workstation.is_on(), workstation.agent().running()) {
            (true, _) if lab.record().kind == Kind::Nodes => of_node(&lab, node),
            (false, _) => "off".to_owned(),
            (true, Some(id)) => format!("on, agent runs, pid {}", id.pid),
            (true, None) => format!("on, agent does not run: {}", workstation.agent().last_words()),
        };
        let connected = netns::is_connected(lab.identity(), node)?;
        let link = if connected { "" } else { ", network cut" };
        let seat = &workstation.seat;
        println!("{node:<24} {state}{link} ({}, {:?})", seat.address, seat.filesystem);
    }
    how_to(&lab);
    Ok(())
}

/// What runs on a node, in a line.
fn of_node(lab: &Lab, node: &str) -> String {
    let nodes = lab.nodes();
    let daemons = nodes.iter().filter(|n| n.name() == node).flat_map(|n| n.daemons());
    let dead = daemons.filter(|d| d.running().is_none()).map(|d| format!(", {} does not run", d.name));
    let pods = lab.pods_of(node).map_or_else(|e| format!("pods unknown: {e}"), |pods| pods.join(" "));
    format!("on{}, {pods}", dead.collect::<String>())
}

/// Becomes a program on a workstation; returns only if that fails.
pub fn exec(name: &str, node: &str, command: &[String]) -> Error {
    let Some((program, arguments)) = command.split_first() else { return Error::new("no program to run") };
    match Lab::open(name).and_then(|lab| lab.workstation(node)?.command(program)) {
        Ok(mut command) => become_program(command.args(arguments)),
        Err(error) => error,
    }
}

/// Becomes `tail` on a log; returns only if that fails.
pub fn logs(name: &str, part: &str, follow: bool) -> Error {
    let lab = Lab::open(name);
    if let Ok(lab) = &lab
        && let Some(mut kubectl) = logs_of_pods(lab, part, follow)
    {
        return become_program(&mut kubectl);
    }
    let found = lab.and_then(|lab| {
        let all = lab.logs();
        let names: Vec<String> = all.iter().map(|d| d.name.clone()).collect();
        let wanted = all.into_iter().find(|daemon| daemon.name == part);
        wanted.context(format!("no log of {part:?}: there are those of {}", names.join(", ")))
    });
    match found {
        Ok(daemon) => {
            let mut tail = Command::new("tail");
            tail.args(["-n", "+1"]).args(follow.then_some("-F")).arg(daemon.log);
            become_program(&mut tail)
        }
        Err(error) => error,
    }
}

/// kubectl for the log of an agent or of the operators, where they are in pods.
fn logs_of_pods(lab: &Lab, part: &str, follow: bool) -> Option<Command> {
    if lab.record().kind != Kind::Nodes {
        return None;
    }
    let pod = match part {
        "operator" => "deployment/nearbrick-operator".to_owned(),
        node => lab.pods_of(node).ok()?.into_iter().find(|pod| pod.contains("nearbrick-agent"))?,
    };
    let mut kubectl = lab.kubectl().ok()?;
    kubectl.args(["logs", "-n", SYSTEM_NAMESPACE, &pod, "--tail=-1"]).args(follow.then_some("--follow"));
    Some(kubectl)
}

/// Becomes kubectl; returns only if that fails.
pub fn kubectl(name: &str, arguments: &[String]) -> Error {
    match Lab::open(name).and_then(|lab| lab.kubectl()) {
        Ok(mut kubectl) => become_program(kubectl.args(arguments)),
        Err(error) => error,
    }
}

fn become_program(command: &mut Command) -> Error {
    let error = command.exec();
    Error::new(format!("cannot run {}: {error}", command.get_program().display()))
}

/// Cuts a workstation off, or connects it.
pub fn set_link(name: &str, node: &str, up: bool) -> Result<()> {
    let lab = Lab::open(name)?;
    let _lock = lab.lock()?;
    lab.set_link(node, up)?;
    match up {
        true => println!("{node} is connected."),
        false => println!("{node} is cut off, and runs on; `cargo lab join {node}` connects it."),
    }
    Ok(())
}

/// Pulls a workstation's plug.
pub fn kill(name: &str, node: &str, lose_unwritten: bool) -> Result<()> {
    let lab = Lab::open(name)?;
    let _lock = lab.lock()?;
    let workstation = lab.workstation(node)?;
    if !workstation.is_on() {
        fail!("{node} is off already: `cargo lab start {node}` switches it on");
    }
    workstation.power_off(lose_unwritten)?;
    println!("{node} is dead; its disk is there. `cargo lab start {node}` switches it on.");
    Ok(())
}

/// Switches a workstation on.
pub fn start(name: &str, node: &str) -> Result<()> {
    let lab = Lab::open(name)?;
    let _lock = lab.lock()?;
    lab.start(node)?;
    println!("{node} is on, and its agent runs.");
    Ok(())
}
