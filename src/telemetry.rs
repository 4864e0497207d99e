//! What the process says while it runs: log lines to standard error, for people or for programs.
//!
//! Which lines: `WATTLE_LOG`, else `RUST_LOG`, in the syntax of tracing's `EnvFilter` (`info`, `wattle=debug`,
//! `wattle::plugin=trace`). What plugins say is under `wattle::plugin`, with the subscriber and the event's id.
//! Must not know: what is being logged.

use std::borrow::Cow;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// What is logged where no variable says.
const DEFAULT_FILTER: &str = "warn,wattle=info";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A variable that is no filter.
    #[error("{variable}={value:?} is not a log filter: {why}; write it like `info` or `wattle=debug`")]
    Filter {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is one already.
    #[error("the log was set up twice: {0}")]
    Twice(#[from] TryInitError),
}

type Screen = Box<dyn Fn(&[u8]) -> io::Result<()> + Send>;

/// Who draws on the terminal, and writes log lines where they do not disturb the drawing.
static SCREEN: Mutex<Option<Screen>> = Mutex::new(None);

/// Hands log lines to whoever draws on the terminal; `None` gives standard error back.
pub fn set_screen(screen: Option<Screen>) {
    *SCREEN.lock().unwrap_or_else(PoisonError::into_inner) = screen;
}

/// Starts logging. Once in a process.
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

/// Writes a line that is no log line to standard error, where it does not disturb what is drawn there.
pub fn say(line: &str) {
    // There is nobody to tell that standard error is closed.
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

/// One line at a time, to standard error or to the screen.
#[derive(Debug, Clone, Copy)]
struct Out;

impl MakeWriter<'_> for Out {
    type Writer = LogLine;

    fn make_writer(&self) -> LogLine {
        LogLine
    }
}

/// A log line, which is one line whatever is in it: what a plugin says is no line of ours.
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

/// The same on one line.
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
        // The formatter hands over a line in one piece.
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
