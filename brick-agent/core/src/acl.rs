//! POSIX ACLs in the form of the kernel's `system.posix_acl_*` attributes, and
//! how they and a mode follow from each other.
//!
//! An object's access ACL and its mode say partly the same. The mode decides: the ACL's entries for
//! the owner, for the mask (or the owning group, where there is no mask) and for others are
//! what the mode says, so that `chmod` at one member and `setfacl` at another give one result everywhere.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::object::Object;
use crate::op::Kind;

/// The attribute with the access ACL.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute with a directory's default ACL: what is made in it inherits that.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// Whether the attribute is one of the two.
pub fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

/// The longest value: the kernel's FUSE does not take more.
pub const MAX_LEN: usize = 4096;

const VERSION: u32 = 2;
const NO_ID: u32 = u32::MAX;
const ENTRY: usize = 8;

/// Whom an entry is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Who {
    /// The owner.
    Owner,
    /// This user.
    User(u32),
    /// The owning group.
    OwningGroup,
    /// This group.
    Group(u32),
    /// The most that users and groups of the list, and the owning group, can have.
    Mask,
    /// Everyone else.
    Others,
}

impl Who {
    fn tag(self) -> (u16, u32) {
        match self {
            Who::Owner => (0x01, NO_ID),
            Who::User(id) => (0x02, id),
            Who::OwningGroup => (0x04, NO_ID),
            Who::Group(id) => (0x08, id),
            Who::Mask => (0x10, NO_ID),
            Who::Others => (0x20, NO_ID),
        }
    }
}

/// A list of who may do what; always one that the kernel takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acl(Vec<(Who, u32)>);

/// Why bytes are no ACL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAcl {
    /// Not the kernel's layout.
    #[error("an ACL has the wrong length or version")]
    Layout,
    /// An entry of no known kind, a permission that is none, a user or group that cannot be.
    #[error("an ACL has an entry that makes no sense")]
    Entry,
    /// Entries in the wrong order, twice, or missing.
    #[error("an ACL's entries are not complete and in order")]
    Order,
}

impl Acl {
    /// Reads an attribute's value.
    ///
    /// # Errors
    /// The kernel would not take it either.
    pub fn parse(bytes: &[u8]) -> Result<Acl, BadAcl> {
        let (head, rest) = bytes.split_first_chunk::<4>().ok_or(BadAcl::Layout)?;
        if bytes.len() > MAX_LEN || u32::from_le_bytes(*head) != VERSION || rest.len() % ENTRY != 0 {
            return Err(BadAcl::Layout);
        }
        let mut entries = Vec::with_capacity(rest.len() / ENTRY);
        for e in rest.chunks_exact(ENTRY) {
            let [t0, t1, p0, p1, i0, i1, i2, i3] = *e else { return Err(BadAcl::Layout) };
            let id = u32::from_le_bytes([i0, i1, i2, i3]);
            let who = match u16::from_le_bytes([t0, t1]) {
                0x01 => Who::Owner,
                0x02 if id != NO_ID => Who::User(id),
                0x04 => Who::OwningGroup,
                0x08 if id != NO_ID => Who::Group(id),
                0x10 => Who::Mask,
                0x20 => Who::Others,
                _ => return Err(BadAcl::Entry),
            };
            let perm = u32::from(u16::from_le_bytes([p0, p1]));
            if perm > 7 {
                return Err(BadAcl::Entry);
            }
            entries.push((who, perm));
        }
        let acl = Acl(entries);
        acl.in_order().then_some(acl).ok_or(BadAcl::Order)
    }

    /// Owner, users, owning group, groups, mask, others; the mask only if, and always if, someone is named.
    fn in_order(&self) -> bool {
        let mut rest = self.0.iter().map(|(who, _)| *who).peekable();
        let mut named = false;
        let mut fine = rest.next() == Some(Who::Owner);
        while rest.next_if(|w| matches!(w, Who::User(_))).is_some() {
            named = true;
        }
        fine &= rest.next() == Some(Who::OwningGroup);
        while rest.next_if(|w| matches!(w, Who::Group(_))).is_some() {
            named = true;
        }
        let mask = rest.next_if_eq(&Who::Mask).is_some();
        fine && (mask || !named) && rest.next() == Some(Who::Others) && rest.next().is_none()
    }

