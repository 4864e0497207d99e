//! What is applied, as it is kept: what is read is what was written, by which release ever, and nothing is shown that
//! is not to be.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wattle::api::{Digest, Proposal};
use wattle::deploy::{Files, SecretFolders, Store, TopologyError, adopt, instead, rooted};
use wattle::effects::{Disk, MemoryDisk, SystemClock};
use wattle::engine::memory::MemoryEngine;
use wattle::topology::{
    ConfigValue, FilesDigest, PathKind, Plan, PluginSource, Source, SubscriberKind, Surroundings, check_said,
};

use crate::common::trees::plan_of;
use crate::reload::bed::ONE;

/// Where the files of the golden records were.
const THERE: &str = "/srv/shop";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/formats").join(name)
}

/// What the files of the golden records were surrounded by.
struct There {
    word: &'static str,
    region: Option<&'static str>,
}

const USUAL: There = There { word: "hello", region: None };

impl Surroundings for There {
    fn variable(&self, name: &str) -> Option<String> {
        match name {
            "WORD" => Some(self.word.to_owned()),
            "REGION" => self.region.map(str::to_owned),
            _ => None,
        }
    }

    fn at(&self, _: &Path) -> PathKind {
        PathKind::File
    }

    fn text(&self, path: &Path, _: usize) -> Result<String, String> {
        std::fs::read_to_string(fixture("topology-v1").join(path)).map_err(|error| error.to_string())
    }
}

/// A text of files with the names that keys have now. The files in `tests/formats` have those of their time.
fn with_keys_of_now(text: &str) -> String {
    let renamed = [
        (" was: ", " renamed_from: "),
        (" claim: ", " queue_group: "),
        (" claim_timeout: ", " queue_group_timeout: "),
        (" waiting: {", " retry_queue: {"),
        (" waiting: &", " retry_queue: &"),
        ("\"waiting\": *", "\"retry_queue\": *"),
    ];
    let line = |line: &str| match line.contains("config:") {
        true if !line.contains("capsules") => line.to_owned(), // what plugins are told has names of its own
        _ => renamed.iter().fold(line.to_owned(), |line, (former, now)| line.replace(former, now)),
    };
    text.split_inclusive('\n').map(line).collect()
}

/// What files of that folder say, with another text of one of them.
fn files_with(names: &[&str], there: &There, edit: impl Fn(String) -> String) -> Files {
    let text = |name: &&str| std::fs::read_to_string(fixture("topology-v1").join(name)).unwrap();
    let source = |name: &&str| Source { path: name.into(), text: edit(with_keys_of_now(&text(name))) };
    files_of(&names.iter().map(source).collect::<Vec<_>>(), there)
}

fn files_of(sources: &[Source], there: &There) -> Files {
    let (plan, problems, said) = check_said(sources, there, Path::new(THERE));
    let mut plan = rooted(plan.unwrap_or_else(|| panic!("{problems:?}")), Path::new(THERE));
    SecretFolders::new([THERE.into()]).root(&mut plan).unwrap();
    let components = plan.subscribers.iter().map(|_| Path::new(THERE).join("work.wasm").into()).collect();
    Files::whole(plan, components, said)
}

fn files(names: &[&str], there: &There) -> Files {
    files_with(names, there, |text| text)
}

fn put(disk: &MemoryDisk, name: &str, bytes: &[u8]) {
    let _ = disk.remove(name);
    disk.create(name).unwrap().write_at(bytes, 0).unwrap();
}

fn text(disk: &MemoryDisk, name: &str) -> String {
    let file = disk.open(name).unwrap();
    String::from_utf8(file.read_bytes(0, file.length().unwrap() as usize).unwrap().into()).unwrap()
}

/// A folder with the golden record of an earlier release.
fn golden() -> MemoryDisk {
    let disk = MemoryDisk::default();
    put(&disk, "topology", &std::fs::read(fixture("topology-v1/topology")).unwrap());
    disk
}

/// Has what files say take the place of what was applied, as a start does.
async fn start(disk: &MemoryDisk, files: &Files) -> Result<(), TopologyError> {
    let (engine, mut store) = (MemoryEngine::default(), Store::open(disk.clone(), Arc::new(SystemClock))?);
    adopt(&engine, &mut store, &files.plan, &files.components, (true, &[])).await?;
    Ok(store.saw(files)?)
}

#[test]
fn a_record_of_an_earlier_release_is_read() {
    let store = Store::open(golden(), Arc::new(SystemClock)).unwrap();
    let applied = files(&["shop.yaml", "more.yaml"], &USUAL);
    assert_eq!(store.topology().unwrap(), (applied.plan, applied.components));
}

