//! The table in the documentation of recovery, complete: every combination of what stands at a place, what lies behind
//! it and whether another file follows meets exactly the row that the table states.
//!
//! The rows are restated here from the table's words, and the journals are built from the layout's: neither is asked of
//! the code under test.

use wattle::effects::MemoryDisk;
use wattle::log::Damage;

use super::layout::{FILE_HEAD, MARK, UNIT, Writer, unit};
use super::support::{P, append, open, options, refused, stored};
use Stands::{
    End, FlippedVersion, Frame, LowerEpoch, Malformed, NewKind, NewVersion, OtherChain, OtherPosition, Torn,
    WrongChecksum, Zeroes,
};

/// What stands where the next frame should be.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stands {
    /// A whole frame that continues the chain.
    Frame,
    /// Nothing: the file ends.
    End,
    /// The first bytes of a frame, then the file's end or what lies behind.
    Torn,
    /// Zeroes of a frame's length.
    Zeroes,
    /// A frame with a wrong byte in its body.
    WrongChecksum,
    /// A whole frame that says to be elsewhere.
    OtherPosition,
    /// A whole frame, at its place, of another chain: the frame in front is not the one that it followed.
    OtherChain,
    /// A whole frame, at its place, of a lower epoch than the frame in front.
    LowerEpoch,
    /// A whole frame of this chain whose body makes no sense.
    Malformed,
    /// A whole frame of a version to come.
    NewVersion,
    /// A whole frame of a kind to come.
    NewKind,
    /// The version byte of a frame is wrong, so its checksum is too.
    FlippedVersion,
}

const STANDS: [Stands; 12] = [
    Frame,
    End,
    Torn,
    Zeroes,
    WrongChecksum,
    OtherPosition,
    OtherChain,
    LowerEpoch,
    Malformed,
    NewVersion,
    NewKind,
    FlippedVersion,
];

/// What lies behind it in the same file.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Behind {
    Nothing,
    /// A whole frame that says that everything in front of a position behind this one was durable.
    Proof,
    /// A whole frame that says so only of what is in front of this one: it was in the same group.
    SameGroup,
    /// What would be proof, with a wrong byte.
    BrokenProof,
    /// What would be proof, at another position: an old frame.
    MisplacedProof,
}

const BEHIND: [Behind; 5] =
    [Behind::Nothing, Behind::Proof, Behind::SameGroup, Behind::BrokenProof, Behind::MisplacedProof];

/// Whether another file follows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Next {
    IsLast,
    Follows,
    /// A later file exists and the next one does not.
    Missing,
}

const NEXT: [Next; 3] = [Next::IsLast, Next::Follows, Next::Missing];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Row {
    /// The journal goes on to where it ends.
    Accept,
    /// What is in front is accepted, the rest is void.
    Void,
    Damaged,
    Newer,
    MissingFile,
}

/// The table. Exactly one row for each combination.
fn row(stands: Stands, behind: Behind, next: Next) -> Row {
    let whole_frame = matches!(stands, Frame);
    let rows = [
        // A and E: what is there is whole to the end of the file, and the next file, where there is one, follows
        (stands == End && next != Next::Missing, Row::Accept),
        (whole_frame && behind == Behind::Nothing && next != Next::Missing, Row::Accept),
        // the frame is accepted; what lies behind it is judged at its own place, where nothing proves it
        (whole_frame && behind == Behind::Proof && next != Next::Missing, Row::Accept),
        (whole_frame && behind == Behind::SameGroup && next != Next::Missing, Row::Accept),
        (whole_frame && is_wrong(behind) && next == Next::IsLast, Row::Void),
        (whole_frame && is_wrong(behind) && next != Next::IsLast, Row::Damaged),
        // B
        (is_no_whole_frame(stands) && behind != Behind::Proof && next == Next::IsLast, Row::Void),
        // C
        (is_no_whole_frame(stands) && behind == Behind::Proof && next == Next::IsLast, Row::Damaged),
        (is_no_whole_frame(stands) && next != Next::IsLast, Row::Damaged),
        (stands == Malformed, Row::Damaged),
        // D
        (matches!(stands, NewVersion | NewKind), Row::Newer),
        // F
        (stands == End && next == Next::Missing, Row::MissingFile),
        (whole_frame && !is_wrong(behind) && next == Next::Missing, Row::MissingFile),
    ];
    let mut matching = rows.into_iter().filter(|(matches, _)| *matches).map(|(_, row)| row);
    match (matching.next(), matching.next()) {
        (Some(row), None) => row,
        other => panic!("{stands:?}, {behind:?}, {next:?}: not exactly one row: {other:?}"),
    }
}

