//! A plan as a picture in SVG.
//!
//! Each parent is in the middle of its children. The tree grows to the right where it then fits on a page, and
//! downwards where it would not. The file stands alone: no script, no font and nothing else from outside. It has its
//! own background, and other colours where the reader prefers dark ones.

use std::fmt::Write;

use super::{Forest, Vertex, subscriber_note, topic_notes};
use crate::topology::plan::Plan;

/// All lengths are in pixels. Width of a character: the fonts asked for are monospaced, 0.6 em at 13 and 11 pixels.
const NAME_CHAR: f64 = 7.83;
const NOTE_CHAR: f64 = 6.63;
/// Inside of a box, left and right of its text.
const PADDING: f64 = 12.0;
/// Height of a box with one and with two lines.
const HEIGHTS: [f64; 2] = [30.0, 44.0];
/// Between the boxes of neighbours.
const BETWEEN: f64 = 18.0;
/// Between the boxes of a parent and its children, next to the label of the edge, by growth.
const GAP_RIGHT: f64 = 52.0;
const GAP_DOWN: f64 = 34.0;
/// Around everything.
const MARGIN: f64 = 24.0;
/// Height of the name of a namespace.
const TITLE: f64 = 34.0;
/// Widest picture that grows to the right: about what a page or a README shows without scaling it.
const PAGE: f64 = 1_000.0;
/// From the tip of an arrow to the end of its line.
const ARROW: f64 = 7.0;

