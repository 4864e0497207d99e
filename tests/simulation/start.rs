//! How a life begins: what may have changed meanwhile, starts that fail, and what the log then holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use wattle::effects::Clock;
use wattle::log::{Log, LogOptions, OpenError, Replay, Settings, Stepper};
use wattle::model::TopicId;

use super::check;
use super::faults::Hands;
use super::plan::{self, DAY, HOUR, SECOND};
use super::world::{Life, World, is_of};

impl World {
    /// Opens the log until it opens. What it holds then is what counts.
    pub(crate) fn open(&mut self) -> Life {
        for attempt in 0.. {
            self.faults.disarm();
            if attempt == 0 && !self.is_calm {
                self.before_start();
            }
            let may_fail = attempt < 3 && !self.is_calm && self.random.once_in(4);
            if may_fail && self.random.once_in(2) {
                let operations = self.random.below(25);
                self.note(format!("the power goes after {operations} operations of the start"));
                self.faults.power_off_after(operations);
            } else if may_fail {
                self.arm();
            }
            if !may_fail {
                self.disk.set_capacity(None);
            }
            self.faults.attach(&self.disk);
            self.faults.begin_step();
            let before = self.faults.fired();
            let opened = self.try_open();
            let failed = self.faults.fired() != before || may_fail;
            self.faults.disarm();
            match opened {
                Ok(opened) => return self.born(opened),
                Err(error) => {
                    assert!(failed, "the log is not opened, though nothing is wrong: {error}");
                    assert!(!matches!(error, OpenError::Damaged(_)), "no damage was done: {error}");
                    self.note(format!("the start fails: {error}"));
                    if self.random.once_in(2) {
                        self.crash();
                    }
                }
            }
        }
        unreachable!()
    }

    pub(crate) fn try_open(&self) -> Result<(Log, Replay, Stepper), OpenError> {
        Log::open_stepped(Arc::new(self.disk.clone()), self.hands.clone(), self.options.clone())
    }

    /// Somebody may have changed the settings, or the clock, while the log was down.
    fn before_start(&mut self) {
        let elapsed_ns = self.random.below(1_000) * SECOND;
        self.hands = Hands::new(self.hands.now_ns(), elapsed_ns);
        let down = self.random.pick(&[0, 0, SECOND, HOUR, 3 * DAY]);
        self.pass(down);
        if self.random.once_in(8) {
            self.jump();
        }
        if self.random.once_in(3) {
            let fresh = plan::options(&mut self.random);
            let (first_sequence, durability) = (self.options.first_sequence, self.options.durability);
            self.options = LogOptions { first_sequence, durability, ..fresh };
            self.note(format!("other options: {:?}", self.options));
        }
        if self.random.once_in(3) {
            let mut fresh = plan::settings(&mut self.random, None, self.guarding.as_ref());
            for (topic, settings) in &mut fresh.topics {
                // what is forgotten by then depends on checkpoints, of which the model knows nothing
                settings.forget_producers = self.settings.topics.get(topic).and_then(|topic| topic.forget_producers);
            }
            let changed = |topic: &TopicId| {
                let dedupe = |settings: &Settings| settings.topics.get(topic).map(|topic| topic.dedupe);
                dedupe(&fresh) != dedupe(&self.settings)
            };
            for topic in (1..=2).map(TopicId).filter(changed) {
                let (generation, used) = self.identities.entry(topic).or_default();
                (*generation, *used) = (*generation + 1, Vec::new());
            }
            self.note(format!("other settings: {fresh:?}"));
            self.settings = fresh;
        }
    }

    /// A log has started: it holds the first so many units, and these are durable.
    fn born(&mut self, (log, replay, stepper): (Log, Replay, Stepper)) -> Life {
        log.configure(self.settings.clone());
        let held = check::units_held(&self.model, &log, &replay.catalogue);
        let (epoch, before) = (log.epoch(), self.model.epoch);
        let len = self.model.units.len();
        self.note(format!("-- open, epoch {epoch}: {held} units of {len} ({} promised)", self.model.must));
        assert!(epoch > before, "the epoch {epoch} comes after {before}");
        self.model.keep(held, epoch);
        let damaged = self.damaged.clone();
        check::all(&mut self.model, &log, &|error| is_of(error, damaged.as_ref()));
        check::lives(&self.model.lives, &log, &|error| damaged.as_ref().is_some_and(|name| error.contains(name)));
        // of those without events nobody knows whether they are there
        let last = self.model.partitions.values().flatten().map(|event| event.unit).max();
        let last_ns = last.map(|unit| self.model.units[unit].trusted_ns);
        self.trust.started(log.trusted_now_ns(), self.true_ns, self.hands.now_ns(), last_ns);
        let (log, fired) = (Arc::new(log), self.faults.fired());
        let reader = log.cold_reader();
        let mut life = Life {
            log,
            stepper: Some(stepper),
            reader,
            queue: Vec::new(),
            waiting: BTreeMap::new(),
            sessions: Vec::new(),
            stream: None,
            is_poisoned: false,
            seen: BTreeMap::new(),
            fired,
        };
        self.after_step(&mut life);
        life
    }
}
