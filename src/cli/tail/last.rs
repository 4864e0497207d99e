//! The last events of a topic.
//!
//! ```text
//!   partition 0   ··········[======]   what a window before the end has; it is doubled
//!   partition 1   ····[============]   until it has enough that match, or all there is
//!                                  └ the end
//! ```
//!
//! A bus reads forwards only. So a window before each end is read, and a larger one where too few of its events match:
//! in all no more than twice what lies behind the first event that is looked for.

use std::collections::{BTreeMap, VecDeque};

use super::super::Failure;
use crate::api::TopicStatus;
use crate::api::reason;
use crate::client::{Client, ClientError, Position, ReadRequest, ReceivedEvent, Start};
use crate::model::Offset;

/// How often the search starts over because retention removed events.
const BEGUN_MAX: usize = 5;

/// The events that were found.
pub(super) struct LastEvents {
    /// In the order in which they were appended.
    pub(super) events: Vec<ReceivedEvent>,
    /// Behind everything that was looked at, of each partition.
    pub(super) ends: Vec<Position>,
}

/// The part of a partition that is searched.
struct Window {
    start: Offset,
    end: Offset,
    from: Offset,
    /// The last of its events that match.
    found: VecDeque<ReceivedEvent>,
}

/// The topic that a name stands for, where it is clear.
pub(super) fn topic_of<'t>(topics: &'t [TopicStatus], name: &str) -> Option<&'t TopicStatus> {
    let is_short = |topic: &&TopicStatus| topic.name.rsplit_once('/').is_some_and(|(_, short)| short == name);
    let mut short = topics.iter().filter(is_short);
    topics.iter().find(|topic| topic.name == name).or_else(|| short.next().filter(|_| short.next().is_none()))
}

/// The last `count` events that are asked for.
pub(super) async fn read(client: &Client, read: &ReadRequest, count: u64) -> Result<LastEvents, Failure> {
    let mut begun = 1;
    loop {
        match once(client, read, count).await {
            Err(ClientError::Refused(refused)) if refused.reason == reason::POSITION_EXPIRED && begun < BEGUN_MAX => {
                begun += 1;
            }
            result => return Ok(result?),
        }
    }
}

async fn once(client: &Client, read: &ReadRequest, count: u64) -> Result<LastEvents, ClientError> {
    let topics = client.topics().await?;
    let Some(topic) = topic_of(&topics, &read.topic) else {
        // The bus says what is wrong with the name.
        let nothing = ReadRequest { start: Start::Latest, follow: false, limit: None, ..read.clone() };
        let mut reading = client.read(nothing).await?;
        reading.next().await?;
        return Ok(LastEvents { events: Vec::new(), ends: Vec::new() });
    };
    let mut windows = BTreeMap::new();
    for (partition, bounds) in (0..).zip(&topic.partitions) {
        if read.partitions.is_empty() || read.partitions.contains(&partition) {
            let (start, end) = (bounds.start, bounds.durable);
            let from = end.saturating_sub(count).max(start);
            windows.insert(partition, Window { start, end, from, found: VecDeque::new() });
        }
    }
    // Which partitions there are the bus says, also where there is none of them.
    let mut open: Vec<u32> = if windows.len() < read.partitions.len() { read.partitions.clone() } else { Vec::new() };
    open.extend(windows.iter().filter(|(_, window)| window.from < window.end).map(|(partition, _)| *partition));
    while !open.is_empty() {
        let at = |partition: &u32| {
            Some(Position { partition: *partition, offset: windows.get(partition)?.from, epoch: None })
        };
        let positions = open.iter().filter_map(at).collect();
        let start = Start::Positions(positions);
        let look = ReadRequest { partitions: open.clone(), start, follow: false, limit: None, ..read.clone() };
        for partition in &open {
            windows.entry(*partition).and_modify(|window| window.found.clear());
        }
        let mut reading = client.read(look).await?;
        while let Some(events) = reading.next().await? {
            for event in events {
                let Some(window) = windows.get_mut(&event.partition) else { continue };
                window.end = window.end.max(event.offset + 1);
                window.found.push_back(event);
                if window.found.len() as u64 > count {
                    window.found.pop_front();
                }
            }
        }
        open.retain(|partition| {
            let Some(window) = windows.get_mut(partition) else { return false };
            let is_enough = window.found.len() as u64 >= count || window.from == window.start;
            let width = (window.end - window.from).saturating_mul(2);
            window.from = window.end.saturating_sub(width).max(window.start);
            !is_enough
        });
    }
    let ends =
        windows.iter().map(|(partition, window)| Position { partition: *partition, offset: window.end, epoch: None });
    let ends = ends.collect();
    let mut events: Vec<_> = windows.into_values().flat_map(|window| window.found).collect();
    // Those of a partition stay in their order: their times do not go backwards.
    events.sort_by_key(|event| event.append_time);
    let more = events.len().saturating_sub(usize::try_from(count).unwrap_or(usize::MAX));
    events.drain(..more);
    Ok(LastEvents { events, ends })
}
