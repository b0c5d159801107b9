//! Names that every part agrees on: group, labels, field managers, and how objects are called.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who signs the certificates of agents: what they put into their requests.
pub const SIGNER: &str = "nearbrick.io/agent";
/// The ConfigMap with the certificates that agents trust, and the Secret with the key of the first of them.
pub const AGENT_CA: &str = "nearbrick-agent-ca";
/// Where in both of these certificates are.
pub const AGENT_CA_CERTIFICATE: &str = "ca.crt";

/// The API group.
pub const GROUP: &str = "nearbrick.io";
/// Its only version so far.
pub const VERSION: &str = "v1alpha1";

/// Label on `Brick` and `HealJob` objects: the volume's name.
pub const LABEL_VOLUME: &str = "nearbrick.io/volume";
/// Label on `Brick` objects: the node's name.
pub const LABEL_NODE: &str = "nearbrick.io/node";

/// On a `WorkstationVolume` with `deletionPolicy: Delete`: it stays until the bricks' directories are emptied.
pub const FINALIZER_BRICKS: &str = "nearbrick.io/bricks";
/// On `Brick` and `Workstation` objects: they stay until nothing has to be held there any more.
pub const FINALIZER_COPIES: &str = "nearbrick.io/copies";
/// On a `Brick` that is being deleted: the operator's word that its directory is to be emptied; its value is the brick's UUID.
pub const ANNOTATION_EMPTY: &str = "nearbrick.io/empty";

/// The operator's field manager for server-side apply.
pub const OPERATOR_MANAGER: &str = "nearbrick-operator";

/// The field manager of the brick-agent on `node`.
pub fn agent_manager(node: &str) -> String {
    format!("brick-agent-{node}")
}

/// The name of the `Brick` of `volume` on `node`. Volume names have no dot (the API server refuses
/// one), so that two volumes never share a brick name.
pub fn brick_name(volume: &str, node: &str) -> String {
    format!("{volume}.{node}")
}

/// A reference to an object of a known kind in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub struct LocalRef {
    /// The object's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

impl LocalRef {
    /// A reference to the object called `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// The present time, to the second: what the API keeps, so that a value read back equals the value
/// written.
pub fn now() -> Time {
    whole_second(Timestamp::now())
}

/// `at` as an API time, cut to the second.
pub fn whole_second(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// An API time from seconds since 1970; a time that no calendar has becomes the nearest one.
pub fn time_from_unix(seconds: i64) -> Time {
    let bounded = seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    Time(Timestamp::from_second(bounded).unwrap_or(Timestamp::UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_times_survive_a_round_trip() {
        let t = now();
        let json = serde_json::to_string(&t).unwrap();
        assert_eq!(serde_json::from_str::<Time>(&json).unwrap(), t);
    }

    #[test]
    fn any_number_of_seconds_is_a_time() {
        assert_eq!(time_from_unix(0).0, Timestamp::UNIX_EPOCH);
        assert_eq!(time_from_unix(i64::MAX).0.as_second(), Timestamp::MAX.as_second());
        assert_eq!(time_from_unix(i64::MIN).0.as_second(), Timestamp::MIN.as_second());
    }
}
