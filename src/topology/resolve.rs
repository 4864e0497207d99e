//! From what the files say to one forest per namespace: names are looked up, the graph is checked, the plan is made.
//!
//! Promises: a plan exactly when nothing is wrong. Where a file could not be read whole, nothing is said about names
//! that may be declared in it, so that one mistake does not look like a hundred.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::diagnostic::{Code, Diagnostic, Problems, Span};
use super::faults;
use super::graph::{self, Links, Shape};
use super::names;
use super::namespace::{DeclaredSubscriber, DeclaredTopic, Namespace, Order};
use super::plan::{Plan, SubscriberIndex, SubscriberPlan, TopicIndex, TopicPlan};
use super::raw;
use super::reader::ReadContext;
use super::settings::{self, ROOT_PARTITIONS};

/// The parts of one file that were read.
pub(crate) struct File {
    pub(crate) source: u32,
    /// `None` if the file is not YAML.
    pub(crate) topology: Option<raw::Topology>,
    /// Whether declarations of the file may have been missed.
    pub(crate) missed: MissedDeclarations,
}

/// How much of a file's declarations may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MissedDeclarations {
    Nothing,
    /// Those that its text has somewhere as `name:`.
    Some,
    All,
}

/// Context of the files.
#[derive(Clone, Copy)]
pub(crate) struct FilesContext<'w> {
    /// The first source that is a text of the applied topology, in which users cannot change anything.
    pub(crate) applied_from: u32,
    /// Namespaces of which nothing has to be left.
    pub(crate) emptied: &'w BTreeSet<String>,
    /// In which order declarations are, by namespace; others come behind those, as they are written.
    pub(crate) order: &'w BTreeMap<String, Order>,
}

/// Checks all files together.
pub(crate) fn resolve(
    files: &[File],
    texts: &[&str],
    whole: FilesContext<'_>,
    shared: &mut ReadContext,
    problems: &mut Problems,
) -> Option<Plan> {
    let incomplete = files.iter().filter(|file| file.missed == MissedDeclarations::Some);
    let incomplete = incomplete.filter_map(|file| texts.get(file.source as usize));
    let incomplete: HashSet<&str> = incomplete.flat_map(|text| seemingly_declared(text)).collect();
    let complete = files.iter().all(|file| file.missed == MissedDeclarations::Nothing);
    let unknowable = files.iter().any(|file| file.missed == MissedDeclarations::All);
    let mut namespaces = gather(files, whole, shared, problems);
    let mut declared_in: HashMap<String, Vec<String>> = HashMap::new();
    // Of a single namespace there is no other.
    for namespace in namespaces.iter().filter(|_| namespaces.len() > 1) {
        let Some((name, _)) = &namespace.name else { continue };
        for topic in &namespace.topics {
            declared_in.entry(topic.name.clone()).or_default().push(name.clone());
        }
    }
    let mut shapes = Vec::with_capacity(namespaces.len());
    for namespace in &mut namespaces {
        // A file without a name may belong to any namespace, and its own references may be to any.
        let elsewhere = UnseenDeclarations {
            unknowable,
            anywhere: namespace.name.is_none(),
            incomplete: &incomplete,
            declared_in: &declared_in,
        };
        let meant = look_up(namespace, &elsewhere, shared, problems);
        let shape = shape(namespace);
        problems.extend(graph::faults(&shape).into_iter().map(|fault| faults::describe(namespace, fault)));
        check_roots(namespace, &shape, problems);
        check_diverted(namespace, problems);
        if complete {
            check_used(namespace, &shape, &meant, whole, problems);
        }
        check_groups(namespace, problems);
        check_renames(namespace, problems);
        shapes.push(shape);
    }
    if problems.any_error() { None } else { plan(&namespaces, &shapes) }
}

/// The namespace of the bus's own topics.
const RESERVED_NAMESPACE: &str = "wattle";

