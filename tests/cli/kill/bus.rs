//! The real program on a data folder of its own.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use crate::common::guests::guest_path;
use crate::common::process::{Process, address, program as wattle};
use crate::kill::orders::STOCK_CONFIG;

/// The program, the topology and the data folder; the program itself runs in [`Running`].
pub(crate) struct Bus {
    folder: tempfile::TempDir,
    program: PathBuf,
    durability: &'static str,
}

pub(crate) struct Running(Process);

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
        let mut command = wattle(&self.program);
        command.arg("run").arg(self.folder.path().join("orders.yaml"));
        command.arg("--data").arg(self.folder.path().join("data"));
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json", "--durability", self.durability]);
        command.env("WATTLE_LOG", "error,wattle::cli=info").stdout(Stdio::null());
        Running(Process::spawn(&mut command).unwrap())
    }
}

impl Running {
    /// Waits until it serves: the address.
    pub(crate) fn serving(&mut self) -> String {
        let found = tokio::task::block_in_place(|| self.0.find(address));
        found.unwrap_or_else(|| panic!("it does not serve:\n{}", self.0.said()))
    }

    /// Ends it without any warning.
    pub(crate) fn kill(self) {
        self.0.kill();
    }

    /// Asks it to end.
    pub(crate) fn terminate(self) -> ExitStatus {
        self.0.signal("TERM");
        tokio::task::block_in_place(|| self.0.end().0)
    }
}
