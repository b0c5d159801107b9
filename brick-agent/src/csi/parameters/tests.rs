//! What claims ask for, and what is refused.

use nearbrick_crds::{DeletionPolicy, MigrationMode, StaleReads};
use proptest::prelude::*;

use super::*;

fn request(name: &str, parameters: &[(&str, &str)]) -> CreateVolumeRequest {
    let mut all: BTreeMap<String, String> =
        parameters.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    all.insert(CLAIM_NAMESPACE.to_owned(), "lab".to_owned());
    all.insert(CLAIM_NAME.to_owned(), "home".to_owned());
    CreateVolumeRequest { name: name.to_owned(), parameters: all, ..CreateVolumeRequest::default() }
}

fn sized(mut request: CreateVolumeRequest, required_bytes: i64, limit_bytes: i64) -> CreateVolumeRequest {
    request.capacity_range = Some(CapacityRange { required_bytes, limit_bytes });
    request
}

#[test]
fn a_claim_without_parameters_is_a_volume_on_every_workstation() {
    let wanted = wanted(&sized(request("pvc-1", &[]), 5 << 30, 0)).unwrap();
    let object = &wanted.object;
    assert_eq!((object.namespace().as_deref(), object.name_any().as_str()), (Some("lab"), "pvc-1"));
    assert_eq!(object.annotations()[CLAIM], "lab/home");
    assert_eq!(object.spec.replicas, 2);
    assert_eq!(object.spec.capacity.as_deref(), Some("5Gi"));
    assert!(object.spec.members.node_selector.is_some() && object.spec.members.nodes.is_none());
    assert_eq!(object.spec.deletion_policy, None);
    let shown = volume(object);
    assert_eq!((shown.volume_id.as_str(), shown.capacity_bytes), ("lab/pvc-1", 5 << 30));
    assert_eq!(shown.accessible_topology, vec![]);
}

#[test]
fn each_parameter_is_a_field() {
    let parameters = [
        ("namespace", "data"),
        ("nodes", "ws-a, ws-b"),
        ("replicas", "1"),
        ("healPolicy", "quiet"),
        ("conflicts", "Newest"),
        ("staleReads", "Fail"),
        ("replaceAfter", "72h"),
        ("versionRetention", "24h"),
        ("minSyncCopies", "1"),
        ("migration", "Automatic"),
        ("ignore", "*.tmp, target"),
        ("deletionPolicy", "Delete"),
    ];
    let object = wanted(&request("pvc-1", &parameters)).unwrap().object;
    assert_eq!(object.namespace().as_deref(), Some("data"));
    let spec = &object.spec;
    assert_eq!(spec.members.nodes, Some(vec!["ws-a".to_owned(), "ws-b".to_owned()]));
    assert_eq!((spec.replicas, spec.min_sync_copies), (1, Some(1)));
    assert_eq!(spec.heal_policy_ref.as_ref().unwrap().name, "quiet");
    assert_eq!(spec.conflicts.as_deref(), Some("Newest"));
    assert_eq!(spec.stale_reads, Some(StaleReads::Fail));
    assert_eq!(
        (spec.replace_after.as_deref(), spec.version_retention.as_deref()),
        (Some("72h"), Some("24h"))
    );
    assert_eq!(spec.migration.as_ref().unwrap().mode, MigrationMode::Automatic);
    assert_eq!(spec.ignore, ["*.tmp", "target"]);
    assert_eq!(spec.deletion_policy, Some(DeletionPolicy::Delete));
    // All that KNOWN names is tested, but for what excludes the nodes.
    let named: Vec<_> = list(KNOWN).into_iter().filter(|name| *name != "nodeSelector").collect();
    assert_eq!(named, parameters.map(|(name, _)| name));
}

#[test]
fn members_say_from_where_a_volume_can_be_used() {
    let by_labels = wanted(&request("pvc-1", &[("nodeSelector", "lab=one,disk=big")])).unwrap().object.spec;
    let segments = [("disk".to_owned(), "big".to_owned()), ("lab".to_owned(), "one".to_owned())].into();
    assert_eq!(topology(&by_labels), [Topology { segments }]);
    let by_names = wanted(&request("pvc-1", &[("nodes", "ws-a,ws-b")])).unwrap().object.spec;
    let place = |node: &str| Topology { segments: [(TOPOLOGY.to_owned(), node.to_owned())].into() };
    assert_eq!(topology(&by_names), [place("ws-a"), place("ws-b")]);
    assert!(is_reachable(&by_names, &[place("ws-c"), place("ws-b")]) && is_reachable(&by_names, &[]));
    assert!(!is_reachable(&by_names, &[place("ws-c")]));
    assert!(is_reachable(&by_labels, &[place("ws-c")]));
}

