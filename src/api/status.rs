//! Status of topics, subscribers and storage.

use std::time::Duration;

use super::v1;
use crate::limits;
use crate::model::{GuardCounts, Offset};

/// Every node of the tree at about one moment, parents before children.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub topics: Vec<TopicStatus>,
    pub subscribers: Vec<SubscriberStatus>,
    /// How long the tree has run: the period of all counts since its start.
    pub uptime: Duration,
}

/// Counts of one topic, over all of its partitions.
#[derive(Debug, Clone)]
pub struct TopicStatus {
    /// Full name (`namespace/name`).
    pub name: String,
    /// The subscriber that writes to it, by full name; `None` for a root.
    pub parent: Option<String>,
    /// The topic that diverts to it, by full name; `None` where none does.
    pub diverted_from: Option<String>,
    /// It takes what that subscriber could not handle.
    pub is_dead_letters: bool,
    /// Events that are to come later.
    pub delayed: u64,
    /// Those of them that are due by the machine's clock and wait until it is confirmed, counted up to
    /// [`crate::limits::AWAITS_CLOCK_COUNTED`].
    pub awaits_clock: u64,
    /// Why those do not come at the moment, where that is so.
    pub delay_failure: Option<String>,
    /// Number of living and ended keys and of held events, where it has a lifecycle.
    pub states: Option<GuardCounts>,
    /// Why held events are not judged again at the moment, where that is so.
    pub held_failure: Option<String>,
    /// An event that is published again within [`crate::limits::RETRIED_FOR`] is recognised and stored once.
    pub recognises_retries: bool,
    /// Events that came in within the last minute.
    pub events_per_minute: u64,
    /// What each partition holds.
    pub partitions: Vec<Bounds>,
}

/// State and counts of one subscriber, over all of its partitions.
#[derive(Debug, Clone, Default)]
pub struct SubscriberStatus {
    /// Full name (`namespace/name`).
    pub name: String,
    /// The topic that it consumes, by full name.
    pub from: String,
    /// Its ports and the topics behind them, by full name.
    pub to: Vec<(String, String)>,
    /// The topic of its dead letters, by full name.
    pub dead_letters: Option<String>,
    /// Digest of the stable version, hexadecimal: it runs, except in lanes that try a candidate.
    pub digest: String,
    /// The version that is on trial.
    pub on_trial: Option<TrialStatus>,
    /// It is pinned: nothing takes the place of the version that runs.
    pub is_pinned: bool,
    /// Why the running version has other settings than the applied ones, and how to fix it; `None` where it has them.
    pub other_settings: Option<String>,
    /// What became of the last reload, in words.
    pub reload: Option<String>,
    /// Events that it has handled or given up since the start of the process.
    pub handled: u64,
    /// Events that it has emitted since the start of the process.
    pub emitted: u64,
    /// Calls that failed and were tried again since the start of the process.
    pub retried: u64,
    /// Events that went to dead letters since the start of the process.
    pub dead_lettered: u64,
    /// Events that it has passed over, since its `when` does not want them or they are not its own in its group, since
    /// the start of the process.
    pub passed_over: u64,
    /// Events that its whole group leaves out, since one of their identity was given to it before, since the start of
    /// the process; counted where that was found out, by one member.
    pub repeated: u64,
    /// Events of its input that it has yet to look at.
    pub lag: u64,
    /// How old the oldest of those is, by trusted time; `None` where there are none, or that cannot be read at the
    /// moment.
    pub lag_age: Option<Duration>,
    /// Events that came into its input within the last minute.
    pub arrived_per_minute: u64,
    /// Events that it has handled or given up within the last minute.
    pub handled_per_minute: u64,
    /// Dead letters that are kept and were neither redriven nor dropped; `None` where they cannot be counted at the
    /// moment.
    pub open_dead_letters: Option<u64>,
    /// Events behind its position that wait for another attempt, for one of their key, or to be released.
    pub waiting: u64,
    /// How long the one has waited that has waited for the longest time.
    pub waiting_age: Option<Duration>,
    /// Those of them that wait to be released.
    pub parked: u64,
    /// How its lanes are, one for each partition.
    pub lanes: Vec<LaneState>,
    /// The latest failure in words.
    pub last_failure: Option<String>,
}

/// A version of a subscriber that is on trial.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrialStatus {
    /// Its digest, hexadecimal.
    pub digest: String,
    /// Lanes that call it.
    pub lanes: u32,
    /// Events that it has handled.
    pub handled: u64,
    /// Events that it has to handle before it can be proven.
    pub events: u64,
    /// How long it has been tried since the process began, or since it began in all lanes, at most `time`.
    pub lasted: Duration,
    /// How long it is tried at least.
    pub time: Duration,
    /// How long until it is proven at the latest, where it does not fail.
    pub ends_in: Duration,
}

/// How a lane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneState {
    /// Handling or waiting for events.
    Running,
    /// The same, and some events wait to be tried again.
    Retrying,
    /// Paused by an operator.
    Paused,
    /// An event failed for the last time, and its topology says that it halts then.
    Halted,
    /// As many events wait as may, so nothing more is read.
    Full,
    /// A topic that it publishes to is full, so it makes no call.
    Blocked,
    /// It fails, and is started again after a pause: the latest failure says why.
    Failing,
    /// Its plugin is being compiled after a start; events wait until that is done.
    Compiling,
    /// Stopped: the process is going down, or the engine has stopped.
    Stopped,
}

