//! What the measurements share: the example plugins, orders for them, and a bus in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use super::super::load::World;
use super::super::{Failure, build, say};
use super::yardstick::{Groups, Recording};
use crate::dispatch::{Handler, Tree};
use crate::effects::{DiskFolder, SystemClock};
use crate::engine::Engine;
use crate::engine::embedded::{EmbeddedEngine, LogOptions};
use crate::model::event::Data;
use crate::model::{Attribute, Event};
use crate::server::{Bus, Options, Port, Server};
use crate::topology::{Plan, Source, check};
use crate::wasm::{Host, HostOptions, Limits, Plugin, PluginSpec};

/// The plugins that an order goes through, in their order.
pub(super) const PLUGINS: [&str; 4] = ["validate", "inventory", "shipping", "notify"];

/// The plan of a topology that is made here.
pub(super) fn plan(text: String) -> Result<Plan, Failure> {
    let (plan, diagnostics) = check(&[Source { path: PathBuf::from("bench.yaml"), text }], &World);
    plan.ok_or_else(|| Failure::failed(format!("the topology of the measurement is refused: {diagnostics:?}")))
}

/// The components of the example plugins, built.
pub(super) fn components(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>, Failure> {
    if !folder.is_dir() {
        let words = format!(
            "there is no folder {} with the example plugins: run this in a checkout of Wattle, or name it with --plugins",
            folder.display()
        );
        return Err(Failure::new(super::super::Exit::Usage, words));
    }
    let build = |name: &&str| {
        say(&format!("building {name}"));
        let built = build::build_folder(&folder.join(name), &mut |_| {}).map_err(Failure::failed)?;
        // A topology elsewhere names it.
        built.wasm.canonicalize().map_err(|error| Failure::failed(format!("{}: {error}", built.wasm.display())))
    };
    names.iter().map(build).collect()
}

/// The topology of the orders' tree, its first levels.
pub(super) fn topology(components: &[PathBuf]) -> String {
    let topics = ["orders", "accepted", "reserved", "parcels", "messages"];
    let ports = ["accepted", "reserved", "shipped", "sent"];
    let others = [("refused", 0), ("short", 1)];
    let mut text = String::from("wattle: v1\nname: bench\ntopics:\n  orders: { partitions: 8, key: data.order_id }\n");
    for topic in topics.iter().skip(1).take(components.len()) {
        text += &format!("  {topic}: {{}}\n");
    }
    for (topic, _) in others.iter().filter(|(_, level)| *level < components.len()) {
        text += &format!("  {topic}: {{}}\n");
    }
    text += "subscribers:\n";
    for (level, ((name, component), (port, [from, to]))) in
        PLUGINS.iter().zip(components).zip(ports.iter().zip(topics.array_windows())).enumerate()
    {
        let other = others.iter().find(|(_, of)| *of == level);
        let other = other.map_or(String::new(), |(topic, _)| format!(", {topic}: {topic}"));
        let config = if *name == "inventory" { "    config: { stock: \"rug=*\" }\n" } else { "" };
        let component = serde_json::json!(component.display().to_string());
        text += &format!(
            "  {name}:\n    from: {from}\n    plugin: {component}\n    to: {{ {port}: {to}{other} }}\n{config}"
        );
    }
    text
}

/// A paid order, which goes through all levels. `number` is in its key.
pub(super) fn order(number: u64) -> Bytes {
    let data = format!(
        r#"{{"order_id":"o-{number}","status":"paid","currency":"EUR","customer":{{"name":"Mila Horak","email":"mila@example.test"}},"items":[{{"sku":"rug","qty":1,"price_cents":8900}}],"total_cents":8900}}"#
    );
    let mut event = Event {
        id: format!("o-{number}-paid"),
        source: "/shop/checkout".to_owned(),
        r#type: "order.paid".to_owned(),
        data: Some(Data::Binary(data.into())),
        ..Event::default()
    };
    event.attributes.insert("datacontenttype".to_owned(), Attribute::String("application/json".to_owned()));
    event.encode()
}

/// The number of an order in its key.
pub(super) fn number_of(key: &str) -> Option<u64> {
    key.strip_prefix("o-")?.parse().ok()
}

/// Registers the plugins of a plan whose subscribers are [`PLUGINS`].
pub(super) fn plugins(host: &Host, plan: &Plan, components: &[PathBuf]) -> Result<Vec<Plugin>, Failure> {
    let mut plugins = Vec::new();
    for subscriber in &plan.subscribers {
        let level = PLUGINS.iter().position(|name| *name == subscriber.name).unwrap_or(0);
        let component = components.get(level).ok_or_else(|| Failure::failed("a plugin is missing"))?;
        let wasm = std::fs::read(component)
            .map_err(|error| Failure::failed(format!("cannot read {}: {error}", component.display())))?;
        let config = match subscriber.name.as_str() {
            "inventory" => [("stock".to_owned(), "rug=*".to_owned())].into(),
            _ => Default::default(),
        };
        let ports = subscriber.ports.iter().map(|(port, _)| port.clone()).collect();
        let spec = PluginSpec { subscriber: subscriber.label(), wasm, config, ports, limits: Limits::default() };
        plugins.push(host.register(spec).map_err(Failure::failed)?);
    }
    Ok(plugins)
}

/// A sandbox.
pub(super) fn host() -> Result<Host, Failure> {
    Host::new(HostOptions::default()).map_err(Failure::failed)
}

/// A bus in this process, with the runtimes that it has in its own.
pub(super) struct Bed {
    pub(super) engine: EmbeddedEngine,
    pub(super) groups: Groups,
    service: Runtime,
    lanes: Runtime,
}

impl Bed {
    /// An engine on a folder.
    pub(super) fn new(folder: &Path) -> Result<Self, Failure> {
        let runtime = || {
            let runtime = Builder::new_multi_thread().enable_all().build();
            runtime.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))
        };
        let (service, lanes) = (runtime()?, runtime()?);
        let disk = DiskFolder::create(folder)
            .map_err(|error| Failure::failed(format!("cannot create {}: {error}", folder.display())))?;
        let groups = Groups::default();
        let disk = Arc::new(Recording { disk, groups: groups.clone() });
        let engine = {
            let _entered = service.enter();
            EmbeddedEngine::open_with(folder, disk, Arc::new(SystemClock), LogOptions::default())
                .map_err(Failure::failed)?
        };
        Ok(Self { engine, groups, service, lanes })
    }

    /// Starts a tree on it.
    pub(super) fn tree<H: Handler>(&self, plan: &Plan, handlers: Vec<H>) -> Result<Tree<EmbeddedEngine>, Failure> {
        let started = Tree::start(self.engine.clone(), plan, handlers, self.lanes.handle());
        self.service.block_on(started).map_err(Failure::failed)
    }

    /// Serves a tree on a free port.
    pub(super) fn serve(&self, tree: &Tree<EmbeddedEngine>) -> Result<Server, Failure> {
        let options = Options { listen: ([127, 0, 0, 1], 0).into(), insecure_allow_remote: false };
        let _entered = self.service.enter();
        let snapshot = {
            let tree = tree.clone();
            Arc::new(move || tree.snapshot())
        };
        let bus = Bus { publisher: tree.publisher().clone(), engine: self.engine.clone(), snapshot };
        let port = Port::take(&options).map_err(Failure::failed)?;
        self.service.block_on(Server::start(port, bus)).map_err(Failure::failed)
    }

    /// Runs a future on the runtime of the service.
    pub(super) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.service.block_on(future)
    }

    /// Ends everything.
    pub(super) fn end(self, server: Option<Server>, tree: &Tree<EmbeddedEngine>) -> Result<(), Failure> {
        let within = std::time::Duration::from_secs(10);
        let closed = self.service.block_on(async {
            if let Some(server) = server {
                server.stop(within).await;
            }
            tree.drain(within).await;
            self.engine.close().await
        });
        closed.map_err(Failure::failed)
    }
}
