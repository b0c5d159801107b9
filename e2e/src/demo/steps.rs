//! The seven steps of the demo, each with its checks.

use std::path::Path;
use std::time::{Duration, Instant};

use nearbrick_crds::pending::human_bytes;
use nearbrick_crds::{HealJob, JobPhase, JobReason};

use super::input::{self, Input};
use crate::error::Result;
use crate::kube_api::{self, eventually};
use crate::lab::Lab;
use crate::netns::Counters;
use crate::paths;
use crate::progress::{self, Line};
use crate::scene::Scene;
use crate::story;
use crate::trees::{Place, Size, Tree, quoted, size};
use crate::volumes::Volume;
use crate::workstation::Workstation;

/// Workstations may take this long to tell the API server what they know.
const REPORT: Duration = Duration::from_secs(60);
/// A heal of all of the input may take this long.
const HEAL: Duration = Duration::from_secs(300);
/// The largest share of the input that other workstations may receive while it is written: names, sizes and
/// versions travel at once, contents do not.
const METADATA_SHARE: f64 = 0.05;

struct Demo<'a> {
    lab: &'a Lab,
    volume: &'a Volume,
    a: Workstation,
    b: Workstation,
    c: Workstation,
    mount: String,
    summary: Vec<(String, String)>,
}

/// Plays all steps.
pub async fn all(lab: &Lab, volume: &Volume) -> Result<()> {
    let begin = Instant::now();
    let mut demo = Demo {
        lab,
        volume,
        a: lab.workstation("ws-a")?,
        b: lab.workstation("ws-b")?,
        c: lab.workstation("ws-c")?,
        mount: volume.mount(),
        summary: Vec::new(),
    };
    progress::step("Input: crate sources that Cargo fetched for this build, and one large file");
    let input = input::collect(&lab.identity().dir.join("input"))?;
    progress::note(format!(
        "{} files, {} of {} crates, the largest {}",
        input.size.files,
        human_bytes(input.size.bytes),
        input.crates,
        human_bytes(input.large)
    ));
    let mut expected = Tree::hashes(Place::Machine, &input.dir.display().to_string())?;
    demo.write_on_a(&input)?;
    demo.see_pending(input.size).await?;
    demo.list_and_read_on_c(&input, &expected).await?;
    demo.heal_by_schedule(&expected).await?;
    expected.merge(demo.heal_by_trigger(&expected).await?);
    demo.lose_a(&expected).await?;
    expected.merge(demo.work_without_a().await?);
    demo.get_a_back(&expected).await?;
    demo.follow_the_person().await?;
    demo.end(begin.elapsed());
    Ok(())
}

