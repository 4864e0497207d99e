//! Pictures of a plan: for terminals, for Graphviz and Mermaid, for browsers, and for programs.
//!
//! Promises: the same plan gives the same picture; no recursion over the tree, since it can be as deep as it is large.
//! Topics for dead letters are shown only if they have subscribers: each plugin has one, and it would hide the
//! rest.

mod json;
mod languages;
mod svg;
mod text;

use std::path::{Component, Path, PathBuf};

pub use json::json;
pub use languages::{dot, mermaid};
pub use svg::svg;
pub use text::text;

use super::plan::{Plan, PluginSource, SubscriberIndex, SubscriberKind, TopicIndex};

/// The vertices to draw, parents before children and children in the order of the files.
struct Forest {
    nodes: Vec<DrawnNode>,
}

/// A vertex to draw.
struct DrawnNode {
    vertex: Vertex,
    /// Position of the parent among the nodes.
    parent: Option<usize>,
    /// Steps from the root.
    depth: usize,
    /// The label of the edge to it: ports, by commas, unless the only one is called as its topic; or what goes there
    /// from another topic.
    edge: String,
    /// Whether no sibling comes after it.
    last: bool,
}

#[derive(Clone, Copy)]
enum Vertex {
    Topic(TopicIndex),
    Subscriber(SubscriberIndex),
}

impl Forest {
    fn of(plan: &Plan) -> Self {
        let readers = plan.readers();
        let readers_of = |topic: TopicIndex| readers.get(topic.0 as usize).map_or(&[][..], Vec::as_slice);
        let mut nodes: Vec<DrawnNode> = Vec::new();
        let roots = plan.topics().filter(|(_, topic)| topic.is_root()).map(|(index, _)| index);
        for root in roots {
            let node =
                DrawnNode { vertex: Vertex::Topic(root), parent: None, depth: 0, edge: String::new(), last: true };
            let mut stack = vec![node];
            while let Some(node) = stack.pop() {
                let (parent, depth) = (Some(nodes.len()), node.depth + 1);
                let mut children: Vec<DrawnNode> = match node.vertex {
                    Vertex::Topic(topic) => {
                        let child = |reader: &SubscriberIndex| Vertex::Subscriber(*reader);
                        let node = |vertex| DrawnNode { vertex, parent, depth, edge: String::new(), last: false };
                        let diverted = plan[topic]
                            .diverts_to
                            .map(|to| DrawnNode { edge: "out of order".to_owned(), ..node(Vertex::Topic(to)) });
                        readers_of(topic).iter().map(child).map(node).chain(diverted).collect()
                    }
                    Vertex::Subscriber(index) => {
                        let subscriber = &plan[index];
                        let mut edges: Vec<(TopicIndex, String)> = Vec::new();
                        for (port, topic) in &subscriber.ports {
                            let alone = subscriber.ports.iter().filter(|(_, other)| other == topic).count() == 1;
                            if alone && *port == plan[*topic].name {
                                edges.push((*topic, String::new()));
                                continue;
                            }
                            match edges.iter_mut().find(|(known, _)| known == topic) {
                                Some((_, ports)) => *ports += &format!(", {port}"),
                                None => edges.push((*topic, port.clone())),
                            }
                        }
                        let dead_letters = subscriber.dead_letters.filter(|topic| !readers_of(*topic).is_empty());
                        edges.extend(dead_letters.map(|topic| (topic, "dead letters".to_owned())));
                        let node = |(topic, edge)| DrawnNode {
                            vertex: Vertex::Topic(topic),
                            parent,
                            depth,
                            edge,
                            last: false,
                        };
                        edges.into_iter().map(node).collect()
                    }
                };
                if let Some(last) = children.last_mut() {
                    last.last = true;
                }
                nodes.push(node);
                stack.extend(children.into_iter().rev());
            }
        }
        Forest { nodes }
    }
}

/// The note next to a topic: partitions where they are not those of its parent, and its key.
fn topic_notes(plan: &Plan, index: TopicIndex) -> Vec<String> {
    let topic = &plan[index];
    let from = topic.parent.map(|parent| plan[parent].from).or(topic.diverted_from);
    let inherited = from.map(|from| plan[from].partitions);
    let partitions = (inherited != Some(topic.partitions)).then(|| match topic.partitions {
        1 => "1 partition".to_owned(),
        count => format!("{count} partitions"),
    });
    let key = topic.key.as_ref().map(|key| format!("key {}", key.text()));
    partitions.into_iter().chain(key).collect()
}

/// The note next to a subscriber.
fn subscriber_note(plan: &Plan, index: SubscriberIndex) -> String {
    match &plan[index].runs {
        SubscriberKind::Plugin(PluginSource::Folder(path) | PluginSource::Wasm(path)) => {
            tidy(path).display().to_string()
        }
        SubscriberKind::Plugin(PluginSource::Stored { name, digest }) => format!("{name}@{digest}"),
        SubscriberKind::Push { url } => format!("push {url}"),
        SubscriberKind::Pull => "pull".to_owned(),
    }
}

/// A path without `folder/..`, for people to read; with links it may not be the same place.
fn tidy(path: &Path) -> PathBuf {
    let mut tidy: Vec<Component<'_>> = Vec::new();
    for component in path.components() {
        match (component, tidy.last()) {
            (Component::ParentDir, Some(Component::Normal(_))) => drop(tidy.pop()),
            (Component::CurDir, _) => {}
            _ => tidy.push(component),
        }
    }
    tidy.iter().collect()
}
