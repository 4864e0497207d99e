//! Random lives of keys: events in any order, alone, in batches and in streams, some of which come later; a bus that is
//! killed, loses its power, has no room and a clock that jumps. What is where in the end is what a pure model says.
//!
//! The model knows nothing of lanes: between two steps everything that can happen has happened, so it says to the event
//! what is in the topic, in which order within each key; what is held or diverted; and what was given up. A request of
//! which nobody knows whether it was taken is sent again, as its producer would.
//!
//! `WATTLE_SEED=n` runs one seed; `WATTLE_SEEDS` says how many are run.

mod bed;
mod model;

use std::time::Duration;

use crate::common::random::Random;
use bed::{Bed, Life};
use model::{Answer, Event, Model, Request, STATES};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const YEARS: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// What a life does.
#[derive(Debug, Clone, Copy)]
enum Act {
    Publish,
    Stream,
    Later,
    Pass(Duration),
    Jump(Duration, bool),
    FullDisk(u64),
}

struct History {
    bed: Bed,
    model: Model,
    random: Random,
    events: u64,
    /// Trusted time as it was seen last.
    seen_ns: u64,
    /// The latest that the wall clock was.
    wall_max_ns: u64,
    seed: u64,
}

impl History {
    fn event(&mut self, key: u64) -> Event {
        self.events += 1;
        let state = STATES[self.random.below(STATES.len() as u64) as usize];
        Event { id: format!("e{}", self.events), key: format!("k{key}"), state, delay: None }
    }

    /// Events of as many keys.
    fn of_different_keys(&mut self, count: u64) -> Vec<Event> {
        let (keys, first) = (self.bed.keys, self.random.below(self.bed.keys));
        (0..count.min(keys)).map(|more| self.event((first + more) % keys)).collect()
    }

    fn act(&mut self) -> Act {
        let seconds = |random: &mut Random, most: u64| Duration::from_nanos(random.below(most * 1_000_000_000));
        match self.random.below(20) {
            0..8 => Act::Publish,
            8 | 9 if self.bed.has_room_for_streams => Act::Stream,
            10 | 11 if self.bed.guards_input => Act::Later,
            12..15 => Act::Pass(seconds(&mut self.random, 400)),
            15 => Act::Pass(seconds(&mut self.random, 4_000)),
            16 | 17 => {
                let by = [HOUR, 20 * HOUR, YEARS][self.random.below(3) as usize];
                Act::Jump(by, self.random.one_in(3))
            }
            18 => Act::FullDisk(self.random.below(30_000)),
            _ => Act::Publish,
        }
    }

    fn request(&mut self, act: Act) -> Request {
        let (keys, count) = (self.bed.keys, 1 + self.random.below(4));
        match act {
            Act::Stream => Request::Stream(self.of_different_keys(1 + count)),
            Act::Later => {
                let (key, delay) = (self.random.below(keys), 1 + self.random.below(900));
                Request::Batch(vec![Event { delay: Some(delay), ..self.event(key) }])
            }
            _ if self.bed.guards_input => {
                let keys: Vec<u64> = (0..count).map(|_| self.random.below(keys)).collect();
                Request::Batch(keys.into_iter().map(|key| self.event(key)).collect())
            }
            // the order in which a lane's units and what is held take turns within a key is nobody's promise
            _ => Request::Batch(self.of_different_keys(count)),
        }
    }

    /// Sends a request until it is known what became of it, with what happens to the bus meanwhile.
    async fn send(&mut self, life: &Life, act: Act, request: Request) {
        // nothing else is to be due in the same moment
        while !self.model.is_free(life.now_ns(), &request) {
            self.pass(life, 5 * SECOND).await;
        }
        let (states, expected) = self.model.apply(&request, life.now_ns());
        let before = std::mem::replace(&mut self.model, states[states.len() - 1].clone());
        let is_full = matches!(act, Act::FullDisk(_));
        if let Act::FullDisk(bytes) = act {
            self.bed.fill(bytes);
        }
        let mut answers = life.send(&request).await;
        if is_full {
            if self.random.one_in(2) {
                life.looks().await;
            }
            self.bed.empty();
        }
        for _ in 0..1_000 {
            if !answers.contains(&Answer::Unknown) {
                break;
            }
            assert!(is_full, "seed {}: {request:?}: {answers:?}", self.seed);
            life.rests_in(&[std::slice::from_ref(&before), &states[..]].concat()).await;
            std::thread::sleep(Duration::from_millis(2)); // until the next checkpoint
            answers = life.send(&request).await;
        }
        assert_eq!(answers, expected, "seed {}: {request:?}", self.seed);
        life.rests(&self.model).await;
    }

    async fn pass(&mut self, life: &Life, time: Duration) {
        let until_ns = life.now_ns() + time.as_nanos() as u64;
        while let Some(due_ns) = self.model.next_due_ns().filter(|due_ns| *due_ns <= until_ns) {
            // what is due was told a moment later where it was sent again
            life.pass_until(due_ns + SECOND.as_nanos() as u64);
            self.model.pass(life.now_ns());
            life.rests(&self.model).await;
        }
        life.pass_until(until_ns);
        life.rests(&self.model).await;
    }

