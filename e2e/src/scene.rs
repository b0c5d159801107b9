//! What a test on a lab begins with: three workstations that are on, and a volume of the test's own.

use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, ResourceExt};
use nearbrick_crds::Brick;

use crate::error::{Context, Result};
use crate::kube_api;
use crate::lab::Lab;
use crate::trees::{Place, Tree};
use crate::volumes::Volume;
use crate::workstation::Workstation;

/// How long a test waits for something that should take seconds.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A volume on all workstations of a lab, for one test.
pub struct Scene {
    /// The lab.
    pub lab: Lab,
    /// An administrator's client.
    pub client: Client,
    /// The volume.
    pub volume: Volume,
    /// ws-a: in the replica set.
    pub a: Workstation,
    /// ws-b: in the replica set.
    pub b: Workstation,
    /// ws-c: not in it.
    pub c: Workstation,
}

/// The nodes of the usual lab.
pub const NODES: [&str; 3] = ["ws-a", "ws-b", "ws-c"];

impl Scene {
    /// A volume whose policy heals every `interval`, in a namespace of its own, in use on all three.
    ///
    /// # Errors
    /// It is not in use within a minute.
    pub async fn new(lab: &Lab, interval: &str) -> Result<Self> {
        let scene = Self::without_volume(lab).await?;
        kube_api::apply(&scene.client, &manifest(&scene.volume.namespace, interval)).await?;
        scene.volume.wait_ready(&NODES, LIMIT).await?;
        Ok(scene)
    }

    /// The same before the volume is made.
    ///
    /// # Errors
    /// A workstation is not as it should be at the start, or the namespace cannot be made.
    pub async fn without_volume(lab: &Lab) -> Result<Self> {
        lab.cluster().wait_ready().await?;
        for node in NODES {
            lab.start(node)?;
        }
        let client = lab.client().await?;
        let metadata = ObjectMeta { generate_name: Some("flow-".to_owned()), ..Default::default() };
        let namespace = Namespace { metadata, ..Default::default() };
        let api: Api<Namespace> = Api::all(client.clone());
        let made = api.create(&PostParams::default(), &namespace).await.context("cannot make a namespace")?;
        Ok(Self {
            lab: lab.clone(),
            volume: Volume::new(&client, &made.name_any(), "tree"),
            client,
            a: lab.workstation("ws-a")?,
            b: lab.workstation("ws-b")?,
            c: lab.workstation("ws-c")?,
        })
    }

    /// Runs a script in the volume on a workstation.
    ///
    /// # Errors
    /// It fails.
    pub fn sh(&self, workstation: &Workstation, script: &str) -> Result<String> {
        workstation.sh(&format!("cd {} && {script}", self.volume.mount()))
    }

    /// Writes files of all sizes from 0 bytes to `large` MiB into `folder` on a workstation; their hashes.
    ///
    /// # Errors
    /// Writing fails.
    pub fn write(&self, workstation: &Workstation, folder: &str, large: u32) -> Result<Tree> {
        let script = format!(
            "mkdir -p {folder}/small {folder}/empty && cd {folder} && : > nothing && \
             for i in $(seq 100); do head -c $((i * 37)) /dev/urandom > small/$i; done && \
             head -c 300000 /dev/urandom > medium && head -c {large}M /dev/urandom > large && \
             ln -s medium link && chmod 640 medium"
        );
        self.sh(workstation, &script)?;
        // Only these: what is read of others would come here.
        Tree::hashes_in(Place::At(workstation), &self.volume.mount(), &format!("./{folder}"))
    }

