//! What is wrong with access files.

use super::*;
use crate::topology::Severity;

/// The messages of a file, each with its help.
fn said(text: &str) -> Vec<(Severity, String, String)> {
    let (_, diagnostics) = check(&source(text), &Folder::default());
    let said = diagnostics.into_iter().map(|of| (of.severity, of.message, of.help.unwrap_or_default()));
    said.collect()
}

/// The only problem of a file: its message and its help.
fn only(text: &str) -> (String, String) {
    match said(text).as_slice() {
        [(_, message, help)] => (message.clone(), help.clone()),
        all => panic!("{text}\n{all:#?}"),
    }
}

fn with_rule(rule: &str) -> String {
    let certificate = "{ certificate: shop.example.test }";
    format!("wattle: access/v1\nprincipals: {{ shop: {certificate} }}\nrules:\n  - {{ who: [shop], {rule} }}\n")
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let text = "wattle: access/v1
issuers:
  idp: { issuer: https://idp.example, audience: wattle, keys: missing.json, algorithms: [ES256, HS256] }
principals:
  shop: { tokn: x }
  ci: { token: \"sha256:12\", expires: tomorrow }
  ops: { issuer: ipd, claim: { groups: wattle-ops } }
  anonymous: { certificate: a.b }
rules:
  - { who: [shp], may: [publsh], topics: [orders] }
  - { who: [ops], may: [publish], subscribers: [shop/validate] }
limits: { cy: { publish: 5M } }
";
    let shown = problems(text);
    let expected = [
        "`algorithms` cannot be `HS256`: it has no public key",
        "`conf/missing.json` cannot be read: it is not there",
        "`shop` has no key `tokn`",
        "did you mean `token`?",
        "`token` is not the hash of a token",
        "`expires` is a date or a time, not `tomorrow`",
        "there is no issuer `ipd` in this file",
        "did you mean `idp`?",
        "`anonymous` is the caller without credentials",
        "there is no principal `shp` in this file",
        "did you mean `shop`?",
        "`may` cannot be `publsh`",
        "did you mean `publish`?",
        "`orders` is not a full name",
        "write `NAMESPACE/orders`",
        "`publish` is a right to topics, and this rule names none",
        "there is no principal `cy` in this file",
        "did you mean `ci`?",
        "`publish` is a size per second, not `5M`",
    ];
    for part in expected {
        assert!(shown.contains(part), "{part}\n{shown}");
    }
    assert!(shown.contains("conf/access.yaml:3:"), "with its place: {shown}");
}

#[test]
fn a_right_needs_what_it_is_a_right_to() {
    for (rule, message, help) in [
        ("may: [publish], subscribers: [a/b]", "`publish` is a right to topics", "add `topics:"),
        ("may: [read], bus: true", "`read` is a right to topics", "add `topics:"),
        ("may: [deploy], topics: [a/b]", "`deploy` is a right to subscribers", "add `subscribers:"),
        ("may: [operate], topics: [a/b]", "`operate` is a right to subscribers", "`bus: true` for the clock"),
        ("may: [inspect, metrics], topics: [a/b]", "`metrics` is a right to the bus as a whole", "add `bus: true`"),
        ("may: [backup], subscribers: [a/*]", "`backup` is a right to the bus as a whole", "add `bus: true`"),
        ("may: [apply], subscribers: [a/b]", "`apply` is a right to whole namespaces", "NAMESPACE/*"),
    ] {
        let all = said(&with_rule(rule));
        let error = all.iter().find(|(severity, ..)| *severity == Severity::Error).unwrap();
        assert!(error.1.starts_with(message) && error.2.contains(help), "{rule}: {error:?}");
    }
    for rule in [
        "may: [apply], topics: [\"a/*\"]",
        "may: [apply], bus: true",
        "may: [apply, deploy], subscribers: [\"*/*\"]",
        "may: [inspect], bus: true",
        "may: [operate], bus: true",
        "may: [metrics, read], topics: [a/b], bus: true",
        "may: [consume, state], subscribers: [a/b], bus: false",
    ] {
        assert_eq!(said(&with_rule(rule)), [], "{rule}");
    }
}

#[test]
fn a_rule_that_is_for_nothing_is_refused() {
    assert!(only(&with_rule("may: [read]")).0.starts_with("this rule is for nothing"));
    assert!(only(&with_rule("may: [], bus: true")).0.starts_with("`may` names nothing"));
    let text = "wattle: access/v1\nrules: [{ who: [], may: [metrics], bus: true }]\n";
    assert!(only(text).0.starts_with("`who` names nothing"));
    let (message, help) = only("wattle: access/v1\nrules: [{ who: [anonymous], bus: true }]\n");
    assert!(message.contains("needs the key `may`"), "{message} {help}");
}

#[test]
fn what_cannot_be_read_is_reported_once() {
    for rule in [
        "may: [publsh], topics: [a/b]",
        "may: [publish], topics: [orders]",
        "may: [publish], topics: []",
        "may: [publish], topics: orders",
        "may: [apply], subscribers: [orders]",
        "may: [metrics], bus: maybe",
    ] {
        assert_eq!(said(&with_rule(rule)).len(), 1, "{rule}: {:#?}", said(&with_rule(rule)));
    }
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let all = said(&with_rule("may: [publish], topics: [a/b], subscribers: [a/b]"));
    assert!(matches!(all.as_slice(), [(Severity::Warning, message, _)] if message.contains("a right to subscribers")));
    let all = said(&with_rule("may: [publish], topics: [a/b], bus: true"));
    assert!(matches!(all.as_slice(), [(Severity::Warning, message, _)] if message.contains("the bus as a whole")));
    let text = with_rule("may: [read], topics: [a/b]").replace("who: [shop]", "who: [anonymous]");
    let all = said(&text);
    assert!(matches!(all.as_slice(), [(Severity::Warning, message, _)] if message.starts_with("no rule names `shop`")));
    assert!(only("wattle: access/v1\n").0.starts_with("there are no rules"));
}

#[test]
fn a_principal_needs_credentials_that_are_its_own() {
    let rule = "rules: [{ who: [a, b], may: [read], topics: [x/y] }]";
    let hash = token(1).hash();
    let of = |a: &str, b: &str| {
        let issuers = "issuers: { idp: { issuer: i, audience: w, keys: k, algorithms: [ES256] } }";
        let issuers = if a.contains("idp") { issuers } else { "" };
        said(&format!("wattle: access/v1\n{issuers}\nprincipals: {{ a: {{ {a} }}, b: {{ {b} }} }}\n{rule}\n"))
            .into_iter()
            .map(|(_, message, _)| message)
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(of(&format!("token: \"{hash}\""), "certificate: x.y"), "");
    assert!(of("", "certificate: x.y").contains("`a` has no credentials"));
    assert!(of(&format!("token: \"{hash}\""), &format!("token: \"{hash}\"")).contains("this token is there twice"));
    assert!(of(&format!("token: [\"{hash}\", \"{hash}\"]"), "certificate: x.y").contains("this token is there twice"));
    assert!(of("certificate: x.Y", "certificate: X.y").contains("this certificate is there twice"));
    assert!(of("certificate: \"*.y\"", "certificate: X.y").contains("`certificate` is a URI or a DNS name"));
    assert!(of("certificate: \"CN=shop\"", "certificate: X.y").contains("`certificate` is a URI or a DNS name"));
    assert!(of("issuer: idp", "certificate: x.y").contains("`issuer` alone"));
    assert!(of("claim: { a: b }", "certificate: x.y").contains("whose claim is this?"));
    assert!(of("issuer: idp, claim: {}", "certificate: x.y").contains("without a claim"));
    assert!(of("certificate: \"${HOST}\"", "certificate: x.y").contains("variables are not replaced"));
}

#[test]
fn a_token_in_the_file_is_not_repeated() {
    let token = token(7);
    let secret = token.text().reveal();
    for text in [
        format!("wattle: access/v1\nprincipals: {{ ci: {{ token: \"{secret}\" }} }}\n"),
        format!("wattle: access/v1\nprincipals: {{ ci: {{ tokn: {secret}, {secret}: 1 }} }}\n"),
        format!("wattle: access/v1\nprincipals: {{ ci: {{ token: [{secret} }} }}\n"),
        format!("wattle: access/v1\nprincipals:\n  {secret}: {{ certificate: {secret} }}\n"),
        format!("wattle: access/v1\nrules: [{{ who: [{secret}], may: [{secret}], topics: [{secret}] }}]\n"),
    ] {
        let (_, diagnostics) = check(&source(&text), &Folder::default());
        assert!(diagnostics.iter().any(Diagnostic::is_error), "{text}");
        let said = format!("{diagnostics:?}{}", shown(&text, &diagnostics));
        assert!(!said.contains(&secret[13..]), "{said}");
    }
    let text = format!("wattle: access/v1\nprincipals: {{ ci: {{ token: \"{secret}\" }} }}\n");
    assert!(said(&text).iter().any(|(_, message, _)| message.contains("this is a token itself")));
}

#[test]
fn files_are_bounded() {
    let error = |text: &str| {
        let all = said(text);
        all.into_iter().find(|(severity, ..)| *severity == Severity::Error).map(|(_, message, _)| message).unwrap()
    };
    assert!(error(&"#".repeat(bounds::FILE_BYTES_MAX + 1)).contains("at most 1048576 are read"));
    let many = |count: usize, item: &str| vec![item; count].join(", ");
    let rules = many(bounds::RULES_MAX + 1, "{ who: [anonymous], may: [read], topics: [a/b] }");
    assert!(error(&format!("wattle: access/v1\nrules: [{rules}]\n")).contains("1001 rules"));
    let patterns = many(bounds::PATTERNS_MAX + 1, "a/b");
    let text = format!("wattle: access/v1\nrules: [{{ who: [anonymous], may: [read], topics: [{patterns}] }}]\n");
    assert!(error(&text).contains("more than 10000 patterns"));
    let principals: Vec<_> =
        (0..=bounds::PRINCIPALS_MAX).map(|at| format!("p{at}: {{ certificate: h{at} }}")).collect();
    let text = format!("wattle: access/v1\nprincipals: {{ {} }}\n", principals.join(", "));
    assert!(error(&text).contains("10001 principals"));
    let hashes: Vec<_> = (0..17).map(|seed| format!("\"{}\"", token(seed).hash())).collect();
    let text = format!("wattle: access/v1\nprincipals: {{ p: {{ token: [{}] }} }}\n", hashes.join(", "));
    assert!(error(&text).contains("17 tokens of one principal"));
    let text = format!("wattle: access/v1\nrules: [{}]\n", many(300_000, "a"));
    let (message, help) = only(&text);
    assert!(message.contains("more than 250000 keys and values") && !help.contains("topology"), "{message} {help}");
}

#[test]
fn an_access_file_is_told_from_others() {
    let is = |text: &str| is_access_file(&source(text));
    for text in [
        "wattle: access/v1\n",
        "# rules\nwattle: \"access/v1\"\nrules: []\n",
        "{ rules: [], wattle: access/v2 }",
        "wattle: access/v1\nrules: [\n",
    ] {
        assert!(is(text), "{text}");
    }
    for text in
        ["", "wattle: v1\nname: n\n", "name: access/v1\n", "[wattle, access/v1]", "wattle: v1\nname: [\n", "access/v1"]
    {
        assert!(!is(text), "{text}");
    }
    let (message, _) = only("wattle: access/v2\nrules: [{ who: [anonymous], may: [metrics], bus: true }]\n");
    assert_eq!(message, "`wattle` cannot be `access/v2`");
    assert!(only("").0.contains("this file is empty"));
}

#[test]
fn every_key_of_the_schema_is_described() {
    fn undescribed(schema: &serde_json::Value, found: &mut Vec<String>, count: &mut usize) {
        if let Some(properties) = schema.get("properties").and_then(|properties| properties.as_object()) {
            *count += properties.len();
            let is_described = |of: &serde_json::Value| of["description"].as_str().is_some_and(|text| !text.is_empty());
            found.extend(properties.iter().filter(|(_, of)| !is_described(of)).map(|(key, _)| key.clone()));
        }
        match schema {
            serde_json::Value::Object(object) => object.values().for_each(|of| undescribed(of, found, count)),
            serde_json::Value::Array(items) => items.iter().for_each(|of| undescribed(of, found, count)),
            _ => {}
        }
    }
    let (mut found, mut count) = (Vec::new(), 0);
    undescribed(&serde_json::from_str(&schema()).unwrap(), &mut found, &mut count);
    assert!(found.is_empty() && count > 20, "{found:?} {count}");
}