#[tokio::test]
async fn an_earlier_release_and_this_one_propose_the_same_by_the_same_files() {
    let (disk, seen) = (golden(), files(&["before.yaml"], &USUAL));
    let store = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap();
    assert!(store.applied_since(&seen).is_some(), "the files say what they said to that release");
    let edited = files_with(&["before.yaml"], &USUAL, |text| text.replace("old: {}", "old: { partitions: 3 }"));
    assert!(store.applied_since(&edited).is_none(), "they say something new");
    // The first start of this release writes a record of its own, which says the same.
    let applied = files(&["shop.yaml", "more.yaml"], &USUAL);
    let mut store = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap();
    adopt(&MemoryEngine::default(), &mut store, &applied.plan, &applied.components, (false, &[])).await.unwrap();
    store.saw(&seen).unwrap();
    assert!(text(&disk, "topology").starts_with("wattle topology v2 "));
    let store = Store::open(disk, Arc::new(SystemClock)).unwrap();
    assert_eq!(store.topology().unwrap(), (applied.plan, applied.components));
    assert!(store.applied_since(&seen).is_some() && store.applied_since(&edited).is_none());
}

#[tokio::test]
async fn a_release_with_other_defaults_proposes_nothing_by_itself() {
    let (disk, seen) = (MemoryDisk::default(), files(&["before.yaml"], &USUAL));
    start(&disk, &seen).await.unwrap();
    // what the files mean to a release whose retention is another one where they say nothing
    let mut meant = seen.clone();
    for topic in &mut meant.plan.topics {
        topic.settings.retention.age = Some(Duration::from_secs(3_600));
    }
    let store = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap();
    let runs =
        instead(&MemoryEngine::default(), &store, &meant, true).await.unwrap().expect("what was applied runs on");
    assert_eq!((runs.plan, runs.refused), (seen.plan.clone(), Vec::new()));
    // a comment is something new to say, whatever it means; so is another place, and another value of a variable
    let edited = files_with(&["before.yaml"], &USUAL, |text| format!("# now\n{text}"));
    let edited = Files { plan: meant.plan, ..edited };
    assert!(instead(&MemoryEngine::default(), &store, &edited, true).await.unwrap().is_none());
    let said = |there: &There| files(&["shop.yaml", "more.yaml"], there).said;
    assert_eq!(said(&USUAL), said(&USUAL));
    for other in [There { word: "other", ..USUAL }, There { region: Some("us"), ..USUAL }] {
        assert_ne!(said(&USUAL), said(&other));
    }
}

#[tokio::test]
async fn values_of_variables_are_in_no_record_and_are_gone_when_nothing_uses_them() {
    let hides = |disk: &MemoryDisk, word: &str, has: bool| {
        let record = text(disk, "topology");
        assert!(!record.contains(word) && record.contains("${WORD}"), "{record}");
        assert_eq!(text(disk, "values").contains(word), has, "{word}");
    };
    let applied = |disk: &MemoryDisk| Store::open(disk.clone(), Arc::new(SystemClock)).unwrap().topology().unwrap().0;
    for disk in [MemoryDisk::default(), golden()] {
        let first = files(&["shop.yaml", "more.yaml"], &There { word: "hunter2-hunter2", ..USUAL });
        start(&disk, &first).await.unwrap();
        hides(&disk, "hunter2-hunter2", true);
        assert_eq!(format!("{:?}", applied(&disk)), format!("{:?}", first.plan), "also how it is written");
        let rotated = files(&["shop.yaml", "more.yaml"], &There { word: "correct-horse", ..USUAL });
        start(&disk, &rotated).await.unwrap();
        hides(&disk, "correct-horse", true);
        hides(&disk, "hunter2-hunter2", false);
        assert_eq!(applied(&disk), rotated.plan);
        disk.remove("values").unwrap();
        let error = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap_err().to_string();
        assert!(error.contains("`${WORD}` stands for") && error.contains("plugins/topology"), "{error}");
        assert!(!format!("{:?}", Store::open(disk, Arc::new(SystemClock))).contains("correct-horse"));
    }
}

#[tokio::test]
async fn what_only_named_the_value_of_a_variable_names_the_variable_from_then_on() {
    let disk = golden();
    assert!(text(&disk, "topology").contains("hello"));
    start(&disk, &files(&["shop.yaml", "more.yaml"], &USUAL)).await.unwrap();
    assert!(!text(&disk, "topology").contains("hello"), "it is the same topology all the same");
}

