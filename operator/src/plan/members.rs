//! Which nodes are members of a volume, and what is wrong with the list.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kube::core::{Selector, SelectorExt};
use nearbrick_crds::WorkstationVolumeSpec;

/// A cluster node, as far as membership and placement ask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// What a spec asks for and this cluster cannot give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Nodes that are named and do not exist.
    UnknownNodes(Vec<String>),
    /// Fewer members than replicas.
    TooFewMembers {
        /// How many there are.
        found: usize,
        /// How many copies are asked for.
        replicas: u32,
        /// Whether a label selector chose them.
        by_selector: bool,
    },
    /// A label selector that no program can evaluate.
    BadSelector(String),
    /// A glob that cannot be parsed.
    BadGlob {
        /// Where it is.
        field: &'static str,
        /// The glob.
        glob: String,
        /// What is wrong with it.
        error: String,
    },
    /// A replica set names nodes that the label selector does not select.
    ReplicaSetOutside(Vec<String>),
}

impl Problem {
    /// One word for the condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::UnknownNodes(_) => "UnknownNode",
            Self::TooFewMembers { .. } => "TooFewMembers",
            Self::BadSelector(_) => "InvalidSelector",
            Self::BadGlob { .. } => "InvalidGlob",
            Self::ReplicaSetOutside(_) => "ReplicaSetOutsideMembers",
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownNodes(nodes) => write!(
                f,
                "members.nodes names {}, which this cluster does not have: correct the name or add the node",
                nodes.join(", ")
            ),
            Self::TooFewMembers { found, replicas, by_selector: true } => write!(
                f,
                "members.nodeSelector selects {} but replicas is {replicas}: label more nodes or lower replicas",
                count_nodes(*found)
            ),
            Self::TooFewMembers { found, replicas, by_selector: false } => write!(
                f,
                "only {} of members.nodes can be used but replicas is {replicas}: add nodes or lower replicas",
                count_nodes(*found)
            ),
            Self::BadSelector(error) => {
                write!(f, "members.nodeSelector cannot be evaluated: {error}: correct it")
            }
            Self::BadGlob { field, glob, error } => {
                write!(f, "the glob {glob:?} in {field} cannot be parsed: {error}: correct it")
            }
            Self::ReplicaSetOutside(nodes) => write!(
                f,
                "replicaSets names {}, which members.nodeSelector does not select: label the node or take it out of replicaSets",
                nodes.join(", ")
            ),
        }
    }
}

fn count_nodes(n: usize) -> String {
    if n == 1 { "1 node".to_string() } else { format!("{n} nodes") }
}

/// The members of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// Their names; each gets a brick.
    pub nodes: BTreeSet<String>,
    /// What a person must correct.
    pub problems: Vec<Problem>,
}

