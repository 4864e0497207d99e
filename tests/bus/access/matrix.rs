//! Every method of the contract with every kind of credentials.

use std::fmt::Write;

use serde_json::json;
use tonic::{Code, Status};

use super::bed::{House, Issuer, NOW_S, call, call_path, methods, right, token};

const ALL: [&str; 10] =
    ["publish", "read", "state", "inspect", "operate", "consume", "deploy", "apply", "backup", "metrics"];

/// Where a principal may do something.
fn rule(who: &str, verbs: &[&str], topic: &str, subscriber: &str) -> String {
    let on_topics = ["publish", "read", "inspect", "apply"];
    let on_subscribers = ["state", "inspect", "operate", "consume", "deploy", "apply"];
    let of = |known: &[&str]| verbs.iter().filter(|verb| known.contains(verb)).copied().collect::<Vec<_>>().join(", ");
    let bus = ["inspect", "operate", "apply", "backup", "metrics"];
    let mut text = String::new();
    let (topics, subscribers, bus) = (of(&on_topics), of(&on_subscribers), of(&bus));
    for (verbs, what) in [
        (topics, format!("topics: [\"{topic}\"]")),
        (subscribers, format!("subscribers: [\"{subscriber}\"]")),
        (bus, "bus: true".to_owned()),
    ] {
        if !verbs.is_empty() {
            writeln!(text, "  - {{ who: [{who}], may: [{verbs}], {what} }}").unwrap();
        }
    }
    text
}

/// The same for topics and subscribers only.
fn rule_without_bus(who: &str, verbs: &[&str], topic: &str, subscriber: &str) -> String {
    let text = rule(who, verbs, topic, subscriber);
    text.lines().filter(|line| !line.contains("bus: true")).fold(String::new(), |text, line| text + line + "\n")
}

struct Fixture {
    house: House,
    issuer: Issuer,
    other: Issuer,
}

/// Principals of all kinds: `all` may do everything.
async fn fixture() -> Fixture {
    let (issuer, other) = (Issuer::new("k1"), Issuer::new("k1"));
    let mut text = String::from(
        "wattle: access/v1\nissuers:\n  idp: { issuer: \"https://idp.example\", audience: wattle, keys: jwks.json, \
         algorithms: [ES256] }\nprincipals:\n",
    );
    let mut rules = rule("all", &ALL, "*/*", "*/*");
    writeln!(text, "  all: {{ token: \"{}\", certificate: \"spiffe://test/all\" }}", token(1).1).unwrap();
    writeln!(text, "  old: {{ token: \"{}\", expires: 2020-01-01 }}", token(2).1).unwrap();
    writeln!(text, "  jwt: {{ issuer: idp, claim: {{ groups: ops }} }}").unwrap();
    rules += &rule("old", &ALL, "*/*", "*/*");
    rules += &rule("jwt", &ALL, "*/*", "*/*");
    for (number, verb) in (10..).zip(ALL) {
        let others: Vec<_> = ALL.into_iter().filter(|other| *other != verb).collect();
        writeln!(text, "  only-{verb}: {{ token: \"{}\" }}", token(number).1).unwrap();
        writeln!(text, "  not-{verb}: {{ token: \"{}\" }}", token(number + 20).1).unwrap();
        writeln!(text, "  longer-{verb}: {{ token: \"{}\" }}", token(number + 40).1).unwrap();
        writeln!(text, "  shorter-{verb}: {{ token: \"{}\" }}", token(number + 60).1).unwrap();
        rules += &rule(&format!("only-{verb}"), &[verb], "*/*", "*/*");
        rules += &rule(&format!("not-{verb}"), &others, "*/*", "*/*");
        // A right to a namespace is one to all of its names.
        let (longer, shorter) = match verb {
            "apply" => (["tx/*"; 2], ["tt/*"; 2]),
            _ => (["t/inx", "t/workx"], ["t/i", "t/wor"]),
        };
        rules += &rule_without_bus(&format!("longer-{verb}"), &[verb], longer[0], longer[1]);
        rules += &rule_without_bus(&format!("shorter-{verb}"), &[verb], shorter[0], shorter[1]);
    }
    let house = House::open(&format!("{text}rules:\n{rules}"), &issuer.keys).await;
    Fixture { house, issuer, other }
}

