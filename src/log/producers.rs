//! The last numbers of producers: what came since the last checkpoint and what was asked for lately is in memory, everything
//! else in the store.

use std::collections::{HashMap, VecDeque};
use std::io;

use super::sealed::SealedLook;
use super::store::Sequenced;
use crate::model::{PartitionId, ProducerId};

/// A producer within a partition.
pub(super) type Numbered = (PartitionId, ProducerId);

#[derive(Debug, Clone, Copy)]
struct Known {
    last: Sequenced,
    /// Of the journal, behind the frame that says so: until a checkpoint is there it stays in memory. The highest while its
    /// group is being made.
    position: u64,
    /// Since it was looked whether it may go.
    is_used: bool,
}

/// The last numbers of producers.
#[derive(Debug, Default)]
pub(super) struct Producers {
    known: HashMap<Numbered, Known>,
    /// Those in memory, in the order in which it is looked whether they may go. Some may be gone already.
    order: VecDeque<Numbered>,
    /// Of the group that is being made.
    open: Vec<Numbered>,
}

impl Producers {
    /// The last number of a producer. May look into the store.
    ///
    /// # Errors
    /// The store cannot be read.
    pub(super) fn last(&mut self, of: Numbered, look: &mut SealedLook<'_>) -> io::Result<Option<Sequenced>> {
        if let Some(known) = self.known.get_mut(&of) {
            known.is_used = true;
            return Ok(Some(known.last));
        }
        let stored = look.producer(of)?;
        if let Some(last) = stored {
            self.keep(of, Known { last, position: 0, is_used: true });
        }
        Ok(stored)
    }

    /// From now on this is the last number of a producer.
    pub(super) fn put(&mut self, of: Numbered, last: Sequenced) {
        self.open.push(of);
        self.keep(of, Known { last, position: u64::MAX, is_used: true });
    }

    /// What [`Self::put`] said of a producer is not so.
    pub(super) fn take_back(&mut self, of: Numbered, before: Option<Sequenced>) {
        match (self.known.get_mut(&of), before) {
            (Some(known), Some(before)) => known.last = before,
            _ => drop(self.known.remove(&of)),
        }
    }

    fn keep(&mut self, of: Numbered, known: Known) {
        if self.known.insert(of, known).is_none() {
            self.order.push_back(of);
        }
    }

    /// The group is written, up to this position.
    pub(super) fn written(&mut self, position: u64) {
        for of in self.open.drain(..) {
            if let Some(known) = self.known.get_mut(&of) {
                known.position = position;
            }
        }
    }

    /// Lets some go that were not asked for lately, where there are more than `max`. What lies behind `sealed` in the journal
    /// is not in the store, and stays. Looks at no more than `most`.
    pub(super) fn release(&mut self, sealed: u64, max: usize, most: usize) {
        for _ in 0..most {
            if self.order.len() <= max {
                return;
            }
            let Some(of) = self.order.pop_front() else { return };
            let Some(known) = self.known.get_mut(&of) else { continue };
            if known.position > sealed || std::mem::take(&mut known.is_used) {
                self.order.push_back(of);
            } else {
                self.known.remove(&of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TopicId;

    fn of(number: u128) -> Numbered {
        (PartitionId { topic: TopicId(1), partition: 0 }, ProducerId(number))
    }

    #[test]
    fn what_is_in_the_store_goes_where_there_are_many_and_the_rest_stays() {
        let mut producers = Producers::default();
        for number in 0..10 {
            producers.put(of(number), Sequenced { sequence: 1, offset: 0 });
            producers.written(number as u64 + 1);
        }
        producers.put(of(3), Sequenced { sequence: 2, offset: 5 });
        producers.release(0, 2, 100);
        assert_eq!(producers.known.len(), 10, "nothing is in the store");
        producers.release(6, 2, 100);
        let mut left: Vec<u128> = producers.known.keys().map(|(_, producer)| producer.0).collect();
        left.sort_unstable();
        assert_eq!(left, [3, 6, 7, 8, 9], "one of them has a later number");
        producers.written(11);
        producers.release(11, 2, 100);
        assert_eq!((producers.known.len(), producers.order.len()), (2, 2));
    }
}
