//! Blueprints: all or nothing, and numbers that stay.

use wattle::engine::{AppendError, ApplyError, Blueprint, Engine, Entries, LaneWrite, NameChanges, Session, Unit};

use super::home::Home;
use super::{append, blueprint, commit, everything, lane, partition, slices, still_waits, tree};

pub(crate) async fn numbers_are_given_once_and_stay(home: impl Home) {
    let engine = home.open();
    let mut first = blueprint(&[("a", 1), ("b", 4)], &[("s", "a"), ("t", "b")]);
    first.versions = vec![[1; 32], [2; 32]];
    let numbers = engine.apply(&first).await.unwrap();
    assert_eq!(engine.apply(&first).await.unwrap(), numbers, "again changes nothing");
    let mut more = blueprint(&[("c", 2), ("b", 4), ("a", 1)], &[("t", "b"), ("u", "c"), ("s", "a")]);
    more.versions = vec![[2; 32], [3; 32]];
    let grown = engine.apply(&more).await.unwrap();
    assert_eq!(grown.topics[1..], [numbers.topics[1], numbers.topics[0]]);
    assert_eq!([grown.subscribers[0], grown.subscribers[2]], [numbers.subscribers[1], numbers.subscribers[0]]);
    assert_eq!(grown.versions[0], numbers.versions[1]);
    assert!(!numbers.topics.contains(&grown.topics[0]), "a new number for a new topic");
    assert!(!numbers.subscribers.contains(&grown.subscribers[1]));
    assert!(!numbers.versions.contains(&grown.versions[1]));
    for (number, digest) in numbers.versions.iter().chain(&grown.versions).zip([1, 2, 2, 3]) {
        assert_eq!(engine.digest(*number), Some([digest; 32]));
    }
    assert_eq!(engine.digest(wattle::model::VersionId(4)), None);
    for (topic, partitions) in grown.topics.iter().zip([2, 4, 1]) {
        let exists = |number| engine.bounds(partition(*topic, number)).is_some();
        assert!((0..partitions).all(exists) && !exists(partitions));
    }
}

pub(crate) async fn a_blueprint_is_applied_all_or_nothing(home: impl Home) {
    let engine = home.open();
    engine.apply(&blueprint(&[("a", 2)], &[])).await.unwrap();
    let error = engine.apply(&blueprint(&[("new", 5), ("a", 3)], &[("s", "new")])).await.unwrap_err();
    let ApplyError::Partitions { topic, existing: 2, wanted: 3 } = &error else { panic!("{error:?}") };
    assert_eq!(topic, "a");
    // had `new` been made, it would have 5 partitions for ever
    let numbers = engine.apply(&blueprint(&[("new", 1), ("a", 2)], &[])).await.unwrap();
    assert!(engine.bounds(partition(numbers.topics[0], 0)).is_some());
    assert!(engine.bounds(partition(numbers.topics[0], 1)).is_none());
}

pub(crate) async fn a_subscriber_of_an_unknown_topic_is_refused(home: impl Home) {
    let engine = home.open();
    let error = engine.apply(&blueprint(&[("new", 5)], &[("s", "nowhere")])).await.unwrap_err();
    let ApplyError::UnknownTopic { subscriber, topic } = &error else { panic!("{error:?}") };
    assert_eq!((subscriber.as_str(), topic.as_str()), ("s", "nowhere"));
    engine.apply(&blueprint(&[("new", 1)], &[])).await.unwrap();
}

pub(crate) async fn a_blueprint_that_contradicts_itself_is_refused(home: impl Home) {
    let engine = home.open();
    let error = engine.apply(&blueprint(&[("a", 1), ("a", 2)], &[])).await.unwrap_err();
    assert!(matches!(error, ApplyError::Partitions { existing: 1, wanted: 2, .. }), "{error:?}");
    engine.apply(&blueprint(&[("a", 2)], &[])).await.unwrap();
}

pub(crate) async fn another_input_makes_another_subscriber(home: impl Home) {
    let engine = home.open();
    let first = engine.apply(&blueprint(&[("a", 1), ("b", 1)], &[("s", "a")])).await.unwrap();
    let second = engine.apply(&blueprint(&[("a", 1), ("b", 1)], &[("s", "b")])).await.unwrap();
    assert_ne!(first.subscribers, second.subscribers);
    let back = engine.apply(&blueprint(&[("a", 1), ("b", 1)], &[("s", "a")])).await.unwrap();
    assert_eq!(first.subscribers, back.subscribers);
}

