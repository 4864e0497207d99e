//! The kinds of values that a topology has: how each is read, and its JSON Schema.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::bounds::{DURATION_MAX, NAME_BYTES_MAX};
use super::data_schema::DataSchema;
use super::diagnostic::{Code, Diagnostic, Span};
use super::expression::{self, KeyExpression};
use super::names;
use super::reader::{Field, FromNode, Owner, Reader};
use super::schema_parts;
use super::yaml::{NodeRef, View};
use super::{PathKind, plan};
use crate::model::Time;
use crate::model::units::{self, UnitError};

/// Implements the schema of a value: always inline, so that editors show it where it is used.
macro_rules! inline_schema {
    (generic [$($generics:tt)*] $type:ty, $schema:expr) => {
        impl<$($generics)*> JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                $schema
            }
        }
    };
    ($type:ty, $schema:expr) => {
        inline_schema!(generic [] $type, $schema);
    };
}

pub(crate) use inline_schema;

/// Any text that is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word(pub(crate) String);

inline_schema!(Word, json_schema!({ "type": "string", "minLength": 1 }));

impl FromNode for Word {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a text")?;
        if text.text.trim().is_empty() {
            return reader.bad(text.span, format!("`{}` is empty", owner.key), "write a text, or remove the key");
        }
        Some(Word(text.text.into_owned()))
    }
}

/// A declared name; an invalid one is reported and kept, so that references find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name(pub(crate) String);

/// The rule of [`names`] as a regular expression.
pub(crate) fn name_pattern() -> String {
    format!("^[a-z0-9][a-z0-9._-]{{0,{}}}$", NAME_BYTES_MAX - 1)
}

inline_schema!(Name, schema_parts::text(&name_pattern(), &["shop"]));

impl Name {
    /// Reports problems of a name.
    pub(crate) fn check(name: &str, span: Span, reader: &mut Reader<'_>) {
        if let Some((message, help)) = names::problem(name) {
            reader.bad::<()>(span, message, help);
        }
    }
}

impl FromNode for Name {
    fn read(node: NodeRef<'_>, _: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a name")?;
        Name::check(&text.text, text.span, reader);
        Some(Name(text.text.into_owned()))
    }
}

/// A whole number between bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Count<const MIN: u32, const MAX: u32>(pub(crate) u32);

inline_schema!(generic [const MIN: u32, const MAX: u32] Count<MIN, MAX>, schema_parts::count(MIN, MAX));

impl<const MIN: u32, const MAX: u32> FromNode for Count<MIN, MAX> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a whole number")?;
        let range = if MAX == u32::MAX { format!("from {MIN}") } else { format!("from {MIN} to {MAX}") };
        match text.text.parse::<u32>() {
            Ok(count) if (MIN..=MAX).contains(&count) => Some(Count(count)),
            _ => {
                let message = format!("`{}` is a whole number {range}, not `{}`", owner.key, text.text);
                reader.bad(text.span, message, format!("write a whole number {range}"))
            }
        }
    }
}

/// A number between bounds, given in thousandths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number<const MIN_THOUSANDTHS: u32, const MAX_THOUSANDTHS: u32>(pub(crate) f64);

inline_schema!(
    generic [const MIN: u32, const MAX: u32] Number<MIN, MAX>,
    json_schema!({
        "type": ["number", "string"],
        "minimum": f64::from(MIN) / 1e3,
        "maximum": f64::from(MAX) / 1e3,
        "pattern": r"^\d+(\.\d+)?$|\$\{",
    })
);

impl<const MIN: u32, const MAX: u32> FromNode for Number<MIN, MAX> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a number")?;
        let (min, max) = (f64::from(MIN) / 1e3, f64::from(MAX) / 1e3);
        match text.text.parse::<f64>() {
            Ok(number) if (min..=max).contains(&number) => Some(Number(number)),
            _ => {
                let message = format!("`{}` is a number from {min} to {max}, not `{}`", owner.key, text.text);
                reader.bad(text.span, message, format!("write a number from {min} to {max}"))
            }
        }
    }
}

/// `true` or `false`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

inline_schema!(Flag, json_schema!({ "type": ["boolean", "string"], "pattern": r"^(true|false)$|\$\{" }));

impl FromNode for Flag {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "`true` or `false`")?;
        match text.text.as_ref() {
            "true" => Some(Flag(true)),
            "false" => Some(Flag(false)),
            other => {
                let message = format!("`{}` is `true` or `false`, not `{other}`", owner.key);
                reader.bad(text.span, message, "write `true` or `false`")
            }
        }
    }
}

/// A duration between bounds, given in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Period<const MIN_MS: u64, const MAX_MS: u64>(pub(crate) Duration);

