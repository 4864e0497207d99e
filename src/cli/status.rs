//! `wattle status`: how a running bus is.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use tokio::time::MissedTickBehavior;

use super::live::Live;
use super::tree::{self, BAD, NodeFilter, WARNING, plural};
use super::words::{self, plain};
use super::{Exit, Failure, Outcome, Output, ServerArg, block_on, changes, reader, say, topics, trials};
use crate::api::{Changes, LaneState, MissingEvents, Room, Storage, SubscriberStatus};
use crate::client::{BusStatus, Client};
use crate::model::units::show_rough_size;

/// How often it is drawn again.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Show topics and subscribers with lag and counters
///
/// lag: events not yet read, with the age of the oldest. In the retry queue: events that were read and not handled,
/// with the age of the oldest; some may be parked until they are released (`wattle parked`). Open dead letters: dead
/// letters that were neither redriven nor dropped (`wattle dead list`). Rates are averages of the last minute. Held
/// and delayed events have no position yet and are not counted (`wattle pending`).
///
/// handled, emitted, retried, dead-lettered, filtered and repeated count from the start of the bus. repeated:
/// duplicates that a queue group (`queue_group`) left out.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle status
  wattle status --watch
  wattle status --files topologies/orders.yaml
  wattle status -o json | jq '.subscribers[] | {name, lag, lag_seconds, open_dead_letters, handled: \
  .since_start.handled}'")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    server: ServerArg,

    /// Show how the applied topology differs from these files or directories
    #[arg(long, num_args = 1.., value_name = "TOPOLOGY")]
    files: Vec<PathBuf>,

    /// Refresh every second until Ctrl-C, and wait for a bus that is down
    #[arg(short, long, conflicts_with = "files")]
    watch: bool,

    /// Output format; JSON has one line for each refresh
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &StatusArgs) -> Outcome {
    block_on(async {
        let (client, drift) = match args.files.as_slice() {
            [] => (args.server.connect().await?, None),
            files => {
                let proposed = changes::proposal(&args.server, files, false).await?;
                let drift = proposed.plan().await?.0;
                (proposed.client, Some(drift))
            }
        };
        if args.watch {
            return tokio::select! {
                ended = watch(args, client) => ended,
                () = reader::gone() => Err(Failure::silent(Exit::Ok)),
            };
        }
        print(args, &client.status().await?, drift.as_ref())
    })
}

