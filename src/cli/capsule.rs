//! `wattle capsule`: looks at events that failed for the last time, and has the same failure again.

use std::io::Write;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use clap::Subcommand;
use serde_json::json;
use serde_json::value::RawValue;

use super::pretty::pretty;
use super::table::Table;
use super::tree::plural;
use super::words::{json_out, plain};
use super::{ClientArgs, Exit, Failure, Outcome, Output, ServerArg, args, block_on, components, load, say};
use crate::api::reason::UNKNOWN_VERSION;
use crate::api::times::nanoseconds;
use crate::app::capsules::{self, CapsuleRun};
use crate::client::{CapsuleInfo, ClientError};
use crate::dispatch::Capsule;
use crate::dispatch::capsule::{CapsuleFailure, RecordedRead, RecordedValue, ReplayOutcome};
use crate::effects::write_private;
use crate::model::call::Handled;
use crate::model::json::{Members, is_json, json_on_one_line, member, to_json};
use crate::model::{self, Event};
use crate::wasm::{Host, HostOptions};

/// List and reproduce recorded failures
///
/// When an event fails for the last time, the bus records a capsule: the event, the state that the plugin read, its
/// limits and configuration (without secrets), and the failure. `capsules` in the topology sets how many are kept.
/// Capsules are read from the bus at --server, or from a data directory with --data. A capsule file can be reproduced
/// on another machine, and can be a case of `wattle test`.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle capsule list
  wattle capsule show shop/validate/01769860800000000000-3-17
  wattle capsule run shop/validate/01769860800000000000-3-17 --plugin target/wasm32-wasip2/release/validate.wasm
  wattle capsule fetch shop/validate/01769860800000000000-3-17 --to failed
  wattle capsule run failed/01769860800000000000-3-17.capsule
  wattle capsule list --data /var/lib/wattle")]
