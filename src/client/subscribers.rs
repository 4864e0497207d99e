//! Operations on subscribers: failed events, positions, state, snapshots.
//!
//! All of it may be asked for again after an error: nothing is done twice.

use std::vec;

use super::line::Line;
use super::{Client, ClientError};
use crate::api::v1;
use crate::api::v1::subscriber_service_client::SubscriberServiceClient;
use crate::api::{
    FailedEvent, Filter, LaneMove, LetterProgress, LettersPart, Reasons, Seek, SnapshotInfo, StateEntry, StateFilter,
    StateOfPartition,
};

/// A listing, of which parts are fetched as they are needed.
#[derive(Debug)]
pub struct Listing<S: Source> {
    client: Client,
    source: S,
    here: vec::IntoIter<S::Item>,
    /// Where the next part begins; `None` behind the last one.
    next: Option<Option<S::Position>>,
}

/// The source of a listing.
pub trait Source {
    /// One of it.
    type Item;
    /// Where a part begins.
    type Position;

    /// The part that begins there, and where the next one does.
    fn part(
        &self,
        client: &Client,
        from: Option<Self::Position>,
    ) -> impl Future<Output = Part<Self::Item, Self::Position>> + Send;
}

/// Some of a listing, and where the next part begins; `None` behind the last one.
pub type Part<T, P> = Result<(Vec<T>, Option<P>), ClientError>;

impl<S: Source> Listing<S> {
    pub(super) fn new(client: &Client, source: S) -> Self {
        Self { client: client.clone(), source, here: Vec::new().into_iter(), next: Some(None) }
    }

    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn next(&mut self) -> Result<Option<S::Item>, ClientError> {
        loop {
            if let Some(item) = self.here.next() {
                return Ok(Some(item));
            }
            let Some(from) = self.next.take() else { return Ok(None) };
            let (items, next) = self.source.part(&self.client, from).await?;
            self.here = items.into_iter();
            self.next = next.map(Some);
        }
    }
}

/// Events that a subscriber has not handled.
#[derive(Debug)]
pub struct FailedEvents {
    subscriber: String,
    filter: Filter,
    is_dead: bool,
}

impl Source for FailedEvents {
    type Item = FailedEvent;
    type Position = v1::ListPosition;

    async fn part(&self, client: &Client, from: Option<v1::ListPosition>) -> Part<FailedEvent, v1::ListPosition> {
        let (subscriber, filter) = (self.subscriber.clone(), Some(self.filter.clone().into()));
        let mut subscribers = client.subscribers();
        let (events, next) = if self.is_dead {
            let request = v1::ListDeadLettersRequest { subscriber, filter, from, page_size: 0 };
            let answer = subscribers.list_dead_letters(request).await.map_err(|status| client.failed_read(&status))?;
            let v1::ListDeadLettersResponse { events, next } = answer.into_inner();
            (events, next)
        } else {
            let request = v1::ListRetryQueueRequest { subscriber, filter, from, page_size: 0 };
            let answer = subscribers.list_retry_queue(request).await.map_err(|status| client.failed_read(&status))?;
            let v1::ListRetryQueueResponse { events, next } = answer.into_inner();
            (events, next)
        };
        Ok((events.into_iter().map(Into::into).collect(), next))
    }
}

/// Entries of a subscriber's state.
#[derive(Debug)]
pub struct States {
    subscriber: String,
    filter: StateFilter,
}

impl Source for States {
    type Item = StateOfPartition;
    type Position = v1::StatePosition;

    async fn part(
        &self,
        client: &Client,
        from: Option<v1::StatePosition>,
    ) -> Part<StateOfPartition, v1::StatePosition> {
        let (subscriber, StateFilter { partition, bucket, prefix }) = (self.subscriber.clone(), self.filter.clone());
        let request = v1::ListStateRequest { subscriber, partition, bucket, prefix, from, page_size: 0 };
        let answer = client.subscribers().list_state(request).await.map_err(|status| client.failed_read(&status))?;
        let v1::ListStateResponse { entries, next } = answer.into_inner();
        Ok((entries.into_iter().map(Into::into).collect(), next))
    }
}

