//! wasi:keyvalue over the state of the current event.
//!
//! A bucket is a name: its content is the state of the current event's lane. A lane's state has one writer, so a swap
//! can only conflict with a write of the same event in between.

#![allow(unreachable_pub, reason = "generated code re-exports the types of handles, which takes a `pub`")]

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::Result;
use wasmtime::component::Resource;

use super::contract::wasi::keyvalue::store::{self, Error, KeyResponse};
use super::contract::wasi::keyvalue::{atomics, batch};
use super::overlay::{KeyValues, Trouble, bucket_name};
use super::store_data::StoreData;
use crate::api::Digest;
use crate::model::call::Keys;

/// An open bucket.
pub struct Bucket(Arc<str>);

/// A key, and a hash of its value when the handle was made: there can be many handles, and values may be large.
pub struct Cas {
    bucket: Arc<str>,
    key: String,
    seen: Option<Digest>,
}

type Answer<T> = Result<std::result::Result<T, Error>>;

/// A refused request is returned to the plugin; other errors end the call.
fn answer<T>(result: std::result::Result<T, Trouble>) -> Answer<T> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Trouble::Refused(words)) => Ok(Err(Error::Other(words))),
        Err(Trouble::Stop(stop)) => Err(stop.into()),
    }
}

fn seen(value: Option<Bytes>) -> Option<Digest> {
    value.map(|value| Digest::of(&value))
}

impl StoreData {
    fn bucket(&self, bucket: &Resource<Bucket>) -> Result<Arc<str>> {
        Ok(Arc::clone(&self.table.get(bucket)?.0))
    }
}

impl store::Host for StoreData {
    fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        match answer(bucket_name(&identifier))? {
            Ok(name) => Ok(Ok(self.push(Bucket(name))?)),
            Err(error) => Ok(Err(error)),
        }
    }
}

impl store::HostBucket for StoreData {
    fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        let bucket = self.bucket(&bucket)?;
        answer(self.store()?.get(&bucket, &key).map(|value| value.map(|value| value.to_vec())))
    }

    fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        answer(self.store()?.set(&bucket, key, value))
    }

    fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        answer(self.store()?.delete(&bucket, key))
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        let bucket = self.bucket(&bucket)?;
        answer(self.store()?.get(&bucket, &key).map(|value| value.is_some()))
    }

    fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<String>) -> Answer<KeyResponse> {
        let bucket = self.bucket(&bucket)?;
        answer(self.store()?.keys(&bucket, cursor.as_deref()).map(|found| {
            let Keys { keys, looked_to: cursor } = found;
            KeyResponse { keys, cursor }
        }))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for StoreData {
    fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        let bucket = self.bucket(&bucket)?;
        answer(self.store()?.increment(&bucket, key, delta))
    }

    fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> Result<std::result::Result<(), atomics::CasError>> {
        let mut cas = self.table.delete(cas)?;
        let mut state = self.store()?;
        let now = match answer(state.get(&cas.bucket, &cas.key))? {
            Ok(now) => seen(now),
            Err(error) => return Ok(Err(atomics::CasError::StoreError(error))),
        };
        if now != cas.seen {
            cas.seen = now;
            return Ok(Err(atomics::CasError::CasFailed(self.push(cas)?)));
        }
        Ok(answer(state.set(&cas.bucket, cas.key, value))?.map_err(atomics::CasError::StoreError))
    }
}

impl atomics::HostCas for StoreData {
    fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        let bucket = self.bucket(&bucket)?;
        match answer(self.store()?.get(&bucket, &key))? {
            Ok(value) => Ok(Ok(self.push(Cas { bucket, key, seen: seen(value) })?)),
            Err(error) => Ok(Err(error)),
        }
    }

    fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        let Cas { bucket, key, .. } = self.table.get(&cas)?;
        let (bucket, key) = (Arc::clone(bucket), key.clone());
        answer(self.store()?.get(&bucket, &key).map(|value| value.map(|value| value.to_vec())))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for StoreData {
    fn get_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<KeyValues> {
        let bucket = self.bucket(&bucket)?;
        answer(self.store()?.get_many(&bucket, keys))
    }

    fn set_many(&mut self, bucket: Resource<Bucket>, entries: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        answer(self.store()?.set_many(&bucket, entries))
    }

    fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        answer(self.store()?.delete_many(&bucket, keys))
    }
}
