//! A topology is accepted exactly when it is a forest, by a definition that shares nothing with the checker; and what
//! is said against one that is not can be verified.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use proptest::prelude::*;
use wattle::topology::{Code, Diagnostic, Label, PathKind, Source, Surroundings, check};

/// A graph of topics `0..topics` and subscribers, each with its topic and the topics it publishes to. Some topics
/// divert to others, which divert nothing themselves unless to themselves.
#[derive(Debug, Clone)]
struct Graph {
    topics: usize,
    subscribers: Vec<(usize, Vec<usize>)>,
    diverts: BTreeMap<usize, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Vertex {
    Topic(usize),
    Subscriber(usize),
}

type Edge = (Vertex, Vertex);

impl Graph {
    fn edges(&self) -> BTreeSet<Edge> {
        let mut edges = BTreeSet::new();
        for (subscriber, (from, to)) in self.subscribers.iter().enumerate() {
            edges.insert((Vertex::Topic(*from), Vertex::Subscriber(subscriber)));
            edges.extend(to.iter().map(|to| (Vertex::Subscriber(subscriber), Vertex::Topic(*to))));
        }
        edges.extend(self.diverts.iter().map(|(from, to)| (Vertex::Topic(*from), Vertex::Topic(*to))));
        edges
    }

    /// The definition, naively: nothing has two parents, and taking away what has no parent, again and again, takes
    /// away everything.
    fn is_forest(&self) -> bool {
        let mut edges = self.edges();
        let mut parents: BTreeMap<Vertex, usize> = BTreeMap::new();
        edges.iter().for_each(|(_, child)| *parents.entry(*child).or_default() += 1);
        if parents.values().any(|count| *count > 1) {
            return false;
        }
        loop {
            let children: BTreeSet<Vertex> = edges.iter().map(|(_, child)| *child).collect();
            let before = edges.len();
            edges.retain(|(parent, _)| children.contains(parent));
            if edges.len() == before {
                return edges.is_empty();
            }
        }
    }

    /// The graph as YAML, with each edge on a line of its own; and which edge each line has.
    fn yaml(&self) -> (String, BTreeMap<usize, Edge>) {
        let mut lines = vec!["wattle: v1".to_owned(), "name: random".into(), "topics:".into()];
        let mut edges = BTreeMap::new();
        for topic in 0..self.topics {
            let Some(to) = self.diverts.get(&topic) else {
                lines.push(format!("  t{topic}: {{}}"));
                continue;
            };
            let lifecycle = ["state: data.s", "start: [a]", "allow: {}", "out_of_order:"];
            lines.extend([format!("  t{topic}:"), "    lifecycle:".into()]);
            lines.extend(lifecycle.map(|line| format!("      {line}")));
            lines.push(format!("        divert: t{to}"));
            edges.insert(lines.len(), (Vertex::Topic(topic), Vertex::Topic(*to)));
        }
        lines.push("subscribers:".into());
        for (subscriber, (from, to)) in self.subscribers.iter().enumerate() {
            lines.push(format!("  s{subscriber}:"));
            lines.push("    plugin: p".into());
            lines.push(format!("    from: t{from}"));
            edges.insert(lines.len(), (Vertex::Topic(*from), Vertex::Subscriber(subscriber)));
            if !to.is_empty() {
                lines.push("    to:".into());
            }
            for (port, to) in to.iter().enumerate() {
                lines.push(format!("      port{port}: t{to}"));
                edges.insert(lines.len(), (Vertex::Subscriber(subscriber), Vertex::Topic(*to)));
            }
        }
        (lines.join("\n") + "\n", edges)
    }
}

struct World;

impl Surroundings for World {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, _: &Path) -> PathKind {
        PathKind::Folder { manifest: true }
    }
}

fn graphs() -> impl Strategy<Value = Graph> {
    // Few topics for many edges, so that cycles and second parents are common; and the other way around.
    (1..12_usize).prop_flat_map(|topics| {
        let subscriber = (0..topics, prop::collection::vec(0..topics, 0..3));
        let subscribers = prop::collection::vec(subscriber, 0..8);
        let diverts = prop::collection::btree_map(0..topics, 0..topics, 0..3);
        (subscribers, diverts).prop_map(move |(subscribers, mut diverts)| {
            let from: Vec<_> = diverts.keys().copied().collect();
            diverts.retain(|one, other| one == other || !from.contains(other));
            Graph { topics, subscribers, diverts }
        })
    })
}