pub(crate) async fn a_name_is_given_to_what_has_a_number_and_is_free_again(home: impl Home) {
    let engine = home.open();
    let first = engine.apply(&blueprint(&[("a", 2), ("q", 1)], &[("s", "a")])).await.unwrap();
    let (topic, subscriber) = (first.topics[0], first.subscribers[0]);
    append(&engine, partition(topic, 1), &["x", "y"]).await;
    let mut session = engine.acquire(lane(subscriber, 1)).await.unwrap();
    commit(&mut session, 1, &[]).await.unwrap();
    session.sync().await.unwrap();
    let names = NameChanges { topics: vec![(topic, "b".into())], subscribers: vec![(subscriber, "t".into())] };
    // one that is called as they were is another, whatever it is
    let renamed = blueprint(&[("b", 2), ("a", 3)], &[("s", "b"), ("t", "b"), ("s", "a")]);
    let renamed = Blueprint { names, ..renamed };
    let numbers = engine.apply(&renamed).await.unwrap();
    assert_eq!((numbers.topics[0], numbers.subscribers[1]), (topic, subscriber));
    assert!(!first.topics.contains(&numbers.topics[1]) && !first.subscribers.contains(&numbers.subscribers[0]));
    assert_ne!(numbers.subscribers[0], numbers.subscribers[2]);
    assert_eq!((engine.topic("b"), engine.topic("a")), (Some(topic), Some(numbers.topics[1])));
    assert_eq!(engine.subscriber("t", topic), Some(subscriber));
    assert_eq!(engine.subscriber("t", numbers.topics[1]), None);
    assert_eq!(everything(&engine, partition(topic, 1)).await, ["x", "y"]);
    assert_eq!(
        (engine.position(lane(subscriber, 1)), engine.position(lane(numbers.subscribers[0], 1))),
        (Some(1), Some(0))
    );
    // what makes identities stays with the number, and no two have the same
    assert_eq!(numbers.topic_origins[0], first.topic_origins[0]);
    assert_eq!(numbers.subscriber_origins[1], first.subscriber_origins[0]);
    assert_ne!(numbers.topic_origins[1], first.topic_origins[0]);
    assert_ne!(numbers.subscriber_origins[0], first.subscriber_origins[0]);
    assert_eq!(engine.apply(&renamed).await.unwrap(), numbers, "said again it changes nothing");
}

pub(crate) async fn a_blueprint_that_is_refused_renames_nothing(home: impl Home) {
    let engine = home.open();
    let first = engine.apply(&blueprint(&[("a", 2)], &[])).await.unwrap();
    let names = NameChanges { topics: vec![(first.topics[0], "b".into())], ..NameChanges::default() };
    let refused = engine.apply(&Blueprint { names, ..blueprint(&[("b", 3)], &[]) }).await.unwrap_err();
    assert!(matches!(refused, ApplyError::Partitions { existing: 2, wanted: 3, .. }), "{refused:?}");
    assert_eq!((engine.topic("a"), engine.topic("b")), (Some(first.topics[0]), None));
}

pub(crate) async fn a_topic_that_is_gone_has_nothing_and_leaves_its_name(home: impl Home) {
    let engine = home.open();
    let before = blueprint(&[("a", 2), ("b", 1)], &[("s", "a"), ("t", "b")]);
    let first = engine.apply(&before).await.unwrap();
    let (topic, own) = (first.topics[0], lane(first.subscribers[0], 1));
    append(&engine, partition(topic, 1), &["x", "y"]).await;
    let mut session = engine.acquire(own).await.unwrap();
    let writes = vec![LaneWrite::put("k", "v")];
    session.commit(Unit { consumed_to: 1, writes, ..Unit::default() }).await.unwrap();
    session.sync().await.unwrap();
    let without = blueprint(&[("b", 1)], &[("t", "b")]);
    engine.apply(&without).await.unwrap();
    assert_eq!(everything(&engine, partition(topic, 1)).await, ["x", "y"], "what is removed stays");
    let known = engine.topics();
    assert_eq!((known[0].number, known[0].name.as_str(), known[0].partitions), (topic, "a", 2));
    assert!(engine.bytes(partition(topic, 1)).unwrap() > 0 && engine.bytes(partition(topic, 0)) == Some(0));

    let gone = || NameChanges { topics: vec![(topic, known[0].gone_name())], ..NameChanges::default() };
    engine.apply(&Blueprint { names: gone(), ..without.clone() }).await.unwrap();
    assert_eq!(engine.topics().iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!((engine.topic("a"), engine.bounds(partition(topic, 1)), engine.position(own)), (None, None, None));
    assert!(engine.entries(own).is_none() && engine.states(partition(topic, 1)).is_none());
    assert!(engine.bytes(partition(topic, 1)).is_none() && engine.acquire(own).await.is_err());
    let refused = engine.append(slices(&[(partition(topic, 1), "z")])).await.unwrap_err();
    assert!(matches!(refused, AppendError::UnknownPartition(_)), "{refused}");

    let before = blueprint(&[("a", 3), ("b", 1)], &[("s", "a"), ("t", "b")]);
    let again = engine.apply(&before).await.unwrap();
    assert!(!first.topics.contains(&again.topics[0]) && !first.subscribers.contains(&again.subscribers[0]));
    assert_eq!(again.topics[1], first.topics[1]);
    assert!(everything(&engine, partition(again.topics[0], 1)).await.is_empty());
    let own = lane(again.subscribers[0], 1);
    assert_eq!((engine.position(own), engine.entries(own).unwrap().get(b"k").unwrap()), (Some(0), None));
    assert_eq!(
        engine.apply(&Blueprint { names: gone(), ..before }).await.unwrap(),
        again,
        "said again it changes nothing"
    );
}

pub(crate) async fn an_apply_that_nobody_waits_for_shares_no_number(home: impl Home) {
    let engine = home.open();
    still_waits(engine.apply(&blueprint(&[("given up", 1)], &[]))).await;
    let kept = engine.apply(&blueprint(&[("kept", 1)], &[])).await.unwrap();
    let both = engine.apply(&blueprint(&[("given up", 1), ("kept", 1)], &[])).await.unwrap();
    assert_eq!(both.topics[1], kept.topics[0]);
    assert_ne!(both.topics[0], both.topics[1]);
    append(&engine, partition(both.topics[0], 0), &["elsewhere"]).await;
    assert!(everything(&engine, partition(both.topics[1], 0)).await.is_empty());
    let tree = tree(&engine).await;
    assert_eq!(engine.position(lane(tree.validate, 0)), Some(0));
}
