//! Whether an agent gets the certificate that it asks for: only for the node in its token, which the API server itself put into what it
//! knows of the user.

use std::collections::BTreeMap;

/// Where the API server says on which node the pod runs to which a token is bound.
pub const NODE_CLAIM: &str = "authentication.kubernetes.io/node-name";

/// What is to be in a certificate, as its request says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// DNS names.
    pub dns: Vec<String>,
    /// Other names: addresses, URIs, mail.
    pub others: usize,
}

/// What follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A certificate for this node.
    Sign(String),
    /// None: a reason in one word, and a line.
    Deny(&'static str, String),
}

/// Judges a request of `user`, of whom the API server knows `extra`. `asked` is none where the request cannot be read, or is not signed
/// by the key that it names. `agents` is the user that all agents are.
pub fn judge(
    agents: &str,
    user: &str,
    extra: &BTreeMap<String, Vec<String>>,
    asked: Result<&Asked, String>,
) -> Verdict {
    if user != agents {
        return Verdict::Deny("NotAnAgent", format!("{user} is no agent: certificates are for {agents}"));
    }
    let node = match extra.get(NODE_CLAIM).map(Vec::as_slice) {
        // What ends so is a Service to the API server: the operator's own certificate has such a name.
        Some([node]) if node.ends_with(".svc") => {
            return Verdict::Deny(
                "ServiceName",
                format!("node {node} is called like a Service: give it another name"),
            );
        }
        Some([node]) if !node.is_empty() => node,
        _ => {
            let line = "the token is bound to no pod, so that it names no node".to_owned();
            return Verdict::Deny("NoNode", line);
        }
    };
    let asked = match asked {
        Ok(asked) => asked,
        Err(why) => return Verdict::Deny("Unreadable", format!("the request cannot be used: {why}")),
    };
    match asked.dns.as_slice() {
        [name] if name == node && asked.others == 0 => Verdict::Sign(node.clone()),
        names => {
            let names = if names.is_empty() { "no name".to_owned() } else { names.join(", ") };
            let line = format!("the agent of node {node} asks for a certificate of {names}");
            Verdict::Deny("OtherNode", line)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const AGENTS: &str = "system:serviceaccount:s:agent";

    fn claims(nodes: &[&str]) -> BTreeMap<String, Vec<String>> {
        BTreeMap::from([(NODE_CLAIM.to_owned(), nodes.iter().map(|&n| n.to_owned()).collect())])
    }

    fn asked(dns: &[&str], others: usize) -> Asked {
        Asked { dns: dns.iter().map(|&n| n.to_owned()).collect(), others }
    }

    #[test]
    fn s07_only_the_node_in_the_token_gets_a_certificate() {
        let of = |user, nodes: &[&str], asked: &Asked| match judge(AGENTS, user, &claims(nodes), Ok(asked)) {
            Verdict::Sign(node) => node,
            Verdict::Deny(reason, _) => reason.to_owned(),
        };
        assert_eq!(of(AGENTS, &["a"], &asked(&["a"], 0)), "a");
        for (user, nodes, dns, others, reason) in [
            ("system:admin", &["a"][..], &["a"][..], 0, "NotAnAgent"),
            (AGENTS, &["files.lab.svc"], &["files.lab.svc"], 0, "ServiceName"),
            (AGENTS, &[], &["a"], 0, "NoNode"),
            (AGENTS, &[""], &[""], 0, "NoNode"),
            (AGENTS, &["a", "b"], &["a"], 0, "NoNode"),
            (AGENTS, &["a"], &["b"], 0, "OtherNode"),
            (AGENTS, &["a"], &[], 0, "OtherNode"),
            (AGENTS, &["a"], &["a", "b"], 0, "OtherNode"),
            (AGENTS, &["a"], &["a"], 1, "OtherNode"),
        ] {
            assert_eq!(of(user, nodes, &asked(dns, others)), reason, "{user} {nodes:?} {dns:?}");
        }
        let none = judge(AGENTS, AGENTS, &claims(&["a"]), Err("it is no PEM".to_owned()));
        assert!(matches!(none, Verdict::Deny("Unreadable", line) if line.contains("no PEM")));
        assert!(matches!(
            judge(AGENTS, AGENTS, &BTreeMap::new(), Ok(&asked(&["a"], 0))),
            Verdict::Deny("NoNode", _)
        ));
    }

    proptest! {
        #[test]
        fn what_is_signed_is_the_node_of_the_token(
            user in "[ab]", nodes in prop::collection::vec("[ab]?", 0..3), dns in prop::collection::vec("[ab]?", 0..3), others in 0..2usize,
        ) {
            let extra = BTreeMap::from([(NODE_CLAIM.to_owned(), nodes.clone())]);
            if let Verdict::Sign(node) = judge("a", &user, &extra, Ok(&Asked { dns: dns.clone(), others })) {
                prop_assert_eq!((user.as_str(), nodes, dns, others), ("a", vec![node.clone()], vec![node], 0));
            }
        }
    }
}
