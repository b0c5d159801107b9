//! Stores of indexes in memory. After the agent's death every commit is there; after a power cut
//! those up to the last that was made durable, and some of the later ones, in order.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use nearbrick_agent::index::store::{Bytes, Pairs, Range, Set, Store, Stores, Table};
use nearbrick_agent::index::{Index, IndexError, Result};
use rustix::io::Errno;

use super::chance::Chance;
use super::life::Life;

/// Shared with those who look on: a table is copied only when it changes while somebody has a picture of it.
type Tables = BTreeMap<Table, Arc<BTreeMap<Vec<u8>, Bytes>>>;

/// The stores of one machine.
#[derive(Clone)]
pub struct SimStores {
    life: Arc<Life>,
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    stores: BTreeMap<PathBuf, Kept>,
    /// Most commits fail: the disk is full.
    full: bool,
    chance: Chance,
}

#[derive(Default)]
struct Kept {
    now: Tables,
    durable: Tables,
    log: Vec<Vec<Set>>,
}

fn apply(tables: &mut Tables, changes: &[Set]) {
    for Set { table, key, value } in changes {
        let table = Arc::make_mut(tables.entry(*table).or_default());
        match value {
            Some(value) => table.insert(key.to_vec(), value.clone()),
            None => table.remove(&**key),
        };
    }
}

impl Kept {
    fn make_durable(&mut self) {
        for changes in self.log.drain(..) {
            apply(&mut self.durable, &changes);
        }
    }
}

fn failed(error: Errno) -> IndexError {
    IndexError::Disk(error.into())
}

impl SimStores {
    pub fn new(life: Arc<Life>, chance: Chance) -> Self {
        SimStores {
            life,
            inner: Arc::new(Mutex::new(Inner { stores: BTreeMap::new(), full: false, chance })),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// All that was committed becomes durable.
    pub fn write_back(&self) {
        self.inner().stores.values_mut().for_each(Kept::make_durable);
    }

    pub fn set_full(&self, full: bool) {
        self.inner().full = full;
    }

    /// What is left of each. Says how much.
    pub fn power_cut(&self, chance: &mut Chance) -> String {
        let mut said = Vec::new();
        for kept in self.inner().stores.values_mut() {
            let all = kept.log.len();
            let left = match chance.below(3) {
                0 => 0,
                1 => all,
                _ => chance.between(0, all),
            };
            kept.log.truncate(left);
            kept.make_durable();
            kept.now = kept.durable.clone();
            said.push(format!("{left} of {all} commits"));
        }
        said.join(", ")
    }

    /// The index is gone.
    pub fn lose_all(&self) {
        self.inner().stores.clear();
    }

    /// The index as it is, for who looks on.
    pub fn look(&self, path: &Path) -> Index {
        let now = self.inner().stores.get(path).map(|kept| kept.now.clone());
        Index::on(Arc::new(Picture(now.unwrap_or_default())))
    }

    /// What of it is on the disk for good.
    pub fn look_durable(&self, path: &Path) -> Index {
        let durable = self.inner().stores.get(path).map(|kept| kept.durable.clone());
        Index::on(Arc::new(Picture(durable.unwrap_or_default())))
    }
}

impl Stores for SimStores {
    fn exists(&self, path: &Path) -> bool {
        self.inner().stores.contains_key(path)
    }

    fn put_aside(&self, path: &Path) -> Result<()> {
        if !self.life.spend() {
            return Err(failed(Errno::IO));
        }
        self.inner().stores.remove(path);
        Ok(())
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        if !self.life.spend() {
            return Err(failed(Errno::IO));
        }
        self.inner().stores.entry(path.to_owned()).or_default();
        Ok(Arc::new(SimStore { life: self.life.number(), path: path.to_owned(), stores: self.clone() }))
    }
}

struct SimStore {
    life: u64,
    path: PathBuf,
    stores: SimStores,
}

fn bounds(range: Range<'_>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (range.0.map(<[u8]>::to_vec), range.1.map(<[u8]>::to_vec))
}

fn pairs_of(tables: &Tables, table: Table, range: Range<'_>) -> Vec<(Bytes, Bytes)> {
    let Some(rows) = tables.get(&table) else { return Vec::new() };
    rows.range::<Vec<u8>, _>(bounds(range)).map(|(k, v)| (Bytes::from(k.as_slice()), v.clone())).collect()
}

fn pairs_under(tables: &Tables, table: Table, prefix: &[u8]) -> Vec<(Bytes, Bytes)> {
    let Some(rows) = tables.get(&table) else { return Vec::new() };
    rows.range::<Vec<u8>, _>((Bound::Included(prefix.to_vec()), Bound::Unbounded))
        .take_while(|(k, _)| k.starts_with(prefix))
        .map(|(k, v)| (Bytes::from(k.as_slice()), v.clone()))
        .collect()
}

fn given(pairs: Vec<(Bytes, Bytes)>) -> Pairs<'static> {
    Box::new(pairs.into_iter().map(Ok))
}

impl SimStore {
    fn with<T>(&self, work: impl FnOnce(&Tables) -> T) -> Result<T> {
        if !self.stores.life.lasts(self.life) {
            return Err(failed(Errno::IO));
        }
        self.stores.life.look();
        match self.stores.inner().stores.get(&self.path) {
            Some(kept) => Ok(work(&kept.now)),
            None => Err(failed(Errno::IO)),
        }
    }

