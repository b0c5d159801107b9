//! What the command line says when it cannot start: one clear line.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn operator(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nearbrick-operator"))
        .arg("run")
        .args(args)
        .env("RUST_LOG", "off")
        .output()
        .unwrap()
}

fn failure(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_kubeconfig_that_is_not_there() {
    let line = failure(&operator(&["--kubeconfig", "/nowhere/config"]));
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.starts_with("nearbrick-operator: cannot use the kubeconfig /nowhere/config: "), "{line}");
}

#[test]
fn a_port_that_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    let text = r#"{"apiVersion":"v1","kind":"Config","current-context":"c",
        "clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],
        "users":[{"name":"c","user":{}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"c"}}]}"#;
    std::fs::write(&config, text).unwrap();
    let line = failure(&operator(&["--kubeconfig", config.to_str().unwrap(), "--listen", &address]));
    assert_eq!(line.lines().count(), 1, "{line}");
    assert!(line.contains(&format!("cannot listen on {address}: ")), "{line}");
    assert!(line.trim_end().ends_with("choose another address with --listen"), "{line}");
}

#[test]
fn a_duration_that_is_none() {
    let line = failure(&operator(&["--away-after", "soon"]));
    assert!(line.contains("'soon' for '--away-after"), "{line}");
}
