//! What somebody needs who is to help and was not there, in one archive: objects, events, pods and their logs, as far as the person may read
//! them. What could not be read is listed in it too.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use flate2::Compression;
use flate2::write::GzEncoder;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, LogParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::Error;
use crate::cluster::Cluster;

/// The last lines of each log.
const LINES: i64 = 20_000;
/// Fields whose texts name files of people.
const PATHS: &[&str] = &["path", "paths", "group", "directory", "message", "note", "failures", "shownAs"];

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where it is written.
    pub file: PathBuf,
    /// Where operator and agents run.
    pub system_namespace: String,
    /// No names of files.
    pub without_paths: bool,
}

/// What is listed: group, version, kind, plural; whether all namespaces are, or that of the system alone.
const KINDS: &[(&str, &str, &str, &str, bool)] = &[
    ("nearbrick.io", "v1alpha1", "WorkstationVolume", "workstationvolumes", true),
    ("nearbrick.io", "v1alpha1", "Brick", "bricks", true),
    ("nearbrick.io", "v1alpha1", "Workstation", "workstations", true),
    ("nearbrick.io", "v1alpha1", "HealPolicy", "healpolicies", true),
    ("nearbrick.io", "v1alpha1", "HealJob", "healjobs", true),
    ("nearbrick.io", "v1alpha1", "ReplicaMigration", "replicamigrations", true),
    ("nearbrick.io", "v1alpha1", "FileConflict", "fileconflicts", true),
    ("events.k8s.io", "v1", "Event", "events", true),
    ("certificates.k8s.io", "v1", "CertificateSigningRequest", "certificatesigningrequests", true),
    ("", "v1", "Node", "nodes", true),
    ("", "v1", "Pod", "pods", false),
    ("coordination.k8s.io", "v1", "Lease", "leases", false),
];

/// An archive that is being written, beside its place; it is there as a whole or not at all.
struct Archive {
    tar: tar::Builder<GzEncoder<File>>,
    new: PathBuf,
    folder: String,
    /// What could not be read, a line each.
    missing: Vec<String>,
}

impl Archive {
    fn begin(file: &Path) -> std::io::Result<Self> {
        let mut new = file.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        let tar = tar::Builder::new(GzEncoder::new(File::create(&new)?, Compression::default()));
        let folder = format!("nearbrick-{}", jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S"));
        Ok(Archive { tar, new, folder, missing: Vec::new() })
    }

    fn add(&mut self, name: &str, text: &str) -> std::io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        self.tar.append_data(&mut header, format!("{}/{name}", self.folder), text.as_bytes())
    }

    fn finish(mut self, file: &Path) -> std::io::Result<()> {
        let missing = self.missing.join("\n") + "\n";
        self.add("missing.txt", &missing)?;
        let mut out = self.tar.into_inner()?.finish()?;
        out.flush()?;
        out.sync_all()?;
        std::fs::rename(&self.new, file)
    }
}