/// The offsets of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The offset of the first retained event.
    pub start: Offset,
    /// After the last event that lanes can see.
    pub written: Offset,
    /// After the last event that outside readers can see.
    pub durable: Offset,
}

/// The state of an engine's disk and clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// There is room for events from outside, perhaps only for small publishes: see [`Self::room`].
    pub takes_events: bool,
    /// There is room for outputs of handlers; otherwise their lanes wait.
    pub takes_outputs: bool,
    /// How far the clock has jumped ahead: nothing expires until the clock is confirmed.
    pub clock_jumped: Option<Duration>,
    /// The free room; `None` if unknown.
    pub room: Option<Room>,
    /// Retained events that cannot be read because their file is missing or truncated.
    pub missing: Vec<MissingEvents>,
}

/// Free room, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Free bytes, without those that accepted data will need.
    pub left_bytes: u64,
    /// The part reserved for handlers and for work that frees room: publishes do not get it.
    pub reserve_bytes: u64,
    /// The largest publish that is accepted.
    pub publish_bytes: u64,
}

/// Events in a missing or truncated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingEvents {
    /// The path of the file.
    pub file: String,
    /// The full name of the topic.
    pub topic: String,
    pub partition: u32,
    /// Offset of the first of them.
    pub first_offset: Offset,
    /// Offset of the last of them.
    pub last_offset: Offset,
    /// The file exists, with fewer bytes than were written.
    pub is_truncated: bool,
}

impl TopicStatus {
    /// Events that are kept, as lanes see them.
    pub fn events(&self) -> u64 {
        self.partitions.iter().map(|bounds| bounds.written - bounds.start).sum()
    }

    /// Events that are held until their key is in another state.
    pub fn held(&self) -> u64 {
        self.states.map_or(0, |states| states.held)
    }
}

impl Default for Storage {
    /// All is well, and it is not known how much room there is.
    fn default() -> Self {
        Self { takes_events: true, takes_outputs: true, clock_jumped: None, room: None, missing: Vec::new() }
    }
}

impl Storage {
    /// The largest publish that is taken, where that is less than a publish may be: larger ones are refused until there
    /// is room.
    pub fn publish_bytes_max(&self) -> Option<u64> {
        let most = self.room?.publish_bytes;
        (most < limits::MESSAGE_BYTES_MAX as u64).then_some(most)
    }
}

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
            filtered: subscriber.passed_over,
            repeated: subscriber.repeated,
            retry_queue: subscriber.waiting,
            parked: subscriber.parked,
            lanes: subscriber.lanes.iter().map(|lane| v1::LaneState::from(*lane).into()).collect(),
            last_failure: subscriber.last_failure.clone(),
            candidate: subscriber.on_trial.clone().map(Into::into),
            reload: subscriber.reload.clone(),
            is_pinned: subscriber.is_pinned,
            other_settings: subscriber.other_settings.clone(),
            // no event is older than the longest duration there is
            lag_age: subscriber.lag_age.and_then(|age| age.try_into().ok()),
            retry_queue_age: subscriber.waiting_age.and_then(|age| age.try_into().ok()),
            open_dead_letters: subscriber.open_dead_letters,
            arrived_per_minute: subscriber.arrived_per_minute,
            handled_per_minute: subscriber.handled_per_minute,
        }
    }
}

impl From<TrialStatus> for v1::Candidate {
    fn from(TrialStatus { digest, lanes, handled, events, lasted, time, ends_in }: TrialStatus) -> Self {
        let ms = |period: Duration| u64::try_from(period.as_millis()).unwrap_or(u64::MAX);
        Self { digest, lanes, handled, events, lasted_ms: ms(lasted), time_ms: ms(time), ends_in_ms: ms(ends_in) }
    }
}

impl From<v1::Candidate> for TrialStatus {
    fn from(v1::Candidate { digest, lanes, handled, events, lasted_ms, time_ms, ends_in_ms }: v1::Candidate) -> Self {
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
            passed_over: subscriber.filtered,
            repeated: subscriber.repeated,
            waiting: subscriber.retry_queue,
            parked: subscriber.parked,
            lanes: subscriber.lanes.into_iter().map(lane).collect(),
            last_failure: subscriber.last_failure,
            on_trial: subscriber.candidate.map(Into::into),
            reload: subscriber.reload,
            is_pinned: subscriber.is_pinned,
            other_settings: subscriber.other_settings,
            lag_age: subscriber.lag_age.and_then(|age| age.try_into().ok()),
            waiting_age: subscriber.retry_queue_age.and_then(|age| age.try_into().ok()),
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
            LaneState::Compiling => Self::Compiling,
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
            v1::LaneState::Compiling => Self::Compiling,
            v1::LaneState::Stopped | v1::LaneState::Unspecified => Self::Stopped,
        }
    }
}

impl From<MissingEvents> for v1::MissingEvents {
    fn from(missing: MissingEvents) -> Self {
        let MissingEvents { file, topic, partition, first_offset, last_offset, is_truncated } = missing;
        Self { file, topic, partition, first_offset, last_offset, is_truncated }
    }
}

impl From<v1::MissingEvents> for MissingEvents {
    fn from(missing: v1::MissingEvents) -> Self {
        let v1::MissingEvents { file, topic, partition, first_offset, last_offset, is_truncated } = missing;
        Self { file, topic, partition, first_offset, last_offset, is_truncated }
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
        let missing = missing.into_iter().map(Into::into).collect();
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
        let missing = missing.into_iter().map(Into::into).collect();
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
