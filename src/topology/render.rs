//! Diagnostics for people, as rustc prints them, and for programs, as JSON.
//!
//! Promises: the same input gives the same text; the JSON shape is stable. Positions of the JSON are 1-based; columns
//! count characters, as editors do.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::diagnostic::{Diagnostic, Severity, Span};
use super::{Code, Source};

/// How diagnostics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether to use colours.
    pub colour: bool,
    /// Width of the terminal, in columns; long lines are cut to it around the underlined part.
    pub width: usize,
}

/// Diagnostics as rustc prints them, each followed by an empty line.
pub fn text(sources: &[Source], diagnostics: &[Diagnostic], style: Style) -> String {
    let renderer = if style.colour { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.term_width(style.width);
    let lines: Vec<Lines<'_>> = sources.iter().map(|source| Lines::new(&source.text)).collect();
    let mut text = String::new();
    for diagnostic in diagnostics {
        text += &renderer.render(&[group(sources, &lines, diagnostic)]);
        text += "\n\n";
    }
    text
}

fn group<'a>(sources: &'a [Source], lines: &[Lines<'a>], diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.message.as_str()).id(diagnostic.code.as_str());
    let mut group = Group::with_title(title);
    // The files in the order in which the labels name them, so that the place to look at comes first.
    let mut files: Vec<u32> = Vec::new();
    for label in &diagnostic.labels {
        if !files.contains(&label.span.source) {
            files.push(label.span.source);
        }
    }
    for file in files {
        let (Some(source), Some(lines)) = (sources.get(file as usize), lines.get(file as usize)) else { continue };
        let labels = || diagnostic.labels.iter().enumerate().filter(|(_, label)| label.span.source == file);
        // Only the part with the labels is handed over: looking through all lines of a large file for each of many
        // diagnostics would take longer than the check.
        let start = labels().map(|(_, label)| lines.line_start(label.span.start)).min().unwrap_or_default();
        let end = labels().map(|(_, label)| lines.line_end(label.span.end)).max().unwrap_or_default();
        let shown = source.text.get(start as usize..end as usize).unwrap_or_default();
        let mut snippet = Snippet::source(shown).path(path(source)).line_start(lines.line(start));
        for (index, label) in labels() {
            let kind = if index == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            let span = (label.span.start - start) as usize..(label.span.end - start) as usize;
            let message = (!label.message.is_empty()).then_some(label.message.as_str());
            snippet = snippet.annotation(kind.span(span).label(message));
        }
        group = group.element(snippet);
    }
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(help.as_str())),
        None => group,
    }
}

fn path(source: &Source) -> String {
    source.path.display().to_string()
}

/// "2 errors and 1 warning"; nothing if there are none.
pub fn summary(diagnostics: &[Diagnostic]) -> Option<String> {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let count = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    match (errors, warnings) {
        (0, 0) => None,
        (errors, 0) => Some(count(errors, "error")),
        (0, warnings) => Some(count(warnings, "warning")),
        (errors, warnings) => Some(format!("{} and {}", count(errors, "error"), count(warnings, "warning"))),
    }
}

/// The line of a place in a file, from 1.
pub fn line(source: &Source, span: Span) -> usize {
    Lines::new(&source.text).line(span.start)
}

/// The result of a check for programs.
#[derive(Debug, Serialize)]
pub struct Report {
    ok: bool,
    diagnostics: Vec<ReportDiagnostic>,
}

#[derive(Debug, Serialize)]
struct ReportDiagnostic {
    #[serde(serialize_with = "code_text")]
    code: Code,
    severity: &'static str,
    message: String,
    file: String,
    line: usize,
    column: usize,
    help: Option<String>,
    labels: Vec<ReportLabel>,
}

#[derive(Debug, Serialize)]
struct ReportLabel {
    file: String,
    line: usize,
    column: usize,
    message: String,
}

fn code_text<S: serde::Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(code.as_str())
}

impl Report {
    /// The same of topologies that cannot be run for another reason.
    #[must_use]
    pub fn refused(self) -> Self {
        Self { ok: false, ..self }
    }
}

/// The result of a check; `ok` if there is no error, or with `deny_warnings`, nothing at all.
pub fn report(sources: &[Source], diagnostics: &[Diagnostic], deny_warnings: bool) -> Report {
    let lines: Vec<Lines<'_>> = sources.iter().map(|source| Lines::new(&source.text)).collect();
    let place = |span: Span| {
        let file = sources.get(span.source as usize).map(path).unwrap_or_default();
        let (line, column) = lines.get(span.source as usize).map_or((1, 1), |lines| lines.position(span.start));
        (file, line, column)
    };
    let diagnostic = |diagnostic: &Diagnostic| {
        let (file, line, column) = place(diagnostic.span());
        let labels = diagnostic.labels.iter().map(|label| {
            let (file, line, column) = place(label.span);
            ReportLabel { file, line, column, message: label.message.clone() }
        });
        ReportDiagnostic {
            code: diagnostic.code,
            severity: diagnostic.severity.as_str(),
            message: diagnostic.message.clone(),
            file,
            line,
            column,
            help: diagnostic.help.clone(),
            labels: labels.collect(),
        }
    };
    let ok = !diagnostics.iter().any(|diagnostic| deny_warnings || diagnostic.is_error());
    Report { ok, diagnostics: diagnostics.iter().map(diagnostic).collect() }
}

/// Where the lines of a text begin.
struct Lines<'t> {
    text: &'t str,
    starts: Vec<u32>,
}

impl<'t> Lines<'t> {
    fn new(text: &'t str) -> Self {
        let breaks = text.bytes().zip(1..).filter(|(byte, _)| *byte == b'\n').map(|(_, next)| next);
        Lines { text, starts: [0].into_iter().chain(breaks).collect() }
    }

    /// The line of a byte, from 1.
    fn line(&self, byte: u32) -> usize {
        self.starts.partition_point(|start| *start <= byte)
    }

    fn line_start(&self, byte: u32) -> u32 {
        self.starts.get(self.line(byte) - 1).copied().unwrap_or_default()
    }

    /// Where the line of a byte ends, its line break included.
    fn line_end(&self, byte: u32) -> u32 {
        self.starts.get(self.line(byte)).copied().unwrap_or(self.text.len() as u32)
    }

    /// Line and column of a byte, from 1.
    fn position(&self, byte: u32) -> (usize, usize) {
        let start = self.line_start(byte);
        let before = self.text.get(start as usize..byte as usize).unwrap_or_default();
        (self.line(byte), before.chars().count() + 1)
    }
}
