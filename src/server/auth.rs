//! Who calls, and whether that caller may do what it asks for.
//!
//! Promises: a caller is judged before the body of its request is read, and again by the names in the request before
//! anything is done; rules that change count at once, also for streams that are open. Where the bus has no rules,
//! everybody who can connect may do everything. Must not know: protocols, how rules are written.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::bounds;
use super::listener::Peer;
use super::refusal::{self, Refusal};
use super::usage::{Share, Usage};
use crate::access::{Access, Authorization, Credentials, Identity, Resource, Unauthenticated, Verb};
use crate::effects::Clock;

/// What a call needs, as the contract says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Right {
    /// One of them.
    pub(super) verbs: &'static [Verb],
    /// It belongs to no topic or subscriber.
    pub(super) bus: bool,
    /// Its requests are a stream, so it may take long.
    pub(super) streams_requests: bool,
    /// A record of it is durable before its answer.
    pub(super) is_audited: bool,
}

/// The rules of a bus, which may change while it runs. Cheap to clone; clones share them.
#[derive(Clone, Default)]
pub struct Gate(Option<Arc<Rules>>);

struct Rules {
    access: watch::Sender<Arc<Access>>,
    usage: Usage,
    clock: Arc<dyn Clock>,
}

impl Gate {
    /// Everybody who can connect may do everything.
    pub fn open() -> Self {
        Self(None)
    }

    /// Only what the rules allow is allowed. Tokens expire by this clock.
    pub fn by(access: Access, clock: Arc<dyn Clock>) -> Self {
        let access = watch::Sender::new(Arc::new(access));
        Self(Some(Arc::new(Rules { access, usage: Usage::default(), clock })))
    }

    /// Whether there are rules.
    pub fn has_rules(&self) -> bool {
        self.0.is_some()
    }

    /// From now on these rules count. Without effect on a bus that has started without rules.
    pub fn replace(&self, access: Access) {
        if let Some(rules) = &self.0 {
            rules.access.send_replace(Arc::new(access));
        }
    }

    /// Who sends a request with these headers.
    pub(super) fn caller(&self, headers: &HeaderMap, peer: &Arc<Peer>) -> Result<Caller, Refusal> {
        let Some(rules) = &self.0 else { return Ok(Caller(None)) };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let authorization = match (values.next(), values.next()) {
            (None, _) => Header::Absent,
            (Some(value), None) => Header::Value(Zeroizing::new(value.as_bytes().to_vec())),
            (Some(_), Some(_)) => Header::Repeated,
        };
        let access = rules.access.borrow().clone();
        let proof = Proof { authorization, peer: peer.clone() };
        let identity = rules.identify(&access, &proof).map_err(|error| refusal::unauthenticated(&error))?;
        if let Some(connections_max) = access.limits(&identity).connections {
            rules.connect(peer, identity.name(), connections_max)?;
        }
        Ok(Caller(Some(Arc::new(KnownCaller { rules: rules.clone(), access, identity, proof }))))
    }
}

impl Rules {
    fn now_s(&self) -> u64 {
        self.clock.now_ns() / 1_000_000_000
    }

    /// Counts a connection of a principal, once.
    fn connect(&self, peer: &Peer, name: &str, connections_max: u32) -> Result<(), Refusal> {
        let mut shares = peer.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if shares.iter().any(|share| share.name() == name) {
            return Ok(());
        }
        if shares.len() >= bounds::PRINCIPALS_PER_CONNECTION_MAX {
            let limit = format!("{} principals with limits on one connection", bounds::PRINCIPALS_PER_CONNECTION_MAX);
            return Err(refusal::over_limit(name, &limit, Duration::from_secs(1)));
        }
        shares.push(self.usage.connect(name, connections_max)?);
        Ok(())
    }

    fn identify(&self, access: &Access, proof: &Proof) -> Result<Identity, Unauthenticated> {
        access.identify(&proof.credentials(), self.now_s())
    }
}

/// What a caller has shown.
struct Proof {
    authorization: Header,
    peer: Arc<Peer>,
}

enum Header {
    Absent,
    Repeated,
    Value(Zeroizing<Vec<u8>>),
}

impl Proof {
    fn credentials(&self) -> Credentials<'_> {
        let authorization = match &self.authorization {
            Header::Absent => Authorization::Absent,
            Header::Repeated => Authorization::Repeated,
            Header::Value(value) => Authorization::Value(value),
        };
        Credentials { authorization, certificate: self.peer.certificate.as_ref() }
    }
}

/// Who calls. Cheap to clone.
#[derive(Clone)]
pub(super) struct Caller(Option<Arc<KnownCaller>>);

struct KnownCaller {
    rules: Arc<Rules>,
    /// The rules by which it was identified.
    access: Arc<Access>,
    identity: Identity,
    proof: Proof,
}

impl KnownCaller {
    /// The rules of now, and who the caller is by them.
    fn now(&self) -> Result<(Arc<Access>, Identity), Refusal> {
        let access = self.rules.access.borrow().clone();
        let is_over = self.identity.expires_s().is_some_and(|expires_s| expires_s <= self.rules.now_s());
        if Arc::ptr_eq(&access, &self.access) && !is_over {
            return Ok((access, self.identity.clone()));
        }
        let identity = self.rules.identify(&access, &self.proof).map_err(|error| refusal::unauthenticated(&error))?;
        Ok((access, identity))
    }

