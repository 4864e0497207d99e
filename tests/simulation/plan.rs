//! What a history is made of: topics, subscribers, options, settings, sizes of events.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use wattle::log::{Durability, LogOptions, Settings, WindowOptions};
use wattle::model::{
    Compression, Dedupe, LaneId, LaneWrite, Lifecycle, PartitionId, Retention, SubscriberId, TopicId, TopicSettings,
};

use super::random::Random;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const HOUR: u64 = 3_600 * SECOND;
pub(crate) const DAY: u64 = 24 * HOUR;
pub(crate) const YEAR: u64 = 365 * DAY;
/// When every history begins.
pub(crate) const START: u64 = 50 * YEAR;

const fn partition(topic: u32, partition: u32) -> PartitionId {
    PartitionId { topic: TopicId(topic), partition }
}

const fn lane(subscriber: u32, partition: u32) -> LaneId {
    LaneId { subscriber: SubscriberId(subscriber), partition }
}

/// Two roots and two topics of the tree, and what is held for the first root and for a topic of the tree, and what is
/// diverted from the same two.
pub(crate) const PARTITIONS: [PartitionId; 14] = [
    partition(1, 0),
    partition(1, 1),
    partition(2, 0),
    partition(3, 0),
    partition(3, 1),
    partition(4, 7),
    partition(5, 0),
    partition(5, 1),
    partition(6, 0),
    partition(6, 1),
    partition(7, 0),
    partition(7, 1),
    partition(8, 0),
    partition(8, 1),
];
pub(crate) const ROOTS: [PartitionId; 3] = [PARTITIONS[0], PARTITIONS[1], PARTITIONS[2]];
/// Those that a guard may be asked for.
pub(crate) const GUARDED: [PartitionId; 5] =
    [PARTITIONS[0], PARTITIONS[1], PARTITIONS[2], PARTITIONS[3], PARTITIONS[4]];
pub(crate) const LANES: [LaneId; 11] = [
    lane(1, 0),
    lane(1, 1),
    lane(2, 0),
    lane(3, 0),
    lane(3, 1),
    HOLDERS[0],
    HOLDERS[1],
    HOLDERS[2],
    HOLDERS[3],
    lane(7, 0),
    lane(8, 1),
];
/// Those that give what is held its place.
pub(crate) const HOLDERS: [LaneId; 4] = [lane(5, 0), lane(5, 1), lane(6, 0), lane(6, 1)];

/// What is held for a partition.
pub(crate) fn held_of(id: PartitionId) -> Option<PartitionId> {
    let topic = match id.topic.0 {
        1 => 5,
        3 => 6,
        _ => return None,
    };
    Some(partition(topic, id.partition))
}

/// What is diverted from a partition.
pub(crate) fn diverted_of(id: PartitionId) -> Option<PartitionId> {
    held_of(id).map(|held| partition(held.topic.0 + 2, id.partition))
}

/// For what something is held.
pub(crate) fn held_for(id: PartitionId) -> Option<PartitionId> {
    GUARDED.into_iter().find(|guarded| held_of(*guarded) == Some(id))
}

/// What a lane consumes.
pub(crate) fn input_of(lane: LaneId) -> PartitionId {
    partition(lane.subscriber.0, lane.partition)
}

/// To where a lane emits.
pub(crate) fn outputs_of(lane: LaneId) -> &'static [PartitionId] {
    match lane.subscriber.0 {
        1 => &[PARTITIONS[3], PARTITIONS[4], PARTITIONS[5]],
        2 => &[PARTITIONS[5]],
        _ => &[],
    }
}

pub(crate) fn options(random: &mut Random) -> LogOptions {
    LogOptions {
        durability: match random.below(8) {
            0 => Durability::Os,
            1 => Durability::Interval(Duration::from_millis(50)),
            _ => Durability::Sync,
        },
        file_bytes: random.pick(&[300, 1_000, 3_000, 20_000, 60_000]),
        recent_bytes_max: random.pick(&[0, 500, 4_000, 30_000, 1 << 20]),
        move_bytes: random.pick(&[0, 500, 4_000, 1 << 20]),
        checkpoint_bytes: random.pick(&[0, 500, 4_000, 1 << 20]),
        first_sequence: random.next() >> 1,
        windows: windows(random),
        is_stepped: true,
    }
}

/// Few identities in a run, fingerprints that are often the same by chance, and no memory for some of them.
fn windows(random: &mut Random) -> WindowOptions {
    WindowOptions {
        run_identities: random.pick(&[1, 2, 5, 30, 64 << 10]),
        filter_bytes_max: random.pick(&[0, 300, 1 << 20, 1 << 20]),
        fingerprint_bits: random.pick(&[1, 4, 8, 35]),
        producers_max: random.pick(&[0, 1, 100]),
    }
}

fn dedupe(random: &mut Random) -> Option<Dedupe> {
    let window = Duration::from_nanos(random.pick(&[30 * SECOND, HOUR, 10 * YEAR]));
    let count = random.pick(&[Some(1), Some(2), Some(5), Some(20), Some(1_000), None, None]);
    (!random.once_in(6)).then_some(Dedupe { window, count })
}

fn forget(random: &mut Random) -> Option<Duration> {
    random.pick(&[None, None, Some(20 * SECOND), Some(HOUR), Some(8 * HOUR)]).map(Duration::from_nanos)
}