/// Puts the declarations of files together by namespace.
fn gather(
    files: &[File],
    whole: FilesContext<'_>,
    shared: &mut ReadContext,
    problems: &mut Problems,
) -> Vec<Namespace> {
    let mut named: BTreeMap<String, Namespace> = BTreeMap::new();
    let mut nameless = Vec::new();
    for topology in files.iter().filter_map(|file| file.topology.as_ref()) {
        let name = topology.name.as_ref().and_then(|field| Some((field.value.as_ref()?.0.clone(), field.span)));
        match name {
            Some((name, span)) => {
                let namespace = named.entry(name.clone()).or_default();
                if name == RESERVED_NAMESPACE && namespace.name.is_none() {
                    let message = format!("the namespace `{name}` is reserved for topics of the bus");
                    let reserved = Diagnostic::error(Code::BadValue, span, "reserved", message);
                    problems.push(reserved.help("choose another name"));
                }
                namespace.name.get_or_insert((name, span));
                declare(namespace, topology, shared, problems);
            }
            None => {
                let mut namespace = Namespace::default();
                declare(&mut namespace, topology, shared, problems);
                nameless.push(namespace);
            }
        }
    }
    for (name, namespace) in &mut named {
        if let Some(order) = whole.order.get(name) {
            namespace.sort(order);
        }
    }
    let mut namespaces: Vec<Namespace> = named.into_values().chain(nameless).collect();
    namespaces.iter_mut().for_each(|namespace| add_dead_letters(namespace, problems));
    namespaces
}

fn declare(namespace: &mut Namespace, topology: &raw::Topology, shared: &mut ReadContext, problems: &mut Problems) {
    let topics = topology.topics.iter().filter_map(|field| field.value.as_ref()).flat_map(|topics| &topics.0);
    for (name, field) in topics {
        // What is not a mapping at all was reported, but is a topic.
        let settings = settings::topic(field.value.as_ref().unwrap_or(&raw::Topic::default()), shared, problems);
        if let Some(first) = namespace.topic_by_name.get(name).and_then(|first| namespace.topics.get(*first)) {
            problems.push(declared_twice("topic", name, field.key, first.span));
            continue;
        }
        namespace.topic_by_name.insert(name.clone(), namespace.topics.len());
        let (name, span) = (name.clone(), field.key);
        namespace.topics.push(DeclaredTopic { name, span, settings, dead_letters_of: None, diverts_to: None });
    }
    let subscribers = topology.subscribers.iter().filter_map(|field| field.value.as_ref()).flat_map(|named| &named.0);
    for (name, field) in subscribers {
        let first = namespace.subscriber_by_name.get(name).and_then(|first| namespace.subscribers.get(*first));
        if let Some(first) = first {
            problems.push(declared_twice("subscriber", name, field.key, first.span));
            continue;
        }
        // What is not a mapping at all was reported, and has no edges.
        let Some(raw) = &field.value else { continue };
        let settings = settings::subscriber(name, field.key, raw, problems);
        namespace.subscriber_by_name.insert(name.clone(), namespace.subscribers.len());
        let subscriber = DeclaredSubscriber {
            name: name.clone(),
            span: field.key,
            settings,
            from: None,
            to: Vec::new(),
            dead_letters: None,
        };
        namespace.subscribers.push(subscriber);
    }
}

fn declared_twice(kind: &str, name: &str, again: Span, first: Span) -> Diagnostic {
    let message = format!("the {kind} `{name}` is declared twice in this namespace");
    let twice = Diagnostic::error(Code::DuplicateName, again, "again here", message);
    twice.label(first, "first here").help("rename one of the two, or remove it")
}

/// Adds the topics for dead letters, which are not declared.
fn add_dead_letters(namespace: &mut Namespace, problems: &mut Problems) {
    for topic in &namespace.topics {
        if names::dead_letters_of(&topic.name).is_some() {
            let message = format!("`{}` is reserved: topics that end with `.dead` have dead letters", topic.name);
            let reserved = Diagnostic::error(Code::BadValue, topic.span, "reserved", message);
            let help = "rename it; `SUBSCRIBER.dead` is there by itself, and can be subscribed to";
            problems.push(reserved.help(help));
        }
    }
    for (index, subscriber) in namespace.subscribers.iter_mut().enumerate().filter(|(_, it)| it.settings.dead_letters) {
        let name = format!("{}{}", subscriber.name, super::bounds::DEAD_LETTERS_SUFFIX);
        if namespace.topic_by_name.contains_key(&name) {
            continue;
        }
        let settings = settings::Topic::default();
        subscriber.dead_letters = Some(namespace.topics.len());
        namespace.topic_by_name.insert(name.clone(), namespace.topics.len());
        let (span, dead_letters_of) = (subscriber.span, Some(index));
        namespace.topics.push(DeclaredTopic { name, span, settings, dead_letters_of, diverts_to: None });
    }
}

