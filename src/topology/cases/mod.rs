//! Test files: from the text of a `*.test.yaml` next to a topology to cases with their names looked up.
//!
//! Promises: everything that is wrong with a file is said at once, each with its place and what to do, as for
//! topologies; there are cases exactly when there is no error. Relies on the caller for the topologies that a file
//! names. Must not know: how a case is run, what its outcome is compared with.

mod raw;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::diagnostic::{Code, Diagnostic, Problems, Span};
use super::plan::{Plan, SubscriberIndex, TopicIndex};
use super::reader::{Field, FromNode, Key, Owner, ReadContext, Reader};
use super::values::{List, Table, Word};
use super::{PathKind, Source, Surroundings, names, yaml};
use crate::model::json::is_json;
use crate::model::{Event, event};

/// The endings of the names of test files; the part before them is the name of the topology.
pub const SUFFIXES: [&str; 2] = [".test.yaml", ".test.yml"];

/// When events of a case are appended that does not say: a round number that is not mistaken for the present.
const AT_NS: u64 = 1_767_225_600_000_000_000;

/// What the top of a test file is called in messages.
const TOP: &str = "a test file";

/// A test file whose names have not been looked up.
#[derive(Debug)]
pub struct TestFile {
    /// The topologies that it is about.
    pub topologies: Vec<PathBuf>,
    raw: raw::TestFile,
}

/// One case of a test file: what is published, and what must come of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub name: String,
    /// Where its name is written.
    pub span: Span,
    /// It is about topics of one partition, and may come out otherwise with as many as they have.
    pub one_partition: bool,
    /// The input events.
    pub given: CaseInput,
    /// The expected results.
    pub expected: ExpectedResults,
}

/// What a case is given.
#[derive(Debug, Clone, PartialEq)]
pub enum CaseInput {
    /// Events, for a tree or one subscriber of it.
    Events {
        /// The only subscriber that runs; `None` for all.
        subscriber: Option<SubscriberIndex>,
        /// The state of subscribers before the first event.
        state: State,
        /// When it begins, nanoseconds since 1970.
        at_ns: u64,
        /// The events, in their order.
        events: Vec<GivenEvent>,
    },
    /// A capsule: an event that failed, with what its plugin had read.
    Capsule { path: PathBuf },
}

/// An event that is published.
#[derive(Debug, Clone, PartialEq)]
pub struct GivenEvent {
    /// Where to.
    pub topic: TopicIndex,
    /// The time of the append, if everything before it is to be handled first.
    pub at_ns: Option<u64>,
    pub event: Event,
}

/// What subscribers keep: values by subscriber, bucket and key.
pub type State = BTreeMap<SubscriberIndex, BTreeMap<String, BTreeMap<String, Value>>>;

/// The expected results of a case.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExpectedResults {
    /// The outputs of the topics that are looked at, in order per key.
    pub outputs: BTreeMap<TopicIndex, Vec<ExpectedOutput>>,
    /// All other topics have to be empty.
    pub nothing_else: bool,
    /// What the subscribers keep; of the buckets that are named, all of it.
    pub state: State,
    /// The events that are not handled in the end.
    pub failures: Vec<ExpectedFailure>,
    /// The events that are not taken in; `None` where none may be.
    pub refused: Option<Vec<ExpectedRefusal>>,
}

/// An output; `None` matches anything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ExpectedOutput {
    /// Its CloudEvents type.
    pub r#type: Option<String>,
    pub key: Option<String>,
    /// Attributes that it has among others; `None` for a missing one.
    pub attributes: BTreeMap<String, Option<String>>,
    pub data: Option<Value>,
    /// A part of its data.
    pub has: Option<Value>,
}

/// An event that is not handled; `None` matches anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpectedFailure {
    /// Whose failure it is.
    pub subscriber: Option<SubscriberIndex>,
    /// The event's id.
    pub event: Option<String>,
    /// What kind of failure.
    pub kind: Option<String>,
    /// A part of its reason.
    pub reason: Option<String>,
    pub attempts: Option<u32>,
    /// What became of it.
    pub end: Option<End>,
}

