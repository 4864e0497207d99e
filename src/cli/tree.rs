//! The running tree as text: each node with its counts.

use std::time::Duration;

use anstyle::{AnsiColor, Style};

use super::words;
use crate::api::{LaneState, Snapshot, SubscriberStatus, TopicStatus};

/// Which nodes are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NodeFilter {
    /// All of them.
    All,
    /// Those for dead letters only where there are some.
    WithoutEmptyDeadLetters,
}

/// A node: where it is in the tree, and its counts.
struct NodeLine {
    /// Lines and corners before the name.
    trunk: String,
    name: String,
    style: Style,
    counts: Vec<(String, Style)>,
}

pub(super) const TOPIC: Style = Style::new().bold();
pub(super) const SUBSCRIBER: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan)));
pub(super) const BAD: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red)));
pub(super) const WARNING: Style = Style::new().fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow)));
pub(super) const FAINT: Style = Style::new().dimmed();

/// The tree, one node a line, with ANSI colours.
pub(super) fn text(snapshot: &Snapshot, shown: NodeFilter) -> String {
    let mut lines = lines(snapshot, shown).join("\n");
    lines.push('\n');
    lines
}

/// The lines of [`text`].
pub(super) fn lines(snapshot: &Snapshot, shown: NodeFilter) -> Vec<String> {
    let mut walk = Walk { snapshot, shown, lines: Vec::new() };
    let is_root = |topic: &&TopicStatus| topic.parent.is_none() && topic.diverted_from.is_none();
    for root in snapshot.topics.iter().filter(is_root) {
        walk.topic(root, None, "", "");
    }
    let length = |line: &NodeLine| line.trunk.chars().count() + line.name.chars().count();
    let width = walk.lines.iter().map(length).max().unwrap_or(0);
    let render = |line: &NodeLine| {
        let counts: Vec<String> = line.counts.iter().map(|(count, style)| format!("{style}{count}{style:#}")).collect();
        let (style, gap) = (line.style, width - length(line));
        let name = words::plain(&line.name);
        format!("{FAINT}{}{FAINT:#}{style}{name}{style:#}{:gap$}  {}", line.trunk, "", counts.join(", "))
    };
    walk.lines.iter().map(render).collect()
}

struct Walk<'a> {
    snapshot: &'a Snapshot,
    shown: NodeFilter,
    lines: Vec<NodeLine>,
}

impl<'a> Walk<'a> {
    /// `first` is printed before the topic itself, `rest` before its children.
    fn topic(&mut self, topic: &'a TopicStatus, port: Option<&str>, first: &str, rest: &str) {
        let name = match port {
            Some(port) => format!("{port} ▸ {}", topic.name),
            None => topic.name.clone(),
        };
        let style = if topic.is_dead_letters { FAINT } else { TOPIC };
        let mut counts = vec![(plural(topic.events(), "event"), Style::new())];
        if topic.events_per_minute > 0 {
            counts.push((words::rate(topic.events_per_minute), Style::new()));
        }
        let open = self.snapshot.subscribers.iter().filter(|of| of.dead_letters.as_ref() == Some(&topic.name));
        let open: u64 = open.filter_map(|of| of.open_dead_letters).sum();
        if open > 0 {
            counts.push((format!("{open} of them open"), BAD));
        }
        if topic.delayed > 0 {
            counts.push((format!("{} to come", topic.delayed), Style::new()));
        }
        if topic.awaits_clock > 0 {
            let words = format!("{} of them await `wattle clock confirm`", topic.awaits_clock);
            counts.push((words, Style::new()));
        }
        if let Some(why) = &topic.delay_failure {
            counts.push((format!("late: {}", words::plain(why)), BAD));
        }
        if let Some(why) = &topic.held_failure {
            counts.push((format!("not judged again: {}", words::plain(why)), BAD));
        }
        if let Some(keys) = &topic.states {
            if keys.held > 0 {
                counts.push((format!("{} held", keys.held), WARNING));
            }
            counts.push((format!("{} in their lifecycle", plural(keys.living, "key")), Style::new()));
            counts.push((format!("{} ended", keys.ended), Style::new()));
        }
        self.lines.push(NodeLine { trunk: first.to_owned(), name, style, counts });
        let snapshot = self.snapshot;
        let readers: Vec<_> = snapshot.subscribers.iter().filter(|reader| reader.from == topic.name).collect();
        let is_diverted = |other: &&TopicStatus| other.diverted_from.as_ref() == Some(&topic.name);
        let diverted = snapshot.topics.iter().find(is_diverted);
        for (index, reader) in readers.iter().enumerate() {
            let (corner, below) = branch(index + 1 == readers.len() && diverted.is_none());
            self.subscriber(reader, &format!("{rest}{corner}"), &format!("{rest}{below}"));
        }
        if let Some(diverted) = diverted {
            let (corner, below) = branch(true);
            self.topic(diverted, Some("out of order"), &format!("{rest}{corner}"), &format!("{rest}{below}"));
        }
    }

