//! The retry queue of a subscriber: listed page by page, released, dropped.

use bytes::Bytes;

use super::error::ControlError;
use super::failed::{Page, is_full};
use super::subscriber::Subscriber;
use crate::api::{FailedEvent, Filter, ListPosition};
use crate::dispatch::lane::command::{Answer, Command};
use crate::dispatch::lane::waiting::{self, Waiter, WaitingError};
use crate::engine::Engine;
use crate::model::{EventView, Record};

/// Waiting events that a command to a lane names at most.
pub(super) const NUMBERS_MAX: usize = 1_000;

/// The events of a subscriber that wait for another attempt or for an earlier event of their key.
pub struct WaitingEvents<'a, E>(&'a Subscriber<E>);

impl<E: Engine> Subscriber<E> {
    /// Its retry queue.
    pub fn retry_queue(&self) -> WaitingEvents<'_, E> {
        WaitingEvents(self)
    }
}

impl<E: Engine> WaitingEvents<'_, E> {
    /// Waiting events, starting at `from`, at most `count`. A page may have fewer for its size. Reads from disk.
    ///
    /// # Errors
    /// [`ControlError`].
    pub fn list(&self, filter: &Filter, from: ListPosition, count: usize) -> Result<Page<FailedEvent>, ControlError> {
        let subscriber = self.0;
        subscriber.check(filter.partition)?;
        let now_ns = subscriber.engine().now_ns();
        let (mut events, mut bytes) = (Vec::new(), 0);
        for partition in from.partition..subscriber.partitions() {
            if filter.partition.is_some_and(|only| only != partition) {
                continue;
            }
            let entries = subscriber.entries(partition)?;
            let mut number = if partition == from.partition { from.number } else { 0 };
            loop {
                let page = waiting::list(&entries, number, NUMBERS_MAX)?;
                let Some((last, _)) = page.last() else { break };
                let next = last + 1;
                for (at, waiter) in page {
                    let record = match waiting::record(&entries, at) {
                        Err(WaitingError::Malformed { .. }) => continue, // handled in the meantime
                        record => record?,
                    };
                    let Some(event) = failed_event(partition, at, waiter, record) else { continue };
                    if !filter.matches(&event, now_ns) {
                        continue;
                    }
                    if is_full(events.len(), count, bytes, event.bytes()) {
                        return Ok(Page { found: events, next: Some(ListPosition { partition, number: at }) });
                    }
                    bytes += event.bytes();
                    events.push(event);
                }
                number = next;
            }
        }
        Ok(Page { found: events, next: None })
    }

    /// Makes events due at once and resets their attempts; includes parked events. Returns their number.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn release(&self, filter: &Filter) -> Result<u64, ControlError> {
        self.tell(filter, Command::Release).await
    }

    /// Drops events. Returns their number.
    ///
    /// # Errors
    /// [`ControlError`].
    pub async fn drop(&self, filter: &Filter) -> Result<u64, ControlError> {
        self.tell(filter, Command::Drop).await
    }

    async fn tell(&self, filter: &Filter, command: fn(Vec<u64>, Answer) -> Command) -> Result<u64, ControlError> {
        let (mut from, mut done) = (ListPosition::default(), 0);
        loop {
            let page = self.list(filter, from, NUMBERS_MAX).map_err(|error| error.after(done, "event"))?;
            let mut rest = page.found.as_slice();
            while let Some(first) = rest.first() {
                let partition = first.partition;
                let count = rest.iter().take_while(|event| event.partition == partition).count();
                let (these, others) = rest.split_at(count);
                let numbers = these.iter().map(|event| event.number).collect();
                let told = self.0.tell(partition, |answer| command(numbers, answer)).await;
                done += told.map_err(|error| error.after(done, "event"))?;
                rest = others;
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(done),
            }
        }
    }
}

fn failed_event(partition: u32, number: u64, waiter: Waiter, record: Bytes) -> Option<FailedEvent> {
    let parsed = Record::parse(&record).ok()?;
    let view = EventView::parse(parsed.event).ok()?;
    let (key, id) = (parsed.key.to_owned(), view.id.to_owned());
    let event = record.slice_ref(parsed.event);
    Some(FailedEvent { number, partition, key, id, event, ..FailedEvent::of(waiter) })
}
