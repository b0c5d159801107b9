//! From API objects to a [`VolumeConfig`]: pure, and careful with every value,
//! because what it says is used as a path, an address or an identity.

use std::path::{Component, Path, PathBuf};

use nearbrick_core::BrickId;
use nearbrick_core::conflict::Policy;
use nearbrick_core::resolution::{Choice, Order, Word};
use nearbrick_crds as crds;
use nearbrick_crds::{Brick, FileConflict, HealPolicy, HealPolicySpec, WorkstationVolume};
use uuid::Uuid;

use crate::config::{
    Adopt, ConflictRule, End, Former, Healing, Member, PlacementRule, RETENTION_MS, StaleReads, Upkeep,
    VolumeConfig,
};

/// Why there is no configuration from these objects. For the brick's status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadObject {
    /// A field has no usable value.
    #[error("{field} of Brick {brick} is {value:?}: {wanted}")]
    Field {
        /// The brick's name.
        brick: String,
        /// The field.
        field: &'static str,
        /// Its value, cut short.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// The volume is gone, or is another one of the same name.
    #[error(
        "WorkstationVolume {name} has UID {found}, but Brick {brick} was made for {wanted}; the operator will replace the Brick"
    )]
    OtherVolume {
        /// The volume's name.
        name: String,
        /// Its UID.
        found: String,
        /// The brick's name.
        brick: String,
        /// What the brick wants.
        wanted: String,
    },
}

/// Where a brick is, by its namespace and volume name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeKey {
    /// Namespace.
    pub namespace: String,
    /// Name of the volume.
    pub volume: String,
}

impl VolumeKey {
    /// Of this configuration.
    pub fn of(config: &VolumeConfig) -> Self {
        VolumeKey { namespace: config.namespace.clone(), volume: config.name.clone() }
    }

    /// Of the volume of this brick.
    pub fn of_brick(brick: &Brick) -> Self {
        VolumeKey {
            namespace: brick.metadata.namespace.clone().unwrap_or_default(),
            volume: brick.spec.volume_ref.name.clone(),
        }
    }

    /// Below `dir`, in a folder of the namespace.
    pub fn below(&self, dir: &Path) -> PathBuf {
        dir.join(&self.namespace).join(&self.volume)
    }
}

impl std::fmt::Display for VolumeKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.volume)
    }
}

/// Whether `name` can be one folder: what the API server admits as a name can, but it is not trusted.
fn is_folder(name: &str) -> bool {
    !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0'])
}

fn cut(value: &str) -> String {
    value.chars().take(80).collect()
}

/// A person's word that removals, which are held back, are right; its value names them.
pub const RELEASE_REMOVALS: &str = "nearbrick.io/release-removals";
/// And that they are wrong.
pub const TAKE_BACK_REMOVALS: &str = "nearbrick.io/take-back-removals";

/// A person's word that the brick with this incarnation is to say all that it has again.
pub const SAY_AGAIN: &str = "nearbrick.io/say-again";

/// Bricks that were members once, at most: of each somebody deleted the `Brick`.
const MAX_FORMER: usize = 4096;

/// A person's word, at a Brick, that a directory which has files becomes that brick.
pub const ADOPT: &str = "nearbrick.io/adopt";

/// Whether the directory of a brick may be adopted. Of several that are to be adopted and were never in use, one is the
/// first: the others ask it what it has.
fn adopt_of(own: &Brick, volume: Uuid, all: &[impl AsRef<Brick>]) -> Adopt {
    let asked = |b: &Brick| {
        b.metadata.annotations.as_ref().and_then(|a| a.get(ADOPT)).is_some_and(|value| value == "yes")
    };
    if !asked(own) {
        return Adopt::No;
    }
    let in_use = |b: &Brick| b.status.as_ref().is_some_and(|s| s.incarnation.is_some());
    let goes_first = |b: &Brick| in_use(b) || asked(b) && b.metadata.name < own.metadata.name;
    let mut others = all.iter().map(AsRef::as_ref).filter(|b| {
        b.spec.volume_ref == own.spec.volume_ref
            && b.spec.volume_uuid.parse() == Ok(volume)
            && b.metadata.name != own.metadata.name
    });
    if others.any(goes_first) { Adopt::Yes } else { Adopt::First }
}

fn annotation(volume: &WorkstationVolume, name: &str) -> Option<String> {
    volume.metadata.annotations.as_ref()?.get(name).map(|value| cut(value))
}