    /// The attribute's value.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for (who, perm) in &self.0 {
            let (tag, id) = who.tag();
            bytes.extend_from_slice(&tag.to_le_bytes());
            bytes.extend_from_slice(&u16::try_from(*perm).unwrap_or(0).to_le_bytes());
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        bytes
    }

    /// Whether it says no more than a mode does.
    pub fn is_minimal(&self) -> bool {
        self.0.len() == 3
    }

    /// The entries that are also in the mode, and where they are there: owner, group class, others.
    fn in_mode(&mut self) -> impl Iterator<Item = (u32, &mut u32)> {
        let has_mask = self.0.iter().any(|(who, _)| *who == Who::Mask);
        let group = if has_mask { Who::Mask } else { Who::OwningGroup };
        self.0.iter_mut().filter_map(move |(who, perm)| match who {
            Who::Owner => Some((6, perm)),
            Who::Others => Some((0, perm)),
            who if *who == group => Some((3, perm)),
            _ => None,
        })
    }

    /// As it is after `chmod` to this mode.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Acl {
        for (shift, perm) in self.in_mode() {
            *perm = (mode >> shift) & 7;
        }
        self
    }

    /// What something inherits that is made with this mode in a directory with this default ACL: its
    /// access ACL, unless its mode says all, and its mode. The umask plays no part.
    pub fn inherited(mut self, mode: u32) -> (Option<Acl>, u32) {
        let mut made = mode & !0o777;
        for (shift, perm) in self.in_mode() {
            *perm &= (mode >> shift) & 7;
            made |= *perm << shift;
        }
        ((!self.is_minimal()).then_some(self), made)
    }
}

