//! `wattle log`: inspects an offline data directory, and repairs it on request.

use std::io::Write;
use std::path::PathBuf;

use clap::Subcommand;
use serde_json::json;

use super::tree::plural;
use super::words::plain;
use super::{Exit, Failure, Outcome, Output, args, say};
use crate::app;
use crate::deploy::StoreInspection;
use crate::engine::embedded::offline::{FrameInfo, Inspection, OfflineError, OfflineFolder};

/// Inspect or repair an offline data directory
///
/// A bus that finds damage refuses to start and names the position. Restore the file from a backup if there is one.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle log verify --data /var/lib/wattle
  wattle log dump --data /var/lib/wattle -o json | jq .position
  wattle log repair --data /var/lib/wattle --truncate-at 88120")]
pub(super) struct LogArgs {
    #[command(subcommand)]
    action: LogCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum LogCommand {
    /// Verify all data and report damage; exit with 1 if there is any
    ///
    /// Checks the journal, the segments, the state store, the applied topology and the stored plugins, and reports
    /// what of these is missing. Read-only: the directory may be a snapshot or a read-only mount.
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

pub(super) fn run(args: &LogArgs) -> Outcome {
    match &args.action {
        LogCommand::Verify { folder, output } => {
            let found = OfflineFolder::look(&folder.data)?.verify()?;
            let plugins = app::verify_versions(&folder.data).map_err(Failure::failed)?;
            verify(&found, plugins.as_ref(), *output)
        }
        LogCommand::Dump { folder, from, output } => dump(&OfflineFolder::look(&folder.data)?, *from, *output),
        LogCommand::Repair { folder, truncate_at } => {
            let gone = OfflineFolder::open(&folder.data)?.repair(*truncate_at)?;
            let (frames, events) = (gone.frames, gone.events);
            say(&format!(
                "gave up {frames} frames with {events} events after position {truncate_at}, and what was broken there"
            ));
            Ok(())
        }
    }
}

fn verify(found: &Inspection, plugins: Option<&StoreInspection>, output: Output) -> Outcome {
    let of_plugins = plugins.map_or(&[] as &[String], |plugins| &plugins.damage);
    let damage: Vec<&String> = found.damage.iter().chain(of_plugins).collect();
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
                "plugins": plugins.map(|plugins| json!({
                    "topology": plugins.has_topology,
                    "subscribers": plugins.subscribers,
                    "components": plugins.components,
                })),
                "damage": damage,
                "damaged_position": found.damaged_position,
                "after_damage": behind,
            });
            writeln!(out, "{value}")?;
        }
        Output::Text => {
            let Inspection { segments, events, frames, checkpoint_position, end_position, .. } = found;
            writeln!(out, "{events} events in {segments} segments, and in {frames} frames of the journal")?;
            writeln!(out, "journal: checkpoint at {checkpoint_position}, readable up to {end_position}")?;
            writeln!(out, "{}", of_versions(plugins))?;
            for damage in &damage {
                writeln!(out, "damage: {}", plain(damage))?;
            }
            if let (Some(position), Some((frames, events))) = (found.damaged_position, found.behind) {
                writeln!(out, "after it are {frames} whole frames with {events} events")?;
                writeln!(
                    out,
                    "restore the file from a copy, or give them up: wattle log repair --truncate-at {position}"
                )?;
            }
            if damage.is_empty() {
                writeln!(out, "no damage found")?;
            }
        }
    }
    if damage.is_empty() { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

/// What the folder has of plugins and topology, in words.
fn of_versions(plugins: Option<&StoreInspection>) -> String {
    match plugins {
        None => "not found: `plugins`, the versions of plugins and the applied topology; a bus starts on this folder \
                 with topology files only"
            .to_owned(),
        Some(StoreInspection { has_topology, subscribers, components, .. }) => {
            let versions =
                format!("plugins: {} of {}", plural(*components, "component"), plural(*subscribers, "subscriber"));
            match has_topology {
                true => format!("{versions}, and the applied topology"),
                false => format!("{versions}; not found: `plugins/topology`, since none was applied to this folder"),
            }
        }
    }
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
