//! Real plugins in the sandbox: bad ones, while a good one serves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::runtime::Handle;
use wattle::api::{DeployOutcome, Policy};
use wattle::deploy::{ReloadError, Reloader, Store, begin};
use wattle::dispatch::Tree;
use wattle::effects::{MemoryDisk, SystemClock};
use wattle::engine::memory::MemoryEngine;
use wattle::limits::COMPONENT_BYTES_MAX;
use wattle::wasm::{Host, HostOptions};

use crate::common::guests::{guest, guest_path};
use crate::common::trees::{contents, event, plan_of, settled, status, until};

const SHOP: &str = "
wattle: v1
name: shop
topics: { orders: { partitions: 2 }, accepted: {}, refused: {} }
subscribers:
  validate: { from: orders, plugin: validate.wasm, to: [accepted, refused] }
";

struct Shop {
    tree: Tree<MemoryEngine>,
    reloader: Reloader<MemoryEngine, Host>,
    published: AtomicUsize,
}

impl Shop {
    async fn open() -> Self {
        let (plan, runtime) = (plan_of(&[SHOP]), Handle::current());
        let host = Host::new(HostOptions::default()).unwrap();
        let store = Store::open(MemoryDisk::default(), Arc::new(SystemClock)).unwrap();
        let begun = begin(store, &host, &plan, &[guest_path("validate")], &|_| ()).unwrap();
        let tree = Tree::start_with(MemoryEngine::default(), &plan, begun.starts, &runtime).await.unwrap();
        let versions = (begun.store, begun.notes);
        let reloader = Reloader::start(tree.clone(), host, &plan, versions, &runtime);
        Self { tree, reloader, published: AtomicUsize::new(0) }
    }

    /// Publishes an order that the first version accepts.
    async fn order(&self) {
        let id = format!("o-{}", self.published.fetch_add(1, Ordering::SeqCst));
        let data = format!(
            r#"{{"order_id":"{id}","status":"created","currency":"EUR","customer":{{"name":"N","email":"n@example.test"}},
            "items":[{{"sku":"rug","qty":1,"price_cents":100}}],"total_cents":100}}"#
        );
        self.tree.publisher().publish("orders", &[event(&id, &id, &data)], None).await.unwrap();
    }

    /// Every order was accepted, by this many versions.
    async fn all_accepted(&self, versions: usize) {
        settled(&self.tree).await;
        let accepted = contents(&self.tree, "accepted").await.concat();
        assert_eq!(accepted.len(), self.published.load(Ordering::SeqCst), "{:#?}", self.tree.snapshot());
        let mut numbers: Vec<_> = accepted.iter().map(|seen| seen.lineage.unwrap().version.0).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), versions);
        assert!(contents(&self.tree, "validate.dead").await.concat().is_empty());
    }
}

/// A component whose handler interface exists, with functions of no use, and whose core module is this.
fn with_handler(core: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $m {core} (func (export "f")))
            (core instance $i (instantiate $m))
            (func $f (canon lift (core func $i "f")))
            (instance $handler (export "describe" (func $f)) (export "handle" (func $f)))
            (export "wattle:plugin/handler@0.1.0" (instance $handler)))"#
    );
    wat::parse_str(text).unwrap()
}

