//! Executes commands: between two calls, each in units of its own, answered once they are durable. A command whose
//! caller has given up is not started.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::command::{Command, LaneQuery, Refusal};
use super::done::done_of;
use super::entries::DONE;
use super::error::LaneError;
use super::waiting::{self, Waiter};
use super::{HALTED, Lane, LaneFlags, LeaveReason, PAUSED};
use crate::engine::{Entries, LaneWrite, Session, Unit};
use crate::model::{Offset, Record};

impl<S: Session, K: Entries> Lane<S, K> {
    /// Executes a command.
    pub(super) async fn obey(&mut self, command: Command) -> Result<(), LeaveReason> {
        if command.is_given_up() {
            return Ok(());
        }
        match command {
            Command::Pause(answer) => {
                self.told.is_paused = true;
                let since = self.stands();
                self.tell(vec![LaneWrite::put(PAUSED, since)]).await?;
                drop(answer.send(Ok(1)));
            }
            Command::Resume(answer) => {
                let was_halted = self.told.is_halted;
                self.told = LaneFlags { is_broken: self.told.is_broken, ..LaneFlags::default() };
                if self.works() {
                    self.goes_on();
                }
                let mut writes = vec![LaneWrite::delete(PAUSED), LaneWrite::delete(HALTED)];
                // the event that caused the halt starts again with its first attempt
                for number in self.waiting.numbers() {
                    let waiter = waiting::get(&self.parts.entries, number)?;
                    let is_last = !waiter.is_parked && waiter.attempts >= self.parts.backoff.retry.attempts;
                    if is_last || (was_halted && waiter.may_have_halted()) {
                        writes.extend(self.release(number, waiter));
                    }
                }
                self.tell(writes).await?;
                drop(answer.send(Ok(1)));
            }
            Command::Release(numbers, answer) => {
                let (mut writes, mut released) = (Vec::new(), 0);
                for number in numbers {
                    if !self.waiting.contains(number) {
                        continue; // done in the meantime
                    }
                    let waiter = waiting::get(&self.parts.entries, number)?;
                    writes.extend(self.release(number, waiter));
                    released += 1;
                }
                self.tell(writes).await?;
                drop(answer.send(Ok(released)));
            }
            Command::Drop(numbers, answer) => {
                let removed: Vec<_> = numbers.iter().filter_map(|number| self.waiting.remove(*number)).collect();
                let dropped = removed.len() as u64;
                self.tell(removed.into_iter().flatten().collect()).await?;
                drop(answer.send(Ok(dropped)));
            }
            Command::Redrive(letters, redriven, answer) => {
                let (mut writes, mut taken, mut noted) = (Vec::new(), 0, Vec::new());
                for letter in letters {
                    // an earlier command whose answer was lost did it; or the dead letter has expired since it was
                    // listed, possibly with its mark
                    if self.parts.entries.get(&letter.done)?.is_some() || self.is_letter_gone(&letter.done) {
                        taken += 1;
                        continue;
                    }
                    if !self.waiting.has_room(letter.record.len()) {
                        break;
                    }
                    let Ok(parsed) = Record::parse(&letter.record) else { continue };
                    writes.extend(self.waiting.add(parsed.key, &letter.waiter, letter.record.clone(), Instant::now()));
                    noted.extend(done_of(&letter.done));
                    writes.push(LaneWrite::put(letter.done, ""));
                    taken += 1;
                }
                let new = noted.len() as u64;
                self.note(writes, noted).await?;
                redriven.fetch_add(new, Ordering::Relaxed);
                drop(answer.send(Ok(taken)));
            }
            Command::Forget(done, answer) => {
                let (mut writes, mut noted) = (Vec::new(), Vec::new());
                for key in done {
                    let is_letter = key.first() == Some(&DONE) && !self.is_letter_gone(&key);
                    if is_letter && self.parts.entries.get(&key)?.is_none() {
                        noted.extend(done_of(&key));
                        writes.push(LaneWrite::put(key, ""));
                    }
                }
                let count = writes.len() as u64;
                self.note(writes, noted).await?;
                drop(answer.send(Ok(count)));
            }
            Command::Import(mut writes, answer) => {
                let (count, before) = (writes.len() as u64, self.state.size());
                let accounted = self.state.account(&mut writes)?;
                let (bytes, max) = (self.state.size(), self.state.bytes_max());
                if bytes > max && bytes > before {
                    self.state.take_back(accounted);
                    drop(answer.send(Err(Refusal::StateFull { bytes, max })));
                    return Ok(());
                }
                self.tell(writes).await?;
                drop(answer.send(Ok(count)));
            }
            Command::Seek(seek, answer) => return self.seek(seek, answer).await,
            Command::Look(LaneQuery(look), answer) => {
                look(self.position);
                self.parts.session.sync().await?;
                drop(answer.send(Ok(1)));
            }
        }
        self.show();
        Ok(())
    }

    /// Commits these writes, which mark dead letters as done.
    async fn note(&mut self, writes: Vec<LaneWrite>, done: Vec<(u32, Offset)>) -> Result<(), LaneError> {
        let told = self.tell(writes).await;
        let letters = &self.parts.counters.letters;
        match &told {
            Ok(()) => letters.are_done(done.into_iter()),
            Err(_) => letters.may_be_done(),
        }
        self.chores.are_noted();
        told
    }

    fn release(&mut self, number: u64, waiter: Waiter) -> Option<LaneWrite> {
        let released = Waiter { attempts: 0, is_parked: false, due_ns: 0, ..waiter };
        self.waiting.update(number, &released, Instant::now())
    }

    /// Commits the writes of a command, and waits until they are durable.
    pub(super) async fn tell(&mut self, writes: Vec<LaneWrite>) -> Result<(), LaneError> {
        self.commit(Unit { consumed_to: self.position, writes, ..Unit::default() }).await?;
        self.parts.session.sync().await?;
        // before the answer, so that the caller sees the new state of the lane
        self.show();
        Ok(())
    }
}
