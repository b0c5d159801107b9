//! What counts cost.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nearbrick_agent::index::Result;
use nearbrick_agent::index::store::{Bytes, FjallStores, Pairs, Range, Set, Store, Stores, Table};
use nearbrick_agent::volume::VolumeOptions;
use support::fs::{Fs, path};
use support::members::Lab;

/// Stores that count what is read from them.
#[derive(Default)]
struct Counted(Arc<AtomicU64>);

struct Counting {
    below: Arc<dyn Store>,
    reads: Arc<AtomicU64>,
}

impl Stores for Counted {
    fn exists(&self, path: &Path) -> bool {
        FjallStores.exists(path)
    }

    fn put_aside(&self, path: &Path) -> Result<()> {
        FjallStores.put_aside(path)
    }

    fn open(&self, path: &Path) -> Result<Arc<dyn Store>> {
        Ok(Arc::new(Counting { below: FjallStores.open(path)?, reads: self.0.clone() }))
    }
}

impl Counting {
    fn counted<'a>(&self, pairs: Pairs<'a>) -> Pairs<'a> {
        let reads = self.reads.clone();
        Box::new(pairs.inspect(move |_| {
            reads.fetch_add(1, Ordering::Relaxed);
        }))
    }
}

impl Store for Counting {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.below.get(table, key)
    }

    fn range(&self, table: Table, range: Range<'_>) -> Pairs<'_> {
        self.counted(self.below.range(table, range))
    }

    fn prefix(&self, table: Table, prefix: &[u8]) -> Pairs<'_> {
        self.counted(self.below.prefix(table, prefix))
    }

    fn commit(&self, changes: Vec<Set>) -> Result<()> {
        self.below.commit(changes)
    }

    fn persist(&self) -> Result<()> {
        self.below.persist()
    }
}

#[test]
fn p03_counts_read_nothing_of_the_files_that_exist() {
    needs!(Root);
    let mut lab = Lab::new(2, 2);
    let reads = Counted::default();
    let count = reads.0.clone();
    lab.close(0);
    lab.open_with(0, VolumeOptions { stores: Arc::new(reads), ..VolumeOptions::default() });
    let fs = Fs::new(lab.volume(0));
    for n in 0..200 {
        fs.write_file(&path(&format!("f{n}")), b"text").unwrap();
    }
    lab.settle(0);
    lab.converge();
    for n in 0..3 {
        fs.write_file(&path(&format!("new{n}")), b"text").unwrap();
    }
    lab.settle(0);
    count.store(0, Ordering::Relaxed);
    let status = lab.volume(0).status();
    assert_eq!((status.files, status.pending.files), (203, 3));
    assert_eq!(count.load(Ordering::Relaxed), 0, "counts are kept, not made");
}
