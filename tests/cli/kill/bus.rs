//! The real program on a data folder of its own.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::common::guests::guest_path;
use crate::common::trees::PATIENCE;
use crate::kill::orders::STOCK_CONFIG;

/// Lines of the log that are kept for a failed test.
const LINES_MAX: usize = 40;

/// The program, the topology and the data folder; the program itself runs in [`Running`].
pub(crate) struct Bus {
    folder: tempfile::TempDir,
    program: PathBuf,
    durability: &'static str,
}

/// A process.
pub(crate) struct Running {
    child: Child,
    /// Where it listens, once it does.
    pub(crate) address: watch::Receiver<Option<String>>,
    lines: Arc<Mutex<Vec<String>>>,
}

/// A subscriber, the topic that it takes from, and its ports with theirs.
pub(crate) type Subscriber = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

/// Names of the namespace's topics and, for each subscriber, what it takes and where its ports lead.
pub(crate) const TREE: [Subscriber; 4] = [
    ("validate", "orders", &[("accepted", "orders.accepted"), ("refused", "orders.refused")]),
    ("inventory", "orders.accepted", &[("reserved", "stock.reserved"), ("short", "stock.short")]),
    ("shipping", "stock.reserved", &[("shipped", "parcels")]),
    ("notify", "parcels", &[("sent", "messages")]),
];
/// Partitions of every topic.
pub(crate) const PARTITIONS: u32 = 4;

fn topology() -> String {
    let mut text =
        format!("wattle: v1\nname: shop\ntopics:\n  orders: {{ partitions: {PARTITIONS}, key: data.order_id }}\n");
    for (_, topic) in TREE.iter().flat_map(|(_, _, ports)| *ports) {
        text += &format!("  {topic}: {{}}\n");
    }
    text += "subscribers:\n";
    for (name, from, ports) in TREE {
        let ports: Vec<_> = ports.iter().map(|(port, topic)| format!("{port}: {topic}")).collect();
        let config = match name {
            "inventory" => format!("config: {{ stock: \"{STOCK_CONFIG}\" }}"),
            _ => "config: {}".to_owned(),
        };
        text += &format!(
            "  {name}:\n    from: {from}\n    plugin: {}\n    to: {{ {} }}\n    {config}\n    \
             retry: {{ attempts: 2, backoff: {{ initial: 1ms, max: 1ms }} }}\n",
            guest_path(name).display(),
            ports.join(", ")
        );
    }
    text
}

impl Bus {
    pub(crate) fn new(durability: &'static str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("orders.yaml"), topology()).unwrap();
        // A build in the meantime must not change what is started again.
        let program = folder.path().join("wattle");
        let built = Path::new(env!("CARGO_BIN_EXE_wattle"));
        if std::fs::hard_link(built, &program).is_err() {
            std::fs::copy(built, &program).unwrap();
        }
        Self { folder, program, durability }
    }

    pub(crate) fn start(&self) -> Running {
        let mut command = Command::new(&self.program);
        command.arg("run").arg(self.folder.path().join("orders.yaml"));
        command.arg("--data").arg(self.folder.path().join("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json", "--durability", self.durability]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WATTLE_")) {
            command.env_remove(name);
        }
        command.env("WATTLE_LOG", "error,wattle::cli=info").stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (announce, address) = watch::channel(None);
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (kept, stderr) = (lines.clone(), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let said: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                if said["message"] == "serving" {
                    announce.send_replace(said["address"].as_str().map(str::to_owned));
                }
                let mut kept = kept.lock().unwrap();
                if kept.len() == LINES_MAX {
                    kept.remove(0);
                }
                kept.push(line);
            }
        });
        Running { child, address, lines }
    }
}

impl Running {
    /// The last lines of its log.
    pub(crate) fn log(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Where it listens, once it does.
    pub(crate) async fn serving(&mut self) -> String {
        let address = tokio::time::timeout(PATIENCE, self.address.wait_for(Option::is_some)).await;
        match address.map(|address| address.map(|address| address.clone())) {
            Ok(Ok(Some(address))) => address,
            other => panic!("it does not serve: {other:?}\n{}", self.log()),
        }
    }

    /// Ends it without any warning.
    pub(crate) fn kill(mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "it had ended by itself:\n{}", self.log());
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let kill = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(kill.success());
        let asked = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(asked.elapsed() < PATIENCE, "it does not stop:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Where a test has failed, nobody else ends it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
