//! JSON for people: line breaks and spaces, and every number, text and name as it came, without what a terminal would
//! obey.

use serde::Serialize;

use super::words;

/// Levels up to which each value has a line of its own; deeper levels share one.
const LEVELS_MAX: usize = 32;

/// A value in JSON over several lines.
pub(super) fn pretty(value: &impl Serialize) -> String {
    // what has a text at all; only a map whose keys are not texts has none
    spread(&serde_json::to_string(value).unwrap_or_default())
}

/// Spreads JSON over lines.
fn spread(json: &str) -> String {
    let (mut out, mut level, mut is_text, mut is_escaped) =
        (String::with_capacity(json.len() * 2), 0_usize, false, false);
    let mut chars = json.chars().peekable();
    let line = |out: &mut String, level: usize| {
        if level <= LEVELS_MAX {
            out.push('\n');
            out.extend(std::iter::repeat_n("  ", level));
        }
    };
    while let Some(char) = chars.next() {
        if is_text {
            words::push_json(&mut out, char);
            (is_text, is_escaped) = (is_escaped || char != '"', !is_escaped && char == '\\');
            continue;
        }
        match char {
            ' ' | '\t' | '\r' | '\n' => {}
            '{' | '[' => {
                out.push(char);
                while chars.next_if(char::is_ascii_whitespace).is_some() {}
                if let Some(end) = chars.next_if(|char| matches!(char, '}' | ']')) {
                    out.push(end);
                    continue;
                }
                level += 1;
                line(&mut out, level);
            }
            '}' | ']' => {
                level = level.saturating_sub(1);
                if level < LEVELS_MAX {
                    line(&mut out, level);
                }
                out.push(char);
            }
            ',' => {
                out.push(char);
                line(&mut out, level);
            }
            ':' => out.push_str(": "),
            char => {
                is_text = char == '"';
                out.push(char);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn it_is_spread_as_it_is_usual() {
        let value =
            json!({ "a": [1, 2.5, { "b": "c: [d], {\"e\"}\\" }], "empty": {}, "none": [], "text": "", "é": null });
        assert_eq!(pretty(&value), serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(spread("5"), "5");
    }

    #[test]
    fn nothing_is_rewritten() {
        assert_eq!(
            spread(r#"{ "n" :1.10,"u":"\u00e9 \" ","n":-0 }"#),
            "{\n  \"n\": 1.10,\n  \"u\": \"\\u00e9 \\\" \",\n  \"n\": -0\n}"
        );
    }

    #[test]
    fn nothing_is_left_that_a_terminal_obeys() {
        assert_eq!(spread("[\"a\u{9b}2J\u{7f}\"]"), "[\n  \"a\\u009b2J\\u007f\"\n]");
    }

    #[test]
    fn what_is_very_deep_is_not_very_long() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let shown = spread(&deep);
        assert!(shown.len() < 300_000, "{}", shown.len());
        let level = format!("{}1{}", "[".repeat(50), "]".repeat(50));
        assert_eq!(
            serde_json::from_str::<Value>(&spread(&level)).unwrap(),
            serde_json::from_str::<Value>(&level).unwrap()
        );
    }
}
