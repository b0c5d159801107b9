//! Images without a registry: a program and the libraries that it needs, packed as an archive that containerd imports.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use crate::command::{find, output, run};
use crate::error::{Context, Result};
use crate::programs::Programs;

/// The image of every pod's first process.
pub const PAUSE: &str = "nearbrick-lab/pause:1";
/// The image of pods that run a shell.
pub const SHELL: &str = "nearbrick-lab/shell:1";
/// The image of the sidecar that serves claims.
pub const CSI_PROVISIONER: &str = "nearbrick-lab/csi-provisioner:1";
/// The image of the sidecar that lets claims grow.
pub const CSI_RESIZER: &str = "nearbrick-lab/csi-resizer:1";
/// The tag of our own images: that of the chart's defaults.
const TAG: &str = env!("CARGO_PKG_VERSION");

/// Packs all that the lab's nodes run into `dir`; the archives.
///
/// # Errors
/// A program is missing, or the archives cannot be written.
pub fn pack_all(dir: &Path, programs: &Programs) -> Result<Vec<PathBuf>> {
    let busybox = find("busybox").context("busybox is not installed")?;
    let image = |name: &str, program: &Path, entry: &[&str]| pack(dir, name, program, entry);
    Ok(vec![
        // The kernel ends it with its pod: it reaps nothing and holds the namespaces.
        image(PAUSE, &busybox, &["/busybox", "sleep", "2147483647"])?,
        image(SHELL, &busybox, &["/busybox", "sh"])?,
        image(
            &format!("docker.io/library/nearbrick-operator:{TAG}"),
            &programs.operator,
            &["/nearbrick-operator"],
        )?,
        image(&format!("docker.io/library/nearbrick-agent:{TAG}"), &programs.agent, &["/brick-agent"])?,
    ])
}

/// Packs the sidecars that serve claims into `dir`; the archives.
///
/// # Errors
/// The archives cannot be written.
pub fn pack_csi(dir: &Path, provisioner: &Path, resizer: &Path) -> Result<[PathBuf; 2]> {
    Ok([
        pack(dir, CSI_PROVISIONER, provisioner, &["/csi-provisioner"])?,
        pack(dir, CSI_RESIZER, resizer, &["/csi-resizer"])?,
    ])
}

/// Packs one program, at the root of the image, with its libraries.
fn pack(dir: &Path, name: &str, program: &Path, entry: &[&str]) -> Result<PathBuf> {
    let short = name.replace(['/', ':'], "-");
    let (root, work) = (dir.join(format!("{short}.root")), dir.join(format!("{short}.image")));
    for folder in [&root, &work] {
        let _ = std::fs::remove_dir_all(folder);
        std::fs::create_dir_all(folder).context(format!("cannot make {}", folder.display()))?;
    }
    let file = program.file_name().context("a program without a name")?;
    copy(program, &root.join(file))?;
    for library in libraries(program)? {
        let inside = library.strip_prefix("/").unwrap_or(&library);
        copy(&library, &root.join(inside))?;
    }
    for folder in ["tmp", "bin"] {
        std::fs::create_dir_all(root.join(folder)).context(format!("cannot make {folder}"))?;
    }
    if file == "busybox" {
        // The rest it finds in itself.
        for name in ["sh", "sleep"] {
            std::os::unix::fs::symlink("/busybox", root.join("bin").join(name))
                .context("cannot make a link")?;
        }
    }
    let layer = work.join("layer.tar");
    tar(&root, &layer)?;
    let hash = run("sha256sum", [&layer])?;
    let hash = hash.split_whitespace().next().context("sha256sum wrote nothing")?;
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Entrypoint": entry, "Env": ["PATH=/bin:/"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{hash}")] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    for (file, value) in [("config.json", &config), ("manifest.json", &manifest)] {
        std::fs::write(work.join(file), value.to_string()).context(format!("cannot write {file}"))?;
    }
    let archive = dir.join(format!("{short}.tar"));
    tar(&work, &archive)?;
    for folder in [&root, &work] {
        let _ = std::fs::remove_dir_all(folder);
    }
    Ok(archive)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// With the same content the same archive, so that nothing is imported twice.
fn tar(folder: &Path, archive: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--create",
        "--file",
    ]);
    output(command.arg(archive).arg("--directory").arg(folder).arg(".")).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).context(format!("cannot make {}", folder.display()))?;
    }
    std::fs::copy(from, to).map(drop).context(format!("cannot copy {} to {}", from.display(), to.display()))
}

/// The libraries that the loader would load, itself among them; none for a static program.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let said = Command::new("ldd").arg(program).output().context("cannot start ldd")?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let path = |line: &str| line.split_whitespace().find(|word| word.starts_with('/')).map(PathBuf::from);
    Ok(text.lines().filter_map(path).collect())
}
