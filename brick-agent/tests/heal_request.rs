//! What a heal is asked for: which files, from whom, in which order, how many streams, how many tries.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nearbrick_agent::heal::limit::Timer;
use nearbrick_agent::heal::{self, HealProgress, HealRequest, Order};
use nearbrick_core::heal::Reason;
use support::clock::next_millisecond;
use support::fs::{Fs, path};
use support::members::Lab;

fn write(lab: &Lab, n: usize, name: &str, len: usize) {
    Fs::new(lab.volume(n)).write_file(&path(name), &vec![7; len]).unwrap();
    lab.settle(n);
    // Each is pending since a time of its own.
    next_millisecond();
}

/// Whether the bytes of a file are on a member's disk.
fn has(lab: &Lab, n: usize, name: &str) -> bool {
    std::fs::metadata(lab.data(n).join(name)).is_ok_and(|m| std::os::unix::fs::MetadataExt::blocks(&m) > 0)
}

/// The bytes that are there after each file.
fn as_they_come(lab: &Lab, order: Order) -> Vec<u64> {
    let sizes = Mutex::new(Vec::new());
    let say = |p: &HealProgress| sizes.lock().unwrap().push(p.bytes_done);
    heal::run(lab.volume(1), &HealRequest { order, ..HealRequest::default() }, &say, &AtomicBool::new(false));
    sizes.into_inner().unwrap()
}

#[test]
fn files_come_in_the_order_that_is_asked_for() {
    needs!(Root);
    for (order, wanted) in [
        (Order::OldestFirst, [0, 200, 3200, 3210]),
        (Order::NewestFirst, [0, 10, 3010, 3210]),
        (Order::SmallestFirst, [0, 10, 210, 3210]),
    ] {
        let lab = Lab::new(2, 2);
        // Neither by name nor by size.
        [("b", 200), ("c", 3000), ("a", 10)].iter().for_each(|(name, len)| write(&lab, 0, name, *len));
        lab.exchange();
        assert_eq!(as_they_come(&lab, order), wanted, "{order:?}");
    }
}

#[test]
fn so_many_streams_as_are_asked_for_run_side_by_side_and_no_more() {
    needs!(Root);
    for streams in [1, 2, 4] {
        let lab = Lab::new(2, 2);
        let fs = Fs::new(lab.volume(0));
        (0..400).for_each(|k| {
            fs.write_file(&path(&format!("f{k}")), b"bytes").unwrap();
        });
        drop(fs);
        lab.settle(0);
        lab.exchange();
        let threads = Arc::new(Mutex::new(BTreeSet::new()));
        let begun = Arc::new(AtomicUsize::new(0));
        let seen = (threads.clone(), begun.clone());
        *lab.net.on_stream.lock().unwrap() = Some(Arc::new(move |_| {
            seen.0.lock().unwrap().insert(format!("{:?}", std::thread::current().id()));
            seen.1.fetch_add(1, Ordering::Relaxed);
            // None goes on before all are there: they are there at once.
            support::wait("the other streams", || seen.1.load(Ordering::Relaxed) >= streams as usize);
        }));
        let outcome = lab.heal_as(1, &HealRequest { concurrency: Some(streams), ..HealRequest::default() });
        *lab.net.on_stream.lock().unwrap() = None;
        assert_eq!((outcome.files_done, outcome.files_failed), (400, 0), "{outcome:?}");
        assert_eq!(threads.lock().unwrap().len(), streams as usize);
    }
}

#[test]
fn only_the_paths_and_the_source_that_are_asked_for() {
    needs!(Root);
    let lab = Lab::new(3, 3);
    let fs = Fs::new(lab.volume(0));
    let made = lab.volume(0).mkdir(support::fs::me(), support::fs::ROOT, b"d", 0o755).unwrap();
    fs.counted(&made);
    drop(fs);
    for name in ["d/one", "two", "three"] {
        write(&lab, 0, name, 100);
    }
    write(&lab, 1, "of-b", 100);
    lab.exchange();
    let of = |source: Option<usize>, paths: &[&str]| HealRequest {
        source: source.map(|n| lab.brick(n)),
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        ..HealRequest::default()
    };
    let there = |n| ["d/one", "two", "three", "of-b"].map(|name| has(&lab, n, name));
    let outcome = lab.heal_as(2, &of(None, &["d/**", "thr*"]));
    assert_eq!((outcome.files_total, outcome.files_done), (2, 2), "{outcome:?}");
    assert_eq!(there(2), [true, false, true, false]);
    // What another brick alone has is not asked for there.
    let outcome = lab.heal_as(2, &of(Some(0), &[]));
    assert_eq!((outcome.files_done, outcome.files_failed), (1, 1), "{outcome:?}");
    assert!(outcome.failures.contains_key(&Reason::Unreachable), "{outcome:?}");
    assert_eq!(there(2), [true, true, true, false]);
    // And what it could not bring stays pending: the next heal brings it.
    assert_eq!(lab.heal_as(2, &of(None, &[])).files_done, 1);
    assert_eq!(there(2), [true; 4]);
}