/// Which brick is where on this workstation.
struct Place {
    volume_uuid: Uuid,
    brick: BrickId,
    path: PathBuf,
}

fn place_of(own: &Brick, bricks_dir: &Path) -> Result<Place, BadObject> {
    let field = |field, value: &str, wanted| BadObject::Field {
        brick: own.metadata.name.clone().unwrap_or_default(),
        field,
        value: cut(value),
        wanted,
    };
    let key = VolumeKey::of_brick(own);
    if !is_folder(&key.namespace) {
        return Err(field("metadata.namespace", &key.namespace, "it cannot be the name of a folder"));
    }
    if !is_folder(&key.volume) {
        return Err(field("spec.volumeRef.name", &key.volume, "it cannot be the name of a folder"));
    }
    let volume_uuid: Uuid = own
        .spec
        .volume_uuid
        .parse()
        .map_err(|_| field("spec.volumeUuid", &own.spec.volume_uuid, "it must be a UUID"))?;
    let brick: BrickId =
        own.spec.uuid.parse().map_err(|_| field("spec.uuid", &own.spec.uuid, "it must be a UUID"))?;
    let path = match &own.spec.path {
        None => key.below(bricks_dir),
        Some(path) => {
            let wanted = "it must be absolute, without '..'";
            let path = Path::new(path);
            if !path.is_absolute() || path.components().any(|c| c == Component::ParentDir) {
                return Err(field("spec.path", &path.to_string_lossy(), wanted));
            }
            path.to_owned()
        }
    };
    Ok(Place { volume_uuid, brick, path })
}

/// The word that the files of this brick are to be deleted, if the operator says so at an object that is being deleted. `volume` is the
/// object of its volume, if there is one.
///
/// # Errors
/// One clear line for the brick's status.
pub fn end_of(
    own: &Brick,
    volume: Option<&WorkstationVolume>,
    bricks_dir: &Path,
) -> Result<Option<End>, BadObject> {
    let word = own.metadata.annotations.as_ref().and_then(|a| a.get(crds::meta::ANNOTATION_EMPTY));
    if own.metadata.deletion_timestamp.is_none() || word != Some(&own.spec.uuid) {
        return Ok(None);
    }
    let Place { volume_uuid, brick, path } = place_of(own, bricks_dir)?;
    let lives = volume.is_some_and(|v| {
        v.metadata.deletion_timestamp.is_none()
            && v.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()) == Some(volume_uuid)
    });
    Ok(Some(End { volume_uuid, brick, path, volume_lives: lives }))
}

/// What the agent of `own.spec.node` needs to know of the volume.
///
/// `members` are the bricks of the volume that are known, of any volume UID; `previous`
/// is the last configuration: its placement stays while the present one
/// names bricks that are not known yet.
///
/// # Errors
/// One clear line for the brick's status.
pub fn volume_config(
    own: &Brick,
    volume: &WorkstationVolume,
    members: &[impl AsRef<Brick>],
    bricks_dir: &Path,
    previous: Option<&VolumeConfig>,
) -> Result<VolumeConfig, BadObject> {
    let own_name = own.metadata.name.clone().unwrap_or_default();
    let key = VolumeKey::of_brick(own);
    let Place { volume_uuid, brick, path } = place_of(own, bricks_dir)?;
    let found = volume.metadata.uid.as_deref().unwrap_or_default();
    if found.parse() != Ok(volume_uuid) {
        return Err(BadObject::OtherVolume {
            name: key.volume,
            found: cut(found),
            brick: own_name,
            wanted: volume_uuid.to_string(),
        });
    }
    let bricks = members;
    let members = members_of(own, brick, volume_uuid, members);
    let former = former(previous, &members);
    let (placement, rules) = match placement(volume, &members) {
        Some(placement) => (placement, rules_name(volume)),
        None => previous.map(|p| (p.placement.clone(), p.upkeep.rules.clone())).unwrap_or_default(),
    };
    Ok(VolumeConfig {
        namespace: key.namespace,
        name: key.volume,
        volume_uuid,
        node: own.spec.node.clone(),
        brick,
        path,
        was_initialised: own.status.as_ref().is_some_and(|s| s.incarnation.is_some())
            || previous.is_some_and(|p| p.was_initialised && p.brick == brick),
        conflicts: conflicts(volume, &members),
        retention_ms: volume.spec.version_retention.as_deref().and_then(milliseconds).unwrap_or(RETENTION_MS),
        members,
        placement,
        stale_reads: match volume.spec.stale_reads.unwrap_or_default() {
            crds::StaleReads::Allow => StaleReads::Allow,
            crds::StaleReads::Warn => StaleReads::Warn,
            crds::StaleReads::Fail => StaleReads::Fail,
        },
        min_sync_copies: volume.spec.min_sync_copies.unwrap_or(1),
        healing: previous.map(|p| p.healing.clone()).unwrap_or_default(),
        release_removals: annotation(volume, RELEASE_REMOVALS),
        take_back_removals: annotation(volume, TAKE_BACK_REMOVALS),
        upkeep: Upkeep {
            say_again: annotation(volume, SAY_AGAIN),
            orders: previous.map(|p| p.upkeep.orders.clone()).unwrap_or_default(),
            rules,
            former,
            adopt: adopt_of(own, volume_uuid, bricks),
            related: volume.spec.migration.as_ref().and_then(|m| m.related).unwrap_or_default(),
        },
    })
}