/// The longest duration, in milliseconds.
pub(crate) const MS_MAX: u64 = DURATION_MAX.as_millis() as u64;

inline_schema!(
    generic [const MIN: u64, const MAX: u64] Period<MIN, MAX>,
    schema_parts::text(r"^(\d+(\.\d+)?\s*(ns|us|ms|s|m|h|d|w)\s*)+$", &["100ms", "30s", "10m", "7d"])
);

impl<const MIN: u64, const MAX: u64> FromNode for Period<MIN, MAX> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a duration")?;
        let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
        match units::duration(&text.text) {
            Ok(duration) if (min..=max).contains(&duration) => Some(Period(duration)),
            Ok(_) => {
                let (min, max) = (units::show_duration(min), units::show_duration(max));
                let message = format!("`{}` is from {min} to {max}, not `{}`", owner.key, text.text);
                reader.bad(text.span, message, format!("write a duration from {min} to {max}"))
            }
            Err(error) => {
                let units = "units are ms, s, m (minutes), h, d, w; for example 100ms, 30s, 10m, 7d";
                let message = format!("`{}` is a duration, not `{}`: {error}", owner.key, text.text);
                reader.bad(text.span, message, with_unit(&error, &text.text, &units::TIMES_LIKELY, units))
            }
        }
    }
}

/// A size between bounds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size<const MIN: u64, const MAX: u64>(pub(crate) u64);

inline_schema!(
    generic [const MIN: u64, const MAX: u64] Size<MIN, MAX>,
    schema_parts::text(r"^\d+(\.\d+)?\s*([kMGT]B|[KMGT]iB|B)$", &["512KiB", "64MiB", "10GiB"])
);

impl<const MIN: u64, const MAX: u64> FromNode for Size<MIN, MAX> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a size")?;
        match units::size(&text.text) {
            Ok(bytes) if (MIN..=MAX).contains(&bytes) => Some(Size(bytes)),
            Ok(_) => {
                let min = units::show_size(MIN);
                let (range, help) = match MAX {
                    u64::MAX => (format!("{min} or more"), format!("write a size of {min} or more")),
                    _ => {
                        let range = format!("from {min} to {}", units::show_size(MAX));
                        let help = format!("write a size {range}");
                        (range, help)
                    }
                };
                reader.bad(text.span, format!("`{}` is {range}, not `{}`", owner.key, text.text), help)
            }
            Err(error) => {
                let units = "units are B, KiB, MiB, GiB, TiB, or kB, MB, GB, TB; for example 512KiB, 64MiB, 10GiB";
                let message = format!("`{}` is a size, not `{}`: {error}", owner.key, text.text);
                reader.bad(text.span, message, with_unit(&error, &text.text, &units::SIZES_LIKELY, units))
            }
        }
    }
}

/// Help for a quantity; if only the unit is missing, the possible values.
fn with_unit(error: &UnitError, text: &str, likely: &[&str], units: &str) -> String {
    match error {
        UnitError::NoUnit => format!("write {}; {units}", units::likely(text, likely)),
        _ => units.to_owned(),
    }
}

/// A mapping with the keys `age` and `size`. A quantity instead of it is reported with the key that it lacks.
#[derive(Debug, Clone)]
pub(crate) struct ByQuantity<T>(pub(crate) T);

impl<T: JsonSchema> JsonSchema for ByQuantity<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: FromNode> FromNode for ByQuantity<T> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let View::Scalar(_) = node.view() else { return T::read(node, owner, reader).map(ByQuantity) };
        let text = reader.text(node, "a mapping")?;
        let (key, given) = (owner.key, text.text.trim());
        let (message, help) = match (units::duration(given), units::size(given)) {
            (Ok(_), _) => {
                (format!("`{key}` has the keys `age` and `size`"), format!("write `{key}: {{ age: {given} }}`"))
            }
            (_, Ok(_)) => {
                (format!("`{key}` has the keys `age` and `size`"), format!("write `{key}: {{ size: {given} }}`"))
            }
            (Err(UnitError::NoUnit), _) => (
                format!("`{given}` has no unit, and `{key}` has the keys `age` and `size`"),
                format!("write `{key}: {{ age: {given}d }}` or `{key}: {{ size: {given}GiB }}`"),
            ),
            _ => return T::read(node, owner, reader).map(ByQuantity),
        };
        reader.bad(text.span, message, help)
    }
}

/// How many per time, as `100/s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateValue(pub(crate) plan::Rate);

inline_schema!(RateValue, schema_parts::text(r"^\d+\s*/\s*(s|m|h)$", &["100/s", "30/m"]));

