//! Makes a version of a plugin from a subscriber's declaration and a component.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;

use crate::api::{Component, Digest};
use crate::deploy::error::PluginError;
use crate::deploy::record::store::Store;
use crate::deploy::secrets::SecretFolders;
use crate::limits::COMPONENT_BYTES_MAX;
use crate::model::call::Limits;
use crate::topology::{ConfigSchema, ConfigValue, Plan, SubscriberPlan};
use crate::wasm::{HiddenReason, Host, Plugin, PluginSpec, config_schema};

/// Largest secret in bytes: certificates and keys fit, and a wrong path is detected.
const SECRET_BYTES_MAX: u64 = 64 << 10;

/// The specification of a version: the subscriber's settings and a component whose declared schema they match. Reads
/// the secrets.
pub(crate) fn spec(subscriber: &SubscriberPlan, wasm: Vec<u8>) -> Result<PluginSpec, Vec<PluginError>> {
    held(PluginSpec { wasm, ..settings_spec(subscriber)? })
}

/// As [`spec`], without a component.
pub(crate) fn settings_spec(subscriber: &SubscriberPlan) -> Result<PluginSpec, Vec<PluginError>> {
    let name = subscriber.label();
    let (config, hidden) = (config(&name, &subscriber.config)?, hidden(&subscriber.config));
    let (ports, limits) = (ports(subscriber), limits(subscriber));
    Ok(PluginSpec { subscriber: name, wasm: Vec::new(), config, hidden, ports, limits })
}

/// Marks errors as found with a deployed component.
pub(crate) fn of_deployed(mut errors: Vec<PluginError>, component: &Digest) -> Vec<PluginError> {
    for error in &mut errors {
        if let PluginError::Config { deployed, .. } = error {
            *deployed = Some(component.short().to_string());
        }
    }
    errors
}

/// Checks a configuration against the schema of its component, except for secrets, which may change without a new
/// version.
///
/// # Errors
/// [`PluginError::Config`].
pub(crate) fn held(spec: PluginSpec) -> Result<PluginSpec, Vec<PluginError>> {
    let declared = config_schema(&spec.wasm).and_then(|schema| schema.map(ConfigSchema::compile).transpose());
    let is_secret = |name: &String| spec.hidden.get(name) == Some(&HiddenReason::Secret);
    let text = |(name, value): (&String, &String)| (name.clone(), Some(value.clone()).filter(|_| !is_secret(name)));
    let misfits = match declared {
        Ok(None) => Vec::new(),
        Ok(Some(schema)) => {
            schema.check(&spec.config.iter().map(text).collect()).iter().map(ToString::to_string).collect()
        }
        Err(why) => vec![format!("the section `wattle:config-schema` of the component cannot be used: it {why}")],
    };
    match misfits.is_empty() {
        true => Ok(spec),
        false => Err(vec![PluginError::Config { subscriber: spec.subscriber, deployed: None, misfits }]),
    }
}

fn limits(subscriber: &SubscriberPlan) -> Limits {
    Limits {
        memory_bytes: subscriber.limits.memory_bytes,
        time: subscriber.limits.time,
        output_bytes: subscriber.limits.output_bytes,
        log_lines_per_second: subscriber.limits.log_lines_per_second,
        ..Limits::default()
    }
}

/// The digest of the settings that make up a version together with its component. Does not read secrets, and does not
/// depend on them.
pub(crate) fn settings(subscriber: &SubscriberPlan) -> Digest {
    Digest::of_settings(told(subscriber), &limits(subscriber), &ports(subscriber))
}

/// The version of a component with the subscriber's settings. Does not read secrets.
pub fn version(subscriber: &SubscriberPlan, component: &Digest) -> Digest {
    Digest::of_version(component, told(subscriber), &limits(subscriber), &ports(subscriber))
}

/// The part of the configuration that makes up a version.
fn told(subscriber: &SubscriberPlan) -> impl Iterator<Item = (&str, Option<&str>)> + Clone {
    subscriber.config.iter().map(|(name, value)| match value {
        ConfigValue::Text(text) | ConfigValue::Variable { text, .. } => (name.as_str(), Some(text.as_str())),
        ConfigValue::SecretFile(_) => (name.as_str(), None),
    })
}

/// The values of a configuration that must not be shown.
pub(crate) fn hidden(values: &BTreeMap<String, ConfigValue>) -> BTreeMap<String, HiddenReason> {
    let hidden = |(name, value): (&String, &ConfigValue)| match value {
        ConfigValue::Text(_) => None,
        ConfigValue::Variable { .. } => Some((name.clone(), HiddenReason::Variable)),
        ConfigValue::SecretFile(_) => Some((name.clone(), HiddenReason::Secret)),
    };
    values.iter().filter_map(hidden).collect()
}

