//! What a namespace declares, before and after its names are looked up.

use std::collections::HashMap;

use super::diagnostic::Span;
use super::settings;

/// All that files with the same name declare.
#[derive(Default)]
pub(crate) struct Namespace {
    /// Its name, unless it was reported.
    pub(crate) name: Option<(String, Span)>,
    pub(crate) topics: Vec<DeclaredTopic>,
    pub(crate) subscribers: Vec<DeclaredSubscriber>,
    pub(super) topic_by_name: HashMap<String, usize>,
    pub(super) subscriber_by_name: HashMap<String, usize>,
}

pub(crate) struct DeclaredTopic {
    pub(crate) name: String,
    /// Where it is declared; for dead letters, where their subscriber is.
    pub(crate) span: Span,
    pub(crate) settings: settings::Topic,
    pub(crate) dead_letters_of: Option<usize>,
    /// The topic that it diverts to, once looked up.
    pub(super) diverts_to: Option<usize>,
}

pub(crate) struct DeclaredSubscriber {
    pub(crate) name: String,
    pub(crate) span: Span,
    pub(crate) settings: settings::Subscriber,
    /// The topic it takes from, once looked up.
    pub(super) from: Option<usize>,
    /// The topic of each port.
    pub(super) to: Vec<Option<usize>>,
    pub(super) dead_letters: Option<usize>,
}

impl Namespace {
    /// Puts declarations in order, before anything refers to their places.
    pub(super) fn sort(&mut self, order: &Order) {
        let place = |places: &HashMap<String, usize>, name: &str| places.get(name).copied().unwrap_or(usize::MAX);
        self.topics.sort_by_key(|topic| place(&order.topics, &topic.name));
        self.subscribers.sort_by_key(|subscriber| place(&order.subscribers, &subscriber.name));
        self.topic_by_name = self.topics.iter().map(|topic| topic.name.clone()).zip(0..).collect();
        self.subscriber_by_name = self.subscribers.iter().map(|of| of.name.clone()).zip(0..).collect();
    }
}

impl DeclaredSubscriber {
    /// The place where an edge from it is written, and its name there.
    pub(crate) fn port(&self, port: usize) -> (Span, Option<&str>) {
        // After the ports comes the topic for dead letters, which is not written anywhere.
        self.settings.ports.get(port).map_or((self.span, None), |port| (port.span, Some(port.name.as_str())))
    }

    /// The place where the edge to it is written.
    pub(crate) fn span_of_from(&self) -> Span {
        self.settings.from.as_ref().map_or(self.span, |(_, span)| *span)
    }
}

/// The places of topics and subscribers of a namespace, by their names.
#[derive(Debug, Default)]
pub(crate) struct Order {
    pub(crate) topics: HashMap<String, usize>,
    pub(crate) subscribers: HashMap<String, usize>,
}
