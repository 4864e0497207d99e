//! Stored data of removed topics and subscribers, for display.

use std::fmt;

use crate::api::{Garbage, Node};
use crate::deploy::record::applied::RetiredSubscriber;
use crate::dispatch::{RemovedTopic, RetainedData};
use crate::model::units::show_size;

impl Garbage {
    pub(crate) fn topic(RemovedTopic { name, events, bytes, .. }: &RemovedTopic) -> Self {
        let (node, name) = (Node::Topic, name.clone());
        Self { node, name, from: None, events: *events, handled: 0, bytes: *bytes, entries: 0, snapshots: 0 }
    }

    pub(crate) fn subscriber(
        gone: RetiredSubscriber,
        RetainedData { handled, behind, entries, snapshots }: RetainedData,
    ) -> Self {
        let (node, RetiredSubscriber { name, from, .. }) = (Node::Subscriber, gone);
        Self { node, name, from: Some(from), events: behind, handled, bytes: 0, entries, snapshots }
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
