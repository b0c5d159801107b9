//! Server-side apply of statuses, and of nothing that is already there.

use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::error::Error;

/// The part of a status that one field manager writes.
#[derive(Clone, Copy, Debug)]
pub struct Owned {
    /// The field manager.
    pub manager: &'static str,
    /// Fields of the status, other than conditions.
    pub fields: &'static [&'static str],
    /// Types of conditions.
    pub conditions: &'static [&'static str],
}

/// Applies `desired` to the status of `object`, unless what this manager owns is already there.
/// Returns whether something was written.
pub async fn apply_status<K, S>(api: &Api<K>, object: &K, desired: &S, owned: &Owned) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Serialize + DeserializeOwned,
    S: Serialize,
{
    let desired = serde_json::to_value(desired)?;
    let current = serde_json::to_value(object)?;
    if !differs(current.get("status").unwrap_or(&Value::Null), &desired, owned) {
        return Ok(false);
    }
    let name = object.name_any();
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name },
        "status": desired,
    });
    api.patch_status(&name, &PatchParams::apply(owned.manager).force(), &Patch::Apply(&body))
        .await
        .map_err(Error::api(format!("write the status of {} {name}", K::kind(&()))))?;
    Ok(true)
}

/// Whether `desired` says something else than `current` in what is owned. A field that is owned and not
/// desired must be absent.
pub fn differs(current: &Value, desired: &Value, owned: &Owned) -> bool {
    let empty = Map::new();
    let (current, desired) = (current.as_object().unwrap_or(&empty), desired.as_object().unwrap_or(&empty));
    if owned.fields.iter().any(|f| current.get(*f) != desired.get(*f)) {
        return true;
    }
    let condition = |status: &Map<String, Value>, type_: &str| {
        let list = status.get("conditions").and_then(Value::as_array);
        list.and_then(|l| l.iter().find(|c| c["type"] == type_).cloned())
    };
    owned.conditions.iter().any(|t| condition(current, t) != condition(desired, t))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNED: Owned = Owned { manager: "m", fields: &["phase", "files"], conditions: &["Ready"] };

    #[test]
    fn only_what_is_owned_counts() {
        let current = json!({
            "phase": "Ready", "files": 3, "others": 1,
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "status": "True"}],
        });
        let same =
            json!({ "phase": "Ready", "files": 3, "conditions": [{"type": "Ready", "status": "True"}] });
        assert!(!differs(&current, &same, &OWNED));
        for other in [
            json!({ "phase": "Pending", "files": 3, "conditions": [{"type": "Ready", "status": "True"}] }),
            json!({ "phase": "Ready", "conditions": [{"type": "Ready", "status": "True"}] }),
            json!({ "phase": "Ready", "files": 3, "conditions": [{"type": "Ready", "status": "False"}] }),
            json!({ "phase": "Ready", "files": 3 }),
        ] {
            assert!(differs(&current, &other, &OWNED), "{other}");
        }
        assert!(differs(&Value::Null, &same, &OWNED));
        assert!(!differs(&Value::Null, &json!({}), &OWNED));
    }
}