    /// The hashes of all files in the volume, read through the mount of a workstation.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn read(&self, workstation: &Workstation) -> Result<Tree> {
        Tree::hashes(Place::At(workstation), &self.volume.mount())
    }

    /// The hashes of all files on the brick of a workstation.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn on_brick(&self, workstation: &Workstation) -> Result<Tree> {
        Tree::hashes(Place::At(workstation), &format!("{}/data", self.volume.brick_dir()))
    }

    /// Waits until the mount of a workstation lists what another lists.
    ///
    /// # Errors
    /// Not within `limit`.
    pub async fn wait_same_listing(
        &self,
        one: &Workstation,
        as_other: &Workstation,
        limit: Duration,
    ) -> Result<()> {
        let mount = self.volume.mount();
        let what = format!("the listing of {} on {}", as_other.seat.node, one.seat.node);
        kube_api::eventually(&what, limit, || async {
            let wanted = Tree::listing(Place::At(as_other), &mount).map_err(|e| e.to_string())?;
            let there = Tree::listing(Place::At(one), &mount).map_err(|e| e.to_string())?;
            there.must_be(&wanted, &what).map_err(|e| e.to_string())
        })
        .await
    }

    /// Asks for a heal and waits until ws-a and ws-b hold the same data, and say so.
    ///
    /// # Errors
    /// Not within two minutes.
    pub async fn heal(&self, trigger: &str) -> Result<()> {
        const TIMES: u32 = 6;
        self.wait_settled().await?;
        for n in 1..=TIMES {
            // A target that has not heard of what it lacks by then has nothing to copy: it is asked again.
            let trigger = if n == 1 { trigger.to_owned() } else { format!("{trigger}-{n}") };
            self.volume.trigger(&trigger).await?;
            self.volume
                .wait("the trigger acted on", LIMIT, |v| {
                    v.status.as_ref().and_then(|s| s.last_trigger.as_ref()) == Some(&trigger)
                })
                .await?;
            match self.volume.wait_healed(&["ws-a", "ws-b"], LIMIT * 2 / TIMES).await {
                Err(_) if n < TIMES => {}
                result => return result,
            }
        }
        Ok(())
    }

    /// Waits until the reports of all that is switched on are of the files that are there now.
    ///
    /// # Errors
    /// Not within a minute.
    pub async fn wait_settled(&self) -> Result<()> {
        for workstation in [&self.a, &self.b] {
            if workstation.is_on() {
                self.wait_settled_at(workstation).await?;
            }
        }
        Ok(())
    }

    /// Waits until the report of one workstation is of the files that are there now.
    ///
    /// # Errors
    /// Not within a minute.
    pub async fn wait_settled_at(&self, workstation: &Workstation) -> Result<()> {
        // Counted each time: what another has just written may still be on its way.
        let settled = |b: &Brick| {
            let there = crate::trees::size(Place::At(workstation), &self.volume.mount());
            let status = b.status.clone().unwrap_or_default();
            there.is_ok_and(|there| status.files == Some(there.files)) && status.dirty_files.unwrap_or(0) == 0
        };
        let what = "all files that are there, settled";
        self.volume.wait_brick(&workstation.seat.node, what, LIMIT, settled).await.map(drop)
    }

    /// Runs the agent once more on a workstation, in the way that `wrap` (a shell prefix) says; what it
    /// wrote to stderr, if it gave up.
    ///
    /// # Errors
    /// It does not give up within a minute.
    pub fn refused_agent(
        &self,
        workstation: &Workstation,
        wrap: &str,
        change: (&str, &str),
    ) -> Result<String> {
        // A copy that everybody may run: the build may be where only root can look.
        let program = self.lab.identity().dir.join("brick-agent");
        let built = &self.lab.record().programs.agent;
        crate::command::run("install", [built, &program])?;
        let command = workstation.agent_command(Path::new("PROGRAM"), &[])?;
        let words = command.get_args().map(|w| w.to_string_lossy().into_owned());
        let line: Vec<String> = words.skip_while(|w| w != "PROGRAM").skip(1).collect();
        let line = line.join(" ").replace(change.0, change.1);
        let script =
            format!("{wrap} timeout 60 {} {line} 2>&1 >/dev/null || echo code $?", program.display());
        let said = workstation.sh(&script)?;
        if said.contains("code 124") || !said.contains("code ") {
            crate::fail!("the agent did not give up: {said}");
        }
        Ok(said)
    }
}

/// A policy and a volume `tree` in a namespace: all three workstations, files of ws-a and ws-b on both.
pub fn manifest(namespace: &str, interval: &str) -> String {
    format!(
        "apiVersion: nearbrick.io/v1alpha1\nkind: HealPolicy\n\
         metadata: {{name: policy, namespace: {namespace}}}\nspec: {{interval: {interval}}}\n---\n\
         apiVersion: nearbrick.io/v1alpha1\nkind: WorkstationVolume\n\
         metadata: {{name: tree, namespace: {namespace}}}\nspec:\n  \
         members: {{nodes: [ws-a, ws-b, ws-c]}}\n  replicas: 2\n  \
         replicaSets: [{{nodes: [ws-a, ws-b]}}]\n  healPolicyRef: {{name: policy}}\n"
    )
}
