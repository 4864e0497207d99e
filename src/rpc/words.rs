//! The tree's words in the contract's, and back.

use std::time::Duration;

use crate::dispatch::{
    Addressed, Diverted, LaneState, Numbering, OnTrial, Published, Snapshot, SubscriberStatus, TopicStatus,
};
use crate::engine::{Bounds, GuardCounts, MissingEvents, Placement, Room, Storage};

use super::times::{nanoseconds, timestamp};
use super::v1;

impl From<&TopicStatus> for v1::Topic {
    fn from(topic: &TopicStatus) -> Self {
        Self {
            name: topic.name.clone(),
            parent: topic.parent.clone(),
            is_dead_letters: topic.is_dead_letters,
            partitions: topic.partitions.iter().map(Into::into).collect(),
            delayed: topic.delayed,
            delay_failure: topic.delay_failure.clone(),
            keys: topic.states.map(|GuardCounts { living, ended, held }| v1::KeyCounts { living, ended, held }),
            awaits_clock: topic.awaits_clock,
            diverted_from: topic.diverted_from.clone(),
            held_failure: topic.held_failure.clone(),
            recognises_retries: topic.recognises_retries,
            events_per_minute: topic.events_per_minute,
        }
    }
}

impl From<v1::Topic> for TopicStatus {
    fn from(topic: v1::Topic) -> Self {
        Self {
            name: topic.name,
            parent: topic.parent,
            is_dead_letters: topic.is_dead_letters,
            partitions: topic.partitions.into_iter().map(Into::into).collect(),
            delayed: topic.delayed,
            delay_failure: topic.delay_failure,
            states: topic.keys.map(|v1::KeyCounts { living, ended, held }| GuardCounts { living, ended, held }),
            awaits_clock: topic.awaits_clock,
            diverted_from: topic.diverted_from,
            held_failure: topic.held_failure,
            recognises_retries: topic.recognises_retries,
            events_per_minute: topic.events_per_minute,
        }
    }
}

impl From<&Bounds> for v1::PartitionBounds {
    fn from(bounds: &Bounds) -> Self {
        Self { start: bounds.start, written: bounds.written, durable: bounds.durable }
    }
}

impl From<v1::PartitionBounds> for Bounds {
    fn from(bounds: v1::PartitionBounds) -> Self {
        Self { start: bounds.start, written: bounds.written, durable: bounds.durable }
    }
}

impl From<&SubscriberStatus> for v1::Subscriber {
    fn from(subscriber: &SubscriberStatus) -> Self {
        let port = |(name, topic): &(String, String)| v1::Port { name: name.clone(), topic: topic.clone() };
        Self {
            name: subscriber.name.clone(),
            from: subscriber.from.clone(),
            to: subscriber.to.iter().map(port).collect(),
            dead_letters: subscriber.dead_letters.clone(),
            digest: subscriber.digest.clone(),
            handled: subscriber.handled,
            emitted: subscriber.emitted,
            retried: subscriber.retried,
            dead_lettered: subscriber.dead_lettered,
            lag: subscriber.lag,
            passed_over: subscriber.passed_over,
            repeated: subscriber.repeated,
            waiting: subscriber.waiting,
            parked: subscriber.parked,
            lanes: subscriber.lanes.iter().map(|lane| v1::LaneState::from(*lane).into()).collect(),
            last_failure: subscriber.last_failure.clone(),
            on_trial: subscriber.on_trial.clone().map(Into::into),
            reload: subscriber.reload.clone(),
            is_pinned: subscriber.is_pinned,
            other_settings: subscriber.other_settings.clone(),
            // no event is older than the longest duration there is
            lag_age: subscriber.lag_age.and_then(|age| age.try_into().ok()),
            waiting_age: subscriber.waiting_age.and_then(|age| age.try_into().ok()),
            open_dead_letters: subscriber.open_dead_letters,
            arrived_per_minute: subscriber.arrived_per_minute,
            handled_per_minute: subscriber.handled_per_minute,
        }
    }
}

impl From<OnTrial> for v1::OnTrial {
    fn from(OnTrial { digest, lanes, handled, events, lasted, time, ends_in }: OnTrial) -> Self {
        let ms = |period: Duration| u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        Self { digest, lanes, handled, events, lasted_ms: ms(lasted), time_ms: ms(time), ends_in_ms: ms(ends_in) }
    }
}

