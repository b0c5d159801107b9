//! Random cases: the seed of a run is printed; `NEARBRICK_SEED=N` repeats it, `NEARBRICK_CASES=N` makes it longer.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// Runs so many cases.
pub fn runner(cases: u32) -> TestRunner {
    let env = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = env("NEARBRICK_SEED").unwrap_or_else(rand::random);
    let cases = env("NEARBRICK_CASES").map_or(cases, |n: u64| n as u32);
    println!("seed: NEARBRICK_SEED={seed}");
    TestRunner::new(Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..Config::default()
    })
}

/// Runs them, and fails with the smallest case that fails.
pub fn check<S: Strategy>(cases: u32, strategy: &S, work: impl Fn(S::Value)) {
    if let Err(error) = runner(cases).run(strategy, |case| caught(|| work(case))) {
        panic!("{error}");
    }
}

/// As an error with its message, so that the runner shrinks it.
pub fn caught(work: impl FnOnce()) -> Result<(), TestCaseError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        TestCaseError::fail(text.unwrap_or_else(|| "a panic".to_owned()))
    })
}

/// How valid bytes are spoiled.
#[derive(Clone, Debug)]
pub enum Spoil {
    /// One byte is another.
    Set(usize, u8),
    /// The largest number of 64 bits, as postcard writes it, stands there.
    Huge(usize),
    /// A byte is gone, or comes twice.
    Drop(usize),
    Twice(usize),
    /// The end is missing.
    Cut(usize),
    /// Something follows.
    Add(Vec<u8>),
}

/// Some of these.
pub fn spoils() -> impl Strategy<Value = Vec<Spoil>> {
    let at = || any::<usize>();
    let one = prop_oneof![
        6 => (at(), any::<u8>()).prop_map(|(at, byte)| Spoil::Set(at, byte)),
        3 => (at(), prop_oneof![Just(0u8), Just(1), Just(0x7f), Just(0x80), Just(0xff)])
            .prop_map(|(at, byte)| Spoil::Set(at, byte)),
        2 => at().prop_map(Spoil::Huge),
        2 => at().prop_map(Spoil::Drop),
        2 => at().prop_map(Spoil::Twice),
        1 => at().prop_map(Spoil::Cut),
        1 => prop::collection::vec(any::<u8>(), 1..20).prop_map(Spoil::Add),
    ];
    prop::collection::vec(one, 0..5)
}

/// Spoils them.
pub fn spoil(bytes: &[u8], how: &[Spoil]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for spoil in how {
        let n = bytes.len().max(1);
        match spoil {
            Spoil::Set(at, byte) => {
                if let Some(there) = bytes.get_mut(at % n) {
                    *there = *byte;
                }
            }
            Spoil::Huge(at) => {
                let at = (at % n).min(bytes.len());
                let end = (at + 1).min(bytes.len());
                bytes.splice(at..end, [0xff; 9].into_iter().chain([1]));
            }
            Spoil::Drop(at) if !bytes.is_empty() => drop(bytes.remove(at % n)),
            Spoil::Twice(at) if !bytes.is_empty() => {
                let byte = bytes[at % n];
                bytes.insert(at % n, byte);
            }
            Spoil::Drop(_) | Spoil::Twice(_) => {}
            Spoil::Cut(at) => bytes.truncate(at % n),
            Spoil::Add(more) => bytes.extend_from_slice(more),
        }
    }
    bytes
}
