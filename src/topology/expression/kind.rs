//! What an expression can be at all, as far as it shows without an event.
//!
//! Promises: an expression that is refused here has no usable result for any event. What depends on data is not
//! refused: data may be anything.

use std::ops::Range;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};

use super::path::{FRACTION, LIST, NULL, OBJECT};
use super::{CompileError, Expression, Form, Variable};

pub(super) const BYTES: &str = "bytes";
pub(super) const DURATION: &str = "a duration";
pub(super) const TIME: &str = "a time";

/// The required kind of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequiredKind {
    /// A text, or a value that has one: a whole number or a boolean.
    Text,
    /// `true` or `false`.
    Bool,
}

impl RequiredKind {
    /// In words, with its article.
    pub(super) fn described(self) -> &'static str {
        match self {
            RequiredKind::Text => "a text, a whole number or a boolean",
            RequiredKind::Bool => "`true` or `false`",
        }
    }

    fn fits(self, kind: ResultKind) -> bool {
        match kind {
            ResultKind::Any | ResultKind::Bool => true,
            ResultKind::Text | ResultKind::Whole | ResultKind::Computed => self == RequiredKind::Text,
            ResultKind::Other(_) => false,
        }
    }
}

/// The known kind of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ResultKind {
    Any,
    Bool,
    Text,
    Whole,
    /// Of arithmetic: a number, a text or a list, never a boolean.
    Computed,
    /// A kind without a text; with its article.
    Other(&'static str),
}

impl ResultKind {
    pub(super) fn described(self) -> &'static str {
        match self {
            ResultKind::Any => "anything",
            ResultKind::Bool => "a boolean",
            ResultKind::Text => "a text",
            ResultKind::Whole => "a whole number",
            ResultKind::Computed => "a number, a text or a list",
            ResultKind::Other(described) => described,
        }
    }
}

/// Parts of an expression that can never have the required kind.
pub(super) fn misfits(expression: &Expression, wanted: RequiredKind) -> Vec<CompileError> {
    let text = &expression.text;
    let kind = match &expression.form {
        Form::Data(_) => ResultKind::Any,
        // Or null, which is no better than a text where a boolean is needed.
        Form::Attribute(_) | Form::Field(_) => ResultKind::Text,
        Form::Program(program) => {
            let info = program.program.source_info();
            let mut search = Search::new(text, info);
            search.visit(program.program.expression(), wanted);
            return search.errors;
        }
    };
    let start = text.len() - text.trim_start().len();
    let whole = start..text.trim_end().len();
    if wanted.fits(kind) { Vec::new() } else { vec![misfit(kind, wanted, whole)] }
}

fn misfit(kind: ResultKind, wanted: RequiredKind, range: Range<usize>) -> CompileError {
    let message = format!("this is {}; {} is needed", kind.described(), wanted.described());
    let help = match (wanted, kind) {
        (RequiredKind::Text, _) => {
            "take a part of it, such as `data.order_id`, or make a text of it with `string(...)`"
        }
        (RequiredKind::Bool, ResultKind::Text) => "compare it, as in `type == \"order.paid\"`",
        (RequiredKind::Bool, ResultKind::Other(LIST)) => "ask for an item, as in `\"vip\" in data.tags`",
        (RequiredKind::Bool, _) => "compare it, as in `data.amount > 100`; `has(data.amount)` asks whether it is there",
    };
    CompileError { message, range, help: Some(help.into()) }
}

pub(super) struct Search<'p> {
    text: &'p str,
    info: &'p SourceInfo,
    /// Variables that the expression itself declares.
    scope: Vec<(&'p str, ResultKind)>,
    errors: Vec<CompileError>,
}

impl<'p> Search<'p> {
    pub(super) fn new(text: &'p str, info: &'p SourceInfo) -> Self {
        Self { text, info, scope: Vec::new(), errors: Vec::new() }
    }

    /// The expression has declared these variables, of which nothing is known. What [`Self::forget`] needs.
    pub(super) fn declare(&mut self, names: impl Iterator<Item = &'p str>) -> usize {
        let outer = self.scope.len();
        self.scope.extend(names.map(|name| (name, ResultKind::Any)));
        outer
    }

    pub(super) fn forget(&mut self, outer: usize) {
        self.scope.truncate(outer);
    }

    /// Whether the expression itself has declared it.
    pub(super) fn is_declared(&self, name: &str) -> bool {
        self.scope.iter().any(|(known, _)| *known == name)
    }

    /// Reports a part that cannot have the required kind, at the place that decides it.
    fn visit(&mut self, expression: &'p IdedExpr, wanted: RequiredKind) {
        if let Expr::Call(call) = &expression.expr {
            match (call.func_name.as_str(), call.args.as_slice()) {
                (operators::CONDITIONAL, [condition, yes, no]) => {
                    self.visit(condition, RequiredKind::Bool);
                    self.visit(yes, wanted);
                    return self.visit(no, wanted);
                }
                (operators::LOGICAL_AND | operators::LOGICAL_OR | operators::LOGICAL_NOT, operands) => {
                    return operands.iter().for_each(|operand| self.visit(operand, RequiredKind::Bool));
                }
                _ => {}
            }
        }
        let kind = self.kind(expression);
        if !wanted.fits(kind) {
            let range = self.range(expression);
            self.errors.push(misfit(kind, wanted, range));
        }
    }

