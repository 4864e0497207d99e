//! From text to a form that can be evaluated, with every mistake found before an event meets it.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr, IdedExpr};
use cel::{Context, Env};

use super::instrument::{self, of_entry};
use super::{CompileError, EventField, Form, Program, VARIABLES, Variable, functions};
use crate::topology::bounds::{EXPRESSION_BYTES_MAX, EXPRESSION_DEPTH_MAX};
use crate::topology::names;

/// The functions and types of CEL, and ours, built once: building takes longer than evaluating.
pub(super) static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(functions::env()));

/// Words that the grammar of CEL has its own use for, so that they are no names after a dot.
const KEYWORDS: [&str; 4] = ["in", "true", "false", "null"];

/// Types that can stand where a variable can, as in `type(x) == string`.
const TYPES: [&str; 10] = ["int", "uint", "double", "bool", "string", "bytes", "list", "map", "null_type", "type"];

/// Compiles `text`.
pub(super) fn form(text: &str) -> Result<Form, Vec<CompileError>> {
    if text.len() > EXPRESSION_BYTES_MAX {
        let message = format!("this expression has {} bytes, at most {EXPRESSION_BYTES_MAX} are possible", text.len());
        return Err(vec![CompileError { message, range: 0..text.len(), help: None }]);
    }
    if text.trim().is_empty() {
        let help = Some("write a path such as `data.order_id`, or a condition such as `data.amount > 100`".into());
        return Err(vec![CompileError { message: "this expression is empty".into(), range: 0..text.len(), help }]);
    }
    if let Some(form) = plain_path(text) {
        return Ok(form);
    }
    let program = ENV.compile(text).map_err(|errors| syntax(text, &errors))?;
    let mut names = NameCheck {
        text,
        info: program.source_info(),
        scope: Vec::new(),
        depth: 0,
        used: Vec::new(),
        errors: Vec::new(),
    };
    names.visit(program.expression());
    let NameCheck { used: variables, errors, .. } = names;
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Form::Program(Arc::new(self::program(program, variables))))
}

/// Whether a name and that of a function are a function of their own, as `optional.of`.
pub(super) fn is_namespace(namespace: &str, name: &str) -> bool {
    is_function(&format!("{namespace}.{name}"))
}

/// The program as it is evaluated.
fn program(program: cel::Program, variables: Vec<Variable>) -> Program {
    let expression = program.expression();
    let (parts, loops) = (instrument::parts(expression), instrument::loops(expression));
    Program { counted: instrument::instrumented(expression, &is_namespace), parts, loops, variables, program }
}

/// `id`, `attributes.tenant`, `data.order.id`, `data["order-id"]`: what needs no evaluator.
fn plain_path(text: &str) -> Option<Form> {
    let mut rest = text.trim();
    let mut segments = Vec::new();
    let (root, after) = word(rest)?;
    rest = after;
    while !rest.is_empty() {
        let (segment, after) = match rest.strip_prefix('.') {
            Some(rest) => word(rest).filter(|(word, _)| !KEYWORDS.contains(word))?,
            None => rest.strip_prefix("[\"")?.split_once("\"]").filter(|(quoted, _)| is_simple(quoted))?,
        };
        segments.push(segment.to_owned());
        rest = after;
    }
    match (Variable::named(root)?, segments.as_slice()) {
        (Variable::Data, [_, ..]) => Some(Form::Data(segments.into())),
        (Variable::Attributes, [name]) => Some(Form::Attribute(name.as_str().into())),
        (Variable::Field(field), []) => Some(Form::Field(field)),
        _ => None,
    }
}

fn word(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|char: char| !char.is_ascii_alphanumeric() && char != '_').unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end)?;
    (!word.is_empty() && !word.starts_with(|char: char| char.is_ascii_digit())).then_some((word, rest))
}

fn is_simple(quoted: &str) -> bool {
    !quoted.contains(['"', '\\', '\n', '\r'])
}

/// What the parser of CEL reports first, since what follows is mostly a consequence of it.
fn syntax(text: &str, errors: &cel::ParseErrors) -> Vec<CompileError> {
    let first = errors.errors.first();
    let (message, range) = match first.map(|error| (error, between_quotes(&error.msg))) {
        Some((_, Some("<EOF>"))) => {
            let end = text.trim_end().len();
            ("something is missing at the end of this expression".to_owned(), end..end)
        }
        Some((error, Some(token))) => {
            let start = position(text, error.pos).start;
            let at = text.get(start..).and_then(|rest| rest.starts_with(token).then_some(start));
            // Some errors are reported where the parser noticed, not where the text is.
            let at = at.or_else(|| text.rfind(token));
            let range = at.map_or_else(|| position(text, error.pos), |at| at..at + token.len());
            (format!("`{token}` does not fit here in a CEL expression"), range)
        }
        Some((error, None)) => {
            let message = error.msg.lines().next().unwrap_or_default();
            (format!("this is not a CEL expression: {message}"), position(text, error.pos))
        }
        None => ("this is not a CEL expression".to_owned(), 0..text.len()),
    };
    vec![CompileError { message, range, help: None }]
}

/// The part of the text that a message of the parser quotes first; the rest of such messages lists tokens.
fn between_quotes(message: &str) -> Option<&str> {
    let (_, rest) = message.lines().next()?.split_once('\'')?;
    let (quoted, _) = rest.split_once('\'')?;
    (!quoted.is_empty()).then_some(quoted)
}

