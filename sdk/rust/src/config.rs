//! The subscriber's `config:` in the topology. It is fixed for as long as an instance lives, so that a `static`
//! `LazyLock` may keep what was made of it.
//!
//! [`config!`](crate::config!) declares it as a type: what the topology says is read as that, and the bus refuses what
//! does not fit before the plugin runs, also a mistyped name. [`config`], [`config_or`] and [`config_required`] are for
//! plugins that declare nothing.

use std::fmt::Display;
use std::str::FromStr;

use crate::contract::wasi::config::store;
use crate::failure::Failure;

/// Declares the configuration of the plugin, as a type with a default where there is one:
///
/// ```ignore
/// config! {
///     /// What the greeter is told.
///     struct Settings {
///         /// What a greeting begins with.
///         word: String = "Hello",
///         /// How often.
///         times: u32 = 1,
///         /// What it ends with.
///         end: Option<String>,
///         /// There is no default: the topology has to say it.
///         language: String,
///     }
/// }
///
/// fn handle(event: Event) -> Result<Output, Failure> {
///     let settings = Settings::get()?;
///     …
/// }
/// ```
///
/// A plugin declares one. The component says it as a JSON Schema, with the comments as descriptions, in the custom
/// section `wattle:config-schema`: `wattle check`, `plan`, `apply`, `test`, `dev` and a deploy hold the topology
/// against it.
#[macro_export]
macro_rules! config {
    (
        $(#[doc = $about:literal])*
        $visibility:vis struct $name:ident {
            $(
                $(#[doc = $doc:literal])*
                $field_visibility:vis $field:ident : $type:ty $(= $default:literal)?
            ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        $visibility struct $name {
            $( $(#[doc = $doc])* $field_visibility $field: $type, )*
        }

        impl $name {
            /// What the topology says, with the defaults where it does not; read once in the life of an instance.
            ///
            /// # Errors
            /// Retries where it does not fit, because a corrected topology makes it work.
            $visibility fn get() -> Result<&'static Self, $crate::Failure> {
                static READ: std::sync::OnceLock<$name> = std::sync::OnceLock::new();
                if let Some(read) = READ.get() {
                    return Ok(read);
                }
                let read = Self { $( $field: $crate::setting(stringify!($field), &[$( concat!($default) )?])?, )* };
                Ok(READ.get_or_init(|| read))
            }
        }

        const _: () = {
            const PIECES: &[$crate::schema::Piece] = &[
                $crate::schema::Piece::Raw(r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object""#),
                $crate::schema::Piece::About(concat!($($about, "\n"),*)),
                $crate::schema::Piece::Raw(r#","additionalProperties":false,"properties":{"#),
                $(
                    $crate::schema::Piece::Name(stringify!($field)),
                    $crate::schema::Piece::Raw(<$type as $crate::Setting>::SCHEMA),
                    $crate::schema::Piece::About(concat!($($doc, "\n"),*)),
                    $crate::schema::Piece::Default {
                        is_text: <$type as $crate::Setting>::IS_TEXT,
                        text: &[$( concat!($default) )?],
                    },
                    $crate::schema::Piece::Raw("}"),
                )*
                $crate::schema::Piece::Raw(r#"},"required":["#),
                $(
                    $crate::schema::Piece::Item {
                        is_there: <$type as $crate::Setting>::IS_REQUIRED && {
                            let defaults: &[&str] = &[$( concat!($default) )?];
                            defaults.is_empty()
                        },
                        text: stringify!($field),
                    },
                )*
                $crate::schema::Piece::Raw("]}"),
            ];
            // Nothing that runs: a section of the component, which the bus reads beside the code.
            #[cfg_attr(target_arch = "wasm32", unsafe(link_section = "wattle:config-schema"))]
            #[used]
            static SCHEMA: [u8; $crate::schema::length(PIECES)] = $crate::schema::json(PIECES);
        };
    };
}

/// A type that a setting can have. A topology writes it as a text, a number or a boolean; the plugin reads a text.
pub trait Setting: Sized {
    /// Keywords of JSON Schema for it, such as `"type":"string","maxLength":3`.
    const SCHEMA: &'static str;
    /// Whether it is a text to the schema: a default is written so then.
    const IS_TEXT: bool = true;
    /// Whether the topology has to say it where there is no default.
    const IS_REQUIRED: bool = true;

    /// The value of a text.
    ///
    /// # Errors
    /// Why it is none, without the text, which may be a secret.
    fn read(text: &str) -> Result<Self, String>;

    /// The value where the topology says none.
    fn missing() -> Option<Self> {
        None
    }
}

impl Setting for String {
    const SCHEMA: &'static str = r#""type":"string""#;

    fn read(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl Setting for bool {
    const SCHEMA: &'static str = r#""type":"boolean""#;
    const IS_TEXT: bool = false;

    fn read(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("{error}"))
    }
}

impl<T: Setting> Setting for Option<T> {
    const SCHEMA: &'static str = T::SCHEMA;
    const IS_TEXT: bool = T::IS_TEXT;
    const IS_REQUIRED: bool = false;

    fn read(text: &str) -> Result<Self, String> {
        T::read(text).map(Some)
    }

    fn missing() -> Option<Self> {
        Some(None)
    }
}

macro_rules! numbers {
    ($($type:ty: $schema:literal),*) => { $(
        impl Setting for $type {
            const SCHEMA: &'static str = $schema;
            const IS_TEXT: bool = false;

            fn read(text: &str) -> Result<Self, String> {
                text.parse().map_err(|error| format!("{error}"))
            }
        }
    )* };
}

numbers! {
    u8: r#""type":"integer","minimum":0,"maximum":255"#,
    u16: r#""type":"integer","minimum":0,"maximum":65535"#,
    u32: r#""type":"integer","minimum":0,"maximum":4294967295"#,
    u64: r#""type":"integer","minimum":0,"maximum":18446744073709551615"#,
    // As large as it is where plugins run.
    usize: r#""type":"integer","minimum":0,"maximum":4294967295"#,
    i32: r#""type":"integer","minimum":-2147483648,"maximum":2147483647"#,
    i64: r#""type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807"#,
    f64: r#""type":"number""#
}

/// The value of a declared setting; `default` has one text or none.
#[doc(hidden)]
pub fn setting<T: Setting>(name: &str, default: &[&str]) -> Result<T, Failure> {
    let text = config(name);
    let Some(text) = text.as_deref().or(default.first().copied()) else {
        return T::missing().ok_or_else(|| missing(name));
    };
    T::read(text).map_err(|error| misfit(name, &error))
}

fn missing(name: &str) -> Failure {
    Failure::retry(format!("the setting `{name}` is missing: add it to this subscriber's `config:`"))
}

/// Without the value, which may be a secret: failures are kept.
fn misfit(name: &str, error: &dyn Display) -> Failure {
    Failure::retry(format!("the setting `{name}` does not fit: {error}"))
}

/// The value of a setting.
pub fn config(name: &str) -> Option<String> {
    store::get(name).ok().flatten()
}

/// The value of a setting that the plugin cannot do without.
///
/// # Errors
/// Retries, because a corrected topology makes it work.
pub fn config_required(name: &str) -> Result<String, Failure> {
    config(name).ok_or_else(|| missing(name))
}

/// The value of a setting, or a default where the topology does not give it.
///
/// # Errors
/// Retries when it cannot be read as a `T`, because a corrected topology makes it work.
pub fn config_or<T>(name: &str, default: T) -> Result<T, Failure>
where
    T: FromStr,
    T::Err: Display,
{
    match config(name) {
        None => Ok(default),
        Some(text) => text.trim().parse().map_err(|error: T::Err| misfit(name, &error)),
    }
}