impl Object {
    /// The extended attributes as they are to be on a disk; none for one that must not be there. The access ACL
    /// is what the mode says, and ACLs that this kind of object cannot have are left out.
    pub fn xattrs_wanted(&self) -> BTreeMap<&[u8], Option<Cow<'_, [u8]>>> {
        let mut all: BTreeMap<_, _> = self
            .xattrs
            .iter()
            .map(|(name, reg)| (name.as_slice(), reg.value.as_deref().map(Cow::Borrowed)))
            .collect();
        let possible: &[&[u8]] = match &self.kind {
            Some(Kind::Dir) => &[ACCESS, DEFAULT],
            Some(Kind::File | Kind::Special { .. }) => &[ACCESS],
            Some(Kind::Symlink(_)) | None => &[],
        };
        all.retain(|name, _| !is_acl(name) || possible.contains(name));
        // Also where there is none: what a disk let it inherit is to go.
        for name in possible {
            all.entry(name).or_insert(None);
        }
        let mode = self.attr.as_ref().map(|reg| reg.value.mode);
        if let (Some(slot @ Some(_)), Some(mode)) = (all.get_mut(ACCESS), mode) {
            let acl = slot.as_deref().and_then(|bytes| Acl::parse(bytes).ok());
            let acl = acl.map(|acl| acl.with_mode(mode)).filter(|acl| !acl.is_minimal());
            *slot = acl.map(|acl| Cow::Owned(acl.to_bytes()));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(named: &[(Who, u32)], owner: u32, group: u32, mask: Option<u32>, others: u32) -> Acl {
        let mut all = vec![(Who::Owner, owner)];
        all.extend(named.iter().filter(|(w, _)| matches!(w, Who::User(_))));
        all.push((Who::OwningGroup, group));
        all.extend(named.iter().filter(|(w, _)| matches!(w, Who::Group(_))));
        all.extend(mask.map(|perm| (Who::Mask, perm)));
        all.push((Who::Others, others));
        Acl(all)
    }

    fn any_acl() -> impl Strategy<Value = Acl> {
        let named = prop_oneof![(0u32..9).prop_map(Who::User), (0u32..9).prop_map(Who::Group)];
        (prop::collection::vec((named, 0u32..8), 0..5), 0u32..8, 0u32..8, prop::option::of(0u32..8), 0u32..8)
            .prop_map(|(named, owner, group, mask, others)| {
                let mask = if named.is_empty() { mask } else { mask.or(Some(7)) };
                list(&named, owner, group, mask, others)
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(acl in any_acl()) {
            prop_assert_eq!(Acl::parse(&acl.to_bytes()), Ok(acl));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(acl) = Acl::parse(&bytes) {
                let again = Acl::parse(&acl.to_bytes());
                prop_assert_eq!(again, Ok(acl));
            }
        }

        #[test]
        fn a_mode_set_twice_is_the_last_one_alone(acl in any_acl(), a in 0u32..0o1000, b in 0u32..0o1000) {
            prop_assert_eq!(acl.clone().with_mode(a).with_mode(b), acl.with_mode(b));
        }

        #[test]
        fn nothing_is_inherited_that_was_not_given(acl in any_acl(), mode in 0u32..0o10000) {
            let (made, perm) = acl.clone().inherited(mode);
            prop_assert_eq!(perm & !mode, 0);
            prop_assert_eq!(perm & !0o777, mode & !0o777);
            if let Some(made) = made {
                // The mode of what was made agrees with its ACL.
                prop_assert_eq!(made.clone().with_mode(perm), made);
            }
        }
    }

    #[test]
    fn a_mask_is_the_group_class_of_the_mode() {
        let acl = list(&[(Who::User(7), 7)], 7, 5, Some(7), 0).with_mode(0o640);
        assert_eq!(acl, list(&[(Who::User(7), 7)], 6, 5, Some(4), 0));
        // Without one it is the owning group.
        assert_eq!(list(&[], 7, 5, None, 0).with_mode(0o640), list(&[], 6, 4, None, 0));
    }

    #[test]
    fn inheriting() {
        // (default ACL, mode asked for, access ACL, mode)
        let user = [(Who::User(7), 7)];
        for (default, mode, access, made) in [
            (list(&[], 7, 5, None, 0), 0o666, None, 0o640),
            (list(&user, 7, 5, Some(7), 4), 0o666, Some(list(&user, 6, 5, Some(6), 4)), 0o664),
            (list(&user, 7, 0, Some(7), 0), 0o2755, Some(list(&user, 7, 0, Some(5), 0)), 0o2750),
            (list(&[], 7, 7, Some(7), 7), 0o600, Some(list(&[], 6, 7, Some(0), 0)), 0o600),
        ] {
            assert_eq!(default.inherited(mode), (access, made), "{mode:o}");
        }
    }

    #[test]
    fn mode_and_list_are_one_whatever_the_order() {
        use crate::op::{Attr, Entry, Op, Place};
        use crate::{BrickId, FileId, Incarnation};
        let acl = list(&[(Who::User(7), 7)], 7, 5, Some(7), 0);
        let entry = |origin, seq, time, op| Entry {
            origin: Incarnation(origin),
            seq,
            time,
            file: FileId([9; 16]),
            op,
        };
        let place = Place { parent: FileId::ROOT, name: b"f".to_vec() };
        let (kind, brick, replicas) = (Kind::File, BrickId([1; 16]), Vec::new());
        let attr = |mode| Attr { mode, ..Attr::default() };
        let entries = [
            entry(1, 1, 1, Op::Create { brick, kind, attr: attr(0o644), place, replicas }),
            entry(1, 2, 5, Op::SetXattr { name: ACCESS.to_vec(), value: Some(acl.to_bytes()) }),
            entry(1, 3, 6, Op::SetAttr(attr(0o770))),
            // Apart from that, a chmod.
            entry(2, 1, 9, Op::SetAttr(attr(0o640))),
            entry(2, 2, 9, Op::SetXattr { name: DEFAULT.to_vec(), value: Some(acl.to_bytes()) }),
        ];
        let wanted = list(&[(Who::User(7), 7)], 6, 5, Some(4), 0).to_bytes();
        for order in [[0, 1, 2, 3, 4], [3, 4, 0, 1, 2], [0, 3, 2, 4, 1]] {
            let mut object = Object::default();
            order.iter().for_each(|n| object.apply(&entries[*n]));
            let all = object.xattrs_wanted();
            // A file has no default ACL, whoever says so.
            assert_eq!(all, BTreeMap::from([(ACCESS, Some(Cow::Borrowed(&wanted[..])))]));
        }
    }

    #[test]
    fn what_the_kernel_refuses() {
        let good = list(&[(Who::User(7), 7)], 7, 5, Some(7), 4).to_bytes();
        assert!(Acl::parse(&good).is_ok());
        for (at, byte) in [(0, 1), (0, 3), (4, 3), (6, 8), (4, 0x20)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert!(Acl::parse(&bad).is_err(), "byte {at} is {byte}");
        }
        assert_eq!(Acl::parse(&good[..good.len() - 1]), Err(BadAcl::Layout));
        assert_eq!(Acl::parse(&good[..good.len() - ENTRY]), Err(BadAcl::Order));
        assert_eq!(Acl::parse(&[]), Err(BadAcl::Layout));
        assert_eq!(Acl::parse(&VERSION.to_le_bytes()), Err(BadAcl::Order));
        // Someone is named, and there is no mask.
        assert_eq!(Acl::parse(&list(&[(Who::Group(7), 7)], 7, 5, None, 4).to_bytes()), Err(BadAcl::Order));
    }
}
