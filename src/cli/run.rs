//! `wattle run`: runs topologies until it is told to stop.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::FalseyValueParser;

use super::args::{self, BusArgs};
use super::signals::Signals;
use super::{Exit, Failure, Outcome, components};
use crate::api::Policy;
use crate::app::{self, OpenBus, Options, Progress, StartError, StartFiles, StopResult};
use crate::deploy;
use crate::engine::StopReason;
use crate::model::units::{show_duration, show_rough_size};
use crate::telemetry::{self, LogFormat};

/// Run the bus until it is stopped
///
/// The applied topology is stored in the data directory. On start, files are applied only if they changed since the
/// last start: all or nothing, as by `wattle apply`. If that fails or would lose data, the applied topology runs and
/// the log and `wattle status` show the reason. Without files, the applied topology runs. Plugins must be built
/// before (`wattle build`); a plugin file that changed since the last start runs as a candidate, unless `wattle apply`
/// has replaced it. SIGTERM or Ctrl-C stops the bus gracefully with exit code 0: it refuses new events, answers open
/// requests and finishes the events in progress. A second signal stops it at once, without loss of acknowledged events.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle run topologies/orders.yaml
  wattle run --data /var/lib/wattle
  wattle run topologies/ --prune --data /var/lib/wattle --listen 127.0.0.1:7411 --log-format json")]
pub(super) struct RunArgs {
    /// Topology files or directories [default: the applied topology]
    #[arg(value_name = "TOPOLOGY")]
    topologies: Vec<PathBuf>,

    /// Remove topics and subscribers of the same namespaces that the files do not declare
    #[arg(long, requires = "topologies")]
    prune: bool,

    /// Data directory
    #[arg(long, env = "WATTLE_DATA", default_value = args::DEFAULT_DATA, value_name = "FOLDER")]
    data: PathBuf,

    /// Watch plugin files: a changed file runs as a candidate
    #[arg(long, env = "WATTLE_WATCH", value_parser = FalseyValueParser::new())]
    watch: bool,

    /// Apply changed files even if data is lost, such as events of a removed topic or beyond a shorter retention
    #[arg(long)]
    allow_loss: bool,

    /// Trust the clock of the machine on start, as `wattle clock confirm` does
    #[arg(long, env = "WATTLE_CONFIRM_CLOCK", value_parser = FalseyValueParser::new())]
    confirm_clock: bool,

    #[command(flatten)]
    bus: BusArgs,

    /// Log format on standard error
    #[arg(long, env = "WATTLE_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

pub(super) fn run(args: &RunArgs) -> Outcome {
    telemetry::start(args.log_format).map_err(|error| Failure::new(Exit::Usage, error))?;
    let was_applied = app::was_applied(&args.data).map_err(refused)?;
    let names = || args.topologies.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" ");
    let mut invalid = None;
    let sources = match args.topologies.as_slice() {
        [] => None,
        topologies => match components::sources(topologies) {
            Err(failure) if was_applied && failure.is_of_files() => {
                invalid = Some(format!("cannot read the topology files; `wattle check {}` lists the errors", names()));
                None
            }
            sources => Some(sources?),
        },
    };
    // Where nothing was applied, an error in the files ends the start before anything is opened.
    match &sources {
        _ if was_applied => {}
        Some(sources) => drop(components::alone(sources)?),
        None => return Err(Failure::new(Exit::Usage, StartError::Nothing)),
    }
    let mut signals = Signals::listen()?;
    let options = args.bus.options(args.data.clone(), args.bus.listen_or_default());
    if options.code_cache.is_none() {
        tracing::warn!(
            "neither XDG_CACHE_HOME nor HOME is set: compiled plugins are not kept, and each start compiles them"
        );
    }
    let secrets = components::secret_folders(&args.bus.secrets, sources.as_deref().unwrap_or_default())?;
    let options = Options { allow_loss: args.allow_loss, confirm_clock: args.confirm_clock, secrets, ..options };
    let opened = OpenBus::open(&options, &log_progress).map_err(refused)?;
    let mut files = None;
    if let Some(sources) = &sources {
        let said = (args.prune, &options.secrets);
        let declared = components::PluginWorld::default().with_ports(sources);
        match components::of_start(sources, &opened, said, &declared, components::built_or_decided(&opened)) {
            Ok(found) => files = found,
            Err(failure) if was_applied && failure.is_of_files() => {
                invalid = Some(match (failure.is_printed, failure.message.as_str()) {
                    (false, why) => why.to_owned(),
                    (true, "") => {
                        format!("the topology files are invalid; `wattle check {}` lists the errors", names())
                    }
                    (true, first) => {
                        format!("the topology files are invalid: {first}; `wattle check {}` lists all errors", names())
                    }
                });
            }
            Err(failure) => return Err(failure),
        }
    }
    let files = match (&invalid, &files) {
        (Some(why), _) => StartFiles::Invalid(why),
        (None, Some(files)) => StartFiles::Valid(files),
        (None, None) => StartFiles::None,
    };
    let running = opened.start(files, &options, &log_progress).map_err(refused)?;
    tracing::info!(address = %running.address(), data = %args.data.display(), "serving");
    let stopped = running.block_on(async {
        tokio::select! {
            () = signals.first() => None,
            stopped = running.tree().stopped() => Some(stopped),
            () = running.reloader().watch(Policy::Swap), if args.watch => None,
        }
    });
    tracing::info!("stopping: nothing more is taken in");
    end(stopped, running.stop(args.bus.drain_deadline), args.bus.drain_deadline)
}

/// Logs what happens during a start.
fn log_progress(progress: Progress) {
    match progress {
        Progress::Opened { recovery, took } => {
            let (frames, void_bytes, epoch) = (recovery.frames, recovery.void_bytes, recovery.epoch);
            tracing::info!(frames, void_bytes, epoch, ?took, "opened the data folder");
        }
        Progress::Plugin(deploy::Progress::Compiling { subscriber }) => {
            tracing::debug!(subscriber, "compiling the plugin");
        }
        Progress::Plugin(deploy::Progress::StillCompiling { subscriber, bytes }) => {
            tracing::info!("compiling {subscriber} ({})…", show_rough_size(bytes));
        }
        Progress::Plugin(deploy::Progress::Compiled { subscriber, digest, took }) => {
            tracing::info!(subscriber, digest, ?took, "plugin ready");
        }
    }
}

/// The bus does not start.
pub(super) fn refused(error: StartError) -> Failure {
    let exit = if error.is_configuration() { Exit::BadConfiguration } else { Exit::Failed };
    Failure::new(exit, error)
}

/// How the process ends after its bus has.
pub(super) fn end(stopped: Option<StopReason>, stop: StopResult, deadline: Duration) -> Outcome {
    if let Some(StopReason::Poisoned(reason)) = stopped.or(stop.closed.err()) {
        let words = format!(
            "the disk failed, and the bus has stopped: {reason}; nothing that was acknowledged is lost: repair or \
             replace \
             the disk, make sure that it has space, and start again on the same data folder"
        );
        return Err(Failure::failed(words));
    }
    let deadline = show_duration(deadline);
    if !stop.answered {
        tracing::warn!(
            "some callers took no answers, or had none within {deadline}: they do not know what became of what they \
             asked for"
        );
    }
    if !stop.drained {
        tracing::warn!(
            "some events were still being handled after {deadline}; they are handled again after the next start"
        );
    }
    tracing::info!("stopped");
    Ok(())
}
