//! New events, also across connections: after a lost connection, the next one continues at the same position.
//!
//! ```text
//!   read ──> events, each of which moves its partition's place ──> it breaks ──> connect again ──> read again
//! ```
//!
//! A partition of which nothing has come yet is read again from where it was begun, which has to be a place as well:
//! the end moves. So it is asked for before the first read, and so is what an offset stands for where a partition is
//! shorter.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::{Failure, ServerArg, say};
use super::Print;
use super::last::topic_of;
use crate::client::{Client, ClientError, Position, ReadRequest, ReceivedEvent, Start};

/// Pause before a connection is tried again for the first time, and the longest one.
const TRIED_FIRST_AFTER: Duration = Duration::from_millis(100);
const TRIED_EVERY: Duration = Duration::from_secs(5);

/// The next position.
struct Places {
    /// Of the partitions of which it is known.
    at: BTreeMap<u32, Position>,
    /// Events of the others that are older are left out.
    since: Option<jiff::Timestamp>,
}

impl Places {
    async fn new(client: &Client, read: &ReadRequest) -> Result<Self, ClientError> {
        let mut places = Self { at: BTreeMap::new(), since: None };
        match &read.start {
            Start::Earliest => {}
            Start::Time(time) => places.since = Some(*time),
            Start::Positions(positions) => places.at = positions.iter().map(|at| (at.partition, *at)).collect(),
            Start::Latest | Start::Offset(_) => {
                let topics = client.topics().await?;
                let partitions = topic_of(&topics, &read.topic).map(|topic| topic.partitions.as_slice());
                for (partition, bounds) in (0..).zip(partitions.unwrap_or_default()) {
                    let offset = match read.start {
                        Start::Offset(offset) => offset.min(bounds.durable),
                        _ => bounds.durable,
                    };
                    places.at.insert(partition, Position { partition, offset, epoch: None });
                }
            }
        }
        Ok(places)
    }

    /// What to read now.
    fn read(&self, read: &ReadRequest, is_first: bool, left: Option<u64>) -> ReadRequest {
        let start = match &read.start {
            Start::Earliest | Start::Time(_) if is_first => read.start.clone(),
            // A topic that the bus does not know, which it is to say.
            _ if self.at.is_empty() && is_first => read.start.clone(),
            _ => Start::Positions(self.at.values().copied().collect()),
        };
        ReadRequest { start, limit: left, ..read.clone() }
    }

    /// Those of the events that are to be printed, which are behind their partition's place from now on.
    fn pass(&mut self, mut events: Vec<ReceivedEvent>) -> Vec<ReceivedEvent> {
        if let Some(since) = self.since {
            events.retain(|event| self.at.contains_key(&event.partition) || event.append_time >= since);
        }
        if let Some(last) = events.last() {
            let place = Position { partition: last.partition, offset: last.offset + 1, epoch: Some(last.epoch) };
            self.at.insert(last.partition, place);
        }
        events
    }
}

/// Reads without end, or until its limit.
pub(super) async fn read(
    server: &ServerArg,
    client: Client,
    read: ReadRequest,
    print: Print<'_>,
) -> Result<(), Failure> {
    let mut places = Places::new(&client, &read).await?;
    let (mut left, mut client, mut is_first, mut pause) = (read.limit, Some(client), true, TRIED_FIRST_AFTER);
    let mut was_denied = false;
    loop {
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => server.connect().await,
        };
        let opened = match connected {
            Ok(client) => client.read(places.read(&read, is_first, left)).await,
            Err(error) => Err(error),
        };
        let error = match opened {
            Err(error) if is_first => return Err(error.into()),
            Err(error) => error,
            Ok(mut reading) => {
                if !is_first {
                    say("connected again, and going on where it was");
                }
                (is_first, was_denied, pause) = (false, false, TRIED_FIRST_AFTER);
                loop {
                    match reading.next().await {
                        Ok(Some(events)) => {
                            let events = places.pass(events);
                            print(&events)?;
                            left = left.map(|left| left.saturating_sub(events.len() as u64));
                        }
                        Ok(None) => return Ok(()),
                        Err(error) => break error,
                    }
                }
            }
        };
        if left == Some(0) {
            return Ok(());
        }
        // The token that it began with has expired, and a newer one may be in its file.
        let is_renewed = error.is_unauthenticated() && !std::mem::replace(&mut was_denied, true);
        if !is_renewed && !error.is_retryable() {
            return Err(error.into());
        }
        if !is_renewed && pause == TRIED_FIRST_AFTER {
            say(&format!("{error}; trying again until it is there"));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(TRIED_EVERY);
    }
}
