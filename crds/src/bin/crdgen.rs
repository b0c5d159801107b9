//! Writes the CustomResourceDefinitions as YAML: to `crds/yaml/` and to the chart's `crds/`, or to the
//! folders that are named. `crdgen --check` writes nothing, and fails with one line if a file is not current.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HOW: &str = "run `cargo run --bin crdgen` and commit the result";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let check = args.first().is_some_and(|a| a == "--check");
    if check {
        args.remove(0);
    }
    if args.iter().any(|a| a.starts_with('-')) {
        eprintln!("crdgen: usage: crdgen [--check] [FOLDER...]");
        return ExitCode::from(2);
    }
    match run(check, &args) {
        Ok(done) => {
            println!("crdgen: {done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(check: bool, folders: &[String]) -> Result<String, String> {
    let files = nearbrick_crds::schema::yaml_files().map_err(|e| e.to_string())?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let usual = || vec![root.join("yaml"), root.join("../charts/nearbrick/crds")];
    let folders = if folders.is_empty() { usual() } else { folders.iter().map(PathBuf::from).collect() };
    for folder in &folders {
        if check { verify(folder, &files)? } else { write(folder, &files)? }
    }
    Ok(format!("{} definitions {}", files.len(), if check { "are current" } else { "written" }))
}

fn write(folder: &Path, files: &BTreeMap<String, String>) -> Result<(), String> {
    let said = |path: &Path, e: std::io::Error| format!("cannot write {}: {e}", path.display());
    std::fs::create_dir_all(folder).map_err(|e| said(folder, e))?;
    for stale in strangers(folder, files)? {
        std::fs::remove_file(&stale).map_err(|e| said(&stale, e))?;
    }
    for (name, body) in files {
        let path = folder.join(name);
        std::fs::write(&path, body).map_err(|e| said(&path, e))?;
    }
    Ok(())
}

fn verify(folder: &Path, files: &BTreeMap<String, String>) -> Result<(), String> {
    for (name, body) in files {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(body) {
            return Err(format!("{} is not what the types say: {HOW}", path.display()));
        }
    }
    match strangers(folder, files)?.first() {
        Some(path) => Err(format!("{} belongs to no type: {HOW}", path.display())),
        None => Ok(()),
    }
}

/// YAML files in `folder` that no definition makes.
fn strangers(folder: &Path, files: &BTreeMap<String, String>) -> Result<Vec<PathBuf>, String> {
    let entries =
        std::fs::read_dir(folder).map_err(|e| format!("cannot read {}: {e}: {HOW}", folder.display()))?;
    Ok(entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "yaml"))
        .filter(|p| !p.file_name().and_then(|n| n.to_str()).is_some_and(|n| files.contains_key(n)))
        .collect())
}
