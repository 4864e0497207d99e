//! Versions of a handler that change while their lanes run.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wattle::api::LaneState;
use wattle::dispatch::capsule::RecordedRead;
use wattle::dispatch::{InitialVersions, Terms, Tree, Trial, Verdict};
use wattle::engine::memory::MemoryEngine;
use wattle::model::call::CallErrorKind;
use wattle::topology::Plan;

use crate::common::trees::{by_key, contents, data, only, plan_of, settled, status, until};
use crate::dispatch::bed::{ONE, backlog, one, one_of, publish, start};
use crate::dispatch::script::{Given, Script, Step, on, out};

const ALL: Terms = Terms {
    events: 1_000,
    lanes: None,
    time: Duration::ZERO,
    at_most: Duration::from_secs(3_600),
    passed: Duration::ZERO,
};

/// Emits the event's data behind the name of the version.
fn named(name: &'static str) -> Script {
    Script::each(move |given| says(name, given))
}

fn says(name: &str, given: &Given) -> Step {
    Step::Emit(vec![out(format!("{name} {}", given.data))])
}

/// The second version: as told on event `b`, otherwise it names itself.
fn second(on_b: impl Fn(&Given) -> Step + Send + Sync + 'static) -> Script {
    Script::each(move |given| if given.data == "b" { on_b(given) } else { says("new", given) }).version(2)
}

async fn tries(tree: &Tree<MemoryEngine>, script: &Script, terms: Terms) -> Arc<Trial> {
    tree.subscriber("work").unwrap().versions().run_on_trial(script.clone(), terms).await.unwrap()
}

fn verdict(trial: &Trial) -> Verdict {
    trial.verdict().borrow().clone()
}

