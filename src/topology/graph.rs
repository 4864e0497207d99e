//! Whether topics and subscribers form a forest, and if not, the evidence.
//!
//! Vertices are topics and subscribers; edges go from a topic to the subscribers that take from it and to the topic
//! that it diverts to, and from a subscriber to the topics that it publishes to. A forest has no cycle, and at most one
//! parent for each vertex. A subscriber has one `from`, so only topics can have more; several ports of one subscriber
//! to one topic are one parent.
//!
//! Promises: no fault exactly when it is a forest; every edge of a witness is an edge of the graph, the end of each is
//! the beginning of the next, cycles close and the paths to a topic end there. Knows numbers, not names or files.
//!
//! A problem is reported once: a topic whose second parent only closes a cycle is reported as the cycle.

use std::collections::{BTreeMap, HashMap, HashSet};

use petgraph::algo::kosaraju_scc;
use petgraph::graph::{DiGraph, EdgeIndex, NodeIndex};
use petgraph::unionfind::UnionFind;
use petgraph::visit::EdgeRef;

use super::bounds::CYCLES_REPORTED_MAX;

/// Most edges of a path that leads to a topic; of longer ones the last count. Keeps the evidence of ten thousand
/// mistakes small.
pub(crate) const PATH_EDGES_MAX: usize = 128;

/// A graph of topics `0..topics` and subscribers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shape {
    pub(crate) topics: usize,
    pub(crate) subscribers: Vec<Links>,
    /// For each topic its divert target, if known.
    pub(crate) diverts: Vec<Option<usize>>,
}

/// The edges of a subscriber.
#[derive(Debug, Clone, Default)]
pub(crate) struct Links {
    /// The topic that it takes from, if that is known.
    pub(crate) from: Option<usize>,
    /// The topics that it publishes to, by port; `None` where that is unknown.
    pub(crate) to: Vec<Option<usize>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Edge {
    /// From a topic to a subscriber.
    From { subscriber: usize },
    /// From a subscriber to a topic.
    To { subscriber: usize, port: usize },
    /// From a topic to another one.
    Divert { topic: usize },
}

/// Why it is not a forest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A port that leads to where its subscriber takes from.
    SelfLoop { subscriber: usize, port: usize },
    /// A topic that diverts to itself.
    SelfDivert { topic: usize },
    /// Edges that lead from a vertex back to it.
    Cycle(Vec<Edge>),
    /// Paths to a topic, each from another parent. Each begins at a root, where a cycle closes, or is cut to
    /// its last [`PATH_EDGES_MAX`] edges. Of the third parent on only the last edge is given.
    TwoParents { topic: usize, first: Vec<Edge>, second: Vec<Edge>, more: Vec<Edge> },
    /// The topics of a tree that has no root.
    NoRoot { topics: Vec<usize> },
}

/// Every reason why the graph is not a forest; none if it is one.
pub(crate) fn faults(shape: &Shape) -> Vec<Fault> {
    let mut faults = Vec::new();
    let graph = graph(shape, &mut faults);
    let loops = Loops::find(&graph);
    for component in &loops.components {
        cycles(&graph, component, &mut faults);
    }
    for topic in 0..shape.topics {
        faults.extend(two_parents(&graph, &loops, topic));
    }
    faults.extend(no_root(&graph, shape));
    faults
}

type Graph = DiGraph<(), Edge>;

/// The graph without the edges that are loops by themselves, which are reported.
fn graph(shape: &Shape, faults: &mut Vec<Fault>) -> Graph {
    let vertices = shape.topics + shape.subscribers.len();
    let mut graph = Graph::with_capacity(vertices, 2 * shape.subscribers.len());
    for _ in 0..vertices {
        graph.add_node(());
    }
    for (subscriber, links) in shape.subscribers.iter().enumerate() {
        let vertex = NodeIndex::new(shape.topics + subscriber);
        if let Some(from) = links.from {
            graph.add_edge(NodeIndex::new(from), vertex, Edge::From { subscriber });
        }
        for (port, to) in links.to.iter().enumerate() {
            match to {
                Some(to) if links.from == Some(*to) => faults.push(Fault::SelfLoop { subscriber, port }),
                Some(to) => drop(graph.add_edge(vertex, NodeIndex::new(*to), Edge::To { subscriber, port })),
                None => {}
            }
        }
    }
    for (topic, to) in shape.diverts.iter().enumerate() {
        match to {
            Some(to) if *to == topic => faults.push(Fault::SelfDivert { topic }),
            Some(to) => drop(graph.add_edge(NodeIndex::new(topic), NodeIndex::new(*to), Edge::Divert { topic })),
            None => {}
        }
    }
    graph
}

/// Sets of vertices that all reach each other.
struct Loops {
    components: Vec<HashSet<NodeIndex>>,
    component_of: HashMap<NodeIndex, usize>,
}

impl Loops {
    fn find(graph: &Graph) -> Self {
        let mut loops = Loops { components: Vec::new(), component_of: HashMap::new() };
        for component in kosaraju_scc(graph).into_iter().filter(|component| component.len() > 1) {
            loops.component_of.extend(component.iter().map(|vertex| (*vertex, loops.components.len())));
            loops.components.push(component.into_iter().collect());
        }
        // The order of components is that of the algorithm; diagnostics are sorted later.
        loops
    }

    /// Whether an edge between the two is part of a cycle.
    fn same(&self, one: NodeIndex, other: NodeIndex) -> bool {
        self.component_of.get(&one).is_some_and(|component| self.component_of.get(&other) == Some(component))
    }
}