    fn check(&self, verbs: &[Verb], what: Option<Resource<'_>>) -> Result<(), Refusal> {
        let (access, identity) = self.now()?;
        let is_allowed = |verb: &Verb| match what {
            Some(resource) => access.may(&identity, *verb, resource),
            None => access.may_somewhere(&identity, *verb),
        };
        if verbs.iter().any(is_allowed) {
            return Ok(());
        }
        Err(refusal::forbidden(&identity, verbs.first().copied().unwrap_or(Verb::Inspect), what))
    }
}

/// Looks up the names in requests.
pub(super) trait Names: Send + Sync + 'static {
    /// The full name of a topic.
    fn topic(&self, name: &str) -> Option<String>;
    /// The full name of a subscriber, and of the topic that it reads.
    fn subscriber(&self, name: &str) -> Option<(String, String)>;
}

impl Caller {
    /// The name of callers that have shown nothing.
    pub(super) const ANONYMOUS: &str = "anonymous";

    /// What the caller is called in records and messages.
    pub(super) fn name(&self) -> &str {
        self.0.as_ref().map_or(Self::ANONYMOUS, |known| known.identity.name())
    }

    /// Whether the bus has no rules: everything is allowed.
    pub(super) fn is_unjudged(&self) -> bool {
        self.0.is_none()
    }

    /// Refuses callers that have shown nothing.
    pub(super) fn check_known(&self) -> Result<(), Refusal> {
        match &self.0 {
            Some(known) if known.now()?.1.is_anonymous() => Err(refusal::anonymous()),
            _ => Ok(()),
        }
    }

    /// Judges before the request is read.
    pub(super) fn check_right(&self, right: &Right) -> Result<(), Refusal> {
        let Some(known) = &self.0 else { return Ok(()) };
        known.check(right.verbs, right.bus.then_some(Resource::Bus))
    }

    /// Whether it may do that.
    pub(super) fn may(&self, verb: Verb, what: Resource<'_>) -> bool {
        self.check(verb, what).is_ok()
    }

    /// Refuses what it may not do. The names are full ones.
    pub(super) fn check(&self, verb: Verb, what: Resource<'_>) -> Result<(), Refusal> {
        let Some(known) = &self.0 else { return Ok(()) };
        known.check(&[verb], Some(what))
    }

    /// The same of a topic as a request names it.
    pub(super) fn check_topic(&self, names: &dyn Names, verb: Verb, name: &str) -> Result<(), Refusal> {
        if self.is_unjudged() {
            return Ok(());
        }
        let full = if name.contains('/') { None } else { names.topic(name) };
        self.check(verb, Resource::Topic(full.as_deref().unwrap_or(name)))
    }

    /// The same of a subscriber. To read it is to inspect it, and to read its topic.
    pub(super) fn check_subscriber(&self, names: &dyn Names, verb: Verb, name: &str) -> Result<(), Refusal> {
        if self.is_unjudged() {
            return Ok(());
        }
        let found = names.subscriber(name);
        let full = found.as_ref().map_or(name, |(full, _)| full.as_str());
        match (verb, &found) {
            (Verb::Read, Some((_, topic))) => {
                self.check(Verb::Inspect, Resource::Subscriber(full))?;
                self.check(Verb::Read, Resource::Topic(topic))
            }
            (Verb::Read, None) => self.check(Verb::Inspect, Resource::Subscriber(full)),
            _ => self.check(verb, Resource::Subscriber(full)),
        }
    }

    /// Counts events that it publishes, until the share is dropped; waits while it is a little ahead of its rate.
    pub(super) async fn publishing(&self, bytes: usize) -> Result<Option<Share>, Refusal> {
        let Some(known) = &self.0 else { return Ok(None) };
        let (access, identity) = known.now()?;
        let limits = access.limits(&identity);
        if limits.in_flight_bytes.is_none() && limits.publish_bytes_per_s.is_none() {
            return Ok(None);
        }
        known.rules.usage.publish(identity.name(), limits, bytes as u64).await.map(Some)
    }

    /// The names of a request that it was allowed, to be judged again.
    pub(super) fn granted(&self, verbs: &'static [Verb], what: Vec<GrantedName>) -> Option<Grant> {
        self.0.as_ref().map(|known| Grant { known: known.clone(), verbs, what })
    }
}

/// A full name.
pub(super) enum GrantedName {
    Topic(String),
    Subscriber(String),
}

impl GrantedName {
    fn resource(&self) -> Resource<'_> {
        match self {
            Self::Topic(name) => Resource::Topic(name),
            Self::Subscriber(name) => Resource::Subscriber(name),
        }
    }
}

/// What a caller was allowed, for as long as it takes.
pub(super) struct Grant {
    known: Arc<KnownCaller>,
    /// It has to have one of them.
    verbs: &'static [Verb],
    /// Empty: for anything.
    what: Vec<GrantedName>,
}

impl Grant {
    /// Returns when it is no longer allowed.
    pub(super) async fn revoked(self) -> Refusal {
        let mut changes = self.known.rules.access.subscribe();
        loop {
            changes.borrow_and_update();
            if let Err(refusal) = self.check() {
                return refusal;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep(self.judged_after()) => {}
            }
        }
    }

    fn check(&self) -> Result<(), Refusal> {
        match self.what.as_slice() {
            [] => self.known.check(self.verbs, None),
            names => names.iter().try_for_each(|name| self.known.check(self.verbs, Some(name.resource()))),
        }
    }

    /// Rules that change are told; only what expires has to be looked at.
    fn judged_after(&self) -> Duration {
        match self.known.identity.expires_s() {
            Some(_) => bounds::JUDGED_EVERY,
            None => Duration::from_secs(3600),
        }
    }
}
