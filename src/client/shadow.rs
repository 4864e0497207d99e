//! Comparing versions of plugins.

use bytes::Bytes;

use super::{Client, ClientError};
use crate::dispatch::StateOfPartition;
use crate::dispatch::shadow::ShadowReport;
use crate::rpc::v1;
use crate::rpc::v1::shadow_request::{Begin, Part};

/// Bytes of a component that one message has.
const CHUNK_BYTES: usize = 1 << 20;

impl Client {
    /// Runs a component beside the version that a subscriber runs, over the last events that it has handled, beginning with
    /// this state. Changes nothing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn shadow(
        &self,
        subscriber: &str,
        wasm: Bytes,
        last: u32,
        state: Vec<StateOfPartition>,
    ) -> Result<ShadowReport, ClientError> {
        let begin = Begin { subscriber: subscriber.to_owned(), last, size_bytes: wasm.len() as u64, shown: 0 };
        // The state first: what is behind the component may come in after it has been found to be whole.
        let entries = state.into_iter().map(|entry| Part::Entry(entry.into()));
        let chunks = (0..wasm.len()).step_by(CHUNK_BYTES).map(|at| {
            let end = wasm.len().min(at + CHUNK_BYTES);
            Part::Chunk(wasm.slice(at..end))
        });
        let parts: Vec<_> = std::iter::once(Part::Begin(begin)).chain(entries).chain(chunks).collect();
        let requests = tokio_stream::iter(parts.into_iter().map(|part| v1::ShadowRequest { part: Some(part) }));
        let answer = self.shadows.clone().shadow(requests).await.map_err(|status| self.failed(&status))?;
        Ok(answer.into_inner().into())
    }
}
