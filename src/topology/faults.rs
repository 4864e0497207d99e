//! Problems of a graph, in words and with their places in the files.

use super::diagnostic::{Code, Diagnostic, Span};
use super::graph::{Edge, Fault};
use super::namespace::{DeclaredTopic, Namespace};

/// Most vertices of a path that a message names; of longer ones the beginning and the end.
const PATH_NAMES_MAX: usize = 24;

/// Describes a fault of the graph of a namespace.
pub(crate) fn describe(namespace: &Namespace, fault: Fault) -> Diagnostic {
    let names = NodeNames { namespace };
    match fault {
        Fault::SelfLoop { subscriber, port } => names.self_loop(subscriber, port),
        Fault::SelfDivert { topic } => names.self_divert(topic),
        Fault::Cycle(edges) => names.cycle(&edges),
        Fault::TwoParents { topic, first, second, more } => names.two_parents(topic, &first, &second, &more),
        Fault::NoRoot { topics } => names.no_root(&topics),
    }
}

/// Gives numbers their names and places.
struct NodeNames<'n> {
    namespace: &'n Namespace,
}

impl<'n> NodeNames<'n> {
    fn topic(&self, topic: usize) -> &'n str {
        self.namespace.topics.get(topic).map_or("", |topic| &topic.name)
    }

    fn subscriber(&self, subscriber: usize) -> &'n str {
        self.namespace.subscribers.get(subscriber).map_or("", |subscriber| &subscriber.name)
    }

    /// Place, first and last vertex, and a sentence for an edge.
    fn edge(&self, edge: Edge) -> (Span, &'n str, &'n str, String) {
        let nowhere = Span { source: 0, start: 0, end: 0 };
        match edge {
            Edge::From { subscriber } => {
                let declared = self.namespace.subscribers.get(subscriber);
                let topic = declared.and_then(|it| it.settings.from.as_ref()).map_or("", |(topic, _)| topic);
                let name = self.subscriber(subscriber);
                let span = declared.map_or(nowhere, |it| it.span_of_from());
                (span, topic, name, format!("`{name}` takes from `{topic}`"))
            }
            Edge::To { subscriber, port } => {
                let name = self.subscriber(subscriber);
                let declared = self.namespace.subscribers.get(subscriber);
                let (span, port_name) = declared.map_or((nowhere, None), |it| it.port(port));
                let written = declared.and_then(|it| it.settings.ports.get(port)).map(|port| port.topic.as_str());
                // What is not written is the topic for dead letters.
                let dead_letters = || {
                    let of = |topic: &&DeclaredTopic| topic.dead_letters_of == Some(subscriber);
                    self.namespace.topics.iter().find(of).map_or("", |topic| &topic.name)
                };
                let topic = written.unwrap_or_else(dead_letters);
                let what = if port_name.is_some() { "publishes" } else { "sends dead letters" };
                (span, name, topic, format!("`{name}` {what} to `{topic}`"))
            }
            Edge::Divert { topic } => {
                let declared = self.namespace.topics.get(topic).and_then(|topic| topic.settings.diverts_to.as_ref());
                let (to, span) = declared.map_or(("", nowhere), |(to, span)| (to.as_str(), *span));
                let topic = self.topic(topic);
                (span, topic, to, format!("`{topic}` diverts to `{to}`"))
            }
        }
    }

    /// "orders → validate → orders.accepted".
    fn path(&self, edges: &[Edge]) -> String {
        let mut vertices: Vec<&str> = edges.iter().map(|edge| self.edge(*edge).1).collect();
        vertices.extend(edges.last().map(|edge| self.edge(*edge).2));
        if vertices.len() <= PATH_NAMES_MAX {
            return vertices.join(" → ");
        }
        let (start, rest) = vertices.split_at(PATH_NAMES_MAX / 2);
        let end = rest.get(rest.len() - PATH_NAMES_MAX / 2..).unwrap_or_default();
        format!("{} → … → {}", start.join(" → "), end.join(" → "))
    }

    fn self_loop(&self, subscriber: usize, port: usize) -> Diagnostic {
        let (span, _, topic, label) = self.edge(Edge::To { subscriber, port });
        let (from, _, name, from_label) = self.edge(Edge::From { subscriber });
        let message = format!("`{name}` publishes to the topic that it takes from, `{topic}`");
        let looped = Diagnostic::error(Code::SelfLoop, span, label, message).label(from, from_label);
        looped.help("publish to another topic; to handle an event again, the plugin returns `retry`")
    }

    fn self_divert(&self, topic: usize) -> Diagnostic {
        let (span, _, topic, label) = self.edge(Edge::Divert { topic });
        let message = format!("`{topic}` diverts events that are out of order to itself");
        Diagnostic::error(Code::SelfLoop, span, label, message).help("divert them to another topic")
    }

    fn cycle(&self, edges: &[Edge]) -> Diagnostic {
        // To look at first is the edge that goes back, but the steps are counted from the beginning.
        let steps = edges.len();
        let mut labels = edges.iter().enumerate().map(|(step, edge)| {
            let (span, _, _, label) = self.edge(*edge);
            (span, format!("{} of {steps}: {label}", step + 1))
        });
        let (span, label) = labels.next_back().unwrap_or((Span { source: 0, start: 0, end: 0 }, String::new()));
        let message = format!("events would go in a circle: {}", self.path(edges));
        let cycle = labels.fold(Diagnostic::error(Code::Cycle, span, label, message), |cycle, (span, label)| {
            cycle.label(span, label)
        });
        cycle.help("a topology is a tree: let one of these publish to a topic of its own")
    }

    fn two_parents(&self, topic: usize, first: &[Edge], second: &[Edge], more: &[Edge]) -> Diagnostic {
        let topic = self.topic(topic);
        let parent = |path: &[Edge]| path.last().map_or("", |edge| self.edge(*edge).1);
        let message = format!("the topic `{topic}` has two parents, `{}` and `{}`", parent(first), parent(second));
        let mut described: Option<Diagnostic> = None;
        let mut label = |span: Span, label: String| {
            described = Some(match described.take() {
                None => Diagnostic::error(Code::TwoParents, span, label, &message),
                Some(described) => described.label(span, label),
            });
        };
        for (path, which) in [(second, "second"), (first, "first")] {
            if let Some(last) = path.last() {
                label(self.edge(*last).0, format!("{which} path: {}", self.path(path)));
            }
        }
        for edge in more {
            let (span, _, _, text) = self.edge(*edge);
            label(span, format!("also, {text}"));
        }
        // What both paths have in common is said once.
        let mut seen = std::collections::HashSet::new();
        for path in [first, second] {
            for edge in path.iter().take(path.len().saturating_sub(1)).filter(|edge| seen.insert(**edge)) {
                let (span, _, _, text) = self.edge(*edge);
                label(span, text);
            }
        }
        let nowhere = || Diagnostic::error(Code::TwoParents, Span { source: 0, start: 0, end: 0 }, "", &message);
        let help = format!("give each a topic of its own, for example `{topic}.{}`", parent(second));
        described.unwrap_or_else(nowhere).help(help)
    }

    fn no_root(&self, topics: &[usize]) -> Diagnostic {
        // Those for dead letters are nowhere in the file.
        let declared =
            |topic: &&usize| self.namespace.topics.get(**topic).is_some_and(|topic| topic.dead_letters_of.is_none());
        let topics: Vec<usize> = topics.iter().filter(declared).copied().collect();
        let names: Vec<String> = topics.iter().map(|topic| format!("`{}`", self.topic(*topic))).collect();
        let shown = match names.get(..4).filter(|_| names.len() > 4) {
            Some(some) => format!("{} and {} more", some.join(", "), names.len() - 4),
            None => names.join(", "),
        };
        let span = topics.first().and_then(|topic| self.namespace.topics.get(*topic));
        let span = span.map_or(Span { source: 0, start: 0, end: 0 }, |topic| topic.span);
        let message = format!("nothing outside can publish to the tree of {shown}: it has no root");
        let no_root = Diagnostic::error(Code::NoRoot, span, "each of its topics has a parent", message);
        no_root.help("a root is a topic that no subscriber publishes to; breaking the cycle makes one")
    }
}
