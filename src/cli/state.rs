//! `wattle state`: what the handler of a subscriber keeps.

use std::io::{BufRead, BufReader, BufWriter, IsTerminal, Read, Write};
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::failed::{exact_time, time};
use super::table::Table;
use super::tree::plural;
use super::words::{json_out, lines};
use super::{ClientArgs, Failure, Outcome, Output, ServerArg, SubscriberArg, block_on, say};
use crate::api::{SnapshotCause, SnapshotInfo, StateEntry, StateFilter, StateOfPartition};
use crate::client::Client;
use crate::limits;
use crate::model::Time;

/// Bytes and entries that are sent at once.
const IMPORT_BYTES: usize = limits::MESSAGE_BYTES_MAX / 4;
const IMPORT_ENTRIES: usize = 1_000;
/// Longest line: the longest value in base64, and room for all else.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// Characters of a value that a table shows.
const SHOWN_CHARACTERS: usize = 60;

/// Inspect, export, import and snapshot handler state
#[derive(Debug, Clone, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  wattle state list totals --prefix totals/
  wattle state get totals totals/order-17
  wattle state export totals > totals.ndjson
  wattle state import totals totals.ndjson
  wattle state snapshot totals"
)]
pub(super) struct StateArgs {
    #[command(subcommand)]
    command: StateCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum StateCommand {
    Get(Get),
    List(ListEntries),
    Export(Export),
    Import(Import),
    Snapshot(Snapshot),
    Snapshots(Snapshots),
    DropSnapshot(DropSnapshot),
}

/// Take a snapshot of a running subscriber, for `seek --state NUMBER`
///
/// It contains the handler state, the retry queue and the position of each partition, as of one moment between two
/// calls.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle state snapshot totals
  wattle state snapshot totals --note 'before the new tax rates' --keep 3")]
struct Snapshot {
    #[command(flatten)]
    subscriber: SubscriberArg,

    /// Retain N snapshots, including the new one; the oldest are removed. Snapshots of deploys are counted separately
    #[arg(long, value_name = "COUNT", default_value = "8", value_parser = clap::value_parser!(u32).range(1..))]
    keep: u32,

    /// Note to store with the snapshot
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    note: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// List snapshots
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle state snapshots totals
  wattle state snapshots totals -o json | jq .number")]
struct Snapshots {
    #[command(flatten)]
    subscriber: SubscriberArg,

    #[command(flatten)]
    client: ClientArgs,
}

/// Remove a snapshot
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle state drop-snapshot totals 3")]
struct DropSnapshot {
    #[command(flatten)]
    subscriber: SubscriberArg,

    /// Number of the snapshot
    number: u64,

    #[command(flatten)]
    server: ServerArg,
}

/// Print the value of a key
///
/// State is kept per partition: if several partitions have the key, each is printed on its own line after its
/// partition.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle state get totals totals/order-17
  wattle state get totals totals/order-17 -o json | jq .partition")]
struct Get {
    #[command(flatten)]
    subscriber: SubscriberArg,

    /// Key of the entry
    #[arg(allow_hyphen_values = true)]
    key: String,

    /// Bucket of the entry
    #[arg(long, default_value = "default", allow_hyphen_values = true)]
    bucket: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// List keys and their values
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle state list totals
  wattle state list totals --partition 3 --prefix totals/
  wattle state list totals -o json | jq -r .key")]
struct ListEntries {
    #[command(flatten)]
    subscriber: SubscriberArg,

    /// List only this bucket
    #[arg(long, allow_hyphen_values = true)]
    bucket: Option<String>,

    /// List only this partition
    #[arg(long, value_name = "NUMBER")]
    partition: Option<u32>,

    /// List only keys with this prefix
    #[arg(long, default_value = "", hide_default_value = true, allow_hyphen_values = true)]
    prefix: String,

    #[command(flatten)]
    client: ClientArgs,
}

/// Print all state as JSON lines, for `import`
///
/// Pause the subscriber first if the export must be of one moment.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle state export totals > totals.ndjson
  wattle pause totals && wattle state export totals > totals.ndjson && wattle resume totals")]
struct Export {
    #[command(flatten)]
    subscriber: SubscriberArg,

    #[command(flatten)]
    server: ServerArg,
}

/// Import entries, replacing those of the same key
///
/// Entries that are not in the file stay. An interrupted import can be repeated as a whole.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle state import totals totals.ndjson
  wattle state export totals | jq -c 'select(.key | startswith(\"totals/\"))' | wattle state import totals -")]
struct Import {
    #[command(flatten)]
    subscriber: SubscriberArg,

    /// File, as printed by `export`; `-` reads standard input
    file: PathBuf,

