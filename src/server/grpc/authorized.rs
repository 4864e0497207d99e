//! Judges requests by the names in them, before their services see them.
//!
//! The wrappers are generated from the rights in the contract (`build.rs`): one for each service. Requests that come as
//! a stream are judged by their services, one by one. Streams of answers end when their callers lose the right.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Extensions;
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::recorded::AuditedRequest;
use crate::access::Verb;
use crate::api::v1;
use crate::server::audit::Subject;
use crate::server::auth::{Caller, GrantedName, Names, Right};
use crate::server::refusal::{self, Refusal};

include!(concat!(env!("OUT_DIR"), "/rights.rs"));

/// A service, all of whose requests are judged.
pub(super) struct AuthorizedService<T> {
    service: T,
    names: Arc<dyn Names>,
}

impl AuthorizedService<()> {
    /// Judges by these names.
    pub(super) fn by(names: &Arc<dyn Names>) -> Self {
        Self { service: (), names: names.clone() }
    }

    /// A service that is judged in the same way.
    pub(super) fn with<T>(&self, service: T) -> AuthorizedService<T> {
        AuthorizedService { service, names: self.names.clone() }
    }
}

type ServiceFuture<'f, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'f>>;

fn refused<'f, T: Send + 'f>(refusal: Refusal) -> ServiceFuture<'f, T> {
    Box::pin(std::future::ready(Err(refusal.into())))
}

/// Who makes a request.
pub(super) fn caller(extensions: &Extensions) -> Result<&Caller, Refusal> {
    extensions.get::<Caller>().ok_or_else(refusal::unjudged)
}

/// Notes what a request is about for its audit record.
fn record<M: AuditedRequest>(request: &Request<M>) {
    if let Some(subject) = request.extensions().get::<Subject>() {
        request.get_ref().record(subject);
    }
}

impl<T> AuthorizedService<T> {
    fn topics<'m>(
        &self,
        extensions: &Extensions,
        verb: Verb,
        mut names: impl Iterator<Item = &'m str>,
    ) -> Result<(), Refusal> {
        let caller = caller(extensions)?;
        if caller.is_unjudged() {
            return Ok(());
        }
        let mut last = None;
        names.try_for_each(|name| {
            let is_judged = last.replace(name) == Some(name);
            if is_judged { Ok(()) } else { caller.check_topic(&*self.names, verb, name) }
        })
    }

    fn subscribers<'m>(
        &self,
        extensions: &Extensions,
        verb: Verb,
        mut names: impl Iterator<Item = &'m str>,
    ) -> Result<(), Refusal> {
        let (caller, subject) = (caller(extensions)?, extensions.get::<Subject>());
        names.try_for_each(|name| {
            if let Some(subject) = subject {
                let full = self.names.subscriber(name).map_or_else(|| name.to_owned(), |(full, _)| full);
                subject.set("subscriber", full);
            }
            caller.check_subscriber(&*self.names, verb, name)
        })
    }

    fn namespaces<'m>(
        &self,
        extensions: &Extensions,
        verb: Verb,
        mut names: impl Iterator<Item = &'m str>,
    ) -> Result<(), Refusal> {
        let caller = caller(extensions)?;
        names.try_for_each(|name| caller.check(verb, crate::access::Resource::Namespace(name)))
    }
}

type Revocation = Pin<Box<dyn Future<Output = Refusal> + Send>>;

/// What the caller of a stream was allowed.
struct Watch(Option<Revocation>);

impl Watch {
    fn of(extensions: &Extensions, verbs: &'static [Verb], what: Vec<GrantedName>) -> Self {
        let grant = caller(extensions).ok().and_then(|caller| caller.granted(verbs, what));
        Self(grant.map(|grant| Box::pin(grant.revoked()) as Revocation))
    }

    fn is_needed(extensions: &Extensions) -> bool {
        caller(extensions).is_ok_and(|caller| !caller.is_unjudged())
    }

    fn topics<'m, T>(
        judged: &AuthorizedService<T>,
        extensions: &Extensions,
        verbs: &'static [Verb],
        names: impl Iterator<Item = &'m str>,
    ) -> Self {
        if !Self::is_needed(extensions) {
            return Self(None);
        }
        let full = |name: &str| judged.names.topic(name).unwrap_or_else(|| name.to_owned());
        Self::of(extensions, verbs, names.map(|name| GrantedName::Topic(full(name))).collect())
    }

    fn subscribers<'m, T>(
        judged: &AuthorizedService<T>,
        extensions: &Extensions,
        verbs: &'static [Verb],
        names: impl Iterator<Item = &'m str>,
    ) -> Self {
        if !Self::is_needed(extensions) {
            return Self(None);
        }
        let granted = names.map(|name| match judged.names.subscriber(name) {
            Some((_, topic)) if verbs == [Verb::Read] => GrantedName::Topic(topic),
            Some((full, _)) => GrantedName::Subscriber(full),
            None => GrantedName::Subscriber(name.to_owned()),
        });
        Self::of(extensions, verbs, granted.collect())
    }

    fn verbs(extensions: &Extensions, verbs: &'static [Verb]) -> Self {
        Self::of(extensions, verbs, Vec::new())
    }
}

/// A stream of answers that ends when its caller loses the right to it.
pub(super) struct WatchedStream<S> {
    /// `None` after the right was lost.
    stream: Option<Pin<Box<S>>>,
    revoked: Option<Revocation>,
}

fn watched<'f, S: Send + 'f>(answer: ServiceFuture<'f, S>, watch: Watch) -> ServiceFuture<'f, WatchedStream<S>> {
    Box::pin(async move {
        let answer = answer.await?;
        Ok(answer.map(|stream| WatchedStream { stream: Some(Box::pin(stream)), revoked: watch.0 }))
    })
}

impl<I, S: Stream<Item = Result<I, Status>>> Stream for WatchedStream<S> {
    type Item = Result<I, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(revoked) = &mut self.revoked
            && let Poll::Ready(refusal) = revoked.as_mut().poll(cx)
        {
            (self.revoked, self.stream) = (None, None);
            return Poll::Ready(Some(Err(refusal.into())));
        }
        match &mut self.stream {
            Some(stream) => stream.as_mut().poll_next(cx),
            None => Poll::Ready(None),
        }
    }
}
