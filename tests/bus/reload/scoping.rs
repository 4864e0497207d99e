//! An apply is about the namespaces that it names, on top of what is applied; and only where that is what was looked
//! at.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use wattle::api::{Base, ChangeKind, Component, Digest, Node, Policy, Proposal};
use wattle::deploy::{Files, ReloadError, Store, TopologyError, adopt, instead};
use wattle::effects::SystemClock;
use wattle::engine::memory::MemoryEngine;
use wattle::topology::{FilesDigest, MergedPlan, PathKind, Plan, Source, Surroundings, check_on, check_said_on};

use crate::common::trees::{data, plan_of, settled};
use crate::reload::bed::{Bus, LONG, ONE, World};

/// Beside [`ONE`], in the same namespace: nothing without it.
const MORE: &str = "
wattle: v1
name: t
topics: { extra: {} }
subscribers:
  more: { from: in, plugin: more.wasm, to: { out: extra } }
";

/// Of another namespace.
const OTHER: &str = "
wattle: v1
name: u
topics: { log: {} }
subscribers:
  count: { from: log, plugin: count.wasm }
";

struct Everything;

impl Surroundings for Everything {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, _: &Path) -> PathKind {
        PathKind::File
    }
}

fn sources(texts: &[&str]) -> Vec<Source> {
    texts.iter().map(|text| Source { path: "t.yaml".into(), text: (*text).to_owned() }).collect()
}

/// The components of what files declare: each has a file of its own.
fn components(world: &World, merged: &MergedPlan) -> BTreeMap<String, Component> {
    let path = |name: &str| world.folder.path().join(format!("{}.wasm", name.split('/').nth(1).unwrap()));
    merged.subscribers.iter().map(|name| (name.clone(), path(name).into())).collect()
}

/// What a client proposes that has looked at a bus.
fn proposal(world: &World, bus: &Bus, texts: &[&str], prune: bool) -> Proposal {
    let (base, _) = bus.reloader.base(|_| true);
    of_base(world, &base, texts, prune)
}

fn of_base(world: &World, base: &Base, texts: &[&str], prune: bool) -> Proposal {
    let (merged, problems) = check_on(&sources(texts), &Everything, base, prune);
    let merged = merged.unwrap_or_else(|| panic!("{problems:#?}"));
    let components = components(world, &merged);
    Proposal { prune, ..Proposal::of_files(&merged, components) }
}

fn world() -> World {
    let world = World::of(ONE, "a", LONG);
    for (name, text) in [("more", "m"), ("count", "c")] {
        std::fs::write(world.folder.path().join(format!("{name}.wasm")), text).unwrap();
    }
    world
}

async fn start(world: &World) -> Bus {
    let bus = world.start().await;
    let whole = Proposal::of(&world.plan, &[world.file()]);
    bus.reloader.apply(whole, false).await.unwrap();
    bus
}

