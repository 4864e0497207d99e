//! `wattle plugin`: the versions of plugins that a running bus has.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use super::table::Table;
use super::tree::plural;
use super::words::plain;
use super::{ClientArgs, Failure, Outcome, Output, SubscriberArgs, block_on, say, shadow, trials};
use crate::api::{DeployOutcome, Digest, Policy, StoredVersion, Summary, UnpinResult, VersionRole};

/// Deploy and roll back plugin versions
///
/// A version is a component with its configuration, limits and ports, identified by a digest. A new version runs as a
/// candidate during its trial. If it fails on an event that the stable version handles, the bus rolls it back.
#[derive(Debug, Clone, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "Examples:
  wattle plugin deploy validate validate.wasm
  wattle plugin versions validate
  wattle plugin rollback validate"
)]
pub(super) struct PluginArgs {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum PluginCommand {
    Deploy(Deploy),
    Shadow(shadow::ShadowArgs),
    List(ListPlugins),
    Versions(Versions),
    Promote(Promote),
    Rollback(Rollback),
    Pin(Pin),
}

/// Deploy a component to a subscriber
///
/// The component is compiled and checked while the running version continues. No event is lost or handled twice by
/// the change. The new version has the configuration and limits of the applied topology. Secrets are read when a
/// version starts and are not part of it: after a rotation, deploy the running component again.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plugin deploy validate target/wasm32-wasip2/release/validate.wasm
  wattle plugin deploy validate validate.wasm --policy canary --share 25%
  wattle plugin deploy validate stricter.wasm --policy replace")]
struct Deploy {
    #[command(flatten)]
    of: SubscriberArgs,

    /// Component file
    file: PathBuf,

    /// Rollout strategy
    #[arg(long, value_enum, default_value_t)]
    policy: PolicyArg,

    #[command(flatten)]
    expected: ExpectedVersion,

    /// Percentage of lanes that call a canary first, rounded up [default: 10%]
    #[arg(long, value_parser = percent, value_name = "PERCENT")]
    share: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum PolicyArg {
    /// Start a trial in all lanes
    #[default]
    Swap,
    /// Start a trial in some lanes, then in all
    Canary,
    /// Replace the stable version without a trial, for a version that is meant to reject what the previous one
    /// accepted
    Replace,
}

/// List the running versions of all subscribers
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plugin list
  wattle plugin list -o json | jq -r 'select(.candidate) | .subscriber'")]
struct ListPlugins {
    #[command(flatten)]
    client: ClientArgs,
}

/// List the retained versions of a subscriber, newest last
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plugin versions validate
  wattle plugin versions validate -o json | jq -r .version")]
struct Versions {
    #[command(flatten)]
    of: SubscriberArgs,
}

/// End the trial of a candidate: it becomes stable in all lanes
///
/// This includes a canary. `trial` in the topology sets when a trial ends without this command.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plugin promote validate")]
struct Promote {
    #[command(flatten)]
    of: SubscriberArgs,

    #[command(flatten)]
    expected: ExpectedVersion,
}

/// Roll back to the previous version
///
/// From a candidate to the stable version, or from the stable version to the one before it. The version that was
/// rolled back does not run again until its file changes or it is deployed again.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plugin rollback validate")]
struct Rollback {
    #[command(flatten)]
    of: SubscriberArgs,

    #[command(flatten)]
    expected: ExpectedVersion,
}

/// Pin a subscriber to a retained version
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle plugin pin validate              to the one that runs
  wattle plugin pin validate 3f9a1c20     to the one whose digest begins so
  wattle plugin pin validate --off")]
struct Pin {
    #[command(flatten)]
    of: SubscriberArgs,

    /// Digest of the version or its beginning [default: the running version]
    #[arg(conflicts_with = "off")]
    digest: Option<String>,

    /// Remove the pin
    #[arg(long, conflicts_with = "version")]
    off: bool,