/// The values of a key of the state, by partition.
#[derive(Debug)]
pub struct StateOfKey {
    subscriber: String,
    bucket: String,
    key: String,
}

impl Source for StateOfKey {
    type Item = StateOfPartition;
    type Position = u32;

    async fn part(&self, client: &Client, from: Option<u32>) -> Part<StateOfPartition, u32> {
        let Self { subscriber, bucket, key } = self;
        let (subscriber, bucket, key) = (subscriber.clone(), bucket.clone(), key.clone());
        let request = v1::GetStateRequest { subscriber, bucket, key, from_partition: from.unwrap_or(0) };
        let answer = client.subscribers().get_state(request).await.map_err(|status| client.failed_read(&status))?;
        let v1::GetStateResponse { entries, next_partition } = answer.into_inner();
        Ok((entries.into_iter().map(Into::into).collect(), next_partition))
    }
}

impl Client {
    fn subscribers(&self) -> SubscriberServiceClient<Line> {
        self.subscribers.clone()
    }

    /// Events in the retry queue of a subscriber, by partition and number.
    pub fn waiting(&self, subscriber: &str, filter: Filter) -> Listing<FailedEvents> {
        Listing::new(self, FailedEvents { subscriber: subscriber.to_owned(), filter, is_dead: false })
    }

