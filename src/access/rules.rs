//! The rules of a checked access file: who a caller is, and what it may do.
//!
//! Promises: what no rule allows is refused; credentials that are wrong are an error, never those of another caller.
//! Relies on the caller for the time, and for certificates that were verified.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::cache::Cache;
use super::error::CredentialsError;
use super::identity::{Authorization, CertificateNames, Credentials, FileMark, Identity, PrincipalIndex};
use super::jwt::{self, Issuer, VerifiedClaims};
use super::pattern::Pattern;
use super::right::{Resource, Verb, Verbs};
use super::token::{self, TokenHash};

/// A checked access file.
pub struct Access {
    pub(super) mark: FileMark,
    /// The first is the caller without credentials.
    pub(super) principals: Vec<Principal>,
    pub(super) rules: Vec<Rule>,
    pub(super) tokens: HashMap<TokenHash, (TokenHash, PrincipalIndex)>,
    pub(super) uris: HashMap<String, PrincipalIndex>,
    pub(super) dns: HashMap<String, PrincipalIndex>,
    pub(super) issuers: Vec<Issuer>,
    pub(super) claims: Vec<ClaimedPrincipal>,
    pub(super) cache: Cache,
}

/// A caller that the file names.
pub(super) struct Principal {
    pub(super) name: Arc<str>,
    /// What it is with a token or a certificate.
    pub(super) identity: Identity,
    /// The second since 1970 at which its credentials expire.
    pub(super) expires_s: Option<u64>,
    /// Positions of the rules that name it.
    pub(super) rules: Vec<u32>,
    pub(super) limits: PrincipalLimits,
}

/// A principal that is recognised by claims of a JWT: all of them.
pub(super) struct ClaimedPrincipal {
    pub(super) principal: PrincipalIndex,
    /// Position of the issuer.
    pub(super) issuer: usize,
    pub(super) claims: Vec<(String, String)>,
}

/// What its principals may do.
pub(super) struct Rule {
    pub(super) verbs: Verbs,
    pub(super) topics: Vec<Pattern>,
    pub(super) subscribers: Vec<Pattern>,
    pub(super) bus: bool,
}

/// Limits of a caller; `None` is unlimited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrincipalLimits {
    pub connections: Option<u32>,
    pub publish_bytes_per_s: Option<u64>,
    /// Bytes of published events that wait for the disk.
    pub in_flight_bytes: Option<u64>,
}

impl PrincipalLimits {
    /// Of each kind the lower one: a further principal lifts no limit.
    fn lowest(self, other: Self) -> Self {
        fn lower<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
            one.into_iter().chain(other).min()
        }
        Self {
            connections: lower(self.connections, other.connections),
            publish_bytes_per_s: lower(self.publish_bytes_per_s, other.publish_bytes_per_s),
            in_flight_bytes: lower(self.in_flight_bytes, other.in_flight_bytes),
        }
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Access");
        shown.field("principals", &self.principal_count()).field("rules", &self.rules.len());
        shown.field("issuers", &self.issuers.len()).finish_non_exhaustive()
    }
}

impl Access {
    /// Number of the principals that the file declares.
    pub fn principal_count(&self) -> usize {
        self.principals.len().saturating_sub(1)
    }

    /// Number of its rules.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Who a caller is that has shown this, at this time in seconds since 1970: by the header `authorization` if there
    /// is one, else by the names in its certificate (URIs, then DNS names), else the caller without credentials.
    ///
    /// # Errors
    /// [`CredentialsError`]: it has shown what is not that of a principal.
    pub fn identify(&self, credentials: &Credentials<'_>, now_s: u64) -> Result<Identity, CredentialsError> {
        match (credentials.authorization, credentials.certificate) {
            (Authorization::Repeated, _) => Err(CredentialsError::Repeated),
            (Authorization::Value(value), _) => self.by_token(token::bearer(value)?, now_s),
            (Authorization::Absent, Some(names)) => self.by_certificate(names, now_s),
            (Authorization::Absent, None) => {
                self.principals.first().map(|anonymous| anonymous.identity.clone()).ok_or(CredentialsError::NotAToken)
            }
        }
    }

    /// Whether a rule allows a caller to do this.
    pub fn may(&self, who: &Identity, verb: Verb, resource: Resource<'_>) -> bool {
        self.rules_of(who).any(|rule| rule.verbs.contains(verb) && rule.names(resource))
    }

    /// Whether a rule allows a caller to do this to any resource at all.
    pub fn may_somewhere(&self, who: &Identity, verb: Verb) -> bool {
        self.rules_of(who).any(|rule| rule.verbs.contains(verb))
    }

    /// The limits of a caller.
    pub fn limits(&self, who: &Identity) -> PrincipalLimits {
        let limits = who.principals_of(&self.mark).filter_map(|index| self.principal(index)).map(|of| of.limits);
        limits.fold(PrincipalLimits::default(), PrincipalLimits::lowest)
    }

