//! A topology on its way to a bus: complete without its files.
//!
//! Must not know: what is kept, who decides.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::TopologyError;
use crate::topology::{
    ConfigValue, Found, Plan, PluginSource, Runs, Source, SubscriberPlan, Surroundings, check, documents,
};

/// A topology with all that is needed to read it again, wherever and whenever: nothing of it is in other files but plugins
/// and secrets. As it is serialized it was kept in records of version 1, and is read there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// A YAML text for each namespace, with every default written out.
    pub documents: Vec<String>,
    /// The texts of the schemas that they name, by path.
    #[serde(default)]
    pub schemas: BTreeMap<PathBuf, String>,
    /// The source folders of plugins.
    #[serde(default)]
    pub folders: BTreeSet<PathBuf>,
    /// The component of each subscriber, by its full name.
    #[serde(default)]
    pub components: BTreeMap<String, PathBuf>,
    /// How settings are written into which variables were put, by subscriber and setting: their values are in the documents, and
    /// are shown to nobody. Not in records of version 1.
    #[serde(skip)]
    pub written: BTreeMap<(String, String), String>,
}

impl Proposal {
    /// A plan whose paths are absolute, with the component of each subscriber, in its order.
    pub fn of(plan: &Plan, components: &[PathBuf]) -> Self {
        let schemas = plan.topics.iter().filter_map(|topic| topic.schema.as_ref());
        let folder = |subscriber: &SubscriberPlan| match &subscriber.runs {
            Runs::Plugin(PluginSource::Folder(path)) => Some(path.clone()),
            _ => None,
        };
        let mut written = BTreeMap::new();
        for subscriber in &plan.subscribers {
            for (setting, value) in &subscriber.config {
                if let ConfigValue::Variable { written: as_written, .. } = value {
                    written.insert((subscriber.label(), setting.clone()), as_written.clone());
                }
            }
        }
        Self {
            written,
            documents: documents(plan),
            schemas: schemas.map(|schema| (schema.path().to_owned(), schema.text().to_owned())).collect(),
            folders: plan.subscribers.iter().filter_map(folder).collect(),
            components: plan.subscribers.iter().map(SubscriberPlan::label).zip(components.iter().cloned()).collect(),
        }
    }

    /// The plan, with the component of each subscriber, in its order.
    ///
    /// # Errors
    /// [`TopologyError::Unreadable`].
    pub fn read(&self) -> Result<(Plan, Vec<PathBuf>), TopologyError> {
        let source = |(number, text): (usize, &String)| Source {
            path: format!("applied-{number}.yaml").into(),
            text: text.clone(),
        };
        let sources: Vec<_> = self.documents.iter().enumerate().map(source).collect();
        let (plan, problems) = check(&sources, &Alone(self));
        let Some(plan) = plan else {
            let words: Vec<_> =
                problems.iter().filter(|problem| problem.is_error()).map(|it| it.message.clone()).collect();
            return Err(TopologyError::Unreadable(words.join("; ")));
        };
        let mut plan = plan;
        for subscriber in &mut plan.subscribers {
            let name = subscriber.label();
            for (setting, value) in &mut subscriber.config {
                if let (ConfigValue::Text(text), Some(written)) =
                    (&*value, self.written.get(&(name.clone(), setting.clone())))
                {
                    *value = ConfigValue::Variable { text: text.clone(), written: written.clone() };
                }
            }
        }
        let component = |subscriber: &SubscriberPlan| {
            let name = subscriber.label();
            let missing = || TopologyError::Unreadable(format!("it names no component for `{name}`"));
            self.components.get(&name).cloned().ok_or_else(missing)
        };
        let components = plan.subscribers.iter().map(component).collect::<Result<_, _>>()?;
        Ok((plan, components))
    }
}

/// What a proposal says of the world: nothing is looked up.
struct Alone<'a>(&'a Proposal);

impl Surroundings for Alone<'_> {
    fn variable(&self, _: &str) -> Option<String> {
        None
    }

    fn at(&self, path: &Path) -> Found {
        if self.0.folders.contains(path) { Found::Folder { manifest: true } } else { Found::File }
    }

    fn text(&self, path: &Path, _: usize) -> Result<String, String> {
        self.0.schemas.get(path).cloned().ok_or_else(|| "is not in the record".to_owned())
    }

    fn lints(&self) -> bool {
        false
    }
}

/// A plan with absolute paths: what is relative starts from a folder.
#[must_use]
pub fn rooted(mut plan: Plan, at: &Path) -> Plan {
    for topic in &mut plan.topics {
        topic.schema = topic.schema.take().map(|schema| schema.rooted(at));
    }
    for subscriber in &mut plan.subscribers {
        if let Runs::Plugin(PluginSource::Folder(path) | PluginSource::Wasm(path)) = &mut subscriber.runs {
            *path = at.join(&*path);
        }
        for value in subscriber.config.values_mut() {
            if let ConfigValue::SecretFile(path) = value {
                *path = at.join(&*path);
            }
        }
    }
    plan
}
