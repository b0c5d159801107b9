//! The group `files.nearbrick.io/v1alpha1`: what agents know of the files of a volume, asked for through the API server.
//!
//! Nothing of it is an object that is kept. The operator answers for the API server, and asks the agents of the volume's bricks: what both
//! say to each other ([`Ask`], [`Answer`]) and what people get is here, so that agent, operator and plugin know it once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, Time};
use serde::{Deserialize, Serialize};

/// The group.
pub const GROUP: &str = "files.nearbrick.io";
/// Its only version so far.
pub const VERSION: &str = "v1alpha1";
/// What its objects say of themselves.
pub const API_VERSION: &str = "files.nearbrick.io/v1alpha1";
/// The URI in the operator's certificate, by which agents know it. No node's certificate has one.
pub const OPERATOR: &str = "urn:nearbrick:operator";
/// Rows of a page where no number is asked for.
pub const USUAL_ROWS: u32 = 500;
/// Rows of a page, at most.
pub const MOST_ROWS: u32 = 1000;
/// Bytes of a path that is asked for, at most.
pub const LONGEST_PATH: usize = 4096;
/// Kept versions of one brick that are listed, at most: the last ones.
pub const MOST_VERSIONS: usize = 1000;

/// What can be asked of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// What is pending: `get`.
    Pending,
    /// Who holds which version of a file: `get`.
    Where,
    /// Which versions are kept: `get`.
    Versions,
    /// A kept version comes back: `create`.
    Restore,
    /// Copies are read and compared with their hashes: `create`.
    Verify,
}

impl Subject {
    /// All of them.
    pub const ALL: [Subject; 5] =
        [Subject::Pending, Subject::Where, Subject::Versions, Subject::Restore, Subject::Verify];

    /// Its name in a request's path, and in rules of RBAC after `workstationvolumes/`.
    pub fn as_str(self) -> &'static str {
        match self {
            Subject::Pending => "pending",
            Subject::Where => "where",
            Subject::Versions => "versions",
            Subject::Restore => "restore",
            Subject::Verify => "verify",
        }
    }

    /// What RBAC calls the request.
    pub fn verb(self) -> &'static str {
        match self {
            Subject::Pending | Subject::Where | Subject::Versions => "get",
            Subject::Restore | Subject::Verify => "create",
        }
    }

    /// The kind of what is answered.
    pub fn kind(self) -> &'static str {
        match self {
            Subject::Pending => PendingFileList::KIND,
            Subject::Where => FileWhereabouts::KIND,
            Subject::Versions => KeptVersionList::KIND,
            Subject::Restore => RestoredFile::KIND,
            Subject::Verify => FileVerification::KIND,
        }
    }

    /// The path of the request.
    pub fn path(self, namespace: &str, volume: &str) -> String {
        format!("/apis/{API_VERSION}/namespaces/{namespace}/workstationvolumes/{volume}/{}", self.as_str())
    }
}

/// What the operator asks the agent of one brick.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    /// A page of what is pending.
    Pending(PendingAsk),
    /// Who holds which version of the file at this path.
    Where {
        /// From the volume's root.
        path: String,
    },
    /// The versions that are kept on this brick.
    Versions {
        /// Of which file or directory; of all if it is empty.
        path: String,
    },
    /// One of them comes back.
    Restore(RestoreRequest),
    /// The copies on this brick are read.
    Verify(VerifyRequest),
}

/// What it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To [`Ask::Pending`].
    Pending(PendingPage),
    /// To [`Ask::Where`].
    Where(Box<Whereabouts>),
    /// To [`Ask::Versions`].
    Versions(KeptPage),
    /// To [`Ask::Restore`]: under this path.
    Restored(String),
    /// To [`Ask::Verify`].
    Verify(Verifying),
    /// It is not done.
    Refused {
        /// What kind of reason that has.
        why: Refusal,
        /// One line.
        line: String,
    },
}

/// Why an agent does not do what it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The question makes no sense.
    Bad,
    /// There is no such file, or no such version here.
    NotFound,
    /// It cannot be done now.
    Busy,
    /// It fails.
    Failed,
}

