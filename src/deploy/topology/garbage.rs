//! What is kept of what is gone, as it is shown.

use std::fmt;

use crate::deploy::record::applied::Retired;
use crate::dispatch::{Kept, Node, RemovedTopic};
use crate::topology::show_size;

/// What is kept of a topic or a subscriber that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Garbage {
    /// What it was.
    pub node: Node,
    /// Its full name.
    pub name: String,
    /// Of a subscriber, the full name of the topic that it took from.
    pub from: Option<String>,
    /// Events: of a topic those in it, of a subscriber those that it has yet to handle.
    pub events: u64,
    /// Events that a subscriber has handled, as far as they are kept: a new one of its name would be given them again.
    pub handled: u64,
    /// Bytes that the events of a topic take, about.
    pub bytes: u64,
    /// Entries that a subscriber keeps: of its state, of events that wait.
    pub entries: u64,
    /// Snapshots of those.
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

    /// Whether something is lost when it is forgotten.
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
                    "`{name}` has yet to handle {events} events of {from}, has handled {handled} that it would be given \
                     again, and keeps {entries} entries"
                )?;
                if *snapshots > 0 { write!(formatter, ", and {snapshots} snapshots") } else { Ok(()) }
            }
        }
    }
}
