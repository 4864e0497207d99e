//! A plan in languages for graphs: DOT of Graphviz, and Mermaid, which many sites draw inside Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{DrawnNode, Forest, Vertex, subscriber_note, topic_notes};
use crate::topology::plan::Plan;

/// Adds a line; writing to a `String` cannot fail.
macro_rules! line {
    ($drawn:expr, $($format:tt)*) => {{
        let _ = writeln!($drawn, $($format)*);
    }};
}

/// Draws a plan in DOT, for `dot -Tsvg` and its kin.
pub fn dot(plan: &Plan) -> String {
    let forest = Forest::of(plan);
    let mut drawn = String::from("digraph topology {\n  rankdir=LR;\n  node [fontname=\"sans-serif\"];\n");
    drawn += "  edge [fontname=\"sans-serif\", fontsize=10];\n";
    for (index, (namespace, nodes)) in by_namespace(plan, &forest).into_iter().enumerate() {
        line!(drawn, "  subgraph cluster_{index} {{\n    label={};", quoted(namespace));
        for (position, node) in nodes {
            let (shape, label) = match node.vertex {
                Vertex::Topic(_) => ("ellipse", label(plan, node, "\n")),
                Vertex::Subscriber(_) => ("box", label(plan, node, "\n")),
            };
            line!(drawn, "    n{position} [shape={shape}, label={}];", quoted(&label));
        }
        drawn += "  }\n";
    }
    for (position, node) in forest.nodes.iter().enumerate() {
        let Some(parent) = node.parent else { continue };
        match node.edge.as_str() {
            "" => line!(drawn, "  n{parent} -> n{position};"),
            port => line!(drawn, "  n{parent} -> n{position} [label={}];", quoted(port)),
        }
    }
    drawn + "}\n"
}

/// Draws a plan in Mermaid.
pub fn mermaid(plan: &Plan) -> String {
    let forest = Forest::of(plan);
    let mut drawn = String::from("flowchart LR\n");
    for (index, (namespace, nodes)) in by_namespace(plan, &forest).into_iter().enumerate() {
        line!(drawn, "  subgraph ns{index}[{}]", escaped(namespace));
        for (position, node) in nodes {
            let label = escaped(&label(plan, node, "<br/>"));
            match node.vertex {
                Vertex::Topic(_) => line!(drawn, "    n{position}([{label}])"),
                Vertex::Subscriber(_) => line!(drawn, "    n{position}[{label}]"),
            }
        }
        drawn += "  end\n";
    }
    for (position, node) in forest.nodes.iter().enumerate() {
        let Some(parent) = node.parent else { continue };
        match node.edge.as_str() {
            "" => line!(drawn, "  n{parent} --> n{position}"),
            port => line!(drawn, "  n{parent} -->|{}| n{position}", escaped(port)),
        }
    }
    drawn
}

fn by_namespace<'p, 'f>(plan: &'p Plan, forest: &'f Forest) -> BTreeMap<&'p str, Vec<(usize, &'f DrawnNode)>> {
    let mut namespaces: BTreeMap<&str, Vec<(usize, &DrawnNode)>> = BTreeMap::new();
    for (position, node) in forest.nodes.iter().enumerate() {
        let namespace = match node.vertex {
            Vertex::Topic(index) => &plan[index].namespace,
            Vertex::Subscriber(index) => &plan[index].namespace,
        };
        namespaces.entry(namespace).or_default().push((position, node));
    }
    namespaces
}

fn label(plan: &Plan, node: &DrawnNode, line_break: &str) -> String {
    let (name, notes) = match node.vertex {
        Vertex::Topic(index) => (&plan[index].name, topic_notes(plan, index)),
        Vertex::Subscriber(index) => (&plan[index].name, vec![subscriber_note(plan, index)]),
    };
    [name.clone()].into_iter().chain(notes).collect::<Vec<_>>().join(line_break)
}

/// A text as a string of DOT.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}

/// A text as a string of Mermaid, which has no escapes but knows entities. Our own line breaks stay.
fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;");
    format!("\"{}\"", text.replace("&lt;br/&gt;", "<br/>"))
}
