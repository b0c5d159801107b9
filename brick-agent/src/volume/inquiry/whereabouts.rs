//! Who holds which version of a file, as this brick knows it. Of its own copy it knows more than others do.

use nearbrick_core::pending::holds_newest;
use nearbrick_core::{BrickId, Kind, Object, Relation};
use nearbrick_crds::files::{BrickHolding, Holding, Refusal, Whereabouts};

use super::super::Volume;
use super::super::core::Core;
use super::super::scrub::Pass;
use super::{Told, checked, failed, time};
use crate::config::Member;
use crate::index::Local;
use crate::peer::Refused;

/// What a brick has of a file, by what all members know.
pub(super) fn holding(object: &Object, brick: BrickId, has_joined: bool) -> Holding {
    let held = object.holders.get(&brick).and_then(|reg| reg.value.as_ref());
    match held {
        _ if holds_newest(object, brick) && (held.is_some() || has_joined) => Holding::Newest,
        None if has_joined => Holding::Stub,
        None => Holding::Nothing,
        Some(held) if object.in_conflict() && object.current().any(|c| held.includes(&c.version)) => {
            Holding::Conflicting
        }
        Some(held) => match object.standing_of(held) {
            Some(Relation::Concurrent) => Holding::Conflicting,
            _ => Holding::Older,
        },
    }
}

impl Volume {
    pub(super) fn whereabouts(&self, path: &str) -> Told<Whereabouts> {
        let path = checked(path)?;
        let file = self.file_at(path.as_bytes()).map_err(failed("names cannot be read"))?;
        let none = || Refused(Refusal::NotFound, format!("there is no file {path:?} in the volume"));
        let file = file.filter(|_| !path.is_empty()).ok_or_else(none)?;
        let core = self.lock();
        Self::is_whole(&core)?;
        let read = |e| failed("the index cannot be read")(e);
        let (object, local) = (self.object_of(file).map_err(read)?, self.local_or_none(file).map_err(read)?);
        if !object.kind.as_ref().is_some_and(Kind::is_file) {
            return Err(Refused(Refusal::Bad, format!("{path} is no regular file: ask for one")));
        }
        let config = self.config();
        let mut bricks: Vec<_> = config
            .members
            .iter()
            .map(|member| match member.brick == self.me {
                true => self.own_holding(&core, &object, &local, member, file),
                false => shared_holding(self, &object, member, member.address.is_some()),
            })
            .collect();
        bricks.sort_by(|a, b| a.node.cmp(&b.node));
        Ok(Whereabouts {
            file: file.to_string(),
            size: object.size(),
            in_conflict: object.in_conflict(),
            bricks,
        })
    }

    fn own_holding(
        &self,
        core: &Core,
        object: &Object,
        local: &Local,
        member: &Member,
        file: nearbrick_core::FileId,
    ) -> BrickHolding {
        let scrub = self.scrub_of(file);
        let verified = scrub.last.filter(|pass| was_read(object, self.me, pass));
        let verified = verified.filter(|_| !scrub.faulty && local.have.is_some() && !local.dirty);
        let written = local.dirty || core.nodes.of(file).is_some_and(|n| n.writers > 0);
        let all = shared_holding(self, object, member, true);
        BrickHolding {
            being_written: all.being_written || written,
            damaged: scrub.faulty,
            verified_at: verified.and_then(|pass| pass.ended_ms).and_then(time),
            first_hand: true,
            ..all
        }
    }
}

/// Whether a pass that came to its end has found the copy right. One in which files were left out says nothing of any of them. What came to
/// be here while it went on was read then too, unless programs here wrote it: a brick says that it has a version after it has read it.
fn was_read(object: &Object, me: BrickId, pass: &Pass) -> bool {
    let Some(held) = object.holders.get(&me).filter(|reg| reg.value.is_some()) else { return false };
    let (since, written) = (held.stamp.millis(), object.contents.iter().any(|c| c.stamp == held.stamp));
    pass.left == 0 && (since < pass.began_ms || !written && pass.ended_ms.is_some_and(|ended| since <= ended))
}

fn shared_holding(volume: &Volume, object: &Object, member: &Member, has_joined: bool) -> BrickHolding {
    let held = object.holders.get(&member.brick).and_then(|reg| reg.value.as_ref());
    let content = held.and_then(|held| object.current().filter(|c| held.includes(&c.version)).last());
    BrickHolding {
        node: member.node.clone(),
        holds: holding(object, member.brick, has_joined),
        in_set: object.replica_set().contains(&member.brick),
        being_written: object.writing().any(|brick| brick == member.brick),
        size: content.map(|c| c.size),
        writer: content.map(|c| volume.node_of_brick(c.writer)),
        written_at: content.and_then(|c| time(c.stamp.millis())),
        ..BrickHolding::default()
    }
}
