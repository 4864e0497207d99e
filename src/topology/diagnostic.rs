//! What a check has to say: a stable code, a message, places in the files, and what to do.
//!
//! Promises: every diagnostic points at one place at least, its first label; codes never change their meaning. Knows
//! positions as bytes; [`super::render`] turns them into lines.

use std::fmt;

use super::bounds::PROBLEMS_MAX;

/// Where in which file: bytes `start..end` of the text of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Position of the file among the sources of the check.
    pub source: u32,
    /// First byte.
    pub start: u32,
    /// Byte after the last.
    pub end: u32,
}

/// Kind of a problem; stable, for people to search and for programs to match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// The text is not YAML, or not one YAML document.
    Syntax,
    /// A key that the place does not have.
    UnknownKey,
    /// A value of the wrong kind, out of bounds, or that contradicts another.
    BadValue,
    /// A key that the place must have.
    MissingKey,
    /// The same name twice, where names must differ.
    DuplicateName,
    /// A subscriber names an undeclared topic.
    UnknownTopic,
    /// Events would come back to where they were.
    Cycle,
    /// A topic that more than one subscriber publishes to.
    TwoParents,
    /// A subscriber that publishes to the topic that it takes from.
    SelfLoop,
    /// A tree into which nothing outside can publish, or a namespace without a topic.
    NoRoot,
    /// A root topic without subscribers.
    UnusedTopic,
    /// The file asks for more work than any topology needs.
    TooLarge,
    /// There is no plugin where the topology says.
    PluginNotFound,
    /// Understood and checked, but this release does not do it yet.
    Unsupported,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 14] = [
        Code::Syntax,
        Code::UnknownKey,
        Code::BadValue,
        Code::MissingKey,
        Code::DuplicateName,
        Code::UnknownTopic,
        Code::Cycle,
        Code::TwoParents,
        Code::SelfLoop,
        Code::NoRoot,
        Code::UnusedTopic,
        Code::TooLarge,
        Code::PluginNotFound,
        Code::Unsupported,
    ];

    /// The code as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Syntax => "syntax",
            Code::UnknownKey => "unknown-key",
            Code::BadValue => "bad-value",
            Code::MissingKey => "missing-key",
            Code::DuplicateName => "duplicate-name",
            Code::UnknownTopic => "unknown-topic",
            Code::Cycle => "cycle",
            Code::TwoParents => "two-parents",
            Code::SelfLoop => "self-loop",
            Code::NoRoot => "no-root",
            Code::UnusedTopic => "unused-topic",
            Code::TooLarge => "too-large",
            Code::PluginNotFound => "plugin-not-found",
            Code::Unsupported => "unsupported",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a problem stops the topology from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// It does: there is no plan.
    Error,
    /// It does not, but is probably not meant.
    Warning,
}

impl Severity {
    /// The severity as it is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        }
    }
}

/// A place, and its part in the problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    pub span: Span,
    /// A note on the place; may be empty.
    pub message: String,
}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    pub code: Code,
    /// Whether it is in the way.
    pub severity: Severity,
    /// The problem in one line.
    pub message: String,
    /// Where; the first is the place to look at, and there always is one.
    pub labels: Vec<Label>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A problem that stops the topology.
    pub(crate) fn error(code: Code, span: Span, label: impl Into<String>, message: impl Into<String>) -> Self {
        let labels = vec![Label { span, message: label.into() }];
        Diagnostic { code, severity: Severity::Error, message: message.into(), labels, help: None }
    }

    /// A problem that does not.
    pub(crate) fn warning(code: Code, span: Span, label: impl Into<String>, message: impl Into<String>) -> Self {
        Diagnostic { severity: Severity::Warning, ..Diagnostic::error(code, span, label, message) }
    }

    /// Adds a place.
    pub(crate) fn label(mut self, span: Span, message: impl Into<String>) -> Self {
        self.labels.push(Label { span, message: message.into() });
        self
    }

    /// Says what to do.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The place to look at first.
    pub fn span(&self) -> Span {
        self.labels.first().map_or(Span { source: 0, start: 0, end: 0 }, |label| label.span)
    }

    /// Whether the problem stops the topology.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The problems that were found so far: as many errors and as many warnings as anybody reads, and whether there were
/// more.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    list: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Problems {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let count = if diagnostic.is_error() { &mut self.errors } else { &mut self.warnings };
        *count += 1;
        if *count <= PROBLEMS_MAX {
            self.list.push(diagnostic);
        }
    }

    pub(crate) fn extend(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Adds the problems of another list, also those that were left out there.
    pub(crate) fn append(&mut self, other: Problems) {
        let (errors, warnings) = (self.errors + other.errors, self.warnings + other.warnings);
        self.extend(other.list);
        (self.errors, self.warnings) = (errors, warnings);
    }

    /// Whether there was an error, even if it was left out.
    pub(crate) fn any_error(&self) -> bool {
        self.errors > 0
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// All of them by file and place, and at the end the number that was left out.
    pub(crate) fn finish(self) -> Vec<Diagnostic> {
        let mut list = self.list;
        // Stable, so that of two problems at the same place the one found first stays first.
        list.sort_by_key(|diagnostic| (diagnostic.span().source, diagnostic.span().start));
        let left_out = |count: usize| count.saturating_sub(PROBLEMS_MAX);
        let (errors, warnings) = (left_out(self.errors), left_out(self.warnings));
        if let Some(last) = list.last().map(Diagnostic::span).filter(|_| errors + warnings > 0) {
            let severity = if errors > 0 { Severity::Error } else { Severity::Warning };
            let message = format!("there are {errors} more errors and {warnings} more warnings");
            let more = Diagnostic::error(Code::TooLarge, last, "not all of them after this", message);
            list.push(Diagnostic { severity, ..more.help("correct the first ones, and check again") });
        }
        list
    }
}