#[test]
fn what_is_wrong_is_said() {
    for (parameters, part) in [
        (
            &[("replica", "2")][..],
            "parameter replica: there is no such parameter; there are namespace, nodes",
        ),
        (&[("replicas", "two")], "parameter replicas: \"two\" is not a number"),
        (&[("nodeSelector", "lab")], "\"lab\" is not of the form label=value"),
        (&[("nodeSelector", "a=b"), ("nodes", "ws-a")], "exclude each other"),
        (&[("staleReads", "Maybe")], "unknown variant `Maybe`"),
        (&[("namespace", "../lab")], "not the name of a namespace"),
    ] {
        let error = wanted(&request("pvc-1", parameters)).unwrap_err();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
    let mut nowhere = request("pvc-1", &[]);
    nowhere.parameters.clear();
    assert!(wanted(&nowhere).unwrap_err().contains("--extra-create-metadata"));
    assert!(wanted(&sized(request("pvc-1", &[]), 2, 1)).unwrap_err().contains("no size is both"));
    assert!(wanted(&sized(request("pvc-1", &[]), -2, 0)).unwrap_err().contains("-2"));
}

#[test]
fn the_same_claim_is_told_from_another() {
    let first = wanted(&sized(request("pvc-1", &[("replicas", "1")]), 10, 10)).unwrap();
    let there = first.object.clone();
    assert_eq!(differs(&there, &first), None);
    let other = |request| differs(&there, &wanted(&request).unwrap()).unwrap();
    assert!(other(sized(request("pvc-1", &[("replicas", "2")]), 10, 10)).contains("other parameters"));
    assert!(other(sized(request("pvc-1", &[("replicas", "1")]), 20, 20)).contains("its capacity is 10"));
    let mut persons = there.clone();
    persons.metadata.annotations = None;
    assert!(differs(&persons, &first).unwrap().contains("not made for a claim"));
    assert!(made_with(&there, &request("x", &[("replicas", "1")]).parameters));
    assert!(!made_with(&there, &request("x", &[]).parameters));
}

#[test]
fn a_size_fits_what_is_asked_for() {
    let range = |required_bytes, limit_bytes| {
        Capacity::of(Some(CapacityRange { required_bytes, limit_bytes })).unwrap()
    };
    for (range, size, fits) in [
        (range(0, 0), None, true),
        (range(0, 0), Some(1), true),
        (range(10, 0), None, true),
        (range(10, 0), Some(9), false),
        (range(10, 20), Some(15), true),
        (range(10, 20), Some(21), false),
        (range(0, 20), None, false),
    ] {
        assert_eq!(range.fits(size), fits, "{range:?} {size:?}");
    }
    assert_eq!((range(10, 20).size(), range(0, 20).size(), range(0, 0).size()), (Some(10), Some(20), None));
}

proptest! {
    #[test]
    fn a_size_is_written_as_it_is_read(bytes in prop_oneof![any::<u64>(), (0u32..34, 0u64..1 << 20).prop_map(|(p, n)| n << p)]) {
        prop_assert_eq!(quantity::bytes(&shown(bytes)), Some(bytes));
    }

    #[test]
    fn what_is_made_is_found_again(name in "\\PC{1,64}", required in 0i64..i64::MAX, replicas in 1u32..16) {
        let asked = sized(request(&name, &[("replicas", &replicas.to_string())]), required, 0);
        let wanted = wanted(&asked).unwrap();
        prop_assert_eq!(differs(&wanted.object, &wanted), None);
        prop_assert_eq!(volume(&wanted.object).capacity_bytes, required);
        prop_assert_eq!(id::parse(&volume(&wanted.object).volume_id).map(|k| k.namespace), Some("lab".to_owned()));
    }

    #[test]
    fn no_parameters_end_in_a_panic(parameters in proptest::collection::btree_map("[a-zA-Z/.]{0,16}", "\\PC{0,16}", 0..6)) {
        let mut request = request("pvc-1", &[]);
        request.parameters.extend(parameters);
        let _ = wanted(&request);
    }
}
