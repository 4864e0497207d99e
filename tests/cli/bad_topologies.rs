//! A hundred topologies that cannot be, put to a bus that runs a good one, under load and at its start.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wattle::api::{Digest, Proposal};
use wattle::client::{Client, ReadRequest};
use wattle::model::Event;

use super::bus::{Bus, Ran, wattle};
use crate::common::guests::{guest, guest_path};
use crate::common::trees::{PATIENCE, event};

const GOOD: &str = "wattle: v1
name: shop
topics:
  jobs: { partitions: 2, retention: { age: 7d, size: 1GiB }, dedupe: { window: 1m } }
  done: {}
  sent: {}
  notes: { key: data.id }
subscribers:
  work:
    from: jobs
    plugin: work.wasm
    to: { done: done }
    config: { describe: done }
    limits: { memory: 64MiB, time: 1s, output: 1MiB }
    retry: { attempts: 2, backoff: { initial: 1ms, max: 10ms, factor: 2 } }
    on_failure: dead_letter
  tell:
    from: done
    plugin: work.wasm
    to: [sent]
    config: { describe: sent }
";

/// A mistake: this, in place of that, and words that are said of it.
type Mistake = (&'static str, &'static str, &'static str);

/// Where the text is enough to see it.
#[rustfmt::skip]
const IN_THE_TEXT: &[Mistake] = &[
    ("to: [sent]", "to: [sent", "this is not YAML: illegal placement of ':' indicator"),
    ("{ done: done }", "{ done: done", "this is not YAML: while parsing a flow mapping, did not find expected ',' or \
        '}'"),
    ("name: shop", "name: \"shop", "this is not YAML: invalid indentation in multiline quoted scalar"),
    ("    from: jobs", "	from: jobs", "this is not YAML: tabs disallowed within this context (block indentation)"),
    ("    from: done\n", "    from: done\n    from: done\n", "`from` is declared twice: a key can be there once"),
    ("    from: jobs", "    from jobs", "this is not YAML: mapping values are not allowed in this context"),
    ("from: jobs", "from: *jobs", "there is no anchor `&jobs` before this"),
    ("  done: {}", "done: {}", "this is not YAML: while parsing a block mapping, did not find expected key"),
    ("name: shop", "<<<<<<< HEAD\nname: shop", "this is not YAML: simple key expected ':'"),
    ("wattle: v1", "wattle: v2", "`wattle` cannot be `v2`"),
    ("wattle: v1\n", "", "a topology needs the key `wattle`"),
    ("wattle: v1", "wattle: 1", "`wattle` cannot be `1`"),
    ("name: shop\n", "", "a topology needs the key `name`"),
    ("name: shop", "name: my shop", "a name cannot have spaces"),
    ("name: shop", "name: my/shop", "a name cannot have `/`"),
    ("name: shop", "name: \"\"", "this name is empty"),
    ("name: shop", "name: [shop]", "a name is needed here, this is a list"),
    ("topics:\n  jobs", "topics: ~\nx:\n  jobs", "a topology has no key `x`"),
    ("subscribers:", "subscriber:", "a topology has no key `subscriber`"),
    ("partitions: 2", "partitons: 2", "`jobs` has no key `partitons`"),
    ("    plugin: work.wasm\n    to: [sent]", "    plugn: work.wasm\n    to: [sent]", "`tell` has no key `plugn`"),
    ("attempts: 2", "attemps: 2", "`retry` has no key `attemps`"),
    ("factor: 2", "faktor: 2", "`backoff` has no key `faktor`"),
    ("memory: 64MiB", "memry: 64MiB", "`limits` has no key `memry`"),
    ("age: 7d", "ages: 7d", "`retention` has no key `ages`"),
    ("window: 1m", "windows: 1m", "`dedupe` has no key `windows`"),
    ("partitions: 2", "partitions: 0", "`partitions` is a whole number from 1 to 1024, not `0`"),
    ("partitions: 2", "partitions: -1", "`partitions` is a whole number from 1 to 1024, not `-1`"),
    ("partitions: 2", "partitions: 1.5", "`partitions` is a whole number from 1 to 1024, not `1.5`"),
    ("partitions: 2", "partitions: two", "`partitions` is a whole number from 1 to 1024, not `two`"),
    ("partitions: 2", "partitions: 100000000", "`partitions` is a whole number from 1 to 1024, not `100000000`"),
    ("partitions: 2", "partitions: [2]", "a whole number is needed here, this is a list"),
    ("age: 7d", "age: 7", "`age` is a duration, not `7`: the unit is missing"),
    ("age: 7d", "age: 7 fortnights", "`age` is a duration, not `7 fortnights`: `fortnights` is not a unit"),
    ("size: 1GiB", "size: 1", "`size` is a size, not `1`: the unit is missing"),
    ("size: 1GiB", "size: -1GiB", "`size` is a size, not `-1GiB`: a number with a unit is needed"),
    ("window: 1m", "window: -1m", "`window` is a duration, not `-1m`: a number with a unit is needed"),
    ("  done: {}", "  done: []", "a mapping is needed here, this is a list"),
    ("key: data.id", "key: data.", "`.` does not fit here in a CEL expression"),
    ("key: data.id", "key: dat.id", "there is no variable `dat`"),
    ("key: data.id", "key: data.id, lifecycle: { state: data.s, allow: { a: [b] } }", "`lifecycle` needs the key \
        `start`"),
    ("key: data.id", "key: data.id, lifecycle: { state: data.s, start: [a], allow: { a: [b] }, restart: true, \
        remember: 1h }", "`remember` with `restart: true`"),
    ("key: data.id", "key: data.id, lifecycle: { state: \"data.s +\", start: [a], allow: { a: [b] } }", "something is \
        missing at the end of this expression"),
    ("key: data.id", "key: data.id, compression: zip", "`compression` cannot be `zip`"),
    ("key: data.id", "key: data.id, backlog: -5", "`backlog` is a whole number from 1, not `-5`"),
    ("key: data.id", "key: data.id, when_full: drop", "`when_full` cannot be `drop`"),
    ("key: data.id", "key: data.id, renamed_from: done", "`done` is still declared, so nothing else can have been \
        called so"),
    ("attempts: 2", "attempts: 0", "`attempts` is a whole number from 1 to 1000, not `0`"),
    ("attempts: 2", "attempts: many", "`attempts` is a whole number from 1 to 1000, not `many`"),
    ("factor: 2", "factor: 0", "`factor` is a number from 1 to 100, not `0`"),
    ("initial: 1ms", "initial: 1", "the longest pause, 10ms, is shorter than the first, 100ms"),
    ("initial: 1ms, max: 10ms", "initial: 10s, max: 1s", "the longest pause, 1s, is shorter than the first, 10s"),
    ("on_failure: dead_letter", "on_failure: explode", "`on_failure` cannot be `explode`"),
    ("memory: 64MiB", "memory: 64", "`memory` is a size, not `64`: the unit is missing"),
    ("memory: 64MiB", "memory: 900TiB", "`memory` is from 1MiB to 4GiB, not `900TiB`"),
    ("time: 1s", "time: 0s", "`time` is from 1ms to 1h, not `0s`"),
    ("time: 1s", "time: soon", "`time` is a duration, not `soon`: a number with a unit is needed"),
    ("output: 1MiB", "output: big", "`output` is a size, not `big`: a number with a unit is needed"),
    ("on_failure: dead_letter", "delivery: sometimes", "`delivery` cannot be `sometimes`"),
    ("on_failure: dead_letter", "rate: fast", "`rate` is events per time, not `fast`"),
    ("on_failure: dead_letter", "rate: 0/s", "`rate` is events per time, not `0/s`"),
    ("on_failure: dead_letter", "concurrency: 0", "`concurrency` is a whole number from 1, not `0`"),
    ("on_failure: dead_letter", "batch: { max: 0 }", "`max` is a whole number from 1 to 256, not `0`"),
    ("on_failure: dead_letter", "start: yesterday", "`start` is `earliest`, `latest` or a time, not `yesterday`"),
    ("on_failure: dead_letter", "state: { ttl: long }", "`ttl` is a duration, not `long`: a number with a unit is \
        needed"),
    ("on_failure: dead_letter", "capsules: -1", "`capsules` is a whole number from 0 to 1000, not `-1`"),
    ("on_failure: dead_letter", "retry_queue: { max: 0 }", "`max` is a whole number from 1 to 1000000, not `0`"),
    ("on_failure: dead_letter", "when: data.a >", "something is missing at the end of this expression"),
    ("on_failure: dead_letter", "when: [a]", "an expression is needed here, this is a list"),
    ("config: { describe: sent }", "config: [sent]", "a mapping is needed here, this is a list"),
    ("config: { describe: sent }", "config: { describe: { a: b } }", "`describe` has no key `a`"),
    ("config: { describe: sent }", "config: { describe: sent, a: \"${NOWHERE_SET}\" }", "the environment variable \
        `NOWHERE_SET` is not set"),
    ("to: [sent]", "to: [sent, sent]", "`sent` is declared twice: in a list, each topic is a port"),
    ("to: [sent]", "to: sent", "topics by port are needed here, this is a text"),
    ("    from: done", "    from: [done]", "a text is needed here, this is a list"),
    ("    from: done\n", "", "`tell` needs the key `from`"),
    ("on_failure: dead_letter", "queue_group: \"\"", "this name is empty"),
    ("on_failure: dead_letter", "grants: { http: [example.test] }", "this release does not do `grants` yet"),
    ("from: done", "from: dune", "the namespace `shop` has no topic `dune`"),
    ("to: [sent]", "to: [send]", "the namespace `shop` has no topic `send`"),
    ("from: jobs", "from: sent", "events would go in a circle: done → tell → sent → work → done"),
    ("from: done", "from: sent", "`tell` publishes to the topic that it takes from, `sent`"),
    ("    to: [sent]", "    to: [sent, done]", "`tell` publishes to the topic that it takes from, `done`"),
    ("subscribers:", "subscribers:\n  third: { from: jobs, plugin: work.wasm, to: { done: done } }", "the topic `done` \
        has two parents, `third` and `work`"),
    ("    to: [sent]", "    to: [sent, jobs]", "events would go in a circle: jobs → work → done → tell → jobs"),
    ("  sent: {}", "  sent: {}\n  work.dead: {}", "`work.dead` is reserved: topics that end with `.dead` have dead \
        letters"),
    ("  tell:", "  work:", "`work` is declared twice: a key can be there once"),
    ("  sent: {}", "  sent: {}\n  sent: {}", "`sent` is declared twice: a key can be there once"),
    ("    plugin: work.wasm\n    to: [sent]", "    to: [sent]", "`tell` needs the key `plugin`"),
    ("    to: [sent]", "    to: [sent]\n    push: { url: \"https://example.test/\" }", "`tell` has both `plugin` and \
        `push`"),
    ("    plugin: work.wasm\n    to: [sent]", "    push: { url: \"https://example.test/\" }", "`config` does not go \
        with `push`: only a plugin has it"),
    ("    plugin: work.wasm\n    to: [sent]", "    pull: {}", "`config` does not go with `pull`: only a plugin has it"),
    ("    plugin: work.wasm\n    to: [sent]", "    plugin: work@0123456789abcdef\n    to: [sent]", "this release does \
        not do `plugin: name@digest` yet"),
];

/// Where it takes a look at files, or at what runs.
#[rustfmt::skip]
const AROUND_IT: &[Mistake] = &[
    ("key: data.id", "key: data.id, schema: nowhere.json", "nowhere.json` does not exist"),
    ("key: data.id", "key: data.id, schema: broken.json", "broken.json` is not JSON"),
    ("key: data.id", "key: data.id, schema: remote.json", "refers to `https://example.test/a.json`, which is not in \
        the file"),
    ("plugin: work.wasm\n    to: [sent]", "plugin: gone.wasm\n    to: [sent]", "there is nothing at"),
    ("plugin: work.wasm\n    to: [sent]", "plugin: .\n    to: [sent]", "is not the source of a plugin: it has no \
        manifest"),
    ("plugin: work.wasm\n    to: [sent]", "plugin: shop.yaml\n    to: [sent]", "is a file, but not a Wasm component"),
    ("partitions: 2", "partitions: 3", "topic `shop/jobs` has 2 partitions and cannot have 3"),
    ("partitions: 2, ", "", "topic `shop/jobs` has 2 partitions and cannot have 1"),
    ("  done: {}", "  done: { partitions: 4 }", "topic `shop/done` has 2 partitions and cannot have 4"),
    ("    to: [sent]", "    to: { sent: other }", "topic `shop/sent` still has"),
    ("from: jobs", "from: tasks", "topic `shop/jobs` still has"),
];

/// Where a component has to be looked at. Only a command is refused for it: a start goes on with what was decided
/// before.
#[rustfmt::skip]
const IN_A_PLUGIN: &[Mistake] = &[
    ("describe: sent }", "describe: sent, key: { file: nowhere } }", "nowhere"),
    ("to: { done: done }", "to: { done: done, more: done }", "`more`"),
    ("to: [sent]", "to: { other: sent }", "`other`"),
    ("describe: sent", "describe: panic", "no ports today"),
    ("describe: sent", "describe: loop", "shop/tell"),
    ("plugin: work.wasm\n    to: [sent]", "plugin: empty.wasm\n    to: [sent]", "empty.wasm is refused: this is not a \
        WebAssembly file"),
    ("plugin: work.wasm\n    to: [sent]", "plugin: script.wasm\n    to: [sent]", "script.wasm is refused: this is not \
        a WebAssembly file"),
    ("plugin: work.wasm\n    to: [sent]", "plugin: module.wasm\n    to: [sent]", "module.wasm is refused: "),
    ("plugin: work.wasm\n    to: [sent]", "plugin: world.wasm\n    to: [sent]", "world.wasm is refused: "),
    ("plugin: work.wasm\n    to: [sent]", "plugin: cut.wasm\n    to: [sent]", "cut.wasm is refused: "),
    ("plugin: work.wasm\n    to: [sent]", "plugin: validate.wasm\n    to: [sent]", "the plugin has no setting \
        `describe`"),
];

/// A file, and words that are said of it.
struct Bad {
    text: Vec<u8>,
    words: &'static str,
}

fn with(&(this, that, words): &Mistake) -> Bad {
    assert!(GOOD.contains(this), "{this}");
    let text = GOOD.replacen(this, that, 1);
    let text = match that {
        "    to: { sent: other }" => text.replace("  sent: {}", "  other: {}"),
        "from: tasks" => text.replace("  jobs: {", "  tasks: {"),
        _ => text,
    };
    Bad { text: text.into(), words }
}

/// Texts that are refused by whoever reads them.
fn in_the_text() -> Vec<Bad> {
    let mut all: Vec<Bad> = IN_THE_TEXT.iter().map(with).collect();
    // A file that is still being written.
    for end in ["done: do", "{ memory: 64Mi", "backoff: { initial"] {
        let end = GOOD.find(end).unwrap() + end.len();
        all.push(Bad { text: GOOD[..end].into(), words: "this is not YAML" });
    }
    all.push(Bad { text: Vec::new(), words: "empty" });
    all.push(Bad { text: format!("{}1{}", "[".repeat(200), "]".repeat(200)).into(), words: "deep" });
    all
}

fn around_it() -> Vec<Bad> {
    let no_text = [GOOD.as_bytes(), &[0xff, b'\n']].concat();
    AROUND_IT.iter().map(with).chain([Bad { text: no_text, words: "is not UTF-8" }]).collect()
}

struct Shop {
    folder: TempDir,
}

impl Shop {
    fn new() -> Self {
        let shop = Self { folder: tempfile::tempdir().unwrap() };
        let work = guest("hostile");
        let component = |text: &str| wat::parse_str(text).unwrap();
        for (name, bytes) in [
            ("shop.yaml", GOOD.into()),
            ("broken.json", "{".into()),
            ("remote.json", r#"{ "$ref": "https://example.test/a.json" }"#.into()),
            ("empty.wasm", Vec::new()),
            ("script.wasm", "#!/bin/sh\nexit 0\n".into()),
            ("module.wasm", component("(module)")),
            ("world.wasm", component(r#"(component (instance $i) (export "wasi:cli/run@0.2.6" (instance $i)))"#)),
            ("validate.wasm", std::fs::read(guest_path("validate")).unwrap()),
            ("cut.wasm", work[..work.len() / 2].to_vec()),
            ("work.wasm", work),
        ] {
            std::fs::write(shop.path(name), bytes).unwrap();
        }
        shop
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, bad: &Bad) -> String {
        std::fs::write(self.path("bad.yaml"), &bad.text).unwrap();
        self.file("bad.yaml")
    }

    fn run(&self, topology: &str) -> std::process::Command {
        let mut command = wattle();
        command.args(["run", &self.file(topology), "--data", &self.file("data")]);
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json"]);
        command
    }

    /// A start that does not run its file: it ends by itself, or where the file only does not go with what runs, it
    /// serves what was applied. What it said.
    fn refused_start(&self) -> (Option<i32>, bool, String) {
        let mut command = self.run("bad.yaml");
        command.arg("--prune");
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let (mut said, mut serves) = (String::new(), false);
        for line in BufReader::new(child.stderr.take().unwrap()).lines() {
            let line = line.unwrap();
            serves = line.contains("\"serving\"");
            said += &(line + "\n");
            if serves {
                child.kill().unwrap();
                break;
            }
        }
        (child.wait().unwrap().code(), serves, said)
    }

    /// The component of each subscriber, as the good topology has it.
    fn proposal(&self, text: &[u8]) -> Proposal {
        let component = Digest::of(&std::fs::read(self.path("work.wasm")).unwrap());
        let components = ["shop/work", "shop/tell"].map(|name| (name.to_owned(), component.into()));
        let documents = vec![String::from_utf8(text.to_vec()).unwrap()];
        Proposal { documents, components: components.into(), prune: true, ..Proposal::default() }
    }
}

fn refused(ran: &Ran, bad: &Bad) {
    let text = String::from_utf8_lossy(&bad.text[..bad.text.len().min(GOOD.len() + 200)]);
    assert!(!matches!(ran.code, Some(0) | None), "{text}\n{ran:?}");
    let Bad { words, .. } = bad;
    assert!(ran.notices.contains(words), "it does not say {words:?}: {}\n{text}", ran.notices);
    assert!(!ran.notices.contains("thread '"), "it panicked: {}", ran.notices);
}

const KEYS: usize = 4;

fn job(key: usize, number: usize) -> String {
    format!("echo {key}-{number}")
}

/// Publishes jobs, one of each key after the other, until it is told to stop. How many of each.
async fn publish(client: Client, stop: Arc<AtomicBool>) -> usize {
    let mut published = 0;
    while !stop.load(Ordering::SeqCst) {
        let job = |key| event(&job(key, published), &key.to_string(), &job(key, published));
        client.publish("jobs", (0..KEYS).map(job).collect()).await.unwrap();
        published += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    published
}

/// The data of all that is in a topic, by key.
async fn read(client: &Client, topic: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut reading = client.read(ReadRequest { topic: topic.to_owned(), ..ReadRequest::default() }).await.unwrap();
    while let Some(events) = reading.next().await.unwrap() {
        for received in events {
            let data = Event::decode(&received.event).unwrap().data.unwrap();
            found.entry(received.key).or_default().push(String::from_utf8(data.as_bytes().to_vec()).unwrap());
        }
    }
    found
}

/// Every job was handled by both subscribers, once and in order.
async fn all_sent(client: &Client, published: usize) {
    let start = Instant::now();
    loop {
        let tree = client.status().await.unwrap().tree;
        let is_handled = tree.subscribers.iter().all(|subscriber| subscriber.lag + subscriber.waiting == 0);
        let mut partitions = tree.topics.iter().flat_map(|topic| &topic.partitions);
        if is_handled && partitions.all(|bounds| bounds.durable == bounds.written) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "{tree:#?}");
    }
    let jobs = |key: usize| (key.to_string(), (0..published).map(|number| job(key, number)).collect());
    let wanted: BTreeMap<String, Vec<String>> = (0..KEYS).map(jobs).collect();
    for topic in ["done", "sent"] {
        assert_eq!(read(client, topic).await, wanted, "{topic}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_bad_topologies_are_refused_while_the_good_one_serves_and_at_a_start() {
    let shop = Shop::new();
    let (in_the_text, around_it) = (in_the_text(), around_it());
    let in_a_plugin: Vec<Bad> = IN_A_PLUGIN.iter().map(with).collect();
    assert!(in_the_text.len() + around_it.len() + in_a_plugin.len() >= 100);
    let bus = Bus::spawn(shop.run("shop.yaml"));
    let client = Client::connect(&bus.address).await.unwrap();
    let versions = client.plugins().await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let jobs = tokio::spawn(publish(client.clone(), stop.clone()));
    while client.status().await.unwrap().tree.subscribers[1].handled == 0 {} // so that `sent` has something to lose
    for bad in in_the_text.iter().chain(&around_it).chain(&in_a_plugin) {
        refused(&bus.run(&["apply", "--prune", &shop.write(bad)]), bad);
    }
    // The bus does not rely on the command for that.
    for bad in &in_the_text {
        let error = client.apply(shop.proposal(&bad.text), true, None).await.unwrap_err().to_string();
        assert!(error.contains(bad.words), "it does not say {:?}: {error}", bad.words);
    }
    stop.store(true, Ordering::SeqCst);
    let published = jobs.await.unwrap();
    all_sent(&client, published).await;
    assert_eq!(client.plugins().await.unwrap(), versions);
    assert_eq!(bus.run(&["plan", &shop.file("shop.yaml")]).ok(), "nothing changes\n");
    bus.stop();

    let mut served = 0;
    for bad in in_the_text.iter().chain(&around_it) {
        shop.write(bad);
        let (code, serves, said) = shop.refused_start();
        assert!(said.contains(bad.words), "it does not say {:?}: {said}", bad.words);
        match serves {
            true => assert!(said.contains("the applied topology runs, not the files, which were refused"), "{said}"),
            false => refused(&Ran { code, out: String::new(), notices: said }, bad),
        }
        served += usize::from(serves);
    }
    assert!(served > 0, "some only do not go with what runs");
    let bus = Bus::spawn(shop.run("shop.yaml"));
    let client = Client::connect(&bus.address).await.unwrap();
    assert_eq!(client.plugins().await.unwrap(), versions);
    all_sent(&client, published).await;
    bus.stop();
}