/// Time passes when somebody sleeps. After some of it, something happens.
struct Until {
    slept: Mutex<Duration>,
    at: Duration,
    then: Box<dyn Fn() + Send + Sync>,
}

impl Timer for Until {
    fn now(&self) -> Duration {
        *self.slept.lock().unwrap()
    }

    fn sleep(&self, time: Duration) {
        let mut slept = self.slept.lock().unwrap();
        let before = *slept;
        *slept += time;
        if before < self.at && *slept >= self.at {
            (self.then)();
        }
    }
}

/// Heals the second member in so many tries, of which the holder is in reach again after `at`; what it said when it began
/// to wait (how many had failed, and when that was), and how long it waited in all.
fn tried(lab: &Lab, tries: u32, at: Duration, cancel: bool) -> (HealProgress, Vec<(u64, u64)>, u64) {
    lab.net.set_cut(lab.brick(0), true);
    let stop = Arc::new(AtomicBool::new(false));
    let (net, brick, stopped) = (lab.net.clone(), lab.brick(0), stop.clone());
    let then: Box<dyn Fn() + Send + Sync> = Box::new(move || match cancel {
        true => stopped.store(true, Ordering::Relaxed),
        false => net.set_cut(brick, false),
    });
    let until = Arc::new(Until { slept: Mutex::default(), at, then });
    let timer: Arc<dyn Timer> = until.clone();
    let waits = Mutex::new(Vec::new());
    let say = |p: &HealProgress| {
        if p.next_try_ms.is_some() {
            waits.lock().unwrap().push((p.files_failed, u64::try_from(until.now().as_millis()).unwrap()));
        }
    };
    let request = HealRequest { tries: Some(tries), ..HealRequest::default() };
    let outcome = heal::run_by(lab.volume(1), &request, &say, &stop, &timer);
    lab.net.set_cut(lab.brick(0), false);
    let all = u64::try_from(until.now().as_millis()).unwrap();
    (outcome, waits.into_inner().unwrap(), all)
}

#[test]
fn what_failed_is_tried_again_after_waits_that_double_as_often_as_is_asked_for() {
    needs!(Root);
    let lab = Lab::new(2, 2);
    write(&lab, 0, "f", 100);
    write(&lab, 0, "g", 100);
    lab.exchange();
    let never = Duration::from_secs(100_000);
    // One try waits for nothing, and says what failed.
    let (outcome, waits, all) = tried(&lab, 1, never, false);
    assert_eq!((outcome.files_done, outcome.files_failed, waits, all), (0, 2, vec![], 0));
    // Four: after 1, 2 and 4 seconds.
    let (outcome, waits, all) = tried(&lab, 4, never, false);
    assert_eq!((outcome.files_done, outcome.files_failed), (0, 2));
    assert_eq!((waits, all), (vec![(2, 0), (2, 1000), (2, 3000)], 7000));
    // Never more than a minute.
    let (_, waits, all) = tried(&lab, 9, never, false);
    assert_eq!((waits.len(), all), (8, 1000 * (1 + 2 + 4 + 8 + 16 + 32 + 60 + 60)));
    // The holder comes back in the second wait: the third try brings both.
    let (outcome, waits, all) = tried(&lab, 9, Duration::from_millis(1500), false);
    assert_eq!((outcome.files_done, outcome.files_failed), (2, 0));
    assert_eq!((waits.len(), all), (2, 3000));
    assert!(has(&lab, 1, "f") && has(&lab, 1, "g"));
    // One that is cancelled in its wait ends there.
    write(&lab, 0, "h", 100);
    lab.exchange();
    let (outcome, waits, all) = tried(&lab, 9, Duration::from_millis(1500), true);
    assert_eq!((outcome.files_done, waits.len()), (0, 2));
    assert!(all <= 1550, "{all} ms");
    assert_eq!(lab.heal(1).files_done, 1);
}