fn names(plan: &Plan) -> Vec<String> {
    let mut names: Vec<_> = plan.subscribers.iter().map(|subscriber| subscriber.label()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_applied_alone_is_added_to_what_is_there_and_nothing_goes() {
    let world = world();
    let bus = start(&world).await;
    bus.publish(&["1"]).await;
    for texts in [[MORE], [OTHER]] {
        let proposal = proposal(&world, &bus, &texts, false);
        let planned = bus.reloader.changes(&proposal).unwrap();
        let applied = bus.reloader.apply(proposal, false).await.unwrap();
        assert_eq!(planned, applied);
        assert!(applied.changes.iter().all(|change| change.what == ChangeKind::Added), "{applied:?}");
    }
    settled(&bus.tree).await;
    assert_eq!(names(&bus.tree.plan()), ["t/more", "t/work", "u/count"]);
    assert_eq!(
        (data(&bus.tree, "out").await, data(&bus.tree, "extra").await),
        (vec!["a 1".into()], vec!["m 1".into()])
    );
    // and again: it is what is there
    let again = bus.reloader.changes(&proposal(&world, &bus, &[MORE], false)).unwrap();
    assert!(again.is_empty(), "{again:?}");
    let missing = [(Node::Topic, "in"), (Node::Topic, "out"), (Node::Subscriber, "work")];
    assert_eq!(again.missing, missing.map(|(node, name)| (node, format!("t/{name}"))));
    // what was applied is one record, which the next start reads
    let plan = bus.tree.plan();
    bus.stop().await;
    let (kept, files) = Store::open(world.disk.clone(), Arc::new(SystemClock)).unwrap().topology().unwrap();
    assert_eq!((names(&kept), files.len()), (names(&plan), 3));
}

#[tokio::test]
async fn what_is_pruned_is_of_the_namespaces_that_are_named_and_what_it_loses_is_said() {
    let world = world();
    let bus = start(&world).await;
    bus.reloader.apply(proposal(&world, &bus, &[MORE, OTHER], false), false).await.unwrap();
    bus.publish(&["1", "2"]).await;
    bus.tree.publisher().publish("log", &[crate::common::trees::event("1", "1", "1")], None).await.unwrap();
    settled(&bus.tree).await;
    let pruned = proposal(&world, &bus, &[ONE], true);
    let planned = bus.reloader.changes(&pruned).unwrap();
    assert_eq!(
        planned.changes.iter().map(|it| (it.name.as_str(), it.what)).collect::<Vec<_>>(),
        [("t/extra", ChangeKind::Removed), ("t/more", ChangeKind::Removed)]
    );
    assert_eq!(planned.losses.len(), 2, "{planned:?}");
    assert!(planned.losses[0].contains("topic `t/extra` still has 2 events"), "{planned:?}");
    let words = "subscriber `t/more` loses its position in t/in, after 2 events, and 0 entries";
    assert!(planned.losses[1].contains(words), "{planned:?}");
    let refused = bus.reloader.apply(pruned.clone(), false).await.unwrap_err();
    assert!(matches!(&refused, TopologyError::Loss(losses) if *losses == planned.losses), "{refused}");
    bus.reloader.apply(pruned, true).await.unwrap();
    assert_eq!(names(&bus.tree.plan()), ["t/work", "u/count"], "the other namespace is as it was");
    // the last one of a namespace, with all that is in it
    let none = proposal(&world, &bus, &["wattle: v1\nname: t\ntopics: {}\n"], true);
    bus.reloader.apply(none, true).await.unwrap();
    assert_eq!(names(&bus.tree.plan()), ["u/count"]);
    bus.stop().await;
}

#[tokio::test]
async fn another_from_is_a_removal_that_has_to_be_allowed() {
    let world = world();
    let bus = start(&world).await;
    bus.reloader.apply(proposal(&world, &bus, &[MORE], false), false).await.unwrap();
    bus.publish(&["1", "2", "3"]).await;
    let moved = proposal(&world, &bus, &[&MORE.replace("from: in", "from: out")], false);
    let planned = bus.reloader.changes(&moved).unwrap();
    assert!(planned.changes.iter().any(|it| it.name == "t/more" && it.what == ChangeKind::Moved), "{planned:?}");
    assert!(
        planned.losses.len() == 1 && planned.losses[0].contains("its position in t/in, after 3 events"),
        "{planned:?}"
    );
    assert!(matches!(bus.reloader.apply(moved.clone(), false).await, Err(TopologyError::Loss(_))));
    bus.reloader.apply(moved, true).await.unwrap();
    // what is kept of it is a loss to gc as well
    let garbage = bus.reloader.garbage().await.unwrap();
    assert_eq!(garbage.iter().map(|of| of.name.as_str()).collect::<Vec<_>>(), ["t/more"]);
    let losses: Vec<_> = garbage.iter().filter(|of| of.is_loss()).map(ToString::to_string).collect();
    assert!(losses.len() == 1 && losses[0].contains("has handled 3 that it would get again"), "{losses:?}");
    assert!(matches!(bus.reloader.collect(false).await, Err(TopologyError::Loss(said)) if said == losses));
    assert_eq!(bus.reloader.retired().len(), 1, "to look and to be refused has forgotten nothing");
    bus.stop().await;
}

#[tokio::test]
async fn a_plan_says_of_each_topology_what_an_apply_says() {
    let world = world();
    std::fs::write(world.folder.path().join("bad.wasm"), "bad").unwrap();
    let bus = start(&world).await;
    bus.publish(&["1"]).await;
    let more = |change: &str, to: &str| MORE.replace(change, to);
    let cases = [
        (more("more.wasm", "bad.wasm").replace("more:", "bad:"), false),
        (more("more.wasm", "gone.wasm").replace("more:", "gone:"), false),
        (more("more.wasm", "more.wasm, config: { key: { file: /there/is/none } }"), false),
        (ONE.replace("partitions: 1", "partitions: 2"), false),
        (ONE.replace("work: { from: in", "work: { from: in, config: { a: b }"), false),
        (MORE.to_owned(), true),
        (MORE.to_owned(), false),
        (ONE.to_owned(), true),
    ];
    let mut refused = 0;
    for (text, prune) in cases {
        // without what it refers to `more` is nothing
        let is_read = if prune && text == MORE { false } else { prune };
        let proposal = Proposal { prune, ..proposal(&world, &bus, &[&text], is_read) };
        settled(&bus.tree).await;
        let planned = bus.reloader.changes(&proposal);
        let says_yes = planned.as_ref().is_ok_and(|changes| changes.refusals.is_empty() && changes.losses.is_empty());
        let applied = bus.reloader.apply(proposal, false).await;
        assert_eq!(says_yes, applied.is_ok(), "{text}: {planned:?}, {applied:?}");
        if let Err(error) = applied {
            refused += 1;
            let said: Vec<_> = match &planned {
                Ok(changes) => changes.refusals.iter().chain(&changes.losses).cloned().collect(),
                Err(error) => vec![error.to_string()],
            };
            assert!(said.iter().all(|said| error.to_string().contains(said)), "{said:?}: {error}");
        }
    }
    assert_eq!(refused, 6);
    assert_eq!(bus.who().await, "a");
    bus.stop().await;
}

#[tokio::test]
async fn two_who_apply_at_once_do_not_undo_each_other_unseen() {
    let world = world();
    let bus = start(&world).await;
    let (base, looked_at) = bus.reloader.base(|_| true);
    let mine = of_base(&world, &base, &[MORE], false);
    // somebody else is first
    bus.reloader.apply_if(of_base(&world, &base, &[OTHER], false), false, Some(looked_at.clone())).await.unwrap();
    let refused = bus.reloader.apply_if(mine.clone(), false, Some(looked_at.clone())).await.unwrap_err();
    let TopologyError::Moved { expected, is, since } = &refused else { panic!("{refused}") };
    assert_eq!((expected, is), (&looked_at, &bus.reloader.revision()));
    assert!(since.contains("u/log was added; u/count was added"), "{since}");
    assert_eq!(names(&bus.tree.plan()), ["t/work", "u/count"], "nothing has changed");
    // one that looks again is let in, and one that does not look at all
    let now = bus.reloader.revision();
    bus.reloader.apply_if(mine.clone(), false, Some(now)).await.unwrap();
    bus.reloader.apply(mine, false).await.unwrap();
    bus.stop().await;
}

#[tokio::test]
async fn a_revision_is_the_same_as_long_as_the_same_is_applied() {
    let world = world();
    let bus = start(&world).await;
    let first = bus.reloader.revision();
    assert_eq!(first.len(), 16);
    bus.reloader.apply(proposal(&world, &bus, &[ONE], false), false).await.unwrap();
    bus.deploy("b", Policy::Replace).await;
    assert_eq!(bus.reloader.revision(), first, "nothing else is applied");
    bus.stop().await;
    for _ in 0..2 {
        assert_eq!(Store::open(world.disk.clone(), Arc::new(SystemClock)).unwrap().revision(), first, "over a start");
    }
    let bus = world.start().await;
    assert_eq!(bus.reloader.revision(), first);
    bus.reloader.apply(proposal(&world, &bus, &[MORE], false), false).await.unwrap();
    let second = bus.reloader.revision();
    assert_ne!(second, first);
    bus.reloader.apply(proposal(&world, &bus, &[ONE], true), true).await.unwrap();
    assert_eq!(bus.reloader.revision(), first, "the same is applied again");
    bus.stop().await;
}

#[tokio::test]
async fn a_version_is_changed_only_where_it_is_the_one_that_was_looked_at() {
    let world = world();
    let bus = start(&world).await;
    let a = bus.reloader.list()[0].proven.to_string();
    let deploy = async |text: &str, expected: &str| {
        let component = Digest::of(text.as_bytes());
        bus.reloader.upload(component, text.into()).await.unwrap();
        let how = (Policy::Replace, "a test");
        bus.reloader.deploy_uploaded("work", component, how, Some(expected.to_owned())).await
    };
    deploy("b", &a[..8]).await.unwrap();
    let b = bus.reloader.list()[0].proven.to_string();
    let moved = |error: ReloadError| matches!(&error, ReloadError::Moved { is, .. } if is.to_string() == b);
    assert!(moved(deploy("c", &a).await.unwrap_err()));
    assert!(moved(bus.reloader.rollback_if("work", Some(a.clone())).await.unwrap_err()));
    assert!(moved(bus.reloader.pin_if("work", None, Some(a.clone())).await.unwrap_err()));
    assert_eq!(bus.who().await, "b", "nothing has changed");
    assert!(!bus.reloader.list()[0].is_pinned);
    bus.reloader.pin_if("work", None, Some(b.clone())).await.unwrap();
    bus.reloader.unpin("work").await.unwrap();
    bus.reloader.rollback_if("work", Some(b)).await.unwrap();
    assert_eq!(bus.who().await, "a");
    // one that is on trial is the one that counts
    bus.deploy("d", Policy::Swap).await;
    let of_a = Some(a);
    assert!(matches!(bus.reloader.rollback_if("work", of_a.clone()).await, Err(ReloadError::Moved { .. })));
    assert!(matches!(bus.reloader.promote_if("work", of_a).await, Err(ReloadError::Moved { .. })));
    let d = bus.reloader.list()[0].tried.map(|tried| tried.to_string());
    bus.reloader.promote_if("work", d).await.unwrap();
    assert_eq!(bus.who().await, "d");
    bus.stop().await;
}

/// Files of a start, on top of what a store has.
fn files(world: &World, store: &Store, texts: &[&str], prune: bool) -> Files {
    let applied = store.topology();
    let base = applied.as_ref().map(|(plan, _)| Base::of(plan, |_| true)).unwrap_or_default();
    let (merged, problems, said) = check_said_on(&sources(texts), &Everything, Path::new("/"), (&base, prune));
    let merged = merged.unwrap_or_else(|| panic!("{problems:#?}"));
    let components = components(world, &merged);
    Files::on(applied.as_ref(), merged, components, (said, prune)).unwrap()
}

/// Starts with files, and says what runs.
async fn starts(world: &World, texts: &[&str], prune: bool) -> Vec<String> {
    let (engine, mut store) =
        (MemoryEngine::default(), Store::open(world.disk.clone(), Arc::new(SystemClock)).unwrap());
    let files = files(world, &store, texts, prune);
    if instead(&engine, &store, &files, true).await.unwrap().is_none() {
        adopt(&engine, &mut store, &files.plan, &files.components, (true, &[])).await.unwrap();
    }
    store.saw(&files).unwrap();
    names(&store.topology().unwrap().0)
}

#[tokio::test]
async fn a_start_follows_the_same_rule() {
    let world = world();
    assert_eq!(starts(&world, &[ONE, MORE], false).await, ["t/more", "t/work"]);
    assert_eq!(starts(&world, &[OTHER], false).await, ["t/more", "t/work", "u/count"], "of another namespace");
    assert_eq!(starts(&world, &[ONE], false).await, ["t/more", "t/work", "u/count"], "what is missing stays");
    assert_eq!(starts(&world, &[ONE], true).await, ["t/work", "u/count"], "to prune is something new to say");
    assert_eq!(starts(&world, &[MORE], false).await, ["t/more", "t/work", "u/count"], "on top of what is there");
    assert_eq!(starts(&world, &[ONE], true).await, ["t/work", "u/count"]);
    // what was pruned at the start before and is applied since then is not pruned by the same words
    let bus = world.start().await;
    bus.reloader.apply(proposal(&world, &bus, &[MORE], false), false).await.unwrap();
    bus.stop().await;
    for prune in [true, false] {
        assert_eq!(starts(&world, &[ONE], prune).await, ["t/more", "t/work", "u/count"], "{prune}");
    }
}

#[tokio::test]
async fn files_that_do_not_go_with_what_is_applied_any_more_and_have_not_changed_are_no_reason_not_to_start() {
    let world = world();
    assert_eq!(starts(&world, &[ONE], false).await, ["t/work"]);
    assert_eq!(starts(&world, &[MORE], false).await, ["t/more", "t/work"]);
    let said = |text: &str| check_said_on(&sources(&[text]), &Everything, Path::new("/"), (&Base::default(), false)).2;
    let store = Store::open(world.disk.clone(), Arc::new(SystemClock)).unwrap();
    assert!(
        store.has_seen(said(MORE), false) && !store.has_seen(said(MORE), true) && !store.has_seen(said(ONE), false)
    );
    assert!(!store.has_seen(FilesDigest::of(b"other"), false));
}

#[tokio::test]
async fn what_does_not_go_with_what_is_applied_is_refused_by_the_bus_too() {
    let world = world();
    let bus = start(&world).await;
    let (base, _) = bus.reloader.base(|_| true);
    let mine = of_base(&world, &base, &[MORE], false);
    // it was right when it was looked at
    let renamed = ONE.replace("from: in", "from: orders").replace("in: {", "orders: { renamed_from: in,");
    bus.reloader.apply(proposal(&world, &bus, &[&renamed], false), false).await.unwrap();
    for refused in [bus.reloader.changes(&mine).map(drop), bus.reloader.apply(mine.clone(), true).await.map(drop)] {
        let refused = refused.unwrap_err();
        assert!(matches!(&refused, TopologyError::Refused(words) if words[0].contains("no topic `in`")), "{refused}");
    }
    assert_eq!(names(&plan_of(&[ONE])), names(&bus.tree.plan()));
    bus.stop().await;
}
