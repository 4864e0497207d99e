//! The record of the applied topology: a plan as data, and what is remembered with it.
//!
//! ```text
//! version 4     { version, reader, plan, components, retired, renamed, seen }     `topology::kept` encodes the plan
//! version 3     the same, and each component is a path                              read, never written
//! version 2     the same with former names of keys                                read, never written
//! version 0, 1  { topology: YAML with all defaults, … }                           read, never written
//! ```
//!
//! Promises: a decided topology can be read again, because that was tried before. A record of a later release that this
//! one cannot read is refused with a message; nothing unknown is dropped. The files of a start are remembered by their
//! bytes, so that a release with other defaults or key names proposes nothing by itself; files in which only keys
//! were renamed, as a release required, propose nothing either.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::api::{Component, Digest, Proposal};
use crate::deploy::record::error::StoreError;
use crate::deploy::record::file::{RecordError, RecordFormat};
use crate::deploy::record::values::Values;
use crate::dispatch::{RemovedSubscriber, RemovedTopic, Renames};
use crate::engine::NameChanges;
use crate::topology::kept::{PathRecord, PlanRecord};
use crate::topology::{ConfigValue, Plan, SubscriberPlan};

/// The version of records that this release writes, and the latest that it reads.
const VERSION: u32 = 4;
/// Hexadecimal digits of a revision: enough to make collisions within a bus improbable.
const REVISION_DIGITS: usize = 16;
/// How the line of `dedupe` began and ended in version 0, where a missing `count` meant 100,000.
const DEDUPE: &str = "    dedupe: { window: ";
const OLD_COUNT: &str = ", count: 100000 }";
/// The beginning of a line that versions before 2 did not have.
const TRIAL: &str = "    trial: { ";
/// The beginning of the line of `limits`, and its last part, which those versions did not have either.
const LIMITS: &str = "    limits: { ";
const LOG: &str = ", log: ";
/// How lines begin of keys that had another name in the versions before 2, with that.
const RENAMED: [(&str, &str); 4] = [
    ("    renamed_from: ", "    was: "),
    ("    retry_queue: ", "    waiting: "),
    ("    queue_group: ", "    claim: "),
    ("    queue_group_timeout: ", "    claim_timeout: "),
];

/// The topology that was applied last.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct AppliedTopology {
    pub(crate) plan: Plan,
    /// The component of each subscriber, in order.
    pub(crate) components: Vec<Component>,
    /// Removed subscribers whose positions and state are stored.
    pub(crate) retired: BTreeSet<RetiredSubscriber>,
    /// Removed subscribers whose deletion has begun and may have been interrupted: a new subscriber with the same name
    /// begins empty.
    pub(crate) forgetting: BTreeSet<RetiredSubscriber>,
    /// Renames of this topology.
    pub(super) renamed: NamesByNumber,
    /// The content of the last start's files: unchanged files propose nothing.
    pub(super) seen: Option<FilesFingerprint>,
}

/// The content of files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum FilesFingerprint {
    /// The salted hash of their bytes.
    Files(String),
    /// The form in which an earlier release rendered them, with the version of its records.
    Rendered { digest: Digest, version: u32 },
}

/// Names by the engine's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NamesByNumber {
    pub(super) topics: BTreeMap<u32, String>,
    pub(super) subscribers: BTreeMap<u32, String>,
}

/// A removed subscriber.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetiredSubscriber {
    /// Its full name.
    pub name: String,
    /// The full name of its input topic.
    pub from: String,
    /// The number of partitions of that topic.
    pub partitions: u32,
}

/// The stored form.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AppliedRecord {
    version: u32,
    /// The earliest version of a reader.
    reader: u32,
    plan: PlanRecord,
    components: Vec<ComponentRecord>,
    retired: BTreeSet<RetiredSubscriber>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    forgetting: BTreeSet<RetiredSubscriber>,
    pub(super) renamed: NamesByNumber,
    pub(super) seen: Option<FilesFingerprint>,
}

/// The stored form of a component: a path alone, as in earlier versions, or a digest.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum ComponentRecord {
    File(PathRecord),
    Stored(DigestRecord),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DigestRecord {
    stored: Digest,
}

