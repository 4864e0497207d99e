//! `wattle dev`: builds and runs topologies, to try them out.

mod reapply;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use self::reapply::reapply;
use super::args::BusArgs;
use super::input::{self, Form, InputSource};
use super::live::Live;
use super::load::World;
use super::sending::{self, Watcher};
use super::signals::{Interruption, Signals};
use super::tree::{self, NodeFilter, plural};
use super::words::plain;
use super::{Exit, Failure, Outcome, components, run, say};
use crate::api::{Policy, Proposal, PublishReceipt, Snapshot};
use crate::app::{OpenBus, Options, Progress, RunningBus, StartError, StartFiles};
use crate::client::{Client, ReadRequest};
use crate::deploy::{self, Watch};
use crate::effects::create_new_private;
use crate::model::units::show_rough_size;
use crate::model::{Event, EventView};
use crate::server;
use crate::telemetry::{self, LogFormat};
use crate::toolchain;
use crate::topology::{self, Plan, PluginSource, SubscriberKind, SubscriberPlan};

/// How often it is looked whether everything is handled.
const SETTLED_EVERY: Duration = Duration::from_millis(10);
/// How often counts are drawn on a terminal, and printed elsewhere.
const DRAW_EVERY: Duration = Duration::from_millis(100);
const PRINT_EVERY: Duration = Duration::from_secs(1);
/// Failures that are shown of each topic for dead letters.
const FAILURES_SHOWN: usize = 20;

/// Build and run topologies during development
///
/// Builds the plugins that the topologies name and runs them on a temporary data directory, removed at the end. A
/// plugin whose sources change is rebuilt and replaced; a topology file that changes is checked and applied, even if
/// data is lost. If there are errors, they are printed and the previous version continues. With --data, topics and
/// subscribers of the same namespaces that the files do not declare are removed. On a terminal, the tree is shown
/// with its counters.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle dev topologies/orders.yaml
  wattle dev topologies/orders.yaml --input topologies/orders.ndjson --once
  wattle dev topologies/ --input shop/orders=orders.ndjson --input shop/log=log.ndjson")]
pub(super) struct DevArgs {
    /// Topology files or directories
    #[arg(required = true, value_name = "TOPOLOGY")]
    topologies: Vec<PathBuf>,

    /// Publish a file of CloudEvents, one JSON object per line, to the only root topic or to TOPIC
    #[arg(long, value_name = "[TOPIC=]FILE", conflicts_with_all = ["tls_cert", "access"])]
    input: Vec<String>,

    /// Exit when all events are handled, and print counters and failures
    #[arg(long)]
    once: bool,

    /// Keep data in this directory
    #[arg(long, value_name = "FOLDER")]
    data: Option<PathBuf>,

    #[command(flatten)]
    bus: BusArgs,

