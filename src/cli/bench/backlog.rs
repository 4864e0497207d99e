//! Memory with a backlog of a million events, against idle.
//!
//! The bus is a process of its own, so that nothing of the measuring is in its memory. Its only subscriber waits an hour
//! after the first event, so that everything else stays where it is.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::bed;
use super::{Common, Failure, Figure, Scratch, median, say, yardstick};
use crate::client::{Client, Window};

#[derive(Debug, Clone, clap::Args)]
pub(super) struct Args {
    /// Events of the backlog
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,

    #[command(flatten)]
    pub(super) common: Common,
}

impl Args {
    pub(super) fn with(common: Common) -> Self {
        // Each repetition writes hundreds of megabytes, and they differ little.
        Self { events: 1_000_000, common: Common { repetitions: 1, ..common } }
    }
}

/// Time after which a bus that has nothing to do has put away what it does not need.
const QUIET: Duration = Duration::from_secs(2);

pub(super) fn run(args: &Args) -> Result<Vec<Figure>, Failure> {
    let components = bed::components(&args.common.plugins, &["inventory"])?;
    let component = components.first().map(|component| component.display().to_string()).unwrap_or_default();
    // Without its stock the plugin asks to be called again later.
    let topology = format!(
        "wattle: v1\nname: bench\ntopics: {{ orders: {{}}, reserved: {{}}, short: {{}} }}\nsubscribers:\n  inventory:\n    \
         from: orders\n    plugin: {}\n    to: [reserved, short]\n    \
         retry: {{ attempts: 10, backoff: {{ initial: 1h, max: 1h }} }}\n",
        serde_json::json!(component)
    );
    let (mut idle, mut full) = (Vec::new(), Vec::new());
    for repetition in 1..=args.common.repetitions {
        let scratch = Scratch::new(&args.common.data, "backlog")?;
        let bus = Bus::start(&scratch.0, &topology)?;
        std::thread::sleep(QUIET);
        let before = bus.mebibytes()?;
        super::super::block_on(publish(&bus.address, args.events))?;
        std::thread::sleep(QUIET);
        let after = bus.mebibytes()?;
        say(&format!("backlog, repetition {repetition}: {before:.0} MiB idle, {after:.0} MiB with the backlog"));
        idle.push(before);
        full.push(after);
    }
    let (bus, yardstick) = (median(&full), median(&idle));
    let name = format!("memory with a backlog of {} events, against idle", args.events);
    Ok(vec![Figure {
        name,
        unit: "MiB",
        bus,
        yardstick,
        ratio: bus / yardstick,
        aim: "does not grow with the backlog",
    }])
}

async fn publish(address: &str, events: u64) -> Result<(), Failure> {
    let client = Client::connect(address).await?;
    let mut publishing = client.publishing("orders", Window::default());
    let mut batch = Vec::new();
    for number in 0..events {
        batch.push(bed::order(number));
        if batch.len() == 1_000 || number + 1 == events {
            publishing.send(std::mem::take(&mut batch)).await?;
        }
    }
    publishing.finish().await?;
    Ok(())
}

/// A bus in a process of its own.
struct Bus {
    process: Child,
    address: String,
}

impl Bus {
    fn start(folder: &Path, topology: &str) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::failed(format!("cannot start a bus: {error}"));
        let path = folder.join("bench.yaml");
        std::fs::write(&path, topology).map_err(failed)?;
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.arg("run").arg(&path).arg("--data").arg(folder.join("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]).env("WATTLE_LOG", "warn,wattle=info");
        let mut process = command.stderr(Stdio::piped()).spawn().map_err(failed)?;
        let lines = process.stderr.take().map(BufReader::new);
        let mut bus = Self { process, address: String::new() };
        let mut lines = lines.into_iter().flat_map(BufReader::lines).map_while(Result::ok);
        let mut said = Vec::new();
        for line in lines.by_ref() {
            let serving = serde_json::from_str::<serde_json::Value>(&line).ok();
            let serving = serving.filter(|line| line.get("message").is_some_and(|message| message == "serving"));
            if let Some(address) = serving.as_ref().and_then(|line| line.get("address")?.as_str()) {
                bus.address = address.to_owned();
                // Nobody may stop listening, or the bus could not log any more.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(bus);
            }
            said.push(line);
        }
        Err(Failure::failed(format!("the bus did not start: {}", said.join("\n"))))
    }

    fn mebibytes(&self) -> Result<f64, Failure> {
        let bytes = yardstick::resident_bytes(self.process.id());
        bytes
            .map(|bytes| bytes as f64 / f64::from(1 << 20))
            .map_err(|error| Failure::failed(format!("cannot measure memory: {error}")))
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        // Its data is thrown away anyway.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
