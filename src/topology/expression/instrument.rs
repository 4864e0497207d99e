//! An expression with the functions in it that count its steps, and that go through maps in order.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};
use cel::common::types::CelInt;

use super::functions::{MADE, MATCHES, RANGE, SEEN, STEP};

/// The expression as it is evaluated. It has the same results, but for patterns too large and for more steps than it
/// may take.
pub(super) fn instrumented(expression: &IdedExpr, is_namespace: &dyn Fn(&str, &str) -> bool) -> IdedExpr {
    let mut instrumented = expression.clone();
    Instrument { is_namespace }.visit(&mut instrumented);
    instrumented
}

/// The expressions in an entry of a map or a struct.
pub(super) fn of_entry(entry: &EntryExpr) -> impl Iterator<Item = &IdedExpr> {
    let (key, value) = match entry {
        EntryExpr::StructField(field) => (None, &field.value),
        EntryExpr::MapEntry(entry) => (Some(&entry.key), &entry.value),
    };
    key.into_iter().chain([value])
}

/// The parts of an expression, without those of loops in it: what evaluating it once costs.
pub(super) fn parts(expression: &IdedExpr) -> u64 {
    let all = |parts_of: &[IdedExpr]| parts_of.iter().map(parts).sum::<u64>();
    let entry = |entry: &EntryExpr| of_entry(entry).map(parts).sum::<u64>();
    1 + match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => 0,
        Expr::Select(select) => parts(&select.operand),
        Expr::Call(call) => all(&call.args) + call.target.as_deref().map_or(0, parts),
        Expr::List(list) => all(&list.elements),
        Expr::Map(map) => map.entries.iter().map(|of| entry(&of.expr)).sum(),
        Expr::Struct(value) => value.entries.iter().map(|of| entry(&of.expr)).sum(),
        Expr::Comprehension(each) => parts(&each.iter_range) + parts(&each.accu_init) + parts(&each.result),
    }
}

/// How deep loops are within each other; 0: there is none.
pub(super) fn loops(expression: &IdedExpr) -> usize {
    let all = |parts: &[IdedExpr]| parts.iter().map(loops).max().unwrap_or(0);
    let entry = |entry: &EntryExpr| of_entry(entry).map(loops).max().unwrap_or(0);
    match &expression.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => 0,
        Expr::Select(select) => loops(&select.operand),
        Expr::Call(call) => all(&call.args).max(call.target.as_deref().map_or(0, loops)),
        Expr::List(list) => all(&list.elements),
        Expr::Map(map) => map.entries.iter().map(|of| entry(&of.expr)).max().unwrap_or(0),
        Expr::Struct(value) => value.entries.iter().map(|of| entry(&of.expr)).max().unwrap_or(0),
        Expr::Comprehension(each) => {
            let within = loops(&each.loop_cond).max(loops(&each.loop_step));
            let beside = loops(&each.iter_range).max(loops(&each.accu_init)).max(loops(&each.result));
            beside.max(1 + within)
        }
    }
}

struct Instrument<'n> {
    /// Whether a name and that of a function are a function of their own, as `optional.of`.
    is_namespace: &'n dyn Fn(&str, &str) -> bool,
}