// Plain colours rather than variables, which some programs that draw SVG do not know.
const STYLE: &str = "\
    text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
    .paper { fill: #ffffff; }
    .title { font-size: 15px; font-weight: 600; fill: #1f2328; }
    .name { font-size: 13px; font-weight: 600; fill: #1f2328; }
    .note { font-size: 11px; fill: #59636e; }
    .port { font-size: 11px; fill: #59636e; stroke: #ffffff; stroke-width: 5px; stroke-linejoin: round; \
paint-order: stroke; }
    .edge { fill: none; stroke: #8c959f; stroke-width: 1.4; }
    .arrow { fill: #8c959f; }
    .topic { fill: #ddf4ff; stroke: #0969da; stroke-width: 1.2; }
    .plugin { fill: #dafbe1; stroke: #1a7f37; stroke-width: 1.2; }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117; }
      .title, .name { fill: #e6edf3; }
      .note { fill: #9198a1; }
      .port { fill: #9198a1; stroke: #0d1117; }
      .edge { stroke: #6e7781; }
      .arrow { fill: #6e7781; }
      .topic { fill: #10233d; stroke: #58a6ff; }
      .plugin { fill: #12261b; stroke: #3fb950; }
    }
";

/// A box with its text, and where it is.
struct NodeBox {
    name: String,
    note: String,
    /// Width of the label of the edge to it.
    port: f64,
    width: f64,
    height: f64,
    x: f64,
    y: f64,
}

/// Where children are.
#[derive(Clone, Copy, PartialEq)]
enum Growth {
    Right,
    Down,
}

/// Sizes of the whole picture, and the names of namespaces with their places.
struct Page {
    width: f64,
    height: f64,
    titles: Vec<(String, f64)>,
}

/// Draws a plan.
pub fn svg(plan: &Plan) -> String {
    let forest = Forest::of(plan);
    let mut shapes: Vec<NodeBox> = forest.nodes.iter().map(|node| shape(plan, node.vertex, &node.edge)).collect();
    let mut growth = Growth::Right;
    let mut page = place(plan, &forest, &mut shapes, growth);
    if page.width > PAGE {
        let down = place(plan, &forest, &mut shapes, Growth::Down);
        if down.width < page.width {
            (growth, page) = (Growth::Down, down);
        } else {
            page = place(plan, &forest, &mut shapes, growth);
        }
    }
    let Page { width, height, titles } = page;
    let mut drawn = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"topology\">\n  <style>\n{STYLE}  </style>\n  \
         <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"8\"/>\n"
    );
    for (title, y) in titles {
        line(&mut drawn, format_args!("<text class=\"title\" x=\"{MARGIN}\" y=\"{y:.1}\">{}</text>", escaped(&title)));
    }
    let edges = || {
        let parent = |parent: Option<usize>| parent.and_then(|parent| shapes.get(parent));
        forest
            .nodes
            .iter()
            .zip(&shapes)
            .filter_map(move |(node, shape)| Some((parent(node.parent)?, shape, &node.edge)))
    };
    edges().for_each(|(from, to, _)| draw_edge(&mut drawn, from, to, growth));
    edges().for_each(|(_, to, port)| draw_port(&mut drawn, to, port, growth));
    for (node, shape) in forest.nodes.iter().zip(&shapes) {
        draw_shape(&mut drawn, shape, matches!(node.vertex, Vertex::Topic(_)));
    }
    drawn + "</svg>\n"
}

fn shape(plan: &Plan, vertex: Vertex, edge: &str) -> NodeBox {
    let (name, note) = match vertex {
        Vertex::Topic(index) => (plan[index].name.clone(), topic_notes(plan, index).join(" · ")),
        Vertex::Subscriber(index) => (plan[index].name.clone(), subscriber_note(plan, index)),
    };
    let text = width(&name, NAME_CHAR).max(width(&note, NOTE_CHAR));
    let [one_line, two_lines] = HEIGHTS;
    let height = if note.is_empty() { one_line } else { two_lines };
    NodeBox { name, note, port: width(edge, NOTE_CHAR), width: text + 2.0 * PADDING, height, x: 0.0, y: 0.0 }
}

fn width(text: &str, char: f64) -> f64 {
    text.chars().count() as f64 * char
}

impl NodeBox {
    /// Its size in the direction of its neighbours.
    fn breadth(&self, growth: Growth) -> f64 {
        match growth {
            Growth::Right => self.height,
            // The text at the edge to it stands between those of its neighbours.
            Growth::Down => self.width.max(self.port + 8.0),
        }
    }

    /// Its size on the way from the root.
    fn length(&self, growth: Growth) -> f64 {
        match growth {
            Growth::Right => self.width,
            Growth::Down => self.height,
        }
    }
}

/// Positions every shape. All shapes of a level begin, or for a tree that grows down have their middle, at the
/// same distance from the roots.
fn place(plan: &Plan, forest: &Forest, shapes: &mut [NodeBox], growth: Growth) -> Page {
    let breadths = breadths(forest, shapes, growth);
    let (levels, depth) = levels(forest, shapes, growth);
    let mut titles = Vec::new();
    let mut namespace = None;
    // Where the next root begins: trees that grow to the right are below each other, those that grow down stand side
    // by side, with each namespace below the one before.
    let (mut along, mut top) = (MARGIN, MARGIN);
    let (mut widest, mut bottom) = (0.0_f64, MARGIN);
    // Where the next child of each vertex begins.
    let mut next = vec![0.0_f64; shapes.len()];
    for index in 0..shapes.len() {
        let (Some(node), Some((breadth, children))) = (forest.nodes.get(index), breadths.get(index)) else { continue };
        if let (None, Vertex::Topic(root)) = (node.parent, node.vertex) {
            let of = &plan[root].namespace;
            if namespace != Some(of) {
                if growth == Growth::Down && namespace.is_some() {
                    top = bottom + 2.0 * BETWEEN;
                    along = MARGIN;
                }
                let y = if growth == Growth::Down { &mut top } else { &mut along };
                titles.push((of.clone(), *y + 14.0));
                *y += TITLE;
                namespace = Some(of);
            }
        }
        let cursor = node.parent.and_then(|parent| next.get_mut(parent)).unwrap_or(&mut along);
        let begin = *cursor;
        *cursor += breadth + BETWEEN;
        if let Some(next) = next.get_mut(index) {
            *next = begin + (breadth - children) / 2.0;
        }
        widest = widest.max(begin + breadth);
        let level = levels.get(node.depth).copied().unwrap_or_default();
        if let Some(shape) = shapes.get_mut(index) {
            let middle = begin + breadth / 2.0;
            (shape.x, shape.y) = match growth {
                Growth::Right => (MARGIN + level + shape.width / 2.0, middle),
                Growth::Down => (middle, top + level + HEIGHTS[1] / 2.0),
            };
            bottom = bottom.max(shape.y + HEIGHTS[1] / 2.0);
        }
    }
    let title = titles.iter().map(|(title, _)| width(title, 9.2)).fold(0.0, f64::max) + 2.0 * MARGIN;
    let (width, height) = match growth {
        Growth::Right => (depth + 2.0 * MARGIN, along - BETWEEN + MARGIN),
        Growth::Down => (widest + MARGIN, bottom + MARGIN),
    };
    Page { width: width.max(title), height, titles }
}

/// For each vertex the room that it and all below it need beside its neighbours, and what its children alone need.
fn breadths(forest: &Forest, shapes: &[NodeBox], growth: Growth) -> Vec<(f64, f64)> {
    let mut breadths = vec![(0.0_f64, 0.0_f64); shapes.len()];
    // Children come after their parents, so that backwards each is complete before its parent.
    for index in (0..shapes.len()).rev() {
        let (Some(node), Some(shape)) = (forest.nodes.get(index), shapes.get(index)) else { continue };
        let Some((all, children)) = breadths.get_mut(index) else { continue };
        *children = (*children - BETWEEN).max(0.0);
        *all = children.max(shape.breadth(growth));
        let all = *all;
        if let Some((_, siblings)) = node.parent.and_then(|parent| breadths.get_mut(parent)) {
            *siblings += all + BETWEEN;
        }
    }
    breadths
}

/// Where each level begins, and where the last one ends.
fn levels(forest: &Forest, shapes: &[NodeBox], growth: Growth) -> (Vec<f64>, f64) {
    let count = forest.nodes.iter().map(|node| node.depth + 1).max().unwrap_or(0);
    let mut sizes = vec![(0.0_f64, 0.0_f64); count];
    for (node, shape) in forest.nodes.iter().zip(shapes) {
        if let Some((length, port)) = sizes.get_mut(node.depth) {
            *length = length.max(shape.length(growth));
            *port = port.max(shape.port);
        }
    }
    let mut at = 0.0;
    let mut levels = Vec::with_capacity(count);
    for (length, port) in sizes {
        let gap = match growth {
            Growth::Right => GAP_RIGHT + port,
            Growth::Down if port > 0.0 => GAP_DOWN + 20.0,
            Growth::Down => GAP_DOWN,
        };
        at += if levels.is_empty() { 0.0 } else { gap };
        levels.push(at);
        // Of a tree that grows down all levels are as high as the highest box.
        at += if growth == Growth::Down { HEIGHTS[1] } else { length };
    }
    (levels, at)
}

fn draw_edge(drawn: &mut String, from: &NodeBox, to: &NodeBox, growth: Growth) {
    let path = match growth {
        Growth::Right => {
            let (start, tip) = (from.x + from.width / 2.0, to.x - to.width / 2.0);
            // The bend is over before the text of the edge begins, so that texts stand on straight lines.
            let straight = tip - ARROW - to.port - 14.0;
            let bend = (start + straight) / 2.0;
            let (fy, ty) = (from.y, to.y);
            format!("M{start:.1} {fy:.1}C{bend:.1} {fy:.1} {bend:.1} {ty:.1} {straight:.1} {ty:.1}H{:.1}", tip - ARROW)
        }
        Growth::Down => {
            let (start, tip) = (from.y + from.height / 2.0, to.y - to.height / 2.0);
            let straight = tip - ARROW - if to.port > 0.0 { 16.0 } else { 6.0 };
            let bend = (start + straight) / 2.0;
            let (fx, tx) = (from.x, to.x);
            format!("M{fx:.1} {start:.1}C{fx:.1} {bend:.1} {tx:.1} {bend:.1} {tx:.1} {straight:.1}V{:.1}", tip - ARROW)
        }
    };
    line(drawn, format_args!("<path class=\"edge\" d=\"{path}\"/>"));
    let arrow = match growth {
        Growth::Right => {
            let (x, y) = (to.x - to.width / 2.0, to.y);
            format!("M{x:.1} {y:.1}L{:.1} {:.1}V{:.1}Z", x - ARROW - 1.0, y - 4.0, y + 4.0)
        }
        Growth::Down => {
            let (x, y) = (to.x, to.y - to.height / 2.0);
            format!("M{x:.1} {y:.1}L{:.1} {:.1}H{:.1}Z", x - 4.0, y - ARROW - 1.0, x + 4.0)
        }
    };
    line(drawn, format_args!("<path class=\"arrow\" d=\"{arrow}\"/>"));
}

/// Writes at the end of an edge. After all edges, so that none crosses the text.
fn draw_port(drawn: &mut String, to: &NodeBox, port: &str, growth: Growth) {
    if port.is_empty() {
        return;
    }
    let (x, y, anchor) = match growth {
        Growth::Right => (to.x - to.width / 2.0 - ARROW - 6.0, to.y + 3.5, "end"),
        Growth::Down => (to.x, to.y - to.height / 2.0 - ARROW - 7.0, "middle"),
    };
    let port = escaped(port);
    line(drawn, format_args!("<text class=\"port\" text-anchor=\"{anchor}\" x=\"{x:.1}\" y=\"{y:.1}\">{port}</text>"));
}

fn draw_shape(drawn: &mut String, shape: &NodeBox, topic: bool) {
    let NodeBox { name, note, width, height, x, y, .. } = shape;
    let (class, radius) = if topic { ("topic", height / 2.0) } else { ("plugin", 6.0) };
    let (left, top) = (x - width / 2.0, y - height / 2.0);
    line(
        drawn,
        format_args!(
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             rx=\"{radius:.1}\"/>"
        ),
    );
    let mut text = |class: &str, y: f64, text: &str| {
        let text = escaped(text);
        line(
            drawn,
            format_args!("<text class=\"{class}\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"),
        );
    };
    if note.is_empty() {
        text("name", y + 4.5, name);
    } else {
        text("name", y - 3.5, name);
        text("note", y + 13.5, note);
    }
}

/// Adds a line; writing to a `String` cannot fail.
fn line(drawn: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(drawn, "  {text}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