    /// Has waiting events tried at once, as if for the first time; those that are parked as well. How many.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn release(&self, subscriber: &str, filter: Filter) -> Result<u64, ClientError> {
        let request = v1::ReleaseRequest { subscriber: subscriber.to_owned(), filter: Some(filter.into()) };
        let answer = self.subscribers().release(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().released)
    }

    /// Forgets waiting events. How many.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drop_waiting(&self, subscriber: &str, filter: Filter) -> Result<u64, ClientError> {
        let request = v1::DropRetryQueueRequest { subscriber: subscriber.to_owned(), filter: Some(filter.into()) };
        let answer = self.subscribers().drop_retry_queue(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().dropped)
    }

    /// Dead letters of a subscriber that were neither redriven nor dropped.
    pub fn dead_letters(&self, subscriber: &str, filter: Filter) -> Listing<FailedEvents> {
        Listing::new(self, FailedEvents { subscriber: subscriber.to_owned(), filter, is_dead: true })
    }

    /// Counts the dead letters of a subscriber that were neither redriven nor dropped, by why they failed.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn count_dead_letters(&self, subscriber: &str, filter: Filter) -> Result<Reasons, ClientError> {
        let (mut reasons, mut from) = (Reasons::default(), None);
        loop {
            let (subscriber, filter) = (subscriber.to_owned(), Some(filter.clone().into()));
            let request = v1::CountDeadLettersRequest { subscriber, filter, from };
            let answer = self.subscribers().count_dead_letters(request).await;
            let answer = answer.map_err(|status| self.failed_read(&status))?.into_inner();
            for (reason, times) in answer.reasons.into_iter().map(Into::into) {
                reasons.add(reason, times);
            }
            match answer.next {
                None => return Ok(reasons),
                next => from = next,
            }
        }
    }

    /// Redrives dead letters: some of those present at the beginning, or from where the previous call
    /// ended. A count of none, with more to come, says that the subscriber has no room for more events that wait.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn redrive(
        &self,
        subscriber: &str,
        filter: Filter,
        from: Option<LetterProgress>,
    ) -> Result<LettersPart, ClientError> {
        let (filter, from) = (Some(filter.into()), from.map(Into::into));
        let request = v1::RedriveRequest { subscriber: subscriber.to_owned(), filter, from };
        let answer = self.subscribers().redrive(request).await.map_err(|status| self.failed(&status))?;
        let v1::RedriveResponse { redriven, next } = answer.into_inner();
        Ok(LettersPart { count: redriven, next: next.map(Into::into) })
    }

    /// Takes dead letters off the list, in parts as [`Self::redrive`] does.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drop_dead_letters(
        &self,
        subscriber: &str,
        filter: Filter,
        from: Option<LetterProgress>,
    ) -> Result<LettersPart, ClientError> {
        let (filter, from) = (Some(filter.into()), from.map(Into::into));
        let request = v1::DropDeadLettersRequest { subscriber: subscriber.to_owned(), filter, from };
        let answer = self.subscribers().drop_dead_letters(request).await.map_err(|status| self.failed(&status))?;
        let v1::DropDeadLettersResponse { dropped, next } = answer.into_inner();
        Ok(LettersPart { count: dropped, next: next.map(Into::into) })
    }

    /// Has a subscriber read and call nothing more until it is resumed, also after a restart.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pause(&self, subscriber: &str) -> Result<(), ClientError> {
        let request = v1::PauseRequest { subscriber: subscriber.to_owned() };
        self.subscribers().pause(request).await.map_err(|status| self.failed(&status))?;
        Ok(())
    }

    /// Resumes a subscriber, also where it halted.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn resume(&self, subscriber: &str) -> Result<(), ClientError> {
        let request = v1::ResumeRequest { subscriber: subscriber.to_owned() };
        self.subscribers().resume(request).await.map_err(|status| self.failed(&status))?;
        Ok(())
    }

    /// Moves a subscriber. From where to where, by partition.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn seek(&self, subscriber: &str, seek: Seek) -> Result<Vec<LaneMove>, ClientError> {
        let request = seek.request(subscriber.to_owned());
        let answer = self.subscribers().seek(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().moved.into_iter().map(Into::into).collect())
    }

    /// Takes a snapshot of what a subscriber keeps; not more than `keep` of its snapshots are left, 8 where that is 0.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn take_snapshot(&self, subscriber: &str, keep: u32, note: &str) -> Result<SnapshotInfo, ClientError> {
        let request = v1::TakeSnapshotRequest { subscriber: subscriber.to_owned(), keep, note: note.to_owned() };
        let answer = self.subscribers().take_snapshot(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().snapshot.unwrap_or_default().into())
    }

    /// The snapshots of a subscriber, the oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn snapshots(&self, subscriber: &str) -> Result<Vec<SnapshotInfo>, ClientError> {
        let request = v1::ListSnapshotsRequest { subscriber: subscriber.to_owned() };
        let answer = self.subscribers().list_snapshots(request).await.map_err(|status| self.failed_read(&status))?;
        Ok(answer.into_inner().snapshots.into_iter().map(Into::into).collect())
    }

    /// Removes a snapshot of a subscriber.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drop_snapshot(&self, subscriber: &str, number: u64) -> Result<(), ClientError> {
        let request = v1::DropSnapshotRequest { subscriber: subscriber.to_owned(), number };
        self.subscribers().drop_snapshot(request).await.map_err(|status| self.failed(&status))?;
        Ok(())
    }

    /// The values of a key of a subscriber's state, in each partition that has it.
    pub fn state(&self, subscriber: &str, bucket: &str, key: &str) -> Listing<StateOfKey> {
        let (subscriber, bucket, key) = (subscriber.to_owned(), bucket.to_owned(), key.to_owned());
        Listing::new(self, StateOfKey { subscriber, bucket, key })
    }

    /// A subscriber's state, by partition, bucket and key.
    pub fn states(&self, subscriber: &str, filter: StateFilter) -> Listing<States> {
        Listing::new(self, States { subscriber: subscriber.to_owned(), filter })
    }

    /// Puts entries of one partition into a subscriber's state, in place of what may be there, all or none. How many.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn import_state(
        &self,
        subscriber: &str,
        partition: u32,
        entries: Vec<StateEntry>,
    ) -> Result<u64, ClientError> {
        let entry = |entry| StateOfPartition { partition, entry }.into();
        let entries = entries.into_iter().map(entry).collect();
        let request = v1::ImportStateRequest { subscriber: subscriber.to_owned(), entries };
        let answer = self.subscribers().import_state(request).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().imported)
    }
}