/// A page of what is pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PendingAsk {
    /// Only what the brick of this workstation lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only this file, or what is below this directory.
    pub path: String,
    /// Rows, at most.
    pub limit: u32,
    /// Where the page before ended.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A part of the table of what is pending, in the order of the files' ids: the same at all agents that have heard the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PendingPage {
    /// The rows.
    pub files: Vec<PendingFile>,
    /// Where the next page begins; none: this was the last.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Rows of the whole table, whatever was asked for.
    pub total: u64,
}

/// A file of which a brick lacks the newest data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PendingFile {
    /// From the volume's root. What is not text in it is replaced.
    pub path: String,
    /// The file's id.
    pub file: String,
    /// Bytes of the newest version known.
    pub size: u64,
    /// The bricks that lack it.
    pub lacking: Vec<Lacking>,
    /// The workstations whose bricks hold the newest version.
    pub held_by: Vec<String>,
}

/// A brick that lacks the newest data of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Lacking {
    /// Its workstation.
    pub node: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Why a heal cannot bring it now, as in a job's `failures`; none: the next heal is to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a brick has of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// Its newest version.
    Newest,
    /// One of several versions of which none includes the others.
    Conflicting,
    /// An older version.
    Older,
    /// Name and attributes; the data, or the rest of it, is elsewhere.
    Stub,
    /// Nothing: its agent has not joined the volume yet.
    #[default]
    Nothing,
}

impl Holding {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Holding::Newest => "newest",
            Holding::Conflicting => "in conflict",
            Holding::Older => "older",
            Holding::Stub => "stub",
            Holding::Nothing => "nothing",
        }
    }
}

/// What one brick has of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BrickHolding {
    /// Its workstation.
    pub node: String,
    /// What it has.
    pub holds: Holding,
    /// Whether it is in the file's replica set.
    pub in_set: bool,
    /// Programs there are changing the file.
    pub being_written: bool,
    /// Bytes of the version that it holds, if that is one that counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The workstation on which that was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
    /// When it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_at: Option<Time>,
    /// Its copy is known to be damaged, or to differ from another's.
    pub damaged: bool,
    /// When the copy was last read and found right, as far as its own agent knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified_at: Option<Time>,
    /// Its own agent said this, not another's.
    pub first_hand: bool,
}

/// What one agent knows of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Whereabouts {
    /// The file's id.
    pub file: String,
    /// Bytes of the newest version.
    pub size: u64,
    /// There are versions of which none includes the others.
    pub in_conflict: bool,
    /// All bricks of the volume.
    pub bricks: Vec<BrickHolding>,
}

/// Kept versions of one brick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeptPage {
    /// The oldest first.
    pub versions: Vec<KeptVersion>,
    /// Older ones are left out.
    pub cut: bool,
}

/// A version that is kept on a brick, beside the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeptVersion {
    /// Its name.
    pub version: String,
    /// On which workstation.
    pub node: String,
    /// Where it was, from the volume's root, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Why it is kept: `lost`, `deleted`, `replaced`, `damaged`, `unjudged`.
    pub why: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// Bytes.
    pub size: u64,
    /// When it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_at: Option<Time>,
    /// The workstation on which it was written, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub writer: Option<String>,
}

/// A kept version is to come back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreRequest {
    /// Its name.
    pub version: String,
    /// Of which file or directory it must be.
    #[serde(default)]
    pub path: String,
    /// Where it is put; none: where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The workstation on which it is kept; any if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// Copies are to be read and compared with their hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct VerifyRequest {
    /// Only the brick of this workstation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Only this file, or what is below this directory: read while the request waits. Without it the whole brick, which goes on after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Where the answer before ended.
    #[serde(default, rename = "continue", skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// What came of it on one brick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Verifying {
    /// Its workstation.
    pub node: String,
    /// Since when the whole brick is looked through: `verifying` and `verification` of the `Brick` say how far that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub began: Option<Time>,
    /// What was read of a path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read: Option<crate::Verified>,
    /// Files that were found damaged, some of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
    /// Where to go on; none: it came to its end.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// A brick of which nothing was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Silent {
    /// Its workstation.
    pub node: String,
    /// Why, in one line.
    pub why: String,
}

