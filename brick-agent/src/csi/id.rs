//! Ids of volumes (`NAMESPACE/NAME`), and the name of the volume for a claim.
//!
//! An id becomes a path below the folder of mounts, so nothing is taken for one but two DNS labels.

use crate::control::convert::VolumeKey;

/// The longest DNS label, and the longest name of a volume.
const LONGEST: usize = 63;
/// What is kept of a name that cannot stay as it is.
const KEPT: usize = 40;

/// The volume with this id; none if it is no id.
pub(crate) fn parse(id: &str) -> Option<VolumeKey> {
    let (namespace, volume) = id.split_once('/')?;
    (is_label(namespace) && is_label(volume))
        .then(|| VolumeKey { namespace: namespace.to_owned(), volume: volume.to_owned() })
}

/// The name of the object for what CSI calls `name`: the same for the same, and another for another. Names as csi-provisioner makes them
/// (`pvc-` and a UUID) stay as they are.
pub(crate) fn object_name(name: &str) -> String {
    if is_label(name) {
        return name.to_owned();
    }
    let mut kept: String = name
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(KEPT)
        .collect();
    if !kept.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        kept.insert(0, 'v');
    }
    let hash = blake3::hash(name.as_bytes()).to_hex();
    format!("{}-{}", kept.trim_end_matches('-'), &hash[..16])
}

/// Whether this is an RFC 1123 label.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= LONGEST
        && !text.is_empty()
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_id_is_none() {
        for id in [
            "", "/", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b.c", "A/b", "a/-b", "a/b\0", "a /b", "ä/b",
        ] {
            assert_eq!(parse(id), None, "{id:?}");
        }
        let key = parse("lab/pvc-1").unwrap();
        assert_eq!((key.namespace.as_str(), key.volume.as_str()), ("lab", "pvc-1"));
    }

    #[test]
    fn a_provisioners_name_stays() {
        let name = "pvc-0b1e5c3a-6f60-4c1d-9c1e-0123456789ab";
        assert_eq!(object_name(name), name);
    }

    proptest! {
        #[test]
        fn an_id_says_what_it_was_made_of(namespace in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", name in "\\PC{1,128}") {
            let key = VolumeKey { namespace, volume: object_name(&name) };
            prop_assert_eq!(parse(&key.to_string()), Some(key));
        }

        #[test]
        fn other_names_are_other_volumes(one in "[A-Z/_.-]{1,200}", other in "[A-Z/_.-]{1,200}") {
            prop_assert_eq!(one == other, object_name(&one) == object_name(&other));
        }

        #[test]
        fn what_is_taken_for_an_id_is_below_the_folder(id in "[a-z./A-Z0-9-]{0,40}") {
            if let Some(key) = parse(&id) {
                let at = key.below(std::path::Path::new("/volumes"));
                prop_assert_eq!(at.components().count(), 4);
                prop_assert!(at.components().all(|c| c != std::path::Component::ParentDir));
            }
        }
    }
}
