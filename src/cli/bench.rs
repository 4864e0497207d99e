//! `wattle bench`: whole paths against yardsticks.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args;
use super::{Exit, Failure, Outcome, Output, components, say};
use crate::bench::{
    self, BenchError, Calls, Comparison, LanguageComponent, LanguageFigures, Publish, Reload, Spread, Subject, median,
};
use crate::deploy;
use crate::toolchain::{BuildError, Language, NewPlugin, build_folder, create};
use crate::wasm::{Host, HostOptions};

/// Run benchmarks with yardsticks on this machine
///
/// Each figure and its yardstick alternate in the same run: compare ratios, since absolute figures depend on the
/// machine. The file system of the data directory is measured.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  wattle bench
  wattle bench publish --rounds 9
  wattle bench latency -o json
  wattle bench peak --topology topologies/peak.yaml
  wattle bench reload --reloads 100
  wattle bench languages")]
pub(super) struct BenchArgs {
    /// Benchmarks to run [default: all except peak, reload and languages]
    #[arg(value_enum, value_name = "WHAT")]
    what: Vec<Benchmark>,

    /// Topology for handlers, latency and memory; its root takes orders, and its plugins must be built
    #[arg(long, default_value = "topologies/orders.yaml", value_name = "TOPOLOGY")]
    topology: PathBuf,

    /// Data directory; leftovers are removed by the next run
    #[arg(long, default_value = ".wattle/bench", value_name = "FOLDER")]
    data: PathBuf,

    /// Number of rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,

    /// Number of deploys in `reload`, half of them with a trial
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..))]
    reloads: u32,

    /// Output format
    #[arg(short, long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Benchmark {
    /// Durable publishing through gRPC, against write + fdatasync
    Publish,
    /// Processor time per event and handler, against the components in a bare loop
    Handlers,
    /// Publish to the last of three levels at a steady 2,000 events/s, against one fdatasync
    Latency,
    /// Memory with a backlog of a million events, against idle
    Memory,
    /// Burst of a million orders into a tree with a subscriber that has a `rate`
    Peak,
    /// Pauses of lanes at 20,000 events/s during a deploy, against none
    Reload,
    /// The handler of `wattle new` in each language whose tools are installed, against Rust
    Languages,
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        Self::failed(error)
    }
}

/// Batches of a round of `publish`, and the shape of each.
const PUBLISH_BATCHES: usize = 500;
const PUBLISH_BATCH_EVENTS: usize = 1_000;
const PUBLISH_DATA_BYTES: usize = 256;
/// Orders of a round of `handlers`.
const HANDLERS_EVENTS: usize = 100_000;
/// The steady rate of `latency`, in events per second, and for how long.
const LATENCY_RATE: f64 = 2_000.0;
const LATENCY_SECONDS: f64 = 10.0;
/// The backlog of `memory`.
const MEMORY_EVENTS: usize = 1_000_000;
/// The burst of `peak`.
const PEAK_EVENTS: usize = 1_000_000;
/// The steady rate of `reload`, in events per second.
const RELOAD_RATE: f64 = 20_000.0;
/// Events of a round of `languages`.
const LANGUAGES_EVENTS: usize = 100_000;

pub(super) fn run(args: &BenchArgs) -> Outcome {
    let all = [
        Benchmark::Publish,
        Benchmark::Handlers,
        Benchmark::Latency,
        Benchmark::Memory,
        Benchmark::Peak,
        Benchmark::Reload,
        Benchmark::Languages,
    ];
    let on_demand = [Benchmark::Peak, Benchmark::Reload, Benchmark::Languages];
    let is_default = |what: &Benchmark| args.what.is_empty() && !on_demand.contains(what);
    let wanted = |what: &Benchmark| is_default(what) || args.what.contains(what);
    let needs_tree = |what: &Benchmark| ![Benchmark::Publish, Benchmark::Languages].contains(what);
    let subject = all.iter().any(|what| wanted(what) && needs_tree(what)).then(|| subject(args)).transpose()?;
    let mut out = anstream::stdout().lock();
    let mut results = serde_json::Map::new();
    for what in all.iter().filter(|what| wanted(what)) {
        let (name, words, value) = measure(*what, args, subject.as_ref())?;
        match args.output {
            Output::Text => writeln!(out, "{name}\n{words}")?,
            Output::Json => drop(results.insert(name.to_owned(), value)),
        }
        out.flush()?;
    }
    if let Output::Json = args.output {
        writeln!(out, "{}", Value::Object(results))?;
    }
    Ok(())
}

