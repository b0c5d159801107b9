//! The lab's one error: a line for a person that says what failed, where, and what to do.
//!
//! Invariant: the text never has more than one line.

use std::fmt::Display;

/// What went wrong, in one line.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

/// A result with the lab's error.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error with this text; line ends become blanks.
    pub fn new(text: impl Display) -> Self {
        let text = text.to_string();
        Self(text.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

/// Adds what was being done, and where, to any error.
pub trait Context<T> {
    /// Puts `what` before the error's own text.
    ///
    /// # Errors
    /// The error that was there, with `what` before it.
    fn context(self, what: impl Display) -> Result<T>;
}

impl<T, E: Display> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Display) -> Result<T> {
        self.map_err(|e| Error::new(format!("{what}: {e}")))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl Display) -> Result<T> {
        self.ok_or_else(|| Error::new(what))
    }
}

/// Returns early with an [`Error`] made from a format string.
#[macro_export]
macro_rules! fail {
    ($($text:tt)*) => {
        return Err($crate::error::Error::new(format!($($text)*)))
    };
}
