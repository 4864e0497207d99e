//! The segments of a partition, ordered by offset.
//!
//! Promises: copies, and changes of the open segment, have constant cost. The list of sealed segments is copied only
//! when a segment is sealed or removed.

use std::sync::Arc;

use super::segment::SegmentMeta;
use crate::model::Offset;

#[derive(Debug, Clone, Default)]
pub(super) struct Segments {
    sealed: Arc<[SegmentMeta]>,
    /// The last one, unless it is sealed.
    open: Option<SegmentMeta>,
}

impl Segments {
    /// The last one, sealed or not.
    pub(super) fn last(&self) -> Option<&SegmentMeta> {
        self.open.as_ref().or_else(|| self.sealed.last())
    }

    /// The one to which events are still appended.
    pub(super) fn open(&self) -> Option<SegmentMeta> {
        self.open
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &SegmentMeta> {
        self.sealed.iter().chain(&self.open)
    }

    /// The one that contains an offset, or the first one after it.
    pub(super) fn find(&self, offset: Offset) -> Option<&SegmentMeta> {
        let at = self.sealed.partition_point(|meta| meta.end_offset <= offset);
        self.sealed.get(at).or_else(|| self.open.as_ref().filter(|open| open.end_offset > offset))
    }

    /// Replaces the open segment, or adds one after the sealed ones.
    pub(super) fn put(&mut self, meta: SegmentMeta) {
        if meta.is_sealed {
            self.sealed = self.sealed.iter().copied().chain([meta]).collect();
            self.open = None;
        } else {
            self.open = Some(meta);
        }
    }

    /// Removes and returns the first segments.
    pub(super) fn remove_first(&mut self, count: usize) -> Vec<SegmentMeta> {
        let gone: Vec<_> = self.iter().take(count).copied().collect();
        self.sealed = self.sealed.iter().skip(count).copied().collect();
        if self.open.is_some_and(|open| gone.last().is_some_and(|last| last.base_offset == open.base_offset)) {
            self.open = None;
        }
        gone
    }
}

impl From<&[SegmentMeta]> for Segments {
    fn from(all: &[SegmentMeta]) -> Self {
        match all.split_last() {
            Some((last, sealed)) if !last.is_sealed => Self { sealed: sealed.into(), open: Some(*last) },
            _ => Self { sealed: all.into(), open: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(base_offset: Offset, end_offset: Offset, is_sealed: bool) -> SegmentMeta {
        SegmentMeta {
            base_offset,
            end_offset,
            bytes: 1,
            first_time_ns: 0,
            last_time_ns: 0,
            first_trusted_ns: 0,
            last_trusted_ns: 0,
            is_sealed,
        }
    }

    fn bases(segments: &Segments) -> Vec<Offset> {
        segments.iter().map(|meta| meta.base_offset).collect()
    }

    #[test]
    fn every_offset_is_found_in_its_segment() {
        let mut segments = Segments::from([meta(0, 10, true), meta(10, 20, true), meta(20, 25, false)].as_slice());
        let found = |segments: &Segments, offset| segments.find(offset).map(|meta| meta.base_offset);
        assert_eq!([0, 9, 10, 24].map(|offset| found(&segments, offset)), [Some(0), Some(0), Some(10), Some(20)]);
        assert_eq!(found(&segments, 25), None);
        segments.put(meta(20, 30, true));
        assert_eq!((found(&segments, 29), segments.open()), (Some(20), None));
        segments.put(meta(30, 31, false));
        assert_eq!(segments.remove_first(2).len(), 2);
        assert_eq!((bases(&segments), found(&segments, 3)), (vec![20, 30], Some(20)));
        assert_eq!(segments.remove_first(2).len(), 2);
        assert!(segments.last().is_none() && segments.open().is_none());
    }

    #[test]
    fn what_is_added_to_the_last_one_copies_none_of_the_others() {
        let all: Vec<_> = (0..1_000).map(|at| meta(at, at + 1, true)).collect();
        let mut segments = Segments::from(all.as_slice());
        let before = segments.clone();
        for end in 1_001..1_100 {
            segments.put(meta(1_000, end, false));
        }
        assert!(Arc::ptr_eq(&segments.sealed, &before.sealed));
        assert_eq!((segments.iter().count(), before.iter().count()), (1_001, 1_000));
    }
}
