//! The topology: from the text of YAML files to a checked forest of topics and subscribers.
//!
//! ```text
//! text ──yaml──▶ nodes ──reader, raw──▶ what the files say ──settings, resolve──▶ graph ──▶ Plan
//!                                  every step adds to one list of diagnostics
//! ```
//!
//! Promises: [`check`] says everything that is wrong with all files at once, each with its place and what to do; there
//! is a [`Plan`] exactly when there is no error; hostile files cost bounded time and memory ([`bounds`]).
//!
//! Relies on its caller for the world outside ([`Surroundings`]): here are no files, no environment and no clock.
//!
//! Must not know: how plugins run, how events are kept, who asked.

mod base;
pub mod bounds;
pub mod budget;
pub mod cases;
mod config;
mod config_schema;
mod data_schema;
pub mod diagnostic;
pub mod draw;
mod expression;
mod faults;
mod graph;
pub mod kept;
pub(crate) mod names;
mod namespace;
pub(crate) mod one_or_more;
pub mod plan;
mod ports;
mod raw;
pub(crate) mod reader;
pub mod render;
mod resolve;
mod said;
mod schema;
pub(crate) mod schema_parts;
mod setting;
mod settings;
mod show;
pub(crate) mod values;
mod variables;
pub(crate) mod yaml;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use base::{MergedPlan, check_on, namespaces};
pub use config_schema::{ConfigMisfit, ConfigSchema, ConfigTexts};
pub use data_schema::{DataSchema, Misfit};
pub use diagnostic::{Code, Diagnostic, Label, Severity, Span};
pub use expression::{CompileError, Condition, EventFields, ExpressionError, ExtensionAttributes, KeyExpression};
pub use plan::{
    BacklogPlan, BatchPlan, ConfigValue, Delivery, HoldPlan, LifecyclePlan, Limits, OnFailure, OutOfOrder, Per, Plan,
    PluginSource, Rate, Retry, RetryQueue, StartAt, StatePlan, SubscriberIndex, SubscriberKind, SubscriberPlan,
    TopicIndex, TopicPlan, TrialPlan, WhenFull,
};
pub use said::{FilesDigest, check_said, check_said_on};
pub use schema::schema;
pub use show::{documents, show};

use diagnostic::{Code as C, Problems};
use reader::{FromNode, Owner, ReadContext, Reader};
use resolve::{File, MissedDeclarations};

use crate::api::Base;

/// The text of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What diagnostics call the file, and what relative paths in it start from.
    pub path: PathBuf,
    pub text: String,
}

/// What a check asks about the world outside.
pub trait Surroundings {
    /// The value of an environment variable.
    fn variable(&self, name: &str) -> Option<String>;

    /// The kind of a path that a topology names. Relative paths have been joined to the folder of their file already.
    fn at(&self, path: &Path) -> PathKind;

    /// The text of a file that a topology names, if it has at most `bytes_max` bytes; else the reason, in words.
    ///
    /// # Errors
    /// A reason for the author of the topology.
    fn text(&self, _path: &Path, _bytes_max: usize) -> Result<String, String> {
        Err("there is nothing to read it with".to_owned())
    }

    /// The JSON Schema that a plugin declares for its configuration, as text; none where it declares none, or is not
    /// there. Else the problem of the declaration, in words.
    ///
    /// # Errors
    /// A reason for the author of the topology.
    fn config_schema(&self, _plugin: &PluginSource) -> Result<Option<String>, String> {
        Ok(None)
    }

    /// The ports that a plugin says it has where it is told this, in its order; empty where it leaves them to the
    /// topology. None where they are not known here.
    fn ports(&self, _plugin: &PluginSource, _told: &BTreeMap<String, ConfigValue>) -> Option<Vec<String>> {
        None
    }

    /// Whether a valid but probably mistaken part is a problem. It is none in texts that were checked before: an
    /// expression that was taken once is taken for good.
    fn lints(&self) -> bool {
        true
    }
}

/// The kind of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathKind {
    Nothing,
    /// It cannot be told: who runs this may not look there.
    Unreadable,
    File,
    Folder {
        /// Whether it is the source of a plugin.
        manifest: bool,
    },
}

/// Checks files together. The diagnostics are in the order of the files and the places in them; there is a plan exactly
/// when none of them is an error.
pub fn check(sources: &[Source], surroundings: &dyn Surroundings) -> (Option<Plan>, Vec<Diagnostic>) {
    let (merged, diagnostics) = check_on(sources, surroundings, &Base::default(), false);
    (merged.map(|merged| merged.plan), diagnostics)
}

/// Reads one file by itself.
fn read(index: u32, source: &Source, surroundings: &dyn Surroundings, shared: &mut ReadContext) -> (File, Problems) {
    let (tree, diagnostics) = yaml::parse(index, &source.text);
    let mut problems = Problems::default();
    problems.extend(diagnostics);
    let Some(tree) = tree else {
        return (File { source: index, topology: None, missed: MissedDeclarations::Some }, problems);
    };
    let mut reader = Reader::new(&source.path, surroundings, shared);
    let top = Span { source: index, start: 0, end: 0 };
    let topology = match tree.root() {
        Some(root) => {
            let owner = Owner { key: "", span: root.span() };
            let topology = raw::Topology::read(root, owner, &mut reader);
            if let Some(topology) = &topology {
                config::check(topology, &mut reader);
                ports::check(topology, &mut reader);
            }
            topology
        }
        None => {
            let empty = Diagnostic::error(C::MissingKey, top, "nothing here", "this file is empty");
            reader.report(empty.help("a topology begins with `wattle: v1` and `name: NAME`"));
            None
        }
    };
    problems.append(reader.problems);
    // A mistake with a key of the top may hide all that is below it; a second document is not read.
    let top_keys = tree.root().map_or_else(Vec::new, |root| root.key_spans());
    let hides = |diagnostic: &Diagnostic| match diagnostic.code {
        C::UnknownKey | C::DuplicateName => top_keys.contains(&diagnostic.span()),
        code => code == C::Syntax,
    };
    let unread = |topology: &raw::Topology| topology.topics.as_ref().is_some_and(|field| field.value.is_none());
    let nameless = |topology: &raw::Topology| topology.name.as_ref().is_none_or(|field| field.value.is_none());
    let missed = match &topology {
        None => MissedDeclarations::All,
        Some(topology) if unread(topology) => MissedDeclarations::All,
        Some(topology) if nameless(topology) || problems.iter().any(hides) => MissedDeclarations::Some,
        Some(_) => MissedDeclarations::Nothing,
    };
    (File { source: index, topology, missed }, problems)
}
