//! Bounds of access files and of what callers show, each with its reason.

use crate::topology::bounds::{NAME_BYTES_MAX, TEXT_BYTES_MAX};

/// Longest access file in bytes: 10,000 principals are about 1 MiB.
pub const FILE_BYTES_MAX: usize = 1 << 20;
const _: () = assert!(FILE_BYTES_MAX <= TEXT_BYTES_MAX);

/// Most issuers: for each a file with its keys is read, and each token is compared with all of them.
pub const ISSUERS_MAX: usize = 16;
/// Most principals: each takes some hundred bytes of memory.
pub const PRINCIPALS_MAX: usize = 10_000;
/// Most tokens, and most certificates, of one principal: a rotation needs two.
pub const CREDENTIALS_MAX: usize = 16;
/// Most claims that one principal needs: each is compared for each new JWT.
pub const CLAIMS_MAX: usize = 16;
/// Most rules: a decision may look at each of them.
pub const RULES_MAX: usize = 1_000;
/// Most patterns in all rules together: a decision that compares all of them takes less than a millisecond.
pub const PATTERNS_MAX: usize = 10_000;
/// Longest pattern in bytes: room for each full name, also of topics such as `NAME@delayed`.
pub(super) const PATTERN_BYTES_MAX: usize = 255;
const _: () = assert!(PATTERN_BYTES_MAX >= 2 * NAME_BYTES_MAX + "/@delayed".len());
/// Longest name in bytes that is compared with patterns: longer ones name nothing.
pub(super) const RESOURCE_BYTES_MAX: usize = 512;
/// Longest other text of an access file in bytes: names of issuers, audiences, certificates, claims.
pub(super) const VALUE_BYTES_MAX: usize = 1_024;

/// Longest file with the keys of an issuer in bytes: large providers have some ten keys of 1 KiB.
pub const KEYS_BYTES_MAX: usize = 256 << 10;
/// Most keys of an issuer.
pub const KEYS_MAX: usize = 100;

/// Longest JWT in bytes; reverse proxies have the same limit for a header.
pub const JWT_BYTES_MAX: usize = 8 << 10;
/// Longest `sub` of a JWT in bytes: it is in messages and in the audit.
pub const SUBJECT_BYTES_MAX: usize = 255;
/// Longest life of a JWT in seconds: it cannot be revoked.
pub const JWT_LIFE_MAX_S: u64 = 24 * 60 * 60;
/// How far the clock of an issuer may be ahead or behind, in seconds.
pub const JWT_LEEWAY_S: u64 = 60;
/// Verified JWT that are remembered, each with some hundred bytes.
pub const JWT_CACHE_MAX: usize = 1_024;