fn subject(args: &BenchArgs) -> Result<Subject, Failure> {
    let plan = components::plan(std::slice::from_ref(&args.topology))?;
    let files = components::of(&plan, components::built)?;
    std::fs::create_dir_all(&args.data).map_err(BenchError::from)?;
    let options = HostOptions { cache_folder: args::code_cache(), ..HostOptions::default() };
    let host = Host::new(options).map_err(Failure::failed)?;
    let registered = deploy::register(&host, &plan, &files);
    let plugins = registered.map_err(|errors| {
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        Failure::new(Exit::BadConfiguration, words.join("\n"))
    })?;
    Ok(Subject { plan, plugins, components: files, folder: args.data.clone() })
}

fn measure(
    what: Benchmark,
    args: &BenchArgs,
    subject: Option<&Subject>,
) -> Result<(&'static str, String, Value), Failure> {
    let rounds = usize::from(args.rounds);
    let subject = || subject.ok_or_else(|| Failure::failed("there is no tree to measure"));
    Ok(match what {
        Benchmark::Publish => {
            let (batches, events, bytes) = (PUBLISH_BATCHES, PUBLISH_BATCH_EVENTS, PUBLISH_DATA_BYTES);
            let result = bench::publish(&args.data, batches, events, bytes, rounds)?;
            let words = format!("{batches} batches of {events} events of {bytes} B, durable, through gRPC\n");
            ("publish", words + &publish_text(&result), publish_json(&result))
        }
        Benchmark::Handlers => {
            let result = bench::handlers(subject()?, HANDLERS_EVENTS, rounds)?;
            let words = format!("{HANDLERS_EVENTS} orders through the whole tree\n");
            ("handlers", words + &text(&result), json(&result))
        }
        Benchmark::Latency => {
            let result = bench::latency(subject()?, LATENCY_RATE, LATENCY_SECONDS)?;
            let mut words =
                format!("{LATENCY_RATE} orders/s for {LATENCY_SECONDS} s, microseconds since each was due\n");
            let mut value = serde_json::Map::new();
            for (name, is, (median, high)) in [
                ("sync", "one write + fdatasync, idle disk (yardstick)", result.sync),
                ("called", "a call that publishes nothing", result.called),
                ("acked", "acked to the producer", result.acked),
                ("handled", "handled on the third level", result.handled),
                ("read", "its output read outside, durable", result.read),
            ] {
                words += &format!("  {is:<36} p50 {median:>9.0}   p99 {high:>9.0}\n");
                value.insert(name.to_owned(), json!({ "p50_us": median, "p99_us": high }));
            }
            let beyond = result.handled.0 - result.sync.0;
            words += &format!("  handled on the third level, p50 beyond one sync: {beyond:.0} us\n");
            let beyond = result.acked.0 - result.sync.0 - result.called.0;
            words += &format!("  acked, p50 beyond one sync and one such call: {beyond:.0} us\n");
            ("latency", words, Value::Object(value))
        }
        Benchmark::Memory => {
            let result = bench::memory(subject()?, MEMORY_EVENTS)?;
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let words = format!(
                "a backlog of {} orders that nobody handles\n  idle {:.1} MiB, with the backlog {:.1} MiB: {:.1} MiB \
                 more\n",
                result.events,
                mib(result.idle_bytes),
                mib(result.backlog_bytes),
                mib(result.backlog_bytes.saturating_sub(result.idle_bytes)),
            );
            let value = json!({
                "events": result.events,
                "idle_bytes": result.idle_bytes,
                "backlog_bytes": result.backlog_bytes,
            });
            ("memory", words, value)
        }
        Benchmark::Peak => {
            let result = bench::peak(subject()?, PEAK_EVENTS)?;
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let (published, handled) = (result.published_in.as_secs_f64(), result.handled_in.as_secs_f64());
            let events = result.events as f64;
            let words = format!(
                "a burst of {} orders, in process\n  published in {published:.1} s ({:.0}/s), the longest ack of 1,000 \
                 took {:.0} ms\n  \
                 handled by the slowest subscriber in {handled:.1} s ({:.0}/s), each once and in order\n  idle \
                 {:.1} MiB, at the most {:.1} MiB: {:.1} MiB more\n",
                result.events,
                events / published,
                result.longest_ack.as_secs_f64() * 1e3,
                events / handled,
                mib(result.idle_bytes),
                mib(result.most_bytes),
                mib(result.most_bytes.saturating_sub(result.idle_bytes)),
            );
            let value = json!({
                "events": result.events,
                "published_in_seconds": published,
                "longest_ack_seconds": result.longest_ack.as_secs_f64(),
                "handled_in_seconds": handled,
                "idle_bytes": result.idle_bytes,
                "most_bytes": result.most_bytes,
            });
            ("peak", words, value)
        }
        Benchmark::Reload => {
            let result = bench::reload(subject()?, RELOAD_RATE, args.reloads as usize)?;
            ("reload", reload_text(&result), reload_json(&result))
        }
        Benchmark::Languages => {
            let (built, missing) = build_languages(&args.data.join("languages"))?;
            let components: Vec<LanguageComponent> = built.iter().map(|(_, component)| component.clone()).collect();
            let figures = bench::languages(&components, &args.data, LANGUAGES_EVENTS, rounds)?;
            let measured: Vec<_> = built.iter().map(|(language, _)| *language).zip(&figures).collect();
            ("languages", languages_text(&measured, &missing), languages_json(&measured))
        }
    })
}