    pub(super) fn kind(&mut self, expression: &'p IdedExpr) -> ResultKind {
        match &expression.expr {
            Expr::Literal(literal) => match literal {
                LiteralValue::Boolean(_) => ResultKind::Bool,
                LiteralValue::String(_) => ResultKind::Text,
                LiteralValue::Int(_) | LiteralValue::UInt(_) => ResultKind::Whole,
                LiteralValue::Double(_) => ResultKind::Other(FRACTION),
                LiteralValue::Bytes(_) => ResultKind::Other(BYTES),
                LiteralValue::Null => ResultKind::Other(NULL),
            },
            Expr::Ident(name) => self.variable(name),
            Expr::Select(select) if select.test => ResultKind::Bool,
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(name) if self.is_attributes(name) => ResultKind::Text,
                _ => ResultKind::Any,
            },
            Expr::Call(call) => self.call(call),
            Expr::List(_) => ResultKind::Other(LIST),
            Expr::Map(_) => ResultKind::Other(OBJECT),
            // What a macro stands for begins with a value of the kind that it ends with.
            Expr::Comprehension(each) => {
                let accumulated = self.kind(&each.accu_init);
                self.scope.push((&each.accu_var, accumulated));
                let kind = self.kind(&each.result);
                self.scope.pop();
                kind
            }
            Expr::Struct(_) | Expr::Unspecified => ResultKind::Any,
        }
    }

    fn variable(&self, name: &str) -> ResultKind {
        if let Some((_, kind)) = self.scope.iter().rev().find(|(known, _)| *known == name) {
            return *kind;
        }
        match Variable::named(name.trim_start_matches('.')) {
            Some(Variable::Attributes) => ResultKind::Other(OBJECT),
            Some(Variable::Field(_)) => ResultKind::Text,
            Some(Variable::Data) => ResultKind::Any,
            None => ResultKind::Other("a type"),
        }
    }

    fn is_attributes(&self, name: &str) -> bool {
        !self.is_declared(name) && Variable::named(name.trim_start_matches('.')) == Some(Variable::Attributes)
    }

    fn call(&mut self, call: &'p CallExpr) -> ResultKind {
        match call.func_name.as_str() {
            operators::EQUALS
            | operators::NOT_EQUALS
            | operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS
            | operators::IN
            | operators::LOGICAL_AND
            | operators::LOGICAL_OR
            | operators::LOGICAL_NOT
            | operators::NOT_STRICTLY_FALSE
            | "bool"
            | "contains"
            | "endsWith"
            | "hasValue"
            | "matches"
            | "startsWith" => ResultKind::Bool,
            operators::CONDITIONAL => match call.args.as_slice() {
                [_, yes, no] => {
                    let (yes, no) = (self.kind(yes), self.kind(no));
                    if yes == no { yes } else { ResultKind::Any }
                }
                _ => ResultKind::Any,
            },
            operators::ADD
            | operators::SUBSTRACT
            | operators::MULTIPLY
            | operators::DIVIDE
            | operators::MODULO
            | operators::NEGATE => {
                // Both sides are of one kind, or it fails.
                let kinds = call.args.iter().map(|argument| self.kind(argument)).collect::<Vec<_>>();
                kinds
                    .into_iter()
                    .find(|kind| matches!(kind, ResultKind::Text | ResultKind::Whole))
                    .unwrap_or(ResultKind::Computed)
            }
            "string" => ResultKind::Text,
            "int" | "size" | "uint" => ResultKind::Whole,
            "double" => ResultKind::Other(FRACTION),
            "duration" => ResultKind::Other(DURATION),
            "timestamp" => ResultKind::Other(TIME),
            "type" => ResultKind::Other("a type"),
            _ => ResultKind::Any,
        }
    }

    /// Where a part of the expression is in its text.
    pub(super) fn range(&self, expression: &'p IdedExpr) -> Range<usize> {
        let mut place: Option<(u32, u32)> = None;
        each_node(expression, &mut |node| {
            if let Some((start, stop)) = self.info.offset_for(node.id) {
                let (first, last) = place.unwrap_or((start, stop));
                place = Some((first.min(start), last.max(stop)));
            }
        });
        let byte = |at: u32| self.text.floor_char_boundary(at as usize);
        match place {
            Some((start, stop)) => whole_words(self.text, byte(start)..byte(stop.saturating_add(1))),
            None => 0..self.text.len(),
        }
    }
}

/// A range with what belongs to its ends: places of nodes are those of their operators, so the name of a function may
/// be missing in front, and the rest of a name, or a closing bracket, behind.
fn whole_words(text: &str, Range { start, end }: Range<usize>) -> Range<usize> {
    let in_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let before = text.get(..start).unwrap_or_default();
    let begins = text.get(start..).unwrap_or_default();
    let name = if begins.starts_with('(') { before.len() - before.trim_end_matches(in_name).len() } else { 0 };
    let (mut depth, mut quote, mut last) = (0_i32, None, ' ');
    let mut behind = text.len();
    for (at, char) in begins.char_indices().map(|(at, char)| (start + at, char)) {
        let continues = depth > 0 || quote.is_some() || in_name(char) && (in_name(last) || last == '.');
        if at >= end && !continues {
            behind = at;
            break;
        }
        match (quote, char) {
            (Some(open), _) if char == open && last != '\\' => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(char),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => depth -= 1,
            (None, _) => {}
        }
        last = char;
    }
    start - name..behind
}

/// Shows the nodes of an expression that stand in its text.
fn each_node<'p>(expression: &'p IdedExpr, see: &mut dyn FnMut(&'p IdedExpr)) {
    see(expression);
    match &expression.expr {
        Expr::Select(select) => each_node(&select.operand, see),
        Expr::Call(call) => {
            call.target.iter().for_each(|target| each_node(target, see));
            call.args.iter().for_each(|argument| each_node(argument, see));
        }
        Expr::List(list) => list.elements.iter().for_each(|element| each_node(element, see)),
        Expr::Comprehension(each) => {
            each_node(&each.iter_range, see);
            each_node(&each.loop_step, see);
        }
        Expr::Map(_) | Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}
