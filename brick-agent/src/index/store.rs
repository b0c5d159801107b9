//! The ordered key-value store under the index, as a narrow trait. The real one
//! is fjall; a simulation has one in memory that knows what is durable.
//!
//! Invariants: a batch is committed whole or not at all. After a crash of the agent
//! every commit is there; after one of the machine a prefix of the commits, at the
//! least those before the last [`Store::persist`].

use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::Result;
use super::reserve::Reserve;

/// Bytes in the store; cloning copies none.
pub use fjall::Slice as Bytes;

/// The tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// Merged objects.
    Objects,
    /// Live links by the place that they want.
    Wants,
    /// What is in `data/`.
    Shown,
    /// What this brick holds of an object.
    Local,
    /// Entries.
    Journal,
    /// Up to where entries are no longer there.
    Floors,
    /// Places that are still to be brought about.
    Todo,
    /// Single values.
    Meta,
}

impl Table {
    /// All of them, in the order of their numbers.
    pub const ALL: [Table; 8] = [
        Table::Objects,
        Table::Wants,
        Table::Shown,
        Table::Local,
        Table::Journal,
        Table::Floors,
        Table::Todo,
        Table::Meta,
    ];

    /// Its name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Table::Objects => "objects",
            Table::Wants => "wants",
            Table::Shown => "shown",
            Table::Local => "local",
            Table::Journal => "journal",
            Table::Floors => "floors",
            Table::Todo => "todo",
            Table::Meta => "meta",
        }
    }
}

/// One change: a value that is set, or none where it is removed.
#[derive(Clone, Debug)]
pub struct Set {
    /// In this table.
    pub table: Table,
    /// Under this key.
    pub key: Bytes,
    /// The value.
    pub value: Option<Bytes>,
}

/// The range of keys that an iteration covers.
pub type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// Pairs in the order of their keys, from both ends.
pub type Pairs<'a> = Box<dyn DoubleEndedIterator<Item = Result<(Bytes, Bytes)>> + 'a>;

/// An open store.
///
/// All calls fail with what the disk says.
#[allow(clippy::missing_errors_doc)]
pub trait Store: Send + Sync {
    /// The value under a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;
    /// The pairs in a range.
    fn range(&self, table: Table, range: Range<'_>) -> Pairs<'_>;
    /// The pairs whose keys begin so.
    fn prefix(&self, table: Table, prefix: &[u8]) -> Pairs<'_>;
    /// Makes these changes true together.
    fn commit(&self, changes: Vec<Set>) -> Result<()>;
    /// Makes every commit so far durable.
    fn persist(&self) -> Result<()>;
    /// Whether it takes no more until it is opened again: it does not know what of a commit that failed is on the disk.
    fn is_stuck(&self) -> bool {
        false
    }
    /// Sets apart again what was given up to have room on a full disk.
    fn refill_reserve(&self) {}
    /// Whether there is room only for what must be said, and for what frees space.
    fn is_short(&self) -> bool {
        false
    }
}

/// Where stores are.
pub trait Stores: Send + Sync {
    /// Whether there is one.
    fn exists(&self, path: &Path) -> bool;

    /// Puts a store that is not open aside, so that there is none in `path`.
    ///
    /// # Errors
    /// What the disk says.
    fn put_aside(&self, path: &Path) -> Result<()>;

    /// Opens the store in `path`, or makes one.
    ///
    /// # Errors
    /// What the disk says.
    fn open(&self, path: &Path) -> Result<Arc<dyn Store>>;
}

/// Stores of fjall, on the machine's file systems.
#[derive(Clone, Copy, Debug, Default)]
pub struct FjallStores;

struct FjallStore {
    db: Database,
    /// In the order of [`Table::ALL`].
    tables: Vec<Keyspace>,
    reserve: Option<Reserve>,
    stuck: AtomicBool,
}

impl Stores for FjallStores {
    fn exists(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn put_aside(&self, path: &Path) -> Result<()> {
        let aside = path.with_extension("old");
        match std::fs::remove_dir_all(&aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        match std::fs::rename(path, aside) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        // Before the store, which may need its room.
        let reserve = Reserve::open(&path.with_file_name("reserve"));
        let reserve =
            reserve.inspect_err(|error| tracing::warn!(%error, "no space is set apart for the index")).ok();
        if let Some(reserve) = &reserve {
            reserve.make_room();
        }
        let db = Database::builder(path).cache_size(48 << 20).worker_threads(2).open()?;
        let tables = Table::ALL
            .iter()
            .map(|table| {
                let options = || KeyspaceCreateOptions::default().max_memtable_size(8 << 20);
                db.keyspace(table.name(), options)
            })
            .collect::<std::result::Result<_, _>>()?;
        Ok(Arc::new(FjallStore { db, tables, reserve, stuck: AtomicBool::new(false) }))
    }
}

impl FjallStore {
    fn table(&self, table: Table) -> &Keyspace {
        &self.tables[table as usize]
    }

    fn noted<T>(&self, done: fjall::Result<T>) -> Result<T> {
        if done.is_err() {
            self.stuck.store(true, Ordering::Release);
        }
        Ok(done?)
    }

    fn make_room(&self) {
        if let Some(reserve) = &self.reserve {
            reserve.make_room();
        }
    }
}

fn pairs<'a>(iter: fjall::Iter) -> Pairs<'a> {
    Box::new(iter.map(|guard| Ok(guard.into_inner()?)))
}

impl Store for FjallStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.table(table).get(key)?)
    }

    fn range(&self, table: Table, range: Range<'_>) -> Pairs<'_> {
        pairs(self.table(table).range::<&[u8], _>(range))
    }

    fn prefix(&self, table: Table, prefix: &[u8]) -> Pairs<'_> {
        pairs(self.table(table).prefix(prefix))
    }

    fn commit(&self, changes: Vec<Set>) -> Result<()> {
        self.make_room();
        let mut batch = self.db.batch();
        for Set { table, key, value } in changes {
            match value {
                Some(value) => batch.insert(self.table(table), key, value),
                None => batch.remove(self.table(table), key),
            }
        }
        self.noted(batch.commit())
    }

    fn persist(&self) -> Result<()> {
        self.make_room();
        self.noted(self.db.persist(PersistMode::SyncAll))
    }

    fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Acquire)
    }

    fn refill_reserve(&self) {
        if let Some(reserve) = &self.reserve {
            reserve.refill();
        }
    }

    fn is_short(&self) -> bool {
        self.reserve.as_ref().is_some_and(Reserve::is_short)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_found_by_their_number() {
        for (n, table) in Table::ALL.iter().enumerate() {
            assert_eq!(*table as usize, n);
        }
    }
}