/// Why a language is not measured.
type MissingLanguages = Vec<(Language, String)>;

/// Creates and builds the plugin of `wattle new` in each language; Rust, the yardstick, is the first.
fn build_languages(folder: &Path) -> Result<(Vec<(Language, LanguageComponent)>, MissingLanguages), Failure> {
    let (mut built, mut missing) = (Vec::new(), Vec::new());
    if folder.exists() {
        std::fs::remove_dir_all(folder).map_err(BenchError::from)?;
    }
    for language in Language::ALL {
        // Each in a folder of its own: those of Rust would be a workspace.
        let parent = folder.join(language.id());
        let plugin = NewPlugin { name: "greet".to_owned(), language, parent };
        let created = create(&plugin).map_err(Failure::failed)?;
        say(&format!("building the plugin in {}…", language.name()));
        match build_folder(&created.folder, &mut |_| {}) {
            Ok(plugin) => built.push((language, LanguageComponent { name: language.name(), wasm: plugin.wasm })),
            Err(error @ (BuildError::NoTool { .. } | BuildError::ToolVersion { .. })) if language != Language::Rust => {
                missing.push((language, error.to_string()));
            }
            Err(error) => return Err(Failure::failed(error)),
        }
    }
    Ok((built, missing))
}

const MIB_BYTES: f64 = 1_048_576.0;

fn languages_text(measured: &[(Language, &LanguageFigures)], missing: &MissingLanguages) -> String {
    let mut words = format!(
        "the handler of `wattle new`, {LANGUAGES_EVENTS} events per round in full batches; time per event is of the \
         processor, without the bus\n  {:<12} {:>9} {:>10} {:>13} {:>10} {:>9} {:>8}\n",
        "", "size MiB", "compile s", "cached s", "memory MiB", "us/event", "ratio",
    );
    for (language, figures) in measured {
        let LanguageFigures { size_bytes, compile, cached_start, memory_bytes, calls } = figures;
        words += &format!(
            "  {:<12} {:>9.2} {:>10.2} {:>13.4} {:>10.1} {:>9.2} {:>8.1}\n",
            language.name(),
            *size_bytes as f64 / MIB_BYTES,
            compile.as_secs_f64(),
            cached_start.as_secs_f64(),
            *memory_bytes as f64 / MIB_BYTES,
            calls.ours_median(),
            calls.ratio_median(),
        );
    }
    for (language, why) in missing {
        words += &format!("  {:<12} not measured: {why}\n", language.name());
    }
    words
}

fn languages_json(measured: &[(Language, &LanguageFigures)]) -> Value {
    let figures = measured.iter().map(|(language, figures)| {
        let mut value = json(&figures.calls);
        if let Value::Object(fields) = &mut value {
            fields.insert("size_bytes".to_owned(), json!(figures.size_bytes));
            fields.insert("compile_seconds".to_owned(), json!(figures.compile.as_secs_f64()));
            fields.insert("cached_start_seconds".to_owned(), json!(figures.cached_start.as_secs_f64()));
            fields.insert("memory_bytes".to_owned(), json!(figures.memory_bytes));
        }
        (language.id().to_owned(), value)
    });
    Value::Object(figures.collect())
}

