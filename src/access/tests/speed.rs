//! How long a caller waits for its identity and for a decision. Run by hand, optimised:
//! `cargo test --release --lib access::tests::speed -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;

use super::*;

/// The time of one call: the least of several rounds.
fn time(mut call: impl FnMut()) -> Duration {
    const CALLS: u32 = 1_000;
    let round = |_| {
        let begin = Instant::now();
        (0..CALLS).for_each(|_| call());
        begin.elapsed() / CALLS
    };
    (0..10).map(round).min().unwrap()
}

#[test]
#[ignore = "a measurement"]
fn identities_and_decisions_are_quick() {
    let der = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().serialize_der();
    let key = EncodingKey::from_ec_der(&der);
    let public = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    let text = format!(
        "wattle: access/v1
issuers: {{ idp: {{ issuer: i, audience: w, keys: k.json, algorithms: [ES256] }} }}
principals: {{ p: {{ issuer: idp, claim: {{ a: b }} }}, ci: {{ token: \"{}\" }} }}
rules: [{{ who: [p, ci], may: [read], topics: [a/b, \"c/*\", \"d/e*f\", \"shop/*\"] }}]
",
        token(1).hash()
    );
    let folder = Folder(BTreeMap::from([("conf/k.json".into(), json!({ "keys": [public] }).to_string())]));
    let access = good(&text, &folder);
    let header = bearer(token(1).text().reveal());
    println!("token: {:?}", time(|| drop(identify(&access, &header, NOW_S).unwrap())));
    let mut number = 0;
    let mut jwt = || {
        number += 1;
        let claims = json!({ "iss": "i", "aud": "w", "sub": "s", "exp": NOW_S + 60, "a": "b", "jti": number });
        bearer(&jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap())
    };
    let headers: Vec<_> = (0..10_000).map(|_| jwt()).collect();
    let mut next = headers.iter();
    println!(
        "JWT of {} bytes, cold: {:?}",
        headers[0].len(),
        time(|| drop(identify(&access, next.next().unwrap(), NOW_S).unwrap()))
    );
    println!("JWT, remembered: {:?}", time(|| drop(identify(&access, headers.last().unwrap(), NOW_S).unwrap())));
    let who = identify(&access, &header, NOW_S).unwrap();
    println!("decision: {:?}", time(|| assert!(access.may(&who, Verb::Read, Resource::Topic("shop/orders")))));
}
