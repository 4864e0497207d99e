//! Identities of tokens that were verified, since a signature takes long to verify.
//!
//! Promises: bounded; an entry is found by the hash of the whole token only, and never after it has expired. Knows no
//! token.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::bounds::JWT_CACHE_MAX;
use super::identity::Identity;
use super::token::TokenHash;

/// Identities by the hash of their token.
#[derive(Default)]
pub(super) struct Cache(Mutex<CacheEntries>);

#[derive(Default)]
struct CacheEntries {
    by_hash: HashMap<TokenHash, Identity>,
    /// The oldest first.
    order: VecDeque<TokenHash>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({})", self.entries().by_hash.len())
    }
}

impl Cache {
    /// The identity of a token that was verified, and has not expired by now.
    pub(super) fn get(&self, hash: &TokenHash, now_s: u64) -> Option<Identity> {
        let entries = self.entries();
        let identity = entries.by_hash.get(hash)?;
        identity.expires_s().is_none_or(|expires_s| now_s < expires_s).then(|| identity.clone())
    }

    /// Remembers an identity, and forgets the oldest if there are too many.
    pub(super) fn put(&self, hash: TokenHash, identity: &Identity) {
        let mut entries = self.entries();
        if entries.by_hash.insert(hash, identity.clone()).is_none() {
            entries.order.push_back(hash);
        }
        while entries.order.len() > JWT_CACHE_MAX {
            let oldest = entries.order.pop_front();
            oldest.and_then(|oldest| entries.by_hash.remove(&oldest));
        }
    }

    fn entries(&self) -> MutexGuard<'_, CacheEntries> {
        // A panic cannot leave half an entry.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::identity::FileMark;
    use super::*;

    fn identity(expires_s: u64) -> Identity {
        Identity::new(&FileMark::default(), "idp:alice".into(), Vec::new(), Some(expires_s))
    }

    #[test]
    fn an_entry_ends_when_its_identity_does() {
        let (cache, hash) = (Cache::default(), TokenHash::of(b"a"));
        cache.put(hash, &identity(100));
        assert!(cache.get(&hash, 99).is_some());
        assert!(cache.get(&hash, 100).is_none());
        assert!(cache.get(&TokenHash::of(b"b"), 99).is_none());
    }

    #[test]
    fn the_oldest_are_forgotten_first() {
        let cache = Cache::default();
        let hash = |number: usize| TokenHash::of(&number.to_le_bytes());
        for number in 0..JWT_CACHE_MAX + 2 {
            cache.put(hash(number), &identity(100));
            cache.put(hash(number), &identity(200));
        }
        let found: Vec<bool> = (0..JWT_CACHE_MAX + 2).map(|number| cache.get(&hash(number), 150).is_some()).collect();
        assert_eq!(found.iter().filter(|is_found| **is_found).count(), JWT_CACHE_MAX);
        assert_eq!(found[..3], [false, false, true]);
        assert_eq!(cache.entries().order.len(), JWT_CACHE_MAX);
    }
}
