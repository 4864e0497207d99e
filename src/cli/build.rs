//! `wattle build`: builds plugins, and shows their components and versions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Exit, Failure, Outcome, args, components, say_error};
use crate::deploy;
use crate::model::units::show_rough_size;
use crate::toolchain::{BuildError, BuiltPlugin, build_folder, is_plugin_folder};
use crate::topology::{ConfigSchema, Plan, PluginSource, SubscriberKind, SubscriberPlan};
use crate::wasm::{Host, RegisterError, config_schema};

/// Build plugins
///
/// Prints the digest of each component, and of each version that it makes with a subscriber: a version is a component
/// with the configuration, limits and ports of a subscriber. `wattle plugin versions` shows both as well.
#[derive(Debug, clap::Args)]
pub(super) struct BuildArgs {
    /// Plugin directories, topology files, or directories of those
    #[arg(value_name = "FOLDER|TOPOLOGY", default_value = ".")]
    what: Vec<PathBuf>,
}

/// Runs the command. `plan_of` gives the plan of a topology, or its problems.
pub(super) fn run(args: &BuildArgs, plan_of: impl Fn(&Path) -> Result<Plan, String>) -> Outcome {
    let (mut folders, mut subscribers) = (Vec::new(), Vec::new());
    for what in &args.what {
        if what.try_exists().is_ok_and(|exists| !exists) {
            return Err(Failure::new(Exit::Usage, BuildError::NoFolder { folder: what.clone() }));
        }
        if is_plugin_folder(what) || !matches!(what.try_exists(), Ok(true)) {
            folders.push(what.clone());
            continue;
        }
        match plan_of(what) {
            Ok(plan) => {
                folders.extend(components::folders(&plan));
                subscribers.extend(plan.subscribers);
            }
            Err(message) => {
                anstream::eprintln!("{message}"); // as `check` prints it
                return Err(Failure::silent(Exit::Failed));
            }
        }
    }
    folders.sort();
    folders.dedup();
    let host = Host::new(args::authors_host()).map_err(Failure::failed)?;
    let mut outcome = Ok(());
    for folder in &folders {
        let runs_it = |subscriber: &&SubscriberPlan| match &subscriber.runs {
            SubscriberKind::Plugin(PluginSource::Folder(of)) => of == folder,
            _ => false,
        };
        let of_folder: Vec<_> = subscribers.iter().filter(runs_it).collect();
        if let Err(message) = build_and_show(&host, folder, &of_folder) {
            say_error(&message);
            outcome = Err(Failure::silent(Exit::Failed));
        }
    }
    outcome
}

fn build_and_show(host: &Host, folder: &Path, subscribers: &[&SubscriberPlan]) -> Result<(), String> {
    // The compiler's own lines are enough of an error, so that they are not said twice.
    let built = build_folder(folder, &mut |line| anstream::eprintln!("{line}")).map_err(|error| match error {
        BuildError::Compile { folder, .. } => format!("{} does not build", folder.display()),
        error => error.to_string(),
    })?;
    let (ports, config) = looked_at(host, &built)?;
    let ports = if ports.is_empty() { "any".to_owned() } else { ports.join(", ") };
    let config = config.filter(|names| !names.is_empty()).map(|names| format!(", config: {}", names.join(", ")));
    anstream::println!("{}", built.wasm.display());
    anstream::println!(
        "    {}, component {}, ports: {ports}{}",
        show_rough_size(built.size_bytes),
        built.digest.short(),
        config.unwrap_or_default()
    );
    for subscriber in subscribers {
        let version = deploy::version(subscriber, &built.digest);
        anstream::println!("    version {} of {}", version.short(), subscriber.label());
    }
    Ok(())
}

/// The ports of a component and the settings that it declares. Starts it once, which also shows that the bus will take
/// it.
fn looked_at(host: &Host, built: &BuiltPlugin) -> Result<(Vec<String>, Option<Vec<String>>), String> {
    let wasm = std::fs::read(&built.wasm).map_err(|error| format!("{}: {error}", built.wasm.display()))?;
    let refused = |error: RegisterError| format!("{} was built, but is no plugin: {error}", built.wasm.display());
    let ports = host.inspect(&wasm, BTreeMap::new()).map_err(refused)?.ports;
    let schema = config_schema(&wasm).and_then(|schema| schema.map(ConfigSchema::compile).transpose());
    let schema =
        schema.map_err(|why| format!("{} was built, but its `wattle:config-schema` {why}", built.wasm.display()))?;
    Ok((ports, schema.map(|schema| schema.names().to_vec())))
}
