//! Changing the topology.

use super::line::{self, Compiling};
use super::{Client, ClientError};
use crate::api::{Base, Changes, Garbage, Proposal, v1};

impl Client {
    /// What is applied in these namespaces, or in all where none is named, and the revision of all that is applied.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn applied(&self, namespaces: Vec<String>) -> Result<(Base, String), ClientError> {
        let request = v1::GetTopologyRequest { namespaces };
        let answer = self.topologies.clone().get_topology(request).await;
        let answer = answer.map_err(|status| self.failed_read(&status))?.into_inner();
        let revision = answer.revision.clone();
        Ok((answer.into(), revision))
    }

    /// What applying a topology would change.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn changes(&self, proposal: Proposal) -> Result<Changes, ClientError> {
        Ok(self.plan(proposal).await?.0)
    }

    /// What applying a topology would change, and the revision of what is applied.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan(&self, proposal: Proposal) -> Result<(Changes, String), ClientError> {
        let request = v1::PlanTopologyRequest { topology: Some(proposal.into()) };
        let answer = self.topologies.clone().plan_topology(line::marked(Compiling, request)).await;
        let answer = answer.map_err(|status| self.failed_read(&status))?.into_inner();
        let revision = answer.revision.clone();
        Ok((answer.into(), revision))
    }

    /// Applies a topology, where this revision is what is applied, if one is said. What has changed, or differs from what is
    /// applied, and the revision from then on.
    ///
    /// # Errors
    /// [`ClientError`]; where the bus refuses, what ran before runs on.
    pub async fn apply(
        &self,
        proposal: Proposal,
        allow_loss: bool,
        if_revision: Option<String>,
    ) -> Result<(Changes, String), ClientError> {
        let request = v1::ApplyTopologyRequest { topology: Some(proposal.into()), allow_loss, if_revision };
        let answer = self.topologies.clone().apply_topology(line::marked(Compiling, request)).await;
        let v1::ApplyTopologyResponse { changes, revision, differs } =
            answer.map_err(|status| self.failed(&status))?.into_inner();
        let changes = changes.into_iter().map(Into::into).collect();
        Ok((Changes { changes, differs, ..Changes::default() }, revision))
    }

    /// What is kept of topics and subscribers that are gone.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn garbage(&self) -> Result<Vec<Garbage>, ClientError> {
        let request = v1::CollectGarbageRequest { allow_loss: false, dry_run: true };
        let answer = self.topologies.clone().collect_garbage(request).await;
        Ok(answer.map_err(|status| self.failed_read(&status))?.into_inner().into())
    }

    /// Forgets what is kept of topics and subscribers that are gone. What was forgotten.
    ///
    /// # Errors
    /// [`ClientError`]; where the bus refuses, nothing is forgotten.
    pub async fn collect_garbage(&self, allow_loss: bool) -> Result<Vec<Garbage>, ClientError> {
        let request = v1::CollectGarbageRequest { allow_loss, dry_run: false };
        let answer = self.topologies.clone().collect_garbage(request).await;
        Ok(answer.map_err(|status| self.failed(&status))?.into_inner().into())
    }
}
