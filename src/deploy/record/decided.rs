//! The record of decided versions by subscriber.
//!
//! ```text
//!                       decide(trial of B)                        it passes
//!   runs A, tried: none ──────────────────> runs A, tried: B ──────────────────> runs B, before: A
//!        ^                                       │
//!        └───────────────────────────────────────┘ it fails, or is rolled back
//! ```
//!
//! Every change replaces the record as a whole, so after a crash there is one answer to which version runs: the
//! candidate if there is one, in its lanes, and the stable version otherwise.
//!
//! A file proposes a component, and a topology its settings: configuration, limits, ports. Each proposes once, when it
//! differs from the last time it was read. New settings apply to the decided component, whatever the file contains.
//! Secrets propose nothing: a version reads them when it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::api::Digest;
use crate::deploy::record::error::StoreError;
use crate::deploy::record::file::{RecordError, RecordFormat};
use crate::deploy::record::values::Values;
use crate::model::call::Limits;
use crate::model::excerpt;
use crate::topology::ConfigValue;
use crate::topology::kept::PathRecord;
use crate::wasm::PluginSpec;

/// Maximum number of stored versions of a subscriber, in addition to those that run or ran last.
pub(crate) const VERSIONS_KEPT_MAX: usize = 50;

/// Maximum bytes of the reason of a rollback: plugins provide it, and those of all stored versions are returned
/// together.
const REASON_BYTES_MAX: usize = 1 << 10;

/// The version of records that this release writes, and the latest that it reads.
const VERSION: u32 = 2;

/// All decisions, by the full name of the subscriber. New fields must have a default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// The version of the record; 0 before versions were written.
    #[serde(default)]
    version: u32,
    /// The earliest version of a reader.
    #[serde(default)]
    reader: u32,
    pub(crate) subscribers: BTreeMap<String, Decisions>,
}

/// The decisions about a subscriber.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decisions {
    /// The stable version.
    pub(crate) proven: Digest,
    /// The candidate, while a trial runs.
    #[serde(default)]
    pub(crate) tried: Option<Candidate>,
    /// No version may replace the stable one.
    #[serde(default)]
    pub(crate) is_pinned: bool,
    /// The file and the topology as last read: unchanged ones propose nothing. `None` if unknown: then the next content
    /// counts as read.
    #[serde(default)]
    pub(crate) looked_at: Option<SourceDigests>,
    /// Instead of `looked_at` in records of format 1: the version that both made at that time.
    #[serde(default, skip_serializing)]
    seen: Option<Digest>,
    /// Earlier stable versions, the latest last.
    #[serde(default)]
    pub(crate) before: Vec<Digest>,
    /// All stored versions, the latest last.
    #[serde(default)]
    pub(crate) kept: Vec<VersionRecord>,
}

/// The parts of a version by their source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SourceDigests {
    /// The component in the file; `None` if it cannot be read.
    pub(crate) component: Option<Digest>,
    /// The digest of the settings in the topology.
    pub(crate) settings: Digest,
}

/// A candidate version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Candidate {
    pub(crate) version: Digest,
    /// Only the first N lanes call it.
    #[serde(default)]
    pub(crate) lanes: Option<u32>,
}

/// A stored version, with all of its parts except secrets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VersionRecord {
    pub(crate) version: Digest,
    /// The digest of the component.
    pub(crate) wasm: Digest,
    pub(crate) config: BTreeMap<String, Value>,
    pub(crate) limits: LimitsRecord,
    pub(crate) ports: Vec<String>,
    /// Its origin, as a message.
    #[serde(default)]
    pub(crate) cause: String,
    /// The time of the last decision about it, also to roll it back, Unix nanoseconds.
    #[serde(default)]
    pub(crate) decided_ns: u64,
    /// Why it was rolled back, if it was.
    #[serde(default)]
    pub(crate) taken_back: Option<String>,
}

impl Record {
    /// Converts a record of format 1.
    pub(crate) fn upgraded_from_v1(self) -> Self {
        let now = |(name, decided): (String, Decisions)| (name, decided.upgraded_from_v1());
        Self { subscribers: self.subscribers.into_iter().map(now).collect(), ..self }
    }

    /// All values of configurations.
    fn values_mut(&mut self) -> impl Iterator<Item = &mut Value> {
        self.subscribers.values_mut().flat_map(|decided| &mut decided.kept).flat_map(|kept| kept.config.values_mut())
    }
}

impl RecordFormat for Record {
    const FILE: &'static str = "record";
    const MAGIC: &'static str = "wattle plugins v2 ";
    const OLD_MAGIC: &'static str = "wattle plugins v1 ";
    const VERSION: u32 = VERSION;