/// A record with another body.
fn record(magic: &str, body: &str) -> Vec<u8> {
    format!("{magic}{}\n{body}\n", Digest::of(format!("{body}\n").as_bytes())).into_bytes()
}

#[tokio::test]
async fn a_later_release_is_believed_that_this_one_cannot_read_it_and_nothing_is_left_out() {
    for (file, magic, ours) in [("topology", "wattle topology v2 ", 4), ("record", "wattle plugins v2 ", 2)] {
        let disk = MemoryDisk::default();
        put(&disk, file, &record(magic, "{ \"version\": 9, \"reader\": 7, \"what\": [\"it\", \"says\"] }"));
        let error = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap_err().to_string();
        let words = format!(
            "was written by a later release: it has version 9, which needs a reader of version 7, and this release \
             reads \
             version {ours}"
        );
        assert!(error.contains(file) && error.contains(&words), "{error}");
    }
    let disk = MemoryDisk::default();
    start(&disk, &files(&["before.yaml"], &USUAL)).await.unwrap();
    let written = text(&disk, "topology");
    let body = written.split_once('\n').unwrap().1.trim_end();
    put(
        &disk,
        "topology",
        &record("wattle topology v2 ", &body.replacen("\"retired\"", "\"more\": 1,\n\"retired\"", 1)),
    );
    let error = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap_err().to_string();
    assert!(error.contains("unknown field `more`") && error.contains("`plugins/topology`"), "{error}");
    put(&disk, "topology", &record("wattle topology v2 ", &body.replacen("\"partitions\"", "\"parts\"", 1)));
    let error = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap_err().to_string();
    assert!(error.contains("unknown field `parts`"), "{error}");
    // A later one that says that this one can read it is read.
    put(&disk, "topology", &record("wattle topology v2 ", &body.replacen("\"version\": 3", "\"version\": 4", 1)));
    assert!(Store::open(disk, Arc::new(SystemClock)).unwrap().topology().is_some());
}

#[tokio::test]
async fn what_could_not_be_read_again_is_not_decided() {
    let disk = MemoryDisk::default();
    let before = files(&["before.yaml"], &USUAL);
    start(&disk, &before).await.unwrap();
    let written = text(&disk, "topology");
    let mut plan = before.plan.clone();
    plan.topics[0].settings.retention.age = Some(Duration::MAX); // more than a record can say
    let error = start(&disk, &Files { plan, ..before }).await.unwrap_err().to_string();
    assert!(error.contains("`plugins/topology`") && error.contains("could not be read again"), "{error}");
    assert_eq!(text(&disk, "topology"), written);
}

#[tokio::test]
async fn what_topologies_can_hardly_say_is_kept_all_the_same() {
    let disk = MemoryDisk::default();
    let mut plan =
        plan_of(&["wattle: v1\nname: t\ntopics: { in: {} }\nsubscribers: { s: { from: in, plugin: a.wasm } }\n"]);
    let path = Path::new(OsStr::from_bytes(b"/srv/\xff\xfe/a.wasm"));
    plan.subscribers[0].runs = SubscriberKind::Plugin(PluginSource::Wasm(path.to_owned()));
    for (key, value) in
        [("a$b", "$$ ${X} $"), ("\u{7f}\u{85}\u{2028}\u{feff}", "\u{9f}\u{fffe}\u{ffff}\0\u{1f600}\"\\\r\n")]
    {
        plan.subscribers[0].config.insert(key.to_owned(), ConfigValue::Text(value.to_owned()));
    }
    plan.subscribers[0].config.insert("key".to_owned(), ConfigValue::SecretFile(path.with_extension("key")));
    let files = Files::whole(plan, vec![path.to_owned().into()], FilesDigest::of(b"it"));
    start(&disk, &files).await.unwrap();
    assert_eq!(Store::open(disk, Arc::new(SystemClock)).unwrap().topology().unwrap(), (files.plan, files.components));
}

/// The same with other numbers, as large as they come.
fn wide(count: usize) -> Plan {
    let one = plan_of(&[
        "wattle: v1\nname: t\ntopics: { in: {} }\nsubscribers: { s: { from: in, plugin: a.wasm, start: latest } }\n",
    ]);
    let mut plan = Plan::default();
    for number in 0..count {
        let at = plan.topics.len() as u32;
        let mut topics = one.topics.clone();
        let mut subscriber = one.subscribers[0].clone();
        subscriber.name = format!("s{number}");
        subscriber.from.0 += at;
        subscriber.dead_letters = subscriber.dead_letters.map(|topic| wattle::topology::TopicIndex(topic.0 + at));
        for topic in &mut topics {
            topic.name = topic.name.replace("in", &format!("in{number}")).replace("s.", &format!("s{number}."));
            topic.parent = topic.parent.map(|_| wattle::topology::SubscriberIndex(number as u32));
            topic.dead_letters_of = topic.parent;
        }
        plan.topics.extend(topics);
        plan.subscribers.push(subscriber);
    }
    plan
}

