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
//! Promises: an event is given to one member and never to another, also after a restart. Who comes first gets it, so the one
//! that has time gets more of them. What was claimed stays with its member, however long that is paused.
//! Memory: a few words for each member. What is kept on disk is what nobody has claimed, as runs, so that it does not grow
//! with the events while a member is paused, but for those that the others leave to it.
//! Relies on: a unit that was handed in first is durable first, whichever session it is of.

mod book;
mod former;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::Mutex;

use self::book::Book;
use super::entries::{CLAIM, end_of};
use super::lane::LaneError;
use crate::engine::{Engine, Entries, LaneWrite, ReadError, Session, SessionError, Unit};
use crate::model::{LaneId, Offset, SubscriberId};
use crate::topology::SubscriberPlan;

/// What is behind the name of a group in that of its keeper. No name in a topology has it.
const SUFFIX: &str = "@claims";
/// The full name of a group's keeper.
pub(super) fn keeper_name(member: &SubscriberPlan, group: &str) -> String {
    format!("{}/{group}{SUFFIX}", member.namespace)
}

/// Entries that one unit of a keeper changes at once.
const WRITES_MAX: usize = 10_000;

/// Whose the events of a partition are, in a group.
pub(super) struct Claims<S, K> {
    keeper: Mutex<Keeper<S, K>>,
}

struct Keeper<S, K> {
    session: S,
    entries: K,
    book: Book,
    /// What it is may not be what is durable any more.
    broken: Option<SessionError>,
}

/// A lane's part in a group.
pub(super) struct Share<S, K> {
    claims: Arc<Claims<S, K>>,
    member: usize,
    /// The lane has entries of an earlier release, which kept claims with the members.
    pub(super) has_former: bool,
}

/// What became of a lane's wish.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Claimed {
    /// The offsets that are not the lane's.
    pub(super) lost: HashSet<Offset>,
    /// Something is its own from now on: that has to be durable before anything is done with it.
    pub(super) is_new: bool,
}

/// The groups of a tree, by their keepers.
pub(super) struct Groups<E: Engine> {
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
    pub(super) async fn join(
        &mut self,
        engine: &E,
        keeper: LaneId,
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
                new.insert(Arc::new(Claims { keeper: Mutex::new(keeper) }))
            }
        };
        let Keeper { entries: own, book, .. } = &mut *claims.keeper.lock().await;
        let member = book.join(own, number, position)?;
        let has_former = book.join_former(member, entries)?;
        Ok(Share { claims: claims.clone(), member, has_former })
    }
}

impl<S: Session, K: Entries> Keeper<S, K> {
    async fn commit(&mut self, writes: Vec<LaneWrite>) -> Result<(), SessionError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let consumed_to = self.session.next_offset();
        // Where this is dropped half-way, nobody knows what is durable.
        self.broken = Some(SessionError::Fenced);
        let committed = self.session.commit(Unit { consumed_to, writes, ..Unit::default() }).await;
        self.broken = committed.clone().err();
        committed
    }
}

impl<S: Session, K: Entries> Share<S, K> {
    /// A member that has come to a position wants events, which ascend.
    pub(super) async fn claim(&self, position: Offset, wanted: &[Offset]) -> Result<Claimed, LaneError> {
        let mut keeper = self.claims.keeper.lock().await;
        for part in keeper.book.begin().chunks(WRITES_MAX) {
            keeper.commit(part.to_vec()).await?;
        }
        let Keeper { entries, book, .. } = &mut *keeper;
        let (claimed, writes) = book.claim(entries, self.member, position, wanted)?;
        if !writes.is_empty() {
            keeper.commit(writes).await?;
        }
        Ok(claimed)
    }
}

/// Some of what an earlier release kept with a member, as it is to be deleted; none once all is gone.
pub(super) fn former_entries(entries: &impl Entries) -> Result<Vec<LaneWrite>, ReadError> {
    let page = entries.range(std::ops::Bound::Included(&[CLAIM]), &end_of(CLAIM), WRITES_MAX)?;
    Ok(page.into_iter().map(|(key, _)| LaneWrite::delete(key)).collect())
}
