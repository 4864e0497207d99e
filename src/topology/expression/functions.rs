//! Functions that no expression can name, and that compiling puts into it: they count steps, and go through maps in
//! order.
//!
//! | function | gives |
//! |---|---|
//! | `@seen(x)` | `x`, for an operation that looks at all of it |
//! | `@made(x)` | `x`, for an operation that makes as much anew |
//! | `@step(x, n)` | `x`, once for each round of a loop whose body has `n` parts |
//! | `@range(x)` | what a loop goes through: of a map its keys, in order (numbers, then booleans, then texts) |
//! | `@matches(x, pattern)` | `x.matches(pattern)`, of which each pattern is compiled once |

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use cel::common::types::{CelBool, CelBytes, CelInt, CelList, CelMap, CelMapKey, CelString};
use cel::common::types::{DYN_TYPE, INT_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{Env, ExecutionError};
use regex::{Regex, RegexBuilder};

use crate::topology::budget::spend;

pub(super) const SEEN: &str = "@seen";
pub(super) const MADE: &str = "@made";
pub(super) const STEP: &str = "@step";
pub(super) const RANGE: &str = "@range";
pub(super) const MATCHES: &str = "@matches";

/// Steps of a value in addition to its bytes: it takes about as much memory as 16 bytes take steps.
const VALUE_STEPS: u64 = 4;
/// Bytes that one step looks at.
const SEEN_BYTES: u64 = 16;
/// Bytes that one step makes.
const MADE_BYTES: u64 = 4;
/// Steps to compile a pattern, in addition to those of its length.
const PATTERN_STEPS: u64 = 5_000;
/// Bytes that a compiled pattern may take.
const PATTERN_BYTES_MAX: usize = 256 << 10;
/// Compiled patterns of a thread.
const PATTERNS_MAX: usize = 64;

/// The functions and types of CEL, and these.
pub(super) fn env() -> Env {
    let mut env = Env::stdlib();
    let any = || vec![DYN_TYPE];
    let added = [
        env.add_overload(SEEN, "@seen_dyn", any(), seen),
        env.add_overload(MADE, "@made_dyn", any(), made),
        env.add_overload(STEP, "@step_dyn_int", vec![DYN_TYPE, INT_TYPE], step),
        env.add_overload(RANGE, "@range_dyn", any(), range),
        env.add_overload(MATCHES, "@matches_string_string", vec![STRING_TYPE, STRING_TYPE], matches),
    ];
    debug_assert!(added.iter().all(Result::is_ok), "{added:?}");
    env
}

type Argument<'b, 'v> = Result<CowVal<'b, 'v>, ExecutionError>;

fn first<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Argument<'b, 'v> {
    let first = arguments.into_iter().next();
    first.ok_or_else(|| ExecutionError::InternalError("a function without its argument".to_owned()))
}

fn seen<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Argument<'b, 'v> {
    let value = first(arguments)?;
    walk(&*value, SEEN_BYTES);
    Ok(value)
}

fn made<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Argument<'b, 'v> {
    let value = first(arguments)?;
    walk(&*value, MADE_BYTES);
    Ok(value)
}

fn step<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Argument<'b, 'v> {
    let parts = arguments.get(1).and_then(|parts| parts.downcast_ref::<CelInt>()).map_or(1, |parts| *parts.inner());
    spend(parts.unsigned_abs());
    first(arguments)
}

fn range<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Argument<'b, 'v> {
    let value = first(arguments)?;
    walk(&*value, MADE_BYTES); // each of its values is copied for its round
    let Some(map) = value.downcast_ref::<CelMap<'v>>() else { return Ok(value) };
    let mut keys: Vec<&CelMapKey<'v>> = map.inner().keys().collect();
    keys.sort_unstable_by_key(|key| rank(key));
    let keys: Vec<Box<dyn Val + 'v>> = keys.into_iter().map(|key| key.inner().clone_as_boxed()).collect();
    Ok(CowVal::owned(CelList::from(keys)))
}

/// Numbers by their value, then booleans, then texts.
fn rank<'k>(key: &'k CelMapKey<'_>) -> (u8, i128, &'k str) {
    match key {
        CelMapKey::Int(number) => (0, (*number.inner()).into(), ""),
        CelMapKey::UInt(number) => (0, (*number.inner()).into(), ""),
        CelMapKey::Bool(value) => (1, (*value.inner()).into(), ""),
        CelMapKey::String(text) => (2, 0, text.inner()),
    }
}

/// Counts all of a value.
fn walk(value: &dyn Val, bytes_per_step: u64) {
    if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        spend(1 + text.inner().len() as u64 / bytes_per_step);
    } else if let Some(bytes) = value.downcast_ref::<CelBytes<'_>>() {
        spend(1 + bytes.inner().len() as u64 / bytes_per_step);
    } else if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        spend(VALUE_STEPS * (1 + list.inner().len() as u64));
        list.inner().iter().for_each(|value| walk(&**value, bytes_per_step));
    } else if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        spend(VALUE_STEPS * (1 + map.inner().len() as u64));
        for (key, value) in map.inner() {
            walk(key.inner(), bytes_per_step);
            walk(&**value, bytes_per_step);
        }
    } else {
        spend(1);
    }
}

/// Patterns of a thread.
#[derive(Default)]
struct Patterns {
    /// Compiled lately.
    compiled: HashMap<String, Result<Regex, String>>,
    /// Whose compilation this evaluation has counted. Earlier evaluations must not change its cost.
    counted: HashSet<String>,
}

thread_local! {
    static PATTERNS: RefCell<Patterns> = RefCell::default();
}

/// Another evaluation begins.
pub(super) fn begin() {
    PATTERNS.with_borrow_mut(|patterns| patterns.counted.clear());
}

/// Compiles a pattern for `matches`.
///
/// # Errors
/// It is none, or it would take too much memory.
pub(super) fn compile_pattern(pattern: &str) -> Result<Regex, String> {
    let compiled = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build();
    compiled.map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => format!("`{pattern}` is too large a pattern"),
        _ => format!("`{pattern}` is not a pattern"),
    })
}

fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Argument<'b, 'v> {
    let texts = arguments.first().zip(arguments.get(1));
    let texts = texts.and_then(|(text, pattern)| {
        Some((text.downcast_ref::<CelString<'v>>()?, pattern.downcast_ref::<CelString<'v>>()?))
    });
    let Some((text, pattern)) = texts else {
        return Err(ExecutionError::function_error("matches", "it needs two texts"));
    };
    let (text, pattern) = (text.inner(), pattern.inner());
    spend(1 + text.len() as u64 / SEEN_BYTES);
    if !PATTERNS.with_borrow(|patterns| patterns.counted.contains(pattern)) {
        spend(PATTERN_STEPS + pattern.len() as u64);
    }
    let found = PATTERNS.with_borrow_mut(|Patterns { compiled, counted }| {
        counted.insert(pattern.to_owned());
        if compiled.len() >= PATTERNS_MAX && !compiled.contains_key(pattern) {
            compiled.clear();
        }
        let regex = compiled.entry(pattern.to_owned()).or_insert_with(|| compile_pattern(pattern));
        regex.as_ref().map(|regex| regex.is_match(text)).map_err(Clone::clone)
    });
    found.map(|found| CowVal::owned(CelBool::from(found))).map_err(|why| ExecutionError::function_error("matches", why))
}