/// What may be declared where it cannot be seen.
struct UnseenDeclarations<'c> {
    /// Its declarations are unknown.
    unknowable: bool,
    /// The namespace may be any known one.
    anywhere: bool,
    /// Names that may be declared in what could not be read.
    incomplete: &'c HashSet<&'c str>,
    declared_in: &'c HashMap<String, Vec<String>>,
}

impl UnseenDeclarations<'_> {
    fn may_declare(&self, topic: &str) -> bool {
        let named = self.anywhere && self.declared_in.contains_key(topic);
        self.unknowable || named || self.incomplete.contains(topic)
    }
}

/// The words of a text that could not be read that have a colon behind them. Goes through the text once, however many
/// names are looked for.
fn seemingly_declared(text: &str) -> impl Iterator<Item = &str> {
    let between = |char: char| char.is_whitespace() || "{,\"'".contains(char);
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let word = rest.trim_start_matches(between);
            let end = word.find(between).unwrap_or(word.len());
            let (word, behind) = word.split_at_checked(end).filter(|(word, _)| !word.is_empty())?;
            rest = behind;
            match word.split_once(':') {
                Some((name, _)) if !name.is_empty() => return Some(name),
                Some(_) => {}
                None if behind.trim_start_matches(['"', '\'', ' ']).starts_with(':') => return Some(word),
                None => {}
            }
        }
    })
}

/// Finds the topics that subscribers name. Returns the probable intentions of undeclared names.
fn look_up(
    namespace: &mut Namespace,
    elsewhere: &UnseenDeclarations<'_>,
    shared: &mut ReadContext,
    problems: &mut Problems,
) -> HashSet<String> {
    let mut meant = HashSet::new();
    let Namespace { name, topics, subscribers, topic_by_name, subscriber_by_name } = namespace;
    let whose = name.as_ref().map_or("there is".to_owned(), |(name, _)| format!("the namespace `{name}` has"));
    let mut find = |topic: &str, span: Span, problems: &mut Problems| {
        let found = topic_by_name.get(topic).copied();
        if found.is_none() && !elsewhere.may_declare(topic) {
            let unknown =
                Diagnostic::error(Code::UnknownTopic, span, "unknown topic", format!("{whose} no topic `{topic}`"));
            let near = shared.nearest(topic, topics.iter().map(|topic| topic.name.as_str()));
            meant.extend(near.map(str::to_owned));
            let others = elsewhere.declared_in.get(topic);
            let help = match (names::dead_letters_of(topic), near, others) {
                (Some(subscriber), _, _) if subscriber_by_name.contains_key(subscriber) => {
                    format!("`{subscriber}` has no dead letters; only plugins have them, unless they halt on a failure")
                }
                _ if subscriber_by_name.contains_key(topic) => {
                    format!("`{topic}` is a subscriber; name one of the topics that it publishes to")
                }
                (_, Some(near), _) => format!("did you mean `{near}`?"),
                (_, None, Some(others)) => {
                    let others = others.join("`, `");
                    format!("`{others}` has one, but subscribers only see topics of their own namespace")
                }
                (_, None, None) => format!("declare it: add `{topic}: {{}}` below `topics`"),
            };
            problems.push(unknown.help(help));
        }
        found
    };
    let diverts = topics.iter().map(|topic| topic.settings.diverts_to.as_ref());
    let diverts: Vec<_> = diverts.map(|to| to.and_then(|(to, span)| find(to, *span, problems))).collect();
    for subscriber in subscribers {
        let from = subscriber.settings.from.as_ref();
        subscriber.from = from.and_then(|(topic, span)| find(topic, *span, problems));
        for port in &subscriber.settings.ports {
            let mut to = find(&port.topic, port.span, problems);
            if let Some(topic) = to.and_then(|to| topics.get(to)).filter(|topic| topic.dead_letters_of.is_some()) {
                let message = format!("`{}` is for dead letters, a plugin cannot publish to it", topic.name);
                let reserved = Diagnostic::error(Code::BadValue, port.span, "reserved", message);
                problems.push(reserved.help("declare another topic; to refuse an event, the plugin returns `reject`"));
                to = None;
            }
            subscriber.to.push(to);
        }
    }
    for (topic, to) in topics.iter_mut().zip(diverts) {
        topic.diverts_to = to;
    }
    meant
}