impl Demo<'_> {
    fn say(&mut self, what: &str, result: String) {
        progress::note(format!("{what}: {result}"));
        self.summary.push((what.to_owned(), result));
    }

    fn kubectl(&self, arguments: &str) -> Result<()> {
        let words: Vec<&str> = arguments.split_whitespace().collect();
        println!("$ kubectl {arguments}");
        println!("{}", self.lab.kubectl_output(&words)?.trim_end());
        println!();
        Ok(())
    }

    fn write_on_a(&mut self, input: &Input) -> Result<()> {
        progress::step("1. On ws-a: copy the input into /volumes/default/home");
        let from = quoted(&input.dir);
        // The same copy onto the brick's own file system, to know what this disk can do.
        let plain = "/bricks/.plain-copy";
        let begin = Instant::now();
        self.a.sh(&format!("mkdir {plain} && cp -r {from}/. {plain}/"))?;
        let plain_time = begin.elapsed();
        self.a.sh(&format!("rm -rf {plain} && sync -f /bricks"))?;

        let before = self.others()?;
        let begin = Instant::now();
        self.a.sh(&format!("cp -r {from}/. {}/", self.mount))?;
        let time = begin.elapsed();
        let after = self.others()?;

        let how = |time: Duration| {
            let seconds = time.as_secs_f64();
            let files = input.size.files as f64 / seconds;
            format!("{seconds:.1} s, {}/s, {files:.0} files/s", rate(input.size.bytes, time))
        };
        self.say("copy into the volume on ws-a", how(time));
        self.say("the same copy onto its disk, past the volume", how(plain_time));
        for (node, before, after) in [("ws-b", before[0], after[0]), ("ws-c", before[1], after[1])] {
            let received = after.received - before.received;
            let what = format!("{node} received during the copy (names and versions, no contents)");
            self.say(
                &what,
                format!("{}, sent {}", human_bytes(received), human_bytes(after.sent - before.sent)),
            );
            if received as f64 > input.size.bytes as f64 * METADATA_SHARE {
                crate::fail!(
                    "{node} received {received} bytes during the copy: contents must not travel then"
                );
            }
        }
        let there = size(Place::At(&self.a), &self.mount)?;
        if there != input.size {
            crate::fail!("ws-a sees {there:?} after the copy, and should see {:?}", input.size);
        }
        Ok(())
    }

    fn others(&self) -> Result<[Counters; 2]> {
        Ok([self.lab.counters("ws-b")?, self.lab.counters("ws-c")?])
    }

    async fn see_pending(&mut self, input: Size) -> Result<()> {
        progress::step("2. What is pending, per brick");
        let files = input.files;
        let brick = self.volume.wait_brick("ws-a", "all files settled and pending", REPORT, |b| {
            // What is still being written counts with the bytes of its last version.
            let settled = b.status.as_ref().is_some_and(|s| s.dirty_files.unwrap_or(0) == 0);
            let pending = b.status.as_ref().and_then(|s| s.pending.as_ref());
            settled && pending.is_some_and(|p| p.files == files && p.oldest_since.is_some())
        });
        let pending = brick.await?.status.and_then(|s| s.pending).unwrap_or_default();
        if pending.bytes != input.bytes {
            crate::fail!("ws-a reports {} pending bytes, and {} were written", pending.bytes, input.bytes);
        }
        self.volume
            .wait("pending shown", REPORT, |v| {
                v.status.as_ref().and_then(|s| s.pending.as_ref()).is_some_and(|p| p.files == files)
            })
            .await?;
        self.kubectl("get wsv,wsb,whj")?;
        self.say(
            "pending after the copy",
            format!("{} files, {}", pending.files, human_bytes(pending.bytes)),
        );
        Ok(())
    }

    async fn list_and_read_on_c(&mut self, input: &Input, expected: &Tree) -> Result<()> {
        progress::step("3. On ws-c: list the tree, and read a file whose contents are elsewhere");
        let listing = Tree::listing(Place::Machine, &input.dir.display().to_string())?;
        let (c, mount) = (&self.c, &self.mount);
        let begin = Instant::now();
        eventually("the whole tree on ws-c", Duration::from_secs(10), || async {
            let there = Tree::listing(Place::At(c), mount).map_err(|e| e.to_string())?;
            there.must_be(&listing, "the listing on ws-c").map_err(|e| e.to_string())
        })
        .await?;
        let time = begin.elapsed();
        let entries = format!("{} entries in {:.2} s", listing.len(), time.as_secs_f64());
        println!("$ ls {mount}    (on ws-c)\n{}", c.sh(&format!("ls -l {mount}"))?);
        self.say("the whole tree listed on ws-c", entries);

        let brick = self.volume.brick("ws-c").await?.status.unwrap_or_default();
        let chosen = "crates/*/Cargo.toml";
        let before = self.lab.counters("ws-c")?;
        let begin = Instant::now();
        let script = format!("cd {} && sha256sum ./{chosen}", self.mount);
        let text = self.c.sh(&script)?;
        let time = begin.elapsed();
        let after = self.lab.counters("ws-c")?;
        let read = Tree::from_sums(&text);
        read.must_be(&expected.only(&read), "files read on ws-c")?;
        let moved = human_bytes(after.received - before.received);
        let stubs = brick.stubs.map_or_else(|| "unknown".to_owned(), |stubs| stubs.to_string());
        let result = format!(
            "{} files in {:.2} s, {moved} received; {stubs} stubs before",
            read.len(),
            time.as_secs_f64()
        );
        self.say("read remotely on ws-c, with the right contents", result);
        Ok(())
    }

    async fn heal_by_schedule(&mut self, expected: &Tree) -> Result<()> {
        progress::step("4. The heal, by schedule: the volume gets a policy of 30 seconds");
        let file = paths::in_crate("manifests/home-demo.yaml");
        println!("$ kubectl apply -f {}", shown(&file));
        kube_api::apply_file(&self.lab.client().await?, &file).await?;
        let job = self.watch_job(JobReason::Scheduled, "a job by schedule").await?;
        self.volume.wait_healed(&["ws-a", "ws-b"], HEAL).await?;
        self.kubectl("get wsv,wsb,whj")?;
        self.report_job("heal by schedule", &job);
        self.bricks_must_be(expected)
    }

    async fn heal_by_trigger(&mut self, expected: &Tree) -> Result<Tree> {
        progress::step("4. The heal, by trigger: more work on ws-a, and a heal at once");
        let script = format!("cd {} && mkdir second && cp -r crates/a* second/", self.mount);
        self.a.sh(&script)?;
        let second = Tree::hashes(Place::At(&self.a), &self.mount)?.below("./second/");
        let count = second.len() as u64;
        self.volume
            .wait_brick("ws-a", "the second work pending, or healed already", REPORT, |b| {
                b.status.as_ref().is_some_and(|s| {
                    s.files == Some(expected.len() as u64 + count) && s.dirty_files.unwrap_or(0) == 0
                })
            })
            .await?;
        println!("$ kubectl patch wsv home --type merge -p '{{\"spec\":{{\"trigger\":\"demo\"}}}}'");
        self.volume.trigger("demo").await?;
        self.volume
            .wait("the trigger acted on", REPORT, |v| {
                v.status.as_ref().and_then(|s| s.last_trigger.as_deref()) == Some("demo")
            })
            .await?;
        self.volume.wait_healed(&["ws-a", "ws-b"], HEAL).await?;
        self.kubectl("get wsv,wsb,whj")?;
        self.say("heal by trigger", format!("{count} files"));
        let mut all = expected.clone();
        all.merge(second.clone());
        self.bricks_must_be(&all)?;
        Ok(second)
    }

    async fn watch_job(&self, reason: JobReason, what: &str) -> Result<HealJob> {
        let line = Line::new(what);
        let job = self.volume.wait_job(what, HEAL, |job| {
            let status = job.status.clone().unwrap_or_default();
            let files = status.files.unwrap_or_default();
            let bytes = status.bytes.unwrap_or_default();
            if job.spec.reason == reason {
                let (done, total) = (human_bytes(bytes.done), human_bytes(bytes.total));
                line.update(format!("{} of {} files, {done} of {total}", files.done, files.total));
            }
            job.spec.reason == reason && status.phase.is_some_and(JobPhase::is_ended)
        });
        let job = job.await?;
        let phase = job.status.as_ref().and_then(|s| s.phase);
        if phase != Some(JobPhase::Completed) {
            let message = job.status.as_ref().and_then(|s| s.message.clone()).unwrap_or_default();
            crate::fail!("{what} ended as {phase:?}: {message}");
        }
        line.done("completed");
        Ok(job)
    }

    fn report_job(&mut self, what: &str, job: &HealJob) {
        let status = job.status.clone().unwrap_or_default();
        let (files, bytes) = (status.files.unwrap_or_default(), status.bytes.unwrap_or_default());
        let begin = status.started_at.map(|t| t.0.as_millisecond());
        let end = status.completed_at.map(|t| t.0.as_millisecond());
        let millis = begin.zip(end).and_then(|(b, e)| u64::try_from(e - b).ok()).unwrap_or(0).max(1);
        let time = Duration::from_millis(millis);
        let speed = files.done as f64 / time.as_secs_f64();
        self.say(
            what,
            format!(
                "{} files, {} in {:.0} s, {}/s, {speed:.0} files/s",
                files.done,
                human_bytes(bytes.done),
                time.as_secs_f64(),
                rate(bytes.done, time)
            ),
        );
    }

    /// The two bricks of the replica set hold what was written: hashed on their disks, by plain tools.
    fn bricks_must_be(&mut self, expected: &Tree) -> Result<()> {
        let data = format!("{}/data", self.volume.brick_dir());
        for workstation in [&self.a, &self.b] {
            let node = &workstation.seat.node;
            let there = Tree::hashes(Place::At(workstation), &data)?;
            there.must_be(expected, &format!("SHA-256 of the brick of {node}"))?;
            progress::note(format!("the brick of {node}: {} files with the right SHA-256", there.len()));
        }
        Ok(())
    }

    async fn lose_a(&mut self, expected: &Tree) -> Result<()> {
        progress::step("5. ws-a loses its power");
        self.a.power_off(false)?;
        for (workstation, how) in [(self.b.clone(), "from its disk"), (self.c.clone(), "from ws-b")] {
            let node = &workstation.seat.node;
            let begin = Instant::now();
            let there = Tree::hashes(Place::At(&workstation), &self.mount)?;
            let time = begin.elapsed();
            there.must_be(expected, &format!("files read on {node} while ws-a is dead"))?;
            let result = format!("{} files in {:.1} s, all right", there.len(), time.as_secs_f64());
            self.say(&format!("every file read on {node} ({how}) without ws-a"), result);
        }
        let workstation = kube::Api::<nearbrick_crds::Workstation>::all(self.lab.client().await?);
        kube_api::wait_for(&workstation, "ws-a", "Away", Duration::from_secs(90), |w| {
            w.status.as_ref().and_then(|s| s.state) == Some(nearbrick_crds::WorkstationState::Away)
        })
        .await?;
        self.kubectl("get wsn,wsv,wsb")
    }

    async fn work_without_a(&mut self) -> Result<Tree> {
        let script = format!("cd {} && mkdir meanwhile && cp -r crates/b* meanwhile/", self.mount);
        self.b.sh(&script)?;
        let meanwhile = Tree::hashes(Place::At(&self.b), &self.mount)?.below("./meanwhile/");
        progress::note(format!("meanwhile, {} new files are written on ws-b", meanwhile.len()));
        Ok(meanwhile)
    }

    async fn get_a_back(&mut self, expected: &Tree) -> Result<()> {
        progress::step("6. ws-a returns, and catches up");
        let begin = Instant::now();
        self.lab.start("ws-a")?;
        let (a, mount) = (&self.a, &self.mount);
        eventually("all names on ws-a", REPORT, || async {
            let there = size(Place::At(a), mount).map_err(|e| e.to_string())?;
            match there.files == expected.len() as u64 {
                true => Ok(()),
                false => Err(format!("{} of {} files", there.files, expected.len())),
            }
        })
        .await?;
        let names = begin.elapsed();
        let data = format!("{}/data", self.volume.brick_dir());
        eventually("all contents on ws-a", HEAL, || async {
            let there = Tree::hashes(Place::At(a), &data).map_err(|e| e.to_string())?;
            there.must_be(expected, "the brick of ws-a").map_err(|e| e.to_string())
        })
        .await?;
        let contents = begin.elapsed();
        self.volume.wait_healed(&["ws-a", "ws-b"], HEAL).await?;
        let result =
            format!("names in {:.1} s, contents in {:.1} s", names.as_secs_f64(), contents.as_secs_f64());
        self.say("ws-a caught up after its return", result);
        self.bricks_must_be(expected)?;
        self.kubectl("get wsv,wsb,whj,wsn")
    }

    async fn follow_the_person(&mut self) -> Result<()> {
        progress::step("7. Three projects on ws-a, and a person who goes on with one of them at ws-c");
        let client = self.lab.client().await?;
        let scene = Scene {
            lab: self.lab.clone(),
            volume: Volume::new(&client, &self.volume.namespace, "projects"),
            client,
            a: self.a.clone(),
            b: self.b.clone(),
            c: self.c.clone(),
        };
        println!("$ kubectl apply -f e2e/manifests/projects.yaml");
        story::apply(&scene).await?;
        let told = story::tell(&scene, |line| progress::note(line)).await?;
        self.kubectl("get wrm -o wide")?;
        self.say("first reads of a project at ws-c before it moved there", told.before.say());
        self.say("first reads of the rest of it afterwards", told.after.say());
        let status = told.object.status.unwrap_or_default();
        let result = format!(
            "{:.0} s after the first read, {}; of no file there ever were fewer than {} copies, in {} looks",
            told.took.as_secs_f64(),
            status.message.unwrap_or_default(),
            told.fewest.copies,
            told.fewest.looks
        );
        self.say("the move of that project", result);
        Ok(())
    }

    fn end(&self, time: Duration) {
        progress::step("Summary");
        for (what, result) in &self.summary {
            println!("  {what}: {result}");
        }
        println!("  all of it: {:.0} s", time.as_secs_f64());
        println!();
        println!("Where to look next:");
        println!("  cargo lab up                     a lab like this one, for you");
        println!(
            "  kubectl explain wsv.spec         what a volume can be told (KUBECONFIG as `up` prints it)"
        );
        println!(
            "  docs/ARCHITECTURE.md             how it works; docs/SEMANTICS.md: what programs may rely on"
        );
        println!("  cargo lab bench local            how fast it is");
    }
}

fn rate(bytes: u64, time: Duration) -> String {
    human_bytes((bytes as f64 / time.as_secs_f64().max(0.001)) as u64)
}

fn shown(file: &Path) -> String {
    let root = paths::workspace();
    file.strip_prefix(&root).unwrap_or(file).display().to_string()
}
