//! Who a caller is by its token or certificate, and what it may do.

use super::*;
use crate::model::Time;

fn shop() -> Access {
    let text = format!(
        "wattle: access/v1
principals:
  shop: {{ certificate: [\"spiffe://prod/shop\", Shop.example.test] }}
  ci: {{ token: [\"{}\", \"{}\"], expires: 2027-02-01 }}
  ops: {{ token: \"{}\" }}
rules:
  - {{ who: [shop], may: [publish], topics: [shop/orders] }}
  - {{ who: [ops], may: [inspect, read, operate], topics: [\"shop/*\"], subscribers: [\"shop/*\"] }}
  - {{ who: [ci], may: [deploy, apply], subscribers: [\"shop/*\"] }}
  - {{ who: [ops], may: [metrics, backup, operate], bus: true }}
  - {{ who: [anonymous, ci], may: [inspect], topics: [shop/public] }}
limits: {{ ci: {{ connections: 8, publish: 1MiB/s, in_flight: 4MiB }}, anonymous: {{ connections: 1 }} }}
",
        token(1).hash(),
        token(2).hash(),
        token(3).hash(),
    );
    good(&text, &Folder::default())
}

fn names(identity: &Identity) -> (&str, Vec<&str>) {
    (identity.name(), identity.principals().collect())
}

#[test]
fn a_caller_is_the_principal_of_its_token() {
    let access = shop();
    for (seed, name) in [(1, "ci"), (2, "ci"), (3, "ops")] {
        let identity = by_token(&access, token(seed).text().reveal(), NOW_S).unwrap();
        assert_eq!(names(&identity), (name, vec![name]));
        assert!(!identity.is_anonymous());
    }
    assert_eq!(by_token(&access, token(4).text().reveal(), NOW_S).unwrap_err(), Unauthenticated::UnknownToken);
    assert_eq!(by_token(&access, "wtl_00000000_00", NOW_S).unwrap_err(), Unauthenticated::NotAToken);
    assert_eq!(by_token(&access, "eyJh.eyJh.c2ln", NOW_S).unwrap_err(), Unauthenticated::NotAToken);
}

#[test]
fn a_token_ends_with_its_principal() {
    let access = shop();
    let end_s = Time::parse("2027-02-01T00:00:00Z").unwrap().second() as u64;
    let identity = by_token(&access, token(1).text().reveal(), end_s - 1).unwrap();
    assert_eq!(identity.expires_s(), Some(end_s));
    assert_eq!(by_token(&access, token(1).text().reveal(), end_s).unwrap_err(), Unauthenticated::Expired);
    assert_eq!(by_token(&access, token(3).text().reveal(), u64::MAX).unwrap().expires_s(), None);
}

#[test]
fn a_caller_is_the_principal_of_a_name_in_its_certificate() {
    let access = shop();
    let identity = by_certificate(&access, &["spiffe://prod/shop"], &[]).unwrap();
    assert_eq!(names(&identity), ("shop", vec!["shop"]));
    assert!(by_certificate(&access, &["spiffe://prod/other"], &["shop.EXAMPLE.test"]).is_ok());
    for uri in ["spiffe://prod/shop2", "spiffe://prod/sho", "spiffe://prod/Shop", "shop.example.test"] {
        let refused = by_certificate(&access, &[uri], &[]).unwrap_err();
        assert_eq!(refused, Unauthenticated::UnknownCertificate(uri.to_owned()));
    }
    assert!(by_certificate(&access, &[], &["spiffe://prod/shop"]).is_err(), "a URI is no DNS name");
    let refused = by_certificate(&access, &[], &[]).unwrap_err().to_string();
    assert!(refused.contains("it has none"), "{refused}");
}

#[test]
fn a_wrong_header_never_falls_back_to_the_certificate() {
    let access = shop();
    let names = CertificateNames { uris: vec!["spiffe://prod/shop".to_owned()], dns: Vec::new() };
    let with = |authorization| access.identify(&Credentials { authorization, certificate: Some(&names) }, NOW_S);
    assert_eq!(with(Authorization::Absent).unwrap().name(), "shop");
    assert_eq!(with(Authorization::Repeated).unwrap_err(), Unauthenticated::Repeated);
    assert_eq!(with(Authorization::Value(b"")).unwrap_err(), Unauthenticated::Malformed);
    assert_eq!(with(Authorization::Value(b"Basic YTpi")).unwrap_err(), Unauthenticated::Malformed);
    let unknown = bearer(token(9).text().reveal());
    assert_eq!(with(Authorization::Value(&unknown)).unwrap_err(), Unauthenticated::UnknownToken);
    let other = bearer(token(3).text().reveal());
    assert_eq!(with(Authorization::Value(&other)).unwrap().name(), "ops");
}

#[test]
fn what_no_rule_allows_is_refused() {
    use Resource::{Bus, Namespace, Subscriber, Topic};
    use Verb::{Apply, Backup, Deploy, Inspect, Metrics, Operate, Publish, Read};
    let access = shop();
    let shop = by_certificate(&access, &["spiffe://prod/shop"], &[]).unwrap();
    let ci = by_token(&access, token(1).text().reveal(), NOW_S).unwrap();
    let ops = by_token(&access, token(3).text().reveal(), NOW_S).unwrap();
    let nobody = anonymous(&access);
    assert!(nobody.is_anonymous() && nobody.name() == "anonymous");
    let allowed = [
        (&shop, Publish, Topic("shop/orders")),
        (&ops, Read, Topic("shop/orders")),
        (&ops, Inspect, Subscriber("shop/validate")),
        (&ops, Operate, Subscriber("shop/validate")),
        (&ops, Operate, Bus),
        (&ops, Metrics, Bus),
        (&ops, Backup, Bus),
        (&ci, Deploy, Subscriber("shop/validate")),
        (&ci, Apply, Namespace("shop")),
        (&ci, Inspect, Topic("shop/public")),
        (&nobody, Inspect, Topic("shop/public")),
    ];
    let resources = [
        Topic("shop/orders"),
        Topic("shop/orders2"),
        Topic("shop/order"),
        Topic("shop/public"),
        Topic("other/orders"),
        Subscriber("shop/validate"),
        Subscriber("other/validate"),
        Namespace("shop"),
        Namespace("shop2"),
        Bus,
    ];
    let named = |who: &Identity| allowed.iter().filter(|(of, ..)| of.name() == who.name()).collect::<Vec<_>>();
    for who in [&shop, &ci, &ops, &nobody] {
        for verb in Verb::ALL {
            for resource in resources {
                // Rights to all of `shop` are not listed for each of its names.
                let is_listed = named(who).iter().any(|(_, of, what)| (*of, *what) == (verb, resource));
                let is_of_shop = matches!(resource, Topic(name) | Subscriber(name) if name.starts_with("shop/"));
                let is_ops = who.name() == "ops" && [Inspect, Read, Operate].contains(&verb);
                let is_ci = who.name() == "ci" && [Deploy, Apply].contains(&verb) && matches!(resource, Subscriber(_));
                let is_whole = who.name() == "ops" && is_ops && resource == Namespace("shop")
                    || who.name() == "ci" && verb == Deploy && resource == Namespace("shop");
                let wanted = is_listed || is_of_shop && (is_ops || is_ci) || is_whole;
                assert_eq!(access.may(who, verb, resource), wanted, "{} {verb} {resource:?}", who.name());
            }
        }
    }
    let somewhere = |who| Verb::ALL.into_iter().filter(|verb| access.may_somewhere(who, *verb)).collect::<Vec<_>>();
    assert_eq!(somewhere(&shop), [Publish]);
    assert_eq!(somewhere(&nobody), [Inspect]);
    assert_eq!(somewhere(&ops), [Read, Inspect, Operate, Backup, Metrics]);
}

#[test]
fn only_a_caller_without_credentials_is_anonymous() {
    let access = shop();
    let ops = by_certificate(&access, &["spiffe://prod/shop"], &[]).unwrap();
    assert!(!access.may(&ops, Verb::Inspect, Resource::Topic("shop/public")));
}

#[test]
fn an_identity_counts_only_for_the_file_that_made_it() {
    let (before, after) = (shop(), shop());
    let ops = by_token(&before, token(3).text().reveal(), NOW_S).unwrap();
    assert!(before.may(&ops, Verb::Metrics, Resource::Bus));
    assert!(!after.may(&ops, Verb::Metrics, Resource::Bus) && !after.may_somewhere(&ops, Verb::Metrics));
    assert_eq!(after.limits(&ops), PrincipalLimits::default());
}

#[test]
fn limits_are_those_of_the_principal() {
    let access = shop();
    let ci = by_token(&access, token(1).text().reveal(), NOW_S).unwrap();
    let limits =
        PrincipalLimits { connections: Some(8), publish_bytes_per_s: Some(1 << 20), in_flight_bytes: Some(4 << 20) };
    assert_eq!(access.limits(&ci), limits);
    assert_eq!(access.limits(&anonymous(&access)).connections, Some(1));
    let ops = by_token(&access, token(3).text().reveal(), NOW_S).unwrap();
    assert_eq!(access.limits(&ops), PrincipalLimits::default());
}

#[test]
fn nothing_that_is_printed_shows_a_token() {
    let access = shop();
    let (known, unknown) = (token(3), token(9));
    let certificate = CertificateNames::default();
    let mut printed = vec![format!("{access:?}")];
    for token in [&known, &unknown] {
        let header = bearer(token.text().reveal());
        let credentials = Credentials { authorization: Authorization::Value(&header), certificate: Some(&certificate) };
        printed.push(format!("{credentials:?}"));
        match access.identify(&credentials, NOW_S) {
            Ok(identity) => printed.push(format!("{identity:?} {}", identity.name())),
            Err(error) => printed.push(format!("{error:?} {error}")),
        }
    }
    let text = printed.concat();
    for token in [&known, &unknown] {
        let secret = token.text().reveal();
        assert!(!text.contains(secret) && !text.contains(secret.rsplit('_').next().unwrap()), "{text}");
        assert!(!text.contains(&token.hash()[7..]), "{text}");
        // The bytes of a header, as a list of numbers.
        assert!(!text.contains("119, 116, 108"), "{text}");
    }
}

#[test]
fn rules_are_shared_between_threads() {
    fn is_shared<T: Send + Sync + 'static>() {}
    is_shared::<Access>();
    is_shared::<Identity>();
    is_shared::<Unauthenticated>();
}
