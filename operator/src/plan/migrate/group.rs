//! A group of related files: directories whose files move together.

use nearbrick_crds::HotGroup;
use nearbrick_crds::paths::{directory_of, glob_of};

/// Directories, each once, and whether all below it belongs to the group. The first is the one that the group is called by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group(Vec<(String, bool)>);

impl Group {
    /// What a brick reports.
    pub fn of(hot: &HotGroup) -> Self {
        let mut dirs = vec![(hot.path.clone(), hot.below)];
        for dir in hot.with.iter().map(|dir| (dir.clone(), false)) {
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        Group(dirs)
    }

    /// The group of these globs, if each is that of a directory.
    pub fn of_globs(paths: &[String]) -> Option<Self> {
        let dirs: Vec<_> = paths.iter().map(|p| directory_of(p)).collect::<Option<_>>()?;
        (!dirs.is_empty()).then_some(Group(dirs))
    }

    /// The globs of its files.
    pub fn globs(&self) -> Vec<String> {
        self.0.iter().map(|(dir, below)| glob_of(dir, *below)).collect()
    }

    /// The directory that it is called by.
    pub fn path(&self) -> &str {
        self.0.first().map_or("", |(dir, _)| dir)
    }

    /// Whether a directory belongs to both.
    pub fn shares(&self, other: &Group) -> bool {
        self.0.iter().any(|dir| other.0.contains(dir))
    }

    /// Whether a directory of one lies in a directory of the other.
    pub fn overlaps(&self, other: &Group) -> bool {
        self.0.iter().any(|a| other.0.iter().any(|b| within(&a.0, b) || within(&b.0, a)))
    }
}

fn within(inner: &str, outer: &(String, bool)) -> bool {
    inner == outer.0
        || outer.1
            && (outer.0.is_empty() || inner.strip_prefix(&outer.0).is_some_and(|rest| rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_several_directories_are_their_globs_and_back() {
        let with = vec!["b [x]".to_string(), "c/d".to_string(), "a".to_string()];
        let hot = HotGroup { path: "a".into(), with, ..HotGroup::default() };
        let group = Group::of(&hot);
        assert_eq!(group.globs(), ["a/*", "b \\[x\\]/*", "c/d/*"]);
        assert_eq!(Group::of_globs(&group.globs()), Some(group.clone()));
        assert_eq!(Group::of_globs(&["a/*.rs".to_string()]), None);
        assert_eq!(Group::of_globs(&[]), None);
        let one =
            |path: &str, below| Group::of(&HotGroup { path: path.into(), below, ..HotGroup::default() });
        assert!(group.shares(&one("c/d", false)) && !group.shares(&one("c/d", true)));
        assert!(
            group.overlaps(&one("c", true))
                && !group.overlaps(&one("c", false))
                && group.overlaps(&one("", true))
        );
    }
}
