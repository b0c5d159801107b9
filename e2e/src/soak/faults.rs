//! What goes wrong during a round, and how it is put right.

use std::time::{Duration, Instant};

use rand::RngExt;

use super::Soak;
use crate::control_plane::Binaries;
use crate::error::Result;
use crate::scene::NODES;

/// What was broken and will be whole again.
enum Broken {
    Network(&'static str),
    Agent(&'static str),
    Power(&'static str),
    Operator,
    ApiServer,
}

impl Soak {
    /// Breaks something now and then until the time is over; then all is whole again.
    pub(super) async fn make_trouble(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        let mut broken: Vec<(Instant, Broken)> = Vec::new();
        while Instant::now() < end {
            self.wait_seconds(1, 6).await;
            let now = Instant::now();
            while let Some(at) = broken.iter().position(|(until, _)| *until <= now) {
                let (_, what) = broken.swap_remove(at);
                self.mend(&what).await?;
            }
            // One network, agent or machine at a time for each workstation; all three may be in trouble at once.
            let node = NODES[self.random.random_range(0..NODES.len())];
            let is_in_trouble = broken.iter().any(|(_, b)| b.node() == Some(node));
            let what = match self.random.random_range(0..12) {
                0..4 if !is_in_trouble => Broken::Network(node),
                4..7 if !is_in_trouble => Broken::Agent(node),
                7..10 if !is_in_trouble => Broken::Power(node),
                10 if !broken.iter().any(|(_, b)| matches!(b, Broken::Operator)) => Broken::Operator,
                11 if !broken.iter().any(|(_, b)| matches!(b, Broken::ApiServer)) => Broken::ApiServer,
                _ => continue,
            };
            self.breaks(&what)?;
            let seconds = self.random.random_range(0..20);
            broken.push((Instant::now() + Duration::from_secs(seconds), what));
        }
        for (_, what) in broken {
            self.mend(&what).await?;
        }
        Ok(())
    }

    async fn wait_seconds(&mut self, least: u64, most: u64) {
        let millis = self.random.random_range(least * 1000..most * 1000);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }

    fn breaks(&mut self, what: &Broken) -> Result<()> {
        let name = match what {
            Broken::Network(node) => {
                self.lab.set_link(node, false)?;
                "networks cut"
            }
            Broken::Agent(node) => {
                if let Some(agent) = self.lab.workstation(node)?.agent().running() {
                    agent.kill()?;
                }
                "agents killed"
            }
            Broken::Power(node) => {
                let lose = self.random.random_bool(0.7);
                self.lab.workstation(node)?.power_off(lose)?;
                if lose { "machines that lost unwritten bytes" } else { "machines switched off" }
            }
            Broken::Operator => {
                self.lab.cluster().stop_operator()?;
                "operators stopped"
            }
            Broken::ApiServer => {
                self.lab.cluster().stop_apiserver()?;
                "API servers stopped"
            }
        };
        *self.faults.entry(name).or_default() += 1;
        Ok(())
    }

    async fn mend(&mut self, what: &Broken) -> Result<()> {
        match what {
            Broken::Network(node) => self.lab.set_link(node, true),
            Broken::Agent(node) => self
                .lab
                .workstation(node)?
                .start_agent(&self.lab.record().programs.agent, &self.agent_options()),
            Broken::Power(node) => {
                let workstation = self.lab.workstation(node)?;
                workstation.power_on()?;
                workstation.start_agent(&self.lab.record().programs.agent, &self.agent_options())?;
                self.sit_down(&workstation)
            }
            Broken::Operator => self.lab.cluster().start_operator(&self.lab.record().programs.operator),
            Broken::ApiServer => {
                self.lab.cluster().start_apiserver(&Binaries::ensure()?, self.lab.record())?;
                self.lab.cluster().wait_ready().await
            }
        }
    }

    fn agent_options(&self) -> Vec<String> {
        if self.options.no_passthrough { vec!["--no-passthrough".to_owned()] } else { Vec::new() }
    }
}

impl Broken {
    fn node(&self) -> Option<&'static str> {
        match self {
            Self::Network(node) | Self::Agent(node) | Self::Power(node) => Some(node),
            Self::Operator | Self::ApiServer => None,
        }
    }
}