/// The namespace as numbers.
fn shape(namespace: &Namespace) -> Shape {
    let links = |subscriber: &DeclaredSubscriber| Links {
        from: subscriber.from,
        to: subscriber.to.iter().copied().chain(subscriber.dead_letters.map(Some)).collect(),
    };
    Shape {
        topics: namespace.topics.len(),
        subscribers: namespace.subscribers.iter().map(links).collect(),
        diverts: namespace.topics.iter().map(|topic| topic.diverts_to).collect(),
    }
}

/// Refuses keys of roots on topics that are none.
fn check_roots(namespace: &Namespace, shape: &Shape, problems: &mut Problems) {
    let mut writers = vec![None; shape.topics];
    for (links, subscriber) in shape.subscribers.iter().zip(&namespace.subscribers) {
        for (port, topic) in links.to.iter().enumerate() {
            if let Some(writer) = topic.and_then(|topic| writers.get_mut(topic)) {
                writer.get_or_insert((subscriber, port));
            }
        }
    }
    let groups = of_groups(namespace);
    for ((number, topic), writer) in namespace.topics.iter().enumerate().zip(writers) {
        let Some((writer, port)) = writer else { continue };
        for (key, span) in &topic.settings.roots_only {
            let is_of_groups = settings::is_of_recognition(key);
            if is_of_groups && groups.contains(&number) {
                if let Some(span) = topic.settings.per_key.filter(|_| *key == "dedupe") {
                    let message =
                        "`per: key` is for roots: a queue group (`queue_group`) is given each event once in a time";
                    let bad = Diagnostic::error(Code::BadValue, span, "not of a root", message);
                    problems.push(bad.help("say a `window`"));
                }
                continue;
            }
            let message = format!("`{key}` is for roots, but `{}` publishes to `{}`", writer.name, topic.name);
            let bad = Diagnostic::error(Code::BadValue, *span, "not of a root", message);
            let help = match is_of_groups {
                true => {
                    format!(
                        "remove `{key}`: what a plugin publishes is there once. Queue groups (`queue_group`) may have \
                         it"
                    )
                }
                false => format!("remove `{key}`"),
            };
            problems.push(bad.label(writer.port(port).0, "published to here").help(help));
        }
    }
}

/// The topics whose events groups share.
fn of_groups(namespace: &Namespace) -> HashSet<usize> {
    let members = namespace.subscribers.iter().filter(|subscriber| subscriber.settings.queue_group.is_some());
    members.filter_map(|member| member.from).collect()
}

/// Refuses keys of topics that others divert to, where those have decided already.
fn check_diverted(namespace: &Namespace, problems: &mut Problems) {
    let groups = of_groups(namespace);
    for topic in &namespace.topics {
        let Some((_, written)) = &topic.settings.diverts_to else { continue };
        // what diverts to itself is refused as that
        let diverted = topic.diverts_to.and_then(|to| Some((to, namespace.topics.get(to)?)));
        let Some((to, diverted)) = diverted.filter(|(_, other)| other.name != topic.name) else { continue };
        let settings = &diverted.settings;
        for (key, span) in settings.not_diverted.iter().chain(&settings.roots_only) {
            if settings::is_of_recognition(key) && groups.contains(&to) {
                continue;
            }
            let (name, from) = (&diverted.name, &topic.name);
            let why = match *key {
                "partitions" => format!("it has as many as `{from}`"),
                "key" => format!("events keep the key that they have in `{from}`"),
                "schema" => format!("their data fits what `{from}` says"),
                "lifecycle" => format!("what `{from}` does not let follow is in no order"),
                "backlog" | "when_full" => "what is diverted does not wait".to_owned(),
                _ => format!("`{from}` says what is recognised"),
            };
            let message = format!("`{key}` is not for a topic that another diverts to: {why}");
            let bad = Diagnostic::error(Code::BadValue, *span, format!("of `{name}`"), message);
            let bad = bad.label(*written, format!("`{from}` diverts to it"));
            problems.push(bad.help(format!("remove `{key}`")));
        }
    }
}

