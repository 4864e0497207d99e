//! Stored data of removed topics and subscribers, for display.

use std::fmt;

use crate::deploy::record::applied::Retired;
use crate::dispatch::{Kept, Node, RemovedTopic};
use crate::topology::show_size;

/// Stored data of a removed topic or subscriber.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    pub node: Node,
    /// Its full name.
    pub name: String,
    /// For a subscriber, the full name of its input topic.
    pub from: Option<String>,
    /// Events: of a topic those in it, of a subscriber those that it has not handled.
    pub events: u64,
    /// Retained events that a subscriber has handled: a new subscriber with its name would get them again.
    pub handled: u64,
    /// Approximate bytes of a topic's events.
    pub bytes: u64,
    /// Entries of a subscriber: of its state and its retry queue.
    pub entries: u64,
    /// Number of snapshots.
    pub snapshots: u64,
}

impl Garbage {
    pub(crate) fn topic(RemovedTopic { name, events, bytes, .. }: &RemovedTopic) -> Self {
        let (node, name) = (Node::Topic, name.clone());
        Self { node, name, from: None, events: *events, handled: 0, bytes: *bytes, entries: 0, snapshots: 0 }
    }

    pub(crate) fn subscriber(gone: Retired, Kept { handled, behind, entries, snapshots }: Kept) -> Self {
        let (node, Retired { name, from, .. }) = (Node::Subscriber, gone);
        Self { node, name, from: Some(from), events: behind, handled, bytes: 0, entries, snapshots }
    }

    /// Whether deleting it loses data.
    pub fn is_loss(&self) -> bool {
        self.events + self.handled + self.entries + self.snapshots > 0
    }
}

impl fmt::Display for Garbage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, from, events, handled, bytes, entries, snapshots, .. } = self;
        match from {
            None => write!(formatter, "topic `{name}` still has {events} events ({})", show_size(*bytes)),
            Some(from) => {
                write!(
                    formatter,
                    "`{name}` has not handled {events} events of {from}, has handled {handled} that it would get \
                     again, and stores {entries} entries"
                )?;
                if *snapshots > 0 { write!(formatter, ", and {snapshots} snapshots") } else { Ok(()) }
            }
        }
    }
}
