//! `${VAR}` and `${VAR:-default}` in the texts of a topology; `$$` is a `$`.
//!
//! Replacement happens in parsed scalars, never in raw text, so a variable cannot add keys. The inserted value is not
//! looked at again. A `$` that starts neither form stays.

use std::borrow::Cow;
use std::ops::Range;

/// Why a text cannot be replaced; the range is that of the reference, in bytes of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VariableError {
    pub(crate) range: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: String,
}

/// Replaces what refers to variables. Every problem of the text is among the errors.
pub(crate) fn replace<'t>(
    text: &'t str,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<Cow<'t, str>, Vec<VariableError>> {
    if !text.contains('$') {
        return Ok(Cow::Borrowed(text));
    }
    let mut replaced = String::with_capacity(text.len());
    let mut errors = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        replaced.push_str(before);
        let at = text.len() - after.len() - 1;
        if let Some(after) = after.strip_prefix('$') {
            replaced.push('$');
            rest = after;
        } else if let Some(reference) = after.strip_prefix('{') {
            let Some((inside, after)) = reference.split_once('}') else {
                errors.push(VariableError {
                    range: at..text.len(),
                    message: "this `${` is not closed".into(),
                    help: "close it as in `${NAME}`; for the text `${` itself write `$${`".into(),
                });
                return Err(errors);
            };
            let range = at..text.len() - after.len();
            match value(inside, lookup) {
                Ok(value) => replaced.push_str(&value),
                Err((message, help)) => errors.push(VariableError { range, message, help }),
            }
            rest = after;
        } else {
            replaced.push('$');
            rest = after;
        }
    }
    replaced.push_str(rest);
    if errors.is_empty() { Ok(Cow::Owned(replaced)) } else { Err(errors) }
}

/// The value of what stands in the braces, or a message and what to do.
fn value(inside: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, (String, String)> {
    let (name, default) = match inside.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (inside, None),
    };
    let mut chars = name.chars();
    let starts = chars.next().is_some_and(|char| char.is_ascii_alphabetic() || char == '_');
    if !starts || !chars.all(|char| char.is_ascii_alphanumeric() || char == '_') {
        let message = format!("`{name}` is not the name of an environment variable");
        return Err((message, "write `${NAME}` or `${NAME:-default}`".into()));
    }
    if default.is_some_and(|default| default.contains("${")) {
        let message = format!("the default of `{name}` refers to another variable");
        return Err((message, "a default is plain text".into()));
    }
    // As in a shell, `:-` also replaces what is set but empty.
    match (lookup(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.into()),
        (None, None) => {
            let help = format!("set it, or give a default: `${{{name}:-value}}`");
            Err((format!("the environment variable `{name}` is not set"), help))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(text: &str) -> Result<String, Vec<String>> {
        let lookup = |name: &str| match name {
            "REGION" => Some("eu".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("${REGION}: $$".to_owned()),
            _ => None,
        };
        match replace(text, &lookup) {
            Ok(text) => Ok(text.into_owned()),
            Err(errors) => Err(errors.into_iter().map(|error| text[error.range].to_owned()).collect()),
        }
    }

    #[test]
    fn references_are_replaced_once() {
        assert_eq!(replaced("a-${REGION}-b").as_deref(), Ok("a-eu-b"));
        assert_eq!(replaced("${NONE:-x}${EMPTY:-y}${EMPTY}").as_deref(), Ok("xy"));
        assert_eq!(replaced("${TRICKY}").as_deref(), Ok("${REGION}: $$"));
    }

    #[test]
    fn a_dollar_that_refers_to_nothing_stays() {
        assert_eq!(replaced("^a$ $5 $$ $${REGION}").as_deref(), Ok("^a$ $5 $ ${REGION}"));
    }

    #[test]
    fn every_bad_reference_is_reported() {
        assert_eq!(replaced("${A} ${REGION} ${b c} ${"), Err(vec!["${A}".into(), "${b c}".into(), "${".into()]));
        assert_eq!(replaced("${A:-${B}}"), Err(vec!["${A:-${B}".into()]));
    }
}