/// Reports roots without subscribers, and namespaces without any topic.
fn check_used(
    namespace: &Namespace,
    shape: &Shape,
    meant: &HashSet<String>,
    whole: FilesContext<'_>,
    problems: &mut Problems,
) {
    let mut used = vec![false; shape.topics];
    let named = shape.subscribers.iter().flat_map(|links| links.to.iter().copied().chain([links.from]));
    for topic in named.chain(shape.diverts.iter().copied()).flatten() {
        if let Some(used) = used.get_mut(topic) {
            *used = true;
        }
    }
    let declared = || namespace.topics.iter().zip(&used).filter(|(topic, _)| topic.dead_letters_of.is_none());
    // What cannot have its name will have to change anyway.
    let is_name = |name: &str| names::problem(name).is_none() && names::dead_letters_of(name).is_none();
    let is_unused = |(topic, used): &(&DeclaredTopic, &bool)| {
        !**used && !meant.contains(&topic.name) && is_name(&topic.name) && topic.span.source < whole.applied_from
    };
    let unused: Vec<&DeclaredTopic> = declared().filter(is_unused).map(|(topic, _)| topic).collect();
    problems.extend(unused_topics(&unused));
    if let Some((name, span)) = namespace.name.as_ref().filter(|_| declared().next().is_none()) {
        if whole.emptied.contains(name) {
            return;
        }
        let message = format!("the namespace `{name}` has no topic to publish to");
        let no_root = Diagnostic::error(Code::NoRoot, *span, "no topics", message);
        problems.push(no_root.help("declare one below `topics`, for example `orders: {}`"));
    }
}

/// One warning for all topics of a namespace without a subscriber.
fn unused_topics(unused: &[&DeclaredTopic]) -> Option<Diagnostic> {
    const SHOWN: usize = 3;
    let (first, others) = unused.split_first()?;
    let shown: Vec<String> = unused.iter().take(SHOWN).map(|topic| format!("`{}`", topic.name)).collect();
    let more = match unused.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let s = if others.is_empty() { "" } else { "s" };
    let message = format!("no subscriber takes from the topic{s} {}{more}", shown.join(", "));
    let mut warning = Diagnostic::warning(Code::UnusedTopic, first.span, "no subscriber", message);
    for topic in others.iter().take(SHOWN - 1) {
        warning = warning.label(topic.span, "no subscriber");
    }
    let help = match others {
        [] => "subscribe to it, or remove it; events that are published to it just stay",
        _ => "subscribe to them, or remove them; events that are published to them just stay",
    };
    Some(warning.help(help))
}

/// Subscribers share events only of one topic.
fn check_groups(namespace: &Namespace, problems: &mut Problems) {
    let mut groups: HashMap<&str, &DeclaredSubscriber> = HashMap::new();
    for subscriber in &namespace.subscribers {
        let Some((group, span)) = &subscriber.settings.queue_group else { continue };
        let first = *groups.entry(group).or_insert(subscriber);
        if first.from.is_some() && subscriber.from.is_some() && first.from != subscriber.from {
            let message = format!("the group `{group}` takes from different topics");
            let bad = Diagnostic::error(Code::BadValue, *span, "", message);
            let bad = bad.label(subscriber.span_of_from(), "this topic").label(first.span_of_from(), "another topic");
            problems.push(bad.help("the subscribers of a group share the events of one topic; use another name"));
        }
    }
}

