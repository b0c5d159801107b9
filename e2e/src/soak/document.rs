//! Documents that say themselves what they are: whoever reads one knows which version it is, on which ones it
//! was written, and whether every byte of it is there.

use std::fmt::{Display, Formatter};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::str::FromStr;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

const MAGIC: &str = "nearbrick-soak";
/// Between the parts of a file's name. Conflict names keep the stem, and so the document's name.
const SEPARATOR: char = '~';

/// One version of a document: who wrote it, and the how manieth thing that was.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Version {
    /// The workstation.
    pub node: String,
    /// Which program on that workstation: they are counted over the whole soak.
    pub life: u32,
    /// The how manieth version of that program.
    pub count: u64,
}

impl Display for Version {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}_{}", self.node, self.life, self.count)
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.rsplitn(3, '_');
        let mut next = || parts.next().ok_or_else(|| format!("{text:?} is no version"));
        let (count, life, node) = (next()?, next()?, next()?);
        let odd = |_| format!("{text:?} is no version");
        Ok(Self {
            node: node.to_owned(),
            life: life.parse().map_err(odd)?,
            count: count.parse().map_err(odd)?,
        })
    }
}

impl TryFrom<String> for Version {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// What a file holds. A document is called after its first version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The document.
    pub name: Version,
    /// The version.
    pub version: Version,
    /// The versions that its writer had read before.
    pub parents: Vec<Version>,
    /// Bytes after the first line.
    pub length: usize,
}

impl Document {
    /// The file's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let parents: Vec<String> = self.parents.iter().map(ToString::to_string).collect();
        let (name, version, length) = (&self.name, &self.version, self.length);
        let mut bytes = format!("{MAGIC} {name} {version} {} {length}\n", parents.join(",")).into_bytes();
        let start = bytes.len();
        bytes.resize(start + length, 0);
        random(version).fill_bytes(&mut bytes[start..]);
        bytes
    }

    /// What a file's bytes are.
    ///
    /// # Errors
    /// They are not a whole version; the line says in what way.
    pub fn read(bytes: &[u8]) -> Result<Self, String> {
        let end = bytes.iter().position(|b| *b == b'\n').ok_or("there is no first line")?;
        let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "the first line is no text")?;
        let parts: Vec<&str> = line.split(' ').collect();
        let [MAGIC, name, version, parents, length] = parts[..] else {
            return Err(format!("odd first line {line:?}"));
        };
        let document = Self {
            name: name.parse()?,
            version: version.parse()?,
            parents: parents
                .split(',')
                .filter(|p| !p.is_empty())
                .map(str::parse)
                .collect::<Result<_, _>>()?,
            length: length.parse().map_err(|_| format!("odd length {length:?}"))?,
        };
        let body = &bytes[end + 1..];
        if body.len() != document.length {
            return Err(format!("{version} has {} of {length} bytes", body.len()));
        }
        let mut wanted = vec![0; body.len()];
        random(&document.version).fill_bytes(&mut wanted);
        match body.iter().zip(&wanted).position(|(a, b)| a != b) {
            None => Ok(document),
            Some(at) => Err(format!("byte {at} of {version} ({length} bytes) is another")),
        }
    }
}

fn random(version: &Version) -> StdRng {
    let mut hasher = DefaultHasher::new();
    version.hash(&mut hasher);
    StdRng::seed_from_u64(hasher.finish())
}

/// The name of the file for a document; `turn` changes with each move.
pub fn file_name(document: &Version, turn: u64) -> String {
    format!("doc{SEPARATOR}{document}{SEPARATOR}{turn}.txt")
}

/// Which document a file's name is of.
pub fn document_of(file_name: &str) -> Option<Version> {
    let mut parts = file_name.split(SEPARATOR);
    (parts.next() == Some("doc")).then(|| parts.next()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(count: u64) -> Version {
        Version { node: "ws-a".to_owned(), life: 2, count }
    }

    #[test]
    fn a_document_is_read_as_it_was_written_and_each_damage_is_seen() {
        for length in [0, 1, 5000] {
            let parents = vec![version(3), version(4)];
            let document = Document { name: version(1), version: version(9), parents, length };
            let bytes = document.bytes();
            assert_eq!(Document::read(&bytes), Ok(document));
            assert!(Document::read(&bytes[..bytes.len() - 1]).is_err());
            assert!(Document::read(&[&bytes[..], b"x"].concat()).is_err());
            let mut other = bytes.clone();
            let last = other.len() - 1;
            other[last] ^= 1;
            assert!(Document::read(&other).is_err());
        }
        assert!(Document::read(b"").is_err());
        assert!(Document::read(&[0; 100]).is_err());
    }

    #[test]
    fn names_keep_the_document_also_as_conflict_names() {
        assert_eq!(document_of(&file_name(&version(7), 2)), Some(version(7)));
        assert_eq!(document_of("doc~ws-a_2_7~2 (conflict, ws-b, 2026-11-26).txt"), Some(version(7)));
        assert_eq!(document_of("doc"), None);
        assert_eq!(document_of(".new~ws-a_2_7~2.txt"), None);
    }
}
