//! Kept versions, asked for at the running agent by its own program, as a person does.

#![allow(clippy::unwrap_used)]

mod peer_common;
mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use peer_common::Ca;
use support::agent::Machine;

fn versions(machine: &Machine, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_brick-agent"))
        .arg("versions")
        .args(args)
        .arg("--run-dir")
        .arg(machine.dir.path().join("run"))
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn refused(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(line.trim_end().lines().count(), 1, "one line: {line}");
    line
}

#[test]
fn a_person_lists_what_is_kept_and_has_it_back_in_the_mount() {
    needs!(Fuse);
    let ca = Ca::new();
    let mut machine = Machine::new(ca.issue("ws-a"), &[]);
    machine.start();
    machine.wait_mounted();
    let at = machine.at();
    let path = |name: &str| at.join(name).to_str().unwrap().to_owned();
    fs::write(at.join("f"), b"what is here").unwrap();
    assert!(said(&versions(&machine, &["list", "--all"])).starts_with("nothing is kept"));
    // As a start after a power loss keeps a damaged copy.
    let folder = machine.data().parent().unwrap().join(".nearbrick/versions");
    let id = format!("damaged-{}-1", "07".repeat(16));
    fs::write(folder.join(&id), b"what was kept").unwrap();
    let socket = machine.dir.path().join("run/agent.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);

    let list = said(&versions(&machine, &["list", "--all"]));
    assert!(list.contains(&id) && list.contains("damaged") && list.contains(" 13 "), "{list}");
    assert!(refused(&versions(&machine, &["restore", &id])).contains("--to PATH"));
    assert!(refused(&versions(&machine, &["restore", &id, "--to", "/elsewhere/x"])).contains("in no volume"));
    assert!(refused(&versions(&machine, &["restore", "nothing"])).contains("is not kept"));
    assert!(refused(&versions(&machine, &["list", "/etc"])).contains("in no volume"));

    let restored = said(&versions(&machine, &["restore", &id, "--to", &path("new/dir/x")]));
    assert!(restored.contains(&path("new/dir/x")), "{restored}");
    assert_eq!(fs::read(at.join("new/dir/x")).unwrap(), b"what was kept");

    // Over a file that programs here know, and have open for reading.
    let reader = fs::File::open(at.join("f")).unwrap();
    assert_eq!(fs::read(at.join("f")).unwrap(), b"what is here");
    support::wait("it is settled", || {
        versions(&machine, &["restore", &id, "--to", &path("f")]).status.success()
    });
    assert_eq!(fs::read(at.join("f")).unwrap(), b"what was kept");
    assert_eq!(fs::metadata(at.join("f")).unwrap().len(), 13);
    let mut bytes = String::new();
    std::io::Read::read_to_string(&mut &reader, &mut bytes).unwrap();
    assert_eq!(bytes, "what was kept", "the same file, edited");
    let list = said(&versions(&machine, &["list", &path("f")]));
    assert!(list.contains("replaced") && list.contains(&path("f")) && list.contains("ws-a"), "{list}");
    let version = list.lines().find(|l| l.contains("replaced")).unwrap().split_whitespace().last().unwrap();
    support::wait("it is settled", || versions(&machine, &["restore", version]).status.success());
    assert_eq!(fs::read(at.join("f")).unwrap(), b"what is here");

    machine.terminate();
    assert!(refused(&versions(&machine, &["list", "--all"])).contains("does it run"));
    assert!(folder.join(version).exists(), "it stays");
}