/// A renamed node cannot still be declared, nor have become two.
fn check_renames(namespace: &Namespace, problems: &mut Problems) {
    let topics: Vec<_> =
        namespace.topics.iter().map(|topic| (topic.name.as_str(), &topic.settings.renamed_from)).collect();
    let subscribers =
        namespace.subscribers.iter().map(|subscriber| (subscriber.name.as_str(), &subscriber.settings.renamed_from));
    for (nodes, by_name) in [(topics, &namespace.topic_by_name), (subscribers.collect(), &namespace.subscriber_by_name)]
    {
        let mut renamed: HashMap<&str, Span> = HashMap::new();
        for (name, was) in &nodes {
            let Some((old, span)) = was else { continue };
            let first = *renamed.entry(old).or_insert(*span);
            let (message, help) = if old == name {
                (
                    format!("`{old}` is its name already"),
                    "`renamed_from` is the old name of what is called differently now",
                )
            } else if first != *span {
                (format!("two cannot both have been called `{old}`"), "remove one of the two; that one is new then")
            } else if names::dead_letters_of(old).is_some() {
                let message = format!("`{old}` is a topic for dead letters, which is called as its subscriber is");
                (message, "rename the subscriber: its dead letters come along")
            } else if let Some(other) = by_name.get(old) {
                let is_renamed = nodes.get(*other).is_some_and(|(_, was)| was.is_some());
                let help = match is_renamed {
                    true => "names are handed on one after the other: apply one rename, then write the next",
                    false => "`renamed_from` is the old name of what is called differently now",
                };
                (format!("`{old}` is still declared, so nothing else can have been called so"), help)
            } else {
                continue;
            };
            let mut bad = Diagnostic::error(Code::BadValue, *span, "", message);
            if old != name && first != *span {
                bad = bad.label(first, "the first");
            }
            problems.push(bad.help(help));
        }
    }
}

/// Makes the plan of a forest, parents first. `None` if something is missing that a check should have reported.
fn plan(namespaces: &[Namespace], shapes: &[Shape]) -> Option<Plan> {
    let mut plan = Plan::default();
    for (namespace, shape) in namespaces.iter().zip(shapes) {
        Planner::new(namespace, shape, &mut plan)?.run()?;
    }
    Some(plan)
}

struct Planner<'n, 'p> {
    namespace: &'n Namespace,
    name: &'n str,
    /// For each topic, who takes from it.
    readers: Vec<Vec<usize>>,
    written: Vec<bool>,
    topic_indexes: Vec<Option<TopicIndex>>,
    plan: &'p mut Plan,
}

/// Where the events of a topic come from, and how many partitions there are.
#[derive(Clone, Copy)]
enum Parent {
    Nobody,
    Subscriber(SubscriberIndex, u32),
    Topic(TopicIndex, u32),
}

impl<'n, 'p> Planner<'n, 'p> {
    fn new(namespace: &'n Namespace, shape: &Shape, plan: &'p mut Plan) -> Option<Self> {
        let mut readers = vec![Vec::new(); shape.topics];
        let mut written = vec![false; shape.topics];
        for (index, links) in shape.subscribers.iter().enumerate() {
            readers.get_mut(links.from?)?.push(index);
            for topic in &links.to {
                *written.get_mut((*topic)?)? = true;
            }
        }
        for topic in shape.diverts.iter().flatten() {
            *written.get_mut(*topic)? = true;
        }
        let (name, _) = namespace.name.as_ref()?;
        Some(Planner { namespace, name, readers, written, topic_indexes: vec![None; shape.topics], plan })
    }

    fn run(mut self) -> Option<()> {
        let roots: Vec<usize> =
            self.written.iter().enumerate().filter(|(_, written)| !**written).map(|(topic, _)| topic).collect();
        for root in roots {
            let mut topics = self.add_topic(root, Parent::Nobody)?;
            // Not recursive, since a path can be as long as the topology is large.
            let mut stack: Vec<usize> = Vec::new();
            loop {
                for topic in topics.into_iter().rev() {
                    stack.extend(self.readers.get(topic)?.iter().rev());
                }
                let Some(subscriber) = stack.pop() else { break };
                topics = self.add_subscriber(subscriber)?;
            }
        }
        Some(())
    }

    /// Adds a topic and its divert target, which are returned.
    fn add_topic(&mut self, topic: usize, parent: Parent) -> Option<Vec<usize>> {
        let from = self.add_one(topic, parent)?;
        // what is diverted to has no lifecycle, so it diverts nothing itself
        let Some(diverted) = self.namespace.topics.get(topic)?.diverts_to else { return Some(vec![topic]) };
        let partitions = self.plan.topics.get(from.0 as usize)?.partitions;
        let to = self.add_one(diverted, Parent::Topic(from, partitions))?;
        self.plan.topics.get_mut(from.0 as usize)?.diverts_to = Some(to);
        Some(vec![topic, diverted])
    }

