//! Subscribers that share the events of a topic (`queue_group: GROUP`): each event goes to one of them.
//!
//! ```text
//!   member a ─┐                  ┌─ unclaimed so far: a's, durably, before a is called
//!   member b ─┼─> keeper, `G@claims` ─┤
//!   member c ─┘   a lane of its own └─ another's: skipped
//! ```
//!
//! The keeper of a group is a lane in addition to those of the members. It has entries and reads no events, so that all
//! claims are in one order, in one journal.
//!
//! A member that is paused or halted keeps its claims for its `queue_group_timeout`. After that it returns those that
//! it has not begun, between two calls, and the others go back for them.
//!
//! If the topic has a `dedupe`, a group gets each identity once within that window; duplicates are skipped.
//!
//! Promises: an event goes to one member and never to another, also after a restart. The first member to claim an event
//! gets it, so an idle member gets more events. Begun events stay with their member, however long it is paused. Memory:
//! a few words per member. The disk has the unclaimed events, as runs, so a paused member does not make it grow, except
//! by events that the others leave to it. Relies on: units become durable in the order in which they were submitted,
//! across sessions.

mod book;
mod former;
mod identities;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use super::batch::BatchEvent;
use super::entries::{CLAIM, end_of};
use super::error::LaneError;
use crate::dispatch::rules::keys;
use crate::engine::{Engine, Entries, LaneWrite, PageBudget, ReadError, Session, SessionError, Unit};
use crate::model::{Dedupe, LaneId, Offset, SubscriberId};
use crate::topology::{KeyExpression, SubscriberPlan, TopicPlan};
use book::ClaimBook;
pub(crate) use book::left_for;
pub(crate) use identities::ClaimRequest;
use identities::Window;

/// Suffix of a group's keeper. Names in a topology cannot contain it.
const SUFFIX: &str = "@claims";
/// The full name of a group's keeper.
pub(crate) fn keeper_name(member: &SubscriberPlan, group: &str) -> String {
    format!("{}/{group}{SUFFIX}", member.namespace)
}

/// Maximum number of entries that one unit of a keeper changes.
const WRITES_MAX: usize = 10_000;

/// The claims of a group in a partition.
pub(crate) struct Claims<S, K> {
    keeper: Mutex<ClaimStore<S, K>>,
    /// Number of times that events were returned.
    given_back: watch::Sender<u64>,
    remembers: Option<GroupDedupe>,
    /// Trusted time.
    now_ns: Box<dyn Fn() -> u64 + Send + Sync>,
}

struct ClaimStore<S, K> {
    session: S,
    entries: K,
    book: ClaimBook,
    /// Set when the in-memory data may differ from the durable data.
    broken: Option<SessionError>,
}

/// A lane's membership in a group.
pub(crate) struct Share<S, K> {
    claims: Arc<Claims<S, K>>,
    member: usize,
    given_back: watch::Receiver<u64>,
    /// Whether the lane has entries of an earlier release, which stored claims with the members.
    pub(crate) has_former: bool,
}

/// Result of a claim.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ClaimOutcome {
    /// Offsets that the lane does not get.
    pub(crate) lost: HashSet<Offset>,
    /// Whether there are new claims, which must be durable before the events are handled.
    pub(crate) is_new: bool,
    /// Number of duplicates, which every member skips.
    pub(crate) repeated: u64,
}

/// The deduplication settings of a group.
#[derive(Debug, Clone)]
pub(crate) struct GroupDedupe {
    id: Option<KeyExpression>,
    dedupe: Dedupe,
}

impl GroupDedupe {
    /// From the settings of a topic with outputs of subscribers. In a root, duplicates within the window do not occur.
    pub(crate) fn of(topic: &TopicPlan) -> Option<Self> {
        let dedupe = topic.settings.dedupe.filter(|_| !topic.is_root())?;
        Some(Self { id: topic.id.clone(), dedupe })
    }
}

