//! Numbers that identify things on disk and between modules, and the hashes that form identities.

use xxhash_rust::xxh3;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u32);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A topic, numbered by the engine's catalogue; numbers are never reused. Names are labels.
    TopicId
}
number! {
    /// A subscriber, numbered by the engine's catalogue; numbers are never reused.
    SubscriberId
}
number! {
    /// A version of a plugin (a digest), numbered by the engine's catalogue; numbers are never reused.
    VersionId
}

/// The identity of an event from outside, by which a repeated publish is recognised: a hash of its `source` and `id`,
/// or of the text that its topic defines instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u128);

impl EventId {
    /// The identity of the event with this `source` and `id`.
    #[inline]
    pub fn new(source: &str, id: &str) -> Self {
        Self(xxh3::xxh3_128_with_seed(id.as_bytes(), xxh3::xxh3_64(source.as_bytes())))
    }

    /// The identity of all events for which their topic's `id:` yields this text.
    #[inline]
    pub fn of_text(text: &str) -> Self {
        const SEED: u64 = 0x6964_2d74_6578_7431;
        Self(xxh3::xxh3_128_with_seed(text.as_bytes(), SEED))
    }
}

/// A producer that numbers its events, so that none is stored twice, however late it is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub u128);

impl ProducerId {
    /// The producer with this name.
    #[inline]
    pub fn new(name: &str) -> Self {
        Self(xxh3::xxh3_128(name.as_bytes()))
    }

    /// The producer with this name and start time in Unix nanoseconds: another start time is another producer.
    #[inline]
    pub fn begun(name: &str, began_ns: u64) -> Self {
        Self(xxh3::xxh3_128_with_seed(name.as_bytes(), xxh3::xxh3_64(&began_ns.to_le_bytes())))
    }
}

/// Position of an event in its partition: strictly increasing, from 0, gaps allowed.
pub type Offset = u64;

/// An ordered part of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    pub topic: TopicId,
    /// The index of the partition, from 0.
    pub partition: u32,
}

/// A subscriber and a partition: the unit of ordered processing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId {
    pub subscriber: SubscriberId,
    /// The partition of the topic that it consumes.
    pub partition: u32,
}

/// The place of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: Offset,
}

/// The partition of a key: xxh3 (64 bits, seed 0) of its bytes, modulo the count, on every engine.
///
/// A count of 0 is treated as 1.
#[inline]
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    match partitions {
        0 | 1 => 0,
        count => (xxh3::xxh3_64(key.as_bytes()) % u64::from(count)) as u32,
    }
}

/// Makes the ids of a lane's outputs: a hash of (subscriber, input topic, partition, offset, index). So handling the
/// same event again gives its outputs the same ids, on every engine and after every restart.
#[derive(Debug, Clone)]
pub struct OutputIds {
    lane: u128,
}

impl OutputIds {
    /// For outputs of `subscriber` for events in partition `partition` of `topic` (full names).
    pub fn new(subscriber: &str, topic: &str, partition: u32) -> Self {
        let mut bytes = Vec::with_capacity(subscriber.len() + topic.len() + 8);
        bytes.extend_from_slice(subscriber.as_bytes());
        bytes.push(0); // not allowed in names, so no two lanes share a prefix
        bytes.extend_from_slice(topic.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(&partition.to_le_bytes());
        Self { lane: xxh3::xxh3_128(&bytes) }
    }

    /// The id of output number `index` of the event at `offset`: 32 hexadecimal digits.
    #[inline]
    pub fn id(&self, offset: Offset, index: u32) -> OutputId {
        let mut bytes = [0u8; 28];
        let (lane, rest) = bytes.split_at_mut(16);
        lane.copy_from_slice(&self.lane.to_le_bytes());
        let (at, number) = rest.split_at_mut(8);
        at.copy_from_slice(&offset.to_le_bytes());
        number.copy_from_slice(&index.to_le_bytes());
        OutputId::from_hash(xxh3::xxh3_128(&bytes))
    }
}

/// The id of an output, as text. Made for every output, so it uses neither the formatter nor the heap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputId([u8; 32]);

impl OutputId {
    #[inline]
    fn from_hash(hash: u128) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 32];
        for (digit, shift) in text.iter_mut().rev().zip((0..128).step_by(4)) {
            *digit = DIGITS.get((hash >> shift) as usize & 15).copied().unwrap_or(b'0');
        }
        Self(text)
    }
}

impl std::ops::Deref for OutputId {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Display for OutputId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_key_is_a_promise() {
        // Pinned: with another value, keys would move away from the partitions of their history.
        let partitions = ["", "a", "order-17", "ключ"].map(|key| partition_of(key, 1_000_003));
        assert_eq!(partitions, [778_394, 103_908, 963_868, 292_445]);
        assert_eq!(partition_of("anything", 1), 0);
    }

    #[test]
    fn the_identity_of_an_event_is_a_promise() {
        // Pinned: stored on the disk; with another value, repeated events would count as new.
        assert_eq!(EventId::new("/shop", "17").0, 0x6cd4_d87b_e59a_3145_14cc_c8f8_00be_ca49);
        assert_ne!(EventId::new("a", "bc"), EventId::new("ab", "c"));
        assert_ne!(EventId::new("", "x"), EventId::new("x", ""));
        assert_eq!(EventId::of_text("17/paid").0, 0x9433_247b_43e0_af2f_1550_a6da_9481_35ca);
        assert_ne!(EventId::of_text("x"), EventId::new("", "x"));
    }

    #[test]
    fn the_identity_of_a_producer_is_a_promise() {
        // Pinned: stored on the disk; with another value, events that a producer sends again would be stored again.
        assert_eq!(ProducerId::new("till-7").0, 0xd0c5_f22f_9f0c_314e_4369_e804_a22c_8275);
        assert_ne!(ProducerId::new("a"), ProducerId::new("A"));
        assert_eq!(ProducerId::begun("till-7", 17).0, 0x3aa9_03ac_b0a6_f19a_e953_9141_dfb2_a157);
        assert_ne!(ProducerId::begun("a", 1), ProducerId::begun("a", 2));
        assert_ne!(ProducerId::begun("a", 0), ProducerId::new("a"));
    }

    #[test]
    fn ids_differ_in_every_part() {
        let ids = OutputIds::new("shop/validate", "shop/orders", 3);
        let all = [
            ids.id(7, 0),
            ids.id(7, 1),
            ids.id(8, 0),
            OutputIds::new("shop/validate", "shop/orders", 4).id(7, 0),
            OutputIds::new("shop/validate2", "shop/orders", 3).id(7, 0),
            OutputIds::new("shop/validate", "shop/orders2", 3).id(7, 0),
        ];
        assert_eq!(OutputId::from_hash(0xfe_dcba_9876).to_string(), format!("{:032x}", 0xfe_dcba_9876_u64));
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(ids.id(7, 0), OutputIds::new("shop/validate", "shop/orders", 3).id(7, 0));
    }
}
