//! The probe of each language, built, and a bus that runs them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use crate::bus::Bus;
use crate::common::guests::guest_path;
use crate::common::process::wattle;
use crate::common::trees::PATIENCE;
use crate::projects::{is_tested, path, said};

/// The language that the others are compared with.
pub(crate) const REFERENCE: &str = "rust";

/// The folders of the others.
const FOLDERS: [(&str, &str); 4] =
    [("ts", "sdk/typescript/probe"), ("python", "sdk/python/probe"), ("go", "sdk/go/probe"), ("c", "sdk/c/probe")];

/// A probe that was built.
#[derive(Debug, Clone)]
pub(crate) struct Probe {
    pub(crate) language: &'static str,
    pub(crate) wasm: PathBuf,
}

/// Those of all languages whose tools are here, the reference first.
pub(crate) fn probes() -> Vec<Probe> {
    static PROBES: OnceLock<Vec<Probe>> = OnceLock::new();
    let build = || {
        let others = FOLDERS.iter().filter(|(language, _)| is_tested(language));
        let others = others.map(|(language, folder)| {
            build(folder);
            Probe { language, wasm: Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("target/probe.wasm") }
        });
        let reference = Probe { language: REFERENCE, wasm: guest_path("probe") };
        [reference].into_iter().chain(others).collect()
    };
    PROBES.get_or_init(build).clone()
}

/// Builds a folder of this repository.
pub(crate) fn build(folder: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let built = wattle().arg("build").arg(&folder).env("PATH", path()).output().unwrap();
    assert!(built.status.success(), "{}: {}", folder.display(), said(&built));
}

/// An event as a line of CloudEvents JSON.
pub(crate) fn event(id: &str, verb: &str, data: &Value) -> Value {
    serde_json::json!({
        "specversion": "1.0", "id": id, "source": "/probe", "type": format!("probe.{verb}"), "partitionkey": "k",
        "datacontenttype": if data.is_string() { "text/plain" } else { "application/json" }, "data": data,
    })
}

/// A bus on which each of these probes is a subscriber of the same topic.
pub(crate) struct Lab {
    pub(crate) bus: Bus,
    _folder: TempDir,
}

impl Lab {
    /// A bus with the probes, each of which has this time per event.
    pub(crate) fn new(probes: &[Probe], time: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut topics, mut subscribers) = ("  in: {}\n".to_owned(), String::new());
        for Probe { language, wasm } in probes {
            let _ = writeln!(topics, "  {language}.out: {{}}\n  {language}.other: {{}}");
            let _ = writeln!(
                subscribers,
                "  {language}:\n    from: in\n    plugin: {}\n    \
                 to: {{ out: {language}.out, other: {language}.other }}\n    \
                 config: {{ word: grüße, end: x }}\n    limits: {{ memory: 128MiB, time: {time}, log: 1000 }}\n    \
                 retry: {{ attempts: 3, backoff: {{ initial: 1ms, max: 2ms }} }}",
                wasm.display()
            );
        }
        let topology = format!("wattle: v1\nname: lab\ntopics:\n{topics}subscribers:\n{subscribers}");
        std::fs::write(folder.path().join("lab.yaml"), topology).unwrap();
        let mut command = wattle();
        command.arg("run").arg(folder.path().join("lab.yaml")).arg("--data").arg(folder.path().join("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        Self { bus: Bus::spawn(command), _folder: folder }
    }

    /// Publishes events, and waits until nothing is left to be done.
    pub(crate) fn handle(&self, events: &str) {
        self.publish(events);
        self.settle();
    }

    pub(crate) fn publish(&self, events: &str) {
        self.bus.run_with(&["publish", "in", "--file", "-"], events).ok();
    }

    pub(crate) fn settle(&self) {
        let begin = Instant::now();
        loop {
            let status: Value = serde_json::from_str(&self.bus.run(&["status", "-o", "json"]).ok()).unwrap();
            let subscribers = status["subscribers"].as_array().unwrap();
            if subscribers.iter().all(|of| of["lag"] == 0 && of["retry_queue"] == 0) {
                return;
            }
            assert!(begin.elapsed() < 5 * PATIENCE, "{subscribers:#?}");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    /// Everything in a topic.
    pub(crate) fn events(&self, topic: &str) -> Vec<Value> {
        self.bus.run(&["tail", topic, "--from", "earliest"]).json()
    }

    /// The state of a subscriber: values by bucket and key.
    pub(crate) fn state(&self, subscriber: &str) -> BTreeMap<(String, String), Value> {
        let lines = self.bus.run(&["state", "export", subscriber]).json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        lines
            .into_iter()
            .map(|mut line| {
                let of = (text(&line["bucket"]), text(&line["key"]));
                let fields = line.as_object_mut().unwrap();
                fields.retain(|name, _| name.starts_with("value"));
                (of, line)
            })
            .collect()
    }
}
