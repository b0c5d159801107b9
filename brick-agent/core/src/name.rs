//! Names in a directory. What comes from a peer is bytes to be validated,
//! never a path to be joined.

/// The longest name, in bytes, as on every local file system of Linux.
pub const MAX_LEN: usize = 255;

/// The folder of the brick's own files. It stands beside `data/`, never in it,
/// and no file of a volume may have its name in the root, so that a person who
/// opens a brick is not misled.
pub const RESERVED: &[u8] = b".nearbrick";

/// Why a name is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// No bytes.
    #[error("the name is empty")]
    Empty,
    /// `.` or `..`.
    #[error("the name is . or ..")]
    Dots,
    /// A slash or a NUL.
    #[error("the name has a slash or a NUL")]
    Separator,
    /// More than 255 bytes.
    #[error("the name has over {MAX_LEN} bytes")]
    TooLong,
}

/// Checks one name of a directory entry.
pub fn check(name: &[u8]) -> Result<(), BadName> {
    if name.is_empty() {
        Err(BadName::Empty)
    } else if name == b"." || name == b".." {
        Err(BadName::Dots)
    } else if name.iter().any(|b| *b == b'/' || *b == 0) {
        Err(BadName::Separator)
    } else if name.len() > MAX_LEN {
        Err(BadName::TooLong)
    } else {
        Ok(())
    }
}

/// The sibling name of a file whose name another one keeps:
/// `stem (conflict, TAG).ext`, cut to [`MAX_LEN`] in the stem. `n` above 0 is
/// added where that name is taken too.
pub fn conflict_name(name: &[u8], tag: &str, n: u32) -> Vec<u8> {
    let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0 && name.len() - at <= 32);
    let (stem, ext) = name.split_at(dot.unwrap_or(name.len()));
    let mark = match n {
        0 => format!(" (conflict, {tag})"),
        n => format!(" (conflict, {tag}, {n})"),
    };
    let keep = stem.len().min(MAX_LEN - (mark.len() + ext.len()).min(MAX_LEN));
    let mut out = stem[..keep].to_vec();
    out.extend_from_slice(mark.as_bytes());
    out.extend_from_slice(ext);
    out
}

/// The name of which `name` is a sibling name, if it is one: what [`conflict_name`] made it of, unless that was too long.
pub fn name_before_conflict(name: &[u8]) -> Option<Vec<u8>> {
    const MARK: &[u8] = b" (conflict, ";
    let at = name.windows(MARK.len()).rposition(|part| part == MARK)?;
    let end = at + name[at..].iter().position(|b| *b == b')')?;
    let ext = &name[end + 1..];
    (ext.is_empty() || ext.starts_with(b".")).then(|| [&name[..at], ext].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s01_names_that_leave_the_brick_are_refused() {
        for (name, why) in [
            (&b""[..], BadName::Empty),
            (b".", BadName::Dots),
            (b"..", BadName::Dots),
            (b"../x", BadName::Separator),
            (b"/etc", BadName::Separator),
            (b"a\0b", BadName::Separator),
            (&[b'x'; 256], BadName::TooLong),
        ] {
            assert_eq!(check(name), Err(why));
        }
    }

    #[test]
    fn t19_odd_names_are_names() {
        for name in [&b"-rf"[..], b"\xff\xfe", b"a\nb", b"...", &[b'x'; 255], b"a (conflict, b).txt"] {
            assert_eq!(check(name), Ok(()));
        }
    }

    #[test]
    fn conflict_names_keep_the_extension_and_fit() {
        assert_eq!(conflict_name(b"a.txt", "ws-a", 0), b"a (conflict, ws-a).txt");
        assert_eq!(conflict_name(b".bashrc", "ws-a", 2), b".bashrc (conflict, ws-a, 2)");
        for (name, n) in [(&b"a.txt"[..], 0), (b".bashrc", 2), (b"plan", 0), (b"x (conflict, ws-a)", 1)] {
            assert_eq!(name_before_conflict(&conflict_name(name, "ws-a, 2026-11-28", n)).unwrap(), name);
        }
        assert_eq!(name_before_conflict(b"plan"), None);
        assert_eq!(name_before_conflict(b"plan (conflict, "), None);
        assert_eq!(name_before_conflict(b"plan (conflict, x) too"), None);
        let long = [b'x'; 255];
        assert_eq!(conflict_name(&long, "ws-a", 0).len(), 255);
        assert_eq!(check(&conflict_name(&long, "ws-a", 0)), Ok(()));
    }
}