    /// Log format on standard error
    #[arg(long, env = "WATTLE_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

pub(super) fn run(args: &DevArgs) -> Outcome {
    telemetry::start(args.log_format).map_err(|error| Failure::new(Exit::Usage, error))?;
    let sources = components::sources(&args.topologies)?;
    let plan = components::alone(&sources)?;
    let inputs = inputs(args, &plan)?;
    let BuildResult { components, of_folders, from } = build_all(&plan)?;
    components::hold(&args.topologies, &plan, &components)?;
    let mut signals = Signals::listen()?;
    let data = Data::new(args.data.as_deref())?;
    let running = start(args, &sources, &of_folders, &data)?;
    let server = running.address().to_string();
    if !args.once {
        say(&format!("serving on {server}; Ctrl-C ends it"));
    }

    let mut stopped = None;
    let result = running.block_on(async {
        let work = async {
            let client = Client::connect(&server).await?;
            for (topic, source) in &inputs {
                let sum = {
                    let (form, others) = (Form::CloudEvents, Interruption::none());
                    sending::publish(&client, topic, source, form, others, &mut NoWatcher).await?
                };
                tracing::info!(topic, events = sum.events, duplicates = sum.duplicates, "published the input");
            }
            if !args.once {
                std::future::pending::<()>().await;
            }
            settled(&running).await;
            Ok::<_, Failure>(Some(failures(&client, &running.tree().snapshot()).await?))
        };
        let shown = show(&running);
        // Whoever tries things out means what he changes: nothing is compared.
        let reloaded = running.reloader().watch(Policy::Replace);
        tokio::select! {
            result = work => result,
            () = shown => Ok(None),
            () = reloaded, if !args.once => Ok(None),
            () = rebuild(&running, from), if !args.once => Ok(None),
            () = reapply(&running, &args.topologies, sources, of_folders), if !args.once => Ok(None),
            () = signals.first() => Ok(None),
            why = running.tree().stopped() => {
                stopped = Some(why);
                Ok(None)
            }
        }
    });
    let snapshot = running.tree().snapshot();
    let ended = run::end(stopped, running.stop(args.bus.drain_deadline), args.bus.drain_deadline);
    if let Some(failures) = result? {
        report(&snapshot, &failures)?;
    }
    ended
}

/// Waits until nothing is on its way anywhere.
async fn settled(running: &RunningBus) {
    while !running.tree().is_at_rest() {
        tokio::time::sleep(SETTLED_EVERY).await;
    }
}

/// What to publish, and where to.
fn inputs(args: &DevArgs, plan: &Plan) -> Result<Vec<(String, InputSource)>, Failure> {
    let roots: Vec<String> = plan.topics.iter().filter(|topic| topic.is_root()).map(|topic| topic.label()).collect();
    let mut inputs = Vec::new();
    for input in &args.input {
        let (topic, file) = match (input.split_once('='), roots.as_slice()) {
            (Some((topic, file)), _) if !Path::new(input).exists() => (topic.to_owned(), file),
            (_, [root]) => (root.clone(), input.as_str()),
            _ => {
                let words = format!(
                    "--input {input} does not say where to: there are several roots ({}); write --input TOPIC={input}",
                    roots.join(", ")
                );
                return Err(Failure::new(Exit::Usage, words));
            }
        };
        let path = Path::new(file);
        match std::fs::metadata(path) {
            _ if file == "-" => {}
            Ok(found) if found.is_dir() => {
                return Err(Failure::new(
                    Exit::Usage,
                    format!("`{file}` is a folder, and no file to publish (--input)"),
                ));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::new(Exit::Usage, format!("there is no file `{file}` to publish (--input)")));
            }
            Err(error) => return Err(Failure::new(Exit::Usage, format!("cannot read `{file}` (--input): {error}"))),
        }
        inputs.push((topic, InputSource::from_argument(path)));
    }
    Ok(inputs)
}

/// The sources of plugins: each folder, and those that it depends on.
type SourceFolders = BTreeMap<PathBuf, Vec<PathBuf>>;

/// Build results.
struct BuildResult {
    /// The component of each subscriber, in the plan's order.
    components: Vec<PathBuf>,
    /// The component of each folder.
    of_folders: BTreeMap<PathBuf, PathBuf>,
    from: SourceFolders,
}

