//! The real agent program, without an API server: it takes the configuration that is kept on the disk.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use nearbrick_agent::config::{Member, StaleReads, VolumeConfig};
use nearbrick_agent::holder;
use nearbrick_core::BrickId;
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

use super::disk::{TestDir, mounts_below};
use super::{LIMIT, wait, wait_for};

/// A workstation with one brick, its agent, and its holder. All of it ends with this.
pub struct Machine {
    pub dir: TestDir,
    config: VolumeConfig,
    tls: PathBuf,
    args: Vec<String>,
    agent: Option<Child>,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Machine {
    /// The agent is not started yet. `tls`: a folder with a certificate for `ws-a`.
    pub fn new(tls: PathBuf, args: &[&str]) -> Self {
        let dir = TestDir::new();
        let brick = dir.path().join("brick");
        Machine::on(dir, brick, tls, args)
    }

    /// The same, with the brick at this path.
    pub fn on(dir: TestDir, path: PathBuf, tls: PathBuf, args: &[&str]) -> Self {
        let brick = BrickId([1; 16]);
        let node = "ws-a".to_owned();
        let member = Member { brick, name: "home.ws-a".to_owned(), node: node.clone(), address: None };
        let config = VolumeConfig {
            namespace: "lab".to_owned(),
            name: "home".to_owned(),
            volume_uuid: Uuid::from_u128(5),
            node,
            brick,
            path,
            was_initialised: false,
            members: vec![member],
            placement: Vec::new(),
            stale_reads: StaleReads::Allow,
            conflicts: Vec::new(),
            retention_ms: nearbrick_agent::config::RETENTION_MS,
            healing: Default::default(),
            min_sync_copies: 1,
            release_removals: None,
            take_back_removals: None,
            upkeep: Default::default(),
        };
        let kept = dir.dir("bricks/.elsewhere/lab").join("home.json");
        fs::write(kept, serde_json::to_vec(&config).unwrap()).unwrap();
        let kubeconfig = "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  \
                          cluster: { server: 'http://127.0.0.1:9' }\ncontexts:\n- name: c\n  \
                          context: { cluster: c, user: u }\nusers:\n- name: u\n  user: {}\n";
        fs::write(dir.path().join("kubeconfig"), kubeconfig).unwrap();
        let mut all: Vec<_> = args.iter().map(|a| (*a).to_owned()).collect();
        for flag in ["--listen", "--metrics"] {
            all.extend([flag.to_owned(), format!("127.0.0.1:{}", free_port())]);
        }
        Machine { dir, config, tls, args: all, agent: None }
    }

    /// The brick's index says that it was open on a machine that has lost its power since.
    pub fn lose_power(&self) {
        let index = nearbrick_agent::index::Index::open(&self.config.path.join(".nearbrick/index")).unwrap();
        let mut batch = index.batch();
        batch.meta("state", b"the machine's last boot");
        batch.commit().unwrap();
        index.persist().unwrap();
    }

    /// Where the volume is mounted.
    pub fn at(&self) -> PathBuf {
        self.dir.path().join("volumes/lab/home")
    }

    /// The plain files.
    pub fn data(&self) -> PathBuf {
        self.config.path.join("data")
    }

    /// What is in the brick's folder for what is under way.
    pub fn staging(&self) -> Vec<String> {
        let entries = fs::read_dir(self.config.path.join(".nearbrick/staging")).unwrap();
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.path().join("run")
    }

    /// Starts the agent; it may not be ready yet.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    pub fn start_with(&mut self, extra: &[&str]) {
        assert!(self.agent.is_none());
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let dir = self.dir.path();
        let agent = Command::new(env!("CARGO_BIN_EXE_brick-agent"))
            .args(["run", "--node", "ws-a", "--kubeconfig"])
            .arg(dir.join("kubeconfig"))
            .arg("--bricks-dir")
            .arg(dir.join("bricks"))
            .arg("--mounts-dir")
            .arg(dir.join("volumes"))
            .arg("--tls-dir")
            .arg(&self.tls)
            .arg("--run-dir")
            .arg(self.run_dir())
            .args(&self.args)
            .args(extra)
            .env("RUST_LOG", "info,kube=off,kube_client=off,lsm_tree=warn,fjall=warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.agent = Some(agent);
    }

    /// Waits until the volume is mounted.
    pub fn wait_mounted(&mut self) {
        let at = self.at();
        wait("the volume is mounted", || {
            let ended = self.agent.as_mut().expect("started").try_wait().unwrap();
            assert!(ended.is_none(), "the agent ended: {}", self.log());
            // The mount is there a moment before the holder has it.
            mounts_below(self.dir.path()).contains(&at) && self.log().contains("mounted volume=")
        });
    }

    /// Whether its agents are started with this.
    pub fn has_arg(&self, arg: &str) -> bool {
        self.args.iter().any(|a| a == arg)
    }

    /// How many agents have gone on with a mount so far.
    pub fn takeovers(&self) -> usize {
        self.log().matches("goes on with the mount").count()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut agent = self.agent.take().expect("started");
        agent.kill().unwrap();
        agent.wait().unwrap();
    }

    /// SIGTERM; waits until it has ended.
    pub fn terminate(&mut self) {
        let mut agent = self.agent.take().expect("started");
        kill_process(Pid::from_child(&agent), Signal::TERM).unwrap();
        wait("the agent ends", || agent.try_wait().unwrap().is_some());
    }

    /// The holder's pid, if one runs.
    pub fn holder(&self) -> Option<i32> {
        let text = fs::read_to_string(holder::pid_file(&self.run_dir())).ok()?;
        let pid: i32 = text.trim().parse().ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = self.run_dir().to_string_lossy().into_owned();
        String::from_utf8_lossy(&line).split('\0').any(|arg| arg == ours).then_some(pid)
    }

    pub fn kill_holder(&self) {
        let pid = wait_for("the holder's pid", || self.holder());
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        wait("the holder ends", || self.holder().is_none());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- the agent's log\n{}", self.log());
        }
        if let Some(mut agent) = self.agent.take() {
            let _ = kill_process(Pid::from_child(&agent), Signal::TERM);
            let limit = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !matches!(agent.try_wait(), Ok(Some(_))) && std::time::Instant::now() < limit {
                std::thread::park_timeout(std::time::Duration::from_millis(5));
            }
            let _ = agent.kill();
            let _ = agent.wait();
        }
        // One that was left a mount: whoever waits for it is let go with it.
        if let Some(pid) = self.holder() {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}

/// Does what may wait for the agent, within the limit.
pub fn within<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, is_done) = channel();
    let thread = std::thread::spawn(move || {
        let _ = done.send(work());
    });
    match is_done.recv_timeout(LIMIT) {
        Ok(value) => value,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("not within {LIMIT:?}: {what}"),
        Err(_) => std::panic::resume_unwind(thread.join().expect_err("it panicked")),
    }
}
