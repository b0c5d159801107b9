//! `pending`: what has been written but not yet copied, as files, bytes and the age of the oldest.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What has still to be copied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pending {
    /// Files whose newest data has still to be copied.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// The bytes as a person reads them, for example `214.3 MiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<String>,
    /// Since when the oldest of them has been waiting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_since: Option<Time>,
    /// Since when the newest of them has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_since: Option<Time>,
}

impl Pending {
    /// A count with its human form. The age is dropped where nothing is pending.
    pub fn new(files: u64, bytes: u64, oldest_since: Option<Time>) -> Self {
        let oldest_since = if files == 0 { None } else { oldest_since };
        Self { files, bytes, size: Some(human_bytes(bytes)), oldest_since, newest_since: None }
    }

    /// The same, with the age of the newest.
    #[must_use]
    pub fn newest(self, since: Option<Time>) -> Self {
        Self { newest_since: since.filter(|_| self.files > 0), ..self }
    }

    /// Whether nothing is pending.
    pub fn is_empty(&self) -> bool {
        self.files == 0
    }
}

/// `bytes` as a person reads them: `0 B`, `999 B`, `1.0 KiB`, `214.3 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, rounded, in integers: exact for every u64.
    let mut unit = 0;
    let mut scale: u128 = 1024;
    let tenths = |scale: u128| (u128::from(bytes) * 10 + scale / 2) / scale;
    while tenths(scale) >= 10_240 && unit + 1 < UNITS.len() {
        unit += 1;
        scale *= 1024;
    }
    let t = tenths(scale);
    format!("{}.{} {}", t / 10, t % 10, UNITS[unit])
}

/// `files` as a person reads them: `1 file`, `2 files`.
pub fn human_files(files: u64) -> String {
    if files == 1 { "1 file".to_string() } else { format!("{files} files") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_as_people_read_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (1024 * 1024 - 1, "1.0 MiB"),
            (224_709_837, "214.3 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn nothing_pending_has_no_age() {
        let p = Pending::new(0, 0, Some(crate::meta::now()));
        assert!(p.is_empty());
        assert_eq!(p.oldest_since, None);
    }
}