/// Who is a member. A named node that left the cluster and has a brick stays a member (its data may be
/// all that there is), and is reported all the same.
pub fn resolve(
    spec: &WorkstationVolumeSpec,
    nodes: &BTreeMap<String, NodeInfo>,
    with_brick: &BTreeSet<String>,
) -> Resolved {
    let mut out = Resolved::default();
    let mut by_selector = false;
    if let Some(named) = &spec.members.nodes {
        let unknown: Vec<String> = named.iter().filter(|n| !nodes.contains_key(*n)).cloned().collect();
        out.nodes =
            named.iter().filter(|n| nodes.contains_key(*n) || with_brick.contains(*n)).cloned().collect();
        if !unknown.is_empty() {
            out.problems.push(Problem::UnknownNodes(unknown));
        }
    } else if let Some(selector) = &spec.members.node_selector {
        by_selector = true;
        match Selector::try_from(selector.clone()) {
            Ok(selector) => {
                out.nodes = nodes
                    .iter()
                    .filter(|(_, info)| selector.matches(&info.labels))
                    .map(|(name, _)| name.clone())
                    .collect();
            }
            Err(error) => out.problems.push(Problem::BadSelector(error.to_string())),
        }
        let outside: BTreeSet<String> = spec
            .replica_sets
            .iter()
            .flat_map(|s| &s.nodes)
            .filter(|n| !out.nodes.contains(*n))
            .cloned()
            .collect();
        if !outside.is_empty() {
            out.problems.push(Problem::ReplicaSetOutside(outside.into_iter().collect()));
        }
    }
    let found = out.nodes.len();
    if (found as u64) < u64::from(spec.replicas) {
        out.problems.push(Problem::TooFewMembers { found, replicas: spec.replicas, by_selector });
    }
    let of_sets = spec.replica_sets.iter().flat_map(|s| &s.paths).map(|glob| ("replicaSets", glob));
    let of_rules = spec.conflict_rules.iter().flat_map(|r| &r.paths).map(|glob| ("conflictRules", glob));
    for (field, glob) in of_sets.chain(of_rules) {
        if let Err(error) = nearbrick_crds::paths::glob(glob) {
            let (glob, error) = (glob.clone(), error.kind().to_string());
            out.problems.push(Problem::BadGlob { field, glob, error });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use nearbrick_crds::{LabelSelector, Members, ReplicaSet};

    fn cluster(names: &[&str]) -> BTreeMap<String, NodeInfo> {
        names
            .iter()
            .map(|n| {
                let labels = BTreeMap::from([("name".to_string(), (*n).to_string())]);
                ((*n).to_string(), NodeInfo { labels })
            })
            .collect()
    }

    fn named(nodes: &[&str], replicas: u32) -> WorkstationVolumeSpec {
        let nodes = Some(nodes.iter().map(|n| (*n).to_string()).collect());
        spec(Members { nodes, node_selector: None }, replicas)
    }

    fn spec(members: Members, replicas: u32) -> WorkstationVolumeSpec {
        let mut spec: WorkstationVolumeSpec = serde_json::from_str(r#"{"members":{}}"#).unwrap();
        spec.members = members;
        spec.replicas = replicas;
        spec
    }

    fn names(r: &Resolved) -> Vec<&str> {
        r.nodes.iter().map(String::as_str).collect()
    }

    #[test]
    fn an_unknown_node_is_named_and_the_others_are_members() {
        let r = resolve(&named(&["ws-a", "ws-x", "ws-b"], 2), &cluster(&["ws-a", "ws-b"]), &BTreeSet::new());
        assert_eq!(names(&r), ["ws-a", "ws-b"]);
        assert_eq!(r.problems, [Problem::UnknownNodes(vec!["ws-x".into()])]);
        assert_eq!(
            r.problems[0].to_string(),
            "members.nodes names ws-x, which this cluster does not have: correct the name or add the node"
        );
    }

    #[test]
    fn a_node_that_left_with_a_brick_stays_a_member_and_is_named() {
        let with_brick = BTreeSet::from(["ws-b".to_string()]);
        let r = resolve(&named(&["ws-a", "ws-b"], 2), &cluster(&["ws-a"]), &with_brick);
        assert_eq!(names(&r), ["ws-a", "ws-b"]);
        assert_eq!(r.problems, [Problem::UnknownNodes(vec!["ws-b".into()])]);
    }

    #[test]
    fn a_selector_that_finds_too_few_says_how_many() {
        let selector = LabelSelector {
            match_labels: Some(BTreeMap::from([("name".into(), "ws-a".into())])),
            ..LabelSelector::default()
        };
        let members = Members { nodes: None, node_selector: Some(selector) };
        let r = resolve(&spec(members, 2), &cluster(&["ws-a", "ws-b"]), &BTreeSet::new());
        assert_eq!(names(&r), ["ws-a"]);
        assert_eq!(
            r.problems[0].to_string(),
            "members.nodeSelector selects 1 node but replicas is 2: label more nodes or lower replicas"
        );
    }

    #[test]
    fn an_empty_selector_selects_all() {
        let members = Members { nodes: None, node_selector: Some(LabelSelector::default()) };
        let r = resolve(&spec(members, 2), &cluster(&["ws-a", "ws-b"]), &BTreeSet::new());
        assert_eq!(names(&r), ["ws-a", "ws-b"]);
        assert_eq!(r.problems, []);
    }

    #[test]
    fn a_bad_glob_is_named() {
        let mut s = named(&["ws-a", "ws-b"], 2);
        s.replica_sets =
            vec![ReplicaSet { nodes: vec!["ws-a".into(), "ws-b".into()], paths: vec!["a[".into()] }];
        let r = resolve(&s, &cluster(&["ws-a", "ws-b"]), &BTreeSet::new());
        assert_eq!(r.problems.len(), 1);
        assert_eq!(r.problems[0].reason(), "InvalidGlob");
    }
}