impl FromNode for RateValue {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a rate")?;
        let parsed = text.text.split_once('/').and_then(|(count, unit)| {
            let events: NonZeroU32 = count.trim().parse().ok()?;
            let per = match unit.trim() {
                "s" => plan::Per::Second,
                "m" => plan::Per::Minute,
                "h" => plan::Per::Hour,
                _ => return None,
            };
            Some(RateValue(plan::Rate { events, per }))
        });
        let message = || format!("`{}` is events per time, not `{}`", owner.key, text.text);
        parsed.or_else(|| reader.bad(text.span, message(), "write a rate such as 100/s, 30/m or 500/h"))
    }
}

/// A CEL expression for a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpressionValue(pub(crate) KeyExpression);

inline_schema!(ExpressionValue, json_schema!({ "type": "string", "minLength": 1, "examples": ["data.order_id"] }));

impl FromNode for ExpressionValue {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "an expression")?;
        let expression = reader.expression(&text, KeyExpression::of)?;
        // a constant `key` puts all events in one order, which may be meant
        if expression.is_constant() && owner.key != "key" && reader.surroundings.lints() {
            let message = format!("`{}` is the same for every event", owner.key);
            let odd = Diagnostic::warning(Code::BadValue, text.span, "constant", message);
            reader.report(odd.help("name a part of the event, for example `data.order_id`"));
        }
        Some(ExpressionValue(expression))
    }
}

/// A CEL expression for `true` or `false`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConditionValue(pub(crate) expression::Condition);

inline_schema!(ConditionValue, json_schema!({ "type": "string", "minLength": 1, "examples": ["data.amount > 100"] }));

impl FromNode for ConditionValue {
    fn read(node: NodeRef<'_>, _: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "an expression")?;
        reader.expression(&text, expression::Condition::of).map(ConditionValue)
    }
}

/// A file that must be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath(pub(crate) PathBuf);

inline_schema!(FilePath, json_schema!({ "type": "string", "minLength": 1 }));

impl FromNode for FilePath {
    fn read(node: NodeRef<'_>, _: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "the path of a file")?;
        let path = reader.resolve(&*text.text);
        let found = match reader.surroundings.at(&path) {
            PathKind::File => return Some(FilePath(path)),
            PathKind::Folder { .. } => "is a folder, not a file",
            PathKind::Nothing => "does not exist",
            PathKind::Unreadable => "cannot be read: this user may not look there",
        };
        let message = format!("`{}` {found}", path.display());
        reader.bad(text.span, message, "a relative path starts from the folder of this file")
    }
}

/// A file with a JSON Schema.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SchemaFile(pub(crate) DataSchema);

inline_schema!(SchemaFile, json_schema!({ "type": "string", "minLength": 1, "examples": ["schemas/order.json"] }));

impl FromNode for SchemaFile {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let FilePath(path) = FilePath::read(node, owner, reader)?;
        match reader.data_schema(&path) {
            Ok(schema) => Some(SchemaFile(schema)),
            Err((message, help)) => reader.bad(node.span(), format!("`{}` {message}", path.display()), help),
        }
    }
}

/// A URL that events can be pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url(pub(crate) String);

inline_schema!(Url, schema_parts::text("^https?://.+$", &["https://example.test/hook"]));

impl FromNode for Url {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a URL")?;
        let host = text.text.strip_prefix("https://").or_else(|| text.text.strip_prefix("http://"));
        match host.map(|host| host.split(['/', '?', '#']).next().unwrap_or_default()) {
            Some(host) if !host.is_empty() && !text.text.contains(char::is_whitespace) => {
                Some(Url(text.text.into_owned()))
            }
            _ => {
                let message = format!("`{}` is a URL, not `{}`", owner.key, text.text);
                reader.bad(text.span, message, "write an address such as `https://example.test/hook`")
            }
        }
    }
}

/// The name of a machine, with a port or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host(pub(crate) String);

inline_schema!(Host, schema_parts::text(r"^[A-Za-z0-9.-]+(:\d+)?$", &["api.example.test"]));

impl FromNode for Host {
    fn read(node: NodeRef<'_>, _: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "the name of a host")?;
        let (name, port) = text.text.rsplit_once(':').unwrap_or((&text.text, "0"));
        let named = !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || ".-".contains(char));
        if named && port.parse::<u16>().is_ok() {
            return Some(Host(text.text.into_owned()));
        }
        let message = format!("`{}` is not the name of a host", text.text);
        reader.bad(
            text.span,
            message,
            "write it without scheme and path, such as `api.example.test` or `localhost:8080`",
        )
    }
}