/// The groups of a tree, by keeper.
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
    /// Adds a member to the group of a keeper; its own lane has this position and these entries. All members join
    /// before any claims. A known subscriber gets its earlier claims.
    pub(crate) async fn join(
        &mut self,
        engine: &E,
        (keeper, remembers): (LaneId, Option<GroupDedupe>),
        number: SubscriberId,
        position: Offset,
        entries: &E::Entries,
    ) -> Result<Share<E::Session, E::Entries>, SessionError> {
        let claims = match self.by_keeper.entry(keeper) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let session = engine.acquire(keeper).await?;
                let entries = engine.entries(keeper).ok_or(ReadError::UnknownPartition)?;
                let book = ClaimBook::load(&entries)?;
                let keeper = ClaimStore { session, entries, book, broken: None };
                // a member that starts goes back for events returned before its position
                let given_back = watch::Sender::new(u64::from(keeper.book.given_back.is_some()));
                let now_ns = Box::new({
                    let engine = engine.clone();
                    move || engine.trusted_now_ns()
                });
                new.insert(Arc::new(Claims { keeper: Mutex::new(keeper), given_back, remembers, now_ns }))
            }
        };
        let ClaimStore { entries: own, book, .. } = &mut *claims.keeper.lock().await;
        let member = book.join(own, number, position)?;
        let has_former = book.join_former(member, entries)?;
        let mut given_back = claims.given_back.subscribe();
        if *given_back.borrow() > 0 {
            given_back.mark_changed();
        }
        Ok(Share { claims: claims.clone(), member, given_back, has_former })
    }
}

impl<S: Session, K: Entries> ClaimStore<S, K> {
    async fn commit(&mut self, writes: Vec<LaneWrite>) -> Result<(), SessionError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let consumed_to = self.session.next_offset();
        // If this future is dropped, it is unknown what is durable.
        self.broken = Some(SessionError::Fenced);
        let committed = self.session.commit(Unit { consumed_to, writes, ..Unit::default() }).await;
        self.broken = committed.clone().err();
        committed
    }
}

impl<S: Session, K: Entries> Share<S, K> {
    /// Claims events for a member at a position, in ascending order.
    pub(crate) async fn claim(&self, position: Offset, wanted: &[ClaimRequest]) -> Result<ClaimOutcome, LaneError> {
        let window = self.claims.remembers.as_ref().map(|remembers| Window::new(remembers.dedupe, self.now_ns()));
        let mut keeper = self.claims.keeper.lock().await;
        for part in keeper.book.begin().chunks(WRITES_MAX) {
            keeper.commit(part.to_vec()).await?;
        }
        let ClaimStore { entries, book, .. } = &mut *keeper;
        let (claimed, writes) = book.claim(entries, self.member, position, wanted, window)?;
        if !writes.is_empty() {
            keeper.commit(writes).await?;
        }
        Ok(claimed)
    }
}

impl<S: Session, K: Entries> Share<S, K> {
    /// An event with its identity; without one if the identity cannot be determined.
    pub(crate) fn wanted(&self, event: &BatchEvent) -> ClaimRequest {
        let identity = |remembers: &GroupDedupe| {
            let event = event.parse().ok()?;
            keys::identity(remembers.id.as_ref(), &event.view, event.key).ok()
        };
        ClaimRequest { offset: event.offset, identity: self.claims.remembers.as_ref().and_then(identity) }
    }

    /// Trusted time.
    pub(crate) fn now_ns(&self) -> u64 {
        (self.claims.now_ns)()
    }

    /// Returns a member's claims from a position on. Whether there were any.
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

    /// Resolves when events were returned since the last [`Self::go_back`].
    pub(crate) async fn is_given_back(share: &mut Option<Self>) {
        let Some(Self { given_back, .. }) = share else { return std::future::pending().await };
        if given_back.changed().await.is_err() {
            return std::future::pending().await; // the group no longer exists
        }
        given_back.mark_changed();
    }

    /// The range that a member at a position has to read again, if events were returned since the last call.
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

/// The deletions of some of a member's entries of an earlier release; empty when all are gone.
pub(crate) fn former_entries(entries: &impl Entries) -> Result<Vec<LaneWrite>, ReadError> {
    let page = entries.range(std::ops::Bound::Included(&[CLAIM]), &end_of(CLAIM), PageBudget::of(WRITES_MAX))?;
    Ok(page.entries.into_iter().map(|(key, _)| LaneWrite::delete(key)).collect())
}