    #[command(flatten)]
    server: ServerArg,
}

/// An entry as a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine {
    #[serde(default)]
    partition: u32,
    #[serde(default = "default_bucket")]
    bucket: String,
    key: String,
    /// Absent: now.
    #[serde(skip_serializing_if = "Option::is_none")]
    written: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

fn default_bucket() -> String {
    "default".to_owned()
}

impl From<StateOfPartition> for EntryLine {
    fn from(StateOfPartition { partition, entry }: StateOfPartition) -> Self {
        let StateEntry { bucket, key, written_ns, value } = entry;
        // Text as long as it stays about as long as it is: of a control character JSON makes six.
        let is_plain = |text: &&str| !text.chars().any(|one| one.is_control() && !matches!(one, '\n' | '\r' | '\t'));
        let (value, value_base64) = match std::str::from_utf8(&value).ok().filter(is_plain) {
            Some(text) => (Some(text.to_owned()), None),
            None => (None, Some(STANDARD.encode(&value))),
        };
        Self { partition, bucket, key, written: exact_time(written_ns), value, value_base64 }
    }
}

impl TryFrom<EntryLine> for StateOfPartition {
    type Error = String;

    fn try_from(line: EntryLine) -> Result<Self, String> {
        let EntryLine { partition, bucket, key, written, value, value_base64 } = line;
        let value = match (value, value_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(text)) => STANDARD.decode(text).map_err(|error| format!("`value_base64`: {error}"))?,
            _ => return Err("it has to have one of `value` and `value_base64`".to_owned()),
        };
        let now = || u64::try_from(jiff::Timestamp::now().as_nanosecond()).ok();
        let written_ns = match &written {
            None => now(),
            Some(text) => Time::parse(text).and_then(Time::unix_ns),
        };
        let written_ns =
            written_ns.ok_or("`written` is not an RFC 3339 time after 1970, such as 2026-01-31T08:00:00Z")?;
        Ok(Self { partition, entry: StateEntry { bucket, key, written_ns, value: value.into() } })
    }
}

pub(super) fn run(args: &StateArgs) -> Outcome {
    match &args.command {
        StateCommand::Get(get) => block_on(self::get(get)),
        StateCommand::List(list) => block_on(self::list(list)),
        StateCommand::Snapshot(args) => snapshot(args),
        StateCommand::Snapshots(args) => snapshots(args),
        StateCommand::DropSnapshot(args) => drop_snapshot(args),
        StateCommand::Export(Export { subscriber, server }) => block_on(async {
            let mut entries = server.connect().await?.states(subscriber, StateFilter::default());
            let mut out = BufWriter::new(json_out());
            while let Some(entry) = entries.next().await? {
                print(&mut out, entry)?;
            }
            Ok(out.flush()?)
        }),
        StateCommand::Import(import) => {
            let read = |path: &PathBuf| match path.to_str() {
                Some("-") => Ok(Box::new(std::io::stdin()) as Box<dyn Read>),
                _ => std::fs::File::open(path).map(|file| Box::new(file) as Box<dyn Read>),
            };
            let file = &import.file;
            let input = read(file).map_err(|error| Failure::unreadable(file, &error))?;
            let imported = block_on(self::import(import, BufReader::new(input)))?;
            say(&format!("imported {}", entries(imported)));
            Ok(())
        }
    }
}

fn entries(count: u64) -> String {
    format!("{count} {}", if count == 1 { "entry" } else { "entries" })
}

fn print(out: &mut impl Write, entry: StateOfPartition) -> Outcome {
    serde_json::to_writer(&mut *out, &EntryLine::from(entry)).map_err(std::io::Error::from)?;
    Ok(writeln!(out)?)
}

fn by_word(by: SnapshotCause) -> &'static str {
    match by {
        SnapshotCause::Hand => "hand",
        SnapshotCause::Deploy => "deploy",
    }
}

fn snapshot_json(snapshot: &SnapshotInfo) -> serde_json::Value {
    let SnapshotInfo { number, taken_ns, digest, note, by, positions, entries, bytes } = snapshot;
    serde_json::json!({
        "number": number, "taken": exact_time(*taken_ns), "by": by_word(*by), "digest": digest, "note": note,
        "positions": positions,
        "records": entries, "bytes": bytes,
    })
}

fn snapshot(args: &Snapshot) -> Outcome {
    let Snapshot { subscriber, keep, note, client: ClientArgs { server, output } } = args;
    let taken = block_on(async { Ok(server.connect().await?.take_snapshot(subscriber, *keep, note).await?) })?;
    let mut out = std::io::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", snapshot_json(&taken))?,
        Output::Text => {
            let SnapshotInfo { number, entries, .. } = taken;
            let records = plural(entries, "record");
            writeln!(
                out,
                "took snapshot {number} with {records}: `wattle seek {subscriber} --state {number}` goes back to it"
            )?;
        }
    }
    Ok(())
}

