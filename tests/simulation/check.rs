//! Compares a log with the model: what is there, where, since when, and what is not.

use std::collections::BTreeSet;
use std::ops::Bound;

use wattle::log::{ColdError, ColdReader, Log, RecentRead};
use wattle::model::{Chunk, GuardCounts, LaneId, PageBudget, PartitionId, keeper_of};

use super::lives::Lives;
use super::model::Model;
use super::plan::{ENDED_MAX, GUARDED, LANES, PARTITIONS};

/// How many units a log holds after a start: the first ones, all whole. Panics where that is not so.
pub(crate) fn units_held(model: &Model, log: &Log, catalogue: &[bytes::Bytes]) -> usize {
    let ends: Vec<u64> = PARTITIONS.iter().map(|id| log.partition(*id).written()).collect();
    let cursors: Vec<u64> = LANES.iter().map(|id| log.lane(*id).position()).collect();
    let all = |id: &LaneId| {
        let whole = PageBudget { entries: usize::MAX, bytes: usize::MAX };
        log.entries(*id).range(Bound::Unbounded, &[255], whole).ok().map(|page| page.entries)
    };
    let kept: Vec<_> = LANES.iter().map(all).collect();
    let held = (0..=model.units.len()).rev().find(|units| {
        PARTITIONS.iter().zip(&ends).all(|(id, end)| model.end(*id, *units) == *end)
            && LANES.iter().zip(&cursors).all(|(id, cursor)| model.cursor(*id, *units) == *cursor)
            && model.catalogue(*units).iter().eq(catalogue.iter())
            // a unit may change nothing else; what cannot be read tells nothing
            && LANES
                .iter()
                .zip(&kept)
                .all(|(id, kept)| kept.as_ref().is_none_or(|kept| model.entries(*id, *units) == *kept))
    });
    let shown = || {
        let expected: Vec<u64> = PARTITIONS.iter().map(|id| model.end(*id, model.must)).collect();
        let positions: Vec<u64> = LANES.iter().map(|id| model.cursor(*id, model.must)).collect();
        let entries = (catalogue.len(), model.catalogue(model.must).len());
        format!("ends {ends:?}, must {expected:?}; cursors {cursors:?}, must {positions:?}; catalogue {entries:?}")
    };
    let Some(held) = held else { panic!("what is there is not what was first written: {}", shown()) };
    assert!(held >= model.must, "{held} units are there, {} were promised: lost; {}", model.must, shown());
    held
}

/// Events of a partition that a reader gets, whether they are in memory or not.
pub(crate) fn read(
    log: &Log,
    reader: &mut ColdReader,
    id: PartitionId,
    (from, end): (u64, u64),
    (events, bytes): (u32, usize),
) -> Result<Vec<Chunk>, ColdError> {
    match log.partition(id).recent(from, end, events, bytes) {
        RecentRead::Chunks(chunks) => Ok(chunks),
        RecentRead::AtEnd => Ok(Vec::new()),
        RecentRead::Cold => log.read_cold(reader, id, from, end, events, bytes),
    }
}

/// Compares events with what was written. The offset behind the last one.
pub(crate) fn compare(model: &Model, id: PartitionId, from: u64, chunks: &[Chunk]) -> u64 {
    let mut next = from;
    for chunk in chunks {
        assert_eq!(chunk.base_offset, next, "{id:?}: offsets do not count up from {from}");
        let before = next;
        for stored in chunk.iter() {
            let expected = model.partitions.get(&id).and_then(|events| events.get(next as usize));
            let Some(expected) = expected else { panic!("{id:?}: an event at {next} that was never written") };
            assert_eq!(stored.offset, next);
            assert!(
                stored.record == expected.bytes,
                "{id:?}: another event at {next}: {:?} in place of {:?}",
                String::from_utf8_lossy(&stored.record[..stored.record.len().min(40)]),
                String::from_utf8_lossy(&expected.bytes[..expected.bytes.len().min(40)])
            );
            let unit = &model.units[expected.unit];
            assert_eq!(stored.trusted_time_ns, unit.trusted_ns, "{id:?}: the trusted time of the event at {next}");
            assert_eq!(stored.epoch, unit.epoch, "{id:?}: the epoch of the event at {next}");
            if let Some(time_ns) = unit.time_ns {
                assert_eq!(stored.append_time_ns, time_ns, "{id:?}: the append time of the event at {next}");
            }
            next += 1;
        }
        assert_eq!(next - before, u64::from(chunk.count), "{id:?}: a chunk says how many it has");
    }
    next
}

/// Reads all that a log holds and compares it. `is_excused` says of an error whether it may be; what it costs is
/// skipped.
pub(crate) fn all(model: &mut Model, log: &Log, is_excused: &dyn Fn(&ColdError) -> bool) {
    let mut reader = log.cold_reader();
    for id in PARTITIONS {
        let (mut from, end) = (log.partition(id).start(), log.partition(id).written());
        while from < end {
            let chunks = match read(log, &mut reader, id, (from, end), (u32::MAX, usize::MAX)) {
                Ok(chunks) => chunks,
                Err(error) if is_excused(&error) => {
                    from += 1;
                    continue;
                }
                Err(error) => panic!("{id:?} cannot be read at {from}: {error}"),
            };
            let next = compare(model, id, from, &chunks);
            assert!(next > from, "{id:?}: nothing at {from}, in front of {end}");
            for chunk in &chunks {
                for offset in chunk.base_offset..chunk.end_offset() {
                    let unit = model.partitions[&id][offset as usize].unit;
                    model.units[unit].time_ns = Some(chunk.append_time_ns);
                }
            }
            from = next;
        }
    }
    // a unit without events may have changed nothing, so nobody knows whether it is there
    let units: BTreeSet<usize> = model.partitions.values().flatten().map(|event| event.unit).collect();
    let times: Vec<u64> = units.into_iter().filter_map(|unit| model.units[unit].time_ns).collect();
    assert!(times.is_sorted(), "append times decrease: {times:?}");
}

/// Compares how many keys live and how many events are held; ends may be forgotten later than they may be.
pub(crate) fn lives(lives: &Lives, log: &Log, is_excused: &dyn Fn(&str) -> bool) {
    for id in GUARDED {
        let entries = log.entries(keeper_of(id));
        match GuardCounts::read(|key| entries.get(key)) {
            Ok(found) => {
                let (living, ended, held) = lives.counts(id);
                assert_eq!((found.living, found.held), (living, held), "{id:?}: keys that live, events that are held");
                assert!((ended..=ENDED_MAX).contains(&found.ended), "{id:?}: {} ends, not {ended}", found.ended);
            }
            // what a checkpoint without room has closed, the next one opens
            Err(error) if error.is_passing() => {}
            Err(error) => assert!(is_excused(&error.to_string()), "{id:?}: {error}"),
        }
    }
}

/// Where a time is looked for, by the model: the first event that was appended then or later.
pub(crate) fn offset_at_time(model: &Model, id: PartitionId, time_ns: u64, (start, end): (u64, u64)) -> Option<u64> {
    for offset in start..end {
        let unit = model.partitions.get(&id)?.get(offset as usize)?.unit;
        if model.units[unit].time_ns? >= time_ns {
            return Some(offset);
        }
    }
    Some(end)
}