/// Where a new subscriber begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartValue(pub(crate) plan::StartAt);

inline_schema!(
    StartValue,
    schema_parts::text("^(earliest|latest|start|end)$|^\\d{4}-", &["earliest", "latest", "2026-01-31T00:00:00Z"])
);

impl FromNode for StartValue {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "`earliest`, `latest` or a time")?;
        match text.text.as_ref() {
            // the second of each is what a seek calls it
            "earliest" | "start" => Some(StartValue(plan::StartAt::Earliest)),
            "latest" | "end" => Some(StartValue(plan::StartAt::Latest)),
            other => match Time::parse(other) {
                Some(time) => Some(StartValue(plan::StartAt::Time(time))),
                None => {
                    let message = format!("`{}` is `earliest`, `latest` or a time, not `{other}`", owner.key);
                    reader.bad(text.span, message, "write a time as in `2026-01-31T00:00:00Z`")
                }
            },
        }
    }
}

/// What a subscriber runs: a folder, a file, or a plugin that is stored under its name and digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plugin(pub(crate) plan::PluginSource);

inline_schema!(
    Plugin,
    json_schema!({ "type": "string", "minLength": 1, "examples": ["../plugins/validate", "build/validate.wasm"] })
);

impl FromNode for Plugin {
    fn read(node: NodeRef<'_>, _: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let text = reader.text(node, "a plugin")?;
        let written = text.text.as_ref();
        if let Some((name, digest)) = written.rsplit_once('@').filter(|_| !written.contains(['/', '\\'])) {
            return stored(name, digest, text.span, reader);
        }
        if written.trim().is_empty() {
            return reader.bad(text.span, "`plugin` is empty", "write the path of a plugin's folder or .wasm file");
        }
        let path = reader.resolve(written);
        let wasm = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("wasm"));
        let shown = path.display();
        let (message, help) = match reader.surroundings.at(&path) {
            PathKind::Folder { manifest: true } => return Some(Plugin(plan::PluginSource::Folder(path))),
            PathKind::File if wasm => return Some(Plugin(plan::PluginSource::Wasm(path))),
            PathKind::Folder { manifest: false } => (
                format!("the folder `{shown}` is not the source of a plugin: it has no manifest"),
                "it has a file such as Cargo.toml, package.json, go.mod or wattle.toml; `wattle new NAME` makes a plugin folder"
                    .to_owned(),
            ),
            PathKind::File => (
                format!("`{shown}` is a file, but not a Wasm component"),
                "name the plugin's source folder, or a file that ends with .wasm".to_owned(),
            ),
            PathKind::Unreadable => (
                format!("`{shown}` cannot be read: this user may not look there"),
                "give this user the permission to, or run this as another one".to_owned(),
            ),
            PathKind::Nothing => (
                format!("there is nothing at `{shown}`"),
                format!(
                    "a relative path starts from the folder of this file; `wattle new {}` makes a plugin folder",
                    path.file_stem().map_or("NAME".into(), |name| name.to_string_lossy())
                ),
            ),
        };
        reader.report(Diagnostic::error(Code::PluginNotFound, text.span, "no plugin here", message).help(help));
        None
    }
}

fn stored(name: &str, digest: &str, span: Span, reader: &mut Reader<'_>) -> Option<Plugin> {
    Name::check(name, span, reader);
    let hex = digest.strip_prefix("blake3:").unwrap_or(digest);
    if !(8..=64).contains(&hex.len()) || !hex.chars().all(|char| char.is_ascii_digit() || ('a'..='f').contains(&char)) {
        let message = format!("`{digest}` is not the digest of a plugin");
        return reader.bad(span, message, "a digest is 8 to 64 of the characters 0-9 and a-f");
    }
    reader.unsupported(span, "`plugin: name@digest`");
    Some(Plugin(plan::PluginSource::Stored { name: name.into(), digest: hex.into() }))
}

#[derive(Debug, Clone)]
pub(crate) struct List<T>(pub(crate) Vec<(Span, T)>);

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": generator.subschema_for::<T>() })
    }
}

impl<T: FromNode> FromNode for List<T> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let items = reader.list(node, "a list")?;
        // a missing key is reported at its item
        let of = |item: &NodeRef<'_>| match item.view() {
            View::Mapping(_) => Owner { span: item.span(), ..owner },
            _ => owner,
        };
        let read = items.filter_map(|item| Some((item.span(), T::read(item, of(&item), reader)?)));
        Some(List(read.collect()))
    }
}

/// A mapping, or `off` instead of it.
#[derive(Debug, Clone)]
pub(crate) struct OrOff<T>(pub(crate) Option<T>);

