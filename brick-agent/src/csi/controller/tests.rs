//! What is listed, and what is said of a volume. What the API server makes of it is in `e2e/tests/csi`.

use proptest::prelude::*;

use super::*;

fn volume(name: &str, status: serde_json::Value) -> WorkstationVolume {
    serde_json::from_value(json!({
        "apiVersion": "nearbrick.io/v1alpha1", "kind": "WorkstationVolume",
        "metadata": { "namespace": "lab", "name": name },
        "spec": { "members": { "nodes": ["ws-a"] }, "capacity": "1Gi" },
        "status": status,
    }))
    .unwrap()
}

fn ready(status: &str, reason: &str, message: &str, health: &str) -> VolumeCondition {
    let condition = json!({
        "type": "Ready", "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    condition_of(&volume("home", json!({ "health": health, "conditions": [condition] })))
}

#[test]
fn a_volume_that_cannot_be_used_is_abnormal_and_one_that_heals_is_not() {
    for health in ["Protected", "Pending", "Healing", "Conflicted"] {
        assert!(!ready("True", "AllBricksReady", "", health).abnormal, "{health}");
    }
    let refused = ready("False", "BrickRefused", "ws-a: another brick", "Protected");
    assert!(refused.abnormal && refused.message == "ws-a: another brick");
    let silent = ready("Unknown", "AgentSilent", "", "Unknown");
    assert!(silent.abnormal && silent.message == "AgentSilent");
    assert!(ready("True", "AllBricksReady", "in use", "Degraded").message.contains("Degraded"));
    assert!(!condition_of(&volume("new", json!({}))).abnormal);
}

proptest! {
    /// Whatever comes and goes between two pages: what is there all the time is listed once, and nothing twice.
    #[test]
    fn pages_list_what_stays_once(
        before in proptest::collection::btree_set("[a-z]{1,2}", 0..20),
        after in proptest::collection::btree_set("[a-z]{1,2}", 0..20),
        most in 1usize..5,
    ) {
        let make = |names: &std::collections::BTreeSet<String>| -> Vec<_> { names.iter().map(|n| volume(n, json!({}))).collect() };
        let (before_all, after_all) = (make(&before), make(&after));
        let (mut seen, mut from, mut pages) = (vec![], Bound::Unbounded, 0);
        loop {
            let now = page(if pages == 0 { &before_all } else { &after_all }, from, most);
            prop_assert!(now.entries.len() <= most);
            seen.extend(now.entries.into_iter().filter_map(|e| e.volume).map(|v| v.volume_id));
            pages += 1;
            if now.next_token.is_empty() {
                break;
            }
            from = Bound::Excluded(id::parse(&now.next_token).unwrap());
        }
        let once: std::collections::BTreeSet<_> = seen.iter().cloned().collect();
        prop_assert_eq!(once.len(), seen.len());
        if pages > 1 {
            for name in before.intersection(&after) {
                prop_assert!(once.contains(&format!("lab/{name}")), "{} in {:?}", name, seen);
            }
        }
        let all = page(&after_all, Bound::Unbounded, 0);
        prop_assert!(all.entries.len() == after.len() && all.next_token.is_empty());
    }
}
