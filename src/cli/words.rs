//! Texts that others chose, and amounts, as they are shown to people.
//!
//! Ids, keys, reasons of failures, names of functions, answers of a server: all of it is chosen by others, and a
//! terminal obeys control characters. So text that a command prints of it goes through [`plain`] or [`lines`], and JSON
//! for people through [`push_json`].

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Whether a terminal would obey it, or show the text in another order than it has.
fn is_unsafe(character: char) -> bool {
    let reorders = matches!(character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() || reorders
}

/// A character of JSON: unsafe ones can only be in texts there, and are escaped.
pub(super) fn push_json(out: &mut String, character: char) {
    if is_unsafe(character) && !character.is_ascii_whitespace() {
        let mut units = [0; 2];
        out.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
    } else {
        out.push(character);
    }
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match is_unsafe(character) && !is_kept(character) {
            true => safe.extend(character.escape_default()),
            false => safe.push(character),
        }
    }
    safe
}

/// A text in one line, without anything that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    escaped(text, |_| false)
}

/// The same over as many lines as it has.
pub(super) fn lines(text: &str) -> String {
    escaped(text, |character| character == '\n')
}

/// Standard output for JSON of what others chose: as it is, but on a terminal without anything that it would obey.
pub(super) fn json_out() -> Box<dyn Write> {
    let out = io::stdout();
    if out.is_terminal() { Box::new(Escaping { out, begun: Vec::new() }) } else { Box::new(out) }
}

/// Escapes JSON on its way.
struct Escaping<W> {
    out: W,
    /// The beginning of a character whose end has not come yet.
    begun: Vec<u8>,
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        let whole = match std::str::from_utf8(&self.begun) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.begun.len(),
        };
        let rest = self.begun.split_off(whole);
        let text = std::mem::replace(&mut self.begun, rest);
        let mut safe = String::with_capacity(text.len());
        String::from_utf8_lossy(&text).chars().for_each(|character| push_json(&mut safe, character));
        self.out.write_all(safe.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// How old something is, as exactly as matters.
pub(super) fn age(age: Duration) -> String {
    match age.as_secs() {
        0 => "<1 s".to_owned(),
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7_200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// How many there were in a minute, in the unit in which that is no fraction.
pub(super) fn rate(per_minute: u64) -> String {
    if per_minute < 600 { format!("{per_minute}/min") } else { format!("{}/s", per_minute / 60) }
}

/// Seconds for programs, to the millisecond.
pub(super) fn seconds(age: Duration) -> f64 {
    age.as_millis() as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_is_left() {
        assert_eq!(plain("a\nb\x1b[2J\u{9b}31m\u{7f}\t"), "a\\nb\\u{1b}[2J\\u{9b}31m\\u{7f}\\t");
        assert_eq!(plain("\u{202e}cod.exe\u{2066}"), "\\u{202e}cod.exe\\u{2066}");
        assert_eq!(plain("Zürich 日本 \"x\" \\n"), "Zürich 日本 \"x\" \\n");
        let mut json = String::new();
        "[\"\u{7f}\u{9b}\u{202e}é\",\n\t1]".chars().for_each(|character| push_json(&mut json, character));
        assert_eq!(json, "[\"\\u007f\\u009b\\u202eé\",\n\t1]");
        assert_eq!(lines("one\n\ttwo\r\nthree\x1b"), "one\n\\ttwo\\r\nthree\\u{1b}");
    }

    #[test]
    fn json_is_escaped_on_its_way_however_it_is_cut() {
        let text = "{\"a\":\"é\u{9b}2J\u{202e}日\"}\n";
        for size in 1..9 {
            let mut escaping = Escaping { out: Vec::new(), begun: Vec::new() };
            text.as_bytes().chunks(size).for_each(|part| escaping.write_all(part).unwrap());
            assert_eq!(String::from_utf8(escaping.out).unwrap(), "{\"a\":\"é\\u009b2J\\u202e日\"}\n");
        }
    }

    #[test]
    fn amounts_are_as_exact_as_matters() {
        let ages = [0, 1, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["<1 s", "1 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
        assert_eq!([0, 59, 599, 600, 72_000].map(rate), ["0/min", "59/min", "599/min", "10/s", "1200/s"]);
        assert!((seconds(Duration::from_micros(1_234_567)) - 1.234).abs() < 1e-9);
    }
}
