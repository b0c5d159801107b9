//! Which steps of a failing run are needed for it to fail.

use super::run::Plan;

/// Runs that shrinking takes, at most.
const TRIES: usize = 400;

/// What kind of failure it is: its first words, without whom it is about.
fn kind(why: &str) -> Vec<&str> {
    why.split([' ', ':']).filter(|word| !word.contains(['/', '-'])).take(5).collect()
}

/// As few steps as were found with which it still fails in the same way.
pub fn shrink(plan: &Plan, why: &str) -> Vec<usize> {
    let mut keep: Vec<usize> = (0..plan.steps.len()).collect();
    let mut tries = 0;
    let mut size = keep.len().div_ceil(2);
    loop {
        let mut at = 0;
        let mut smaller = false;
        while at < keep.len() && tries < TRIES {
            let mut without = keep.clone();
            without.drain(at..(at + size).min(keep.len()));
            tries += 1;
            if plan.keeping(&without).run(false).failure.is_some_and(|now| kind(&now) == kind(why)) {
                keep = without;
                smaller = true;
            } else {
                at += size;
            }
        }
        if tries >= TRIES || size == 1 && !smaller {
            return keep;
        }
        size = size.div_ceil(2).max(1);
    }
}

/// `0-3,7`.
pub fn written(keep: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for n in keep {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == *n => *last = *n,
            _ => parts.push((*n, *n)),
        }
    }
    let text: Vec<_> =
        parts.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") }).collect();
    text.join(",")
}

/// The inverse of [`written`].
pub fn read(text: &str) -> Vec<usize> {
    text.split(',')
        .filter_map(|part| {
            let (a, b) = part.split_once('-').unwrap_or((part, part));
            Some(a.parse::<usize>().ok()?..=b.parse::<usize>().ok()?)
        })
        .flatten()
        .collect()
}
