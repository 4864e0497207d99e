//! The values of variables, apart from all that says where they are used.
//!
//! A record has the name of a variable and what stands for its value: a hash that says "same or not" to a reader that has the salt.
//! The salt and the values are here, in a file of their own, which is what runs after a start needs, whatever the environment
//! of that start is.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::effects::random;

/// The values, as they are kept.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Values {
    /// 32 random bytes, hexadecimal.
    salt: String,
    /// Each by what stands for it.
    values: BTreeMap<String, String>,
}

/// Without the values: it is logged as it is.
impl fmt::Debug for Values {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Values").field("count", &self.values.len()).finish_non_exhaustive()
    }
}

impl Default for Values {
    /// None, and a new salt.
    fn default() -> Self {
        let salt = (0..4).map(|_| format!("{:016x}", random())).collect();
        Self { salt, values: BTreeMap::new() }
    }
}

impl Values {
    /// What stands for some bytes.
    pub(crate) fn seal(&self, bytes: &[u8]) -> String {
        let key = blake3::derive_key("wattle values 1", self.salt.as_bytes());
        blake3::keyed_hash(&key, bytes).to_hex().to_string()
    }

    /// The value behind what stands for it.
    pub(crate) fn open(&self, sealed: &str) -> Option<&String> {
        self.values.get(sealed)
    }

    /// The same with exactly these values.
    pub(crate) fn with(&self, texts: impl IntoIterator<Item = String>) -> Self {
        let values = texts.into_iter().map(|text| (self.seal(text.as_bytes()), text)).collect();
        Self { salt: self.salt.clone(), values }
    }

    /// Whether all of others are among them.
    pub(crate) fn has(&self, others: &Self) -> bool {
        others.values.keys().all(|sealed| self.values.contains_key(sealed))
    }
}
