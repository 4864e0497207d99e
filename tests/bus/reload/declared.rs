//! What a component declares of its configuration is held against what the topology says, whichever of the two is new.

use wattle::api::{Change, Digest, Policy, Proposal, VersionRole};
use wattle::topology::Plan;

use crate::common::components::declaring;
use crate::common::trees::plan_of;
use crate::reload::bed::{Bus, ONE, World};

/// Without code, which the handlers of these tests do not need.
fn component(setting: &str) -> Vec<u8> {
    let schema =
        format!(r#"{{ "properties": {{ "{setting}": {{ "type": "integer" }} }}, "additionalProperties": false }}"#);
    declaring(b"\0asm\x0d\0\x01\0", &schema)
}

fn told(config: &str) -> Plan {
    plan_of(&[&ONE.replace("to: {", &format!("config: {{ {config} }}, to: {{"))])
}

fn component_of(bus: &Bus, standing: VersionRole) -> Option<Digest> {
    let versions = bus.reloader.versions("work").unwrap();
    versions.into_iter().find(|version| version.standing == standing).map(|version| version.wasm)
}

#[tokio::test]
async fn whatever_is_new_and_does_not_fit_the_other_is_refused_and_the_version_before_runs_on() {
    let mut world = World::new("a");
    world.plan = told("times: 7");
    let bus = world.start().await;
    let meant = "the plugin has no setting `times`: did you mean `time`?";
    let deployed = bus.reloader.deploy("work", component("time"), Policy::Replace, "a test").await;
    let refused = deployed.unwrap_err().to_string();
    assert!(refused.contains(meant) && refused.contains("t/work"), "{refused}");
    std::fs::write(world.file(), component("time")).unwrap();
    let proposed = bus.reloader.propose("work", &world.file(), Policy::Replace).await;
    assert!(proposed.unwrap_err().to_string().contains(meant));
    assert_eq!((bus.who().await.as_str(), component_of(&bus, VersionRole::Tried)), ("a", None));

    // Both at once fit each other; another setting alone does not.
    let apply = |config: &str| bus.reloader.apply(Proposal::of(&told(config), &[world.file()]), false);
    apply("time: 7").await.unwrap();
    assert_eq!(component_of(&bus, VersionRole::Tried), Some(Digest::of(&component("time"))));
    for (config, words) in [
        ("tme: 7", "did you mean `time`?"),
        ("time: soon", "the setting `time` does not fit: the value is not of type \"integer\""),
    ] {
        let refused = apply(config).await.unwrap_err().to_string();
        assert!(refused.contains(words), "{refused}");
        let planned = bus.reloader.changes(&Proposal::of(&told(config), &[world.file()])).unwrap();
        assert!(planned.refusals.concat().contains(words), "a plan says what an apply does: {:?}", planned.refusals);
    }
    bus.stop().await;

    // Nor at a start, where what was decided runs.
    world.plan = told("tme: 7");
    let bus = world.start().await;
    assert_eq!(component_of(&bus, VersionRole::Tried), Some(Digest::of(&component("time"))));
    let said = bus.status().reload.unwrap();
    assert!(said.contains("did you mean `time`?"), "{said}");
    bus.stop().await;
}

#[tokio::test]
async fn a_setting_that_the_deployed_component_does_not_have_is_refused_with_its_name() {
    let mut world = World::new("a");
    world.plan = told("time: 7");
    let bus = world.start().await;
    bus.reloader.deploy("work", component("time"), Policy::Replace, "a test").await.unwrap();
    let deployed = format!("the deployed component {}", Digest::of(&component("time")).short());
    let other = Proposal::of(&told("tme: 7"), &[world.file()]);
    let planned = bus.reloader.changes(&other).unwrap().refusals.concat();
    assert!(planned.contains(&deployed) && planned.contains("did you mean `time`?"), "{planned}");
    let refused = bus.reloader.apply(other, false).await.unwrap_err().to_string();
    assert!(refused.contains(&deployed), "{refused}");
    // That of the file is not called so.
    std::fs::write(world.file(), component("time")).unwrap();
    let planned = bus.reloader.changes(&Proposal::of(&told("tme: 7"), &[world.file()])).unwrap().refusals.concat();
    assert!(
        planned.contains("does not match the schema of its plugin") && planned.contains("did you mean"),
        "{planned}"
    );
    bus.stop().await;
}

#[tokio::test]
async fn a_secret_may_become_what_does_not_fit_since_the_version_is_the_same() {
    let mut world = World::new("a");
    std::fs::write(world.file(), component("time")).unwrap();
    let secret = world.folder.path().join("secret");
    std::fs::write(&secret, "7").unwrap();
    world.plan = told(&format!("time: {{ file: {} }}", secret.display()));
    let bus = world.start().await;
    bus.stop().await;
    std::fs::write(&secret, "soon").unwrap();
    let bus = world.start().await;
    assert_eq!(bus.status().reload, None);
    bus.stop().await;
}

#[tokio::test]
async fn a_version_that_says_nothing_of_outputs_in_place_of_one_that_does_is_told_of() {
    let mut world = World::new("a");
    let bus = world.start().await;
    let deploy = async |text: &str| {
        bus.reloader.deploy("work", text.as_bytes().to_vec(), Policy::Replace, "a test").await.unwrap()
    };
    assert_eq!(deploy("b").await.notice, None);
    let told = deploy("c portless").await;
    let notice = format!("{} declares no outputs; the topology connects `out`", told.version.short());
    assert_eq!(told.notice, Some(notice));
    // it is what runs from then on
    assert_eq!(deploy("d portless").await.notice, None);
    assert_eq!(deploy("e").await.notice, None);
    bus.stop().await;
    // a topology that proposes one says it in a plan, an apply, and at a start
    std::fs::write(world.file(), "f portless").unwrap();
    world.plan = world_with_retry();
    let bus = world.start().await;
    let noted = bus.status().reload.unwrap();
    assert!(noted.contains("declares no outputs; the topology connects `out`"), "{noted}");
    bus.stop().await;
    let world = World::new("a");
    let bus = world.start().await;
    std::fs::write(world.file(), "f portless").unwrap();
    let is_told = |changes: &[Change]| {
        changes.iter().flat_map(|change| &change.words).any(|words| words.contains("declares no outputs"))
    };
    let proposal = || Proposal::of(&world_with_retry(), &[world.file()]);
    assert!(is_told(&bus.reloader.changes(&proposal()).unwrap().changes));
    assert!(is_told(&bus.reloader.apply(proposal(), false).await.unwrap().changes));
    bus.stop().await;
}

/// [`ONE`], whose subscriber has to start anew.
fn world_with_retry() -> Plan {
    plan_of(&[&ONE.replace("attempts: 2", "attempts: 3")])
}
