//! Log lines. They carry the event that they were written for; `println!` and `eprintln!` work too, as info and
//! warning.

use crate::contract::wasi::logging::logging;

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The flow of control.
    Trace,
    /// For whoever debugs the plugin.
    Debug,
    /// For whoever watches it run.
    Info,
    /// Something looks wrong.
    Warn,
    /// Something is wrong.
    Error,
}

/// Writes a log line.
pub fn log(level: Level, line: &str) {
    let level = match level {
        Level::Trace => logging::Level::Trace,
        Level::Debug => logging::Level::Debug,
        Level::Info => logging::Level::Info,
        Level::Warn => logging::Level::Warn,
        Level::Error => logging::Level::Error,
    };
    logging::log(level, "", line);
}

/// Writes a line at the level debug, as `println!` does.
#[macro_export]
macro_rules! debug { ($($part:tt)*) => { $crate::log($crate::Level::Debug, &format!($($part)*)) }; }

/// Writes a line at the level info, as `println!` does.
#[macro_export]
macro_rules! info { ($($part:tt)*) => { $crate::log($crate::Level::Info, &format!($($part)*)) }; }

/// Writes a line at the level warn, as `println!` does.
#[macro_export]
macro_rules! warn { ($($part:tt)*) => { $crate::log($crate::Level::Warn, &format!($($part)*)) }; }

/// Writes a line at the level error, as `println!` does.
#[macro_export]
macro_rules! error { ($($part:tt)*) => { $crate::log($crate::Level::Error, &format!($($part)*)) }; }
