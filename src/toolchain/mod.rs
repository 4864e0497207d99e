//! Plugin projects on this machine: created, recognised by their manifests, and built by the tools of their language.
//!
//! Promises: a folder is built by its language's own tools, and an earlier result is found without running a build; if
//! nothing has changed, no tool runs, except for cargo; nothing that exists is overwritten; if a tool is missing, the
//! error says how to install it. Another language is a variant of [`Language`], a module next to `rust`, and a folder
//! in `sdk/`, which `build.rs` and `scaffold` name.
//!
//! Relies on tools that the user has installed, which run with the user's environment. All else is in this program.
//!
//! Must not know: topologies, buses, terminals and arguments.

mod build;
mod built;
mod c;
mod component;
mod error;
mod go;
mod language;
mod manifest;
mod new;
mod node;
mod plugin;
mod python;
mod requirement;
mod results;
mod rust;
mod scaffold;
mod tool;
mod zig;

pub(crate) use build::lately;
pub use build::{build_folder, built, is_plugin_folder};
pub use error::BuildError;
pub use language::{Language, MANIFESTS};
pub use new::{CreatedPlugin, NewError, NewPlugin, Workspace, create};
pub use plugin::BuiltPlugin;
pub use requirement::Requirement;
