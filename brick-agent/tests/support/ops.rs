//! Random operations on a tree of few names, so that they meet.

use proptest::prelude::*;

use super::fs::Name;

/// One operation, as a program makes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Opens, makes it first if it is not there, and keeps it open in the slot.
    Open {
        path: Vec<Name>,
        slot: usize,
        mode: u32,
        truncate: bool,
        exclusive: bool,
        create: bool,
    },
    /// Writes to what is open in the slot.
    Write {
        slot: usize,
        at: u64,
        len: usize,
        byte: u8,
    },
    /// Reads from what is open in the slot.
    Read {
        slot: usize,
        at: u64,
        len: usize,
    },
    /// fsync.
    Sync {
        slot: usize,
    },
    /// ftruncate.
    TruncateOpen {
        slot: usize,
        size: u64,
    },
    /// fallocate.
    Allocate {
        slot: usize,
        at: u64,
        len: u64,
        mode: i32,
    },
    /// close.
    Close {
        slot: usize,
    },
    /// Opens, writes, closes.
    WriteFile {
        path: Vec<Name>,
        len: usize,
        byte: u8,
    },
    /// Opens, reads all, closes.
    ReadFile {
        path: Vec<Name>,
    },
    Truncate {
        path: Vec<Name>,
        size: u64,
    },
    Mkdir {
        path: Vec<Name>,
        mode: u32,
    },
    Rmdir {
        path: Vec<Name>,
    },
    Unlink {
        path: Vec<Name>,
    },
    Rename {
        from: Vec<Name>,
        to: Vec<Name>,
        flags: u32,
    },
    Link {
        from: Vec<Name>,
        to: Vec<Name>,
    },
    Symlink {
        path: Vec<Name>,
        target: Vec<u8>,
    },
    Fifo {
        path: Vec<Name>,
        mode: u32,
    },
    Chmod {
        path: Vec<Name>,
        mode: u32,
    },
    Chown {
        path: Vec<Name>,
        uid: u32,
        gid: u32,
    },
    /// utimensat, in seconds since 1970.
    Touch {
        path: Vec<Name>,
        mtime: i64,
    },
    SetXattr {
        path: Vec<Name>,
        name: Vec<u8>,
        value: Vec<u8>,
        flags: i32,
    },
    RemoveXattr {
        path: Vec<Name>,
        name: Vec<u8>,
    },
    List {
        path: Vec<Name>,
        page: usize,
    },
    /// Closes everything and opens the volume again.
    Reopen,
}

/// How many files a run keeps open.
pub const SLOTS: usize = 4;

fn name() -> impl Strategy<Value = Name> {
    prop_oneof![
        8 => Just(b"a".to_vec()),
        8 => Just(b"b".to_vec()),
        8 => Just(b"c".to_vec()),
        1 => Just(b"\xff\xfe\x80".to_vec()),
        1 => Just(vec![b'x'; 255]),
        1 => Just(b"-rf".to_vec()),
        1 => Just(b"new\nline".to_vec()),
        1 => Just(b"a (conflict, 1f2e3d4c-7, 2026-01-01 00.00.00)".to_vec()),
    ]
}

fn path() -> impl Strategy<Value = Vec<Name>> {
    prop_oneof![
        4 => prop::collection::vec(name(), 1..=1),
        4 => prop::collection::vec(name(), 2..=2),
        2 => prop::collection::vec(name(), 3..=3),
    ]
}

fn mode() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0o644), Just(0o600), Just(0o755), Just(0o4755), Just(0o2775), Just(0o1777), Just(0)]
}

fn at() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0u64..64, 2 => 4090u64..4100, 1 => 0u64..100_000]
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 0usize..64, 2 => 4090usize..4100, 1 => 0usize..70_000]
}

fn xattr() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![Just(b"user.a".to_vec()), Just(b"user.b".to_vec())]
}

/// One operation.
pub fn op() -> impl Strategy<Value = Op> {
    let slot = 0..SLOTS;
    prop_oneof![
        6 => (path(), slot.clone(), mode(), any::<bool>(), prop::bool::weighted(0.2), prop::bool::weighted(0.8))
            .prop_map(|(path, slot, mode, truncate, exclusive, create)| Op::Open {
                path, slot, mode, truncate, exclusive, create
            }),
        8 => (slot.clone(), at(), len(), any::<u8>())
            .prop_map(|(slot, at, len, byte)| Op::Write { slot, at, len, byte }),
        3 => (slot.clone(), at(), len()).prop_map(|(slot, at, len)| Op::Read { slot, at, len }),
        1 => slot.clone().prop_map(|slot| Op::Sync { slot }),
        2 => (slot.clone(), at()).prop_map(|(slot, size)| Op::TruncateOpen { slot, size }),
        2 => (slot.clone(), at(), 1u64..10_000, prop_oneof![Just(0), Just(1), Just(3), Just(0x10)])
            .prop_map(|(slot, at, len, mode)| Op::Allocate { slot, at, len, mode }),
        4 => slot.prop_map(|slot| Op::Close { slot }),
        6 => (path(), len(), any::<u8>()).prop_map(|(path, len, byte)| Op::WriteFile { path, len, byte }),
        3 => path().prop_map(|path| Op::ReadFile { path }),
        3 => (path(), at()).prop_map(|(path, size)| Op::Truncate { path, size }),
        6 => (path(), mode()).prop_map(|(path, mode)| Op::Mkdir { path, mode }),
        3 => path().prop_map(|path| Op::Rmdir { path }),
        5 => path().prop_map(|path| Op::Unlink { path }),
        8 => (path(), path(), prop_oneof![6 => Just(0), 1 => Just(libc::RENAME_NOREPLACE), 2 => Just(libc::RENAME_EXCHANGE)])
            .prop_map(|(from, to, flags)| Op::Rename { from, to, flags }),
        4 => (path(), path()).prop_map(|(from, to)| Op::Link { from, to }),
        2 => (path(), prop_oneof![Just(b"a".to_vec()), Just(b"../b".to_vec()), Just(b"/nowhere \xff".to_vec())])
            .prop_map(|(path, target)| Op::Symlink { path, target }),
        1 => (path(), mode()).prop_map(|(path, mode)| Op::Fifo { path, mode }),
        3 => (path(), mode()).prop_map(|(path, mode)| Op::Chmod { path, mode }),
        2 => (path(), 0u32..3, 0u32..3).prop_map(|(path, uid, gid)| Op::Chown { path, uid, gid }),
        2 => (path(), prop_oneof![Just(0), Just(-7), Just(1_000_000_000), Just(4_102_444_800i64)])
            .prop_map(|(path, mtime)| Op::Touch { path, mtime }),
        3 => (path(), xattr(), prop::collection::vec(any::<u8>(), 0..40), prop_oneof![4 => Just(0), 1 => Just(libc::XATTR_CREATE), 1 => Just(libc::XATTR_REPLACE)])
            .prop_map(|(path, name, value, flags)| Op::SetXattr { path, name, value, flags }),
        2 => (path(), xattr()).prop_map(|(path, name)| Op::RemoveXattr { path, name }),
        2 => (path(), 1usize..5).prop_map(|(path, page)| Op::List { path, page }),
        1 => Just(Op::Reopen),
    ]
}

/// The same without what only the run itself can do.
pub fn member_op() -> impl Strategy<Value = Op> {
    op().prop_filter("one member goes on", |op| *op != Op::Reopen)
}