    async fn does(&mut self, life: &Life, act: Act) {
        match act {
            Act::Publish | Act::Stream | Act::Later | Act::FullDisk(_) => {
                let request = self.request(act);
                self.send(life, act, request).await;
            }
            Act::Pass(time) => self.pass(life, time).await,
            Act::Jump(by, is_back) => {
                life.jump(by, is_back);
                life.looks().await;
                life.rests(&self.model).await;
                // so that the bus knows of it for good: a clock that is set while it is off tells how long it was
                self.events += 1;
                let (id, key) = (format!("e{}", self.events), format!("jump {}", self.events));
                self.send(life, act, Request::Batch(vec![Event { id, key, state: "new", delay: None }])).await;
            }
        }
        self.wall_max_ns = self.wall_max_ns.max(life.wall_ns());
        life.is_durable().await;
        // so that nothing happens at the same time
        self.pass(life, 4 * SECOND).await;
    }

    /// The next life begins, and comes to where the one before was. What was on its way then is sent again.
    async fn begin(&mut self, open: Option<Open>) -> Life {
        let life = self.bed.start().await;
        // that part of the time is lost of which nothing is on the disk
        life.pass_until(self.seen_ns);
        if let Some(Open { request, states, expected }) = open {
            life.rests_in(&states).await;
            assert_eq!(life.send(&request).await, expected, "seed {}: again: {request:?}", self.seed);
        }
        life.rests(&self.model).await;
        life.is_durable().await;
        life
    }

    /// A life, and what was on its way at its end.
    fn live(&mut self, open: Option<Open>) -> Option<Open> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let left = runtime.block_on(async {
            let life = self.begin(open).await;
            for _ in 0..self.random.below(12) {
                let act = self.act();
                self.does(&life, act).await;
            }
            // a clock behind what the bus has seen of it would be one that was put back while the bus was off
            let behind_ns = self.wall_max_ns.saturating_sub(life.wall_ns());
            if behind_ns > 0 {
                self.does(&life, Act::Jump(Duration::from_nanos(behind_ns), false)).await;
            }
            self.seen_ns = life.now_ns();
            match self.random.below(4) {
                0 => {
                    life.ends().await;
                    None
                }
                kind => Some(self.is_cut_off(&life, kind).await),
            }
        });
        drop(runtime);
        self.bed.died();
        left
    }

    /// A request is on its way when the bus is killed, or the power goes at some operation of the disk.
    async fn is_cut_off(&mut self, life: &Life, kind: u64) -> Open {
        let act = if self.bed.has_room_for_streams && self.random.one_in(3) { Act::Stream } else { Act::Publish };
        let request = self.request(act);
        while !self.model.is_free(life.now_ns(), &request) {
            self.pass(life, 5 * SECOND).await;
        }
        self.seen_ns = life.now_ns();
        let (after, expected) = self.model.apply(&request, self.seen_ns);
        let states = [std::slice::from_ref(&self.model), &after[..]].concat();
        self.model = after[after.len() - 1].clone();
        if kind == 1 {
            let polls = self.random.below(30);
            tokio::select! {
                biased;
                _ = life.send(&request) => {}
                () = async { for _ in 0..polls { tokio::task::yield_now().await; } } => {}
            }
            return Open { request, states, expected };
        }
        // what is held goes on for a while behind the answer
        self.bed.crash_after(self.random.below(14), self.random.next());
        assert_eq!(life.send(&request).await, expected, "seed {}: {request:?}", self.seed);
        life.rests(&self.model).await;
        Open { request, states, expected }
    }
}

/// Nobody knows whether it was taken: everything that may be, and what its producer must be told when it sends it
/// again.
struct Open {
    request: Request,
    states: Vec<Model>,
    expected: Vec<Answer>,
}

/// Some lives on one disk, and then everything that can be due is.
fn history(seed: u64) {
    let mut random = Random::new(seed);
    let bed = Bed::new(&mut random);
    let model = Model::new(&bed.rules);
    let mut history = History { bed, model, random, events: 0, seen_ns: 0, wall_max_ns: 0, seed };
    let mut open = None;
    for _ in 0..1 + history.random.below(4) {
        open = history.live(open);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let life = history.begin(open).await;
        history.pass(&life, 2 * HOUR).await;
        assert!(history.model.is_empty(), "something is still to come");
        life.ends().await;
    });
}

#[test]
fn what_is_out_of_order_is_where_the_model_says_whatever_happens_to_the_bus() {
    let number = |name| std::env::var(name).ok().map(|value| value.parse().expect(name));
    let seeds = match number("WATTLE_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("WATTLE_SEEDS").unwrap_or(60)).collect(),
    };
    for seed in seeds {
        eprintln!("WATTLE_SEED={seed}");
        history(seed);
    }
}