/// An event that is refused; `None` matches anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpectedRefusal {
    /// The event's id.
    pub event: Option<String>,
    /// A part of the reason.
    pub reason: Option<String>,
}

/// What becomes of an event that is not handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It is a dead letter.
    DeadLetter,
    /// It waits until it is released.
    Parked,
    /// Its lane stands still.
    Halted,
}

impl End {
    /// As test files write it.
    pub fn as_str(self) -> &'static str {
        match self {
            End::DeadLetter => "dead_letter",
            End::Parked => "parked",
            End::Halted => "halted",
        }
    }
}

/// Whether a file is one of tests, by its name.
pub fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    SUFFIXES.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
}

/// The JSON Schema of test files, as committed in `test.schema.json`: pretty-printed, with a line break at the end.
pub fn schema() -> String {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<raw::TestFile>();
    schema.insert("title".into(), "Wattle tests".into());
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}

/// Reads a test file, which is the source with this number of a check.
pub fn read(number: u32, source: &Source, surroundings: &dyn Surroundings) -> (Option<TestFile>, Vec<Diagnostic>) {
    let (tree, diagnostics) = yaml::parse(number, &source.text);
    let mut problems = Problems::default();
    problems.extend(diagnostics);
    let Some(tree) = tree else { return (None, problems.finish()) };
    let top = Span { source: number, start: 0, end: 0 };
    let mut shared = ReadContext::default();
    let mut reader = Reader::new(&source.path, surroundings, &mut shared);
    let raw = match tree.root() {
        Some(root) => raw::TestFile::read(root, Owner { key: TOP, span: root.span() }, &mut reader),
        None => {
            let empty = Diagnostic::error(Code::MissingKey, top, "nothing here", "this file is empty");
            reader.report(empty.help("a test file has `cases`"));
            None
        }
    };
    problems.append(reader.problems);
    let topologies = raw.as_ref().and_then(|raw| match &raw.topology {
        Some(field) => Some(field.value.as_ref()?.0.iter().map(|(_, path)| path.0.clone()).collect()),
        None => match beside(&source.path, surroundings) {
            Ok(path) => Some(vec![path]),
            Err(message) => {
                let missing = Diagnostic::error(Code::MissingKey, top, "", message);
                problems.push(missing.help("name the topology that the cases are about: `topology: shop.yaml`"));
                None
            }
        },
    });
    let is_good = !problems.any_error();
    let file = raw.zip(topologies).filter(|_| is_good);
    (file.map(|(raw, topologies)| TestFile { topologies, raw }), problems.finish())
}

/// The topology of a test file.
fn beside(path: &Path, surroundings: &dyn Surroundings) -> Result<PathBuf, String> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let stem = SUFFIXES.iter().find_map(|suffix| name.strip_suffix(suffix));
    let Some(stem) = stem.filter(|stem| !stem.is_empty()) else {
        return Err(format!("nothing says what `{name}` tests: it is not called `NAME.test.yaml`"));
    };
    let candidates = [".yaml", ".yml"].map(|suffix| path.with_file_name(format!("{stem}{suffix}")));
    let found = candidates.iter().find(|path| surroundings.at(path) == PathKind::File);
    found.cloned().ok_or_else(|| format!("there is no `{stem}.yaml` beside `{name}`"))
}

impl TestFile {
    /// Looks the names of the cases up in the plan of the file's topologies.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn resolve(&self, plan: &Plan) -> Result<Vec<Case>, Vec<Diagnostic>> {
        let mut resolver = Resolver { plan, problems: Problems::default() };
        let mut seen: BTreeMap<&str, Span> = BTreeMap::new();
        for case in items(&self.raw.cases) {
            let Some(field) = &case.name else { continue };
            let Some(Word(name)) = &field.value else { continue };
            if let Some(first) = seen.insert(name, field.span) {
                let message = format!("two cases have the name `{name}`");
                let again = Diagnostic::error(Code::DuplicateName, field.span, "again here", message);
                resolver.problems.push(again.label(first, "first here").help("say what is different about the second"));
            }
        }
        let cases: Vec<_> = items(&self.raw.cases).map(|case| resolver.case(case)).collect();
        if resolver.problems.any_error() {
            return Err(resolver.problems.finish());
        }
        Ok(cases.into_iter().flatten().collect())
    }
}