    fn damaged(why: String) -> StoreError {
        StoreError::Damaged { why }
    }

    fn text(&self, values: &Values) -> Result<String, String> {
        let mut kept = Self { version: VERSION, reader: VERSION, ..self.clone() };
        for value in kept.values_mut() {
            if let Value::Variable { text, .. } = value {
                *text = values.seal(text.as_bytes());
            }
        }
        serde_json::to_string_pretty(&kept).map_err(|error| error.to_string())
    }

    fn parse(text: &str, values: &Values) -> Result<Self, RecordError> {
        let mut record = Self { version: 0, reader: 0, ..serde_json::from_str(text)? };
        for value in record.values_mut() {
            if let Value::Variable { text, written } = value {
                let missing = || RecordError(format!("what `{written}` stands for is not kept any more"));
                *text = values.open(text).cloned().ok_or_else(missing)?;
            }
        }
        Ok(record)
    }

    fn parse_old(text: &str) -> Result<Self, RecordError> {
        Ok(serde_json::from_str::<Self>(text)?.upgraded_from_v1())
    }

    fn variables(&self) -> BTreeSet<String> {
        let kept = self.subscribers.values().flat_map(|decided| &decided.kept);
        let text = |value: &Value| match value {
            Value::Variable { text, .. } => Some(text.clone()),
            Value::Text(_) | Value::SecretFile(_) => None,
        };
        kept.flat_map(|kept| kept.config.values()).filter_map(text).collect()
    }
}

/// A value of a configuration. Secrets stay in their files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Value {
    Text(String),
    /// A value with variables. On the disk, `text` is replaced by a hash.
    Variable {
        written: String,
        #[serde(rename = "sealed")]
        text: String,
    },
    SecretFile(PathRecord),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsRecord {
    memory_bytes: u64,
    time_ns: u64,
    output_bytes: u64,
    handles: u32,
    log_lines_per_second: u32,
}

impl From<Limits> for LimitsRecord {
    fn from(limits: Limits) -> Self {
        let Limits { memory_bytes, time, output_bytes, handles, log_lines_per_second } = limits;
        let time_ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { memory_bytes, time_ns, output_bytes, handles, log_lines_per_second }
    }
}

impl From<LimitsRecord> for Limits {
    fn from(limits: LimitsRecord) -> Self {
        let LimitsRecord { memory_bytes, time_ns, output_bytes, handles, log_lines_per_second } = limits;
        Self { memory_bytes, time: Duration::from_nanos(time_ns), output_bytes, handles, log_lines_per_second }
    }
}

impl VersionRecord {
    /// A version with the configuration from which it was made.
    pub(crate) fn new(
        spec: &PluginSpec,
        config: &BTreeMap<String, ConfigValue>,
        (cause, decided_ns): (&str, u64),
    ) -> Self {
        let value = |value: &ConfigValue| match value {
            ConfigValue::Text(text) => Value::Text(text.clone()),
            ConfigValue::Variable { text, written } => Value::Variable { text: text.clone(), written: written.clone() },
            ConfigValue::SecretFile(path) => Value::SecretFile(path.as_path().into()),
        };
        Self {
            version: spec.digest(),
            wasm: Digest::of(&spec.wasm),
            config: config.iter().map(|(name, of)| (name.clone(), value(of))).collect(),
            limits: spec.limits.into(),
            ports: spec.ports.clone(),
            cause: cause.to_owned(),
            decided_ns,
            taken_back: None,
        }
    }

    /// The part of the configuration that makes up the version.
    fn told(&self) -> impl Iterator<Item = (&str, Option<&str>)> + Clone {
        self.config.iter().map(|(name, value)| match value {
            Value::Text(text) | Value::Variable { text, .. } => (name.as_str(), Some(text.as_str())),
            Value::SecretFile(_) => (name.as_str(), None),
        })
    }

    /// The digest of the version.
    fn digest(&self) -> Digest {
        Digest::of_version(&self.wasm, self.told(), &self.limits.into(), &self.ports)
    }

    /// The parts of the version by their source.
    pub(crate) fn said(&self) -> SourceDigests {
        let settings = Digest::of_settings(self.told(), &self.limits.into(), &self.ports);
        SourceDigests { component: Some(self.wasm), settings }
    }

    pub(crate) fn config_values(&self) -> BTreeMap<String, ConfigValue> {
        let value = |value: &Value| match value {
            Value::Text(text) => ConfigValue::Text(text.clone()),
            Value::Variable { text, written } => ConfigValue::Variable { text: text.clone(), written: written.clone() },
            Value::SecretFile(path) => ConfigValue::SecretFile(path.clone().into()),
        };
        self.config.iter().map(|(name, of)| (name.clone(), value(of))).collect()
    }
}

