//! Handlers that do as a test says, and remember how they were called.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use wattle::model::call::{
    Action, Batch, CallError, CallErrorKind, EventVerdict, Failure, HandleError, Handled, Handler, InstanceError,
    Output, Reads, StateRead, StateView, StateWrite,
};

/// The state as an event of a call sees it: what was there, and what the call has written since.
#[derive(Clone, Default)]
pub(crate) struct State {
    /// Not there once the call is over: it keeps the engine alive.
    view: Option<Arc<dyn StateView>>,
    writes: Arc<Mutex<Vec<(u64, StateWrite)>>>,
    /// What the events of the call have read.
    reads: Arc<Mutex<Reads>>,
    event: u32,
    time_ns: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("State")
    }
}

impl PartialEq for State {
    fn eq(&self, _: &Self) -> bool {
        true // of two events that are alike otherwise
    }
}

impl State {
    /// What is under a key.
    pub(crate) fn get(&self, bucket: &str, key: &str) -> Option<String> {
        let view = self.view.as_ref().expect("the call goes on");
        let writes = self.writes.lock().unwrap();
        let newest =
            writes.iter().rev().find(|(_, write)| (write.bucket.as_str(), write.key.as_str()) == (bucket, key));
        let value = match newest {
            Some((written_ns, _)) if view.has_expired(bucket, *written_ns, self.time_ns) => None,
            Some((_, write)) => write.value.clone(),
            None => {
                let value = view.get(bucket, key, self.time_ns).unwrap();
                let (bucket, key) = (bucket.to_owned(), key.to_owned());
                let mut reads = self.reads.lock().unwrap();
                reads.add(self.event, StateRead::Value { bucket, key, value: value.clone() });
                view.have_read(reads.clone());
                value
            }
        };
        value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    /// The keys that were in a bucket in front of the call.
    pub(crate) fn keys(&self, bucket: &str, after: Option<&str>, count: usize) -> Vec<String> {
        let view = self.view.as_ref().expect("the call goes on");
        let (mut keys, mut behind) = (Vec::new(), after.map(str::to_owned));
        // As an SDK does: a page may be short.
        loop {
            let found = view.keys(bucket, behind.as_deref(), count - keys.len(), self.time_ns).unwrap();
            keys.extend(found.keys);
            behind = found.looked_to;
            if behind.is_none() || keys.len() == count {
                return keys;
            }
        }
    }

    pub(crate) fn set(&self, bucket: &str, key: &str, value: impl Into<String>) {
        self.write(bucket, key, Some(value.into()));
    }

    pub(crate) fn delete(&self, bucket: &str, key: &str) {
        self.write(bucket, key, None);
    }

    fn write(&self, bucket: &str, key: &str, value: Option<String>) {
        let (event, value) = (self.event, value.map(|value| value.into_bytes().into()));
        let write = StateWrite { event, bucket: bucket.to_owned(), key: key.to_owned(), value };
        let mut writes = self.writes.lock().unwrap();
        // an event writes a key once at the most
        let is_same = |(_, other): &(u64, StateWrite)| {
            (other.event, &other.bucket, &other.key) == (write.event, &write.bucket, &write.key)
        };
        writes.retain(|other| !is_same(other));
        writes.push((self.time_ns, write));
    }
}

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
    pub(crate) state: State,
}

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

#[derive(Clone)]
pub(crate) struct Script {
    digest: [u8; 32],
    state_version: u32,
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
        Self {
            digest: [1; 32],
            state_version: 0,
            act: Arc::new(move |call| Box::pin(act(call))),
            calls: Arc::default(),
        }
    }

    /// As another version.
    pub(crate) fn version(self, number: u8) -> Self {
        Self { digest: [number; 32], ..self }
    }

    /// As one that keeps state of this version.
    pub(crate) fn state_version(self, state_version: u32) -> Self {
        Self { state_version, ..self }
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
    let (mut handled, mut failed) = (Handled::done(call.events.len()), None);
    let written = call.events.first().map(|event| event.state.writes.clone()).unwrap_or_default();
    written.lock().unwrap().clear();
    for event in &call.events {
        let fail = |action| Some(Failure { event: event.index, action, reason: format!("no {}", event.data) });
        let broken = |kind, blamed| {
            let (message, backtrace) = (format!("broke at {}", event.data), Some("in a\nin b".to_owned()));
            Err(CallError { event: blamed, kind, message, backtrace }.into())
        };
        failed = match act(event) {
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
        if failed.is_some() {
            break;
        }
    }
    let end = failed.as_ref().map_or(u32::MAX, |failed: &Failure| failed.event);
    handled.verdicts = Handled::in_order(call.events.len(), failed).verdicts;
    let writes = written.lock().unwrap().iter().map(|(_, write)| write.clone()).collect::<Vec<_>>();
    handled.writes = writes.into_iter().filter(|write| write.event < end).collect();
    Ok(handled)
}

/// A call's answer from each event's verdict, in any mixture. What events have written that are not done is not in it.
pub(crate) fn by_verdict(call: &Call, mut act: impl FnMut(&Given) -> EventVerdict) -> Answer {
    let written = call.events.first().map(|event| event.state.writes.clone()).unwrap_or_default();
    written.lock().unwrap().clear();
    let mut handled = Handled::done(call.events.len());
    handled.verdicts = call.events.iter().map(&mut act).collect();
    let is_done = |event: u32| handled.verdicts[event as usize] == EventVerdict::Done;
    let done = call.events.iter().filter(|event| is_done(event.index));
    let outputs = done.map(|event| Output { event: event.index, ..out(event.data.clone()) }).collect();
    let writes = written.lock().unwrap().iter().map(|(_, write)| write.clone()).collect::<Vec<_>>();
    let writes = writes.into_iter().filter(|write| is_done(write.event)).collect();
    Ok(Handled { outputs, writes, ..handled })
}

impl Handler for Script {
    fn digest(&self) -> [u8; 32] {
        self.digest
    }

    fn state_version(&self) -> u32 {
        self.state_version
    }

    async fn handle(&self, batch: Batch<'_>) -> Answer {
        let is_alone = batch.events.len() == 1;
        let (writes, reads) = (Arc::default(), Arc::default());
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
                state: State {
                    view: Some(batch.state.clone()),
                    writes: Arc::clone(&writes),
                    reads: Arc::clone(&reads),
                    event: index,
                    time_ns: event.trusted_time_ns,
                },
            }
        });
        let call = Call {
            at: Instant::now(),
            topic: batch.topic.to_owned(),
            partition: batch.partition,
            content_type: batch.content_type.to_owned(),
            events: events.collect(),
        };
        let mut noted = call.clone();
        noted.events.iter_mut().for_each(|event| event.state.view = None);
        self.calls.lock().unwrap().push(noted);
        (self.act)(call).await
    }
}
