//! Looking after the versions of plugins.

use bytes::Bytes;
use tonic::Code;

use super::line::{self, CompileRequest};
use super::{Client, ClientError, Refusal};
use crate::api::v1::upload_component_request::{Begin, Part};
use crate::api::{Deployment, Digest, NotADigest, Policy, StoredVersion, Summary, UnpinResult, v1};

/// Bytes of a component that one message has.
const CHUNK_BYTES: usize = 1 << 20;

/// The bus says something that is no digest: it is of another kind.
fn nonsense(error: NotADigest) -> ClientError {
    ClientError::Refused(Refusal {
        code: Code::Internal,
        reason: String::new(),
        message: format!("the bus answers with an invalid version: {error}"),
        retry_after: None,
        outcome_unknown: true,
        fields: Vec::new(),
    })
}

impl Client {
    /// The components that the bus does not have. Only those have to be uploaded.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn missing_components(&self, components: &[Digest]) -> Result<Vec<Digest>, ClientError> {
        let request =
            v1::FindMissingComponentsRequest { components: components.iter().map(ToString::to_string).collect() };
        let answer = self.plugins.clone().find_missing_components(request).await;
        let missing = answer.map_err(|status| self.failed_read(&status))?.into_inner().missing;
        missing.iter().map(|component| component.parse()).collect::<Result<_, _>>().map_err(nonsense)
    }

    /// Uploads a component, which the bus keeps until a deploy or an apply uses it, or for a time.
    ///
    /// # Errors
    /// [`ClientError`]; where the bus refuses, nothing is stored.
    pub async fn upload(&self, component: Digest, wasm: Bytes) -> Result<(), ClientError> {
        let begin = Begin { component: component.to_string(), size_bytes: wasm.len() as u64 };
        let chunks = (0..wasm.len()).step_by(CHUNK_BYTES).map(move |at| {
            let end = wasm.len().min(at + CHUNK_BYTES);
            Part::Chunk(wasm.slice(at..end))
        });
        let parts = std::iter::once(Part::Begin(begin)).chain(chunks);
        let requests = tokio_stream::iter(parts.map(|part| v1::UploadComponentRequest { part: Some(part) }));
        let answer = self.plugins.clone().upload_component(requests).await;
        answer.map(drop).map_err(|status| self.failed_read(&status)) // a repeated upload does no harm
    }

    /// Deploys a component in place of the running one, and uploads it before if the bus does not have it. `cause` says
    /// where it comes from; `if_version`, which version has to be there, by the start of its digest.
    ///
    /// # Errors
    /// [`ClientError`]; where the bus refuses, the version before runs on.
    pub async fn deploy(
        &self,
        subscriber: &str,
        wasm: Bytes,
        policy: Policy,
        cause: &str,
        if_version: Option<String>,
    ) -> Result<Deployment, ClientError> {
        let component = Digest::of(&wasm);
        if !self.missing_components(&[component]).await?.is_empty() {
            self.upload(component, wasm).await?;
        }
        let (subscriber, component, cause) = (subscriber.to_owned(), component.to_string(), cause.to_owned());
        let request = v1::DeployRequest { subscriber, component, cause, if_version, ..v1::DeployRequest::default() };
        let request = line::marked(CompileRequest, request.with(policy));
        let answer = self.plugins.clone().deploy(request).await.map_err(|status| self.failed(&status))?;
        answer.into_inner().try_into().map_err(nonsense)
    }

    /// Every subscriber with its versions in short, parents before children.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plugins(&self) -> Result<Vec<Summary>, ClientError> {
        let request = v1::ListPluginsRequest {};
        let answer = self.plugins.clone().list_plugins(request).await.map_err(|status| self.failed_read(&status))?;
        let plugins = answer.into_inner().plugins.into_iter().map(TryInto::try_into);
        plugins.collect::<Result<_, _>>().map_err(nonsense)
    }

    /// The versions of a subscriber that are kept, the latest last.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn versions(&self, subscriber: &str) -> Result<Vec<StoredVersion>, ClientError> {
        let request = v1::ListVersionsRequest { subscriber: subscriber.to_owned() };
        let answer = self.plugins.clone().list_versions(request).await.map_err(|status| self.failed_read(&status))?;
        let versions = answer.into_inner().versions.into_iter().map(TryInto::try_into);
        versions.collect::<Result<_, _>>().map_err(nonsense)
    }

    /// Goes back to the version before, and returns it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rollback(&self, subscriber: &str, if_version: Option<String>) -> Result<Digest, ClientError> {
        let request = v1::RollbackRequest { subscriber: subscriber.to_owned(), if_version };
        let answer = self
            .plugins
            .clone()
            .rollback(line::marked(CompileRequest, request))
            .await
            .map_err(|status| self.failed(&status))?;
        answer.into_inner().version.parse().map_err(nonsense)
    }

    /// Ends the trial of a subscriber's new version, which is stable then, and returns it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn promote(&self, subscriber: &str, if_version: Option<String>) -> Result<Digest, ClientError> {
        let request = v1::PromoteRequest { subscriber: subscriber.to_owned(), if_version };
        let answer = self.plugins.clone().promote(request).await.map_err(|status| self.failed(&status))?;
        answer.into_inner().version.parse().map_err(nonsense)
    }

    /// Pins a subscriber to a version that is kept, by its digest or the start of it, or to the running one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn pin(
        &self,
        subscriber: &str,
        version: Option<&str>,
        if_version: Option<String>,
    ) -> Result<Digest, ClientError> {
        let version = version.map(str::to_owned);
        let request = v1::PinRequest { subscriber: subscriber.to_owned(), version, if_version };
        let answer = self
            .plugins
            .clone()
            .pin(line::marked(CompileRequest, request))
            .await
            .map_err(|status| self.failed(&status))?;
        answer.into_inner().version.parse().map_err(nonsense)
    }

    /// Unpins a subscriber, and tries the version that was applied meanwhile.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unpin(&self, subscriber: &str) -> Result<UnpinResult, ClientError> {
        let request = v1::UnpinRequest { subscriber: subscriber.to_owned() };
        let answer = self.plugins.clone().unpin(line::marked(CompileRequest, request)).await;
        let v1::UnpinResponse { tries, refused } = answer.map_err(|status| self.failed(&status))?.into_inner();
        Ok(UnpinResult {
            tries: tries.map(|version| version.parse::<Digest>()).transpose().map_err(nonsense)?,
            refused,
        })
    }
}
