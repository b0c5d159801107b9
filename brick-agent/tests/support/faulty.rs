//! An index whose commits fail when the test wants it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nearbrick_agent::index::store::{Bytes, FjallStores, Pairs, Range, Set, Store, Stores, Table};
use nearbrick_agent::index::{IndexError, Result};

/// Stores of which no commit succeeds as long as an error is set.
#[derive(Clone, Default)]
pub struct FaultyStores(Arc<AtomicI32>);

impl FaultyStores {
    /// From now on commits fail with this errno; 0: none does.
    pub fn fail_with(&self, errno: i32) {
        self.0.store(errno, Ordering::Relaxed);
    }
}

struct FaultyStore {
    inner: Arc<dyn Store>,
    errno: Arc<AtomicI32>,
}

impl Stores for FaultyStores {
    fn exists(&self, path: &Path) -> bool {
        FjallStores.exists(path)
    }

    fn put_aside(&self, path: &Path) -> Result<()> {
        FjallStores.put_aside(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(FaultyStore { inner: FjallStores.open(path)?, errno: self.0.clone() }))
    }
}

impl Store for FaultyStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.inner.get(table, key)
    }

    fn range(&self, table: Table, range: Range<'_>) -> Pairs<'_> {
        self.inner.range(table, range)
    }

    fn prefix(&self, table: Table, prefix: &[u8]) -> Pairs<'_> {
        self.inner.prefix(table, prefix)
    }

    fn commit(&self, changes: Vec<Set>) -> Result<()> {
        match self.errno.load(Ordering::Relaxed) {
            0 => self.inner.commit(changes),
            errno => Err(IndexError::Disk(std::io::Error::from_raw_os_error(errno))),
        }
    }

    fn persist(&self) -> Result<()> {
        self.inner.persist()
    }
}
