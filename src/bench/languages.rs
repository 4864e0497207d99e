//! Measures what the language of a handler costs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::handlers::{CarriedEvent, call_all};
use super::{BenchError, Comparison, fresh};
use crate::model::call::Limits;
use crate::wasm::{Host, HostOptions, Plugin, PluginSpec};

/// The port of the handler that `wattle new` writes.
const PORT: &str = "greeted";

/// The component of the handler that `wattle new` writes, in a language.
#[derive(Debug, Clone)]
pub struct LanguageComponent {
    /// The name of its language, for messages.
    pub name: &'static str,
    pub wasm: PathBuf,
}

/// The figures of a language.
#[derive(Debug, Clone)]
pub struct LanguageFigures {
    /// Size of the component, in bytes.
    pub size_bytes: u64,
    /// From the component to an instance that is ready, where nothing was compiled before.
    pub compile: Duration,
    /// The same with the code of an earlier start.
    pub cached_start: Duration,
    /// Maximum memory of the instance over all events, in bytes.
    pub memory_bytes: u64,
    /// Processor time per event; the yardstick is the first language.
    pub calls: Comparison,
}

struct StartedComponent {
    plugin: Plugin,
    size_bytes: u64,
    compile: Duration,
    cached_start: Duration,
    us_per_event: Vec<f64>,
}

/// The figures of each component, in the order given, with `events` events in full batches per round.
///
/// # Errors
/// [`BenchError`]; a handler that fails, or that does not answer each event, cannot be measured.
pub fn languages(
    components: &[LanguageComponent],
    folder: &Path,
    events: usize,
    rounds: usize,
) -> Result<Vec<LanguageFigures>, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let input: Vec<CarriedEvent> = (0..events).map(visit).collect();
    let mut started = components
        .iter()
        .map(|component| start(component, &fresh(folder, "code")?))
        .collect::<Result<Vec<_>, BenchError>>()?;
    for _ in 0..rounds {
        for (running, component) in started.iter_mut().zip(components) {
            let (outputs, took) = runtime.block_on(call_all(&running.plugin, &input))?;
            if outputs.len() != events {
                let (name, answers) = (component.name, outputs.len());
                return Err(BenchError::Unfit(format!("{name} gave {answers} answers to {events} events")));
            }
            running.us_per_event.push(took.as_secs_f64() * 1e6 / events as f64);
        }
    }
    let yardstick = started.first().map(|first| first.us_per_event.clone()).unwrap_or_default();
    let yardstick_is = components.first().map_or("", |first| first.name);
    let figures = started.into_iter().map(|running| LanguageFigures {
        size_bytes: running.size_bytes,
        compile: running.compile,
        cached_start: running.cached_start,
        memory_bytes: running.plugin.memory_peak_bytes(),
        calls: Comparison {
            unit: "us of processor per event",
            yardstick_is,
            ours: running.us_per_event,
            yardstick: yardstick.clone(),
        },
    });
    Ok(figures.collect())
}

/// An event that the handler answers with a greeting.
fn visit(number: usize) -> CarriedEvent {
    let data = format!(r#"{{"name":"Ada {number:06}"}}"#).into_bytes();
    CarriedEvent { key: format!("k{}", number % 100), r#type: "visit".to_owned(), data }
}

/// Starts a component with an empty cache of code, and again with the code of that start.
fn start(component: &LanguageComponent, code: &Path) -> Result<StartedComponent, BenchError> {
    let wasm = std::fs::read(&component.wasm)?;
    let size_bytes = wasm.len() as u64;
    let (_, compile) = register(component, wasm.clone(), code)?;
    let (plugin, cached_start) = register(component, wasm, code)?;
    Ok(StartedComponent { plugin, size_bytes, compile, cached_start, us_per_event: Vec::new() })
}

fn register(component: &LanguageComponent, wasm: Vec<u8>, code: &Path) -> Result<(Plugin, Duration), BenchError> {
    let host = Host::new(HostOptions { cache_folder: Some(code.to_owned()), ..HostOptions::default() })?;
    let spec = PluginSpec {
        subscriber: component.name.to_owned(),
        wasm,
        config: BTreeMap::from([("word".to_owned(), "Hello".to_owned())]),
        hidden: BTreeMap::new(),
        ports: vec![PORT.to_owned()],
        limits: Limits::default(),
    };
    let start = Instant::now();
    let plugin = host.register(spec).map_err(|error| BenchError::Unfit(format!("{}: {error}", component.name)))?;
    Ok((plugin, start.elapsed()))
}
