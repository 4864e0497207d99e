//! Handlers that do as a test says, and remember how they were called.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use wattle::dispatch::{HandleError, Handler};
use wattle::wasm::{Action, Batch, CallError, CallErrorKind, Failure, Handled, InstanceError, Output};

/// An event as the handler gets it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Given {
    pub(crate) index: u32,
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) time_ns: u64,
    pub(crate) attempt: u32,
    pub(crate) data: String,
    /// It is the only one of its call.
    pub(crate) is_alone: bool,
}

/// A call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) content_type: String,
    pub(crate) events: Vec<Given>,
}

impl Call {
    /// The data of its events.
    pub(crate) fn data(&self) -> Vec<&str> {
        self.events.iter().map(|event| event.data.as_str()).collect()
    }

    /// The attempts at its events.
    pub(crate) fn attempts(&self) -> Vec<u32> {
        self.events.iter().map(|event| event.attempt).collect()
    }
}

/// What a handler does with one event.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Emit(Vec<Output>),
    Retry(Option<Duration>),
    Reject,
    /// The call breaks here, and it is known where.
    Break(CallErrorKind),
    /// The call breaks, and nobody knows why.
    BreakSomewhere(CallErrorKind),
    /// There is no instance for the call.
    NoInstance,
}

/// An output on port 0 with this data, nothing else given.
pub(crate) fn out(data: impl Into<Vec<u8>>) -> Output {
    on(0, data)
}

/// An output on a port.
pub(crate) fn on(port: u32, data: impl Into<Vec<u8>>) -> Output {
    Output {
        event: 0,
        port,
        key: None,
        r#type: "out".into(),
        content_type: "application/json".into(),
        attributes: String::new(),
        data: data.into(),
    }
}

/// Emits the event's data.
pub(crate) fn copy(event: &Given) -> Step {
    Step::Emit(vec![out(event.data.clone())])
}

pub(crate) type Answer = Result<Handled, HandleError>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// A handler.
#[derive(Clone)]
pub(crate) struct Script {
    digest: [u8; 32],
    act: Arc<dyn Fn(Call) -> Answering + Send + Sync>,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Script {
    /// Does with each event what `act` says, as a plugin does it: in order, up to the first failure.
    pub(crate) fn each(act: impl Fn(&Given) -> Step + Send + Sync + 'static) -> Self {
        let act = Arc::new(act);
        Self::calls(move |call| {
            let act = act.clone();
            async move { by_event(&call, &*act) }
        })
    }

    /// Answers whole calls.
    pub(crate) fn calls<F>(act: impl Fn(Call) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self { digest: [1; 32], act: Arc::new(move |call| Box::pin(act(call))), calls: Arc::default() }
    }

    /// Its answer to a call that another script was given.
    pub(crate) async fn answer(&self, call: Call) -> Answer {
        (self.act)(call).await
    }

    /// The calls so far.
    pub(crate) fn called(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    /// How often each event was handed in, by its data.
    pub(crate) fn times(&self) -> BTreeMap<String, usize> {
        let mut times = BTreeMap::new();
        for event in self.called().into_iter().flat_map(|call| call.events) {
            *times.entry(event.data).or_default() += 1;
        }
        times
    }

    /// The data of the events of each call.
    pub(crate) fn batches(&self) -> Vec<Vec<String>> {
        self.called().iter().map(|call| call.data().into_iter().map(str::to_owned).collect()).collect()
    }
}

/// A call's answer from each event's.
pub(crate) fn by_event(call: &Call, act: impl Fn(&Given) -> Step) -> Answer {
    let mut handled = Handled::default();
    for event in &call.events {
        let fail = |action| Some(Failure { event: event.index, action, reason: format!("no {}", event.data) });
        let broken = |kind, blamed| {
            let (message, backtrace) = (format!("broke at {}", event.data), Some("in a\nin b".to_owned()));
            Err(CallError { event: blamed, kind, message, backtrace }.into())
        };
        handled.failed = match act(event) {
            Step::Emit(outputs) => {
                handled.outputs.extend(outputs.into_iter().map(|output| Output { event: event.index, ..output }));
                None
            }
            Step::Retry(delay) => fail(Action::Retry(delay)),
            Step::Reject => fail(Action::Reject),
            Step::Break(kind) => return broken(kind, Some(event.index)),
            Step::BreakSomewhere(kind) => return broken(kind, None),
            Step::NoInstance => {
                let (subscriber, message) = ("t/script".to_owned(), "no memory".to_owned());
                return Err(InstanceError::Start { subscriber, message }.into());
            }
        };
        if handled.failed.is_some() {
            break;
        }
    }
    Ok(handled)
}

impl Handler for Script {
    fn digest(&self) -> [u8; 32] {
        self.digest
    }

    async fn handle(&self, batch: Batch<'_>) -> Answer {
        let is_alone = batch.events.len() == 1;
        let events = (0..).zip(batch.events).map(|(index, event)| {
            let attributes = batch.context.attributes(index);
            let id = attributes.lines().find_map(|line| line.strip_prefix("id=")).unwrap_or_default();
            Given {
                index,
                id: id.to_owned(),
                key: event.key.to_owned(),
                time_ns: event.time_ns,
                attempt: event.attempt,
                data: String::from_utf8_lossy(event.data).into_owned(),
                is_alone,
            }
        });
        let call = Call {
            at: Instant::now(),
            topic: batch.topic.to_owned(),
            partition: batch.partition,
            content_type: batch.content_type.to_owned(),
            events: events.collect(),
        };
        self.calls.lock().unwrap().push(call.clone());
        (self.act)(call).await
    }
}
