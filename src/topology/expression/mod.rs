//! Expressions of a topology: CEL over one event, compiled once when the topology is checked.
//!
//! | variable | value |
//! |---|---|
//! | `data` | the event's data, which must be JSON |
//! | `id`, `source`, `type` | text |
//! | `subject`, `time`, `key` | text, or null if the event has none |
//! | `attributes` | the extension attributes by name, as text |
//!
//! One [`Expression`] has two typed fronts: a [`KeyExpression`] is a text, a [`Condition`] is `true` or `false`. What
//! can never be that is a mistake that compiling finds; what depends on the event is an error of evaluating.
//!
//! Promises: an expression that compiled names only these variables and known functions; evaluating never changes
//! anything and reads nothing but the event. What most topologies have, a plain path such as `data.order_id`, reads
//! that one value out of the JSON text without building anything else, with the same result as the full evaluation.
//!
//! An evaluation takes a bounded number of steps (`topology/budget.rs`), and looks at the data only where its result
//! depends on it: `type == 'x' || data.n == 1` is true for an event of type `x`, whatever its data is.
//!
//! Goes through maps in the order of their keys (numbers, then booleans, then texts), so that one event has one result;
//! JSON says nothing of an order, and what CEL has is another one each time.
//!
//! Does not know YAML, topics or what the result is for.

mod compile;
mod evaluate;
mod functions;
mod instrument;
mod kind;
mod lint;
mod path;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use cel::common::ast::IdedExpr;
use kind::RequiredKind;
pub(crate) use lint::Lint;

/// A compiled expression, whatever its result is for; clones share it.
#[derive(Clone)]
pub(crate) struct Expression {
    text: Arc<str>,
    form: Form,
}

/// An expression for a text, such as an ordering key; clones share it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyExpression(Expression);

/// An expression for `true` or `false`, such as a filter; clones share it.
///
/// What an event does not have is no `false`: evaluating fails. `has(data.vip) && data.vip` asks first, and so does
/// `has(attributes.tenant)`; `subject`, `time` and `key` are null where an event has none.
#[derive(Clone, PartialEq, Eq)]
pub struct Condition(Expression);

/// How an expression is evaluated.
#[derive(Clone)]
enum Form {
    /// Only a path into the data: the names below `data`, outermost first.
    Data(Arc<[String]>),
    /// Only a field of the event.
    Field(EventField),
    /// Only an extension attribute.
    Attribute(Arc<str>),
    /// Anything else.
    Program(Arc<Program>),
}

/// A program, and which variables it needs.
struct Program {
    /// As it is written.
    program: cel::Program,
    /// As it is evaluated: it counts its steps, and goes through maps in the order of their keys.
    counted: IdedExpr,
    /// Of those, how many it takes outside of loops.
    parts: u64,
    /// How deep its loops are within each other.
    loops: usize,
    variables: Vec<Variable>,
}

/// What an expression can see of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variable {
    Data,
    Attributes,
    Field(EventField),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EventField {
    Id,
    Source,
    Type,
    Subject,
    Time,
    Key,
}

/// Every variable by its name.
const VARIABLES: [(&str, Variable); 8] = [
    ("data", Variable::Data),
    ("attributes", Variable::Attributes),
    ("id", Variable::Field(EventField::Id)),
    ("source", Variable::Field(EventField::Source)),
    ("type", Variable::Field(EventField::Type)),
    ("subject", Variable::Field(EventField::Subject)),
    ("time", Variable::Field(EventField::Time)),
    ("key", Variable::Field(EventField::Key)),
];

impl Variable {
    fn named(name: &str) -> Option<Variable> {
        VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, variable)| *variable)
    }

    fn name(self) -> &'static str {
        VARIABLES.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// An event as expressions see it.
#[derive(Clone, Copy)]
pub struct EventFields<'e> {
    /// The event's id.
    pub id: &'e str,
    /// Who made it.
    pub source: &'e str,
    /// Its type, such as `order.created`.
    pub kind: &'e str,
    /// Its subject, if it has one.
    pub subject: Option<&'e str>,
    /// When it happened, as RFC 3339 text, if it says so.
    pub time: Option<&'e str>,
    /// Its ordering key, once it has one.
    pub key: Option<&'e str>,
    /// Media type of `data`; JSON if there is none.
    pub content_type: Option<&'e str>,
    pub data: &'e [u8],
    /// The extension attributes.
    pub attributes: &'e dyn ExtensionAttributes,
}

/// Extension attributes in whatever form the caller has them.
pub trait ExtensionAttributes {
    /// Shows each name and value.
    fn each(&self, see: &mut dyn FnMut(&str, &str));
}

impl<N: AsRef<str>, V: AsRef<str>> ExtensionAttributes for Vec<(N, V)> {
    fn each(&self, see: &mut dyn FnMut(&str, &str)) {
        self.iter().for_each(|(name, value)| see(name.as_ref(), value.as_ref()));
    }
}

impl<N: AsRef<str>, V: AsRef<str>> ExtensionAttributes for &[(N, V)] {
    fn each(&self, see: &mut dyn FnMut(&str, &str)) {
        self.iter().for_each(|(name, value)| see(name.as_ref(), value.as_ref()));
    }
}

impl<N: AsRef<str>, V: AsRef<str>, const COUNT: usize> ExtensionAttributes for [(N, V); COUNT] {
    fn each(&self, see: &mut dyn FnMut(&str, &str)) {
        self.iter().for_each(|(name, value)| see(name.as_ref(), value.as_ref()));
    }
}

