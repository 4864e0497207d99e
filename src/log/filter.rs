//! An in-memory filter that says which runs may contain an identity: sorted fingerprints of few bits.
//!
//! ```text
//!   fingerprint   the first bits of a hash: [ bucket | remainder ]
//!   starts        per bucket, the number of its first entry
//!   packed        the entries [ remainder | run ], bit-packed, sorted within their bucket
//! ```
//!
//! Promises: no false negatives. A false positive has a probability of 1 in 2^(bits of the fingerprint) per entry.
//! Filters can be merged, and runs removed from them, without reading the identities.

/// Binary logarithm of the minimum entries per bucket. With 16 to 31 entries, the 32 bits per bucket cost at most 2
/// bits per entry, and a search stays within two cache lines.
const BUCKET_ENTRIES_LOG2: u32 = 4;
/// How many fingerprints are prefetched together.
pub(super) const TOUCHED_MAX: usize = 16;
/// Bytes after the last entry, so that each entry can be read as one 64-bit number.
const PADDING: usize = 8;

/// A fingerprint and the number of the run that contains it.
pub(super) type Entry = (u64, u32);

/// Fingerprints of the identities in some runs.
#[derive(Debug)]
pub(super) struct Filter {
    remainder_bits: u32,
    run_bits: u32,
    count: usize,
    starts: Box<[u32]>,
    packed: Box<[u8]>,
}

impl Filter {
    /// A filter of `count` entries in ascending order, from `runs` runs. Fingerprints have `bits` bits.
    pub(super) fn new(bits: u32, runs: usize, count: usize, entries: impl Iterator<Item = Entry>) -> Self {
        let bucket_bits = count.max(1).ilog2().saturating_sub(BUCKET_ENTRIES_LOG2).min(bits);
        let remainder_bits = bits - bucket_bits;
        let run_bits = runs.max(1).next_power_of_two().ilog2();
        let width = (remainder_bits + run_bits) as usize;
        let mut packed = vec![0; (count * width).div_ceil(8) + PADDING];
        let mut starts = Vec::with_capacity((1 << bucket_bits) + 1);
        let mut filled = 0;
        for (number, (fingerprint, run)) in entries.take(count).enumerate() {
            let bucket = (fingerprint >> remainder_bits) as usize;
            if starts.len() <= bucket {
                starts.resize(bucket + 1, number as u32);
            }
            let entry = (fingerprint & mask(remainder_bits)) << run_bits | u64::from(run);
            let bit = number * width;
            if let Some(word) = packed.get_mut(bit / 8..).and_then(<[u8]>::first_chunk_mut::<8>) {
                *word = (u64::from_le_bytes(*word) | entry << (bit % 8)).to_le_bytes();
            }
            filled = number + 1;
        }
        starts.resize((1 << bucket_bits) + 1, filled as u32);
        let (starts, packed) = (starts.into_boxed_slice(), packed.into_boxed_slice());
        Self { remainder_bits, run_bits, count: filled, starts, packed }
    }

