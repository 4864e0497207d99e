//! A plan as a tree of lines, for terminals and for README files.

use anstyle::{AnsiColor, Style};

use super::{Forest, Vertex, subscriber_note, topic_notes};
use crate::topology::plan::Plan;

/// Deepest level that is drawn. Each level moves the lines to the right, so that deeper ones could not be read anyway.
const DEPTH_DRAWN_MAX: usize = 100;

const TOPIC: Style = AnsiColor::Cyan.on_default().bold();
const SUBSCRIBER: Style = AnsiColor::Green.on_default().bold();
const PORT: Style = AnsiColor::Yellow.on_default();
const FAINT: Style = Style::new().dimmed();

/// Draws a plan. With `colour` it has ANSI styles.
pub fn text(plan: &Plan, colour: bool) -> String {
    let paint = |style: Style, text: &str| match colour {
        true => format!("{style}{text}{style:#}"),
        false => text.to_owned(),
    };
    let mut drawn = String::new();
    let mut namespace = None;
    // For each level, what continues below: a line, or nothing after the last child.
    let mut rails: Vec<&str> = Vec::new();
    let mut hidden = 0;
    let forest = Forest::of(plan);
    for node in &forest.nodes {
        if node.depth == 0 {
            let Vertex::Topic(root) = node.vertex else { continue };
            let of = &plan[root].namespace;
            if namespace.is_some() {
                drawn.push('\n');
            }
            if namespace != Some(of) {
                drawn += &paint(Style::new().bold(), of);
                drawn.push('\n');
                namespace = Some(of);
            }
        }
        if node.depth > DEPTH_DRAWN_MAX {
            hidden += 1;
            continue;
        }
        rails.truncate(node.depth.saturating_sub(1));
        let rail: String = rails.concat();
        let branch = match (node.depth, node.last) {
            (0, _) => "",
            (_, true) => "└─ ",
            (_, false) => "├─ ",
        };
        drawn += &paint(FAINT, &format!("{rail}{branch}"));
        if node.depth > 0 {
            rails.push(if node.last { "   " } else { "│  " });
        }
        let notes = match node.vertex {
            Vertex::Topic(index) => {
                if !node.edge.is_empty() {
                    drawn += &format!("{} {} ", paint(PORT, &node.edge), paint(FAINT, "→"));
                }
                drawn += &format!("{} {}", paint(TOPIC, "●"), paint(TOPIC, &plan[index].name));
                topic_notes(plan, index).join(", ")
            }
            Vertex::Subscriber(index) => {
                drawn += &paint(SUBSCRIBER, &plan[index].name);
                subscriber_note(plan, index)
            }
        };
        if !notes.is_empty() {
            drawn += &format!("  {}", paint(FAINT, &notes));
        }
        drawn.push('\n');
    }
    if hidden > 0 {
        drawn += &format!("({hidden} more, deeper than {DEPTH_DRAWN_MAX} levels; `--format json` has them)\n");
    }
    drawn
}