impl Instrument<'_> {
    fn visit(&self, expression: &mut IdedExpr) {
        match &mut expression.expr {
            Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
            Expr::Select(select) => self.visit(&mut select.operand),
            Expr::Call(call) => self.call(call),
            Expr::List(list) => list.elements.iter_mut().for_each(|element| {
                self.visit(element);
                wrap(element, MADE);
            }),
            Expr::Map(map) => map.entries.iter_mut().for_each(|entry| self.entry(&mut entry.expr)),
            Expr::Struct(value) => value.entries.iter_mut().for_each(|entry| self.entry(&mut entry.expr)),
            Expr::Comprehension(each) => self.each(each),
        }
    }

    fn entry(&self, entry: &mut EntryExpr) {
        match entry {
            EntryExpr::StructField(field) => {
                self.visit(&mut field.value);
                wrap(&mut field.value, MADE);
            }
            EntryExpr::MapEntry(entry) => {
                self.visit(&mut entry.key);
                self.visit(&mut entry.value);
                wrap(&mut entry.value, MADE);
            }
        }
    }

    fn call(&self, call: &mut CallExpr) {
        call.args.iter_mut().for_each(|argument| self.visit(argument));
        match (call.func_name.as_str(), call.args.as_mut_slice()) {
            (operators::ADD, operands) => operands.iter_mut().for_each(|operand| wrap(operand, MADE)),
            (
                operators::EQUALS
                | operators::NOT_EQUALS
                | operators::LESS
                | operators::LESS_EQUALS
                | operators::GREATER
                | operators::GREATER_EQUALS,
                [left, right],
            ) => {
                // what is compared with a literal is looked at no further than that is long
                if !is_literal(left) && !is_literal(right) {
                    wrap(left, SEEN);
                    wrap(right, SEEN);
                }
            }
            (operators::IN, [left, right]) => {
                wrap(left, SEEN);
                wrap(right, SEEN);
            }
            (name, _) if !name.starts_with(|char: char| char.is_ascii_alphabetic()) => {}
            (name, _) => {
                let name = name.to_owned();
                self.function(call, &name);
            }
        }
    }

    fn function(&self, call: &mut CallExpr, name: &str) {
        if let Some(target) = call.target.as_deref_mut() {
            match &target.expr {
                Expr::Ident(namespace) if (self.is_namespace)(namespace, name) => {}
                _ => {
                    self.visit(target);
                    wrap(target, MADE);
                }
            }
        }
        call.args.iter_mut().for_each(|argument| wrap(argument, MADE));
        if name == "matches"
            && call.args.len() == 1
            && let Some(text) = call.target.take()
        {
            call.func_name = MATCHES.to_owned();
            call.args.insert(0, *text);
        }
    }

    fn each(&self, each: &mut ComprehensionExpr) {
        let round = parts(&each.loop_cond) + parts(&each.loop_step);
        for part in
            [&mut each.iter_range, &mut each.accu_init, &mut each.loop_cond, &mut each.loop_step, &mut each.result]
        {
            self.visit(part);
        }
        wrap_always(&mut each.iter_range, RANGE, None);
        // Where it is counted must not hide from the evaluator that a step only appends to a list.
        let counted = match &mut each.loop_step.expr {
            _ if !is_literal(&each.loop_cond) => &mut each.loop_cond,
            Expr::Call(call) => match (call.func_name.as_str(), call.args.as_mut_slice()) {
                (operators::CONDITIONAL, [condition, ..]) => condition,
                (operators::ADD, [_, IdedExpr { expr: Expr::List(list), .. }]) if list.elements.len() == 1 => {
                    match list.elements.first_mut() {
                        Some(element) => element,
                        None => return,
                    }
                }
                _ => &mut each.loop_step,
            },
            _ => &mut each.loop_step,
        };
        wrap_always(counted, STEP, Some(round));
    }
}

fn is_literal(expression: &IdedExpr) -> bool {
    matches!(expression.expr, Expr::Literal(_))
}

/// Puts a function around what may be large.
fn wrap(expression: &mut IdedExpr, function: &str) {
    match &expression.expr {
        // a list counts its elements; `@…` is what a loop has made so far, whose parts have counted
        Expr::Literal(_) | Expr::List(_) | Expr::Map(_) => {}
        Expr::Ident(name) if name.starts_with('@') => {}
        _ => wrap_always(expression, function, None),
    }
}

fn wrap_always(expression: &mut IdedExpr, function: &str, number: Option<u64>) {
    let id = expression.id;
    let mut args = vec![std::mem::take(expression)];
    if let Some(number) = number {
        let number = CelInt::from(i64::try_from(number).unwrap_or(i64::MAX));
        args.push(IdedExpr { id, expr: Expr::Literal(LiteralValue::Int(number)) });
    }
    *expression = IdedExpr { id, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) };
}
