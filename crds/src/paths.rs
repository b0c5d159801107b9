//! Globs on paths: the one reading of them that the operator and the agents share.
//!
//! A path begins at the volume's root, without a leading slash. `*` and `?` stay within one name, `**` spans directories.

use globset::{Error, Glob, GlobBuilder};

/// Parses a glob.
///
/// # Errors
/// It cannot be read.
pub fn glob(text: &str) -> Result<Glob, Error> {
    GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build()
}

/// What has a meaning in a glob, and stands for itself after a backslash.
const META: &[char] = &['*', '?', '[', ']', '{', '}', '\\'];

/// The glob of one path.
pub fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len() + 3);
    for c in path.chars() {
        if META.contains(&c) {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

/// The glob of the files in a directory, or of all below it.
pub fn glob_of(dir: &str, below: bool) -> String {
    let names = if below { "**" } else { "*" };
    if dir.is_empty() {
        return names.to_owned();
    }
    escaped(dir) + "/" + names
}

/// Whether a text has anything that has a meaning in a glob.
pub fn is_glob(text: &str) -> bool {
    text.contains(META)
}

/// The directory for which [`glob_of`] gives this glob, and whether all below it belongs to it. None if it is no such glob.
pub fn directory_of(glob: &str) -> Option<(String, bool)> {
    let below = match glob.rsplit('/').next()? {
        "**" => true,
        "*" => false,
        _ => return None,
    };
    let escaped = glob.rsplit_once('/').map_or("", |(dir, _)| dir);
    let mut dir = String::new();
    let mut rest = escaped.chars();
    while let Some(c) = rest.next() {
        dir.push(if c == '\\' { rest.next()? } else { c });
    }
    (glob_of(&dir, below) == glob).then_some((dir, below))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(text: &str, path: &str) -> bool {
        glob(text).unwrap().compile_matcher().is_match(path)
    }

    #[test]
    fn a_star_stays_within_a_name_and_two_do_not() {
        assert!(matches("src/*", "src/a.rs") && !matches("src/*", "src/deep/a.rs"));
        assert!(
            matches("src/**", "src/a.rs")
                && matches("src/**", "src/deep/a.rs")
                && !matches("src/**", "srcs/a")
        );
        assert!(matches("*.iso", "a.iso") && !matches("*.iso", "d/a.iso") && matches("**/*.iso", "d/a.iso"));
        assert!(matches("**", "a") && matches("**", "a/b") && matches("*", "a") && !matches("*", "a/b"));
        assert!(glob("a[").is_err());
    }

    #[test]
    fn a_directory_of_any_name_has_a_glob_that_matches_it_alone() {
        for dir in ["", "plain", "a/b c", "we[i]rd*", "{x,y}", "q?/!x", "back\\slash", "[", "]]", "ü/日"] {
            for below in [true, false] {
                let text = glob_of(dir, below);
                assert_eq!(directory_of(&text), Some((dir.to_owned(), below)), "{text}");
                let of = |name: &str| if dir.is_empty() { name.to_owned() } else { format!("{dir}/{name}") };
                assert!(matches(&text, &of("f")), "{text}");
                assert_eq!(matches(&text, &of("d/f")), below, "{text}");
                assert!(dir.is_empty() || !matches(&text, "other/f"), "{text}");
            }
        }
        assert_eq!(directory_of("src/*.rs"), None);
        assert_eq!(directory_of("s?c/**"), None);
    }
}
