//! Comparing versions of plugins.

use std::pin::pin;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::line::{self, CompileRequest, NoTimeout};
use super::{Client, ClientError};
use crate::api::v1;
use crate::api::v1::shadow_request::{Begin, Coming, Part};
use crate::api::{ShadowRange, ShadowReport};

/// Bytes of a component that one message has.
const CHUNK_BYTES: usize = 1 << 20;

impl Client {
    /// Compares a component with the running version, over events that the subscriber has handled. Changes nothing.
    /// Over future events it also ends, with the results by then, when `enough` resolves.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn shadow(
        &self,
        subscriber: &str,
        wasm: Bytes,
        over: ShadowRange,
        enough: impl Future<Output = ()>,
    ) -> Result<ShadowReport, ClientError> {
        let is_coming = matches!(over, ShadowRange::Coming { .. });
        let begin = Begin { subscriber: subscriber.to_owned(), size_bytes: wasm.len() as u64, ..Begin::default() };
        let (begin, state) = match over {
            ShadowRange::Last { events, state } => (Begin { last: events, ..begin }, state),
            ShadowRange::Behind { snapshot, events } => {
                (Begin { last: events, snapshot: Some(snapshot), ..begin }, Vec::new())
            }
            ShadowRange::Coming { events, time } => {
                let time = time.and_then(|time| prost_types::Duration::try_from(time).ok());
                (Begin { coming: Some(Coming { events: events.unwrap_or(0), time }), ..begin }, Vec::new())
            }
        };
        // The state first: entries after the component may arrive when it is already complete.
        let entries = state.into_iter().map(|entry| Part::Entry(entry.into()));
        let chunks = (0..wasm.len()).step_by(CHUNK_BYTES).map(|at| {
            let end = wasm.len().min(at + CHUNK_BYTES);
            Part::Chunk(wasm.slice(at..end))
        });
        let parts: Vec<_> = std::iter::once(Part::Begin(begin)).chain(entries).chain(chunks).collect();
        // Over events that come, the messages end when there were enough.
        let (open, rest) = mpsc::channel(1);
        let open = Some(open).filter(|_| is_coming);
        let requests = tokio_stream::iter(parts.into_iter().map(|part| v1::ShadowRequest { part: Some(part) }));
        let requests = requests.chain(ReceiverStream::new(rest));
        let requests =
            if is_coming { line::marked(NoTimeout, requests) } else { line::marked(CompileRequest, requests) };
        let mut shadows = self.shadows.clone();
        let mut answer = pin!(shadows.shadow(requests));
        let answer = tokio::select! {
            answer = &mut answer => answer,
            () = enough, if is_coming => {
                drop(open);
                answer.await
            }
        };
        Ok(answer.map_err(|status| self.failed_read(&status))?.into_inner().into())
    }
}
