//! What shows without an event that an expression does not do what it was written for: parts that always fail,
//! comparisons that are always false, and loops within loops.
//!
//! Promises: a part that is called an error fails for each event that gets there. Nothing here changes what an
//! expression is: one that was taken before such a thing was known is evaluated as ever.

use std::ops::Range;
use std::sync::Arc;

use cel::Context;
use cel::common::ast::{CallExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::compile::ENV;
use super::functions;
use super::instrument::{self, of_entry};
use super::kind::{BYTES, DURATION, ResultKind, Search, TIME};
use super::path::{FRACTION, LIST, NULL, OBJECT};
use super::{CompileError, EventField, Expression, Form, Variable};
use crate::topology::budget;

/// Something to be said of an expression that can be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lint {
    /// A part of it fails for each event.
    Fails(CompileError),
    /// It is probably not what was meant.
    Odd(CompileError),
}

/// All that is to be said of one.
pub(super) fn lints(expression: &Expression) -> Vec<Lint> {
    let Form::Program(program) = &expression.form else { return Vec::new() };
    let search = Search::new(&expression.text, program.program.source_info());
    let mut look = LintSearch { search, lints: Vec::new() };
    look.visit(program.program.expression());
    if program.loops > 1 {
        let message = "this goes through a list for each item of another one".to_owned();
        let help = format!(
            "an event whose lists are long takes more than the {} steps that an expression may take, and is refused or \
             fails",
            budget::STEPS_MIN
        );
        let range = 0..expression.text.len();
        look.lints.push(Lint::Odd(CompileError { message, range, help: Some(help) }));
    }
    look.lints
}

/// What can be compared, and what can be added.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Number,
    Text,
    Bool,
    Time,
    Duration,
    Bytes,
    List,
    Map,
    Null,
    Type,
}

fn class(kind: ResultKind) -> Option<Class> {
    Some(match kind {
        ResultKind::Any | ResultKind::Computed => return None,
        ResultKind::Bool => Class::Bool,
        ResultKind::Text => Class::Text,
        ResultKind::Whole | ResultKind::Other(FRACTION) => Class::Number,
        ResultKind::Other(TIME) => Class::Time,
        ResultKind::Other(DURATION) => Class::Duration,
        ResultKind::Other(BYTES) => Class::Bytes,
        ResultKind::Other(LIST) => Class::List,
        ResultKind::Other(OBJECT) => Class::Map,
        ResultKind::Other(NULL) => Class::Null,
        ResultKind::Other(_) => Class::Type,
    })
}

struct LintSearch<'p> {
    search: Search<'p>,
    lints: Vec<Lint>,
}

impl<'p> LintSearch<'p> {
    fn visit(&mut self, expression: &'p IdedExpr) {
        if self.is_constant(expression) {
            return self.evaluate(expression);
        }
        match &expression.expr {
            Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
            Expr::Select(select) => self.visit(&select.operand),
            Expr::Call(call) => {
                let before = self.lints.len();
                call.target.iter().for_each(|target| self.visit(target));
                call.args.iter().for_each(|argument| self.visit(argument));
                if self.lints.len() == before {
                    self.call(call, expression); // else it may be a consequence
                }
            }
            Expr::List(list) => list.elements.iter().for_each(|element| self.visit(element)),
            Expr::Map(map) => {
                map.entries.iter().flat_map(|entry| of_entry(&entry.expr)).for_each(|part| self.visit(part))
            }
            Expr::Struct(value) => {
                value.entries.iter().flat_map(|entry| of_entry(&entry.expr)).for_each(|part| self.visit(part))
            }
            Expr::Comprehension(each) => {
                self.visit(&each.iter_range);
                let variables = [Some(&each.accu_var), Some(&each.iter_var), each.iter_var2.as_ref()];
                let outer = self.search.declare(variables.into_iter().flatten().map(String::as_str));
                self.visit(&each.loop_step);
                self.search.forget(outer);
            }
        }
    }

    /// Whether it is the same for each event, and more than a literal.
    fn is_constant(&self, expression: &IdedExpr) -> bool {
        matches!(expression.expr, Expr::Call(_) | Expr::Select(_) | Expr::Comprehension(_))
            && self.is_closed(expression, &[])
    }

    /// Whether it has no variables but these.
    fn is_closed(&self, expression: &IdedExpr, declared: &[&str]) -> bool {
        let all = |parts: &[IdedExpr]| parts.iter().all(|part| self.is_closed(part, declared));
        let entry = |entry: &EntryExpr| of_entry(entry).all(|part| self.is_closed(part, declared));
        match &expression.expr {
            Expr::Unspecified => false,
            Expr::Literal(_) => true,
            Expr::Ident(name) => {
                let is_variable = Variable::named(name.trim_start_matches('.')).is_some();
                declared.contains(&name.as_str()) || !is_variable && !self.search.is_declared(name)
            }
            Expr::Select(select) => self.is_closed(&select.operand, declared),
            Expr::Call(call) => {
                all(&call.args) && call.target.as_deref().is_none_or(|target| self.is_closed(target, declared))
            }
            Expr::List(list) => all(&list.elements),
            Expr::Map(map) => map.entries.iter().all(|of| entry(&of.expr)),
            Expr::Struct(value) => value.entries.iter().all(|of| entry(&of.expr)),
            Expr::Comprehension(each) => {
                let own = [Some(&each.accu_var), Some(&each.iter_var), each.iter_var2.as_ref()];
                let within: Vec<&str> =
                    declared.iter().copied().chain(own.into_iter().flatten().map(String::as_str)).collect();
                self.is_closed(&each.iter_range, declared)
                    && [&each.accu_init, &each.loop_cond, &each.loop_step, &each.result]
                        .into_iter()
                        .all(|part| self.is_closed(part, &within))
            }
        }
    }