impl Decisions {
    /// The first version of a subscriber.
    pub(crate) fn first(kept: VersionRecord) -> Self {
        let (proven, looked_at) = (kept.version, Some(kept.said()));
        Self { proven, tried: None, is_pinned: false, looked_at, seen: None, before: Vec::new(), kept: vec![kept] }
    }

    /// Converts from format 1, in which the digest of a version depended on the values of secrets.
    fn upgraded_from_v1(mut self) -> Self {
        let seen = self.seen.take().and_then(|seen| self.find(seen));
        self.looked_at = seen.map(VersionRecord::said);
        let renamed: BTreeMap<Digest, Digest> = self.kept.iter().map(|kept| (kept.version, kept.digest())).collect();
        let now = |version: Digest| renamed.get(&version).copied().unwrap_or(version);
        self.proven = now(self.proven);
        self.tried = self.tried.map(|tried| Candidate { version: now(tried.version), ..tried });
        self.tried = self.tried.filter(|tried| tried.version != self.proven);
        for before in std::mem::take(&mut self.before).into_iter().map(now) {
            self.before.retain(|earlier| *earlier != before);
            self.before.push(before);
        }
        let proven = self.proven;
        self.before.retain(|before| *before != proven);
        for kept in std::mem::take(&mut self.kept) {
            self.keep(VersionRecord { version: now(kept.version), ..kept });
        }
        self
    }

    /// Hides texts that are now values of variables.
    pub(crate) fn hide_variables(&mut self, config: &BTreeMap<String, ConfigValue>) {
        for (name, value) in self.kept.iter_mut().flat_map(|kept| &mut kept.config) {
            if let (Value::Text(text), Some(ConfigValue::Variable { written, .. })) = (&*value, config.get(name)) {
                *value = Value::Variable { text: text.clone(), written: written.clone() };
            }
        }
    }

    /// The component that the present file and topology propose with the present settings.
    pub(crate) fn proposed(&self, said: SourceDigests) -> Option<Digest> {
        let before = self.looked_at.filter(|_| !self.is_pinned)?;
        match said.component.filter(|component| before.component != Some(*component)) {
            Some(component) => Some(component),
            None if before.settings != said.settings => self.component(),
            None => None,
        }
    }

    /// Whether the file proposes something, and not only the topology.
    pub(crate) fn is_of_file(&self, said: SourceDigests) -> bool {
        said.component.is_some() && self.looked_at.and_then(|before| before.component) != said.component
    }

    /// If the last decided version has other settings than these, which are applied: why, and what to do.
    pub(crate) fn other_settings(&self, settings: Digest, subscriber: &str) -> Option<String> {
        let has = |kept: &&VersionRecord| kept.said().settings == settings;
        if self.find(self.newest()).is_none_or(|kept| has(&kept)) {
            return None;
        }
        let is_new = self.looked_at.is_some_and(|before| before.settings != settings);
        let runs = self.newest().short();
        let try_them = format!("`wattle plugin deploy {subscriber} FILE` tries the applied ones");
        let taken_back = self.kept.iter().rev().filter(has).find_map(|kept| Some((kept, kept.taken_back.as_ref()?)));
        let why = match (self.is_pinned, taken_back) {
            (true, _) if is_new => {
                format!(
                    "it is pinned to {runs}; `wattle plugin pin {subscriber} --off` starts a trial of the applied ones"
                )
            }
            (true, _) => format!("it is pinned to {runs}; after `wattle plugin pin {subscriber} --off`, {try_them}"),
            (false, _) if is_new => {
                format!("{runs} runs on until the next start tries the applied ones; {try_them} now")
            }
            (false, Some((kept, why))) => {
                format!(
                    "{}, which has the applied ones, was rolled back: {why}; change them, or {try_them} again",
                    kept.version.short()
                )
            }
            (false, None) => format!("{runs} was chosen by hand; {try_them}"),
        };
        Some(format!("other settings run than those applied: {why}"))
    }

    /// If a component of the topology waits for the end of a pin: what to do.
    pub(crate) fn waiting_component(&self, component: Digest, subscriber: &str) -> Option<String> {
        let is_known = self.looked_at.is_none_or(|before| before.component == Some(component));
        let waits = self.is_pinned && !is_known && self.component() != Some(component);
        waits.then(|| {
            format!(
                "the applied component {} does not run: it is pinned to {}; `wattle plugin pin {subscriber} --off` \
                 starts a trial of the applied one",
                component.short(),
                self.newest().short()
            )
        })
    }