/// Packs it.
///
/// # Errors
/// The file cannot be written, or nothing at all can be read.
pub async fn pack(cluster: &Cluster, wanted: &Wanted) -> Result<ExitCode, Error> {
    let unwritten = |e: std::io::Error| Error::Said(format!("cannot write {}: {e}", wanted.file.display()));
    let mut archive = Archive::begin(&wanted.file).map_err(unwritten)?;
    let new = archive.new.clone();
    let work = async {
        let read = fill(&mut archive, cluster.client(), wanted).await.map_err(unwritten)?;
        if read == 0 {
            let why = archive.missing.first().cloned().unwrap_or_default();
            return Err(Error::Said(format!("nothing can be read: {why}")));
        }
        Ok(archive.missing.len())
    };
    let interrupted = || Error::Said("interrupted: nothing was written".to_owned());
    let result = tokio::select! {
        result = work => result,
        _ = tokio::signal::ctrl_c() => Err(interrupted()),
    };
    let missing = match result {
        Ok(missing) => missing,
        Err(error) => {
            let _ = std::fs::remove_file(new);
            return Err(error);
        }
    };
    archive.finish(&wanted.file).map_err(unwritten)?;
    println!("{}: no file's content, no Secret.", wanted.file.display());
    if !wanted.without_paths {
        println!("It has names of files, in conflicts, moves and logs: --without-paths leaves them out.");
    }
    if missing > 0 {
        println!("{missing} things could not be read: missing.txt in it lists them.");
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds all that can be read; how much that was.
async fn fill(archive: &mut Archive, client: Client, wanted: &Wanted) -> std::io::Result<usize> {
    let mut read = 0;
    let server = client.apiserver_version().await;
    let version = json!({
        "plugin": env!("CARGO_PKG_VERSION"),
        "server": server.map_or_else(|e| e.to_string(), |info| info.git_version),
    });
    archive.add("version.json", &format!("{version:#}"))?;
    for (group, version, kind, plural, everywhere) in KINDS {
        eprint!("{plural}: ");
        let api_version = if group.is_empty() { (*version).to_owned() } else { format!("{group}/{version}") };
        let resource = ApiResource {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            api_version,
            kind: (*kind).to_owned(),
            plural: (*plural).to_owned(),
        };
        let api: Api<DynamicObject> = match everywhere {
            true => Api::all_with(client.clone(), &resource),
            false => Api::namespaced_with(client.clone(), &wanted.system_namespace, &resource),
        };
        match api.list(&ListParams::default()).await {
            Ok(list) => {
                eprintln!("{}", list.items.len());
                read += 1;
                let items = list.items.into_iter().map(|mut object| {
                    object.managed_fields_mut().clear();
                    let mut value = serde_json::to_value(object).unwrap_or_default();
                    if wanted.without_paths {
                        hide(&mut value);
                    }
                    value
                });
                let list = json!({ "apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>() });
                let text = serde_norway::to_string(&list).unwrap_or_default();
                archive.add(&format!("{plural}.yaml"), &text)?;
            }
            Err(error) => {
                eprintln!("not readable");
                archive.missing.push(format!("{plural}: {}", one_line(&error)));
            }
        }
    }
    if !wanted.without_paths {
        add_logs(archive, client, &wanted.system_namespace).await?;
    }
    Ok(read)
}

async fn add_logs(archive: &mut Archive, client: Client, namespace: &str) -> std::io::Result<()> {
    let api: Api<Pod> = Api::namespaced(client, namespace);
    // That they could not be listed is noted already.
    let pods = api.list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    for pod in pods {
        let name = pod.name_any();
        let restarted = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
        let restarted: Vec<String> =
            restarted.filter(|c| c.restart_count > 0).map(|c| c.name.clone()).collect();
        for container in pod.spec.into_iter().flat_map(|spec| spec.containers) {
            let of_it = [false, true];
            for previous in
                of_it.into_iter().filter(|previous| !previous || restarted.contains(&container.name))
            {
                let params = LogParams {
                    container: Some(container.name.clone()),
                    previous,
                    tail_lines: Some(LINES),
                    timestamps: true,
                    ..LogParams::default()
                };
                let which = if previous { "-previous" } else { "" };
                let entry = format!("logs/{name}-{}{which}.log", container.name);
                eprintln!("{entry}");
                match api.logs(&name, &params).await {
                    Ok(text) => archive.add(&entry, &text)?,
                    Err(error) => archive.missing.push(format!("{entry}: {}", one_line(&error))),
                }
            }
        }
    }
    Ok(())
}

fn one_line(error: &kube::Error) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Replaces every text that may name a file.
fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if PATHS.contains(&name.as_str()) {
                    replace(field);
                } else {
                    hide(field);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

fn replace(value: &mut Value) {
    match value {
        Value::String(text) => *text = "(left out)".to_owned(),
        Value::Array(items) => items.iter_mut().for_each(replace),
        Value::Object(fields) => fields.values_mut().for_each(replace),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_of_files_are_left_out_wherever_they_are() {
        let mut value = json!({
            "metadata": { "name": "tree" },
            "spec": { "path": "secret/plan", "paths": ["secret/**"], "replicas": 2 },
            "status": {
                "heat": [{ "group": "secret", "origin": "ws-a" }],
                "conditions": [{ "type": "Placed", "message": "secret/plan is on ws-a" }],
            },
        });
        hide(&mut value);
        let text = value.to_string();
        assert!(!text.contains("secret"), "{text}");
        for kept in ["tree", "Placed", "ws-a", "\"replicas\":2"] {
            assert!(text.contains(kept), "{kept} is gone: {text}");
        }
    }

    #[test]
    fn an_archive_is_there_as_a_whole_or_not_at_all() {
        let dir = std::env::temp_dir().join(format!("nearbrick-bundle-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("b.tar.gz");
        let mut archive = Archive::begin(&file).unwrap();
        archive.add("one.yaml", "a: 1\n").unwrap();
        archive.missing.push("bricks: forbidden".to_owned());
        assert!(!file.exists());
        archive.finish(&file).unwrap();
        let gz = flate2::read::GzDecoder::new(File::open(&file).unwrap());
        let mut read = tar::Archive::new(gz);
        let names: Vec<String> =
            read.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(names[0].ends_with("/one.yaml") && names[1].ends_with("/missing.txt"), "{names:?}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