impl From<&Component> for ComponentRecord {
    fn from(component: &Component) -> Self {
        match component {
            Component::File(path) => Self::File(path.as_path().into()),
            Component::Stored(digest) => Self::Stored(DigestRecord { stored: *digest }),
        }
    }
}

impl From<ComponentRecord> for Component {
    fn from(kept: ComponentRecord) -> Self {
        match kept {
            ComponentRecord::File(path) => Self::File(path.into()),
            ComponentRecord::Stored(DigestRecord { stored }) => Self::Stored(stored),
        }
    }
}

/// The stored form in versions 0 and 1.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AppliedRecordV1 {
    topology: Proposal,
    #[serde(default)]
    retired: BTreeSet<RetiredSubscriber>,
    #[serde(default)]
    forgetting: BTreeSet<RetiredSubscriber>,
    #[serde(default)]
    pub(super) renamed: NamesByNumber,
    #[serde(default)]
    pub(super) seen: Option<Digest>,
    /// The version of the record that stored it.
    #[serde(default)]
    version: u32,
}

/// The components of a plan's subscribers by full name.
pub(crate) fn by_name(plan: &Plan, components: &[Component]) -> BTreeMap<String, Component> {
    plan.subscribers.iter().map(SubscriberPlan::label).zip(components.iter().cloned()).collect()
}

impl Proposal {
    /// The form in a record of an early version: without later keys, in version 0 with a count for each `dedupe` that
    /// has none, later without that.
    pub(super) fn as_of(&self, version: u32) -> Self {
        let line = |line: &str| match (line.starts_with(DEDUPE), version) {
            (true, 0) if !line.contains(", count: ") => line.replace(" }", OLD_COUNT),
            (true, 1..) => line.replace(OLD_COUNT, " }"),
            _ => match line.rsplit_once(LOG).filter(|_| line.starts_with(LIMITS)) {
                Some((known, _)) => format!("{known} }}\n"),
                None => line.to_owned(),
            },
        };
        let former = |line: String| {
            let renamed = RENAMED.iter().find_map(|(now, former)| Some((line.strip_prefix(now)?, former)));
            renamed.map(|(value, former)| format!("{former}{value}")).unwrap_or(line)
        };
        let is_known = |line: &&str| !line.starts_with(TRIAL);
        self.with_documents(|text| text.split_inclusive('\n').filter(is_known).map(line).map(former).collect())
    }

    /// The proposal of an early record with the names that keys have now.
    fn with_keys_of_now(&self) -> Self {
        let renamed = |line: &str| {
            let found = RENAMED.iter().find_map(|(now, former)| Some((line.strip_prefix(former)?, now)));
            found.map_or_else(|| line.to_owned(), |(value, now)| format!("{now}{value}"))
        };
        self.with_documents(|text| text.split_inclusive('\n').map(renamed).collect())
    }

    fn with_documents(&self, edit: impl Fn(&str) -> String) -> Self {
        Self { documents: self.documents.iter().map(|text| edit(text)).collect(), ..self.clone() }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(serde_json::to_string(self).unwrap_or_default().as_bytes()) // its keys are strings
    }
}

impl RecordFormat for AppliedTopology {
    const FILE: &'static str = "topology";
    const MAGIC: &'static str = "wattle topology v2 ";
    const OLD_MAGIC: &'static str = "wattle topology v1 ";
    const VERSION: u32 = VERSION;

    fn damaged(why: String) -> StoreError {
        StoreError::DamagedTopology { why }
    }

    fn text(&self, values: &Values) -> Result<String, String> {
        let seal = |text: &str| values.seal(text.as_bytes());
        let kept = AppliedRecord {
            version: VERSION,
            reader: VERSION,
            plan: PlanRecord::of(&self.plan, &seal),
            components: self.components.iter().map(Into::into).collect(),
            retired: self.retired.clone(),
            forgetting: self.forgetting.clone(),
            renamed: self.renamed.clone(),
            seen: self.seen.clone(),
        };
        serde_json::to_string_pretty(&kept).map_err(|error| error.to_string())
    }