fn snapshots(args: &Snapshots) -> Outcome {
    let Snapshots { subscriber, client: ClientArgs { server, output } } = args;
    let snapshots = block_on(async { Ok(server.connect().await?.snapshots(subscriber).await?) })?;
    let mut out = BufWriter::new(anstream::stdout());
    let mut table = Table::new(&["NUMBER", "TAKEN", "BY", "RECORDS", "BYTES", "PLUGIN", "NOTE"], &[0, 3, 4]);
    for snapshot in &snapshots {
        let SnapshotInfo { number, taken_ns, digest, note, by, entries, bytes, .. } = snapshot;
        match output {
            Output::Json => writeln!(out, "{}", snapshot_json(snapshot))?,
            Output::Text => {
                let digest = digest.get(..12).unwrap_or(digest).to_owned();
                let counts = [number, entries, bytes].map(u64::to_string);
                let [number, entries, bytes] = counts;
                table.row(
                    &mut out,
                    vec![number, time(*taken_ns), by_word(*by).to_owned(), entries, bytes, digest, note.clone()],
                )?;
            }
        }
    }
    if *output == Output::Text {
        table.end(&mut out)?;
        writeln!(out, "{}", plural(snapshots.len() as u64, "snapshot"))?;
    }
    Ok(out.flush()?)
}

fn drop_snapshot(args: &DropSnapshot) -> Outcome {
    let DropSnapshot { subscriber, number, server } = args;
    block_on(async { Ok(server.connect().await?.drop_snapshot(subscriber, *number).await?) })?;
    say(&format!("removed snapshot {number} of {subscriber}"));
    Ok(())
}

async fn get(args: &Get) -> Outcome {
    let Get { subscriber, key, bucket, client: ClientArgs { server, output } } = args;
    let mut found = server.connect().await?.state(subscriber, bucket, key);
    let Some(first) = found.next().await? else {
        return Err(Failure::failed(format!(
            "there is nothing under `{key}` in the bucket `{bucket}` of {subscriber}; `wattle state list {subscriber}` \
             lists \
             what there is"
        )));
    };
    let mut entries = (Some(first), found.next().await?);
    let is_alone = entries.1.is_none();
    let mut out = std::io::stdout().lock();
    while let (Some(entry), next) = entries {
        match output {
            Output::Json => print(&mut json_out(), entry)?,
            Output::Text => {
                if !is_alone {
                    write!(out, "partition {}: ", entry.partition)?;
                }
                match std::io::stdout().is_terminal() {
                    true => write!(out, "{}", lines(&String::from_utf8_lossy(&entry.entry.value)))?,
                    false => out.write_all(&entry.entry.value)?,
                }
                writeln!(out)?;
            }
        }
        entries = (next, found.next().await?);
    }
    Ok(())
}

async fn list(args: &ListEntries) -> Outcome {
    let ListEntries { subscriber, bucket, partition, prefix, client: ClientArgs { server, output } } = args;
    let filter = StateFilter { partition: *partition, bucket: bucket.clone(), prefix: prefix.clone() };
    let mut found = server.connect().await?.states(subscriber, filter);
    let mut out = BufWriter::new(anstream::stdout());
    let mut table = Table::new(&["PARTITION", "BUCKET", "KEY", "WRITTEN", "BYTES", "VALUE"], &[0, 4]);
    let mut count = 0;
    while let Some(entry) = found.next().await? {
        count += 1;
        if *output == Output::Json {
            print(&mut out, entry)?;
            continue;
        }
        let StateOfPartition { partition, entry: StateEntry { bucket, key, written_ns, value } } = entry;
        let bytes = value.len();
        let value = match std::str::from_utf8(&value) {
            Ok(text) if text.chars().count() > SHOWN_CHARACTERS => {
                text.chars().take(SHOWN_CHARACTERS).chain(['…']).collect()
            }
            Ok(text) => text.to_owned(),
            Err(_) => "(no text)".to_owned(),
        };
        table.row(&mut out, vec![partition.to_string(), bucket, key, time(written_ns), bytes.to_string(), value])?;
    }
    if *output == Output::Text {
        table.end(&mut out)?;
        writeln!(out, "{}", plural(count, "key"))?;
    }
    Ok(out.flush()?)
}

/// Entries of one partition on their way in.
struct PartitionImport<'a> {
    client: Client,
    subscriber: &'a str,
    partition: u32,
    entries: Vec<StateEntry>,
    bytes: usize,
    imported: u64,
}

