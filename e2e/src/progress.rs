//! What the lab says while it works: steps, details, and one line that is rewritten on a terminal.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Says that a larger step begins.
pub fn step(text: impl Display) {
    eprintln!("==> {text}");
}

/// Says a detail of the present step.
pub fn note(text: impl Display) {
    eprintln!("    {text}");
}

/// Says something that went wrong and does not end the work.
pub fn warn(text: impl Display) {
    eprintln!("    warning: {text}");
}

/// A line about work that takes long: rewritten in place on a terminal, else repeated now and then.
pub struct Line {
    what: String,
    started: Instant,
    shown: Mutex<Option<Instant>>,
    terminal: bool,
}

impl Line {
    /// Begins to report on `what`.
    pub fn new(what: impl Display) -> Self {
        let terminal = stderr().is_terminal();
        Self { what: what.to_string(), started: Instant::now(), shown: Mutex::new(None), terminal }
    }

    /// Shows how far it is, if enough time has passed since the last time.
    pub fn update(&self, state: impl Display) {
        let pause = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(15) };
        let Ok(mut shown) = self.shown.lock() else { return };
        if shown.map_or(self.started, |at| at).elapsed() < pause {
            return;
        }
        *shown = Some(Instant::now());
        let text = format!("    {}: {state} ({} s)", self.what, self.started.elapsed().as_secs());
        if self.terminal {
            eprint!("\r\x1b[K{text}");
            let _ = stderr().flush();
        } else {
            eprintln!("{text}");
        }
    }

    /// Ends the line with a result.
    pub fn done(self, result: impl Display) {
        let start = if self.terminal { "\r\x1b[K" } else { "" };
        eprintln!("{start}    {}: {result} ({:.1} s)", self.what, self.started.elapsed().as_secs_f64());
    }
}