/// The ports that the topology connects.
pub(crate) fn ports(subscriber: &SubscriberPlan) -> Vec<String> {
    subscriber.ports.iter().map(|(port, _)| port.clone()).collect()
}

/// As [`spec`], with the component from its file. Reports all errors at once.
fn spec_of_file(subscriber: &SubscriberPlan, path: &Path) -> Result<PluginSpec, Vec<PluginError>> {
    spec_of(subscriber, read(&subscriber.label(), path))
}

/// As [`spec`], with a component that was read. Reports all errors at once.
pub(crate) fn spec_of(
    subscriber: &SubscriberPlan,
    wasm: Result<Vec<u8>, PluginError>,
) -> Result<PluginSpec, Vec<PluginError>> {
    match (settings_spec(subscriber), wasm) {
        (Ok(spec), Ok(wasm)) => held(PluginSpec { wasm, ..spec }),
        (spec, wasm) => {
            let mut errors = spec.err().unwrap_or_default();
            errors.extend(wasm.err());
            Err(errors)
        }
    }
}

/// Registers the plugins of all subscribers of a plan from their files, in order; several are compiled at the same
/// time.
///
/// # Errors
/// The errors of all plugins.
pub fn register(host: &Host, plan: &Plan, components: &[PathBuf]) -> Result<Vec<Plugin>, Vec<PluginError>> {
    let register = |index: usize, subscriber: &SubscriberPlan| {
        let name = subscriber.label();
        let path = components.get(index).ok_or_else(|| vec![PluginError::Missing { subscriber: name.clone() }])?;
        let spec = spec_of_file(subscriber, path)?;
        let refused = |error| vec![PluginError::Refused { subscriber: name, component: path.clone().into(), error }];
        host.register(spec).map_err(refused)
    };
    let (mut plugins, mut errors) = (Vec::new(), Vec::new());
    for result in each(plan, register) {
        match result {
            Ok(plugin) => plugins.push(plugin),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() { Ok(plugins) } else { Err(errors) }
}

/// The errors that [`register`] would report for the known components of a plan's subscribers. Skips subscribers whose
/// secrets cannot be read here.
pub fn misfits(host: &Host, plan: &Plan, components: &[Option<PathBuf>]) -> Vec<PluginError> {
    let look = |index: usize, subscriber: &SubscriberPlan| {
        let Some(path) = components.get(index).and_then(Option::as_ref) else { return Vec::new() };
        let spec = match spec_of_file(subscriber, path) {
            Ok(spec) => spec,
            Err(errors) => {
                let is_secret = |error: &PluginError| matches!(error, PluginError::Secret { .. });
                return errors.into_iter().filter(|error| !is_secret(error)).collect();
            }
        };
        let component = path.clone().into();
        let refused = |error| PluginError::Refused { subscriber: subscriber.label(), component, error };
        host.register(spec).err().map(refused).into_iter().collect()
    };
    each(plan, look).into_iter().flatten().collect()
}

/// The ports that a component declares with this configuration; none if it cannot be asked.
pub fn described_ports(
    host: &Host,
    component: &Path,
    told: &BTreeMap<String, ConfigValue>,
    secrets: &SecretFolders,
) -> Option<Vec<String>> {
    let mut told = told.clone();
    for value in told.values_mut() {
        if let ConfigValue::SecretFile(path) = value {
            *path = secrets.first(path)?;
        }
    }
    let (wasm, config) = (read("", component).ok()?, config("", &told).ok()?);
    Some(host.inspect(&wasm, config).ok()?.ports)
}

/// Runs `work` for each subscriber of a plan, several at the same time. Returns the results in order.
pub(crate) fn each<T: Send>(plan: &Plan, work: impl Fn(usize, &SubscriberPlan) -> T + Sync) -> Vec<T> {
    let subscribers = &plan.subscribers;
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(subscriber) = subscribers.get(index) else { return };
            let result = work(index, subscriber);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((index, result));
        }
    };
    // The compiler itself uses all cores for one component; a second thread fills the gaps.
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(subscribers.len());
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// The component that a topology names.
pub(crate) fn read_component(store: &Store, subscriber: &str, component: &Component) -> Result<Vec<u8>, PluginError> {
    match component {
        Component::File(path) => read(subscriber, path),
        Component::Stored(digest) => {
            store.component(*digest).map_err(|error| PluginError::Stored { subscriber: subscriber.to_owned(), error })
        }
    }
}

/// The component in the file of a subscriber's plugin.
///
/// # Errors
/// [`PluginError::Unreadable`], [`PluginError::TooLarge`].
pub fn read(subscriber: &str, path: &Path) -> Result<Vec<u8>, PluginError> {
    let (subscriber, path) = (subscriber.to_owned(), path.to_owned());
    match read_file(&path, COMPONENT_BYTES_MAX) {
        Ok(wasm) => Ok(wasm),
        Err(FileReadError::TooLarge(bytes)) => Err(PluginError::TooLarge { subscriber, path, bytes }),
        Err(FileReadError::Failed(error)) => Err(PluginError::Unreadable { subscriber, path, error }),
    }
}

/// Why a file was not read.
enum FileReadError {
    /// Its size exceeds the maximum.
    TooLarge(u64),
    Failed(io::Error),
}

/// Reads a regular file, whose path clients may choose, with the permissions of the bus. Other kinds of files could be
/// endless or block.
fn read_file(path: &Path, bytes_max: u64) -> Result<Vec<u8>, FileReadError> {
    let mut options = File::options();
    // returns at once for a pipe without a writer
    options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    let file = options.open(path).map_err(FileReadError::Failed)?;
    let about = file.metadata().map_err(FileReadError::Failed)?;
    if !about.is_file() {
        return Err(FileReadError::Failed(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")));
    }
    let (mut bytes, length) = (Vec::new(), about.len());
    if length > bytes_max {
        return Err(FileReadError::TooLarge(length));
    }
    // The file may grow meanwhile.
    let count = file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(FileReadError::Failed)? as u64;
    if count > bytes_max { Err(FileReadError::TooLarge(count)) } else { Ok(bytes) }
}

/// The configuration that the plugin can read, with secrets from their files.
pub(crate) fn config(
    subscriber: &str,
    values: &BTreeMap<String, ConfigValue>,
) -> Result<BTreeMap<String, String>, Vec<PluginError>> {
    let (mut config, mut errors) = (BTreeMap::new(), Vec::new());
    for (name, value) in values {
        match value {
            ConfigValue::Text(text) | ConfigValue::Variable { text, .. } => {
                config.insert(name.clone(), text.clone());
            }
            ConfigValue::SecretFile(path) => match secret(path) {
                Ok(secret) => {
                    config.insert(name.clone(), secret);
                }
                Err(why) => errors.push(PluginError::Secret {
                    subscriber: subscriber.to_owned(),
                    name: name.clone(),
                    path: path.clone(),
                    why,
                }),
            },
        }
    }
    if errors.is_empty() { Ok(config) } else { Err(errors) }
}

/// The content of a file without the line break that editors add at the end.
fn secret(path: &Path) -> Result<String, String> {
    let bytes = read_file(path, SECRET_BYTES_MAX).map_err(|why| match why {
        FileReadError::TooLarge(bytes) => format!("{bytes} bytes are more than a secret may have ({SECRET_BYTES_MAX})"),
        FileReadError::Failed(error) => error.to_string(),
    })?;
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_its_file_without_the_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for (text, expected) in [("abc\n", "abc"), ("abc\r\n", "abc"), ("abc", "abc"), ("a\nb\n\n", "a\nb\n")] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(secret(&path).unwrap(), expected);
        }
        std::fs::write(&path, vec![b'x'; 65 << 10]).unwrap();
        assert!(secret(&path).unwrap_err().contains("more than a secret may have"));
        assert!(secret(&folder.path().join("nothing")).is_err());
        std::fs::write(&path, [b'a', 0xff]).unwrap();
        assert_eq!(secret(&path).unwrap_err(), "it is not UTF-8");
    }

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for path in [pipe.as_path(), folder.path(), Path::new("/dev/zero")] {
            assert_eq!(secret(path).unwrap_err(), "it is no regular file", "{path:?}");
            let error = read("t/work", path).unwrap_err().to_string();
            assert!(error.ends_with("it is no regular file"), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_no_component_is_refused_without_a_word_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("id");
        std::fs::write(&path, "hunter2 and more").unwrap();
        let host = Host::new(crate::wasm::HostOptions { cache_folder: None, ..Default::default() }).unwrap();
        let wasm = read("t/work", &path).unwrap();
        let spec = PluginSpec {
            subscriber: "t/work".to_owned(),
            wasm,
            config: BTreeMap::new(),
            hidden: BTreeMap::new(),
            ports: Vec::new(),
            limits: Limits::default(),
        };
        let error = host.register(spec).unwrap_err().to_string();
        assert!(error.contains("not a WebAssembly file") && !error.contains("hunter"), "{error}");
    }
}
