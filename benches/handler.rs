//! What does the host add to a component's own time per event?
//!
//! The plugin `validate` reads an order of 240 bytes as JSON, checks it and passes it on. `host` calls it as dispatch
//! does: a lease from the pool, time slices, checked answers. `bare` calls the same component in a loop with nothing of
//! that: synchronously, one instance, no deadline, answers thrown away. Both per batch of 1, 16 and 256 events.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark may panic")]
#![allow(missing_docs, reason = "a benchmark has no readers of its documentation")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use wattle::model::call::{Batch, CallEvent, EventContext, Limits, LogLevel, NoState};
use wattle::wasm::{Host, HostOptions, PluginSpec};

#[path = "../tests/common/guests.rs"]
#[allow(unreachable_pub, dead_code, reason = "shared with tests")]
mod guests;

const ORDER: &str = r#"{"order_id":"o-0001","status":"created","currency":"EUR","customer":{"name":"Mila Horak","email":"mila@example.test"},"items":[{"sku":"rug","qty":6,"price_cents":8900},{"sku":"vase","qty":1,"price_cents":1450}],"total_cents":54850}"#;

const BATCHES: [usize; 3] = [1, 16, 256];

struct Silent;

impl EventContext for Silent {
    fn attributes(&self, _: u32) -> String {
        String::new()
    }
    fn seed(&self, _: u32) -> [u8; 32] {
        [0; 32]
    }
    fn log(&self, _: Option<u32>, _: LogLevel, _: &str, _: &str) {}
}

fn host(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let spec = PluginSpec {
        hidden: Default::default(),
        subscriber: "validate".into(),
        wasm: guests::guest("validate"),
        config: BTreeMap::new(),
        ports: vec!["accepted".into(), "refused".into()],
        limits: Limits::default(),
    };
    let plugin = Host::new(HostOptions::default()).unwrap().register(spec).unwrap();
    let context: Arc<dyn EventContext> = Arc::new(Silent);
    let mut group = c.benchmark_group("host");
    for size in BATCHES {
        let event = CallEvent {
            key: "o-0001",
            r#type: "order.created",
            time_ns: 1,
            trusted_time_ns: 1,
            attempt: 1,
            data: ORDER.as_bytes(),
        };
        let events = vec![event; size];
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &events, |b, events| {
            b.iter(|| {
                let batch = Batch {
                    topic: "orders",
                    partition: 0,
                    content_type: "application/json",
                    events,
                    context: Arc::clone(&context),
                    state: Arc::new(NoState),
                };
                runtime.block_on(async {
                    let mut lease = plugin.instance().await.unwrap();
                    let handled = lease.handle(batch).await.unwrap();
                    assert_eq!(handled.outputs.len(), events.len());
                })
            });
        });
    }
    group.finish();
}

/// The contract's types once more, for the bare loop.
mod bare_types {
    use wasmtime::component::{ComponentType, Lift, Lower};

    #[derive(Clone, ComponentType, Lower)]
    #[component(record)]
    pub(crate) struct Info<'a> {
        pub(crate) topic: &'a str,
        pub(crate) partition: u32,
        #[component(name = "content-type")]
        pub(crate) content_type: &'a str,
    }

    #[derive(Clone, ComponentType, Lower)]
    #[component(record)]
    pub(crate) struct Event<'a> {
        pub(crate) key: &'a str,
        #[component(name = "type")]
        pub(crate) kind: &'a str,
        pub(crate) time: u64,
        pub(crate) attempt: u32,
        pub(crate) data: &'a [u8],
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    #[allow(dead_code, reason = "read into, and thrown away")]
    pub(crate) struct Output {
        pub(crate) event: u32,
        pub(crate) port: u32,
        pub(crate) key: Option<String>,
        #[component(name = "type")]
        pub(crate) kind: String,
        #[component(name = "content-type")]
        pub(crate) content_type: String,
        pub(crate) attributes: String,
        pub(crate) data: Vec<u8>,
    }

    #[derive(ComponentType, Lift)]
    #[component(variant)]
    #[allow(dead_code, reason = "read into, and thrown away")]
    pub(crate) enum Action {
        #[component(name = "retry")]
        Retry(Option<u64>),
        #[component(name = "reject")]
        Reject,
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    #[allow(dead_code, reason = "read into, and thrown away")]
    pub(crate) struct Failure {
        pub(crate) event: u32,
        pub(crate) action: Action,
        pub(crate) reason: String,
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    #[allow(dead_code, reason = "read into, and thrown away")]
    pub(crate) struct Handled {
        pub(crate) outputs: Vec<Output>,
        pub(crate) failed: Option<Failure>,
    }

    #[derive(ComponentType, Lower)]
    #[component(variant)]
    #[allow(dead_code, reason = "never happens")]
    pub(crate) enum ConfigError {
        #[component(name = "upstream")]
        Upstream(String),
        #[component(name = "io")]
        Io(String),
    }
}

fn bare(c: &mut Criterion) {
    use bare_types::{ConfigError, Event, Handled, Info};
    use wasmtime::component::{Component, Linker};
    use wasmtime::{Config, Engine, InstanceAllocationStrategy, Store};

    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::pooling()).epoch_interruption(true);
    config.concurrency_support(false).cranelift_nan_canonicalization(true);
    let engine = Engine::new(&config).unwrap();
    let component = Component::from_binary(&engine, &guests::guest("validate")).unwrap();
    let mut linker = Linker::<()>::new(&engine);
    let mut context = linker.instance("wattle:plugin/context@0.1.0").unwrap();
    context.func_wrap("current", |_, (_,): (u32,)| Ok(())).unwrap();
    let mut store = linker.instance("wasi:config/store@0.2.0-rc.1").unwrap();
    store.func_wrap("get", |_, (_,): (String,)| Ok((Ok::<Option<String>, ConfigError>(None),))).unwrap();
    linker.define_unknown_imports_as_traps(&component).unwrap();

    let mut store = Store::new(&engine, ());
    store.set_epoch_deadline(u64::MAX / 2);
    let instance = linker.instantiate(&mut store, &component).unwrap();
    let handler = instance.get_export_index(&mut store, None, "wattle:plugin/handler@0.1.0").unwrap();
    let handle = instance.get_export_index(&mut store, Some(&handler), "handle").unwrap();
    let handle = instance.get_typed_func::<(Info<'_>, &[Event<'_>]), (Handled,)>(&mut store, handle).unwrap();

    let mut group = c.benchmark_group("bare");
    for size in BATCHES {
        let event = Event { key: "o-0001", kind: "order.created", time: 1, attempt: 1, data: ORDER.as_bytes() };
        let events = vec![event; size];
        group.throughput(Throughput::Elements(size as u64));
        group.bench_with_input(BenchmarkId::from_parameter(size), &events, |b, events| {
            b.iter(|| {
                let info = Info { topic: "orders", partition: 0, content_type: "application/json" };
                black_box(handle.call(&mut store, (info, events)).unwrap());
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bare, host);
criterion_main!(benches);
