//! What subscribers have yet to consume is kept as a sum: after any history it is what a count of everything says.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wattle::effects::MemoryDisk;
use wattle::log::{LaneOwnership, Log, LogOptions, Settings, Stepper, UnconsumedCount};
use wattle::model::{LaneId, PartitionId, Retention, Slices, SubscriberId, TopicId, TopicSettings};

use super::support::{Random, Ticks, options, slices};

const TOPIC: TopicId = TopicId(7);
const PARTITIONS: u32 = 3;
const SUBSCRIBERS: [SubscriberId; 3] = [SubscriberId(1), SubscriberId(2), SubscriberId(3)];

struct Bed {
    log: Log,
    stepper: Stepper,
    lanes: HashMap<LaneId, LaneOwnership>,
}

impl Bed {
    fn open(disk: &MemoryDisk) -> Self {
        let options = LogOptions { recent_bytes_max: 0, checkpoint_bytes: 0, ..options() };
        let (log, _, mut stepper) =
            Log::open_stepped(Arc::new(disk.clone()), Arc::new(Ticks::default()), options).unwrap();
        let retention = Retention { partition_bytes: Some(400), force: true, ..Retention::default() };
        let topics = HashMap::from([(TOPIC, TopicSettings { retention, ..TopicSettings::default() })]);
        log.configure(Settings { topics, ..Settings::default() });
        let mut lanes = HashMap::new();
        for subscriber in SUBSCRIBERS {
            for partition in 0..PARTITIONS {
                let id = LaneId { subscriber, partition };
                let mut acquire = std::pin::pin!(log.acquire(id));
                let mut cx = Context::from_waker(Waker::noop());
                assert!(acquire.as_mut().poll(&mut cx).is_pending());
                stepper.append();
                let Poll::Ready(lane) = acquire.as_mut().poll(&mut cx) else { panic!("nothing else is on its way") };
                lanes.insert(id, lane.unwrap());
            }
        }
        Self { log, stepper, lanes }
    }

    fn position(&mut self, lane: LaneId, to: u64) {
        let mut unit = std::pin::pin!(self.log.unit(&self.lanes[&lane], to, Slices::default(), Vec::new()));
        assert!(unit.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
        self.stepper.append();
    }

    fn counted(&self, readers: &[SubscriberId]) -> u64 {
        let of_partition = |partition| {
            let lane = |reader: &SubscriberId| self.log.lane(LaneId { subscriber: *reader, partition });
            let slowest = readers.iter().map(|reader| lane(reader).position()).min()?;
            let partition = self.log.partition(PartitionId { topic: TOPIC, partition });
            Some(partition.written().saturating_sub(slowest.max(partition.start())))
        };
        (0..PARTITIONS).filter_map(of_partition).sum()
    }
}

#[test]
fn the_sum_is_what_a_count_of_everything_says_after_any_history() {
    let (mut expired, mut sought, mut most) = (0, 0, 0);
    for seed in 0..20 {
        let (disk, mut random) = (MemoryDisk::default(), Random(seed));
        let mut bed = Bed::open(&disk);
        let mut readers: Vec<SubscriberId> = SUBSCRIBERS[..2].to_vec();
        let mut kept: UnconsumedCount = bed.log.unconsumed(TOPIC, PARTITIONS, &readers);
        for step in 0..300 {
            let partition = random.below(u64::from(PARTITIONS)) as u32;
            let id = PartitionId { topic: TOPIC, partition };
            match random.below(20) {
                0..9 => {
                    let other = PartitionId { topic: TOPIC, partition: (partition + 1) % PARTITIONS };
                    drop(bed.log.append(slices(&[(id, b"an event"), (other, b"another"), (id, b"one more")])).unwrap());
                    bed.stepper.append();
                }
                9..15 => {
                    let lane = LaneId { subscriber: SUBSCRIBERS[random.below(3) as usize], partition };
                    let to = random.below(bed.log.partition(id).written() + 1);
                    sought += u64::from(to < bed.log.lane(lane).position());
                    bed.position(lane, to);
                }
                15..18 => {
                    let start = bed.log.partition(id).start();
                    bed.stepper.sync();
                    assert!(bed.stepper.checkpoint());
                    expired += bed.log.partition(id).start() - start;
                }
                18 => {
                    readers = SUBSCRIBERS.into_iter().filter(|_| random.below(2) == 0).collect();
                    kept = bed.log.unconsumed(TOPIC, PARTITIONS, &readers);
                }
                _ => {
                    drop(kept);
                    let Bed { log, stepper, lanes } = bed;
                    stepper.close();
                    drop((log, lanes));
                    bed = Bed::open(&disk);
                    kept = bed.log.unconsumed(TOPIC, PARTITIONS, &readers);
                }
            }
            assert_eq!(kept.count(), bed.counted(&readers), "seed {seed}, step {step}");
            most = most.max(kept.count());
        }
        bed.stepper.close();
    }
    assert!(expired > 100 && sought > 100 && most > 15, "{expired} expired, {sought} seeks back, at most {most}");
}
