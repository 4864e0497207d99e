//! A plan as a picture in SVG: from left to right, each parent in the middle of its children.
//!
//! The file stands alone: no script, no font and nothing else from outside. It has its own background, and other
//! colours where the reader prefers dark ones.

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
/// From the top of a leaf to the top of the next.
const ROW: f64 = 60.0;
/// Between the boxes of one level and the text of the edges to the next, and after that text.
const GAP: f64 = 26.0;
/// Around everything.
const MARGIN: f64 = 24.0;
/// Height of the name of a namespace.
const TITLE: f64 = 34.0;

const STYLE: &str = "\
    svg { --paper: #ffffff; --ink: #1f2328; --faint: #59636e; --line: #9aa4ae; --topic: #ddf4ff; --topic-line: #0969da; \
--plugin: #dafbe1; --plugin-line: #1a7f37; }
    @media (prefers-color-scheme: dark) { svg { --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --line: #58616b; \
--topic: #10233d; --topic-line: #58a6ff; --plugin: #12261b; --plugin-line: #3fb950; } }
    text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; }
    .paper { fill: var(--paper, #ffffff); }
    .title { font-size: 15px; font-weight: 600; fill: var(--ink, #1f2328); }
    .name { font-size: 13px; font-weight: 600; fill: var(--ink, #1f2328); }
    .note, .port { font-size: 11px; fill: var(--faint, #59636e); }
    .edge { fill: none; stroke: var(--line, #9aa4ae); stroke-width: 1.5; }
    .arrow { fill: var(--line, #9aa4ae); }
    .topic { fill: var(--topic, #ddf4ff); stroke: var(--topic-line, #0969da); stroke-width: 1.2; }
    .plugin { fill: var(--plugin, #dafbe1); stroke: var(--plugin-line, #1a7f37); stroke-width: 1.2; }
";

/// A box with its text.
#[derive(Clone)]
struct Shape {
    name: String,
    note: String,
    width: f64,
    height: f64,
    /// Middle of the left side.
    x: f64,
    y: f64,
}

/// Draws a plan.
pub fn svg(plan: &Plan) -> String {
    let forest = Forest::of(plan);
    let mut shapes: Vec<Shape> = forest.nodes.iter().map(|node| shape(plan, node.vertex)).collect();
    let width = place_columns(&forest, &mut shapes);
    let (titles, height) = place_rows(plan, &forest, &mut shapes);
    let mut drawn = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" role=\"img\" aria-label=\"topology\">\n  <style>\n{STYLE}  </style>\n  \
         <rect class=\"paper\" width=\"100%\" height=\"100%\" rx=\"8\"/>\n"
    );
    for (title, y) in titles {
        line(&mut drawn, format_args!("<text class=\"title\" x=\"{MARGIN}\" y=\"{y:.1}\">{}</text>", escaped(&title)));
    }
    for (node, shape) in forest.nodes.iter().zip(&shapes) {
        if let Some(parent) = node.parent.and_then(|parent| shapes.get(parent)) {
            draw_edge(&mut drawn, parent, shape, &node.edge);
        }
    }
    for (node, shape) in forest.nodes.iter().zip(&shapes) {
        draw_shape(&mut drawn, shape, matches!(node.vertex, Vertex::Topic(_)));
    }
    drawn + "</svg>\n"
}

fn shape(plan: &Plan, vertex: Vertex) -> Shape {
    let (name, note) = match vertex {
        Vertex::Topic(index) => (plan[index].name.clone(), topic_notes(plan, index).join(" · ")),
        Vertex::Subscriber(index) => (plan[index].name.clone(), subscriber_note(plan, index)),
    };
    let text = (name.chars().count() as f64 * NAME_CHAR).max(note.chars().count() as f64 * NOTE_CHAR);
    let [one_line, two_lines] = HEIGHTS;
    let height = if note.is_empty() { one_line } else { two_lines };
    Shape { name, note, width: text + 2.0 * PADDING, height, x: 0.0, y: 0.0 }
}

/// Puts each level in a column that leaves room for what is written at the edges to it. Returns the whole width.
fn place_columns(forest: &Forest, shapes: &mut [Shape]) -> f64 {
    let depths = forest.nodes.iter().map(|node| node.depth + 1).max().unwrap_or(0);
    let mut boxes = vec![0.0_f64; depths];
    let mut ports = vec![0.0_f64; depths];
    for (node, shape) in forest.nodes.iter().zip(shapes.iter()) {
        if let (Some(width), Some(port)) = (boxes.get_mut(node.depth), ports.get_mut(node.depth)) {
            *width = width.max(shape.width);
            *port = port.max(node.edge.chars().count() as f64 * NOTE_CHAR);
        }
    }
    let mut x = MARGIN;
    let mut columns = Vec::with_capacity(depths);
    for (depth, (width, port)) in boxes.iter().zip(&ports).enumerate() {
        if depth > 0 {
            x += 2.0 * GAP + port;
        }
        columns.push(x);
        x += width;
    }
    for (node, shape) in forest.nodes.iter().zip(shapes) {
        shape.x = columns.get(node.depth).copied().unwrap_or_default();
    }
    x + MARGIN
}

/// Gives each leaf a row, and each parent the middle of its children. Returns the titles with their places, and the
/// whole height.
fn place_rows(plan: &Plan, forest: &Forest, shapes: &mut [Shape]) -> (Vec<(String, f64)>, f64) {
    let mut titles = Vec::new();
    let mut namespace = None;
    let mut y = MARGIN;
    let mut inner = vec![false; forest.nodes.len()];
    forest.nodes.iter().filter_map(|node| node.parent).for_each(|parent| {
        if let Some(inner) = inner.get_mut(parent) {
            *inner = true;
        }
    });
    for ((node, shape), inner) in forest.nodes.iter().zip(shapes.iter_mut()).zip(&inner) {
        if let (0, Vertex::Topic(root)) = (node.depth, node.vertex) {
            let of = &plan[root].namespace;
            if namespace != Some(of) {
                titles.push((of.clone(), y + 14.0));
                y += TITLE;
                namespace = Some(of);
            }
        }
        if !inner {
            shape.y = y + ROW / 2.0;
            y += ROW;
        }
    }
    // Children come after their parents, so that backwards each is placed before its parent needs it.
    let mut span: Vec<Option<(f64, f64)>> = vec![None; forest.nodes.len()];
    for (index, node) in forest.nodes.iter().enumerate().rev() {
        let Some(shape) = shapes.get_mut(index) else { continue };
        if let Some((first, last)) = span.get(index).copied().flatten() {
            shape.y = (first + last) / 2.0;
        }
        if let Some(span) = node.parent.and_then(|parent| span.get_mut(parent)) {
            let (first, last) = span.unwrap_or((shape.y, shape.y));
            *span = Some((first.min(shape.y), last.max(shape.y)));
        }
    }
    (titles, y - ROW / 2.0 + HEIGHTS[1] / 2.0 + MARGIN)
}

fn draw_edge(drawn: &mut String, from: &Shape, to: &Shape, port: &str) {
    let (start, end) = (from.x + from.width, to.x - 6.0);
    // The bend is over before the text of the edge begins, so that texts stand on straight lines.
    let text = port.chars().count() as f64 * NOTE_CHAR;
    let straight = end - text - GAP / 2.0;
    let bend = (start + straight) / 2.0;
    line(
        drawn,
        format_args!(
            "<path class=\"edge\" d=\"M{start:.1} {fy:.1} C{bend:.1} {fy:.1} {bend:.1} {ty:.1} {straight:.1} {ty:.1} \
             L{end:.1} {ty:.1}\"/>",
            fy = from.y,
            ty = to.y
        ),
    );
    let (tip, top, bottom) = (to.x, to.y - 4.0, to.y + 4.0);
    line(drawn, format_args!("<path class=\"arrow\" d=\"M{tip:.1} {:.1} L{end:.1} {top:.1} V{bottom:.1} Z\"/>", to.y));
    if !port.is_empty() {
        let (x, y) = (end - text - 4.0, to.y - 6.0);
        line(drawn, format_args!("<text class=\"port\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(port)));
    }
}

fn draw_shape(drawn: &mut String, shape: &Shape, topic: bool) {
    let Shape { name, note, width, height, x, y } = shape;
    let (class, radius) = if topic { ("topic", height / 2.0) } else { ("plugin", 6.0) };
    let top = y - height / 2.0;
    line(
        drawn,
        format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             rx=\"{radius:.1}\"/>"
        ),
    );
    let middle = x + width / 2.0;
    let name_y = if note.is_empty() { y + 4.5 } else { y - 3.5 };
    let name = escaped(name);
    line(
        drawn,
        format_args!("<text class=\"name\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{name_y:.1}\">{name}</text>"),
    );
    if !note.is_empty() {
        let (note, note_y) = (escaped(note), y + 13.5);
        line(
            drawn,
            format_args!(
                "<text class=\"note\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{note_y:.1}\">{note}</text>"
            ),
        );
    }
}

/// Adds a line; writing to a `String` cannot fail.
fn line(drawn: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = writeln!(drawn, "  {text}");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