#[tokio::test]
async fn ten_thousand_topics_with_a_subscriber_each_are_kept() {
    let (disk, plan) = (MemoryDisk::default(), wide(10_000));
    let components = vec!["/a.wasm".into(); 10_000];
    let files = Files::whole(plan, components, FilesDigest::of(b"it"));
    start(&disk, &files).await.unwrap();
    assert!(Store::open(disk, Arc::new(SystemClock)).unwrap().topology().unwrap() == (files.plan, files.components));
}

/// A golden record of this release, with the salt and the values that it was written with.
#[tokio::test]
async fn what_is_written_is_written_so_for_ever() {
    let (folder, disk) = (fixture("topology-v4"), MemoryDisk::default());
    let there = There { word: "hello", region: Some("us") };
    let mut files = Files { said: FilesDigest::of(b"it"), ..files(&["shop.yaml", "more.yaml"], &there) };
    files.components[1] = Digest::of(b"uploaded").into();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        start(&disk, &files).await.unwrap();
        std::fs::create_dir_all(&folder).unwrap();
        for name in ["topology", "values"] {
            std::fs::write(folder.join(name), text(&disk, name)).unwrap();
        }
    }
    let golden = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let read = MemoryDisk::default();
    for name in ["topology", "values"] {
        put(&read, name, golden(name).as_bytes());
    }
    let store = Store::open(read, Arc::new(SystemClock)).unwrap();
    assert_eq!(store.topology().unwrap(), (files.plan.clone(), files.components.clone()));
    assert_eq!(store.applied_since(&files), None);
    // written again with that salt
    let disk = MemoryDisk::default();
    put(&disk, "values", golden("values").as_bytes());
    start(&disk, &files).await.unwrap();
    assert_eq!(text(&disk, "values"), golden("values"));
    assert_eq!(text(&disk, "topology"), golden("topology"));
}

/// A folder with a record of an earlier version, and its values.
fn earlier(folder: &str) -> MemoryDisk {
    let disk = MemoryDisk::default();
    for name in ["topology", "values"] {
        put(&disk, name, &std::fs::read(fixture(folder).join(name)).unwrap());
    }
    disk
}

/// The golden records of versions 2 and 3.
#[test]
fn records_of_earlier_versions_are_read() {
    let there = There { word: "hello", region: Some("us") };
    let applied = files(&["shop.yaml", "more.yaml"], &there);
    for folder in ["topology-v2", "topology-v3"] {
        let store = Store::open(earlier(folder), Arc::new(SystemClock)).unwrap();
        assert_eq!(store.topology().unwrap(), (applied.plan.clone(), applied.components.clone()), "{folder}");
    }
}

/// An upgrade alone is no change: neither of what is applied nor of the revision that clients have seen.
#[tokio::test]
async fn the_revision_of_an_earlier_record_stays_when_it_is_written_again() {
    let disk = earlier("topology-v3");
    let there = There { word: "hello", region: Some("us") };
    let files = Files { said: FilesDigest::of(b"it"), ..files(&["shop.yaml", "more.yaml"], &there) };
    let revision = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap().revision().to_owned();
    assert_eq!(revision, "4d426db135c1217b");
    assert_eq!(Store::open(disk.clone(), Arc::new(SystemClock)).unwrap().applied_since(&files), None);
    start(&disk, &Files { said: FilesDigest::of(b"other"), ..files }).await.unwrap();
    assert!(text(&disk, "topology").contains("\"version\": 4"));
    assert_eq!(Store::open(disk, Arc::new(SystemClock)).unwrap().revision(), revision);
}