fn publish_text(result: &Publish) -> String {
    let threads: Vec<_> = result.threads.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
    let preallocated = median(&result.preallocated);
    text(&result.growing)
        + &format!("  {preallocated:>12.1} events/s: the same into a file whose room was written before\n")
        + &format!("  {:>12.2} ratio to that\n", result.preallocated_ratio_median())
        + &format!("  microseconds of processor per event, by thread: {}\n", threads.join(", "))
}

fn publish_json(result: &Publish) -> Value {
    let mut value = json(&result.growing);
    let threads: serde_json::Map<_, _> = result.threads.iter().map(|(name, us)| (name.clone(), json!(us))).collect();
    if let Value::Object(fields) = &mut value {
        fields.insert("preallocated".to_owned(), json!(result.preallocated));
        fields.insert("preallocated_ratio_median".to_owned(), json!(result.preallocated_ratio_median()));
        fields.insert("processor_us_per_event".to_owned(), Value::Object(threads));
    }
    value
}

fn reload_text(result: &Reload) -> String {
    let Reload { rate, events, reloads, lost, doubled, reordered, .. } = result;
    let mut words = format!(
        "{rate} orders/s, {events} in all; {reloads} reloads: {lost} lost, {doubled} more than once, {reordered} out \
         of \
         order\n  milliseconds, p50, p99 and longest: pause of a lane that has events; since the oldest was due; in \
         the call\n"
    );
    for (is, calls) in calls_of(result) {
        let figures = [calls.pause, calls.latency, calls.took]
            .map(|Spread { p50, p99, max, .. }| format!("{p50:>8.2} {p99:>8.2} {max:>8.2}"));
        words += &format!("  {is:<36} {}   ({} calls)\n", figures.join("   "), calls.pause.count);
    }
    for (is, calls) in [("replaced", result.replaced), ("tried", result.tried)] {
        let beyond = calls.pause.p99 - result.calm.pause.p99;
        words += &format!("  pause of a lane, p99 beyond calm, {is}: {beyond:.2} ms\n");
    }
    for (is, Spread { count, p50, p99, max }) in
        [("to a version that was compiled before", result.reload), ("compiling beside", result.compile)]
    {
        words += &format!("  {is:<38} p50 {p50:.1} ms, p99 {p99:.1}, longest {max:.1}, of {count}\n");
    }
    let starts: Vec<_> = result.cached_starts.iter().map(|(name, took)| format!("{name} {took:.1} ms")).collect();
    words + &format!("  started with what was compiled before: {}\n", starts.join(", "))
}

fn calls_of(result: &Reload) -> [(&'static str, Calls); 4] {
    [
        ("calm (yardstick)", result.calm),
        ("first to a version that replaces", result.replaced),
        ("first to a candidate", result.tried),
        ("while a component compiles", result.compiling),
    ]
}

fn reload_json(result: &Reload) -> Value {
    let spread = |of: Spread| json!({ "count": of.count, "p50_ms": of.p50, "p99_ms": of.p99, "max_ms": of.max });
    let calls =
        |of: Calls| json!({ "pause": spread(of.pause), "latency": spread(of.latency), "took": spread(of.took) });
    let starts: serde_json::Map<_, _> =
        result.cached_starts.iter().map(|(name, took)| (name.clone(), json!(took))).collect();
    json!({
        "events_per_second": result.rate,
        "events": result.events,
        "reloads": result.reloads,
        "lost": result.lost,
        "doubled": result.doubled,
        "reordered": result.reordered,
        "calm": calls(result.calm),
        "replaced": calls(result.replaced),
        "candidate": calls(result.tried),
        "compiling": calls(result.compiling),
        "reload": spread(result.reload),
        "compile": spread(result.compile),
        "cached_start_ms": starts,
    })
}

fn text(result: &Comparison) -> String {
    let range = |figures: &[f64]| {
        let low = figures.iter().copied().fold(f64::INFINITY, f64::min);
        let high = figures.iter().copied().fold(0.0, f64::max);
        format!("({low:.1} to {high:.1})")
    };
    format!(
        "  {:>12.1} {} {}\n  {:>12.1} {}: {} {}\n  {:>12.2} ratio, median of {} rounds\n",
        result.ours_median(),
        result.unit,
        range(&result.ours),
        result.yardstick_median(),
        result.unit,
        result.yardstick_is,
        range(&result.yardstick),
        result.ratio_median(),
        result.ours.len(),
    )
}

fn json(result: &Comparison) -> Value {
    json!({
        "unit": result.unit,
        "ours": result.ours,
        "yardstick_is": result.yardstick_is,
        "yardstick": result.yardstick,
        "ratio_median": result.ratio_median(),
    })
}
