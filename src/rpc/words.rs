//! The tree's words in the contract's, and back.

use crate::dispatch::{LaneState, Snapshot, SubscriberStatus, TopicStatus};
use crate::engine::Bounds;

use super::v1;

impl From<&TopicStatus> for v1::Topic {
    fn from(topic: &TopicStatus) -> Self {
        Self {
            name: topic.name.clone(),
            parent: topic.parent.clone(),
            is_dead_letters: topic.is_dead_letters,
            partitions: topic.partitions.iter().map(Into::into).collect(),
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
            lanes: subscriber.lanes.iter().map(|lane| v1::LaneState::from(*lane).into()).collect(),
            last_failure: subscriber.last_failure.clone(),
        }
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
            lanes: subscriber.lanes.into_iter().map(lane).collect(),
            last_failure: subscriber.last_failure,
        }
    }
}

impl From<LaneState> for v1::LaneState {
    fn from(lane: LaneState) -> Self {
        match lane {
            LaneState::Running => Self::Running,
            LaneState::Retrying => Self::Retrying,
            LaneState::Stopped => Self::Stopped,
        }
    }
}

impl From<v1::LaneState> for LaneState {
    fn from(lane: v1::LaneState) -> Self {
        match lane {
            v1::LaneState::Running => Self::Running,
            v1::LaneState::Retrying => Self::Retrying,
            v1::LaneState::Stopped | v1::LaneState::Unspecified => Self::Stopped,
        }
    }
}

impl v1::GetStatusResponse {
    /// The tree that it tells of.
    pub fn into_snapshot(self) -> Snapshot {
        Snapshot {
            topics: self.topics.into_iter().map(Into::into).collect(),
            subscribers: self.subscribers.into_iter().map(Into::into).collect(),
        }
    }
}
