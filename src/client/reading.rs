//! Events in: by range, or followed.

use bytes::Bytes;
use tonic::{Request, Streaming};

use super::line::{self, NoTimeout};
use super::{Client, ClientError};
use crate::api::v1;
use crate::api::v1::read_request;
use crate::model::Offset;

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct ReadRequest {
    /// The topic: `namespace/name`, or `name` alone where only one namespace has it.
    pub topic: String,
    /// The partitions; all where there is none.
    pub partitions: Vec<u32>,
    /// Where to begin.
    pub start: Start,
    /// At the end, wait for more.
    pub follow: bool,
    /// Only events with this key.
    pub key: Option<String>,
    /// Only events of this type.
    pub r#type: Option<String>,
    /// End after N events.
    pub limit: Option<u64>,
}

/// Where to begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first event that is kept.
    #[default]
    Earliest,
    /// Behind the last event.
    Latest,
    /// At this offset in every partition, or at the end of shorter ones.
    Offset(Offset),
    /// At the first event that was appended at this time or later.
    Time(jiff::Timestamp),
    /// At these positions, strictly; partitions without one from the first event on.
    Positions(Vec<Position>),
}

/// The next position to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub partition: u32,
    /// The offset to read next.
    pub offset: Offset,
    /// The epoch of the event that was read last, by which the bus notices that the position was lost.
    pub epoch: Option<u32>,
}

/// An event that was read.
#[derive(Debug, Clone)]
pub struct ReceivedEvent {
    pub partition: u32,
    /// Its offset there.
    pub offset: Offset,
    /// The recovery epoch in which it was appended.
    pub epoch: u32,
    /// When it was appended, by the clock of the bus.
    pub append_time: jiff::Timestamp,
    /// Its ordering key.
    pub key: String,
    /// The event in the CloudEvents protobuf format.
    pub event: Bytes,
}

/// A read that is under way. Dropping it ends it.
pub struct Reading {
    server: String,
    answers: Streaming<v1::ReadResponse>,
}

impl Reading {
    pub(super) async fn open(client: &Client, read: ReadRequest) -> Result<Self, ClientError> {
        let start = match read.start {
            Start::Earliest => read_request::Start::Earliest(read_request::Earliest {}),
            Start::Latest => read_request::Start::Latest(read_request::Latest {}),
            Start::Offset(offset) => read_request::Start::Offset(offset),
            Start::Time(time) => read_request::Start::Time(prost_types::Timestamp {
                seconds: time.as_second(),
                nanos: time.subsec_nanosecond(),
            }),
            Start::Positions(positions) => read_request::Start::Positions(read_request::Positions {
                positions: positions
                    .into_iter()
                    .map(|Position { partition, offset, epoch }| v1::Position { partition, offset, epoch })
                    .collect(),
            }),
        };
        let request = v1::ReadRequest {
            topic: read.topic,
            partitions: read.partitions,
            start: Some(start),
            follow: read.follow,
            filter: Some(v1::Filter { key: read.key, r#type: read.r#type }),
            limit: read.limit.unwrap_or(0),
        };
        // Who follows waits for events, and not for the bus.
        let request = if read.follow { line::marked(NoTimeout, request) } else { Request::new(request) };
        let answers = client.reader.clone().read(request).await.map_err(|status| client.failed_read(&status))?;
        Ok(Self { server: client.server.clone(), answers: answers.into_inner() })
    }

    /// The next events, of one partition and in order; `None` at the end.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<Vec<ReceivedEvent>>, ClientError> {
        let answer = self.answers.message().await.map_err(|status| ClientError::of_read(&self.server, &status))?;
        Ok(answer.map(|answer| answer.events.into_iter().map(received).collect()))
    }
}

fn received(event: v1::ReadEvent) -> ReceivedEvent {
    let time = event.append_time.unwrap_or_default();
    ReceivedEvent {
        partition: event.partition,
        offset: event.offset,
        epoch: event.epoch,
        append_time: jiff::Timestamp::new(time.seconds, time.nanos).unwrap_or_default(),
        key: event.key,
        event: event.event,
    }
}
