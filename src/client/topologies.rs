//! Changing the topology.

use super::{Client, ClientError};
use crate::dispatch::{Change, Changes};
use crate::reload::Proposal;
use crate::rpc::v1;

impl Client {
    /// What applying a topology would change.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn changes(&self, proposal: Proposal) -> Result<Changes, ClientError> {
        let request = v1::PlanTopologyRequest { topology: Some(proposal.into()) };
        let answer = self.topologies.clone().plan_topology(request).await;
        Ok(answer.map_err(|status| self.failed_read(&status))?.into_inner().into())
    }

    /// Has a topology take the place of the one that runs. What has changed.
    ///
    /// # Errors
    /// [`ClientError`]; where the bus refuses, what ran before runs on.
    pub async fn apply(&self, proposal: Proposal, allow_loss: bool) -> Result<Vec<Change>, ClientError> {
        let request = v1::ApplyTopologyRequest { topology: Some(proposal.into()), allow_loss };
        let answer = self.topologies.clone().apply_topology(request).await;
        let changes = answer.map_err(|status| self.failed(&status))?.into_inner().changes;
        Ok(changes.into_iter().map(Into::into).collect())
    }

    /// Forgets what is kept of subscribers that are gone. Their full names.
    ///
    /// # Errors
    /// [`ClientError`]; where the bus refuses, nothing is forgotten.
    pub async fn collect_garbage(&self, allow_loss: bool) -> Result<Vec<String>, ClientError> {
        let request = v1::CollectGarbageRequest { allow_loss };
        let answer = self.topologies.clone().collect_garbage(request).await;
        Ok(answer.map_err(|status| self.failed(&status))?.into_inner().subscribers)
    }
}