    fn principal(&self, index: PrincipalIndex) -> Option<&Principal> {
        self.principals.get(index.0 as usize)
    }

    fn rules_of(&self, who: &Identity) -> impl Iterator<Item = &Rule> {
        let principals = who.principals_of(&self.mark).filter_map(|index| self.principal(index));
        principals.flat_map(|principal| &principal.rules).filter_map(|index| self.rules.get(*index as usize))
    }

    fn by_token(&self, token: &[u8], now_s: u64) -> Result<Identity, CredentialsError> {
        if token.starts_with(token::PREFIX.as_bytes()) {
            if !token::is_token(token) {
                return Err(CredentialsError::NotAToken);
            }
            let hash = TokenHash::of(token);
            let found = self.tokens.get(&hash).filter(|(known, _)| known.is(&hash));
            let (_, index) = found.ok_or(CredentialsError::UnknownToken)?;
            return self.as_principal(*index, now_s);
        }
        if self.issuers.is_empty() {
            return Err(CredentialsError::NotAToken);
        }
        let hash = TokenHash::of(token);
        if let Some(identity) = self.cache.get(&hash, now_s) {
            return Ok(identity);
        }
        let (issuer, claims) = jwt::verify(&self.issuers, token, now_s).map_err(CredentialsError::Jwt)?;
        let identity = self.by_claims(issuer, &claims, now_s)?;
        self.cache.put(hash, &identity);
        Ok(identity)
    }

    fn by_claims(&self, issuer: usize, claims: &VerifiedClaims, now_s: u64) -> Result<Identity, CredentialsError> {
        let issuer_name = self.issuers.get(issuer).map_or("", |issuer| issuer.name.as_str());
        let name = format!("{issuer_name}:{}", claims.subject);
        let claimed = self.claims.iter().filter(|claimed| claimed.issuer == issuer && claimed.has(claims));
        let principals = claimed.filter_map(|claimed| Some((claimed.principal, self.principal(claimed.principal)?)));
        let principals: Vec<_> = principals.filter(|(_, principal)| !principal.is_expired(now_s)).collect();
        if principals.is_empty() {
            return Err(CredentialsError::UnknownClaims(name));
        }
        let ends = principals.iter().filter_map(|(_, principal)| principal.expires_s);
        let expires_s = ends.chain([claims.expires_s]).min();
        let principals = principals.into_iter().map(|(index, principal)| (index, principal.name.clone())).collect();
        Ok(Identity::new(&self.mark, name, principals, expires_s))
    }

    fn by_certificate(&self, names: &CertificateNames, now_s: u64) -> Result<Identity, CredentialsError> {
        let by_uri = || names.uris.iter().find_map(|uri| self.uris.get(uri));
        let by_dns = || names.dns.iter().find_map(|name| self.dns.get(&name.to_ascii_lowercase()));
        match by_uri().or_else(by_dns) {
            Some(index) => self.as_principal(*index, now_s),
            None => Err(CredentialsError::UnknownCertificate(shown(names))),
        }
    }

    fn as_principal(&self, index: PrincipalIndex, now_s: u64) -> Result<Identity, CredentialsError> {
        let principal = self.principal(index).ok_or(CredentialsError::UnknownToken)?;
        if principal.is_expired(now_s) { Err(CredentialsError::Expired) } else { Ok(principal.identity.clone()) }
    }
}

impl Principal {
    fn is_expired(&self, now_s: u64) -> bool {
        self.expires_s.is_some_and(|expires_s| now_s >= expires_s)
    }
}

impl ClaimedPrincipal {
    /// Whether a token has all of its claims: each a text that is equal, or a list with such a text.
    fn has(&self, claims: &VerifiedClaims) -> bool {
        let is_equal = |value: &serde_json::Value, wanted: &str| value.as_str() == Some(wanted);
        self.claims.iter().all(|(name, wanted)| match claims.all.get(name) {
            Some(serde_json::Value::Array(values)) => values.iter().any(|value| is_equal(value, wanted)),
            Some(value) => is_equal(value, wanted),
            None => false,
        })
    }
}

impl Rule {
    fn names(&self, resource: Resource<'_>) -> bool {
        match resource {
            Resource::Topic(name) => self.topics.iter().any(|pattern| pattern.matches(name)),
            Resource::Subscriber(name) => self.subscribers.iter().any(|pattern| pattern.matches(name)),
            Resource::Namespace(namespace) => {
                let mut patterns = self.topics.iter().chain(&self.subscribers);
                patterns.any(|pattern| pattern.matches_all_of(namespace))
            }
            Resource::Bus => self.bus,
        }
    }
}

/// The first name of a certificate, in a message.
fn shown(names: &CertificateNames) -> String {
    const CHARACTERS_MAX: usize = 255;
    match names.uris.iter().chain(&names.dns).next() {
        Some(name) => name.escape_debug().take(CHARACTERS_MAX).collect(),
        None => "it has none".to_owned(),
    }
}
