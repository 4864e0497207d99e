use proptest::prelude::*;

use super::*;
use crate::model::Mark;

const LINK: Link = Link { position: 4096, sequence: 7, previous_checksum: 99, epoch: 3, append_time_ns: 1_000 };

/// How the records of a test are identified.
#[derive(Debug, Clone, Copy)]
enum Marks {
    None,
    Identities,
    Sequences,
}

fn slices_of(records: &[(u32, Vec<u8>)], marks: Marks) -> Slices {
    let mut slices = Slices::default();
    if let Marks::Sequences = marks {
        slices.set_producer(ProducerId(77));
        if records.len().is_multiple_of(2) {
            slices.set_began(88);
        }
    }
    for (number, (partition, record)) in records.iter().enumerate() {
        let partition = PartitionId { topic: TopicId(1), partition: *partition };
        let write = |out: &mut Vec<u8>| {
            out.extend_from_slice(record);
            Ok::<_, ()>(())
        };
        let mark = match marks {
            Marks::None => Mark::None,
            Marks::Identities => Mark::Identity(EventId(number as u128)),
            Marks::Sequences => Mark::Sequence(number as u64),
        };
        slices.push_marked(partition, mark, write).unwrap();
    }
    slices
}

fn frame_of(slices: &Slices, lane: Option<LaneChange<'_>>, kept: &[PartitionEntries]) -> (Vec<u8>, Head) {
    let mut out = Vec::new();
    let head = write_frame(&mut out, Kind::Unit, &LINK, 4000, |out| {
        write_unit(out, 900, lane, kept, slices, |slice, _| u64::from(slice.partition.partition) * 100);
    });
    (out, head.unwrap())
}

proptest! {
    #[test]
    fn a_unit_survives_its_encoding(
        records in proptest::collection::vec((0u32..3, proptest::collection::vec(any::<u8>(), 0..50)), 0..20),
        consumed in proptest::option::of((any::<u32>(), any::<u32>(), any::<u64>())),
        writes in proptest::collection::vec((any::<[u8; 3]>(), proptest::option::of(any::<[u8; 5]>())), 0..4),
        kept in 0u32..3,
        marks in prop_oneof![Just(Marks::None), Just(Marks::Identities), Just(Marks::Sequences)],
    ) {
        let consumed = consumed.map(|(subscriber, partition, consumed_to)| CursorUpdate {
            lane: LaneId { subscriber: SubscriberId(subscriber), partition }, consumed_to,
        });
        let slices = slices_of(&records, marks);
        let write = |(key, value): ([u8; 3], Option<[u8; 5]>)| LaneWrite {
            key: key.to_vec().into(), value: value.map(|value| value.to_vec().into()),
        };
        let writes: Vec<_> = writes.into_iter().map(write).collect();
        let kept: Vec<PartitionEntries> = (0..kept)
            .map(|partition| (PartitionId { topic: TopicId(9), partition }, writes.clone()))
            .collect();
        let lane = consumed.map(|consumed| LaneChange { consumed, writes: &writes });
        let (bytes, written) = frame_of(&slices, lane, &kept);
        if kept.is_empty() {
            prop_assert_eq!(unit_frame_bytes(&slices, lane.map(|lane| lane.writes)), bytes.len());
        }
        let head = Head::parse(&bytes).unwrap();
        prop_assert_eq!(head, written);
        head.verify(&bytes).unwrap();
        LINK.check(&head).unwrap();
        prop_assert_eq!(head.frame_bytes(), bytes.len());
        let mut unit = UnitBody::parse(&head, Bytes::from(bytes).slice(HEAD_BYTES..)).unwrap();
        prop_assert_eq!((unit.consumed, unit.trusted_time_ns), (consumed, 900));
        prop_assert_eq!(&unit.kept, &kept);
        prop_assert_eq!((unit.producer, unit.began_ns), (slices.producer(), slices.began_ns().unwrap_or(0)));
        prop_assert_eq!(&unit.writes, &if consumed.is_some() { writes } else { Vec::new() });
        let mut read = Vec::new();
        for given in slices.iter() {
            let slice = unit.next_slice().unwrap().unwrap();
            prop_assert_eq!(slice.partition, given.partition);
            prop_assert_eq!(slice.chunk.base_offset, u64::from(slice.partition.partition) * 100);
            prop_assert_eq!(&slice.identities().collect::<Vec<_>>(), &given.identities);
            prop_assert_eq!(slice.last_sequence, given.sequences.last().copied());
            read.extend(slice.chunk.iter().map(|stored| (slice.partition.partition, stored.record.to_vec())));
        }
        prop_assert!(unit.next_slice().unwrap().is_none());
        let mut expected = records;
        let first = |partition: u32, all: &[(u32, Vec<u8>)]| all.iter().position(|(p, _)| *p == partition);
        let order = expected.clone();
        expected.sort_by_key(|(partition, _)| first(*partition, &order));
        prop_assert_eq!(read, expected);
    }

    #[test]
    fn every_flipped_bit_is_found(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let slices = slices_of(&[(0, b"hello".to_vec()), (1, vec![0; 40])], Marks::Identities);
        let (mut bytes, written) = frame_of(&slices, None, &[]);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let accepted = Head::parse(&bytes).and_then(|head| head.verify(&bytes).map(|()| head));
        prop_assert!(accepted.is_err(), "byte {at} bit {bit} of {written:?}");
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Head::parse(&bytes);
        let head = frame_of(&Slices::default(), None, &[]).1;
        if let Ok(mut unit) = UnitBody::parse(&head, bytes.into()) {
            while let Ok(Some(slice)) = unit.next_slice() {
                let _ = slice.chunk.iter().count();
            }
        }
    }
}

#[test]
fn zeroes_are_never_a_frame() {
    assert_eq!(Head::parse(&[0; 4096]), Err(FrameError::Magic));
}

#[test]
fn a_unit_of_an_earlier_version_has_its_append_time() {
    let (bytes, head) = frame_of(&slices_of(&[(2, b"x".to_vec())], Marks::None), None, &[]);
    let mut body = bytes[HEAD_BYTES..].to_vec();
    body.drain(UNIT_HEAD_BYTES..UNIT_HEAD_BYTES + TRUSTED_BYTES);
    for version in OLDEST_VERSION..TRUSTED_FROM_VERSION {
        let mut unit = UnitBody::parse(&Head { version, ..head }, body.clone().into()).unwrap();
        assert_eq!(unit.trusted_time_ns, head.append_time_ns);
        assert_eq!(unit.next_slice().unwrap().unwrap().chunk.trusted_time_ns, head.append_time_ns);
    }
}

#[test]
fn the_layout_is_a_promise() {
    let (bytes, _) = frame_of(&slices_of(&[(2, b"x".to_vec())], Marks::None), None, &[]);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let head = "5754544c 05 01 0000 2d000000 84a2a8f2 0010000000000000 a00f000000000000 e803000000000000 \
                0700000000000000 03000000 63000000";
    let body = "01000000 00000000 8403000000000000 01000000 02000000 c800000000000000 01000000 05000000 01000000 78";
    assert_eq!(hex, [head, body].concat().replace(' ', ""));
}
