//! `wattle capsule`: looks at events that failed for the last time, and has the same failure again.

use std::io::Write;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use clap::Subcommand;
use serde_json::json;
use serde_json::value::RawValue;

use super::pretty::pretty;
use super::table::{Table, plain};
use super::tree::plural;
use super::{Exit, Failure, Outcome, Output, args, components, say};
use crate::app::capsules::{self, Ran};
use crate::dispatch::Capsule;
use crate::dispatch::capsule::{CapsuleFailure, KeptRead, KeptValue, Outcome as Played};
use crate::model::json::{Members, is_json, json_on_one_line, member, to_json};
use crate::model::{self, Event};
use crate::wasm::{Handled, Host, HostOptions};

/// Look at events that failed, and have the same failure again
///
/// When an event fails for the last time, a bus keeps a capsule in its data folder: a file with the event, what its plugin
/// has read of its state, its limits and configuration (without secrets), and how it failed. How many, a topology says:
/// `capsules`. Such a file can be taken to another machine, and be a case of `wattle test`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle capsule list --data /var/lib/wattle
  wattle capsule show failed.capsule
  wattle capsule run failed.capsule --data /var/lib/wattle
  wattle capsule run failed.capsule --plugin target/wasm32-wasip2/release/validate.wasm")]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// List the capsules of a data folder, or those in other folders
    List {
        /// Folders to look in instead
        #[arg(value_name = "FOLDER")]
        folders: Vec<PathBuf>,
        /// Folder in which the bus keeps everything
        #[arg(long, env = "WATTLE_DATA", default_value = args::DEFAULT_DATA, value_name = "FOLDER")]
        data: PathBuf,
        /// For whom the result is
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print all that is in a capsule
    Show {
        /// The capsule
        file: PathBuf,
        /// For whom the result is
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Give the event to its plugin again, as it was given when it failed
    ///
    /// With the plugin that failed, which is looked for beside the capsule, in the data folder and in the topology: exits with
    /// 0 when it fails in the same way, and with 1 otherwise. With another one (--plugin): exits with 0 when that handles the
    /// event, and with 1 otherwise.
    Run(RunArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct RunArgs {
    /// The capsule
    file: PathBuf,
    /// Run this component instead of the one that failed
    #[arg(long, value_name = "WASM")]
    plugin: Option<PathBuf>,
    /// Data folder that may have the component that failed
    #[arg(long, env = "WATTLE_DATA", default_value = args::DEFAULT_DATA, value_name = "FOLDER")]
    data: PathBuf,
    /// Topologies whose subscriber may still have the component that failed
    #[arg(long, value_name = "TOPOLOGY")]
    topology: Vec<PathBuf>,
    /// What the plugin is told by this name: for secrets, which no capsule has
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// For whom the result is
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(args: &Args) -> Outcome {
    match &args.action {
        Action::List { folders, data, output } if folders.is_empty() => list(&[capsules::folder(data)], *output),
        Action::List { folders, output, .. } => list(folders, *output),
        Action::Show { file, output } => show(&read(file)?, *output),
        Action::Run(args) => replay(args),
    }
}

fn read(file: &Path) -> Result<Capsule, Failure> {
    capsules::read(file).map_err(|error| match error {
        capsules::ReadError::Unreadable { .. } => Failure::new(Exit::Usage, error),
        capsules::ReadError::Capsule { .. } => Failure::new(Exit::BadConfiguration, error),
    })
}

/// A capsule for programs: as it is kept, with the event in the JSON format of CloudEvents.
fn as_json(path: Option<&Path>, capsule: &Capsule) -> Result<Box<RawValue>, Failure> {
    let mut fields = model::json::members(serde_json::to_value(capsule).map_err(Failure::failed)?);
    let event = Event::decode(&capsule.event).map(|event| to_json(&event)).unwrap_or_default();
    fields.insert("event".to_owned(), member(&event));
    if let Some(path) = path {
        fields.insert("file".to_owned(), member(&path.display().to_string()));
    }
    Ok(member(&fields))
}

fn time(ns: u64) -> String {
    jiff::Timestamp::from_nanosecond(i128::from(ns)).map(|time| format!("{time:.3}")).unwrap_or_default()
}

fn list(folders: &[PathBuf], output: Output) -> Outcome {
    let mut out = anstream::stdout().lock();
    let mut table = Table::new(&["TIME", "SUBSCRIBER", "EVENT", "KEY", "FAILURE", "REASON", "FILE"], &[]);
    let mut is_all = true;
    for folder in folders {
        if !folder.is_dir() {
            say(&format!("there is no folder {}: no capsule was saved there", folder.display()));
            continue;
        }
        let found = capsules::list(folder);
        let found = found.map_err(|error| Failure::failed(format!("cannot look in {}: {error}", folder.display())))?;
        for path in found {
            let capsule = match capsules::read(&path) {
                Ok(capsule) => capsule,
                Err(error) => {
                    is_all = false;
                    say(&error.to_string());
                    continue;
                }
            };
            if output == Output::Json {
                writeln!(std::io::stdout(), "{}", as_json(Some(&path), &capsule)?)?;
                continue;
            }
            let id = Event::decode(&capsule.event).map(|event| event.id).unwrap_or_default();
            let Capsule { failure, .. } = &capsule;
            let reason = failure.reason.lines().next().unwrap_or_default().to_owned();
            let (kind, file) = (failure.kind.clone(), path.display().to_string());
            table
                .row(&mut out, vec![time(capsule.saved_ns), capsule.subscriber, id, capsule.key, kind, reason, file])?;
        }
    }
    if output == Output::Text {
        table.end(&mut out)?;
    }
    if is_all { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

fn show(capsule: &Capsule, output: Output) -> Outcome {
    let mut out = anstream::stdout().lock();
    if output == Output::Json {
        writeln!(std::io::stdout(), "{}", as_json(None, capsule)?)?;
        return Ok(());
    }
    let bold = Style::new().bold();
    let Capsule { subscriber, topic, partition, offset, key, attempt, limits, .. } = capsule;
    writeln!(out, "{bold}subscriber{bold:#}  {subscriber}, version {}", capsule.digest)?;
    writeln!(out, "{bold}component{bold:#}   {}", capsule.wasm_digest)?;
    let key = plain(key);
    writeln!(
        out,
        "{bold}event{bold:#}       {topic}, partition {partition}, offset {offset}, key {key}, attempt {attempt}"
    )?;
    writeln!(out, "{bold}appended{bold:#}    {}", time(capsule.append_time_ns))?;
    writeln!(out, "{bold}failed{bold:#}      {}, release {}", time(capsule.saved_ns), capsule.release)?;
    let time_ms = limits.time_ns / 1_000_000;
    writeln!(
        out,
        "{bold}limits{bold:#}      memory {} bytes, time {time_ms} ms, output {} bytes",
        limits.memory_bytes, limits.output_bytes
    )?;
    writeln!(out, "{bold}ports{bold:#}       {}", capsule.ports.join(", "))?;
    for (name, value) in &capsule.config {
        writeln!(
            out,
            "{bold}config{bold:#}      {name} = {}",
            value.as_deref().unwrap_or("(a secret, which is not kept)")
        )?;
    }
    write_failure(&mut out, &capsule.failure)?;
    let event = Event::decode(&capsule.event).map(|event| to_json(&event)).unwrap_or_default();
    writeln!(out, "\n{}", pretty(&event))?;
    match &capsule.state {
        None => writeln!(out, "\nIt read more of its state than is remembered.")?,
        Some(reads) => {
            writeln!(
                out,
                "\nIt read {} its state{}",
                plural_reads(reads.len()),
                if reads.is_empty() { "." } else { ":" }
            )?;
            for read in reads {
                match read {
                    KeptRead::Value { bucket, key, value } => {
                        let value = value.as_ref().map_or("(nothing)".to_owned(), shown);
                        writeln!(out, "  {} {} = {}", plain(bucket), plain(key), plain(&value))?;
                    }
                    KeptRead::Keys { bucket, after, keys, .. } => {
                        let after = after.as_ref().map(|after| format!(" behind {after}")).unwrap_or_default();
                        writeln!(out, "  {}", plain(&format!("{bucket}, its keys{after}: {}", keys.join(", "))))?;
                    }
                }
            }
        }
    }
    Ok(())
}

fn plural_reads(count: usize) -> String {
    match count {
        0 => "nothing of".to_owned(),
        1 => "once from".to_owned(),
        count => format!("{count} times from"),
    }
}

fn shown(value: &KeptValue) -> String {
    match value {
        KeptValue::Text(text) => text.clone(),
        KeptValue::Base64(bytes) => plural(bytes.len() as u64, "byte"),
    }
}

fn write_failure(out: &mut impl Write, failure: &CapsuleFailure) -> std::io::Result<()> {
    let style = Style::new().fg_color(Some(AnsiColor::Red.into()));
    let mut lines = failure.reason.lines();
    writeln!(out, "\n{style}{}{style:#}: {}", failure.kind, plain(lines.next().unwrap_or_default()))?;
    for line in lines {
        writeln!(out, "  {}", plain(line))?;
    }
    for line in failure.backtrace.iter().flat_map(|backtrace| backtrace.lines()) {
        writeln!(out, "  {}", plain(line))?;
    }
    Ok(())
}

/// The component to run.
fn component(args: &RunArgs, capsule: &Capsule) -> Result<Vec<u8>, Failure> {
    if let Some(path) = &args.plugin {
        let unreadable =
            |error| Failure::new(Exit::Usage, format!("cannot read the plugin {}: {error}", path.display()));
        return std::fs::read(path).map_err(unreadable);
    }
    let mut files = Vec::new();
    if !args.topology.is_empty() {
        let plan = components::plan(&args.topology)?;
        let all = components::of(&plan, components::built)?;
        let is_it = |label: &str| label == capsule.subscriber;
        files.extend(plan.subscribers.iter().zip(all).filter(|(plan, _)| is_it(&plan.label())).map(|(_, file)| file));
    }
    capsules::component_of(capsule, &args.file, std::slice::from_ref(&args.data), &files).ok_or_else(|| {
        let (folder, hash) = (args.file.parent().unwrap_or(Path::new("")), &capsule.wasm_digest);
        Failure::failed(format!(
            "the component that failed, {hash}, is neither beside the capsule ({}) nor in the data folder ({}){}: name the \
             data folder of the bus with --data or a topology that still has it with --topology, put the file there as \
             {hash}.wasm, or run another one with --plugin",
            if folder.as_os_str().is_empty() { ".".into() } else { folder.display().to_string() },
            args.data.display(),
            if args.topology.is_empty() { "" } else { " nor in the topology" },
        ))
    })
}

fn replay(args: &RunArgs) -> Outcome {
    let capsule = read(&args.file)?;
    let wasm = component(args, &capsule)?;
    for (name, _) in capsule.config.iter().filter(|(_, value)| value.is_none()) {
        if !args.config.iter().any(|(given, _)| given == name) {
            say(&format!("config.{name} is a secret, which is not in the capsule: give it with --config {name}=VALUE"));
        }
    }
    if capsule.state.is_none() {
        say("the event read more of its state than is remembered: it runs as if there were nothing");
    }
    let host = HostOptions { cache_folder: args::code_cache(), ..HostOptions::default() };
    let host = Host::new(host).map_err(Failure::failed)?;
    let ran =
        super::block_on(async { capsules::run(&host, &capsule, wasm, &args.config).await.map_err(Failure::failed) })?;
    if ran.has_other_settings {
        say(&format!(
            "this is not version {}, which failed: its configuration or its limits are others; give what is not in the capsule \
             with --config NAME=VALUE",
            capsule.digest
        ));
    }
    let is_good = match &ran.replayed.outcome {
        Played::Reproduced => args.plugin.is_none(),
        Played::FailedOtherwise(_) => false,
        Played::Handled(_) => args.plugin.is_some(),
    };
    report(args, &capsule, &ran)?;
    if is_good { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

fn report(args: &RunArgs, capsule: &Capsule, ran: &Ran) -> Outcome {
    let replayed = &ran.replayed;
    let mut out = anstream::stdout().lock();
    if args.output == Output::Json {
        let (outcome, failure, handled) = match &replayed.outcome {
            Played::Reproduced => ("reproduced", Some(&capsule.failure), None),
            Played::FailedOtherwise(failure) => ("failed_otherwise", Some(failure), None),
            Played::Handled(handled) => ("handled", None, Some(handled)),
        };
        let unknown = replayed.unknown.iter().map(|(bucket, key)| json!({ "bucket": bucket, "key": key }));
        let report = Members::from([
            ("outcome".to_owned(), member(outcome)),
            ("version".to_owned(), member(&ran.version)),
            ("other_settings".to_owned(), member(&ran.has_other_settings)),
            ("failure".to_owned(), member(&failure)),
            ("outputs".to_owned(), member(&handled.map(|handled| outputs(capsule, handled)))),
            ("writes".to_owned(), member(&handled.map(writes))),
            ("unknown_reads".to_owned(), member(&unknown.collect::<Vec<_>>())),
        ]);
        writeln!(std::io::stdout(), "{}", member(&report))?;
        return Ok(());
    }
    match &replayed.outcome {
        Played::Reproduced => {
            writeln!(out, "reproduced: it fails in the same way")?;
            write_failure(&mut out, &capsule.failure)?;
        }
        Played::FailedOtherwise(failure) => {
            writeln!(out, "it fails in another way")?;
            write_failure(&mut out, failure)?;
            writeln!(out, "\nbefore it was:")?;
            write_failure(&mut out, &capsule.failure)?;
        }
        Played::Handled(handled) => {
            writeln!(out, "it handles the event")?;
            for output in outputs(capsule, handled) {
                writeln!(out, "{}", pretty(&output))?;
            }
            for write in writes(handled) {
                writeln!(out, "writes {}", member(&write))?;
            }
        }
    }
    for (bucket, key) in &replayed.unknown {
        let what = key.as_ref().map_or("its keys".to_owned(), |key| format!("key {key}"));
        writeln!(
            out,
            "\nit read {what} in bucket {bucket}, which it did not read before: it was as if nothing were there"
        )?;
    }
    Ok(())
}

fn outputs(capsule: &Capsule, handled: &Handled) -> Vec<Members> {
    let shown = |output: &crate::wasm::Output| {
        Members::from([
            ("port".to_owned(), member(&capsule.ports.get(output.port as usize))),
            ("type".to_owned(), member(&output.r#type)),
            ("key".to_owned(), member(output.key.as_ref().unwrap_or(&capsule.key))),
            ("attributes".to_owned(), member(&output.attributes)),
            ("data".to_owned(), value(&output.data, &output.content_type)),
        ])
    };
    handled.outputs.iter().map(shown).collect()
}

fn writes(handled: &Handled) -> Vec<Members> {
    let written = |write: &crate::wasm::StateWrite| {
        let value = write.value.as_ref().map(|bytes| value(bytes, ""));
        Members::from([
            ("bucket".to_owned(), member(&write.bucket)),
            ("key".to_owned(), member(&write.key)),
            ("value".to_owned(), member(&value)),
        ])
    };
    handled.writes.iter().map(written).collect()
}

/// Bytes as JSON where they are said to be, else as text where they are one.
fn value(bytes: &[u8], content_type: &str) -> Box<RawValue> {
    let json = json_on_one_line(bytes).filter(|_| is_json(content_type));
    let text = || std::str::from_utf8(bytes).ok().map(member);
    json.or_else(text).unwrap_or_else(|| member(&plural(bytes.len() as u64, "byte")))
}