impl PartitionImport<'_> {
    async fn send(&mut self) -> Outcome {
        let entries = std::mem::take(&mut self.entries);
        self.bytes = 0;
        if !entries.is_empty() {
            self.imported += self.client.import_state(self.subscriber, self.partition, entries).await?;
        }
        Ok(())
    }

    async fn add(&mut self, StateOfPartition { partition, entry }: StateOfPartition) -> Outcome {
        let bytes = entry.bucket.len() + entry.key.len() + entry.value.len();
        let is_full = self.entries.len() >= IMPORT_ENTRIES || self.bytes + bytes > IMPORT_BYTES;
        if partition != self.partition || is_full {
            self.send().await?;
        }
        self.partition = partition;
        self.bytes += bytes;
        self.entries.push(entry);
        Ok(())
    }
}

async fn import(args: &Import, mut input: impl BufRead) -> Result<u64, Failure> {
    let client = args.server.connect().await?;
    let (subscriber, entries) = (&*args.subscriber, Vec::new());
    let mut importing = PartitionImport { client, subscriber, partition: 0, entries, bytes: 0, imported: 0 };
    let mut number = 0;
    let outcome = loop {
        number += 1;
        match next(&mut input) {
            Ok(None) => break importing.send().await,
            Ok(Some(line)) if line.trim_ascii().is_empty() => {}
            Ok(Some(line)) => match entry(&line, number) {
                Ok(entry) => {
                    if let Err(failure) = importing.add(entry).await {
                        break Err(failure);
                    }
                }
                Err(why) => break Err(Failure::failed(format!("line {number} is no entry: {why}"))),
            },
            Err(error) => break Err(Failure::failed(format!("cannot read line {number}: {error}"))),
        }
    };
    match outcome {
        Ok(()) => Ok(importing.imported),
        Err(Failure { exit, message, .. }) => {
            let imported = self::entries(importing.imported);
            Err(Failure::new(exit, format!("{message} ({imported} in front of it had been imported)")))
        }
    }
}

/// The entries that `export` has written, of all partitions.
pub(super) fn read(mut input: impl BufRead) -> Result<Vec<StateOfPartition>, String> {
    let (mut entries, mut number) = (Vec::new(), 0);
    loop {
        number += 1;
        match next(&mut input) {
            Ok(None) => return Ok(entries),
            Ok(Some(line)) if line.trim_ascii().is_empty() => {}
            Ok(Some(line)) => {
                entries.push(entry(&line, number).map_err(|why| format!("line {number} is no entry: {why}"))?);
            }
            Err(error) => return Err(format!("cannot read line {number}: {error}")),
        }
    }
}

/// The entry of a line; the first one may have a byte order mark.
fn entry(line: &[u8], number: u64) -> Result<StateOfPartition, String> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| number == 1).unwrap_or(line);
    serde_json::from_slice::<EntryLine>(line).map_err(|error| error.to_string())?.try_into()
}

/// The next line; `None` at the end.
fn next(input: &mut impl BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let read = input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    if read as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") {
        return Err(std::io::Error::other(format!("it has more than {LINE_BYTES_MAX} bytes")));
    }
    Ok((read > 0).then_some(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::STATE_VALUE_BYTES_MAX;

    fn parsed(line: &str) -> Result<StateOfPartition, String> {
        serde_json::from_str::<EntryLine>(line).map_err(|error| error.to_string())?.try_into()
    }

    #[test]
    fn what_is_exported_is_what_is_imported() {
        let largest = vec![0; STATE_VALUE_BYTES_MAX];
        let quotes = vec![b'"'; STATE_VALUE_BYTES_MAX];
        for value in [&b"text"[..], b"", b"\xff\x00", "ü\n".as_bytes(), &largest, &quotes, b"\x7f\x1b[31m"] {
            let entry = StateEntry {
                bucket: "b".into(),
                key: "a \"key\"\n".into(),
                written_ns: 1_700_000_000_123_456_789,
                value: value.to_vec().into(),
            };
            let entry = StateOfPartition { partition: 3, entry };
            let mut written = Vec::new();
            print(&mut written, entry.clone()).unwrap();
            let line = next(&mut &*written).unwrap().expect("it is not too long");
            assert_eq!(parsed(std::str::from_utf8(&line).unwrap()), Ok(entry));
            assert_eq!(read(&*written).unwrap().len(), 1);
        }
    }

    #[test]
    fn a_line_by_hand_needs_a_key_and_a_value() {
        let entry = parsed(r#"{"key":"k","value":"v"}"#).unwrap();
        assert_eq!((entry.partition, entry.entry.bucket.as_str()), (0, "default"));
        assert!(entry.entry.written_ns > 1_700_000_000_000_000_000, "now");
        for wrong in [
            "{}",
            r#"{"key":"k"}"#,
            r#"{"key":"k","value":"v","value_base64":"dg=="}"#,
            r#"{"key":"k","value_base64":"!"}"#,
            r#"{"key":"k","value":"v","written":"yesterday"}"#,
            r#"{"key":"k","value":"v","written":"1969-01-01T00:00:00Z"}"#,
            r#"{"key":"k","value":"v","colour":"red"}"#,
        ] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