    fn pairs(&self, read: impl FnOnce(&Tables) -> Vec<(Bytes, Bytes)>) -> Pairs<'_> {
        match self.with(read) {
            Ok(pairs) => given(pairs),
            Err(error) => Box::new(std::iter::once(Err(error))),
        }
    }
}

impl Store for SimStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.with(|tables| tables.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn range(&self, table: Table, range: Range<'_>) -> Pairs<'_> {
        self.pairs(|tables| pairs_of(tables, table, range))
    }

    fn prefix(&self, table: Table, prefix: &[u8]) -> Pairs<'_> {
        self.pairs(|tables| pairs_under(tables, table, prefix))
    }

    fn commit(&self, changes: Vec<Set>) -> Result<()> {
        if !self.stores.life.lasts(self.life) || !self.stores.life.spend() {
            return Err(failed(Errno::IO));
        }
        if let Some(errno) = self.stores.life.refuses(false) {
            return Err(failed(errno));
        }
        let mut inner = self.stores.inner();
        if inner.full && !inner.chance.one_in(4) {
            return Err(failed(Errno::NOSPC));
        }
        let kept = inner.stores.get_mut(&self.path).ok_or_else(|| failed(Errno::IO))?;
        self.stores.life.say(|| {
            let tables: Vec<_> = changes.iter().map(|c| c.table.name()).collect();
            format!("commit {}", tables.join(" "))
        });
        apply(&mut kept.now, &changes);
        kept.log.push(changes);
        Ok(())
    }

    fn persist(&self) -> Result<()> {
        if !self.stores.life.lasts(self.life) || !self.stores.life.spend() {
            return Err(failed(Errno::IO));
        }
        if let Some(errno) = self.stores.life.refuses(false) {
            return Err(failed(errno));
        }
        let mut inner = self.stores.inner();
        inner.stores.get_mut(&self.path).ok_or_else(|| failed(Errno::IO))?.make_durable();
        Ok(())
    }
}

/// A store as it was, to be looked at.
struct Picture(Tables);

impl Store for Picture {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(&table).and_then(|rows| rows.get(key)).cloned())
    }

    fn range(&self, table: Table, range: Range<'_>) -> Pairs<'_> {
        given(pairs_of(&self.0, table, range))
    }

    fn prefix(&self, table: Table, prefix: &[u8]) -> Pairs<'_> {
        given(pairs_under(&self.0, table, prefix))
    }

    fn commit(&self, _changes: Vec<Set>) -> Result<()> {
        Err(failed(Errno::ROFS))
    }

    fn persist(&self) -> Result<()> {
        Err(failed(Errno::ROFS))
    }
}