/// Graphs that are forests, by construction: each topic is published to by a subscriber of an earlier one, or nobody.
fn forests() -> impl Strategy<Value = Graph> {
    let topic = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5_u8);
    prop::collection::vec(topic, 1..40).prop_map(|topics| {
        let mut graph = Graph { topics: topics.len(), subscribers: Vec::new(), diverts: BTreeMap::new() };
        for (topic, (from, subscriber, what)) in topics.iter().enumerate().skip(1) {
            match what {
                0 => {}
                4 => {
                    let from = from.index(topic);
                    if !graph.diverts.contains_key(&from) && graph.diverts.values().all(|to| *to != from) {
                        graph.diverts.insert(from, topic);
                    }
                }
                1 if !graph.subscribers.is_empty() => subscriber.get_mut(&mut graph.subscribers).1.push(topic),
                _ => graph.subscribers.push((from.index(topic), vec![topic])),
            }
        }
        graph
    })
}

fn checked(graph: &Graph) -> (bool, Vec<Diagnostic>, BTreeMap<usize, Edge>, String) {
    let (text, edges) = graph.yaml();
    let (plan, diagnostics) = check(&[Source { path: "t.yaml".into(), text: text.clone() }], &World);
    (plan.is_some(), diagnostics, edges, text)
}

/// The edges that labels point at.
fn edges_at(labels: &[Label], edges: &BTreeMap<usize, Edge>, text: &str) -> Vec<Edge> {
    let line = |label: &Label| text[..label.span.start as usize].matches('\n').count() + 1;
    labels.iter().map(|label| edges[&line(label)]).collect()
}

fn vertex(name: &str) -> Vertex {
    let (kind, number) = name.split_at(1);
    let number = number.parse().unwrap();
    if kind == "t" { Vertex::Topic(number) } else { Vertex::Subscriber(number) }
}

/// The vertices that a message names, as in "a path: t0 → s0 → t1".
fn path(message: &str) -> Vec<Vertex> {
    message.rsplit_once(": ").unwrap().1.split(" → ").map(vertex).collect()
}

/// Each step of a path is an edge of the graph.
fn is_path(path: &[Vertex], edges: &BTreeSet<Edge>) -> bool {
    path.windows(2).all(|step| edges.contains(&(step[0], step[1])))
}