fn failed(trial: &Trial) -> String {
    match verdict(trial) {
        Verdict::Failed(failure) => failure.to_string(),
        verdict => panic!("{verdict:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_goes_on_ends_with_the_version_that_it_began_with() {
    let gate = Arc::new(Semaphore::new(0));
    let open = gate.clone();
    let old = Script::calls(move |call| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            crate::dispatch::script::by_event(&call, |given| says("old", given))
        }
    });
    let tree = one(&old, &["a", "b"]).await;
    until("it is called", || old.called().len() == 1).await;
    let new = named("new").version(2);
    tree.subscriber("t/work").unwrap().versions().run(new.clone()).await.unwrap();
    publish(&tree, "in", &["c"]).await;
    assert_eq!(status(&tree.snapshot(), "t/work").digest, "02".repeat(32));
    open.add_permits(1);
    settled(&tree).await;
    let seen = only(&tree, "out").await;
    assert_eq!(seen.iter().map(|seen| seen.data()).collect::<Vec<_>>(), ["old a", "old b", "new c"]);
    let versions: Vec<_> = seen.iter().map(|seen| seen.lineage.unwrap().version).collect();
    assert!(versions[0] == versions[1] && versions[1] != versions[2], "each names who made it: {versions:?}");
    assert_eq!((old.called().len(), new.called().len()), (1, 1), "nothing was done twice");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_fails_where_the_proven_one_does_not_is_rolled_back() {
    type Fails = fn(&Given) -> Step;
    let failures: [(&str, Fails); 6] = [
        ("no b", |_| Step::Retry(None)),
        ("no b", |_| Step::Reject),
        ("broke at b", |_| Step::Break(CallErrorKind::Trap)),
        ("broke at b", |_| Step::BreakSomewhere(CallErrorKind::Memory)),
        ("port 7 is not one", |_| Step::Emit(vec![on(7, "x")])),
        ("no memory", |_| Step::NoInstance),
    ];
    for (reason, fails) in failures {
        let (old, new) = (named("old"), second(fails));
        let tree = start(ONE, &[("work", &old)]).await;
        let trial = tries(&tree, &new, ALL).await;
        publish(&tree, "in", &["a"]).await;
        settled(&tree).await;
        publish(&tree, "in", &["b"]).await;
        settled(&tree).await;
        publish(&tree, "in", &["c"]).await;
        settled(&tree).await;
        assert_eq!(data(&tree, "out").await, ["new a", "old b", "old c"], "{reason}");
        assert!(data(&tree, "work.dead").await.is_empty(), "{reason}");
        let words = failed(&trial);
        assert!(words.starts_with("event b (partition 0, offset 1): ") && words.contains(reason), "{words}");
        let status = status(&tree.snapshot(), "t/work");
        assert_eq!((status.digest, status.on_trial, status.retried), ("01".repeat(32), None, 0));
        assert_eq!(old.times(), [("b".to_owned(), 1), ("c".to_owned(), 1)].into());
        let versions: Vec<_> = only(&tree, "out").await.iter().map(|seen| seen.lineage.unwrap().version.0).collect();
        assert!(versions[0] != versions[1] && versions[1] == versions[2], "{versions:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_what_is_in_front_of_the_failure_stays_the_new_versions() {
    for fails in [Step::Reject, Step::Break(CallErrorKind::Trap)] {
        let (old, new) = (named("old"), second(move |_| fails.clone()));
        let gate = Arc::new(Semaphore::new(0));
        let (open, first) = (gate.clone(), old.clone());
        let held = Script::calls(move |call| {
            let (gate, first) = (gate.clone(), first.clone());
            async move {
                gate.acquire().await.unwrap().forget();
                first.answer(call).await
            }
        });
        let tree = one(&held, &["z"]).await;
        until("it is called", || held.called().len() == 1).await;
        let trial = tries(&tree, &new, ALL).await;
        publish(&tree, "in", &["a", "b", "c", "d"]).await;
        open.add_permits(100);
        settled(&tree).await;
        assert_eq!(data(&tree, "out").await, ["old z", "new a", "old b", "old c", "old d"]);
        assert!(matches!(verdict(&trial), Verdict::Failed(_)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_both_fail_on_is_the_problem_and_the_new_version_stays() {
    for (reject, attempts) in [(true, 1), (false, 3)] {
        let fails = move |_: &Given| if reject { Step::Reject } else { Step::Retry(None) };
        let old = Script::each(move |given| if given.data == "b" { fails(given) } else { says("old", given) });
        let new = second(fails);
        let tree = start(ONE, &[("work", &old)]).await;
        let trial = tries(&tree, &new, ALL).await;
        publish(&tree, "in", &["a", "b", "c"]).await;
        settled(&tree).await;
        assert_eq!(data(&tree, "out").await, ["new a", "new c"]);
        let dead = only(&tree, "work.dead").await;
        assert_eq!((dead.len(), dead[0].data()), (1, "b"));
        assert_eq!(dead[0].attribute("wattledigest"), "02".repeat(32), "of the version that runs");
        assert_eq!(dead[0].attribute("wattleattempts"), attempts.to_string());
        assert_eq!((verdict(&trial), trial.handled()), (Verdict::Open, 2));
        assert_eq!(old.times()["b"], attempts, "asked at each attempt");
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_alone_never_rolls_back() {
    let (old, new) = (named("old"), second(|_| Step::Break(CallErrorKind::Timeout)));
    let tree = start(ONE, &[("work", &old)]).await;
    let trial = tries(&tree, &new, ALL).await;
    publish(&tree, "in", &["a", "b", "c"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["new a", "new c"]);
    assert_eq!(only(&tree, "work.dead").await[0].attribute("wattlefailure"), "timeout");
    assert_eq!((verdict(&trial), old.called().len()), (Verdict::Open, 0));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waits_for_its_next_attempt_is_compared_as_well_and_stays_in_its_order() {
    let old = Script::each(|given| match (given.data.as_str(), given.attempt) {
        ("b1", 1) => Step::Retry(Some(Duration::from_secs(10))),
        _ => says("old", given),
    });
    let new = Script::each(|given| if given.data == "b1" { Step::Reject } else { says("new", given) }).version(2);
    let events = [("b", "b1"), ("b", "b2"), ("c", "c")];
    let tree = backlog(MemoryEngine::default(), &plan_of(&[ONE]), &old, &events).await;
    until("b1 waits", || status(&tree.snapshot(), "t/work").waiting == 2).await;
    let trial = tries(&tree, &new, ALL).await;
    settled(&tree).await;
    assert_eq!(by_key(&tree, "out").await["b"], ["old b1", "old b2"]);
    assert!(data(&tree, "work.dead").await.is_empty());
    assert!(failed(&trial).contains("no b1"));
    assert_eq!(new.times(), [("b1".to_owned(), 1)].into());
}

#[tokio::test(start_paused = true)]
async fn a_version_that_has_passed_is_not_asked_about_and_stays() {
    let (old, new) = (named("old"), second(|_| Step::Reject));
    let tree = start(ONE, &[("work", &old)]).await;
    let trial = tries(&tree, &new, Terms { events: 2, ..ALL }).await;
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    assert_eq!(verdict(&trial), Verdict::Open);
    publish(&tree, "in", &["c"]).await;
    settled(&tree).await;
    assert_eq!((verdict(&trial), trial.handled()), (Verdict::Enough, 2));
    assert!(tree.subscriber("work").unwrap().versions().pass_trial(&trial));
    assert!(!tree.subscriber("work").unwrap().versions().pass_trial(&trial), "once");
    publish(&tree, "in", &["b"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "work.dead").await, ["b"]);
    assert_eq!((old.called().len(), verdict(&trial)), (0, Verdict::Over));
    assert_eq!(status(&tree.snapshot(), "t/work").digest, "02".repeat(32));
}

#[tokio::test(start_paused = true)]
async fn a_trial_with_enough_events_can_still_fail_and_then_does_not_pass() {
    let (old, new) = (named("old"), second(|_| Step::Reject));
    let tree = start(ONE, &[("work", &old)]).await;
    let trial = tries(&tree, &new, Terms { events: 1, ..ALL }).await;
    publish(&tree, "in", &["a", "b"]).await;
    settled(&tree).await;
    assert!(matches!(verdict(&trial), Verdict::Failed(_)));
    assert!(!tree.subscriber("work").unwrap().versions().pass_trial(&trial));
    assert_eq!(data(&tree, "out").await, ["new a", "old b"]);
}

#[tokio::test(start_paused = true)]
async fn while_the_end_of_a_trial_is_written_nobody_fails_it_and_what_it_failed_on_counts_where_that_fails() {
    for is_kept in [true, false] {
        let (old, new) = (named("old"), second(|_| Step::Reject));
        let tree = start(ONE, &[("work", &old)]).await;
        let trial = tries(&tree, &new, Terms { events: 1, ..ALL }).await;
        assert!(!tree.subscriber("work").unwrap().versions().hold_trial(&trial), "it has not done enough");
        publish(&tree, "in", &["a"]).await;
        settled(&tree).await;
        assert!(tree.subscriber("work").unwrap().versions().hold_trial(&trial));
        publish(&tree, "in", &["b"]).await;
        settled(&tree).await;
        assert!(matches!(verdict(&trial), Verdict::Passing(Some(_))));
        assert!(tree.subscriber("work").unwrap().versions().called().tried.is_some(), "it is on trial");
        if is_kept {
            assert!(tree.subscriber("work").unwrap().versions().pass_trial(&trial));
        } else {
            tree.subscriber("work").unwrap().versions().release_trial(&trial);
            assert!(failed(&trial).contains("event b"));
        }
        publish(&tree, "in", &["c"]).await;
        settled(&tree).await;
        let last = if is_kept { "new c" } else { "old c" };
        assert_eq!(data(&tree, "out").await, ["new a", "old b", last], "nothing is given up");
        assert_eq!(tree.subscriber("work").unwrap().versions().called().tried, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_version_is_compared_with_the_proven_one_and_not_with_the_one_that_it_replaces() {
    let (old, new) = (named("old"), second(|_| Step::Reject));
    let newer = Script::each(|given| if given.data == "c" { Step::Reject } else { says("newer", given) }).version(3);
    let tree = start(ONE, &[("work", &old)]).await;
    let first = tries(&tree, &new, ALL).await;
    let second = tries(&tree, &newer, ALL).await;
    assert_eq!(verdict(&first), Verdict::Over);
    publish(&tree, "in", &["b"]).await;
    settled(&tree).await;
    publish(&tree, "in", &["c"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["newer b", "old c"]);
    assert!(failed(&second).contains("no c"));
    assert!(new.called().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_trial_that_is_given_up_leaves_the_proven_version() {
    let (old, new) = (named("old"), named("new").version(2));
    let tree = start(ONE, &[("work", &old)]).await;
    let trial = tries(&tree, &new, ALL).await;
    tree.subscriber("work").unwrap().versions().give_up_trial();
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["old a"]);
    assert_eq!(verdict(&trial), Verdict::Over);
}

fn wide() -> String {
    ONE.replace("in: {}, out: {}", "in: { partitions: 4 }, out: { partitions: 4 }")
}

const MANY: [&str; 16] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p"];

/// Who made what, by partition.
async fn makers(tree: &Tree<MemoryEngine>) -> Vec<Vec<String>> {
    let maker = |data: &str| data.split(' ').next().unwrap().to_owned();
    let seen = contents(tree, "out").await;
    seen.iter().map(|partition| partition.iter().map(|seen| maker(seen.data())).collect()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_canary_is_called_by_some_lanes_first_and_by_all_once_it_has_passed() {
    let (old, new) = (named("old"), named("new").version(2));
    let tree = start(&wide(), &[("work", &old)]).await;
    let trial = tries(&tree, &new, Terms { events: 2, lanes: Some(2), ..ALL }).await;
    publish(&tree, "in", &MANY).await;
    settled(&tree).await;
    let made = makers(&tree).await;
    assert!(made.iter().all(|made| !made.is_empty()), "{made:?}");
    for (partition, made) in made.iter().enumerate() {
        let expected = if partition < 2 { "new" } else { "old" };
        assert!(made.iter().all(|maker| maker == expected), "{partition}: {made:?}");
    }
    let on_trial = status(&tree.snapshot(), "t/work").on_trial.unwrap();
    assert_eq!((on_trial.lanes, on_trial.events), (2, 2));
    assert_eq!(verdict(&trial), Verdict::Enough);
    assert!(tree.subscriber("work").unwrap().versions().pass_trial(&trial));
    let again: Vec<_> = MANY.iter().map(|name| name.repeat(2)).collect();
    publish(&tree, "in", &again.iter().map(String::as_str).collect::<Vec<_>>()).await;
    settled(&tree).await;
    let twice = makers(&tree).await;
    for (before, after) in made.iter().zip(&twice) {
        assert!(after[before.len()..].iter().all(|maker| maker == "new"), "{after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_lane_finds_takes_every_lane_back() {
    let (old, new) = (named("old"), second(|_| Step::Reject));
    let tree = start(&wide(), &[("work", &old)]).await;
    let trial = tries(&tree, &new, ALL).await;
    publish(&tree, "in", &["b"]).await;
    settled(&tree).await;
    publish(&tree, "in", &MANY).await;
    settled(&tree).await;
    assert!(makers(&tree).await.iter().flatten().all(|maker| maker == "old"));
    assert!(matches!(verdict(&trial), Verdict::Failed(_)));
}

#[tokio::test(start_paused = true)]
async fn across_versions_of_the_state_a_lane_halts_and_asks() {
    let (old, new) = (named("old"), second(|_| Step::Retry(None)).state_version(1));
    let tree = start(ONE, &[("work", &old)]).await;
    let trial = tries(&tree, &new, ALL).await;
    publish(&tree, "in", &["a", "b", "c"]).await;
    until("it halts", || status(&tree.snapshot(), "t/work").lanes == [LaneState::Halted]).await;
    let asks = verdict(&trial);
    assert!(matches!(&asks, Verdict::Asks(failure) if failure.event == "b"), "{asks:?}");
    assert!(data(&tree, "work.dead").await.is_empty(), "nothing is given up");
    assert!(old.called().is_empty(), "who cannot read the state is not asked");
    // whoever decides for the old version says so, and has the lane go on
    tree.subscriber("work").unwrap().versions().give_up_trial();
    tree.subscriber("work").unwrap().resume().await.unwrap();
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["new a", "new c", "old b"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_delivered_once_at_most_is_not_called_again_to_compare() {
    let retry = ONE.find("    retry:").unwrap();
    let yaml = format!("{}    delivery: at_most_once\n", &ONE[..retry]);
    let (old, new) = (named("old"), second(|_| Step::Reject));
    let tree = start(&yaml, &[("work", &old)]).await;
    let trial = tries(&tree, &new, ALL).await;
    publish(&tree, "in", &["a", "b", "c"]).await;
    settled(&tree).await;
    assert_eq!(data(&tree, "out").await, ["new a", "new c"]);
    assert_eq!(data(&tree, "work.dead").await, ["b"]);
    assert_eq!((verdict(&trial), old.called().len()), (Verdict::Open, 0));
}

async fn begun(plan: &Plan, proven: &Script, on_trial: Option<(Script, Terms)>) -> Tree<MemoryEngine> {
    let starts = vec![InitialVersions { proven: proven.clone(), on_trial }];
    Tree::start_with(MemoryEngine::default(), plan, starts, &Handle::current()).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_tree_can_start_in_the_middle_of_a_trial() {
    let (old, new) = (named("old"), second(|_| Step::Reject));
    let tree = begun(&plan_of(&[ONE]), &old, Some((new.clone(), ALL))).await;
    let trial = tree.subscriber("work").unwrap().versions().trial().unwrap();
    publish(&tree, "in", &["a", "b"]).await;
    settled(&tree).await;
    let seen = only(&tree, "out").await;
    assert_eq!(seen.iter().map(|seen| seen.data()).collect::<Vec<_>>(), ["new a", "old b"]);
    assert_ne!(seen[0].lineage.unwrap().version, seen[1].lineage.unwrap().version);
    assert!(failed(&trial).contains("no b"));
    assert!(tree.subscriber("work").unwrap().versions().trial().is_none());
}

#[tokio::test(start_paused = true)]
async fn what_a_version_wrote_for_an_event_that_it_failed_on_is_not_there_for_the_proven_one() {
    let count = |name: &'static str| {
        move |given: &Given| {
            let before = given.state.get("default", "n").unwrap_or_default();
            given.state.set("default", "n", format!("{before}{}", &name[..1]));
            Step::Emit(vec![out(format!("{name} saw {before:?}"))])
        }
    };
    let old = Script::each(count("old"));
    let new = Script::each(move |given| {
        let step = count("new")(given);
        if given.data == "b" { Step::Reject } else { step }
    })
    .version(2);
    let tree = one_of(ONE, &old, &["z"]).await;
    settled(&tree).await;
    tries(&tree, &new, ALL).await;
    publish(&tree, "in", &["a", "b", "c"]).await;
    settled(&tree).await;
    let expected = ["old saw \"\"", "new saw \"o\"", "old saw \"on\"", "old saw \"ono\""];
    assert_eq!(data(&tree, "out").await, expected);
}

#[tokio::test(start_paused = true)]
async fn a_capsule_has_what_the_version_that_runs_has_read_and_not_the_one_that_was_asked() {
    let reads = |name: &'static str| {
        move |given: &Given| {
            given.state.get("default", name);
            Step::Reject
        }
    };
    let (old, new) = (Script::each(reads("old")), Script::each(reads("new")).version(2));
    let tree = start(ONE, &[("work", &old)]).await;
    let (sender, mut capsules) = tokio::sync::mpsc::channel(4);
    tree.hand_capsules_to(sender);
    tries(&tree, &new, ALL).await;
    publish(&tree, "in", &["a"]).await;
    settled(&tree).await;
    let capsule = capsules.recv().await.unwrap();
    assert_eq!((capsule.digest.as_str(), capsule.attempt), ("02".repeat(32).as_str(), 1));
    let read = capsule.state.unwrap();
    assert!(matches!(&read[..], [RecordedRead::Value { key, .. }] if key == "new"), "{read:?}");
}
