//! The identity of a plugin's version.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limits::Limits;

/// A BLAKE3 hash. As a version: of the component's bytes, its configuration, limits and ports, so that a change of any
/// of them is another version. Secrets of the configuration are in it only as a part of what is hashed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

/// A text is not a digest: 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a digest has 64 hexadecimal digits")]
pub struct NotADigest;

impl Digest {
    /// The hash of some bytes, such as those of a component.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first eight bytes in hexadecimal, for people.
    pub fn short(&self) -> String {
        self.to_string().chars().take(16).collect()
    }

    /// What makes up a version. The layout is a promise: a released digest must not change for the same inputs.
    ///
    /// Every part is preceded by its length or count as a little-endian u64, so that no two inputs look the same.
    pub(super) fn of_version(
        wasm: &[u8],
        config: &BTreeMap<String, String>,
        limits: &Limits,
        ports: &[String],
    ) -> Digest {
        let mut hasher = blake3::Hasher::new_derive_key("wattle plugin version 1");
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        };
        part(blake3::hash(wasm).as_bytes());
        part(&(config.len() as u64).to_le_bytes());
        for (key, value) in config {
            part(key.as_bytes());
            part(value.as_bytes());
        }
        let Limits { memory_bytes, time, output_bytes, handles, log_lines_per_second } = limits;
        part(&memory_bytes.to_le_bytes());
        part(&time.as_nanos().to_le_bytes());
        part(&output_bytes.to_le_bytes());
        part(&handles.to_le_bytes());
        part(&log_lines_per_second.to_le_bytes());
        for port in ports {
            part(port.as_bytes());
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

impl From<[u8; 32]> for Digest {
    fn from(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Digest, NotADigest> {
        let mut digest = [0; 32];
        if text.len() != 64 {
            return Err(NotADigest);
        }
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digit = |at: usize| digits.get(at).and_then(|digit| char::from(*digit).to_digit(16));
            let (high, low) = digit(0).zip(digit(1)).ok_or(NotADigest)?;
            *byte = (high * 16 + low) as u8;
        }
        Ok(Digest(digest))
    }
}

impl TryFrom<String> for Digest {
    type Error = NotADigest;

    fn try_from(text: String) -> Result<Digest, NotADigest> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_change_of_anything_is_another_version() {
        let limits = Limits::default();
        let one = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let ports = ["a".to_owned()];
        let versions = [
            Digest::of_version(b"x", &BTreeMap::new(), &limits, &ports),
            Digest::of_version(b"y", &BTreeMap::new(), &limits, &ports),
            Digest::of_version(b"x", &one("a", "b"), &limits, &ports),
            Digest::of_version(b"x", &one("ab", ""), &limits, &ports),
            Digest::of_version(b"x", &BTreeMap::new(), &Limits { time: Duration::from_secs(2), ..limits }, &ports),
            Digest::of_version(b"x", &BTreeMap::new(), &limits, &[]),
        ];
        for (i, a) in versions.iter().enumerate() {
            assert!(versions.iter().skip(i + 1).all(|b| a != b), "version {i} is not unique");
        }
    }

    #[test]
    fn a_digest_is_read_as_it_is_written() {
        let digest = Digest::of(b"x");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65), &"ü".repeat(32)] {
            assert_eq!(wrong.parse::<Digest>(), Err(NotADigest), "{wrong}");
        }
    }

    #[test]
    fn a_version_keeps_its_digest_from_release_to_release() {
        let config = BTreeMap::from([("currency".to_owned(), "EUR".to_owned())]);
        let ports = ["accepted".to_owned(), "refused".to_owned()];
        assert_eq!(
            Digest::of_version(b"\0asm", &config, &Limits::default(), &ports).to_string(),
            "50eeee37fd8035f882839c89069a45a4c03c2cec0f2790b254d5673330c3e259",
        );
    }
}
