//! The generated files are current, and `crdgen --check` says so when they are not.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

fn crdgen(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_crdgen")).args(args).output().unwrap()
}

/// The one line that it failed with.
fn failure(output: &Output) -> String {
    assert!(!output.status.success());
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(line.lines().count(), 1, "{line}");
    line
}

#[test]
fn the_files_in_the_repository_are_current() {
    let output = crdgen(&["--check"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_file_that_is_changed_missing_or_a_stranger_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    assert!(crdgen(&[folder]).status.success());
    assert!(crdgen(&["--check", folder]).status.success());
    let bricks = Path::new(folder).join("nearbrick.io_bricks.yaml");
    let text = std::fs::read_to_string(&bricks).unwrap();

    std::fs::write(&bricks, text.replace("wsb", "brk")).unwrap();
    assert!(
        failure(&crdgen(&["--check", folder])).contains("nearbrick.io_bricks.yaml is not what the types say")
    );
    std::fs::remove_file(&bricks).unwrap();
    assert!(
        failure(&crdgen(&["--check", folder])).contains("nearbrick.io_bricks.yaml is not what the types say")
    );
    assert!(!bricks.exists(), "a check writes nothing");

    std::fs::write(&bricks, text).unwrap();
    std::fs::write(Path::new(folder).join("nearbrick.io_old.yaml"), "").unwrap();
    assert!(failure(&crdgen(&["--check", folder])).contains("nearbrick.io_old.yaml belongs to no type"));
    assert!(crdgen(&[folder]).status.success());
    assert!(crdgen(&["--check", folder]).status.success());
    assert!(failure(&crdgen(&["--wrong"])).contains("usage"));
}