    fn subscriber(&mut self, subscriber: &'a SubscriberStatus, first: &str, rest: &str) {
        let name = subscriber.name.split_once('/').map_or(subscriber.name.as_str(), |(_, name)| name).to_owned();
        self.lines.push(NodeLine { trunk: first.to_owned(), name, style: SUBSCRIBER, counts: counts(subscriber) });
        let snapshot = self.snapshot;
        let topic = |name: &str| snapshot.topics.iter().find(|topic| topic.name == name);
        let ports = subscriber.to.iter().map(|(port, name)| (port.as_str(), topic(name)));
        let dead = subscriber.dead_letters.iter().map(|name| ("dead letters", topic(name)));
        let shown = |topic: &TopicStatus| self.shown == NodeFilter::All || !topic.is_dead_letters || topic.events() > 0;
        let below: Vec<_> = ports
            .chain(dead)
            .filter_map(|(port, topic)| Some((port, topic?)))
            .filter(|(_, topic)| shown(topic))
            .collect();
        for (index, (port, topic)) in below.iter().enumerate() {
            let (corner, trunk) = branch(index + 1 == below.len());
            self.topic(topic, Some(port), &format!("{rest}{corner}"), &format!("{rest}{trunk}"));
        }
    }
}

/// The text before a node, and before its children.
pub(super) fn branch(is_last: bool) -> (&'static str, &'static str) {
    if is_last { ("└─ ", "   ") } else { ("├─ ", "│  ") }
}

fn counts(subscriber: &SubscriberStatus) -> Vec<(String, Style)> {
    let plain = Style::new();
    let mut counts = Vec::new();
    if subscriber.handled_per_minute > 0 {
        counts.push((words::rate(subscriber.handled_per_minute), plain));
    }
    let open = subscriber.open_dead_letters.unwrap_or(0);
    for (count, what, age, style) in [
        (subscriber.lag, "lag", subscriber.lag_age, plain),
        (subscriber.waiting, "in the retry queue", subscriber.waiting_age, plain),
        (subscriber.parked, "parked", None, BAD),
        (open, if open == 1 { "open dead letter" } else { "open dead letters" }, None, BAD),
    ] {
        let age = age.map(|age: Duration| format!(" ({})", words::age(age))).unwrap_or_default();
        let words = if what == "lag" { format!("lag {count}{age}") } else { format!("{count} {what}{age}") };
        if count > 0 {
            counts.push((words, style));
        }
    }
    if subscriber.open_dead_letters.is_none() {
        counts.push(("open dead letters not counted".to_owned(), WARNING));
    }
    let lanes = |state| subscriber.lanes.iter().filter(|lane| **lane == state).count() as u64;
    for (state, what, style) in [
        (LaneState::Retrying, "retrying", BAD),
        (LaneState::Paused, "paused", WARNING),
        (LaneState::Halted, "halted", BAD),
        (LaneState::Full, "full", BAD),
        (LaneState::Blocked, "blocked", WARNING),
        (LaneState::Failing, "failing", BAD),
        (LaneState::Compiling, "compiling", WARNING),
        (LaneState::Stopped, "stopped", BAD),
    ] {
        let count = lanes(state);
        if count > 0 {
            counts.push((format!("{} {what}", plural(count, "lane")), style));
        }
    }
    counts.extend(since_start(subscriber));
    counts
}