/// How the volume is healed where no job comes, once its namespace's policies are known.
pub fn healing(volume: &WorkstationVolume, policies: &[impl AsRef<HealPolicy>]) -> Healing {
    let policy = match &volume.spec.heal_policy_ref {
        None => Some(HealPolicySpec::default()),
        Some(wanted) => policies
            .iter()
            .map(AsRef::as_ref)
            .find(|p| p.metadata.name.as_deref() == Some(&wanted.name))
            .map(|p| p.spec.clone()),
    };
    let anchor = volume.metadata.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second());
    Healing { policy, anchor }
}

/// What persons chose in the volume's conflicts, sorted by the file. An object that names no file, no choice, or a brick that is
/// not known, orders nothing: the operator says why.
pub fn orders(conflicts: &[impl AsRef<FileConflict>], config: &VolumeConfig) -> Vec<Order> {
    let order = |conflict: &FileConflict| {
        let word = Word {
            made: u64::try_from(conflict.made()?).ok()?,
            generation: u64::try_from(conflict.metadata.generation?).ok()?,
        };
        let choice = match conflict.spec.resolution.as_deref()?.parse().ok()? {
            crds::ConflictPolicy::KeepBoth => Choice::KeepBoth,
            crds::ConflictPolicy::Newest => Choice::Newest,
            crds::ConflictPolicy::Largest => Choice::Largest,
            crds::ConflictPolicy::Brick(name) => {
                Choice::Brick(config.members.iter().find(|m| m.name == name || m.node == name)?.brick)
            }
            crds::ConflictPolicy::Manual => return None,
        };
        Some(Order { file: conflict.file()?.parse().ok()?, word, choice })
    };
    let of_volume = |conflict: &&FileConflict| {
        conflict.spec.volume_ref.name == config.name && conflict.metadata.deletion_timestamp.is_none()
    };
    let mut orders: Vec<Order> =
        conflicts.iter().map(AsRef::as_ref).filter(of_volume).filter_map(order).collect();
    orders.sort_by_key(|order| (order.file, order.word));
    orders
}

/// The bricks of the volume, sorted; this one is always among them. A brick
/// whose identity cannot be read is none.
fn members_of(own: &Brick, brick: BrickId, volume: Uuid, all: &[impl AsRef<Brick>]) -> Vec<Member> {
    let same_volume =
        |b: &&Brick| b.spec.volume_ref == own.spec.volume_ref && b.spec.volume_uuid.parse() == Ok(volume);
    let member = |b: &Brick| {
        Some(Member {
            brick: b.spec.uuid.parse().ok()?,
            name: b.metadata.name.clone()?,
            node: b.spec.node.clone(),
            address: b.status.as_ref().and_then(|s| s.address.clone()),
        })
    };
    let others = all.iter().map(AsRef::as_ref).filter(same_volume).filter_map(member);
    let mut members: Vec<Member> = others.filter(|m| m.brick != brick && m.node != own.spec.node).collect();
    members.extend(member(own));
    members.sort_by(|a, b| a.name.cmp(&b.name));
    members.dedup_by(|a, b| a.brick == b.brick);
    members
}