    /// The number of entries.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + size_of_val(&*self.starts) + self.packed.len()
    }

    #[inline]
    fn entry(&self, number: usize) -> u64 {
        let width = self.remainder_bits + self.run_bits;
        let bit = number * width as usize;
        let word = self.packed.get(bit / 8..).and_then(<[u8]>::first_chunk::<8>);
        word.map_or(0, |word| u64::from_le_bytes(*word) >> (bit % 8) & mask(width))
    }

    #[inline]
    fn start(&self, bucket: usize) -> usize {
        self.starts.get(bucket).map_or(self.count, |start| *start as usize)
    }

    /// Prefetches into the cache what [`Self::find`] will read, for several fingerprints together: one at a time, each
    /// would wait for memory twice.
    pub(super) fn touch(&self, fingerprints: &[u64]) {
        let mut near = [0; TOUCHED_MAX];
        for (near, fingerprint) in near.iter_mut().zip(fingerprints) {
            *near = self.near(*fingerprint).0;
        }
        let touched = near.iter().take(fingerprints.len()).fold(0, |all, near| all ^ self.entry(*near));
        std::hint::black_box(touched);
    }

    /// The approximate index of a fingerprint, and the bounds of its bucket.
    #[inline]
    fn near(&self, fingerprint: u64) -> (usize, usize, usize) {
        let bucket = (fingerprint >> self.remainder_bits) as usize;
        let remainder = fingerprint & mask(self.remainder_bits);
        let (first, last) = (self.start(bucket), self.start(bucket + 1));
        // Fingerprints are uniformly distributed, so interpolation is close. (Binary search takes 1.6 times as long.)
        let part = (u128::from(remainder) * (last - first) as u128) >> self.remainder_bits;
        (first + part as usize, first, last)
    }

    /// The runs that may contain the identity with this fingerprint, in order.
    #[inline]
    pub(super) fn find(&self, fingerprint: u64) -> impl DoubleEndedIterator<Item = u32> + use<'_> {
        let remainder = fingerprint & mask(self.remainder_bits);
        let (mut from, first, last) = self.near(fingerprint);
        while from > first && self.entry(from - 1) >> self.run_bits >= remainder {
            from -= 1;
        }
        while from < last && self.entry(from) >> self.run_bits < remainder {
            from += 1;
        }
        let mut end = from;
        while end < last && self.entry(end) >> self.run_bits == remainder {
            end += 1;
        }
        (from..end).map(|number| (self.entry(number) & mask(self.run_bits)) as u32)
    }

    /// All entries in ascending order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let mut bucket = 0;
        (0..self.count).map(move |number| {
            while self.start(bucket + 1) <= number {
                bucket += 1;
            }
            let entry = self.entry(number);
            let fingerprint = (bucket as u64) << self.remainder_bits | entry >> self.run_bits;
            (fingerprint, (entry & mask(self.run_bits)) as u32)
        })
    }
}

/// A mask of the lowest `bits` bits.
#[inline]
fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Merges the entries of two filters.
pub(super) fn join(a: impl Iterator<Item = Entry>, b: impl Iterator<Item = Entry>) -> impl Iterator<Item = Entry> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || match (a.peek(), b.peek()) {
        (Some(first), Some(second)) if second < first => b.next(),
        (Some(_), _) => a.next(),
        (None, _) => b.next(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn hash(number: u64) -> u64 {
        let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    #[test]
    fn what_was_put_in_is_found_whatever_the_sizes_are() {
        for bits in [1, 3, 12, 35, 40] {
            for count in [0, 1, 2, 15, 16, 17, 500, 5_000] {
                for runs in [1, 2, 3, 9] {
                    let of = |number: u64| (hash(number) >> (64 - bits), (number % runs) as u32);
                    let mut entries: Vec<Entry> = (0..count).map(of).collect();
                    entries.sort_unstable();
                    let filter = Filter::new(bits, runs as usize, entries.len(), entries.iter().copied());
                    assert_eq!(filter.entries().collect::<Vec<_>>(), entries, "{bits} bits, {count} of {runs}");
                    let known: BTreeSet<Entry> = entries.iter().copied().collect();
                    for number in 0..count + 300 {
                        let (fingerprint, _) = of(number);
                        let found: BTreeSet<Entry> = filter.find(fingerprint).map(|run| (fingerprint, run)).collect();
                        let expected = known.range((fingerprint, 0)..=(fingerprint, u32::MAX)).copied().collect();
                        assert_eq!(found, expected, "{bits} bits, {count} of {runs}, {number}");
                    }
                }
            }
        }
    }

    #[test]
    fn filters_that_are_joined_are_as_one() {
        let of = |run: u32| {
            let mut entries: Vec<Entry> =
                (0..700).map(|number| (hash(number * 3 + u64::from(run)) >> 50, run)).collect();
            entries.sort_unstable();
            entries
        };
        let (first, second) = (of(0), of(1));
        let make = |entries: &[Entry]| Filter::new(14, 1, entries.len(), entries.iter().map(|(bits, _)| (*bits, 0)));
        let (one, other) = (make(&first), make(&second));
        let joined = join(one.entries(), other.entries().map(|(fingerprint, run)| (fingerprint, run + 1)));
        let joined: Vec<Entry> = Filter::new(14, 2, 1_400, joined).entries().collect();
        let mut expected = [first, second].concat();
        expected.sort_unstable();
        assert_eq!(joined, expected);
    }
}