/// Counters since the start, which are not stored, in one place and named so.
fn since_start(subscriber: &SubscriberStatus) -> Vec<(String, Style)> {
    let plain = Style::new();
    let mut counts = vec![
        (format!("since start: {} handled", subscriber.handled), plain),
        (format!("{} emitted", subscriber.emitted), plain),
    ];
    for (count, what) in [
        (subscriber.retried, "retried"),
        (subscriber.dead_lettered, "dead-lettered"),
        (subscriber.passed_over, "filtered"),
        (subscriber.repeated, "repeated"),
    ] {
        if count > 0 {
            counts.push((format!("{count} {what}"), plain));
        }
    }
    counts
}

/// `1 event`, `2 events`.
pub(super) fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Bounds;

    fn topic(name: &str, parent: Option<&str>, is_dead_letters: bool, events: u64) -> TopicStatus {
        let bounds = Bounds { start: 0, written: events, durable: events };
        let (name, parent, partitions) = (name.into(), parent.map(Into::into), vec![bounds]);
        let (delayed, awaits_clock) = (0, 0);
        TopicStatus {
            name,
            parent,
            diverted_from: None,
            is_dead_letters,
            delayed,
            awaits_clock,
            delay_failure: None,
            held_failure: None,
            recognises_retries: false,
            states: None,
            events_per_minute: 0,
            partitions,
        }
    }

    fn snapshot() -> Snapshot {
        let uptime = Duration::from_secs(60);
        Snapshot {
            uptime,
            topics: vec![
                topic("shop/orders", None, false, 10),
                topic("shop/orders.accepted", Some("shop/validate"), false, 7),
                topic("shop/orders.refused", Some("shop/validate"), false, 1),
                topic("shop/validate.dead", Some("shop/validate"), true, 2),
                topic("shop/ship.dead", Some("shop/ship"), true, 0),
            ],
            subscribers: vec![
                SubscriberStatus {
                    name: "shop/validate".into(),
                    from: "shop/orders".into(),
                    to: vec![
                        ("accepted".into(), "shop/orders.accepted".into()),
                        ("refused".into(), "shop/orders.refused".into()),
                    ],
                    dead_letters: Some("shop/validate.dead".into()),
                    open_dead_letters: Some(1),
                    handled_per_minute: 90,
                    handled: 10,
                    emitted: 8,
                    retried: 3,
                    dead_lettered: 2,
                    ..SubscriberStatus::default()
                },
                SubscriberStatus {
                    name: "shop/ship".into(),
                    from: "shop/orders.accepted".into(),
                    dead_letters: Some("shop/ship.dead".into()),
                    handled: 5,
                    lag: 2,
                    lag_age: Some(Duration::from_secs(7)),
                    waiting_age: Some(Duration::from_secs(400)),
                    open_dead_letters: Some(0),
                    passed_over: 4,
                    repeated: 2,
                    waiting: 3,
                    parked: 1,
                    lanes: vec![LaneState::Running, LaneState::Retrying, LaneState::Paused, LaneState::Halted],
                    ..SubscriberStatus::default()
                },
            ],
        }
    }

    fn plain(shown: NodeFilter) -> String {
        anstream::adapter::strip_str(&text(&snapshot(), shown)).to_string()
    }

    #[test]
    fn the_tree_has_every_node_with_its_counts() {
        let expected = "\
shop/orders                                10 events
└─ validate                                90/min, 1 open dead letter, since start: 10 handled, 8 emitted, 3 retried, \
2 dead-lettered
   ├─ accepted ▸ shop/orders.accepted      7 events
   │  └─ ship                              lag 2 (7 s), 3 in the retry queue (6 min), 1 parked, 1 lane retrying, 1 \
   lane paused, 1 lane \
halted, since start: 5 handled, 0 emitted, 4 filtered, 2 repeated
   │     └─ dead letters ▸ shop/ship.dead  0 events
   ├─ refused ▸ shop/orders.refused        1 event
   └─ dead letters ▸ shop/validate.dead    2 events, 1 of them open
";
        assert_eq!(plain(NodeFilter::All), expected);
    }

    #[test]
    fn empty_dead_letters_can_be_left_out() {
        let text = plain(NodeFilter::WithoutEmptyDeadLetters);
        assert!(text.contains("validate.dead") && !text.contains("ship.dead"), "{text}");
    }
}