/// Bricks that were members once, and of which there is no `Brick` any more. Files may still name them.
fn former(previous: Option<&VolumeConfig>, members: &[Member]) -> Vec<Former> {
    let Some(previous) = previous else { return Vec::new() };
    let gone = previous.members.iter().map(|m| Former { brick: m.brick, node: m.node.clone() });
    let mut all: Vec<Former> = previous.upkeep.former.iter().cloned().chain(gone).collect();
    all.retain(|f| !members.iter().any(|m| m.brick == f.brick));
    all.sort_by_key(|f| f.brick);
    all.dedup_by_key(|f| f.brick);
    all.truncate(MAX_FORMER);
    all
}

/// The name of the rules, by which the operator knows them again in a report.
fn rules_name(volume: &WorkstationVolume) -> Option<String> {
    let rules = volume.status.as_ref().map(|s| s.placement.as_slice()).unwrap_or_default();
    (!rules.is_empty()).then(|| crds::placement_name(rules))
}

/// None while it names bricks that are not known.
fn placement(volume: &WorkstationVolume, members: &[Member]) -> Option<Vec<PlacementRule>> {
    let id = |name: &String| members.iter().find(|m| m.name == *name).map(|m| m.brick);
    let pair = |pair: &crds::StandIn| Some((id(&pair.full)?, id(&pair.brick)?));
    let rules = volume.status.as_ref().map(|s| s.placement.as_slice()).unwrap_or_default();
    rules
        .iter()
        .map(|rule| {
            Some(PlacementRule {
                creator: rule.creator.clone(),
                paths: rule.paths.clone(),
                bricks: rule.bricks.iter().map(id).collect::<Option<_>>()?,
                migration: rule.migration.clone(),
                joining: rule.joining,
                stand_ins: rule.stand_ins.iter().map(pair).collect::<Option<_>>()?,
            })
        })
        .collect()
}

/// A duration such as `168h`.
fn milliseconds(text: &str) -> Option<u64> {
    let duration: std::time::Duration = text.parse::<kube::core::Duration>().ok()?.into();
    u64::try_from(duration.as_millis()).ok()
}