    fn parse(text: &str, values: &Values) -> Result<Self, RecordError> {
        let AppliedRecord { plan, components, retired, forgetting, renamed, seen, .. } = serde_json::from_str(text)?;
        let plan = plan.read(&|sealed| values.open(sealed).cloned()).map_err(|error| RecordError(error.to_string()))?;
        if components.len() != plan.subscribers.len() {
            return Err(RecordError("it has not one component for each subscriber".to_owned()));
        }
        Ok(Self {
            plan,
            components: components.into_iter().map(Into::into).collect(),
            retired,
            forgetting,
            renamed,
            seen,
        })
    }

    fn parse_old(text: &str) -> Result<Self, RecordError> {
        let AppliedRecordV1 { topology, retired, forgetting, renamed, seen, version } = serde_json::from_str(text)?;
        let topology = if version == 0 { topology.as_of(1) } else { topology };
        let (plan, components) = topology.with_keys_of_now().read().map_err(|error| RecordError(error.to_string()))?;
        let seen = seen.map(|digest| FilesFingerprint::Rendered { digest, version });
        Ok(Self { plan, components, retired, forgetting, renamed, seen })
    }

    fn is_sealed(&self) -> bool {
        matches!(self.seen, Some(FilesFingerprint::Files(_))) || !self.variables().is_empty()
    }

    fn variables(&self) -> BTreeSet<String> {
        let values = self.plan.subscribers.iter().flat_map(|subscriber| subscriber.config.values());
        let text = |value: &ConfigValue| match value {
            ConfigValue::Variable { text, .. } => Some(text.clone()),
            ConfigValue::Text(_) | ConfigValue::SecretFile(_) => None,
        };
        values.filter_map(text).collect()
    }
}

impl AppliedTopology {
    /// The components of its subscribers by full name.
    pub(crate) fn components_by_name(&self) -> BTreeMap<String, Component> {
        by_name(&self.plan, &self.components)
    }

    /// A digest of the applied topology: the same as long as the same is applied, over all starts. Values of variables
    /// cannot be guessed from it.
    pub(crate) fn revision(&self, values: &Values) -> String {
        let plan = PlanRecord::of(&self.plan, &|text| values.seal(text.as_bytes()));
        let components: Vec<ComponentRecord> = self.components.iter().map(Into::into).collect();
        let mut hasher = blake3::Hasher::new_derive_key("wattle topology revision 1");
        hasher.update(&serde_json::to_vec(&(plan, components)).unwrap_or_default()); // its keys are strings
        hasher.finalize().to_hex().chars().take(REVISION_DIGITS).collect()
    }

    /// The record after this one (if there is one) for another plan, including its renames.
    pub(crate) fn next(
        before: Option<&Self>,
        old: &Plan,
        (new, components): (&Plan, &[Component]),
        names: NameChanges,
    ) -> Self {
        let (mut retired, mut forgetting) = (known(before, old, new), forgotten(before, &Renames::of(old, new)));
        for subscriber in &new.subscribers {
            retired.remove(&RetiredSubscriber::of(new, subscriber));
            forgetting.remove(&RetiredSubscriber::of(new, subscriber)); // it has started again, empty
        }
        let renamed = NamesByNumber {
            topics: names.topics.into_iter().map(|(number, name)| (number.0, name)).collect(),
            subscribers: names.subscribers.into_iter().map(|(number, name)| (number.0, name)).collect(),
        };
        let seen = before.and_then(|before| before.seen.clone());
        Self { plan: new.clone(), components: components.to_vec(), retired, forgetting, renamed, seen }
    }

    /// The same record, marking all removed subscribers, and these topics, for deletion. Each start repeats that to the
    /// engine until another topology is applied; the entries of a subscriber's lanes are deleted with its topic.
    pub(crate) fn forgets(mut self, topics: &[RemovedTopic]) -> Self {
        let gone = |from: &str| {
            let topic = topics.iter().find(|topic| topic.name == from)?;
            let name = topic.names.iter().find(|(_, name)| name.split('#').next() == Some(from));
            name.map(|(_, name)| name.clone())
        };
        let all = std::mem::take(&mut self.retired).into_iter().chain(std::mem::take(&mut self.forgetting));
        let of_gone = |retired: RetiredSubscriber| RetiredSubscriber {
            from: gone(&retired.from).unwrap_or(retired.from),
            ..retired
        };
        self.forgetting = all.map(of_gone).collect();
        let names = topics.iter().flat_map(|topic| &topic.names);
        self.renamed.topics.extend(names.map(|(number, name)| (number.0, name.clone())));
        self
    }

