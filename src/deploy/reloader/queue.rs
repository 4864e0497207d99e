//! Reloads of one subscriber that wait for their turn.
//!
//! Promises: the newest has the next turn, and those that were asked for before it are superseded by what it does, not by its
//! having been asked for: where it is refused, or changes nothing, the one before it has its turn.

use std::collections::BTreeSet;

use tokio::sync::watch::Sender;
use tokio::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
struct Waiting {
    /// How many have come.
    count: u64,
    /// The numbers of those that have not gone.
    there: BTreeSet<u64>,
    /// The newest that did what it came for.
    done: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Queue(Sender<Waiting>);

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Queue {
    pub(crate) fn join(&self) -> Place<'_> {
        let mut number = 0;
        self.0.send_modify(|waiting| {
            waiting.count += 1;
            number = waiting.count;
            waiting.there.insert(number);
        });
        Place { queue: self, number }
    }

    /// How many have a place, with the one whose turn it is.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().there.len()
    }
}

impl Place<'_> {
    /// Waits for the turn, which comes once there is nobody newer. None where a newer one did what it came for.
    pub(crate) async fn turn<'t>(&self, turn: &'t Mutex<()>) -> Option<MutexGuard<'t, ()>> {
        let mut waiting = self.queue.0.subscribe();
        let is_next = |waiting: &Waiting| waiting.there.last() == Some(&self.number);
        let is_superseded = |waiting: &Waiting| waiting.done > self.number;
        loop {
            // the queue is there for as long as its place
            waiting.wait_for(|waiting| is_next(waiting) || is_superseded(waiting)).await.ok()?;
            let locked = turn.lock().await;
            let now = waiting.borrow();
            if is_superseded(&now) {
                return None;
            }
            if is_next(&now) {
                return Some(locked);
            }
        }
    }

    /// It did what it came for: those before it need not do any more.
    pub(crate) fn is_done(&self) {
        self.queue.0.send_modify(|waiting| waiting.done = waiting.done.max(self.number));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.0.send_modify(|waiting| {
            waiting.there.remove(&self.number);
        });
    }
}