/// A hundred of them, each with what it is.
fn bad_plugins() -> Vec<(String, Vec<u8>)> {
    let whole = guest("validate");
    let mut bad: Vec<(String, Vec<u8>)> = Vec::new();
    let mut add = |what: String, wasm: Vec<u8>| bad.push((what, wasm));
    add("empty".into(), Vec::new());
    add("a script".into(), b"#!/bin/sh\nexit 0\n".to_vec());
    add("traps at its start".into(), with_handler("(func $s unreachable) (start $s)"));
    add("is slow to start".into(), with_handler("(func $s (loop $l (br $l))) (start $s)"));
    add("has functions of another type".into(), with_handler(""));
    add("is huge".into(), {
        let mut huge = whole.clone();
        huge.resize(COMPONENT_BYTES_MAX as usize + 1, 0);
        huge
    });
    let worlds =
        ["(module)", "(component)", r#"(component (instance $i) (export "wasi:cli/run@0.2.6" (instance $i)))"#];
    for text in worlds {
        add(format!("of another world: {text}"), wat::parse_str(text).unwrap());
    }
    for import in ["wasi:http/types@0.2.12", "wasi:sockets/tcp@0.2.12", "a:b/c"] {
        let text = format!(
            r#"(component (import "{import}" (instance (export "f" (func))))
            (instance $i) (export "wattle:plugin/handler@0.1.0" (instance $i)))"#
        );
        add(format!("imports {import}"), wat::parse_str(text).unwrap());
    }
    for other in ["counter", "inventory", "shipping"] {
        add(format!("has the ports of {other}"), guest(other));
    }
    let cut = 100 - bad.len();
    for part in 1..=cut {
        bad.push((format!("cut after {part}/{}", cut + 1), whole[..whole.len() * part / (cut + 1)].to_vec()));
    }
    bad
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_bad_plugins_are_refused_while_the_good_one_serves() {
    let shop = Arc::new(Shop::open().await);
    let stop = Arc::new(AtomicBool::new(false));
    let orders = {
        let (shop, stop) = (shop.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                shop.order().await;
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        })
    };
    let bad = bad_plugins();
    assert_eq!(bad.len(), 100);
    for (what, wasm) in bad {
        let error = shop.reloader.deploy("validate", wasm, Policy::Swap, &what).await;
        let error = error.expect_err(&what);
        assert!(matches!(error, ReloadError::Refused(_)), "{what}: {error}");
        let said = status(&shop.tree.snapshot(), "shop/validate").reload.unwrap();
        assert!(said.contains("is refused, keeping the previous version"), "{said}");
    }
    stop.store(true, Ordering::SeqCst);
    orders.await.unwrap();
    shop.all_accepted(1).await;
    assert_eq!(shop.reloader.versions("validate").unwrap().len(), 1, "nothing of them is kept");
    assert!(shop.published.load(Ordering::SeqCst) > 100, "orders came all the while");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_compiles_and_handles_nothing_is_rolled_back_by_the_first_event() {
    let shop = Shop::open().await;
    shop.order().await;
    settled(&shop.tree).await;
    let began = Instant::now();
    let reloaded = shop.reloader.deploy("validate", guest("hostile"), Policy::Swap, "a test").await.unwrap();
    println!("compiled beside, kept and handed to the lanes in {:?}", began.elapsed());
    assert_eq!(reloaded.outcome, DeployOutcome::Tried);
    for _ in 0..10 {
        shop.order().await;
    }
    shop.all_accepted(1).await;
    until("it is taken back", || shop.reloader.list()[0].tried.is_none()).await;
    // that is decided first, and said behind it
    until("it is said", || status(&shop.tree.snapshot(), "shop/validate").reload.is_some()).await;
    let said = status(&shop.tree.snapshot(), "shop/validate").reload.unwrap();
    assert!(said.contains("was rolled back") && said.contains("no such verb"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_loads_what_was_compiled_and_decided() {
    let (folder, _built) = (tempfile::tempdir().unwrap(), guest_path("validate"));
    let start = || {
        let host = HostOptions { cache_folder: Some(folder.path().join("code")), ..HostOptions::default() };
        let (host, began) = (Host::new(host).unwrap(), Instant::now());
        let store = Store::open(
            wattle::effects::DiskFolder::create(&folder.path().join("plugins")).unwrap(),
            Arc::new(SystemClock),
        )
        .unwrap();
        let begun = begin(store, &host, &plan_of(&[SHOP]), &[guest_path("validate")], &|_| ()).unwrap();
        assert!(begun.starts[0].on_trial.is_none());
        began.elapsed()
    };
    let (first, second) = (start(), start());
    println!("a first start {first:?}, a second one {second:?}");
}