/// The name and namespace of the volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeMeta {
    /// The volume.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// Gives objects their `apiVersion` and `kind`.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            /// The group and its version.
            pub api_version: String,
            /// Its kind.
            pub kind: String,
            $($(#[$fdoc])* pub $field: $type,)*
        }

        impl $name {
            /// Its kind.
            pub const KIND: &str = stringify!($name);

            /// With these fields.
            #[allow(clippy::new_without_default)]
            pub fn new($($field: $type),*) -> Self {
                Self { api_version: API_VERSION.to_owned(), kind: Self::KIND.to_owned(), $($field),* }
            }
        }
    };
}

object! {
    /// A page of what is pending in a volume.
    PendingFileList {
        /// Where the next page begins.
        metadata: ListMeta,
        /// The workstation whose agent said it.
        as_known_by: String,
        /// Rows of the whole table, whatever was asked for.
        total: u64,
        /// When the next heal is due, by the volume's policy.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        next_heal_time: Option<Time>,
        /// Bricks whose agents were asked before and did not answer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        silent: Vec<Silent>,
        /// The rows.
        items: Vec<PendingFile>,
    }
}

object! {
    /// Who holds which version of a file.
    FileWhereabouts {
        /// The volume.
        metadata: VolumeMeta,
        /// The file, from the volume's root.
        path: String,
        /// The workstation whose agent said what no brick's own did.
        as_known_by: String,
        /// Bricks whose own agents did not answer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        silent: Vec<Silent>,
        /// What is known.
        status: Whereabouts,
    }
}

object! {
    /// Versions that are kept on bricks of a volume, beside the tree.
    KeptVersionList {
        /// Nothing but what every list has.
        metadata: ListMeta,
        /// Workstations of whose versions older ones are left out.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cut: Vec<String>,
        /// Bricks of which nothing was heard.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        silent: Vec<Silent>,
        /// The versions, the oldest first.
        items: Vec<KeptVersion>,
    }
}

object! {
    /// A kept version that came back.
    RestoredFile {
        /// The volume.
        metadata: VolumeMeta,
        /// The version.
        version: String,
        /// Where it is now, from the volume's root.
        path: String,
        /// The workstation whose agent put it there.
        node: String,
    }
}

object! {
    /// What reading copies found, or that it began.
    FileVerification {
        /// The volume.
        metadata: VolumeMeta,
        /// Bricks whose agents did not answer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        silent: Vec<Silent>,
        /// The bricks.
        bricks: Vec<Verifying>,
    }
}

/// Why a path from the volume's root cannot be asked for: one clear line. Slashes at its ends do not matter.
///
/// # Errors
/// It is too long, or has a part that is no name.
pub fn checked_path(path: &str) -> Result<&str, String> {
    let path = path.trim_matches('/');
    if path.len() > LONGEST_PATH {
        return Err(format!("a path has at most {LONGEST_PATH} bytes"));
    }
    let odd = |name: &str| name.is_empty() || name == "." || name == ".." || name.contains('\0');
    match path.is_empty() || !path.split('/').any(odd) {
        true => Ok(path),
        false => Err(format!(
            "{path:?} is no path from the volume's root: write one without empty parts, . and .."
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_names_with_slashes_between() {
        for good in ["", "/", "a", "/a/b/", "a b/\u{e9}.txt", "..."] {
            assert!(checked_path(good).is_ok(), "{good:?}");
        }
        for bad in ["a//b", "..", "a/../b", "./a", "a\0b", &"x".repeat(LONGEST_PATH + 1)] {
            assert!(checked_path(bad).is_err(), "{bad:?}");
        }
        assert_eq!(checked_path("/a/b/"), Ok("a/b"));
    }

    #[test]
    fn objects_say_what_they_are() {
        let list = PendingFileList::new(ListMeta::default(), "ws-a".into(), 0, None, Vec::new(), Vec::new());
        let value = serde_json::to_value(&list).unwrap();
        assert_eq!((&value["apiVersion"], &value["kind"]), (&API_VERSION.into(), &"PendingFileList".into()));
        assert_eq!(
            Subject::Pending.path("lab", "home"),
            "/apis/files.nearbrick.io/v1alpha1/namespaces/lab/workstationvolumes/home/pending"
        );
    }
}
