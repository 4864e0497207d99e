//! What the audit record of a call says of its request: names, filters, digests; never the data of events, states or
//! topologies.

use serde_json::{Value, json};

use crate::api::v1;
use crate::server::audit::Subject;

/// A request that is recorded. The topic or subscriber that it names is recorded by [`super::authorized`].
pub(super) trait AuditedRequest {
    /// Says what it is about.
    fn record(&self, _subject: &Subject) {}
}

/// Requests that have no more than their subscriber, or nothing.
macro_rules! only_names {
    ($($request:ident),* $(,)?) => { $(impl AuditedRequest for v1::$request {})* };
}

only_names!(UnpinRequest, PauseRequest, ResumeRequest, ConfirmClockRequest);

/// Requests that select failed events.
macro_rules! filtered {
    ($($request:ident),* $(,)?) => {
        $(impl AuditedRequest for v1::$request {
            fn record(&self, subject: &Subject) {
                subject.set("filter", filter(self.filter.as_ref()));
            }
        })*
    };
}

filtered!(ReleaseRequest, DropRetryQueueRequest, RedriveRequest, DropDeadLettersRequest);

fn filter(filter: Option<&v1::FailedFilter>) -> Value {
    let Some(v1::FailedFilter { key, id, reason, older_than, partition, parked }) = filter else { return Value::Null };
    let older_than_s = older_than.as_ref().map(|time| time.seconds);
    json!({
        "key": key, "id": id, "reason": reason, "older_than_s": older_than_s, "partition": partition, "parked": parked,
    })
}

/// Requests that decide between versions.
macro_rules! of_version {
    ($($request:ident),* $(,)?) => {
        $(impl AuditedRequest for v1::$request {
            fn record(&self, subject: &Subject) {
                subject.set("if_version", self.if_version.clone());
            }
        })*
    };
}

of_version!(RollbackRequest, PromoteRequest);

impl AuditedRequest for v1::PinRequest {
    fn record(&self, subject: &Subject) {
        subject.set("version", self.version.clone());
        subject.set("if_version", self.if_version.clone());
    }
}

impl AuditedRequest for v1::DeployRequest {
    fn record(&self, subject: &Subject) {
        subject.set("component", self.component.clone());
        subject.set("policy", self.policy().as_str_name());
        subject.set("canary_percent", self.canary_percent);
        subject.set("cause", self.cause.clone());
        subject.set("if_version", self.if_version.clone());
    }
}

impl AuditedRequest for v1::FindMissingComponentsRequest {
    fn record(&self, subject: &Subject) {
        subject.set("components", self.components.len());
    }
}

impl AuditedRequest for v1::SeekRequest {
    fn record(&self, subject: &Subject) {
        let to = self.to.as_ref().map(|to| format!("{to:?}"));
        subject.set("to", to);
        subject.set("partition", self.partition);
        subject.set("state", self.state().as_str_name());
        subject.set("drops_retry_queue", self.drops_retry_queue);
        subject.set("dry_run", self.dry_run);
    }
}

impl AuditedRequest for v1::TakeSnapshotRequest {
    fn record(&self, subject: &Subject) {
        subject.set("note", self.note.clone());
    }
}

impl AuditedRequest for v1::DropSnapshotRequest {
    fn record(&self, subject: &Subject) {
        subject.set("number", self.number.to_string());
    }
}

impl AuditedRequest for v1::ImportStateRequest {
    fn record(&self, subject: &Subject) {
        subject.set("entries", self.entries.len());
    }
}

impl AuditedRequest for v1::GetTopologyRequest {
    fn record(&self, subject: &Subject) {
        subject.set("namespaces", self.namespaces.join(" "));
    }
}

/// The hash of the texts of a topology, hexadecimal: they may contain secrets.
fn digest(topology: &v1::Topology) -> String {
    let mut hash = blake3::Hasher::new();
    for document in &topology.documents {
        hash.update(&(document.len() as u64).to_le_bytes()).update(document.as_bytes());
    }
    hash.finalize().to_hex().to_string()
}

fn topology(topology: Option<&v1::Topology>, subject: &Subject) {
    if let Some(topology) = topology {
        subject.set("documents_digest", digest(topology));
        subject.set("prune", topology.prune);
    }
}

impl AuditedRequest for v1::PlanTopologyRequest {
    fn record(&self, subject: &Subject) {
        topology(self.topology.as_ref(), subject);
    }
}

impl AuditedRequest for v1::ApplyTopologyRequest {
    fn record(&self, subject: &Subject) {
        topology(self.topology.as_ref(), subject);
        subject.set("allow_loss", self.allow_loss);
        subject.set("if_revision", self.if_revision.clone());
    }
}

impl AuditedRequest for v1::CollectGarbageRequest {
    fn record(&self, subject: &Subject) {
        subject.set("allow_loss", self.allow_loss);
        subject.set("dry_run", self.dry_run);
    }
}