    fn add_one(&mut self, topic: usize, parent: Parent) -> Option<TopicIndex> {
        let declared = self.namespace.topics.get(topic)?;
        let index = TopicIndex(u32::try_from(self.plan.topics.len()).ok()?);
        let (parent, diverted_from, inherited) = match parent {
            Parent::Nobody => (None, None, ROOT_PARTITIONS),
            Parent::Subscriber(parent, partitions) => (Some(parent), None, partitions),
            Parent::Topic(from, partitions) => (None, Some(from), partitions),
        };
        let partitions = declared.settings.partitions.unwrap_or(inherited);
        let is_root = parent.is_none() && diverted_from.is_none();
        let recognises = is_root || declared.settings.says_what_is_recognised();
        self.plan.topics.push(TopicPlan {
            namespace: self.name.to_owned(),
            name: declared.name.clone(),
            partitions,
            key: declared.settings.key.clone(),
            id: declared.settings.id.clone(),
            lifecycle: declared.settings.lifecycle.clone(),
            schema: declared.settings.schema.clone(),
            settings: declared.settings.keeping.settings(partitions, recognises),
            per_key: declared.settings.per_key.is_some(),
            backlog: declared.settings.backlog,
            parent,
            diverts_to: None,
            diverted_from,
            dead_letters_of: parent.filter(|_| declared.dead_letters_of.is_some()),
            renamed_from: declared.settings.renamed_from.as_ref().map(|(old, _)| old.clone()),
        });
        *self.topic_indexes.get_mut(topic)? = Some(index);
        Some(index)
    }

    /// Adds a subscriber and the topics that it publishes to, which are returned.
    fn add_subscriber(&mut self, subscriber: usize) -> Option<Vec<usize>> {
        let declared = self.namespace.subscribers.get(subscriber)?;
        let index = SubscriberIndex(u32::try_from(self.plan.subscribers.len()).ok()?);
        let from = (*self.topic_indexes.get(declared.from?)?)?;
        let partitions = self.plan.topics.get(from.0 as usize)?.partitions;
        let mut children = Vec::new();
        for topic in declared.to.iter().copied().chain([declared.dead_letters].into_iter().filter(Option::is_some)) {
            let topic = topic?;
            if self.topic_indexes.get(topic)?.is_none() {
                children.extend(self.add_topic(topic, Parent::Subscriber(index, partitions))?);
            }
        }
        let index_of = |topic: Option<usize>| *self.topic_indexes.get(topic?)?;
        let ports = declared.settings.ports.iter().zip(&declared.to);
        let settings = &declared.settings;
        self.plan.subscribers.push(SubscriberPlan {
            namespace: self.name.to_owned(),
            name: declared.name.clone(),
            from,
            runs: settings.runs.clone()?,
            when: settings.when.clone(),
            ports: ports.map(|(port, topic)| Some((port.name.clone(), index_of(*topic)?))).collect::<Option<_>>()?,
            dead_letters: index_of(declared.dead_letters),
            config: settings.config.clone(),
            limits: settings.limits.clone(),
            state: settings.state,
            retry: settings.retry.clone(),
            on_failure: settings.on_failure,
            capsules: settings.capsules,
            trial: settings.trial,
            retry_queue: settings.retry_queue,
            delivery: settings.delivery,
            rate: settings.rate,
            concurrency: settings.concurrency,
            batch: settings.batch,
            queue_group: settings.queue_group.as_ref().map(|(group, _)| group.clone()),
            queue_group_timeout: settings.queue_group_timeout,
            start: settings.start,
            renamed_from: settings.renamed_from.as_ref().map(|(old, _)| old.clone()),
        });
        Some(children)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_declared_in_a_text_is_what_has_a_colon_behind_it() {
        let words = |text| seemingly_declared(text).collect::<Vec<_>>();
        let text = "topics: { a: {}, 'b': {}, \"c\" : {}, d : {}, e }\n  f:\n  g\n  : x:y:z h::";
        assert_eq!(words(text), ["topics", "a", "b", "c", "d", "f", "x", "h"]);
        assert_eq!(words("::"), [""; 0]);
        assert_eq!(words(""), [""; 0]);
    }
}
