//! The public keys of an issuer, from the text of a JSON Web Key Set.
//!
//! Promises: a key is used only for algorithms that fit its kind, its curve, its `alg` and its `use`. Messages have
//! nothing of the keys.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::bounds::KEYS_MAX;

/// Bytes of the modulus of an RSA key that verifies: 2,048 to 8,192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// The keys of a set that can verify something.
#[derive(Debug)]
pub(super) struct KeySet {
    pub(super) keys: Vec<PublicKey>,
    /// Some key of the set is no public one.
    pub(super) has_secret: bool,
}

/// A key that can verify.
#[derive(Debug, Clone)]
pub(super) struct PublicKey {
    /// The name by which tokens say that they were signed with it.
    pub(super) id: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

/// Why a text is no set of keys.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("is not JSON: line {line}, column {column}")]
    NotJson { line: usize, column: usize },
    #[error("is not a JSON Web Key Set: it has no list `keys`")]
    NoKeys,
    #[error("has {0} keys, at most {KEYS_MAX} are possible")]
    TooMany(usize),
}

impl KeySet {
    /// Reads a set. Keys of kinds that verify no tokens are left out: sets have keys for other purposes as well.
    pub(super) fn parse(text: &str) -> Result<Self, KeySetError> {
        let set: Value = serde_json::from_str(text)
            .map_err(|error| KeySetError::NotJson { line: error.line(), column: error.column() })?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeySetError::NoKeys)?;
        if keys.len() > KEYS_MAX {
            return Err(KeySetError::TooMany(keys.len()));
        }
        // Of RSA and curves the private part, and a key that both sides have.
        let is_secret = |key: &Value| ["d", "k"].iter().any(|part| key.get(part).is_some());
        let has_secret = keys.iter().any(is_secret);
        Ok(Self { keys: keys.iter().filter_map(PublicKey::read).collect(), has_secret })
    }

    /// The keys that verify by one of these algorithms, for those only.
    pub(super) fn fitting(self, algorithms: &[Algorithm]) -> Vec<PublicKey> {
        let fit = self.keys.into_iter().map(|mut key| {
            key.algorithms.retain(|algorithm| algorithms.contains(algorithm));
            key
        });
        fit.filter(|key| !key.algorithms.is_empty()).collect()
    }
}

impl PublicKey {
    fn read(key: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        let length = |part: &str| URL_SAFE_NO_PAD.decode(part).ok().map(|bytes| bytes.len());
        let algorithms: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if RSA_BYTES.contains(&length(&rsa.n)?) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(ec) => match (&ec.curve, length(&ec.x)?, length(&ec.y)?) {
                (EllipticCurve::P256, 32, 32) => &[Algorithm::ES256],
                (EllipticCurve::P384, 48, 48) => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(pair) => match (&pair.curve, length(&pair.x)?) {
                (EllipticCurve::Ed25519, 32) => &[Algorithm::EdDSA],
                _ => return None,
            },
            _ => return None,
        };
        let common = &jwk.common;
        let is_for_signatures = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|of| of.contains(&KeyOperations::Verify));
        let is_its_own = |algorithm: &Algorithm| common.key_algorithm.is_none_or(|own| own == (*algorithm).into());
        let algorithms: Vec<Algorithm> = algorithms.iter().copied().filter(is_its_own).collect();
        if algorithms.is_empty() || !is_for_signatures {
            return None;
        }
        Some(Self { id: jwk.common.key_id.clone(), algorithms, key: DecodingKey::from_jwk(&jwk).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const X: &str = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4";
    const Y: &str = "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM";

    fn algorithms(key: Value) -> Vec<Algorithm> {
        let set = KeySet::parse(&json!({ "keys": [key] }).to_string()).unwrap();
        set.keys.into_iter().flat_map(|key| key.algorithms).collect()
    }

    #[test]
    fn a_key_is_for_the_algorithms_of_its_kind() {
        let rsa = URL_SAFE_NO_PAD.encode([255; 256]);
        assert_eq!(algorithms(json!({ "kty": "RSA", "n": rsa, "e": "AQAB" })).len(), 6);
        assert_eq!(algorithms(json!({ "kty": "RSA", "n": rsa, "e": "AQAB", "alg": "PS256" })), [Algorithm::PS256]);
        assert_eq!(algorithms(json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y })), [Algorithm::ES256]);
        assert_eq!(algorithms(json!({ "kty": "OKP", "crv": "Ed25519", "x": X })), [Algorithm::EdDSA]);
        assert_eq!(
            algorithms(json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "use": "sig", "key_ops": ["verify"] })),
            [Algorithm::ES256]
        );
    }

    #[test]
    fn a_key_that_verifies_no_token_is_left_out() {
        let small = URL_SAFE_NO_PAD.encode([255; 128]);
        for key in [
            json!({ "kty": "oct", "k": X }),
            json!({ "kty": "RSA", "n": small, "e": "AQAB" }),
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "alg": "ES384" }),
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "alg": "HS256" }),
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "alg": "ECDH-ES" }),
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "use": "enc" }),
            json!({ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "key_ops": ["encrypt"] }),
            json!({ "kty": "EC", "crv": "P-384", "x": X, "y": Y }),
            json!({ "kty": "EC", "crv": "Ed25519", "x": X, "y": Y }),
            json!({ "kty": "EC", "crv": "P-521", "x": X, "y": Y }),
            json!({ "kty": "OKP", "crv": "X25519", "x": X }),
            json!({ "kty": "new", "x": X }),
            json!(7),
        ] {
            assert_eq!(algorithms(key.clone()), [], "{key}");
        }
    }

    #[test]
    fn private_keys_and_other_documents_are_found() {
        let private = json!({ "keys": [{ "kty": "EC", "crv": "P-256", "x": X, "y": Y, "d": X }] });
        assert!(KeySet::parse(&private.to_string()).unwrap().has_secret);
        assert!(!KeySet::parse(r#"{ "keys": [] }"#).unwrap().has_secret);
        let wrong = |text: &str| KeySet::parse(text).unwrap_err().to_string();
        assert_eq!(wrong("{\n secret }"), "is not JSON: line 2, column 2");
        assert_eq!(wrong("{}"), "is not a JSON Web Key Set: it has no list `keys`");
        assert!(wrong(&json!({ "keys": vec![0; KEYS_MAX + 1] }).to_string()).starts_with("has 101 keys"));
    }
}