#[track_caller]
fn code(called: &Result<(), Status>) -> Code {
    called.as_ref().err().map_or(Code::Ok, Status::code)
}

fn is_refused(code: Code) -> bool {
    matches!(code, Code::Unauthenticated | Code::PermissionDenied)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_known_is_refused_by_every_method_before_its_request_is_read() {
    let Fixture { house, issuer, other } = fixture().await;
    let channel = house.connect(None).await.unwrap();
    let bearer = |token: &str| format!("Bearer {token}");
    let good = token(1).0;
    let claims = json!({
        "iss": "https://idp.example", "aud": "wattle", "sub": "ada", "groups": ["ops"], "iat": NOW_S,
        "exp": NOW_S + 600,
    });
    let with = |name: &str, value: serde_json::Value| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().insert(name.to_owned(), value);
        bearer(&issuer.sign(&claims))
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        bearer(&issuer.sign(&claims))
    };
    let unsigned = {
        let signed = issuer.sign(&claims);
        let body = signed.split('.').nth(1).unwrap().to_owned();
        bearer(&format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{body}."))
    };
    let by_public_key = {
        let secret = jsonwebtoken::EncodingKey::from_secret(issuer.keys.as_bytes()).unwrap();
        let header = jsonwebtoken::Header { kid: Some("k1".into()), ..jsonwebtoken::Header::default() };
        bearer(&jsonwebtoken::encode(&header, &claims, &secret).unwrap())
    };
    let unknown_key = {
        let other = Issuer::new("k2");
        bearer(&other.sign(&claims))
    };
    let good_bearer = bearer(&good);
    let bad: Vec<(&str, Vec<(&str, String)>)> = vec![
        ("none", vec![]),
        ("empty", vec![("authorization", String::new())]),
        ("no token", vec![("authorization", "Bearer ".to_owned())]),
        ("another scheme", vec![("authorization", format!("Basic {good}"))]),
        ("no scheme", vec![("authorization", good.clone())]),
        ("the header twice", vec![("authorization", good_bearer.clone()), ("authorization", good_bearer.clone())]),
        ("unknown", vec![("authorization", bearer(&token(99).0))]),
        ("expired", vec![("authorization", bearer(&token(2).0))]),
        ("padded with a blank", vec![("authorization", format!("Bearer  {good}"))]),
        ("cut by one", vec![("authorization", bearer(&good[..good.len() - 1]))]),
        ("longer by one", vec![("authorization", bearer(&format!("{good}A")))]),
        ("in another header", vec![("x-access-token", good.clone())]),
        ("JWT without a signature", vec![("authorization", unsigned)]),
        ("JWT signed by HS256 with the public key", vec![("authorization", by_public_key)]),
        ("JWT of another key", vec![("authorization", bearer(&other.sign(&claims)))]),
        ("JWT of an unknown key", vec![("authorization", unknown_key)]),
        ("JWT of another issuer", vec![("authorization", with("iss", json!("https://evil.example")))]),
        ("JWT for another audience", vec![("authorization", with("aud", json!("other")))]),
        ("JWT without an end", vec![("authorization", without("exp"))]),
        ("JWT whose end is a text", vec![("authorization", with("exp", json!("9999999999")))]),
        ("JWT that is over", vec![("authorization", with("exp", json!(NOW_S - 120)))]),
        ("JWT that has not begun", vec![("authorization", with("nbf", json!(NOW_S + 120)))]),
        ("JWT without a subject", vec![("authorization", without("sub"))]),
        ("JWT of another group", vec![("authorization", with("groups", json!(["dev"])))]),
    ];
    let wrong = house.connect(Some(&house.authority.issue("spiffe://test/nobody", false))).await.unwrap();
    for method in methods() {
        let name = method.full_name().to_owned();
        for (what, headers) in &bad {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let called = call(&channel, &method, &headers, false).await;
            assert_eq!(code(&called), Code::Unauthenticated, "{name}: {what}: {called:?}");
        }
        // Nothing is sent, and the answer comes all the same: so no request was read.
        let called = call(&channel, &method, &[], true).await;
        assert_eq!(code(&called), Code::Unauthenticated, "{name}");
        let called = call(&wrong, &method, &[], false).await;
        assert_eq!(code(&called), Code::Unauthenticated, "{name}: an unknown certificate");
        // A wrong header never falls back to the certificate.
        let known = house.connect(Some(&house.authority.issue("spiffe://test/all", false))).await.unwrap();
        let called = call(&known, &method, &[("authorization", "Bearer x")], false).await;
        assert_eq!(code(&called), Code::Unauthenticated, "{name}: a wrong token with a good certificate");

        for headers in [vec![("authorization", good_bearer.as_str())], vec![("authorization", &with("x", json!(1)))]] {
            let called = call(&channel, &method, &headers, false).await;
            assert!(!is_refused(code(&called)), "{name}: {called:?}");
        }
        let called = call(&known, &method, &[], false).await;
        assert!(!is_refused(code(&called)), "{name}: by certificate: {called:?}");
    }
    // A stranger does not learn what there is.
    let called = call_path(&channel, "/wattle.v1.PublisherService/Nothing", bytes::Bytes::new(), &[], false).await;
    assert_eq!(code(&called), Code::Unauthenticated);
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let called = call_path(&channel, reflection, bytes::Bytes::new(), &[], false).await;
    assert_eq!(code(&called), Code::Unauthenticated);
    let query = "/wattle.v1.AdminService/ListTopics?access_token=".to_owned() + &good;
    let called = call_path(&channel, &query, bytes::Bytes::new(), &[], false).await;
    assert_eq!(code(&called), Code::Unauthenticated, "a token in the query");
    let health = "/grpc.health.v1.Health/Check";
    assert_eq!(code(&call_path(&channel, health, bytes::Bytes::new(), &[], false).await), Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_needs_its_right_and_no_other() {
    let Fixture { house, .. } = fixture().await;
    let channel = house.connect(None).await.unwrap();
    for method in methods() {
        let (verbs, subject) = right(&method);
        let name = method.full_name().to_owned();
        for (number, verb) in (10..).zip(ALL) {
            let by = async |number: u8| {
                let bearer = format!("Bearer {}", token(number).0);
                let called = call(&channel, &method, &[("authorization", &bearer)], false).await;
                (code(&called), format!("{name} ({verbs:?}, {subject}) with {verb}: {called:?}"))
            };
            let is_needed = verbs.iter().any(|needed| needed == verb);
            let (only, words) = by(number).await;
            // To read a subscriber is to inspect it and to read its topic, and a comparison shows what it reads.
            let needs_more = (subject == "subscriber" && verb == "read") || method.name() == "Shadow";
            match is_needed && !needs_more {
                true => assert!(!is_refused(only), "only {words}"),
                false => assert_eq!(only, Code::PermissionDenied, "only {words}"),
            }
            let (all_but, words) = by(number + 20).await;
            match is_needed && verbs.len() == 1 {
                true => assert_eq!(all_but, Code::PermissionDenied, "all but {words}"),
                false if subject == "subscriber" && verbs == ["read"] && verb == "inspect" => {
                    assert_eq!(all_but, Code::PermissionDenied, "all but {words}");
                }
                false if method.name() == "Shadow" && matches!(verb, "read" | "inspect") => {
                    assert_eq!(all_but, Code::PermissionDenied, "all but {words}");
                }
                false => assert!(!is_refused(all_but), "all but {words}"),
            }
            // The right verb for a name that is one letter longer or shorter. What belongs to nothing in particular is
            // judged one by one.
            if is_needed && subject != "each" {
                for number in [number + 40, number + 60] {
                    let (code, words) = by(number).await;
                    assert_eq!(code, Code::PermissionDenied, "another name: {words}");
                }
            }
        }
    }
}