/// The bytes of the character at a 1-based line and column.
fn position(text: &str, (line, column): (isize, isize)) -> Range<usize> {
    let line_index = usize::try_from(line - 1).unwrap_or_default();
    let column_index = usize::try_from(column - 1).unwrap_or_default();
    let line_start: usize = text.split_inclusive('\n').take(line_index).map(str::len).sum();
    let line_text = text.get(line_start..).unwrap_or_default().lines().next().unwrap_or_default();
    let (offset, width) =
        line_text.char_indices().nth(column_index).map_or((line_text.len(), 0), |(at, char)| (at, char.len_utf8()));
    line_start + offset..line_start + offset + width
}

/// Looks at every name of an expression.
struct NameCheck<'p> {
    text: &'p str,
    info: &'p cel::common::ast::SourceInfo,
    /// Variables that the expression itself declares, as `x` in `list.all(x, x > 0)`.
    scope: Vec<&'p str>,
    depth: usize,
    used: Vec<Variable>,
    errors: Vec<CompileError>,
}

impl<'p> NameCheck<'p> {
    fn visit(&mut self, expression: &'p IdedExpr) {
        self.depth += 1;
        if self.depth <= EXPRESSION_DEPTH_MAX {
            self.visit_parts(expression);
        } else if self.depth == EXPRESSION_DEPTH_MAX + 1 && self.errors.is_empty() {
            let message = format!("this expression is nested more than {EXPRESSION_DEPTH_MAX} levels deep");
            let help = Some("simplify it; long sums nest, too".into());
            self.errors.push(CompileError { message, range: 0..self.text.len(), help });
        }
        self.depth -= 1;
    }

    fn visit_parts(&mut self, expression: &'p IdedExpr) {
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => self.variable(name, expression.id),
            Expr::Select(select) => self.visit(&select.operand),
            Expr::Call(call) => self.call(call, expression.id),
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element)),
            Expr::Map(map) => {
                map.entries.iter().flat_map(|entry| of_entry(&entry.expr)).for_each(|part| self.visit(part))
            }
            Expr::Struct(value) => {
                value.entries.iter().flat_map(|entry| of_entry(&entry.expr)).for_each(|part| self.visit(part))
            }
            Expr::Comprehension(each) => {
                self.visit(&each.iter_range);
                self.visit(&each.accu_init);
                let outer = self.scope.len();
                self.scope.push(&each.accu_var);
                self.scope.push(&each.iter_var);
                self.scope.extend(each.iter_var2.as_deref());
                self.visit(&each.loop_cond);
                self.visit(&each.loop_step);
                self.scope.truncate(outer + 1);
                self.visit(&each.result);
                self.scope.truncate(outer);
            }
        }
    }

    fn variable(&mut self, name: &str, id: u64) {
        if self.scope.contains(&name) {
            return;
        }
        let name = name.trim_start_matches('.');
        match Variable::named(name) {
            Some(variable) if self.used.contains(&variable) => {}
            Some(variable) => self.used.push(variable),
            None if TYPES.contains(&name) => {}
            None => {
                let known = VARIABLES.map(|(name, _)| name);
                let help = match names::nearest(name, known) {
                    Some(near) => format!("there is `{near}`; what is in the event's data is `data.{name}`"),
                    None => format!("what is in the event's data is `data.{name}`; there also are {}", list(&known)),
                };
                self.error(id, name, format!("there is no variable `{name}`"), help);
            }
        }
    }

    fn call(&mut self, call: &'p CallExpr, id: u64) {
        let operator = !call.func_name.starts_with(|char: char| char.is_ascii_alphabetic());
        let qualified = match call.target.as_deref().map(|target| &target.expr) {
            Some(Expr::Ident(namespace)) => is_namespace(namespace, &call.func_name),
            _ => false,
        };
        if !operator && !qualified && !is_function(&call.func_name) {
            let name = &call.func_name;
            let help = "these are the functions of standard CEL, such as `size`, `string`, `startsWith`, `matches`";
            self.error(id, name, format!("there is no function `{name}`"), help.into());
        }
        if !qualified && let Some(target) = &call.target {
            self.visit(target);
        }
        call.args.iter().for_each(|argument| self.visit(argument));
    }

    fn error(&mut self, id: u64, name: &str, message: String, help: String) {
        let range = self.range(id, name);
        self.errors.push(CompileError { message, range, help: Some(help) });
    }

    /// Where `name` is, near the place that the node has. Places of calls are those of the bracket.
    fn range(&self, id: u64, name: &str) -> Range<usize> {
        let byte = |at: u32| self.text.floor_char_boundary(at as usize);
        let Some((start, stop)) = self.info.offset_for(id) else { return 0..self.text.len() };
        let (start, stop) = (byte(start), byte(stop.saturating_add(1)));
        let after = self.text.get(start..).and_then(|text| text.starts_with(name).then_some(start));
        let before = || self.text.get(..stop).and_then(|text| text.rfind(name));
        match after.or_else(before) {
            Some(at) => at..at + name.len(),
            None => start..stop.max(start),
        }
    }
}

/// Whether CEL has the function. A context refuses to add one that its environment has, which is the way to ask.
fn is_function(name: &str) -> bool {
    Context::with_env(Arc::clone(&ENV)).add_function(name, || true).is_err()
}

fn list(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl EventField {
    /// The value that an event has for it.
    pub(super) fn of<'e>(self, event: &super::EventFields<'e>) -> Option<&'e str> {
        match self {
            EventField::Id => Some(event.id),
            EventField::Source => Some(event.source),
            EventField::Type => Some(event.kind),
            EventField::Subject => event.subject,
            EventField::Time => event.time,
            EventField::Key => event.key,
        }
    }
}
