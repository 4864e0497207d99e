//! Stores components that are uploaded, until a record names them.
//!
//! Promises: a component is held only when it is durable. Relies on: [`Uploads`](super::uploads::Uploads) for bounds.

use std::collections::BTreeSet;

use crate::api::Digest;
use crate::deploy::record::error::StoreError;
use crate::deploy::record::file::StoreFailure;
use crate::deploy::record::shelf::{Shelf, name_of};
use crate::deploy::record::store::Store;

impl Store {
    /// Whether an upload is needed: the component is not held yet, and there is room for it.
    ///
    /// # Errors
    /// [`StoreError::UploadsFull`].
    pub(crate) fn needs_upload(&mut self, component: Digest, bytes: u64, now_ns: u64) -> Result<bool, StoreError> {
        self.expire_uploads(now_ns);
        if self.uploads.renew(component, now_ns) {
            return Ok(false);
        }
        self.uploads.admit(bytes, now_ns).map(|()| true)
    }

    /// Begins an upload: then comes [`Shelf::put`], which needs no lock on the store, and [`Self::end_upload`]. `None`
    /// if the component is held already.
    ///
    /// # Errors
    /// [`StoreError::UploadsFull`], [`StoreError::Poisoned`].
    pub(crate) fn begin_upload(
        &mut self,
        component: Digest,
        bytes: u64,
        now_ns: u64,
    ) -> Result<Option<Shelf>, StoreError> {
        if !self.needs_upload(component, bytes, now_ns)? {
            return Ok(None);
        }
        let shelf = self.announce(component)?;
        self.uploads.begin(bytes);
        Ok(Some(shelf))
    }

    /// Reports the result of writing an upload.
    ///
    /// # Errors
    /// The error of the write.
    pub(crate) fn end_upload(
        &mut self,
        component: Digest,
        bytes: u64,
        (put, now_ns): (Result<(), StoreFailure>, u64),
    ) -> Result<(), StoreError> {
        self.uploads.end(bytes);
        self.kept(component, put)?;
        match self.uploads.renew(component, now_ns) {
            true => self.release(component), // another caller has uploaded the same meanwhile
            false => self.uploads.hold(component, bytes, now_ns),
        }
        Ok(())
    }

    /// The components that are not stored, also if a record names them. Those that are held are held for longer.
    pub(crate) fn missing(&mut self, components: &[Digest], now_ns: u64) -> Vec<Digest> {
        self.expire_uploads(now_ns);
        let named: BTreeSet<Digest> = self.named_components().collect();
        let shelf = self.shelf();
        let is_there = |component: &Digest| named.contains(component) && shelf.length(*component).is_ok();
        let is_missing = |component: &Digest| !self.uploads.renew(*component, now_ns) && !is_there(component);
        components.iter().copied().filter(is_missing).collect()
    }

    /// Keeps components for a caller that will decide on them, until [`Self::let_go`].
    ///
    /// # Errors
    /// The missing ones; then none is kept.
    pub(crate) fn hold(&mut self, components: &[Digest], now_ns: u64) -> Result<(), Vec<Digest>> {
        let missing = self.missing(components, now_ns);
        if !missing.is_empty() {
            return Err(missing);
        }
        for component in components {
            *self.to_be_named.entry(name_of(*component)).or_default() += 1;
        }
        Ok(())
    }

    /// The decision was made or not. A component that is in use needs its upload no longer.
    pub(crate) fn let_go(&mut self, components: &[Digest], are_used: bool) {
        for component in components {
            self.release(*component);
            if are_used && self.uploads.remove(*component) {
                self.release(*component);
            }
        }
    }

    /// Removes uploads whose time is over. Whether any are left.
    pub(crate) fn expire_uploads(&mut self, now_ns: u64) -> bool {
        for component in self.uploads.expire(now_ns) {
            self.release(component);
        }
        !self.uploads.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::deploy::record::uploads::HELD_FOR;
    use crate::effects::{MemoryDisk, SystemClock};
    use crate::limits::COMPONENT_BYTES_MAX;

    const HOUR_NS: u64 = HELD_FOR.as_nanos() as u64;

    fn upload(store: &mut Store, number: u64, bytes: u64, now_ns: u64) -> Result<(), StoreError> {
        let component = Digest::of(&number.to_le_bytes());
        match store.begin_upload(component, bytes, now_ns)? {
            Some(_) => store.end_upload(component, bytes, (Ok(()), now_ns)),
            None => Ok(()),
        }
    }

    #[test]
    fn uploads_are_bounded_and_a_refusal_says_what_to_do() {
        for (bytes, most) in [(COMPONENT_BYTES_MAX, 16), (1, 1_024)] {
            let mut store = Store::open(MemoryDisk::default(), Arc::new(SystemClock)).unwrap();
            for number in 0..most {
                upload(&mut store, number, bytes, number).unwrap();
            }
            let refused = upload(&mut store, most, bytes, 10).unwrap_err().to_string();
            let expected = "uploaded components that nothing uses yet have 1GiB of at most 1GiB: apply or deploy them, \
                            or try again in 1h, when the oldest one is removed";
            assert_eq!(refused, expected);
            upload(&mut store, 3, bytes, 10).expect("it is there, and is renewed");
            // what is used, and what has expired, is counted no longer
            let used = Digest::of(&5_u64.to_le_bytes());
            store.hold(&[used], 20).unwrap();
            store.let_go(&[used], true);
            upload(&mut store, most, bytes, 30).unwrap();
            upload(&mut store, most + 1, bytes, 30).unwrap_err();
            upload(&mut store, most + 1, bytes, HOUR_NS).unwrap();
            assert!(store.expire_uploads(HOUR_NS + 10 - 1));
            assert!(store.missing(&[Digest::of(&3_u64.to_le_bytes())], HOUR_NS + 10 - 1).is_empty());
        }
    }

    #[test]
    fn bytes_that_are_being_written_are_counted() {
        let mut store = Store::open(MemoryDisk::default(), Arc::new(SystemClock)).unwrap();
        let component = |number: u64| Digest::of(&number.to_le_bytes());
        for number in 0..16 {
            assert!(store.begin_upload(component(number), COMPONENT_BYTES_MAX, 0).unwrap().is_some());
        }
        assert_eq!(store.missing(&[component(0)], 0), [component(0)], "it is not durable yet");
        assert!(store.begin_upload(component(16), COMPONENT_BYTES_MAX, 0).is_err());
        let failed = StoreFailure { error: StoreError::NoRoom, is_unknown: false };
        store.end_upload(component(0), COMPONENT_BYTES_MAX, (Err(failed), 0)).unwrap_err();
        assert!(store.begin_upload(component(16), COMPONENT_BYTES_MAX, 0).unwrap().is_some());
        assert!(store.to_be_named.len() == 16 && store.uploads.is_empty());
    }
}
