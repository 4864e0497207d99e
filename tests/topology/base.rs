//! Files on top of what is applied: what is declared takes the place of what is applied by its name, all else stays,
//! and the whole is checked as if it were written in one place.

use std::collections::BTreeSet;
use std::path::Path;

use wattle::api::Base;
use wattle::topology::render::{self, Style};
use wattle::topology::{MergedPlan, PathKind, Plan, Source, Surroundings, check, check_on};

struct World;

impl Surroundings for World {
    fn variable(&self, name: &str) -> Option<String> {
        (name == "TOKEN").then(|| "hunter2-hunter2".to_owned())
    }

    fn at(&self, _: &Path) -> PathKind {
        PathKind::File
    }

    fn text(&self, _: &Path, _: usize) -> Result<String, String> {
        Ok("{ \"type\": \"object\" }".to_owned())
    }
}

const ORDERS: &str = "wattle: v1
name: shop
topics: { orders: { partitions: 4, schema: /s.json }, parcels: {} }
subscribers:
  ship: { from: orders, plugin: /ship.wasm, to: [parcels], config: { token: \"${TOKEN}\" } }
";

/// Of the same namespace, and nothing without the other.
const SMS: &str = "wattle: v1
name: shop
topics: { texts: {} }
subscribers:
  sms: { from: parcels, plugin: /sms.wasm, to: [texts] }
";

const OTHER: &str = "wattle: v1
name: other
topics: { log: {} }
subscribers:
  count: { from: log, plugin: /count.wasm }
";

fn sources(texts: &[&str]) -> Vec<Source> {
    let source =
        |(number, text): (usize, &&str)| Source { path: format!("{number}.yaml").into(), text: (*text).to_owned() };
    texts.iter().enumerate().map(source).collect()
}

fn plan(texts: &[&str]) -> Plan {
    let (plan, problems) = check(&sources(texts), &World);
    plan.unwrap_or_else(|| panic!("{problems:#?}"))
}

fn try_on(applied: &Plan, texts: &[&str], prune: bool) -> Result<MergedPlan, String> {
    let (base, sources) = (Base::of(applied, |_| true), sources(texts));
    let (merged, problems) = check_on(&sources, &World, &base, prune);
    let all: Vec<_> = sources.into_iter().chain(base.sources()).collect();
    let said = render::text(&all, &problems, Style { colour: false, width: 120 });
    assert!(merged.is_none() || problems.is_empty(), "what is applied is no reason to warn: {said}");
    merged.map(|merged| merged.with_applied(applied)).ok_or(said)
}

fn on(applied: &Plan, texts: &[&str], prune: bool) -> MergedPlan {
    try_on(applied, texts, prune).unwrap_or_else(|said| panic!("{said}"))
}

/// The nodes with all that they say, whatever their order.
fn nodes(plan: &Plan) -> BTreeSet<String> {
    let topics = plan.topics.iter().map(|topic| {
        let mut all = topic.clone();
        (all.parent, all.diverts_to, all.diverted_from, all.dead_letters_of, all.renamed_from) =
            (None, None, None, None, None);
        let parent = topic.parent.map(|parent| plan[parent].label());
        let diverted_from = topic.diverted_from.map(|from| plan[from].label());
        format!("{all:?} {parent:?} {diverted_from:?}")
    });
    let subscribers = plan.subscribers.iter().map(|subscriber| {
        let mut all = subscriber.clone();
        let to: Vec<_> = all.ports.drain(..).map(|(port, topic)| (port, plan[topic].label())).collect();
        (all.from.0, all.dead_letters, all.renamed_from) = (0, None, None);
        format!("{all:?} {} {to:?}", plan[subscriber.from].label())
    });
    topics.chain(subscribers).collect()
}

#[test]
fn a_file_alone_is_read_on_top_of_what_is_applied() {
    assert!(check(&sources(&[SMS]), &World).0.is_none(), "it is nothing by itself");
    let applied = plan(&[ORDERS, OTHER]);
    let merged = on(&applied, &[SMS], false);
    assert_eq!(nodes(&merged.plan), nodes(&plan(&[ORDERS, SMS, OTHER])));
    assert_eq!(merged.namespaces, BTreeSet::from(["shop".to_owned()]));
    assert_eq!(merged.subscribers, BTreeSet::from(["shop/sms".to_owned()]));
    assert_eq!(merged.topics, BTreeSet::from(["shop/texts".to_owned()]));
    assert_eq!(merged.missing_topics, ["shop/orders", "shop/parcels"]);
    assert_eq!(merged.missing_subscribers, ["shop/ship"]);
    // what it sends is its own part, which means the same there
    let sent = merged.documents();
    assert!(sent.len() == 1 && sent[0].contains("sms:") && !sent[0].contains("ship"), "{sent:?}");
    let again = on(&applied, &sent.iter().map(String::as_str).collect::<Vec<_>>(), false);
    assert_eq!(nodes(&again.plan), nodes(&merged.plan));
    // and whichever file is applied again, the plan is the same, in the same order
    for text in [ORDERS, SMS, OTHER] {
        assert_eq!(on(&merged.plan, &[text], false).plan, merged.plan, "{text}");
    }
}

#[test]
fn what_is_applied_stays_until_it_is_pruned_and_only_in_the_namespaces_of_the_files() {
    let applied = plan(&[ORDERS, SMS, OTHER]);
    let fewer = ORDERS.replace("4, schema: /s.json", "4, retention: { age: 1h }");
    let merged = on(&applied, &[&fewer], false);
    assert_eq!(nodes(&merged.plan), nodes(&plan(&[&fewer, SMS, OTHER])));
    assert_eq!(
        (merged.missing_topics, merged.missing_subscribers),
        (vec!["shop/texts".into()], vec!["shop/sms".into()])
    );
    let merged = on(&applied, &[&fewer], true);
    assert_eq!(nodes(&merged.plan), nodes(&plan(&[&fewer, OTHER])));
    assert!(merged.missing_topics.is_empty() && merged.missing_subscribers.is_empty(), "they go");
    // all of a namespace
    let merged = on(&applied, &["wattle: v1\nname: shop\ntopics: {}\n"], true);
    assert_eq!(nodes(&merged.plan), nodes(&plan(&[OTHER])));
    let sent = merged.documents();
    assert_eq!(sent, ["wattle: v1\nname: shop\ntopics: {}\n"]);
    assert!(try_on(&plan(&[OTHER]), &["wattle: v1\nname: shop\ntopics: {}\n"], true).is_err(), "there is none");
}

#[test]
fn values_of_variables_are_in_no_text_of_what_is_applied() {
    let applied = plan(&[ORDERS]);
    let base = Base::of(&applied, |_| true);
    assert!(base.documents.iter().all(|text| !text.contains("hunter2")), "{base:?}");
    let merged = on(&applied, &[SMS], false);
    assert!(format!("{:?}", merged.plan.subscribers).contains("hunter2"), "what is applied has them still");
    assert!(merged.written().is_empty(), "it is not what the file says");
}

#[test]
fn a_mistake_is_shown_where_it_is_and_what_is_applied_is_called_so() {
    let applied = plan(&[ORDERS]);
    let said = try_on(&applied, &[&SMS.replace("from: parcels", "from: parcel")], false).unwrap_err();
    assert!(
        said.contains("unknown-topic") && said.contains("0.yaml:5:") && said.contains("did you mean `parcels`?"),
        "{said}"
    );
    // another publishes to what something that is applied publishes to
    let second = SMS.replace("from: parcels", "from: orders").replace("to: [texts]", "to: [parcels]");
    let said = try_on(&applied, &[&second.replace("{ texts: {} }", "{}")], false).unwrap_err();
    assert!(said.contains("two-parents") && said.contains("0.yaml:5:") && said.contains("as applied:"), "{said}");
    assert!(said.contains("--prune"), "{said}");
    // one that is only there to be taken from
    let cycle = "wattle: v1\nname: shop\nsubscribers: { back: { from: parcels, plugin: /b.wasm, to: [orders] } }\n";
    let said = try_on(&applied, &[cycle], false).unwrap_err();
    assert!(said.contains("cycle") && said.contains("as applied:"), "{said}");
    // mistakes of a file alone are where they were
    let said = try_on(&applied, &[&SMS.replace("from: parcels", "from: parcels, retry: { attempts: 0 }")], false);
    assert!(!said.unwrap_err().contains("as applied"));
}

#[test]
fn what_a_root_has_by_itself_is_no_reason_not_to_publish_to_it() {
    let applied = plan(&[
        "wattle: v1\nname: shop\ntopics: { a: {}, b: { backlog: 5 } }\nsubscribers: { s: { from: a, plugin: /s.wasm }, \
                          t: { from: b, plugin: /s.wasm } }\n",
    ]);
    let file = "wattle: v1\nname: shop\nsubscribers: { s: { from: a, plugin: /s.wasm, to: [b] } }\n";
    let merged = on(&applied, &[file], false);
    let b = merged.plan.topics.iter().find(|topic| topic.name == "b").unwrap();
    assert!(b.parent.is_some() && b.settings.dedupe.is_none() && b.partitions == 1, "{b:?}");
    let said = "wattle: v1\nname: shop\ntopics: { a: {}, b: { dedupe: { window: 1h } } }\nsubscribers: { s: { from: a, \
        plugin: /s.wasm }, \
                t: { from: b, plugin: /s.wasm } }\n";
    let said = try_on(&plan(&[said]), &[file], false).unwrap_err();
    assert!(said.contains("`dedupe` is for roots") && said.contains("as applied:"), "{said}");
}

#[test]
fn what_is_called_otherwise_is_called_so_by_all_that_is_applied() {
    let more = "wattle: v1\nname: shop\nsubscribers: { mourn: { from: ship.dead, plugin: /m.wasm } }\n";
    let applied = plan(&[ORDERS, SMS, more]);
    let file = "wattle: v1\nname: shop\ntopics: { boxes: { renamed_from: parcels } }\nsubscribers:\n  post: { \
        renamed_from: ship, from: orders, plugin: \
                /ship.wasm, to: { parcels: boxes } }\n";
    let merged = on(&applied, &[file], false);
    let named = |name: &str| merged.plan.subscribers.iter().find(|of| of.name == name).unwrap();
    assert_eq!(merged.plan[named("sms").from].name, "boxes");
    assert_eq!(merged.plan[named("mourn").from].name, "post.dead");
    assert!(!merged.plan.subscribers.iter().any(|of| of.name == "ship"));
    assert_eq!(merged.missing_topics, ["shop/orders", "shop/texts"], "what is called otherwise is not missing");
    // done once, and then free to be somebody else's
    let again = on(&merged.plan, &[file], false);
    assert_eq!(nodes(&again.plan), nodes(&merged.plan));
    let free = on(
        &merged.plan,
        &["wattle: v1\nname: shop\ntopics: { parcels: {} }\nsubscribers: { p: { from: parcels, plugin: /p.wasm } }\n"],
        false,
    );
    assert!(free.plan.topics.iter().any(|topic| topic.name == "parcels"));
    // a name cannot be given to two
    let both = "wattle: v1\nname: shop\ntopics: { texts: { renamed_from: parcels }, parcels: {} }\n";
    assert!(try_on(&applied, &[both], false).unwrap_err().contains("still declared"));
}