impl From<v1::OnTrial> for OnTrial {
    fn from(v1::OnTrial { digest, lanes, handled, events, lasted_ms, time_ms, ends_in_ms }: v1::OnTrial) -> Self {
        let [lasted, time, ends_in] = [lasted_ms, time_ms, ends_in_ms].map(Duration::from_millis);
        Self { digest, lanes, handled, events, lasted, time, ends_in }
    }
}

impl From<v1::Subscriber> for SubscriberStatus {
    fn from(subscriber: v1::Subscriber) -> Self {
        // What a later bus may call a lane, this client does not know; that it stands still is the careful reading.
        let lane = |lane: i32| v1::LaneState::try_from(lane).map_or(LaneState::Stopped, Into::into);
        Self {
            name: subscriber.name,
            from: subscriber.from,
            to: subscriber.to.into_iter().map(|port| (port.name, port.topic)).collect(),
            dead_letters: subscriber.dead_letters,
            digest: subscriber.digest,
            handled: subscriber.handled,
            emitted: subscriber.emitted,
            retried: subscriber.retried,
            dead_lettered: subscriber.dead_lettered,
            lag: subscriber.lag,
            passed_over: subscriber.passed_over,
            repeated: subscriber.repeated,
            waiting: subscriber.waiting,
            parked: subscriber.parked,
            lanes: subscriber.lanes.into_iter().map(lane).collect(),
            last_failure: subscriber.last_failure,
            on_trial: subscriber.on_trial.map(Into::into),
            reload: subscriber.reload,
            is_pinned: subscriber.is_pinned,
            other_settings: subscriber.other_settings,
            lag_age: subscriber.lag_age.and_then(|age| age.try_into().ok()),
            waiting_age: subscriber.waiting_age.and_then(|age| age.try_into().ok()),
            open_dead_letters: subscriber.open_dead_letters,
            arrived_per_minute: subscriber.arrived_per_minute,
            handled_per_minute: subscriber.handled_per_minute,
        }
    }
}

impl From<LaneState> for v1::LaneState {
    fn from(lane: LaneState) -> Self {
        match lane {
            LaneState::Running => Self::Running,
            LaneState::Retrying => Self::Retrying,
            LaneState::Paused => Self::Paused,
            LaneState::Halted => Self::Halted,
            LaneState::Full => Self::Full,
            LaneState::Blocked => Self::Blocked,
            LaneState::Failing => Self::Failing,
            LaneState::Stopped => Self::Stopped,
        }
    }
}

impl From<v1::LaneState> for LaneState {
    fn from(lane: v1::LaneState) -> Self {
        match lane {
            v1::LaneState::Running => Self::Running,
            v1::LaneState::Retrying => Self::Retrying,
            v1::LaneState::Paused => Self::Paused,
            v1::LaneState::Halted => Self::Halted,
            v1::LaneState::Full => Self::Full,
            v1::LaneState::Blocked => Self::Blocked,
            v1::LaneState::Failing => Self::Failing,
            v1::LaneState::Stopped | v1::LaneState::Unspecified => Self::Stopped,
        }
    }
}

impl From<Published> for v1::PublishResponse {
    fn from(published: Published) -> Self {
        let Published { epoch, places, delayed, held, diverted } = published;
        let duplicates = (0..).zip(&places).filter(|(_, place)| place.is_duplicate);
        let duplicates =
            duplicates.map(|(index, place)| v1::Duplicate { index, is_place_known: place.offset.is_some() }).collect();
        let (partitions, offsets) =
            places.into_iter().map(|place| (place.partition, place.offset.unwrap_or_default())).unzip();
        let diverted =
            diverted.into_iter().map(|Diverted { index, topic }| v1::Diverted { index, topic: topic.to_string() });
        Self { epoch, partitions, offsets, duplicates, delayed, held, diverted: diverted.collect() }
    }
}

impl From<v1::PublishResponse> for Published {
    fn from(response: v1::PublishResponse) -> Self {
        let v1::PublishResponse { epoch, partitions, offsets, duplicates, delayed, held, diverted } = response;
        let place = |(partition, offset)| Placement { partition, offset: Some(offset), is_duplicate: false };
        let mut places: Vec<Placement> = partitions.into_iter().zip(offsets).map(place).collect();
        for v1::Duplicate { index, is_place_known } in duplicates {
            if let Some(place) = places.get_mut(index as usize) {
                place.offset = place.offset.filter(|_| is_place_known);
                place.is_duplicate = true;
            }
        }
        for index in delayed.iter().chain(&held) {
            if let Some(place) = places.get_mut(*index as usize) {
                place.offset = None;
            }
        }
        let diverted =
            diverted.into_iter().map(|v1::Diverted { index, topic }| Diverted { index, topic: topic.into() });
        Self { epoch, places, delayed, held, diverted: diverted.collect() }
    }
}