    /// A part that is the same for each event must have a result.
    fn evaluate(&mut self, expression: &'p IdedExpr) {
        let counted = instrument::instrumented(expression, &super::compile::is_namespace);
        functions::begin();
        let context = Context::with_env(Arc::clone(&ENV));
        let reason = match budget::within(budget::STEPS_MIN, || context.resolve(&counted)) {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => super::evaluate::reason(&error),
            Err(_) => format!("it takes more than {} steps", budget::STEPS_MIN),
        };
        let range = self.search.range(expression);
        self.fails(
            range,
            format!("this fails for each event: {reason}"),
            "it is the same for all of them: write what it is to be",
        );
    }

    fn call(&mut self, call: &'p CallExpr, expression: &'p IdedExpr) {
        match (call.func_name.as_str(), call.args.as_slice()) {
            ("matches", arguments) => {
                if let Some(pattern @ IdedExpr { expr: Expr::Literal(LiteralValue::String(text)), .. }) =
                    arguments.last()
                    && let Err(why) = functions::compile_pattern(text.inner())
                {
                    let range = self.search.range(pattern);
                    self.fails(
                        range,
                        why,
                        "patterns are those of RE2, as CEL has them; brackets that are meant as such are `\\\\(`",
                    );
                }
            }
            (operators::EQUALS | operators::NOT_EQUALS, [left, right]) => {
                let kinds = (self.search.kind(left), self.search.kind(right));
                if let (Some(one), Some(other)) = (class(kinds.0), class(kinds.1))
                    && one != other
                    && !(one == Class::Null && self.may_be_null(right)
                        || other == Class::Null && self.may_be_null(left))
                {
                    let always = if call.func_name == operators::EQUALS { "false" } else { "true" };
                    let (left, right) = (kinds.0.described(), kinds.1.described());
                    let message = format!("{left} never equals {right}: this is always {always}");
                    self.odd(expression, message);
                }
            }
            (
                operators::LESS | operators::LESS_EQUALS | operators::GREATER | operators::GREATER_EQUALS,
                [left, right],
            ) => self.both(expression, left, right, "be compared with", |one, other| {
                one == other && !matches!(one, Class::List | Class::Map | Class::Null | Class::Type)
            }),
            (operators::ADD, [left, right]) => self.both(expression, left, right, "be added to", |one, other| {
                one == other
                    && matches!(one, Class::Number | Class::Text | Class::List | Class::Bytes | Class::Duration)
                    || matches!((one, other), (Class::Time, Class::Duration) | (Class::Duration, Class::Time))
            }),
            (operators::SUBSTRACT, [left, right]) => {
                self.both(expression, left, right, "be taken from", |one, other| {
                    one == other && matches!(one, Class::Number | Class::Time | Class::Duration)
                        || (one, other) == (Class::Time, Class::Duration)
                })
            }
            (operators::MULTIPLY | operators::DIVIDE | operators::MODULO, [left, right]) => {
                self.both(expression, left, right, "be calculated with", |one, other| {
                    (one, other) == (Class::Number, Class::Number)
                });
            }
            _ => {}
        }
    }

    /// Reports an operation that these cannot have, as far as it shows what they are.
    fn both(
        &mut self,
        expression: &'p IdedExpr,
        left: &'p IdedExpr,
        right: &'p IdedExpr,
        verb: &str,
        fits: impl Fn(Class, Class) -> bool,
    ) {
        let kinds = (self.search.kind(left), self.search.kind(right));
        let does_not_fit = match (class(kinds.0), class(kinds.1)) {
            (Some(one), Some(other)) => !fits(one, other),
            // with nothing at all
            (Some(one), None) | (None, Some(one)) => {
                !CLASSES.iter().any(|other| fits(one, *other) || fits(*other, one))
            }
            (None, None) => false,
        };
        if does_not_fit {
            let (left, right) = (kinds.0.described(), kinds.1.described());
            let message = match verb {
                "be taken from" | "be added to" => format!("{right} cannot {verb} {left}"),
                _ => format!("{left} cannot {verb} {right}"),
            };
            let range = self.search.range(expression);
            self.fails(range, message, CONVERT);
        }
    }

    /// Whether it is something that not every event has.
    fn may_be_null(&self, expression: &IdedExpr) -> bool {
        let Expr::Ident(name) = &expression.expr else { return false };
        let variable = Variable::named(name.trim_start_matches('.'));
        matches!(variable, Some(Variable::Field(EventField::Subject | EventField::Time | EventField::Key)))
    }

    fn fails(&mut self, range: Range<usize>, message: String, help: &str) {
        self.lints.push(Lint::Fails(CompileError { message, range, help: Some(help.to_owned()) }));
    }

    fn odd(&mut self, expression: &'p IdedExpr, message: String) {
        let range = self.search.range(expression);
        self.lints.push(Lint::Odd(CompileError { message, range, help: Some(CONVERT.to_owned()) }));
    }
}

const CONVERT: &str = "`int(...)`, `double(...)`, `string(...)` and `timestamp(...)` convert";

/// Those of which some operation takes two.
const CLASSES: [Class; 7] =
    [Class::Number, Class::Text, Class::Bool, Class::Time, Class::Duration, Class::Bytes, Class::List];