fn is_no_whole_frame(stands: Stands) -> bool {
    matches!(stands, Torn | Zeroes | WrongChecksum | OtherPosition | OtherChain | LowerEpoch | FlippedVersion)
}

fn is_wrong(behind: Behind) -> bool {
    matches!(behind, Behind::BrokenProof | Behind::MisplacedProof)
}

/// A journal of that combination. Where in the file the place is, and where what lies behind it.
fn build(stands: Stands, behind: Behind, next: Next) -> (Writer, u64, u64) {
    let mut writer = Writer::new();
    writer.event(0, "in front");
    writer.next.epoch = 5;
    writer.event(1, "in front");
    writer.synced();
    let place = writer.last().len() as u64;
    let good = writer.frame(UNIT, unit(None, &[((1, 0), 2, &["the next"])]));
    let mut frame = good.clone();
    match stands {
        OtherPosition => frame.position += 8,
        OtherChain => frame.previous ^= 1,
        LowerEpoch => frame.epoch = 4,
        Malformed => frame.body = vec![9; 12],
        NewVersion => frame.version = 6,
        NewKind => frame.kind = 9,
        _ => {}
    }
    if stands != End {
        writer.push(&frame);
    }
    let written = writer.last().len();
    let at = place as usize;
    match stands {
        Torn => writer.last().truncate(at + 70),
        Zeroes => writer.last()[at..].fill(0),
        WrongChecksum => writer.last()[written - 1] ^= 1,
        FlippedVersion => writer.last()[at + 4] ^= 4,
        _ => {}
    }
    if stands == Torn && behind != Behind::Nothing {
        // a hole: the frame's last block is missing, what lies behind it is not
        writer.last().resize(written, 0);
    }
    let rest = writer.last().len() as u64;
    if behind != Behind::Nothing {
        let mut proof = writer.frame(MARK, Vec::new());
        proof.durable = match behind {
            Behind::SameGroup => good.durable,
            _ => proof.position,
        };
        if behind == Behind::MisplacedProof {
            proof.position += 8;
        }
        if stands == End {
            // what proves that something was here comes after a hole
            writer.last().extend([0; 64]);
            proof.position += 64;
            proof.durable = if behind == Behind::SameGroup { good.durable } else { proof.position };
        }
        writer.push(&proof);
        if behind == Behind::BrokenProof {
            let last = writer.last().len() - 1;
            writer.last()[last] ^= 1;
        }
    }
    match next {
        Next::IsLast => {}
        Next::Follows => {
            writer.roll();
            writer.event(3, "behind");
        }
        Next::Missing => {
            writer.next.position += 100;
            writer.roll();
            writer.event(3, "behind");
        }
    }
    (writer, place, rest)
}

