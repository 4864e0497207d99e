//! What comes in is what comes out, of random events on all ways that need no process: attributes, and bytes of data.
//!
//! 300 events each; `PROPTEST_CASES` says how many more, `WATTLE_SEED` which ones.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use wattle::api::{Filter, ListPosition};
use wattle::dispatch::capsule::{CapsuleFailure, CapsuleLimits};
use wattle::dispatch::{Capsule, Tree};
use wattle::engine::memory::MemoryEngine;
use wattle::model::call::{Action, Batch, Failure, HandleError, Handled, Handler, Output};
use wattle::model::json::{check, from_json, to_json};
use wattle::model::{Event, EventView};
use wattle::topology::{Condition, EventFields, ExpressionError, KeyExpression};

use crate::common::events::{NOT_OF_OUTPUTS, assert_mirrored, canonical, cases, event, json, seed};
use crate::common::random::Random;
use crate::common::trees::{Seen, contents, plan_of, settled};

const TOPOLOGY: &str = "
wattle: v1
name: t
topics:
  in: { dedupe: off, partitions: 3 }
  out: {}
subscribers:
  echo: { from: in, plugin: w.wasm, to: { out: out } }
  reject: { from: in, plugin: w.wasm, retry: { attempts: 1 } }
  mourn: { from: reject.dead, plugin: w.wasm, retry: { attempts: 1 } }
";

/// Answers each event with itself, or rejects it.
#[derive(Clone)]
struct Mirror {
    rejects: bool,
}

impl Handler for Mirror {
    fn digest(&self) -> [u8; 32] {
        [1; 32]
    }

    async fn handle(&self, batch: Batch<'_>) -> Result<Handled, HandleError> {
        let mut handled = Handled::done(batch.events.len());
        let mut failed = None;
        for (event, index) in batch.events.iter().zip(0..) {
            if self.rejects {
                failed = Some(Failure { event: index, action: Action::Reject, reason: "no".into() });
                break;
            }
            let attributes = batch.context.attributes(index);
            let is_further = |line: &&str| !NOT_OF_OUTPUTS.contains(&line.split_once('=').unwrap().0);
            let further: Vec<&str> = attributes.split_terminator('\n').filter(is_further).collect();
            handled.outputs.push(Output {
                event: index,
                port: 0,
                key: None,
                r#type: event.r#type.to_owned(),
                content_type: batch.content_type.to_owned(),
                attributes: further.iter().map(|line| format!("{line}\n")).collect(),
                data: event.data.to_vec(),
            });
        }
        handled.verdicts = Handled::in_order(batch.events.len(), failed).verdicts;
        Ok(handled)
    }
}

async fn tree() -> Tree<MemoryEngine> {
    let plan = plan_of(&[TOPOLOGY]);
    let mirrors = plan.subscribers.iter().map(|subscriber| Mirror { rejects: subscriber.name != "echo" }).collect();
    Tree::start(MemoryEngine::default(), &plan, mirrors, &tokio::runtime::Handle::current()).await.unwrap()
}

/// The events of this run.
fn events() -> Vec<Event> {
    let (seed, count) = (seed(), cases(300));
    eprintln!("{count} events of WATTLE_SEED={seed}");
    let mut random = Random::new(seed);
    (0..count).map(|number| event(&mut random, number)).collect()
}

