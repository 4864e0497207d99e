//! What a handler keeps from one event to the next.
//!
//! ```ignore
//! let visits = state::increment(&format!("visits/{}", event.key), 1)?;
//! ```
//!
//! Each partition has a state of its own, so that events with the same key always meet the same state, and nobody else
//! writes it meanwhile. What an event wrote is committed together with its outputs; when the event fails, it is as if
//! it had written nothing.
//!
//! Keys have 1 to 1,024 bytes, values at most 1 MiB; one event may write 4 MiB and 10,000 keys. An error is a
//! [`Failure`] that tries again: trouble with state may pass.

use std::sync::OnceLock;

use crate::contract::wasi::keyvalue::{atomics, store};
use crate::failure::Failure;

/// The value under a key.
///
/// # Errors
/// Retries when the key cannot be one.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, Failure> {
    default()?.get(key)
}

/// Puts a value under a key, whatever was there.
///
/// # Errors
/// Retries when it is larger than is allowed, or when the event has written too much.
pub fn set(key: &str, value: impl AsRef<[u8]>) -> Result<(), Failure> {
    default()?.set(key, value)
}

/// Removes a key, if it is there.
///
/// # Errors
/// Retries when the key cannot be one, or when the event has written too much.
pub fn delete(key: &str) -> Result<(), Failure> {
    default()?.delete(key)
}

/// Whether there is a value under a key.
///
/// # Errors
/// Retries when the key cannot be one.
pub fn exists(key: &str) -> Result<bool, Failure> {
    default()?.exists(key)
}

/// Adds to the number under a key, which is 0 where there is none, and gives the sum. It is kept in decimal digits.
///
/// # Errors
/// Retries when what is there is not a number, or when the sum does not fit.
pub fn increment(key: &str, delta: i64) -> Result<i64, Failure> {
    default()?.increment(key, delta)
}

/// The value under a key, read as JSON.
///
/// # Errors
/// Retries when it is not what this plugin reads: another version of the plugin may.
#[cfg(feature = "json")]
pub fn get_json<T: serde::de::DeserializeOwned>(key: &str) -> Result<Option<T>, Failure> {
    default()?.get_json(key)
}

/// Puts a value under a key, as JSON.
///
/// # Errors
/// Retries as [`set`] does, and rejects when the value cannot be JSON.
#[cfg(feature = "json")]
pub fn set_json<T: serde::Serialize + ?Sized>(key: &str, value: &T) -> Result<(), Failure> {
    default()?.set_json(key, value)
}

/// All keys, in ascending order of their bytes. They are read 1,000 at once, as far as they are asked for.
///
/// # Errors
/// As the bucket's are.
pub fn keys() -> Result<Keys<'static>, Failure> {
    Ok(default()?.keys())
}

/// A bucket with a name of up to 64 bytes: keys of their own. The functions of this module are about the bucket
/// `default`.
///
/// # Errors
/// Retries when the name is longer.
pub fn bucket(name: &str) -> Result<Bucket, Failure> {
    store::open(name).map(Bucket).map_err(|error| trouble("opening", name, error))
}

fn default() -> Result<&'static Bucket, Failure> {
    // Open for as long as the instance lives: it is a name, and means the state of whatever event is current.
    static DEFAULT: OnceLock<Bucket> = OnceLock::new();
    match DEFAULT.get() {
        Some(bucket) => Ok(bucket),
        None => bucket("").map(|bucket| DEFAULT.get_or_init(|| bucket)),
    }
}

/// Keys and values of their own.
#[derive(Debug)]
pub struct Bucket(store::Bucket);

impl Bucket {
    /// As the function [`get`].
    ///
    /// # Errors
    /// As there.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.0.get(key).map_err(|error| trouble("reading", key, error))
    }

    /// As the function [`set`].
    ///
    /// # Errors
    /// As there.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.0.set(key, value.as_ref()).map_err(|error| trouble("writing", key, error))
    }

    /// As the function [`delete`].
    ///
    /// # Errors
    /// As there.
    pub fn delete(&self, key: &str) -> Result<(), Failure> {
        self.0.delete(key).map_err(|error| trouble("deleting", key, error))
    }

    /// As the function [`exists`].
    ///
    /// # Errors
    /// As there.
    pub fn exists(&self, key: &str) -> Result<bool, Failure> {
        self.0.exists(key).map_err(|error| trouble("reading", key, error))
    }

    /// As the function [`increment`].
    ///
    /// # Errors
    /// As there.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, Failure> {
        atomics::increment(&self.0, key, delta).map_err(|error| trouble("incrementing", key, error))
    }

    /// As the function [`get_json`].
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "json")]
    pub fn get_json<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Failure> {
        let Some(value) = self.get(key)? else { return Ok(None) };
        serde_json::from_slice(&value).map(Some).map_err(|error| {
            Failure::retry(format!("state: what is under {key:?} is not what this plugin reads: {error}"))
        })
    }

    /// As the function [`set_json`].
    ///
    /// # Errors
    /// As there.
    #[cfg(feature = "json")]
    pub fn set_json<T: serde::Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Failure> {
        let value = serde_json::to_vec(value)
            .map_err(|error| Failure::reject(format!("state: the value for {key:?} cannot be JSON: {error}")))?;
        self.set(key, value)
    }

    /// As the function [`keys`].
    pub fn keys(&self) -> Keys<'_> {
        Keys { bucket: self, page: Vec::new().into_iter(), next: Next::First }
    }
}

/// The keys of a bucket, in ascending order. What the event wrote before the next page is read is among them.
#[derive(Debug)]
pub struct Keys<'a> {
    bucket: &'a Bucket,
    page: std::vec::IntoIter<String>,
    next: Next,
}

#[derive(Debug)]
enum Next {
    First,
    Behind(String),
    Nothing,
}

impl Iterator for Keys<'_> {
    type Item = Result<String, Failure>;

    fn next(&mut self) -> Option<Result<String, Failure>> {
        loop {
            if let Some(key) = self.page.next() {
                return Some(Ok(key));
            }
            let cursor = match std::mem::replace(&mut self.next, Next::Nothing) {
                Next::First => None,
                Next::Behind(cursor) => Some(cursor),
                Next::Nothing => return None,
            };
            match self.bucket.0.list_keys(cursor.as_deref()) {
                Ok(page) => {
                    self.page = page.keys.into_iter();
                    self.next = page.cursor.map_or(Next::Nothing, Next::Behind);
                }
                Err(error) => return Some(Err(trouble("listing behind", &cursor.unwrap_or_default(), error))),
            }
        }
    }
}

fn trouble(doing: &str, what: &str, error: store::Error) -> Failure {
    let why = match error {
        store::Error::NoSuchStore => "there is no such bucket",
        store::Error::AccessDenied => "it is not this plugin's",
        store::Error::Other(ref words) => words,
    };
    // A key may be what is too long.
    let shown = what.chars().take(64).collect::<String>();
    Failure::retry(format!("state: {doing} {shown:?}: {why}"))
}
