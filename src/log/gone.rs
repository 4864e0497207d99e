//! Topics that are removed for good: nothing of them stays on the disk.
//!
//! ```text
//!   segments ──> all of them, with the next checkpoint
//!   rows of the store ──> some with each checkpoint, until a checkpoint finds none
//!   rows of partitions ──> the same, once nothing can be written to them: after the next start
//! ```
//!
//! A producer that read the list of topics just before may still publish events. These are processed and removed like
//! all others, as long as the partition's row states the next offset.
//!
//! Promises: the removal happens in bounded parts and continues after a crash, because the log's settings then list the
//! topic again. Must not know: who removed the topic.

use std::collections::BTreeSet;

use super::Settings;
use crate::limits;
use crate::model::{SubscriberId, TopicId};

/// A topic that is removed for good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RemovedTopic {
    /// The subscribers that consumed it.
    pub readers: Vec<SubscriberId>,
    /// It was already removed when the log was opened: nothing can be written to it any more.
    pub is_closed: bool,
}

/// The removed topics of which nothing is left.
#[derive(Debug, Default)]
pub(super) struct Removals {
    left: BTreeSet<TopicId>,
}

impl Removals {
    /// The next topics that may still have rows, a bounded number.
    pub(super) fn next<'s>(&self, settings: &'s Settings) -> impl Iterator<Item = (TopicId, &'s RemovedTopic)> {
        let there = settings.gone.iter().filter(|(topic, _)| !self.left.contains(topic));
        there.map(|(topic, gone)| (*topic, gone)).take(limits::GONE_TOPICS)
    }

    /// No row of the topic was found.
    pub(super) fn has_left(&mut self, topic: TopicId) {
        self.left.insert(topic);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::future::Future;
    use std::io;
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::effects::memory::Operation;
    use crate::effects::{Disk, ManualClock, MemoryDisk};
    use crate::log::{Log, LogOptions, Stepper};
    use crate::model::{
        Dedupe, EventId, LaneId, LaneWrite, Mark, PartitionId, ProducerId, Slices, TopicSettings, keeper_of,
    };

    const STAYS: TopicId = TopicId(1);
    const GOES: TopicId = TopicId(2);

    fn open(disk: &MemoryDisk) -> Option<(Log, Stepper)> {
        let options = LogOptions { file_bytes: 1 << 20, ..LogOptions::default() };
        let opened = Log::open_stepped(Arc::new(disk.clone()), Arc::new(ManualClock::default()), options);
        opened.ok().map(|(log, _, stepper)| (log, stepper))
    }

    fn reader(topic: TopicId) -> SubscriberId {
        SubscriberId(topic.0)
    }

    /// `gone`: the topic is removed; the value states whether that was so when the log was opened.
    fn settings(gone: Option<bool>) -> Settings {
        let kept = TopicSettings {
            dedupe: Some(Dedupe { window: Duration::from_secs(3_600), count: None }),
            forget_producers: Some(Duration::from_secs(3_600)),
            ..TopicSettings::default()
        };
        let goes = |is_closed| (GOES, RemovedTopic { readers: vec![reader(GOES)], is_closed });
        let topics = [STAYS, GOES].into_iter().filter(|topic| gone.is_none() || *topic != GOES);
        Settings {
            topics: topics.map(|topic| (topic, kept)).collect(),
            gone: gone.map(goes).into_iter().collect(),
            ..Settings::default()
        }
    }

    fn one_byte(out: &mut Vec<u8>) -> Result<(), ()> {
        out.push(b'x');
        Ok(())
    }

    fn done<T>(stepper: &mut Stepper, future: impl Future<Output = T>) -> T {
        let (mut future, mut context) = (pin!(future), Context::from_waker(Waker::noop()));
        loop {
            if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
                return value;
            }
            stepper.append();
            stepper.sync();
        }
    }

    fn append(log: &Log, stepper: &mut Stepper, slices: Slices) {
        let ticket = log.append(slices).unwrap();
        done(stepper, ticket).unwrap().unwrap();
    }

    /// Appends events, identities, numbers of producers, and entries of lanes and keys, for both topics.
    fn fill(log: &Log, stepper: &mut Stepper, entries: usize) {
        for topic in [STAYS, GOES] {
            for number in 0..4 {
                let partition = PartitionId { topic, partition: number % 2 };
                let mut named = Slices::default();
                let mark = Mark::Identity(EventId(u128::from(number) + 1));
                named.push_marked(partition, mark, one_byte).unwrap();
                append(log, stepper, named);
                let mut numbered = Slices::default();
                let mark = Mark::Sequence(u64::from(number) + 1);
                numbered.push_marked(partition, mark, one_byte).unwrap();
                numbered.set_producer(ProducerId(7));
                numbered.set_began(1);
                append(log, stepper, numbered);
            }
            let owner = LaneId { subscriber: reader(topic), partition: 1 };
            for lane in [owner, keeper_of(PartitionId { topic, partition: 0 })] {
                let key = |number: usize| number.to_be_bytes().to_vec();
                let writes = (0..entries).map(|number| LaneWrite::put(key(number), vec![1])).collect();
                let acquired = done(stepper, log.acquire(lane)).unwrap();
                done(stepper, log.unit(&acquired, 1, Slices::default(), writes)).unwrap().unwrap();
                stepper.append();
                stepper.sync();
            }
        }
    }

    /// The number of rows of a topic, including its lanes' entries, and of its files.
    fn left(log: &Log, disk: &MemoryDisk, topic: TopicId) -> (usize, usize) {
        let keeper = keeper_of(PartitionId { topic, partition: 0 }).subscriber.0;
        let of = [&b"\x03\x08"[..], &b"\x04\x05\x06\x07\x09\x08"[..]];
        let rows = log.shared.entries.keys().unwrap();
        let is_of = |key: &&Vec<u8>| {
            let number = key.get(1..5).map_or(0, |number| u32::from_be_bytes(number.try_into().unwrap()));
            let kind = key[0];
            of[0].contains(&kind) && (number == reader(topic).0 || number == keeper)
                || of[1].contains(&kind) && kind != 8 && number == topic.0
        };
        let prefixes = ["segment", "index"].map(|kind| format!("{kind}-{:08x}-", topic.0));
        let files = disk.list().unwrap().into_iter();
        let files = files.filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        (rows.iter().filter(is_of).count(), files.count())
    }

    #[test]
    fn all_of_it_goes_in_parts_and_nothing_else() {
        let disk = MemoryDisk::default();
        let (log, mut stepper) = open(&disk).unwrap();
        log.configure(settings(None));
        fill(&log, &mut stepper, limits::GONE_ROWS * 2 / 3);
        assert!(stepper.checkpoint());
        let [stays, goes] = [STAYS, GOES].map(|topic| left(&log, &disk, topic));
        assert!(goes.0 > limits::GONE_ROWS && goes.1 > 0, "{goes:?}");
        log.configure(settings(Some(false)));
        assert!(stepper.checkpoint());
        let part = left(&log, &disk, GOES);
        assert_eq!(part.1, 0, "segments go at once");
        assert!(part.0 > 0 && part.0 + limits::GONE_ROWS <= goes.0, "{goes:?}, {part:?}: a part of the rows");
        (0..3).for_each(|_| assert!(stepper.checkpoint()));
        assert_eq!(left(&log, &disk, GOES), (2, 0), "the rows with the next offsets");
        assert_eq!(left(&log, &disk, STAYS), stays);
        // An event of a producer that read the list of topics before is removed in the same way.
        let mut late = Slices::default();
        late.push(PartitionId { topic: GOES, partition: 0 }, one_byte).unwrap();
        append(&log, &mut stepper, late);
        (0..3).for_each(|_| assert!(stepper.checkpoint()));
        assert_eq!(left(&log, &disk, GOES), (2, 0));
        drop((log, stepper));
        let disk = disk.after_crash(|| true);
        let (log, mut stepper) = open(&disk).unwrap();
        log.configure(settings(Some(true)));
        (0..3).for_each(|_| assert!(stepper.checkpoint()));
        assert_eq!(left(&log, &disk, GOES), (0, 0));
        assert_eq!(left(&log, &disk, STAYS), stays);
        let generation = log.shared.checkpoints.load(Ordering::Acquire);
        assert!(stepper.checkpoint());
        assert_eq!(log.shared.checkpoints.load(Ordering::Acquire), generation, "there is nothing more to do");
    }

    #[test]
    fn it_is_gone_on_with_after_a_crash_at_any_step() {
        let disk = MemoryDisk::default();
        let (log, mut stepper) = open(&disk).unwrap();
        log.configure(settings(None));
        fill(&log, &mut stepper, 10);
        assert!(stepper.checkpoint());
        let stays = left(&log, &disk, STAYS);
        drop((log, stepper));
        let filled = disk.after_crash(|| true);
        let mut outcomes = BTreeSet::new();
        for crash_at in 0.. {
            let disk = filled.after_crash(|| true);
            let (log, mut stepper) = open(&disk).unwrap();
            let asked = AtomicUsize::new(0);
            let (log, is_over) = {
                let count = Arc::new(asked);
                let counted = count.clone();
                disk.set_fault(move |operation| match operation {
                    Operation::Read(_) => Ok(()),
                    _ if counted.fetch_add(1, Ordering::SeqCst) < crash_at => Ok(()),
                    _ => Err(io::Error::other("the power is gone")),
                });
                log.configure(settings(Some(false)));
                (0..3).for_each(|_| _ = stepper.checkpoint());
                (log, count.load(Ordering::SeqCst) <= crash_at)
            };
            drop((log, stepper));
            let disk = disk.after_crash(|| crash_at % 2 == 0);
            let (log, mut stepper) = open(&disk).unwrap();
            outcomes.insert(left(&log, &disk, GOES));
            log.configure(settings(Some(true)));
            (0..4).for_each(|_| assert!(stepper.checkpoint()));
            assert_eq!(left(&log, &disk, GOES), (0, 0), "crash at {crash_at}");
            assert_eq!(left(&log, &disk, STAYS), stays, "crash at {crash_at}");
            if is_over {
                break;
            }
        }
        assert!(outcomes.len() > 1, "{outcomes:?}");
    }
}
