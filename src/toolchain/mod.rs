//! Plugin projects on this machine: created, recognised by their manifests, and built by the tools of their language.
//!
//! Promises: a folder is built by its language's own tools, and an earlier result is found without running a build;
//! nothing that exists is overwritten. Another language is a variant of [`Language`], a module next to `rust`, and a
//! scaffold.
//!
//! Relies on tools that the user has installed, which run with the user's environment.
//!
//! Must not know: topologies, buses, terminals and arguments.

mod build;
mod built;
mod error;
mod language;
mod new;
mod plugin;
mod rust;
mod scaffold;

pub use build::{build_folder, built, is_plugin_folder};
pub(crate) use built::lately;
pub use error::BuildError;
pub use language::Language;
pub use new::{CreatedPlugin, NewError, NewPlugin, Workspace, create};
pub use plugin::BuiltPlugin;
