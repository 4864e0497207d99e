//! Subscribers that share the events of a topic (`claim: GROUP`): each event is for one of them.
//!
//! ```text
//!   member a ─┐                  ┌─ unclaimed so far: a's, durably, and only then is a called
//!   member b ─┼─> keeper, `G@claims` ─┤
//!   member c ─┘   a lane of its own └─ another's: passed over
//! ```
//!
//! The keeper of a group is a lane beside those of the members. It has entries and reads no events, so that whose an event
//! is changes in one order, in one journal, whichever member asks.
//!
//! A member that is paused or halted keeps what it has claimed for its `claim_timeout`. What it has not begun by then it gives
//! back, itself and between two calls, and the others go back for it.
//!
//! Where the topic has a `dedupe`, a group is given each identity once in that time; repetitions are passed over.
//!
//! Promises: an event is given to one member and never to another, also after a restart. Who comes first gets it, so the one
//! that has time gets more of them. What was begun stays with its member, however long that is paused.
//! Memory: a few words for each member. On disk are the unclaimed events, as runs, so that it does not grow with the events
//! while a member is paused, except by those that the other members leave to it.
//! Relies on: a unit that was handed in first is durable first, whichever session it is of.

mod book;
mod former;
mod identities;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::batch::Held;
use super::entries::{CLAIM, end_of};
use super::error::LaneError;
use crate::dispatch::rules::keys;
use crate::engine::{Engine, Entries, LaneWrite, PageBudget, ReadError, Session, SessionError, Unit};
use crate::model::{Dedupe, LaneId, Offset, SubscriberId};
use crate::topology::{KeyExpression, SubscriberPlan, TopicPlan};
use book::Book;
pub(crate) use identities::Wanted;
use identities::Window;

/// What is behind the name of a group in that of its keeper. No name in a topology has it.
const SUFFIX: &str = "@claims";
/// The full name of a group's keeper.
pub(crate) fn keeper_name(member: &SubscriberPlan, group: &str) -> String {
    format!("{}/{group}{SUFFIX}", member.namespace)
}

/// Entries that one unit of a keeper changes at once.
const WRITES_MAX: usize = 10_000;

/// Whose the events of a partition are, in a group.
pub(crate) struct Claims<S, K> {
    keeper: Mutex<Keeper<S, K>>,
    /// How often anything was given back.
    given_back: watch::Sender<u64>,
    remembers: Option<Remembers>,
    /// Trusted time.
    now_ns: Box<dyn Fn() -> u64 + Send + Sync>,
}

struct Keeper<S, K> {
    session: S,
    entries: K,
    book: Book,
    /// What it is may not be what is durable any more.
    broken: Option<SessionError>,
}

/// A lane's part in a group.
pub(crate) struct Share<S, K> {
    claims: Arc<Claims<S, K>>,
    member: usize,
    given_back: watch::Receiver<u64>,
    /// The lane has entries of an earlier release, which kept claims with the members.
    pub(crate) has_former: bool,
}

/// What became of a lane's wish.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Claimed {
    /// The offsets that are not the lane's.
    pub(crate) lost: HashSet<Offset>,
    /// Something is its own from now on: that has to be durable before anything is done with it.
    pub(crate) is_new: bool,
    /// Events that every member passes over, since their identity was given before.
    pub(crate) repeated: u64,
}

/// What a group remembers of the events that it was given.
#[derive(Debug, Clone)]
pub(crate) struct Remembers {
    id: Option<KeyExpression>,
    dedupe: Dedupe,
}

impl Remembers {
    /// Of a topic that takes what subscribers make, where it says so: to a root nothing is published twice within its window.
    pub(crate) fn of(topic: &TopicPlan) -> Option<Self> {
        let dedupe = topic.settings.dedupe.filter(|_| !topic.is_root())?;
        Some(Self { id: topic.id.clone(), dedupe })
    }
}

/// The groups of a tree, by their keepers.
pub(crate) struct Groups<E: Engine> {
    by_keeper: HashMap<LaneId, Arc<ClaimsOf<E>>>,
}

type ClaimsOf<E> = Claims<<E as Engine>::Session, <E as Engine>::Entries>;

impl<E: Engine> Default for Groups<E> {
    fn default() -> Self {
        Self { by_keeper: HashMap::new() }
    }
}

