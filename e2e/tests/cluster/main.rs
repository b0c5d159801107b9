//! Nearbrick on a cluster that is there, whoever made it: with KUBECONFIG and the chart installed, `cargo lab test --cluster`. Nothing but the
//! API and pods is used.

mod site;

use std::process::ExitCode;
use std::time::Duration;

use nearbrick_crds::condition::{PROTECTED, SAFE_TO_LEAVE};
use nearbrick_e2e::error::Context;
use nearbrick_e2e::kube_api::eventually;
use nearbrick_e2e::{Result, fail, testing};

use self::site::Site;

const LIMIT: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    testing::run_on_cluster(vec![
        ("what_is_written_heals_and_is_read_everywhere", || block_on(heals_and_is_read())),
        ("may_leave_is_no_before_the_heal_and_yes_after_it", || block_on(may_leave())),
    ])
}

fn block_on(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.context("cannot start a runtime")?.block_on(work)
}

/// Runs a test with a volume of its own, which goes at the end, however that comes.
async fn with_site(interval: &str, test: impl AsyncFnOnce(&Site) -> Result<()>) -> Result<()> {
    let site = Site::new(interval).await?;
    let result = match site.ready().await {
        Ok(()) => test(&site).await,
        Err(error) => Err(error),
    };
    let gone = site.remove().await;
    result.and(gone)
}

async fn heals_and_is_read() -> Result<()> {
    with_site("5s", async |site| {
        let [a, b, others @ ..] = &site.nodes[..] else { fail!("two workstations are needed") };
        let script = "mkdir -p work/small && for i in $(seq 50); do head -c $((i * 37)) /dev/urandom > work/small/$i; done && \
                      head -c 5000000 /dev/urandom > work/large && sync";
        site.sh(a, &format!("cd /volume && {script}"))?;
        let sums = |node: &str, dir: &str| {
            site.sh(node, &format!("cd {dir} && find ./work -type f | sort | xargs sha256sum"))
        };
        let written = sums(a, "/volume")?;
        if written.lines().count() != 51 {
            fail!("51 files were written on {a}, and it shows {written}");
        }
        eventually("the copies on the other's disk", LIMIT, || async {
            let there = sums(b, "/brick/data").unwrap_or_default();
            if there == written { Ok(()) } else { Err(format!("{} of 51 files", there.lines().count())) }
        })
        .await?;
        site.volume.wait_true(&[PROTECTED], LIMIT).await?;
        // Those without a copy read it all the same.
        for node in others.iter().chain([b]) {
            eventually(&format!("all files on {node}"), LIMIT, || async {
                let there = sums(node, "/volume").unwrap_or_default();
                if there == written { Ok(()) } else { Err(format!("{} files", there.lines().count())) }
            })
            .await?;
        }
        Ok(())
    })
    .await
}

async fn may_leave() -> Result<()> {
    with_site("10m", async |site| {
        let [a, b, ..] = &site.nodes[..] else { fail!("two workstations are needed") };
        site.sh(a, "head -c 100000 /dev/urandom > /volume/last")?;
        let said = site.plugin(&["leave", a])?;
        if said.status.success() {
            fail!("a file that was just written is only on {a}, and the answer is yes");
        }
        let said = site.plugin(&["flush", "tree", "--wait", "--timeout", "2m"])?;
        if !said.status.success() {
            fail!("flush: {}", String::from_utf8_lossy(&said.stderr));
        }
        let (here, there) =
            (site.sh(a, "sha256sum < /volume/last")?, site.sh(b, "sha256sum < /brick/data/last")?);
        if here != there {
            fail!("flush says that all is copied, and {b} has {there}");
        }
        site.wait_workstation(a, SAFE_TO_LEAVE, LIMIT).await
    })
    .await
}
