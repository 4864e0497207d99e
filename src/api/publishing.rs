//! Publishes and where their events went.

use std::sync::Arc;

use bytes::Bytes;

use super::times::{nanoseconds, timestamp};
use super::v1;
use crate::model::Offset;

/// Where the events of a call went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PublishReceipt {
    /// The recovery epoch in which the offsets hold.
    pub epoch: u32,
    /// One for each event, in their order; that of a duplicate is where the first one is.
    pub places: Vec<Placement>,
    /// The indices of delayed events, ascending. They have no offset before they are due.
    pub delayed: Vec<u32>,
    /// The indices of events that are held until their key is in another state, ascending. They have no offset before
    /// that.
    pub held: Vec<u32>,
    /// Events that are in another topic, since their state may not follow that of their key, ascending.
    pub diverted: Vec<DivertedEvent>,
}

/// An event that was diverted to another topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DivertedEvent {
    /// Its index; its place is that in the other topic.
    pub index: u32,
    /// The full name of that.
    pub topic: Arc<str>,
}

/// The numbers of a call's events among all that their producer ever sends to the topic. They only grow, and calls are
/// made one after another: an event whose number is not above the last one counts as published before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbering {
    /// Name of the producer, 1 to [`PRODUCER_BYTES_MAX`](crate::limits::PRODUCER_BYTES_MAX) bytes; no other producer
    /// may have it.
    pub producer: String,
    /// Number of the call's first event; the others follow without gaps.
    pub first_sequence: u64,
    /// When the producer began with its first number, Unix nanoseconds by its own clock, the same in all its calls.
    /// Another time makes another producer. Topics that forget producers take none that they do not know and that does
    /// not say it.
    pub began_ns: Option<u64>,
}

/// An event with its topic, for a call to several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressedEvent {
    /// The topic, by its full or its short name; empty for that of the event before it.
    pub topic: String,
    /// The event in the CloudEvents protobuf format.
    pub event: Bytes,
}

/// The place of an appended event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    pub partition: u32,
    /// Its offset; `None` for a duplicate whose offset is unknown.
    pub offset: Option<Offset>,
    /// It was published before.
    pub is_duplicate: bool,
}

impl PublishReceipt {
    /// How many of the events had been published before.
    pub fn duplicates(&self) -> usize {
        self.places.iter().filter(|place| place.is_duplicate).count()
    }
}

impl From<PublishReceipt> for v1::PublishResponse {
    fn from(published: PublishReceipt) -> Self {
        let PublishReceipt { epoch, places, delayed, held, diverted } = published;
        let duplicates = (0..).zip(&places).filter(|(_, place)| place.is_duplicate);
        let duplicates =
            duplicates.map(|(index, place)| v1::Duplicate { index, is_place_known: place.offset.is_some() }).collect();
        let (partitions, offsets) =
            places.into_iter().map(|place| (place.partition, place.offset.unwrap_or_default())).unzip();
        let diverted =
            diverted.into_iter().map(|DivertedEvent { index, topic }| v1::Diverted { index, topic: topic.to_string() });
        Self { epoch, partitions, offsets, duplicates, delayed, held, diverted: diverted.collect() }
    }
}

impl From<v1::PublishResponse> for PublishReceipt {
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
            diverted.into_iter().map(|v1::Diverted { index, topic }| DivertedEvent { index, topic: topic.into() });
        Self { epoch, places, delayed, held, diverted: diverted.collect() }
    }
}

impl From<v1::AddressedEvent> for AddressedEvent {
    fn from(event: v1::AddressedEvent) -> Self {
        let v1::AddressedEvent { topic, event } = event;
        Self { topic, event }
    }
}

impl From<AddressedEvent> for v1::AddressedEvent {
    fn from(event: AddressedEvent) -> Self {
        let AddressedEvent { topic, event } = event;
        Self { topic, event }
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
        // an invalid time counts as too far away
        let began_ns = began.map(|began| nanoseconds(&began).unwrap_or(u64::MAX));
        Self { producer, first_sequence, began_ns }
    }
}