/// Refreshes it every interval, until interrupted. A bus that stops and starts again is away in between.
async fn watch(args: &StatusArgs, client: Client) -> Outcome {
    // it is drawn on standard error
    let is_drawn = args.output == Output::Text && io::stdout().is_terminal() && io::stderr().is_terminal();
    let mut live = is_drawn.then(Live::new);
    let mut ticks = tokio::time::interval(WATCH_EVERY);
    // a bus that answers late is not asked the more often for that
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let server = args.server.address();
    let (mut client, mut is_away, mut last) = (Some(client), false, Vec::new());
    for is_first in std::iter::once(true).chain(std::iter::repeat(false)) {
        ticks.tick().await;
        let connected = match client.take() {
            Some(client) => Ok(client),
            None => args.server.connect().await,
        };
        let looked = match connected {
            Ok(connected) => connected.status().await.inspect(|_| client = Some(connected)),
            Err(error) => Err(error),
        };
        let status = match looked {
            Ok(status) => status,
            Err(error) if !is_first && error.is_retryable() => {
                if !is_away {
                    say(&format!("{error}; looking again each second until it is there"));
                }
                is_away = true;
                if let Some(live) = &mut live {
                    let away = format!("{BAD}the bus at {server} is away; what was there before:{BAD:#}");
                    live.draw(&std::iter::once(away).chain(last.iter().skip(1).cloned()).collect::<Vec<_>>());
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if is_away {
            say("the bus is there again");
        }
        is_away = false;
        match &mut live {
            Some(live) => {
                last = lines(server, &status, None);
                live.draw(&last);
            }
            None => {
                if !is_first && args.output == Output::Text {
                    writeln!(io::stdout())?;
                }
                print(args, &status, None)?;
            }
        }
    }
    Ok(())
}

fn print(args: &StatusArgs, status: &BusStatus, drift: Option<&Changes>) -> Outcome {
    let mut out = anstream::stdout().lock();
    match args.output {
        Output::Json => writeln!(out, "{}", json(status, drift))?,
        Output::Text => {
            for line in lines(args.server.address(), status, drift) {
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(out.flush()?)
}

fn json(status: &BusStatus, drift: Option<&Changes>) -> serde_json::Value {
    json!({
        "version": status.version,
        "serving": status.serving.is_ok(),
        "reason": status.serving.as_ref().err(),
        "uptime_seconds": words::seconds(status.tree.uptime),
        "storage": status.storage.as_ref().map(storage),
        "topology_revision": status.topology_revision,
        "files_refused": status.files_refused,
        "drift": drift.map(changes::shown),
        "topics": status.tree.topics.iter().map(topics::json).collect::<Vec<_>>(),
        "subscribers": status.tree.subscribers.iter().map(subscriber).collect::<Vec<_>>(),
    })
}

/// The text, with ANSI colours.
fn lines(server: &str, status: &BusStatus, drift: Option<&Changes>) -> Vec<String> {
    let state = match &status.serving {
        Ok(()) => "serving".to_owned(),
        Err(reason) => format!("not serving: {}", plain(reason)),
    };
    let uptime = words::age(status.tree.uptime);
    let mut lines = vec![format!("wattle {} at {server}: {state}, started {uptime} ago", plain(&status.version))];
    if !status.topology_revision.is_empty() {
        lines.push(format!("topology: revision {}", plain(&status.topology_revision)));
    }
    for warning in status.storage.iter().flat_map(warnings) {
        lines.push(format!("{WARNING}{warning}{WARNING:#}"));
    }
    for why in &status.files_refused {
        lines.push(format!("{WARNING}what the files of the start say does not run: {}{WARNING:#}", plain(why)));
    }
    match drift {
        None => {}
        Some(drift) if drift.is_empty() && drift.missing.is_empty() && drift.differs.is_empty() => {
            lines.push("what runs is what the files say".to_owned());
        }
        Some(drift) => {
            let words = match (drift.is_empty(), drift.missing.is_empty()) {
                (true, true) => "what is applied is what the files say, and other settings run:",
                (true, false) => "what runs is what the files say and more, which `wattle apply --prune` would remove:",
                (false, _) => "the files say something else, which `wattle apply` would run:",
            };
            lines.push(format!("{WARNING}{words}{WARNING:#}"));
            lines.extend(changes::text(drift).lines().map(str::to_owned));
        }
    }
    lines.extend(tree::lines(&status.tree, NodeFilter::All));
    for subscriber in &status.tree.subscribers {
        let name = plain(&subscriber.name);
        lines.push(version(subscriber));
        let other = subscriber.other_settings.iter();
        lines.extend(other.map(|why| format!("{WARNING}settings of {name}: {}{WARNING:#}", plain(why))));
        lines.extend(subscriber.reload.iter().map(|reload| format!("last reload of {name}: {}", plain(reload))));
        lines.extend(subscriber.last_failure.iter().map(|why| format!("last failure of {name}: {}", plain(why))));
    }
    lines
}

/// The stable version of a subscriber, and its candidate.
fn version(subscriber: &SubscriberStatus) -> String {
    let short = |digest: &str| digest.chars().take(16).collect::<String>();
    let pinned = if subscriber.is_pinned { ", pinned" } else { "" };
    let proven = format!("version of {}: {}{pinned}", subscriber.name, short(&subscriber.digest));
    match &subscriber.on_trial {
        None => proven,
        Some(trial) => format!(
            "{proven}, candidate {} in {} of {}: {}",
            short(&trial.digest),
            trial.lanes,
            plural(subscriber.lanes.len() as u64, "lane"),
            trials::words(trial),
        ),
    }
}

fn storage(storage: &Storage) -> serde_json::Value {
    json!({
        "takes_events": storage.takes_events,
        "takes_outputs": storage.takes_outputs,
        "clock_jumped_seconds": storage.clock_jumped.map(|jumped| jumped.as_secs()),
        "left_bytes": storage.room.map(|room| room.left_bytes),
        "reserve_bytes": storage.room.map(|room| room.reserve_bytes),
        "publish_bytes_max": storage.publish_bytes_max(),
        "waits": waits(storage),
        "missing": storage.missing.iter().map(missing).collect::<Vec<_>>(),
    })
}

/// What waits until the disk has room.
fn waits(storage: &Storage) -> &'static [&'static str] {
    match (storage.takes_events, storage.takes_outputs) {
        (_, false) => &["publishes", "outputs"],
        (false, true) => &["publishes"],
        (true, true) if storage.publish_bytes_max().is_some() => &["large_publishes"],
        (true, true) => &[],
    }
}

fn missing(missing: &MissingEvents) -> serde_json::Value {
    let MissingEvents { file, topic, partition, first_offset, last_offset, is_truncated } = missing;
    json!({
        "file": file, "topic": topic, "partition": partition, "first_offset": first_offset, "last_offset": last_offset,
        "truncated": is_truncated,
    })
}

/// Problems of the storage, each with a remedy.
fn warnings(storage: &Storage) -> Vec<String> {
    let room = "make room on it, or shorten the retention of topics";
    let left = storage.room.map(|Room { left_bytes, reserve_bytes, .. }| {
        let (left, reserve) = (show_rough_size(left_bytes), show_rough_size(reserve_bytes));
        format!(" ({left} left, of which {reserve} are kept for handlers and for making room)")
    });
    let left = left.unwrap_or_default();
    let disk = match (storage.takes_events, storage.takes_outputs, storage.publish_bytes_max()) {
        (_, false, _) => {
            Some(format!("the disk is full{left}: publishes are refused and handlers that emit wait; {room}"))
        }
        (false, true, _) => {
            Some(format!("the disk is nearly full{left}: publishes are refused until there is room; {room}"))
        }
        (true, true, Some(most)) => Some(format!(
            "the disk is nearly full{left}: a publish of more than {} is refused until there is room, smaller ones \
             pass; {room}",
            show_rough_size(most)
        )),
        (true, true, None) => None,
    };
    let missing = storage.missing.iter().map(|missing| {
        let MissingEvents { file, topic, partition, first_offset, last_offset, is_truncated } = missing;
        let what = if *is_truncated { "truncated" } else { "missing" };
        format!(
            "a file of events is {what}: {}, offsets {first_offset} to {last_offset} of {}, partition {partition}; \
             stop the \
             bus and put it back. If it is lost, `wattle seek SUBSCRIBER --to {} --partition {partition}` moves a \
             subscriber \
             that stands before it behind it",
            plain(file),
            plain(topic),
            last_offset + 1
        )
    });
    let clock = storage.clock_jumped.map(|jumped| {
        format!(
            "the clock is ahead by {} of the time that has passed, or the bus was off: that does not count, and no \
             event is \
             removed for its age, until somebody has looked at it: set it right if it is wrong, else say `wattle clock \
             confirm`",
            plural(jumped.as_secs() / 3600, "hour")
        )
    });
    disk.into_iter().chain(missing).chain(clock).collect()
}

fn subscriber(subscriber: &SubscriberStatus) -> serde_json::Value {
    let lane = |lane: &LaneState| match lane {
        LaneState::Running => "running",
        LaneState::Retrying => "retrying",
        LaneState::Paused => "paused",
        LaneState::Halted => "halted",
        LaneState::Full => "full",
        LaneState::Blocked => "blocked",
        LaneState::Failing => "failing",
        LaneState::Compiling => "compiling",
        LaneState::Stopped => "stopped",
    };
    let port = |(port, topic): &(String, String)| json!({ "port": port, "topic": topic });
    json!({
        "name": subscriber.name,
        "from": subscriber.from,
        "to": subscriber.to.iter().map(port).collect::<Vec<_>>(),
        "dead_letters": subscriber.dead_letters,
        "digest": subscriber.digest,
        "lag": subscriber.lag,
        "lag_seconds": subscriber.lag_age.map(words::seconds),
        "retry_queue": subscriber.waiting,
        "retry_queue_seconds": subscriber.waiting_age.map(words::seconds),
        "parked": subscriber.parked,
        "open_dead_letters": subscriber.open_dead_letters,
        "arrived_per_minute": subscriber.arrived_per_minute,
        "handled_per_minute": subscriber.handled_per_minute,
        "since_start": {
            "handled": subscriber.handled,
            "emitted": subscriber.emitted,
            "retried": subscriber.retried,
            "dead_lettered": subscriber.dead_lettered,
            "filtered": subscriber.passed_over,
            "repeated": subscriber.repeated,
        },
        "lanes": subscriber.lanes.iter().map(lane).collect::<Vec<_>>(),
        "last_failure": subscriber.last_failure,
        "candidate": subscriber.on_trial.as_ref().map(trials::json),
        "pinned": subscriber.is_pinned,
        "settings": if subscriber.other_settings.is_some() { "other" } else { "applied" },
        "other_settings": subscriber.other_settings,
        "reload": subscriber.reload,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::TrialStatus;

    #[test]
    fn a_version_on_trial_is_shown_with_how_far_it_is() {
        let mut status =
            SubscriberStatus { name: "shop/a".into(), digest: "ab".repeat(32), ..SubscriberStatus::default() };
        assert_eq!(version(&status), "version of shop/a: abababababababab");
        status.lanes = vec![LaneState::Running; 4];
        let trial =
            TrialStatus { digest: "cd".repeat(32), lanes: 1, handled: 7, events: 100, ..TrialStatus::default() };
        status.on_trial = Some(TrialStatus { ends_in: Duration::from_secs(40), ..trial });
        let words = "version of shop/a: abababababababab, candidate cdcdcdcdcdcdcdcd in 1 of 4 lanes: 7 of 100 events, \
            ends \
                     at the latest in 40 s";
        assert_eq!(version(&status), words);
    }

    #[test]
    fn what_is_wrong_with_the_storage_is_said_with_what_to_do() {
        let said = |takes_events, takes_outputs, jumped_hours: Option<u64>| {
            let clock_jumped = jumped_hours.map(|hours| Duration::from_secs(hours * 3600));
            warnings(&Storage { takes_events, takes_outputs, clock_jumped, ..Storage::default() })
        };
        assert_eq!(said(true, true, None), Vec::<String>::new());
        let nearly = said(false, true, None).concat();
        assert!(nearly.contains("nearly full") && nearly.contains("make room"), "{nearly}");
        let full = said(false, false, None).concat();
        assert!(full.contains("handlers that emit wait") && full.contains("make room"), "{full}");
        let frozen = said(true, true, Some(48)).concat();
        assert!(frozen.contains("48 hours") && frozen.contains("wattle clock confirm"), "{frozen}");
        assert_eq!(said(false, false, Some(48)).len(), 2);
    }

    #[test]
    fn a_disk_on_which_only_small_publishes_pass_is_said_to_be_nearly_full() {
        let room = |publish_bytes| Some(Room { left_bytes: 200 << 20, reserve_bytes: 192 << 20, publish_bytes });
        let storage = |publish_bytes| Storage { room: room(publish_bytes), ..Storage::default() };
        assert!(warnings(&storage(8 << 20)).is_empty() && waits(&storage(8 << 20)).is_empty());
        let said = warnings(&storage(4 << 20)).concat();
        for words in ["nearly full (200 MiB left, of which 192 MiB", "more than 4 MiB is refused", "make room"] {
            assert!(said.contains(words), "{said}");
        }
        let json = super::storage(&storage(4 << 20));
        assert_eq!((&json["takes_events"], &json["left_bytes"]), (&json!(true), &json!(200 << 20)));
        assert_eq!((&json["publish_bytes_max"], &json["waits"]), (&json!(4 << 20), &json!(["large_publishes"])));
    }

    #[test]
    fn files_that_are_missing_are_named_with_what_to_do() {
        let missing = MissingEvents {
            file: "/data/log/segment-1".into(),
            topic: "shop/orders".into(),
            partition: 3,
            first_offset: 10,
            last_offset: 19,
            is_truncated: false,
        };
        let storage = Storage { missing: vec![missing], ..Storage::default() };
        let said = warnings(&storage).concat();
        for words in
            ["/data/log/segment-1", "10 to 19 of shop/orders, partition 3", "--to 20 --partition 3", "put it back"]
        {
            assert!(said.contains(words), "{said}");
        }
        assert_eq!(super::storage(&storage)["missing"][0]["last_offset"], 19);
    }
}
