//! JSON Web Tokens: signed by an issuer whose public keys are known.
//!
//! Promises: a token is accepted only by an algorithm with a public key that its issuer uses and its key is for, with
//! the claims that are required, in their time. What a token says of keys (`jku`, `x5u`, `jwk`, `x5c`) is ignored, and
//! nothing is fetched. Relies on the caller for the time.

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::bounds::{JWT_LEEWAY_S, JWT_LIFE_MAX_S, SUBJECT_BYTES_MAX};
use super::error::JwtError;
use super::keyset::PublicKey;

/// The claims that each token has.
const REQUIRED: [&str; 4] = ["exp", "iss", "aud", "sub"];

/// An issuer of tokens.
#[derive(Debug)]
pub(super) struct Issuer {
    /// What the access file calls it.
    pub(super) name: String,
    /// The `iss` of its tokens.
    pub(super) issuer: String,
    algorithms: Vec<Algorithm>,
    keys: Vec<IssuerKey>,
}

#[derive(Debug)]
struct IssuerKey {
    id: Option<String>,
    key: DecodingKey,
    /// How a token is checked, by its algorithm.
    validations: Vec<(Algorithm, Validation)>,
}

/// What a token says that is valid.
#[derive(Debug)]
pub(super) struct VerifiedClaims {
    pub(super) subject: String,
    pub(super) all: Map<String, Value>,
    /// From when on it is refused.
    pub(super) expires_s: u64,
}

impl Issuer {
    /// An issuer that signs by these algorithms, with keys that are for some of them.
    pub(super) fn new(
        name: &str,
        issuer: &str,
        audience: &str,
        algorithms: Vec<Algorithm>,
        keys: Vec<PublicKey>,
    ) -> Self {
        let validation = |algorithm: Algorithm| {
            let mut validation = Validation::new(algorithm);
            validation.set_issuer(&[issuer]);
            validation.set_audience(&[audience]);
            validation.set_required_spec_claims(&REQUIRED);
            // The library asks the clock of the machine: times are checked here.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            (algorithm, validation)
        };
        let keys = keys.into_iter().map(|PublicKey { id, algorithms, key }| IssuerKey {
            id,
            key,
            validations: algorithms.into_iter().map(validation).collect(),
        });
        Self { name: name.to_owned(), issuer: issuer.to_owned(), algorithms, keys: keys.collect() }
    }

    /// The key of this name, which may only be left out where there is no other, and how it verifies.
    fn key(&self, id: Option<&str>, algorithm: Algorithm) -> Result<(&DecodingKey, &Validation), JwtError> {
        if !self.algorithms.contains(&algorithm) {
            return Err(JwtError::Algorithm);
        }
        if id.is_none() && self.keys.len() > 1 {
            return Err(JwtError::NoKey);
        }
        let mut named = self.keys.iter().filter(|key| id.is_none() || key.id.as_deref() == id);
        let found = named.find_map(|IssuerKey { key, validations, .. }| {
            let (_, validation) = validations.iter().find(|(of, _)| *of == algorithm)?;
            Some((key, validation))
        });
        found.ok_or(JwtError::UnknownKey)
    }
}

/// The one claim that has to be known before anything is verified.
#[derive(Deserialize)]
struct IssuerClaim {
    iss: String,
}

/// Verifies a token at this time. Returns the position of its issuer, and what it says.
pub(super) fn verify(issuers: &[Issuer], token: &[u8], now_s: u64) -> Result<(usize, VerifiedClaims), JwtError> {
    let header = jsonwebtoken::decode_header(token).map_err(|_| JwtError::Unreadable)?;
    let claim = jsonwebtoken::dangerous::insecure_decode_claims(token);
    let IssuerClaim { iss } = claim.map_err(|_| JwtError::Claim("iss"))?;
    let found = issuers.iter().enumerate().find(|(_, issuer)| issuer.issuer == iss);
    let (index, issuer) = found.ok_or(JwtError::Issuer)?;
    let (key, validation) = issuer.key(header.kid.as_deref(), header.alg)?;
    let verified = jsonwebtoken::decode::<Map<String, Value>>(token, key, validation);
    let all = verified.map_err(|error| of_library(&error))?.claims;
    let expires_s = check_times(&all, now_s)?;
    let subject = all.get("sub").and_then(Value::as_str).filter(|subject| is_subject(subject));
    let subject = subject.ok_or(JwtError::Claim("sub"))?.to_owned();
    Ok((index, VerifiedClaims { subject, all, expires_s }))
}

/// Subjects are in messages and in the audit.
fn is_subject(subject: &str) -> bool {
    !subject.is_empty() && subject.len() <= SUBJECT_BYTES_MAX && !subject.contains(char::is_control)
}

/// Checks the times of verified claims. Returns from when on the token is refused.
fn check_times(claims: &Map<String, Value>, now_s: u64) -> Result<u64, JwtError> {
    let time = |name: &'static str| match claims.get(name) {
        None => Ok(None),
        Some(value) => numeric_date(value).map(Some).ok_or(JwtError::Claim(name)),
    };
    let expires_s = time("exp")?.ok_or(JwtError::Claim("exp"))?;
    let refused_s = expires_s.saturating_add(JWT_LEEWAY_S);
    if now_s >= refused_s {
        return Err(JwtError::Expired);
    }
    if time("nbf")?.is_some_and(|begin_s| begin_s > now_s.saturating_add(JWT_LEEWAY_S)) {
        return Err(JwtError::NotYetValid);
    }
    // An issue in the future would make any life a short one.
    let life_s = match time("iat")?.filter(|issued_s| *issued_s <= now_s) {
        Some(issued_s) => expires_s.saturating_sub(issued_s),
        None => expires_s.saturating_sub(now_s.saturating_add(JWT_LEEWAY_S)),
    };
    if life_s > JWT_LIFE_MAX_S { Err(JwtError::LivesTooLong) } else { Ok(refused_s) }
}

/// Whole seconds since 1970 of a number, which may have a fraction.
fn numeric_date(value: &Value) -> Option<u64> {
    let fraction = || value.as_f64().filter(|seconds| *seconds >= 0.0).map(|seconds| seconds as u64);
    value.as_u64().or_else(fraction)
}

fn of_library(error: &Error) -> JwtError {
    match error.kind() {
        ErrorKind::InvalidSignature => JwtError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidKeyFormat => JwtError::Algorithm,
        ErrorKind::InvalidIssuer => JwtError::Issuer,
        ErrorKind::InvalidAudience => JwtError::Audience,
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => {
            let known = REQUIRED.into_iter().find(|known| known == claim);
            known.map_or(JwtError::Unreadable, JwtError::Claim)
        }
        _ => JwtError::Unreadable,
    }
}