/// Reports cycles among vertices that all reach each other: each time one, then without the edge that closes it.
fn cycles(graph: &Graph, component: &HashSet<NodeIndex>, faults: &mut Vec<Fault>) {
    let mut starts: Vec<NodeIndex> = component.iter().copied().collect();
    // A path that comes from outside first closes where people see the mistake.
    let entered = |vertex: NodeIndex| {
        graph.neighbors_directed(vertex, petgraph::Incoming).any(|parent| !component.contains(&parent))
    };
    starts.sort_by_key(|vertex| (!entered(*vertex), *vertex));
    let mut removed = HashSet::new();
    for _ in 0..CYCLES_REPORTED_MAX {
        let Some(cycle) = cycle(graph, component, &starts, &removed) else { return };
        removed.extend(cycle.last().copied());
        faults.push(Fault::Cycle(cycle.into_iter().filter_map(|edge| graph.edge_weight(edge).copied()).collect()));
    }
}

/// Some cycle that uses none of the `removed` edges: its edges in order.
fn cycle(
    graph: &Graph,
    component: &HashSet<NodeIndex>,
    starts: &[NodeIndex],
    removed: &HashSet<EdgeIndex>,
) -> Option<Vec<EdgeIndex>> {
    let mut done = HashSet::new();
    for start in starts {
        // Depth first without recursion, since a path can be as long as the topology is large. On `path` are the
        // vertices from the start to here, each with the edge to it and the edges from it that are still to be tried.
        let edges = |vertex: NodeIndex| {
            let mut edges: Vec<_> = graph
                .edges(vertex)
                .filter(|edge| component.contains(&edge.target()) && !removed.contains(&edge.id()))
                .map(|edge| (edge.id(), edge.target()))
                .collect();
            // Popped from the end, so that the first in the file is tried first.
            edges.sort_by_key(|(id, _)| std::cmp::Reverse(*id));
            edges
        };
        if done.contains(start) {
            continue;
        }
        let mut path = vec![(*start, None, edges(*start))];
        let mut depth_of = HashMap::from([(*start, 0)]);
        while let Some((vertex, _, rest)) = path.last_mut() {
            let Some((edge, target)) = rest.pop() else {
                done.insert(*vertex);
                depth_of.remove(vertex);
                path.pop();
                continue;
            };
            if let Some(depth) = depth_of.get(&target) {
                let along = path.iter().skip(depth + 1).filter_map(|(_, edge, _)| *edge);
                return Some(along.chain([edge]).collect());
            }
            if !done.contains(&target) {
                depth_of.insert(target, path.len());
                path.push((target, Some(edge), edges(target)));
            }
        }
    }
    None
}

fn two_parents(graph: &Graph, loops: &Loops, topic: usize) -> Option<Fault> {
    let vertex = NodeIndex::new(topic);
    let mut last_edges: Vec<(EdgeIndex, NodeIndex)> = Vec::new();
    let incoming = graph.edges_directed(vertex, petgraph::Incoming).filter(|edge| !loops.same(edge.source(), vertex));
    for edge in incoming {
        last_edges.push((edge.id(), edge.source()));
    }
    // In the order of the file, and one edge per parent.
    last_edges.sort();
    let mut parents = HashSet::new();
    last_edges.retain(|(_, parent)| parents.insert(*parent));
    let [(first, _), (second, _), more @ ..] = last_edges.as_slice() else { return None };
    let weight = |edge: &EdgeIndex| graph.edge_weight(*edge).copied();
    Some(Fault::TwoParents {
        topic,
        first: path_to(graph, loops, *first),
        second: path_to(graph, loops, *second),
        more: more.iter().filter_map(|(edge, _)| weight(edge)).collect(),
    })
}

/// The edges from a root to the end of `last`.
fn path_to(graph: &Graph, loops: &Loops, last: EdgeIndex) -> Vec<Edge> {
    let mut path = Vec::new();
    let mut seen = HashSet::new();
    let mut next = Some(last);
    while let Some(edge) = next.filter(|_| path.len() < PATH_EDGES_MAX) {
        let Some((source, _)) = graph.edge_endpoints(edge).filter(|(source, _)| seen.insert(*source)) else { break };
        path.extend(graph.edge_weight(edge).copied());
        let parents = graph.edges_directed(source, petgraph::Incoming);
        next = parents.map(|edge| (loops.same(edge.source(), source), edge.id())).min().map(|(_, edge)| edge);
    }
    path.reverse();
    path
}

/// Trees of which each vertex has a parent. They have a cycle, too; this says what follows from it.
fn no_root(graph: &Graph, shape: &Shape) -> Vec<Fault> {
    let mut trees = UnionFind::<usize>::new(graph.node_count());
    for edge in graph.edge_references() {
        trees.union(edge.source().index(), edge.target().index());
    }
    let is_root = |vertex: &NodeIndex| graph.edges_directed(*vertex, petgraph::Incoming).next().is_none();
    let rooted: HashSet<usize> =
        graph.node_indices().filter(is_root).map(|vertex| trees.find(vertex.index())).collect();
    let mut rootless: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for topic in 0..shape.topics {
        let tree = trees.find(topic);
        if !rooted.contains(&tree) {
            rootless.entry(tree).or_default().push(topic);
        }
    }
    rootless.into_values().map(|topics| Fault::NoRoot { topics }).collect()
}
