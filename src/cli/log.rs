//! `wattle log`: inspects an offline data directory, and repairs it on request.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::words::plain;
use super::{Exit, Failure, Outcome, Output, args, say};
use crate::engine::embedded::offline::{FrameInfo, Inspection, OfflineError, OfflineFolder};

/// Inspect or repair an offline data directory
///
/// A bus that finds damage refuses to start and names the position. Restore the file from a backup if there is one.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle log verify --data /var/lib/wattle
  wattle log dump --data /var/lib/wattle -o json | jq .position
  wattle log repair --data /var/lib/wattle --truncate-at 88120")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Verify all data and report damage; exit with 1 if there is any
    ///
    /// Read-only: the directory may be a snapshot or a read-only mount.
    Verify {
        #[command(flatten)]
        folder: FolderArg,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print the frames that are only in the journal, one per line
    Dump {
        #[command(flatten)]
        folder: FolderArg,
        /// Start at this position
        #[arg(long, value_name = "POSITION", default_value_t = 0)]
        from: u64,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Truncate the journal at a position, as a last resort
    ///
    /// Acknowledged events after the position are lost. Copy the data directory first.
    Repair {
        #[command(flatten)]
        folder: FolderArg,
        /// Position, as reported by `wattle log verify` or by the failed start
        #[arg(long, value_name = "POSITION")]
        truncate_at: u64,
    },
}

#[derive(Debug, Clone, clap::Args)]
struct FolderArg {
    /// Data directory
    #[arg(long, env = "WATTLE_DATA", default_value = args::DEFAULT_DATA, value_name = "FOLDER")]
    data: PathBuf,
}

impl From<OfflineError> for Failure {
    fn from(error: OfflineError) -> Self {
        match error {
            OfflineError::NoLog(_) => Self::new(Exit::Usage, error),
            error => Self::failed(error),
        }
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.action {
        Action::Verify { folder, output } => verify(&OfflineFolder::look(&folder.data)?.verify()?, *output),
        Action::Dump { folder, from, output } => dump(&OfflineFolder::look(&folder.data)?, *from, *output),
        Action::Repair { folder, truncate_at } => {
            let gone = OfflineFolder::open(&folder.data)?.repair(*truncate_at)?;
            let (frames, events) = (gone.frames, gone.events);
            say(&format!(
                "gave up {frames} frames with {events} events after position {truncate_at}, and what was broken there"
            ));
            Ok(())
        }
    }
}

fn verify(found: &Inspection, output: Output) -> Outcome {
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => {
            let behind = found.behind.map(|(frames, events)| json!({ "frames": frames, "events": events }));
            let value = json!({
                "checkpoint_position": found.checkpoint_position,
                "end_position": found.end_position,
                "frames": found.frames,
                "segments": found.segments,
                "events": found.events,
                "damage": found.damage,
                "damaged_position": found.damaged_position,
                "after_damage": behind,
            });
            writeln!(out, "{value}")?;
        }
        Output::Text => {
            let Inspection { segments, events, frames, checkpoint_position, end_position, .. } = found;
            writeln!(out, "{events} events in {segments} segments, and in {frames} frames of the journal")?;
            writeln!(out, "journal: checkpoint at {checkpoint_position}, readable up to {end_position}")?;
            for damage in &found.damage {
                writeln!(out, "damage: {}", plain(damage))?;
            }
            if let (Some(position), Some((frames, events))) = (found.damaged_position, found.behind) {
                writeln!(out, "after it are {frames} whole frames with {events} events")?;
                writeln!(
                    out,
                    "restore the file from a copy, or give them up: wattle log repair --truncate-at {position}"
                )?;
            }
            if found.damage.is_empty() {
                writeln!(out, "no damage found")?;
            }
        }
    }
    if found.damage.is_empty() { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

fn dump(folder: &OfflineFolder, from: u64, output: Output) -> Outcome {
    let mut out = anstream::stdout().lock();
    let mut written = Ok(());
    let (end, why) = folder.dump(&mut |frame| {
        if frame.position >= from {
            written = match output {
                Output::Json => writeln!(out, "{}", json(frame)),
                Output::Text => writeln!(out, "{}", text(frame)),
            };
        }
        written.is_ok()
    })?;
    written?;
    match why {
        Some(why) => say(&format!("the journal ends at position {end}: {why}")),
        None => say(&format!("the journal ends at position {end}")),
    }
    Ok(())
}

fn json(frame: &FrameInfo) -> serde_json::Value {
    let appended = frame.appended.iter().map(|(partition, offset, count, bytes)| {
        json!({
            "topic": partition.topic.0, "partition": partition.partition,
            "offset": offset, "events": count, "bytes": bytes,
        })
    });
    let consumed = frame
        .consumed
        .map(|(lane, offset)| json!({ "subscriber": lane.subscriber.0, "partition": lane.partition, "to": offset }));
    json!({
        "position": frame.position,
        "bytes": frame.bytes,
        "kind": frame.kind,
        "epoch": frame.epoch,
        "sequence": frame.sequence,
        "time_ns": frame.append_time_ns,
        "durable_position": frame.durable_position,
        "consumed": consumed,
        "appended": appended.collect::<Vec<_>>(),
    })
}

fn text(frame: &FrameInfo) -> String {
    let FrameInfo { position, bytes, kind, epoch, .. } = frame;
    let mut line = format!("{position:>12}  {bytes:>8} B  epoch {epoch}  {kind}");
    if let Some((lane, to)) = frame.consumed {
        line += &format!("  subscriber {} has consumed partition {} to {to}", lane.subscriber, lane.partition);
    }
    for (partition, offset, count, _) in &frame.appended {
        let (topic, partition, end) = (partition.topic, partition.partition, offset + u64::from(*count));
        line += &format!("  topic {topic}/{partition} {offset}..{end}");
    }
    line
}
