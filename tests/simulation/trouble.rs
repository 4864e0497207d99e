//! What happens to a log from outside: time that passes, other settings, faults of the disk; and what a loss of the
//! power would leave.

use std::sync::Arc;

use wattle::effects::Clock;
use wattle::log::Log;

use super::check;
use super::faults::{Hands, crashed};
use super::plan::{self, HOUR, PARTITIONS, SECOND};
use super::random::Random;
use super::world::{Life, World};

impl World {
    pub(crate) fn let_pass(&mut self) {
        let ns = self.random.pick(&[1, 1_000_000, SECOND, 15 * SECOND, 40 * SECOND, HOUR, 5 * HOUR, 40 * HOUR]);
        self.note(format!("{ns} ns pass"));
        self.pass(ns);
    }

    pub(crate) fn configure(&mut self, life: &mut Life) {
        self.settings = plan::settings(&mut self.random, Some(&self.settings), self.guarding.as_ref());
        self.note(format!("configure {:?}", self.settings));
        life.log.configure(self.settings.clone());
    }

    pub(crate) fn confirm(&mut self, life: &mut Life) {
        let was_frozen = life.log.confirm_clock();
        self.note(format!("the clock is confirmed; it was frozen: {was_frozen}"));
        self.trust.confirmed(life.log.trusted_now_ns(), self.true_ns, self.hands.now_ns());
    }

    pub(crate) fn look_around(&mut self, life: &mut Life) {
        if self.damaged.is_none() && self.random.once_in(2) {
            self.probe();
        } else {
            self.read_all(life);
        }
    }

    /// Something is going to fail, or the disk is nearly full, or has room again.
    pub(crate) fn disturb(&mut self) {
        if self.is_calm {
            return;
        }
        match self.random.below(8) {
            0..4 => self.arm(),
            4 => {
                let operations = self.random.below(30);
                self.note(format!("the power goes after {operations} operations"));
                self.faults.power_off_after(operations);
            }
            5 | 6 => {
                let used: u64 = self.disk.contents().values().map(|bytes| bytes.len() as u64).sum();
                let capacity = used + self.random.below(60_000);
                self.note(format!("room for {capacity} bytes, {used} are used"));
                self.disk.set_capacity(Some(capacity));
            }
            _ => {
                self.note("room for everything");
                self.disk.set_capacity(None);
            }
        }
    }

    /// Were the power lost now, what was promised would be there.
    pub(crate) fn probe(&mut self) {
        let mut random = Random::new(self.random.next());
        let disk = crashed(&self.disk, &mut random);
        disk.set_capacity(None);
        let hands = Hands::new(plan::START, 0);
        let opened = Log::open_stepped(Arc::new(disk), hands, self.options.clone());
        let (log, replay, _stepper) = match opened {
            Ok(opened) => opened,
            Err(error) => panic!("after a crash now the log would not open: {error}"),
        };
        let held = check::units_held(&self.model, &log, &replay.catalogue);
        self.note(format!("a crash now would leave {held} units of {}", self.model.units.len()));
        check::lives(&self.model.lives_after(held), &log, &|_| false);
        let mut reader = log.cold_reader();
        for id in PARTITIONS {
            let (mut from, end) = (log.partition(id).start(), log.partition(id).written());
            while from < end {
                let read = check::read(&log, &mut reader, id, (from, end), (u32::MAX, usize::MAX));
                let next = check::compare(&self.model, id, from, &read.unwrap());
                assert!(next > from, "{id:?}: nothing at {from}");
                from = next;
            }
        }
    }
}