fn retention(random: &mut Random) -> Retention {
    let age = random.pick(&[None, Some(20 * SECOND), Some(HOUR), Some(8 * HOUR), Some(30 * DAY)]);
    Retention {
        age: age.map(Duration::from_nanos),
        partition_bytes: random.pick(&[None, None, Some(2_000), Some(30_000)]),
        force: random.once_in(6),
    }
}

/// Keys of a partition that may be alive.
pub(crate) const LIVING_MAX: u64 = 3;
/// Keys of a partition whose end is remembered.
pub(crate) const ENDED_MAX: u64 = 2;
/// Events of a partition that are held.
pub(crate) const HELD_MAX: u64 = 3;

/// How a history guards.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guarding {
    /// How long ends are remembered.
    pub(crate) remember_ns: Option<u64>,
    /// What is out of order is held.
    pub(crate) holds: bool,
    /// What is out of order goes to another topic. Where both are so, the topology says now this, now that.
    pub(crate) diverts: bool,
}

impl Guarding {
    pub(crate) fn new(random: &mut Random) -> Self {
        let remember_ns = random.pick(&[None, Some(40 * SECOND), Some(HOUR), Some(20 * HOUR), Some(50 * YEAR)]);
        let (holds, diverts) =
            random.pick(&[(false, false), (true, false), (true, false), (false, true), (true, true)]);
        Self { remember_ns, holds, diverts }
    }

    /// `a`, then any number of `b`, then `z`.
    fn lifecycle(&self) -> Lifecycle {
        let states = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect::<BTreeSet<Arc<str>>>();
        let next = states(&["b", "z"]);
        let allow = [("a".into(), next.clone()), ("b".into(), next)].into();
        let remember = self.remember_ns.map(Duration::from_nanos);
        Lifecycle { start: states(&["a"]), allow, keys_max: LIVING_MAX, remember, remembered_max: ENDED_MAX }
    }
}

/// Settings; topics recognise what they did before, unless they are to change in that.
pub(crate) fn settings(random: &mut Random, before: Option<&Settings>, guarding: Option<&Guarding>) -> Settings {
    let mut settings = Settings::default();
    for topic in (1..=8).map(TopicId) {
        let known =
            before.and_then(|before| before.topics.get(&topic)).map(|known| (known.dedupe, known.forget_producers));
        let made = TopicSettings {
            retention: retention(random),
            dedupe: known.map_or_else(|| dedupe(random).filter(|_| topic.0 <= 2), |(dedupe, _)| dedupe),
            forget_producers: known.map_or_else(|| forget(random).filter(|_| topic.0 <= 2), |(_, forget)| forget),
            compression: random.pick(&[Compression::None, Compression::Lz4]),
        };
        settings.topics.insert(topic, made);
    }
    // what is held, or diverted, is recognised as what it was for
    let root = settings.topics[&TopicId(1)].dedupe;
    for topic in [5, 7].map(TopicId) {
        settings.topics.entry(topic).and_modify(|beside| beside.dedupe = root);
    }
    let mut readers: HashMap<TopicId, Vec<SubscriberId>> = HashMap::new();
    for topic in [1, 2, 3, 5, 6, 7, 8] {
        if !random.once_in(4) {
            readers.entry(TopicId(topic)).or_default().push(SubscriberId(topic));
        }
        if random.once_in(10) {
            readers.entry(TopicId(topic)).or_default().push(SubscriberId(9)); // never gets anywhere
        }
    }
    settings.readers = readers;
    if let Some(guarding) = guarding {
        settings.lifecycles = (1..=3).map(|topic| (TopicId(topic), Arc::new(guarding.lifecycle()))).collect();
    }
    settings
}

/// What a lane changes of what it keeps, under few keys.
pub(crate) fn writes(random: &mut Random) -> Vec<LaneWrite> {
    let count = random.pick(&[0, 0, 1, 3]);
    let mut write = || {
        let key = vec![random.below(8) as u8];
        match random.below(3) {
            0 => LaneWrite::delete(key),
            _ => LaneWrite::put(key, vec![random.below(256) as u8; random.pick(&[0, 1, 40, 3_000])]),
        }
    };
    (0..count).map(|_| write()).collect()
}

/// The contents of an event: its name, and bytes up to a length around that of blocks.
pub(crate) fn event(random: &mut Random, number: u64) -> Vec<u8> {
    let length = match random.below(40) {
        0..20 => random.below(40),
        20..30 => random.below(1_100),
        30..37 => (512 * random.between(1, 4)).saturating_sub(random.below(220)),
        37..39 => random.between(3_000, 9_000),
        _ => random.between(30_000, 70_000),
    };
    let mut bytes = format!("{number}/").into_bytes();
    let (one, other) = random.pick(&[(0, 0), (b'x', b'x'), (b'W', b'T'), (7, 250)]);
    let magic: &[u8] = random.pick(&[b"", b"", b"WTTL\x02\x01\0\0", b"WTLB\x01\0\0\0"]);
    bytes.extend_from_slice(magic);
    while (bytes.len() as u64) < length {
        bytes.push(if bytes.len() % 3 == 0 { one } else { other });
    }
    bytes
}
