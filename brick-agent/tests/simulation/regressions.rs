//! What seeds found once, each under the name of what must hold.

use super::cases::quiet;
use super::run::verdict;
use super::steps::{Action, Step, What};

fn step(what: What) -> Step {
    Step { salt: 1, what }
}

fn does(member: usize, action: Action) -> Step {
    step(What::Program { member, action })
}

fn pull(to: usize, from: usize) -> Step {
    step(What::Pull { to, from })
}

/// It was removed by who had heard of its name and not of its bytes, and waited in `staging/`, out of the way of
/// what was renamed over it, until it was settled: then it was shown everywhere but where it was written.
#[test]
fn t09_a_file_that_made_way_while_it_was_written_comes_back() {
    let plan = quiet(vec![
        does(0, Action::Put { path: 1, len: 522, sync: true }),
        pull(2, 0),
        does(2, Action::Save { path: 1, len: 171, sync: true }),
        pull(0, 2),
    ]);
    verdict(&plan, |_| {}).unwrap();
}