/// The rules for conflicts, that for all other paths last. A brick that is not known wins nothing: both are kept.
fn conflicts(volume: &WorkstationVolume, members: &[Member]) -> Vec<ConflictRule> {
    let policy = |text: &String| match text.parse() {
        Ok(crds::ConflictPolicy::KeepBoth) | Err(_) => Policy::KeepBoth,
        Ok(crds::ConflictPolicy::Newest) => Policy::Newest,
        Ok(crds::ConflictPolicy::Largest) => Policy::Largest,
        Ok(crds::ConflictPolicy::Manual) => Policy::Manual,
        Ok(crds::ConflictPolicy::Brick(name)) => members
            .iter()
            .find(|m| m.name == name || m.node == name)
            .map_or(Policy::KeepBoth, |m| Policy::Brick(m.brick)),
    };
    let rules = volume.spec.conflict_rules.iter();
    rules
        .map(|rule| ConflictRule { paths: rule.paths.clone(), policy: policy(&rule.policy) })
        .chain(
            volume.spec.conflicts.iter().map(|all| ConflictRule { paths: Vec::new(), policy: policy(all) }),
        )
        .collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use kube::api::ObjectMeta;
    use nearbrick_crds::{BrickSpec, BrickStatus, LocalRef, WorkstationVolumeSpec, WorkstationVolumeStatus};

    const UID: &str = "11111111-1111-1111-1111-111111111111";

    pub(crate) fn brick(node: &str, n: u8) -> Brick {
        Brick {
            metadata: ObjectMeta {
                name: Some(format!("home.{node}")),
                namespace: Some("lab".to_owned()),
                ..Default::default()
            },
            spec: BrickSpec {
                volume_ref: LocalRef::new("home"),
                volume_uuid: UID.to_owned(),
                node: node.to_owned(),
                path: None,
                uuid: BrickId([n; 16]).to_string(),
            },
            status: Some(BrickStatus { address: Some(format!("10.0.0.{n}:7443")), ..Default::default() }),
        }
    }

    fn volume(rules: &[(&str, &[&str])]) -> WorkstationVolume {
        let spec: WorkstationVolumeSpec = serde_json::from_value(
            serde_json::json!({"members": {"nodes": ["ws-a", "ws-b"]}, "staleReads": "Fail", "minSyncCopies": 2}),
        )
        .unwrap();
        let mut volume = WorkstationVolume::new("home", spec);
        volume.metadata.namespace = Some("lab".to_owned());
        volume.metadata.uid = Some(UID.to_owned());
        let placement = rules
            .iter()
            .map(|(creator, bricks)| crds::volume::PlacementRule {
                creator: (*creator).to_owned(),
                paths: vec!["src/**".to_owned()],
                bricks: bricks.iter().map(|b| (*b).to_owned()).collect(),
                ..Default::default()
            })
            .collect();
        volume.status = Some(WorkstationVolumeStatus { placement, ..Default::default() });
        volume
    }

    fn convert(
        own: &Brick,
        rules: &[(&str, &[&str])],
        others: Vec<Brick>,
    ) -> Result<VolumeConfig, BadObject> {
        let others: Vec<Arc<Brick>> = others.into_iter().map(Arc::new).collect();
        volume_config(own, &volume(rules), &others, Path::new("/bricks"), None)
    }

    #[test]
    fn what_the_agent_needs_of_a_volume() {
        let rules: &[(&str, &[&str])] = &[("ws-a", &["home.ws-a", "home.ws-b"])];
        let config = convert(&brick("ws-a", 1), rules, vec![brick("ws-b", 2), brick("ws-a", 1)]).unwrap();
        assert_eq!(config.path, Path::new("/bricks/lab/home"));
        assert_eq!(config.volume_uuid.to_string(), UID);
        assert_eq!((config.stale_reads, config.min_sync_copies), (StaleReads::Fail, 2));
        assert!(!config.was_initialised);
        let who: Vec<_> =
            config.members.iter().map(|m| (m.name.as_str(), m.node.as_str(), m.brick)).collect();
        assert_eq!(who, [("home.ws-a", "ws-a", BrickId([1; 16])), ("home.ws-b", "ws-b", BrickId([2; 16]))]);
        assert_eq!(config.members[1].address.as_deref(), Some("10.0.0.2:7443"));
        assert_eq!(config.placement[0].bricks, [BrickId([1; 16]), BrickId([2; 16])]);
        assert_eq!(config.placement[0].paths, ["src/**"]);
    }

    #[test]
    fn rules_for_conflicts_name_bricks_or_workstations() {
        let mut volume = volume(&[]);
        volume.spec.conflicts = Some("Newest".to_owned());
        volume.spec.version_retention = Some("36h".to_owned());
        volume.spec.conflict_rules =
            [("a/**", "Brick/ws-b"), ("b/**", "Brick/home.ws-a"), ("c", "Brick/ws-z"), ("d", "Manual")]
                .map(|(path, policy)| crds::ConflictRule {
                    paths: vec![path.to_owned()],
                    policy: policy.to_owned(),
                })
                .to_vec();
        let both = [Arc::new(brick("ws-b", 2))];
        let config = volume_config(&brick("ws-a", 1), &volume, &both, Path::new("/b"), None).unwrap();
        assert_eq!(config.retention_ms, 36 * 3600 * 1000);
        let rules: Vec<_> = config.conflicts.iter().map(|r| (r.paths.concat(), r.policy)).collect();
        let named = |n| Policy::Brick(BrickId([n; 16]));
        let wanted = [
            ("a/**", named(2)),
            ("b/**", named(1)),
            ("c", Policy::KeepBoth),
            ("d", Policy::Manual),
            ("", Policy::Newest),
        ];
        assert_eq!(rules, wanted.map(|(path, policy)| (path.to_owned(), policy)));
    }

    #[test]
    fn s07_what_is_chosen_counts_for_the_volume_and_the_file_that_the_object_names() {
        const FILE: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
        let both = vec![brick("ws-b", 2)];
        let config = convert(&brick("ws-a", 1), &[], both).unwrap();
        let conflict = |name: &str, volume: &str, resolution: Option<&str>| {
            let spec = crds::FileConflictSpec {
                volume_ref: LocalRef::new(volume),
                path: "a".to_owned(),
                resolution: resolution.map(str::to_owned),
            };
            let mut object = FileConflict::new(name, spec);
            object.metadata.creation_timestamp = Some(nearbrick_crds::meta::time_from_unix(50));
            object.metadata.generation = Some(3);
            object
        };
        let of = |object: FileConflict| orders(&[Arc::new(object)], &config);
        let name = format!("home.{FILE}");
        let word = Word { made: 50, generation: 3 };
        for (text, choice) in [
            ("KeepBoth", Choice::KeepBoth),
            ("Newest", Choice::Newest),
            ("Largest", Choice::Largest),
            ("Brick/ws-b", Choice::Brick(BrickId([2; 16]))),
            ("Brick/home.ws-a", Choice::Brick(BrickId([1; 16]))),
        ] {
            let wanted = Order { file: FILE.parse().unwrap(), word, choice };
            assert_eq!(of(conflict(&name, "home", Some(text))), [wanted]);
        }
        for (name, volume, resolution) in [
            (name.as_str(), "home", None),
            (&name, "home", Some("Manual")),
            (&name, "home", Some("Brick/ws-z")),
            (&name, "other", Some("Newest")),
            ("home.x", "home", Some("Newest")),
            (&format!("other.{FILE}"), "home", Some("Newest")),
        ] {
            assert_eq!(of(conflict(name, volume, resolution)), [], "{name} {volume} {resolution:?}");
        }
        let mut going = conflict(&name, "home", Some("Newest"));
        going.metadata.deletion_timestamp = Some(nearbrick_crds::meta::time_from_unix(60));
        assert_eq!(of(going), []);
    }

    #[test]
    fn this_brick_is_a_member_even_before_the_list_has_it() {
        assert_eq!(convert(&brick("ws-a", 1), &[], vec![]).unwrap().members.len(), 1);
    }

    #[test]
    fn bricks_of_another_volume_and_with_no_identity_are_no_members() {
        let mut other = brick("ws-b", 2);
        other.spec.volume_uuid = "22222222-2222-2222-2222-222222222222".to_owned();
        let mut nameless = brick("ws-c", 3);
        nameless.spec.uuid = "../../etc".to_owned();
        // One that claims this brick's UUID, or this brick's node, takes nothing over.
        let twin = brick("ws-d", 1);
        let usurper = brick("ws-a", 9);
        let config = convert(&brick("ws-a", 1), &[], vec![other, nameless, twin, usurper]).unwrap();
        assert_eq!(config.members.len(), 1);
        assert_eq!(config.members[0].node, "ws-a");
    }

    #[test]
    fn a_directory_is_adopted_only_where_a_person_says_so_and_one_brick_is_the_first() {
        let word = |mut b: Brick, value: &str| {
            b.metadata.annotations = Some([(ADOPT.to_owned(), value.to_owned())].into());
            b
        };
        let adopt = |own: &Brick, others: Vec<Brick>| convert(own, &[], others).unwrap().upkeep.adopt;
        let [a, b] = [word(brick("ws-a", 1), "yes"), word(brick("ws-b", 2), "yes")];
        assert_eq!(adopt(&brick("ws-a", 1), vec![]), Adopt::No);
        assert_eq!(adopt(&word(brick("ws-a", 1), "no"), vec![]), Adopt::No);
        assert_eq!(adopt(&a, vec![a.clone(), brick("ws-b", 2)]), Adopt::First);
        assert_eq!((adopt(&a, vec![b.clone()]), adopt(&b, vec![a.clone()])), (Adopt::First, Adopt::Yes));
        let mut used = brick("ws-c", 3);
        used.status.as_mut().unwrap().incarnation = Some("0123".to_owned());
        assert_eq!(adopt(&a, vec![used]), Adopt::Yes);
    }

    #[test]
    fn placement_waits_for_bricks_that_are_not_known() {
        let own = brick("ws-a", 1);
        let both = [Arc::new(brick("ws-b", 2))];
        let rules: &[(&str, &[&str])] = &[("ws-a", &["home.ws-a", "home.ws-b"])];
        let dir = Path::new("/bricks");
        let before = volume_config(&own, &volume(rules), &both, dir, None).unwrap();
        let more: &[(&str, &[&str])] = &[("ws-a", &["home.ws-a", "home.ws-z"])];
        let kept = volume_config(&own, &volume(more), &both, dir, Some(&before)).unwrap();
        assert_eq!(kept.placement, before.placement);
        let first = volume_config(&own, &volume(more), &both, dir, None).unwrap();
        assert_eq!(first.placement, []);
    }

    #[test]
    fn a_brick_that_was_a_member_stays_known_and_rules_have_a_name() {
        let own = brick("ws-a", 1);
        let both = [Arc::new(brick("ws-b", 2))];
        let rules: &[(&str, &[&str])] = &[("ws-a", &["home.ws-a", "home.ws-b"])];
        let dir = Path::new("/bricks");
        let before = volume_config(&own, &volume(rules), &both, dir, None).unwrap();
        let name = before.upkeep.rules.clone().unwrap();
        assert_eq!(before.upkeep.former, []);
        // Its `Brick` was deleted, and made again with another identity.
        let again = [Arc::new(brick("ws-b", 3))];
        let after = volume_config(&own, &volume(rules), &again, dir, Some(&before)).unwrap();
        let gone = Former { brick: BrickId([2; 16]), node: "ws-b".to_owned() };
        assert_eq!(after.upkeep.former, std::slice::from_ref(&gone));
        assert_eq!(after.upkeep.rules.as_ref(), Some(&name));
        let later = volume_config(&own, &volume(rules), &again, dir, Some(&after)).unwrap();
        assert_eq!(later.upkeep.former, [gone]);
        let other: &[(&str, &[&str])] = &[("ws-a", &["home.ws-a"])];
        let other = volume_config(&own, &volume(other), &again, dir, Some(&later)).unwrap();
        assert_ne!(other.upkeep.rules, Some(name));
        assert_eq!(volume_config(&own, &volume(&[]), &again, dir, None).unwrap().upkeep.rules, None);
    }

    #[test]
    fn the_policy_is_the_one_that_the_volume_names_and_stays_when_nothing_is_known() {
        let mut v = volume(&[]);
        v.metadata.creation_timestamp = Some(nearbrick_crds::meta::time_from_unix(77));
        let spec = HealPolicySpec { interval: Some("1h".to_owned()), ..HealPolicySpec::default() };
        let policies = [Arc::new(HealPolicy::new("hourly", spec.clone()))];
        let default = Healing { policy: Some(HealPolicySpec::default()), anchor: 77 };
        assert_eq!(healing(&v, &policies), default, "every ten minutes without a policy");
        v.spec.heal_policy_ref = Some(LocalRef::new("hourly"));
        let known = healing(&v, &policies);
        assert_eq!(known, Healing { policy: Some(spec), anchor: 77 });
        v.spec.heal_policy_ref = Some(LocalRef::new("none"));
        assert_eq!(healing(&v, &policies).policy, None);
        let none: &[Arc<Brick>] = &[];
        let own = brick("ws-a", 1);
        let before = VolumeConfig { healing: known.clone(), ..convert(&own, &[], vec![]).unwrap() };
        let later = volume_config(&own, &v, none, Path::new("/bricks"), Some(&before)).unwrap();
        assert_eq!(later.healing, known);
    }

    #[test]
    fn t24_a_brick_that_reported_an_incarnation_was_in_use() {
        let mut own = brick("ws-a", 1);
        own.status.as_mut().unwrap().incarnation = Some("0123".to_owned());
        let config = convert(&own, &[], vec![]).unwrap();
        assert!(config.was_initialised);
        // It stays so when the status is lost.
        let later = volume_config(
            &brick("ws-a", 1),
            &volume(&[]),
            &[] as &[Arc<Brick>],
            Path::new("/b"),
            Some(&config),
        )
        .unwrap();
        assert!(later.was_initialised);
    }

    #[test]
    fn bad_values_are_one_clear_line() {
        let check = |change: fn(&mut Brick), text: &str| {
            let mut own = brick("ws-a", 1);
            change(&mut own);
            let error = convert(&own, &[], vec![]).unwrap_err().to_string();
            assert!(error.contains(text) && !error.contains('\n'), "{error}");
        };
        check(|b| b.spec.path = Some("bricks/x".to_owned()), "spec.path of Brick home.ws-a is \"bricks/x\"");
        check(|b| b.spec.path = Some("/bricks/../etc".to_owned()), "without '..'");
        check(|b| b.spec.uuid = "x".to_owned(), "spec.uuid");
        check(|b| b.spec.volume_uuid = "x".to_owned(), "spec.volumeUuid");
        check(|b| b.spec.volume_ref.name = "../..".to_owned(), "spec.volumeRef.name");
        check(|b| b.metadata.namespace = Some("a/b".to_owned()), "metadata.namespace");
        check(
            |b| b.spec.volume_uuid = "22222222-2222-2222-2222-222222222222".to_owned(),
            "WorkstationVolume home has UID 11111111",
        );
    }

    #[test]
    fn a_path_of_its_own_is_taken() {
        let mut own = brick("ws-a", 1);
        own.spec.path = Some("/data/home".to_owned());
        assert_eq!(convert(&own, &[], vec![]).unwrap().path, Path::new("/data/home"));
    }
}