    #[command(flatten)]
    expected: ExpectedVersion,
}

#[derive(Debug, Clone, clap::Args)]
struct ExpectedVersion {
    /// Change only if the newest version, candidate or stable, has a digest that begins with DIGEST; otherwise exit
    /// with 5
    #[arg(long = "if", value_name = "VERSION")]
    version: Option<String>,
}

/// Percentage of lanes that call a canary first, unless another is asked for.
const CANARY_PERCENT: u32 = 10;

fn percent(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
    number.filter(|percent| (1..=100).contains(percent)).ok_or_else(|| "write a share from 1% to 100%".to_owned())
}

pub(super) fn run(args: &PluginArgs) -> Outcome {
    match &args.command {
        PluginCommand::Deploy(args) => deploy(args),
        PluginCommand::Shadow(args) => shadow::run(args),
        PluginCommand::List(args) => list(args),
        PluginCommand::Versions(args) => versions(args),
        PluginCommand::Promote(args) => promote(args),
        PluginCommand::Rollback(args) => rollback(args),
        PluginCommand::Pin(args) => pin(args),
    }
}

fn deploy(args: &Deploy) -> Outcome {
    let SubscriberArgs { subscriber, client: ClientArgs { server, output } } = &args.of;
    let wasm = std::fs::read(&args.file).map_err(|error| Failure::unreadable(&args.file, &error))?;
    let policy = match (args.policy, args.share) {
        (PolicyArg::Canary, share) => Policy::Canary { percent: share.unwrap_or(CANARY_PERCENT) },
        (_, Some(_)) => return Err(Failure::new(super::Exit::Usage, "--share is for a canary: add `--policy canary`")),
        (PolicyArg::Swap, None) => Policy::Swap,
        (PolicyArg::Replace, None) => Policy::Replace,
    };
    let cause = args.file.display().to_string();
    let (reloaded, trial) = block_on(async {
        let client = server.connect().await?;
        let reloaded = client.deploy(subscriber, wasm.into(), policy, &cause, args.expected.version.clone()).await?;
        let trial = match reloaded.outcome {
            DeployOutcome::OnTrial => client.versions(subscriber).await?.into_iter().find_map(|kept| kept.trial),
            _ => None,
        };
        Ok((reloaded, trial))
    })?;
    let (version, short) = (reloaded.version, reloaded.version.short());
    let (name, words) = match reloaded.outcome {
        DeployOutcome::Tried => ("candidate", format!("{subscriber} runs {short} as a candidate")),
        DeployOutcome::Runs => ("runs", format!("{subscriber} runs {short}")),
        DeployOutcome::OnTrial => {
            let stands = trial.as_ref().map(|trial| format!(": {}", trials::words(trial))).unwrap_or_default();
            ("already_candidate", format!("{short} is the candidate of {subscriber} already{stands}"))
        }
        DeployOutcome::Unchanged => ("unchanged", format!("{subscriber} runs {short} already")),
        DeployOutcome::Ignored => ("ignored", format!("{short} is ignored")),
    };
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => {
            let trial = trial.as_ref().map(trials::json);
            let (version, notice) = (version.to_string(), &reloaded.notice);
            writeln!(out, "{}", json!({ "version": version, "outcome": name, "trial": trial, "notice": notice }))?;
        }
        Output::Text => {
            writeln!(out, "{words}")?;
            reloaded.notice.iter().for_each(|notice| say(&format!("warning: {}", plain(notice))));
        }
    }
    Ok(())
}

fn list(args: &ListPlugins) -> Outcome {
    let (plugins, status) = block_on(async {
        let client = args.client.server.connect().await?;
        Ok((client.plugins().await?, client.status().await?))
    })?;
    let subscribers = status.tree.subscribers.into_iter();
    let trials: BTreeMap<_, _> = subscribers.filter_map(|of| Some((of.name, of.on_trial?))).collect();
    let mut out = anstream::stdout().lock();
    match args.client.output {
        Output::Json => {
            for Summary { subscriber, proven, tried, is_pinned, kept } in plugins {
                let (proven, tried) = (proven.to_string(), tried.as_ref().map(Digest::to_string));
                let trial = trials.get(&subscriber).map(trials::json);
                let line = json!({
                    "subscriber": subscriber, "stable": proven, "candidate": tried, "trial": trial, "pinned": is_pinned,
                    "kept": kept,
                });
                writeln!(out, "{line}")?;
            }
        }
        Output::Text => {
            let mut table = Table::new(&["SUBSCRIBER", "STABLE", "CANDIDATE", "PINNED", "KEPT", ""], &[4]);
            for Summary { subscriber, proven, tried, is_pinned, kept } in plugins {
                let tried = tried.map_or(String::new(), |tried| tried.short());
                let pinned = if is_pinned { "yes" } else { "" }.to_owned();
                let stands = trials.get(&subscriber).map(trials::words).unwrap_or_default();
                table.row(&mut out, vec![subscriber, proven.short(), tried, pinned, kept.to_string(), stands])?;
            }
            table.end(&mut out)?;
        }
    }
    Ok(())
}

fn standing(kept: &StoredVersion) -> &'static str {
    match kept.standing {
        VersionRole::Proven => "stable",
        VersionRole::Tried => "candidate",
        VersionRole::TakenBack => "rolled back",
        VersionRole::Kept => "kept",
    }
}

