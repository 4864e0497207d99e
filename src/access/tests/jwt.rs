//! Tokens of issuers: which are refused and why, and for how long a good one counts.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;

/// A key of an issuer, with its name.
struct Key {
    signing: EncodingKey,
    public: Jwk,
}

impl Key {
    fn new(id: &str) -> Self {
        let der = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
        let signing = EncodingKey::from_ec_der(&der);
        let mut public = Jwk::from_encoding_key(&signing, Algorithm::ES256).unwrap();
        public.common.key_id = Some(id.to_owned());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Self { signing, public }
    }

    fn sign(&self, header: &Header, claims: &Value) -> String {
        jsonwebtoken::encode(header, claims, &self.signing).unwrap()
    }
}

/// An access file with an issuer of these keys.
fn access_with(algorithms: &str, keys: &[Value]) -> Access {
    let text = format!(
        "wattle: access/v1
issuers:
  idp: {{ issuer: \"https://idp.example\", audience: wattle, keys: jwks.json, algorithms: [{algorithms}] }}
  old: {{ issuer: \"https://old.example\", audience: wattle, keys: old.json, algorithms: [ES256] }}
principals:
  ops: {{ issuer: idp, claim: {{ groups: wattle-ops }} }}
  eu: {{ issuer: idp, claim: {{ region: eu, groups: wattle-ops }}, expires: \"2027-01-15T10:00:00Z\" }}
  others: {{ issuer: old, claim: {{ groups: wattle-ops }} }}
rules:
  - {{ who: [ops], may: [inspect], topics: [\"shop/*\"] }}
  - {{ who: [eu], may: [read], topics: [eu/orders] }}
  - {{ who: [others], may: [publish], topics: [shop/orders] }}
limits:
  ops: {{ connections: 8, publish: 1MiB/s }}
  eu: {{ connections: 4 }}
"
    );
    let folder = Folder(BTreeMap::from([
        ("conf/jwks.json".into(), json!({ "keys": keys }).to_string()),
        ("conf/old.json".into(), json!({ "keys": [Key::new("old").public] }).to_string()),
    ]));
    good(&text, &folder)
}

fn access(keys: &[&Key]) -> Access {
    let keys: Vec<_> = keys.iter().map(|key| serde_json::to_value(&key.public).unwrap()).collect();
    access_with("ES256", &keys)
}

fn header(id: &str) -> Header {
    Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::ES256) }
}

fn claims() -> Value {
    json!({
        "iss": "https://idp.example",
        "aud": "wattle",
        "sub": "alice",
        "iat": NOW_S,
        "exp": NOW_S + 3_600,
        "groups": ["all", "wattle-ops"],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

fn refused(access: &Access, token: &str) -> JwtError {
    match by_token(access, token, NOW_S) {
        Err(Unauthenticated::Jwt(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_token_is_all_principals_that_have_its_claims() {
    let key = Key::new("k1");
    let access = access(&[&key]);
    let alice = by_token(&access, &key.sign(&header("k1"), &claims()), NOW_S).unwrap();
    assert_eq!((alice.name(), alice.principals().collect::<Vec<_>>()), ("idp:alice", vec!["ops"]));
    assert!(access.may(&alice, Verb::Inspect, Resource::Topic("shop/orders")));
    assert!(!access.may(&alice, Verb::Read, Resource::Topic("eu/orders")));
    assert!(!access.may(&alice, Verb::Publish, Resource::Topic("shop/orders")), "those of another issuer");
    assert_eq!(access.limits(&alice).connections, Some(8));
    let both = by_token(&access, &key.sign(&header("k1"), &with("region", json!("eu"))), NOW_S).unwrap();
    assert_eq!(both.principals().collect::<Vec<_>>(), ["ops", "eu"]);
    assert!(access.may(&both, Verb::Read, Resource::Topic("eu/orders")));
    let limits = access.limits(&both);
    assert_eq!((limits.connections, limits.publish_bytes_per_s), (Some(4), Some(1 << 20)), "the lower ones");
}

#[test]
fn a_claim_is_a_text_or_a_list_that_has_it() {
    let key = Key::new("k1");
    let access = access(&[&key]);
    for groups in [json!("wattle-ops"), json!(["wattle-ops"]), json!([7, null, "wattle-ops"])] {
        assert!(by_token(&access, &key.sign(&header("k1"), &with("groups", groups)), NOW_S).is_ok());
    }
    for groups in [
        Value::Null,
        json!("wattle-ops2"),
        json!("wattle-op"),
        json!("all wattle-ops"),
        json!([["wattle-ops"]]),
        json!({ "wattle-ops": true }),
        json!(true),
    ] {
        let refused = by_token(&access, &key.sign(&header("k1"), &with("groups", groups)), NOW_S).unwrap_err();
        assert_eq!(refused, Unauthenticated::UnknownClaims("idp:alice".to_owned()));
    }
}

/// A part of a token.
fn part(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

#[test]
fn a_token_that_its_issuer_did_not_sign_so_is_refused() {
    let (key, other) = (Key::new("k1"), Key::new("k2"));
    let access = access(&[&key, &other]);
    let good = key.sign(&header("k1"), &claims());
    assert!(by_token(&access, &good, NOW_S).is_ok());
    let (message, signature) = good.rsplit_once('.').unwrap();

    let none = format!("{}.{}.", part(&json!({ "alg": "none", "kid": "k1" })), part(&claims()));
    assert_eq!(refused(&access, &none), JwtError::Unreadable);
    let none = format!("{}.{}.{signature}", part(&json!({ "alg": "none", "kid": "k1" })), part(&claims()));
    assert_eq!(refused(&access, &none), JwtError::Unreadable);

    let hs256 = Header { kid: Some("k1".to_owned()), ..Header::new(Algorithm::HS256) };
    let public = serde_json::to_string(&key.public).unwrap();
    let coordinates = jsonwebtoken::DecodingKey::from_jwk(&key.public).unwrap();
    for secret in [public.as_bytes(), coordinates.try_get_as_bytes().unwrap()] {
        let forged = jsonwebtoken::encode(&hs256, &claims(), &EncodingKey::from_secret(secret).unwrap()).unwrap();
        assert_eq!(refused(&access, &forged), JwtError::Algorithm);
    }

    assert_eq!(refused(&access, &other.sign(&header("k1"), &claims())), JwtError::Signature);
    assert_eq!(refused(&access, &key.sign(&header("k3"), &claims())), JwtError::UnknownKey);
    assert_eq!(refused(&access, &key.sign(&Header::new(Algorithm::ES256), &claims())), JwtError::NoKey);
    let changed =
        format!("{}.{}.{signature}", part(&json!({ "alg": "ES256", "kid": "k1" })), part(&with("sub", json!("bob"))));
    assert_eq!(refused(&access, &changed), JwtError::Signature);
    assert_eq!(refused(&access, &format!("{message}.")), JwtError::Signature);
    for unreadable in [message.to_owned(), format!("{good}.{signature}"), "a.b.c".to_owned(), "..".to_owned()] {
        assert_eq!(refused(&access, &unreadable), JwtError::Unreadable, "{unreadable}");
    }

    // The key in the header of the token is that of the forger.
    let own = Key::new("k1");
    let mut header = header("k1");
    (header.jwk, header.jku) = (Some(own.public.clone()), Some("https://forger.example/jwks.json".to_owned()));
    assert_eq!(refused(&access, &own.sign(&header, &claims())), JwtError::Signature);
    assert!(by_token(&access, &key.sign(&header, &claims()), NOW_S).is_ok(), "it is ignored");
}

#[test]
fn a_token_of_an_algorithm_that_is_not_named_is_refused() {
    let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let signing = EncodingKey::from_ed_der(&pair.serialize_der());
    let ec = Key::new("k1");
    let x = URL_SAFE_NO_PAD.encode(pair.public_key_raw());
    let eddsa = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "ed" });
    let keys = [serde_json::to_value(&ec.public).unwrap(), eddsa];
    let header = Header { kid: Some("ed".to_owned()), ..Header::new(Algorithm::EdDSA) };
    let token = jsonwebtoken::encode(&header, &claims(), &signing).unwrap();
    assert_eq!(refused(&access_with("ES256", &keys), &token), JwtError::Algorithm);
    assert!(by_token(&access_with("ES256, EdDSA", &keys), &token, NOW_S).is_ok());
}

#[test]
fn a_key_for_another_algorithm_verifies_nothing() {
    let (key, mut other) = (Key::new("k1"), Key::new("k2"));
    other.public.common.key_algorithm = Some(KeyAlgorithm::ES384);
    let access = access(&[&key, &other]);
    assert_eq!(refused(&access, &other.sign(&header("k2"), &claims())), JwtError::UnknownKey);
    let mut other = Key::new("k2");
    other.public.common.public_key_use = Some(PublicKeyUse::Encryption);
    let access = self::access(&[&key, &other]);
    assert_eq!(refused(&access, &other.sign(&header("k2"), &claims())), JwtError::UnknownKey);
    // The one key that is left needs no name.
    assert!(by_token(&access, &key.sign(&Header::new(Algorithm::ES256), &claims()), NOW_S).is_ok());
}

#[test]
fn a_token_needs_its_claims_in_their_time() {
    let key = Key::new("k1");
    let access = access(&[&key]);
    let hours = |hours: u64| json!(NOW_S + hours * 3_600);
    for (name, value, error) in [
        ("iss", Value::Null, JwtError::Claim("iss")),
        ("iss", json!("https://other.example"), JwtError::Issuer),
        ("iss", json!("https://old.example"), JwtError::UnknownKey),
        ("iss", json!(["https://idp.example"]), JwtError::Claim("iss")),
        ("aud", Value::Null, JwtError::Claim("aud")),
        ("aud", json!("wattle2"), JwtError::Audience),
        ("aud", json!(["others", "wattl"]), JwtError::Audience),
        ("aud", json!(7), JwtError::Claim("aud")),
        ("sub", Value::Null, JwtError::Claim("sub")),
        ("sub", json!(7), JwtError::Claim("sub")),
        ("sub", json!(""), JwtError::Claim("sub")),
        ("sub", json!("a\nb"), JwtError::Claim("sub")),
        ("sub", json!("x".repeat(256)), JwtError::Claim("sub")),
        ("exp", Value::Null, JwtError::Claim("exp")),
        ("exp", json!((NOW_S + 60).to_string()), JwtError::Claim("exp")),
        ("exp", json!(true), JwtError::Claim("exp")),
        ("exp", json!(-1), JwtError::Claim("exp")),
        ("exp", json!(NOW_S - 60), JwtError::Expired),
        ("exp", json!(0), JwtError::Expired),
        ("exp", hours(25), JwtError::LivesTooLong),
        ("exp", json!(1e300), JwtError::Claim("exp")),
        ("exp", json!(1e19), JwtError::LivesTooLong),
        ("exp", json!(u64::MAX), JwtError::LivesTooLong),
        ("nbf", json!(NOW_S + 61), JwtError::NotYetValid),
        ("nbf", json!("soon"), JwtError::Claim("nbf")),
        ("iat", json!("now"), JwtError::Claim("iat")),
        ("iat", json!(NOW_S - 86_400), JwtError::LivesTooLong),
    ] {
        let token = key.sign(&header("k1"), &with(name, value.clone()));
        assert_eq!(refused(&access, &token), error, "{name}: {value}");
    }
    let mut future = with("iat", json!(NOW_S + 1_000_000));
    future["exp"] = json!(NOW_S + 1_000_060);
    assert_eq!(refused(&access, &key.sign(&header("k1"), &future)), JwtError::LivesTooLong, "issued in the future");
    let mut endless = with("iat", Value::Null);
    endless["exp"] = hours(25);
    assert_eq!(refused(&access, &key.sign(&header("k1"), &endless)), JwtError::LivesTooLong);
    for (name, value) in [
        ("aud", json!(["others", "wattle"])),
        ("exp", hours(24)),
        ("exp", json!(NOW_S as f64 + 0.5)),
        ("exp", json!(NOW_S - 59)),
        ("nbf", json!(NOW_S + 60)),
        ("iat", Value::Null),
        ("sub", json!("x".repeat(255))),
    ] {
        assert!(
            by_token(&access, &key.sign(&header("k1"), &with(name, value.clone())), NOW_S).is_ok(),
            "{name}: {value}"
        );
    }
}

#[test]
fn a_token_that_was_good_ends_by_the_clock_of_the_caller() {
    let key = Key::new("k1");
    let access = access(&[&key]);
    let token = key.sign(&header("k1"), &claims());
    let end_s = NOW_S + 3_600 + 60;
    for now_s in [NOW_S, NOW_S, end_s - 1] {
        assert_eq!(by_token(&access, &token, now_s).unwrap().expires_s(), Some(end_s));
    }
    for now_s in [end_s, end_s, u64::MAX] {
        let refused = by_token(&access, &token, now_s).unwrap_err();
        assert_eq!(refused, Unauthenticated::Jwt(JwtError::Expired));
    }
    assert!(by_token(&self::access(&[&Key::new("k1")]), &token, NOW_S).is_err(), "another file has no memory of it");
}

#[test]
fn a_token_is_no_longer_a_principal_that_has_expired() {
    let key = Key::new("k1");
    let access = access(&[&key]);
    // The `expires` of `eu`.
    let end_s = NOW_S + 7_200;
    let mut claims = with("region", json!("eu"));
    claims["exp"] = json!(end_s + 3_600);
    let token = key.sign(&header("k1"), &claims);
    let before = by_token(&access, &token, end_s - 1).unwrap();
    assert_eq!((before.principals().count(), before.expires_s()), (2, Some(end_s)));
    let after = by_token(&access, &token, end_s).unwrap();
    assert_eq!(after.principals().collect::<Vec<_>>(), ["ops"]);
}

#[test]
fn a_verified_token_is_remembered() {
    let key = Key::new("k1");
    let access = access(&[&key]);
    let token = key.sign(&header("k1"), &claims());
    let before = format!("{:?}", access.cache);
    by_token(&access, &token, NOW_S).unwrap();
    by_token(&access, &token, NOW_S).unwrap();
    by_token(&access, &key.sign(&header("k1"), &with("aud", json!("x"))), NOW_S).unwrap_err();
    assert_eq!((before.as_str(), format!("{:?}", access.cache).as_str()), ("Cache(0)", "Cache(1)"));
}

#[test]
fn a_set_of_keys_that_cannot_be_used_is_refused() {
    let text = "wattle: access/v1
issuers: { idp: { issuer: i, audience: w, keys: k.json, algorithms: [ES256] } }
principals: { p: { issuer: idp, claim: { a: b } } }
rules: [{ who: [p], may: [read], topics: [a/b] }]
";
    let key = Key::new("k1");
    let public = serde_json::to_value(&key.public).unwrap();
    let mut private = public.clone();
    private["d"] = json!("c2VjcmV0");
    let mut unnamed = serde_json::to_value(Key::new("").public).unwrap();
    unnamed.as_object_mut().unwrap().remove("kid");
    for (keys, message) in [
        ("no keys".to_owned(), "is not JSON: line 1"),
        ("{}".to_owned(), "is not a JSON Web Key Set"),
        (json!({ "keys": [] }).to_string(), "has no key for any of `algorithms`"),
        (json!({ "keys": [{ "kty": "oct", "k": "c2VjcmV0" }] }).to_string(), "has no key for any of `algorithms`"),
        (json!({ "keys": [public, public] }).to_string(), "has two keys of one name"),
        (json!({ "keys": [private] }).to_string(), "has a private or shared key"),
        (json!({ "keys": [public, unnamed] }).to_string(), "one of them has no name"),
        (" ".repeat(bounds::KEYS_BYTES_MAX + 1), "it is too long"),
    ] {
        let folder = Folder(BTreeMap::from([("conf/k.json".into(), keys)]));
        let (_, diagnostics) = check(&source(text), &folder);
        let shown = shown(text, &diagnostics);
        assert!(shown.contains(message) && !shown.contains("c2VjcmV0"), "{message}\n{shown}");
    }
}
