//! Events of a topic that have no place in it yet.

use bytes::Bytes;

use super::Client;
use super::subscribers::{Listing, Part, Source};
use crate::api::v1;
use crate::api::{PendingEvent, PendingFilter};

/// Events of a topic that are held or to come later.
#[derive(Debug)]
pub struct Pending {
    topic: String,
    filter: PendingFilter,
}

impl Source for Pending {
    type Item = PendingEvent;
    type Position = Bytes;

    async fn part(&self, client: &Client, from: Option<Bytes>) -> Part<PendingEvent, Bytes> {
        let PendingFilter { kind, key } = self.filter.clone();
        let request = v1::ListPendingRequest {
            topic: self.topic.clone(),
            kind: kind.map_or(v1::PendingKind::Unspecified, Into::into).into(),
            key,
            page_token: from.unwrap_or_default(),
            page_size: 0,
        };
        let answer = client.reader.clone().list_pending(request).await.map_err(|status| client.failed(&status))?;
        let v1::ListPendingResponse { events, next_page_token } = answer.into_inner();
        let next = Some(next_page_token).filter(|token| !token.is_empty());
        Ok((events.into_iter().map(Into::into).collect(), next))
    }
}

impl Client {
    /// Events of a topic that have no offset yet: held ones, then delayed ones.
    pub fn pending(&self, topic: &str, filter: PendingFilter) -> Listing<Pending> {
        Listing::new(self, Pending { topic: topic.to_owned(), filter })
    }
}