fn time(decided_ns: u64) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(decided_ns)).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn versions(args: &Versions) -> Outcome {
    let SubscriberArgs { subscriber, client: ClientArgs { server, output } } = &args.of;
    let (versions, pinned) = block_on(async {
        let client = server.connect().await?;
        Ok((client.versions(subscriber).await?, client.plugins().await?))
    })?;
    let asked: &str = subscriber;
    let is_of = |name: &str| name == asked || name.rsplit_once('/').is_some_and(|(_, name)| name == asked);
    let pinned = pinned.into_iter().find(|of| of.is_pinned && is_of(&of.subscriber)).map(|of| of.proven);
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => {
            for kept in &versions {
                let line = json!({
                    "version": kept.version.to_string(),
                    "component": kept.wasm.to_string(),
                    "state": standing(kept),
                    "next_back": kept.is_next_back,
                    "cause": kept.cause,
                    "decided": time(kept.decided_ns),
                    "rolled_back": kept.taken_back,
                    "rolled_back_time": kept.taken_back.as_ref().map(|_| time(kept.decided_ns)),
                    "trial": kept.trial.as_ref().map(trials::json),
                    "pinned": pinned == Some(kept.version),
                });
                writeln!(out, "{line}")?;
            }
        }
        Output::Text => {
            let mut table = Table::new(&["VERSION", "COMPONENT", "STATE", "DECIDED", "CAUSE", ""], &[]);
            for kept in &versions {
                let note = match (&kept.taken_back, &kept.trial) {
                    _ if pinned == Some(kept.version) => {
                        "pinned: no other takes its place before `pin --off`".to_owned()
                    }
                    (Some(why), _) => format!("{}: {why}", time(kept.decided_ns)),
                    (None, Some(trial)) => trials::words(trial),
                    (None, None) if kept.is_next_back => "`rollback` goes back to it".to_owned(),
                    (None, None) => String::new(),
                };
                let row = [
                    &kept.version.short(),
                    &kept.wasm.short(),
                    standing(kept),
                    &time(kept.decided_ns),
                    &kept.cause,
                    &note,
                ];
                table.row(&mut out, row.map(str::to_owned).into())?;
            }
            table.end(&mut out)?;
            writeln!(out, "{}", plural(versions.len() as u64, "version"))?;
        }
    }
    Ok(())
}

fn promote(args: &Promote) -> Outcome {
    let SubscriberArgs { subscriber, client: ClientArgs { server, output } } = &args.of;
    let version =
        block_on(async { Ok(server.connect().await?.promote(subscriber, args.expected.version.clone()).await?) })?;
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", json!({ "version": version.to_string() }))?,
        Output::Text => writeln!(out, "{subscriber} runs {}: its trial is over", version.short())?,
    }
    Ok(())
}

fn rollback(args: &Rollback) -> Outcome {
    let SubscriberArgs { subscriber, client: ClientArgs { server, output } } = &args.of;
    let version =
        block_on(async { Ok(server.connect().await?.rollback(subscriber, args.expected.version.clone()).await?) })?;
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", json!({ "version": version.to_string() }))?,
        Output::Text => writeln!(out, "{subscriber} runs {} again", version.short())?,
    }
    Ok(())
}

fn pin(args: &Pin) -> Outcome {
    let SubscriberArgs { subscriber, client: ClientArgs { server, output } } = &args.of;
    if args.off {
        return unpin(&args.of);
    }
    let version = block_on(async {
        let client = server.connect().await?;
        Ok(client.pin(subscriber, args.digest.as_deref(), args.expected.version.clone()).await?)
    })?;
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => writeln!(out, "{}", json!({ "pinned": true, "version": version.to_string() }))?,
        Output::Text => {
            writeln!(out, "{subscriber} is pinned to {} until `wattle plugin pin {subscriber} --off`", version.short())?
        }
    }
    Ok(())
}

fn unpin(SubscriberArgs { subscriber, client: ClientArgs { server, output } }: &SubscriberArgs) -> Outcome {
    let UnpinResult { tries, refused } = block_on(async { Ok(server.connect().await?.unpin(subscriber).await?) })?;
    let mut out = anstream::stdout().lock();
    match output {
        Output::Json => {
            let tries = tries.map(|version| version.to_string());
            writeln!(out, "{}", json!({ "pinned": false, "version": null, "tries": tries, "refused": refused }))?;
        }
        Output::Text => {
            let then = match (tries, refused) {
                (Some(version), _) => {
                    format!(
                        "; {} is the candidate now, since its file or the topology has changed meanwhile",
                        version.short()
                    )
                }
                (None, Some(why)) => {
                    format!("; the version of its file and the topology does not run: {}", plain(&why))
                }
                (None, None) => String::new(),
            };
            writeln!(out, "{subscriber} is not pinned{then}")?;
        }
    }
    Ok(())
}