#[tokio::test]
async fn every_combination_meets_exactly_its_row() {
    let mut met = Vec::new();
    for stands in STANDS {
        for behind in BEHIND {
            if stands == End && behind != Behind::Nothing {
                continue; // then the file does not end there: `Zeroes` and `Torn` are that
            }
            for next in NEXT {
                let context = format!("{stands:?}, behind it {behind:?}, {next:?}");
                let row = row(stands, behind, next);
                let (mut writer, place, rest) = build(stands, behind, next);
                let first = super::layout::name(0);
                let in_file = writer.files[&first].len() as u64;
                if stands == Frame && next == Next::Follows && row == Row::Accept {
                    // the event of the next file has the offset behind that of the frame
                    assert_eq!(writer.files.len(), 2);
                }
                if stands == End && next == Next::Follows {
                    // without the frame the next event is the third, not the fourth
                    writer = build_followed_end();
                }
                // where a whole frame stands, what lies behind it is judged at its own place
                let judged = if stands == Frame && behind != Behind::Nothing { rest } else { place };
                match row {
                    Row::Accept | Row::Void => {
                        let disk = MemoryDisk::with_contents(writer.files);
                        let (log, replay) = open(&disk, options());
                        let mut events = vec!["in front", "in front"];
                        if stands == Frame {
                            events.push("the next");
                        }
                        if next == Next::Follows {
                            events.push("behind");
                        }
                        assert_eq!(stored(&log, P), events, "{context}");
                        assert!(row == Row::Void || replay.void_bytes == 0, "{context}");
                        append(&log, P, "after").await;
                        events.push("after");
                        drop(log);
                        assert_eq!(stored(&open(&disk, options()).0, P), events, "{context}");
                    }
                    Row::Damaged => match refused(&writer.files) {
                        Damage::Journal { file, byte, .. } => assert_eq!((file, byte), (first, judged), "{context}"),
                        other => panic!("{context}: {other:?}"),
                    },
                    Row::Newer => match refused(&writer.files) {
                        Damage::Version { file, byte, .. } => assert_eq!((file, byte), (first, judged), "{context}"),
                        other => panic!("{context}: {other:?}"),
                    },
                    Row::MissingFile => match refused(&writer.files) {
                        Damage::MissingFile { file } => {
                            let end = in_file - FILE_HEAD as u64;
                            assert_eq!(file, super::layout::name(end), "{context}");
                        }
                        other => panic!("{context}: {other:?}"),
                    },
                }
                if !met.contains(&row) {
                    met.push(row);
                }
            }
        }
    }
    assert_eq!(met.len(), 5, "every row was met: {met:?}");
}

/// As `build` with [`Stands::End`] and a file that follows, whose event has the next offset.
fn build_followed_end() -> Writer {
    let mut writer = Writer::new();
    writer.event(0, "in front");
    writer.next.epoch = 5;
    writer.event(1, "in front");
    writer.synced();
    writer.roll();
    writer.event(2, "behind");
    writer
}

/// Rows G and H: files without a whole head.
#[tokio::test]
async fn a_file_without_a_whole_head_is_removed_only_where_it_was_never_used() {
    for frames in [0, 1] {
        for is_last in [true, false] {
            for head in [None, Some(0), Some(10), Some(FILE_HEAD)] {
                let mut writer = Writer::new();
                writer.event(0, "in front");
                writer.synced();
                writer.roll();
                let name = writer.last_name().to_owned();
                for _ in 0..frames {
                    writer.event(1, "in it");
                    writer.synced();
                }
                match head {
                    // all of it there, with a wrong byte
                    None => writer.last()[3] ^= 1,
                    Some(length) if frames == 0 => {
                        writer.last().fill(0);
                        writer.last().truncate(length);
                    }
                    Some(length) => writer.last()[FILE_HEAD - length..FILE_HEAD].fill(7),
                }
                let context = format!("head {head:?}, {frames} frames, last: {is_last}");
                if head == Some(0) && frames == 1 {
                    continue; // nothing is wrong with it
                }
                if !is_last {
                    writer.next.position += u64::from(frames == 0);
                    writer.roll();
                }
                if is_last && frames == 0 {
                    let disk = MemoryDisk::with_contents(writer.files);
                    let (log, _) = open(&disk, options());
                    assert_eq!(stored(&log, P), ["in front"], "{context}");
                    assert!(!disk.contents().contains_key(&name), "{context}");
                } else {
                    match refused(&writer.files) {
                        Damage::Journal { file, byte: 0, .. } => assert_eq!(file, name, "{context}"),
                        other => panic!("{context}: {other:?}"),
                    }
                }
            }
        }
    }
}
