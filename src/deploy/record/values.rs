//! The values of variables, stored apart from the places that use them.
//!
//! A record contains the name of a variable and a salted hash of its value, which lets a reader with the salt compare
//! values. The salt and the values are in a file of their own, which a start needs to run the applied topology
//! independently of its own environment.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::effects::random;

/// The stored values.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Values {
    /// 32 random bytes, hexadecimal.
    salt: String,
    /// By their hashes.
    values: BTreeMap<String, String>,
}

/// Omits the values, so that it can be logged.
impl fmt::Debug for Values {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Values").field("count", &self.values.len()).finish_non_exhaustive()
    }
}

impl Default for Values {
    /// No values, and a new salt.
    fn default() -> Self {
        let salt = (0..4).map(|_| format!("{:016x}", random())).collect();
        Self { salt, values: BTreeMap::new() }
    }
}

impl Values {
    /// The salted hash of some bytes.
    pub(crate) fn seal(&self, bytes: &[u8]) -> String {
        let key = blake3::derive_key("wattle values 1", self.salt.as_bytes());
        blake3::keyed_hash(&key, bytes).to_hex().to_string()
    }

    /// The value with this hash.
    pub(crate) fn open(&self, sealed: &str) -> Option<&String> {
        self.values.get(sealed)
    }

    /// The same salt with exactly these values.
    pub(crate) fn with(&self, texts: impl IntoIterator<Item = String>) -> Self {
        let values = texts.into_iter().map(|text| (self.seal(text.as_bytes()), text)).collect();
        Self { salt: self.salt.clone(), values }
    }

    /// Whether these values include all of the others.
    pub(crate) fn has(&self, others: &Self) -> bool {
        others.values.keys().all(|sealed| self.values.contains_key(sealed))
    }
}