    /// The same record after the deletion is complete.
    pub(crate) fn forgot(self) -> Self {
        Self { forgetting: BTreeSet::new(), ..self }
    }

    /// The same record after files with this hash were read.
    pub(super) fn saw(&self, sealed: String) -> Self {
        Self { seen: Some(FilesFingerprint::Files(sealed)), ..self.clone() }
    }

    /// Whether files are unchanged since the last start, given the possible hashes.
    pub(super) fn has_seen(&self, own: &Proposal, sealed: &[String]) -> bool {
        match &self.seen {
            None => false,
            Some(FilesFingerprint::Files(seen)) => sealed.contains(seen),
            Some(FilesFingerprint::Rendered { digest, version }) => own.as_of(*version).digest() == *digest,
        }
    }

    /// Whether a subscriber with this name exists or is remembered.
    pub(crate) fn remembers(&self, subscriber: &str) -> bool {
        self.plan.subscribers.iter().any(|of| of.label() == subscriber)
            || self.retired.iter().any(|gone| gone.name == subscriber)
    }
}

/// All existing and remembered subscribers, by their names in `new`.
fn known(applied: Option<&AppliedTopology>, old: &Plan, new: &Plan) -> BTreeSet<RetiredSubscriber> {
    let renames = Renames::of(old, new);
    let retired = applied.into_iter().flat_map(|applied| &applied.retired);
    let mut known: BTreeSet<_> = retired
        .map(|gone| RetiredSubscriber { from: renames.new_topic(&gone.from).to_owned(), ..gone.clone() })
        .collect();
    let old = renames.follow(old);
    known.extend(old.subscribers.iter().map(|subscriber| RetiredSubscriber::of(&old, subscriber)));
    known
}

/// Subscribers marked for deletion, by the new names of their topics.
fn forgotten(applied: Option<&AppliedTopology>, renames: &Renames) -> BTreeSet<RetiredSubscriber> {
    let forgetting = applied.into_iter().flat_map(|applied| &applied.forgetting);
    forgetting
        .map(|gone| RetiredSubscriber { from: renames.new_topic(&gone.from).to_owned(), ..gone.clone() })
        .collect()
}

/// Why subscribers cannot get their names in another plan.
pub(crate) fn taken(applied: Option<&AppliedTopology>, old: &Plan, new: &Plan) -> Vec<String> {
    let renames = Renames::of(old, new);
    let retired = applied.into_iter().flat_map(|applied| applied.retired.iter().chain(&applied.forgetting));
    let is_taken = |gone: &&RetiredSubscriber| {
        renames.subscribers().contains_key(&gone.name) || renames.topic(&gone.from).is_some()
    };
    let word = |RetiredSubscriber { name, from, .. }: &RetiredSubscriber| {
        let taken = if renames.topic(from).is_some() { from } else { name };
        format!(
            "`{taken}` cannot be a new name yet: the position and state of `{name}`, a removed subscriber of {from}, \
             are stored. Use another name, or delete them with `wattle gc` first"
        )
    };
    retired.filter(is_taken).map(word).collect()
}

impl From<RetiredSubscriber> for RemovedSubscriber {
    fn from(RetiredSubscriber { name, from, partitions }: RetiredSubscriber) -> Self {
        Self { name, from, partitions }
    }
}

impl RetiredSubscriber {
    pub(crate) fn of(plan: &Plan, subscriber: &SubscriberPlan) -> Self {
        let from = &plan[subscriber.from];
        Self { name: subscriber.label(), from: from.label(), partitions: from.partitions }
    }
}

/// Whether subscribers of a plan are new: neither in the other plan nor remembered.
pub(crate) fn news<'a>(
    old: &Plan,
    applied: Option<&AppliedTopology>,
    new: &'a Plan,
) -> impl Fn(&SubscriberPlan) -> bool + Send + Sync + use<'a> {
    let known = known(applied, old, new);
    move |subscriber| !known.contains(&RetiredSubscriber::of(new, subscriber))
}