#[test]
fn an_event_in_json_is_the_event() {
    for event in events() {
        let text = serde_json::to_string(&to_json(&event)).unwrap();
        assert!(!text.contains(['\n', '\r']), "{text}");
        let again = from_json(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert_eq!(canonical(&again), canonical(&event), "{text}");
        assert!(EventView::accept(&again.encode()).is_ok(), "{text}");
        let twice = serde_json::to_string(&to_json(&again)).unwrap();
        assert_eq!(twice, text, "what is printed of it is the same");
    }
}

fn by_place(all: &[Seen]) -> HashMap<(u32, u64), &Seen> {
    all.iter().map(|seen| ((seen.partition, seen.offset), seen)).collect()
}

#[tokio::test]
async fn an_event_is_stored_handled_and_a_dead_letter_as_it_came() {
    let tree = tree().await;
    let events = events();
    let encoded: Vec<Bytes> = events.iter().map(Event::encode).collect();
    for part in encoded.chunks(1_000) {
        tree.publisher().publish("in", part, None).await.unwrap();
    }
    settled(&tree).await;
    let stored = contents(&tree, "in").await.concat();
    assert_eq!(stored.len(), events.len());
    let given: HashSet<&Bytes> = encoded.iter().collect();
    assert!(stored.iter().all(|seen| given.contains(&seen.encoded)));

    let places = by_place(&stored);
    let with_what_came = |of: &[Seen]| -> Vec<(Event, Event)> {
        let came = |seen: &Seen| {
            let lineage = seen.lineage.unwrap();
            places[&(lineage.partition, lineage.offset)].event.clone()
        };
        of.iter().map(|seen| (came(seen), seen.event.clone())).collect()
    };
    let answers = with_what_came(&contents(&tree, "out").await.concat());
    assert_eq!(answers.len(), events.len());
    for (came, answer) in answers {
        assert_mirrored(&came, &answer);
    }

    for subscriber in ["reject", "mourn"] {
        let topic = if subscriber == "reject" { "in" } else { "reject.dead" };
        let came = contents(&tree, topic).await.concat();
        let came = by_place(&came);
        let mut from = ListPosition::default();
        let mut count = 0;
        loop {
            let page =
                tree.subscriber(subscriber).unwrap().dead_letters().list(&Filter::default(), from, 500).await.unwrap();
            for letter in &page.found {
                assert_eq!(letter.event, came[&(letter.partition, letter.offset)].encoded, "of {subscriber}");
                let decoded = Event::decode(&letter.event).unwrap();
                assert_eq!(capsule_of(&letter.event), decoded);
            }
            count += page.found.len();
            match page.next {
                Some(next) => from = next,
                None => break,
            }
        }
        assert_eq!(count, events.len(), "of {subscriber}");
    }
    // of a dead letter, all but what the failure has added is as it came
    let dead = with_what_came(&contents(&tree, "reject.dead").await.concat());
    for (came, mut letter) in dead {
        letter.attributes.retain(|name, _| !name.starts_with("wattle"));
        assert_eq!(letter, came);
    }
}

/// The event that a capsule gives back.
fn capsule_of(event: &[u8]) -> Event {
    let failure = CapsuleFailure { kind: "reject".into(), reason: "no".into(), backtrace: None };
    let capsule = Capsule {
        release: "0".into(),
        saved_ns: 1,
        subscriber: "t/reject".into(),
        topic: "t/in".into(),
        partition: 0,
        offset: 0,
        key: "k".into(),
        append_time_ns: 1,
        seed: "00".repeat(32),
        attempt: 1,
        event: event.to_vec(),
        digest: String::new(),
        wasm_digest: String::new(),
        ports: Vec::new(),
        limits: CapsuleLimits {
            memory_bytes: 1,
            time_ns: 1,
            output_bytes: 1,
            handles: None,
            log_lines_per_second: None,
        },
        config: std::collections::BTreeMap::new(),
        secrets: None,
        state: None,
        failure,
        keep: 0,
    };
    Event::decode(&Capsule::decode(&capsule.encode()).unwrap().event).unwrap()
}

#[test]
fn what_one_part_can_read_of_the_data_all_can() {
    let (key, condition) = (KeyExpression::compile("data.b").unwrap(), Condition::compile("data != 17").unwrap());
    let mut random = Random::new(seed());
    let nobody: [(&str, &str); 0] = [];
    let mut broken = 0;
    for _ in 0..cases(300) {
        let data = json(&mut random, 0);
        let fields = EventFields {
            id: "1",
            source: "/s",
            kind: "t",
            subject: None,
            time: None,
            key: None,
            content_type: None,
            data: data.as_bytes(),
            attributes: &nobody,
        };
        let is_read = check(data.as_bytes()).is_ok();
        let by_key = !matches!(key.evaluate(&fields), Err(ExpressionError::BrokenJson { .. }));
        let by_condition = !matches!(condition.evaluate(&fields), Err(ExpressionError::BrokenJson { .. }));
        let by_value = serde_json::from_str::<serde_json::Value>(&data).is_ok();
        assert_eq!([by_key, by_condition, by_value], [is_read; 3], "{data}");
        broken += usize::from(!is_read);
    }
    assert!(broken > 0, "some of it nobody can read");
}
