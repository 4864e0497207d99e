//! Names from a component in messages: of functions, interfaces and ports.
//!
//! They are untrusted: a name may have 100,000 bytes, and a component can contain very many. So each is shown by these
//! functions, truncated and on one line, and never by the `Display` of an error that contains it. wasmtime's backtrace
//! is such an error: it formats names with a crate (`demangle`) whose output has no bound.

use std::fmt::{self, Display, Write};

use wasmtime::{FrameInfo, WasmBacktrace};

/// Maximum bytes shown of one name. Rust functions with generics have some 100.
const NAME_BYTES_MAX: usize = 256;

/// Maximum number of names in a message: more would not be read.
const NAMES_MAX: usize = 20;

/// Longer function names are not demangled: that takes time in proportion to their length.
const MANGLED_BYTES_MAX: usize = 4 * 1024;

/// Maximum bytes shown of an error that may contain names.
const ERROR_BYTES_MAX: usize = 4 * 1024;

/// One name.
pub(super) fn name(name: &str) -> String {
    shown(name, NAME_BYTES_MAX)
}

/// Several names in backticks, or "none".
pub(super) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    let shown = names.iter().take(NAMES_MAX).map(|of| format!("`{}`", name(of.as_ref())));
    with_rest(shown.collect(), names.len(), ", ")
}

/// The first parts of a message, and the number of the others.
pub(super) fn first(parts: impl Iterator<Item = String>, separator: &str) -> String {
    let mut parts = parts.fuse();
    let shown: Vec<String> = parts.by_ref().take(NAMES_MAX).collect();
    let count = shown.len() + parts.count();
    with_rest(shown, count, separator)
}

fn with_rest(shown: Vec<String>, count: usize, separator: &str) -> String {
    match count - shown.len() {
        0 => shown.join(separator),
        more => format!("{}{separator}and {more} more", shown.join(separator)),
    }
}

/// An error with its causes.
pub(super) fn error(error: &wasmtime::Error) -> String {
    if error.is::<WasmBacktrace>() {
        // The context of the cause is the backtrace.
        return shown(error.root_cause(), ERROR_BYTES_MAX);
    }
    shown(format_args!("{error:#}"), ERROR_BYTES_MAX)
}

/// The running functions of the plugin, innermost first, one per line.
pub(super) fn backtrace(error: &wasmtime::Error) -> Option<String> {
    let backtrace = error.downcast_ref::<WasmBacktrace>().filter(|backtrace| !backtrace.frames().is_empty())?;
    let lines = backtrace.frames().iter().enumerate().map(|(place, frame)| {
        let offset = frame.module_offset().map(|offset| format!("{offset:#8x} - ")).unwrap_or_default();
        let module = name(frame.module().name().unwrap_or("<unknown>"));
        format!("{place}: {offset}{module}!{}", function(frame))
    });
    Some(lines.collect::<Vec<_>>().join("\n"))
}

fn function(frame: &FrameInfo) -> String {
    let Some(mangled) = frame.func_name() else { return format!("<wasm function {}>", frame.func_index()) };
    let short = Some(mangled).filter(|mangled| mangled.len() <= MANGLED_BYTES_MAX);
    match short.map(rustc_demangle::try_demangle) {
        Some(Ok(demangled)) => shown(format_args!("{demangled:#}"), NAME_BYTES_MAX),
        _ => name(mangled),
    }
}

/// Formats a value up to a maximum length, and stops the formatting there.
fn shown(what: impl Display, bytes_max: usize) -> String {
    let mut line = OneLine { text: String::new(), bytes_max };
    if write!(line, "{what}").is_err() {
        line.text.push('…');
    }
    line.text
}

/// Text on one line, up to `bytes_max` bytes.
struct OneLine {
    text: String,
    bytes_max: usize,
}

impl Write for OneLine {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        for character in part.chars() {
            if self.text.len() >= self.bytes_max {
                return Err(fmt::Error);
            }
            match character.is_control() {
                true => self.text.extend(character.escape_default()),
                false => self.text.push(character),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_cut_and_on_one_line() {
        assert_eq!(name("handle"), "handle");
        assert_eq!(name("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        let long = name(&"ü".repeat(100_000));
        assert!(long.len() <= NAME_BYTES_MAX + "…".len() && long.ends_with("ü…"), "{long}");
    }

    #[test]
    fn many_names_are_counted() {
        assert_eq!(listed::<&str>(&[]), "none");
        assert_eq!(listed(&["a", "b"]), "`a`, `b`");
        let many = listed(&vec!["x"; 100_000]);
        assert!(many.ends_with("`x`, and 99980 more"), "{many}");
        assert_eq!(first((0..22).map(|n| n.to_string()), "; ").split("; ").last(), Some("and 2 more"));
    }

    #[test]
    fn what_would_be_long_when_it_is_written_is_not_written() {
        struct Endless;
        impl Display for Endless {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    f.write_str("on and on ")?;
                }
            }
        }
        assert!(shown(Endless, 100).starts_with("on and on "));
    }
}
