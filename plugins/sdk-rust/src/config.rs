//! The subscriber's `config:` in the topology. It is fixed for as long as an instance lives, so that a `static`
//! `LazyLock` may keep what was made of it.

use std::fmt::Display;
use std::str::FromStr;

use crate::contract::wasi::config::store;
use crate::failure::Failure;

/// The value of a setting.
pub fn config(name: &str) -> Option<String> {
    store::get(name).ok().flatten()
}

/// The value of a setting that the plugin cannot do without.
///
/// # Errors
/// Retries, because a corrected topology makes it work.
pub fn config_required(name: &str) -> Result<String, Failure> {
    config(name).ok_or_else(|| {
        Failure::retry(format!("the setting `{name}` is missing: add it to this subscriber's `config:`"))
    })
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
        Some(text) => text
            .trim()
            .parse()
            // Without the value, which may be a secret: failures are kept.
            .map_err(|error| Failure::retry(format!("the setting `{name}` does not fit: {error}"))),
    }
}
