//! The capsules that a bus keeps, and the components that they are of.

use bytes::Bytes;
use tonic::{Code, Status, Streaming};

use super::subscribers::{Listing, Part, Source};
use super::{Client, ClientError, Refusal};
use crate::api::v1;
use crate::limits::{CAPSULE_BYTES_MAX, COMPONENT_BYTES_MAX};

pub use crate::api::v1::Capsule as CapsuleInfo;

/// Capsules in short.
#[derive(Debug)]
pub struct CapsuleInfos {
    subscriber: String,
}

impl Source for CapsuleInfos {
    type Item = CapsuleInfo;
    type Position = String;

    async fn part(&self, client: &Client, from: Option<String>) -> Part<CapsuleInfo, String> {
        let (subscriber, page_token) = (self.subscriber.clone(), from.unwrap_or_default());
        let request = v1::ListCapsulesRequest { subscriber, page_token, page_size: 0 };
        let answer = client.capsules.clone().list_capsules(request).await;
        let v1::ListCapsulesResponse { capsules, next_page_token } =
            answer.map_err(|status| client.failed_read(&status))?.into_inner();
        Ok((capsules, Some(next_page_token).filter(|token| !token.is_empty())))
    }
}

impl Client {
    /// The capsules of a subscriber, or of all, in short, the oldest first.
    pub fn capsules(&self, subscriber: Option<&str>) -> Listing<CapsuleInfos> {
        Listing::new(self, CapsuleInfos { subscriber: subscriber.unwrap_or_default().to_owned() })
    }

    /// The bytes of a capsule's file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch_capsule(&self, subscriber: &str, id: &str) -> Result<Vec<u8>, ClientError> {
        let request = v1::FetchCapsuleRequest { subscriber: subscriber.to_owned(), id: id.to_owned() };
        let parts = self.capsules.clone().fetch_capsule(request).await.map_err(|status| self.failed_read(&status))?;
        self.whole(parts.into_inner(), |part| part.chunk, CAPSULE_BYTES_MAX).await
    }

    /// A component that the bus keeps, by its hash.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch_component(&self, hash: &str) -> Result<Vec<u8>, ClientError> {
        let request = v1::FetchComponentRequest { wasm_digest: hash.to_owned() };
        let parts = self.capsules.clone().fetch_component(request).await.map_err(|status| self.failed_read(&status))?;
        let bytes_max = usize::try_from(COMPONENT_BYTES_MAX).unwrap_or(usize::MAX);
        self.whole(parts.into_inner(), |part| part.chunk, bytes_max).await
    }

    /// All parts together, no more than may be.
    async fn whole<T>(
        &self,
        mut parts: Streaming<T>,
        chunk: impl Fn(T) -> Bytes,
        bytes_max: usize,
    ) -> Result<Vec<u8>, ClientError> {
        let mut whole = Vec::new();
        while let Some(part) = parts.message().await.map_err(|status: Status| self.failed_read(&status))? {
            whole.extend_from_slice(&chunk(part));
            if whole.len() > bytes_max {
                return Err(ClientError::Refused(Refusal {
                    code: Code::OutOfRange,
                    reason: String::new(),
                    message: format!("the bus gives more than {bytes_max} bytes, which is more than there can be"),
                    retry_after: None,
                    outcome_unknown: false,
                    fields: Vec::new(),
                }));
            }
        }
        Ok(whole)
    }
}
