//! From an event to what an expression is for it.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use cel::objects::{Key, Map};
use cel::{Context, ExecutionError, Value};

use super::compile::ENV;
use super::path::{self, Lookup, Outcome};
use super::{EventFields, Expression, ExpressionError, Form, Program, Variable, functions};
use crate::model::json::is_json;
use crate::topology::budget::{self, TooManySteps};

/// The text of `expression` for `event`.
pub(super) fn text(expression: &Expression, event: &EventFields<'_>) -> Result<String, ExpressionError> {
    match outcome(expression, event)? {
        Outcome::Text(text) => Ok(text),
        Outcome::Whole(number) => Ok(number.to_string()),
        Outcome::Bool(value) => Ok(value.to_string()),
        Outcome::Other(found) => Err(ExpressionError::NotText { expression: expression.text.to_string(), found }),
    }
}

/// Whether `expression` is true for `event`.
pub(super) fn truth(expression: &Expression, event: &EventFields<'_>) -> Result<bool, ExpressionError> {
    let found = match outcome(expression, event)? {
        Outcome::Bool(value) => return Ok(value),
        Outcome::Text(_) => "a text",
        Outcome::Whole(_) => "a whole number",
        Outcome::Other(found) => found,
    };
    Err(ExpressionError::NotBool { expression: expression.text.to_string(), found })
}

fn outcome(expression: &Expression, event: &EventFields<'_>) -> Result<Outcome, ExpressionError> {
    let missing = |path: &str| ExpressionError::Missing { expression: expression.text.to_string(), path: path.into() };
    match &expression.form {
        Form::Field(field) => {
            let value = field.of(event).ok_or_else(|| missing(Variable::Field(*field).name()))?;
            Ok(Outcome::Text(value.to_owned()))
        }
        Form::Attribute(wanted) => {
            let mut found = None;
            event.attributes.each(&mut |name, value| {
                if name == wanted.as_ref() {
                    found = Some(Outcome::Text(value.to_owned()));
                }
            });
            found.ok_or_else(|| missing(&format!("attributes.{wanted}")))
        }
        Form::Data(segments) => {
            json(expression, event.content_type)?;
            match path::find(event.data, segments).map_err(|error| broken(expression, &error))? {
                Lookup::Value(value) => Ok(value),
                Lookup::Missing(depth) => {
                    let there = segments.iter().take(depth + 1).map(String::as_str);
                    let path: Vec<&str> = ["data"].into_iter().chain(there).collect();
                    Err(missing(&path.join(".")))
                }
            }
        }
        Form::Program(program) => run(expression, program, event),
    }
}

/// The data as CEL sees it, once it is asked for.
struct LazyData<'e> {
    expression: &'e Expression,
    content_type: Option<&'e str>,
    data: &'e [u8],
    read: OnceLock<Result<Box<dyn Val>, ExpressionError>>,
}

impl LazyData<'_> {
    fn read(&self) -> Result<Box<dyn Val>, ExpressionError> {
        json(self.expression, self.content_type)?;
        let data = serde_json::from_slice(self.data).map_err(|error| broken(self.expression, &error))?;
        value(data).try_into().map_err(|error: ExecutionError| failed(self.expression, &error))
    }
}

impl VariableResolver for LazyData<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if variable != Variable::Data.name() {
            return None;
        }
        let read = self.read.get_or_init(|| self.read());
        read.as_ref().ok().map(|data| CowVal::Borrowed(&**data))
    }
}

fn run(expression: &Expression, program: &Program, event: &EventFields<'_>) -> Result<Outcome, ExpressionError> {
    let data = LazyData { expression, content_type: event.content_type, data: event.data, read: OnceLock::new() };
    let mut context = Context::with_env(Arc::clone(&ENV));
    for variable in &program.variables {
        let value = match variable {
            Variable::Data => continue,
            Variable::Attributes => {
                let mut attributes = HashMap::new();
                event.attributes.each(&mut |name, value| {
                    attributes.insert(Key::from(name.to_owned()), Value::from(value.to_owned()));
                });
                Value::Map(Map { map: Arc::new(attributes) })
            }
            Variable::Field(field) => field.of(event).map_or(Value::Null, |text| Value::from(text.to_owned())),
        };
        context.add_variable_from_value(variable.name(), value);
    }
    context.set_variable_resolver(&data);
    let steps = budget::of_data(event.data.len());
    functions::begin();
    let value = budget::within(steps, || {
        budget::spend(program.parts);
        context.resolve(&program.counted)
    });
    let value = value.map_err(|TooManySteps { budget }| ExpressionError::TooManySteps {
        expression: expression.text.to_string(),
        steps: budget,
    })?;
    let value = value.map_err(|error| match data.read.get() {
        // that is why
        Some(Err(unreadable)) => unreadable.clone(),
        _ => failed(expression, &error),
    })?;
    Ok(match value {
        Value::String(text) => Outcome::Text(Arc::unwrap_or_clone(text)),
        Value::Int(number) => Outcome::Whole(number.into()),
        Value::UInt(number) => Outcome::Whole(number.into()),
        Value::Bool(value) => Outcome::Bool(value),
        Value::Null => Outcome::Other(path::NULL),
        Value::Float(_) => Outcome::Other(path::FRACTION),
        Value::List(_) => Outcome::Other(path::LIST),
        Value::Map(_) | Value::Struct(_) => Outcome::Other(path::OBJECT),
        _ => Outcome::Other("of a type without a text"),
    })
}

/// JSON as CEL sees it. Whole numbers are whole numbers, as in the text of the data, and not doubles as in the mapping
/// of protobuf: a key of 17 must not become 17.0.
fn value(json: serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Value::Int(number),
            (None, Some(number)) => Value::UInt(number),
            (None, None) => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::from(text),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.into_iter().map(value).collect())),
        serde_json::Value::Object(entries) => {
            let entries = entries.into_iter().map(|(name, entry)| (Key::from(name), value(entry)));
            Value::Map(Map { map: Arc::new(entries.collect()) })
        }
    }
}

/// Whether the data says to be JSON; what says nothing is.
fn json(expression: &Expression, content_type: Option<&str>) -> Result<(), ExpressionError> {
    match content_type.filter(|content_type| !is_json(content_type)) {
        None => Ok(()),
        Some(content_type) => {
            let (expression, content_type) = (expression.text.to_string(), content_type.to_owned());
            Err(ExpressionError::NotJson { expression, content_type })
        }
    }
}

fn broken(expression: &Expression, error: &serde_json::Error) -> ExpressionError {
    ExpressionError::BrokenJson { expression: expression.text.to_string(), reason: error.to_string() }
}

fn failed(expression: &Expression, error: &ExecutionError) -> ExpressionError {
    let expression = expression.text.to_string();
    match error {
        ExecutionError::NoSuchKey(name) => ExpressionError::Missing { expression, path: name.to_string() },
        error => ExpressionError::Failed { expression, reason: reason(error) },
    }
}

/// Why it fails, without the words of another library for plain cases.
pub(super) fn reason(error: &ExecutionError) -> String {
    match error {
        ExecutionError::FunctionError { message, .. } => message.clone(),
        error => error.to_string(),
    }
}
