//! What the operator makes of a workstation's agent: the one reading of `Workstation` that all
//! controllers share.

use jiff::Timestamp;
use nearbrick_crds::{Workstation, WorkstationState, condition};

/// An agent, as the controllers see it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// Whether it reports at present.
    pub online: bool,
    /// Since when it has been silent, by the operator's clock; only if it has ever been judged.
    pub silent_since: Option<Timestamp>,
    /// Whether a person said that the workstation will not return.
    pub lost: bool,
    /// Its last heartbeat, by its own clock.
    pub last_seen: Option<Timestamp>,
}

impl Agent {
    /// From the `Workstation`; without one nothing is known.
    pub fn of(workstation: Option<&Workstation>) -> Self {
        let Some(ws) = workstation else { return Self::default() };
        let status = ws.status.clone().unwrap_or_default();
        let last_seen = status.last_seen.map(|t| t.0);
        let online = !ws.spec.lost
            && match status.state {
                Some(WorkstationState::Online) => true,
                Some(WorkstationState::Away | WorkstationState::Lost) => false,
                // Not judged yet: a report is a report.
                None => last_seen.is_some(),
            };
        // The operator turned Ready to Unknown when the agent fell silent.
        let since = condition::find(&status.conditions, condition::READY)
            .filter(|c| c.status == "Unknown")
            .map(|c| c.last_transition_time.0);
        let silent_since = if online { None } else { since.or(last_seen) };
        Self { online, silent_since, lost: ws.spec.lost, last_seen }
    }
}
