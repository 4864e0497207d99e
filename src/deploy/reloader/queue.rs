//! The queue of reloads of one subscriber.
//!
//! Promises: the newest reload runs next. It supersedes earlier ones only when it succeeds: if it is refused or changes
//! nothing, the one before it runs.

use std::collections::BTreeSet;

use tokio::sync::watch::Sender;
use tokio::sync::{Mutex, MutexGuard};

#[derive(Debug, Default)]
struct QueueState {
    /// Number of reloads so far.
    count: u64,
    /// The numbers of reloads in the queue.
    there: BTreeSet<u64>,
    /// The newest successful reload.
    done: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Queue(Sender<QueueState>);

/// A place in the queue, until it is dropped.
#[derive(Debug)]
pub(crate) struct QueuePlace<'a> {
    queue: &'a Queue,
    number: u64,
}

impl Queue {
    pub(crate) fn join(&self) -> QueuePlace<'_> {
        let mut number = 0;
        self.0.send_modify(|waiting| {
            waiting.count += 1;
            number = waiting.count;
            waiting.there.insert(number);
        });
        QueuePlace { queue: self, number }
    }

    /// Length of the queue, including the running reload.
    pub(crate) fn len(&self) -> usize {
        self.0.borrow().there.len()
    }
}

impl QueuePlace<'_> {
    /// Waits until there is no newer reload. `None` if a newer one has succeeded.
    pub(crate) async fn turn<'t>(&self, turn: &'t Mutex<()>) -> Option<MutexGuard<'t, ()>> {
        let mut waiting = self.queue.0.subscribe();
        let is_next = |waiting: &QueueState| waiting.there.last() == Some(&self.number);
        let is_superseded = |waiting: &QueueState| waiting.done > self.number;
        loop {
            // the queue exists as long as its places
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

    /// This reload has succeeded: earlier ones are superseded.
    pub(crate) fn is_done(&self) {
        self.queue.0.send_modify(|waiting| waiting.done = waiting.done.max(self.number));
    }
}

impl Drop for QueuePlace<'_> {
    fn drop(&mut self) {
        self.queue.0.send_modify(|waiting| {
            waiting.there.remove(&self.number);
        });
    }
}
