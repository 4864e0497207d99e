//! Versions of plugins in the contract's words, and back.

use crate::deploy::{KeptVersion, Outcome, Policy, Reloaded, Standing, Summary};
use crate::wasm::{Digest, NotADigest};

use super::times::{nanoseconds, timestamp};
use super::v1;

/// Lanes of a hundred that call a canary first where nobody says how many.
const CANARY_PERCENT_DEFAULT: u32 = 10;

impl v1::deploy_request::Begin {
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

impl From<Reloaded> for v1::DeployResponse {
    fn from(Reloaded { version, outcome, notice }: Reloaded) -> Self {
        let outcome = match outcome {
            Outcome::Tried => v1::DeployOutcome::Tried,
            Outcome::Runs => v1::DeployOutcome::Runs,
            Outcome::Unchanged => v1::DeployOutcome::Unchanged,
            Outcome::OnTrial => v1::DeployOutcome::OnTrial,
            // only what a file proposes is ignored
            Outcome::Ignored => v1::DeployOutcome::Unspecified,
        };
        Self { version: version.to_string(), outcome: outcome.into(), notice }
    }
}

impl TryFrom<v1::DeployResponse> for Reloaded {
    type Error = NotADigest;

    fn try_from(response: v1::DeployResponse) -> Result<Self, NotADigest> {
        let outcome = match response.outcome() {
            v1::DeployOutcome::Tried => Outcome::Tried,
            v1::DeployOutcome::Runs => Outcome::Runs,
            v1::DeployOutcome::Unchanged => Outcome::Unchanged,
            v1::DeployOutcome::OnTrial => Outcome::OnTrial,
            v1::DeployOutcome::Unspecified => Outcome::Ignored,
        };
        Ok(Self { version: response.version.parse()?, outcome, notice: response.notice })
    }
}

impl From<Summary> for v1::PluginSummary {
    fn from(Summary { subscriber, proven, tried, is_pinned, kept }: Summary) -> Self {
        let tried = tried.as_ref().map(Digest::to_string);
        Self { subscriber, proven: proven.to_string(), tried, is_pinned, kept }
    }
}

impl TryFrom<v1::PluginSummary> for Summary {
    type Error = NotADigest;

    fn try_from(summary: v1::PluginSummary) -> Result<Self, NotADigest> {
        let v1::PluginSummary { subscriber, proven, tried, is_pinned, kept } = summary;
        let tried = tried.map(|tried| tried.parse()).transpose()?;
        Ok(Self { subscriber, proven: proven.parse()?, tried, is_pinned, kept })
    }
}

impl From<KeptVersion> for v1::PluginVersion {
    fn from(kept: KeptVersion) -> Self {
        let KeptVersion { version, wasm, standing, is_next_back, cause, decided_ns, taken_back, trial } = kept;
        let standing = match standing {
            Standing::Proven => v1::VersionStanding::Proven,
            Standing::Tried => v1::VersionStanding::Tried,
            Standing::TakenBack => v1::VersionStanding::TakenBack,
            Standing::Kept => v1::VersionStanding::Unspecified,
        };
        Self {
            version: version.to_string(),
            wasm: wasm.to_string(),
            standing: standing.into(),
            is_next_back,
            cause,
            decided_time: Some(timestamp(decided_ns)),
            taken_back,
            trial: trial.map(Into::into),
        }
    }
}

impl TryFrom<v1::PluginVersion> for KeptVersion {
    type Error = NotADigest;

    fn try_from(kept: v1::PluginVersion) -> Result<Self, NotADigest> {
        let standing = match kept.standing() {
            v1::VersionStanding::Proven => Standing::Proven,
            v1::VersionStanding::Tried => Standing::Tried,
            v1::VersionStanding::TakenBack => Standing::TakenBack,
            v1::VersionStanding::Unspecified => Standing::Kept,
        };
        let v1::PluginVersion { version, wasm, is_next_back, cause, decided_time, taken_back, trial, .. } = kept;
        let decided_ns = decided_time.as_ref().and_then(nanoseconds).unwrap_or(0);
        let (version, wasm) = (version.parse()?, wasm.parse()?);
        Ok(Self { version, wasm, standing, is_next_back, cause, decided_ns, taken_back, trial: trial.map(Into::into) })
    }
}
