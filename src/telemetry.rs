//! Log lines of the process on standard error, as text or JSON.
//!
//! The filter is `WATTLE_LOG`, else `RUST_LOG`, in the syntax of tracing's `EnvFilter` (`info`, `wattle=debug`,
//! `wattle::plugin=trace`). Log lines of plugins have the target `wattle::plugin`, with the subscriber and the event's
//! id. Must not know: the content of log lines.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The filter if no variable is set.
const DEFAULT_FILTER: &str = "warn,wattle=info";

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Why logging was not started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A variable without a valid filter.
    #[error("{variable}={value:?} is not a log filter: {why}; write it like `info` or `wattle=debug`")]
    Filter {
        variable: &'static str,
        value: String,
        /// The error of the filter.
        why: String,
    },
    /// Logging was already started.
    #[error("the log was set up twice: {0}")]
    Twice(#[from] TryInitError),
}

type Screen = Box<dyn Fn(&[u8]) -> io::Result<()> + Send>;

/// Draws on the terminal, and writes log lines without disturbing the drawing.
static SCREEN: Mutex<Option<Screen>> = Mutex::new(None);

/// Passes log lines to the code that draws on the terminal; `None` returns them to standard error.
pub fn set_screen(screen: Option<Screen>) {
    *SCREEN.lock().unwrap_or_else(PoisonError::into_inner) = screen;
}

/// Starts logging. Once per process.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(format: LogFormat) -> Result<(), TelemetryError> {
    let filter = filter()?;
    let colour = anstream::AutoStream::choice(&io::stderr()) != anstream::ColorChoice::Never;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Out).with_ansi(colour);
    match format {
        LogFormat::Text => builder.finish().try_init()?,
        LogFormat::Json => builder.json().flatten_event(true).with_ansi(false).finish().try_init()?,
    }
    Ok(())
}

/// Writes a line that is not a log line to standard error, without disturbing a drawing there.
pub fn say(line: &str) {
    // If standard error is closed, there is nowhere to report that.
    let _ = Out.write_all(format!("{line}\n").as_bytes());
}

fn filter() -> Result<EnvFilter, TelemetryError> {
    for variable in ["WATTLE_LOG", "RUST_LOG"] {
        let Ok(value) = std::env::var(variable) else { continue };
        if value.is_empty() {
            continue;
        }
        return EnvFilter::try_new(&value).map_err(|error| {
            let why = error.to_string();
            TelemetryError::Filter { variable, value, why }
        });
    }
    Ok(EnvFilter::new(DEFAULT_FILTER))
}

/// Writes whole lines to standard error or to the screen.
#[derive(Debug, Clone, Copy)]
struct Out;

impl MakeWriter<'_> for Out {
    type Writer = LogLine;

    fn make_writer(&self) -> LogLine {
        LogLine
    }
}

/// A log line, which stays one line for any content, so that a plugin cannot forge another.
#[derive(Debug, Clone, Copy)]
struct LogLine;

impl Write for LogLine {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        Out.write_all(&one_line(line))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Escapes line ends within a line.
fn one_line(line: &[u8]) -> Cow<'_, [u8]> {
    let body = line.strip_suffix(b"\n").unwrap_or(line);
    if !body.contains(&b'\n') {
        return line.into();
    }
    let mut one = body.split(|byte| *byte == b'\n').collect::<Vec<_>>().join(&b"\\n"[..]);
    one.push(b'\n');
    one.into()
}

impl Write for Out {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // The formatter passes each line as a whole.
        match &*SCREEN.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(screen) => screen(line)?,
            None => io::stderr().lock().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_is_one_line() {
        assert_eq!(one_line(b"said\n")[..], b"said\n"[..]);
        assert_eq!(one_line(b"one\ntwo\n\n")[..], b"one\\ntwo\\n\n"[..]);
    }
}