/// The items of a list that may not be there.
fn items<T>(field: &Key<List<T>>) -> impl Iterator<Item = &T> + Clone {
    let list = field.as_ref().and_then(|field| field.value.as_ref());
    list.into_iter().flat_map(|List(items)| items.iter().map(|(_, item)| item))
}

fn text(field: &Key<Word>) -> Option<String> {
    Some(field.as_ref()?.value.as_ref()?.0.clone())
}

fn value_of<T>(field: &Key<T>) -> Option<&T> {
    field.as_ref()?.value.as_ref()
}

struct Resolver<'p> {
    plan: &'p Plan,
    problems: Problems,
}

impl Resolver<'_> {
    fn bad<T>(&mut self, code: Code, span: Span, message: String, help: String) -> Option<T> {
        self.problems.push(Diagnostic::error(code, span, "", message).help(help));
        None
    }

    /// The node of a name, in full or in a short form that is unique.
    fn look_up(&mut self, what: &str, name: &str, span: Span, known: &[String]) -> Option<u32> {
        let is_it = |full: &&String| **full == name || full.split_once('/').is_some_and(|(_, short)| short == name);
        let mut found = (0..).zip(known).filter(|(_, full)| is_it(full));
        match (found.next(), found.next()) {
            (Some((index, _)), None) => Some(index),
            (Some((_, one)), Some((_, other))) => {
                let help = format!("say which: `{one}` or `{other}`");
                self.bad(Code::BadValue, span, format!("`{name}` is the name of several"), help)
            }
            (None, _) => {
                let names = known.iter().flat_map(|full| [full.as_str(), full.split_once('/').map_or("", |n| n.1)]);
                let help = match names::nearest(name, names) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", known.join(", ")),
                };
                let code = if what == "topic" { Code::UnknownTopic } else { Code::BadValue };
                self.bad(code, span, format!("there is no {what} `{name}` in the topology"), help)
            }
        }
    }

    fn subscriber(&mut self, name: &str, span: Span) -> Option<SubscriberIndex> {
        let known: Vec<String> = self.plan.subscribers.iter().map(|subscriber| subscriber.label()).collect();
        self.look_up("subscriber", name, span, &known).map(SubscriberIndex)
    }

    fn topic(&mut self, name: &str, span: Span) -> Option<TopicIndex> {
        let known: Vec<String> = self.plan.topics.iter().map(|topic| topic.label()).collect();
        self.look_up("topic", name, span, &known).map(TopicIndex)
    }

    fn case(&mut self, raw: &raw::Case) -> Option<Case> {
        let name = raw.name.as_ref()?;
        let (name, span) = (name.value.as_ref()?.0.clone(), name.span);
        let subscriber = match &raw.subscriber {
            Some(field) => Some(self.subscriber(&field.value.as_ref()?.0, field.span)?),
            None => None,
        };
        let given = match &raw.capsule {
            Some(capsule) => {
                let others = [
                    ("subscriber", raw.subscriber.as_ref().map(|field| field.key)),
                    ("state", raw.state.as_ref().map(|field| field.key)),
                    ("at", raw.at.as_ref().map(|field| field.key)),
                    ("partitions", raw.partitions.as_ref().map(|field| field.key)),
                    ("events", raw.events.as_ref().map(|field| field.key)),
                ];
                for (key, span) in others.into_iter().filter_map(|(key, span)| Some((key, span?))) {
                    let message = format!("a case with a `capsule` has no `{key}`: all of that is in the capsule");
                    self.bad::<()>(Code::BadValue, span, message, format!("remove `{key}`, or `capsule`"));
                }
                CaseInput::Capsule { path: capsule.value.as_ref()?.0.clone() }
            }
            None => {
                let at_ns = value_of(&raw.at).map_or(AT_NS, |time| time.0);
                let events = self.events(raw, subscriber, at_ns);
                if events.is_empty() {
                    let help = "give it at least one event: `events: [{ data: { … } }]`".to_owned();
                    self.bad::<()>(Code::MissingKey, span, "this case gives no events".to_owned(), help);
                }
                CaseInput::Events { subscriber, state: self.state(value_of(&raw.state), subscriber), at_ns, events }
            }
        };
        let expect = value_of(&raw.expect)?;
        let expected = self.expected(expect, subscriber);
        if raw.capsule.is_some() {
            if let Some(field) = &expect.refused {
                let message = "a capsule is not published: its event was taken in long ago".to_owned();
                self.bad::<()>(Code::BadValue, field.key, message, "remove `refused`".to_owned());
            }
            let ends = items(&expect.failures).filter_map(|failure| failure.end.as_ref().map(|field| field.key));
            for span in ends.collect::<Vec<_>>() {
                let message = "a capsule is one attempt: nothing becomes of its event".to_owned();
                self.bad::<()>(Code::BadValue, span, message, "remove `end`".to_owned());
            }
        }
        Some(Case { name, span, one_partition: raw.partitions.is_some(), given, expected })
    }

    fn events(&mut self, raw: &raw::Case, only: Option<SubscriberIndex>, at_ns: u64) -> Vec<GivenEvent> {
        let mut now_ns = at_ns;
        let given = raw.events.as_ref().and_then(|field| field.value.as_ref());
        let given = given.into_iter().flat_map(|List(given)| given);
        (1..)
            .zip(given)
            .filter_map(|(number, (span, given))| self.event(number, *span, given, only, &mut now_ns))
            .collect()
    }

    fn event(
        &mut self,
        number: u32,
        span: Span,
        raw: &raw::Given,
        only: Option<SubscriberIndex>,
        now_ns: &mut u64,
    ) -> Option<GivenEvent> {
        let topic = self.topic_of(raw, span, only)?;
        let at_ns = match (&raw.at, &raw.after) {
            (None, None) => None,
            (Some(at), None) => Some((at.value?.0, at.span)),
            (None, Some(after)) => Some((after_ns(*now_ns, after.value?.0), after.span)),
            (Some(_), Some(after)) => {
                let message = "an event has `at` or `after`, and this one has both".to_owned();
                return self.bad(Code::BadValue, after.key, message, "remove one of the two".to_owned());
            }
        };
        if let Some((at_ns, span)) = at_ns {
            if at_ns < *now_ns {
                let message = "this event is appended before the one in front of it".to_owned();
                return self.bad(
                    Code::BadValue,
                    span,
                    message,
                    "events are listed in the order of their time".to_owned(),
                );
            }
            *now_ns = at_ns;
        }
        let event = self.cloud_event(number, raw, topic)?;
        Some(GivenEvent { topic, at_ns: at_ns.map(|(at_ns, _)| at_ns), event })
    }

    fn topic_of(&mut self, raw: &raw::Given, span: Span, only: Option<SubscriberIndex>) -> Option<TopicIndex> {
        let from = only.map(|only| self.plan[only].from);
        if let Some(field) = &raw.topic {
            let topic = self.topic(&field.value.as_ref()?.0, field.span)?;
            let label = self.plan[topic].label();
            return match from {
                Some(from) if from != topic => {
                    let message = format!("the subscriber of this case takes nothing from `{label}`");
                    let help = format!("it takes from `{}`: remove `topic`", self.plan[from].label());
                    self.bad(Code::BadValue, field.span, message, help)
                }
                None if !self.plan[topic].is_root() => {
                    let what = match self.plan[topic].diverted_from {
                        Some(from) => format!("takes what `{}` diverts to it", self.plan[from].label()),
                        None => "is written by a subscriber".to_owned(),
                    };
                    let message = format!("`{label}` {what}, and takes no other events");
                    let help =
                        "publish to a root, or name the `subscriber` of the case that is to handle it".to_owned();
                    self.bad(Code::BadValue, field.span, message, help)
                }
                _ => Some(topic),
            };
        }
        let mut roots = self.plan.topics().filter(|(_, topic)| topic.is_root());
        match (from, roots.next(), roots.next()) {
            (Some(from), ..) => Some(from),
            (None, Some((root, _)), None) => Some(root),
            _ => {
                let roots = self.plan.topics.iter().filter(|topic| topic.is_root()).map(|topic| topic.label());
                let help = format!("add `topic`, one of {}", roots.collect::<Vec<_>>().join(", "));
                let message = "this does not say where to: there are several roots".to_owned();
                self.bad(Code::MissingKey, span, message, help)
            }
        }
    }

    fn cloud_event(&mut self, number: u32, raw: &raw::Given, topic: TopicIndex) -> Option<Event> {
        let mut attributes = BTreeMap::new();
        for (name, field) in value_of(&raw.attributes).into_iter().flat_map(|Table(entries)| entries) {
            let value = &field.value.as_ref()?.0;
            let attribute = match (name.as_str(), value) {
                (name, _) if !event::is_attribute_name(name) => {
                    let message = format!("`{name}` is no attribute of CloudEvents that is given here");
                    let help =
                        "names have lower-case letters and digits; `id`, `source` and `type` are keys of their own";
                    return self.bad(Code::BadValue, field.key, message, help.to_owned());
                }
                (_, Value::Bool(value)) => event::Attribute::Boolean(*value),
                (_, Value::Number(number)) if number.as_i64().is_some_and(|number| i32::try_from(number).is_ok()) => {
                    let number = number.as_i64().and_then(|number| i32::try_from(number).ok());
                    event::Attribute::Integer(number.unwrap_or_default())
                }
                (name, Value::String(text)) => match event::Attribute::of_text(name, text.clone()) {
                    Ok(attribute) => attribute,
                    Err(error) => {
                        let help = "write it as 2026-01-01T12:00:00Z".to_owned();
                        return self.bad(Code::BadValue, field.span, error.to_string(), help);
                    }
                },
                _ => {
                    let message = format!("`{name}` is a text, a whole number of 32 bits or a boolean");
                    return self.bad(Code::BadValue, field.span, message, "write it in quotes".to_owned());
                }
            };
            attributes.insert(name.clone(), attribute);
        }
        if let Some(key) = &raw.key {
            if self.plan[topic].key.is_some() {
                let message =
                    format!("the topology says what the key of an event in `{}` is", self.plan[topic].label());
                let help = "remove `key`: it follows from the event".to_owned();
                return self.bad(Code::BadValue, key.key, message, help);
            }
            attributes.insert("partitionkey".to_owned(), event::Attribute::String(key.value.as_ref()?.0.clone()));
        }
        let content_type = text(&raw.content_type);
        let (usual, data) = match value_of(&raw.data) {
            None => (None, None),
            Some(raw::Json(Value::String(text), _))
                if content_type.as_deref().is_none_or(|content_type| !is_json(content_type)) =>
            {
                (Some("text/plain"), Some(event::Data::Text(text.clone())))
            }
            Some(raw::Json(_, json)) => (Some("application/json"), Some(event::Data::Binary(json.clone().into()))),
        };
        if let Some(content_type) = content_type.or_else(|| usual.map(str::to_owned)) {
            attributes.insert("datacontenttype".to_owned(), event::Attribute::String(content_type));
        }
        Some(Event {
            id: text(&raw.id).unwrap_or_else(|| number.to_string()),
            source: text(&raw.source).unwrap_or_else(|| "/test".to_owned()),
            r#type: text(&raw.kind).unwrap_or_else(|| "test".to_owned()),
            attributes,
            data,
        })
    }

    fn state(&mut self, raw: Option<&Table<Table<Table<raw::Json>>>>, only: Option<SubscriberIndex>) -> State {
        let mut state = State::new();
        for (subscriber, buckets) in raw.into_iter().flat_map(|Table(entries)| entries) {
            let Some(subscriber) = self.subscriber(subscriber, buckets.key) else { continue };
            if let Some(only) = only.filter(|only| *only != subscriber) {
                let message = format!("only `{}` runs in this case", self.plan[only].label());
                self.bad::<()>(Code::BadValue, buckets.key, message, "remove it, or `subscriber`".to_owned());
            }
            let of: &mut BTreeMap<String, BTreeMap<String, Value>> = state.entry(subscriber).or_default();
            for (bucket, keys) in table(buckets) {
                let values =
                    table(keys).filter_map(|(key, value)| Some((key.clone(), value.value.as_ref()?.0.clone())));
                of.entry(bucket.clone()).or_default().extend(values);
            }
        }
        state
    }

    /// Whether anything in the case may send events to a topic: a subscriber, or a topic that diverts them.
    fn sends_to(&self, topic: TopicIndex, only: Option<SubscriberIndex>) -> bool {
        let topic = &self.plan[topic];
        match (topic.diverted_from, only) {
            (Some(from), Some(only)) => self.plan[only].from == from || self.plan[from].parent == Some(only),
            (None, Some(only)) => topic.parent == Some(only),
            (_, None) => !topic.is_root(),
        }
    }

    fn expected(&mut self, raw: &raw::Expect, only: Option<SubscriberIndex>) -> ExpectedResults {
        let mut expected = ExpectedResults { nothing_else: only.is_some(), ..ExpectedResults::default() };
        match value_of(&raw.outputs) {
            None => expected.nothing_else = false,
            Some(raw::Outputs::None) => expected.nothing_else = true,
            Some(raw::Outputs::ByTopic(Table(topics))) => {
                for (name, field) in topics {
                    let Some(topic) = self.topic(name, field.key) else { continue };
                    if !self.sends_to(topic, only) {
                        let label = self.plan[topic].label();
                        let message = match only {
                            Some(only) => format!("`{}` sends nothing to `{label}`", self.plan[only].label()),
                            None => format!("no subscriber sends anything to `{label}`"),
                        };
                        let help = "name topics behind a `to` of what runs".to_owned();
                        self.bad::<()>(Code::BadValue, field.key, message, help);
                        continue;
                    }
                    let outputs = field.value.iter().flat_map(|List(outputs)| outputs);
                    expected.outputs.insert(topic, outputs.map(|(_, output)| expected_output(output)).collect());
                }
            }
        }
        expected.state = self.state(value_of(&raw.state), only);
        expected.refused = raw.refused.as_ref().map(|_| {
            let refused = items(&raw.refused);
            refused.map(|raw| ExpectedRefusal { event: text(&raw.event), reason: text(&raw.reason) }).collect()
        });
        for failure in items(&raw.failures) {
            let subscriber = match &failure.subscriber {
                Some(field) => match &field.value {
                    Some(Word(name)) => self.subscriber(name, field.span),
                    None => None,
                },
                None => None,
            };
            expected.failures.push(ExpectedFailure {
                subscriber,
                event: text(&failure.event),
                kind: text(&failure.kind),
                reason: text(&failure.reason),
                attempts: value_of(&failure.attempts).map(|count| count.0),
                end: value_of(&failure.end).map(|end| match end {
                    raw::End::DeadLetter => End::DeadLetter,
                    raw::End::Parked => End::Parked,
                    raw::End::Halted => End::Halted,
                }),
            });
        }
        expected
    }
}

fn after_ns(now_ns: u64, after: Duration) -> u64 {
    now_ns.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
}

fn table<T>(field: &Field<Table<T>>) -> impl Iterator<Item = &(String, Field<T>)> {
    field.value.iter().flat_map(|Table(entries)| entries)
}

fn expected_output(raw: &raw::Output) -> ExpectedOutput {
    let attributes = value_of(&raw.attributes).into_iter().flat_map(|Table(entries)| entries);
    let attribute = |(name, field): &(String, Field<raw::Json>)| {
        let value = match &field.value.as_ref()?.0 {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        Some((name.clone(), value))
    };
    ExpectedOutput {
        r#type: text(&raw.kind),
        key: text(&raw.key),
        attributes: attributes.filter_map(attribute).collect(),
        data: value_of(&raw.data).map(|data| data.0.clone()),
        has: value_of(&raw.has).map(|data| data.0.clone()),
    }
}