impl From<Published> for v1::PublishTogetherResponse {
    fn from(published: Published) -> Self {
        let v1::PublishResponse { epoch, partitions, offsets, duplicates, delayed, held, diverted } = published.into();
        Self { epoch, partitions, offsets, duplicates, delayed, held, diverted }
    }
}

impl From<v1::PublishTogetherResponse> for Published {
    fn from(response: v1::PublishTogetherResponse) -> Self {
        let v1::PublishTogetherResponse { epoch, partitions, offsets, duplicates, delayed, held, diverted } = response;
        v1::PublishResponse { epoch, partitions, offsets, duplicates, delayed, held, diverted }.into()
    }
}

impl From<v1::AddressedEvent> for Addressed {
    fn from(event: v1::AddressedEvent) -> Self {
        let v1::AddressedEvent { topic, event } = event;
        Self { topic, event }
    }
}

impl From<Addressed> for v1::AddressedEvent {
    fn from(event: Addressed) -> Self {
        let Addressed { topic, event } = event;
        Self { topic, event }
    }
}

impl From<Published> for v1::PublishStreamResponse {
    fn from(published: Published) -> Self {
        let v1::PublishResponse { epoch, partitions, offsets, duplicates, delayed, held, diverted } = published.into();
        Self { epoch, partitions, offsets, duplicates, delayed, held, diverted }
    }
}

impl From<v1::PublishStreamResponse> for Published {
    fn from(response: v1::PublishStreamResponse) -> Self {
        let v1::PublishStreamResponse { epoch, partitions, offsets, duplicates, delayed, held, diverted } = response;
        v1::PublishResponse { epoch, partitions, offsets, duplicates, delayed, held, diverted }.into()
    }
}

impl From<Numbering> for v1::Numbering {
    fn from(numbering: Numbering) -> Self {
        let Numbering { producer, first_sequence, began_ns } = numbering;
        Self { producer, first_sequence, began: began_ns.map(timestamp) }
    }
}

impl From<v1::Numbering> for Numbering {
    fn from(numbering: v1::Numbering) -> Self {
        let v1::Numbering { producer, first_sequence, began } = numbering;
        // what is no time is too far away
        let began_ns = began.map(|began| nanoseconds(&began).unwrap_or(u64::MAX));
        Self { producer, first_sequence, began_ns }
    }
}

impl From<Storage> for v1::Storage {
    fn from(storage: Storage) -> Self {
        let Storage { takes_events, takes_outputs, clock_jumped, room, missing } = storage;
        let room = room.map(|Room { left_bytes, reserve_bytes, publish_bytes }| v1::Room {
            left_bytes,
            reserve_bytes,
            publish_bytes,
        });
        let missing = missing.into_iter().map(|MissingEvents { file, topic, partition, first_offset, last_offset }| {
            v1::MissingEvents { file, topic, partition, first_offset, last_offset }
        });
        let missing = missing.collect();
        // No clock jumps further than the longest duration there is.
        let clock_jumped = clock_jumped.and_then(|jumped| jumped.try_into().ok());
        Self { takes_events, takes_outputs, clock_jumped, room, missing }
    }
}

impl From<v1::Storage> for Storage {
    fn from(storage: v1::Storage) -> Self {
        let v1::Storage { takes_events, takes_outputs, clock_jumped, room, missing } = storage;
        let room = room.map(|v1::Room { left_bytes, reserve_bytes, publish_bytes }| Room {
            left_bytes,
            reserve_bytes,
            publish_bytes,
        });
        let missing =
            missing.into_iter().map(|v1::MissingEvents { file, topic, partition, first_offset, last_offset }| {
                MissingEvents { file, topic, partition, first_offset, last_offset }
            });
        let missing = missing.collect();
        // Back in time is no jump that anything waits for.
        let clock_jumped = clock_jumped.map(|jumped| jumped.try_into().unwrap_or_default());
        Self { takes_events, takes_outputs, clock_jumped, room, missing }
    }
}

impl v1::GetStatusResponse {
    /// The tree that it tells of.
    pub fn into_snapshot(self) -> Snapshot {
        Snapshot {
            topics: self.topics.into_iter().map(Into::into).collect(),
            subscribers: self.subscribers.into_iter().map(Into::into).collect(),
            uptime: self.uptime.and_then(|uptime| uptime.try_into().ok()).unwrap_or_default(),
        }
    }
}