pub(super) struct CapsuleArgs {
    #[command(subcommand)]
    action: CapsuleCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum CapsuleCommand {
    /// List the capsules of a bus, of a data directory (--data) or of other directories
    List {
        /// Directories of capsule files
        #[arg(value_name = "FOLDER")]
        folders: Vec<PathBuf>,
        #[command(flatten)]
        from: CapsuleSourceArgs,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print a capsule
    Show {
        /// Capsule file, or SUBSCRIBER/ID as shown by `list`
        #[arg(value_name = "FILE|SUBSCRIBER/ID")]
        capsule: PathBuf,
        #[command(flatten)]
        from: CapsuleSourceArgs,
        /// Output format
        #[arg(short, long, value_enum, default_value_t)]
        output: Output,
    },
    /// Save a capsule of a bus and the component that failed as files
    ///
    /// The two files suffice to reproduce the failure without the bus, except for secrets.
    Fetch {
        /// Capsule, as shown by `list`
        #[arg(value_name = "SUBSCRIBER/ID")]
        capsule: PathBuf,
        /// Target directory
        #[arg(long, default_value = ".", value_name = "FOLDER")]
        to: PathBuf,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Reproduce a failure: call the plugin with the recorded event and state
    ///
    /// With the component that failed (the default), the exit code is 0 if the failure is reproduced and 1 if not.
    /// For a capsule file, that component is searched next to the file, in the data directory and in the topology.
    /// With another component (--plugin), the exit code is 0 if it handles the event and 1 if not.
    Run(CapsuleRunArgs),
}

/// The place of capsules that are not named as files.
#[derive(Debug, Clone, clap::Args)]
struct CapsuleSourceArgs {
    #[command(flatten)]
    server: ServerArg,
    /// Read this data directory instead of asking a bus
    #[arg(long, env = "WATTLE_DATA", value_name = "FOLDER")]
    data: Option<PathBuf>,
}

#[derive(Debug, Clone, clap::Args)]
struct CapsuleRunArgs {
    /// Capsule file, or SUBSCRIBER/ID as shown by `list`
    #[arg(value_name = "FILE|SUBSCRIBER/ID")]
    capsule: PathBuf,
    /// Run this component instead of the recorded one
    #[arg(long, value_name = "WASM")]
    plugin: Option<PathBuf>,
    #[command(flatten)]
    from: CapsuleSourceArgs,
    /// Topologies in which to search the component that failed
    #[arg(long, value_name = "TOPOLOGY")]
    topology: Vec<PathBuf>,
    /// Set a configuration value of the plugin, for secrets, which capsules do not contain
    #[arg(long, value_name = "NAME=VALUE", value_parser = setting)]
    config: Vec<(String, String)>,
    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(super) fn run(args: &CapsuleArgs) -> Outcome {
    match &args.action {
        CapsuleCommand::List { folders, from, output } => match &from.data {
            _ if !folders.is_empty() => list(folders, *output),
            Some(data) => list(&[capsules::folder(data)], *output),
            None => block_on(list_kept(&from.server, *output)),
        },
        CapsuleCommand::Show { capsule, from, output } => show(&found(capsule, from)?.capsule, *output),
        CapsuleCommand::Fetch { capsule, to, client: ClientArgs { server, output } } => {
            block_on(fetch(capsule, to, server, *output))
        }
        CapsuleCommand::Run(args) => replay(args),
    }
}

fn unusable(error: capsules::ReadError) -> Failure {
    match error {
        capsules::ReadError::Unreadable { .. } => Failure::new(Exit::Usage, error),
        capsules::ReadError::Capsule { .. } => Failure::new(Exit::BadConfiguration, error),
    }
}

/// A capsule, and where it is from.
struct LoadedCapsule {
    capsule: Capsule,
    source: CapsuleSource,
}

enum CapsuleSource {
    /// This file.
    File(PathBuf),
    Bus,
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("cannot look into {}: {error}", path.display()))
}

/// Finds a capsule: a file where there is one, else one of the data folder or of the bus.
fn found(named: &Path, from: &CapsuleSourceArgs) -> Result<LoadedCapsule, Failure> {
    let mut file = load::is_file(named).map_err(|error| unreadable(named, &error))?.then(|| named.to_owned());
    if let (None, Some(data)) = (&file, &from.data) {
        let folder = capsules::folder(data);
        let kept = capsules::list(&folder).map_err(|error| unreadable(&folder, &error))?;
        file = kept.into_iter().find(|path| path.with_extension("").ends_with(named));
    }
    if let Some(path) = file {
        return Ok(LoadedCapsule {
            capsule: capsules::read(&path).map_err(unusable)?,
            source: CapsuleSource::File(path),
        });
    }
    let Some((subscriber, id)) = subscriber_and_id(named).filter(|_| from.data.is_none()) else {
        let where_else = match &from.data {
            Some(data) => format!(", nor such a capsule in the data folder {}", data.display()),
            None => "; of a bus, a capsule is named SUBSCRIBER/ID, as `wattle capsule list` shows it".to_owned(),
        };
        return Err(Failure::new(Exit::Usage, format!("there is no file {}{where_else}", named.display())));
    };
    let bytes = block_on(async { Ok(from.server.connect().await?.fetch_capsule(&subscriber, &id).await?) })?;
    let capsule = capsules::decode(&named.display().to_string(), &bytes).map_err(unusable)?;
    Ok(LoadedCapsule { capsule, source: CapsuleSource::Bus })
}

/// `namespace/name/ID`, or `name/ID`. Not the path of a file that is missing.
fn subscriber_and_id(named: &Path) -> Option<(String, String)> {
    let (subscriber, id) = named.to_str()?.rsplit_once('/')?;
    let is_id = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    (is_id && !subscriber.is_empty()).then(|| (subscriber.to_owned(), id.to_owned()))
}

/// Lists the capsules of a bus.
async fn list_kept(server: &ServerArg, output: Output) -> Outcome {
    let mut kept = server.connect().await?.capsules(None);
    let mut out = std::io::BufWriter::new(anstream::stdout());
    let mut table = Table::new(&["TIME", "SUBSCRIBER", "EVENT", "KEY", "FAILURE", "REASON", "CAPSULE"], &[]);
    let mut is_all = true;
    while let Some(capsule) = kept.next().await? {
        let CapsuleInfo { subscriber, id, event_id, key, failure, reason, .. } = capsule.clone();
        let (saved_ns, place) = (saved_ns(&capsule), format!("{subscriber}/{id}"));
        if let Some(why) = capsule.unreadable {
            is_all = false;
            say(&format!("{place} cannot be read: {why}"));
            continue;
        }
        match output {
            Output::Text => {
                table.row(&mut out, vec![time(saved_ns), subscriber, event_id, key, failure, reason, place])?;
            }
            Output::Json => {
                let line = json!({
                    "capsule": place,
                    "saved_ns": saved_ns,
                    "subscriber": subscriber,
                    "partition": capsule.partition,
                    "offset": capsule.offset,
                    "key": key,
                    "event": { "id": event_id },
                    "failure": { "kind": failure, "reason": reason },
                    "digest": capsule.digest,
                    "wasm_digest": capsule.wasm_digest,
                    "size_bytes": capsule.size_bytes,
                });
                writeln!(out, "{line}")?;
            }
        }
    }
    if output == Output::Text {
        table.end(&mut out)?;
    }
    out.flush()?;
    if is_all { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

fn saved_ns(capsule: &CapsuleInfo) -> u64 {
    capsule.save_time.as_ref().and_then(nanoseconds).unwrap_or(0)
}

/// Saves a capsule of a bus, and its component where the bus still has it.
async fn fetch(named: &Path, to: &Path, server: &ServerArg, output: Output) -> Outcome {
    let (subscriber, id) = subscriber_and_id(named).ok_or_else(|| {
        let words = "is not the name of a capsule: write SUBSCRIBER/ID, as `wattle capsule list` shows it";
        Failure::new(Exit::Usage, format!("{} {words}", named.display()))
    })?;
    let client = server.connect().await?;
    let bytes = client.fetch_capsule(&subscriber, &id).await?;
    let capsule = capsules::decode(&named.display().to_string(), &bytes).map_err(unusable)?;
    let component = match capsule.wasm_digest.as_str() {
        "" => None,
        hash => match client.fetch_component(hash).await {
            Err(ClientError::Refused(refused)) if refused.reason == UNKNOWN_VERSION => None,
            component => Some(component?),
        },
    };
    let save = |name: String, bytes: &[u8]| {
        let path = to.join(name);
        let saved = std::fs::create_dir_all(to).and_then(|()| write_private(&path, bytes));
        saved
            .map(|()| path.clone())
            .map_err(|error| Failure::failed(format!("cannot save {}: {error}", path.display())))
    };
    let file = save(capsules::file_name(&id), &bytes)?;
    let wasm = match &component {
        Some(wasm) => Some(save(format!("{}.wasm", capsule.wasm_digest), wasm)?),
        None => {
            say(&format!("the bus does not keep the component that failed any more, {}", capsule.wasm_digest));
            None
        }
    };
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", json!({ "capsule": file, "component": wasm }))?,
        Output::Text => {
            for path in std::iter::once(&file).chain(&wasm) {
                writeln!(out, "{}", plain(&path.display().to_string()))?;
            }
        }
    }
    Ok(())
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
        if !folder.try_exists().map_err(|error| unreadable(folder, &error))? {
            say(&format!("there is no folder {}: no capsule was saved there", folder.display()));
            continue;
        }
        let found = capsules::list(folder).map_err(|error| unreadable(folder, &error))?;
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
                writeln!(json_out(), "{}", as_json(Some(&path), &capsule)?)?;
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
        writeln!(json_out(), "{}", as_json(None, capsule)?)?;
        return Ok(());
    }
    let bold = Style::new().bold();
    let Capsule { subscriber, topic, partition, offset, key, attempt, limits, .. } = capsule;
    writeln!(out, "{bold}subscriber{bold:#}  {}, version {}", plain(subscriber), plain(&capsule.digest))?;
    writeln!(out, "{bold}component{bold:#}   {}", plain(&capsule.wasm_digest))?;
    let (key, topic) = (plain(key), plain(topic));
    writeln!(
        out,
        "{bold}event{bold:#}       {topic}, partition {partition}, offset {offset}, key {key}, attempt {attempt}"
    )?;
    writeln!(out, "{bold}appended{bold:#}    {}", time(capsule.append_time_ns))?;
    writeln!(out, "{bold}failed{bold:#}      {}, release {}", time(capsule.saved_ns), plain(&capsule.release))?;
    let time_ms = limits.time_ns / 1_000_000;
    writeln!(
        out,
        "{bold}limits{bold:#}      memory {} bytes, time {time_ms} ms, output {} bytes",
        limits.memory_bytes, limits.output_bytes
    )?;
    writeln!(out, "{bold}ports{bold:#}       {}", plain(&capsule.ports.join(", ")))?;
    for (name, value) in &capsule.config {
        writeln!(
            out,
            "{bold}config{bold:#}      {} = {}",
            plain(name),
            plain(value.as_deref().unwrap_or("(a secret, which is not kept)"))
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
                    RecordedRead::Value { bucket, key, value } => {
                        let value = value.as_ref().map_or("(nothing)".to_owned(), shown);
                        writeln!(out, "  {} {} = {}", plain(bucket), plain(key), plain(&value))?;
                    }
                    RecordedRead::Keys { bucket, after, keys, .. } => {
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

fn shown(value: &RecordedValue) -> String {
    match value {
        RecordedValue::Text(text) => text.clone(),
        RecordedValue::Base64(bytes) => plural(bytes.len() as u64, "byte"),
    }
}

fn write_failure(out: &mut impl Write, failure: &CapsuleFailure) -> std::io::Result<()> {
    let style = Style::new().fg_color(Some(AnsiColor::Red.into()));
    let mut lines = failure.reason.lines();
    writeln!(out, "\n{style}{}{style:#}: {}", plain(&failure.kind), plain(lines.next().unwrap_or_default()))?;
    for line in lines {
        writeln!(out, "  {}", plain(line))?;
    }
    for line in failure.backtrace.iter().flat_map(|backtrace| backtrace.lines()) {
        writeln!(out, "  {}", plain(line))?;
    }
    Ok(())
}

/// The component to run.
fn component(args: &CapsuleRunArgs, LoadedCapsule { capsule, source }: &LoadedCapsule) -> Result<Vec<u8>, Failure> {
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
    let hash = &capsule.wasm_digest;
    let file = match source {
        CapsuleSource::Bus if files.is_empty() => {
            let fetched = block_on(async { Ok(args.from.server.connect().await?.fetch_component(hash).await?) });
            return fetched.map_err(|failure| Failure {
                message: format!(
                    "{}; run another one with --plugin, or name a topology that still has it",
                    failure.message
                ),
                ..failure
            });
        }
        CapsuleSource::Bus => Path::new(""),
        CapsuleSource::File(file) => file,
    };
    let data = args.from.data.clone().unwrap_or_else(|| args::DEFAULT_DATA.into());
    capsules::component_of(capsule, file, std::slice::from_ref(&data), &files).ok_or_else(|| {
        let folder = file.parent().unwrap_or(Path::new(""));
        Failure::failed(format!(
            "the component that failed, {hash}, is neither beside the capsule ({}) nor in the data folder ({}){}: name \
             the \
             data folder of the bus with --data or a topology that still has it with --topology, put the file there as \
             {hash}.wasm, or run another one with --plugin",
            if folder.as_os_str().is_empty() { ".".into() } else { folder.display().to_string() },
            data.display(),
            if args.topology.is_empty() { "" } else { " nor in the topology" },
        ))
    })
}

fn replay(args: &CapsuleRunArgs) -> Outcome {
    let found = found(&args.capsule, &args.from)?;
    let wasm = component(args, &found)?;
    let LoadedCapsule { capsule, .. } = found;
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
    let ran = block_on(async { capsules::run(&host, &capsule, wasm, &args.config).await.map_err(Failure::failed) })?;
    if ran.has_other_settings {
        say(&format!(
            "this is not version {}, which failed: its configuration or its limits are others; give what is not in the \
             capsule \
             with --config NAME=VALUE",
            capsule.digest
        ));
    }
    let is_good = match &ran.replayed.outcome {
        ReplayOutcome::Reproduced => args.plugin.is_none(),
        ReplayOutcome::FailedOtherwise(_) => false,
        ReplayOutcome::Handled(_) => args.plugin.is_some(),
    };
    report(args, &capsule, &ran)?;
    if is_good { Ok(()) } else { Err(Failure::silent(Exit::Failed)) }
}

fn report(args: &CapsuleRunArgs, capsule: &Capsule, ran: &CapsuleRun) -> Outcome {
    let replayed = &ran.replayed;
    let mut out = anstream::stdout().lock();
    if args.output == Output::Json {
        let (outcome, failure, handled) = match &replayed.outcome {
            ReplayOutcome::Reproduced => ("reproduced", Some(&capsule.failure), None),
            ReplayOutcome::FailedOtherwise(failure) => ("failed_otherwise", Some(failure), None),
            ReplayOutcome::Handled(handled) => ("handled", None, Some(handled)),
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
        writeln!(json_out(), "{}", member(&report))?;
        return Ok(());
    }
    match &replayed.outcome {
        ReplayOutcome::Reproduced => {
            writeln!(out, "reproduced: it fails in the same way")?;
            write_failure(&mut out, &capsule.failure)?;
        }
        ReplayOutcome::FailedOtherwise(failure) => {
            writeln!(out, "it fails in another way")?;
            write_failure(&mut out, failure)?;
            writeln!(out, "\nbefore it was:")?;
            write_failure(&mut out, &capsule.failure)?;
        }
        ReplayOutcome::Handled(handled) => {
            writeln!(out, "it handles the event")?;
            for output in outputs(capsule, handled) {
                writeln!(out, "{}", pretty(&output))?;
            }
            for write in writes(handled) {
                writeln!(out, "writes {}", plain(member(&write).get()))?;
            }
        }
    }
    for (bucket, key) in &replayed.unknown {
        let what = key.as_ref().map_or("its keys".to_owned(), |key| format!("key {}", plain(key)));
        let bucket = plain(bucket);
        writeln!(
            out,
            "\nit read {what} in bucket {bucket}, which it did not read before: it was as if nothing were there"
        )?;
    }
    Ok(())
}

fn outputs(capsule: &Capsule, handled: &Handled) -> Vec<Members> {
    let shown = |output: &crate::model::call::Output| {
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
    let written = |write: &crate::model::call::StateWrite| {
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