impl<T: JsonSchema> JsonSchema for OrOff<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}OrOff", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let on = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [on, { "const": "off", "description": "Not at all." }] })
    }
}

impl<T: FromNode> FromNode for OrOff<T> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let View::Mapping(_) | View::Null = node.view() {
            return T::read(node, owner, reader).map(|on| OrOff(Some(on)));
        }
        let text = reader.text(node, "a mapping or `off`")?;
        if text.text == "off" {
            return Some(OrOff(None));
        }
        let message = format!("`{}` is a mapping or `off`, not `{}`", owner.key, text.text);
        reader.bad(
            text.span,
            message,
            "write `off`, or a mapping: `{ key: value }`; in `{}` everything has its default",
        )
    }
}

/// A mapping, or `refuse`.
#[derive(Debug, Clone)]
pub(crate) struct OrRefuse<T>(pub(crate) Option<T>);

impl<T: JsonSchema> JsonSchema for OrRefuse<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}OrRefuse", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let other = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [other, { "const": "refuse", "description": "They are refused." }] })
    }
}

impl<T: FromNode> FromNode for OrRefuse<T> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let View::Mapping(_) = node.view() {
            return T::read(node, owner, reader).map(|other| OrRefuse(Some(other)));
        }
        let text = reader.text(node, "a mapping or `refuse`")?;
        if text.text == "refuse" {
            return Some(OrRefuse(None));
        }
        let message = format!("`{}` is a mapping or `refuse`, not `{}`", owner.key, text.text);
        let help = "write `refuse`, for how long they are held, `{ hold: 10m }`, or where they go, `{ divert: TOPIC }`";
        reader.bad(text.span, message, help)
    }
}

/// A mapping from names that the topology chooses.
#[derive(Debug, Clone)]
pub(crate) struct Table<T>(pub(crate) Vec<(String, Field<T>)>);

impl<T: JsonSchema> JsonSchema for Table<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("TableOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema_parts::map::<T>(generator, None)
    }
}

impl<T: FromNode> FromNode for Table<T> {
    fn read(node: NodeRef<'_>, _: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let read = reader.mapping(node, "a mapping")?.into_iter().map(|entry| {
            let owner = Owner { key: entry.key, span: entry.key_span };
            let value = T::read(entry.value, owner, reader);
            (entry.key.to_owned(), Field { key: entry.key_span, span: entry.value.span(), value })
        });
        Some(Table(read.collect()))
    }
}

/// A [`Table`] whose names are [`Name`]s.
#[derive(Debug, Clone)]
pub(crate) struct NamedTable<T>(pub(crate) Vec<(String, Field<T>)>);

impl<T: JsonSchema> JsonSchema for NamedTable<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("NamedOf{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema_parts::map::<T>(generator, Some(&name_pattern()))
    }
}

impl<T: FromNode> FromNode for NamedTable<T> {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        let Table(entries) = Table::read(node, owner, reader)?;
        entries.iter().for_each(|(name, field)| Name::check(name, field.key, reader));
        Some(NamedTable(entries))
    }
}

/// What a subscriber publishes to: topics by port, or a list of topics that are ports of the same name.
#[derive(Debug, Clone)]
pub(crate) struct Ports(pub(crate) Vec<(String, Field<Word>)>);

impl JsonSchema for Ports {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Ports".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let list = generator.subschema_for::<List<Word>>();
        json_schema!({ "anyOf": [schema_parts::map::<Word>(generator, Some(&name_pattern())), list] })
    }
}

impl FromNode for Ports {
    fn read(node: NodeRef<'_>, owner: Owner<'_>, reader: &mut Reader<'_>) -> Option<Self> {
        if let View::Scalar(_) = node.view() {
            let message = "topics by port are needed here, this is a text";
            let help = "write `{ port: topic }`, or a list `[topic]` where topics are ports of the same name";
            return reader.bad(node.span(), message, help);
        }
        if !matches!(node.view(), View::Sequence(_)) {
            return NamedTable::read(node, owner, reader).map(|NamedTable(ports)| Ports(ports));
        }
        let List(topics) = List::<Word>::read(node, owner, reader)?;
        let mut ports: Vec<(String, Field<Word>)> = Vec::with_capacity(topics.len());
        for (span, topic) in topics {
            if let Some((_, first)) = ports.iter().find(|(port, _)| *port == topic.0) {
                let first = first.span;
                reader.duplicate(&topic.0, span, first, "in a list, each topic is a port", "remove one of the two");
                continue;
            }
            ports.push((topic.0.clone(), Field { key: span, span, value: Some(topic) }));
        }
        Some(Ports(ports))
    }
}
