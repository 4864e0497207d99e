//! Changing the topology.

use super::line::{self, CompileRequest};
use super::{Client, ClientError};
use crate::api::{Base, Changes, Garbage, Proposal, v1};

impl Client {
    /// The applied topology of these namespaces, or of all where none is named, and the revision of the whole.
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

    /// The changes that applying a topology would make.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn changes(&self, proposal: Proposal) -> Result<Changes, ClientError> {
        Ok(self.plan(proposal).await?.0)
    }

    /// The changes that applying a topology would make, and the revision of the applied one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn plan(&self, proposal: Proposal) -> Result<(Changes, String), ClientError> {
        let request = v1::PlanTopologyRequest { topology: Some(proposal.into()) };
        let answer = self.topologies.clone().plan_topology(line::marked(CompileRequest, request)).await;
        let answer = answer.map_err(|status| self.failed_read(&status))?.into_inner();
        let revision = answer.revision.clone();
        Ok((answer.into(), revision))
    }

    /// Applies a topology, only on top of this revision, if one is given. Returns the changes, the differences from the
    /// applied settings, and the new revision.
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
        let answer = self.topologies.clone().apply_topology(line::marked(CompileRequest, request)).await;
        let v1::ApplyTopologyResponse { changes, revision, differs } =
            answer.map_err(|status| self.failed(&status))?.into_inner();
        let changes = changes.into_iter().map(Into::into).collect();
        Ok((Changes { changes, differs, ..Changes::default() }, revision))
    }

    /// Data of removed topics and subscribers.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn garbage(&self) -> Result<Vec<Garbage>, ClientError> {
        let request = v1::CollectGarbageRequest { allow_loss: false, dry_run: true };
        let answer = self.topologies.clone().collect_garbage(request).await;
        Ok(answer.map_err(|status| self.failed_read(&status))?.into_inner().into())
    }

    /// Deletes the data of removed topics and subscribers, and returns it.
    ///
    /// # Errors
    /// [`ClientError`]; where the bus refuses, nothing is forgotten.
    pub async fn collect_garbage(&self, allow_loss: bool) -> Result<Vec<Garbage>, ClientError> {
        let request = v1::CollectGarbageRequest { allow_loss, dry_run: false };
        let answer = self.topologies.clone().collect_garbage(request).await;
        Ok(answer.map_err(|status| self.failed(&status))?.into_inner().into())
    }
}
