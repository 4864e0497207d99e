//! `wattle new`: creates a plugin project.

use std::path::PathBuf;

use clap::builder::PossibleValue;

use super::{Exit, Failure, Outcome};
use crate::toolchain::{CreatedPlugin, Language, NewError, NewPlugin, Workspace, create};

/// Create a plugin project
///
/// Writes a handler, its test, a topology and the SDK of the language: `wattle build` needs nothing but the language's
/// own tools. Rust plugins in one directory are a Cargo workspace and share build results: the new plugin joins the
/// workspace of the directory, or starts one if the directory has no other package.
#[derive(Debug, clap::Args)]
pub(super) struct NewArgs {
    /// Name of the plugin: lower-case letters, digits and `-`
    name: String,
    /// Language of the plugin
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// Directory of the project
    #[arg(long = "in", value_name = "FOLDER", default_value = ".")]
    parent: PathBuf,
}

impl clap::ValueEnum for Language {
    fn value_variants<'a>() -> &'a [Self] {
        &Self::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.id()))
    }
}

fn exit(error: &NewError) -> Exit {
    match error {
        NewError::Name { .. } => Exit::Usage,
        NewError::Exists { .. } | NewError::Write { .. } => Exit::Failed,
    }
}

/// Runs the command.
pub(super) fn run(args: &NewArgs) -> Outcome {
    let NewArgs { name, lang, parent } = args;
    let plugin = NewPlugin { name: name.clone(), language: *lang, parent: parent.clone() };
    let CreatedPlugin { folder, handler, workspace } =
        create(&plugin).map_err(|error| Failure::new(exit(&error), error))?;
    let (shown, around) = (folder.display(), parent.display());
    anstream::eprintln!("created {shown}: the handler is in {}", handler.display());
    match workspace {
        Some(Workspace::Joined) => anstream::eprintln!("it is a member of the workspace in {around}"),
        Some(Workspace::Begun) => {
            anstream::eprintln!("{around} is a Cargo workspace now: further plugins there share what is built")
        }
        Some(Workspace::Own(why)) => anstream::eprintln!("it is a workspace of its own, since {why}"),
        None => {}
    }
    anstream::eprintln!("next: wattle build {shown}");
    Ok(())
}
