//! Versions of plugins.

use super::times::{nanoseconds, timestamp};
use super::{Digest, NotADigest, TrialStatus, v1};

/// How a version replaces another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// All lanes call the candidate.
    Swap,
    /// A share of the lanes calls the candidate first, then all do.
    Canary {
        /// Percentage of lanes, rounded up.
        percent: u32,
    },
    /// All lanes call it without a comparison: for a version that is meant to refuse events that the previous one
    /// accepted.
    Replace,
}

/// A requested version, and the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    pub version: Digest,
    pub outcome: DeployOutcome,
    /// A note, as a message.
    pub notice: Option<String>,
}

/// The result of an unpin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnpinResult {
    /// The candidate from now on, because the file or the topology has changed meanwhile.
    pub tries: Option<Digest>,
    /// Why that was refused, as a message.
    pub refused: Option<String>,
}

/// A summary of a subscriber's versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The subscriber's full name.
    pub subscriber: String,
    /// The stable version.
    pub proven: Digest,
    /// The candidate, while a trial runs.
    pub tried: Option<Digest>,
    /// Other versions may not replace the stable one.
    pub is_pinned: bool,
    /// Number of stored versions.
    pub kept: u64,
}

/// The role of a version for its subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionRole {
    /// The stable version, which runs.
    Proven,
    /// It is the candidate.
    Tried,
    /// It was rolled back.
    TakenBack,
    /// It is stored.
    Kept,
}

/// A stored version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVersion {
    pub version: Digest,
    /// The digest of its component.
    pub wasm: Digest,
    /// Its role for its subscriber.
    pub standing: VersionRole,
    /// `rollback` returns to it.
    pub is_next_back: bool,
    /// Its origin, as a message.
    pub cause: String,
    /// The time of the last decision about it, Unix nanoseconds.
    pub decided_ns: u64,
    /// Why it was rolled back, if it was.
    pub taken_back: Option<String>,
    /// The state of its trial, if it is the candidate.
    pub trial: Option<TrialStatus>,
}

/// The result of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeployOutcome {
    /// It is the candidate.
    Tried,
    Runs,
    /// It was already running.
    Unchanged,
    /// It was already the candidate.
    OnTrial,
    /// Its file is unchanged since it was last decided, or its subscriber is pinned.
    Ignored,
}

/// Default percentage of lanes that call a canary first.
const CANARY_PERCENT_DEFAULT: u32 = 10;

impl v1::DeployRequest {
    /// How the version takes the place of the one before. None: this release does not know it.
    pub fn how(&self) -> Option<Policy> {
        let percent = match self.canary_percent {
            0 => CANARY_PERCENT_DEFAULT,
            percent => percent,
        };
        Some(match v1::DeployPolicy::try_from(self.policy).ok()? {
            v1::DeployPolicy::Unspecified | v1::DeployPolicy::Swap => Policy::Swap,
            v1::DeployPolicy::Canary => Policy::Canary { percent },
            v1::DeployPolicy::Replace => Policy::Replace,
        })
    }

    /// Says how.
    #[must_use]
    pub fn with(self, policy: Policy) -> Self {
        let (policy, canary_percent) = match policy {
            Policy::Swap => (v1::DeployPolicy::Swap, 0),
            Policy::Canary { percent } => (v1::DeployPolicy::Canary, percent),
            Policy::Replace => (v1::DeployPolicy::Replace, 0),
        };
        Self { policy: policy.into(), canary_percent, ..self }
    }
}

impl From<Deployment> for v1::DeployResponse {
    fn from(Deployment { version, outcome, notice }: Deployment) -> Self {
        let outcome = match outcome {
            DeployOutcome::Tried => v1::DeployOutcome::Candidate,
            DeployOutcome::Runs => v1::DeployOutcome::Runs,
            DeployOutcome::Unchanged => v1::DeployOutcome::Unchanged,
            DeployOutcome::OnTrial => v1::DeployOutcome::AlreadyCandidate,
            // only what a file proposes is ignored
            DeployOutcome::Ignored => v1::DeployOutcome::Unspecified,
        };
        Self { version: version.to_string(), outcome: outcome.into(), notice }
    }
}

impl TryFrom<v1::DeployResponse> for Deployment {
    type Error = NotADigest;

    fn try_from(response: v1::DeployResponse) -> Result<Self, NotADigest> {
        let outcome = match response.outcome() {
            v1::DeployOutcome::Candidate => DeployOutcome::Tried,
            v1::DeployOutcome::Runs => DeployOutcome::Runs,
            v1::DeployOutcome::Unchanged => DeployOutcome::Unchanged,
            v1::DeployOutcome::AlreadyCandidate => DeployOutcome::OnTrial,
            v1::DeployOutcome::Unspecified => DeployOutcome::Ignored,
        };
        Ok(Self { version: response.version.parse()?, outcome, notice: response.notice })
    }
}

impl From<Summary> for v1::PluginSummary {
    fn from(Summary { subscriber, proven, tried, is_pinned, kept }: Summary) -> Self {
        let tried = tried.as_ref().map(Digest::to_string);
        Self { subscriber, stable: proven.to_string(), candidate: tried, is_pinned, kept }
    }
}

impl TryFrom<v1::PluginSummary> for Summary {
    type Error = NotADigest;

    fn try_from(summary: v1::PluginSummary) -> Result<Self, NotADigest> {
        let v1::PluginSummary { subscriber, stable, candidate, is_pinned, kept } = summary;
        let tried = candidate.map(|tried| tried.parse()).transpose()?;
        Ok(Self { subscriber, proven: stable.parse()?, tried, is_pinned, kept })
    }
}

impl From<StoredVersion> for v1::PluginVersion {
    fn from(kept: StoredVersion) -> Self {
        let StoredVersion { version, wasm, standing, is_next_back, cause, decided_ns, taken_back, trial } = kept;
        let standing = match standing {
            VersionRole::Proven => v1::VersionState::Stable,
            VersionRole::Tried => v1::VersionState::Candidate,
            VersionRole::TakenBack => v1::VersionState::RolledBack,
            VersionRole::Kept => v1::VersionState::Unspecified,
        };
        Self {
            version: version.to_string(),
            wasm: wasm.to_string(),
            state: standing.into(),
            is_next_back,
            cause,
            decided_time: Some(timestamp(decided_ns)),
            rolled_back: taken_back,
            trial: trial.map(Into::into),
        }
    }
}

impl TryFrom<v1::PluginVersion> for StoredVersion {
    type Error = NotADigest;

    fn try_from(kept: v1::PluginVersion) -> Result<Self, NotADigest> {
        let standing = match kept.state() {
            v1::VersionState::Stable => VersionRole::Proven,
            v1::VersionState::Candidate => VersionRole::Tried,
            v1::VersionState::RolledBack => VersionRole::TakenBack,
            v1::VersionState::Unspecified => VersionRole::Kept,
        };
        let v1::PluginVersion { version, wasm, is_next_back, cause, decided_time, rolled_back, trial, .. } = kept;
        let decided_ns = decided_time.as_ref().and_then(nanoseconds).unwrap_or(0);
        let (version, wasm) = (version.parse()?, wasm.parse()?);
        Ok(Self {
            version,
            wasm,
            standing,
            is_next_back,
            cause,
            decided_ns,
            taken_back: rolled_back,
            trial: trial.map(Into::into),
        })
    }
}
