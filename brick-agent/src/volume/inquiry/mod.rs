//! What a person may ask of the files of a volume through the API server: the operator asks, and this answers with what is known here.
//!
//! * `pending`: the table of what is pending, in pages.
//! * `whereabouts`: who holds which version of a file.
//! * `reading`: copies are read and compared with their hashes.
//!
//! Kept versions and the way back from them are those of `versions` and `restore`, as for the program's own commands.
//! Invariants: no answer is without bound, and the lock is never held for more than a few hundred files.

mod pending;
mod reading;
mod whereabouts;

pub(super) use reading::Reading;

use nearbrick_core::BrickId;
use nearbrick_crds::Time;
use nearbrick_crds::files::{
    Answer, Ask, KeptPage, KeptVersion as Shown, MOST_VERSIONS, Refusal, RestoreRequest, checked_path,
};
use nearbrick_crds::meta::time_from_unix;
use rustix::io::Errno;

use super::Volume;
use super::core::{Core, Rebuild};
use super::restore::RestoreError;
use crate::peer::Refused;

/// An answer, or why there is none.
type Told<T> = Result<T, Refused>;

/// Milliseconds since 1970 as a time of the API; none where nothing is known.
fn time(ms: u64) -> Option<Time> {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    (ms > 0).then(|| time_from_unix(seconds))
}

/// A path for people: what is no text in it is replaced.
fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn failed(what: &str) -> impl FnOnce(Errno) -> Refused + '_ {
    move |error| Refused(Refusal::Failed, format!("{what}: {error}"))
}

fn checked(path: &str) -> Told<&str> {
    checked_path(path).map_err(|why| Refused(Refusal::Bad, why))
}

impl Volume {
    /// Answers a question. Blocks.
    ///
    /// # Errors
    /// One clear line.
    pub fn inquire(&self, ask: Ask) -> Result<Answer, Refused> {
        match ask {
            Ask::Pending(ask) => self.pending_page(&ask).map(Answer::Pending),
            Ask::Where { path } => self.whereabouts(&path).map(|found| Answer::Where(Box::new(found))),
            Ask::Versions { path } => self.kept_page(&path).map(Answer::Versions),
            Ask::Restore(wanted) => self.restore_one(&wanted).map(Answer::Restored),
            Ask::Verify(wanted) => self.verify_now(&wanted).map(Answer::Verify),
        }
    }

    /// The workstation of a brick; of one that is no member any more its UUID.
    pub fn node_of_brick(&self, brick: BrickId) -> String {
        self.config().member(brick).map_or_else(|| brick.to_string(), |member| member.node.clone())
    }

    /// What is asked for needs an index that is whole.
    fn is_whole(core: &Core) -> Told<()> {
        match core.rebuild {
            Rebuild::No => Ok(()),
            _ => Err(Refused(Refusal::Busy, "its index is being made anew: ask again later".to_owned())),
        }
    }

    fn kept_page(&self, path: &str) -> Told<KeptPage> {
        let path = checked(path)?;
        let inside = Some(path.as_bytes()).filter(|path| !path.is_empty());
        let mut kept = self.kept_versions(inside).map_err(failed("what is kept cannot be read"))?;
        let over = kept.len().saturating_sub(MOST_VERSIONS);
        kept.drain(..over);
        let node = self.node_of_brick(self.me);
        let versions = kept
            .into_iter()
            .map(|kept| Shown {
                version: kept.id,
                node: node.clone(),
                path: kept.path.map(|path| text(&path)),
                why: kept.why.as_str().to_owned(),
                since: time(kept.since_ms),
                size: kept.size,
                written_at: Some(time_from_unix(kept.mtime.0)),
                writer: kept.writer.map(|brick| self.node_of_brick(brick)),
            })
            .collect();
        Ok(KeptPage { versions, cut: over > 0 })
    }

    fn restore_one(&self, wanted: &RestoreRequest) -> Told<String> {
        let path = checked(&wanted.path)?;
        let not_here =
            |of: &str| Refused(Refusal::NotFound, format!("{} is not kept here{of}", wanted.version));
        if !path.is_empty() {
            let kept = self.kept_versions(Some(path.as_bytes()));
            let kept = kept.map_err(failed("what is kept cannot be read"))?;
            if !kept.iter().any(|kept| kept.id == wanted.version) {
                return Err(not_here(&format!(" as a version of {path}")));
            }
        }
        let to = wanted.to.as_deref().map(checked).transpose()?;
        let restored = self.restore(&wanted.version, to.map(str::as_bytes)).map_err(|error| match error {
            RestoreError::NotKept(_) => not_here(""),
            RestoreError::Busy(_) => Refused(Refusal::Busy, error.to_string()),
            RestoreError::NoPath(_) | RestoreError::BadPath(_) | RestoreError::NotAFile(_) => {
                Refused(Refusal::Bad, error.to_string())
            }
            RestoreError::Failed { .. } => Refused(Refusal::Failed, error.to_string()),
        })?;
        Ok(text(&restored))
    }
}

/// Whether `path` is `of`, or below it; all are below nothing.
fn is_within(path: &[u8], of: &str) -> bool {
    let below =
        || path.strip_prefix(of.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"));
    of.is_empty() || below()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_within_a_path() {
        for (path, of) in [("a/b", ""), ("a/b", "a"), ("a/b", "a/b"), ("a b/c", "a b")] {
            assert!(is_within(path.as_bytes(), of), "{path} {of}");
        }
        for (path, of) in [("a/b", "b"), ("ab/c", "a"), ("a", "a/b"), ("b", "a")] {
            assert!(!is_within(path.as_bytes(), of), "{path} {of}");
        }
    }

    #[test]
    fn a_time_that_is_not_known_is_none() {
        assert_eq!(time(0), None);
        assert_eq!(time(1999), Some(time_from_unix(1)));
    }
}