/// Fails unless the diagnostic is true of the graph.
fn verify(diagnostic: &Diagnostic, graph: &Graph, lines: &BTreeMap<usize, Edge>, text: &str) {
    let edges = graph.edges();
    let has_parent = |vertex: Vertex| edges.iter().any(|(_, child)| *child == vertex);
    match diagnostic.code {
        Code::Cycle => {
            let mut labelled = edges_at(&diagnostic.labels, lines, text);
            // The edge to look at comes first, and is the last of the circle.
            labelled.rotate_left(1);
            assert!(!labelled.is_empty());
            for (index, (_, end)) in labelled.iter().enumerate() {
                assert_eq!(
                    *end,
                    labelled[(index + 1) % labelled.len()].0,
                    "each edge begins where the one before ends"
                );
            }
            let named = path(&diagnostic.message);
            let walked: Vec<_> = labelled.iter().map(|(start, _)| *start).chain([labelled[0].0]).collect();
            assert_eq!(named, walked, "the message names what the labels show");
            assert!(is_path(&named, &edges));
            let distinct: BTreeSet<_> = labelled.iter().collect();
            assert_eq!(distinct.len(), labelled.len(), "no edge twice");
        }
        Code::TwoParents => {
            let paths: Vec<_> = diagnostic
                .labels
                .iter()
                .filter(|label| label.message.contains("path: "))
                .map(|label| (path(&label.message), edges_at(std::slice::from_ref(label), lines, text)[0]))
                .collect();
            let [(second, second_edge), (first, first_edge)] = paths.as_slice() else { panic!("{paths:?}") };
            assert_eq!(first.last(), second.last(), "both end at the same topic");
            assert_ne!(first[first.len() - 2], second[second.len() - 2], "by different parents");
            let labelled: BTreeSet<_> = edges_at(&diagnostic.labels, lines, text).into_iter().collect();
            for (path, edge) in [(first, first_edge), (second, second_edge)] {
                assert!(is_path(path, &edges), "{path:?}");
                assert_eq!((path[path.len() - 2], path[path.len() - 1]), *edge, "the label is at the last edge");
                let steps = path.windows(2).map(|step| (step[0], step[1]));
                assert!(steps.into_iter().all(|step| labelled.contains(&step)), "every edge has a label");
                // From a root, unless the way there goes in a circle.
                let circles = path.iter().any(|vertex| path[0] == *vertex) && has_parent(path[0]);
                assert!(!has_parent(path[0]) || circles);
            }
        }
        Code::SelfLoop => {
            let labelled = edges_at(&diagnostic.labels, lines, text);
            match labelled.as_slice() {
                [(subscriber, topic), (from, reader)] => assert_eq!((subscriber, topic), (reader, from)),
                [(from, to)] => assert_eq!(from, to),
                other => panic!("{other:?}"),
            }
        }
        Code::NoRoot => {
            let line = text[diagnostic.span().start as usize..].split(':').next().unwrap();
            // Everything that is connected to it, whatever the direction, has a parent.
            let mut tree = BTreeSet::from([vertex(line)]);
            loop {
                let more: Vec<_> = edges
                    .iter()
                    .flat_map(|(one, other)| [(*one, *other), (*other, *one)])
                    .filter(|(one, other)| tree.contains(one) && !tree.contains(other))
                    .map(|(_, other)| other)
                    .collect();
                if more.is_empty() {
                    break;
                }
                tree.extend(more);
            }
            assert!(tree.into_iter().all(has_parent));
        }
        Code::UnusedTopic => {
            let name = text[diagnostic.span().start as usize..].split(':').next().unwrap();
            // one that only diverts is not taken from either
            let is_used = |(start, end): &Edge| {
                *end == vertex(name) || *start == vertex(name) && matches!(end, Vertex::Subscriber(_))
            };
            assert!(!edges.iter().any(is_used));
        }
        code => panic!("{code}: {}", diagnostic.message),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_is_exactly_what_is_a_forest(graph in graphs()) {
        let (accepted, diagnostics, _, _) = checked(&graph);
        prop_assert_eq!(accepted, graph.is_forest(), "{:#?}", diagnostics);
    }

    #[test]
    fn every_witness_is_real(graph in graphs()) {
        let (_, diagnostics, lines, text) = checked(&graph);
        diagnostics.iter().for_each(|diagnostic| verify(diagnostic, &graph, &lines, &text));
    }

    #[test]
    fn every_self_loop_is_reported(graph in graphs()) {
        let (_, diagnostics, _, _) = checked(&graph);
        let reported = diagnostics.iter().filter(|diagnostic| diagnostic.code == Code::SelfLoop).count();
        let loops = |(from, to): &(usize, Vec<usize>)| to.iter().filter(|to| *to == from).count();
        let diverted = graph.diverts.iter().filter(|(from, to)| from == to).count();
        prop_assert_eq!(reported, graph.subscribers.iter().map(loops).sum::<usize>() + diverted);
    }

    #[test]
    fn forests_are_accepted_and_their_plan_is_the_graph(graph in forests()) {
        prop_assert!(graph.is_forest());
        let (text, _) = graph.yaml();
        let (plan, _) = check(&[Source { path: "t.yaml".into(), text }], &World);
        let plan = plan.unwrap();
        let mut edges = BTreeSet::new();
        for (index, subscriber) in plan.subscribers() {
            edges.insert((vertex(&plan[subscriber.from].name), vertex(&subscriber.name)));
            for (_, topic) in &subscriber.ports {
                edges.insert((vertex(&subscriber.name), vertex(&plan[*topic].name)));
                prop_assert_eq!(plan[*topic].parent, Some(index));
                prop_assert!(*topic > subscriber.from, "parents come first");
            }
            let parent = plan[subscriber.from].parent;
            prop_assert!(parent.is_none_or(|parent| parent < index), "parents come first");
        }
        for (index, topic) in plan.topics() {
            let Some(to) = topic.diverts_to else { continue };
            edges.insert((vertex(&topic.name), vertex(&plan[to].name)));
            prop_assert_eq!((plan[to].diverted_from, plan[to].parent), (Some(index), None));
            prop_assert!(to > index && !plan[to].is_root(), "parents come first");
        }
        prop_assert_eq!(edges, graph.edges());
        prop_assert_eq!(plan.topics.len(), graph.topics + graph.subscribers.len(), "each plugin has dead letters");
    }
}
