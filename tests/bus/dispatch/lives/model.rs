//! What must be where, by the promises alone.

use std::collections::{BTreeMap, BTreeSet};

use wattle::model::partition_of;

/// `new`, then `paid` and `done`, or `void` in front of `done`.
pub(super) const STATES: [&str; 5] = ["new", "new", "paid", "done", "void"];
const NANOS: u64 = 1_000_000_000;
/// How far apart the times are at which anything is due.
const APART_NS: u64 = 3 * NANOS;

#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) state: &'static str,
    /// In seconds.
    pub(super) delay: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) enum Request {
    /// All or nothing, where that is guarded.
    Batch(Vec<Event>),
    /// Each by itself, but nothing behind one that is refused.
    Stream(Vec<Event>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Taken,
    Refused,
    Fenced,
    /// Nobody knows, or it may be tried again.
    Unknown,
}

#[derive(Debug, Clone)]
pub(super) struct Rules {
    pub(super) partitions: u32,
    /// The topic into which is published; else that behind it.
    pub(super) guards_input: bool,
    /// What is out of order goes to another topic; else it is held.
    pub(super) diverts: bool,
    pub(super) hold_s: u64,
    pub(super) held_max: usize,
    pub(super) remember_s: u64,
}

#[derive(Debug, Clone)]
struct Held {
    event: Event,
    due_ns: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    rules: Rules,
    /// Of keys that live.
    living: BTreeMap<String, &'static str>,
    ended: BTreeMap<String, u64>,
    /// In the order in which they came.
    held: Vec<Held>,
    /// With when each is due.
    later: Vec<(u64, Event)>,
    /// What is in the guarded topic, by key.
    pub(super) placed: BTreeMap<String, Vec<String>>,
    /// What is in the topic into which is published, by key, where it is not that one.
    pub(super) published: BTreeMap<String, Vec<String>>,
    /// What is in the topic that takes what is out of order, by key.
    pub(super) diverted: BTreeMap<String, Vec<String>>,
    /// What was held for too long, or may not follow when it comes later.
    pub(super) given_up: BTreeSet<String>,
    /// What failed since its output is refused.
    pub(super) dead: BTreeSet<String>,
}

fn follows(state: Option<&'static str>, next: &str) -> bool {
    match state {
        None => next == "new",
        Some("new") => matches!(next, "paid" | "void"),
        Some("paid") => matches!(next, "done" | "void"),
        Some(_) => false,
    }
}

impl Model {
    pub(super) fn new(rules: &Rules) -> Self {
        Self {
            rules: rules.clone(),
            living: BTreeMap::new(),
            ended: BTreeMap::new(),
            held: Vec::new(),
            later: Vec::new(),
            placed: BTreeMap::new(),
            published: BTreeMap::new(),
            diverted: BTreeMap::new(),
            given_up: BTreeSet::new(),
            dead: BTreeSet::new(),
        }
    }

    pub(super) fn held(&self) -> u64 {
        self.held.len() as u64
    }

    pub(super) fn later(&self) -> u64 {
        self.later.len() as u64
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.later.is_empty()
    }

    pub(super) fn next_due_ns(&self) -> Option<u64> {
        let held = self.held.iter().map(|held| held.due_ns);
        held.chain(self.later.iter().map(|(due_ns, _)| *due_ns)).min()
    }

    /// Whether nothing else is due around the times at which a request may bring something to do.
    pub(super) fn is_free(&self, now_ns: u64, request: &Request) -> bool {
        let hold_ns = self.rules.hold_s * NANOS;
        let later = self.later.iter().flat_map(|(due_ns, _)| [*due_ns, due_ns + hold_ns]);
        let taken: Vec<u64> = self.held.iter().map(|held| held.due_ns).chain(later).collect();
        let (Request::Batch(events) | Request::Stream(events)) = request;
        events.iter().all(|event| {
            let comes_ns = now_ns + event.delay.unwrap_or(0) * NANOS;
            taken.iter().all(|at| at.abs_diff(comes_ns) > APART_NS && at.abs_diff(comes_ns + hold_ns) > APART_NS)
        })
    }

    /// What may be at any moment of a request, the end of it last, and its answers.
    pub(super) fn apply(&self, request: &Request, now_ns: u64) -> (Vec<Self>, Vec<Answer>) {
        match request {
            Request::Batch(events) => {
                let mut next = self.clone();
                let answer = if next.takes(events, now_ns) { Answer::Taken } else { Answer::Refused };
                if answer == Answer::Refused {
                    next = self.clone();
                }
                next.settle(now_ns);
                (vec![next], vec![answer])
            }
            Request::Stream(events) => {
                let (mut next, mut states, mut answers) = (self.clone(), Vec::new(), Vec::new());
                for event in events {
                    if answers.last().is_some_and(|last| *last != Answer::Taken) {
                        answers.push(Answer::Fenced);
                        continue;
                    }
                    let mut after = next.clone();
                    if after.takes(std::slice::from_ref(event), now_ns) {
                        after.settle(now_ns);
                        answers.push(Answer::Taken);
                        states.push(after.clone());
                        next = after;
                    } else {
                        answers.push(Answer::Refused);
                    }
                }
                states.push(next);
                (states, answers)
            }
        }
    }

    /// Time has passed, up to when something is due at the most.
    pub(super) fn pass(&mut self, now_ns: u64) {
        let (late, held) = std::mem::take(&mut self.held).into_iter().partition(|held| held.due_ns <= now_ns);
        self.held = held;
        let late: Vec<Held> = late;
        self.given_up.extend(late.into_iter().map(|held| held.event.id));
        let (due, later) = std::mem::take(&mut self.later).into_iter().partition(|(due_ns, _)| *due_ns <= now_ns);
        self.later = later;
        let due: Vec<(u64, Event)> = due;
        for (_, event) in due {
            if !self.judge(&event, now_ns) {
                self.given_up.insert(event.id);
            }
        }
        self.settle(now_ns);
    }

    /// Whether all of them are taken.
    fn takes(&mut self, events: &[Event], now_ns: u64) -> bool {
        for event in events {
            if let Some(delay) = event.delay {
                self.later.push((now_ns + delay * NANOS, event.clone()));
            } else if self.rules.guards_input {
                if !self.judge(event, now_ns) {
                    return false;
                }
            } else {
                self.published.entry(event.key.clone()).or_default().push(event.id.clone());
                if !self.judge(event, now_ns) {
                    self.dead.insert(event.id.clone());
                }
            }
        }
        true
    }

    /// It has its place, is diverted or is held, or else is refused.
    fn judge(&mut self, event: &Event, now_ns: u64) -> bool {
        let remember_ns = self.rules.remember_s * NANOS;
        let has_ended = self.ended.get(&event.key).is_some_and(|ended_ns| ended_ns + remember_ns > now_ns);
        if !has_ended && follows(self.living.get(&event.key).copied(), event.state) {
            self.place(event, now_ns);
            return true;
        }
        if self.rules.diverts {
            self.diverted.entry(event.key.clone()).or_default().push(event.id.clone());
            return true;
        }
        if has_ended {
            return false;
        }
        let partition = |key: &str| partition_of(key, self.rules.partitions);
        let here = partition(&event.key);
        if self.held.iter().filter(|held| partition(&held.event.key) == here).count() >= self.rules.held_max {
            return false;
        }
        self.held.push(Held { event: event.clone(), due_ns: now_ns + self.rules.hold_s * NANOS });
        true
    }

    fn place(&mut self, event: &Event, now_ns: u64) {
        self.placed.entry(event.key.clone()).or_default().push(event.id.clone());
        if matches!(event.state, "done" | "void") {
            self.living.remove(&event.key);
            self.ended.insert(event.key.clone(), now_ns);
        } else {
            self.living.insert(event.key.clone(), event.state);
        }
    }

    /// What is held follows where it may, the first one of a key first.
    fn settle(&mut self, now_ns: u64) {
        let may = |model: &Self, held: &Held| {
            let (key, remember_ns) = (&held.event.key, model.rules.remember_s * NANOS);
            // a key whose end is forgotten wakes nobody: only an event does
            let has_ended = model.ended.get(key).is_some_and(|ended_ns| ended_ns + remember_ns > now_ns);
            !has_ended && follows(model.living.get(key).copied(), held.event.state)
        };
        while let Some(at) = self.held.iter().position(|held| may(self, held)) {
            let held = self.held.remove(at);
            self.place(&held.event, now_ns);
        }
    }
}