/// Builds every plugin folder.
fn build_all(plan: &Plan) -> Result<BuildResult, Failure> {
    let mut from = SourceFolders::new();
    let bar = match io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    if let Ok(style) = ProgressStyle::with_template("{spinner} building {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(DRAW_EVERY);
    let mut all = BTreeMap::new();
    let built = components::of(plan, |folder| {
        let name = folder.display().to_string();
        tracing::info!(folder = name, "building");
        bar.set_message(name.clone());
        let mut progress = |line: &str| bar.set_message(format!("{name}: {line}"));
        let built = toolchain::build_folder(folder, &mut progress).map_err(|error| error.to_string())?;
        from.insert(folder.to_owned(), built.depends_on);
        all.insert(folder.to_owned(), built.wasm.clone());
        Ok(built.wasm)
    });
    bar.finish_and_clear();
    // Folders that do not build are the work's failure, not a fault of the configuration.
    let components = built.map_err(|failure| Failure { exit: Exit::Failed, ..failure })?;
    Ok(BuildResult { components, of_folders: all, from })
}

/// Builds plugin folders of the topology that runs whose sources change, or those of what they depend on, for as long
/// as this is polled. Components that are files are watched; for uploaded ones, the build result is proposed here.
async fn rebuild(running: &RunningBus, mut from: SourceFolders) {
    let mut topology = running.reloader().topology();
    let mut watch = Watch::default();
    let mut followed = topology.borrow_and_update().folders.clone();
    loop {
        let depends_on = |folder: &PathBuf| from.get(folder).into_iter().flatten().cloned();
        let all: BTreeSet<PathBuf> =
            followed.iter().flat_map(|folder| depends_on(folder).chain([folder.clone()])).collect();
        watch.follow(all);
        let build: BTreeSet<PathBuf> = tokio::select! {
            changed = watch.changed() => {
                let changed: Vec<PathBuf> =
                    changed.into_iter().filter(|changed| !changed.is_gone).map(|changed| changed.path).collect();
                let is_built_from = |folder: &PathBuf| {
                    changed.contains(folder) || depends_on(folder).any(|other| changed.contains(&other))
                };
                followed.iter().filter(|folder| is_built_from(folder)).cloned().collect()
            }
            another = topology.changed() => match another {
                Ok(()) => {
                    let folders = topology.borrow_and_update().folders.clone();
                    // What changed before they were followed is not seen as a change.
                    let new = folders.difference(&followed).cloned().collect();
                    followed = folders;
                    new
                }
                Err(_) => return,
            },
        };
        for folder in build {
            tracing::info!(folder = %folder.display(), "its sources may have changed: building");
            let built = tokio::task::spawn_blocking(move || toolchain::build_folder(&folder, &mut |_| ())).await;
            match built {
                Ok(Ok(built)) => {
                    tracing::info!(folder = %built.folder.display(), component = built.digest.short(), "built");
                    propose(running, &topology.borrow().clone(), (&built.folder, &built.wasm)).await;
                    from.insert(built.folder, built.depends_on);
                }
                Ok(Err(error)) => tracing::error!("what was built before runs on: {error}"),
                Err(error) => tracing::error!(%error, "the build was not finished"),
            }
        }
    }
}

/// Proposes the build result of a folder to the subscribers whose component was uploaded.
async fn propose(running: &RunningBus, topology: &Proposal, (folder, wasm): (&PathBuf, &Path)) {
    let is_of_folder = |of: &SubscriberPlan| {
        let is_uploaded = topology.components.get(&of.label()).is_some_and(|component| component.file().is_none());
        is_uploaded && of.runs == SubscriberKind::Plugin(PluginSource::Folder(folder.clone()))
    };
    for subscriber in running.tree().plan().subscribers.iter().filter(|of| is_of_folder(of)).map(SubscriberPlan::label)
    {
        if let Err(error) = running.reloader().propose(&subscriber, wasm, Policy::Replace).await {
            tracing::error!(subscriber, %error, "keeping the previous version");
        }
    }
}

/// Starts the bus with exactly what the files say of their namespaces. Where no address is given and the default port
/// is taken, another one will do.
fn start(
    args: &DevArgs,
    sources: &[topology::Source],
    built: &BTreeMap<PathBuf, PathBuf>,
    data: &Data,
) -> Result<RunningBus, Failure> {
    let secrets = components::secret_folders(&args.bus.secrets, sources)?;
    let options = |listen: SocketAddr| -> Options {
        let secrets = secrets.clone();
        Options { allow_loss: true, keeps_functions: true, secrets, ..args.bus.options(data.folder.clone(), listen) }
    };
    let listen = args.bus.listen_or_default();
    let open = |listen| OpenBus::open(&options(listen), &log_progress);
    let opened = match open(listen) {
        Err(StartError::Server(server::StartError::Bind { source, .. }))
            if source.kind() == io::ErrorKind::AddrInUse && args.bus.listen.is_none() =>
        {
            tracing::info!(%listen, "port in use: taking a free one");
            open(SocketAddr::new(listen.ip(), 0))
        }
        opened => opened,
    };
    let opened = opened.map_err(run::refused)?;
    let component = |folder: &Path| built.get(folder).cloned().ok_or_else(|| "it was not built".to_owned());
    let files = components::of_start(sources, &opened, (true, &secrets), &World, component)?;
    let files = files.as_ref().map_or(StartFiles::None, StartFiles::Valid);
    opened.start(files, &options(listen), &log_progress).map_err(run::refused)
}

fn log_progress(progress: Progress) {
    match progress {
        Progress::Opened { .. } | Progress::Plugin(deploy::Progress::Compiling { .. }) => {}
        Progress::Plugin(deploy::Progress::StillCompiling { subscriber, bytes }) => {
            tracing::info!("compiling {subscriber} ({})…", show_rough_size(bytes));
        }
        Progress::Plugin(deploy::Progress::Compiled { subscriber, digest, took }) => {
            tracing::info!(subscriber, digest, ?took, "plugin ready");
        }
    }
}

struct NoWatcher;

impl Watcher for NoWatcher {
    fn published(&mut self, _: u64, _: u64) {}

    fn places(&mut self, _: &PublishReceipt) -> Result<(), Failure> {
        Ok(())
    }

    fn waits(&mut self, words: &str) {
        say(words);
    }
}

/// Shows the tree for as long as this is polled.
async fn show(running: &RunningBus) {
    if io::stderr().is_terminal() {
        let mut live = Live::new();
        loop {
            live.draw(&tree::lines(&running.tree().snapshot(), NodeFilter::WithoutEmptyDeadLetters));
            tokio::time::sleep(DRAW_EVERY).await;
        }
    }
    let mut last = BTreeMap::new();
    loop {
        for subscriber in running.tree().snapshot().subscribers {
            let counts = (subscriber.handled, subscriber.emitted, subscriber.dead_lettered, subscriber.lag);
            if counts.0 > 0 && last.insert(subscriber.name.clone(), counts) != Some(counts) {
                let (handled, emitted, dead, behind) = counts;
                say(&format!(
                    "{}: {handled} handled, {emitted} emitted, {dead} dead-lettered, lag {behind}",
                    subscriber.name
                ));
            }
        }
        tokio::time::sleep(PRINT_EVERY).await;
    }
}

/// The dead letters of a subscriber.
struct Failures {
    subscriber: String,
    count: u64,
    /// The first of them, in words.
    shown: Vec<String>,
}

async fn failures(client: &Client, snapshot: &Snapshot) -> Result<Vec<Failures>, Failure> {
    let mut all = Vec::new();
    for topic in snapshot.topics.iter().filter(|topic| topic.is_dead_letters && topic.events() > 0) {
        // They are written, and may not be durable yet: the bus shows them when they are.
        let limit = Some(topic.events().min(FAILURES_SHOWN as u64));
        let read = ReadRequest { topic: topic.name.clone(), limit, follow: true, ..ReadRequest::default() };
        let mut reading = client.read(read).await?;
        let mut shown = Vec::new();
        while let Some(events) = reading.next().await? {
            shown.extend(events.iter().map(|dead| words(&dead.key, &dead.event)));
        }
        let subscriber = topic.parent.clone().unwrap_or_default();
        all.push(Failures { subscriber, count: topic.events(), shown });
    }
    Ok(all)
}

/// A dead letter in a line.
fn words(key: &str, event: &[u8]) -> String {
    let id = EventView::parse(event).map(|view| view.id).unwrap_or("?").to_owned();
    let event = Event::decode(event).unwrap_or_default();
    let attribute = |name: &str| event.attributes.get(name).map(ToString::to_string).unwrap_or_default();
    let attempts = attribute("wattleattempts").parse().map_or(String::new(), |count| plural(count, "attempt"));
    let (kind, reason) = (attribute("wattlefailure"), attribute("wattlereason"));
    let reason = reason.lines().next().unwrap_or_default().to_owned();
    plain(&format!("event {id} (key {key}), {attempts}, {kind}: {reason}"))
}

/// Prints the counts of every node and the failures.
fn report(snapshot: &Snapshot, failures: &[Failures]) -> Outcome {
    let mut out = anstream::stdout().lock();
    write!(out, "{}", tree::text(snapshot, NodeFilter::All))?;
    if failures.is_empty() {
        writeln!(out, "\nno failures")?;
    }
    for Failures { subscriber, count, shown } in failures {
        writeln!(out, "\n{subscriber} gave up {}:", plural(*count, "event"))?;
        for failure in shown {
            writeln!(out, "  {failure}")?;
        }
        let more = count.saturating_sub(shown.len() as u64);
        if more > 0 {
            writeln!(out, "  and {more} more")?;
        }
    }
    Ok(())
}

/// A data folder; a fresh one is removed at the end.
struct Data {
    folder: PathBuf,
    is_fresh: bool,
}

impl Data {
    fn new(folder: Option<&Path>) -> Result<Self, Failure> {
        if let Some(folder) = folder {
            return Ok(Self { folder: folder.to_owned(), is_fresh: false });
        }
        let all = std::env::temp_dir();
        remove_left(&all);
        let folder = all.join(format!("{FRESH}{}-{}", std::process::id(), input::fresh_id()));
        create_new_private(&folder).map_err(|error| {
            Failure::failed(format!("cannot create {}: {error}; name a data folder with --data", folder.display()))
        })?;
        Ok(Self { folder, is_fresh: true })
    }
}

/// What the name of a fresh data folder begins with; the number of its process and a random one follow.
const FRESH: &str = "wattle-dev-";

/// Removes the fresh data folders of this user whose processes are gone: one that was killed, or stopped twice, has
/// left its own behind.
fn remove_left(all: &Path) {
    let Ok(entries) = std::fs::read_dir(all) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let process = name.to_str().and_then(|name| name.strip_prefix(FRESH)?.split_once('-')?.0.parse().ok());
        let Some(process) = process.and_then(rustix::process::Pid::from_raw) else { continue };
        let is_gone = rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH);
        // Not a link, and not another user's.
        let is_ours = entry.metadata().is_ok_and(|of| of.is_dir() && of.uid() == rustix::process::getuid().as_raw());
        if is_gone && is_ours {
            drop(std::fs::remove_dir_all(&path));
        }
    }
}

impl Drop for Data {
    fn drop(&mut self) {
        if self.is_fresh
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot remove the data folder");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_has_left_is_removed_and_nothing_else() {
        let all = tempfile::tempdir().unwrap();
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let name = |process: u32| format!("{FRESH}{process}-{}", input::fresh_id());
        let (left, running) = (name(gone.id()), name(std::process::id()));
        for folder in [&left, &running, "wattle-dev-x-1", "other"] {
            std::fs::create_dir_all(all.path().join(folder).join("plugins")).unwrap();
        }
        std::os::unix::fs::symlink(all.path().join("other"), all.path().join(name(gone.id()))).unwrap();
        remove_left(all.path());
        assert!(!all.path().join(&left).exists());
        let mut kept = std::fs::read_dir(all.path()).unwrap().flatten();
        assert!(kept.any(|entry| entry.file_name().to_str() == Some(&*running)));
        assert!(all.path().join("other/plugins").exists() && all.path().join("wattle-dev-x-1").exists());
    }
}