impl<N: AsRef<str>, V: AsRef<str>> ExtensionAttributes for BTreeMap<N, V> {
    fn each(&self, see: &mut dyn FnMut(&str, &str)) {
        self.iter().for_each(|(name, value)| see(name.as_ref(), value.as_ref()));
    }
}

/// Why a text is not an expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct CompileError {
    pub message: String,
    /// The part of the text that is meant, in bytes.
    pub range: Range<usize>,
    /// What to do.
    pub help: Option<String>,
}

/// Why an expression has no usable result for an event. All but [`ExpressionError::Failed`] name the path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// The data is of another media type.
    #[error("`{expression}` needs data in JSON, this event's is `{content_type}`")]
    NotJson {
        expression: String,
        /// The media type of the event's data.
        content_type: String,
    },
    /// The data says to be JSON, but is not.
    #[error("`{expression}` needs data in JSON, this event's is broken: {reason}")]
    BrokenJson {
        expression: String,
        /// What the JSON parser says.
        reason: String,
    },
    /// The event has nothing there.
    #[error("this event has no `{path}`{}", in_expression(path, expression))]
    Missing {
        expression: String,
        /// The missing name.
        path: String,
    },
    /// The event has something there that has no stable text.
    #[error("`{expression}` is {found}; a text, a whole number or a boolean is needed")]
    NotText {
        expression: String,
        /// The kind that is there, with its article.
        found: &'static str,
    },
    /// The event has something there that is no boolean.
    #[error("`{expression}` is {found}; `true` or `false` is needed")]
    NotBool {
        expression: String,
        /// The kind that is there, with its article.
        found: &'static str,
    },
    /// It would take too long.
    #[error(
        "`{expression}` takes more than the {steps} steps that it may take for this event; it goes through too much"
    )]
    TooManySteps {
        expression: String,
        /// What it may take.
        steps: u64,
    },
    /// The evaluation failed.
    #[error("`{expression}` failed: {reason}")]
    Failed {
        expression: String,
        /// What the evaluator says.
        reason: String,
    },
}

fn in_expression(path: &str, expression: &str) -> String {
    if path == expression { String::new() } else { format!(", which `{expression}` needs") }
}

impl Expression {
    pub(crate) fn compile(text: &str) -> Result<Self, Vec<CompileError>> {
        compile::form(text).map(|form| Expression { text: text.into(), form })
    }

    /// Remarks on it, though it can be evaluated.
    pub(crate) fn lints(&self) -> Vec<Lint> {
        lint::lints(self)
    }

    /// Whether it goes through something, so that it may take longer than reading the event.
    fn takes_long(&self) -> bool {
        matches!(&self.form, Form::Program(program) if program.loops > 0)
    }

    fn of(self, wanted: RequiredKind) -> Result<Self, Vec<CompileError>> {
        let misfits = kind::misfits(&self, wanted);
        if misfits.is_empty() { Ok(self) } else { Err(misfits) }
    }
}

impl KeyExpression {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// Every problem of the text, the first one first; there is at least one.
    pub fn compile(text: &str) -> Result<Self, Vec<CompileError>> {
        Self::of(Expression::compile(text)?)
    }

    pub(crate) fn of(expression: Expression) -> Result<Self, Vec<CompileError>> {
        expression.of(RequiredKind::Text).map(Self)
    }

    /// Whether an evaluation may take longer than reading the event does.
    pub fn takes_long(&self) -> bool {
        self.0.takes_long()
    }

    /// Whether it is the same for every event.
    pub(crate) fn is_constant(&self) -> bool {
        matches!(&self.0.form, Form::Program(program) if program.variables.is_empty())
    }

    /// The expression as it is written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// The text that the expression has for an event: a text as it is, whole numbers in decimal, booleans as `true`
    /// and `false`.
    ///
    /// # Errors
    ///
    /// [`ExpressionError`] if the event lacks what the expression needs, or the result is anything else.
    pub fn evaluate(&self, event: &EventFields<'_>) -> Result<String, ExpressionError> {
        evaluate::text(&self.0, event)
    }
}

impl Condition {
    /// Compiles an expression.
    ///
    /// # Errors
    ///
    /// Every problem of the text, the first one first; there is at least one.
    pub fn compile(text: &str) -> Result<Self, Vec<CompileError>> {
        Self::of(Expression::compile(text)?)
    }

    pub(crate) fn of(expression: Expression) -> Result<Self, Vec<CompileError>> {
        expression.of(RequiredKind::Bool).map(Self)
    }

    /// Whether an evaluation may take longer than reading the event does.
    pub fn takes_long(&self) -> bool {
        self.0.takes_long()
    }

    /// The expression as it is written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether an event meets the condition.
    ///
    /// # Errors
    ///
    /// [`ExpressionError`] if the event lacks what the expression needs (`has(data.vip)` asks without failing), or the
    /// result is no boolean. What that means for the event is for the caller to decide.
    pub fn evaluate(&self, event: &EventFields<'_>) -> Result<bool, ExpressionError> {
        evaluate::truth(&self.0, event)
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl fmt::Debug for KeyExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyExpression").field(&self.text()).finish()
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Condition").field(&self.text()).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

#[cfg(test)]
mod tests;
