//! How long an agent lives: after so many more changes of its disk or its index nothing
//! that it asks for is done any more, as if it had been killed between two of its system calls.

use std::sync::Mutex;

use rustix::io::Errno;

/// The present life of the agent of one machine.
#[derive(Debug)]
pub struct Life {
    state: Mutex<State>,
    /// Whose it is, if what it does is to be printed.
    says: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    number: u64,
    dead: bool,
    /// Changes that are still carried out.
    left: Option<u64>,
    /// Looks at the index since it was last asked whether the agent gets on.
    looks: u64,
    /// Changes that were asked for.
    spent: u64,
    /// Which changes fail.
    fails: Option<Fails>,
}

/// From one change on the disk refuses.
#[derive(Clone, Copy, Debug)]
struct Fails {
    /// Changes before that.
    left: u64,
    errno: Errno,
    /// All that follow too.
    lasts: bool,
    came: bool,
}

/// Looks at the index that no step of a run takes.
const ENDLESS: u64 = 1_000_000;

impl Life {
    pub fn new(says: Option<String>) -> Self {
        Life { state: Mutex::default(), says }
    }

    /// Prints what is done, if that is wanted.
    pub fn say(&self, what: impl FnOnce() -> String) {
        if let Some(name) = &self.says {
            eprintln!("      {name}: {}", what());
        }
    }

    /// A new agent is there: what the one before had open is of no use any more.
    pub fn begin(&self) {
        let mut state = self.state.lock().unwrap();
        *state = State { number: state.number + 1, ..State::default() };
    }

    /// The agent dies now.
    pub fn end(&self) {
        self.state.lock().unwrap().dead = true;
    }

    /// The agent dies after so many more changes.
    pub fn end_after(&self, changes: u64) {
        self.state.lock().unwrap().left = Some(changes);
    }

    pub fn is_over(&self) -> bool {
        self.state.lock().unwrap().dead
    }

    pub fn number(&self) -> u64 {
        self.state.lock().unwrap().number
    }

    /// Whether something opened in that life can still be used.
    pub fn lasts(&self, number: u64) -> bool {
        let state = self.state.lock().unwrap();
        !state.dead && state.number == number
    }

    /// Counts a look at the index: an agent that never comes to an end is seen.
    pub fn look(&self) {
        let looks = {
            let mut state = self.state.lock().unwrap();
            state.looks += 1;
            state.looks
        };
        assert!(looks < ENDLESS, "the agent goes round in circles");
    }

    /// A step is over.
    pub fn gets_on(&self) {
        self.state.lock().unwrap().looks = 0;
    }

    /// Changes that were asked for in this life.
    pub fn spent(&self) -> u64 {
        self.state.lock().unwrap().spent
    }

    /// After so many more changes one fails, or all that follow.
    pub fn fail_after(&self, changes: u64, errno: Errno, lasts: bool) {
        self.state.lock().unwrap().fails = Some(Fails { left: changes, errno, lasts, came: false });
    }

    /// Nothing fails any more. Says whether anything has.
    pub fn mend(&self) -> bool {
        self.state.lock().unwrap().fails.take().is_some_and(|fails| fails.came)
    }

    /// What the next change fails with, if it does. Who `frees` space does not lack any.
    pub fn refuses(&self, frees: bool) -> Option<Errno> {
        let mut state = self.state.lock().unwrap();
        let fails = state.fails.as_mut()?;
        if fails.left > 0 {
            fails.left -= 1;
            return None;
        }
        if fails.came && !fails.lasts || frees && fails.errno == Errno::NOSPC {
            return None;
        }
        fails.came = true;
        Some(fails.errno)
    }

    /// Counts a change; false if it is not carried out any more.
    pub fn spend(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        state.spent += 1;
        if state.left == Some(0) {
            state.dead = true;
        }
        if let Some(left) = &mut state.left {
            *left = left.saturating_sub(1);
        }
        !state.dead
    }
}