impl<E: Engine> Groups<E> {
    /// Another member of the group that a lane keeps, whose own lane has come to a position and has these entries. All of
    /// them are there before any claims; one that comes again is who it was.
    pub(crate) async fn join(
        &mut self,
        engine: &E,
        (keeper, remembers): (LaneId, Option<Remembers>),
        number: SubscriberId,
        position: Offset,
        entries: &E::Entries,
    ) -> Result<Share<E::Session, E::Entries>, SessionError> {
        let claims = match self.by_keeper.entry(keeper) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let session = engine.acquire(keeper).await?;
                let entries = engine.entries(keeper).ok_or(ReadError::UnknownPartition)?;
                let book = Book::load(&entries)?;
                let keeper = Keeper { session, entries, book, broken: None };
                // a member that starts goes back to what was given back before its position
                let given_back = watch::Sender::new(u64::from(keeper.book.given_back.is_some()));
                let now_ns = Box::new({
                    let engine = engine.clone();
                    move || engine.trusted_now_ns()
                });
                new.insert(Arc::new(Claims { keeper: Mutex::new(keeper), given_back, remembers, now_ns }))
            }
        };
        let Keeper { entries: own, book, .. } = &mut *claims.keeper.lock().await;
        let member = book.join(own, number, position)?;
        let has_former = book.join_former(member, entries)?;
        let mut given_back = claims.given_back.subscribe();
        if *given_back.borrow() > 0 {
            given_back.mark_changed();
        }
        Ok(Share { claims: claims.clone(), member, given_back, has_former })
    }
}

impl<S: Session, K: Entries> Keeper<S, K> {
    async fn commit(&mut self, writes: Vec<LaneWrite>) -> Result<(), SessionError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let consumed_to = self.session.next_offset();
        // If this future is dropped half-way, it is unknown what is durable.
        self.broken = Some(SessionError::Fenced);
        let committed = self.session.commit(Unit { consumed_to, writes, ..Unit::default() }).await;
        self.broken = committed.clone().err();
        committed
    }
}

impl<S: Session, K: Entries> Share<S, K> {
    /// A member that has come to a position wants events, which ascend.
    pub(crate) async fn claim(&self, position: Offset, wanted: &[Wanted]) -> Result<Claimed, LaneError> {
        let window = self.claims.remembers.as_ref().map(|remembers| Window::new(remembers.dedupe, self.now_ns()));
        let mut keeper = self.claims.keeper.lock().await;
        for part in keeper.book.begin().chunks(WRITES_MAX) {
            keeper.commit(part.to_vec()).await?;
        }
        let Keeper { entries, book, .. } = &mut *keeper;
        let (claimed, writes) = book.claim(entries, self.member, position, wanted, window)?;
        if !writes.is_empty() {
            keeper.commit(writes).await?;
        }
        Ok(claimed)
    }
}

impl<S: Session, K: Entries> Share<S, K> {
    /// An event as a member wants it. Where what it is recognised by cannot be told, it is recognised by nothing.
    pub(crate) fn wanted(&self, event: &Held) -> Wanted {
        let identity = |remembers: &Remembers| {
            let event = event.parse().ok()?;
            keys::identity(remembers.id.as_ref(), &event.view, event.key).ok()
        };
        Wanted { offset: event.offset, identity: self.claims.remembers.as_ref().and_then(identity) }
    }

    /// Trusted time.
    pub(crate) fn now_ns(&self) -> u64 {
        (self.claims.now_ns)()
    }

    /// A member gives back what it has claimed from a position on. Whether that was anything.
    pub(crate) async fn give_back(&self, position: Offset) -> Result<bool, LaneError> {
        let mut keeper = self.claims.keeper.lock().await;
        let writes = keeper.book.give_back(self.member, position);
        if writes.is_empty() {
            return Ok(false);
        }
        keeper.commit(writes).await?;
        self.claims.given_back.send_modify(|times| *times += 1);
        Ok(true)
    }

    /// Resolves when anything was given back since [`Self::go_back`].
    pub(crate) async fn is_given_back(share: &mut Option<Self>) {
        let Some(Self { given_back, .. }) = share else { return std::future::pending().await };
        if given_back.changed().await.is_err() {
            return std::future::pending().await; // there is no group any more
        }
        given_back.mark_changed();
    }

    /// Between which offsets a member has to look again, that has come to a position, where something was given back since it
    /// was asked last.
    pub(crate) async fn go_back(&mut self, position: Offset) -> Result<Option<(Offset, Offset)>, LaneError> {
        if !self.given_back.has_changed().unwrap_or(false) {
            return Ok(None);
        }
        self.given_back.mark_unchanged();
        let mut keeper = self.claims.keeper.lock().await;
        let Some((range, writes)) = keeper.book.go_back(self.member, position) else { return Ok(None) };
        if !writes.is_empty() {
            keeper.commit(writes).await?;
        }
        Ok(Some(range))
    }
}

/// Some of what an earlier release kept with a member, as it is to be deleted; none once all is gone.
pub(crate) fn former_entries(entries: &impl Entries) -> Result<Vec<LaneWrite>, ReadError> {
    let page = entries.range(std::ops::Bound::Included(&[CLAIM]), &end_of(CLAIM), PageBudget::of(WRITES_MAX))?;
    Ok(page.entries.into_iter().map(|(key, _)| LaneWrite::delete(key)).collect())
}