    /// Remembers the present file and topology as read. A file that cannot be read is read again later.
    pub(crate) fn look_at(&mut self, said: SourceDigests) {
        let component = said.component.or(self.looked_at.and_then(|before| before.component));
        self.looked_at = Some(SourceDigests { component, ..said });
    }

    /// The component that was decided last.
    pub(crate) fn component(&self) -> Option<Digest> {
        self.find(self.newest()).map(|kept| kept.wasm)
    }

    pub(crate) fn find(&self, version: Digest) -> Option<&VersionRecord> {
        self.kept.iter().find(|kept| kept.version == version)
    }

    /// Whether a stored version has this component.
    pub(crate) fn has_component(&self, wasm: Digest) -> bool {
        self.kept.iter().any(|kept| kept.wasm == wasm)
    }

    /// The version that was decided last.
    pub(crate) fn newest(&self) -> Digest {
        self.tried.map_or(self.proven, |tried| tried.version)
    }

    /// Whether a version was decided last.
    pub(crate) fn runs(&self, version: Digest) -> bool {
        self.newest() == version
    }

    /// Stores a version as the latest.
    fn keep(&mut self, kept: VersionRecord) {
        self.kept.retain(|other| other.version != kept.version);
        self.kept.push(kept);
    }

    /// Makes a version the candidate.
    pub(crate) fn try_version(&mut self, kept: VersionRecord, lanes: Option<u32>) {
        self.tried = Some(Candidate { version: kept.version, lanes });
        self.keep(kept);
        self.forget();
    }

    /// Extends the trial from some lanes to all.
    pub(crate) fn widen_trial(&mut self, now_ns: u64) {
        let Some(tried) = &mut self.tried else { return };
        let version = tried.version;
        tried.lanes = None;
        if let Some(kept) = self.kept.iter_mut().find(|kept| kept.version == version) {
            kept.decided_ns = now_ns;
        }
    }

    /// The time since the trial of a version was decided.
    pub(crate) fn tried_for(&self, version: Digest, now_ns: u64) -> Duration {
        self.find(version).map_or(Duration::ZERO, |kept| Duration::from_nanos(now_ns.saturating_sub(kept.decided_ns)))
    }

    /// Makes a version stable.
    pub(crate) fn prove(&mut self, version: Digest) {
        if self.proven != version {
            self.before.retain(|before| *before != version);
            self.before.push(self.proven);
            self.proven = version;
        }
        if let Some(kept) = self.kept.iter_mut().find(|kept| kept.version == version) {
            kept.taken_back = None; // it is wanted again
        }
        self.tried = None;
        self.forget();
    }

    /// As [`Self::prove`], for a version that is not stored yet.
    pub(crate) fn replace(&mut self, kept: VersionRecord) {
        let version = kept.version;
        self.keep(kept);
        self.prove(version);
    }

    /// Removes the candidate.
    pub(crate) fn take_back_trial(&mut self, why: &str, now_ns: u64) {
        if let Some(tried) = self.tried.take() {
            self.mark(tried.version, why, now_ns);
        }
    }

    /// The stable version was deployed again while another is the candidate.
    pub(crate) fn give_up_for_proven(&mut self, now_ns: u64) {
        self.take_back_trial("the previous version was deployed again", now_ns);
    }

    /// Returns to the previous stable version; `None` if there is none.
    pub(crate) fn take_back_proven(&mut self, why: &str, now_ns: u64) -> Option<Digest> {
        let version = self.before.pop()?;
        self.tried = None;
        self.mark(self.proven, why, now_ns);
        self.proven = version;
        Some(version)
    }

    /// Marks a version as rolled back, so that later rollbacks skip it.
    fn mark(&mut self, version: Digest, why: &str, now_ns: u64) {
        self.before.retain(|before| *before != version);
        if let Some(kept) = self.kept.iter_mut().find(|kept| kept.version == version) {
            kept.taken_back = Some(excerpt(why, REASON_BYTES_MAX).into_owned());
            kept.decided_ns = now_ns;
        }
    }

    /// Removes versions beyond the maximum, the oldest first.
    fn forget(&mut self) {
        while self.before.len() > VERSIONS_KEPT_MAX {
            self.before.remove(0);
        }
        let needed = |decided: &Self, version: Digest| {
            version == decided.proven || decided.runs(version) || decided.before.last() == Some(&version)
        };
        while self.kept.len() > VERSIONS_KEPT_MAX {
            let Some(oldest) = self.kept.iter().position(|kept| !needed(self, kept.version)) else { return };
            let gone = self.kept.remove(oldest).version;
            self.before.retain(|before| *before != gone);
        }
    }
}