/// Something was applied since the start with these files, and an upgrade renamed keys.
#[tokio::test]
async fn an_upgrade_that_renames_keys_changes_nothing_that_runs() {
    let folder = "topology-v2-old-keys";
    let former = std::fs::read_to_string(fixture(folder).join("shop.yaml")).unwrap();
    let source = |text: &str| [Source { path: "shop.yaml".into(), text: text.to_owned() }];
    // What was applied has another bound and another time, and all that had former names.
    let live = |text: String| {
        let text = with_keys_of_now(&text).replace("max: 8", "max: 7");
        text.replace("queue_group_timeout: 1m", "queue_group_timeout: 2m")
    };
    let live = files_of(&source(&live(former.clone())), &USUAL);
    let applied = Some((live.plan.clone(), live.components.clone()));
    let disk = earlier(folder);
    let store = Store::open(disk.clone(), Arc::new(SystemClock)).unwrap();
    assert_eq!(store.topology(), applied);
    let [work, other, _] = &live.plan.subscribers[..] else { panic!("{:?}", live.plan) };
    assert_eq!((work.renamed_from.as_deref(), work.retry_queue.max_events), (Some("worker"), 9));
    assert_eq!((work.queue_group.as_deref(), work.queue_group_timeout.as_secs()), (Some("claim"), 120));
    assert_eq!(other.retry_queue.max_events, 7);
    assert_eq!(live.plan.topics[0].renamed_from.as_deref(), Some("in"));

    // Files as they were are refused, and known: a start goes on with what was applied.
    let (none, problems, said) = check_said(&source(&former), &USUAL, Path::new(THERE));
    let refused: Vec<_> = problems.iter().filter(|problem| problem.is_error()).collect();
    assert!(none.is_none() && refused.len() == 8, "{problems:?}");
    assert!(refused.iter().all(|problem| problem.message.contains(" is called ")), "{problems:?}");
    assert!(store.has_seen(said, false));
    // So are files in which only keys were renamed, and only those.
    let renamed = files_of(&source(&with_keys_of_now(&former)), &USUAL);
    assert_eq!(store.applied_since(&renamed), applied);
    for (from, to) in [("name: shop\n", "name: shop\n\n"), ("claim: text", "queue_group: text"), ("max: 8", "max: 6")] {
        let text = with_keys_of_now(&former);
        assert!(text.contains(from), "{from}");
        assert_eq!(store.applied_since(&files_of(&source(&text.replace(from, to)), &USUAL)), None, "{from}");
    }

    // The record that is written then has the names of now, and means the same; the files are remembered as they are
    // now.
    let (engine, mut store) = (MemoryEngine::default(), Store::open(disk.clone(), Arc::new(SystemClock)).unwrap());
    adopt(&engine, &mut store, &live.plan, &live.components, (false, &[])).await.unwrap();
    assert!(store.has_seen(said, false), "an unreadable file is still what it was");
    store.saw(&renamed).unwrap();
    let written = text(&disk, "topology");
    assert!(
        written.contains("\"queue_group\": \"claim\"") && written.contains("\"renamed_from\": \"worker\""),
        "{written}"
    );
    assert!(!written.contains("\"group\"") && !written.contains("\"waiting_events\""), "{written}");
    let store = Store::open(disk, Arc::new(SystemClock)).unwrap();
    assert_eq!((store.topology(), store.applied_since(&renamed)), (applied.clone(), applied));
    assert!(!store.has_seen(said, false), "the former names are something else to say from then on");
}

/// The record of a bus of that time, whose topology was changed while it ran. `tests/cli/upgrading.rs` starts it.
#[test]
fn the_files_of_a_start_with_keys_renamed_are_those_of_a_start_before() {
    let archive = fixture("data-old-keys.tar.gz");
    let unpacked = |name: &str| {
        let output = std::process::Command::new("tar").arg("-xzOf").arg(&archive).arg(name).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let disk = MemoryDisk::default();
    for name in ["topology", "values"] {
        put(&disk, name, &unpacked(&format!("data/plugins/{name}")));
    }
    let store = Store::open(disk, Arc::new(SystemClock)).unwrap();
    let former = String::from_utf8(unpacked("pay.yaml")).unwrap();
    let files = |text: &str| files_of(&[Source { path: "pay.yaml".into(), text: with_keys_of_now(text) }], &USUAL);
    let (plan, _) = store.applied_since(&files(&former)).expect("they say what they said");
    assert!(plan.topics.iter().any(|topic| topic.name == "sums"), "{plan:?}");
    assert!(plan.subscribers.iter().any(|subscriber| subscriber.retry_queue.max_events == 500), "{plan:?}");
    assert_eq!(store.applied_since(&files(&former.replace("max: 1000", "max: 999"))), None);
}

#[test]
fn an_expression_that_was_taken_before_its_mistake_was_known_is_read_again() {
    let document = ONE.replace("in: { partitions: 1 }", "in: { partitions: 1, key: string(1/0) }");
    assert!(document.contains("1/0"));
    let components = [("t/work".to_owned(), "work.wasm".into())].into();
    let proposal = Proposal { documents: vec![document], components, ..Proposal::default() };
    let (plan, _) = proposal.read().unwrap();
    assert_eq!(plan.topics[0].key.as_ref().unwrap().text(), "string(1/0)");
}
