//! Rows S to X of the table of recovery: which of the state store, the segments and the journal's files are there.
//!
//! A healthy folder is taken apart in every way: each kind of file there or not, whole or damaged. Each combination
//! meets exactly the row that the table states, restated here from its words.

use std::collections::BTreeMap;

use wattle::effects::MemoryDisk;
use wattle::log::{Damage, OpenError};

use super::layout::name;
use super::support::{P, append, open, options, stored, try_open, without_memory};

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    There,
    Gone,
    Damaged,
    Empty,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Journal {
    All,
    /// The one with the checkpoint's position is gone.
    NoLast,
    /// None at all.
    None,
}

#[derive(Debug, PartialEq)]
enum Row {
    New,
    MissingState,
    DamagedState,
    MissingFile,
    Opens,
}

fn row(state: State, has_segments: bool, journal: Journal, begins_at_zero: bool) -> Row {
    let rows = [
        // S
        (state == State::Gone && !has_segments && (journal == Journal::None || begins_at_zero), Row::New),
        // T
        (state == State::Gone && (has_segments || (journal != Journal::None && !begins_at_zero)), Row::MissingState),
        // U
        (matches!(state, State::Damaged | State::Empty), Row::DamagedState),
        // W
        (state == State::There && journal != Journal::All, Row::MissingFile),
        // X and what follows
        (state == State::There && journal == Journal::All, Row::Opens),
    ];
    let mut matching = rows.into_iter().filter(|(matches, _)| *matches).map(|(_, row)| row);
    let row = matching.next().unwrap();
    assert_eq!(matching.next(), None, "not exactly one row");
    row
}

/// A folder after several checkpoints, with the files of the journal that they have not used again.
async fn healthy(files: usize) -> BTreeMap<String, Vec<u8>> {
    let disk = MemoryDisk::default();
    let small = wattle::log::LogOptions { file_bytes: 400, ..without_memory() };
    let (log, _) = open(&disk, small);
    for number in 0..files * 3 {
        append(&log, P, &format!("event {number}")).await;
    }
    log.close();
    drop(log);
    let contents = disk.contents();
    contents.into_iter().filter(|(name, _)| !name.starts_with("spare-")).collect()
}

#[tokio::test]
async fn every_combination_of_files_meets_exactly_its_row() {
    for files in [1, 4] {
        let whole = healthy(files).await;
        let journals: Vec<String> = whole.keys().filter(|name| name.starts_with("journal-")).cloned().collect();
        for state in [State::There, State::Gone, State::Damaged, State::Empty] {
            for has_segments in [true, false] {
                for journal in [Journal::All, Journal::NoLast, Journal::None] {
                    let mut contents = whole.clone();
                    match state {
                        State::There => {}
                        State::Gone => drop(contents.remove("state")),
                        State::Damaged => contents.get_mut("state").unwrap()[4_096..].iter_mut().for_each(|b| *b ^= 1),
                        State::Empty => contents.get_mut("state").unwrap().clear(),
                    }
                    if !has_segments {
                        contents.retain(|name, _| !name.starts_with("segment-"));
                    }
                    match journal {
                        Journal::All => {}
                        Journal::NoLast => drop(contents.remove(journals.last().unwrap())),
                        Journal::None => contents.retain(|name, _| !name.starts_with("journal-")),
                    }
                    let left: Vec<&String> = contents.keys().filter(|name| name.starts_with("journal-")).collect();
                    let begins_at_zero = left.first().is_some_and(|first| **first == name(0));
                    let journal_now = if left.is_empty() { Journal::None } else { journal };
                    let context = format!("{files} files, {state:?}, segments {has_segments}, {journal:?}: {left:?}");
                    let row = row(state, has_segments, journal_now, begins_at_zero);
                    let disk = MemoryDisk::with_contents(contents.clone());
                    match (row, try_open(&disk, options())) {
                        (Row::New, Ok((_, replay))) => assert!(replay.catalogue.is_empty(), "{context}"),
                        (Row::Opens, Ok((log, _))) => match has_segments {
                            true => assert_eq!(stored(&log, P).len(), files * 3, "{context}"),
                            false => assert_eq!(log.partition(P).written(), files as u64 * 3, "{context}"),
                        },
                        (Row::MissingState, Err(OpenError::Damaged(Damage::MissingState)))
                        | (Row::DamagedState, Err(OpenError::Damaged(Damage::State { .. })))
                        | (Row::MissingFile, Err(OpenError::Damaged(Damage::MissingFile { .. }))) => {
                            let mut now = disk.contents();
                            let mut before = contents;
                            // opening the state store checks it, which it notes in it
                            now.remove("state");
                            before.remove("state");
                            assert!(now == before, "something was changed: {context}");
                        }
                        (row, result) => {
                            panic!("{context}: {row:?}, but {:?}", result.map(|(_, replay)| replay));
                        }
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn any_damage_of_the_state_store_is_refused_or_harmless() {
    let whole = healthy(2).await;
    let state = &whole["state"];
    let (mut refused, mut harmless) = (0, 0);
    for byte in (0..state.len()).step_by(97) {
        let disk = MemoryDisk::with_contents(whole.clone());
        assert!(disk.damage("state", byte as u64, 0x40));
        match try_open(&disk, options()) {
            Ok((log, _)) => {
                assert_eq!(stored(&log, P).len(), 6, "byte {byte}");
                harmless += 1;
            }
            Err(OpenError::Damaged(Damage::State { .. } | Damage::MissingFile { .. } | Damage::Version { .. })) => {
                refused += 1;
            }
            Err(other) => panic!("byte {byte}: {other:?}"),
        }
    }
    for length in (0..state.len()).step_by(1_021) {
        let disk = MemoryDisk::with_contents(whole.clone());
        assert!(disk.truncate_durably("state", length as u64));
        let opened = try_open(&disk, options()).map(|(_, replay)| replay);
        assert!(matches!(opened, Err(OpenError::Damaged(Damage::State { .. }))), "cut at {length}: {opened:?}");
    }
    assert!(refused > 10 && harmless > 10, "{refused} refused, {harmless} harmless");
}
